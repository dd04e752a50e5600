"""Ask a head about videos in windows, and merge the moments and curves of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vtg.errors import VtgError
from vtg.features.store import VideoFeatures
from vtg.grounding.projections import quantized_windows
from vtg.grounding.results import Grounding, Moment, Saliency
from vtg.grounding.window_layout import central_window, join_curves, whole_frames, window_frames, window_starts
from vtg.r2.attention import attention_map
from vtg.r2.postprocess import postprocess_windows
from vtg.weights.memory import trim_memory

if TYPE_CHECKING:
    import torch

    from vtg.r2 import Predictor, R2Head, VideoProjection
    from vtg.r2.predictor import WindowPredictions

__all__ = ["check_groundable", "ground_each_with_head", "ground_with_head", "moments_of"]

MOST_MOMENTS = 50  # of one query in one video, as many as the published heads keep
GIVEN_BACK_EVERY = 8  # windows: more often costs time, as what was given back has to be asked for again
MAX_QUERIES_AT_ONCE = 64  # asked of all windows at once: beyond this they take memory and no less time


def ground_with_head(
    head: R2Head,
    video: VideoFeatures,
    queries: Sequence[str],
    texts: Sequence[torch.Tensor],
    predictor: Predictor | None = None,
    whole: bool = False,
) -> list[Grounding]:
    """Ground queries in a video by a head, from what is stored of it alone: no CLIP is needed.

    A video longer than the head's windows is cut into overlapping windows, whose moments are merged by the recipe's
    suppression and whose curves are joined without a seam.

    Args:
        head: an R² head.
        video: its features: layers [T, K, P, Cv], or what this head made of them, which is much quicker to ask.
        queries: the sentences, for the answers.
        texts: the layers of each, [L, K, Cq].
        predictor: of the head, where one is at hand already.
        whole: ask as the published evaluation does: in one piece up to `WHOLE_FRAMES` frames, and from the layers where
            there are any; only longer videos are cut.

    Returns:
        One grounding a query, in their order.

    Raises:
        VtgError: `check_groundable` refuses the video, or its layers are of another shape than the head reads.
    """
    return ground_each_with_head(head, [video], queries, texts, predictor, whole=whole)[0]


def ground_each_with_head(
    head: R2Head,
    videos: Sequence[VideoFeatures],
    queries: Sequence[str],
    texts: Sequence[torch.Tensor],
    predictor: Predictor | None = None,
    most: int = MOST_MOMENTS,
    whole: bool = False,
) -> list[list[Grounding]]:
    """Ground queries in several videos as `ground_with_head` does in one; short ones are asked together.

    Args:
        head: an R² head.
        videos: their features.
        queries: the sentences, for the answers.
        texts: the layers of each, [L, K, Cq].
        predictor: of the head, where one is at hand already.
        most: moments of one query in one video.
        whole: as of `ground_with_head`.

    Returns:
        For each video one grounding a query, in their order.

    Raises:
        VtgError: `check_groundable` refuses a video.
    """
    from vtg.r2 import Predictor

    windows = [_windows_of(head, video, whole) for video in videos]
    for text in texts:
        head.check_query(text)
    predictor = predictor or Predictor(head)
    groundings: list[list[Grounding]] = [[] for _ in videos]
    for first in range(0, len(queries), MAX_QUERIES_AT_ONCE):
        part = slice(first, first + MAX_QUERIES_AT_ONCE)
        for found, own, answers in zip(groundings, windows, _predictions(predictor, windows, texts[part]), strict=True):
            found += _groundings(own, answers, queries[part], texts[part], most)
    return groundings


def check_groundable(head: R2Head, video: VideoFeatures, whole: bool = False) -> None:
    """Whether a head can be asked about a video from what is stored of it.

    Args:
        head: an R² head.
        video: its features.
        whole: as of `ground_with_head`.

    Raises:
        VtgError: there are neither layers nor what this head made of them; or `whole` is asked for, and the head made
            it of shorter windows.
    """
    windows = _windows_of(head, video, whole)
    kept = None if windows.video.projection is None else windows.video.projection.values.shape
    if kept is not None and (kept[1], kept[4]) != (head.config.layers, head.config.hidden_width):
        raise VtgError(f"{video.name}: what a head made of it is of another shape than this head's; index it again")


def _predictions(
    predictor: Predictor, windows: Sequence[_Windows], queries: Sequence[torch.Tensor]
) -> Iterator[list[WindowPredictions]]:
    """What was found in each video's windows."""
    if all(own.video.projection is not None for own in windows) and len({own.video.fps for own in windows}) == 1:
        projections = [projection for own in windows for projection in own.projected()]
        yield from ([found] for found in predictor.predict(projections, queries, windows[0].video.fps))
        return
    for own in windows:
        yield [predictor.predict([projection], queries, own.video.fps)[0] for projection in own.projected()]


