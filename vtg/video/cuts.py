"""Finds the very picture at which a shot changes: decodes what is around a time, and nothing else."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from vtg.video.probing import probe
from vtg.video.sampling import sample_frames

__all__ = ["CutFinder", "strongest_cut"]

SIDE = 32  # pixels: a cut changes most of a picture, and what does not matters no more when small
MOST_RATE = 60.0  # pictures a second looked at
LEAST_CHANGE = 8.0  # mean difference of 8-bit values; below it, nothing has been cut
STANDS_OUT = 3.0  # times the strongest change that is not part of the cut itself
CUT_PICTURES = 1  # beside a cut, whose change belongs to it: interlacing and compression smear it


class CutFinder:
    """Looks for hard cuts in one video.

    Args:
        path: the video.

    Raises:
        VideoError: it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        info = probe(path)
        self._path = path
        self._duration = info.duration
        self._rate = min(info.fps, MOST_RATE)

    def near(self, time: float, reach: float) -> float | None:
        """The time of the first picture of a new shot, seconds.

        Args:
            time: about when, seconds from the first picture.
            reach: how far from it at most, seconds.

        Returns:
            None where no change stands out: there is no cut, or one of many, or a slow one.

        Raises:
            VideoError: the pictures cannot be decoded.
        """
        start, end = max(0.0, time - reach), min(self._duration, time + reach)
        if end - start < 2 / self._rate:
            return None
        chunks = list(sample_frames(self._path, self._rate, SIDE, start, end))
        if not chunks:
            return None
        times, frames = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        found = strongest_cut(frames)
        return None if found is None else float(times[found])


def strongest_cut(frames: npt.NDArray[np.uint8]) -> int | None:
    """The first picture after the one change that stands out, if there is one.

    Args:
        frames: [N, H, W, 3] consecutive pictures.
    """
    if len(frames) < 2:
        return None
    changes = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    best = int(changes.argmax())
    others = np.delete(changes, range(max(0, best - CUT_PICTURES), min(len(changes), best + CUT_PICTURES + 1)))
    stands_out = changes[best] > STANDS_OUT * others.max(initial=0.0)
    return best + 1 if changes[best] >= LEAST_CHANGE and stands_out else None
