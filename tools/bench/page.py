"""Measure the page in a browser: time from Enter to the results for one and five users, and memory with large videos.

    python -m tools.bench.page --videos 200

Needs playwright and a Chromium. Without --library, a library of demo videos is created.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tools.bench.page_server import BROWSER_OPTIONS, PageServer, find_chromium
from vtg.demo import make_videos
from vtg.demo.world import COLOURS, SHAPES
from vtg.library.library import Library
from vtg.video.process import ffmpeg_binary

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

TIMEOUT_MS = 120_000
USERS = 5
LARGE_BYTES = 2 << 30
QUERIES = [f"a {colour} {shape}" for shape in SHAPES for colour in COLOURS]
# Measures from the key press until the results are painted. The page sends an event, because polling it in each frame
# would slow it down.
WATCH = """() => {
    addEventListener("keydown", (event) => { if (event.key === "Enter") window.entered = performance.now(); }, true);
    addEventListener("vtg-cards", ({detail}) => {
        requestAnimationFrame(() => requestAnimationFrame(() => {
            if (detail === window.expected) window.show(performance.now() - window.entered);
        }));
    });
}"""
EXPECT = """(query) => {
    window.expected = query;
    window.shown = new Promise((show) => { window.show = show; });
}"""


def make_library(folder: Path, videos: int) -> Path:
    """Create a library of small demo videos of one minute each."""
    library = Library(folder / "library", "demo", device="cpu")
    make_videos(folder / "videos", "test", videos, seconds=60, width=160, height=120, frame_rate=4)
    library.add([folder / "videos"])
    return library.folder


async def search(page: Page, query: str) -> float:
    """Search, and return the milliseconds from Enter until the results of this query are on the screen."""
    box = page.get_by_label("Ask for a moment")
    await box.fill(query)
    await page.evaluate(EXPECT, query)
    await box.press("Enter")
    return float(await asyncio.wait_for(page.evaluate("window.shown"), TIMEOUT_MS / 1000))


async def open_page(browser: Browser, address: str) -> Page:
    """Open the page in a new browser context, with a minimum score of 0 so that every query has results."""
    page = await (await browser.new_context(viewport={"width": 1280, "height": 1000})).new_page()
    await page.goto(f"{address}/?min=0")
    await page.get_by_test_id("examples").wait_for(timeout=TIMEOUT_MS)
    await page.evaluate(WATCH)
    return page


async def measure_alone(browser: Browser, address: str, searches: int) -> dict[str, float]:
    """Measure the first search after the page is ready, and later ones, all with different queries."""
    page = await open_page(browser, address)
    first = await search(page, QUERIES[0])
    later = [await search(page, query) for query in QUERIES[1 : searches + 1]]
    await page.context.close()
    return {"first_ms": first, **summary("later", later)}


async def measure_crowd(browser: Browser, address: str, searches: int) -> dict[str, float]:
    """Measure `searches` searches in total by several simultaneous users, each with one query after the other."""
    pages = [await open_page(browser, address) for _ in range(USERS)]

    async def visit(number: int) -> list[float]:
        # Each user has different texts in a different order, so that no result is cached from another user.
        own = [f"{query}, please {number}" for query in QUERIES[number:] + QUERIES[:number]]
        return [await search(pages[number], query) for query in own[: searches // USERS]]

    times = [ms for user_times in await asyncio.gather(*map(visit, range(USERS))) for ms in user_times]
    return {"crowd_searches": float(len(times)), **summary("crowd", times)}


def summary(name: str, times: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum, ms."""
    ordered = sorted(times)
    return {
        f"{name}_median_ms": statistics.median(ordered),
        f"{name}_p95_ms": ordered[int(0.95 * (len(ordered) - 1))],
        f"{name}_worst_ms": ordered[-1],
    }


