"""FFmpeg filters, as text for the ffmpeg binary and as nodes for ffmpeg-python and PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.video.stream import VideoStream

__all__ = ["Filter", "filter_chain", "filter_graph"]


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


def filter_graph(stream: VideoStream, filters: Sequence[Filter]) -> Any:
    """A graph of FFmpeg filters that gives exactly the pixels of the ffmpeg binary."""
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1  # frames are small
    graph.link_nodes(
        graph.add_buffer(template=stream),
        *(graph.add(step.name, step.arguments) for step in filters),
        graph.add("buffersink"),
    ).configure()
    return graph


def _escaped(text: str, signs: str) -> str:
    return "".join(f"\\{sign}" if sign in "\\'" + signs else sign for sign in text)
