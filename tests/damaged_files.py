"""Makes damaged video files, the same for the same seed: `python tests/damaged_files.py FOLDER --count 300 --seed 1`.

A few seconds of the demo world are written in six combinations of container and codec. Copies of them are damaged as
disks, cards, broken transfers and ill will do it: flipped bits, a missing end, numbers that claim too much, stretches
of zeros, blocks in the wrong order. A file's name tells its number, its source and its damage.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from vtg.demo import make_videos
from vtg.video.process import ffmpeg_binary

__all__ = ["DAMAGES", "GOOD", "SOURCES", "damaged", "make_damaged_files", "make_sources"]

SECONDS = 20.0
GOOD = "00-good-"  # begins the names of undamaged files; they come first in a folder
H264 = ["-c:v", "libx264", "-preset", "veryfast", "-g", "20", "-pix_fmt", "yuv420p"]
HEVC = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:keyint=20", "-tag:v", "hvc1"]
# Ending and options of each source; all have sound, because its packets and tables are damaged, too.
SOURCES = {
    "h264.mp4": [*H264, "-c:a", "aac"],
    "hevc.mp4": [*HEVC, "-c:a", "aac", "-movflags", "+faststart"],
    "vp9.mkv": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "20", "-c:a", "libopus"],
    "av1.webm": ["-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "8", "-g", "20", "-c:a", "libopus"],
    "mpeg4.avi": ["-c:v", "mpeg4", "-q:v", "5", "-g", "20", "-c:a", "libmp3lame"],
    "h264.ts": [*H264, "-c:a", "aac"],
}
HEADER = 1024  # bytes from the beginning
DENSITIES = (1e-5, 1e-4, 1e-3, 1e-2)  # flipped bits a byte
# What damaged fields claim: the largest numbers, signed and unsigned, and the first beyond them.
CLAIMS = (b"\xff" * 4, b"\x7f" + b"\xff" * 3, b"\x80" + b"\0" * 3, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 4)
INDEXES = (b"moov", b"stbl", b"\x1c\x53\xbb\x6b", b"\x16\x54\xae\x6b", b"idx1", b"hdrl")  # …, Cues, Tracks of Matroska
TIMED = re.compile(rb"mvhd|tkhd|mdhd|elst|stts|ctts|stsz|stco|trun|avih|strh|\x2a\xd7\xb1|\x44\x89|\xe7|\xa3|\x47")
TS_PACKET = 188  # bytes
BLOCK = 4096  # bytes, of a disk


def make_sources(folder: Path, names: Sequence[str] = tuple(SOURCES)) -> tuple[list[Path], str]:
    """Writes the undamaged files.

    Args:
        folder: where to.
        names: keys of `SOURCES`.

    Returns:
        The files, in the order of `names`, and a sentence that is true somewhere in each.
    """
    with tempfile.TemporaryDirectory() as aside:
        (video,) = make_videos(aside, count=1, sentences=3, seconds=SECONDS, width=160, height=120)
        files = []
        for name in names:
            path = folder / f"{GOOD}{name}"
            command = [ffmpeg_binary(), "-v", "error", "-y", "-nostdin", "-i", str(video.path), "-f", "lavfi", "-i"]
            command += [f"sine=sample_rate=48000:duration={SECONDS}", "-map", "0:v", "-map", "1:a", *SOURCES[name]]
            subprocess.run([*command, "-threads", "1", "-bitexact", str(path)], check=True, timeout=120)
            files.append(path)
    return files, min((sentence.text for sentence in video.sentences), key=len)


def make_damaged_files(folder: Path, sources: Sequence[Path], count: int, seed: int) -> list[Path]:
    """Writes damaged copies of files.

    Args:
        folder: where to.
        sources: the whole files; they take turns.
        count: how many to write.
        seed: of the damage; file number n is damaged in the same way whatever the count is.
    """
    contents = [source.read_bytes() for source in sources]
    written = []
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")  # noqa: S311 - not for secrets
        source = sources[number % len(sources)]
        # One step further after each turn of the sources: few files show most damages, and each source meets each.
        kind = list(DAMAGES)[(number + number // len(sources)) % len(DAMAGES)]
        path = folder / f"{number:03d}-{kind}-{source.name.removeprefix(GOOD)}"
        path.write_bytes(damaged(contents[number % len(sources)], kind, chance))
        written.append(path)
    return written


def damaged(content: bytes, kind: str, chance: random.Random) -> bytes:
    """A copy of a file's content with one kind of damage, a key of `DAMAGES`; never the same as the content."""
    copy = bytearray(content)
    while copy == content:
        DAMAGES[kind](copy, chance)
    return bytes(copy)