def make_large_films(folder: Path) -> None:
    """Create an MP4 file of 2 GB, and an HEVC video in Matroska."""
    folder.mkdir(parents=True)
    noise = "testsrc2=s=1280x720:r=25:d=10,noise=alls=60:allf=t"
    part = folder / "part.mp4"
    coded = ["-c:v", "libx264", "-preset", "ultrafast", "-b:v", "90M", "-pix_fmt", "yuv420p"]
    _ffmpeg("-f", "lavfi", "-i", noise, *coded, part)
    times = -(-LARGE_BYTES // part.stat().st_size)
    _ffmpeg("-stream_loop", times - 1, "-i", part, "-c", "copy", "-movflags", "+faststart", folder / "large.mp4")
    part.unlink()
    hevc = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"]
    _ffmpeg("-f", "lavfi", "-i", "testsrc2=s=1280x720:r=25:d=120", *hevc, folder / "hevc.mkv")


def _ffmpeg(*words: object) -> None:
    subprocess.run([ffmpeg_binary(), "-v", "error", "-y", *map(str, words)], check=True)


async def measure_large(browser: Browser, folder: Path) -> dict[str, float]:
    """Play and seek in large videos; returns seconds, and the growth of the server's memory in MB."""
    make_large_films(folder / "films")
    library = Library(folder / "library", "demo", device="cpu")
    library.add([folder / "films"])
    figures = {}
    with PageServer(library.folder, "--device", "cpu") as server:
        page = await open_page(browser, server.address)
        await search(page, QUERIES[0])
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        peak = before
        for entry in library.videos():
            name = Path(entry.path).stem
            began = time.perf_counter()
            await page.goto(f"{server.address}/?q=a+red+circle&open={entry.video[:12]}_2_6")
            video = page.get_by_test_id("video")
            await video.wait_for(timeout=TIMEOUT_MS)
            for share in (0.9, 0.3, 0.6):
                reached = await video.evaluate(_SEEK, [share, entry.duration])
                figures[f"{name}_seek_{share:g}_s"] = reached
                peak = max(peak, process.memory_info().rss)
            figures[f"{name}_all_s"] = time.perf_counter() - began
        figures["server_grew_mb"] = (peak - before) / 2**20
        figures["large_mb"] = (folder / "films" / "large.mp4").stat().st_size / 2**20
    return figures


# Waits until the complete video is loaded, seeks, and waits until it plays there; returns the seconds from the seek.
_SEEK = """(first, [share, duration]) => new Promise((done) => {
    const find = () => [...document.querySelectorAll("*")].map((each) => each.shadowRoot).filter(Boolean)
        .map((root) => root.querySelector("video[data-testid=video]")).find(Boolean);
    const look = () => {
        const video = find();
        if (!video || video.readyState < 2 || video.duration < duration - 1) return setTimeout(look, 50);
        const began = performance.now(), goal = share * duration;
        video.onseeked = () => {
            video.play();
            const play = () => video.currentTime > goal + 0.2 ? done((performance.now() - began) / 1000)
                : setTimeout(play, 20);
            play();
        };
        video.currentTime = goal;
    };
    look();
})"""


async def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """All figures that were selected with --only."""
    from playwright.async_api import async_playwright

    figures: dict[str, float] = {}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=BROWSER_OPTIONS)
        if arguments.only != "large":
            home = arguments.library or make_library(folder / "small", arguments.videos)
            with PageServer(home, "--device", "cpu") as server:
                figures["videos"] = float(len(Library(home).videos()))
                if arguments.only != "crowd":
                    figures |= await measure_alone(browser, server.address, arguments.searches)
                if arguments.only != "alone":
                    figures |= await measure_crowd(browser, server.address, arguments.crowd)
                if "Traceback" in server.output:
                    raise SystemExit(server.output)
        if arguments.only in (None, "large"):
            figures |= await measure_large(browser, folder / "large")
        await browser.close()
    return figures


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, help="existing library to use instead of demo videos")
    parser.add_argument("--videos", type=int, default=200, help="demo videos in the new library (default: 200)")
    parser.add_argument("--searches", type=int, default=30, help="searches of one user after the first (default: 30)")
    parser.add_argument("--crowd", type=int, default=200, help="searches of five users in total (default: 200)")
    parser.add_argument("--only", choices=["alone", "crowd", "large"], help="measure only this")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures: dict[str, Any] = asyncio.run(measure(arguments, Path(folder)))
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"  {name:28} {value:10.2f}")


if __name__ == "__main__":
    main()
