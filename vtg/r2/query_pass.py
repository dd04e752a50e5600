"""The half of the R² head that depends on the query, made quick: many queries on many projected windows at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor, nn

from vtg.r2.head import R2Head
from vtg.r2.kept import KeptTokens, ReadyTokens
from vtg.r2.pooling import LookingWords, Pooling, TokenPart
from vtg.r2.projection import VideoProjection
from vtg.r2.readout import Readout
from vtg.r2.refinement import AttendedWords, Refinement
from vtg.r2.threads import Ahead, run_in_threads

__all__ = ["Answers", "MappedQueries", "QueryPass"]

# Frames times queries refined together by one thread: enough for quick products, little enough for its cache.
ROWS = 768
# Frames whose tokens are made ready and pooled in one go: threads that change hands often wait for each other, and what
# leaves the cache in between has to be fetched again.
MOST_FRAMES = 144
READY_AHEAD = 3  # parts whose tokens are made ready while queries are mapped: it takes about as long
KEPT_BYTES = 64 << 20  # of tokens made ready: eight videos of the usual 150 s


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
    """N queries in the block's space: all of the work on them that no video changes.

    Tokens can be looked at before the rest is worked out, which waits until it is asked for.

    Args:
        words: as they look at tokens.
        attend: gives them as frames attend to them.
        pool: gives [N, D], each query as one feature.
    """

    def __init__(self, words: LookingWords, attend: Callable[[], AttendedWords], pool: Callable[[], Tensor]) -> None:
        self.words = words
        self._attend = attend
        self._pool = pool

    @cached_property
    def attended(self) -> AttendedWords:
        """As frames attend to them."""
        return self._attend()

    @cached_property
    def pooled(self) -> Tensor:
        """[N, D] the query as one feature."""
        return self._pool()

    def complete(self) -> MappedQueries:
        """These, with nothing left to be worked out: for several threads at once."""
        _ = self.attended, self.pooled
        return self

    def __len__(self) -> int:
        return self.words.keys.shape[1]

    def __getitem__(self, queries: slice) -> MappedQueries:
        return MappedQueries(self.words[queries], lambda: self.attended[queries], lambda: self.pooled[queries])


@dataclass(frozen=True)
class _Piece:
    """What one thread answers in one go.

    Attributes:
        windows: of equal length: number of a projection, and which of its windows.
        queries: which.
    """

    windows: tuple[tuple[int, int], ...]
    queries: slice


class QueryPass:
    """Asks queries of projected windows with the weights of a head as they are now.

    The same function as `R2Head.predict`, in fewer and larger products: keys folded into the query's side, one product
    for what shares an input, positions and biases added once. Differences are those of rounding; where the processor
    multiplies matrices of bfloat16, int8 projections are read that way: it rounds less than they did.

    Args:
        head: in eval mode, on any device.
    """

    def __init__(self, head: R2Head) -> None:
        self._config = head.config
        self._like = head.level_scale.detach()
        self._block = head.block
        self._query_pooling = head.pooling
        with torch.no_grad():
            gate = head.block.gate
            self._gate = [] if gate is None else gate.sigmoid().tolist()
            compact = self._like.device.type == "cpu" and self._like.dtype == torch.float32 and _has_tiles()
            self._pool = Pooling(head.block, compact)
            self._kept = KeptTokens(KEPT_BYTES)
            self._wide = self._compact = Refinement(head, self._like.dtype), Readout(head, self._like.dtype)
            if compact:
                self._compact = Refinement(head, torch.bfloat16), Readout(head, torch.bfloat16)

    def map_queries(self, queries: Sequence[Tensor]) -> MappedQueries:
        """Brings queries into the block's space.

        Args:
            queries: N × [L, K, Cq], of any lengths; at least one.
        """
        # In one thread: its products are too small to be split.
        return run_in_threads(lambda asked: self._map(asked).complete(), [queries], self._threads())[0]

    def _map(self, queries: Sequence[Tensor]) -> MappedQueries:
        padded = nn.utils.rnn.pad_sequence(list(queries), batch_first=True).to(self._like)
        lengths = [len(query) for query in queries]
        mask = None
        if min(lengths) < max(lengths):
            mask = (torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]).to(self._like.device)
        words: Tensor = self._block.query_map(padded.permute(2, 0, 1, 3))  # [K, N, L, D]
        return MappedQueries(
            self._pool.look(words, mask),
            lambda: self._wide[0].attended(words, mask),
            lambda: self._query_pooling(words[0], mask),
        )

    def answer(self, projection: VideoProjection, queries: MappedQueries, fps: float) -> Answers:
        """Asks every query of every window.

        Args:
            projection: V windows of this head's.
            queries: N of them.
            fps: of the windows' frames.
        """
        return self._answer_each([projection], len(queries), lambda: queries, fps)[0]

    def ask_each(self, projections: Sequence[VideoProjection], queries: Sequence[Tensor], fps: float) -> list[Answers]:
        """Maps queries and asks them of every window of several projections; windows of one length are asked together.

        Args:
            projections: of this head's.
            queries: N × [L, K, Cq], of any lengths; at least one.
            fps: of all their frames.
        """
        return self._answer_each(projections, len(queries), lambda: self._map(queries), fps)

    def _answer_each(
        self, projections: Sequence[VideoProjection], count: int, queries: Callable[[], MappedQueries], fps: float
    ) -> list[Answers]:
        answers = [self._empty(projection, count) for projection in projections]
        threads = self._threads()
        pieces = _pieces(projections, count, threads)
        # Fewer pieces than threads: other threads pool for the one that refines.
        ahead = threads if len(pieces) < threads else 1

        def run(piece: _Piece) -> None:
            whole = _only(projections, piece.windows)
            found = self._answer(
                _gathered(projections, piece.windows) if whole is None else whole,
                queries,
                piece.queries,
                fps,
                ahead,
                keep=whole is not None and 0 < self._pool.ready_bytes(whole) <= KEPT_BYTES,
            )
            for row, (number, window) in enumerate(piece.windows):
                answers[number].saliency[window, piece.queries] = found.saliency[row]
                if found.windows is not None:
                    answers[number].windows[window, piece.queries] = found.windows[row]  # type: ignore[index]

        with torch.inference_mode():  # nothing but the answers leaves: small operators take a tenth less
            if len(pieces) > 1:
                mapped = run_in_threads(lambda _: queries().complete(), [None], threads)[0]
                queries = lambda: mapped  # noqa: E731 - a function of two lines would say no more
            run_in_threads(run, pieces, threads)
        return answers

    def _threads(self) -> int:
        return torch.get_num_threads() if self._like.device.type == "cpu" else 1

    def _empty(self, projection: VideoProjection, queries: int) -> Answers:
        kept = self._wide[1].moments(projection.frames)
        moments = self._like.new_empty(len(projection), queries, kept, 3) if kept else None
        return Answers(moments, self._like.new_empty(len(projection), queries, projection.frames))

    def _answer(
        self,
        projection: VideoProjection,
        queries: Callable[[], MappedQueries],
        chosen: slice,
        fps: float,
        threads: int,
        *,
        keep: bool,
    ) -> Answers:
        kept = self._kept.get(projection) if keep else None
        parts = _parts(projection, self._pool.scales(projection)) if kept is None else kept.parts
        # Tokens are made ready while the queries are mapped. No layer's pooling waits for another: the thread that
        # refines one finds the next one pooled. All that need not be done beside another thread is done here: two that
        # call many small operators at once wait for each other at every one.
        tokens = Ahead(self._pool.ready, parts[:READY_AHEAD] if kept is None else [], threads)
        class_tokens = self._pool.class_tokens(projection) if kept is None else kept.class_tokens
        ready: dict[int, TokenPart] = {}  # those that are kept: of long videos, each part makes room for the next
        windows, layers, frames = projection.values.shape[:3]
        mapped = queries()[chosen]
        compact = projection.scale is not None
        words = [self._pool.of_layer(mapped.words, layer, compact) for layer in range(layers)]

        def pool(place: int) -> Tensor:
            part = parts[place]
            if kept is None:
                part = tokens.take(place) if place < READY_AHEAD else self._pool.ready(part)
            if keep:
                ready[place] = part
            return self._pool(part, words[part.layer])

        pooled = Ahead(pool, range(len(parts)), threads)
        attended, pooled_query = mapped.attended, mapped.pooled  # worked out here while others pool
        refine, read = self._compact if compact else self._wide
        state: Tensor | None = None
        for layer in reversed(range(layers)):
            strongest = [pooled.take(place) for place, part in enumerate(parts) if part.layer == layer]
            entering = self._pool.entering(class_tokens[layer], strongest, layer).view(
                -1, windows, frames, self._config.hidden_width
            )
            if state is not None and self._gate:
                entering = torch.lerp(state, entering, self._gate[layer])
            state = refine(entering, attended, layer)  # [N, V, T, D]
        assert state is not None  # there is at least one layer
        if keep and kept is None:
            self._kept.put(projection, ReadyTokens([ready[place] for place in range(len(parts))], class_tokens))
        found, saliency = read(state.relu_(), pooled_query, fps)
        return Answers(None if found is None else found.transpose(0, 1), saliency.transpose(0, 1))


def _only(projections: Sequence[VideoProjection], windows: Sequence[tuple[int, int]]) -> VideoProjection | None:
    """The projection that windows are all of; None if there is no such one."""
    first = projections[windows[0][0]]
    return first if len(windows) == len(first) and windows[-1][0] == windows[0][0] else None


def _parts(projection: VideoProjection, scale: Tensor | None) -> list[TokenPart]:
    """All tokens in parts, in the order in which they are needed."""
    count, layers, frames = projection.values.shape[:3]
    together = projection.values[:, 0].is_contiguous()  # a layer's windows lie next to each other in memory, or none
    of_windows = [slice(0, count)] if together else [slice(one, one + 1) for one in range(count)]
    shares = _shares(frames * (count if together else 1))
    parts = []
    for layer in reversed(range(layers)):
        for own in of_windows:
            tokens = projection.values[own, layer].flatten(0, 1)[None]
            factors = None if scale is None else scale[own, layer].flatten(0, 1)[None]
            parts += [
                TokenPart(layer, tokens[:, share], None if factors is None else factors[:, share]) for share in shares
            ]
    return parts


def _shares(count: int) -> list[slice]:
    """Frames in equal shares."""
    each = -(-count // -(-count // MOST_FRAMES))
    return [slice(first, min(first + each, count)) for first in range(0, count, each)]


def _has_tiles() -> bool:
    """Whether the processor has tiles for matrices of bfloat16; without, they are no quicker than float32."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)  # torch has no public way to ask
    return bool(supported and supported())


