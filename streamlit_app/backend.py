"""The library, its model, cached results and worker threads, shared by all sessions of the page."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vtg.errors import VtgError
from vtg.library.library import Library
from vtg.library.tables import INDEXED, VideoEntry

from .examples import examples_or_none
from .exports import KeptResults
from .garbage_collection import freeze_loaded_objects
from .jobs import Worker
from .media_cache import MediaCache
from .options import Options
from .roots import Roots
from .search_query import SearchQuery
from .shown_paths import ShownPaths, may_know_paths
from .url_state import MAX_QUERY_CHARACTERS

if TYPE_CHECKING:
    from vtg.grounding.grounder import Grounding
    from vtg.library.library import Hit
    from vtg.summary import Plan

__all__ = ["FAILED", "LOADING", "NOTHING", "READY", "Backend", "Options", "Readiness", "current", "use"]

NOTHING, LOADING, READY, FAILED = "nothing", "loading", "ready", "failed"
MAX_CACHED_RESULTS = 256
DEFAULT_THRESHOLD = 0.05  # of scores, for models without a threshold of their own
LIST_CACHE_SECONDS = 1.0  # for the list of videos
EXAMPLE_COUNT = 6
GONE = "The library {} does not exist any more: put it back, or start the page with another one."
Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Readiness:
    """Whether queries can be answered.

    Attributes:
        state: nothing (no videos yet), loading, ready or failed.
        message: the error, or the current step.
    """

    state: str
    message: str = ""


class Backend:
    """One library for all sessions.

    Args:
        options: how the page was started.

    Raises:
        VtgError: the folder is not a library, or is one of another CLIP.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._paths_known = may_know_paths(options.host, options.allow_hosts)
        self.roots = Roots(options.roots, self._paths_known)
        # Part of every address of a file, so that other sites and programs cannot guess it.
        self.secret = secrets.token_urlsafe(24)
        self.upload_token = secrets.token_urlsafe(
            24
        )  # another one, so that the address of a video does not allow uploads
        self.worker = Worker("vtg-library")
        # Separate workers: a copy of a long video must not wait for indexing, nor a short reel for that copy.
        self.copies = Worker("vtg-copies")
        self.films = Worker("vtg-films")
        self.model_lock = threading.Lock()  # held while the model is loaded, so that one thread does
        self.results = KeptResults()
        self._list_lock = threading.Lock()
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()
        self._answers_lock = threading.Lock()
        # One query at a time: each uses all cores, so parallel queries would only delay each other.
        self._turn = threading.Lock()
        self.open(Library(options.folder, options.model, options.device, language=options.language))

    def open(self, library: Library) -> None:
        """Use a library from now on, in all sessions."""
        self.library = library
        self.made = MediaCache(library.folder / "previews")
        own = [("library", library.folder), ("library", library.folder.resolve())]
        self.shown = ShownPaths(self._paths_known, [*self.roots.named.items(), *own])
        self.examples: tuple[str, ...] = ()
        self._entries: tuple[float, list[VideoEntry]] | None = None
        self._seen = library.exists
        self.readiness = Readiness(NOTHING)
        self.warm_up()

    def warm_up(self) -> None:
        """Load the model in the background, so that the first query is as fast as later ones."""
        if self.readiness.state in (NOTHING, FAILED) and self.indexed():
            self.readiness = Readiness(LOADING, "Loading the model")
            threading.Thread(target=self._load, name="vtg-load", args=(self.library,), daemon=True).start()

    def _load(self, library: Library) -> None:
        examples: tuple[str, ...] = ()
        try:
            with self.model_lock:
                grounder = library.grounder
                grounder.encoder.encode_text("a warm-up")
            library.search("a warm-up", limit=1)
            import_module("altair")  # takes seconds, which would delay the first moment that is opened
            examples = examples_or_none(library, EXAMPLE_COUNT)
            freeze_loaded_objects()
        except VtgError as error:
            outcome = Readiness(FAILED, str(error))
        except Exception as error:
            log.exception("the model could not be loaded")
            outcome = Readiness(FAILED, f"the model could not be loaded: {error}")
        else:
            outcome = Readiness(READY)
        if library is self.library:
            self.examples, self.readiness = examples, outcome

    @property
    def is_deleted(self) -> bool:
        """Whether the library's folder existed and has been deleted or moved."""
        return self._seen and not self.library.exists

    def entries(self) -> list[VideoEntry]:
        """All files of the library, sorted by path; cached for a second."""
        with self._list_lock:
            now = time.monotonic()
            if self._entries is None or now - self._entries[0] > LIST_CACHE_SECONDS:
                try:
                    entries = self.library.videos()
                except Exception:
                    # A database that is deleted while it is read raises various errors.
                    if self.library.exists:
                        raise
                    entries = []
                self._seen = self._seen or self.library.exists
                self._entries = (now, entries)
            return self._entries[1]

    def refresh(self) -> None:
        """Discard the cached list of videos, after a change."""
        with self._list_lock:
            self._entries = None

    def indexed(self) -> list[VideoEntry]:
        """The files that can be searched, one per content key."""
        first: dict[str, VideoEntry] = {}
        for entry in self.entries():
            if entry.state == INDEXED and self.library.reads(entry):
                first.setdefault(entry.video, entry)
        return list(first.values())

    def entry(self, video: str) -> VideoEntry:
        """The entry of a content key.

        Raises:
            VtgError: the library has no such video.
        """
        for entry in self.indexed():
            if entry.video == video:
                return entry
        raise VtgError("this video is not in the library any more")

    def file(self, video: str) -> Path:
        """The path of a content key's file; it exists and is not a link that leaves the roots.

        Raises:
            VtgError: there is no such file.
        """
        path = Path(self.entry(video).path)
        if self.roots.escapes(path):
            raise VtgError(f"{path.name}: is a link to a file outside the folders that this page may read")
        if not path.is_file():
            raise VtgError(f"{path.name}: the file does not exist any more, so it cannot be played.")
        return path

    @property
    def default_threshold(self) -> float:
        """The default minimum score of a result, 0…1."""
        return self.library.threshold or DEFAULT_THRESHOLD

    def search(
        self,
        query: SearchQuery,
        limit: int,
        places: Sequence[str] = (),
        lengths: tuple[float, float | None] = (0.0, None),
    ) -> list[Hit]:
        """Find moments of any score; see `vtg.Library.search`.

        Args:
            query: the query.
            limit: maximum number of moments.
            places: paths of files or folders to search; empty for all.
            lengths: minimum and maximum length of the moments, seconds; maximum None for any.

        Raises:
            VtgError: nothing can be searched, or the query is empty or too long.
        """
        for text in (query.words, query.said):
            self.check_length(text)
        self._check_state()
        shortest, longest = lengths
        narrow = shortest > 0 or longest is not None

        def ask() -> list[Hit]:
            # The length of a moment is known only after the search.
            most = limit * 8 if narrow else limit
            with self._turn, query.question(self.library.folder) as question:
                found = self.library.search(question, most, videos=places or None)
            fitting = [hit for hit in found if shortest <= hit.moment.seconds <= (longest or 1e9)]
            return fitting[:limit]

        return self.cached(("search", query, limit, tuple(places), lengths), ask)

    @property
    def has_transcripts(self) -> bool:
        """Whether any video of the library has a transcript."""
        return bool(self.cached(("words",), lambda: self.library.describe()["said_lines"]))

    def ground(self, video: str, queries: Sequence[str]) -> list[Grounding]:
        """Saliency and moments of one video, one grounding per query.

        Raises:
            VtgError: the video is not in the library, or a query is empty or too long.
        """
        for query in queries:
            self._check_question(query)
        path = self.entry(video).path
        return self.cached(("ground", video, *queries), lambda: self.library.ground_many(path, queries))

    def with_search_scores(self, video: str, grounding: Grounding) -> Grounding:
        """Replace the scores of a grounding by those of a search, to which `default_threshold` and the cards refer.

        A head's scores rank the moments of one video; a search calibrates the best one across videos. The other scores
        are scaled by the same factor.

        Args:
            video: content key of its video.
            grounding: from `ground`.

        Raises:
            VtgError: the video is not in the library any more.
        """
        best = grounding.moments[0].score if grounding.moments else 0.0
        if not best:
            return grounding
        hits = self.search(SearchQuery(grounding.query), 1, [self.entry(video).path])
        share = (hits[0].moment.score if hits else 0.0) / best
        moments = [replace(moment, score=min(1.0, share * moment.score)) for moment in grounding.moments]
        return replace(grounding, moments=moments)

    def highlights(self, video: str, query: str | None, top: int, seconds: float) -> Plan:
        """The best clips of one video; see `vtg.summary.find_highlights`.

        Raises:
            VtgError: the video is not in the library, or the query is empty or too long.
        """
        from vtg.summary import find_highlights

        def plan() -> Plan:
            return find_highlights(self.library.grounder, self.library.open_features(path), query, top, seconds)

        path = self._checked(video, query)
        return self.cached(("highlights", video, query, top, seconds), plan)

    def summary(self, video: str, query: str | None, ratio: float) -> Plan:
        """A short version of one video; see `vtg.summary.summarize`.

        Raises:
            VtgError: the video is not in the library, or the query is empty or too long.
        """
        from vtg.summary import summarize

        def plan() -> Plan:
            return summarize(self.library.grounder, self.library.open_features(path), query, ratio=ratio)

        path = self._checked(video, query)
        return self.cached(("summary", video, query, ratio), plan)

    def _checked(self, video: str, query: str | None) -> str:
        if query is not None:
            self._check_question(query)
        return self.entry(video).path

    def _check_question(self, query: str) -> None:
        self.check_length(query)
        if not query.strip():
            raise VtgError("The query is empty: say what to look for.")
        self._check_state()

    def check_length(self, query: str) -> None:
        """Check the length of a query.

        Raises:
            VtgError: it is longer than `MAX_QUERY_CHARACTERS`.
        """
        if len(query) > MAX_QUERY_CHARACTERS:
            raise VtgError(
                f"This query has {len(query):,} characters, and the model reads about 50 words: "
                f"describe the moment in one sentence, of {MAX_QUERY_CHARACTERS} characters at most."
            )

    def _check_state(self) -> None:
        if self.is_deleted:
            raise VtgError(GONE.format(self.library.folder))
        if self.readiness.state == FAILED:
            raise VtgError(self.readiness.message)

    def cached(self, question: Hashable, ask: Callable[[], Answer]) -> Answer:
        """A result that is cached until the library changes.

        Args:
            question: cache key.
            ask: computes the result if it is not cached.

        Raises:
            VtgError: what `ask` raises, or the library has been deleted.
        """
        stamp = tuple((entry.path, entry.modified, entry.state) for entry in self.entries())
        key = (hash(stamp), self.library.model.name, question)
        with self._answers_lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                answer: Answer = self._answers[key]
                return answer
        try:
            answer = ask()
        except VtgError:
            raise
        except Exception as error:
            self.refresh()
            if self.is_deleted:
                raise VtgError(GONE.format(self.library.folder)) from error
            raise
        with self._answers_lock:
            self._answers[key] = answer
            while len(self._answers) > MAX_CACHED_RESULTS:
                self._answers.popitem(last=False)
        return answer

    def changed(self) -> None:
        """Refresh after videos were added or removed; may be called from any thread."""
        self.refresh()
        self.warm_up()

    def remove(self, paths: Iterable[str]) -> list[str]:
        """Remove files from the library; uploaded files are deleted as well.

        Returns:
            The paths that were removed.
        """
        forgotten = self.library.remove(paths)
        for path in map(Path, forgotten):
            if path.parent == self.uploads:
                path.unlink(missing_ok=True)
        self.refresh()
        return forgotten

    @property
    def uploads(self) -> Path:
        """The folder of uploaded files, inside the library's folder."""
        return self.library.folder.resolve() / "uploads"


_current: Backend | None = None


def use(backend: Backend) -> Backend:
    """Set the backend of this process."""
    global _current
    _current = backend
    return backend


def current() -> Backend:
    """The backend of this process.

    Raises:
        RuntimeError: none is set.
    """
    if _current is None:
        raise RuntimeError("the page is started with: vtg ui")
    return _current
