"""The page in a real browser: its policy is kept, other sites get nothing, the password, and no path of the server."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tools.bench.page_server import PageServer

from .conftest import LOADING, PICTURES, DemoPage, button, wait_until_ready

if TYPE_CHECKING:
    from playwright.sync_api import Page

PASSWORD = "correct horse"
QUESTION = "/?q=a+red+circle&min=0"


class Received:
    """All that a page's browser is told: frames of sockets, answers with their headers, and its console."""

    def __init__(self, page: Page) -> None:
        self.contents: list[bytes] = []
        self.console: list[str] = []
        page.on("websocket", lambda socket: socket.on("framereceived", self._take))
        page.on("response", self._keep)
        page.on("console", lambda message: self.console.append(message.text))

    def _take(self, content: bytes | str) -> None:
        self.contents.append(content if isinstance(content, bytes) else content.encode())

    def _keep(self, answer: Any) -> None:
        self.contents.append(repr(answer.headers).encode())
        if answer.request.resource_type not in ("media", "image", "font"):
            try:
                self.contents.append(answer.body())
            except Exception:  # the page has gone on to another one
                return

    def holding(self, text: str) -> list[bytes]:
        """What has a text in it, a little around it."""
        form = re.compile(b".{0,60}" + re.escape(text.encode()) + b".{0,60}", re.DOTALL)
        found = (form.search(each) for each in self.contents)
        return [each[0] for each in found if each]


def open_everything(page: Page, address: str) -> None:
    """See every page: a question, its answers and exports, a video with all its parts, the library, the models."""
    page.goto(f"{address}{QUESTION}&group=1&why=1")
    page.get_by_test_id("card").first.click()
    page.get_by_test_id("video").wait_for()
    page.locator("canvas, .vega-embed svg").first.wait_for()
    page.get_by_text("Export", exact=True).click()
    links = page.locator('a[href*="/export/"]')
    links.first.wait_for()
    for link in links.all():
        answer = page.request.get(f"{address}{link.get_attribute('href')}")
        assert answer.ok
    found = re.search(r"open=([0-9a-f]{12})", page.url)
    assert found
    for part in ("curves", "highlights", "summary"):
        page.goto(f"{address}/video?v={found[1]}&q=a+red+circle&part={part}")
        page.get_by_test_id("video").wait_for()
        page.get_by_test_id("stDownloadButton").last.wait_for()
    page.goto(f"{address}/library")
    page.get_by_test_id("upload").wait_for(state="attached")
    page.get_by_test_id("upload").set_input_files({"name": "no.mp4", "mimeType": "video/mp4", "buffer": b"no video"})
    page.get_by_text("is not a video that can be read").wait_for()
    page.goto(f"{address}/models")
    page.get_by_text("Model of this library").wait_for()


def test_no_page_breaks_the_policy(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit("about:blank")
    received = Received(page)
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(re.sub(r"^(\w+:/*[^/]*).*", r"\1", request.url)))
    open_everything(page, demo.address)
    assert not [line for line in received.console if "Content Security Policy" in line or "Refused to" in line]
    assert {host for host in hosts if not host.startswith(("data:", "blob:"))} == {demo.address}


def test_others_are_told_no_path_of_the_server(
    chromium: Any, films: Path, demo_library: Path, visit: Callable[..., Page]
) -> None:
    options = ["--host", "0.0.0.0", "--root", films, "--upload-limit", 0.02, "--device", "cpu"]
    with PageServer(demo_library, *options) as server:
        wait_until_ready(chromium, server)
        page = visit("about:blank")
        received = Received(page)
        open_everything(page, server.address)
        page.goto(f"{server.address}/library")
        field = page.get_by_label("A folder or file on the server").first
        for written in ("/etc/passwd", "../..", "x" * 5000, "あ" * 300, "nothing here"):
            field.click()
            field.fill(written)
            field.press("Enter")
            button(page, "Add").click()
            page.get_by_text(re.compile("lies outside|no such file|is not a path")).last.wait_for()
        if PICTURES.is_dir():
            page.screenshot(path=PICTURES / "page-for-others-library.png")
        assert len(received.contents) > 100
        for secret in (films.parent, demo_library.parent, Path(__file__).parents[2], Path.home() / "x"):
            assert not received.holding(str(secret).removesuffix("/x")), secret


