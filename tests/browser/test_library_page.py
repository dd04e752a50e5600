"""In a real browser: adding, progress that outlives a reload, cancelling, refusing, removing, and losing a library."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tools.bench.page_server import PageServer
from vtg.demo import make_videos
from vtg.library.library import Library
from vtg.library.tables import INDEXED
from vtg.video.process import ffmpeg_binary

from .conftest import PATIENCE, DemoPage, button, wait_until_ready

if TYPE_CHECKING:
    from playwright.sync_api import Page


def upload(page: Page, path: Path) -> Any:
    """Choose a file; gives its row in the list of uploads."""
    page.get_by_test_id("upload").set_input_files(path)
    return page.get_by_test_id("upload-row").first


def wait_for(happened: Callable[[], bool]) -> None:
    """Wait until something has happened on the server's disk."""
    for _ in range(PATIENCE // 100):
        if happened():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def kept_files(library: Path) -> set[Path]:
    """All files of a library, less the pictures that other tests' pages may just be making."""
    return {path for path in library.rglob("*") if path.is_file() and "previews" not in path.relative_to(library).parts}


def test_an_upload_is_indexed_and_found(demo: DemoPage, visit: Callable[..., Page], tmp_path: Path) -> None:
    (video,) = make_videos(tmp_path, "test", 1, seconds=16)
    thing = video.scene.things[0]
    sent = shutil.move(video.path, tmp_path / "my ‹holiday› & more.mp4")
    page = visit(f"{demo.address}/library")
    row = upload(page, Path(sent))
    row.get_by_text("sent").wait_for()
    page.get_by_text("1 added").first.wait_for()
    page.goto(f"{demo.address}/?q=a+{thing.colour}+{thing.shape}&min=0&n=96")
    page.get_by_test_id("card").filter(has_text="my ‹holiday› & more.mp4").first.wait_for()
    assert (demo.library / "uploads" / "my ‹holiday› & more.mp4").is_file()


def test_what_is_no_video_is_refused(demo: DemoPage, visit: Callable[..., Page], tmp_path: Path) -> None:
    before = kept_files(demo.library)
    notes = tmp_path / "notes.mp4"
    notes.write_text("this is no video\n" * 100)
    page = visit(f"{demo.address}/library")
    upload(page, notes).get_by_text("is not a video that can be read").wait_for()
    letter = tmp_path / "letter.txt"
    letter.write_text("nor is this")
    upload(page, letter).get_by_text("is not named like a video").wait_for()
    assert kept_files(demo.library) == before


def test_what_is_too_large_is_refused_on_both_sides(demo: DemoPage, visit: Callable[..., Page], tmp_path: Path) -> None:
    before = kept_files(demo.library)
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(21_000_000))
    page = visit(f"{demo.address}/library")
    upload(page, large).get_by_text("larger than 20.0 MB").wait_for()
    # Who leaves the page out is told the same, also without saying how much is to come.
    answer = page.evaluate(
        """async () => {
            const root = [...document.querySelectorAll("*")].map((each) => each.shadowRoot).filter(Boolean)
                .map((shadow) => shadow.querySelector(".vtg")).find((each) => each && each.vtgUploader);
            const url = root.vtgUploader.data.url + "?name=large.mp4";
            const answer = await fetch(url, {method: "POST", body: new Blob([new Uint8Array(21_000_000)])});
            return [answer.status, await answer.text()];
        }"""
    )
    assert answer[0] == 413
    assert "larger than 20 MB" in answer[1]
    assert kept_files(demo.library) == before


@pytest.mark.parametrize("path", ["/etc", "../../etc/passwd", "~", "C:\\Windows", "\0"])
def test_a_path_outside_the_roots_is_refused(demo: DemoPage, visit: Callable[..., Page], path: str) -> None:
    page = visit(f"{demo.address}/library")
    box = page.get_by_label("A folder or file on the server")
    box.fill(path.replace("\0", "no\\such"))
    box.press("Enter")
    button(page, "Add").click()
    page.get_by_text(re.compile("lies outside the folders|no such file or folder")).wait_for()
    assert page.get_by_role("heading", name="Library").is_visible()


