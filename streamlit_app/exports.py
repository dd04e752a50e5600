"""Keep the results of recent searches and export them as JSON, CSV, SRT, EDL and OTIO."""

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
MAX_KEPT_RESULTS = 64  # most recent searches
MAX_NAME_CHARACTERS = 60  # characters of a query in a file name


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
    """The results of recent searches, for export."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[str, tuple[Hit, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, title: str, hits: Sequence[Hit]) -> str:
        """Keep results and return their id, which depends on their content only.

        Args:
            title: the query as text.
            hits: best first.
        """
        results = title, tuple(hits)
        name = hashlib.sha256(repr(results).encode()).hexdigest()[:32]
        with self._lock:
            self._kept[name] = results
            self._kept.move_to_end(name)
            while len(self._kept) > MAX_KEPT_RESULTS:
                self._kept.popitem(last=False)
        return name

    def export(self, name: str, form: str, shown: Callable[[str], str] = str) -> Export:
        """Results as a file; see `vtg.library.export.export_hits`.

        Args:
            name: from `keep`.
            form: one of `FORMS`.
            shown: converts the path of a video for display.

        Raises:
            VtgError: there is no such format, or the results are not kept any more.
            VideoError: a video cannot be read any more, so that its frame rate is unknown.
        """
        from vtg.library.export import EXPORTS

        if form not in FORMS:
            raise VtgError(f"results are exported as {', '.join(FORMS)}")
        with self._lock:
            kept = self._kept.get(name)
        if kept is None:
            raise VtgError("these results are not kept any more: reload the page, and export them again")
        title, hits = kept
        stem = re.sub(r"[^\w\-]+", " ", title)[:MAX_NAME_CHARACTERS].strip() or "moments"
        return Export(f"{stem}{form}", FORMS[form], EXPORTS[form](title, hits, shown))
