"""Damages libraries, the same way for the same seed: `python tests/hostile_libraries.py LIBRARY SEED`.

A library is damaged as disks, broken copies and strangers do it: bytes, headers, settings, rows, names and kinds of
files. One call makes one damage, in place; what was done is said in one line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

__all__ = ["DAMAGES", "damage_library"]

HEADER_BYTES = 4096  # of a feature file
TABLES = ("videos", "frames", "said", "folders")
GIGABYTE = 1 << 30
NESTING = 100_000
NUMBERS: tuple[Any, ...] = (math.nan, math.inf, -math.inf, 1e308, -1e308, -1, 0, 1e-308, 2**63, -(2**63), 10**400)
OTHERS: tuple[Any, ...] = (None, True, "", "x" * 5000, "a\x00b", "../../x", [], {}, [[]], {"a": {}}, "\ud800")
TEXTS = ("", "\x00", "a\x00b", "../../../etc/passwd", "/etc/passwd", "/dev/zero", "x" * 5000, "'; --", "\n\x1b[2J", "é")


def damage_library(folder: Path, seed: int) -> str:
    """Damages one thing in a library.

    Args:
        folder: of a library that nothing else uses; it is changed in place.
        seed: of the damage; the same seed damages the same library in the same way. Consecutive seeds take the kinds
            of `DAMAGES` in turn.

    Returns:
        What was done, in one line.
    """
    chance = random.Random(f"library/{seed}")  # noqa: S311 - not for secrets
    kind = list(DAMAGES)[seed % len(DAMAGES)]
    while True:
        # Some rows LanceDB itself does not write; then another damage of the kind is made.
        with contextlib.suppress(RuntimeError, ValueError, TypeError, OverflowError):
            return f"{seed} {kind}: {DAMAGES[kind](Path(folder), chance)}"


def _pick(folder: Path, pattern: str, chance: random.Random) -> Path | None:
    """A file below a folder; None where nothing has that name."""
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    return chance.choice(files) if files else None


def _damage_bytes(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    kind = chance.choice(("flip", "truncate", "zero", "empty", "grow", "random"))
    if kind == "flip" and content:
        for _ in range(chance.choice((1, 10, 1000))):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif kind == "truncate":
        del content[chance.randrange(len(content) + 1) :]
    elif kind == "zero":
        content[:] = bytes(len(content))
    elif kind == "empty":
        content.clear()
    elif kind == "grow":
        content += chance.randbytes(chance.choice((1, 4096, 1 << 20)))
    else:
        content[:] = chance.randbytes(max(1, len(content)))
    path.write_bytes(content)
    return f"{path.name}: {kind}"


def _replace_file(path: Path, chance: random.Random) -> str:
    """Puts something else under the name of a file or folder, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    kinds = ("nothing", "folder", "dangling link", "link to itself", "file", "link to a device")
    kind = chance.choice(kinds if not hasattr(os, "mkfifo") else (*kinds, "pipe"))
    if kind == "folder":
        (path / "inner").mkdir(parents=True)
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "link to itself":
        path.symlink_to(path.name)
    elif kind == "file":
        path.write_text("something else")
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    return f"{path.name}: {kind} in its place"


# The settings


def _settings_text(folder: Path, chance: random.Random) -> str:
    path = folder / "library.json"
    opening, closing = chance.choice((("[", "]"), ('{"format":', "}")))
    texts: dict[str, bytes] = {
        "nested": (opening * NESTING + "1" + closing * NESTING).encode(),
        "nested, without an end": (opening * NESTING).encode(),
        "not UTF-8": b'{"format": 1, "model": "\xff\xfe"}',
        "list": b"[1, 2, 3]",
        "null": b"null",
        "number": b"1" * 100_000,
        "byte order mark": b"\xef\xbb\xbf" + path.read_bytes(),
        "blanks": b" " * (8 << 20) + path.read_bytes(),
        "many keys": json.dumps({str(number): number for number in range(200_000)}).encode(),
    }
    kind = chance.choice(list(texts))
    path.write_bytes(texts[kind])
    return kind


