"""Exports of results: keeps what visitors see, and gives it in the forms that editors and tables open."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vtg.errors import VtgError

if TYPE_CHECKING:
    from vtg.library.library import Hit

__all__ = ["FORMS", "Export", "KeptResults"]

FORMS = {".json": "application/json", ".csv": "text/csv", ".srt": "application/x-subrip"}
FORMS |= {".edl": "text/plain", ".otio": "application/json"}
KEPT = 64  # results: those that visitors looked at last
LONGEST_NAME = 60  # characters of a question in the name of a file


@dataclass(frozen=True)
class Export:
    """A file to download.

    Attributes:
        name: of the file.
        media_type: of its content.
        text: the content.
    """

    name: str
    media_type: str
    text: str


class KeptResults:
    """Results of searches, as long as somebody may want to export them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[str, tuple[Hit, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, title: str, hits: Sequence[Hit]) -> str:
        """Keep results, and give their name; the same ones have the same name.

        Args:
            title: what was asked, in words.
            hits: best first.
        """
        results = title, tuple(hits)
        name = hashlib.sha256(repr(results).encode()).hexdigest()[:32]
        with self._lock:
            self._kept[name] = results
            self._kept.move_to_end(name)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return name

    def export(self, name: str, form: str, shown: Callable[[str], str] = str) -> Export:
        """Results as a file; see `vtg.library.export.export_hits`.

        Args:
            name: what `keep` has given.
            form: one of `FORMS`.
            shown: how the path of a video is written in it.

        Raises:
            VtgError: there is no such form, or the results are not kept any more.
            VideoError: a video cannot be read any more, so that nobody knows its frames.
        """
        from vtg.library.export import EXPORTS

        if form not in FORMS:
            raise VtgError(f"results are exported as {', '.join(FORMS)}")
        with self._lock:
            kept = self._kept.get(name)
        if kept is None:
            raise VtgError("these results are not kept any more: reload the page, and export them again")
        title, hits = kept
        stem = re.sub(r"[^\w\-]+", " ", title)[:LONGEST_NAME].strip() or "moments"
        return Export(f"{stem}{form}", FORMS[form], EXPORTS[form](title, hits, shown))
