"""Render the screenshots of the README and the manual: the page with a library of demo videos.

    python -m tools.pictures --out docs/pictures

Needs playwright and a Chromium. Writes page-light.png, page-dark.png (a query with its results), moment-light.png and
moment-dark.png (one moment opened, with the saliency curve).
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tools.bench.page_server import PageServer, open_browser
from vtg.demo import make_videos
from vtg.files.whole import write_whole
from vtg.library.library import Library

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

VIDEOS = 12  # of the split "demo", on which the bundled models were not trained
QUERY = "a white heart"
MAX_PICTURE_BYTES = 400_000
WIDTH = 1280  # pixels
HEIGHTS = {"page": 740, "moment": 1090}  # pixels
TIMEOUT_MS = 180_000
COLOUR_SCHEMES = ("light", "dark")
CARD = "[data-testid=card]"
CURVE = "[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg"


def render(out: Path, videos: int = VIDEOS, query: str = QUERY) -> list[Path]:
    """Render all screenshots.

    Args:
        out: folder to write to.
        videos: number of demo videos in the library.
        query: the query on the page.

    Returns:
        The files that were written.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with tempfile.TemporaryDirectory(prefix="vtg-pictures-") as scratch:
        folder = Path(scratch)
        library = Library(folder / "library", "demo", device="cpu")
        make_videos(folder / "videos", "demo", videos)
        library.add([folder / "videos"])
        hit = library.search(query, limit=1)[0]
        (entry,) = (entry for entry in library.videos() if entry.path == hit.video)
        opened = f"{entry.video[:12]}_{hit.moment.start:g}_{hit.moment.end:g}"
        addresses = {"page": {"q": query}, "moment": {"q": query, "open": opened}}
        with PageServer(library.folder, "--device", "cpu") as server, open_browser() as browser:
            for scheme in COLOUR_SCHEMES:
                page = _open(browser, server.address, scheme)
                for name, fields in addresses.items():
                    page.set_viewport_size({"width": WIDTH, "height": HEIGHTS[name]})
                    page.goto(f"{server.address}/?{urlencode(fields)}")
                    _wait_until_shown(page, name)
                    written.append(_save(page.screenshot(animations="disabled"), out / f"{name}-{scheme}.png"))
                page.context.close()
    return written


def _open(browser: Browser, address: str, scheme: str) -> Page:
    """Open the page in a new browser context, and wait until its model is loaded."""
    options: dict[str, Any] = {"color_scheme": scheme, "viewport": {"width": WIDTH, "height": HEIGHTS["page"]}}
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(address)
    page.get_by_test_id("examples").wait_for()
    return page


def _wait_until_shown(page: Page, name: str) -> None:
    """Wait until all content of a page is shown."""
    page.locator(CARD if name == "page" else CURVE).first.wait_for()
    thumbnails = page.locator(f"{CARD} img")
    for number in range(thumbnails.count()):
        thumbnails.nth(number).evaluate("image => { image.loading = 'eager'; return image.decode().catch(() => {}); }")
    if name == "moment":
        page.get_by_test_id("video").evaluate(
            "video => new Promise(done => video.readyState > 1 ? done() : video.oncanplay = done)"
        )
    page.locator("[data-stale=true]").first.wait_for(state="detached")


def _save(png: bytes, path: Path) -> Path:
    """Write a PNG whole or not at all, without an alpha channel and with the best lossless compression."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    with write_whole(path) as beside:
        picture.save(beside, format="png", optimize=True)
    if path.stat().st_size > MAX_PICTURE_BYTES:
        raise SystemExit(f"{path}: {path.stat().st_size} bytes, more than {MAX_PICTURE_BYTES}; make the page smaller")
    return path


def main() -> None:
    """Render the screenshots and print their paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("docs/pictures"), help="folder to write to (default: docs/pictures)"
    )
    parser.add_argument("--query", default=QUERY, help=f"query on the page (default: {QUERY})")
    parser.add_argument("--videos", type=int, default=VIDEOS, help=f"demo videos in the library (default: {VIDEOS})")
    options = parser.parse_args()
    for path in render(options.out, options.videos, options.query):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
