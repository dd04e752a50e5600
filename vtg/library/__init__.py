"""Index, synchronize and search many videos; `Library` is the public class.

In: folders of videos, then queries. Out: `Hit`s, best first.

Read `library` first. Adding files: `indexing`, `stored_features`, `settings`, `reports`. The database: `database`,
`tables`, `rows`, `video_list`. Synchronization with the disk: `upkeep`, `watching`. Searching: `query`, `searching`,
`ranking`, `stored_videos`, `hits`. `export` writes results for editors and tables; `named_files` decides which weights
that a library refers to may be loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names

if TYPE_CHECKING:
    from vtg.library.hits import Hit
    from vtg.library.library import Library
    from vtg.library.query import Part, Question, Stretch
    from vtg.library.reports import IndexReport

__all__ = [
    "Hit",
    "IndexReport",
    "Library",
    "Part",
    "Question",
    "Stretch",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Hit": "hits",
        "IndexReport": "reports",
        "Library": "library",
        "Part": "query",
        "Question": "query",
        "Stretch": "query",
    },
)
