"""Downloads, against a server on this machine that sends too much, too little, something else, or nothing more."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from vtg.clip import catalogue as clip_downloads
from vtg.errors import VideoError, VtgError
from vtg.extraction.remote import fetched, read_remote
from vtg.weights import downloads
from vtg.weights.downloads import BLOCK_BYTES, TooLongError, append_rest, fetch_whole

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """How it answers: "whole", "endless", "short", "stalled", "other" or "breaking" (half of what is asked for)."""

    manner = "whole"
    announces = True
    asked = 0
    sent = 0
    url = ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.send_response(200)
            if state.announces:
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()

        def send_half(self) -> None:
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            rest = CONTENT[first:]
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            half = rest if len(rest) < 2 * BLOCK_BYTES else rest[: len(rest) // 2]
            state.sent += len(half)
            self.wfile.write(half)

        def do_GET(self) -> None:
            state.asked += 1
            if state.manner == "breaking":
                return self.send_half()
            self.do_HEAD()
            try:
                if state.manner == "short":
                    self.wfile.write(CONTENT[: len(CONTENT) // 2])
                elif state.manner == "stalled":
                    self.wfile.write(CONTENT[:1000])
                    self.wfile.flush()
                    closing.wait(20)
                elif state.manner == "endless":
                    while not closing.is_set():
                        self.wfile.write(CONTENT)
                else:
                    self.wfile.write(CONTENT if state.manner == "whole" else CONTENT[::-1])
            except OSError:  # the client had enough
                pass
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state.url = f"http://127.0.0.1:{server.server_port}/film.mp4"
    yield state
    closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_whole_file_appears_under_its_name(server: Server, tmp_path: Path) -> None:
    fetch_whole(server.url, tmp_path / "new" / "w.pt", SHA256[:8])
    assert (tmp_path / "new" / "w.pt").read_bytes() == CONTENT
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_a_broken_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.manner = "breaking"
    fetch_whole(server.url, tmp_path / "w.pt", SHA256)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert server.asked == 4
    assert server.sent < len(CONTENT) + server.asked * BLOCK_BYTES  # what was lost of a block that broke off


@pytest.mark.parametrize(
    ("manner", "announces", "reason"),
    [
        ("other", True, "another file"),
        ("short", True, "bytes"),
        ("endless", False, "sends more"),
        ("stalled", True, "cannot be downloaded"),
    ],
)
def test_anything_else_leaves_what_was_there(
    manner: str, announces: bool, reason: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(downloads, "MOST_UNANNOUNCED", 5_000_000)
    server.manner, server.announces = manner, announces
    (tmp_path / "w.pt").write_bytes(b"before")
    start = time.monotonic()
    with pytest.raises(VtgError, match=reason) as caught:
        fetch_whole(server.url, tmp_path / "w.pt", SHA256)
    assert "\n" not in str(caught.value) and server.url in str(caught.value)
    assert time.monotonic() - start < 10
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]
    assert (tmp_path / "w.pt").read_bytes() == b"before"


def test_more_than_announced_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.manner = "endless"
    server.announces = False
    with (tmp_path / "w.part").open("ab") as file, pytest.raises(TooLongError):
        append_rest(server.url, file, 100_000)
    assert (tmp_path / "w.part").stat().st_size == 0


def test_a_planted_file_is_not_taken_for_a_published_one(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_downloads, "PLAIN_CACHE", str(tmp_path))
    url = server.url.replace("film.mp4", f"{SHA256}/ViT-B-32.pt")
    monkeypatch.setattr(clip_downloads, "catalogue_entry", lambda model, tag: {"url": url})
    (tmp_path / "ViT-B-32.pt").write_bytes(b"planted")
    assert clip_downloads.find_weights("ViT-B-32", "openai").read_bytes() == CONTENT
    clip_downloads.find_weights("ViT-B-32", "openai")
    assert server.asked == 1  # what is there with the right hash is not fetched again
    (tmp_path / "ViT-B-32.pt").write_bytes(b"planted")
    server.manner = "other"
    with pytest.raises(VtgError, match=r"cannot be downloaded .*another file"):
        clip_downloads.find_weights("ViT-B-32", "openai")


def test_every_plain_url_of_the_catalogue_that_has_a_hash_is_checked_by_it() -> None:
    import open_clip

    urls = [
        clip_downloads.catalogue_entry(model, tag).get("url", "")
        for model, tag in open_clip.list_pretrained()
        if clip_downloads.catalogue_entry(model, tag).get("url")
    ]
    openai = [url for url in urls if "openaipublic" in url]
    assert openai and all(len(clip_downloads.url_sha256(url)) == 64 for url in openai)
    released = [url for url in urls if "mlfoundations" in url]
    assert released and all(len(clip_downloads.url_sha256(url)) == 8 for url in released)


class HubHandler(BaseHTTPRequestHandler):
    """Answers as the hub does for one file, whose hash it may state wrongly."""

    content = b"weights" * 1000
    etag = ""

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def _head(self) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{self.etag}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        self._head()
        self.wfile.write(self.content)


@pytest.mark.parametrize(
    ("etag", "is_taken"),
    [
        (hashlib.sha256(HubHandler.content).hexdigest(), True),
        (hashlib.sha1(b"blob 7000\0" + HubHandler.content, usedforsecurity=False).hexdigest(), True),
        ("0" * 64, False),
        ("0" * 40, False),
    ],
    ids=["sha256", "git", "other sha256", "other git"],
)
def test_what_the_hub_sends_is_checked_by_its_hash(etag: str, is_taken: bool, tmp_path: Path) -> None:
    handler = type("Handler", (HubHandler,), {"etag": etag})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "from vtg.weights.downloads import fetch_from_hub\n"
        "for _ in range(2): print(fetch_from_hub('timm/some_clip', 'open_clip_model.safetensors'))\n"
    )
    settings = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_XET": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **settings}, capture_output=True, text=True, timeout=120
        )
    finally:
        server.shutdown()
        server.server_close()
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == len(HubHandler.content)]
    if is_taken:
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.split()
        assert first == second and Path(first).read_bytes() == HubHandler.content
    else:
        assert "VtgError: timm/some_clip/open_clip_model.safetensors: the download is another file" in done.stderr
        assert kept == []


class OddFile(io.BytesIO):
    """A remote file that announces a size, and is shorter, longer or without end."""

    size: int | None = None
    endless = False

    def read(self, size: int | None = -1) -> bytes:
        return CONTENT if self.endless else super().read(size)


class OddFiles(AbstractFileSystem):
    """Remote files by the size that they announce: ``odd://short/x`` and so on."""

    protocol = "odd"

    def info(self, path: str, **named: object) -> dict[str, object]:
        sizes = {"short": 2 * len(CONTENT), "long": 1000, "endless": None}
        return {"name": path, "type": "file", "size": sizes.get(path.split("/")[-2], len(CONTENT))}

    def _open(self, path: str, *arguments: object, **named: object) -> OddFile:
        file = OddFile(CONTENT)
        file.size, file.endless = self.info(path)["size"], "endless" in path  # type: ignore[assignment]
        return file


@pytest.fixture(autouse=True)
def _odd_files() -> None:
    fsspec.register_implementation("odd", OddFiles, clobber=True)


def test_a_remote_video_is_copied_whole() -> None:
    with fetched("odd://whole/film.mp4") as copy:
        assert copy.read_bytes() == CONTENT


@pytest.mark.parametrize(("kind", "reason"), [("short", "closed after"), ("long", "sends more"), ("endless", "more")])
def test_a_remote_video_of_another_size_is_refused(kind: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtg.extraction.remote.MOST_UNANNOUNCED", 5_000_000)
    with pytest.raises(VideoError, match=f"cannot be fetched .*{reason}"), fetched(f"odd://{kind}/film.mp4"):
        pass


def test_a_remote_manifest_of_any_size_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtg.extraction.remote.MOST_READ", len(CONTENT) - 1)
    for kind in ("whole", "endless"):
        with pytest.raises(VtgError, match="larger than"):
            read_remote(f"odd://{kind}/manifest.jsonl")
    monkeypatch.setattr("vtg.extraction.remote.MOST_READ", len(CONTENT))
    assert read_remote("odd://whole/manifest.jsonl") == CONTENT
