"""A synthetic world of moving shapes, with bundled models; works without a network.

In: seeds. Out: rendered videos with annotations, and search results on them.

Read `world`, `scene` and `scenes` (content), `render` and `videos` (frames and files), `descriptions`, `sentences`,
`wording` and `absences` (queries and their truth), then `benchmark` and `run`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names
from vtg.weights.bundled import clip_path, head_path

if TYPE_CHECKING:
    from vtg.demo.absences import absent_sentences
    from vtg.demo.descriptions import Description, Order
    from vtg.demo.scene import Scene
    from vtg.demo.scenes import long_scene, make_scene, split_seed
    from vtg.demo.sentences import Sentence, Truth, choose_sentences, true_sentences, truth
    from vtg.demo.videos import (
        DemoVideo,
        annotate,
        make_videos,
        write_annotations,
        write_video,
    )
    from vtg.demo.world import CLIP_SECONDS, Thing

__all__ = [
    "CLIP_SECONDS",
    "DemoVideo",
    "Description",
    "Order",
    "Scene",
    "Sentence",
    "Thing",
    "Truth",
    "absent_sentences",
    "annotate",
    "choose_sentences",
    "clip_path",
    "head_path",
    "long_scene",
    "make_scene",
    "make_videos",
    "split_seed",
    "true_sentences",
    "truth",
    "write_annotations",
    "write_video",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CLIP_SECONDS": "world",
        "DemoVideo": "videos",
        "Description": "descriptions",
        "Order": "descriptions",
        "Scene": "scene",
        "Sentence": "sentences",
        "Thing": "world",
        "Truth": "sentences",
        "absent_sentences": "absences",
        "annotate": "videos",
        "choose_sentences": "sentences",
        "long_scene": "scenes",
        "make_scene": "scenes",
        "make_videos": "videos",
        "split_seed": "scenes",
        "true_sentences": "sentences",
        "truth": "sentences",
        "write_annotations": "videos",
        "write_video": "videos",
    },
)
