"""Fetch files over HTTP and from the Hugging Face hub: never more than was announced, and checked by their hash.

`fetch_from_hub` leaves CLIP weights to the hub's client, which keeps them in its cache. `fetch_url` fetches plain URLs,
and the published heads, through the client's HTTP session. The client's own download does not serve for these: up to
version 1.0 it limits nothing that a server sends and reports no progress, and from version 2.0 on it drops what a
download that was stopped has received.
"""

from __future__ import annotations

import hashlib
import os
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from vtg.errors import VtgError
from vtg.files.hashing import file_sha256
from vtg.files.text import error_line
from vtg.files.whole import write_whole
from vtg.progress import Progress, Reporter, silent

__all__ = [
    "BLOCK_BYTES",
    "TooLongError",
    "append_rest",
    "fetch_from_hub",
    "fetch_url",
    "fetch_whole",
]

BLOCK_BYTES = 1 << 16  # bytes read at once
TIMEOUT_SECONDS = 30  # seconds without a byte until a connection counts as broken
PARTIAL_CONTENT = 206  # the HTTP status of an answer to a range
MAX_UNANNOUNCED_BYTES = 4 << 30  # bytes of a file whose size the server does not say
SHA1_DIGITS, SHA256_DIGITS = 40, 64  # of the hub's names for the content of small and of large files


class TooLongError(OSError):
    """A server that sends more than it announced."""


def fetch_url(url: str, path: Path, size: int | None = None, progress: Reporter = silent) -> None:
    """Download a URL into a file, continuing from its present size; retries as long as each attempt receives bytes.

    Args:
        url: the URL.
        path: the file; after an error, it keeps the received bytes for a later call.
        size: size of the complete content, bytes; None for the size that the server states, with which the first
            attempt starts from the beginning.
        progress: called after each block.

    Raises:
        TooLongError: the server sends more than `size`; nothing is kept.
        Exception: of the HTTP library, which differs between versions of the hub's client, or of the disk.
    """

    def note(state: Progress) -> None:
        nonlocal size
        size = None if state.total is None else int(state.total)  # the next attempt continues only if the size is known
        progress(state)

    done = path.stat().st_size if path.exists() else 0
    while True:
        try:
            with path.open("ab") as file:
                append_rest(url, file, size, note)
            return
        except Exception as error:
            before, done = done, path.stat().st_size if path.exists() else 0
            if done <= before or isinstance(error, TooLongError):
                raise


def append_rest(url: str, file: BinaryIO, size: int | None, progress: Reporter = silent) -> None:
    """Append to an open file what it lacks of a URL's content, block by block as it arrives.

    The hub client's own download functions write in blocks of 10 MB, so that a broken connection would cost nearly all
    of a small file; here it costs less than a `BLOCK_BYTES`.

    Args:
        url: the URL.
        file: file opened for appending; its content is the beginning, and is discarded if the server sends everything.
        size: size of the complete content, bytes; None for the size that the server states.
        progress: called after each block.

    Raises:
        TooLongError: the server sends more than `size`; nothing is kept.
        ConnectionError: it sends less.
    """
    done = file.seek(0, os.SEEK_END)
    if done == size:
        return
    if size is None or done > size:
        done = _emptied(file)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    session = import_module("huggingface_hub.utils").get_session()
    if callable(getattr(session, "stream", None)):  # the client speaks through httpx from its version 1.0 on
        answer = session.stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS, follow_redirects=True)
    else:
        answer = session.get(url, headers=headers, timeout=TIMEOUT_SECONDS, stream=True)
    with answer as response:
        response.raise_for_status()
        if done and response.status_code != PARTIAL_CONTENT:  # a server without support for ranges sends the whole file
            _emptied(file)
        size = _announced_size(response) if size is None else size
        most = MAX_UNANNOUNCED_BYTES if size is None else size
        read = response.iter_bytes if hasattr(response, "iter_bytes") else response.iter_content
        for block in read(BLOCK_BYTES):
            if file.tell() + len(block) > most:
                _emptied(file)
                raise TooLongError(f"the server sends more than the {most} bytes of the file")
            file.write(block)
            progress(Progress("downloading", file.tell(), size, "bytes"))
    if size is not None and file.tell() < size:
        raise ConnectionError(f"the connection closed after {file.tell()} of {size} bytes")


def _emptied(file: BinaryIO) -> int:
    """Drop what a file holds; its position counts for what is announced, and truncating alone leaves it."""
    file.truncate(0)
    return file.seek(0)


def _announced_size(response: Any) -> int | None:
    """Bytes of a whole answer by its header; None where it does not say, or says it of compressed bytes."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and not response.headers.get("Content-Encoding") else None


def fetch_whole(url: str, path: Path, sha256: str) -> None:
    """Fetch a URL into a file, which appears under its name when it is whole and its hash is right.

    Args:
        url: of the content.
        path: the file; what is there is replaced.
        sha256: the first digits of its SHA-256; empty where they are not known.

    Raises:
        VtgError: it cannot be fetched, is another file, or cannot be written.
        OSError: the folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part:
        try:
            fetch_url(url, part)
        except Exception as error:
            raise VtgError(f"{url}: cannot be downloaded ({error_line(error)})") from None
        digest = file_sha256(part)
        if not digest.startswith(sha256):
            raise VtgError(f"{url}: the download is another file (SHA-256 {digest[:8]}…, not {sha256[:8]}…); try again")


def fetch_from_hub(repository: str, name: str, revision: str | None = None, folder: Path | None = None) -> Path:
    """Download a file of a repository with the hub's client, and check it against the hub's hash.

    Args:
        repository: name of the repository, such as "timm/vit_base_patch32_clip_224.openai".
        name: path of the file in the repository.
        revision: revision of the repository; None for the newest.
        folder: folder to write to; None for the client's cache, whose files are used without a check.

    Raises:
        VtgError: the content differs from the hub's hash; the file is deleted.
        Exception: any error of the client.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    cached = None if folder else try_to_load_from_cache(repository, name, revision=revision)
    path = Path(hf_hub_download(repository, name, revision=revision, local_dir=folder))
    if cached is not None and Path(str(cached)) == path:
        return path
    expected = get_hf_file_metadata(hf_hub_url(repository, name, revision=revision)).etag
    if expected and not _has_hash(path, expected):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise VtgError(
            f"{repository}/{name}: the download is another file than the one on the hub, and was deleted; try again"
        )
    return path


def _has_hash(path: Path, expected: str) -> bool:
    """Whether a file has the hash that the hub states: SHA-256, or git's SHA-1 for small files."""
    if len(expected) == SHA256_DIGITS:
        return file_sha256(path) == expected
    if len(expected) == SHA1_DIGITS:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest() == expected
    return True  # a mirror whose ETags are not hashes
