"""The pages' logic, run by Streamlit's own test bench: what is asked, shown, kept in the address, and refused."""

from __future__ import annotations

import base64
import gc
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import streamlit_app
from streamlit_app import backend as backend_module
from streamlit_app import components
from streamlit_app.backend import READY, Backend, Options
from streamlit_app.exports import FORMS
from streamlit_app.search_query import read_picture
from streamlit_app.views.toolbar import place_names
from vtg.library.library import Library, Part, Question, Stretch
from vtg.models.calibration import Calibration
from vtg.models.specs import model_spec

APP = str(Path(streamlit_app.__file__).with_name("app.py"))
PATIENCE = 60  # seconds


def wait_for(ready: Callable[[], bool]) -> None:
    for _ in range(PATIENCE * 50):
        if ready():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen")


@pytest.fixture(autouse=True)
def main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the program back what Streamlit puts a page in the place of: processes of later tests would run the page."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(autouse=True)
def components_of_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the components at each run of a page: older versions of Streamlit have a runtime for each in tests."""
    monkeypatch.setattr(components, "_component", components._component.__wrapped__)


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path, tiny_head: Path, make_video: Callable[..., Path]
) -> Path:
    """A folder with two films, a file that is none, and a library of them that an R² head is asked on."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "films").mkdir()
    make_video(folder / "films" / "a.mp4", seconds=12, seed=1)
    make_video(folder / "films" / "b <b>*x*.mp4", seconds=8, seed=2)
    (folder / "films" / "broken.mp4").write_text("no film")
    Library(folder / "library", model_spec(tiny_head, pretrained=tiny_clip), device="cpu").add([folder / "films"])
    return folder