def _pieces(projections: Sequence[VideoProjection], queries: int, threads: int) -> list[_Piece]:
    """All windows × N queries in pieces of about `ROWS` rows each, and enough of them for every thread."""
    total = queries * sum(len(projection) for projection in projections)
    alike: dict[tuple[int, bool], list[tuple[int, int]]] = {}
    for number, projection in enumerate(projections):
        kind = projection.frames, projection.scale is None
        alike.setdefault(kind, []).extend((number, window) for window in range(len(projection)))
    pieces = []
    for (frames, _), windows in alike.items():
        pairs = min(max(1, ROWS // frames), -(-total // threads))
        of_queries = min(queries, pairs)
        of_windows = max(1, pairs // of_queries)
        pieces += [
            _Piece(tuple(windows[first : first + of_windows]), slice(begin, min(begin + of_queries, queries)))
            for first in range(0, len(windows), of_windows)
            for begin in range(0, queries, of_queries)
        ]
    return pieces


def _gathered(projections: Sequence[VideoProjection], windows: Sequence[tuple[int, int]]) -> VideoProjection:
    """Some windows as one projection; those that follow each other in one stay where they are."""
    runs = [
        (number, [window for _, window in run]) for number, run in groupby(windows, key=lambda one: one[0])
    ]  # ascending, as `_pieces` makes them
    parts = [projections[number][own[0] : own[-1] + 1] for number, own in runs]
    return parts[0] if len(parts) == 1 else VideoProjection.joined(parts)
