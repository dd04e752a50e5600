"""Background jobs of the page: indexing, the demo, model downloads, reels, and browser-playable copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vtg.errors import VtgError
from vtg.files.text import one_line
from vtg.library.library import IndexReport, Library
from vtg.library.settings import default_library_path
from vtg.progress import Progress, Reporter, part_of

from .backend import Backend
from .jobs import FAILED, Job

if TYPE_CHECKING:
    from vtg.summary import Plan

__all__ = ["Copy", "add_videos", "make_film", "playable", "pull_model", "start_demo"]

DEMO_VIDEOS, DEMO_SECONDS = 5, 40.0
RENDERING_SHARE = 0.8  # of the demo's progress
SHARPENING_SHARE = 0.2  # of a reel's progress


@dataclass(frozen=True)
class Copy:
    """A playable form of a video.

    Attributes:
        kind: video (the file itself), proxy or recoded, as for `media_url`.
        job: that makes it; None if it exists.
    """

    kind: str
    job: Job | None = None


def add_videos(
    backend: Backend,
    paths: Iterable[Path],
    title: str,
    retry_failed: bool = False,
    on_failure: Callable[[], None] | None = None,
) -> Job:
    """Index files and folders; the job's result is the `IndexReport`.

    Args:
        backend: whose library they are for.
        paths: files, and folders, which are searched recursively.
        title: for display.
        retry_failed: try again what failed before.
        on_failure: called after the job failed or was cancelled.
    """
    paths = list(paths)
    # The folders that visitors may read, and those of files that the library's owner has added from elsewhere.
    owned = [path.parent for path in paths if not backend.roots.hold(path)]
    within = (*backend.roots.places, backend.uploads, *owned)

    def work(job: Job) -> IndexReport:
        library = backend.library
        if backend.is_deleted:  # a library that was deleted is not created again
            raise VtgError(f"{library.folder}: the library does not exist any more")
        job.note = "loading the model"
        with backend.model_lock:
            library.encoder  # noqa: B018 - loaded here, under the lock
        try:
            return library.add(paths, _follow(backend, job), retry_failed, lambda: job.stopping, within)
        finally:
            backend.changed()

    return backend.worker.submit("index", title, work, on_failure)


def _follow(backend: Backend, job: Job) -> Reporter:
    def tell(state: Progress) -> None:
        job.share = state.share
        name = state.path.name if state.path else ""
        job.note = f"{state.done:.0f} of {state.total:.0f} done · {one_line(name)}"
        backend.refresh()

    return tell


def start_demo(backend: Backend) -> Job:
    """Render a few demo videos, index them into a library beside the backend's, and open that library."""
    home = backend.options.folder or default_library_path()
    folder = home.expanduser().with_name(f"{home.name}-demo")

    def work(job: Job) -> None:
        from vtg.demo.videos import make_videos

        videos = make_videos(
            folder.with_name(f"{folder.name}-videos"),
            count=DEMO_VIDEOS,
            seconds=DEMO_SECONDS,
            progress=part_of(job.report, 0.0, RENDERING_SHARE),
        )
        library = Library(folder, "demo", backend.options.device)
        library.add([video.path for video in videos], part_of(job.report, RENDERING_SHARE, 1.0))
        backend.open(library)

    return backend.worker.submit("demo", "Demo videos", work)


def pull_model(backend: Backend, name: str) -> Job:
    """Download a published head."""

    def work(job: Job) -> None:
        from vtg.models.registry import pull

        pull(name, lambda state: job.report(state, f"{state.done / 1e6:.1f} MB"))
        backend.warm_up()

    return backend.worker.submit("pull", name, work)


def make_film(backend: Backend, plan: Plan, name: str) -> Job:
    """Join the clips of a plan in the order of the video; the job's result is the file and its download name.

    Args:
        backend: whose cache keeps the file.
        plan: highlights or a summary.
        name: of the file when it is downloaded.
    """
    from vtg.summary import reel_spans, sharpen
    from vtg.video import write_reel

    spans = sorted((clip.start, clip.end) for clip in plan.clips)

    def work(job: Job) -> tuple[Path, str]:
        look, write = part_of(job.report, 0.0, SHARPENING_SHARE), part_of(job.report, SHARPENING_SHARE, 1.0)

        def make(out: Path) -> None:
            write_reel(sorted(reel_spans(sharpen(plan, look)), key=lambda span: span.start), out, progress=write)

        return backend.made.get(".mp4", "film", plan.video, spans, make=make), name

    return backend.films.submit("film", name, work)


def playable(backend: Backend, video: str, refused: bool = False) -> Copy:
    """A form of a video that browsers can play; makes a copy in the background if necessary.

    Args:
        backend: whose library has it.
        video: its content key.
        refused: a browser could not play the previous form.

    Raises:
        VtgError: the video is not in the library, or cannot be read.
    """
    from vtg.video.preview import browsers_play, write_proxy

    path = str(backend.file(video))
    if not refused and backend.cached(("plays", video), lambda: browsers_play(path)):
        return Copy("video")
    kind = "recoded" if refused else "proxy"
    if backend.made.find(".mp4", kind, video):
        return Copy(kind)
    title = f"{kind} {video}"
    for job in reversed(backend.copies.jobs(kind)):
        if job.title == title and (job.active or job.state == FAILED):
            return Copy(kind, job)

    def work(job: Job) -> None:
        def make(out: Path) -> None:
            write_proxy(path, out, job.report, reencode=refused)

        backend.made.get(".mp4", kind, video, make=make)

    return Copy(kind, backend.copies.submit(kind, title, work))
