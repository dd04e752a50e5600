"""Reels: stretches of one video or several in one file, exact to the frame, in sync, with captions and chapters."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from timecode import Codecs, beeps, ffmpeg, read_codes, render, turned

from vtg.errors import VideoError, VtgError
from vtg.progress import Progress
from vtg.video import Reel, Span, joining, probe, probing, sample_frames, write_reel
from vtg.video.captions import font, render_caption, wrap_text
from vtg.video.cuts import CutFinder, strongest_cut
from vtg.video.process import ffmpeg_binary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


@pytest.fixture(scope="module")
def talkie(folder: Path) -> Path:
    """Twelve seconds at 25 fps, a keyframe every 30 pictures, a beep at every whole second."""
    return render(folder / "talkie.mp4", 300, sound=True)


def pictures(path: Path) -> np.ndarray:
    """All pictures of a file, [N, H, W, 3]."""
    info = probe(path)
    raw = ffmpeg("-i", str(path), "-map", "0:V:0", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1")
    return np.frombuffer(raw, np.uint8).reshape(-1, info.height, info.width, 3)


def codes_of(path: Path) -> list[int]:
    return read_codes(pictures(path))


def sound_seconds(path: Path) -> float:
    """How long the sound of a file is, decoded."""
    return len(ffmpeg("-i", str(path), "-map", "0:a:0", "-ac", "1", "-ar", "8000", "-f", "f32le", "pipe:1")) / 4 / 8000


def test_every_stretch_is_exact_to_the_frame(talkie: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    spans = [Span(talkie, 1.2, 2.4), Span(talkie, 7.0, 7.04), Span(talkie, 0.0, 1.0), Span(talkie, 11.0, 12.0)]
    reel = write_reel(spans, tmp_path / "reel.mp4", progress=lambda state: shares.append(state.share))
    assert codes_of(reel.path) == [*range(30, 60), 175, *range(25), *range(275, 300)]
    assert reel == Reel(tmp_path / "reel.mp4", (0.0, 1.2, 1.24, 2.24), 3.24)
    assert probe(reel.path).duration == pytest.approx(3.24, abs=1e-3)
    assert shares == sorted(shares) and shares[-1] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["reel.mp4"]


def test_sound_stays_in_sync_to_the_end(talkie: Path, tmp_path: Path) -> None:
    # Stretches whose lengths are no whole number of pictures: what rounding leaves must not add up.
    spans = [Span(talkie, 0.5 + 0.01 * i, 1.513 + 0.01 * i) for i in range(30)]
    reel = write_reel(spans, tmp_path / "reel.mp4")
    assert reel.duration == pytest.approx(30 * 1.013, abs=0.02)
    assert probe(reel.path).duration == pytest.approx(reel.duration, abs=0.002)
    assert sound_seconds(reel.path) == pytest.approx(reel.duration, abs=0.04)
    # Picture 25 is shown, and a beep sounds, at 1 s of the source.
    codes, heard = codes_of(reel.path), beeps(reel.path)
    shown = [i / 25 for i, code in enumerate(codes) if code == 25]
    assert len(shown) == len(heard) == 30
    assert np.abs(np.array(shown) - heard).max() <= 0.04


def test_sound_does_not_drift_where_picture_rates_differ(talkie: Path, folder: Path, tmp_path: Path) -> None:
    other = render(folder / "film-rate.mp4", 150, sound=True, rate="30000/1001")
    sources = [(talkie, 25.0), (other, 30000 / 1001)]
    spans = [Span(sources[i % 2][0], 0.5 + 0.004 * i, 1.713 + 0.004 * i) for i in range(40)]
    reel = write_reel(spans, tmp_path / "reel.mp4")
    assert reel.duration == pytest.approx(40 * 1.213, abs=0.02)
    assert sound_seconds(reel.path) == pytest.approx(reel.duration, abs=0.04)
    # A stretch begins with the picture shown at its start, to the millisecond, which may have appeared earlier.
    begun = [np.floor((span.start + 0.001) * sources[i % 2][1]) / sources[i % 2][1] for i, span in enumerate(spans)]
    expected = [start + 1.0 - begin for start, begin in zip(reel.starts, begun, strict=True)]
    heard = beeps(reel.path)
    assert len(heard) == 40 and np.abs(np.array(heard) - expected).max() <= 0.02


def test_sources_that_differ_become_one_form(talkie: Path, folder: Path, tmp_path: Path) -> None:
    silent = render(folder / "silent.mkv", 36, rate="12", size=(48, 64), encode=Codecs["vp9"], first=1000)
    base = render(folder / "base.mp4", 60, "-vf", "transpose=2", rate="30", size=(80, 120), first=2000)
    upright = turned(base, folder / "turned.mp4", 90)
    assert probe(upright).rotation == 90
    spans = [Span(silent, 1.0, 2.5), Span(talkie, 2.0, 4.0), Span(upright, 0.5, 1.5), Span(talkie, 5.0, 6.0)]
    reel = write_reel(spans, tmp_path / "reel.mp4")
    info = probe(reel.path)
    assert (info.width, info.height, info.audio, info.rotation) == (80, 120, "aac", 0)
    assert info.fps == 30 and info.duration == pytest.approx(5.5, abs=0.002)
    frames = pictures(reel.path)
    assert read_codes(frames[105:135]) == list(range(2015, 2045))
    # Wider than the form: black above and below, the picture's own square in the middle.
    wide = frames[60]
    assert wide[:25].max() < 30 and wide[-25:].max() < 30 and wide[30:90].max() > 200
    assert read_codes([wide[30:90]]) == [62]
    # A beep at every whole second of the talkie; silence where there is no sound.
    assert beeps(reel.path) == pytest.approx([1.5, 2.5, 4.5], abs=0.04)
    assert sound_seconds(reel.path) == pytest.approx(5.5, abs=0.04)


def test_only_what_is_near_a_stretch_is_decoded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = render(folder / "long.mp4", 1500, sound=True)
    monkeypatch.setattr(probing, "SMALL_FILE_BYTES", 0)  # as if it were too large to list
    read: list[int] = []
    write = joining.write

    def counted(output: object, sources: object, out: Path, *rest: object) -> None:
        log = tmp_path / "decoded.txt"
        command = output.global_args("-hide_banner", "-v", "verbose").overwrite_output()  # type: ignore[attr-defined]
        said = subprocess.run(command.compile(cmd=ffmpeg_binary()), capture_output=True, text=True, check=True).stderr
        read.append(int(re.findall(r"Input stream #0:0 \(video\): .*? (\d+) frames decoded", said)[0]))
        log.unlink(missing_ok=True)
        write(output, sources, out, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(joining, "write", counted)
    reel = write_reel([Span(long, 50.0, 51.0), Span(long, 20.4, 20.8)], tmp_path / "reel.mp4")
    assert codes_of(reel.path) == [*range(1250, 1275), *range(510, 520)]
    # From the keyframe a second before, 30 pictures apart, and what decoder threads have begun on when enough is there.
    assert all(frames < 25 + 2 * 30 + 25 + 60 for frames in read), read


def test_a_fade_comes_out_of_black_and_goes_back(talkie: Path, tmp_path: Path) -> None:
    reel = write_reel([Span(talkie, 2.0, 4.0), Span(talkie, 6.0, 8.0)], tmp_path / "reel.mp4", fade=0.4)
    bright = pictures(reel.path).astype(float).mean(axis=(1, 2, 3))
    assert len(bright) == 100
    source = pictures(talkie).astype(float).mean(axis=(1, 2, 3))
    for first, shown in ((0, 50), (50, 150)):
        share = bright[first : first + 50] / source[shown : shown + 50]
        assert share[0] < 0.1 and share[-1] < 0.25
        assert share[12:38] == pytest.approx(1.0, abs=0.1)
        assert share[1] < share[3] < share[5] < share[8] and share[41] > share[44] > share[47]
    brief = write_reel([Span(talkie, 2.0, 2.4)], tmp_path / "brief.mp4", fade=5.0)
    assert len(pictures(brief.path)) == 10


def test_a_caption_is_written_at_the_bottom_of_its_stretch(folder: Path, tmp_path: Path) -> None:
    plain = folder / "blue.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=blue:s=320x240:r=10:d=2", *Codecs["h264"], str(plain))
    spans = [Span(plain, 0.0, 1.0, caption="Äpfel: 50% of 'it', \\ and a line that is far too long to fit")]
    reel = write_reel([*spans, Span(plain, 1.0, 2.0)], tmp_path / "reel.mp4")
    frames = pictures(reel.path)
    assert len(frames) == 20
    captioned, bare = frames[5], frames[15]
    assert np.abs(captioned[:170].astype(int) - bare[:170]).max() < 20
    assert captioned[180:].min(axis=2).max() > 180 > bare[180:].min(axis=2).max()


def test_words_are_wrapped_and_cut_off_where_there_is_no_room() -> None:
    letters = font(20)
    lines = wrap_text("one two three four five six seven eight nine ten eleven twelve", 150, letters, max_lines=2)
    assert len(lines) == 2 and lines[0].startswith("one two") and lines[1].endswith("…")
    assert all(letters.getlength(line) <= 150 for line in [*lines, *wrap_text("W" * 100, 150, letters)])
    picture = render_caption("hello", 400, 200)
    assert picture.shape[2] == 4 and picture.shape[1] < 150 and picture[..., 3].min() > 0


def test_chapters_are_in_the_file(talkie: Path, tmp_path: Path) -> None:
    titles = ["a red circle", "a red circle", "50% = half; #1 \\ ü"]
    spans = [Span(talkie, 2.0 * i, 2.0 * i + 1.0, chapter=title) for i, title in enumerate(titles)]
    for name in ("reel.mp4", "reel.mkv"):
        reel = write_reel(spans, tmp_path / name)
        said = subprocess.run([ffmpeg_binary(), "-i", str(reel.path)], capture_output=True, check=False).stderr.decode()
        found = re.findall(r"Chapter #0:\d+: start ([\d.]+), end ([\d.]+)\s+Metadata:\s+title +: (.*)", said)
        times = [(float(start), float(end)) for start, end, _ in found]
        assert np.array(times) == pytest.approx(np.array([(0.0, 2.0), (2.0, 3.0)]), abs=0.03)
        assert [title.strip() for _, _, title in found] == [titles[0], titles[2]]
        assert probe(reel.path).duration == pytest.approx(3.0, abs=0.01)


def test_impossible_reels_are_refused(talkie: Path, tmp_path: Path) -> None:
    for spans, out, reason in (
        ([], tmp_path / "x.mp4", "at least one"),
        ([Span(talkie, 3.0, 2.0)], tmp_path / "x.mp4", "nothing lies between"),
        ([Span(talkie, 3.0, 20.0)], tmp_path / "x.mp4", "is not in the video"),
        ([Span(talkie, 0.0, 1.0)], talkie, "overwrite"),
        ([Span(talkie, 0.0, 1.0)], tmp_path / "x.gif", "endings"),
    ):
        with pytest.raises(VtgError, match=reason) as caught:
            write_reel(spans, out)
        assert "\n" not in str(caught.value)
    with pytest.raises(VtgError, match="fade"):
        write_reel([Span(talkie, 0.0, 1.0)], tmp_path / "x.mp4", fade=-1.0)
    with pytest.raises(VideoError, match="no such file"):
        write_reel([Span(tmp_path / "none.mp4", 0.0, 1.0)], tmp_path / "x.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_reel_that_fails_leaves_the_old_file_alone(talkie: Path, tmp_path: Path) -> None:
    out = tmp_path / "reel.mp4"
    out.write_bytes(b"precious")

    def stop(state: Progress) -> None:
        raise RuntimeError("stopped by the user")

    with pytest.raises(RuntimeError):
        write_reel([Span(talkie, 0.0, 2.0)], out, progress=stop)
    assert out.read_bytes() == b"precious" and [file.name for file in tmp_path.iterdir()] == ["reel.mp4"]


# Cuts


def test_a_cut_is_found_to_the_picture(folder: Path) -> None:
    path = folder / "cuts.mp4"
    red, green = (f"color={colour}:s=64x48:r=25:d=2.12" for colour in ("red", "green"))
    join = ["-filter_complex", "[0][1]concat=n=2[v]", "-map", "[v]"]
    ffmpeg("-f", "lavfi", "-i", red, "-f", "lavfi", "-i", green, *join, *Codecs["h264"], str(path))
    finder = CutFinder(path)
    assert finder.find_near(2.0, 1.5) == pytest.approx(2.12)
    assert finder.find_near(3.5, 1.0) is None
    assert finder.find_near(0.0, 0.01) is None
    _, frames = next(sample_frames(path, 25, 32, 2.0, 2.24))
    assert strongest_cut(frames) == 3


def test_only_a_change_that_stands_out_is_a_cut() -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    assert strongest_cut(noise) is None  # all change as much
    assert strongest_cut(np.zeros((20, 8, 8, 3), np.uint8)) is None
    ramp = np.broadcast_to(np.arange(0, 200, 10, dtype=np.uint8)[:, None, None, None], (20, 8, 8, 3))
    assert strongest_cut(ramp) is None  # a fade
    assert strongest_cut(np.zeros((1, 8, 8, 3), np.uint8)) is None
