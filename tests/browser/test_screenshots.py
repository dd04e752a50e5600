"""Pictures of each page, light, dark and on a phone, to be looked at; and that nothing is wider than the screen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import PICTURES, DemoPage
from .test_search_page import a_question
from .test_video_page import first_video

if TYPE_CHECKING:
    from playwright.sync_api import Page

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 1300}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 1300}},
    "phone": {
        "color_scheme": "light",
        "viewport": {"width": 390, "height": 1500},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_fits_and_is_pictured(demo: DemoPage, visit: Callable[..., Page], look: str) -> None:
    video = first_video(demo)
    addresses = {
        "search": f"/?q={a_question()}&min=0",
        "moment": f"/?q={a_question()}&min=0&open={video}_4_10",
        "like": f"/?like={video}@4-10",
        "said": "/?said=lake",
        "nothing": "/?q=a+red+circle&min=1",
        "video": f"/video?v={video}&q={a_question()}&q=a+black+ring&q=a+green+star",
        "summary": f"/video?v={video}&q={a_question()}&part=summary",
        "library": "/library",
        "models": "/models",
    }
    folder = Path(os.environ.get("VTG_SCREENSHOTS", PICTURES))
    folder.mkdir(parents=True, exist_ok=True)
    page = visit(demo.address, **LOOKS[look])
    for name, address in addresses.items():
        page.goto(demo.address + address)
        settled(page, name)
        picture = folder / f"{name} {look}.png"
        page.screenshot(path=picture, animations="disabled")
        assert picture.stat().st_size > 10_000
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= LOOKS[look]["viewport"]["width"], f"{name} is {width} pixels wide"


def settled(page: Page, name: str) -> None:
    """Wait until a page shows all that it has."""
    landmark = {
        "search": "[data-testid=card]",
        "moment": "[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg",
        "like": "[data-testid=card]",
        "said": "[data-testid=card]",
        "nothing": ".st-key-empty",
        "video": "[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg",
        "summary": "[data-testid=card]",
        "library": "[data-testid=stDataFrame]",
        "models": "[data-testid=stDataFrame]",
    }[name]
    page.locator(landmark).first.wait_for()
    pictures = page.locator("[data-testid=card] img")
    for number in range(pictures.count()):
        pictures.nth(number).evaluate("image => { image.loading = 'eager'; return image.decode().catch(() => {}); }")
    if name in ("moment", "video", "summary"):
        page.get_by_test_id("video").evaluate(
            "video => new Promise(done => video.readyState > 1 ? done() : video.oncanplay = done)"
        )
    page.locator("[data-stale=true]").first.wait_for(state="detached")
