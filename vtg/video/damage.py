"""Detect truncated files and damaged timestamps, by comparing a file's header with its packets."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from vtg.errors import VideoError
from vtg.video.packets import PacketListing

__all__ = ["check_coded_rate", "check_shape", "check_times"]

MAX_ASPECT_RATIO = 32  # of a frame, wide or high
TOLERATED_SHORTFALL_SECONDS = 1.0  # by which a file may end before its declared duration
TOLERATED_SHORTFALL_SHARE = 0.02  # of the declared duration; the larger of the two counts

# Containers that store their duration; for others FFmpeg only has an estimate.
FORMATS_WITH_DURATION = frozenset({"mov", "matroska", "avi", "flv", "asf"})
# Containers without timestamps: the time of a frame is its number divided by the frame rate in the header.
FORMATS_WITHOUT_TIMESTAMPS = frozenset({"avi"})

# A frame that is shown for longer than this has a damaged timestamp: in any file; beyond the declared end of the file;
# and on average, where frames have no timestamps or the file lasts for more than a day.
MAX_FRAME_SECONDS = Fraction(24 * 3600)
MAX_FRAME_SECONDS_BEYOND_END = Fraction(60)
MAX_MEAN_FRAME_SECONDS = Fraction(60)


def check_times(
    path: Path,
    listing: PacketListing,
    kinds: frozenset[str],
    declared: Fraction | None,
    file_start: Fraction,
    rate: Fraction,
) -> None:
    """Check that a file is complete and its timestamps are plausible.

    Args:
        path: the file.
        listing: its packets, at least those near the end.
        kinds: FFmpeg's names for the container format.
        declared: duration in the header, seconds; None where there is none.
        file_start: timestamp of the earliest packet, seconds.
        rate: average frame rate, frames a second.

    Raises:
        VideoError: the file is cut short, or its timestamps are damaged.
    """
    if declared is not None and kinds & FORMATS_WITH_DURATION:
        # Matroska declares the end time, others the duration: the smaller shortfall counts for a file that starts late.
        missing = float(declared - (listing.end - min(file_start, Fraction(0))))
        if missing > max(TOLERATED_SHORTFALL_SECONDS, TOLERATED_SHORTFALL_SHARE * float(declared)):
            raise VideoError(
                path,
                f"is cut short (it declares {float(declared):.1f} s, {missing:.1f} s are missing): "
                "copy or download it again",
            )
    last, duration = listing.last or (0, 0)
    frame_ticks, since = max(listing.longest, (duration, last))
    seconds = frame_ticks * listing.clock
    is_beyond = declared is not None and (since + frame_ticks) * listing.clock > declared + MAX_FRAME_SECONDS_BEYOND_END
    if seconds > MAX_FRAME_SECONDS or (seconds > MAX_FRAME_SECONDS_BEYOND_END and is_beyond):
        raise _damaged_times(path, seconds)
    # A few KB must not cause days of work: slides that are shown for minutes do not last for more than a day.
    is_endless = listing.end > MAX_FRAME_SECONDS
    if (kinds & FORMATS_WITHOUT_TIMESTAMPS or is_endless) and 1 / rate > MAX_MEAN_FRAME_SECONDS:
        raise _damaged_times(path, 1 / rate)


def check_coded_rate(path: str | os.PathLike[str], rate: Fraction | None) -> None:
    """Check the frame rate in a stream's own header, which some versions of FFmpeg use.

    Raises:
        VideoError: it claims that a frame is shown for days.
    """
    if rate and 1 / rate > MAX_FRAME_SECONDS:
        raise _damaged_times(path, 1 / rate)


def check_shape(path: str | os.PathLike[str], width: Fraction, height: int) -> None:
    """Check the aspect ratio: resizing the short side of an extreme one would need unbounded memory.

    Args:
        path: the file.
        width: of its frames with square pixels.
        height: pixels.

    Raises:
        VideoError: a side is more than 32 times as long as the other.
    """
    if not 1 / MAX_ASPECT_RATIO <= width / height <= MAX_ASPECT_RATIO:
        raise VideoError(
            path,
            f"is damaged (its frames are {float(width):.0f}x{height}; the limit is {MAX_ASPECT_RATIO} times as wide as "
            "high, or as high as wide): copy or download it again",
        )


def _damaged_times(path: str | os.PathLike[str], frame_ticks: Fraction) -> VideoError:
    hours = float(frame_ticks) / 3600
    duration = (
        f"{hours / 24:,.0f} days" if hours >= 48 else f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} min"
    )
    return VideoError(path, f"is damaged (a timestamp shows one frame for {duration}): copy or download it again")
