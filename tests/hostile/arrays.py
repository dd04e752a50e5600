"""Cached features, weights and libraries that are damaged or made to harm."""

from __future__ import annotations

import importlib
import io
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .cases import Bench, Case, command, function
from .texts import write

__all__ = ["features", "libraries", "weights"]

SHAPES = ((0, 4, 5, 16), (10**9, 4, 5, 16), (2**62, 4), (8, 4, 5), (8,), (), (1, 1, 1, 1), (8, 4, 5, 10**6), (-1, 4,
5, 16), (8, 4, 6, 16), (8, 3, 5, 16),
          (1_000_000, 4, 5, 16), (8, 4, 5, 17), (True, 4, 5, 16), (2**63, 2**63), (1,) * 60)  # fmt: skip
TYPES = (
    "<f2",
    ">f2",
    "<f4",
    "<f8",
    "|O",
    "<i8",
    "|b1",
    "<c16",
    "|S5",
    "<U3",
    "<M8[s]",
    "|V4",
    "[('a', '<f2')]",
    "<f16",
    "x",
    "<f2,<f2",
)


class _Touch:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return open, (str(self.path), "w")  # type: ignore[return-value]


def features(bench: Bench) -> Case:
    """A data set in the published layout of which one file is not what it should be; or the folder of an extraction."""
    data = bench.folder / "data"
    shutil.copytree(bench.material.features, data)
    files = sorted((data / "clip_b32_vid_k4").glob("train*.npy")) + sorted(
        (data / "clip_b32_txt_k4").glob("train*.npy")
    )
    path = bench.chance.choice(files)
    content = _npy(path, bench)
    path.unlink()
    write(path, content, bench.chance)
    recipe = data / "mine.toml"
    shorter = ["--device", "cpu", "--set", "train.epochs=1", "--set", "train.validation=none"]
    evaluation = [
        "evaluate",
        recipe,
        "--split",
        "train",
        "--features",
        data,
        "--annotations",
        data / "train.jsonl",
        "--model",
        data / "head.safetensors",
    ]
    uses = [
        command("train", recipe, *shorter, "--out", bench.made / "run"),
        command("train", recipe, *shorter, "--check"),
        command(*evaluation, "--out", bench.made / "predictions.jsonl", "--device", "cpu"),
    ]
    return Case(
        uses[bench.number % len(uses)],
        (path.name, path.stem, "mine", ".npy: [T, K, P, Cv]"),
        check=lambda: _nothing_ran(bench),
    )


def _npy(path: Path, bench: Bench) -> bytes:
    chance = bench.chance
    good = path.read_bytes()
    kind = chance.randrange(9)
    if kind == 0:
        at = chance.randrange(min(len(good), 160))
        return good[:at] + bytes([good[at] ^ 1 << chance.randrange(8)]) + good[at + 1 :]
    if kind == 1:
        return good[: chance.randrange(len(good))]
    if kind == 2:
        return chance.choice(
            (b"", chance.randbytes(3000), b"PK\x03\x04" + bytes(100), b"\x93NUMPY", b"\x80\x04." + bytes(9), b"<html>")
        )
    if kind == 3:
        buffer = io.BytesIO()
        np.save(buffer, np.array([_Touch(bench.made / "ran")], dtype=object), allow_pickle=True)
        return buffer.getvalue()
    if kind == 4:
        array = np.load(path).copy()
        array.reshape(-1)[chance.randrange(array.size)] = chance.choice((np.nan, np.inf, -np.inf, 65504.0))
        buffer = io.BytesIO()
        np.save(buffer, array)
        return buffer.getvalue()
    if kind == 5:
        buffer = io.BytesIO()
        array = np.load(path).astype(np.float32)
        np.save(buffer, np.asfortranarray(array.astype(chance.choice(("<f2", "<f4", "<f8", ">f4", "<i2")))))
        return buffer.getvalue()
    if kind == 6:
        buffer = io.BytesIO()
        np.savez(buffer, a=np.zeros(4))
        return buffer.getvalue()
    fields = {
        "descr": chance.choice(TYPES) if kind == 7 else "<f2",
        "fortran_order": chance.random() < 0.3,
        "shape": chance.choice(SHAPES),
    }
    header = chance.choice(
        (
            repr(fields),
            repr(fields) + " " * 70_000,
            "{" * 2000,
            "(" * 60_000,
            repr({**fields, "x": 1}),
            "__import__('os')",
        )
    )
    version = chance.choice((1, 1, 1, 2, 3, 9))
    size = struct.pack(
        "<H" if version == 1 else "<I",
        min(len(header) + 1, 65535) if version == 1 else chance.choice((len(header) + 1, 2**31)),
    )
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + b"\n" + good[128:]


def _nothing_ran(bench: Bench) -> str:
    return "runs code from a file" if list(bench.folder.rglob("ran*")) else ""


def weights(bench: Bench) -> Case:
    """Files under the names of weights of a CLIP or of a head: pickles, archives with code, absurd sizes, damage."""
    writer = importlib.import_module("hostile_weights")
    folder = bench.folder / "weights"
    written = writer.write_hostile_weights(folder, bench.chance.randrange(2**31), 1)
    path = Path(next(iter(written))) if not isinstance(written, int) else next(iter(sorted(folder.iterdir())))
    options = ["--device", "cpu", "--library", bench.made / "library"]
    video = bench.folder / "film.mp4"
    shutil.copyfile(bench.material.clips / "0.mp4", video)
    import vtg
    from vtg.clip.encoder import ClipEncoder

    uses = [
        function(lambda: vtg.load_head(path)),
        function(lambda: ClipEncoder(pretrained=str(path), device="cpu")),
        command("index", video, *options, "--pretrained", path),
        command("index", video, *options, "--model", path, "--pretrained", bench.material.clip),
        command("extract", video, bench.made / "out", "--pretrained", path, "--device", "cpu"),
    ]
    return Case(uses[bench.number % len(uses)], (path.name,), check=lambda: _nothing_ran(bench))


def libraries(bench: Bench) -> Case:
    """A library of a stranger, or one that a disk has eaten of: searched, indexed into, refreshed, verified."""
    damager = importlib.import_module("hostile_libraries")
    library = bench.made / "library"
    shutil.copytree(bench.material.library, library)
    what = damager.damage_library(library, bench.chance.randrange(2**31))
    (bench.folder.parent / "damage.txt").write_text(f"{what}\n")
    options = ["--library", library, "--json"]
    video = bench.folder / "new.mp4"
    shutil.copyfile(bench.material.clips / "1.mp4", video)
    uses: list[list[object]] = [
        ["search", bench.material.sentence, *options, "--device", "cpu"],
        ["search", bench.material.sentence, *options, "--device", "cpu"],
        ["library", "info", *options],
        ["library", "list", *options],
        ["library", "verify", *options[:2], *bench.chance.choice(([], ["--checksums"]))],
        ["index", video, *options, "--device", "cpu"],
        ["library", "refresh", *options, "--device", "cpu"],
        ["library", "remove", bench.material.clips / "0.mp4", *options],
    ]
    words = uses[bench.number % len(uses)]
    # `verify` names files by their place in the library.
    return Case(command(*words), () if "verify" in words else ("library",), lines=40)
