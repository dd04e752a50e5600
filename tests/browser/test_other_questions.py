"""In a real browser: more like a moment, a picture, words that are said, nothing found, and exports of what is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from vtg.library.library import Library, Part, Question, Stretch
from vtg.video import sample_frames

from .conftest import DemoPage
from .test_search_page import a_question, opened_span, wait_for_question
from .test_video_page import first_video

if TYPE_CHECKING:
    from playwright.sync_api import Page


def parameter(page: Page, name: str) -> str:
    """What the address says."""
    return parse_qs(urlsplit(page.url).query)[name][0]


def shown(page: Page) -> list[str]:
    """The moments on the cards, as their ids."""
    page.get_by_test_id("card").first.wait_for()
    ids: list[str] = page.get_by_test_id("card").evaluate_all("cards => cards.map(card => card.dataset.id)")
    return ids


def expected_scores(demo: DemoPage, question: Question) -> dict[str, float]:
    """Scores of what the library itself answers by the ids of cards, best first."""
    library = Library(demo.library, device="cpu")
    videos = {entry.path: entry.video for entry in library.videos()}
    hits = library.search(question, 12)
    return {f"{videos[hit.video][:12]}_{hit.moment.start:g}_{hit.moment.end:g}": hit.moment.score for hit in hits}


def expected(demo: DemoPage, question: Question) -> list[str]:
    """What the library itself answers, as ids of cards."""
    return list(expected_scores(demo, question))


def test_more_like_a_card(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{demo.address}/?q={a_question()}&min=0")
    (first, *_) = shown(page)
    page.get_by_test_id("card").first.hover()
    page.get_by_test_id("like").first.click()
    page.wait_for_url("**like=*")
    video, start, end = first.split("_")
    assert parameter(page, "like") == f"{video}@{start}-{end}"
    assert "q" not in parse_qs(urlsplit(page.url).query)
    chip = page.get_by_test_id("asked-like")
    chip.wait_for()
    wait_for_question(page, "")
    path = next(entry.path for entry in Library(demo.library).videos() if entry.video.startswith(video))
    like = Stretch(Path(path), float(start), float(end))
    page.locator(f"[data-testid=card][data-id='{expected(demo, Question((Part(like),)))[0]}']").wait_for()
    page.reload()
    assert shown(page) == expected(demo, Question((Part(like),)))
    # Words are added to it, and without it they are all that is asked.
    box = page.get_by_label("Ask for a moment")
    box.fill(a_question())
    box.press("Enter")
    page.wait_for_url("**q=*")
    page.get_by_role("button", name=re.compile("Remove from the query: like")).click()
    chip.wait_for(state="detached")
    page.locator(f"[data-testid=card][data-id='{first}']").first.wait_for()
    assert "like" not in parse_qs(urlsplit(page.url).query)


def test_more_like_a_card_by_keyboard_and_from_the_player(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{demo.address}/?q={a_question()}&min=0")
    shown(page)
    page.get_by_test_id("card").first.focus()
    page.keyboard.press("Tab")
    seen = "like => new Promise(done => setInterval(() => getComputedStyle(like).opacity === '1' && done(), 20))"
    page.locator("[data-testid=like]:focus").evaluate(seen)
    page.keyboard.press("Enter")
    # Cards of the question before are still there for a moment, and lead nowhere any more.
    page.wait_for_selector("[data-testid=cards][data-query=''] [data-testid=card]")
    page.get_by_test_id("card").first.click()
    start, end = opened_span(page)
    page.locator(".st-key-open").get_by_role("button", name="More like this").click()
    page.wait_for_url(f"**like=*{start:g}-{end:g}*")
    page.locator(".st-key-open").wait_for(state="detached")


def test_more_like_a_highlight(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{demo.address}/video?v={first_video(demo)}&q={a_question()}&part=highlights")
    card = page.get_by_test_id("card").first
    start = float(str(card.get_attribute("data-id")))
    card.hover()
    page.get_by_test_id("like").first.click()
    page.get_by_test_id("asked-like").wait_for()
    assert parameter(page, "like").startswith(f"{first_video(demo)}@{start:g}-")
    shown(page)
    page.go_back()
    page.wait_for_url("**/video?v=*part=highlights*")
    card.wait_for()
    assert parameter(page, "v") == first_video(demo)


@pytest.fixture
def picture(demo: DemoPage, tmp_path: Path) -> Path:
    """A frame of the first demo video."""
    path = min(entry.path for entry in Library(demo.library).videos() if "uploads" not in entry.path)
    _, frames = next(iter(sample_frames(path, 1, 360, 6, 8)))
    Image.fromarray(frames[0]).save(tmp_path / "my <b>frame.png")
    return tmp_path / "my <b>frame.png"


def test_a_picture_asks_and_outlives_a_reload_but_not_its_tab(
    demo: DemoPage, visit: Callable[..., Page], picture: Path
) -> None:
    page = visit(demo.address)
    page.get_by_test_id("picture").set_input_files(picture)
    page.wait_for_url("**picture=*")
    chip = page.get_by_test_id("asked-picture")
    assert chip.inner_text().startswith("my <b>frame.png · in this tab only")
    (first, *_) = found = shown(page)
    assert first.startswith(first_video(demo))
    # The browser sends the picture as JPEG, so moments whose scores differ by less than that changes may swap.
    scores = expected_scores(demo, Question((Part(picture),)))
    assert [scores[moment] for moment in found[:4]] == pytest.approx(list(scores.values())[:4], abs=0.005)
    page.reload()
    assert shown(page) == found
    other = visit(page.url)
    other.get_by_text("only the browser tab in which it was chosen has it").wait_for()
    other.get_by_test_id("picture").set_input_files(picture)
    assert shown(other) == found
    page.get_by_role("button", name=re.compile("Remove from the query")).click()
    chip.wait_for(state="detached")
    page.get_by_test_id("examples").wait_for()


def test_what_is_no_picture_is_refused(demo: DemoPage, visit: Callable[..., Page], tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    page = visit(demo.address)
    page.get_by_test_id("picture").set_input_files(tmp_path / "notes.png")
    page.get_by_text("notes.png: is not a picture that this browser can read").wait_for()


def test_words_that_are_said_are_found_alone_and_with_what_is_seen(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(demo.address)
    page.get_by_role("button", name="Said words").click()
    box = page.get_by_label("Words that are said there", exact=True)
    box.fill("lake")
    box.press("Enter")
    page.wait_for_url("**said=lake*")
    assert len(shown(page)) == 1
    card = page.get_by_test_id("card")
    assert "and now we jump into the lake" in card.inner_text()
    assert "00:05–00:08" in card.inner_text()
    page.goto(f"{demo.address}/?q={a_question()}&said=lake&min=0")
    page.get_by_test_id("card").first.wait_for()
    assert "demo_00001" in page.get_by_test_id("card").first.inner_text()
    page.goto(f"{demo.address}/?said=mountains")
    page.get_by_text("No subtitle contains these words").wait_for()


def test_below_the_threshold_the_nearest_is_a_choice(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{demo.address}/?q={a_question()}&min=1")
    page.get_by_text("Nothing found").wait_for()
    page.get_by_role("button", name="Show the nearest").click()
    shown(page)
    assert parameter(page, "min") == "0"
    page.get_by_role("button", name="Filters").click()
    slider = page.get_by_role("slider").first
    assert float(slider.evaluate("slider => slider.getAttribute('aria-valuenow') ?? slider.value")) == 0


def test_results_are_exported(demo: DemoPage, visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit(f"{demo.address}/?q={a_question()}&min=0")
    found = shown(page)
    page.get_by_role("button", name="Export").click()
    for form in ("JSON", "CSV", "SRT", "EDL", "OTIO"):
        with page.expect_download() as waiting:
            page.get_by_role("link", name=f"{form}:").click()
        waiting.value.save_as(tmp_path / form)
        assert waiting.value.suggested_filename == f"{a_question()}.{form.lower()}"
    results = json.loads((tmp_path / "JSON").read_text("utf-8"))["results"]
    assert [f"{result['start']:g}_{result['end']:g}" for result in results] == [name.split("_", 1)[1] for name in found]
    assert (tmp_path / "EDL").read_text("utf-8").startswith(f"TITLE: {a_question()}\n")
    assert json.loads((tmp_path / "OTIO").read_text("utf-8"))["OTIO_SCHEMA"] == "Timeline.1"
    assert len((tmp_path / "CSV").read_text("utf-8").splitlines()) == len(found) + 1
    assert (tmp_path / "SRT").read_text("utf-8").count("-->") == len(found)
