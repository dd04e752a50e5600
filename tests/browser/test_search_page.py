"""In a real browser: a question, its cards, the player at the right second, the curve, the clip, the address."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from vtg.demo import make_scene, split_seed
from vtg.video import probe

from .conftest import PATIENCE, SECONDS, DemoPage

if TYPE_CHECKING:
    from playwright.sync_api import Page


def a_question() -> str:
    """Something that the first demo video shows."""
    thing = make_scene(split_seed("demo", 0), SECONDS).things[0]
    return f"a {thing.colour} {thing.shape}"


def ask(page: Page, question: str) -> None:
    """Type a question, and wait for the cards that answer it."""
    box = page.get_by_label("Ask for a moment")
    box.fill(question)
    box.press("Enter")
    page.wait_for_selector(f"[data-testid=cards][data-query={question!r}] [data-testid=card]")


def wait_for_question(page: Page, question: str) -> None:
    """Wait until the box says what is asked."""
    page.wait_for_function("question => document.querySelector('.st-key-ask input')?.value === question", arg=question)


def opened_span(page: Page) -> tuple[float, float]:
    """Start and end of the moment that the address names."""
    page.wait_for_url("**open=*")
    _, start, end = parse_qs(urlsplit(page.url).query)["open"][0].split("_")
    return float(start), float(end)


def wait_for_time(page: Page, low: float, high: float) -> None:
    """Wait until the player is between two times, seconds."""
    wait = """(video, [low, high, patience]) => new Promise((done, fail) => {
        const last = Date.now() + patience;
        const look = () => {
            if (video.readyState > 1 && video.currentTime >= low && video.currentTime <= high) done();
            else if (Date.now() > last) fail(new Error(`is at ${video.currentTime} s, not at ${low} to ${high} s`));
            else setTimeout(look, 50);
        };
        look();
    })"""
    page.get_by_test_id("video").evaluate(wait, [low, high, PATIENCE])


def test_a_question_gives_cards_and_the_player_the_right_second(
    demo: DemoPage, visit: Callable[..., Page], tmp_path: Path
) -> None:
    page = visit(demo.address)
    page.get_by_test_id("examples").get_by_role("button").first.wait_for()
    ask(page, a_question())
    first = page.get_by_test_id("card").first
    first.locator("img").evaluate("image => image.decode()")
    assert first.locator("img").evaluate("image => image.naturalWidth") > 100
    first.click()
    start, end = opened_span(page)
    wait_for_time(page, start - 0.1, end + 0.5)

    chart = page.get_by_test_id("stVegaLiteChart")
    chart.locator("canvas, svg").first.wait_for()
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.4)
    page.wait_for_url("**t=*")
    at = float(parse_qs(urlsplit(page.url).query)["t"][0])
    assert at == pytest.approx(0.75 * SECONDS, abs=2.5)
    wait_for_time(page, at - 0.1, at + 6)

    with page.expect_download() as waiting:
        page.get_by_test_id("download-clip").click()
    clip = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(clip)
    assert clip.suffix == ".mp4"
    assert probe(clip).duration == pytest.approx(end - start, abs=0.15)
    assert probe(clip).codec == "h264"


def test_a_card_plays_a_short_film_while_it_is_pointed_at(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{demo.address}/?q={a_question()}")
    card = page.get_by_test_id("card").first
    card.hover()
    film = card.get_by_test_id("preview")
    film.wait_for()
    film.evaluate("film => new Promise(done => film.currentTime > 0 ? done() : film.ontimeupdate = done)")
    assert film.evaluate("film => film.duration") < 21.5
    page.mouse.move(1, 1)
    film.wait_for(state="detached")


def test_the_address_brings_back_what_was_seen(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{demo.address}/?min=0")
    ask(page, a_question())
    page.get_by_text("Group by video").click()
    page.wait_for_url("**group=1*")
    page.get_by_role("heading", level=3).first.wait_for()
    page.get_by_test_id("card").nth(1).click()
    start, end = opened_span(page)
    shared = page.url

    other = visit(shared)
    wait_for_question(other, a_question())
    other.get_by_role("heading", level=3).first.wait_for()
    chosen = other.locator("[data-testid=card][aria-pressed=true]")
    chosen.wait_for()
    wait_for_time(other, start - 0.1, end + 0.5)
    assert urlsplit(other.url).query == urlsplit(shared).query


def test_other_pages_and_going_back_keep_the_question(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{demo.address}/?q=a+red+circle&min=0")
    page.wait_for_selector("[data-testid=cards][data-query='a red circle']")
    ask(page, "a blue square")
    page.get_by_role("link", name="Library").click()
    page.get_by_role("heading", name="Library").wait_for()
    page.get_by_role("link", name="Search").click()
    page.wait_for_selector("[data-testid=cards][data-query='a blue square']")
    wait_for_question(page, "a blue square")
    assert "q=a+blue+square" in page.url
    # Each step back is one that the visitor took: no other page and no empty one lies between.
    page.go_back()
    page.get_by_role("heading", name="Library").wait_for()
    page.go_back()
    page.wait_for_selector("[data-testid=cards][data-query='a blue square']")
    page.go_back()
    page.wait_for_selector("[data-testid=cards][data-query='a red circle']")
    wait_for_question(page, "a red circle")
    page.go_forward()
    page.wait_for_selector("[data-testid=cards][data-query='a blue square']")
    page.go_forward()
    page.get_by_role("heading", name="Library").wait_for()
    page.go_forward()
    page.wait_for_selector("[data-testid=cards][data-query='a blue square']")
    wait_for_question(page, "a blue square")


def test_examples_and_history_ask(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{demo.address}/?min=0")
    example = page.get_by_test_id("examples").get_by_role("button").first
    question = example.inner_text()
    example.click()
    page.wait_for_selector(f"[data-testid=cards][data-query={question!r}]")
    ask(page, a_question() if question != a_question() else "a red circle")
    page.reload()
    page.get_by_test_id("history").get_by_role("button", name=question).click()
    page.wait_for_selector(f"[data-testid=cards][data-query={question!r}]")
    page.get_by_role("button", name="Clear history").click()
    page.get_by_test_id("history").wait_for(state="detached")


def test_cards_are_reached_and_chosen_by_keyboard(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{demo.address}/?q={a_question()}")
    page.get_by_test_id("card").first.wait_for()
    page.get_by_label("Ask for a moment").focus()
    for _ in range(25):
        page.keyboard.press("Tab")
        if page.locator("[data-testid=card]:focus").count():
            break
    page.keyboard.press("Enter")
    opened_span(page)


@pytest.mark.parametrize(
    "question",
    [
        "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>",
        "**bold** [link](https://example.org) :red[x] $x^2$ `code`",
        "ein 🐶 springt 👩‍🚀 in den See",
        "كلب يقفز في البحيرة",
    ],
)
def test_any_text_is_a_question(demo: DemoPage, visit: Callable[..., Page], question: str) -> None:
    page = visit(demo.address)
    box = page.get_by_label("Ask for a moment")
    box.fill(question)
    box.press("Enter")
    page.wait_for_url("**q=*")
    page.wait_for_selector("[data-testid=cards], .st-key-empty")
    assert page.title() != "broken"
    assert parse_qs(urlsplit(page.url).query)["q"] == [question]
    page.reload()
    page.wait_for_selector("[data-testid=cards], .st-key-empty")
    wait_for_question(page, question)
    assert page.locator("img[src=x]").count() == 0


def test_a_question_that_is_too_long_is_told_so(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(demo.address)
    box = page.get_by_label("Ask for a moment")
    box.fill("a dog and " * 500)
    box.press("Enter")
    page.get_by_text(re.compile(r"This query has 4,999 characters.*one sentence")).wait_for()
    ask(page, a_question())
    assert page.get_by_text("This query has").count() == 0


def test_addresses_that_make_no_sense_show_the_page(demo: DemoPage, visit: Callable[..., Page]) -> None:
    page = visit(f"{demo.address}/?q=a+circle&n=nine&min=x&open=../../etc/passwd&t=-1&in=nowhere&min=0")
    page.get_by_test_id("card").first.wait_for()
    page.goto(f"{demo.address}/?q=a+circle&open=000000000000_1_2")
    page.get_by_text("not in the library any more").wait_for()
    ask(page, a_question())