@pytest.fixture
def backend(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """A backend on that library, ready."""
    monkeypatch.setattr(backend_module, "_current", None)
    made = backend_module.use(Backend(Options(home / "library", (home / "films",), device="cpu")))
    wait_for(lambda: made.readiness.state == READY)
    yield made
    wait_for(lambda: not made.worker.busy)


def run(page: str = "search", **params: str | list[str]) -> AppTest:
    """A page at an address."""
    if page == "search":
        app = AppTest.from_file(APP, default_timeout=PATIENCE)
    else:
        app = AppTest.from_string(f"from streamlit_app.views import {page}\n{page}.show()", default_timeout=PATIENCE)
    for name, value in params.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, app.exception
    return app


def param(app: AppTest, name: str) -> str:
    """What the address says; older test benches give a list of all values."""
    value = app.query_params[name]
    return value if isinstance(value, str) else value[-1]


def component(app: AppTest, name: str) -> dict[str, Any] | None:
    """What one of our own parts is told; None where it is not on the page."""
    for element in app.get("bidi_component"):
        if element.proto.component_name == f"vtg_{name}":
            told: dict[str, Any] = json.loads(element.proto.json)
            return told
    return None


def cards(app: AppTest) -> list[dict[str, Any]]:
    told = component(app, "cards")
    return [card for group in told["groups"] for card in group["cards"]] if told else []


def test_a_question_gives_the_library_s_moments_as_cards(backend: Backend) -> None:
    app = run()
    assert component(app, "questions")["examples"] == list(backend.examples)  # type: ignore[index]
    assert cards(app) == []
    app.text_input(key="search.query").set_value("a red circle").run()
    app.slider(key="search.min").set_value(0.0).run()
    assert not app.exception
    expected = backend.library.search("a red circle", limit=12)
    assert [(card["name"], card["score"]) for card in cards(app)] == [
        (Path(hit.video).name, pytest.approx(hit.moment.score)) for hit in expected
    ]
    assert param(app, "q") == "a red circle"
    assert param(app, "min") == "0"


def test_an_address_opens_its_moment(backend: Backend) -> None:
    entry = backend.indexed()[0]
    opened = f"{entry.video[:12]}_2_6"
    app = run(q="a red circle", min="0", open=opened, t="4", group="1", n="24")
    film = component(app, "player")
    assert film is not None
    assert (film["start"], film["end"], film["duration"]) == (2, 6, pytest.approx(entry.duration))
    assert film["jump"]["to"] == 4
    assert film["src"].endswith(f"/video/{entry.video}")
    told = component(app, "cards")
    assert told is not None
    assert told["open"] == opened
    assert {group["title"] for group in told["groups"]} == {"a.mp4", "b <b>*x*.mp4"}
    assert app.select_slider(key="search.limit").value == 24
    assert app.get("vega_lite_chart") or app.get("arrow_vega_lite_chart")


def test_filters_narrow_the_answer(backend: Backend) -> None:
    everything = cards(run(q="a red circle", min="0", n="96"))
    one = backend.indexed()[0]
    inside = cards(run(q="a red circle", min="0", n="96", **{"in": one.video[:12]}))
    assert {card["name"] for card in inside} == {Path(one.path).name}
    assert len({card["name"] for card in everything}) == 2
    short = cards(run(q="a red circle", min="0", n="96", to="4"))
    lengths = [[float(part) for part in card["id"].split("_")[1:]] for card in short]
    assert short
    assert all(end - start <= 4 for start, end in lengths)


def test_more_like_a_moment_is_looked_for(backend: Backend) -> None:
    entry = backend.indexed()[0]
    app = run(like=f"{entry.video[:12]}@2-6")
    expected = backend.library.search(Question((Part(Stretch(Path(entry.path), 2, 6)),)), 12)
    assert [card["score"] for card in cards(app)] == [pytest.approx(hit.moment.score) for hit in expected]
    assert expected
    told = component(app, "query_inputs")
    assert told is not None
    assert told["like"]["label"] == f"{Path(entry.path).name} 00:02–00:06"
    assert "/poster/" in told["like"]["poster"]
    app = run(like="000000000000@2-6")
    assert "not in the library any more" in app.error[0].value


def test_a_moment_that_others_are_like_has_no_curve_of_a_sentence(backend: Backend) -> None:
    entry = backend.indexed()[0]
    app = run(q="a dog", like=f"{entry.video[:12]}@2-6", open=f"{entry.video[:12]}_2_6", why="1")
    assert component(app, "player")
    assert not app.get("vega_lite_chart")
    assert not app.get("arrow_vega_lite_chart")
    assert all("/poster/" in card["poster"] for card in cards(app))


def test_a_picture_that_the_address_cannot_hold_is_asked_of_the_browser(backend: Backend) -> None:
    app = run(picture="0123456789abcdef", min="0")
    assert cards(app) == []
    assert component(app, "query_inputs")["picture"] == "0123456789abcdef"  # type: ignore[index]
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "JPEG")
    picture = read_picture("lake.jpg", base64.b64encode(file.getvalue()).decode())
    app = AppTest.from_file(APP, default_timeout=PATIENCE)
    app.session_state["search.pictures"] = {picture.digest: picture}
    app.query_params["picture"] = picture.digest
    app.run()
    assert not app.exception
    assert cards(app)
    assert not list(backend.library.folder.glob(".picture-*"))


def test_what_nobody_says_is_told_so(backend: Backend) -> None:
    app = run(said="lake")
    assert cards(app) == []
    assert any("have no subtitles" in element.value for element in app.markdown)
    assert app.text_input(key="search.said").value == "lake"


def test_nothing_likely_enough_is_said_with_the_nearest_as_a_choice(backend: Backend) -> None:
    backend.library.calibration = Calibration(threshold=1.0)
    app = run(q="a red circle")
    assert cards(app) == []
    assert app.slider(key="search.min").value == 1.0
    assert any("Nothing found" in element.value for element in app.markdown)
    app.button(key="search.nearest").click().run()
    assert not app.exception
    assert len(cards(app)) == len(backend.library.search("a red circle", 12))
    assert param(app, "min") == "0"
    app.slider(key="search.min").set_value(1.0).run()
    assert "min" not in app.query_params
    # What is known of scores is about sentences.
    app.query_params["like"] = f"{backend.indexed()[0].video[:12]}@2-6"
    app.run()
    assert app.slider(key="search.min").value == 0.0
    assert cards(app)


