"""The tool that checks and fetches benchmark data: what it finds wrong, and fetching from a hub on this machine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.prepare_data import check, main

ROOT = Path(__file__).parents[1]


def line(qid: str, video: str, **changes: Any) -> dict[str, Any]:
    return {"qid": qid, "query": "she cuts", "duration": 20.0, "vid": video, "relevant_windows": [[2, 8]], **changes}


def write_lines(path: Path, *records: Any) -> None:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")


def save(path: Path, *shape: int, kind: str = "float16") -> None:
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.zeros(shape, dtype=kind))


@pytest.fixture
def tacos(tmp_path: Path) -> Path:
    """A TACoS folder of two videos and three queries in which nothing is missing."""
    for part, qid in (("train", "a_0"), ("val", "a_1"), ("test", "b_0")):
        write_lines(tmp_path / f"{part}.jsonl", line(qid, qid[0]))
        save(tmp_path / "clip_b32_txt_k4" / f"{qid}.npy", 7, 4, 6)
    for video in "ab":
        save(tmp_path / "clip_b32_vid_k4" / f"{video}-cam-002.npy", 10, 4, 5, 8)
    return tmp_path


def findings(folder: Path, kind: str) -> list[str]:
    return [finding.what for finding in check("tacos", folder).findings if finding.kind == kind]


def test_a_complete_folder_is_ready(tacos: Path) -> None:
    checked = check("tacos", tacos)
    assert (checked.findings, checked.is_ready) == ((), True)
    assert checked.queries == {"train": 1, "val": 1, "test": 1}
    assert checked.features == {"videos": 2, "queries": 3}


def test_missing_annotations_and_features_are_named(tacos: Path) -> None:
    (tacos / "val.jsonl").unlink()
    (tacos / "clip_b32_vid_k4" / "b-cam-002.npy").unlink()
    missing = findings(tacos, "missing")
    assert missing[0] == f"{tacos}: no annotations for val; put val.jsonl or tacos_val.jsonl there"
    assert missing[1] == f"{tacos / 'clip_b32_vid_k4' / 'b-cam-002.npy'}: features of video b"
    assert not check("tacos", tacos).is_ready


def test_a_folder_without_features_is_one_finding_unless_only_annotations_are_asked_for(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write_lines(tmp_path / f"{part}.jsonl", line(f"{part}_0", "a"))
    assert [text.split(": ")[1] for text in findings(tmp_path, "missing")] == [
        "no features in it; fetch or extract them"
    ] * 2
    assert check("tacos", tmp_path, with_features=False).is_ready


def test_malformed_lines_are_named_and_odd_windows_only_noted(tacos: Path) -> None:
    write_lines(tacos / "val.jsonl", line("a_1", "a", duration=-1), line("a_2", "a", relevant_windows=[[8, 2]]))
    save(tacos / "clip_b32_txt_k4" / "a_2.npy", 7, 4, 6)
    assert findings(tacos, "malformed") == [
        f"{tacos / 'val.jsonl'}:1: query a_1: duration must be above 0 seconds, not -1"
    ]
    assert findings(tacos, "note") == [f"{tacos / 'val.jsonl'}:2: query a_2: window [8, 2] ends before it starts"]


@pytest.mark.parametrize(
    ("shape", "kind", "reason"),
    [
        ((10, 4, 8), "float16", "shape [10, 4, 8] instead of [T, K, P, C]"),
        ((0, 4, 5, 8), "float16", "shape [0, 4, 5, 8] instead of [T, K, P, C]"),
        ((15, 4, 5, 8), "float16", "15 frames for 20 s at 0.5 a second, about 10 expected"),
        ((10, 4, 5, 8), "int64", "not a NumPy file (holds int64, not floats)"),
    ],
)
def test_malformed_features_are_named(tacos: Path, shape: tuple[int, ...], kind: str, reason: str) -> None:
    path = tacos / "clip_b32_vid_k4" / "a-cam-002.npy"
    save(path, *shape, kind=kind)
    assert findings(tacos, "malformed") == [f"{path}: {reason}"]


def test_a_feature_file_that_is_cut_off_or_no_array_is_named(tacos: Path) -> None:
    path = tacos / "clip_b32_vid_k4" / "a-cam-002.npy"
    path.write_bytes(path.read_bytes()[:-100])
    assert findings(tacos, "malformed") == [f"{path}: not a NumPy file (cut off, 100 bytes are missing)"]
    path.write_bytes(b"hello")
    assert findings(tacos, "malformed")[0].startswith(f"{path}: not a NumPy file (")


def test_youtube_features_have_one_frame_a_clip(tmp_path: Path) -> None:
    from vtg.datasets import videos_of

    entry = {
        "fps": 25,
        "frames": 250,
        "domain": "dog",
        "info": ["", "", [], 0, "", "t"],
        "clip": [[0, 100], [50, 150]],
        "match": [1, -1],
    }
    train, val = videos_of("youtube", "dog", "train")[0], videos_of("youtube", "dog", "val")[0]
    (tmp_path / "youtube_anno.json").write_text(json.dumps({train: entry, val: entry}), encoding="utf-8")
    for video, frames in ((train, 2), (val, 3)):
        save(tmp_path / "clip_b32_vid_k4" / f"{video}.npy", frames, 4, 5, 8)
        save(tmp_path / "clip_b32_txt_k4" / f"{video}.npy", 7, 4, 6)
    checked = check("youtube", tmp_path)
    assert checked.queries == {"train": 1, "val": 1}
    assert [finding.what for finding in checked.findings] == [
        f"{tmp_path / 'clip_b32_vid_k4' / val}.npy: 3 frames for 2 annotated clips"
    ]


@pytest.mark.parametrize("dataset", ["tvsum", "youtube"])
def test_videos_whose_query_is_their_title_are_called_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dataset: str
) -> None:
    from vtg.datasets import domains, videos_of

    domain = domains(dataset)[0]
    train, val = videos_of(dataset, domain, "train")[:2], videos_of(dataset, domain, "val")[:1]
    if dataset == "tvsum":
        entry: dict[str, Any] = {"title": "a title", "anno": [[3] * 20] * 10}
    else:
        clips = [[50 * clip, 50 * clip + 50] for clip in range(10)]
        entry = {"fps": 25, "frames": 500, "info": ["", "", [], 0, "", "t"], "clip": clips, "match": [1] * 10}
    annotations = tmp_path / f"{dataset}_anno.json"
    annotations.write_text(json.dumps(dict.fromkeys((*train, *val), entry)), encoding="utf-8")
    for video in (train[1], val[0]):
        save(tmp_path / "clip_b32_vid_k4" / f"{video}.npy", 10, 4, 5, 8)
    for video in train:
        save(tmp_path / "clip_b32_txt_k4" / f"{video}.npy", 7, 4, 6)
    assert main(["check", dataset, str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{dataset} in {tmp_path}",
        "  train: 2 videos",
        "  val: 1 video",
        "  features of 2 videos",
        "  features of 2 queries",
        f"  missing: {tmp_path / 'clip_b32_vid_k4' / train[0]}.npy: features of video {train[0]}",
        f"  missing: {tmp_path / 'clip_b32_txt_k4' / val[0]}.npy: features of the title of video {val[0]}",
        "not ready",
    ]


def test_a_video_with_the_name_of_a_query_is_called_a_video(tacos: Path) -> None:
    for part, qid in (("train", "a-cam-002"), ("val", "a_1")):
        write_lines(tacos / f"{part}.jsonl", line(qid, "a"))
    save(tacos / "clip_b32_txt_k4" / "a-cam-002.npy", 7, 4, 6)
    (tacos / "clip_b32_vid_k4" / "a-cam-002.npy").unlink()
    assert findings(tacos, "missing") == [f"{tacos / 'clip_b32_vid_k4' / 'a-cam-002.npy'}: features of video a"]


def test_the_command_prints_findings_and_says_by_its_status_whether_the_data_is_ready(
    tacos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "tacos", str(tacos)]) == 0
    assert capsys.readouterr().out.endswith("ready\n")
    (tacos / "val.jsonl").unlink()
    assert main(["check", "tacos", str(tacos)]) == 1
    assert "missing: " in capsys.readouterr().out
    assert main(["check", "tacos", str(tacos), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ready"] is False
    assert main(["check", "tacos", str(tacos / "nowhere")]) == 1
    assert "there is no such folder" in capsys.readouterr().err


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def array(*shape: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).normal(size=shape).astype(np.float16))
    return buffer.getvalue()


class Hub(ThreadingHTTPServer):
    """A hub of files by path, which knows as much of the protocol as a download needs."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = files


