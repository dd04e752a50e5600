"""Write a storyboard: the key frames of a plan with captions, as one image."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vtg.errors import VtgError
from vtg.files.whole import check_name, write_whole
from vtg.progress import Progress, Reporter, silent
from vtg.summary.planning import Plan
from vtg.video import thumbnail
from vtg.video.captions import font, wrap_text

__all__ = ["draw_storyboard", "write_storyboard"]

MAX_FRAMES = 60  # of the clips with the highest scores
FRAME_WIDTH_PIXELS = 320
GAP_PIXELS = 12  # between key frames and around them
FONT_PIXELS = 16
CAPTION_LINES = 2
BACKGROUND_RGB, TEXT_RGB, FRAME_BACKGROUND_RGB = (250, 250, 248), (30, 33, 40), (20, 20, 22)


def write_storyboard(
    plan: Plan,
    captions: Sequence[str],
    out: str | os.PathLike[str],
    progress: Reporter = silent,
) -> Path:
    """Write the key frame of each clip of a plan, at its peak, with its caption; at most 60, by score.

    Args:
        plan: of a file.
        captions: one per clip.
        out: the PNG to write, atomically.
        progress: called for each key frame.

    Returns:
        The file.

    Raises:
        VideoError: the video cannot be read.
        VtgError: the plan has no clips, or `out` is not a PNG or is in a folder that does not exist.
    """
    target = Path(out)
    check_name(target)
    if target.suffix.lower() != ".png":
        raise VtgError(f"{target}: storyboards are written as .png: choose this ending")
    if not target.parent.is_dir():
        raise VtgError(f"{target}: the folder {target.parent} does not exist: make it first")
    if not plan.clips:
        raise VtgError(f"{plan.video}: has no clips for a storyboard; ask for a longer summary")
    best = sorted(range(len(plan.clips)), key=lambda i: -plan.clips[i].score)[:MAX_FRAMES]
    frames, texts = [], []
    for done, i in enumerate(sorted(best)):
        progress(Progress("drawing key frames", done, len(best), "frames"))
        frames.append(thumbnail(plan.video, min(plan.clips[i].peak, plan.duration), 2 * FRAME_WIDTH_PIXELS))
        texts.append(captions[i])
    board = Image.fromarray(draw_storyboard(frames, texts))
    with write_whole(target) as part:
        board.save(part, format="png")
    progress(Progress("drawing key frames", len(best), len(best), "frames"))
    return target


def draw_storyboard(frames: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Draw key frames in rows, each above its caption.

    Args:
        frames: uint8 [H, W, 3] each, at least one, of any size.
        captions: one per frame; two lines of it are shown.

    Returns:
        uint8 [H, W, 3].
    """
    columns = min(len(frames), max(2, math.ceil(math.sqrt(len(frames)))))
    rows = math.ceil(len(frames) / columns)
    # The height follows from the first frame's aspect ratio; frames of upright videos are limited to squares.
    height = min(round(FRAME_WIDTH_PIXELS * frames[0].shape[0] / frames[0].shape[1]), FRAME_WIDTH_PIXELS)
    text_font, line = font(FONT_PIXELS), round(1.3 * FONT_PIXELS)
    cell = height + CAPTION_LINES * line + GAP_PIXELS
    board = Image.new(
        "RGB", (columns * (FRAME_WIDTH_PIXELS + GAP_PIXELS) + GAP_PIXELS, rows * cell + GAP_PIXELS), BACKGROUND_RGB
    )
    draw = ImageDraw.Draw(board)
    for number, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        left, top = (
            GAP_PIXELS + number % columns * (FRAME_WIDTH_PIXELS + GAP_PIXELS),
            GAP_PIXELS + number // columns * cell,
        )
        picture = Image.fromarray(frame)
        picture.thumbnail((FRAME_WIDTH_PIXELS, height), Image.Resampling.LANCZOS)
        draw.rectangle((left, top, left + FRAME_WIDTH_PIXELS - 1, top + height - 1), fill=FRAME_BACKGROUND_RGB)
        board.paste(picture, (left + (FRAME_WIDTH_PIXELS - picture.width) // 2, top + (height - picture.height) // 2))
        for row, text in enumerate(wrap_text(caption, FRAME_WIDTH_PIXELS, text_font, CAPTION_LINES)):
            draw.text((left, top + height + 4 + row * line), text, fill=TEXT_RGB, font=text_font)
    return np.asarray(board)
