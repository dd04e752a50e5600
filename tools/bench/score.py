"""Measures how long scoring takes, beyond start-up.

python -m tools.bench.score predictions.jsonl highlight_val_release.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from vtg.evaluation.scoring import score_files


def measure(predictions: Path, annotations: Path, rounds: int) -> dict[str, float]:
    """Medians over the rounds, after one of warm-up: wall and processor seconds of one scoring."""
    wall, processor = [], []
    for _ in range(rounds + 1):
        begun, spent = time.perf_counter(), time.process_time()
        score_files([predictions], annotations)
        wall.append(time.perf_counter() - begun)
        processor.append(time.process_time() - spent)
    return {"wall_seconds": statistics.median(wall[1:]), "processor_seconds": statistics.median(processor[1:])}


def main() -> None:
    """Run from a shell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    arguments = parser.parse_args()
    figures = measure(arguments.predictions, arguments.annotations, arguments.rounds)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"  {name:20} {value:8.3f}")


if __name__ == "__main__":
    main()
