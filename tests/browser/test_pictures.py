"""The pictures of README and manual can be rendered anew at any time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tools.pictures import COLOUR_SCHEMES, HEIGHTS, MAX_PICTURE_BYTES, WIDTH

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_all_pictures_are_rendered(chromium: Any, tmp_path: Path) -> None:
    # In a process of its own: the browser of the tests runs in this one.
    command = [sys.executable, "-m", "tools.pictures", "--out", str(tmp_path), "--videos", "3"]
    subprocess.run([*command, "--query", "a yellow heart"], cwd=REPOSITORY, check=True, timeout=600)
    written = list(tmp_path.iterdir())
    assert sorted(path.stem for path in written) == sorted(
        f"{name}-{look}" for name in HEIGHTS for look in COLOUR_SCHEMES
    )
    for path in written:
        with Image.open(path) as picture:
            assert picture.size == (WIDTH, HEIGHTS[path.stem.partition("-")[0]])
        assert path.stat().st_size <= MAX_PICTURE_BYTES
    light, dark = (Image.open(tmp_path / f"page-{look}.png").convert("L").resize((1, 1)) for look in COLOUR_SCHEMES)
    assert light.getpixel((0, 0)) > dark.getpixel((0, 0)) + 50
