"""Takes uploaded files: streams them to the disk, and lets only whole videos of an allowed size into the library."""

from __future__ import annotations

import contextlib
import functools
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vtg.errors import VideoError, VtgError
from vtg.sources import VIDEO_SUFFIXES
from vtg.whole_files import fitted_name

from .tasks import add_videos

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from .backend import Backend

__all__ = ["drop_leftovers", "safe_name", "upload_route", "upload_url"]

WRITTEN_AT_ONCE = 1 << 20  # bytes
PART = ".part"  # how files end that are still being sent
ABANDONED_SECONDS = 3600.0  # after which a file that nobody writes to is one that nobody sends any more
LONGEST_NAME = 120  # characters
UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\u202a-\u202e\u2066-\u2069]+')
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # names that Windows keeps for devices


class _Refused(Exception):  # noqa: N818 - an answer
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def upload_url(backend: Backend) -> str:
    """Where files are sent, each as the whole body of a POST, with ``?name=``."""
    return f"/vtg/{backend.secret}/upload"


def safe_name(name: str) -> str:
    """A file's name without anything that leads elsewhere or that some system cannot write.

    Raises:
        VtgError: it is not the name of a video.
    """
    base = UNSAFE.sub("_", re.split(r"[/\\]", name)[-1]).strip(" .")
    stem, suffix = Path(base).stem.strip(" .") or "video", Path(base).suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        raise VtgError(f"{name[:80]}: is not named like a video (such as .mp4, .mov, .mkv, .webm, .avi)")
    if RESERVED.match(stem):
        stem = f"_{stem}"
    return fitted_name("", stem[: LONGEST_NAME - len(suffix)], suffix)


def upload_route(backend: Callable[[], Backend]) -> Route:
    """The route of `upload_url`.

    Args:
        backend: gives the one to add to.
    """
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await _receive(backend(), request))
        except _Refused as refusal:
            return JSONResponse({"reason": str(refusal)}, refusal.status)
        except VtgError as error:
            return JSONResponse({"reason": str(error)}, 422)
        except OSError as error:
            return JSONResponse({"reason": f"the file could not be kept: {error.strerror}"}, 507)

    return Route("/vtg/{secret}/upload", endpoint, methods=["POST"])


async def _receive(backend: Backend, request: Request) -> dict[str, object]:
    from anyio import to_thread

    if not secrets.compare_digest(request.path_params["secret"].encode(), backend.secret.encode()):
        raise _Refused(403, "this page is of an earlier start: reload it")
    limit = backend.options.upload_bytes
    if not limit:
        raise _Refused(403, "this page takes no uploads")
    name = safe_name(request.query_params.get("name", ""))
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise _Refused(413, _too_large(name, limit))
    if backend.gone:
        raise _Refused(410, f"{backend.library.folder}: the library is not there any more")
    backend.library.begin()
    backend.uploads.mkdir(exist_ok=True)
    drop_leftovers(backend.uploads)
    part = backend.uploads / f".{secrets.token_hex(8)}{PART}"
    try:
        await _write(request, part, name, limit)
        await to_thread.run_sync(_check, part, name)
        if await request.is_disconnected():
            raise _broken_off(name)
        path = _keep(part, backend.uploads, name)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    job = add_videos(backend, [path], path.name, give_up=functools.partial(_drop_unknown, backend, path))
    return {"name": path.name, "job": job.number}


async def _write(request: Request, part: Path, name: str, limit: int) -> None:
    from anyio import to_thread
    from starlette.requests import ClientDisconnect

    waiting, size = bytearray(), 0
    try:
        with part.open("wb") as file:
            async for block in request.stream():
                size += len(block)
                if size > limit:
                    raise _Refused(413, _too_large(name, limit))
                waiting += block
                if len(waiting) >= WRITTEN_AT_ONCE:
                    await to_thread.run_sync(file.write, bytes(waiting))
                    waiting.clear()
            file.write(waiting)
    except ClientDisconnect:
        raise _broken_off(name) from None


def _broken_off(name: str) -> _Refused:
    return _Refused(400, f"{name}: the upload broke off")


def drop_leftovers(folder: Path) -> None:
    """Delete what uploads have left that ended with their server; those that are still being written are left alone.

    Args:
        folder: of a library's uploads; it need not be there.
    """
    for part in folder.glob(f".*{PART}"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                part.unlink()


def _drop_unknown(backend: Backend, path: Path) -> None:
    """Delete an uploaded file whose indexing was cancelled or failed, unless the library lists it all the same."""
    backend.look_again()
    if all(entry.path != str(path) for entry in backend.entries()):
        path.unlink(missing_ok=True)


def _check(part: Path, name: str) -> None:
    """Refuse what is no video."""
    from vtg.video import probe

    try:
        probe(part)
    except VideoError as error:
        raise VtgError(f"{name}: {error.reason}") from None


def _keep(part: Path, folder: Path, name: str) -> Path:
    """Give a file its name; a name that is taken gets a number."""
    stem, suffix = Path(name).stem, Path(name).suffix
    path, number = folder / name, 2
    while path.exists():
        path, number = folder / fitted_name("", stem, f" ({number}){suffix}"), number + 1
    part.replace(path)
    return path


def _too_large(name: str, limit: int) -> str:
    size = f"{limit / 1e9:.3g} GB" if limit >= 1e9 else f"{limit / 1e6:.3g} MB"
    return f"{name}: is larger than {size}, the most that this page takes; add it with: vtg index"
