"""Make the demo data set: videos, annotations and a library of their features, where they are not there yet."""

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

DEMO_VIDEOS = 40  # of the demo data set
DEMO_SENTENCES = 8  # asked about each


def prepare_demo(
    recipe: Recipe, split: str, progress: Reporter = silent, device: str | None = None
) -> tuple[Path, Path]:
    """Make the demo data set, as far as it is not there: videos, annotations, and a library of them.

    Args:
        recipe: the demo's.
        split: "train", "val" or "test".
        progress: told of every frame that is rendered, and of every step of indexing.
        device: that the videos are encoded on; None takes the best there is.

    Returns:
        The library and the annotations.

    Raises:
        VtgError: no such split, or the folder cannot be written to.
    """
    from vtg.demo import make_videos

    folder = recipe.data.folder / split
    videos = make_videos(
        folder,
        split,
        DEMO_VIDEOS,
        sentences=DEMO_SENTENCES,
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
        folder: of the library; videos that are in it already are skipped.
        videos: rendered videos.
        model: whose CLIP encodes them, in float32.
        progress: called while videos are indexed.
        device: that CLIP runs on; None takes the best there is.

    Returns:
        The library's folder.

    Raises:
        VtgError: the folder cannot be written to, or holds a library of another CLIP.
    """
    from vtg.library.library import Library

    storage = Storage("float16", keep_layers=True)
    library = Library(folder, model, device, storage=storage, encoding="float32")
    library.add([video.path for video in videos], progress)
    return library.folder
