"""HTTP routes of files: videos by byte range; posters, previews and clips, which are made on first request.

Streamlit reads its own media files completely into memory, which is impossible for long videos. So the page has routes
of its own, in the same server and on the same port, which also work through proxies and TLS. Each address contains a
secret of this server start, so that other sites cannot read the files, and the content key of a video, so that only
videos of the library can be requested.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from vtg.errors import VtgError
from vtg.files.text import one_line
from vtg.files.whole import fitted_name, write_whole
from vtg.timespans import format_time

from .jobs import DONE

if TYPE_CHECKING:
    from anyio import Semaphore
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from .backend import Backend

__all__ = ["MAX_CLIP_SECONDS", "clip_name", "export_url", "media_routes", "media_url", "result_url"]

WHY_SIDE = 480  # pixels
JPEG_QUALITY = 82
PREVIEW_MARGIN = 0.5  # seconds before and after the moment
MAX_PREVIEW_SECONDS = 20.0  # seconds
MAX_CLIP_SECONDS = 3600.0  # seconds
MAX_PARALLEL_FILES = max(1, (os.cpu_count() or 1) - 1)  # files made at the same time; one core stays free for queries
CLIENT_CLOSED_STATUS = 499  # status of the response to a client that has closed the connection, as in nginx
TYPES = {".webm": "video/webm", ".mkv": "video/x-matroska", ".avi": "video/x-msvideo", ".ogv": "video/ogg"}


def media_url(backend: Backend, kind: str, video: str, *times: float, query: str = "") -> str:
    """The address of a file made from a video.

    Args:
        backend: whose library has it.
        kind: video, proxy, recoded, poster, preview, clip or why.
        video: its content key.
        times: seconds that belong to it.
        query: the sentence, for why.
    """
    parts = ["vtg", backend.secret, kind, video, *(f"{time:.3f}" for time in times)]
    return "/" + "/".join(parts) + (f"?q={quote(query)}" if query else "")


def result_url(backend: Backend, job: int) -> str:
    """The address of a job's result file.

    Args:
        backend: whose job it was.
        job: its number.
    """
    return f"/vtg/{backend.secret}/result/{job}"


def export_url(backend: Backend, results: str, form: str) -> str:
    """The address of an export of search results.

    Args:
        backend: that keeps them.
        results: id from `KeptResults.keep`.
        form: one of `exports.FORMS`.
    """
    return f"/vtg/{backend.secret}/export/{results}/{form.removeprefix('.')}"


def clip_name(path: str, start: float, end: float) -> str:
    """File name of a clip."""
    return fitted_name("", one_line(Path(path).stem), f" {format_time(start)}-{format_time(end)}.mp4".replace(":", "."))


@dataclass(frozen=True)
class _Recipe:
    """A file that is made on first request.

    Attributes:
        suffix: of its name.
        what: cache key: equal parts are the same file.
        make: writes it.
        media_type: of its content.
        name: for downloads; None for files that are displayed.
    """

    suffix: str
    what: tuple[object, ...]
    make: Callable[[Path], object]
    media_type: str
    name: str | None = None


def media_routes(backend: Callable[[], Backend]) -> list[Route]:
    """The routes of the addresses from `media_url`, `result_url` and `export_url`.

    Args:
        backend: returns the current backend.
    """
    from anyio import Semaphore
    from starlette.routing import Route

    slots = Semaphore(MAX_PARALLEL_FILES)

    def route(path: str, answer: Callable[[Backend, Request], Response | _Recipe]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await _respond(backend(), request, answer, slots)

        return Route(f"/vtg/{{secret}}/{path}", endpoint, methods=["GET"])

    return [
        route("video/{video}", _video),
        route("proxy/{video}", _proxy),
        route("recoded/{video}", _proxy),
        route("poster/{video}/{time:float}", _poster),
        route("preview/{video}/{start:float}/{end:float}", _preview),
        route("clip/{video}/{start:float}/{end:float}", _clip),
        route("why/{video}/{start:float}/{end:float}", _why),
        route("result/{job:int}", _result),
        route("export/{results}/{form}", _export),
    ]


async def _respond(
    backend: Backend, request: Request, answer: Callable[[Backend, Request], Response | _Recipe], slots: Semaphore
) -> Response:
    """Check the secret and respond; errors are responses of one line."""
    from anyio import to_thread
    from starlette.responses import PlainTextResponse

    if not secrets.compare_digest(request.path_params["secret"].encode(), backend.secret.encode()):
        return PlainTextResponse("this address is outdated: reload the page", 403)
    try:
        answered = await to_thread.run_sync(answer, backend, request)
        if not isinstance(answered, _Recipe):
            return answered
        path = backend.made.find(answered.suffix, *answered.what)
        if path is None:
            async with slots:
                # The client may have left while the request waited.
                if await request.is_disconnected():
                    return PlainTextResponse("", CLIENT_CLOSED_STATUS)
                path = await to_thread.run_sync(_make, backend, answered)
        return _file(path, answered.media_type, answered.name)
    except VtgError as error:
        return PlainTextResponse(backend.shown.text(str(error)), 404)
    except OSError as error:
        name = f"{Path(str(error.filename)).name}: " if error.filename else ""
        return PlainTextResponse(f"{name}cannot be read or made: {error.strerror}", 507)


def _make(backend: Backend, recipe: _Recipe) -> Path:
    return backend.made.get(recipe.suffix, *recipe.what, make=recipe.make)


def _file(path: Path, media_type: str, name: str | None = None, keep: bool = True) -> Response:
    from starlette.responses import FileResponse

    headers = {"Cache-Control": "private, max-age=3600" if keep else "no-cache"}
    return FileResponse(path, media_type=media_type, filename=name, headers=headers)


def _path_of(backend: Backend, request: Request) -> Path:
    return backend.file(request.path_params["video"])


def _video(backend: Backend, request: Request) -> Response:
    path = _path_of(backend, request)
    # Browsers play QuickTime files under MP4's name, and refuse them under their own.
    return _file(path, TYPES.get(path.suffix.lower(), "video/mp4"), keep=False)


def _proxy(backend: Backend, request: Request) -> Response:
    kind = "recoded" if "/recoded/" in request.url.path else "proxy"
    path = backend.made.find(".mp4", kind, request.path_params["video"])
    if path is None:
        raise VtgError("this copy is not ready yet: try again later")
    return _file(path, "video/mp4", keep=False)


def _poster(backend: Backend, request: Request) -> _Recipe:
    from vtg.video.preview import write_poster

    path, time = _path_of(backend, request), float(request.path_params["time"])
    time = min(time, backend.entry(request.path_params["video"]).duration)
    what = ("poster", request.path_params["video"], f"{time:.3f}")
    return _Recipe(".jpg", what, lambda out: write_poster(path, time, out), "image/jpeg")


def _preview(backend: Backend, request: Request) -> _Recipe:
    from vtg.video.preview import write_preview

    path, (start, end) = _path_of(backend, request), _span(request)
    start, end = max(0.0, start - PREVIEW_MARGIN), min(end + PREVIEW_MARGIN, start + MAX_PREVIEW_SECONDS)
    what = ("preview", request.path_params["video"], f"{start:.3f}-{end:.3f}")
    return _Recipe(".mp4", what, lambda out: write_preview(path, start, end, out), "video/mp4")


def _clip(backend: Backend, request: Request) -> _Recipe:
    from vtg.video import cut

    path, (start, end) = _path_of(backend, request), _span(request)
    if end - start > MAX_CLIP_SECONDS:
        raise VtgError("a clip of more than an hour is cut on the command line: vtg cut")
    what = ("clip", request.path_params["video"], f"{start:.3f}-{end:.3f}")
    name = clip_name(str(path), start, end)
    return _Recipe(".mp4", what, lambda out: cut(path, start, end, out), "video/mp4", name)


def _why(backend: Backend, request: Request) -> _Recipe:
    from vtg.grounding.grounder import Moment
    from vtg.library.library import Hit

    path, (start, end) = _path_of(backend, request), _span(request)
    query = request.query_params.get("q", "")
    hit = Hit(str(path), Moment(start, end, 0.0), start)

    def make(out: Path) -> None:
        _write_jpeg(backend.library.explain(query, hit, WHY_SIDE)[1], out)

    what = ("why", backend.library.model.name, request.path_params["video"], f"{start:.3f}-{end:.3f}", query)
    return _Recipe(".jpg", what, make, "image/jpeg")


def _result(backend: Backend, request: Request) -> Response:
    job = backend.films.find(request.path_params["job"])
    if job is None or job.state != DONE or not isinstance(job.result, tuple):
        raise VtgError("this file does not exist any more: make it again")
    path, name = job.result
    if not path.is_file():
        raise VtgError("this file does not exist any more: make it again")
    return _file(path, "video/mp4", name, keep=False)


def _export(backend: Backend, request: Request) -> Response:
    from starlette.responses import Response as Answer

    form = f".{request.path_params['form']}"
    export = backend.results.export(request.path_params["results"], form, backend.shown.path)
    headers = {"Content-Disposition": f"attachment; filename*=utf-8''{quote(export.name)}", "Cache-Control": "no-store"}
    return Answer(export.text, media_type=export.media_type, headers=headers)


def _span(request: Request) -> tuple[float, float]:
    return float(request.path_params["start"]), float(request.path_params["end"])


def _write_jpeg(picture: Any, out: Path) -> None:
    from PIL import Image

    with write_whole(out) as part:
        Image.fromarray(picture).save(part, format="jpeg", quality=JPEG_QUALITY)