def test_results_can_be_exported_in_every_form(backend: Backend) -> None:
    app = run(q="a red circle", min="0")
    urls = [button.proto.url for button in app.get("link_button")]
    assert [url.rsplit("/", 1)[1] for url in urls] == ["json", "csv", "srt", "edl", "otio"]
    name = urls[0].split("/")[-2]
    found = json.loads(backend.results.export(name, ".json").text)["results"]
    assert [result["score"] for result in found] == [pytest.approx(card["score"]) for card in cards(app)]


def test_why_shows_the_attention_in_place_of_the_posters(backend: Backend) -> None:
    assert all("/poster/" in card["poster"] for card in cards(run(q="a red circle", min="0")))
    assert all("/why/" in card["poster"] for card in cards(run(q="a red circle", min="0", why="1")))


def test_without_a_head_there_is_no_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "_current", None)
    backend = backend_module.use(Backend(Options(home / "library", model="zero-shot", device="cpu")))
    wait_for(lambda: backend.readiness.state == READY)
    app = run(q="a red circle", min="0", why="1")
    assert app.toggle(key="search.why").disabled
    assert all("/poster/" in card["poster"] for card in cards(app))


def test_a_question_that_is_too_long_is_refused_and_the_page_goes_on(backend: Backend) -> None:
    app = run()
    app.text_input(key="search.query").set_value("x" * 5000).run()
    assert "5,000 characters" in app.error[0].value.replace("\\", "")
    assert "q" not in app.query_params
    app.text_input(key="search.query").set_value("a red circle").run()
    assert not app.error
    assert param(app, "q") == "a red circle"


def test_a_moment_that_is_not_there_is_told_so_and_withholds_nothing(backend: Backend) -> None:
    entry, expected = backend.indexed()[0], cards(run(q="a red circle", min="0"))
    for parameters, reason in (
        ({"open": "000000000000_1_2"}, "not in the library any more"),
        ({"open": f"{entry.video[:12]}_500_600"}, "starts after the end of a.mp4"),
        ({"like": "000000000000@1-2"}, "not in the library any more"),
        ({"like": f"{entry.video[:12]}@500-600"}, "starts after the end of a.mp4"),
    ):
        app = run(q="a red circle", min="0.0001", **parameters)
        assert reason in app.error[0].value.replace("\\", "")
        assert cards(app) == expected


def test_the_curve_has_the_scores_of_the_cards(backend: Backend) -> None:
    entry = backend.indexed()[0]
    backend.library.calibration = Calibration(score=0.5, bias=-1.0, threshold=0.4)
    del backend.library.searcher  # which has the calibration of before
    (grounding,) = backend.ground(entry.video, ["a green ring"])
    found = backend.with_search_scores(entry.video, grounding)
    (hit,) = backend.library.search("a green ring", 1, videos=[entry.path])
    assert found.moments[0].score == pytest.approx(hit.moment.score)
    assert found.moments[0].score != pytest.approx(grounding.moments[0].score)
    shares = [moment.score / grounding.moments[0].score for moment in grounding.moments]
    assert [moment.score / found.moments[0].score for moment in found.moments] == pytest.approx(shares)


def test_one_video_has_curves_highlights_and_a_summary(backend: Backend) -> None:
    video = backend.indexed()[0].video[:12]
    app = run("video", v=video, q=["a red circle", "a dog"])
    assert app.get("vega_lite_chart") or app.get("arrow_vega_lite_chart")
    app = run("video", v=video, q="a red circle", part="highlights")
    plan = backend.highlights(backend.indexed()[0].video, "a red circle", 6, 8.0)
    assert [card["id"] for card in cards(app)] == [f"{clip.start:.3f}" for clip in plan.clips]
    app = run("video", v=video, part="summary", ratio="50")
    assert app.slider(key="video.ratio").value == 50
    plan = backend.summary(backend.indexed()[0].video, None, 0.5)
    assert [card["id"] for card in cards(app)] == [f"{clip.start:.3f}" for clip in plan.clips]
    app.slider(key="video.ratio").set_value(25).run()
    assert not app.exception
    assert param(app, "ratio") == "25"


def test_the_library_lists_what_is_in_it_and_what_failed(backend: Backend) -> None:
    app = run("library")
    assert [metric.value for metric in app.metric][:2] == ["2", "00:20"]
    table = app.dataframe[0].value
    assert sorted(table["Name"]) == ["a.mp4", "b <b>*x*.mp4", "broken.mp4"]
    text = " ".join(element.value for element in app.markdown)
    assert "Could not be indexed: 1" in text
    assert "is not a video that can be read" in text


