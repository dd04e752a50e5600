"""The library: files go in once, changes are seen, bad files are named, and encoders never mix."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vtg
from vtg.errors import VideoError, VtgError
from vtg.features.store import FeatureStore
from vtg.library.indexing import Indexer
from vtg.library.library import Library
from vtg.models.specs import model_spec
from vtg.progress import Progress
from vtg.video.process import ffmpeg_binary


@pytest.fixture
def folder(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    films = tmp_path / "films"
    (films / "deeper").mkdir(parents=True)
    make_video(films / "a.mp4", seconds=12, seed=1)
    make_video(films / "deeper" / "b.MKV", seconds=8, seed=2)
    (films / "notes.txt").write_text("not a video, and not named like one")
    return films


@pytest.fixture
def library(tmp_path: Path, tiny_clip: Path) -> Library:
    return Library(tmp_path / "library", model_spec("zero-shot", pretrained=tiny_clip), device="cpu")


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def test_folders_are_indexed_and_searched(library: Library, folder: Path) -> None:
    report = library.add([folder])
    assert names(report.added) == ["a.mp4", "b.MKV"]
    assert report.failed == {}
    assert report.seconds == pytest.approx(20.0)
    hits = library.search("a red circle", limit=4)
    assert {Path(hit.video).name for hit in hits} == {"a.mp4", "b.MKV"}
    scores = [hit.moment.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert all(0 <= hit.moment.start < hit.moment.end <= 12 for hit in hits)


def test_search_equals_grounding_the_file(library: Library, folder: Path) -> None:
    library.add([folder])
    direct = library.grounder.ground(folder / "a.mp4", "a red circle")
    stored = library.ground(folder / "a.mp4", "a red circle")
    hits = library.search("a red circle", limit=50, videos=[folder / "a.mp4"])
    assert [(m.start, m.end) for m in stored.moments] == [(m.start, m.end) for m in direct.moments]
    assert [hit.moment for hit in hits] == stored.moments
    assert stored.saliency.times.tolist() == [0, 2, 4, 6, 8, 10]


def test_a_second_run_does_nothing(library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library.add([folder])
    monkeypatch.setattr("vtg.features.decoding.sample_frames", lambda *_, **__: pytest.fail("decoded again"))
    report = library.add([folder])
    assert report.added == []
    assert names(report.unchanged) == ["a.mp4", "b.MKV"]


def test_a_second_run_imports_no_model(library: Library, folder: Path) -> None:
    library.add([folder])
    code = (
        "import sys; from vtg.library.library import Library; "
        f"report = Library({str(library.folder)!r}).add([{str(folder)!r}]); "
        "assert len(report.unchanged) == 2 and not report.added, report; "
        "assert not {'torch', 'open_clip', 'av'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_what_was_touched_is_done_again(library: Library, folder: Path) -> None:
    library.add([folder])
    os.utime(folder / "a.mp4", (1, 1))
    report = library.add([folder])
    assert names(report.added) == ["a.mp4"]
    assert names(report.unchanged) == ["b.MKV"]
    assert report.seconds == pytest.approx(12.0)


def test_an_edited_file_replaces_what_was_there(
    library: Library, folder: Path, make_video: Callable[..., Path]
) -> None:
    library.add([folder])
    make_video(folder / "a.mp4", seconds=4, seed=3)
    library.add([folder])
    (entry,) = [entry for entry in library.videos() if entry.path.endswith("a.mp4")]
    assert entry.duration == pytest.approx(4.0)
    assert max(hit.moment.end for hit in library.search("anything", videos=[folder / "a.mp4"])) <= 4.0


def test_features_of_an_edited_file_go(library: Library, folder: Path, make_video: Callable[..., Path]) -> None:
    library.add([folder])
    make_video(folder / "a.mp4", seconds=4, seed=3)
    library.add([folder])
    assert {key.video for key in library.features} == {entry.video for entry in library.videos()}


def test_a_copy_and_a_renamed_file_are_not_encoded_again(
    library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.add([folder])
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")
    monkeypatch.setattr("vtg.features.decoding.sample_frames", lambda *_, **__: pytest.fail("decoded again"))
    report = library.add([folder])
    assert names(report.added) == ["copy.mp4"]
    assert report.seconds == 0
    assert len(list(library.features)) == 2


def test_two_new_files_of_the_same_content_are_encoded_once(library: Library, folder: Path) -> None:
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")
    report = library.add([folder])
    assert len(report.added) == 3
    assert report.seconds == pytest.approx(20.0)


def test_a_copy_of_a_file_that_is_removed_meanwhile_is_encoded(library: Library, folder: Path, tmp_path: Path) -> None:
    library.add([folder])
    (folder / "a.mp4").rename(tmp_path / "a.mp4")
    shutil.copy(tmp_path / "a.mp4", folder / "copy.mp4")
    other = Library(library.folder, device="cpu")
    steps: list[Progress] = []

    def remove(step: Progress) -> None:
        steps.append(step)
        if len(steps) == 2:  # the first is told before a file is looked at; by now the copy need not be encoded
            assert Path(step.path).name == "copy.mp4"
            assert names(other.remove([folder / "a.mp4"])) == ["a.mp4"]

    report = library.add([folder / "copy.mp4"], progress=remove)
    assert report.failed == {}
    assert names(report.added) == ["copy.mp4"]
    assert report.seconds == pytest.approx(12.0)
    assert library.verify(checksums=True) == []
    assert library.search("a red circle", videos=[folder / "copy.mp4"])


def test_copies_of_a_damaged_file_are_read_once(
    library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def damaged(path: Path, *_: Any, **__: Any) -> Any:
        opened.append(path.name)
        raise VideoError(path, "is damaged")
        yield

    monkeypatch.setattr("vtg.features.decoding.sample_frames", damaged)
    for name in ("copy.mp4", "third.mp4"):
        shutil.copy(folder / "a.mp4", folder / name)
    report = library.add([folder / name for name in ("a.mp4", "copy.mp4", "third.mp4")])
    assert names(list(report.failed)) == ["a.mp4", "copy.mp4", "third.mp4"]
    assert opened == ["a.mp4"]


def test_copies_of_a_file_that_is_no_video_are_both_named(library: Library, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.mp4", "two.mp4")]
    for path in paths:
        path.write_text("this is not a video")
    assert list(library.add(paths).failed) == [str(path) for path in paths]


def bad_files(folder: Path, good: Path) -> dict[str, str]:
    (folder / "text.mp4").write_text("this is not a video")
    (folder / "empty.mp4").write_bytes(b"")
    content = good.read_bytes()
    (folder / "short.mp4").write_bytes(content[: len(content) // 2])
    command = [ffmpeg_binary(), "-v", "error", "-f", "lavfi", "-i", "sine=duration=2", str(folder / "sound.mp4")]
    subprocess.run(command, check=True)
    return {"text.mp4": "not a video", "empty.mp4": "empty", "short.mp4": "cut short", "sound.mp4": "picture"}


def test_bad_files_are_named_and_leave_nothing(library: Library, folder: Path) -> None:
    reasons = bad_files(folder, folder / "a.mp4")
    report = library.add([folder])
    assert names(report.added) == ["a.mp4", "b.MKV"]
    failed = {Path(path).name: reason for path, reason in report.failed.items()}
    assert set(failed) == set(reasons)
    for name, words in reasons.items():
        assert words in failed[name]
        assert "\n" not in failed[name]
    assert len(list(library.features.root.iterdir())) == 2
    again = library.add([folder])
    assert again.failed == report.failed
    assert again.added == []


def test_what_failed_is_tried_again_when_asked_or_changed(
    library: Library, folder: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad_files(folder, folder / "a.mp4")
    library.add([folder])
    make_video(folder / "text.mp4", seed=9)
    assert names(library.add([folder]).added) == ["text.mp4"]
    probed: list[str] = []
    from vtg.video.probing import survey

    monkeypatch.setattr("vtg.features.decoding.survey", lambda path: probed.append(path.name) or survey(path))
    library.add([folder])
    assert probed == []
    library.add([folder], retry_failed=True)
    assert sorted(probed) == ["empty.mp4", "short.mp4", "sound.mp4"]


def test_an_interrupted_run_keeps_what_was_finished(library: Library, folder: Path) -> None:
    def stop_at_the_second(step: Progress) -> None:
        if step.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.add([folder], progress=stop_at_the_second)
    assert not list(library.features.root.glob("*.part"))
    report = library.add([folder])
    assert names(report.unchanged) == ["a.mp4"]
    assert names(report.added) == ["b.MKV"]


def test_removed_files_are_forgotten(library: Library, folder: Path) -> None:
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")
    library.add([folder])
    assert names(library.remove([folder / "a.mp4"])) == ["a.mp4"]
    assert len(list(library.features)) == 2  # the copy still needs them
    assert names(library.remove([folder / "copy.mp4"])) == ["copy.mp4"]
    assert len(list(library.features)) == 1
    assert {Path(hit.video).name for hit in library.search("anything")} == {"b.MKV"}
    assert library.remove([folder / "none.mp4"]) == []


def test_refresh_follows_the_disk(library: Library, folder: Path, make_video: Callable[..., Path]) -> None:
    library.add([folder])
    (folder / "a.mp4").unlink()
    make_video(folder / "deeper" / "b.MKV", seconds=6, seed=5)
    report = library.refresh()
    assert names(report.added) == ["b.MKV"]
    assert [Path(entry.path).name for entry in library.videos()] == ["b.MKV"]


def test_a_library_keeps_its_encoder(library: Library, folder: Path, tiny_clip: Path, tmp_path: Path) -> None:
    library.add([folder])
    assert Library(library.folder).fingerprint == library.fingerprint
    copy = tmp_path / "copy.safetensors"
    shutil.copy(tiny_clip, copy)
    Library(library.folder, model_spec("zero-shot", pretrained=copy))  # the same weights elsewhere are the same encoder
    with pytest.raises(VtgError, match=r"was made with .* not with"):
        Library(library.folder, "demo")
    with pytest.raises(VtgError, match=r"0\.5 frames a second, not 2"):
        Library(library.folder, model_spec("zero-shot", pretrained=tiny_clip, fps=2.0))


def test_weights_that_are_gone_are_named(library: Library, folder: Path, tiny_clip: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.safetensors"
    shutil.copy(tiny_clip, moved)
    other = Library(tmp_path / "other", model_spec("zero-shot", pretrained=moved), device="cpu")
    other.add([folder])
    moved.unlink()
    with pytest.raises(VtgError, match=r"moved\.safetensors"):
        Library(tmp_path / "other").search("anything")


def test_a_library_can_be_moved_as_a_whole(library: Library, folder: Path, tmp_path: Path) -> None:
    library.add([folder])
    before = library.search("a red circle")
    moved = shutil.move(library.folder, tmp_path / "elsewhere")
    assert vtg.Library(moved, device="cpu").search("a red circle") == before


def test_an_encoder_that_cannot_be_had_leaves_no_library(tmp_path: Path, folder: Path) -> None:
    library = Library(
        tmp_path / "library", model_spec("zero-shot", pretrained=tmp_path / "none.safetensors"), device="cpu"
    )
    with pytest.raises(VtgError, match="no such file"):
        library.add([folder])
    assert not library.folder.exists()


def test_a_run_that_is_stopped_keeps_what_was_finished(library: Library, folder: Path) -> None:
    steps: list[Progress] = []
    report = library.add([folder], steps.append, stop=lambda: bool(steps) and steps[-1].done == 1)
    assert report.stopped
    assert names(report.added) == ["a.mp4"]
    assert names([entry.path for entry in library.videos()]) == ["a.mp4"]
    assert len(list(library.features.root.iterdir())) == 1
    report = library.add([folder])
    assert not report.stopped
    assert names(report.added) == ["b.MKV"]


def test_videos_that_cannot_be_among_the_best_are_passed_over(
    library: Library, folder: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(8):
        make_video(folder / f"{seed}.mp4", seconds=12, seed=20 + seed)
    library.add([folder])
    grounder = library.grounder
    everything = [moment for entry in library.videos() for moment in library.ground(entry.path, "a dog").moments[:3]]
    best = sorted((moment.score for moment in everything if moment.score > 0), reverse=True)
    for entry in library.videos():
        features, text = library.open_features(entry.path), grounder.encoder.encode_text("a dog")
        assert library.ground(entry.path, "a dog").moments[0].score <= grounder.score_bound(features, text) + 1e-6
    grounded: list[str] = []
    ground = grounder.ground_each
    monkeypatch.setattr(
        grounder,
        "ground_each",
        lambda videos, *rest: grounded.extend(video.name for video in videos) or ground(videos, *rest),
    )
    for limit in (1, 2, 50):
        grounded.clear()
        assert [hit.moment.score for hit in library.search("a dog", limit)] == pytest.approx(best[:limit])
        assert (len(grounded) < 10) == (limit < 50)


def test_a_hit_says_where_its_moment_is_at_its_best(library: Library, folder: Path) -> None:
    library.add([folder])
    for hit in library.search("a red circle", limit=50):
        saliency = library.ground(hit.video, "a red circle").saliency
        inside = (saliency.times + 2 > hit.moment.start) & (saliency.times < hit.moment.end)
        assert saliency.scores[saliency.times == hit.peak] == saliency.scores[inside].max()


def test_what_was_indexed_with_other_weights_is_not_searched_but_done_again(
    library: Library, folder: Path, tmp_path: Path, tiny_clip: Path
) -> None:
    weights = tmp_path / "weights.safetensors"
    shutil.copy(tiny_clip, weights)
    own = Library(tmp_path / "own", model_spec("zero-shot", pretrained=weights), device="cpu")
    own.add([folder])
    from safetensors.torch import load_file, save_file

    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, weights)
    changed = Library(tmp_path / "own", device="cpu")
    with pytest.raises(VtgError, match=r"have changed: they are other weights.*vtg search QUERY .*--pretrained"):
        changed.search("a red circle")
    named = Library(tmp_path / "own", model_spec("zero-shot", pretrained=weights), device="cpu")
    with pytest.raises(VtgError, match="other weights"):
        named.search("a red circle")
    assert len(named.add([folder]).added) == 2
    assert named.search("a red circle")
    assert Library(tmp_path / "own", device="cpu").search("a red circle")


def test_wrong_questions_are_one_line(library: Library, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VtgError, match="empty; add videos"):
        library.search("a dog")
    library.add([folder / "a.mp4"])
    with pytest.raises(VtgError, match="query is empty"):
        library.search("  ")
    with pytest.raises(VtgError, match="not in the library"):
        library.search("a dog", videos=[folder / "deeper"])
    assert library.search("a dog", min_score=1.0) == []


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(VtgError, match="is not a library"):
        Library(tmp_path)


def test_damaged_settings_and_later_formats_are_refused(library: Library, folder: Path) -> None:
    library.add([folder])
    settings = library.folder / "library.json"
    text = settings.read_text()
    settings.write_text(text[:20])
    with pytest.raises(VtgError, match="damaged"):
        Library(library.folder)
    settings.write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(VtgError, match="later vtg"):
        Library(library.folder)


def test_lost_features_are_made_again(library: Library, folder: Path) -> None:
    library.add([folder])
    shutil.rmtree(library.features.root)
    assert names(library.add([folder]).added) == ["a.mp4", "b.MKV"]
    assert isinstance(library.features, FeatureStore)
    for key in library.features:
        library.features.verify(key)


class TestHeads:
    """A library searched by an R² head."""

    def test_indexing_needs_no_head(
        self, tmp_path: Path, folder: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VTG_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        library = Library(tmp_path / "library", model_spec(pretrained=tiny_clip), device="cpu")
        assert library.model.name == "r2-qvhighlights"
        assert len(library.add([folder]).added) == 2
        with pytest.raises(VtgError, match=r"r2-qvhighlights: .* --model zero-shot"):
            library.search("a red circle")
        assert Library(library.folder, "zero-shot", device="cpu").search("a red circle")

    @pytest.fixture
    def with_head(self, tmp_path: Path, tiny_clip: Path, tiny_head: Path) -> Library:
        spec = model_spec(tiny_head, pretrained=tiny_clip)
        return Library(tmp_path / "library", spec, device="cpu")

    def test_search_is_the_heads_grounding(self, with_head: Library, folder: Path) -> None:
        with_head.add([folder])
        hits = with_head.search("a red circle", limit=50, videos=[folder / "a.mp4"])
        expected = with_head.ground(folder / "a.mp4", "a red circle")
        assert hits
        assert [hit.moment for hit in hits] == [moment for moment in expected.moments if moment.score > 0]

    def test_a_library_remembers_its_head(self, with_head: Library, folder: Path) -> None:
        with_head.add([folder])
        before = with_head.search("a red circle")
        assert Library(with_head.folder, device="cpu").search("a red circle") == before

    def test_another_model_of_the_same_clip_may_ask(self, with_head: Library, folder: Path, tiny_clip: Path) -> None:
        with_head.add([folder])
        for model in ("zero-shot", model_spec("zero-shot", pretrained=tiny_clip)):
            bare = Library(with_head.folder, model, device="cpu")
            assert bare.grounder.head is None
            assert bare.search("a red circle")
        with pytest.raises(VtgError, match="was made with"):
            Library(with_head.folder, "demo")
        assert Library(with_head.folder).model.head is not None

    def test_the_head_looks_at_the_nearest_videos_only(
        self, with_head: Library, folder: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for seed in range(4):
            make_video(folder / f"{seed}.mp4", seconds=6, seed=10 + seed)
        with_head.add([folder])
        text = with_head.grounder.encoder.encode_text("a red circle").embedding.numpy()
        nearest = {
            entry.path: float((with_head.grounder.features(entry.path).embedding @ text).max())
            for entry in with_head.videos()
        }
        monkeypatch.setattr("vtg.library.searching.MOST_WINDOWS", 2)
        hits = with_head.search("a red circle", limit=50)
        assert {hit.video for hit in hits} == set(sorted(nearest, key=lambda path: -nearest[path])[:2])

    def test_explaining_paints_over_the_best_frame(self, with_head: Library, folder: Path, library: Library) -> None:
        with_head.add([folder])
        hit = with_head.search("a red circle")[0]
        time, picture = with_head.explain("a red circle", hit, size=64)
        assert hit.moment.start - 2 < time < hit.moment.end
        assert picture.shape == (64, 64, 3)
        bare = Library(with_head.folder, library.model, device="cpu")
        with pytest.raises(VtgError, match="has no attention maps"):
            bare.explain("a red circle", hit)


def test_what_another_run_has_done_since_the_files_were_looked_at_is_not_done_again(
    library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Library(library.folder, library.model, device="cpu")
    index = Indexer.index

    def late(indexer: Indexer, *arguments: Any) -> None:
        monkeypatch.setattr(Indexer, "index", index)
        assert other.add([folder]).added
        monkeypatch.setattr("vtg.features.decoding.sample_frames", lambda *_, **__: pytest.fail("decoded again"))
        index(indexer, *arguments)

    monkeypatch.setattr(Indexer, "index", late)
    report = library.add([folder])
    assert not report.added and not report.failed
    assert len(report.unchanged) == len(library.videos())
