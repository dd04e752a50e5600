"""FFmpeg filters, as text for the ffmpeg binary and as nodes for ffmpeg-python and PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Filter", "filter_chain"]


@dataclass(frozen=True)
class Filter:
    """An FFmpeg filter with its options."""

    name: str
    options: tuple[tuple[str, str], ...]

    @property
    def arguments(self) -> str:
        """The options in the syntax of filter arguments, escaped."""
        return ":".join(f"{key}={_escaped(value, ':')}" for key, value in self.options)

    def applied(self, stream: Any) -> Any:
        """Apply this filter to an ffmpeg-python stream."""
        return stream.filter(self.name, **dict(self.options))


def filter_chain(filters: Sequence[Filter]) -> str:
    """Filters as the text of ffmpeg's `-vf` option."""
    return ",".join(f"{step.name}={_escaped(step.arguments, ',;[]')}" for step in filters)


def _escaped(text: str, signs: str) -> str:
    return "".join(f"\\{sign}" if sign in "\\'" + signs else sign for sign in text)
