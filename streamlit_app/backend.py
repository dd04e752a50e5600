"""The library, its model and the worker threads that all visitors share."""

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

from .address import LONGEST_QUERY
from .asked import Asked
from .examples import examples_or_none
from .exports import KeptResults
from .garbage import set_aside
from .jobs import Worker
from .options import Options
from .roots import Roots
from .shown_paths import ShownPaths, may_know_paths
from .store import MadeFiles

if TYPE_CHECKING:
    from vtg.grounding.grounder import Grounding
    from vtg.library.library import Hit
    from vtg.summary import Plan

__all__ = ["FAILED", "LOADING", "NOTHING", "READY", "Backend", "Options", "Readiness", "current", "use"]

NOTHING, LOADING, READY, FAILED = "nothing", "loading", "ready", "failed"
REMEMBERED = 256  # answers kept: a reload, a filter or another visitor's same question costs nothing
FAINT = 0.05  # what scores less is next to nothing, where the model has no threshold of its own
FRESH_SECONDS = 1.0  # for which the list of videos is taken as it was read
EXAMPLES = 6
Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Readiness:
    """Whether questions can be answered.

    Attributes:
        state: nothing (no videos yet), loading, ready or failed.
        message: why it failed, or what is going on.
    """

    state: str
    message: str = ""


