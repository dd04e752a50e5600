"""Texts that people hand around: annotations, manifests, recipes, predictions; wrong in every way."""

from __future__ import annotations

import gzip
import json
import os
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cases import Bench, Case, command, function

__all__ = ["annotations", "flipped", "manifests", "recipes", "submissions", "write"]

HEADS = ("", "", "", 'base = "qvhighlights"\n', 'base = "../x"\n', "base = 1\n", 'base = "tvsum"\n', "domains = {}\n")
ALWAYS = ("fps", "annotations", "folder", "epochs", "hidden_width")  # of a recipe's fields; of the others some
DEEP = 100_000  # levels of nested lists or objects
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, -1e308, float("nan"), float("inf"), -float("inf"), 10**30, -(10**30), 2**31, 2**63,
    2**64, 1e-308, 1e15, "",
    " ", "a", "1", "\0", "\ud800", "a\nb", "\u2028", "../../.beside/secret", "/etc/passwd", "é" * 300, "x" * 5000,
    "{vid.__class__}", "%s%n", "CON",
    "\u202e", [], {}, [[]], [1], [None], [[1, 2]], [[1, 2, 3]], [[2, 1]], [["a", "b"]], [[1e308, 1e308]],
    [[float("nan"), 1]], [[-5, -3]], [[0, 1e15]],
    {"a": 1}, [{}], list(range(2000)), [[0, 1]] * 2000, [[[[[]]]]],
)  # fmt: skip


def annotations(bench: Bench) -> Case:
    """Annotations of every benchmark, read for training, evaluation and extraction."""
    name, records = _annotation_records(bench)
    path = bench.folder / name
    write(path, _damaged_records(records, bench.chance, name.endswith(".json")), bench.chance)
    if name.endswith(".txt"):
        (bench.folder / "Charades_v1_train.csv").write_bytes(_csv(bench.chance))
    from vtg.datasets import load_samples

    uses: list[Callable[[], int]] = [function(lambda: load_samples(path))] * 6
    videos = ["--videos", bench.material.clips, "--fps", "0.5", "--skip-wrong"]
    words = ["extract", path, bench.made / "out", *videos, "--pretrained", bench.material.clip, "--device", "cpu"]
    uses.append(command(*words))
    features = ["--features", bench.material.features, "--annotations", path]
    recipe = bench.material.features / "mine.toml"
    shorter = ["--set", "train.epochs=1", "--set", "train.validation=none"]
    uses.append(command("train", recipe, *features, *shorter, "--device", "cpu", "--out", bench.made / "run"))
    uses.append(
        command(
            "evaluate",
            recipe,
            *features,
            "--out",
            bench.made / "predictions.jsonl",
            "--device",
            "cpu",
            "--model",
            bench.material.head,
        )
    )
    return Case(
        uses[bench.number % len(uses)], (path.name, "Charades_v1", "train", "query", "video", "features"), lines=3000
    )


def _annotation_records(bench: Bench) -> tuple[str, list[Any]]:
    """The name of a file and what is in it, still good."""
    lines = [json.loads(line) for line in (bench.material.features / "train.jsonl").read_text().splitlines()]
    form = bench.number % 5
    if form == 1:
        query = {
            "query": "a dog",
            "video_start_sec": 1.0,
            "video_end_sec": 2.0,
            "clip_start_sec": 1.0,
            "clip_end_sec": 2.0,
        }
        clip = {
            "clip_uid": "c",
            "video_start_sec": 0.0,
            "video_end_sec": 20.0,
            "clip_start_sec": 0.0,
            "clip_end_sec": 20.0,
        }
        clip["annotations"] = [{"annotation_uid": "a", "language_queries": [query] * 3}]  # type: ignore[assignment]
        return "nlq_val.json", [{"version": "1", "videos": [{"video_uid": "v", "clips": [clip]}]}]
    if form == 2:
        entry = {
            "domain": "dog",
            "duration": 20,
            "anno": [[[0.0, 2.0], 1], [[2.0, 4.0], 0]],
            "split": "train",
            "label": [[1], [0]],
        }
        return "youtube_anno.json", [{f"v{n}": dict(entry, match=[1, 0], clip=[[0, 100], [50, 150]]) for n in range(3)}]
    if form == 3:
        entry = {"domain": "BK", "duration": 10, "title": "a", "anno": [[[1] * 5] * 20], "frames": 600, "fps": 30.0}
        return "tvsum_anno.json", [{f"v{n}": entry for n in range(3)}]
    if form == 4:
        return "charades_sta_train.txt", [f"v{n} 0.0 5.{n}##a person opens a door." for n in range(5)]
    return "train.jsonl", lines