def _groundings(
    windows: _Windows,
    answers: Sequence[WindowPredictions],
    queries: Sequence[str],
    texts: Sequence[torch.Tensor],
    most: int,
) -> Iterator[Grounding]:
    """One video's answers as groundings."""
    video = windows.video
    curves = np.concatenate([answer.saliency.float().cpu().numpy() for answer in answers])  # [V, N, W]
    found = None
    if parts := [answer.windows for answer in answers if answer.windows is not None]:
        found = np.concatenate([part.float().cpu().numpy() for part in parts])  # [V, N, moments, 3]
        found[..., :2] += np.array([start / video.fps for start in windows.starts], np.float32)[:, None, None, None]
    for i, query in enumerate(queries):
        merged = None if found is None else _merge(windows.head, found[:, i].reshape(-1, 3), video.duration, most)
        moments = [] if merged is None else moments_of(merged)
        saliency = Saliency(video.times, join_curves(list(curves[:, i]), windows.starts))
        yield Grounding(query, video.name, video.duration, moments, saliency, _Look(windows, texts[i]))


@dataclass(frozen=True, eq=False)
class _Windows:
    """The windows of one video, from whatever is stored of it.

    Attributes:
        head: that looks at them.
        video: whose they are.
        starts: first frames.
        length: frames in each.
    """

    head: R2Head
    video: VideoFeatures
    starts: list[int]
    length: int

    def projected(self) -> Iterator[VideoProjection]:
        """What the head made of them, all in one, or window by window as it makes it."""
        import torch

        if self.video.projection is not None:
            yield quantized_windows(self.video.projection)
            return
        # One window at a time: what is mapped from the disk is in memory only while it is looked at.
        for window in range(len(self.starts)):
            with torch.no_grad():
                projection = self.head.project([self._layers(window)])
            yield projection
            if window % GIVEN_BACK_EVERY == GIVEN_BACK_EVERY - 1:
                trim_memory()

    def attention(self, text: torch.Tensor, frame: int) -> torch.Tensor:
        """Where the head looks at a frame, in the window that has it nearest to its middle: [K, 1, L, P - 1]."""
        window = central_window(frame, self.starts, self.length)
        inside = [frame - self.starts[window]]
        if self.video.projection is not None:
            return self.head.attention(
                quantized_windows(self.video.projection, slice(window, window + 1)), text, inside
            )
        return self.head.attention(self._layers(window), text, inside)

    def _layers(self, window: int) -> torch.Tensor:
        import torch

        assert self.video.layers is not None  # as there is no projection
        start = self.starts[window]
        # A copy: a file that is mapped for reading may not be handed to torch, which knows no read-only memory.
        return torch.from_numpy(np.array(self.video.layers[start : start + self.length]))


def _windows_of(head: R2Head, video: VideoFeatures, whole: bool) -> _Windows:
    if whole:
        return _whole_windows_of(head, video)
    if video.projection is not None:
        return _Windows(head, video, video.projection.starts, video.projection.length)
    if video.layers is None:
        raise VtgError(
            f"{video.name}: has embeddings only for this head, as its layers were not kept; "
            "index it again with this model, or once with --keep-layers for every head"
        )
    length, step = window_frames(head.config.window_seconds, head.config.step_seconds, video.fps)
    starts = window_starts(len(video.layers), length, step)
    return _Windows(head, video, starts, min(length, len(video.layers)))


def _whole_windows_of(head: R2Head, video: VideoFeatures) -> _Windows:
    """As few windows as the method allows, from the layers: a projection is rounded, and of a library's windows."""
    window, step = window_frames(head.config.window_seconds, head.config.step_seconds, video.fps)
    length, step = whole_frames(len(video), window, step)
    starts = window_starts(len(video), length, step)
    if video.layers is not None:
        return _Windows(head, replace(video, projection=None), starts, length)
    kept = video.projection
    if kept is None or (kept.length, kept.starts) != (length, starts):
        what = (
            "its embeddings are" if kept is None else f"what this head made of {kept.length / video.fps:g} s windows is"
        )
        raise VtgError(
            f"{video.name}: evaluation asks it whole, and only {what} kept; index it again with --keep-layers"
        )
    return _Windows(head, video, starts, length)


@dataclass(frozen=True)
class _Look:
    """Asks the head where it looks, when somebody wants to know."""

    windows: _Windows
    text: torch.Tensor

    def __call__(self, frame: int, layer: int | None, word: int | None) -> np.ndarray:
        return attention_map(self.windows.attention(self.text, frame).cpu().numpy(), layer, word)[0]


def _merge(head: R2Head, windows: np.ndarray, duration: float, most: int) -> np.ndarray:
    """Windows of all parts of a video as one list, post-processed as the head's recipe says."""
    config = head.config
    ordered = windows[np.argsort(-windows[:, 2], kind="stable")]
    return postprocess_windows(
        ordered,
        duration,
        unit=config.unit,
        nms=config.nms,
        threshold=config.nms_threshold,
        sigma=config.nms_sigma,
        at_most=most,
    )


def moments_of(windows: np.ndarray) -> list[Moment]:
    """[N, 3] start, end, score as moments."""
    return [Moment(*window) for window in windows.tolist()]
