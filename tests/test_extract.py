"""Extraction on one machine: every file is whole and the same whoever made it, and nothing is done twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vtg.clip.encoder import ClipEncoder
from vtg.clip.specs import EncoderSpec
from vtg.errors import VtgError
from vtg.extraction import ExtractionReport, QueryJob, VideoJob, Work, WrongWorkError, extract, read_source
from vtg.extraction import cluster as cluster_module
from vtg.extraction import encoders as encoders_module
from vtg.extraction import machine as machine_module
from vtg.extraction.encoders import EncoderPool
from vtg.extraction.output import Output
from vtg.extraction.places import LocalPlace
from vtg.extraction.verify import verify
from vtg.features.store import EncodedChunk, FeatureKey, FeatureStore, content_key
from vtg.files.locks import Claims
from vtg.video import sample_frames

Run = Callable[..., ExtractionReport]


@pytest.fixture
def encoder(tiny_clip: Path) -> EncoderSpec:
    return EncoderSpec(pretrained=str(tiny_clip))


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """Six videos of 2 to 72 s, so that some have one frame and one has three chunks, and a file that is none."""
    folder = tmp_path_factory.mktemp("films")
    for number, seconds in enumerate((2, 8, 5, 72, 14, 3)):
        make_video(folder / f"{number}.mp4", seconds=seconds, seed=number)
    (folder / "notes.mp4").write_text("not a video")
    return folder


@pytest.fixture
def run(encoder: EncoderSpec, films: Path) -> Run:
    def run_extract(out: Path | str, source: Path | str | Work = films, fps: float = 1.0, **options: Any) -> Any:
        work = source if isinstance(source, Work) else read_source(str(source), fps)
        return extract(work, str(out), encoder, device="cpu", **options)

    return run_extract


def contents(out: Path) -> dict[str, bytes]:
    """Every file below a folder but the empty one of locks."""
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != "extraction/claims"}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path, films: Path) -> dict[str, bytes]:
    """What one process makes of the films in one go."""
    out = tmp_path_factory.mktemp("undisturbed")
    extract(read_source(str(films), 1.0), str(out), EncoderSpec(pretrained=str(tiny_clip)), device="cpu")
    return contents(out)


def test_a_file_has_the_layers_of_the_sampled_frames(tmp_path: Path, run: Run, films: Path, tiny_clip: Path) -> None:
    report = run(tmp_path)
    clip = ClipEncoder(pretrained=tiny_clip, device="cpu")
    for name in ("0", "3"):
        frames = np.concatenate([frames for _, frames in sample_frames(films / f"{name}.mp4", 1.0, clip.image_size)])
        array = np.load(tmp_path / "tiny_vid_k4" / f"{name}.npy")
        assert array.dtype == np.float16
        assert array.shape == (len(frames), 4, 5, 64)
        np.testing.assert_allclose(array, clip.encode_frames(frames).layers.numpy(), atol=0.01)
    assert (report.videos, report.frames) == (6, 2 + 8 + 5 + 72 + 14 + 3)


def test_a_bad_video_is_recorded_and_stops_nothing(tmp_path: Path, run: Run) -> None:
    report = run(tmp_path)
    (failure,) = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert failure["id"] == "notes"
    assert "not a video" in failure["reason"]
    assert [record.id for record in report.failed] == ["notes"]
    assert not (tmp_path / "tiny_vid_k4" / "notes.npy").exists()


def test_what_is_there_is_not_done_again(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path)
    before = contents(tmp_path)
    opened = count_opened(monkeypatch)
    report = run(tmp_path)
    assert (report.videos, report.finished, len(report.failed)) == (0, 6, 1)
    assert opened == []
    assert contents(tmp_path) == before


def count_opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    opened: list[str] = []
    original = machine_module.open_job

    def counted(job: VideoJob, size: int, with_content: bool, threads: int) -> Any:
        opened.append(job.id)
        return original(job, size, with_content, threads)

    monkeypatch.setattr(machine_module, "open_job", counted)
    return opened


def test_what_failed_is_tried_again_when_asked_or_when_the_file_changed(
    tmp_path: Path, run: Run, films: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work("one", (VideoJob("a", str(tmp_path / "a.mp4"), 1.0),))
    (tmp_path / "a.mp4").write_text("not yet a video")
    assert len(run(tmp_path / "out", work).failed) == 1
    opened = count_opened(monkeypatch)
    assert len(run(tmp_path / "out", work).failed) == 1
    assert opened == []
    assert len(run(tmp_path / "out", work, retry_failed=True).failed) == 1
    assert opened == ["a"]
    make_video(tmp_path / "a.mp4", seconds=4)
    report = run(tmp_path / "out", work)
    assert (report.videos, report.failed) == (1, [])
    assert not (tmp_path / "out" / "failures.jsonl").exists()


@pytest.mark.parametrize("change", ["truncated", "removed", "no record", "half a record"])
def test_what_is_not_whole_is_done_again(
    tmp_path: Path, run: Run, undisturbed: dict[str, bytes], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)
    features, record = tmp_path / "tiny_vid_k4" / "1.npy", tmp_path / "extraction" / "videos" / "1.json"
    if change == "truncated":
        features.write_bytes(features.read_bytes()[:-1])
    elif change == "removed":
        features.unlink()
    elif change == "no record":
        record.unlink()
    else:
        record.write_bytes(record.read_bytes()[:40])
    opened = count_opened(monkeypatch)
    assert run(tmp_path).videos == 1
    assert opened == ["1"]
    assert contents(tmp_path) == undisturbed


def test_another_rate_or_stretch_is_done_again(tmp_path: Path, run: Run, films: Path) -> None:
    whole = VideoJob("a", str(films / "3.mp4"), 1.0)
    run(tmp_path, Work("a", (whole,)))
    for job, frames in (
        (VideoJob("a", whole.source, 2.0), 144),
        (VideoJob("a", whole.source, 2.0, start=10, end=20), 20),
        (VideoJob("a", whole.source, clips=7), 7),
    ):
        assert run(tmp_path, Work("a", (job,))).videos == 1
        assert len(np.load(tmp_path / "tiny_vid_k4" / "a.npy")) == frames
        assert run(tmp_path, Work("a", (job,))).videos == 0


def test_a_stretch_has_the_frames_of_the_whole(tmp_path: Path, run: Run, films: Path) -> None:
    source = str(films / "3.mp4")
    run(tmp_path, Work("a", (VideoJob("all", source, 1.0), VideoJob("part", source, 1.0, start=10, end=50))))
    whole, part = (np.load(tmp_path / "tiny_vid_k4" / f"{name}.npy") for name in ("all", "part"))
    np.testing.assert_array_equal(part, whole[10:50])
    report = run(tmp_path, Work("a", (VideoJob("none", source, 1.0, start=71.5),)))
    assert "no whole frame" in report.failed[0].failure


def test_shards_and_workers_give_the_same_bytes(tmp_path: Path, run: Run, undisturbed: dict[str, bytes]) -> None:
    shares = [run(tmp_path / "shards", shard=(number, 4), workers=number).videos for number in range(1, 5)]
    assert sum(shares) == 6
    assert max(shares) <= 2
    assert contents(tmp_path / "shards") == undisturbed


class RowsOfOneProcess:
    """What extraction asks of a Ray data set, done at once and here."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def flat_map(self, stage: Callable[[Any], Any], **_: object) -> RowsOfOneProcess:
        return RowsOfOneProcess([result for row in self._rows for result in stage(row)])

    def map(self, stage: Any, fn_constructor_args: tuple[Any, ...] = (), **_: object) -> RowsOfOneProcess:
        run_stage = stage(*fn_constructor_args) if fn_constructor_args else stage
        return RowsOfOneProcess([run_stage(row) for row in self._rows])

    def iter_rows(self) -> Iterator[Any]:
        return iter(self._rows)


