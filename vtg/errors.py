"""Errors that a user can cause: one line each, saying what is wrong, with which file, and what to do."""

from __future__ import annotations

__all__ = ["VideoError", "VtgError"]


class VtgError(Exception):
    """Something a user can mend; the command line prints the message as one line and exits with status 1."""


class VideoError(VtgError):
    """A file that cannot be read as a video.

    Args:
        path: the file.
        reason: why it cannot be read, in words that follow "path: ".
    """

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason
