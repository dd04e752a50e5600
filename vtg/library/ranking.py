"""Choose the windows that a head grounds in, from the nearest frames of many videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vtg.features.store import VideoFeatures
from vtg.grounding.window_layout import WindowGrid, central_window
from vtg.library.rows import NearFrames

__all__ = ["Candidate", "choose_windows", "cut_window", "every_window"]


@dataclass(frozen=True)
class Candidate:
    """A video to ground a query in.

    Attributes:
        video: its content key.
        starts: first frames of the windows to ground in, ascending.
    """

    video: str
    starts: tuple[int, ...]


def every_window(frames: Mapping[str, int], grid: WindowGrid) -> list[Candidate]:
    """All windows of all videos.

    Args:
        frames: T of each video, by content key.
        grid: positions of the head's windows.
    """
    return [Candidate(video, tuple(grid.starts(count))) for video, count in frames.items()]


def choose_windows(
    near: NearFrames, frames: Mapping[str, int], fps: float, grid: WindowGrid, most: int, most_per_video: int
) -> list[Candidate]:
    """Choose the windows with the frames nearest to a query; each frame selects the window in which it is most central.

    Args:
        near: frames, nearest first.
        frames: T of each selected video, by content key.
        fps: frames a second.
        grid: positions of the head's windows.
        most: maximum number of windows.
        most_per_video: maximum number of windows of one video.

    Returns:
        The videos, in the order of their nearest frames.
    """
    chosen: dict[str, set[int]] = {}
    left = most
    for video, time in zip(near.videos, near.times, strict=True):
        if not left:
            break
        if video not in frames:
            continue
        starts = grid.starts(frames[video])
        frame = min(frames[video] - 1, round(float(time) * fps))
        start = starts[central_window(frame, starts, min(grid.length, frames[video]))]
        of_video = chosen.setdefault(video, set())
        if start not in of_video and len(of_video) < most_per_video:
            of_video.add(start)
            left -= 1
    return [Candidate(video, tuple(sorted(starts))) for video, starts in chosen.items() if starts]


def cut_window(video: VideoFeatures, start: int, length: int) -> VideoFeatures:
    """The features of one window of a video, as a video of its own; its times start at 0."""
    end = min(len(video), start + length)
    by_frame = (video.layers, video.embedding, video.thumbnails)
    layers, embedding, thumbnails = (None if array is None else array[start:end] for array in by_frame)
    projection = video.projection
    if projection is not None:
        own = slice(projection.starts.index(start), projection.starts.index(start) + 1)
        scale = None if projection.scale is None else projection.scale[own]
        projection = replace(projection, values=projection.values[own], scale=scale, frames=end - start, starts=[0])
    seconds = min(video.duration, end / video.fps) - start / video.fps
    return replace(
        video, duration=seconds, layers=layers, embedding=embedding, projection=projection, thumbnails=thumbnails
    )
