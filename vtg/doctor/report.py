"""The parts of a report: one `Check` a thing that was examined."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vtg.files.text import one_line

__all__ = ["ABSENT", "ERROR", "OK", "WARNING", "Check", "Report", "check_of_error"]

OK = "ok"
ABSENT = "absent"  # optional, and not there
WARNING = "warning"  # something does not work, or works worse
ERROR = "error"  # vtg cannot be used


@dataclass(frozen=True)
class Check:
    """One thing that was examined.

    Attributes:
        section: what it belongs to: "system", "packages", "engine" and so on.
        name: of the thing.
        state: "ok", "absent" (optional, and not there), "warning" (something does not work, or works worse) or "error"
            (vtg cannot be used).
        found: what was found, on one line.
        advice: what to do about it; empty where nothing is to be done.
    """

    section: str
    name: str
    state: str
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that was examined.

    Attributes:
        checks: in the order in which they are shown.
    """

    checks: tuple[Check, ...]

    @property
    def usable(self) -> bool:
        """Whether nothing was found that makes vtg unusable."""
        return all(check.state != ERROR for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON: usable, and checks with their fields."""
        return {"usable": self.usable, "checks": [asdict(check) for check in self.checks]}


def check_of_error(section: str, name: str, state: str, error: BaseException, advice: str = "") -> Check:
    """A check that failed, with the error in words.

    Args:
        section: of the check.
        name: of the thing that was examined.
        state: of the check.
        error: what was raised. A message of vtg ends with what to do, after its last semicolon.
        advice: what to do, where the message does not say it.
    """
    from vtg.errors import VtgError

    if isinstance(error, VtgError):
        found, _, way_out = one_line(str(error)).rpartition("; ")
        return Check(section, name, state, found or way_out, (way_out if found else "") or advice)
    reason = one_line(str(error))[:300]
    return Check(section, name, state, f"{type(error).__name__}: {reason}".rstrip(": "), advice)