def _settings_huge(folder: Path, chance: random.Random) -> str:
    size = chance.choice((GIGABYTE, 64 * GIGABYTE))
    os.truncate(folder / "library.json", size)
    return f"library.json of {size / GIGABYTE:g} GB"


def _settings_value(folder: Path, chance: random.Random) -> str:
    path = folder / "library.json"
    settings = json.loads(path.read_text())
    model = settings["model"]
    place, key = chance.choice(
        [(settings, "format"), (settings, "model"), (settings, "storage"), (model, "name"), (model, "encoder")]
        + [(model, "fps")] * 4
        + [(model, "head"), (model["encoder"], "clip"), (model["encoder"], "pretrained"), (model["encoder"], "layers")]
        + [(settings["storage"], "precision"), (settings["storage"], "keep_layers"), (settings["storage"], "more")]
    )
    value = chance.choice((*NUMBERS, *OTHERS))
    place[key] = value
    if chance.random() < 0.2:
        del place[key]
    path.write_text(json.dumps(settings))
    return f"{key} = {str(value)[:20]!r}" if key in place else f"no {key}"


# Feature files


def _features_bytes(folder: Path, chance: random.Random) -> str:
    path = _pick(folder, chance.choice(("features/*", "projections/*")), chance) or _pick(folder, "features/*", chance)
    return "no features" if path is None else _damage_bytes(path, chance)


def _features_replaced(folder: Path, chance: random.Random) -> str:
    path = _pick(folder, chance.choice(("features/*", "projections/*")), chance)
    return "no features" if path is None else _replace_file(path, chance)


def _features_header(folder: Path, chance: random.Random) -> str:
    path = _pick(folder, chance.choice(("features/*", "projections/*")), chance) or _pick(folder, "features/*", chance)
    if path is None:
        return "no features"
    content = path.read_bytes()
    header = json.loads(content[8:HEADER_BYTES])
    name = chance.choice(sorted(set(header) - {"__metadata__"}))
    entry = header[name]
    size = entry["data_offsets"][1]
    shapes: list[Any] = [[], [0], [1], [-1, 4], [2**31, 2**31], [2**62], [1.5, 2], [10**30], ["a"], "x", None, 7]
    shapes += [[*entry["shape"], 1], entry["shape"][:-1], entry["shape"][::-1], [entry["shape"][0] + 1]]
    choices: list[tuple[str, Callable[[], Any]]] = [
        ("shape", lambda: entry.update(shape=chance.choice(shapes))),
        ("dtype", lambda: entry.update(dtype=chance.choice(["F64", "F16", "U8", "I8", "BF16", "", None, 3, ["F32"]]))),
        ("begin", lambda: entry.update(data_offsets=[chance.choice([-1, 1, 2**40, -(2**40), "0", None, 0.5]), size])),
        ("end", lambda: entry.update(data_offsets=[0, chance.choice([0, -1, 2**62, size - 1, "9", None, math.nan])])),
        ("offsets", lambda: entry.update(data_offsets=chance.choice([[], [0], None, {}, "ab", [0, size, size]]))),
        ("entry", lambda: header.update({name: chance.choice([None, [], "x", 5])})),
        ("no array", lambda: header.pop(name)),
        ("no metadata", lambda: header.pop("__metadata__")),
        ("metadata", lambda: header.update(__metadata__=chance.choice([None, [], "x", {}, {"duration": "long"}]))),
        ("value", lambda: _set_value(header["__metadata__"], chance)),
        ("nested", lambda: header.update(deep=json.loads("[" * 900 + "]" * 900))),
        ("only metadata", lambda: [header.pop(own) for own in list(header) if own != "__metadata__"]),
    ]
    kind, change = chance.choice(choices)
    change()
    text = json.dumps(header).encode()[: HEADER_BYTES - 8]
    length = chance.choice([HEADER_BYTES - 8] * 5 + [0, 1, 2**63, 2**64 - 1])
    path.write_bytes(length.to_bytes(8, "little") + text.ljust(HEADER_BYTES - 8) + content[HEADER_BYTES:])
    return f"{path.parent.name}: {kind} of {name}, header length {length}"


def _set_value(metadata: dict[str, Any], chance: random.Random) -> None:
    key = chance.choice(sorted(metadata))
    metadata[key] = str(chance.choice((*NUMBERS, "", "long", "\x00", "1_0"))) if chance.random() < 0.8 else 3


