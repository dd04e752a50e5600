"""Pictures of answers: the only module that paints on frames."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["paint_attention"]

# From nothing through red to yellow, the colours of heat, as (share of the strongest, red, green, blue).
RAMP = np.array([(0.0, 30, 0, 60), (0.4, 200, 30, 60), (0.7, 250, 130, 20), (1.0, 255, 240, 120)], float)
STRONGEST_OPACITY = 0.75  # so that what is looked at hardest can still be seen


def paint_attention(frame: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Paint a map of attention over the frame that it is of.

    Args:
        frame: uint8 [H, W, 3], the square that CLIP sees, at any size.
        attention: [h, w], not negative; its strongest patch gets the strongest colour.

    Returns:
        uint8 [H, W, 3].
    """
    height, width = frame.shape[:2]
    share = attention / max(float(attention.max()), 1e-12)
    smooth = Image.fromarray(share.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    share = np.asarray(smooth).clip(0.0, 1.0)
    colour = np.stack([np.interp(share, RAMP[:, 0], RAMP[:, channel]) for channel in (1, 2, 3)], axis=-1)
    opacity = STRONGEST_OPACITY * share[..., None]
    return np.asarray((1 - opacity) * frame + opacity * colour).round().astype(np.uint8)