class Backend:
    """One library for all visitors.

    Args:
        options: how the page was started.

    Raises:
        VtgError: the folder is not a library, or is one of another CLIP.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._paths_known = may_know_paths(options.host, options.allow_hosts)
        self.roots = Roots(options.roots, self._paths_known)
        # In every address of a file: other sites and other programs cannot guess it.
        self.secret = secrets.token_urlsafe(24)
        self.upload_token = secrets.token_urlsafe(24)  # whoever is sent the address of a film may not add any
        self.worker = Worker("vtg-library")
        # A copy of a long film must not wait behind an indexing run, nor a short film of clips behind that copy.
        self.copies = Worker("vtg-copies")
        self.films = Worker("vtg-films")
        self.model_lock = threading.Lock()  # held while the model is loaded: no two threads do
        self.results = KeptResults()
        self._list_lock = threading.Lock()
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()
        self._answers_lock = threading.Lock()
        # Questions take turns: each has all cores for itself, and those asked at once would only hold each other up.
        self._turn = threading.Lock()
        self.open(Library(options.folder, options.model, options.device))

    def open(self, library: Library) -> None:
        """Look at a library from now on, all visitors."""
        self.library = library
        self.made = MadeFiles(library.folder / "previews")
        own = [("library", library.folder), ("library", library.folder.resolve())]
        self.shown = ShownPaths(self._paths_known, [*self.roots.named.items(), *own])
        self.examples: tuple[str, ...] = ()
        self._entries: tuple[float, list[VideoEntry]] | None = None
        self._seen = library.exists
        self.readiness = Readiness(NOTHING)
        self.warm_up()

    def warm_up(self) -> None:
        """Load the model in the background, so that the first question is as quick as the others."""
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
            import_module("altair")  # takes seconds, which the first to open a moment would wait
            examples = examples_or_none(library, EXAMPLES)
            set_aside()
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
    def gone(self) -> bool:
        """Whether the library was there and is not any more."""
        return self._seen and not self.library.exists

    def entries(self) -> list[VideoEntry]:
        """All files of the library, sorted by path; what was read less than a second ago is not read again."""
        with self._list_lock:
            now = time.monotonic()
            if self._entries is None or now - self._entries[0] > FRESH_SECONDS:
                try:
                    entries = self.library.videos()
                except Exception:
                    # A database that is deleted while it is read complains in ways of its own.
                    if self.library.exists:
                        raise
                    entries = []
                self._seen = self._seen or self.library.exists
                self._entries = (now, entries)
            return self._entries[1]

    def look_again(self) -> None:
        """Read the list of videos anew, after something has changed it."""
        with self._list_lock:
            self._entries = None

    def indexed(self) -> list[VideoEntry]:
        """The files that can be searched; of several with the same content the first."""
        first: dict[str, VideoEntry] = {}
        for entry in self.entries():
            if entry.state == INDEXED and self.library.reads(entry):
                first.setdefault(entry.video, entry)
        return list(first.values())

    def entry(self, video: str) -> VideoEntry:
        """The file of a content key.

        Raises:
            VtgError: the library has no such video.
        """
        for entry in self.indexed():
            if entry.video == video:
                return entry
        raise VtgError("this video is not in the library any more")

    def file(self, video: str) -> Path:
        """The file of a content key, which is there and, where it lies below a root, does not lead out of it.

        Raises:
            VtgError: it is not.
        """
        path = Path(self.entry(video).path)
        if self.roots.lead_out(path):
            raise VtgError(f"{path.name}: is a link that leads out of the folders which this page may read")
        if not path.is_file():
            raise VtgError(f"{path.name}: the file is not there any more, so it cannot be played.")
        return path

    @property
    def usual_score(self) -> float:
        """From which score on a moment counts as found, unless a visitor says otherwise; 0…1."""
        return self.library.threshold or FAINT

    def search(
        self,
        asked: Asked,
        limit: int,
        places: Sequence[str] = (),
        lengths: tuple[float, float | None] = (0.0, None),
    ) -> list[Hit]:
        """Find moments, however unlikely; see `vtg.Library.search`.

        Args:
            asked: what is looked for.
            limit: how many at most.
            places: paths of files or folders to search; none for all.
            lengths: of the moments, seconds: at least, and at most (None for any).

        Raises:
            VtgError: nothing can be searched, or what is asked for is empty or too long.
        """
        for text in (asked.words, asked.said):
            self.check_length(text)
        self._check_state()
        shortest, longest = lengths
        narrow = shortest > 0 or longest is not None

        def ask() -> list[Hit]:
            # Those of the wrong length are only known once they are found.
            most = limit * 8 if narrow else limit
            with self._turn, asked.question(self.library.folder) as question:
                found = self.library.search(question, most, videos=places or None)
            fitting = [hit for hit in found if shortest <= hit.moment.seconds <= (longest or 1e9)]
            return fitting[:limit]

        return self.remembered(("search", asked, limit, tuple(places), lengths), ask)

    @property
    def has_words(self) -> bool:
        """Whether anything is known of what is said in the library's videos."""
        return bool(self.remembered(("words",), lambda: self.library.describe()["said_lines"]))

    def ground(self, video: str, queries: Sequence[str]) -> list[Grounding]:
        """Curves and moments of one video, one answer a query.

        Raises:
            VtgError: the video is not in the library, or a query is empty or too long.
        """
        for query in queries:
            self._check_question(query)
        path = self.entry(video).path
        return self.remembered(("ground", video, *queries), lambda: self.library.ground_many(path, queries))

    def comparable(self, video: str, grounding: Grounding) -> Grounding:
        """A grounding whose moments have the scores of a search: those that `usual_score` and the cards are about.

        A head's scores say which moment of a video is likelier; how likely the video has what is asked for at all is
        known to a search, from the best moment. The others keep their share of it.

        Args:
            video: content key of its video.
            grounding: from `ground`.

        Raises:
            VtgError: the video is not in the library any more.
        """
        best = grounding.moments[0].score if grounding.moments else 0.0
        if not best:
            return grounding
        hits = self.search(Asked(grounding.query), 1, [self.entry(video).path])
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
        return self.remembered(("highlights", video, query, top, seconds), plan)

    def summary(self, video: str, query: str | None, ratio: float) -> Plan:
        """A short version of one video; see `vtg.summary.summarize`.

        Raises:
            VtgError: the video is not in the library, or the query is empty or too long.
        """
        from vtg.summary import summarize

        def plan() -> Plan:
            return summarize(self.library.grounder, self.library.open_features(path), query, ratio=ratio)

        path = self._checked(video, query)
        return self.remembered(("summary", video, query, ratio), plan)

    def _checked(self, video: str, query: str | None) -> str:
        if query is not None:
            self._check_question(query)
        return self.entry(video).path

    def _check_question(self, query: str) -> None:
        self.check_length(query)
        if not query.strip():
            raise VtgError("The question is empty: say what to look for.")
        self._check_state()

    def check_length(self, query: str) -> None:
        """Refuse a question that is longer than `LONGEST_QUERY`.

        Raises:
            VtgError: it is.
        """
        if len(query) > LONGEST_QUERY:
            raise VtgError(
                f"This question has {len(query):,} characters, and the model reads about 50 words: "
                f"describe the moment in one sentence, of {LONGEST_QUERY} characters at most."
            )

    def _check_state(self) -> None:
        if self.gone:
            raise VtgError(f"The library {self.library.folder} is not there any more.")
        if self.readiness.state == FAILED:
            raise VtgError(self.readiness.message)

    def remembered(self, question: Hashable, ask: Callable[[], Answer]) -> Answer:
        """An answer that stays the same as long as the library does.

        Args:
            question: names it.
            ask: finds it, where it is not known yet.

        Raises:
            VtgError: what `ask` raises, or the library is gone.
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
            self.look_again()
            if self.gone:
                raise VtgError(f"The library {self.library.folder} is not there any more.") from error
            raise
        with self._answers_lock:
            self._answers[key] = answer
            while len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        return answer

    def changed(self) -> None:
        """Take note that videos came or went, from whichever thread."""
        self.look_again()
        self.warm_up()

    def remove(self, paths: Iterable[str]) -> list[str]:
        """Forget files; those that were uploaded are deleted with it.

        Returns:
            The paths that were forgotten.
        """
        forgotten = self.library.remove(paths)
        for path in map(Path, forgotten):
            if path.parent == self.uploads:
                path.unlink(missing_ok=True)
        self.look_again()
        return forgotten

    @property
    def uploads(self) -> Path:
        """Where uploaded files are kept: inside the library, so that one folder is all there is."""
        return self.library.folder.resolve() / "uploads"


_current: Backend | None = None


def use(backend: Backend) -> Backend:
    """Make a backend the one that this process's pages show."""
    global _current
    _current = backend
    return backend


def current() -> Backend:
    """The backend of this process.

    Raises:
        RuntimeError: nobody has started one.
    """
    if _current is None:
        raise RuntimeError("the page is started with: vtg ui")
    return _current