def _features_values(folder: Path, chance: random.Random) -> str:
    """Makes numbers of a file absurd and leaves its header alone."""
    import numpy as np

    path = _pick(folder, "features/*", chance)
    if path is None:
        return "no features"
    content = bytearray(path.read_bytes())
    entry = json.loads(content[8:HEADER_BYTES])["embedding"]
    first, end = (HEADER_BYTES + offset for offset in entry["data_offsets"])
    value = chance.choice((np.nan, np.inf, -np.inf, 3e38, 0.0))
    content[first:end] = np.full((end - first) // 4, value, "<f4").tobytes()
    path.write_bytes(content)
    return f"embedding of {value}"


def _stray_features(folder: Path, chance: random.Random) -> str:
    place = folder / chance.choice(("features", "projections"))
    names = ["fps.safetensors", "xfps.safetensors", "a.bfps.safetensors", "a.b.xfps.safetensors", "...fps.safetensors"]
    names += ["a.b.nanfps.safetensors", "a.b.-1fps.safetensors", "a.b.1e999fps.safetensors", "a.b.c.d.1fps.safetensors"]
    names += ["a.b.c.d.int8.0.5fps.safetensors", f"{'x' * 200}.b.1fps.safetensors", "a'; --.b.1fps.safetensors"]
    names += [
        "notes.txt",
        ".hidden",
        "a\nb.c.1fps.safetensors",
        "old.part",
        os.fsdecode(b"\xff\xfe.b.1fps.safetensors"),
    ]
    place.mkdir(exist_ok=True)
    name = chance.choice(names)
    made = place / name
    if chance.random() < 0.3:
        made.mkdir()
    else:
        made.write_bytes(chance.randbytes(chance.choice((0, 7, 10_000))))
    return f"{place.name}/{name!r} {'(folder)' if made.is_dir() else ''}".strip()


def _stray_files(folder: Path, chance: random.Random) -> str:
    names = ["stray.lance", "notes.txt", "a b.lance", "..lance", "library.json.part", "videos.lance.bak", "é.lance"]
    path = folder / chance.choice(names)
    if chance.random() < 0.5:
        path.write_bytes(chance.randbytes(1000))
    else:
        (path / "_versions").mkdir(parents=True)
        (path / "_versions" / "1.manifest").write_bytes(chance.randbytes(100))
    return f"{path.name} {'(folder)' if path.is_dir() else ''}".strip()


def _kinds_replaced(folder: Path, chance: random.Random) -> str:
    names = [f"{table}.lance" for table in TABLES] + ["library.json", ".locks", "features", "projections"]
    return _replace_file(folder / chance.choice(names), chance)


# The database


def _table_bytes(folder: Path, chance: random.Random) -> str:
    table = chance.choice(TABLES)
    part = chance.choice(("_versions", "data", "data", "_transactions", "_indices/*"))
    path = _pick(folder, f"{table}.lance/{part}/*", chance) or _pick(folder, "videos.lance/data/*", chance)
    return f"no {table}" if path is None else f"{table}: {_damage_bytes(path, chance)}"


def _table_manifests(folder: Path, chance: random.Random) -> str:
    """Damages or removes all manifests, or all data files, of a table."""
    table = chance.choice(TABLES)
    part = chance.choice(("_versions", "data", "_indices", "_transactions"))
    place = folder / f"{table}.lance" / part
    kind = chance.choice(("gone", "empty", "newest gone"))
    files = sorted(path for path in place.rglob("*") if path.is_file())
    if kind == "gone":
        shutil.rmtree(place, ignore_errors=True)
    for path in files if kind == "empty" else files[:1] if kind == "newest gone" else []:
        path.unlink() if kind == "newest gone" else path.write_bytes(b"")
    return f"{table}/{part}: {kind}"


def _table_schema(folder: Path, chance: random.Random) -> str:
    """Gives a table other columns."""
    import pyarrow as pa

    database = _database(folder)
    table = chance.choice([name for name in TABLES if (folder / f"{name}.lance").is_dir()] or ["videos"])
    rows = database.open_table(table).to_arrow()
    column = chance.choice(rows.schema.names)
    kind = chance.choice(("dropped", "of text", "of numbers", "of nothing", "other table", "other width", "more"))
    place = rows.schema.get_field_index(column)
    count = len(rows)
    if kind == "dropped":
        rows = rows.drop_columns([column]) if len(rows.schema) > 1 else pa.table({"x": [1]})
    elif kind == "of text":
        rows = rows.set_column(place, column, pa.array(["text"] * count, pa.string()))
    elif kind == "of numbers":
        rows = rows.set_column(place, column, pa.array([7] * count, pa.int64()))
    elif kind == "of nothing":
        rows = rows.set_column(place, column, pa.array([None] * count, rows.schema.field(column).type))
    elif kind == "other table":
        rows = pa.table({"a": [1, 2], "b": ["x", "y"]})
    elif kind == "other width" and "embedding" in rows.schema.names:
        width = chance.choice((1, 7, 4096))
        vectors = pa.FixedSizeListArray.from_arrays(pa.array([0.5] * (width * count), pa.float32()), width)
        rows = rows.set_column(rows.schema.get_field_index("embedding"), "embedding", vectors)
    else:
        rows = rows.append_column("extra", pa.array([1] * count))
    database.create_table(table, rows, mode="overwrite")
    return f"{table}.{column}: {kind}"


def _table_rows(folder: Path, chance: random.Random) -> str:
    """Adds rows with absurd values, or changes those that are there."""
    import pyarrow as pa

    database = _database(folder)
    name = chance.choice([own for own in TABLES if (folder / f"{own}.lance").is_dir()] or ["videos"])
    table = database.open_table(name)
    rows = table.to_arrow()
    if not len(rows):
        return f"{name}: no rows"
    row = dict(chance.choice(rows.to_pylist()))
    column = chance.choice(rows.schema.names)
    row[column] = value = _absurd(row[column], chance)
    how = chance.choice(("added", "instead", "twice"))
    new = pa.Table.from_pylist([row, row] if how == "twice" else [row], schema=rows.schema)
    if how == "instead":
        database.create_table(name, new, mode="overwrite")
    else:
        table.add(new)
    return f"{name}.{column} = {str(value)[:30]!r} {how}"


def _absurd(value: Any, chance: random.Random) -> Any:
    if chance.random() < 0.1:
        return None
    if isinstance(value, str):
        return chance.choice(TEXTS)
    if isinstance(value, float):
        return chance.choice((math.nan, math.inf, -math.inf, 1e308, -1.0, 1e15, 5e-324))
    if isinstance(value, int):
        return chance.choice((0, -1, 2**31 - 1, -(2**31)))
    if isinstance(value, datetime):
        return chance.choice((datetime.min, datetime.max)).replace(tzinfo=timezone.utc)
    if isinstance(value, list):
        return [chance.choice((math.nan, math.inf, 0.0, 1e38))] * len(value)
    return value


def _database(folder: Path) -> Any:
    os.environ.setdefault("LANCEDB_LOG", "error")
    import lancedb

    return lancedb.connect(str(folder))


DAMAGES: dict[str, Callable[[Path, random.Random], str]] = {
    "settings-value": _settings_value,
    "features-header": _features_header,
    "table-bytes": _table_bytes,
    "table-rows": _table_rows,
    "settings-text": _settings_text,
    "features-bytes": _features_bytes,
    "table-schema": _table_schema,
    "stray-features": _stray_features,
    "kinds-replaced": _kinds_replaced,
    "features-header-2": _features_header,
    "table-manifests": _table_manifests,
    "table-rows-2": _table_rows,
    "features-values": _features_values,
    "features-replaced": _features_replaced,
    "stray-files": _stray_files,
    "settings-huge": _settings_huge,
}


def main() -> None:
    """Damages the library that is named on the command line, and says how."""
    parser = argparse.ArgumentParser(description="Damage a library, in place.")
    parser.add_argument("library", type=Path)
    parser.add_argument("seed", type=int)
    arguments = parser.parse_args()
    print(damage_library(arguments.library, arguments.seed))


if __name__ == "__main__":
    main()
