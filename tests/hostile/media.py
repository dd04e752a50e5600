"""Damaged and lying videos: flipped, cut, joined and random bytes, edited headers, pictures that cannot be."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

from damaged_files import CLAIMS, DAMAGES, damaged

from .cases import Bench, Case, command, function
from .material import CASES

__all__ = ["headers", "media", "pictures", "uses_of"]

MARKS = {  # what stands before fields that hold sizes, counts, rates and times; and how many bytes of these follow
    "mp4": {b"mvhd": 100, b"tkhd": 84, b"mdhd": 24, b"elst": 24, b"stts": 24, b"ctts": 24, b"stsz": 40, b"stsc": 28,
            b"stco": 24, b"stss": 16, b"stsd": 120, b"avcC": 40, b"hvcC": 40, b"trex": 24, b"trun": 40, b"tfhd": 24,
            b"mdat": 8, b"moov": 4, b"trak": 4, b"ftyp": 16, b"dref": 24, b"hdlr": 24, b"tmcd": 24},
    "mkv": {b"\x2a\xd7\xb1": 8, b"\x44\x89": 9, b"\xb0": 4, b"\xba": 4, b"\x23\xe3\x83": 8, b"\xe0": 24,
    b"\x16\x54\xae\x6b": 24,
            b"\x1f\x43\xb6\x75": 24, b"\xe7": 6, b"\xa3": 12, b"\x1c\x53\xbb\x6b": 24, b"\x63\xa2": 40,
            b"\x15\x49\xa9\x66": 24},
    "avi": {b"avih": 60, b"strh": 60, b"strf": 48, b"idx1": 64, b"movi": 24, b"LIST": 8, b"00dc": 8, b"RIFF": 8},
    "other": {b"\x00\x00\x01": 16, b"FLV": 40, b"IHDR": 20, b"acTL": 12, b"fcTL": 30, b"VP8X": 16, b"ANMF": 24,
    b"DKIF": 32,
              b"GIF8": 16, b"!\xf9": 8, b"OggS": 60, b"theora": 40, b"\x47": 12, b"onMetaData": 120, b"nut/": 60,
              b"\x06\x0e\x2b\x34": 24, b"\x30\x26\xb2\x75": 60},
}  # fmt: skip
FAMILIES = {"mp4": "mp4", "mov": "mp4", "m4v": "mp4", "3gp": "mp4", "mkv": "mkv", "webm": "mkv", "avi": "avi"}
NUMBERS = (0, 1, 2, 3, 255, 256, 1000, 44100, 65535, 65536, 90000, 2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
SIDES = (0, 1, 3, 7, 4095, 8191, 8193, 16384, 32767, 65535, 65536, 100_000, 2**20, 2**31 - 1, 2**32 - 1)
OWN = ("random", "splice", "zeros", "nothing", "text")  # damages beyond those of `damaged_files`


def media(bench: Bench) -> Case:
    """A good video, damaged."""
    kinds = [*DAMAGES, *OWN]
    names = sorted(bench.material.contents)
    name, kind = names[bench.number % len(names)], kinds[bench.number // len(names) % len(kinds)]
    content = bench.material.contents[name]
    if kind in DAMAGES:
        # The first numbers of a small file may all be marks; some kinds have nothing to damage in it.
        content = damaged(content, kind, bench.chance)
    else:
        content = _own_damage(kind, content, bench)
    return uses_of(_written(bench, f"{bench.number}-{kind}-{name}", content), bench)


def headers(bench: Bench) -> Case:
    """A good video whose header says something else."""
    names = sorted(bench.material.contents)
    name = names[bench.number % len(names)]
    content = bytearray(bench.material.contents[name])
    marks = MARKS[FAMILIES.get(name.rpartition(".")[2], "other")]
    for _ in range(bench.chance.choice((1, 1, 1, 2, 4))):
        _edit(content, marks, bench.chance)
    return uses_of(_written(bench, f"{bench.number}-{name}", bytes(content)), bench)


def pictures(bench: Bench) -> Case:
    """Pictures of absurd sizes and forms, in videos and as a picture that is searched for."""
    makers: list[Callable[[Bench], tuple[str, bytes]]] = [_y4m, _avi, _gif, _png, _jpeg, _sequence_header, _h264, _ivf]
    name, content = makers[bench.number % len(makers)](bench)
    path = _written(bench, f"{bench.number}-{name}", content)
    if path.suffix in (".png", ".jpg", ".gif") and bench.number % 3 == 0:
        words = ["search", "--image", path, "--library", bench.material.library, "--device", "cpu"]
        return Case(command(*words, "--json"), (path.name,))
    return uses_of(path, bench)


def uses_of(path: Path, bench: Bench, commands: int = 12) -> Case:
    """What is done with a video: facts, samples and thumbnails mostly; each other use now and then.

    Args:
        path: the video.
        bench: of the case.
        commands: one of so many cases is a whole command.
    """
    from vtg.video import Span, concat, cut, probe, sample_frames, thumbnail, write_reel
    from vtg.video.decoders import DECODER_VARIABLE
    from vtg.video.preview import browsers_play, write_poster, write_preview, write_proxy

    made = bench.made
    choice = bench.chance.randrange(1000)
    if choice < 1000 // commands:
        return Case(_command(path, bench), (path.name,))
    if choice >= 800:
        writing: list[Callable[[], object]] = [
            lambda: cut(path, 1.0, 2.5, made / "a.mp4"),
            lambda: cut(path, 1.0, 2.5, made / "b.mp4", copy=True),
            lambda: concat([path, path], made / "c.mp4"),
            lambda: write_reel([Span(path, 0.5, 2.0, "a\nb")], made / "d.mp4", 0.2),
            lambda: write_poster(path, 1.0, made / "e.jpg"),
            lambda: write_preview(path, 0.5, 2.0, made / "f.mp4"),
            lambda: write_proxy(path, made / "g.mp4"),
        ]
        return Case(function(bench.chance.choice(writing)), (path.name,), check=lambda: _whole(made))
    if choice >= 700:
        os.environ[DECODER_VARIABLE] = bench.chance.choice(("ffmpeg", "decord"))

    def sample() -> None:
        for _ in sample_frames(path, bench.chance.choice((0.5, 1.0, 3.0)), 64):
            pass

    reading = [lambda: probe(path), sample, lambda: thumbnail(path, 2.0, 64), lambda: browsers_play(path)]
    return Case(function(*reading), (path.name,))


def _command(path: Path, bench: Bench) -> Callable[[], int]:
    library = ["--library", bench.made / "library"]
    models = ["--pretrained", bench.material.clip]
    words: list[list[object]] = [
        ["index", path, *library, "--model", "demo", "--device", "cpu"],
        ["extract", path, bench.made / "features", *models, "--device", "cpu", "--fps", "0.5"],
        ["cut", path, "1", "2.5", bench.made / "cut.mp4"],
        [
            "highlights",
            path,
            "--top",
            "1",
            "--out",
            bench.made / "best.mp4",
            *library,
            "--model",
            "demo",
            "--device",
            "cpu",
        ],
    ]
    return command(*bench.chance.choices(words, (3, 2, 1, 1))[0])


def _whole(made: Path) -> str:
    """What is wrong with what was written: what has its final name can be read, and begins with a picture."""
    from vtg.errors import VtgError
    from vtg.video import probe

    for path in made.iterdir():
        try:
            if path.suffix == ".jpg":
                if path.read_bytes()[-2:] != b"\xff\xd9":
                    return f"{path.name} has no end"
            elif probe(path).duration <= 0:
                return f"{path.name} has no pictures"
        except VtgError as error:
            return f"half a file under its final name: {error}"
    return ""


def _written(bench: Bench, name: str, content: bytes) -> Path:
    path = bench.folder / name
    path.write_bytes(content)
    return path


def _own_damage(kind: str, content: bytes, bench: Bench) -> bytes:
    chance = bench.chance
    if kind == "random":
        return chance.randbytes(chance.choice((1, 100, 5000, 200_000)))
    if kind == "splice":
        other = bench.material.contents[chance.choice(sorted(bench.material.contents))]
        return content[: chance.randrange(len(content))] + other[chance.randrange(len(other)) :]
    if kind == "zeros":
        at = chance.randrange(len(content))
        return content[:at] + bytes(len(content) - at)
    if kind == "nothing":
        return content[: chance.choice((0, 1, 4, 8, 12))]
    return chance.choice(
        (b"not a video\n" * 100, b"<html>" * 300, b"{" * 5000, b"\xff\xfe" * 1000, b"#!/bin/sh\ntouch made/run\n")
    )


def _edit(content: bytearray, marks: dict[bytes, int], chance: random.Random) -> None:
    """Writes a number into a field behind one of the marks that are there."""
    there = [mark for mark in marks if mark in content]
    if not there:
        at = chance.randrange(min(512, len(content)))
    else:
        mark = chance.choice(there)
        places = []
        at = content.find(mark)
        while at >= 0 and len(places) < 200:
            places.append(at)
            at = content.find(mark, at + 1)
        # The size of a box stands before its name.
        at = chance.choice(places) + chance.choice((-4, len(mark) + chance.randrange(marks[mark])))
    at = max(0, at)
    number, width = chance.choice(NUMBERS), chance.choice((1, 2, 4, 4, 8))
    claim = chance.choice(
        (*CLAIMS, *[(number & (256**width - 1)).to_bytes(width, order) for order in ("big", "little")] * 3)
    )
    content[at : at + len(claim)] = claim[: max(0, len(content) - at)]


def _sides(chance: random.Random) -> tuple[int, int]:
    return chance.choice(SIDES), chance.choice((*SIDES, 1, 2, 64))


def _y4m(bench: Bench) -> tuple[str, bytes]:
    width, height = _sides(bench.chance)
    form = bench.chance.choice(("C420", "Cmono", "C444alpha", "C420p16", "C422p12", "Cmono16", "C999", "C411", ""))
    rate = bench.chance.choice(("F25:1", "F1:1000000", "F0:0", "F2147483647:1", "F30000:1001"))
    aspect = bench.chance.choice(("A1:1", "A0:0", "A2147483647:1", "A1:100000"))
    interlacing = bench.chance.choice("ptbm?")
    header = f"YUV4MPEG2 W{width} H{height} {rate} I{interlacing} {aspect} {form}\n".encode()
    return "a.y4m", header + (b"FRAME\n" + bytes(bench.chance.choice((10, 6144, 100_000)))) * 3


def _avi(bench: Bench) -> tuple[str, bytes]:
    name = bench.chance.choice([name for name in bench.material.contents if name.endswith(".avi")])
    content = bytearray(bench.material.contents[name])
    at = content.find(b"strf") + 8
    width, height = _sides(bench.chance)
    struct.pack_into("<II", content, at + 4, width & 0xFFFFFFFF, height & 0xFFFFFFFF)
    fourccs = (b"\0\0\0\0", b"MJPG", b"YV12", b"I420", b"v210", b"Y800", b"r210", b"cvid", b"MSVC", b"FFV1",
    b"HFYU", b"ZLIB",
               b"TSCC", b"SVQ3", b"IV50", b"LAGS", b"qrle", b"rpza", b"8BPS", b"MVDV", b"png ", b"tga ", b"BMP ",
               b"apch")  # fmt: skip
    if bench.chance.random() < 0.7:
        struct.pack_into("<H", content, at + 14, bench.chance.choice((0, 1, 4, 8, 16, 24, 32, 48, 64, 255)))
        content[at + 16 : at + 20] = bench.chance.choice(fourccs)
    return "a.avi", bytes(content)


def _gif(bench: Bench) -> tuple[str, bytes]:
    width, height = (side & 0xFFFF for side in _sides(bench.chance))
    screen = b"GIF89a" + struct.pack("<HH", width, height) + b"\xf0\0\0" + b"\0\0\0\xff\xff\xff"
    frames = bench.chance.choice((1, 2, 500))
    delay = bench.chance.choice((0, 1, 65535))
    frame = b"!\xf9\x04\0" + struct.pack("<H", delay) + b"\0\0," + struct.pack("<HHHH", 0, 0, width, height)
    return "a.gif", screen + (frame + b"\0\x02\x02\x44\x01\0") * frames + b";"


def _png(bench: Bench) -> tuple[str, bytes]:
    import zlib

    width, height = _sides(bench.chance)
    depth, colour = bench.chance.choice(((1, 0), (8, 2), (16, 6), (8, 3), (16, 0), (3, 9)))

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(
        ">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, depth, colour, 0, 0, bench.chance.choice((0, 1))
    )
    body = zlib.compress(bytes(bench.chance.choice((1000, 20_000_000))), 9)
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000))) if bench.chance.random() < 0.3 else b""
    moving = chunk(b"acTL", struct.pack(">II", bench.chance.choice(NUMBERS), 0)) if bench.chance.random() < 0.5 else b""
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + moving + text + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return bench.chance.choice(("a.png", "a.apng", "a.mp4")), content


def _jpeg(bench: Bench) -> tuple[str, bytes]:
    """The pictures of a file of motion JPEG, or one of them, with another size in each."""
    content = bytearray(bench.material.contents["other.mov"])
    width, height = (side & 0xFFFF for side in _sides(bench.chance))
    at = content.find(b"\xff\xc0")
    while at >= 0:
        struct.pack_into(">HH", content, at + 5, height, width)
        if bench.chance.random() < 0.5:  # components and their sampling
            content[at + 9 + bench.chance.randrange(8)] = bench.chance.choice((0, 1, 4, 0x14, 0x41, 0xFF))
        at = content.find(b"\xff\xc0", at + 2)
    if bench.chance.random() < 0.5:
        first, end = content.find(b"\xff\xd8"), content.find(b"\xff\xd9")
        return "a.jpg", bytes(content[first : end + 2])
    return "a.mov", bytes(content)


def _sequence_header(bench: Bench) -> tuple[str, bytes]:
    """MPEG-1 and 2: 12 bits a side, then aspect and rate."""
    name = bench.chance.choice(
        [name for name in ("other.mpg", "other.vob", "other.mts") if name in bench.material.contents]
    )
    content = bytearray(bench.material.contents[name])
    at = content.find(b"\0\0\x01\xb3")
    while 0 <= at < len(content) - 8:
        content[at + 4 : at + 7] = bench.chance.choice((b"\xff\xff\xff", b"\0\x10\x01", b"\0\0\0", b"\xff\xf0\x01"))
        content[at + 7] = bench.chance.randrange(256)
        at = content.find(b"\0\0\x01\xb3", at + 4)
    return name, bytes(content)


def _h264(bench: Bench) -> tuple[str, bytes]:
    """Bits flipped in the parameter sets: profile, depth, references, size, cropping."""
    name = bench.chance.choice(
        [name for name in ("other.h264", "other.hevc", "high10.mp4") if name in bench.material.contents]
    )
    content = bytearray(bench.material.contents[name])
    if name.endswith("mp4"):
        places = [content.find(b"avcC") + 4]
    else:
        signs = (
            (b"\0\0\x01\x67", b"\0\0\x01\x68")
            if name.endswith("h264")
            else (b"\0\0\x01\x42", b"\0\0\x01\x40", b"\0\0\x01\x44")
        )
        places = [at + 4 for sign in signs if (at := content.find(sign)) >= 0]
    for _ in range(bench.chance.choice((1, 2, 8))):
        at = bench.chance.choice(places) + bench.chance.randrange(30)
        content[at] ^= 1 << bench.chance.randrange(8)
    return name, bytes(content)


def _ivf(bench: Bench) -> tuple[str, bytes]:
    """The size in the header of the file and in the key frame of VP8; or a file that is known for its size."""
    if bench.number % 5 == 0:
        path = CASES / bench.chance.choice(("huge-8k.mp4", "long-standing-pictures.mp4", "damaged-129-days.mp4"))
        return path.name, path.read_bytes()
    content = bytearray(bench.material.contents["other.ivf"])
    width, height = _sides(bench.chance)
    struct.pack_into("<HH", content, 12, width & 0xFFFF, height & 0xFFFF)
    struct.pack_into("<II", content, 16, bench.chance.choice(NUMBERS), bench.chance.choice(NUMBERS))
    at = content.find(b"\x9d\x01\x2a")
    while at >= 0:
        struct.pack_into("<HH", content, at + 3, width & 0xFFFF, height & 0xFFFF)
        at = content.find(b"\x9d\x01\x2a", at + 3)
    return "a.ivf", bytes(content)
