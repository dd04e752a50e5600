"""Post-process predicted windows: clip to the video, round to the data set's unit, suppress duplicates."""

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
    """Clip windows to the video, round them to the data set's unit, and suppress duplicates, as in the published code.

    Args:
        windows: [N, 3] start and end in seconds, score; best first.
        duration: of the video, in seconds.
        unit: seconds to round to, half to even; None disables rounding. Windows that reached beyond the video are not
            rounded.
        nms: kind of suppression, see `vtg.timespans.suppress`; None disables it.
        threshold: for "normal".
        sigma: for "gaussian".
        at_most: maximum number of results; None for all.

    Returns:
        [N, 3] float32, best first; fully suppressed windows have a score of 0.

    Raises:
        ValueError: unknown `nms`.
    """
    windows = np.array(windows, dtype=np.float32).reshape(-1, 3)  # float32 as published, for identical rounding
    inside = windows[:, 1] < np.float32(duration)
    windows[:, :2] = windows[:, :2].clip(0, np.float32(duration))
    if unit is not None:
        windows[inside, :2] = np.round(windows[inside, :2] / np.float32(unit)) * np.float32(unit)
    return windows[:at_most] if nms is None else suppress(windows, nms, threshold, sigma, at_most)
