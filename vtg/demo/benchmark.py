"""Create the demo data set: videos, annotations and a library of their features; existing files are kept."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vtg.library.settings import Storage
from vtg.progress import Reporter, silent
from vtg.recipes import Recipe

if TYPE_CHECKING:
    from vtg.demo.videos import DemoVideo
    from vtg.models.specs import ModelSpec

__all__ = ["index_demo", "prepare_demo"]

SPLIT_VIDEOS = 40  # videos in each split of the data set
VIDEO_SENTENCES = 8  # maximum sentences for each video


def prepare_demo(
    recipe: Recipe, split: str, progress: Reporter = silent, device: str | None = None
) -> tuple[Path, Path]:
    """Create the missing videos, annotations and library entries of a split of the demo data set.

    Args:
        recipe: the recipe "demo".
        split: "train", "val" or "test".
        progress: called after every rendered frame, and during indexing.
        device: device of CLIP; None for the fastest available.

    Returns:
        Paths of the library and of the annotations.

    Raises:
        VtgError: there is no such split, or the folder cannot be written to.
    """
    from vtg.demo import make_videos

    folder = recipe.data.folder / split
    videos = make_videos(
        folder,
        split,
        SPLIT_VIDEOS,
        sentences=VIDEO_SENTENCES,
        progress=progress,
    )
    library = index_demo(folder / "library", videos, "demo", progress, device)
    return library, folder / "annotations.jsonl"


def index_demo(
    folder: Path,
    videos: Iterable[DemoVideo],
    model: ModelSpec | str,
    progress: Reporter,
    device: str | None = None,
) -> Path:
    """Index demo videos with CLIP's layers, so that any head can be trained or evaluated on them.

    Args:
        folder: folder of the library; indexed videos are skipped.
        videos: rendered videos.
        model: the model whose CLIP encodes them, in float32.
        progress: called during indexing.
        device: device of CLIP; None for the fastest available.

    Returns:
        The library's folder.

    Raises:
        VtgError: the folder cannot be written to, or contains a library of another CLIP.
    """
    from vtg.library.library import Library

    storage = Storage("float16", keep_layers=True)
    library = Library(folder, model, device, storage=storage, encoding="float32")
    library.add([video.path for video in videos], progress)
    return library.folder
