"""Locate hard cuts to the exact frame, by decoding the frames around a given time."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from vtg.video.probing import probe
from vtg.video.sampling import sample_frames

__all__ = ["CutFinder", "strongest_cut"]

SIDE_PIXELS = 32  # of the compared frames: enough, because a cut changes most of a frame
MAX_FRAME_RATE = 60.0  # frames compared a second
MIN_CHANGE = 8.0  # mean absolute difference of 8-bit values of two frames
MIN_CHANGE_RATIO = 3.0  # of a cut's change to the largest other change
CUT_FRAMES = 1  # on either side of a cut that belong to its change, because of interlacing and compression


class CutFinder:
    """Finds hard cuts in one video.

    Args:
        path: the video.

    Raises:
        VideoError: it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        info = probe(path)
        self._path = path
        self._duration = info.duration
        self._rate = min(info.fps, MAX_FRAME_RATE)

    def find_near(self, time: float, max_distance: float) -> float | None:
        """Find the cut near a time.

        Args:
            time: seconds from the first frame.
            max_distance: seconds around it that are searched.

        Returns:
            Seconds at which the first frame of the new shot is shown; None where no change stands out: there is no
            cut, there are several, or it is a gradual transition.

        Raises:
            VideoError: the frames cannot be decoded.
        """
        start, end = max(0.0, time - max_distance), min(self._duration, time + max_distance)
        if end - start < 2 / self._rate:
            return None
        chunks = list(sample_frames(self._path, self._rate, SIDE_PIXELS, start, end))
        if not chunks:
            return None
        times, frames = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        found = strongest_cut(frames)
        return None if found is None else float(times[found])


def strongest_cut(frames: npt.NDArray[np.uint8]) -> int | None:
    """Index of the first frame after the single change that stands out; None where there is none.

    Args:
        frames: [N, H, W, 3] consecutive frames.
    """
    if len(frames) < 2:
        return None
    changes = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    best = int(changes.argmax())
    others = np.delete(changes, range(max(0, best - CUT_FRAMES), min(len(changes), best + CUT_FRAMES + 1)))
    stands_out = changes[best] > MIN_CHANGE_RATIO * others.max(initial=0.0)
    return best + 1 if changes[best] >= MIN_CHANGE and stands_out else None