@pytest.fixture
def foreign_site() -> Iterator[str]:
    """Another site on this machine, whose page does what its visitor's address says."""

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>another site</title><body></body>")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_another_site_gets_nothing(demo: DemoPage, visit: Callable[..., Page], foreign_site: str) -> None:
    own = visit(f"{demo.address}/library")
    received = Received(own)
    own.reload()
    own.get_by_test_id("upload").wait_for(state="attached")
    found = re.search(rb"/vtg/[\w-]+/upload", b"".join(received.contents))
    assert found
    upload = found[0].decode()
    page = visit(foreign_site)
    tries = page.evaluate(
        """async ([page, upload]) => {
        const socket = () => new Promise((done) => {
            const made = new WebSocket(page.replace("http", "ws") + "/_stcore/stream");
            made.onopen = () => done("open");
            made.onerror = () => done("refused");
        });
        const read = (path, options) => fetch(page + path, options).then((a) => a.text(), () => "refused");
        const shown = (name, source) => new Promise((done) => {
            const made = document.createElement(name);
            made.onload = () => done("shown");
            made.onerror = () => done("refused");
            made.src = source;
            document.body.append(made);
        });
        const frame = document.createElement("iframe");
        frame.src = page;
        document.body.append(frame);
        await new Promise((done) => { frame.onload = done; setTimeout(done, 3000); });
        return {
            socket: await socket(),
            health: await read("/_stcore/health"),
            upload: await read(upload + "?name=a.mp4", {method: "POST", body: "x"}),
            blind: await read(upload + "?name=a.mp4", {method: "POST", body: "x", mode: "no-cors"}),
            script: await shown("script", page + "/static/js/none.js"),
            image: await shown("img", page + "/favicon.png"),
        };
    }""",
        [demo.address, upload],
    )
    # A blind request is one whose answer no script may read; Cross-Origin-Resource-Policy fails it altogether.
    assert tries.pop("blind") in ("", "refused")
    assert set(tries.values()) == {"refused"}, tries
    assert not list((demo.library / "uploads").glob(".*")), "what a blind request sends is not taken"
    assert not page.frames[-1].url.startswith(demo.address), "it may not be shown in a frame"


def test_the_password_is_asked_for_without_scripts(
    chromium: Any, demo_library: Path, visit: Callable[..., Page], tmp_path: Path, foreign_site: str
) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    with PageServer(demo_library, "--password-file", file, "--device", "cpu") as server:
        page = visit(f"{server.address}{QUESTION}", java_script_enabled=False)
        page.get_by_label("Password").fill("a guess")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("alert").get_by_text("Wrong password: try again.").wait_for()
        if PICTURES.is_dir():
            page.screenshot(path=PICTURES / "sign-in.png")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{server.address}{QUESTION}")

        page = visit(f"{server.address}{QUESTION}")
        assert page.title() == "Sign in · vtg"
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_label("Password").press("Enter")
        page.get_by_test_id("card").first.wait_for(timeout=LOADING)
        (cookie,) = page.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
        # By a link on another site, the browser leaves the cookie out at first.
        page.goto(foreign_site)
        page.evaluate("address => { location = address }", f"{server.address}{QUESTION}")
        page.get_by_test_id("card").first.wait_for()


def test_a_clip_that_cannot_be_cut_is_said_so_on_the_page(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{demo.address}{QUESTION}")
    page.get_by_test_id("card").first.click()
    page.get_by_test_id("download-clip").wait_for()
    page.route("**/clip/**", lambda route: route.fulfill(status=507, body="a.mp4: cannot be written: the disk is full"))
    page.get_by_test_id("download-clip").click()
    page.get_by_text("The clip could not be cut: a.mp4: cannot be written: the disk is full").wait_for()
    page.unroute("**/clip/**")
    with page.expect_download() as download:
        page.get_by_test_id("download-clip").click()
    assert Path(download.value.path()).stat().st_size > 1000
