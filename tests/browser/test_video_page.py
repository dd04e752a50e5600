"""In a real browser: one video's curves, highlights, summary and downloads, and films that browsers do not play."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tools.bench.page_server import PageServer
from vtg.demo import make_videos
from vtg.library.library import Library
from vtg.video import probe
from vtg.video.process import ffmpeg_binary

from .conftest import SECONDS, DemoPage, wait_until_ready
from .test_search_page import a_question, wait_for_time

if TYPE_CHECKING:
    from playwright.sync_api import Page


def first_video(demo: DemoPage) -> str:
    """The beginning of the first demo video's content key."""
    return min(Library(demo.library).videos(), key=lambda entry: entry.path).video[:12]


def test_curves_of_several_questions_and_their_data(demo: DemoPage, visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit(f"{demo.address}/video?v={first_video(demo)}&q={a_question()}&q=a+black+ring")
    chart = page.get_by_test_id("stVegaLiteChart")
    chart.locator("canvas, svg").first.wait_for()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Moments (CSV)").click()
    waiting.value.save_as(tmp_path / "moments.csv")
    with (tmp_path / "moments.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["query"] for row in rows} == {a_question(), "a black ring"}
    assert all(0 <= float(row["start"]) < float(row["end"]) <= SECONDS for row in rows)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="All (JSON)").click()
    waiting.value.save_as(tmp_path / "moments.json")
    answers = json.loads((tmp_path / "moments.json").read_text("utf-8"))
    assert [answer["query"] for answer in answers] == [a_question(), "a black ring"]


def test_the_summary_is_as_long_as_the_slider_says_and_can_be_had(
    demo: DemoPage, visit: Callable[..., Page], tmp_path: Path
) -> None:
    page = visit(f"{demo.address}/video?v={first_video(demo)}&part=summary&ratio=25")
    page.get_by_test_id("card").first.wait_for()
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**ratio=30*")
    page.get_by_text(re.compile(r"00:07 of 00:24")).wait_for()
    page.get_by_role("button", name="Make the summary").click()
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download the film").click()
    film = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(film)
    assert probe(film).duration == pytest.approx(0.3 * SECONDS, abs=0.3)


def test_a_highlight_is_jumped_to(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{demo.address}/video?v={first_video(demo)}&q={a_question()}&part=highlights")
    card = page.get_by_test_id("card").last
    card.click()
    start = float(str(card.get_attribute("data-id")))
    wait_for_time(page, start - 0.1, start + 6)


@pytest.fixture(scope="module")
def foreign(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoPage]:
    """A page on films that browsers do not play, HEVC in Matroska and MPEG-4 in AVI, and one that they do."""
    folder = tmp_path_factory.mktemp("foreign")
    (video,) = make_videos(folder, count=1, seconds=30)
    films = folder / "films"
    films.mkdir()
    kinds = {
        "hevc.mkv": ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"],
        "old.avi": ["-c:v", "mpeg4", "-q:v", "5"],
        "late.avi": ["-c:v", "mpeg4", "-q:v", "4"],
        "plain.mp4": ["-c", "copy"],
    }
    for name, options in kinds.items():
        command = [ffmpeg_binary(), "-v", "error", "-i", str(video.path), *options, str(films / name)]
        subprocess.run(command, check=True)
    library = Library(folder / "library", "demo", device="cpu")
    assert not library.add([films]).failed
    with PageServer(library.folder, "--device", "cpu") as server:
        wait_until_ready(chromium, server)
        yield DemoPage(server.address, films, library.folder, server)
        assert "streamlit_app" not in server.output, server.output


PLAYS_COPY = r"""() => {
    const roots = [...document.querySelectorAll("*")].map((each) => each.shadowRoot).filter(Boolean);
    const video = roots.map((root) => root.querySelector("video[data-testid=video]")).find(Boolean);
    const plays = video && /\/(proxy|recoded)\//.test(video.src) && video.currentTime > 0.1;
    if (plays) video.pause();  // or it would go on while the test looks
    return plays;
}"""


@pytest.mark.parametrize("name", ["hevc.mkv", "old.avi", "plain.mp4"])
def test_films_that_browsers_do_not_play_are_played_and_seeked_in(
    foreign: DemoPage, visit: Callable[..., Page], name: str
) -> None:
    library = Library(foreign.library)
    (entry,) = (entry for entry in library.videos() if entry.path.endswith(name))
    moment = next(hit.moment for hit in library.search("a red circle") if hit.video == entry.path)
    page = visit("about:blank")
    # Stands for a form that only the browser knows it cannot play.
    page.route("**/vtg/*/video/*", lambda route: route.fulfill(body=b"no film", content_type="video/mp4"))
    span = f"{moment.start:.2f}_{moment.end:.2f}"
    page.goto(f"{foreign.address}/?q=a+red+circle&open={entry.video[:12]}_{span}")
    video = page.get_by_test_id("video")
    video.wait_for()
    page.wait_for_function(PLAYS_COPY)
    wait_for_time(page, moment.start - 0.1, moment.start + 4.5)
    assert video.evaluate("video => video.duration") == pytest.approx(30, abs=0.2)
    video.evaluate("video => { video.currentTime = 27; }")
    wait_for_time(page, 26.9, 30.1)


def test_a_copy_that_is_ready_before_the_preview_begins_is_played(
    foreign: DemoPage, visit: Callable[..., Page]
) -> None:
    library = Library(foreign.library)
    (entry,) = (entry for entry in library.videos() if entry.path.endswith("late.avi"))
    page = visit("about:blank")
    # A busy browser: the preview is loaded, but its event is handled only when the copy is there.
    page.add_init_script(
        """
        const listen = HTMLMediaElement.prototype.addEventListener;
        HTMLMediaElement.prototype.addEventListener = function (name, handle) {
            const late = (event) => setTimeout(handle, this.src.includes("/preview/") ? 20000 : 0, event);
            listen.call(this, name, name === "loadedmetadata" ? late : handle);
        };
        """
    )
    page.goto(f"{foreign.address}/?q=a+red+circle&open={entry.video[:12]}_0.00_10.00")
    page.wait_for_function(PLAYS_COPY)
