"""Videos whose every picture carries its own number, so that a test can tell which picture it got."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from vtg.video.process import ffmpeg_binary

__all__ = ["BEEP", "Codecs", "beeps", "ffmpeg", "ffmpeg_pick", "read_code", "read_codes", "render", "turned"]

SIDE = 4  # blocks a side; 4 rows of 4 bits: the number, and a row to check it
LARGEST = 1 << 12
BEEP = "aevalsrc='0.5*sin(2*PI*1000*t)*lt(mod(t,1),0.1)':s=48000"  # sounds for a tenth at every whole second

Codecs = {
    "h264": ["-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", "30"],
    "hevc": [
        "-c:v",
        "libx265",
        "-preset",
        "ultrafast",
        "-x265-params",
        "log-level=error:keyint=30:bframes=3:open-gop=0",
    ],
    "vp9": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "30", "-b:v", "200k"],
    "av1": ["-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "8", "-g", "30", "-b:v", "200k"],
}


def picture(number: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Grey with the number as black and white blocks over the whole central square; [H, W, 3]."""
    assert 0 <= number < LARGEST
    rows = [number >> 8 & 15, number >> 4 & 15, number & 15]
    # Not symmetric, so that a picture turned or mirrored is not read as another number.
    rows.append((rows[0] * 3 + rows[1] * 5 + rows[2] * 7 + 9) & 15)
    bits = np.array([[row >> 3 - column & 1 for column in range(SIDE)] for row in rows], np.uint8)
    frame = np.full((height, width, 3), 90, np.uint8)
    side = min(width, height)
    top, left = (height - side) // 2, (width - side) // 2
    place = np.arange(side) * SIDE // side
    frame[top : top + side, left : left + side] = (bits[place][:, place] * 255)[..., None]
    return frame


def read_code(frame: npt.NDArray[np.uint8]) -> int:
    """The number in a picture's central square, or -1 if there is none that checks."""
    height, width = frame.shape[:2]
    side = min(width, height)
    top, left = (height - side) / 2, (width - side) / 2
    block = side / SIDE
    rows = []
    for row in range(SIDE):
        value = 0
        for column in range(SIDE):
            y, x = (int(edge + (index + 0.3) * block) for edge, index in ((top, row), (left, column)))
            reach = max(1, int(0.4 * block))
            value = value << 1 | int(frame[y : y + reach, x : x + reach].mean() > 127)
        rows.append(value)
    check = (rows[0] * 3 + rows[1] * 5 + rows[2] * 7 + 9) & 15
    return rows[0] << 8 | rows[1] << 4 | rows[2] if rows[3] == check else -1


def read_codes(frames: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]) -> list[int]:
    """The number in each picture."""
    return [read_code(frame) for frame in frames]


def ffmpeg(*arguments: str, given: bytes | None = None, is_reference: bool = False) -> bytes:
    """Runs ffmpeg; gives its standard output.

    Args:
        arguments: of the command line.
        given: standard input.
        is_reference: the one of imageio-ffmpeg is run, whatever is on the path: old ones lack options, and their fps
            filter forgets how long the last picture stands.
    """
    binary = imageio_ffmpeg.get_ffmpeg_exe() if is_reference else ffmpeg_binary()
    command = [binary, "-hide_banner", "-v", "error", "-y", *arguments]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def render(
    out: Path,
    count: int,
    *options: str,
    rate: str = "25",
    size: tuple[int, int] = (96, 72),
    encode: Sequence[str] = Codecs["h264"],
    sound: bool = False,
    first: int = 0,
    pixels: str = "yuv420p",
) -> Path:
    """Writes pictures `first`, `first`+1, … as a video.

    Args:
        out: the file; its ending tells the container.
        count: pictures.
        options: further options of the output.
        rate: pictures a second.
        size: width and height in pixels.
        encode: options that choose the codec.
        sound: with a beep at every whole second.
        first: number of the first picture.
        pixels: pixel format.
    """
    width, height = size
    raw = b"".join(picture(first + number, width, height).tobytes() for number in range(count))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "pipe:0"]
    # Not by -shortest: old versions let the sound run on.
    heard = ["-f", "lavfi", "-t", f"{float(count / Fraction(rate)):.6f}", "-i", BEEP] if sound else []
    coded = ["-c:a", "aac"] if sound else []
    ffmpeg(*source, *heard, *encode, "-pix_fmt", pixels, *coded, *options, str(out), given=raw)
    return out


def turned(path: Path, out: Path, degrees: int) -> Path:
    """Writes a copy whose display matrix turns the pictures clockwise."""
    ffmpeg("-display_rotation", str(-degrees), "-i", str(path), "-c", "copy", str(out), is_reference=True)
    return out


def ffmpeg_pick(path: Path, fps: float, size: int = 64) -> list[int]:
    """The numbers of the pictures that ffmpeg's own fps filter picks."""
    square = "scale='max(2,if(sar,iw*sar,iw))':ih,setsar=1"
    fit = f"{square},scale='if(gt(a,1),-2,{size})':'if(gt(a,1),{size},-2)',crop={size}:{size},format=rgb24"
    raw = ffmpeg(
        *("-i", str(path), "-map", "0:V:0", "-vf", f"setpts=PTS-STARTPTS,fps={fps}:round=near,{fit}"),
        *("-f", "rawvideo", "pipe:1"),
        is_reference=True,
    )
    return read_codes(np.frombuffer(raw, np.uint8).reshape(-1, size, size, 3))


def beeps(path: Path) -> list[float]:
    """When the beeps of a file begin, seconds on the clock on which its first picture is shown at 0."""
    picture = ("-map", "0:V:0", "-vf", "showinfo", "-frames:v", "1", "-f", "null", "-")
    command = [ffmpeg_binary(), "-hide_banner", "-copyts", "-i", str(path), *picture]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stderr
    first = re.search(r"n: +0 pts:.*?pts_time:(\S+)", said)
    assert first is not None
    rate, window = 8000, 80  # of 10 ms, because the tone itself passes through zero
    hear = f"asetpts=PTS-{first[1]}/TB,aresample={rate}:async=1:first_pts=0"
    raw = ffmpeg("-copyts", "-i", str(path), "-map", "0:a:0", "-af", hear, "-ac", "1", "-f", "f32le", "pipe:1")
    loud = np.abs(np.frombuffer(raw, np.float32)) > 0.1
    heard = loud[: len(loud) // window * window].reshape(-1, window).any(axis=1)
    starts = np.flatnonzero(heard & ~np.concatenate([[False], heard[:-1]]))
    return [float(start) * window / rate for start in starts]