def test_the_stages_of_a_cluster_give_the_same_bytes_without_one(
    tmp_path: Path, run: Run, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = SimpleNamespace(
        from_items=lambda items, **_: RowsOfOneProcess(items),
        DataContext=SimpleNamespace(get_current=SimpleNamespace),
        TaskPoolStrategy=SimpleNamespace,
        ActorPoolStrategy=SimpleNamespace,
    )
    ray = SimpleNamespace(
        data=data,
        exceptions=SimpleNamespace(RayError=ZeroDivisionError),
        is_initialized=lambda: True,
        cluster_resources=lambda: {"CPU": 1},
        remote=lambda **_: lambda function: SimpleNamespace(remote=function),
        wait=lambda references, num_returns: (references[:num_returns], references[num_returns:]),
        get=lambda reference: reference,
    )
    monkeypatch.setattr(cluster_module, "require_ray", lambda: ray)
    monkeypatch.setattr(cluster_module, "SEGMENT_CHUNKS", 1)  # so that one video is written in stretches and joined
    threads = torch.get_num_threads()
    try:
        report = run(tmp_path, ray="")
    finally:
        torch.set_num_threads(threads)  # the encoding stage sets those of a process of its own
    assert (report.videos, report.frames, len(report.failed)) == (6, 104, 1)
    assert contents(tmp_path) == undisturbed


def test_a_shard_is_the_same_part_whatever_is_done(run: Run, tmp_path: Path, films: Path) -> None:
    work = read_source(str(films), 1.0)
    parts = [work.shard(number, 3).videos for number in (1, 2, 3)]
    assert sorted(job.id for part in parts for job in part) == sorted(job.id for job in work.videos)
    run(tmp_path, shard=(2, 3))
    assert {path.stem for path in (tmp_path / "tiny_vid_k4").iterdir()} == {job.id for job in parts[1]} - {"notes"}


def hold(path: Path, names: list[str], ready: Any, done: Any) -> None:
    """Claims names in a process of its own until it is told to end."""
    claims = Claims(path)
    assert all(claims.take(name) for name in names)
    ready.set()
    done.wait(60)


@pytest.fixture
def other_process() -> Iterator[Callable[[Path, list[str]], None]]:
    """Has another process claim names for as long as the test runs."""
    context = multiprocessing.get_context("spawn")
    done, processes = context.Event(), []

    def start(path: Path, names: list[str]) -> None:
        ready = context.Event()
        processes.append(context.Process(target=hold, args=(path, names, ready, done)))
        processes[-1].start()
        assert ready.wait(60)

    yield start
    done.set()
    for process in processes:
        process.join(60)


def test_what_another_process_is_at_is_left_to_it(
    tmp_path: Path, run: Run, other_process: Callable[[Path, list[str]], None]
) -> None:
    Output(str(tmp_path), Output.open(str(made_once(tmp_path, run))).settings).place.remove("tiny_vid_k4/1.npy")
    unfinished = [tmp_path / "tiny_vid_k4" / f"{name}.npy.0a1b2c3d.part" for name in ("1", "2")]
    for path in unfinished:
        path.write_bytes(b"half")
    other_process(tmp_path / "extraction" / "claims", ["video 1"])
    report = run(tmp_path)
    assert (report.videos, report.elsewhere) == (0, 1)
    assert [path.exists() for path in unfinished] == [True, False]


def made_once(out: Path, run: Run) -> Path:
    run(out)
    return out


def encoded_chunk() -> EncodedChunk:
    layers, embedding = np.ones((2, 4, 5, 64), np.float16), np.ones((2, 8), np.float32)
    return EncodedChunk(np.arange(2.0), layers, embedding, np.zeros((2, 8, 8, 3), np.uint8))


def test_stretches_of_videos_are_kept_apart_and_swept(tmp_path: Path, run: Run) -> None:
    settings = Output.open(str(made_once(tmp_path, run))).settings
    output = Output(str(tmp_path), settings)
    chunk = encoded_chunk()
    jobs = [VideoJob(name, "x.mp4", 1.0) for name in ("a", "a/b", "a.00000000")]  # one begins as another does
    for job in jobs:
        for first in (0, 2):
            output.write_segment(job, first, chunk)
    output.remove_segments(jobs[0], [0, 2])
    for job in jobs[1:]:
        assert [len(kept.times) for kept in output.read_segments(job, [2, 0])] == [2, 2]
    output.begin()
    output.sweep()
    assert not [name for name in contents(tmp_path) if "segments" in name]


def test_stretches_of_a_video_that_another_process_is_at_are_left_to_it(
    tmp_path: Path, run: Run, other_process: Callable[[Path, list[str]], None]
) -> None:
    output = Output(str(tmp_path), Output.open(str(made_once(tmp_path, run))).settings)
    chunk = encoded_chunk()
    for name in ("deep/a.b", "c"):
        output.write_segment(VideoJob(name, "x.mp4", 1.0), 0, chunk)
    (tmp_path / "extraction" / "segments" / "deep" / "a.b.00000002.safetensors.0a1b2c3d.part").touch()
    other_process(tmp_path / "extraction" / "claims", ["video deep/a.b"])
    output.begin()
    output.sweep()
    assert sorted(name for name in contents(tmp_path) if "segments" in name) == [
        "extraction/segments/deep/a.b.00000000.safetensors",
        "extraction/segments/deep/a.b.00000002.safetensors.0a1b2c3d.part",
    ]


def test_an_interrupted_write_leaves_no_half_file(
    tmp_path: Path, run: Run, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LocalPlace.write

    def full(place: LocalPlace, name: str, data: bytes) -> None:
        if name.endswith("videos/3.json"):
            raise OSError(28, "No space left on device", name)
        original(place, name, data)

    monkeypatch.setattr(LocalPlace, "write", full)
    with pytest.raises(VtgError, match=r"videos/3\.json: No space left on device; what is finished is kept"):
        run(tmp_path)
    assert not [name for name in contents(tmp_path) if name.endswith(".part")]
    monkeypatch.setattr(LocalPlace, "write", original)
    run(tmp_path)
    assert contents(tmp_path) == undisturbed


def test_queries_have_the_layers_of_their_words(tmp_path: Path, run: Run, tiny_clip: Path) -> None:
    texts = {"7": "a dog", "q/8": "a dog jumps into the lake"}
    work = Work("w", (), tuple(QueryJob(name, text) for name, text in texts.items()))
    assert run(tmp_path, work).queries == 2
    clip = ClipEncoder(pretrained=tiny_clip, device="cpu")
    for name, text in texts.items():
        array = np.load(tmp_path / "tiny_txt_k4" / f"{name}.npy")
        np.testing.assert_allclose(array, clip.encode_text(text).layers.numpy(), atol=0.01)
    assert run(tmp_path, work).finished == 2
    assert run(tmp_path, Work("w", (), (QueryJob("7", "a cat"),))).queries == 1


def test_the_layout_of_a_store_is_one_that_a_store_reads(
    tmp_path: Path, run: Run, films: Path, encoder: EncoderSpec, undisturbed: dict[str, bytes]
) -> None:
    report = run(tmp_path, layout="store")
    assert (report.videos, len(report.failed)) == (6, 1)
    features = FeatureStore(tmp_path).open(FeatureKey(content_key(films / "4.mp4"), encoder.fingerprint, 1.0))
    assert (features.duration, len(features)) == (14.0, 14)
    np.save(tmp_path / "expected.npy", features.layers)
    published = undisturbed["tiny_vid_k4/4.npy"]
    assert features.layers is not None
    assert features.layers.tobytes() == published[-features.layers.nbytes :]
    assert run(tmp_path, layout="store").finished == 6


def test_features_of_another_clip_or_layout_are_not_mixed(
    tmp_path: Path, run: Run, films: Path, encoder: EncoderSpec
) -> None:
    run(tmp_path)
    with pytest.raises(VtgError, match=r"was made with .*tiny"):
        extract(read_source(str(films), 1.0), str(tmp_path), EncoderSpec(pretrained="demo"))
    with pytest.raises(VtgError, match="layout"):
        run(tmp_path, layout="store")
    Output(str(tmp_path / "begun"), Output.open(str(tmp_path)).settings).begin()
    with pytest.raises(VtgError, match="nothing is in it yet"):
        run(tmp_path / "begun", layout="store")
    shutil.copy(encoder.pretrained, tmp_path / "copy.safetensors")
    copied = EncoderSpec(pretrained=str(tmp_path / "copy.safetensors"))
    assert extract(read_source(str(films), 1.0), str(tmp_path), copied).finished == 6
    (tmp_path / "foreign" / "tiny_vid_k4").mkdir(parents=True)
    (tmp_path / "foreign" / "tiny_vid_k4" / "a.npy").touch()
    with pytest.raises(VtgError, match="not extracted by vtg"):
        run(tmp_path / "foreign")


def test_an_output_that_was_begun_under_other_names_goes_on_with_them(
    tmp_path: Path, films: Path, encoder: EncoderSpec
) -> None:
    work = read_source(str(films), 1.0)
    named = replace(work, video_folder="clip_b32_vid_k4", query_folder="clip_b32_txt_k4")  # as by earlier versions
    extract(named.shard(1, 2), str(tmp_path), encoder, device="cpu")
    extract(work, str(tmp_path), encoder, device="cpu")
    assert len(list((tmp_path / "clip_b32_vid_k4").rglob("*.npy"))) == 6
    assert not (tmp_path / "tiny_vid_k4").exists()
    outside = tmp_path / "extraction" / "settings.json"
    outside.write_text(outside.read_text("utf-8").replace("clip_b32_vid_k4", "../vid"), encoding="utf-8")
    with pytest.raises(VtgError, match=r"keeps its features in \.\./vid/"):
        extract(work, str(tmp_path), encoder, device="cpu")


def test_an_output_that_cannot_be_written_is_told_with_everything_else(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").touch()
    work = Work("list.txt", (VideoJob("a", "/nowhere/a.mp4", 1.0, line=3),), problems=("list.txt:2: no path",))
    with pytest.raises(WrongWorkError, match="3 things are wrong") as caught:
        run(tmp_path / "file" / "out", work)
    assert caught.value.problems[0] == "list.txt:2: no path"
    assert caught.value.problems[1] == "list.txt:3: /nowhere/a.mp4: no such file"
    assert "cannot be written to" in caught.value.problems[2]


def test_wrong_work_is_left_out_when_asked_and_refused_otherwise(tmp_path: Path, run: Run, films: Path) -> None:
    jobs = (VideoJob("a", str(films / "0.mp4"), 1.0, line=1), VideoJob("b", str(tmp_path / "b.mp4"), 1.0, line=2))
    with pytest.raises(WrongWorkError, match="one thing is wrong"):
        run(tmp_path / "out", Work("list.txt", jobs))
    assert not (tmp_path / "out").exists()
    report = run(tmp_path / "out", Work("list.txt", jobs), skip_wrong=True)
    assert (report.videos, len(report.problems)) == (1, 1)


def test_progress_tells_of_every_job_and_frame(tmp_path: Path, run: Run) -> None:
    states = []
    run(tmp_path, progress=states.append)
    assert (states[0].done, states[0].total) == (0, 7)
    frames = [int(state.detail.split(" frames, ")[0]) for state in states]
    assert (states[-1].done, frames[-1]) == (7, 104)
    assert frames == sorted(frames)


def test_cores_decode_one_video_together_and_many_videos_apart(
    tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders_module, "_cores", lambda: 8)
    with EncoderPool(EncoderSpec(pretrained=str(tiny_clip)), "cpu", workers=4) as pool:
        assert [pool.decoding_threads(videos) for videos in (0, 1, 2, 3, 4, 100)] == [4, 4, 4, 2, 2, 2]


def test_encoders_on_the_processor_leave_the_threads_of_others_alone(tiny_clip: Path) -> None:
    def threads_of(pool: ThreadPoolExecutor) -> int:
        return pool.submit(torch.get_num_threads).result()

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(1) as older, ThreadPoolExecutor(1) as newer:
            assert threads_of(older) == 3
            with EncoderPool(EncoderSpec(pretrained=str(tiny_clip)), "cpu", workers=2) as pool:
                pool.encode_text("a dog").result()
                assert pool._submit(lambda _: torch.get_num_threads()).result() == 1
                assert [torch.get_num_threads(), threads_of(older), threads_of(newer)] == [3, 3, 3]
    finally:
        torch.set_num_threads(before)


def test_an_output_elsewhere_gets_the_same_files(run: Run, undisturbed: dict[str, bytes]) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    out = f"/vtg-{os.getpid()}"
    try:
        report = run(f"memory:/{out}")
        assert report.videos == 6
        files = {name.removeprefix(f"{out}/"): memory.cat_file(name) for name in memory.find(out)}
        assert files == undisturbed
        assert run(f"memory:/{out}").finished == 6
        assert verify(f"memory:/{out}").problems == []
        memory.pipe_file(f"{out}/tiny_vid_k4/1.npy", files["tiny_vid_k4/1.npy"][:-2] + b"\x00\x00")
        assert [file for file, _ in verify(f"memory:/{out}").problems] == ["tiny_vid_k4/1.npy"]
    finally:
        memory.rm(out, recursive=True)


def test_videos_elsewhere_are_fetched(tmp_path: Path, run: Run, films: Path, undisturbed: dict[str, bytes]) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    try:
        for name in ("1.mp4", "deep/2.mp4", "notes.mp4"):
            memory.pipe_file(f"/vtg-in/{name}", (films / name.rpartition("/")[2]).read_bytes())
        report = run(tmp_path, "memory://vtg-in")
        assert report.videos == 2
        assert "memory:" in report.failed[0].source
        array = (tmp_path / "tiny_vid_k4" / "deep" / "2.npy").read_bytes()
        assert array == undisturbed["tiny_vid_k4/2.npy"]
        assert run(tmp_path, "memory://vtg-in").finished == 2
    finally:
        memory.rm("/vtg-in", recursive=True)


def spoil_values(path: Path, value: float) -> None:
    array = np.load(path)
    array[2, 1, 3, 7] = value
    np.save(path, array)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-2]), "bytes instead of"),
        (lambda path: spoil_values(path, 3.0), "checksum"),
        (lambda path: np.save(path, np.load(path).view(np.int16)), "not float16"),
        (lambda path: np.save(path, np.load(path).reshape(4, -1, 5, 64)), "shape"),
    ],
)
def test_damage_is_found(tmp_path: Path, run: Run, spoil: Callable[[Path], None], reason: str) -> None:
    run(tmp_path)
    assert verify(str(tmp_path)).problems == []
    spoil(tmp_path / "tiny_vid_k4" / "1.npy")
    ((file, found),) = verify(str(tmp_path)).problems
    assert file == "tiny_vid_k4/1.npy"
    assert reason in found


