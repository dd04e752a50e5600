"""Tell files that are cut short, and files whose times are damaged: what they claim is held against their packets."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from vtg.errors import VideoError
from vtg.video.packets import PacketListing

__all__ = ["check_coded_rate", "check_shape", "check_times"]

MAX_ASPECT = 32  # of a picture's width to its height, or the other way round
TOLERATED_SHORTFALL = 1.0  # seconds by which a file may end before the duration it declares
TOLERATED_SHORTFALL_SHARE = 0.02  # the same as a share of that duration; the larger counts

# Containers that write their duration down; of the others FFmpeg only has an estimate, no promise to hold them to.
DECLARING = frozenset({"mov", "matroska", "avi", "flv", "asf"})
# Containers in which the time of a picture is its number times what the header says: nothing else bears it out.
COUNTING = frozenset({"avi"})

# A picture that is shown for longer than this has a damaged time: in any file; where the file declares that it ends
# earlier; and on average where pictures are only counted, or where a file lasts for more than a day.
MAX_STANDING = Fraction(24 * 3600)  # seconds
MAX_STANDING_BEYOND_END = Fraction(60)  # seconds
MAX_STANDING_COUNTED = Fraction(60)  # seconds


def check_times(
    path: Path,
    listing: PacketListing,
    kinds: frozenset[str],
    declared: Fraction | None,
    file_start: Fraction,
    rate: Fraction,
) -> None:
    """Refuse a file that is cut short, or whose times are damaged.

    Args:
        path: the file.
        listing: its packets, at least those near the end.
        kinds: FFmpeg's names for the kind of file.
        declared: seconds that the file declares to last; None where it declares nothing.
        file_start: seconds at which the file's own clock starts.
        rate: pictures a second on average.

    Raises:
        VideoError: it is.
    """
    if declared is not None and kinds & DECLARING:
        # Matroska declares when it ends, others how long it lasts: a file that starts late gets the better of the two.
        missing = float(declared - (listing.end - min(file_start, Fraction(0))))
        if missing > max(TOLERATED_SHORTFALL, TOLERATED_SHORTFALL_SHARE * float(declared)):
            raise VideoError(
                path,
                f"is cut short (it declares {float(declared):.1f} s, {missing:.1f} s are missing): "
                "copy or download it again",
            )
    last, lasting = listing.last or (0, 0)
    standing, since = max(listing.longest, (lasting, last))
    seconds = standing * listing.clock
    is_beyond = declared is not None and (since + standing) * listing.clock > declared + MAX_STANDING_BEYOND_END
    if seconds > MAX_STANDING or (seconds > MAX_STANDING_BEYOND_END and is_beyond):
        raise _damaged_times(path, seconds)
    # A few KB must not ask for days of work: slides that stand for minutes do not last for more than a day.
    is_endless = listing.end > MAX_STANDING
    if (kinds & COUNTING or is_endless) and 1 / rate > MAX_STANDING_COUNTED:
        raise _damaged_times(path, 1 / rate)


def check_coded_rate(path: str | os.PathLike[str], rate: Fraction | None) -> None:
    """Refuse a stream whose own header says that a picture is shown for days, as some FFmpegs would believe it.

    Raises:
        VideoError: it does.
    """
    if rate and 1 / rate > MAX_STANDING:
        raise _damaged_times(path, 1 / rate)


def check_shape(path: str | os.PathLike[str], width: Fraction, height: int) -> None:
    """Refuse pictures so narrow that resizing their short side would need memory without bounds.

    Args:
        path: the file.
        width: of its pictures as shown, in units of their height's pixels.
        height: pixels.

    Raises:
        VideoError: they are.
    """
    if not 1 / MAX_ASPECT <= width / height <= MAX_ASPECT:
        raise VideoError(
            path,
            f"is damaged (its pictures are {float(width):.0f}x{height}, and no film is more than {MAX_ASPECT} times as "
            "wide as high): copy or download it again",
        )


def _damaged_times(path: str | os.PathLike[str], standing: Fraction) -> VideoError:
    hours = float(standing) / 3600
    lasting = (
        f"{hours / 24:,.0f} days" if hours >= 48 else f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} min"
    )
    return VideoError(path, f"is damaged (it claims to show one picture for {lasting}): copy or download it again")
