"""decord gives the frames that the other decoders give, where it is asked for, and is not loaded elsewhere."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from commands import vtg_in_process
from timecode import Codecs, ffmpeg, render

from vtg.errors import VtgError
from vtg.video import decord_decoder, pyav_decoder, sample_frames, thumbnail
from vtg.video.probing import survey
from vtg.video.samples import DecodingError

CASES = Path(__file__).with_name("data") / "cases"

needs_decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord has no wheel here")


def frames_of(path: Path, fps: float, start: float = 0.0) -> np.ndarray:
    return np.concatenate([frames for _, frames in sample_frames(path, fps, 64, start=start)])


def only_decord(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTG_DECODER", "decord")
    monkeypatch.setattr(pyav_decoder, "decode", lambda *_, **__: pytest.fail("decord has given up"))
    monkeypatch.setattr("vtg.video.process.Pipe", lambda *_, **__: pytest.fail("decord has given up"))


@needs_decord
@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "bikes.mp4", "charades.mp4", "pancake.mkv"])
def test_frames_of_real_videos_are_equal_to_the_bit(name: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shared / "videos" / name
    expected = [frames_of(path, 0.5), frames_of(path, 2, start=3.0), thumbnail(path, 4.2, 120)]
    only_decord(monkeypatch)
    assert np.array_equal(frames_of(path, 0.5), expected[0])
    assert np.array_equal(frames_of(path, 2, start=3.0), expected[1])
    assert np.array_equal(thumbnail(path, 4.2, 120), expected[2])


@needs_decord
@pytest.mark.parametrize(
    ("codec", "ending", "options"),
    [
        ("h264", "mp4", ()),
        ("h264", "mkv", ("-output_ts_offset", "7.3")),  # its own times begin at 0
        ("vp9", "webm", ()),
        ("av1", "mkv", ()),
        ("av1", "mp4", ()),
    ],
)
def test_frames_are_equal_to_the_bit(
    codec: str, ending: str, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = render(tmp_path / f"film.{ending}", 100, *options, encode=Codecs[codec])
    expected = frames_of(path, 29.97), frames_of(path, 5, start=1.1)
    only_decord(monkeypatch)
    assert np.array_equal(frames_of(path, 29.97), expected[0])
    assert np.array_equal(frames_of(path, 5, start=1.1), expected[1])


@needs_decord
def test_irregular_pictures_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = "(floor(N/3)*0.12+gte(mod(N,3),1)*0.021+gte(mod(N,3),2)*0.081+floor(N/20))/TB"
    path = render(tmp_path / "irregular.mkv", 80, "-vf", f"settb=1/1000,setpts='{clock}'", "-fps_mode", "vfr")
    expected = frames_of(path, 10)
    only_decord(monkeypatch)
    assert np.array_equal(frames_of(path, 10), expected)


@needs_decord
@pytest.mark.parametrize("name", ["hdr-pq.mp4", "mirrored.mp4", "times-start-anew.ts", "long-standing-pictures.mp4"])
def test_what_decord_shows_otherwise_pyav_decodes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = frames_of(CASES / name, 1)
    monkeypatch.setenv("VTG_DECODER", "decord")
    assert np.array_equal(frames_of(CASES / name, 1), expected)


@needs_decord
@pytest.mark.parametrize("kind", ["open groups", "hidden"])
def test_pictures_that_decord_miscounts_are_left_to_pyav(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_groups = [*Codecs["hevc"][:4], "-x265-params", "log-level=error:keyint=12:open-gop=1:bframes=3"]
    path = render(tmp_path / "film.mp4", 60, encode=open_groups if kind == "open groups" else Codecs["h264"])
    if kind == "hidden":
        whole, path = path, tmp_path / "part.mp4"
        ffmpeg("-ss", "1.6", "-i", str(whole), "-c", "copy", str(path))
    expected = frames_of(path, 10)
    monkeypatch.setenv("VTG_DECODER", "decord")
    with pytest.raises(DecodingError, match="miscounts"):
        next(iter(decord_decoder.decode(survey(path), Fraction(10), 0, 5, 64, 64, 5)))
    assert np.array_equal(frames_of(path, 10), expected)


def test_decord_is_missed_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTG_DECODER", "decord")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VtgError, match="decord is not installed: pip install decord2"):
        frames_of(CASES / "chapters.mp4", 1)


def test_a_wrong_decoder_is_no_fault_of_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VTG_DECODER", "pyav")  # so that what the option sets is taken back
    vtg = vtg_in_process(capsys, monkeypatch)
    words = ("index", CASES / "chapters.mp4", "--model", "demo", "--library", tmp_path / "library", "--json")
    wrong = vtg(*words, "--decoder", "quicktime")
    assert wrong.status == 1
    assert wrong.err.strip() == "vtg: VTG_DECODER=quicktime: no such decoder; choose one of pyav, decord, ffmpeg"
    monkeypatch.setenv("VTG_DECODER", "quicktime")
    assert vtg(*words).status == 1 and not (tmp_path / "library" / "features").exists()
    right = vtg(*words, "--decoder", "ffmpeg")
    assert right.status == 0 and right.json["failed"] == []


@needs_decord
@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_decord_is_loaded_late_and_only_where_it_is_asked_for(decoder: str, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom vtg.video import sample_frames\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        count = sum(len(times) for times, _ in sample_frames(path, 1, 64))\n"
        "    except Exception as error:\n        print(type(error).__name__, 'decord' in sys.modules)\n"
        "    else:\n        print(count, 'decord' in sys.modules)\n"
        "if 'decord' in sys.modules:\n"
        "    names = list(sys.modules)\n    assert names.index('torch') < names.index('decord')\n"
        "import torch\n"
        "print(float((torch.ones(64, 64) @ torch.ones(64, 64)).sum()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(CASES / "playlist-hls.mkv"), str(CASES / "chapters.mp4")],
        env={**os.environ, "VTG_DECODER": decoder, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # A file that is refused is not shown to decord.
    assert done.stdout.splitlines() == ["VideoError False", f"20 {decoder == 'decord'}", "262144.0"]
