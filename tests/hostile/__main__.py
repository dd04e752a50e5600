"""The command: `python -m tests.hostile --out FOLDER`; started again with the same folder it goes on."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # cases run side by side; and threads do not survive a fork

from .kinds import KINDS, OWN_TESTS
from .material import TESTS, make_material
from .namespaces import have_own_mounts, have_own_network, let_others_reach
from .running import Result, run_all

LOG, MATERIAL = "log.jsonl", "material"
WIDTHS = (8, 8, 7, 8, 9, 7, 9, 10)  # of the table's columns


def main() -> int:
    """Run what is left to run, and print the table; 1 where something is wrong, 3 where time was too short."""
    arguments = _arguments()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    out.chmod(0o755)  # cases run as another user
    is_apart = have_own_mounts() and have_own_network()
    if is_apart:  # cases run as a user without rights
        let_others_reach(Path(folder) for folder in {sys.base_prefix, sys.prefix, str(TESTS.parent), str(out)})
    else:
        print("not root: cases run as this user, with its network, and none that needs a disk of its own")
    by_name = {kind.name: kind for kind in (*KINDS, *OWN_TESTS)}
    counts = {kind.name: kind.count for kind in KINDS}
    if arguments.kinds:
        counts = {name: by_name[name].count for name in arguments.kinds.split(",")}
    if arguments.counts:
        counts = {name: int(count) for name, _, count in (each.partition("=") for each in arguments.counts.split(","))}
    _import_everything()
    material = make_material(out / MATERIAL)
    os.chdir(out)
    done = _done(out / LOG, arguments.seed)
    wanted = [(by_name[name], number) for name, number in _in_turns(counts, arguments.cases)]
    if arguments.case:
        name, _, number = arguments.case.partition(":")
        wanted = [(by_name[name], int(number))]
        done = {key: result for key, result in done.items() if key != (name, int(number))}
    left = [(kind, number) for kind, number in wanted if (kind.name, number) not in done]
    began = time.monotonic()
    with (out / LOG).open("a", buffering=1) as log:
        if not log.tell():
            log.write(json.dumps({"seed": arguments.seed}) + "\n")

        def tell(result: Result) -> None:
            log.write(result.line())
            done[result.kind, result.number] = result
            if result.verdict == "wrong" or arguments.case:
                print(f"{result.kind}:{result.number}: {result.verdict}: {result.why}", flush=True)

        deadline = began + 60 * arguments.minutes
        run_all(
            itertools.takewhile(lambda case: time.monotonic() < deadline, left),
            arguments.seed,
            out,
            material,
            arguments.jobs,
            tell,
        )
    results = [done[kind.name, number] for kind, number in wanted if (kind.name, number) in done]
    print(_table(results))
    print(f"{time.monotonic() - began:.0f} s, {len(wanted) - len(results)} cases left")
    for result in results:
        if result.verdict == "wrong" and not arguments.case:
            again = f"python -m tests.hostile --out {arguments.out} --seed {arguments.seed}"
            print(f"again: {again} --case {result.kind}:{result.number}")
    if any(result.verdict == "wrong" for result in results):
        return 1
    return 0 if len(results) == len(wanted) else 3


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the log and what is kept")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which no new case is begun")
    parser.add_argument("--kinds", default="", help=f"of {', '.join(kind.name for kind in KINDS)}; all by default")
    parser.add_argument("--cases", type=float, default=1.0, help="a share of each kind's cases, or so many of each")
    parser.add_argument("--counts", default="", help="of each kind, like media=60,kills=2; of others none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="cases side by side")
    parser.add_argument("--case", default="", help="KIND:NUMBER: this one only, and again")
    return parser.parse_args()


def _in_turns(counts: dict[str, int], share: float) -> Iterator[tuple[str, int]]:
    """All cases, each kind spread evenly over the whole: a run that is cut short has seen something of each.

    Args:
        counts: of the cases of each kind.
        share: of them that is wanted; above 1, so many of each at most.
    """
    wanted = {
        name: min(count, int(share)) if share > 1 else max(1, round(count * share)) for name, count in counts.items()
    }
    places = [
        ((number + 0.5) / wanted[name], place, name, number)
        for place, name in enumerate(wanted)
        for number in range(wanted[name])
    ]
    for _, _, name, number in sorted(places):
        yield name, number


def _done(log: Path, seed: int) -> dict[tuple[str, int], Result]:
    """The results of an earlier run with this seed."""
    if not log.exists():
        return {}
    lines = []
    for line in log.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # the last one, of a run that was killed
            continue
    if lines and lines[0].get("seed") != seed:
        sys.exit(f"{log}: is of seed {lines[0].get('seed')}: choose another --out")
    return {(line["kind"], line["number"]): Result(**line) for line in lines[1:] if "kind" in line}


def _import_everything() -> None:
    """What takes long to import is imported once, before any process is forked."""
    import accelerate  # noqa: F401
    import av
    import lancedb  # noqa: F401
    import open_clip  # noqa: F401
    import torch
    from PIL import Image

    import vtg.cli.main
    import vtg.evaluation
    import vtg.evaluation.scoring
    import vtg.extraction.machine
    import vtg.extraction.verify
    import vtg.library.library
    import vtg.summary
    import vtg.training.train  # noqa: F401

    torch.set_num_threads(1)
    Image.init()
    av.logging.set_level(None)
    warnings.filterwarnings("ignore", message=".*fork")


def _table(results: list[Result]) -> str:
    rows: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        rows[result.kind].append(result)
    head = zip(("cases", "inputs", "kills", "ok", "refused", "wrong", "s, most", "MB, most"), WIDTHS, strict=True)
    lines = [f"{'kind':<14}" + "".join(f"{word:>{width}}" for word, width in head)]
    total = [0] * 6
    for name, own in rows.items():
        verdicts = [sum(result.verdict == verdict for result in own) for verdict in ("ok", "refused", "wrong")]
        counts = [len(own), sum(r.inputs for r in own), sum(r.kills for r in own), *verdicts]
        total = [one + other for one, other in zip(total, counts, strict=True)]
        lines.append(_row(name, counts, max(r.seconds for r in own), max(r.megabytes for r in own)))
    most = [max((getattr(r, name) for r in results), default=0) for name in ("seconds", "megabytes")]
    lines.append(_row("all", total, *most))
    return "\n".join(lines)


def _row(name: str, counts: list[int], seconds: float, megabytes: float) -> str:
    cells = "".join(f"{count:>{width}}" for count, width in zip(counts, WIDTHS[:6], strict=True))
    return f"{name:<14}{cells}{seconds:>{WIDTHS[6]}.1f}{megabytes:>{WIDTHS[7]}.0f}"


if __name__ == "__main__":
    sys.exit(main())
