"""Receive uploaded files: stream them to disk, and add complete videos of an allowed size to the library."""

from __future__ import annotations

import contextlib
import functools
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vtg.errors import VideoError, VtgError
from vtg.files.whole import fitted_name

from .names import safe_name
from .tasks import add_videos

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from .backend import Backend

__all__ = ["MAX_UPLOADS", "delete_abandoned_uploads", "upload_route", "upload_url"]

BLOCK_BYTES = 1 << 20  # written at a time
PARTIAL_SUFFIX = ".part"  # of files that are being uploaded
ABANDONED_AFTER_SECONDS = 3600.0  # without a write to a partial file
MAX_UPLOADS = 4  # at the same time, of all sessions
STALLED_SECONDS = 60.0  # in which `BLOCK_BYTES`, or the rest of the file, must arrive
MAX_UPLOAD_SECONDS = 12 * 3600.0  # for one upload
MIN_FREE_BYTES = 100_000_000  # of the disk that uploads must leave free
MAX_URL_NAME_CHARACTERS = 8192  # characters in a URL


class _Refused(Exception):  # noqa: N818 - an answer
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Slots:
    """Counts the uploads that are being received."""

    def __init__(self) -> None:
        self._taken = 0

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """Use a slot for a ``with`` block.

        Raises:
            _Refused: all slots are in use.
        """
        self.check()
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    def check(self) -> None:
        """Raise `_Refused` if all slots are in use."""
        if self._taken >= MAX_UPLOADS:
            raise _Refused(429, f"{MAX_UPLOADS} files are being uploaded already: try again when one is complete")


def upload_url(backend: Backend) -> str:
    """The address for uploads: one file as the body of a POST, with ``?name=``.

    A GET with ``&size=`` checks beforehand whether a file would be accepted.
    """
    return f"/vtg/{backend.upload_token}/upload"


def upload_route(backend: Callable[[], Backend]) -> Route:
    """The route of `upload_url`.

    Args:
        backend: returns the current backend.
    """
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    slots = _Slots()

    async def endpoint(request: Request) -> Response:
        shown = backend().shown
        try:
            if request.method == "POST":
                return JSONResponse(await _receive(backend(), request, slots))
            name = _check_request(backend(), request, request.query_params.get("size", ""))
            slots.check()
            return JSONResponse({"name": name})
        except _Refused as refusal:
            return JSONResponse({"reason": shown.text(str(refusal))}, refusal.status)
        except VtgError as error:
            return JSONResponse({"reason": shown.text(str(error))}, 422)
        except OSError as error:
            return JSONResponse({"reason": f"the file could not be saved: {error.strerror}"}, 507)

    return Route("/vtg/{token}/upload", endpoint, methods=["GET", "POST"])


def _check_request(backend: Backend, request: Request, size: str) -> str:
    """The name under which an announced file would be saved.

    Raises:
        _Refused: not allowed, the file is too large, or the disk is too full.
        VtgError: the name does not have the suffix of a video.
    """
    if not secrets.compare_digest(request.path_params["token"].encode(), backend.upload_token.encode()):
        raise _Refused(403, "this page is outdated: reload it")
    limit = backend.options.upload_bytes
    if not limit:
        raise _Refused(403, "uploads are disabled on this page")
    name = safe_name(request.query_params.get("name", "")[-MAX_URL_NAME_CHARACTERS:])
    if backend.is_deleted:
        raise _Refused(410, "the library does not exist any more")
    announced = int(size) if size.isascii() and size.isdigit() and len(size) < 20 else 0
    if announced > limit or len(size) >= 20:
        raise _Refused(413, _too_large(name, limit))
    place = next((place for place in (backend.library.folder, *backend.library.folder.parents) if place.is_dir()), None)
    if place is not None and announced and announced + MIN_FREE_BYTES > shutil.disk_usage(place).free:
        raise _Refused(507, f"{name}: there is not enough free space on the server's disk")
    return name


async def _receive(backend: Backend, request: Request, slots: _Slots) -> dict[str, object]:
    from anyio import to_thread

    name = _check_request(backend, request, request.headers.get("content-length", ""))
    with slots.take():
        backend.library.begin()
        backend.uploads.mkdir(exist_ok=True)
        delete_abandoned_uploads(backend.uploads)
        part = backend.uploads / f".{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
        try:
            await _write(request, part, name, backend.options.upload_bytes)
            await to_thread.run_sync(_check, part, name)
            if await request.is_disconnected():
                raise _broken_off(name)
            path = _keep(part, backend.uploads, name)
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
    job = add_videos(backend, [path], path.name, on_failure=functools.partial(_drop_unknown, backend, path))
    return {"name": path.name, "job": job.number}


async def _write(request: Request, part: Path, name: str, limit: int) -> None:
    from anyio import move_on_after, to_thread
    from starlette.requests import ClientDisconnect

    size, until = 0, time.monotonic() + MAX_UPLOAD_SECONDS
    blocks = request.stream()
    try:
        with part.open("wb") as file:
            while True:
                waiting, ended = bytearray(), False
                with move_on_after(min(STALLED_SECONDS, until - time.monotonic())) as patience:
                    ended = await _fill(waiting, blocks, limit - size)
                size += len(waiting)
                if size > limit:
                    raise _Refused(413, _too_large(name, limit))
                if patience.cancelled_caught:
                    raise _Refused(408, f"{name}: the upload is too slow: try again with a faster connection")
                await to_thread.run_sync(file.write, bytes(waiting))
                if ended:
                    return
    except ClientDisconnect:
        raise _broken_off(name) from None


async def _fill(waiting: bytearray, blocks: AsyncIterator[bytes], most: int) -> bool:
    """Collect data until there is a block to write; return whether the upload has ended."""
    async for block in blocks:
        waiting += block
        if len(waiting) >= BLOCK_BYTES or len(waiting) > most:
            return False
    return True


def _broken_off(name: str) -> _Refused:
    return _Refused(400, f"{name}: the upload was interrupted: try again")


def delete_abandoned_uploads(folder: Path) -> None:
    """Delete partial files of uploads that were interrupted by the end of their server.

    Args:
        folder: of a library's uploads; it need not exist.
    """
    for part in folder.glob(f".*{PARTIAL_SUFFIX}"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > ABANDONED_AFTER_SECONDS:
                part.unlink()


def _drop_unknown(backend: Backend, path: Path) -> None:
    """Delete an uploaded file whose indexing was cancelled or failed, unless the library lists it."""
    backend.refresh()
    if all(entry.path != str(path) for entry in backend.entries()):
        path.unlink(missing_ok=True)


def _check(part: Path, name: str) -> None:
    """Check that an uploaded file is a video."""
    from vtg.video import probe

    try:
        probe(part)
    except VideoError as error:
        raise VtgError(f"{name}: {error.reason}") from None


def _keep(part: Path, folder: Path, name: str) -> Path:
    """Give a file its final name; an existing name gets a number."""
    stem, suffix = Path(name).stem, Path(name).suffix
    path, number = folder / name, 2
    while path.exists() or path.is_symlink():
        path, number = folder / fitted_name("", stem, f" ({number}){suffix}"), number + 1
    part.replace(path)
    return path


def _too_large(name: str, limit: int) -> str:
    size = f"{limit / 1e9:.3g} GB" if limit >= 1e9 else f"{limit / 1e6:.3g} MB"
    return f"{name}: is larger than {size}, the limit of this page; add it with: vtg index"
