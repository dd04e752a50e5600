"""A page that is running: web probes find nothing, and it asks nobody outside of this machine."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import hostile_page
import pytest
from hostile_page import probe_page
from raw_http import handshake, open_socket, read_answer, send

from tools.bench.page_server import PageServer
from vtg.library.library import Library

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One demo video."""
    from vtg.demo import make_videos

    home = tmp_path_factory.mktemp("probed")
    make_videos(home / "films", count=1, seconds=8.0)
    library = Library(home / "library", "demo", device="cpu")
    library.add([home / "films"])
    return library.folder


@pytest.fixture(scope="module")
def page(library: Path) -> Iterator[PageServer]:
    """A page without a password."""
    with PageServer(library, "--root", library.parent / "films", "--device", "cpu", "--upload-limit", 0.02) as server:
        yield server


def test_probes_find_nothing(page: PageServer, library: Path) -> None:
    before = {str(path) for path in library.rglob("*")}
    assert probe_page(page.address) == []
    assert {str(path) for path in library.rglob("*")} == before
    assert "Traceback" not in page.output, page.output
    assert page.process.poll() is None


def test_probes_find_nothing_on_a_page_with_a_password(library: Path) -> None:
    with PageServer(library, "--device", "cpu", environment={"VTG_PASSWORD": PASSWORD}) as server:
        assert probe_page(server.address) == []
        assert send(server.address, f"GET / HTTP/1.0\r\nHost: {server.address[7:]}\r\n\r\n".encode()).status == 401


def test_a_page_for_others_without_a_password_warns(library: Path) -> None:
    with PageServer(library, "--host", "0.0.0.0", "--device", "cpu") as server:
        assert server.output.count("--password-file") == 1
        assert send(server.address, f"GET / HTTP/1.0\r\nHost: {server.address[7:]}\r\n\r\n".encode()).status == 200


def test_probes_find_what_an_unguarded_server_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of the standard library, on a folder with a repository, has nearly all of it."""
    import sys

    monkeypatch.setattr(hostile_page, "SLOW_SECONDS", 3.0)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("[core]\n\trepositoryformatversion = 0\n")
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"port (\d+)", server.stdout.readline())
            assert found
            findings = probe_page(f"http://127.0.0.1:{found[1]}")
        finally:
            server.kill()
    expected_findings = ("/.git/config' shows", "Host 'evil.example' is", "without content-security-policy", "held for")
    for expected in expected_findings:
        assert any(expected in finding for finding in findings), expected


@pytest.mark.skipif(shutil.which("strace") is None, reason="without strace nobody sees what is connected to")
def test_nobody_outside_is_asked_for_anything(library: Path, tmp_path: Path) -> None:
    """Streamlit's own check of a foreign origin asks a server on the internet for this machine's address."""
    with PageServer(library, "--device", "cpu", "--allow-host", "videos.example") as server:
        log = tmp_path / "calls"
        options = ["-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(log)]
        with subprocess.Popen(["strace", *options, "-p", str(server.process.pid)], stderr=subprocess.PIPE) as tracer:
            time.sleep(2)
            if tracer.poll() is not None:
                pytest.skip("this system lets nobody trace a process")
            host = server.address.removeprefix("http://")
            for origin in ("https://videos.example", "http://evil.example", f"http://{host}", None):
                with contextlib.closing(open_socket(server.address)) as connection:
                    connection.sendall(handshake(host, origin, "/_stcore/stream"))
                    expected = 101 if origin in ("https://videos.example", f"http://{host}") else 403
                    assert read_answer(connection).status == expected
                    time.sleep(0.5)
            tracer.terminate()
            tracer.wait(20)
    calls = log.read_text("utf-8", "replace")
    assert "sendto" in calls, "answers were sent"
    outside = [line for line in calls.splitlines() if "sa_family=AF_INET" in line and "127.0.0.1" not in line]
    assert not outside, outside
