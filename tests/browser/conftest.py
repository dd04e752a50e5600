"""What the browser's tests share: a demo library, a page on it, and a real Chromium."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tools.bench.page_server import PageServer, find_chromium, open_browser

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

PATIENCE = 60_000  # ms that anything may take on a busy machine
LOADING = 180_000  # ms that a model may take to load there
SECONDS = 24.0  # of each demo video
SAID = "and now we jump into the <i>lake</i>"  # in the second of them
PICTURES = Path(__file__).resolve().parents[2] / "build" / "screenshots"


@dataclass(frozen=True)
class DemoPage:
    """A page on a demo library.

    Attributes:
        address: of the page.
        films: folder of its videos, which visitors may add from.
        library: its folder.
        server: the running process.
    """

    address: str
    films: Path
    library: Path
    server: PageServer


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser; where there is none the tests are skipped, but not in CI, which has to have one."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        missing = "playwright is not installed"
    else:
        missing = "" if find_chromium() else "there is no Chromium here"
    if missing:
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four short demo videos; in one of them something is said, by its subtitles."""
    from vtg.demo import make_videos

    folder = tmp_path_factory.mktemp("films")
    videos = make_videos(folder, count=4, seconds=SECONDS)
    lines = f"1\n00:00:05,000 --> 00:00:08,000\n{SAID}\n"
    videos[1].path.with_suffix(".srt").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def demo_library(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of the demo videos."""
    from vtg.library.library import Library

    library = Library(tmp_path_factory.mktemp("home") / "library", "demo", device="cpu")
    assert not library.add([films]).failed
    return library.folder


def wait_until_ready(chromium: Any, server: PageServer) -> None:
    """Wait until a page has loaded its model, which is told by the examples that it then has."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(server.address)
    page.get_by_test_id("examples").wait_for(timeout=LOADING)
    context.close()


def button(page: Page, label: str) -> Locator:
    """The buttons with exactly this label.

    Older releases of Streamlit do not hide the icon of a button from assistive technology: the accessible name of
    "Add" is "add Add" there, the name of the icon before the label.
    """
    return page.get_by_role("button", name=re.compile(rf"^([a-z_]+ )?{re.escape(label)}$"))


@pytest.fixture(scope="session")
def demo(chromium: Any, films: Path, demo_library: Path) -> Iterator[DemoPage]:
    """A page on the demo library, with uploads of up to 20 MB; tests add to it and take nothing away."""
    with PageServer(demo_library, "--root", films.parent, "--upload-limit", 0.02, "--device", "cpu") as server:
        wait_until_ready(chromium, server)
        yield DemoPage(server.address, films, demo_library, server)
        assert "streamlit_app" not in server.output, server.output


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Page]]:
    """Opens an address in a browser of its own, and sees that its scripts make no mistake."""
    mistakes: list[str] = []
    with contextlib.ExitStack() as opened:

        def go(address: str, **options: Any) -> Page:
            context = chromium.new_context(**{"viewport": {"width": 1280, "height": 1000}, **options})
            opened.callback(context.close)
            context.set_default_timeout(PATIENCE)
            page: Page = context.new_page()
            page.on("pageerror", lambda error: mistakes.append(str(error)))
            page.goto(address)
            return page

        yield go
    assert not mistakes, mistakes
