"""Evaluate library search on demo videos: the right video, the right moment, and queries that match no video."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from vtg.demo import Scene, Sentence, make_scene, make_videos, split_seed, true_sentences, truth
from vtg.demo.absences import absent_sentences
from vtg.demo.sentences import KINDS, held_clips
from vtg.errors import VtgError
from vtg.features.store import VideoFeatures
from vtg.features.token_cache import StoredProjection
from vtg.library.library import Library
from vtg.models.calibration import Calibration, choose_threshold, fit_calibration
from vtg.timespans import interval_iou

if TYPE_CHECKING:
    from vtg.library.hits import Hit
    from vtg.library.searching import Searcher

PRESENT_PER_SCENE = 30  # true sentences drawn for each scene; those that hold in several scenes are removed
ABSENT_PER_SCENE = 12  # false sentences drawn for each scene; those that hold in another scene are removed
TOP_RESULTS = 5
HARDEST_VIDEOS = 3  # videos that do not match a sentence, with the best scores, on which a calibration is fitted


@dataclass(frozen=True)
class LibraryQuery:
    """A sentence, and the index of the only scene in which it holds; None if it holds in no scene."""

    sentence: Sentence
    scene: int | None


@dataclass(frozen=True)
class Figures:
    """The results of an evaluation.

    Attributes:
        videos: number of videos in the search.
        hours: their total duration.
        present: number of sentences that hold in exactly one of them.
        absent: number of sentences that hold in none.
        right_first: share of the present sentences whose video is the first result.
        right_in_top: share of those whose video is among the first five results.
        r1_at_5: share of those whose first result is in the right video, with an IoU of at least 0.5.
        r1_at_5_alone: the same if only the right video is searched.
        auroc: area under the ROC curve of the best score as a classifier of present and absent sentences.
        threshold: the model's threshold of the score, from which a moment counts as found.
        found_present: share of the present sentences with a result at or above the threshold.
        found_absent: share of the absent sentences with such a result.
        milliseconds: median time of a search.
        by_kind: right_in_top for each kind of sentence.
    """

    videos: int
    hours: float
    present: int
    absent: int
    right_first: float
    right_in_top: float
    r1_at_5: float
    r1_at_5_alone: float
    auroc: float
    threshold: float
    found_present: float
    found_absent: float
    milliseconds: float
    by_kind: dict[str, float]


def draw_sentences(scenes: Sequence[Scene], present: int, absent: int, seed: int) -> list[LibraryQuery]:
    """Draw sentences that hold in exactly one of the scenes, of all kinds, and sentences that hold in none.

    Args:
        scenes: the scenes of the library.
        present: maximum number of sentences that hold in one scene.
        absent: maximum number of sentences that hold in none.
        seed: random seed.
    """
    random = np.random.default_rng(seed)
    true: dict[Sentence, int] = {}
    false: dict[Sentence, None] = {}
    for number, scene in enumerate(scenes):
        own_sentences = true_sentences(scene)
        for kind in KINDS:
            pool = [sentence for sentence in own_sentences if sentence.kind == kind]
            for i in random.permutation(len(pool))[: PRESENT_PER_SCENE // len(KINDS)]:
                true.setdefault(pool[i], number)
        false |= dict.fromkeys(absent_sentences(scene, ABSENT_PER_SCENE, random))
    scene_counts = _count_scenes(scenes, list(true))
    # For a sentence with an order, its thing must not appear at all.
    unordered_counts = _count_scenes(scenes, [replace(sentence, order=None) for sentence in false])
    one_scene = [
        LibraryQuery(sentence, true[sentence]) for sentence, count in zip(true, scene_counts, strict=True) if count == 1
    ]
    no_scene = [
        LibraryQuery(sentence, None) for sentence, count in zip(false, unordered_counts, strict=True) if count == 0
    ]
    return [*_choose_of_all_kinds(one_scene, present, random), *_choose_of_all_kinds(no_scene, absent, random)]


def _count_scenes(scenes: Sequence[Scene], sentences: list[Sentence]) -> np.ndarray:
    """[M], the number of scenes in which each sentence holds."""
    counts = np.zeros(len(sentences), int)
    for scene in scenes:
        counts += held_clips(scene, sentences).any(axis=0)
    return counts


def _choose_of_all_kinds(queries: list[LibraryQuery], count: int, random: np.random.Generator) -> list[LibraryQuery]:
    pools = {kind: [one for one in queries if one.sentence.kind == kind] for kind in KINDS}
    pools = {kind: [pool[i] for i in random.permutation(len(pool))] for kind, pool in pools.items()}
    chosen: list[LibraryQuery] = []
    while len(chosen) < count and any(pools.values()):
        chosen += [pool.pop() for pool in pools.values() if pool]
    return chosen[:count]


def evaluate(
    library: Library,
    videos: Sequence[Path],
    scenes: Sequence[Scene],
    queries: Sequence[LibraryQuery],
    step: Callable[[], None],
) -> Figures:
    """Search the library with every query and, if the query matches a video, that video alone.

    Args:
        library: the library with all videos.
        videos: the file of each scene.
        scenes: the scenes.
        queries: the queries.
        step: called after each query.
    """
    best, seconds = [], []
    right: list[tuple[bool, bool, bool, bool]] = []
    for one in queries:
        begin = time.perf_counter()
        hits = library.search(one.sentence.text, limit=TOP_RESULTS)
        seconds.append(time.perf_counter() - begin)
        best.append(hits[0].moment.score if hits else 0.0)
        if one.scene is not None:
            path = str(videos[one.scene])
            true = np.array(truth(scenes[one.scene], one.sentence).windows)
            alone = library.search(one.sentence.text, limit=1, videos=[path])
            in_top = any(hit.video == path for hit in hits)
            is_first = bool(hits) and hits[0].video == path
            right.append((is_first, in_top, is_first and _fits(hits[0], true), bool(alone) and _fits(alone[0], true)))
        step()
    scores, present = np.array(best), np.array([one.scene is not None for one in queries])
    first, top, moment, alone_moment = np.array(right, float).reshape(-1, 4).mean(axis=0)
    kinds = [one.sentence.kind for one in queries if one.scene is not None]
    return Figures(
        videos=len(videos),
        hours=sum(scene.duration for scene in scenes) / 3600,
        present=int(present.sum()),
        absent=int((~present).sum()),
        right_first=float(first),
        right_in_top=float(top),
        r1_at_5=float(moment),
        r1_at_5_alone=float(alone_moment),
        auroc=auroc(scores[present], scores[~present]),
        threshold=library.threshold,
        found_present=float((scores[present] >= library.threshold).mean()),
        found_absent=float((scores[~present] >= library.threshold).mean()),
        milliseconds=float(1000 * np.median(seconds)),
        by_kind={
            kind: float(np.mean([found[1] for found, of in zip(right, kinds, strict=True) if of == kind]))
            for kind in dict.fromkeys(kinds)
        },
    )


def _fits(hit: Hit, true: np.ndarray) -> bool:
    found = np.array([[hit.moment.start, hit.moment.end]])
    return bool(interval_iou(found, true).max(initial=0.0) >= 0.5)


def auroc(present: np.ndarray, absent: np.ndarray) -> float:
    """The probability that a score of the first array exceeds one of the second; ties count half."""
    above = (present[:, None] > absent[None]).mean() + 0.5 * (present[:, None] == absent[None]).mean()
    return float(above)


def fit(
    library: Library, searcher: Searcher, count: int, query_counts: tuple[int, int], step: Callable[[], None]
) -> Calibration:
    """Fit a calibration on scenes of the validation split, whose frames are encoded without rendering video files.

    Each sentence is searched in the scene in which it holds and in all others. Of these, the scenes with the best
    scores are used, as they appear first in a search.

    Args:
        library: the library whose model is calibrated.
        searcher: the searcher of the library.
        count: number of scenes.
        query_counts: maximum number of sentences that hold in one of the scenes, and of those that hold in none.
        step: called after each scene.

    Raises:
        VtgError: the model has no head.
    """
    head = library.grounder.head
    if head is None:
        raise VtgError(
            f"{library.model.name}: has no head, so there are no scores to calibrate; choose another --model"
        )
    scenes = [make_scene(split_seed("val", index)) for index in range(count)]

    def features() -> Iterator[VideoFeatures]:
        for scene in scenes:
            frames = np.stack([scene.frame(float(time)) for time in scene.clip_times])
            encoded = library.encoder.encode_frames(_square(frames, library.encoder.image_size))
            values = head.project([encoded.layers.half()]).values.numpy()
            yield VideoFeatures(
                library.model.fps,
                scene.duration,
                embedding=encoded.embedding.float().numpy(),
                encoder=library.fingerprint,
                projection=StoredProjection(values, None, len(frames), [0]),
            )
            step()

    drawn = draw_sentences(scenes, *query_counts, seed=1)
    all_evidence = searcher.evidence([one.sentence.text for one in drawn], features()).tolist()
    evidence, present = [], []
    for one, found in zip(drawn, all_evidence, strict=True):
        others = [row for number, row in enumerate(found) if number != one.scene]
        hardest = sorted(others, key=lambda row: -row[0])[:HARDEST_VIDEOS]
        evidence += hardest + ([found[one.scene]] if one.scene is not None else [])
        present += [False] * len(hardest) + [True] * (one.scene is not None)
    fitted = fit_calibration(np.array(evidence), np.array(present))
    # A search returns the best moment of all videos, so the threshold is chosen on these best probabilities.
    best = np.array([max(fitted.chance(*row) for row in found) for found in all_evidence])
    is_present = np.array([one.scene is not None for one in drawn])
    return replace(fitted, threshold=choose_threshold(best[is_present], best[~is_present]))


def _square(frames: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image, ImageOps

    fitted = [ImageOps.fit(Image.fromarray(frame), (size, size), Image.Resampling.BICUBIC) for frame in frames]
    return np.stack([np.asarray(frame) for frame in fitted])


def _measure(arguments: argparse.Namespace, bars: Progress) -> dict[str, Any]:
    library = Library(arguments.library, arguments.model, "cpu")
    if arguments.calibration is not None:
        values = json.loads(arguments.calibration.read_text("utf-8"))["calibration"]
        library.calibration = Calibration.of(values)
    if arguments.fit:
        task = bars.add_task("fitting", total=arguments.videos)
        fitted = fit(
            library,
            library.searcher,
            arguments.videos,
            (arguments.present, arguments.absent),
            lambda: bars.advance(task),
        )
        return {"calibration": asdict(fitted)}
    scenes = [make_scene(split_seed("test", index)) for index in range(arguments.videos)]
    videos = [(arguments.folder / f"test_{index:05d}.mp4").resolve() for index in range(arguments.videos)]
    if not all(path.exists() for path in videos):
        task = bars.add_task("rendering", total=None)
        make_videos(
            arguments.folder,
            "test",
            arguments.videos,
            progress=lambda state: bars.update(task, completed=state.done, total=state.total),
        )
    task = bars.add_task("indexing", total=len(videos))
    library.add(videos, lambda state: bars.update(task, completed=state.done))
    queries = draw_sentences(scenes, arguments.present, arguments.absent, arguments.seed)
    task = bars.add_task("searching", total=len(queries))
    return asdict(evaluate(library, videos, scenes, queries, lambda: bars.advance(task)))


def main() -> int:
    """Run the command; 0 if it worked, 1 if not."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python tools/evaluate_library.py --folder demo-test --library demo-test.vtg",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("demo-test"),
        help="folder of the videos, which are rendered if missing (default: demo-test)",
    )
    parser.add_argument(
        "--library",
        type=Path,
        default=Path("demo-test.vtg"),
        help="the library, created if missing (default: demo-test.vtg)",
    )
    parser.add_argument("--model", default="demo", help="a model name, or a checkpoint (default: demo)")
    parser.add_argument("--videos", type=int, default=200, help="number of videos (default: 200, 3.5 hours in total)")
    parser.add_argument(
        "--present", type=int, default=300, help="maximum sentences that hold in exactly one video (default: 300)"
    )
    parser.add_argument(
        "--absent", type=int, default=200, help="maximum sentences that hold in no video (default: 200)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the sentences (default: 0)")
    parser.add_argument(
        "--fit",
        action="store_true",
        help="fit the model's calibration on validation scenes, for vtg/models/registry.toml",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        help="JSON file with the output of --fit, used instead of the registry's calibration",
    )
    arguments = parser.parse_args()
    try:
        with Progress(console=Console(stderr=True)) as bars:
            measured = _measure(arguments, bars)
    except VtgError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(measured, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