class HubHandler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Keeps the test's output clean."""

    def _answer(self, with_body: bool) -> None:
        assert isinstance(self.server, Hub)
        prefix = "/yeliudev/R2-Tuning/resolve/main/datasets/"
        content = self.server.files.get(self.path.removeprefix(prefix)) if self.path.startswith(prefix) else None
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{abs(hash(content)):x}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub({})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def run_fetch(hub: Hub | None, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    # A process of its own: the hub's client reads its address once, when it is imported.
    port = hub.server_port if hub else 9
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(folder / ".hf"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, str(ROOT / "tools" / "prepare_data.py"), "fetch", "ego4d", str(folder), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_annotations_and_features_in_parts_are_fetched_and_unpacked(hub: Hub, tmp_path: Path) -> None:
    for part in ("train", "val"):
        hub.files[f"ego4d/nlq_{part}.jsonl"] = f"{json.dumps(line(f'{part}_0', 'clip'))}\n".encode()
    videos = packed(
        {"clip_b32_vid_k4/clip.npy": array(10, 4, 5, 8), "../../evil.npy": array(1, 1, 1, 1), "note.txt": b"x"}
    )
    hub.files["ego4d/ego4d_clip_b32_vid_k4.tar.gz.aa"] = videos[: len(videos) // 2]
    hub.files["ego4d/ego4d_clip_b32_vid_k4.tar.gz.ab"] = videos[len(videos) // 2 :]
    queries = {f"clip_b32_txt_k4/{part}_0.npy": array(7, 4, 6) for part in ("train", "val")}
    hub.files["ego4d/ego4d_clip_b32_txt_k4.tar.gz"] = packed(queries)
    folder = tmp_path / "data" / "ego4d"
    finished = run_fetch(hub, folder, "--features")
    assert finished.returncode == 0, finished.stderr
    checked = check("ego4d", folder)
    assert (checked.findings, checked.features) == ((), {"videos": 1, "queries": 2})
    assert (folder / "clip_b32_vid_k4" / "clip.npy").read_bytes() == array(10, 4, 5, 8)
    assert not (tmp_path / "evil.npy").exists()
    assert not (folder / "clip_b32_vid_k4" / "note.txt").exists()
    assert not (folder / ".download").exists()


def test_a_damaged_archive_leaves_no_folder_of_features(hub: Hub, tmp_path: Path) -> None:
    for part in ("train", "val"):
        hub.files[f"ego4d/nlq_{part}.jsonl"] = f"{json.dumps(line(f'{part}_0', 'clip'))}\n".encode()
    videos = packed({"clip_b32_vid_k4/clip.npy": array(10, 4, 5, 8)})
    hub.files["ego4d/ego4d_clip_b32_vid_k4.tar.gz.aa"] = videos[:100]
    hub.files["ego4d/ego4d_clip_b32_vid_k4.tar.gz.ab"] = b""
    finished = run_fetch(hub, tmp_path, "--features")
    assert finished.returncode == 1
    assert "ego4d_clip_b32_vid_k4.tar.gz.aa: cannot be unpacked" in finished.stderr
    assert len(finished.stderr.strip().splitlines()) == 1
    assert (tmp_path / "nlq_val.jsonl").is_file()
    assert not list(tmp_path.glob("*clip_b32_vid_k4*"))


def test_what_the_hub_does_not_have_is_one_line(hub: Hub, tmp_path: Path) -> None:
    finished = run_fetch(hub, tmp_path)
    assert finished.returncode == 1
    assert "datasets/ego4d/nlq_train.jsonl: cannot be fetched" in finished.stderr
    assert len(finished.stderr.strip().splitlines()) == 1
