"""The page's parts without a browser: addresses, roots, jobs, made files, charts, examples, names of uploads."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from streamlit_app.charts import JUMP, clicked_time, curve_chart, stacked_chart
from streamlit_app.examples import rank_phrases
from streamlit_app.exports import KeptResults
from streamlit_app.jobs import CANCELLED, DONE, FAILED, Job, Worker
from streamlit_app.media_cache import MediaCache
from streamlit_app.names import safe_name
from streamlit_app.search_query import SearchQuery, read_picture
from streamlit_app.url_state import LIMITS, OpenMoment, SearchState, VideoState, read_search, read_video
from streamlit_app.views.parts import escape
from streamlit_app.views.video import moments_csv
from vtg.errors import VtgError
from vtg.grounding.grounder import Grounding, Moment, Saliency
from vtg.library.export import results_document
from vtg.library.library import Hit, Stretch
from vtg.progress import Progress

if TYPE_CHECKING:
    import altair as alt

TENTHS = st.integers(0, 10_000).map(lambda number: number / 10)
KEYS = st.text("0123456789abcdef", min_size=12, max_size=32)


def as_lists(params: dict[str, str | list[str]]) -> dict[str, list[str]]:
    return {name: value if isinstance(value, list) else [value] for name, value in params.items()}


@st.composite
def search_states(draw: st.DrawFn) -> SearchState:
    start = draw(TENTHS)
    moments = KEYS.map(lambda key: OpenMoment(key[:12], start, start + 0.5))
    opened = draw(st.none() | moments)
    return SearchState(
        query=draw(st.text(max_size=80)),
        said=draw(st.text(max_size=20)),
        like=draw(st.none() | moments),
        picture=draw(st.just("") | KEYS),
        places=tuple(draw(st.lists(st.text(min_size=1, max_size=20), max_size=3))),
        min_score=draw(st.none() | st.integers(0, 20).map(lambda number: number / 20)),
        limit=draw(st.sampled_from(LIMITS)),
        shortest=draw(TENTHS),
        longest=draw(TENTHS),
        grouped=draw(st.booleans()),
        why=draw(st.booleans()),
        open=opened,
        at=draw(st.none() | TENTHS) if opened else None,
    )


@given(search_states())
def test_a_search_is_what_its_address_says(state: SearchState) -> None:
    assert read_search(as_lists(state.to_params())) == state


NAMES = ["q", "said", "like", "picture", "in", "min", "from", "to", "n", "group", "why", "open", "t", "v", "ratio"]


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.text(max_size=30), min_size=1, max_size=3)))
def test_any_address_is_read_and_stays_as_it_is_read(params: dict[str, list[str]]) -> None:
    search, video = read_search(params), read_video(params)
    assert read_search(as_lists(search.to_params())) == search
    assert read_video(as_lists(video.to_params())) == video


def test_a_video_is_what_its_address_says() -> None:
    state = VideoState("0123456789ab", ("a dog", 'a cat & a "mouse"'), "summary", 30, 12.5)
    assert read_video(as_lists(state.to_params())) == state
    assert VideoState().to_params() == {}
    assert SearchState().to_params() == {}


class TestJobs:
    """Work in the background."""

    def wait(self, job: Job) -> Job:
        for _ in range(500):
            if not job.active:
                return job
            threading.Event().wait(0.01)
        raise AssertionError("the job did not end")

    def test_jobs_are_done_in_order_and_keep_their_results(self) -> None:
        worker, order = Worker("test"), []
        jobs = [worker.submit("count", str(n), lambda job, n=n: order.append(n) or n * n) for n in range(5)]
        assert [self.wait(job).result for job in jobs] == [0, 1, 4, 9, 16]
        assert order == [0, 1, 2, 3, 4]
        assert [job.state for job in worker.jobs("count")] == [DONE] * 5
        worker.dismiss(jobs[0])
        assert worker.find(jobs[0].number) is None
        assert worker.find(jobs[1].number) is jobs[1]

    def test_a_running_and_a_waiting_job_can_be_cancelled(self) -> None:
        worker, begun = Worker("test"), threading.Event()

        def work(job: Job) -> None:
            begun.set()
            while True:
                job.report(Progress("half", 0.5))
                threading.Event().wait(0.005)

        running, waiting = worker.submit("a", "runs", work), worker.submit("a", "waits", work)
        assert begun.wait(5)
        waiting.cancel()
        running.cancel()
        assert self.wait(running).state == CANCELLED
        assert self.wait(waiting).state == CANCELLED
        assert running.share == 0.5
        assert waiting.share == 0.0

    def test_a_job_that_fails_says_why_and_the_next_is_done(self) -> None:
        def fail(error: Exception) -> Job:
            def work(_: Job) -> None:
                raise error

            return self.wait(worker.submit("a", "fails", work))

        worker = Worker("test")
        assert fail(VtgError("film.mp4: is damaged")).error == "film.mp4: is damaged"
        assert "No space" in fail(OSError(28, "No space left on device", "/x")).error
        assert fail(RuntimeError("secret detail")).state == FAILED
        assert "secret" not in fail(RuntimeError("secret detail")).error
        assert self.wait(worker.submit("a", "works", lambda job: 7)).result == 7


class TestMadeFiles:
    """Files that can be made again."""

    @pytest.fixture
    def made(self, tmp_path: Path) -> MediaCache:
        (tmp_path / "library").mkdir()
        return MediaCache(tmp_path / "library" / "previews", limit=1000)

    def test_a_file_is_made_once_by_many_at_once(self, made: MediaCache) -> None:
        calls: list[Path] = []

        def make(path: Path) -> None:
            calls.append(path)
            threading.Event().wait(0.05)
            path.write_bytes(b"x")

        found: list[Path] = []
        threads = [threading.Thread(target=lambda: found.append(made.get(".jpg", "a", 1, make=make))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(calls) == 1
        assert set(found) == {calls[0]}
        assert made.find(".jpg", "a", 1) == calls[0]
        assert made.find(".jpg", "a", 2) is None

    def test_those_not_asked_for_longest_go(self, made: MediaCache) -> None:
        paths = [made.get(".bin", n, make=lambda path: path.write_bytes(bytes(300))) for n in range(3)]
        for age, path in enumerate(paths):
            os.utime(path, (1000 + age, 1000 + age))
        assert made.find(".bin", 0) == paths[0]  # which makes it the newest
        last = made.get(".bin", 3, make=lambda path: path.write_bytes(bytes(300)))
        assert [path.exists() for path in (*paths, last)] == [True, False, True, True]

    def test_nothing_is_written_where_the_library_is_gone(self, made: MediaCache) -> None:
        made.folder.parent.rmdir()
        with pytest.raises(VtgError, match="not exist any more"):
            made.get(".bin", 1, make=lambda path: path.write_bytes(b"x"))
        assert not made.folder.parent.exists()

    def test_what_cannot_be_made_can_be_tried_again(self, made: MediaCache) -> None:
        def fail(path: Path) -> None:
            raise VtgError("no")

        with pytest.raises(VtgError, match="no"):
            made.get(".bin", 1, make=fail)
        assert made.get(".bin", 1, make=lambda path: path.write_bytes(b"x")).read_bytes() == b"x"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("holiday.mp4", "holiday.mp4"),
        ("../../etc/cron.d/x.mp4", "x.mp4"),
        ("C:\\films\\x.MKV", "x.mkv"),
        ("a<b>:c?.webm", "a_b_c_.webm"),
        ("con.mp4", "_con.mp4"),
        (".mp4", None),
        ("...mp4", None),
        ("x\x00\u202ey.mp4", "x_y.mp4"),
        ("é🐶.mov", "é🐶.mov"),
        ("notes.txt", None),
        ("", None),
    ],
)
def test_names_of_uploads_stay_names(name: str, kept: str | None) -> None:
    if kept is None:
        with pytest.raises(VtgError, match="not named like a video"):
            safe_name(name)
    else:
        assert safe_name(name) == kept
    assert len(safe_name("x" * 500 + ".mp4")) <= 120


def grounding(query: str, scores: np.ndarray) -> Grounding:
    times = np.arange(len(scores)) * 2.0
    return Grounding(query, "v.mp4", 2.0 * len(scores), [Moment(4, 8, 0.9), Moment(10, 12, 0)], Saliency(times, scores))


def test_a_click_on_a_chart_is_a_time() -> None:
    assert clicked_time({"selection": {JUMP: [{"time": 12}]}}) == 12.0
    for nothing in (None, {}, {"selection": {}}, {"selection": {JUMP: []}}, {"selection": {JUMP: [{"x": 1}]}}):
        assert clicked_time(nothing) is None
    for chart in (
        curve_chart(grounding("a", np.linspace(0, 1, 9)), 0.5, "#f00"),
        stacked_chart([grounding("a", np.ones(9))], 0.5),
    ):
        assert JUMP in {param["name"] for param in chart.to_dict()["params"]}


def marks(chart: alt.LayerChart, kind: str) -> list[dict[str, Any]]:
    """The rows that the layers of one kind of mark draw."""
    return [
        row for layer in chart.to_dict()["layer"] if layer["mark"]["type"] == kind for row in layer["data"]["values"]
    ]


def test_charts_show_moments_and_any_scale_of_saliency() -> None:
    curves = [grounding("a dog", np.linspace(-3, 5, 9)), grounding("<b>cat</b>", np.linspace(0, 1, 9))]
    chart = stacked_chart(curves, 0.6)
    assert [(row["time"], row["end"]) for row in marks(chart, "rect")] == [(4, 8)] * 2
    for query, base in (("a dog", 1.0), ("<b>cat</b>", 0.0)):
        heights = [row["score"] - base for row in marks(chart, "area") if row["query"] == query]
        assert min(heights) == pytest.approx(0)
        assert max(heights) == pytest.approx(0.86 * 0.9)  # the score of the best moment
    rules = [row["threshold"] for row in marks(chart, "rule") if "threshold" in row]
    assert rules == [pytest.approx(1 + 0.86 * 0.6), pytest.approx(0.86 * 0.6)]


@pytest.mark.parametrize(
    ("saliency", "score", "heights"),
    [
        ([-0.5, 0.0, 0.05, 0.1], 0.9, [0, 0, 0.45, 0.9]),
        ([0.07, 0.08, 0.075, 0.08], 0.9, [0.7875, 0.9, 0.84375, 0.9]),  # all of it answers
        ([-0.001, 0.0, 0.001, 0.002], 0.001, [0, 0, 0.0005, 0.001]),  # nothing answers, and looks like it
        ([-0.4, -0.3, -0.2, -0.1], 0.2, [0, 0, 0, 0]),
        ([0.1, 0.2, 0.4, 0.8], None, [0.1, 0.2, 0.4, 0.8]),  # a highlight-only head
    ],
)
def test_a_curve_begins_at_0_and_is_as_high_as_the_score(
    saliency: list[float], score: float | None, heights: list[float]
) -> None:
    moments = [] if score is None else [Moment(0, 4, score)]
    found = Grounding("a", "v.mp4", 8.0, moments, Saliency(np.arange(4) * 2.0, np.array(saliency)))
    chart = curve_chart(found, 0.75, "#f00")
    assert [row["score"] for row in marks(chart, "area")] == [
        pytest.approx(height) for height in [*heights, heights[-1]]
    ]
    (area,) = (layer for layer in chart.to_dict()["layer"] if layer["mark"]["type"] == "area")
    assert area["encoding"]["y"]["scale"]["domain"] == [0, 1]
    rules = [row["threshold"] for row in marks(chart, "rule") if "threshold" in row]
    assert rules == ([] if score is None else [0.75])
    assert ("found ≥ 0.75" in area["encoding"]["y"]["axis"]["labelExpr"]) == (score is not None)


def test_a_long_curve_is_thinned_and_keeps_its_peaks() -> None:
    scores = np.zeros(20_000)
    scores[12_345] = 1.0
    area = marks(curve_chart(grounding("a", scores), 0.5, "#f00"), "area")
    assert len(area) <= 1501
    assert max(row["score"] for row in area) == 0.9
    assert area[-1]["time"] == 40_000


def test_examples_are_what_some_frame_shows_clearly() -> None:
    # Three phrases and one for nothing in particular: the first is clear in both videos, the second in the second one.
    first = np.array([[9.0, 0, 0, 1], [1, 0, 0, 5]])
    second = np.array([[8.0, 1, 0, 1], [0, 6, 0, 1], [2, 0, 2, 6]])
    assert rank_phrases([first, second], 3) == [0, 1]


def test_moments_are_a_table_without_formulas() -> None:
    text = moments_csv([grounding("=HYPERLINK(1)", np.ones(9)), grounding('a "dog", running', np.ones(9))])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0] == {"query": "'=HYPERLINK(1)", "start": "4.00", "end": "8.00", "score": "0.9000"}
    assert rows[2]["query"] == 'a "dog", running'


def encoded(kind: str, side: int = 8) -> str:
    file = io.BytesIO()
    Image.new("RGB", (side, 8), "red").save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def test_a_picture_is_known_by_its_content_and_asked_for_as_a_file(tmp_path: Path) -> None:
    picture = read_picture("C:\\lake\u202e <b>.png", encoded("PNG"))
    assert picture == read_picture("other.png", encoded("PNG"))
    assert picture != read_picture("lake.png", encoded("PNG", 9))
    asked = SearchQuery("snow", like=Stretch(Path("/films/a.mp4"), 60, 70), picture=picture)
    assert asked.sentence is None
    assert str(asked) == "snow + lake_ _b_.png + a.mp4@01:00-01:10"
    with asked.question(tmp_path) as question:
        (path,) = (part.what for part in question.parts if isinstance(part.what, Path))
        assert path.read_bytes() == picture.content
        assert path.is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no base64!", "not a picture"),
        (base64.b64encode(b"no picture").decode(), "not a picture"),
        (encoded("GIF"), "not a picture"),
        ("A" * 2_100_000, "too large"),
        (encoded("PNG", 5000), "5000×8 pixels"),
    ],
)
def test_what_is_no_small_picture_is_refused(content: str, reason: str) -> None:
    with pytest.raises(VtgError, match=f"notes.txt: .*{reason}"):
        read_picture("../notes.txt", content)


def test_results_are_exported_as_long_as_they_are_kept() -> None:
    results = KeptResults()
    hits = [Hit("/films/a.mp4", Moment(1, 2, 0.5), 1.0)]
    name = results.keep('a "dog" / <b>', hits)
    assert results.keep('a "dog" / <b>', list(hits)) == name
    export = results.export(name, ".json")
    assert export.name == "a dog b.json"
    assert json.loads(export.text) == results_document('a "dog" / <b>', hits)
    with pytest.raises(VtgError, match="exported as"):
        results.export(name, ".exe")
    for number in range(100):
        results.keep(str(number), hits)
    with pytest.raises(VtgError, match="not kept any more"):
        results.export(name, ".csv")


def test_text_is_shown_as_it_is() -> None:
    assert escape("![x](http://e) <b> $a$ :red[b]\nc") == (
        "\\!\\[x\\]\\(http\\:\\/\\/e\\) ".replace("\\/", "/") + "\\<b\\> \\$a\\$ \\:red\\[b\\] c"
    )
