"""The half of the R² head that depends on the query, made quick: many queries on many projected windows at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from vtg.r2.compiled import CompiledHead, is_compiled_for
from vtg.r2.head import R2Head
from vtg.r2.pooling import LookingWords, Pooling, TokenPart
from vtg.r2.projection import VideoProjection
from vtg.r2.readout import Readout
from vtg.r2.refinement import AttendedWords, Refinement
from vtg.r2.threads import Ahead, run_in_threads

__all__ = ["Answers", "MappedQueries", "QueryPass"]

# Frames times queries refined together by one thread: enough for quick products, little enough for its cache.
ROWS = 768
COMPILED_ROWS = 8192  # refined together by all threads, whose kernels cut them smaller: bounds the memory
# Frames that are pooled in one go: threads that change hands often wait for each other.
MOST_FRAMES = 144


@dataclass(frozen=True, eq=False)
class Answers:
    """What N queries find in V windows, before post-processing.

    Attributes:
        windows: [V, N, moments, 3] float32: start s, end s (from the beginning of the window), score 0…1; best first;
            None for a highlight-only head.
        saliency: [V, N, T] float32.
    """

    windows: Tensor | None
    saliency: Tensor


class MappedQueries:
    """N queries, and the work on them that no video changes: each part of it is done when it is first asked for.

    Args:
        layers: N × [L, K, Cq].
        head: into whose space they are mapped.
        pool: its pooling.
        refine: its refinement.
    """

    def __init__(self, layers: Sequence[Tensor], head: R2Head, pool: Pooling, refine: Refinement) -> None:
        self.layers = layers
        self._parts = head, pool, refine

    @cached_property
    def _mapped(self) -> tuple[Tensor, Tensor | None]:
        """[K, N, L, D], and which words are real, [N, L]; None if all are."""
        head = self._parts[0]
        padded = nn.utils.rnn.pad_sequence(list(self.layers), batch_first=True).to(head.level_scale)
        lengths = [len(query) for query in self.layers]
        mask = None
        if min(lengths) < max(lengths):
            mask = (torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]).to(padded.device)
        return head.block.query_map(padded.permute(2, 0, 1, 3)), mask

    @cached_property
    def words(self) -> LookingWords:
        """As they look at tokens."""
        return self._parts[1].look(*self._mapped)

    @cached_property
    def attended(self) -> AttendedWords:
        """As frames attend to them."""
        return self._parts[2].attended(*self._mapped)

    @cached_property
    def pooled(self) -> Tensor:
        """[N, D] each query as one feature."""
        words, mask = self._mapped
        pooled: Tensor = self._parts[0].pooling(words[0], mask)
        return pooled

    def complete(self) -> MappedQueries:
        """These, with nothing left to be worked out: for several threads at once."""
        _ = self.words, self.attended, self.pooled
        return self

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, queries: slice) -> MappedQueries:
        if queries == slice(0, len(self)):
            return self
        part = MappedQueries(self.layers[queries], *self._parts)
        part.words, part.attended, part.pooled = self.words[queries], self.attended[queries], self.pooled[queries]
        return part


@dataclass(frozen=True)
class _Piece:
    """What one thread answers in one go.

    Attributes:
        windows: of equal length: number of a projection, and which of its windows.
        queries: which.
    """

    windows: tuple[tuple[int, int], ...]
    queries: slice

    def keep(self, windows: Tensor | None, saliency: Tensor, answers: Sequence[Answers]) -> None:
        """Puts what was found, as `Readout` gives it, where it belongs in the answers of all projections."""
        for row, (number, window) in enumerate(self.windows):
            own = answers[number]
            own.saliency[window, self.queries] = saliency[:, row]
            if windows is not None and own.windows is not None:
                own.windows[window, self.queries] = windows[:, row]


class QueryPass:
    """Asks queries of projected windows with the weights of a head as they are now.

    The same function as `R2Head.predict`, in fewer and larger products: keys folded into the query's side, one product
    for what shares an input, positions and biases added once. Differences are those of rounding. Where the kernels are
    compiled for, int8 projections are read by them, with products of bfloat16: they round less than those did.

    Args:
        head: in eval mode, on any device.
    """

    def __init__(self, head: R2Head) -> None:
        self._head = head
        self._like = head.level_scale.detach()
        with torch.no_grad():
            gate = head.block.gate
            self._gate = [] if gate is None else gate.sigmoid().tolist()
            self._pool = Pooling(head.block)
            self._refine = Refinement(head)
            self._read = Readout(head)
            self._compiled = None
            if is_compiled_for(head.config, self._like):
                self._compiled = CompiledHead(head, self._pool, self._refine, self._read)

    def map_queries(self, queries: Sequence[Tensor]) -> MappedQueries:
        """Queries as they are asked of several videos, one after the other.

        Args:
            queries: N × [L, K, Cq], of any lengths; at least one.
        """
        return MappedQueries(queries, self._head, self._pool, self._refine)

    def answer(self, projection: VideoProjection, queries: MappedQueries, fps: float) -> Answers:
        """Asks every query of every window.

        Args:
            projection: V windows of this head's.
            queries: N of them.
            fps: of the windows' frames.
        """
        return self._answer_each([projection], queries, fps)[0]

    def ask_each(self, projections: Sequence[VideoProjection], queries: Sequence[Tensor], fps: float) -> list[Answers]:
        """Asks every query of every window of several projections; windows of one length are asked together.

        Args:
            projections: of this head's.
            queries: N × [L, K, Cq], of any lengths; at least one.
            fps: of all their frames.
        """
        return self._answer_each(projections, self.map_queries(queries), fps)

    def _answer_each(self, projections: Sequence[VideoProjection], queries: MappedQueries, fps: float) -> list[Answers]:
        answers = [self._empty(projection, len(queries)) for projection in projections]
        wide = []
        with torch.inference_mode():  # nothing but the answers leaves: small operators take a tenth less
            for alike in _alike(projections):
                if self._compiled is None or projections[alike[0][0]].scale is None:
                    wide += _pieces(alike, len(queries), projections, ROWS, self._threads())
                    continue
                for piece in _pieces(alike, len(queries), projections, COMPILED_ROWS, 1):
                    asked = [(projections[number], window) for number, window in piece.windows]
                    found = self._compiled(asked, queries.layers[piece.queries], self._threads())
                    piece.keep(*self._read.decode(found.taps, found.state, found.pooled, fps), answers)
            self._answer_wide(wide, projections, queries, fps, answers)
        return answers

    def _answer_wide(
        self,
        pieces: Sequence[_Piece],
        projections: Sequence[VideoProjection],
        queries: MappedQueries,
        fps: float,
        answers: Sequence[Answers],
    ) -> None:
        """Answers pieces with torch alone, in the head's dtype."""
        threads = self._threads()
        # Fewer pieces than threads: other threads pool for the one that refines.
        ahead = threads if len(pieces) < threads else 1
        if len(pieces) > 1:
            run_in_threads(lambda _: queries.complete(), [None], threads)

        def run(piece: _Piece) -> None:
            asked = [projections[number][window : window + 1] for number, window in piece.windows]
            piece.keep(*self._answer(asked, queries[piece.queries], fps, ahead), answers)

        if pieces:
            run_in_threads(run, pieces, threads)

    def _threads(self) -> int:
        return torch.get_num_threads() if self._like.device.type == "cpu" else 1

    def _empty(self, projection: VideoProjection, queries: int) -> Answers:
        kept = self._read.moments(projection.frames)
        moments = self._like.new_empty(len(projection), queries, kept, 3) if kept else None
        return Answers(moments, self._like.new_empty(len(projection), queries, projection.frames))

    def _answer(
        self, projections: Sequence[VideoProjection], queries: MappedQueries, fps: float, threads: int
    ) -> tuple[Tensor | None, Tensor]:
        """What queries find in windows of one length and type, as `Readout` gives it."""
        windows, frames, config = sum(map(len, projections)), projections[0].frames, self._head.config
        parts, words = _parts(projections), queries.words
        entering = self._like.new_empty(config.layers, len(queries), windows * frames, config.hidden_width)

        def pool(place: int) -> None:
            part = parts[place]
            self._pool(part, words, entering[part.layer][:, part.frames])

        # No layer's pooling waits for another: the thread that refines one finds the next one pooled. What need not be
        # done beside another thread is done here: two that call many small operators at once wait for each other.
        pooled = Ahead(pool, range(len(parts)), threads)
        attended, pooled_query = queries.attended, queries.pooled  # worked out here while others pool
        state: Tensor | None = None
        for layer in reversed(range(config.layers)):
            for place, part in enumerate(parts):
                if part.layer == layer:
                    pooled.take(place)
            own = entering[layer].unflatten(1, (windows, frames))
            if state is not None and self._gate:
                own = torch.lerp(state, own, self._gate[layer])
            state = self._refine(own, attended, layer)  # [N, V, T, D]
        assert state is not None  # there is at least one layer
        return self._read(state.relu_(), pooled_query, fps)


