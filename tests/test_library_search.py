"""Searching a library: by pictures, stretches, sums and said words, in a part of it, and with scores that compare."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vtg.errors import VtgError
from vtg.library import searching
from vtg.library.hits import Hit
from vtg.library.library import Library
from vtg.library.query import Part, Question, Stretch, parse_stretch, parse_weighted
from vtg.library.ranking import Candidate, WindowGrid, choose_windows, every_window
from vtg.library.rows import NearFrames
from vtg.library.tables import LibraryTables
from vtg.models.calibration import Calibration, choose_threshold, fit_calibration
from vtg.models.specs import model_spec
from vtg.video import sample_frames

SAID = """1
00:00:00,500 --> 00:00:03,000
Shall we jump into the lake?

2
00:00:08,000 --> 00:00:09,000
Into the car, quickly.
"""


@pytest.fixture
def folder(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    films = tmp_path / "films"
    (films / "deeper").mkdir(parents=True)
    for number in range(3):
        make_video(films / f"{number}.mp4", seconds=12, seed=number)
    make_video(films / "deeper" / "3.mp4", seconds=12, seed=3)
    (films / "1.srt").write_text(SAID)
    return films


@pytest.fixture
def library(tmp_path: Path, tiny_clip: Path, folder: Path) -> Library:
    library = Library(tmp_path / "library", model_spec("zero-shot", pretrained=tiny_clip), device="cpu")
    library.add([folder])
    return library


@pytest.fixture
def with_head(tmp_path: Path, tiny_clip: Path, tiny_head: Path, folder: Path) -> Library:
    library = Library(tmp_path / "with-head", model_spec(tiny_head, pretrained=tiny_clip), device="cpu")
    library.add([folder])
    return library


def ask(*whats: str | Path | Stretch, said: str = "") -> Question:
    return Question(tuple(Part(what) for what in whats), said)


class TestPictures:
    """Questions that are not, or not only, sentences."""

    def test_a_picture_finds_where_it_is_from(self, library: Library, folder: Path, tmp_path: Path) -> None:
        _, frames = next(iter(sample_frames(folder / "2.mp4", 0.5, 64, 4.0, 6.0)))
        Image.fromarray(frames[0]).save(tmp_path / "frame.png")
        best = library.search(ask(tmp_path / "frame.png"))[0]
        assert best.video == str(folder / "2.mp4")
        assert best.peak == 4.0
        assert best.moment.start <= 4.0 < best.moment.end

    def test_more_like_this_leaves_this_out(self, library: Library, folder: Path) -> None:
        stretch = Stretch(folder / "2.mp4", 4.0, 6.0)
        hits = library.search(ask(stretch), limit=50)
        assert hits
        assert not [
            hit for hit in hits if hit.video == str(stretch.video) and hit.moment.start < 6 and hit.moment.end > 4
        ]

    def test_what_is_taken_away_counts_less(self, library: Library, folder: Path) -> None:
        stretch, other = Stretch(folder / "2.mp4", 4.0, 6.0), Stretch(folder / "1.mp4", 4.0, 6.0)
        question = Question((Part(other), Part("a red circle"), Part(stretch, -3.0)))
        hits = library.search(question, limit=50)
        assert all(hit.moment.score < 0.5 for hit in hits if hit.video == str(stretch.video))

    def test_wrong_ones_are_one_line(self, library: Library, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "text.png").write_text("no picture")
        for question, words in (
            (ask(tmp_path / "none.png"), "no such picture"),
            (ask(tmp_path / "text.png"), "not a picture"),
            (ask(Stretch(tmp_path / "none.mp4", 0, 1)), "not in the library"),
            (ask(Stretch(folder / "1.mp4", 40, 41)), "40 s is not in it"),
            (Question((Part("a dog"), Part("a dog", -1.0))), "cancel out"),
        ):
            with pytest.raises(VtgError, match=words):
                library.search(question)
        for parts in ((), (Part(" "),), (Part("a dog", -1.0),)):
            with pytest.raises(VtgError, match="say what to look for"):
                Question(parts)


class TestSaid:
    """Words that are said, alone and with what is seen."""

    def test_words_alone_are_found_where_they_are_said(self, library: Library, folder: Path) -> None:
        first, second = library.search(ask(said="jump into lakes lake"))
        assert first.video == second.video == str(folder / "1.mp4")
        assert (first.moment.start, first.moment.end, first.moment.score) == (0.5, 3.0, 1.0)
        assert "lake" in first.said
        assert second.moment.score < 1.0
        assert [hit.moment.start for hit in library.search(ask(said='"into the car"'))] == [8.0]
        assert library.search(ask(said="elephant")) == []

    def test_with_a_sentence_both_must_hold(self, library: Library, with_head: Library, folder: Path) -> None:
        for one in (library, with_head):
            hits = one.search(ask("a red circle", said="lake"), limit=50)
            assert hits
            assert {hit.video for hit in hits} == {str(folder / "1.mp4")}
            assert all(hit.moment.start < 13.0 for hit in hits)
            assert one.search(ask("a red circle", said="elephant")) == []

    def test_changed_subtitles_are_read_again_without_encoding(
        self, library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vtg.features.decoding.sample_frames", lambda *_, **__: pytest.fail("decoded again"))
        (folder / "1.srt").unlink()
        (folder / "2.en.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nAn elephant, 象\n")
        assert len(library.add([folder]).unchanged) == 4
        assert library.search(ask(said="lake")) == []
        for words in ("elephant", "象"):
            assert [hit.video for hit in library.search(ask(said=words))] == [str(folder / "2.mp4")]

    def test_a_removed_file_says_nothing(self, library: Library, folder: Path) -> None:
        library.remove([folder / "1.mp4"])
        assert library.search(ask(said="lake")) == []


def test_a_search_keeps_to_its_places_and_dates(library: Library, folder: Path) -> None:
    assert {hit.video for hit in library.search("a dog", 50, videos=[folder / "deeper"])} == {
        str(folder / "deeper" / "3.mp4")
    }
    for name in ("0.mp4", "1.mp4"):
        os.utime(folder / name, (1e9, 1e9))
    library.refresh()
    old = {hit.video for hit in library.search("a dog", 50, until=datetime(2010, 1, 1))}
    new = {hit.video for hit in library.search("a dog", 50, since=datetime(2010, 1, 1))}
    assert {Path(path).name for path in old} == {"0.mp4", "1.mp4"}
    assert {Path(path).name for path in new} == {"2.mp4", "3.mp4"}
    with pytest.raises(VtgError, match="no videos of these dates"):
        library.search("a dog", until=datetime(1990, 1, 1))


def test_so_many_moments_a_video_as_one_wants(library: Library, with_head: Library) -> None:
    for one in (library, with_head):
        counts = [[hit.video for hit in one.search("a dog", 50, per_video=most)] for most in (1, 2)]
        assert all(counts[0].count(video) == 1 for video in counts[0])
        assert max(counts[1].count(video) for video in counts[1]) == 2


def test_large_libraries_are_searched_by_the_nearest_frames(
    library: Library, with_head: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtg.library.searching.ALL_FRAMES", 1)
    monkeypatch.setattr("vtg.library.searching.MAX_ZERO_SHOT_VIDEOS", 2)
    monkeypatch.setattr("vtg.library.searching.MOST_WINDOWS", 2)
    query = library.encoder.encode_text("a red circle").embedding.numpy()
    best = {e.path: float((library.open_features(e.path).embedding @ query).max()) for e in library.videos()}
    nearest = set(sorted(best, key=lambda path: -best[path])[:2])
    for one in (library, with_head):
        assert {hit.video for hit in one.search("a red circle", 50)} == nearest
    assert {hit.video for hit in library.search("a red circle", 50, videos=[folder / "deeper"])} == {
        str(folder / "deeper" / "3.mp4")
    }


def test_windows_of_a_long_video_find_what_the_whole_finds(
    tmp_path: Path, with_head: Library, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = make_video(tmp_path / "long.mp4", seconds=120, seed=8)
    with_head.add([long])
    whole = {(m.start, m.end) for m in with_head.ground(long, "a dog").moments}
    monkeypatch.setattr("vtg.library.searching.MOST_WINDOWS", 6)
    monkeypatch.setattr("vtg.library.searching.WINDOWS_PER_VIDEO", 2)
    parts = [hit.moment for hit in with_head.search("a dog", 50) if hit.video == str(long)]
    assert parts
    assert all(0 <= moment.start < moment.end <= 120 for moment in parts)
    # Beside the edges of its windows a part finds what the whole finds.
    assert any((moment.start, moment.end) in whole for moment in parts)


class TestCandidates:
    """Which windows are looked at."""

    def test_each_frame_counts_for_the_window_it_lies_deepest_in(self) -> None:
        grid = WindowGrid(length=10, step=6)
        frames = {"a": 30, "b": 5}
        assert [one.starts for one in every_window(frames, grid)] == [(0, 6, 12, 18, 20), (0,)]
        near = NearFrames(["a", "b", "a", "a", "c"], np.array([11.0, 3.0, 10.0, 29.0, 0.0]), np.zeros(5))
        chosen = choose_windows(near, frames, 1.0, grid, most=3, most_per_video=2)
        assert [(one.video, one.starts) for one in chosen] == [("a", (6, 20)), ("b", (0,))]
        assert [one.video for one in choose_windows(near, frames, 1.0, grid, most=1, most_per_video=2)] == ["a"]
        assert choose_windows(near, frames, 1.0, grid, most=9, most_per_video=1)[0].starts == (6,)


class TestIndex:
    """The vector index, which a library gets once it pays."""

    def test_it_finds_what_reading_everything_finds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vtg.library.tables.INDEX_FROM", 2_000)
        monkeypatch.setattr("vtg.library.tables.PARTITION_FRAMES", 200)
        random = np.random.default_rng(0)
        tables = LibraryTables(tmp_path)
        stored = {}
        for video in "abcdef":
            frames = random.normal(size=(500, 32)).astype(np.float32)
            stored[video] = frames / np.linalg.norm(frames, axis=1, keepdims=True)
        for video in "abcde":
            tables.put_frames(video, np.arange(500) * 2.0, stored[video])
        tables.tidy()
        assert [index.index_type for index in tables._table("frames").list_indices()] == ["IvfRq"]
        tables.put_frames("f", np.arange(500) * 2.0, stored["f"])  # not in the index yet
        everything = np.concatenate(list(stored.values()))
        query = random.normal(size=32)
        cosines = everything @ query / np.linalg.norm(query)
        best = np.argsort(-cosines)[:50]
        expected = {("abcdef"[row // 500], 2.0 * (row % 500)) for row in best}
        near = tables.nearest_frames(query, 50)
        assert len(expected & set(zip(near.videos, near.times.tolist(), strict=True))) >= 48
        assert near.cosines[0] == pytest.approx(cosines.max(), abs=1e-5)
        assert {*tables.nearest_frames(query, 50, ["b", "f"]).videos} == {"b", "f"}
        tables.delete_frames(["a", "f"])
        assert not {"a", "f"} & {*tables.nearest_frames(query, 50).videos}


class TestCalibration:
    """Scores that can be compared across videos."""

    def test_it_parts_what_is_there_from_what_is_not(self) -> None:
        random = np.random.default_rng(0)
        present = random.random(400) < 0.3
        margins = random.normal(size=400) + 3.0 * present
        evidence = np.column_stack([random.uniform(0.4, 0.9, 400), margins, random.normal(size=400)])
        fitted = fit_calibration(evidence, present)
        found = np.array([fitted.chance(*row) >= fitted.threshold for row in evidence])
        assert found[present].mean() > 0.9
        assert found[~present].mean() < 0.1
        assert 0 < fitted.threshold < 1
        with pytest.raises(ValueError, match="queries that do not"):
            fit_calibration(evidence, np.ones(400, bool))

    def test_the_threshold_errs_as_often_on_both_sides(self) -> None:
        present, absent = np.array([0.9, 0.8, 0.7, 0.4]), np.array([0.6, 0.3, 0.2, 0.1])
        threshold = choose_threshold(present, absent)
        assert (present < threshold).sum() == (absent >= threshold).sum() == 1

    def test_without_one_scores_are_the_heads(self) -> None:
        assert Calibration.of({}).chance(0.37, 5.0, 2.0) == 0.37
        assert Calibration.of({"margin": 1.0, "threshold": 0.4}).chance(0.37, 5.0, 2.0) > 0.9

    def test_it_ranks_videos_and_leaves_the_order_within_each(
        self, with_head: Library, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = with_head.search("a red circle", 50, per_video=50)
        monkeypatch.setattr(Library, "calibration", Calibration(score=0.5, margin=0.3, bias=-1.0, threshold=0.3))
        calibrated = Library(with_head.folder, with_head.model, device="cpu").search("a red circle", 50, per_video=50)
        assert {hit.moment.score for hit in calibrated} != {hit.moment.score for hit in plain}
        for video in {hit.video for hit in plain}:
            spans = [[(h.moment.start, h.moment.end) for h in hits if h.video == video] for hits in (plain, calibrated)]
            assert spans[0] == spans[1]

    def test_more_is_looked_at_before_nothing_is_found(
        self, with_head: Library, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(searching, "WORK", 0)
        monkeypatch.setattr(searching, "FEWEST_WINDOWS", 1)
        everywhere = len(with_head.videos())
        assert everywhere > 1
        look, looked = searching.Searcher._look, []

        def seen(self: searching.Searcher, chosen: list[Candidate], *others: Any) -> list[Hit]:
            looked.extend(candidate.video for candidate in chosen)
            return look(self, chosen, *others)

        monkeypatch.setattr(searching.Searcher, "_look", seen)
        for threshold, videos in ((0.0, 1), (1.1, min(everywhere, searching.SECOND_LOOK))):
            monkeypatch.setattr(Library, "calibration", Calibration(bias=1e-6, threshold=threshold))
            library = Library(with_head.folder, with_head.model, device="cpu")
            looked.clear()
            assert len({hit.video for hit in library.search("a red circle", 50)}) == videos
            assert len(looked) == len(set(looked)) == videos  # none of them twice


def test_parts_of_questions_are_written_as_people_write_them() -> None:
    assert parse_weighted("snow") == ("snow", 1.0)
    assert parse_weighted("a red * in the sky * 0.5") == ("a red * in the sky", 0.5)
    assert parse_stretch("a@b.mp4@1:20-1:32.5") == Stretch(Path("a@b.mp4"), 80.0, 92.5)
    for wrong in ("a.mp4", "a.mp4@1:20", "a.mp4@3-1", "@1-2"):
        with pytest.raises(VtgError):
            parse_stretch(wrong)
    assert str(Question((Part("a horse"), Part("snow", 0.5), Part("people", -1.0)))) == "a horse + snow·0.5 − people"
