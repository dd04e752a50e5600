"""Limits on what one video may cost, on files whose pictures are large or kept by the decoder in large numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vtg.errors import VideoError
from vtg.video import limits
from vtg.video.limits import MemoryGuard, check_size, child_threads, decoding_threads
from vtg.video.process import ffmpeg_binary, run

HUGE = Path(__file__).parent / "data" / "cases" / "huge-8k.mp4"


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


def test_large_pictures_get_fewer_threads_in_this_process_and_huge_ones_none() -> None:
    assert decoding_threads(320, 240) == decoding_threads(1920, 1080, 24) == decoding_threads(3840, 2160) == 4
    assert 1 <= decoding_threads(3840, 2160, 24) <= 4
    assert decoding_threads(7680, 4320) == decoding_threads(8192, 8192) == 0


def test_an_ffmpeg_process_gets_at_least_one_thread() -> None:
    assert child_threads(3840, 2160, 24) == 4
    assert 1 <= child_threads(8192, 8192) < 4
    assert child_threads(8192, 8192, 48) == 1


def test_pictures_beyond_the_limit_are_refused_in_one_line_that_says_it() -> None:
    check_size("a.mp4", 8192, 8192)
    check_size("a.mp4", 16384, 4096)
    with pytest.raises(
        VideoError, match=r"^a.mp4: has frames of 8192x8208 pixels; the limit is 67 megapixels"
    ) as raised:
        check_size("a.mp4", 8192, 8208)
    assert "\n" not in str(raised.value)


def test_the_guard_notices_what_decoding_takes_and_costs_small_pictures_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guard = MemoryGuard(3840, 2160, 4, 24)
    guard.check()
    taken = np.ones(limits.MAX_DECODING_MEMORY // 8 + (10 << 20))
    with pytest.raises(MemoryError, match="300 MB"):
        guard.check()
    del taken
    monkeypatch.setattr(limits, "process_memory", lambda: pytest.fail("was asked"))
    MemoryGuard(1920, 1080, 4).check()


PEAK = """
import sys
import av
from vtg.video.limits import MAX_PIXELS_AT_OPENING, process_memory
before = process_memory()
with av.open(sys.argv[1], options={"max_pixels": str(MAX_PIXELS_AT_OPENING)}) as container:
    stream = container.streams.video[0]
    print(stream.width, stream.height, stream.codec_context.pix_fmt, (process_memory() - before) // 10**6)
"""


def test_opening_does_not_decode_huge_pictures() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PEAK, str(HUGE)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=True).stdout
    *facts, megabytes = said.split()
    assert facts == ["8192", "8192", "yuv420p"]
    assert int(megabytes) < 60


def test_ffmpeg_decodes_huge_pictures_within_its_limit() -> None:
    command = [ffmpeg_binary(), "-v", "error", "-nostdin", "-threads", str(child_threads(8192, 8192)), "-i", str(HUGE)]
    command += ["-vf", "fps=1,scale=64:64,format=gray", "-frames:v", "4", "-f", "rawvideo", "pipe:1"]
    status, output, said = run(command)
    assert (status, len(output)) == (0, 4 * 64 * 64), said
