"""From a head's raw windows to moments: clipping, rounding to the data set's unit, suppression of repeats."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vtg.timespans import suppress

__all__ = ["postprocess_windows"]

Windows = npt.NDArray[np.float32]


def postprocess_windows(
    windows: Windows,
    duration: float,
    *,
    unit: float | None = None,
    nms: str | None = None,
    threshold: float = 0.7,
    sigma: float = 0.5,
    at_most: int | None = None,
) -> Windows:
    """Clips windows to the video, rounds them to the data set's unit, and suppresses repeats, as published.

    Args:
        windows: [N, 3] start and end in seconds, score; best first.
        duration: of the video, in seconds.
        unit: seconds to round to, half to even; None leaves the times. Windows that ended beyond the video keep its
            end.
        nms: the kind of `vtg.timespans.suppress`; None leaves scores and order.
        threshold: for "normal".
        sigma: for "gaussian".
        at_most: how many are wanted; None wants all.

    Returns:
        [N, 3] float32, best first; windows that were suppressed entirely have a score of 0.

    Raises:
        ValueError: unknown `nms`.
    """
    windows = np.array(windows, dtype=np.float32).reshape(-1, 3)  # float32 like the published scores: roundings agree
    inside = windows[:, 1] < np.float32(duration)
    windows[:, :2] = windows[:, :2].clip(0, np.float32(duration))
    if unit is not None:
        windows[inside, :2] = np.round(windows[inside, :2] / np.float32(unit)) * np.float32(unit)
    return windows[:at_most] if nms is None else suppress(windows, nms, threshold, sigma, at_most)
