"""Keeping a library: moved, changed and vanished files, what is verified, and libraries of before."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import lancedb
import pytest

from vtg.errors import VtgError
from vtg.library.library import IndexReport, Library
from vtg.library.watching import watch
from vtg.models.specs import model_spec
from vtg.progress import silent


@pytest.fixture
def folder(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    films = tmp_path / "films"
    films.mkdir()
    make_video(films / "a.mp4", seconds=6, seed=1)
    make_video(films / "b.mp4", seconds=4, seed=2)
    return films


@pytest.fixture
def library(tmp_path: Path, tiny_clip: Path, folder: Path) -> Library:
    library = Library(tmp_path / "library", model_spec("zero-shot", pretrained=tiny_clip), device="cpu")
    library.add([folder])
    return library


@pytest.fixture
def nothing_decoded(monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    monkeypatch.setattr("vtg.features.decoding.sample_frames", lambda *_, **__: pytest.fail("decoded again"))


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


@pytest.mark.usefixtures("nothing_decoded")
class TestMoved:
    """Files that are somewhere else now."""

    def test_a_renamed_file_is_found_by_refresh(self, library: Library, folder: Path) -> None:
        (folder / "a.mp4").rename(folder / "holiday.mp4")
        report = library.refresh()
        assert report.moved == {str(folder / "holiday.mp4"): str(folder / "a.mp4")}
        assert report.removed == []
        assert names([entry.path for entry in library.videos()]) == ["b.mp4", "holiday.mp4"]
        assert {Path(hit.video).name for hit in library.search("anything")} == {"b.mp4", "holiday.mp4"}
        assert library.verify() == []

    def test_a_file_moved_elsewhere_is_found_where_one_looks(
        self, library: Library, folder: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "else" / "deep").mkdir(parents=True)
        (folder / "a.mp4").rename(tmp_path / "else" / "deep" / "a.mp4")
        assert names(list(library.refresh(look_in=[tmp_path / "else"]).moved)) == ["a.mp4"]

    def test_indexing_the_new_place_forgets_the_old(self, library: Library, folder: Path, tmp_path: Path) -> None:
        moved = folder.rename(tmp_path / "moved")
        report = library.add([moved])
        assert names(list(report.moved)) == ["a.mp4", "b.mp4"]
        assert {Path(entry.path).parent for entry in library.videos()} == {moved}

    def test_a_copy_is_not_a_move(self, library: Library, folder: Path) -> None:
        shutil.copy(folder / "a.mp4", folder / "copy.mp4")
        assert library.add([folder]).moved == {}
        assert len(library.videos()) == 3

    def test_a_disk_that_is_not_there_is_waited_for(self, library: Library, folder: Path, tmp_path: Path) -> None:
        folder.rename(tmp_path / "unplugged")
        report = library.refresh()
        assert names(report.away) == ["a.mp4", "b.mp4"]
        assert report.removed == []
        assert len(library.videos()) == 2
        (tmp_path / "unplugged").rename(folder)
        assert library.refresh().away == []


def test_vanished_files_are_forgotten_with_their_moments(library: Library, folder: Path) -> None:
    (folder / "a.mp4").unlink()
    assert names(library.refresh().removed) == ["a.mp4"]
    assert {Path(hit.video).name for hit in library.search("anything")} == {"b.mp4"}
    assert len(list(library.features)) == 1
    assert library.verify() == []


def test_removed_folders_are_forgotten(library: Library, folder: Path) -> None:
    assert len(library.remove([folder])) == 2
    assert library.videos() == []
    assert library.refresh().added == []
    assert library.verify() == []


def test_what_is_wrong_is_named(library: Library, folder: Path) -> None:
    assert library.verify(checksums=True) == []
    first, second = library.videos()
    features = library.features.path(library._feature_key(first.video))
    content = bytearray(features.read_bytes())
    content[-1] ^= 1
    features.write_bytes(content)
    assert library.verify() == []  # its size and header are right
    (problem,) = library.verify(checksums=True)
    assert problem.where == first.path
    assert "checksum" in problem.what
    features.unlink()
    library._tables.delete_frames([second.video])
    library._tables.delete_videos([second.path])
    problems = {problem.where: problem.what for problem in library.verify()}
    assert "not there" in problems[first.path]
    assert "vtg index" in problems[second.video]
    library.add([folder])
    assert library.verify(checksums=True) == []


def test_changed_and_missing_files_are_named(library: Library, folder: Path) -> None:
    os.utime(folder / "a.mp4", (1, 1))
    (folder / "b.mp4").unlink()
    assert [("changed" in p.what, "any more" in p.what) for p in library.verify()] == [(True, False), (False, True)]


def test_a_twofold_frame_is_seen(library: Library) -> None:
    entry = library.videos()[0]
    rows = library._tables._table("frames").to_arrow()
    library._tables._table("frames").add(rows.filter([video == entry.video for video in rows["video"].to_pylist()]))
    assert [problem.where for problem in library.verify()] == [entry.path]


def test_a_library_of_before_opens_and_grows(library: Library, folder: Path, make_video: Callable[..., Path]) -> None:
    database = lancedb.connect(str(library.folder))
    database.open_table("videos").drop_columns(["subtitles"])
    database.drop_table("folders")
    old = Library(library.folder, device="cpu")
    assert [entry.subtitles for entry in old.videos()] == ["", ""]
    assert old.search("a red circle")
    make_video(folder / "c.mp4", seconds=4, seed=3)
    assert names(old.add([folder]).added) == ["c.mp4"]
    assert all(entry.subtitles for entry in old.videos())
    assert old.verify() == []


def test_a_watched_folder_is_followed(library: Library, folder: Path, make_video: Callable[..., Path]) -> None:
    reports: list[IndexReport] = []
    ended = threading.Event()
    watcher = threading.Thread(
        target=watch, args=(library, [folder], 0.2, reports.append, silent, ended.is_set), daemon=True
    )
    watcher.start()

    def wait_for(paths: set[str]) -> None:
        for _ in range(600):
            if {Path(entry.path).name for entry in library.videos()} == paths:
                return
            ended.wait(0.1)
        pytest.fail(f"{[entry.path for entry in library.videos()]}")

    make_video(folder / "c.mp4", seconds=4, seed=3)
    wait_for({"a.mp4", "b.mp4", "c.mp4"})
    (folder / "a.mp4").rename(folder / "d.mp4")
    (folder / "b.mp4").unlink()
    wait_for({"c.mp4", "d.mp4"})
    ended.set()
    watcher.join()
    assert [path for report in reports for path in report.failed] == []


def test_another_encoder_refuses_new_videos_with_what_to_do(library: Library, folder: Path) -> None:
    with pytest.raises(VtgError, match=r"was made with .* name another folder with --library"):
        Library(library.folder, "demo").add([folder])