def test_the_secret_is_needed(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(demo.address)
    for path in ("/vtg/guess/video/0", "/vtg/guess/upload"):
        answer = page.request.get(demo.address + path) if "video" in path else page.request.post(demo.address + path)
        assert answer.status == 403


@pytest.fixture
def slow_films(tmp_path: Path) -> Path:
    """Many small files that take a while to index one after the other."""
    folder = tmp_path / "films" / "many"
    folder.mkdir(parents=True)
    first = folder / "000.mp4"
    command = [ffmpeg_binary(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=320x240:r=10:d=20", str(first)]
    subprocess.run(command, check=True)
    for number in range(1, 60):
        # What follows the last box is passed over by players, and makes another content.
        (folder / f"{number:03d}.mp4").write_bytes(
            first.read_bytes() + (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")
        )
    return folder


@pytest.fixture
def own(chromium: Any, tmp_path: Path, slow_films: Path, demo_library: Path) -> Iterator[DemoPage]:
    """A page of the test's own, on a copy of the demo library."""
    library = tmp_path / "library"
    shutil.copytree(demo_library, library, ignore=shutil.ignore_patterns("uploads", "previews"))
    with PageServer(library, "--root", slow_films.parent, "--device", "cpu") as server:
        wait_until_ready(chromium, server)
        yield DemoPage(server.address, slow_films.parent, library, server)
        assert "streamlit_app" not in server.output, server.output


def test_progress_outlives_a_reload_and_can_be_cancelled(own: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{own.address}/library")
    box = page.get_by_label("A folder or file on the server")
    box.click()
    page.get_by_role("option", name="many").click()
    button(page, "Add").click()
    page.get_by_text(re.compile(r"\d+ of 60 done")).wait_for()
    page.reload()
    page.get_by_text(re.compile(r"\d+ of 60 done")).wait_for()
    # Others can search meanwhile.
    other = visit(f"{own.address}/?q=a+red+circle&min=0")
    other.get_by_test_id("card").first.wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text(re.compile("many.*cancelled")).wait_for()
    page.get_by_text(re.compile(r"\d+ added")).first.wait_for()
    entries = Library(own.library).videos()
    assert 4 < len(entries) < 64
    assert {entry.state for entry in entries} == {INDEXED}
    page.get_by_role("button", name="Dismiss").click()
    page.get_by_text(re.compile("many.*cancelled")).wait_for(state="detached")


def test_an_upload_that_is_stopped_leaves_nothing(demo: DemoPage, visit: Callable[..., Page], tmp_path: Path) -> None:
    before = kept_files(demo.library)
    (video,) = make_videos(tmp_path, "test", 1, seconds=12)
    free = 15_000_000  # bytes of a box that players pass over
    with video.path.open("ab") as file:
        file.write((free + 8).to_bytes(4, "big") + b"free" + bytes(free))
    page = visit(demo.address)
    page.get_by_role("link", name="Library").click()
    page.get_by_test_id("upload").wait_for(state="attached")
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 1_000_000}
    network.send("Network.emulateNetworkConditions", slow)
    row = upload(page, video.path)
    row.get_by_text("sending").wait_for()
    wait_for(lambda: any(path.suffix == ".part" and path.stat().st_size for path in kept_files(demo.library)))
    row.get_by_role("button", name="Stop").click()
    row.get_by_text("stopped").wait_for()
    wait_for(lambda: kept_files(demo.library) == before)


def test_an_upload_whose_indexing_is_cancelled_leaves_nothing(
    own: DemoPage, visit: Callable[..., Page], tmp_path: Path
) -> None:
    (video,) = make_videos(tmp_path, "test", 1, seconds=12)
    page = visit(own.address)
    page.get_by_role("link", name="Library").click()
    page.get_by_label("A folder or file on the server").click()
    page.get_by_role("option", name="many").click()
    button(page, "Add").click()
    page.get_by_text(re.compile(r"\d+ of 60 done")).wait_for()
    upload(page, video.path).get_by_text("sent").wait_for()
    sent = own.library / "uploads" / video.path.name
    waiting = page.locator("[class*=st-key-job-index]").filter(has_text=video.path.stem)
    waiting.get_by_text("waiting").wait_for()
    assert sent.is_file()
    waiting.get_by_role("button", name="Cancel").click()
    page.locator("[class*=st-key-job-index]").filter(has_text="many").get_by_role("button", name="Cancel").click()
    waiting.get_by_text("cancelled").wait_for()
    assert not sent.exists()
    assert all(entry.path != str(sent) for entry in Library(own.library).videos())


def test_a_library_that_is_deleted_under_the_page_is_told_so(own: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{own.address}/?q=a+red+circle&min=0")
    page.get_by_test_id("card").first.wait_for()
    # At once: a picture that the page is just making would come into a folder that is emptied file by file.
    gone = own.library.rename(own.library.with_name("gone"))
    shutil.rmtree(gone, ignore_errors=True)
    box = page.get_by_label("Ask for a moment")
    box.fill("a blue square")
    box.press("Enter")
    page.get_by_text(re.compile("is not there any more|does not exist any more")).first.wait_for()
    page.goto(f"{own.address}/library")
    page.get_by_text("The library does not exist any more").wait_for()
    page.get_by_role("button", name="Look again").click()
    page.get_by_text("The library does not exist any more").wait_for()
    assert not own.library.exists()


def test_without_a_library_the_demo_is_one_click_away(
    chromium: Any, tmp_path: Path, visit: Callable[..., Page]
) -> None:
    library = tmp_path / "none"
    with PageServer(library, "--device", "cpu") as server:
        page = visit(server.address)
        page.get_by_role("button", name="Try it with demo videos").click()
        page.get_by_test_id("examples").get_by_role("button").first.click(timeout=120_000)
        page.get_by_test_id("card").first.wait_for()
    assert not library.exists()
    assert (tmp_path / "none-demo").is_dir()
