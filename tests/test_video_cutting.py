"""Cuts say how long they are, keep their part of the chapters, and have any name that the file system takes."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import pytest
from timecode import Codecs, beeps, ffmpeg, read_code, render

from vtg.errors import VideoError, VtgError
from vtg.video import Span, concat, cut, probe, thumbnail, write_reel
from vtg.video.preview import write_poster, write_preview, write_proxy
from vtg.video.process import ffmpeg_binary
from vtg.video.writing import check_output

ENDINGS = ["mp4", "m4v", "mov", "mkv"]
CHAPTERS = ((0, 3, "One; a = b\\c #1"), (3, 7, "Zwei – 二"), (7, 12, ""))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cutting")


@pytest.fixture(scope="module")
def film(folder: Path) -> Path:
    """Twelve seconds with sound and three chapters, a keyframe every 30 pictures."""
    plain = render(folder / "plain.mp4", 300, sound=True)
    listing = folder / "chapters.txt"
    escaped = [(start, end, "".join(f"\\{c}" if c in "=;#\\" else c for c in title)) for start, end, title in CHAPTERS]
    parts = [f"[CHAPTER]\nTIMEBASE=1/1\nSTART={start}\nEND={end}\ntitle={title}\n" for start, end, title in escaped]
    listing.write_text(";FFMETADATA1\n" + "".join(parts), encoding="utf-8")
    out = folder / "film.mp4"
    ffmpeg("-i", str(plain), "-i", str(listing), "-map", "0", "-map_chapters", "1", "-c", "copy", str(out))
    return out


@pytest.fixture(scope="module")
def slides(folder: Path) -> Path:
    """Six pictures of 20 s each with a beep at every whole second, and times in milliseconds."""
    path = folder / "slides.mkv"
    return render(path, 6, "-bf", "0", "-fps_mode", "vfr", rate="1/20", sound=True)


def chapters_of(path: Path) -> list[tuple[float, float, str]]:
    with av.open(str(path)) as container:
        return [
            (
                round(float(one["start"] * one["time_base"]), 2),
                round(float(one["end"] * one["time_base"]), 2),
                one["metadata"].get("title", ""),
            )
            for one in container.chapters()
        ]


def lengths_of(path: Path) -> list[float]:
    """What the container and each of its streams say, seconds."""
    with av.open(str(path)) as container:
        lengths = [container.duration / av.time_base]
        lengths += [float(one.duration * one.time_base) for one in container.streams if one.duration]
        return lengths


def pictures_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))


# Lengths


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_cut_says_how_long_it_is_and_has_its_chapters(ending: str, film: Path, tmp_path: Path) -> None:
    clip = cut(film, 2, 4, tmp_path / f"clip.{ending}").path
    # Matroska has no place for what an AAC encoder puts in front: 21 ms.
    assert lengths_of(clip) == pytest.approx([2.0] * len(lengths_of(clip)), abs=0.025)
    assert pictures_in(clip) == 50
    assert chapters_of(clip) == [(0, 1, CHAPTERS[0][2]), (1, 2, CHAPTERS[1][2])]


def test_the_case_of_a_film_with_chapters(shared: Path, tmp_path: Path) -> None:
    clip = cut(shared / "cases" / "chapters.mp4", 2, 4, tmp_path / "clip.mp4").path
    assert lengths_of(clip) == pytest.approx([2.0] * 4, abs=0.002)
    assert chapters_of(clip) == [(0, 1, "One"), (1, 2, "Two")]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_copied_cut_has_its_chapters(ending: str, film: Path, tmp_path: Path) -> None:
    clip = cut(film, 2.5, 4, tmp_path / f"clip.{ending}", copy=True)
    assert clip.start == pytest.approx(2.4)
    assert max(lengths_of(clip.path)) < clip.end - clip.start + 0.2
    first, second = chapters_of(clip.path)
    assert first == pytest.approx((0, 0.6, CHAPTERS[0][2]), abs=0.01)
    assert second == pytest.approx((0.6, clip.end - clip.start, CHAPTERS[1][2]), abs=0.01)


def test_a_cut_within_one_chapter_has_one_and_reels_have_their_own(film: Path, tmp_path: Path) -> None:
    assert chapters_of(cut(film, 8, 9, tmp_path / "a.mp4").path) == [(0, 1, "")]
    assert chapters_of(write_preview(film, 2, 4, tmp_path / "b.mp4")) == [
        (0, 1, CHAPTERS[0][2]),
        (1, 2, CHAPTERS[1][2]),
    ]
    assert chapters_of(write_proxy(film, tmp_path / "c.mp4")) == [(float(a), float(b), t) for a, b, t in CHAPTERS]
    assert chapters_of(concat([film, film], tmp_path / "d.mp4")) == []
    spans = [Span(film, 2, 4, chapter="First"), Span(film, 8, 9, chapter="Second")]
    assert chapters_of(write_reel(spans, tmp_path / "e.mp4").path) == [(0, 2, "First"), (2, 3, "Second")]


def test_a_cut_without_chapters_has_none(folder: Path, tmp_path: Path) -> None:
    for copy in (False, True):
        assert chapters_of(cut(folder / "plain.mp4", 2, 4, tmp_path / "a.mp4", copy=copy).path) == []


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_picture_that_stands_long_is_cut_where_it_was_asked_for(ending: str, slides: Path, tmp_path: Path) -> None:
    assert probe(slides).duration == 120
    clip = cut(slides, 25, 27, tmp_path / f"one.{ending}")
    assert (clip.start, clip.end) == (25, 27)
    assert lengths_of(clip.path) == pytest.approx([2.0] * len(lengths_of(clip.path)), abs=0.03)
    assert pictures_in(clip.path) == 1 and read_code(thumbnail(clip.path, 1.9, 96)) == 1
    assert beeps(clip.path) == pytest.approx([0, 1], abs=0.04)
    clip = cut(slides, 38, 43, tmp_path / f"two.{ending}")
    assert lengths_of(clip.path) == pytest.approx([5.0] * len(lengths_of(clip.path)), abs=0.03)
    assert [read_code(thumbnail(clip.path, time, 96)) for time in (0, 1.9, 2.1, 4.9)] == [1, 1, 2, 2]
    preview = write_preview(slides, 38, 43, tmp_path / "preview.mp4")
    assert lengths_of(preview) == pytest.approx([5.0] * 3, abs=0.03)
    reel = write_reel([Span(slides, 38, 43), Span(slides, 1, 3)], tmp_path / f"reel.{ending}")
    assert reel.duration == 7 and lengths_of(reel.path)[0] == pytest.approx(7, abs=0.03)
    assert [read_code(thumbnail(reel.path, time, 96)) for time in (0, 1.8, 2.2, 4.8, 5.2, 6.8)] == [1, 1, 2, 2, 0, 0]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("clock", ["1/1000", "1/90000", "1001/30000"])
def test_a_variable_picture_rate_is_cut_as_it_is(ending: str, clock: str, folder: Path, tmp_path: Path) -> None:
    path = folder / f"variable-{clock.replace('/', '-')}.mp4"
    if not path.exists():
        # Two pictures at each end of a quarter second, then a pause.
        times = f"settb={clock},setpts='round((floor(N/2)*0.25+mod(N,2)*1001/30000)/TB)'"
        scale = ("-video_track_timescale", str(Fraction(clock).denominator))
        render(path, 40, "-vf", times, "-fps_mode", "vfr", "-enc_time_base", clock, *scale)
    clip = cut(path, 1.02, 2.99, tmp_path / f"clip.{ending}").path
    with av.open(str(clip)) as container:
        shown = sorted(
            float(packet.pts * packet.time_base) for packet in container.demux(video=0) if packet.pts is not None
        )
    expected = [quarter / 4 + late * 1001 / 30000 for quarter in range(8) for late in (0, 1)]
    assert [time - shown[0] for time in shown] == pytest.approx(expected, abs=0.035 if clock == "1001/30000" else 0.002)
    assert lengths_of(clip)[0] == pytest.approx(1.99, abs=0.003)


def test_a_timecode_of_the_start_is_not_taken_for_that_of_a_part(folder: Path, tmp_path: Path) -> None:
    camera = render(folder / "camera.mov", 100, "-timecode", "01:00:00:00")
    for copy in (False, True):
        clip = cut(camera, 2, 3, tmp_path / "clip.mov", copy=copy).path
        with av.open(str(clip)) as container:
            said = [container.metadata, *(stream.metadata for stream in container.streams)]
        assert not any("timecode" in one for one in said)
        assert len(lengths_of(clip)) == 2  # the container and its pictures


# Names


LONGEST = 255  # bytes


def long_name(ending: str, extra: int = 0) -> str:
    """A name of just as many bytes as file systems take, most of them in letters of three bytes."""
    room = LONGEST - len(ending) + extra
    return "x" * (room % 3) + "映" * (room // 3) + ending


def test_names_may_be_as_long_as_the_file_system_takes(film: Path, tmp_path: Path) -> None:
    source = tmp_path / long_name(".mp4")
    source.write_bytes(film.read_bytes())
    made = tmp_path / "made"
    made.mkdir()
    video, poster = made / long_name(".mp4"), made / long_name(".jpg")
    for copy in (False, True):
        assert cut(source, 2, 4, video, copy=copy).path == video
    write_reel([Span(source, 2, 4, "caption", "chapter")], video)
    concat([source, source], video)
    write_preview(source, 2, 4, video)
    write_proxy(source, video)
    write_poster(source, 2, poster)
    assert sorted(made.iterdir()) == sorted([video, poster])


def test_longer_names_are_refused_in_one_line(film: Path, tmp_path: Path) -> None:
    video = tmp_path / long_name(".mp4", extra=1)
    for write in (
        lambda: cut(film, 2, 4, video),
        lambda: write_reel([Span(film, 2, 4)], video),
        lambda: concat([film], video),
        lambda: write_preview(film, 2, 4, video),
        lambda: write_proxy(film, video),
        lambda: write_poster(film, 2, video),
    ):
        with pytest.raises(VtgError, match="more than 255 bytes") as caught:
            write()
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# Copying


@pytest.mark.parametrize(
    ("name", "options", "ending", "said"),
    [
        ("vp8.webm", ["-c:v", "libvpx", "-deadline", "realtime"], ".mov", "vp8 video cannot be copied into .mov"),
        ("vp8.webm", ["-c:v", "libvpx", "-deadline", "realtime"], ".mp4", "vp8 video cannot be copied into .mp4"),
        ("wma.mkv", [*Codecs["h264"], "-c:a", "wmav2"], ".mp4", "wmav2 audio cannot be copied into .mp4"),
        ("raw.avi", ["-c:v", "huffyuv", "-pix_fmt", "rgb24"], ".m4v", "huffyuv video cannot be copied into .m4v"),
    ],
)
def test_a_container_that_cannot_hold_a_codec_is_named(
    name: str, options: list[str], ending: str, said: str, folder: Path, tmp_path: Path
) -> None:
    source = folder / name
    if not source.exists():
        sound = ["-f", "lavfi", "-i", "sine=d=3"] if "-c:a" in options else []
        ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x72:r=10:d=3", *sound, *options, str(source))
    with pytest.raises(VtgError, match=said) as caught:
        cut(source, 1, 2, tmp_path / f"clip{ending}", copy=True)
    message = str(caught.value)
    assert message.startswith(str(source)) and "\n" not in message and ".mkv" in message and "--copy" in message
    assert list(tmp_path.iterdir()) == []
    assert cut(source, 1, 2, tmp_path / "clip.mkv", copy=True).path.exists()
    assert cut(source, 1, 2, tmp_path / f"again{ending}").path.exists()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Error writing trailer of whole.mp4: No space left on device\n", OSError),
        ("[out#0/mp4 @ 0x1] Error closing file: Read-only file system\n", OSError),
        ("av_interleaved_write_frame(): Invalid argument\n", VideoError),
        ("", VideoError),  # and no picture in it
    ],
)
def test_what_ffmpeg_has_not_written_whole_is_no_film(tmp_path: Path, said: str, error: type[Exception]) -> None:
    out = tmp_path / "whole.mp4"
    out.write_bytes(b"half")
    with pytest.raises(error):
        check_output(out, "source.mp4", 0, said)


def test_a_stretch_without_a_picture_that_can_be_decoded_is_refused(film: Path, tmp_path: Path) -> None:
    """The sound alone would be written, under a film's name."""
    sound = tmp_path / "whole.mp4"
    subprocess.run(
        [ffmpeg_binary(), "-v", "error", "-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", str(sound)], check=True
    )
    with pytest.raises(VideoError, match=f"{film.name}: has no frame in this range"):
        check_output(sound, film, 0, "")