def _flip(content: bytearray, places: range, chance: random.Random) -> None:
    density = chance.choice(DENSITIES)
    for _ in range(max(1, round(density * len(places)))):
        content[chance.choice(places)] ^= 1 << chance.randrange(8)


def _flip_header(content: bytearray, chance: random.Random) -> None:
    _flip(content, range(min(HEADER, len(content))), chance)


def _flip_index(content: bytearray, chance: random.Random) -> None:
    starts = [at for mark in INDEXES if (at := content.find(mark)) >= 0]
    if starts:
        start = chance.choice(starts)
        _flip(content, range(start, min(start + 4 * HEADER, len(content))), chance)
        return
    # A transport stream has no index, but a header in each packet.
    headers = [at + byte for at in range(0, len(content) - TS_PACKET, TS_PACKET) for byte in range(12)]
    for _ in range(chance.choice((1, 10, 100))):
        content[chance.choice(headers)] ^= 1 << chance.randrange(8)


def _flip_data(content: bytearray, chance: random.Random) -> None:
    _flip(content, range(len(content) // 4, len(content) * 3 // 4), chance)


def _flip_anywhere(content: bytearray, chance: random.Random) -> None:
    _flip(content, range(len(content)), chance)


def _truncate(content: bytearray, chance: random.Random) -> None:
    share = chance.choice((chance.uniform(0, 0.02), chance.uniform(0, 1), chance.uniform(0.98, 1)))
    del content[max(1, int(share * len(content))) :]


def _claim(content: bytearray, chance: random.Random) -> None:
    """Writes huge numbers behind the names of fields that hold sizes, counts and times."""
    marks = [found.end() for found in TIMED.finditer(content)]
    for _ in range(chance.choice((1, 1, 3, 10))):
        at = chance.choice(marks) + 4 * chance.randrange(8) if marks else chance.randrange(len(content))
        claim = chance.choice(CLAIMS)
        content[at : at + len(claim)] = claim[: max(0, len(content) - at)]


def _claim_header(content: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 2, 5))):
        at, claim = chance.randrange(0, min(HEADER, len(content) - 8), 4), chance.choice(CLAIMS)
        content[at : at + len(claim)] = claim


def _zero(content: bytearray, chance: random.Random) -> None:
    length = min(chance.choice((64, BLOCK, 16 * BLOCK)), len(content) // 2)
    at = chance.randrange(len(content) - length)
    content[at : at + length] = bytes(length)


def _swap(content: bytearray, chance: random.Random) -> None:
    size = min(BLOCK, len(content) // 4)
    one, other = chance.sample(range(0, len(content) - size + 1, size), 2)
    content[one : one + size], content[other : other + size] = (
        content[other : other + size],
        content[one : one + size],
    )


def _repeat(content: bytearray, chance: random.Random) -> None:
    """Writes a block twice, as an interrupted transfer that goes on at the wrong place does."""
    at = chance.randrange(len(content) - 1)
    content[at:at] = content[max(0, at - chance.choice((188, 1000, BLOCK))) : at]


DAMAGES: dict[str, Callable[[bytearray, random.Random], None]] = {
    "flip-header": _flip_header,
    "flip-index": _flip_index,
    "flip-data": _flip_data,
    "flip-anywhere": _flip_anywhere,
    "truncate": _truncate,
    "claim": _claim,
    "claim-header": _claim_header,
    "zero": _zero,
    "swap": _swap,
    "repeat": _repeat,
}


def main() -> None:
    """Writes the sources into a folder and the damaged files beside them."""
    parser = argparse.ArgumentParser(description="Make damaged video files.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sources, sentence = make_sources(arguments.folder)
    written = make_damaged_files(arguments.folder, sources, arguments.count, arguments.seed)
    print(f"{len(written)} damaged files and {len(sources)} good ones, which show {sentence!r}")


if __name__ == "__main__":
    main()