def manifests(bench: Bench) -> Case:
    """What `vtg extract` is told to extract, and the folder of an earlier extraction."""
    chance = bench.chance
    video = bench.material.clips / "0.mp4"
    rows: list[Any] = []
    for number in range(chance.choice((1, 3, 5))):
        path = chance.choice(
            (
                str(video),
                str(bench.material.clips / f"{number % 4}.mp4"),
                "missing.mp4",
                ".",
                "/dev/zero",
                "/etc/hostname",
            )
        )
        rows.append({"path": path, "id": f"v{number}", "start": 0, "end": 2})
    if bench.number % 2:
        text = [
            "\t".join(
                [
                    row["path"],
                    row["id"],
                    *chance.choice(([], ["0"], ["0", "2"], ["nan"], ["-1", "inf"], ["1e308"], ["2", "1"], ["x"] * 9)),
                ]
            )
            for row in rows
        ]
        content = _damaged_text("\n".join(text), chance)
    else:
        content = _damaged_records(rows, chance, False)
    path = bench.folder / f"list{chance.choice(('.txt', '.jsonl', '.tsv', '.json', '.ndjson'))}"
    write(path, content, bench.chance)
    words = [
        "extract",
        path,
        bench.made / "out",
        "--pretrained",
        bench.material.clip,
        "--device",
        "cpu",
        "--fps",
        chance.choice(("0.5", "0.5", "1e-9", "1000")),
    ]
    words += chance.choice(([], ["--skip-wrong"], ["--layout", "store"], ["--shard", "1/2"]))
    from vtg.extraction import read_source

    uses = [function(lambda: read_source(str(path))), function(lambda: read_source(str(path))), command(*words)]
    names = (path.name, *(Path(row["path"]).name or row["path"] for row in rows), "made/out", "in/videos")
    return Case(uses[bench.number // 2 % 3], names, lines=50)


def recipes(bench: Bench) -> Case:
    """A recipe of one's own: loaded, checked against data, trained a little."""
    chance = bench.chance
    sections = {
        "data": {"fps": 0.5, "annotations": {"train": "train.jsonl", "val": "val.jsonl"},
        "folder": str(bench.material.features), "dataset": "qvhighlights",
                 "video_name": "{vid}", "query_name": "{qid}", "video_features": "clip_b32_vid_k4",
                 "query_features": "clip_b32_txt_k4", "videos": "videos"},
        "model": {"hidden_width": 32, "strides": [1, 2], "layers": 4, "attention_heads": 8, "feed_forward_ratio": 4,
        "dropout": 0.5, "drop_path": 0.1,
                  "moment_retrieval": True, "window_seconds": 150.0, "step_seconds": 100.0, "clip_model": "none"},
        "train": {"batch": 4, "epochs": 1, "rate": 1e-3, "warmup_steps": 3, "repeats": 1, "precision": "float32",
        "seed": 0, "weight_decay": 1e-4, "accumulate": 1,
                  "queries_per_video": 1, "clip_norm": 35.0, "positive": "above 0", "cls": 1.0, "validate_every": 1},
        "evaluation": {"metric": "MR-full-mAP", "unit": 2.0, "nms": "normal", "nms_threshold": 0.7, "split": "val"},
    }  # fmt: skip
    kept = {
        name: {key: value for key, value in fields.items() if chance.random() < 0.6 or key in ALWAYS}
        for name, fields in sections.items()
    }
    for _ in range(chance.choice((1, 1, 2, 3))):
        section = chance.choice(list(kept))
        key = chance.choice([*kept[section], chance.choice(("unknown", "__class__", "", "ünknown", "x" * 3000))])
        kept[section][key] = chance.choice(VALUES)
    if chance.random() < 0.1:
        kept[chance.choice(list(kept))] = chance.choice(VALUES)  # type: ignore[assignment]
    text = "".join(_toml_section(name, fields) for name, fields in kept.items())
    text = chance.choice(HEADS) + text
    path = bench.folder / "own.toml"
    write(path, _damaged_text(text, chance, rarely=True), bench.chance)
    from vtg.recipes import load_recipe

    load = function(lambda: load_recipe(path))
    train = ["train", path, "--device", "cpu"]
    out = ["--out", bench.made / "run"]
    extraction = ["extract", path, bench.made / "out", "--pretrained", bench.material.clip, "--device", "cpu"]
    uses = [load, load, command(*train, *out), command(*train, "--check"), command(*extraction)]
    # Beyond the file's own name: what it names, which lies elsewhere.
    names = (
        "own.toml",
        "recipe own",
        "features",
        "own:",
        "train.",
        "model.",
        "train-",
        "val-",
        "made/",
        "videos",
        *map(str, (bench.folder, bench.material.folder)),
    )
    return Case(uses[bench.number % len(uses)], names, lines=50)


def _toml_section(name: str, fields: Any) -> str:
    if not isinstance(fields, dict):
        return f"{name} = {_toml(fields)}\n"
    return f"[{name}]\n" + "".join(
        f"{key if key.isidentifier() and key.isascii() else json.dumps(key)} = {_toml(value)}\n"
        for key, value in fields.items()
    )


def _toml(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value) if not isinstance(value, float) else repr(value)


def submissions(bench: Bench) -> Case:
    """Predictions to be scored."""
    chance = bench.chance
    truth = bench.material.features / "val.jsonl"
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    rows = [
        {"qid": line["qid"], "vid": line["vid"], "query": line["query"], "pred_relevant_windows": [[0, 4, 0.9], [2,
        6, 0.1]],
         "pred_saliency_scores": [0.1] * int(line["duration"] // 2)}
        for line in lines
    ]  # fmt: skip
    if bench.number % 4 == 3:
        rows = [{line["vid"]: [0.5] * 5 for line in lines}]
    path = bench.folder / f"predictions{chance.choice(('.jsonl', '.json', '.jsonl.gz'))}"
    write(path, _damaged_records(rows, chance, bench.number % 4 == 3), bench.chance)
    words = ["score", path, truth, *chance.choice(([], ["--json"], ["--bootstrap"], ["--plot", bench.made / "plots"]))]
    return Case(command(*words), (path.name, "val.jsonl"), lines=3)


def _damaged_records(records: list[Any], chance: random.Random, is_document: bool) -> bytes:
    """JSON lines (or one document) with something wrong in them."""
    if records and isinstance(records[0], str):
        return _damaged_text("\n".join(records), chance)
    records = json.loads(json.dumps(records))
    for _ in range(chance.choice((0, 1, 1, 1, 3))):
        _damage_value(records, chance)
    if chance.random() < 0.1 and records:
        records = [*records, records[0]]
    lines = [json.dumps(record, ensure_ascii=chance.random() < 0.9) for record in records]
    text = "\n".join(lines[:1] if is_document and lines else lines) + "\n"
    return _damaged_text(text, chance, rarely=True)


def _damage_value(root: Any, chance: random.Random) -> None:
    """Replaces, removes or adds one value anywhere inside."""
    place = root
    while True:
        if not isinstance(place, (dict, list)) or not place:
            return
        key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and chance.random() < 0.75:
            place = inner
            continue
        action = chance.randrange(6)
        if action == 0:
            del place[key]
        elif action == 1 and isinstance(place, dict):
            place[chance.choice(("", "x", "qid", "vid", "__class__", "\0"))] = chance.choice(VALUES)
        else:
            place[key] = chance.choice(VALUES)
        return


def write(path: Path, content: bytes, chance: random.Random) -> None:
    """Writes a file; now and then there is a pipe, a folder or a link to a device in its place."""
    form = chance.randrange(60)
    if form == 0:
        os.mkfifo(path)
    elif form == 1:
        path.mkdir()
    elif form == 2:
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(content)


def _damaged_text(text: str, chance: random.Random, rarely: bool = False) -> bytes:
    content = text.encode("utf-8", "surrogatepass")
    kinds = 12
    kind = chance.randrange(kinds * (3 if rarely else 1))
    if kind == 0:
        return flipped(content, chance)
    if kind == 1:
        return content[: chance.randrange(len(content) + 1)]
    if kind == 2:
        opening = chance.choice((b"[", b'{"a":', b'{"qid": 1, "vid": [', b'{"path": ['))
        return opening * DEEP + chance.choice((b"", b"]" * DEEP))
    if kind == 3:
        return gzip.compress(content)[: chance.choice((None, 30, -5))]
    if kind == 4:
        return text.encode(chance.choice(("utf-16", "utf-32", "utf-16-le", "utf-8-sig")), "replace")
    if kind == 5:
        return content.replace(b"a", chance.choice((b"\0", b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\r", b"\x1b[2J")))
    if kind == 6:
        return chance.choice(
            (b"", b"\n" * 1000, b"\xef\xbb\xbf", b"null", b"[]", b"{}", b'"a"', b"1", b"NaN", b"{}\n{}", b"[1,2]\n" * 3)
        )
    if kind == 7:
        return chance.randbytes(3000)
    if kind == 8:
        return content + b'{"x": ' + b"9" * chance.choice((5000, 100_000)) + b"}\n"
    if kind == 9:
        return content.replace(b"\n", chance.choice((b"\r", b"\r\n", b"\n\n\n", "\u2028".encode(), b"\x0c")))
    if kind == 10:
        letters = "".join(chance.choices(string.printable, k=50))
        at = chance.randrange(len(content) + 1)
        return content[:at] + letters.encode() + content[at:]
    if kind == 11 and chance.random() < 0.2:  # a gzip file of a few MB that would be 2 GB
        return gzip.compress(bytes(1 << 24), 1)[:-8] if chance.random() < 0.5 else _bomb()
    return content


def _bomb() -> bytes:
    """A gzip file of 2 MB whose text has 2 GB."""
    block = gzip.compress(b" " * (1 << 24))
    return block * 128


def flipped(content: bytes, chance: random.Random) -> bytes:
    copy = bytearray(content)
    for _ in range(chance.choice((1, 3, 30)) if copy else 0):
        copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
    return bytes(copy)


def _csv(chance: random.Random) -> bytes:
    rows = [f"v{number},{chance.choice(('30.0', 'nan', '-1', '1e308', '', 'x' * 200_000))}" for number in range(5)]
    return _damaged_text("id,length\n" + "\n".join(rows), chance, rarely=True)
