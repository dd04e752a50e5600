"""Plan the batches of an epoch, and read their features into padded tensors in a background thread."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vtg.r2 import TrainingBatch
from vtg.r2.losses import ABSENT
from vtg.training.data import TrainingSample, TrainingSet

__all__ = ["BatchPlan", "Share", "max_batch_size", "plan_epoch", "read_batches"]

POOLED_BATCHES = 24  # batches of shuffled samples that are sorted by length together
BUFFERS = 2  # one in use while the next is filled

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """The part of each batch for this process: number `rank` of `processes` equal parts."""

    rank: int = 0
    processes: int = 1


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """One batch of all processes.

    Attributes:
        samples: [B] indices of samples; those that share the projection of a video are adjacent.
        frames: T after padding.
        tokens: L after padding.
    """

    samples: Indices
    frames: int
    tokens: int


def plan_epoch(
    samples: Sequence[TrainingSample], batch: int, repeats: int, queries_per_video: int, seed: int, epoch: int
) -> list[BatchPlan]:
    """Divide the samples of one epoch into random batches of videos of similar length.

    Every pass over the samples is divided separately, so that no query is in a batch twice; the last batch is filled
    with samples of the same pass. The result depends on seed and epoch only.

    Args:
        samples: all of them.
        batch: B, of all processes; at most the number of samples.
        repeats: passes over the samples.
        queries_per_video: queries that share the projection of one video.
        seed: of the training.
        epoch: from 0.
    """
    random = np.random.default_rng([seed, epoch])
    plans = []
    for _ in range(repeats):
        units = _units(samples, queries_per_video, random)
        plans += [_plan(samples, dealt) for dealt in _deal(samples, units, batch // queries_per_video, random)]
    return [plans[i] for i in random.permutation(len(plans))]


def max_batch_size(samples: Sequence[TrainingSample], queries_per_video: int) -> int:
    """The largest batch without repeated samples, except to fill up videos with few queries."""
    if queries_per_video == 1:
        return len(samples)
    counts = Counter(sample.sample.video_id for sample in samples)
    return queries_per_video * sum(-(-count // queries_per_video) for count in counts.values())


def _units(samples: Sequence[TrainingSample], together: int, random: np.random.Generator) -> NDArray[np.int64]:
    """[units, together] sample indices in random order; the samples of a row have the same video."""
    order = random.permutation(len(samples))
    if together == 1:
        return order[:, None]
    by_video: dict[str, list[int]] = {}
    for index in order:
        by_video.setdefault(samples[index].sample.video_id, []).append(int(index))
    rows = []
    for indices in by_video.values():
        missing = -len(indices) % together
        rows.append(np.array(indices + list(random.choice(indices, missing))).reshape(-1, together))
    units = np.concatenate(rows)
    return units[random.permutation(len(units))]


def _deal(
    samples: Sequence[TrainingSample], units: NDArray[np.int64], size: int, random: np.random.Generator
) -> Iterator[Indices]:
    """Batches of `size` units each."""
    lengths = np.array([samples[unit[0]].frames for unit in units])
    for start in range(0, len(units), size * POOLED_BATCHES):
        pool = np.arange(start, min(start + size * POOLED_BATCHES, len(units)))
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        for first in range(0, len(pool), size):
            chosen = pool[first : first + size]
            if len(chosen) < size:
                others = np.setdiff1d(np.arange(len(units)), chosen)
                missing = size - len(chosen)
                # With too few other units, some are repeated.
                chosen = np.concatenate((chosen, random.choice(others, missing, replace=len(others) < missing)))
            yield units[random.permutation(chosen)].reshape(-1)


def _plan(samples: Sequence[TrainingSample], dealt: Indices) -> BatchPlan:
    return BatchPlan(
        dealt, max(samples[index].frames for index in dealt), max(samples[index].tokens for index in dealt)
    )


@contextmanager
def read_batches(
    training_set: TrainingSet,
    plans: Sequence[BatchPlan],
    seeds: Sequence[Sequence[int]],
    layers: int,
    tokens: int,
    queries_per_video: int,
    share: Share,
    pin: bool,
) -> Iterator[Iterator[TrainingBatch]]:
    """Read batches in a thread, one ahead of the one in use.

    A batch is only valid until the next one is requested, as its memory is reused.

    Args:
        training_set: the samples of the plans.
        plans: the batches, in order.
        seeds: for the choice of positive frames in each batch, the same in every process.
        layers: K of the head; the last K cached layers are read.
        tokens: per frame to read, from the first.
        queries_per_video: queries that share the projection of one video.
        share: the part of each batch to read.
        pin: use page-locked memory, for asynchronous copies to a GPU.
    """
    reader = _Reader(training_set, layers, tokens, queries_per_video, share)
    own = [plan.samples[_own(len(plan.samples), share)] for plan in plans]
    most = max((len(mine) // queries_per_video * plan.frames for mine, plan in zip(own, plans, strict=True)), default=0)
    free: queue.Queue[torch.Tensor | None] = queue.Queue()
    ready: queue.Queue[tuple[TrainingBatch, torch.Tensor] | BaseException] = queue.Queue()
    for _ in range(min(BUFFERS, len(plans))):
        free.put(torch.empty(most * reader.frame_values, dtype=torch.float16, pin_memory=pin))

    def fill() -> None:
        try:
            for plan, seed in zip(plans, seeds, strict=True):
                buffer = free.get()
                if buffer is None:
                    return
                ready.put((reader.read(plan, seed, buffer), buffer))
        except BaseException as error:  # raised again in the consumer
            ready.put(error)

    def batches() -> Iterator[TrainingBatch]:
        for _ in plans:
            read = ready.get()
            if isinstance(read, BaseException):
                raise read
            batch, buffer = read
            yield batch
            free.put(buffer)

    thread = threading.Thread(target=fill, name="vtg-read-batches", daemon=True)
    thread.start()
    try:
        yield batches()
    finally:
        free.put(None)
        thread.join()


def _own(count: int, share: Share) -> slice:
    each = count // share.processes
    return slice(share.rank * each, (share.rank + 1) * each)


class _Reader:
    """Fills batches from memory-mapped features."""

    def __init__(
        self, training_set: TrainingSet, layers: int, tokens: int, queries_per_video: int, share: Share
    ) -> None:
        self._set = training_set
        self._frame_shape = (layers, tokens, training_set.shape.video_width)
        self._queries_per_video = queries_per_video
        self._share = share
        self.frame_values = layers * tokens * training_set.shape.video_width

    def read(self, plan: BatchPlan, seed: Sequence[int], buffer: torch.Tensor) -> TrainingBatch:
        """Read this process's part of a batch, with the video in `buffer`."""
        random = np.random.default_rng(list(seed))
        samples = [self._set.samples[index] for index in plan.samples]
        # For the whole batch, so that the choice does not depend on the number of processes.
        positive = np.array([random.choice(one.positives) if len(one.positives) else ABSENT for one in samples])
        mine = _own(len(samples), self._share)
        samples = samples[mine]
        saliency = np.zeros((len(samples), plan.frames), np.float32)
        for row, sample in zip(saliency, samples, strict=True):
            row[: sample.frames] = sample.saliency
        windows = [sample.windows for sample in samples if sample.windows is not None]
        lengths, words = ([getattr(sample, name) for sample in samples] for name in ("frames", "tokens"))
        return TrainingBatch(
            video=self._video(samples[:: self._queries_per_video], plan.frames, buffer),
            query=self._query(samples, plan.tokens),
            video_mask=torch.arange(plan.frames) < torch.tensor(lengths)[:, None],
            query_mask=torch.arange(plan.tokens) < torch.tensor(words)[:, None],
            saliency=torch.from_numpy(saliency),
            positive_frame=torch.from_numpy(positive[mine]),
            windows=windows if len(windows) == len(samples) else None,
            fps=self._set.fps or 1.0,
        )

    def _video(self, samples: Sequence[TrainingSample], frames: int, buffer: torch.Tensor) -> torch.Tensor:
        """[V, T, K, P, Cv] float16, zeros in the padding."""
        layers, tokens, _ = self._frame_shape
        video = buffer[: len(samples) * frames * self.frame_values].view(len(samples), frames, *self._frame_shape)
        for place, sample in zip(video.numpy(), samples, strict=True):
            features = self._set.files.video(sample.sample.video_id)
            place[: sample.frames] = features[:, features.shape[1] - layers :, :tokens]
            place[sample.frames :] = 0
        return video

    def _query(self, samples: Sequence[TrainingSample], tokens: int) -> torch.Tensor:
        """[B, L, K, Cq] float16, zeros in the padding."""
        layers = self._frame_shape[0]
        query = np.zeros((len(samples), tokens, layers, self._set.shape.query_width), np.float16)
        for place, sample in zip(query, samples, strict=True):
            features = self._set.files.query(sample.sample)
            place[: sample.tokens] = features[:, features.shape[1] - layers :]
        return torch.from_numpy(query)
