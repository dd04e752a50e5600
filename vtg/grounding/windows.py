"""Run a head on the windows of videos, and merge their moments and saliency curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vtg.errors import VtgError
from vtg.features.store import VideoFeatures
from vtg.grounding.projections import quantized_windows
from vtg.grounding.results import Grounding, Moment, Saliency
from vtg.grounding.window_layout import WindowGrid, central_window, join_curves
from vtg.r2.attention import attention_map
from vtg.r2.postprocess import postprocess_windows
from vtg.weights.memory import trim_memory

if TYPE_CHECKING:
    import torch

    from vtg.r2 import Predictor, R2Head, VideoProjection
    from vtg.r2.predictor import WindowPredictions

__all__ = ["check_groundable", "ground_each_with_head", "ground_with_head", "moments_of"]

MAX_MOMENTS = 50  # per query and video, as in the published heads
WINDOWS_PER_TRIM = 8  # more often costs time, as released memory has to be allocated again
MAX_QUERIES_AT_ONCE = 64  # per batch: more take memory and are not faster


def ground_with_head(
    head: R2Head,
    video: VideoFeatures,
    queries: Sequence[str],
    texts: Sequence[torch.Tensor],
    predictor: Predictor | None = None,
    whole: bool = False,
) -> list[Grounding]:
    """Ground queries in a video with a head, from stored features; no CLIP is needed.

    A video longer than the head's windows is divided into overlapping windows. Their moments are merged by the recipe's
    suppression, and their curves are cross-faded.

    Args:
        head: an R² head.
        video: its features: layers [T, K, P, Cv], or a projection by this head, which is much faster.
        queries: the sentences, for the results.
        texts: the layers of each, [L, K, Cq]. If these or the video's are more than the head's, the last ones are used.
        predictor: of the head, if one exists already.
        whole: as in the published evaluation, do not divide videos of up to `WHOLE_FRAMES` frames, and use the layers
            if they are stored.

    Returns:
        One grounding per query, in their order.

    Raises:
        VtgError: `check_groundable` fails, or the layers do not have the shape that the head needs.
    """
    return ground_each_with_head(head, [video], queries, texts, predictor, whole=whole)[0]


def ground_each_with_head(
    head: R2Head,
    videos: Sequence[VideoFeatures],
    queries: Sequence[str],
    texts: Sequence[torch.Tensor],
    predictor: Predictor | None = None,
    max_moments: int = MAX_MOMENTS,
    whole: bool = False,
) -> list[list[Grounding]]:
    """Ground queries in several videos, see `ground_with_head`; windows of equal length are batched.

    Args:
        head: an R² head.
        videos: their features.
        queries: the sentences, for the results.
        texts: the layers of each, [L, K, Cq].
        predictor: of the head, if one exists already.
        max_moments: per query and video.
        whole: see `ground_with_head`.

    Returns:
        For each video, one grounding per query, in their order.

    Raises:
        VtgError: `check_groundable` fails for a video.
    """
    from vtg.r2 import Predictor

    windows = [_windows_of(head, video, whole) for video in videos]
    texts = [text[:, -head.config.layers :] for text in texts]
    for text in texts:
        head.check_query(text)
    predictor = predictor or Predictor(head)
    groundings: list[list[Grounding]] = [[] for _ in videos]
    for first in range(0, len(queries), MAX_QUERIES_AT_ONCE):
        part = slice(first, first + MAX_QUERIES_AT_ONCE)
        for found, own, answers in zip(groundings, windows, _predictions(predictor, windows, texts[part]), strict=True):
            found += _groundings(own, answers, queries[part], texts[part], max_moments)
    return groundings


def check_groundable(head: R2Head, video: VideoFeatures, whole: bool = False) -> None:
    """Check that a head can ground queries in a video with the given features.

    Args:
        head: an R² head.
        video: its features.
        whole: see `ground_with_head`.

    Raises:
        VtgError: there are neither layers nor a projection by this head; or `whole` is set, and the projection is of
            shorter windows.
    """
    windows = _windows_of(head, video, whole)
    kept = None if windows.video.projection is None else windows.video.projection.values.shape
    if kept is not None and (kept[1], kept[4]) != (head.config.layers, head.config.hidden_width):
        raise VtgError(f"{video.name}: its stored projection has another shape than this head's; index it again")


def _predictions(
    predictor: Predictor, windows: Sequence[_Windows], queries: Sequence[torch.Tensor]
) -> Iterator[list[WindowPredictions]]:
    """The predictions in each video's windows."""
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
    max_moments: int,
) -> Iterator[Grounding]:
    """Convert the predictions of one video to groundings."""
    video = windows.video
    curves = np.concatenate([answer.saliency.float().cpu().numpy() for answer in answers])  # [V, N, W]
    found = None
    if parts := [answer.windows for answer in answers if answer.windows is not None]:
        found = np.concatenate([part.float().cpu().numpy() for part in parts])  # [V, N, moments, 3]
        found[..., :2] += np.array([start / video.fps for start in windows.starts], np.float32)[:, None, None, None]
    for i, query in enumerate(queries):
        merged = (
            None if found is None else _merge(windows.head, found[:, i].reshape(-1, 3), video.duration, max_moments)
        )
        moments = [] if merged is None else moments_of(merged)
        saliency = Saliency(video.times, join_curves(list(curves[:, i]), windows.starts))
        yield Grounding(query, video.name, video.duration, moments, saliency, _AttentionLookup(windows, texts[i]))


