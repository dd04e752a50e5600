"""The demo world as a data set: videos, annotations and a library of features, rendered when they are first needed."""

from __future__ import annotations

from pathlib import Path

from vtg.library.settings import Storage
from vtg.progress import Reporter, silent
from vtg.recipes import Recipe

__all__ = ["prepare_demo"]

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
    from vtg.library.library import Library

    folder = recipe.data.folder / split
    videos = make_videos(
        folder,
        split,
        DEMO_VIDEOS,
        sentences=DEMO_SENTENCES,
        progress=progress,
    )
    kept = Storage("float16", keep_layers=True)
    library = Library(folder / "library", "demo", device, storage=kept, encoding="float32")
    paths = [video.path for video in videos]
    library.add(paths, progress)
    return library.folder, folder / "annotations.jsonl"