def _parts(projections: Sequence[VideoProjection]) -> list[TokenPart]:
    """All tokens of windows in parts, in the order in which they are needed."""
    parts = []
    for layer in reversed(range(projections[0].values.shape[1])):
        first = 0
        for projection in projections:
            tokens = projection.values[:, layer].flatten(0, 1)
            scale = None if projection.scale is None else projection.scale[:, layer].flatten(0, 1)
            for own in _shares(len(tokens)):
                place = slice(first + own.start, first + own.stop)
                parts.append(TokenPart(layer, place, tokens[own], None if scale is None else scale[own]))
            first += len(tokens)
    return parts


def _shares(count: int) -> list[slice]:
    """Frames in equal shares."""
    each = -(-count // -(-count // MOST_FRAMES))
    return [slice(first, min(first + each, count)) for first in range(0, count, each)]


def _alike(projections: Sequence[VideoProjection]) -> list[list[tuple[int, int]]]:
    """All windows (the number of a projection, and which of its windows), those of one shape and type together."""
    alike: dict[tuple[int, int, bool], list[tuple[int, int]]] = {}
    for number, projection in enumerate(projections):
        kind = projection.frames, projection.values.shape[3], projection.scale is None
        alike.setdefault(kind, []).extend((number, window) for window in range(len(projection)))
    return list(alike.values())


def _pieces(
    windows: Sequence[tuple[int, int]], queries: int, projections: Sequence[VideoProjection], rows: int, fewest: int
) -> list[_Piece]:
    """Windows of one length × N queries in pieces of about so many rows each, and enough of them."""
    pairs = min(max(1, rows // projections[windows[0][0]].frames), -(-queries * len(windows) // fewest))
    of_queries = min(queries, pairs)
    of_windows = max(1, pairs // of_queries)
    return [
        _Piece(tuple(windows[first : first + of_windows]), slice(begin, min(begin + of_queries, queries)))
        for first in range(0, len(windows), of_windows)
        for begin in range(0, queries, of_queries)
    ]