@dataclass(frozen=True, eq=False)
class _Windows:
    """The windows of one video.

    Attributes:
        head: to run on them.
        video: features of the video.
        starts: first frames.
        length: of each window, in frames.
    """

    head: R2Head
    video: VideoFeatures
    starts: list[int]
    length: int

    def projected(self) -> Iterator[VideoProjection]:
        """Projections of the windows: all stored ones together, or computed one by one from the layers."""
        import torch

        if self.video.projection is not None:
            yield quantized_windows(self.video.projection)
            return
        # One window at a time, to limit the memory for mapped layers.
        for window in range(len(self.starts)):
            with torch.no_grad():
                projection = self.head.project([self._layers(window)])
            yield projection
            if window % WINDOWS_PER_TRIM == WINDOWS_PER_TRIM - 1:
                trim_memory()

    def attention(self, text: torch.Tensor, frame: int) -> torch.Tensor:
        """Attention weights at a frame, in the window whose centre is nearest: [K, 1, L, P - 1]."""
        window = central_window(frame, self.starts, self.length)
        inside = [frame - self.starts[window]]
        if self.video.projection is not None:
            return self.head.attention(
                quantized_windows(self.video.projection, slice(window, window + 1)), text, inside
            )
        return self.head.attention(self._layers(window), text, inside)

    def _layers(self, window: int) -> torch.Tensor:
        import torch

        assert self.video.layers is not None  # required without a projection
        start = self.starts[window]
        # A copy, as torch does not support read-only memory.
        return torch.from_numpy(np.array(self.video.layers[start : start + self.length, -self.head.config.layers :]))


def _windows_of(head: R2Head, video: VideoFeatures, whole: bool) -> _Windows:
    if whole:
        return _whole_windows_of(head, video)
    if video.projection is not None:
        return _Windows(head, video, video.projection.starts, video.projection.length)
    if video.layers is None:
        raise VtgError(
            f"{video.name}: neither layers nor a projection by this head are stored; "
            "index it again with this model, or with --keep-layers for all heads"
        )
    grid = WindowGrid.of(head.config.window_seconds, head.config.step_seconds, video.fps)
    frames = len(video.layers)
    return _Windows(head, video, grid.starts(frames), min(grid.length, frames))


def _whole_windows_of(head: R2Head, video: VideoFeatures) -> _Windows:
    """Windows for the published evaluation; layers are preferred, as projections are quantised."""
    grid = WindowGrid.of(head.config.window_seconds, head.config.step_seconds, video.fps).for_whole(len(video))
    length, starts = grid.length, grid.starts(len(video))
    if video.layers is not None:
        return _Windows(head, replace(video, projection=None), starts, length)
    kept = video.projection
    if kept is None or (kept.length, kept.starts) != (length, starts):
        what = "embeddings are" if kept is None else f"a projection of {kept.length / video.fps:g} s windows is"
        raise VtgError(
            f"{video.name}: evaluation needs the whole video, and only {what} stored; index it again with --keep-layers"
        )
    return _Windows(head, video, starts, length)


@dataclass(frozen=True)
class _AttentionLookup:
    """Computes the attention map of a grounding on request."""

    windows: _Windows
    text: torch.Tensor

    def __call__(self, frame: int, layer: int | None, word: int | None) -> np.ndarray:
        return attention_map(self.windows.attention(self.text, frame).cpu().numpy(), layer, word)[0]


def _merge(head: R2Head, windows: np.ndarray, duration: float, max_moments: int) -> np.ndarray:
    """Merge the predictions of all windows of a video and post-process them by the head's configuration."""
    config = head.config
    ordered = windows[np.argsort(-windows[:, 2], kind="stable")]
    return postprocess_windows(
        ordered,
        duration,
        unit=config.unit,
        nms=config.nms,
        threshold=config.nms_threshold,
        sigma=config.nms_sigma,
        at_most=max_moments,
    )


def moments_of(windows: np.ndarray) -> list[Moment]:
    """Convert [N, 3] start, end, score to moments."""
    return [Moment(*window) for window in windows.tolist()]
