"""Predict windows and saliency for many queries and projected windows, with the compiled engine or PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vtg.r2.decoding import HeadOutput, decode
from vtg.r2.engine import CompiledEngine
from vtg.r2.head import R2Head, pad_queries
from vtg.r2.projection import VideoProjection

__all__ = ["Predictor", "WindowPredictions"]

MAX_ROWS = 4096  # frames × queries in a batch: limits memory
MAX_QUERY_TOKENS = 96  # in a batch of the compiled engine, so that their attended tokens stay in the cache


@dataclass(frozen=True, eq=False)
class WindowPredictions:
    """Predictions for N queries in V windows, before post-processing.

    Attributes:
        windows: [V, N, moments, 3] float32: start s, end s (from the beginning of the window), score 0…1; best first;
            None for a highlight-only head.
        saliency: [V, N, T] float32.
    """

    windows: Tensor | None
    saliency: Tensor


class Predictor:
    """Predicts windows and saliency from projections.

    Computes the same function as `R2Head.predict`, up to the rounding of int8 projections, and of bfloat16 products in
    the compiled engine for AVX-512.

    Args:
        head: in eval mode, on any device; the compiled engine copies its current weights.
    """

    def __init__(self, head: R2Head) -> None:
        self._head = head
        self._engine = CompiledEngine(head) if CompiledEngine.supports(head.config, head.level_scale) else None

    def predict(
        self, projections: Sequence[VideoProjection], queries: Sequence[Tensor], fps: float
    ) -> list[WindowPredictions]:
        """Predict for every query in every window of several projections; windows of equal length are batched.

        Args:
            projections: of this head.
            queries: N × [L, K, Cq], of any lengths; at least one.
            fps: of all their frames, per second.

        Returns:
            One item for each projection.

        Raises:
            VtgError: features of another CLIP.
        """
        for query in queries:
            self._head.check_query(query)
        max_queries = len(queries) if self._engine is None else max(1, MAX_QUERY_TOKENS // max(map(len, queries)))
        results = [self._empty(projection, len(queries)) for projection in projections]
        with torch.inference_mode():
            for windows, part in _batches(projections, len(queries), max_queries):
                chosen = [(projections[number], window) for number, window in windows]
                found, saliency = decode(self._outputs(chosen, queries[part]), self._head.config, fps)
                for row, (number, window) in enumerate(windows):
                    rows = slice(row * (part.stop - part.start), (row + 1) * (part.stop - part.start))
                    results[number].saliency[window, part] = saliency[rows]
                    if found is not None:
                        results[number].windows[window, part] = found[rows]  # type: ignore[index]
        return results

    def _outputs(self, windows: Sequence[tuple[VideoProjection, int]], queries: Sequence[Tensor]) -> HeadOutput:
        """The outputs of the head for equally long windows and all queries."""
        padded, mask = pad_queries(queries, self._head.device)
        if self._engine is not None and windows[0][0].scale is not None:
            return self._engine.answer(windows, padded, [len(query) for query in queries])
        batch = _concatenate(windows).to(self._head.device)
        return self._head.answer(batch, padded[None], None if mask is None else mask[None])

    def _empty(self, projection: VideoProjection, queries: int) -> WindowPredictions:
        config, like = self._head.config, self._head.level_scale
        saliency = like.new_empty(len(projection), queries, projection.frames, dtype=torch.float32)
        if not config.moment_retrieval:
            return WindowPredictions(None, saliency)
        points = sum(projection.frames // stride for stride in config.strides)
        moments = min(points, config.max_windows)
        return WindowPredictions(saliency.new_empty(len(projection), queries, moments, 3), saliency)


def _batches(
    projections: Sequence[VideoProjection], queries: int, max_queries: int
) -> Iterator[tuple[list[tuple[int, int]], slice]]:
    """Batches of (projection, window) indices of equal shape, each with a slice of at most `max_queries` queries."""
    by_shape: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for number, projection in enumerate(projections):
        shape = (*projection.values.shape[1:], projection.values.dtype)
        by_shape.setdefault(shape, []).extend((number, window) for window in range(len(projection)))
    for windows in by_shape.values():
        pairs = max(1, MAX_ROWS // projections[windows[0][0]].frames)
        some_queries = min(queries, pairs, max_queries)
        some_windows = pairs // some_queries
        for first in range(0, len(windows), some_windows):
            for begin in range(0, queries, some_queries):
                yield windows[first : first + some_windows], slice(begin, min(begin + some_queries, queries))


def _concatenate(windows: Sequence[tuple[VideoProjection, int]]) -> VideoProjection:
    """Join windows of several projections; no copy is made for windows of one projection."""
    projection, first = windows[0]
    if all(other is projection for other, _ in windows):  # consecutive, as from `_batches`
        return projection[first : first + len(windows)]
    parts = [projection[window : window + 1] for projection, window in windows]
    scales = [part.scale for part in parts if part.scale is not None]
    return VideoProjection(torch.cat([part.values for part in parts]), torch.cat(scales) if scales else None)
