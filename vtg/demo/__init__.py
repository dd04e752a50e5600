"""A small synthetic world of moving shapes, and what is trained on it: everything works with no network."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vtg.weights.bundled import clip_path, head_path

if TYPE_CHECKING:
    from .absences import absent_sentences as absent_sentences
    from .scenes import long_scene as long_scene
    from .scenes import make_scene as make_scene
    from .scenes import split_seed as split_seed
    from .sentences import Description as Description
    from .sentences import Order as Order
    from .sentences import Sentence as Sentence
    from .sentences import Truth as Truth
    from .sentences import choose_sentences as choose_sentences
    from .sentences import true_sentences as true_sentences
    from .sentences import truth as truth
    from .videos import DemoSample as DemoSample
    from .videos import DemoVideo as DemoVideo
    from .videos import annotate as annotate
    from .videos import make_sample as make_sample
    from .videos import make_videos as make_videos
    from .videos import write_annotations as write_annotations
    from .videos import write_video as write_video
    from .world import CLIP_SECONDS as CLIP_SECONDS
    from .world import Scene as Scene
    from .world import Thing as Thing

_HOMES = {
    "absences": ("absent_sentences",),
    "scenes": ("long_scene", "make_scene", "split_seed"),
    "sentences": ("Description", "Order", "Sentence", "Truth", "choose_sentences", "true_sentences", "truth"),
    "videos": (
        "DemoSample",
        "DemoVideo",
        "annotate",
        "make_sample",
        "make_videos",
        "write_annotations",
        "write_video",
    ),
    "world": ("CLIP_SECONDS", "Scene", "Thing"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CLIP_SECONDS",
    "DemoSample",
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
    "make_sample",
    "make_scene",
    "make_videos",
    "split_seed",
    "true_sentences",
    "truth",
    "write_annotations",
    "write_video",
]


def __getattr__(name: str) -> object:
    # The world needs numpy and PIL, which `import vtg` should not wait for.
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
