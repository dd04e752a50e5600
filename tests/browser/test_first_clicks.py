"""In a real browser: what a person clicks and types first, from an empty address; and that no address locks a page."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from tools.bench.page_server import PageServer
from vtg.library.library import Library

from .conftest import LOADING, DemoPage, button, wait_until_ready
from .test_search_page import a_question, ask, opened_span, wait_for_question, wait_for_time
from .test_video_page import first_video

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

NOTHING = "a black ring"  # that no demo video here shows
TOO_LONG = "+".join(["a", "dog", "and"] * 80)


def choose(page: Page, label: str, option: str) -> None:
    """Choose an option of a list by clicking."""
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option).click()


def test_a_video_is_chosen_asked_and_left_by_clicking(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(demo.address)
    page.get_by_role("link", name=re.compile("Video$")).click()
    page.get_by_text("See what it holds").wait_for()
    choose(page, "Video", "demo_00000.mp4")
    page.wait_for_url(f"**/video?v={first_video(demo)}")
    page.get_by_test_id("video").wait_for()
    page.get_by_text("Ask a question above").wait_for()
    # Without a question there is no moment that could be played again or downloaded.
    replay, download = page.get_by_text("Replay the moment"), page.get_by_text("Download the clip")
    assert not replay.is_visible() and not download.is_visible()
    box = page.get_by_label("Questions", exact=True)
    box.fill(a_question())
    box.press("Enter")
    page.get_by_test_id("stVegaLiteChart").locator("canvas, svg").first.wait_for()
    replay.wait_for()
    assert download.is_visible()
    replay.click()
    page.get_by_test_id("video").evaluate("video => new Promise(done => video.paused ? video.onplay = done : done())")
    page.get_by_text("Highlights", exact=True).click()
    page.get_by_test_id("card").first.wait_for()
    page.get_by_text("Summary", exact=True).click()
    page.get_by_role("slider").wait_for()

    choose(page, "Video", "demo_00002.mp4")
    page.wait_for_url(lambda url: first_video(demo) not in url)
    page.get_by_role("slider").wait_for()
    chosen = page.url
    page.reload()
    page.get_by_role("slider").wait_for()
    assert page.url == chosen
    page.get_by_label("Video", exact=True).click()
    page.keyboard.press("Escape")
    page.go_back()
    page.wait_for_url(f"**v={first_video(demo)}*")


def test_a_video_that_is_gone_leaves_the_list_usable(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{demo.address}/video?v=000000000000&q={a_question()}")
    page.get_by_text("This video is not in the library any more").wait_for()
    choose(page, "Video", "demo_00000.mp4")
    page.get_by_test_id("stVegaLiteChart").wait_for()
    assert parse_qs(urlsplit(page.url).query) == {"v": [first_video(demo)], "q": [a_question()]}


def test_a_question_of_an_address_that_is_too_long_leaves_the_box_usable(
    demo: DemoPage, visit: Callable[..., Page]
) -> None:
    page = visit(f"{demo.address}/?q={TOO_LONG}")
    page.get_by_text(re.compile("This query has 799 characters")).wait_for()
    ask(page, a_question())
    wait_for_question(page, a_question())
    page.get_by_text("This query has").wait_for(state="detached")
    assert parse_qs(urlsplit(page.url).query)["q"] == [a_question()]
    page.goto(f"{demo.address}/video?v={first_video(demo)}&q={TOO_LONG}&q={a_question()}")
    page.get_by_text(re.compile("This query has 799 characters")).wait_for()
    page.get_by_test_id("stVegaLiteChart").wait_for()
    page.get_by_label(re.compile("Remove a dog and")).click()
    page.get_by_text("This query has").wait_for(state="detached")


HUGE = "9" * 400
ABSURD = [
    f"said={TOO_LONG}",
    "min=99999&n=1e308",
    "min=nan&from=nan&to=nan&n=nan",
    "min=-1&from=-1&to=-1&n=-1",
    "from=1e300",
    "to=1e308&from=-inf",
    "open=000000000000_1_2",
    "open={video}_9999_99999&t=1e300",
    f"open={{video}}_5_{HUGE}",
    "open={video}_0_5&t=nan",
    "like=000000000000@1-2",
    "like={video}@9999-99999",
    f"like={{video}}@0-{HUGE}",
    "picture=0123456789abcdef",
    "picture=../../x&picture=",
    "in=nowhere&in=folder: /nowhere",
    "q=first&v=x&page=9&model=none&part=none&ratio=nan",
    "group=2&why=yes&group=&n=13",
]


@pytest.mark.parametrize("parameters", ABSURD, ids=lambda text: text[:30])
def test_absurd_addresses_withhold_nothing_and_lock_nothing(
    demo: DemoPage, visit: Callable[..., Page], parameters: str
) -> None:
    parameters = parameters.format(video=first_video(demo))
    page = visit(f"{demo.address}/?{parameters}&q={a_question()}")
    page.get_by_test_id("card").first.wait_for()
    assert page.get_by_test_id("stException").count() == 0
    other = "a red circle" if a_question() != "a red circle" else "a blue square"
    box = page.get_by_label("Ask for a moment")
    box.fill(other)
    box.press("Enter")
    page.wait_for_url(f"**q={other.replace(' ', '+')}*")
    page.wait_for_selector(f"[data-testid=cards][data-query={other!r}], .st-key-empty")
    assert page.get_by_test_id("stException").count() == 0


@pytest.mark.parametrize(
    "parameters",
    [
        "v=zzz",
        "v={video}" + "0" * 60,
        "part=x&ratio=x&t=x",
        "v={video}&part=summary&ratio=1e300",
        "v={video}&t=1e308&q=a",
    ],
)
def test_absurd_addresses_of_a_video_leave_it_usable(
    demo: DemoPage, visit: Callable[..., Page], parameters: str
) -> None:
    page = visit(f"{demo.address}/video?{parameters.format(video=first_video(demo))}")
    page.get_by_label("Video", exact=True).wait_for()
    choose(page, "Video", "demo_00003.mp4")
    page.get_by_test_id("video").wait_for()
    page.wait_for_url(lambda url: "v=" in url and first_video(demo) not in url)
    assert page.get_by_test_id("stException").count() == 0


def painted(chart: Locator) -> np.ndarray:
    """Which pixels of a chart, less its axes, are painted."""
    chart.locator("canvas, svg").first.wait_for()
    chart.scroll_into_view_if_needed()
    picture = np.asarray(Image.open(io.BytesIO(chart.screenshot(animations="disabled"))).convert("RGB"), int)
    height, width, _ = picture.shape
    plot = picture[4 : int(height * 0.72), int(width * 0.15) : int(width * 0.95)]
    return np.asarray(np.abs(plot - picture[-3, -3]).max(axis=2) > 12)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_curve_of_nothing_is_low_and_the_threshold_is_drawn(
    demo: DemoPage, visit: Callable[..., Page], scheme: str
) -> None:
    page = visit(demo.address, color_scheme=scheme)
    page.get_by_test_id("examples").wait_for()
    shares = {}
    for question in (NOTHING, a_question()):
        box = page.get_by_label("Ask for a moment")
        box.fill(question)
        box.press("Enter")
        page.wait_for_selector(f"[data-testid=cards][data-query={question!r}], .st-key-empty")
        nearest = page.get_by_role("button", name="Show the nearest")
        if question == NOTHING:
            nearest.click()
        page.wait_for_selector(f"[data-testid=cards][data-query={question!r}] [data-testid=card]")
        page.get_by_test_id("card").filter(has_text="demo_00000").first.click()
        page.get_by_text("Dashed: the minimum score").wait_for()
        seen = painted(page.get_by_test_id("stVegaLiteChart"))
        shares[question] = seen.mean()
        # A dashed line is painted across more than a third of its row.
        dashed = np.flatnonzero((seen.mean(axis=1) > 0.35) & (seen.mean(axis=1) < 0.8)) / len(seen)
        assert question != NOTHING or any(0.15 < row < 0.5 for row in dashed), dashed
    assert shares[NOTHING] < 0.06, shares
    assert shares[a_question()] > 0.2, shares


def test_a_card_that_is_open_already_plays_again(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(demo.address)
    page.get_by_test_id("examples").wait_for()
    ask(page, a_question())
    card = page.get_by_test_id("card").first
    card.click()
    start, end = opened_span(page)
    wait_for_time(page, start - 0.1, end + 0.5)
    page.get_by_test_id("video").evaluate("(video, time) => { video.pause(); video.currentTime = time; }", end + 0.4)
    card.click()
    wait_for_time(page, start - 0.1, end)


def test_controls_that_can_do_nothing_say_why(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(demo.address)
    page.get_by_role("link", name="Library").click()
    button(page, "Add").click()
    page.get_by_text("Choose a folder or file, or write its path").wait_for()
    page.get_by_role("link", name="Models").click()
    download = button(page, "Download")
    download.wait_for()
    assert download.is_disabled()
    choose(page, "Download a published head", "r2-tacos")
    page.locator(".st-key-models-pull button:not(:disabled)").wait_for()
    page.get_by_role("link", name="Search").click()
    ask(page, a_question())
    why = page.locator(".st-key-search-why input")
    assert why.is_enabled()
    page.get_by_test_id("card").first.hover()
    page.get_by_test_id("like").first.click()
    page.get_by_test_id("asked-like").wait_for()
    page.locator(".st-key-search-why input:disabled").wait_for(state="attached")


@pytest.fixture(scope="module")
def changing(chromium: Any, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoPage]:
    """A page on copies of three of the demo videos, that the tests remove one by one."""
    folder = tmp_path_factory.mktemp("changing")
    for number in range(3):
        shutil.copy(films / f"demo_0000{number}.mp4", folder)
    library = Library(folder / "library", "demo", device="cpu")
    assert not library.add([folder]).failed
    with PageServer(library.folder, "--device", "cpu") as server:
        wait_until_ready(chromium, server)
        yield DemoPage(server.address, folder, library.folder, server)
        assert "streamlit_app" not in server.output, server.output


def open_card(page: Page, address: str, name: str) -> str:
    """Ask, and click a card of a video; gives the address to be shared."""
    page.goto(address)
    page.get_by_test_id("examples").wait_for()
    page.get_by_role("button", name="Filters").click()
    page.get_by_role("slider").first.focus()
    page.keyboard.press("Home")
    page.wait_for_url("**min=0*")
    page.keyboard.press("Escape")
    ask(page, a_question())
    page.get_by_test_id("card").filter(has_text=name).first.click()
    opened_span(page)
    return page.url


def test_a_moment_of_a_removed_video_does_not_withhold_the_others(
    changing: DemoPage, visit: Callable[..., Page]
) -> None:
    page = visit("about:blank")
    shared = open_card(page, changing.address, "demo_00001")
    page.get_by_role("link", name="Library").click()
    table = page.get_by_test_id("stDataFrame")
    table.locator("canvas").first.wait_for()
    box = table.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 16, box["y"] + 35 + 35 + 17)  # the box of the second row, below the heads
    page.get_by_role("button", name="Remove 1 video").click()
    button(page, "Remove").click()
    page.get_by_test_id("stMetricValue").get_by_text("2", exact=True).wait_for()
    assert [Path(entry.path).name for entry in Library(changing.library).videos()] == [
        "demo_00000.mp4",
        "demo_00002.mp4",
    ]
    # The visitor's own page, and somebody else's with the link that was shared.
    page.get_by_role("link", name="Search").click()
    other = visit(shared)
    for each in (page, other):
        each.get_by_text("belongs to a video that is not in the library any more").wait_for()
        each.get_by_test_id("card").first.wait_for()
        assert each.get_by_test_id("card").filter(has_text="demo_00001").count() == 0
        each.get_by_test_id("card").first.click()
        each.get_by_test_id("video").wait_for()
        each.get_by_text("belongs to a video that is not in the library any more").wait_for(state="detached")


def test_a_moment_of_a_deleted_file_is_told_so_and_offers_nothing(
    changing: DemoPage, visit: Callable[..., Page]
) -> None:
    page = visit("about:blank")
    shared = open_card(page, changing.address, "demo_00002")
    (changing.films / "demo_00002.mp4").unlink()
    page.goto(shared)
    page.get_by_text("the file does not exist any more").wait_for()
    page.get_by_test_id("card").first.wait_for()
    assert page.get_by_text("Download the clip").count() == page.get_by_text("Replay the moment").count() == 0
    page.get_by_role("link", name="This video").click()
    page.get_by_text("the file does not exist any more").wait_for()
    page.get_by_test_id("stVegaLiteChart").wait_for()


def test_the_first_question_after_a_restart_is_answered(
    demo_library: Path, tmp_path: Path, visit: Callable[..., Page]
) -> None:
    library = tmp_path / "library"
    shutil.copytree(demo_library, library, ignore=shutil.ignore_patterns("uploads", "previews"))
    with PageServer(library, "--device", "cpu") as server:
        port = urlsplit(server.address).port
        # A new page, asked before the model is loaded.
        early = visit(server.address)
        early.set_default_timeout(LOADING)
        ask(early, a_question())
        wait_for_question(early, a_question())
        idle = visit(server.address)
        idle.set_default_timeout(LOADING)
        idle.get_by_test_id("examples").wait_for()
    with PageServer(library, "--device", "cpu", "--port", port) as server:
        for page in (idle, early):
            page.locator("[data-test-connection-state=CONNECTED]").wait_for()
        ask(idle, a_question())
        wait_for_question(idle, a_question())
        assert parse_qs(urlsplit(idle.url).query)["q"] == [a_question()]
        # The other page was not touched since: its first click is on a card.
        early.get_by_test_id("card").first.click()
        start, end = opened_span(early)
        wait_for_time(early, start - 0.1, end + 0.5)
        assert "streamlit_app" not in server.output, server.output
