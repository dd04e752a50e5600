"""Results show themselves in notebooks: thumbnails, spans, scores, the saliency curve."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtg.grounding.notebook import MAX_ROWS
from vtg.grounding.results import Grounding, Moment, Saliency
from vtg.library.hits import Hit, Hits


@pytest.fixture(scope="module")
def film(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("films") / "a<b & c.mp4")


def pictures(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_hits_have_thumbnails_spans_and_scores(film: Path) -> None:
    hits = Hits([Hit(str(film), Moment(2.0, 4.0, 0.875), 2.0), Hit(str(film), Moment(6.0, 8.0, 0.25), 6.0)])
    html = hits._repr_html_()
    first, second = pictures(html)
    assert first.size == (160, 120)
    # Each thumbnail is of its own moment: the film has another colour every 2 s.
    colours = [np.asarray(picture).reshape(-1, 3).mean(axis=0) for picture in (first, second)]
    assert np.abs(colours[0] - colours[1]).max() > 20
    assert "00:02–00:04" in html and "0.88" in html and "a&lt;b &amp; c.mp4" in html
    assert "<th" in html and "said" not in html


def test_spoken_words_are_shown_as_text(film: Path) -> None:
    html = Hits([Hit(str(film), Moment(0.0, 2.0, 1.0), 0.0, "<script>alert(1)</script>")])._repr_html_()
    assert "&lt;script&gt;" in html and "<script" not in html


def test_results_whose_file_is_gone_are_shown_without_thumbnails(tmp_path: Path) -> None:
    html = Hits([Hit(str(tmp_path / "gone.mp4"), Moment(0.0, 2.0, 0.5), 0.0)])._repr_html_()
    assert "gone.mp4" in html and not pictures(html)


def test_long_lists_are_cut_and_empty_ones_say_so(tmp_path: Path) -> None:
    hit = Hit(str(tmp_path / "gone.mp4"), Moment(0.0, 2.0, 0.5), 0.0)
    assert "and 3 more" in Hits([hit] * (MAX_ROWS + 3))._repr_html_()
    assert Hits()._repr_html_() == "<p>no moments</p>"


def test_hits_are_a_list(film: Path) -> None:
    hit = Hit(str(film), Moment(2.0, 4.0, 0.875), 2.0)
    assert Hits([hit]) == [hit] and isinstance(Hits([hit]), list)


def test_a_grounding_shows_its_curve_with_the_best_moment_shaded(film: Path) -> None:
    saliency = Saliency(np.array([0.0, 2.0, 4.0, 6.0]), np.array([0.0, 1.0, np.nan, 0.5]))
    moments = [Moment(2.0, 4.0, 0.9), Moment(4.0, 8.0, 0.1), Moment(0.0, 2.0, 0.0)]
    html = Grounding("a <b>", str(film), 8.0, moments, saliency)._repr_html_()
    (points,) = re.findall(r'points="([^"]+)"', html)
    assert points == "80.0,78.0 240.0,2.0 560.0,40.0"  # the middles of the intervals; what is no number is left out
    assert re.findall(r'<rect x="([\d.]+)" .* width="([\d.]+)"', html) == [("160.0", "160.0")]
    assert "a &lt;b&gt;" in html and len(pictures(html)) == 2  # a score of 0 is a suppressed repeat


def test_a_highlight_head_shows_a_curve_alone(film: Path) -> None:
    saliency = Saliency(np.array([0.0]), np.array([0.3]))
    html = Grounding("q", "", 2.0, [], saliency)._repr_html_()
    assert "<svg" in html and "<table" not in html


def test_the_notebook_of_the_manual_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From rendered videos to moments, a curve and attention, as a reader runs it."""
    if not os.environ.get("CI"):
        for package in ("nbclient", "ipykernel"):
            pytest.importorskip(package)
    from tools.notebook import NOTEBOOK, run_notebook

    root = str(NOTEBOOK.parents[2])
    monkeypatch.delenv("MPLBACKEND", raising=False)  # set by Streamlit in the tests of the page
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])))
    notebook = run_notebook(NOTEBOOK, tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    html = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert len(html) == 2  # results of a search, and a grounding
    assert all(pictures(one) for one in html) and "<svg" in html[1]
    drawn = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(drawn) == 2  # the curve, and the attention
    assert (tmp_path / "diamond.mp4").stat().st_size > 1000


def test_the_stored_notebook_has_results_and_no_path_of_a_machine() -> None:
    from tools.notebook import NOTEBOOK

    text = NOTEBOOK.read_text("utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert cells and all(cell["outputs"] for cell in cells if "print(" in "".join(cell["source"]))
    assert "/tmp" not in text and "site-packages" not in text