def test_a_folder_below_a_root_is_added_in_the_background(
    backend: Backend, home: Path, make_video: Callable[..., Path]
) -> None:
    more = home / "films" / "more"
    more.mkdir()
    make_video(more / "c.mp4", seconds=4, seed=5)
    app = run("library")
    app.selectbox(key="library.folder").set_value(str(more.resolve()))
    app.button(key="library.add").click().run()
    wait_for(lambda: not backend.worker.busy)
    app.run()
    assert any("1 added" in caption.value for caption in app.caption)
    assert app.metric[0].value == "3"
    backend.remove([str(more)])
    shutil.rmtree(more)


def test_models_says_what_is_used_and_what_can_be_had(backend: Backend) -> None:
    app = run("models")
    assert any("tiny" in metric.value for metric in app.metric)
    assert "r2-qvhighlights" in set(app.dataframe[0].value["Model"])


def test_what_is_loaded_is_not_looked_through_for_garbage_after_each_run(backend: Backend) -> None:
    assert gc.get_freeze_count() > 10 * len(gc.get_objects())


def test_with_nothing_indexed_the_first_steps_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "_current", None)
    backend = backend_module.use(Backend(Options(tmp_path / "library", model="demo", device="cpu")))
    started: list[Backend] = []
    monkeypatch.setattr("streamlit_app.views.library.start_demo", started.append)
    app = run()
    app.button(key="demo").click().run()
    assert started == [backend]
    assert not (tmp_path / "library").exists()


def test_a_library_that_was_deleted_is_told_so(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(home / "library", tmp_path / "library")
    monkeypatch.setattr(backend_module, "_current", None)
    backend = backend_module.use(Backend(Options(tmp_path / "library", device="cpu")))
    wait_for(lambda: backend.readiness.state == READY)
    app = run(q="a red circle", min="0")
    assert cards(app)
    shutil.rmtree(tmp_path / "library")
    backend.refresh()
    app.text_input(key="search.query").set_value("something else").run()
    assert not app.exception
    assert any("not exist any more" in element.value for element in app.markdown)
    assert not (tmp_path / "library").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="where names are bytes")
def test_names_that_are_not_utf8_are_shown(
    tmp_path: Path, tiny_clip: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9") / os.fsdecode(b"film \xe9.mp4")
    odd.parent.mkdir()
    make_video(tmp_path / "a.mp4", seconds=8).rename(odd)
    (odd.parent / os.fsdecode(b"\xff.mp4")).write_text("no film")
    make_video(tmp_path / "a.mp4", seconds=8, seed=1)
    spec = model_spec("zero-shot", None, str(tiny_clip), None)
    Library(tmp_path / "library", spec, device="cpu").add([odd.parent, tmp_path / "a.mp4"])
    monkeypatch.setattr(backend_module, "_current", None)
    made = backend_module.use(Backend(Options(tmp_path / "library", (tmp_path,), device="cpu")))
    wait_for(lambda: made.readiness.state == READY)
    (video,) = (entry.video for entry in made.indexed() if entry.path == str(odd))

    app = run(q="a red circle", min="0")
    assert "film \\xe9.mp4" in {card["name"] for card in cards(app)}
    folder = next(place for place in place_names(made.indexed()) if place.startswith("folder: ") and "caf" in place)
    app = run(q="a red circle", min="0", **{"in": folder})
    assert {card["name"] for card in cards(app)} == {"film \\xe9.mp4"}
    app = run("video", v=video)
    assert not app.exception
    app = run("library")
    (table,) = app.dataframe
    assert "film \\xe9.mp4" in set(table.value["Name"])
    assert any("\\\\xff" in text.value for text in app.markdown), "what failed"
    assert made.roots.allowed(next(path for path in made.roots.folders() if "caf" in path)) == odd.parent
    hits = made.library.search("a red circle", videos=[odd])
    for form in FORMS:
        made.results.export(made.results.keep("a red circle", hits), form).text.encode("utf-8")
    wait_for(lambda: not made.worker.busy)
