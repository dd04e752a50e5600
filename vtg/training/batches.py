"""Which samples come together, and how their features get into one padded batch: mapped, read ahead, reused memory."""

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

__all__ = ["BatchPlan", "Share", "most_together", "plan_epoch", "read_batches"]

POOLED_BATCHES = 24  # of shuffled samples that are sorted by length among themselves
BUFFERS = 2  # one is trained on while the next is filled

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """Which part of every batch is this process's: `rank` of `processes` equal ones."""

    rank: int = 0
    processes: int = 1


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """One batch of all processes.

    Attributes:
        samples: [B] indices of samples; those of one video that are to share its map stand together.
        frames: T that it is padded to.
        tokens: L that it is padded to.
    """

    samples: Indices
    frames: int
    tokens: int


def plan_epoch(
    samples: Sequence[TrainingSample], batch: int, repeats: int, queries_per_video: int, seed: int, epoch: int
) -> list[BatchPlan]:
    """Deals the samples of one epoch out: at random, but videos of about one length together.

    Every pass over the samples is dealt out by itself, so that no query comes twice in a batch; its last batch is
    filled up with samples of the same pass. The deal follows from seed and epoch alone.

    Args:
        samples: all of them.
        batch: B, of all processes; at most as many as there are samples.
        repeats: passes over the samples.
        queries_per_video: queries of one video that share its map.
        seed: of the training.
        epoch: from 0.
    """
    random = np.random.default_rng([seed, epoch])
    plans = []
    for _ in range(repeats):
        units = _units(samples, queries_per_video, random)
        plans += [_plan(samples, dealt) for dealt in _deal(samples, units, batch // queries_per_video, random)]
    return [plans[i] for i in random.permutation(len(plans))]


def most_together(samples: Sequence[TrainingSample], queries_per_video: int) -> int:
    """The largest batch that does not need a sample twice, but for the filling up of videos with few queries."""
    if queries_per_video == 1:
        return len(samples)
    counts = Counter(sample.sample.video_id for sample in samples)
    return queries_per_video * sum(-(-count // queries_per_video) for count in counts.values())


def _units(samples: Sequence[TrainingSample], together: int, random: np.random.Generator) -> NDArray[np.int64]:
    """[units, together] sample indices in random order; each row is of one video."""
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
                # With fewer other units than are missing, some come again.
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
    """Reads batches in a thread, one ahead of the one that is trained on.

    A batch is only valid until the next is asked for: its memory is filled again.

    Args:
        training_set: what the plans are of.
        plans: the batches, in order.
        seeds: of each batch's positive frames, the same in every process.
        layers: K that the head reads, the last ones of those cached.
        tokens: of a frame that it reads, the first ones.
        queries_per_video: queries of one video that share its map.
        share: of each batch that is read.
        pin: whether the memory is page-locked, for copies to a GPU that overlap.
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
        except BaseException as error:  # handed to whoever waits for the batch
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
    """Fills batches from mapped features."""

    def __init__(
        self, training_set: TrainingSet, layers: int, tokens: int, queries_per_video: int, share: Share
    ) -> None:
        self._set = training_set
        self._frame_shape = (layers, tokens, training_set.shape.video_width)
        self._queries_per_video = queries_per_video
        self._share = share
        self.frame_values = layers * tokens * training_set.shape.video_width

    def read(self, plan: BatchPlan, seed: Sequence[int], buffer: torch.Tensor) -> TrainingBatch:
        """One process's share of a batch, its video in `buffer`."""
        random = np.random.default_rng(list(seed))
        samples = [self._set.samples[index] for index in plan.samples]
        # Drawn for the whole batch, so that the draw does not depend on how many processes there are.
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