def test_any_damage_to_a_header_is_found(tmp_path: Path, run: Run, films: Path) -> None:
    work = Work("one", (VideoJob("a", str(films / "0.mp4"), 1.0),), (QueryJob("q", "a dog"),))
    for layout, pattern in (("published", "tiny_vid_k4/a.npy"), ("store", "*.safetensors")):
        run(tmp_path / layout, work, layout=layout)
        assert verify(str(tmp_path / layout)).problems == []
        (path,) = (tmp_path / layout).glob(pattern)
        whole = path.read_bytes()
        for place in (*range(0, 128, 3), *range(128, 600, 29)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert len(verify(str(tmp_path / layout)).problems) == 1, f"{layout}, byte {place}"


def rewrite_record(out: Path, name: str, **fields: object) -> None:
    path = out / "extraction" / "videos" / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_nan_and_wrong_lengths_are_found_where_the_checksum_is_right(tmp_path: Path, run: Run) -> None:
    import hashlib

    run(tmp_path)
    spoil_values(tmp_path / "tiny_vid_k4" / "1.npy", np.nan)
    values = np.load(tmp_path / "tiny_vid_k4" / "1.npy").tobytes()
    rewrite_record(tmp_path, "1", sha256=hashlib.sha256(values).hexdigest())
    rewrite_record(tmp_path, "4", duration=18.0)
    problems = dict(verify(str(tmp_path)).problems)
    assert "not a finite number, first at 2 of 8" in problems["tiny_vid_k4/1.npy"]
    assert "14 frames where 18.0 s should give 18.0" in problems["tiny_vid_k4/4.npy"]
    assert len(problems) == 2


def test_strays_and_damage_in_a_store_are_found(tmp_path: Path, run: Run) -> None:
    run(tmp_path, layout="store")
    report = verify(str(tmp_path))
    assert (report.checked, report.problems, len(report.failed)) == (6, [], 1)
    path = next(tmp_path.glob("*.safetensors"))
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff\xff")
    (tmp_path / "x.npy.12345678.part").touch()
    moved = next(other for other in tmp_path.glob("*.safetensors") if other != path)
    moved.rename(tmp_path / "another.safetensors")
    found = {file for file, _ in verify(str(tmp_path)).problems}
    assert found == {path.name, "x.npy.12345678.part", moved.name, "another.safetensors"}
    with pytest.raises(VtgError, match="nothing was extracted"):
        verify(str(tmp_path / "none"))
