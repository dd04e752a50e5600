"""Tokens that an earlier question made ready: knows whose are kept, and for how long."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vtg.r2.pooling import TokenPart
from vtg.r2.projection import VideoProjection

__all__ = ["KeptTokens", "ReadyTokens"]


@dataclass(frozen=True, eq=False)
class ReadyTokens:
    """All tokens of a projection, as queries look at them.

    Attributes:
        parts: in the order in which they are needed.
        class_tokens: [K, V·T, D].
    """

    parts: Sequence[TokenPart]
    class_tokens: Tensor

    @property
    def nbytes(self) -> int:
        """What they take in memory."""
        return self.class_tokens.nbytes + sum(part.tokens.nbytes for part in self.parts)


class KeptTokens:
    """Of the projections that were asked last, as long as somebody has them; who asks tends to ask again.

    Args:
        most: bytes in all.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._ready: weakref.WeakKeyDictionary[VideoProjection, ReadyTokens] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._ready)

    def get(self, projection: VideoProjection) -> ReadyTokens | None:
        """Those of a projection, which count as asked for just now; None if they are not kept."""
        with self._lock:
            ready = self._ready.pop(projection, None)
            if ready is not None:
                self._ready[projection] = ready
            return ready

    def put(self, projection: VideoProjection, ready: ReadyTokens) -> None:
        """Keeps those of a projection, instead of the ones that were not asked for longest."""
        with self._lock:
            self._ready[projection] = ready
            while sum(each.nbytes for each in self._ready.values()) > self._most:
                del self._ready[next(iter(self._ready))]  # the one that was put in first
