"""Files with the traits of public bug reports give what a player shows, with the bundled ffmpeg and with another."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from timecode import Codecs, ffmpeg, read_code, read_codes, render

from vtg.errors import VideoError
from vtg.video import Span, concat, cut, probe, pyav_decoder, sample_frames, thumbnail, write_reel
from vtg.video.preview import write_poster, write_preview, write_proxy
from vtg.video.probing import survey
from vtg.video.process import ffmpeg_binary

CASES = Path(__file__).with_name("data") / "cases"
MEGABYTE = 1 << 20
MPEG2 = ["-c:v", "mpeg2video", "-q:v", "2", "-g", "12", "-bf", "2"]
FFMPEG_ON_PATH = shutil.which("ffmpeg")


def use_ffmpeg(which: str, monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
    if which == "bundled":
        monkeypatch.setenv("PATH", str(empty))
    elif FFMPEG_ON_PATH is None:
        pytest.skip("no ffmpeg is on the path")
    ffmpeg_binary.cache_clear()


@pytest.fixture(params=["bundled", "on the path"])
def either_ffmpeg(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The ffmpeg binary that imageio-ffmpeg brings, and the one of the system, which may be years older."""
    use_ffmpeg(request.param, monkeypatch, tmp_path_factory.mktemp("empty"))
    yield
    ffmpeg_binary.cache_clear()


@pytest.fixture(params=["pyav", "bundled", "on the path"])
def decoder(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """PyAV decodes, or one of the two binaries alone."""
    if request.param != "pyav":
        use_ffmpeg(request.param, monkeypatch, tmp_path_factory.mktemp("empty"))
        monkeypatch.setenv("VTG_DECODER", "ffmpeg")
    yield
    ffmpeg_binary.cache_clear()


def sampled(path: Path, fps: float, size: int = 64) -> np.ndarray:
    return np.concatenate([frames for _, frames in sample_frames(path, fps, size)])


def mean_colours(frames: np.ndarray) -> np.ndarray:
    """[N, 3]."""
    return frames.reshape(len(frames), -1, 3).mean(axis=1)


def picked_by_fps_filter(path: Path, fps: float, size: int = 64) -> np.ndarray:
    """What FFmpeg's own fps filter picks, square."""
    fit = f"scale={size}:{size}:flags=bicubic,format=rgb24"
    raw = ffmpeg(
        *("-i", str(path), "-map", "0:V:0", "-vf", f"setpts=PTS-STARTPTS,fps={fps}:round=near,{fit}"),
        *("-f", "rawvideo", "pipe:1"),
    )
    return np.frombuffer(raw, np.uint8).reshape(-1, size, size, 3)


def peak_memory(code: str, *arguments: object, seconds: float = 120.0) -> int:
    """Runs Python code; gives the most bytes that any one of its processes held."""
    process = psutil.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.DEVNULL)
    peak, deadline = 0, time.monotonic() + seconds
    while process.poll() is None:
        assert time.monotonic() < deadline, "takes too long"
        for member in (process, *_children(process)):
            try:
                peak = max(peak, member.memory_info().rss)
            except psutil.Error:
                continue
        time.sleep(0.01)
    assert process.returncode == 0
    return peak


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


# Facts


def test_a_timecode_track_hides_no_pictures(either_ffmpeg: None) -> None:
    info = probe(CASES / "timecode-track.mp4")
    assert (info.duration, info.fps, info.codec, info.timecode) == (5.0, 25.0, "h264", "01:00:00:00")
    assert len(sampled(CASES / "timecode-track.mp4", 1)) == 5


@pytest.mark.parametrize(
    ("given", "rate", "ending", "read"),
    [
        ("01:00:00:00", "25", "mov", "01:00:00:00"),
        ("00:59:59;28", "30000/1001", "mov", "00:59:59;28"),
        ("10:00:00:12", "25", "mxf", "10:00:00:12"),
        ("10:00:00;02", "30000/1001", "mxf", "10:00:00;02"),
    ],
)
def test_the_start_timecode_is_read(given: str, rate: str, ending: str, read: str, tmp_path: Path) -> None:
    encode = Codecs["h264"] if ending == "mov" else MPEG2
    path = render(tmp_path / f"coded.{ending}", 30, "-timecode", given, rate=rate, encode=encode)
    assert probe(path).timecode == read


def test_what_is_known_does_not_depend_on_the_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtg.video.process.Pipe", lambda *_, **__: pytest.fail("ffmpeg was run"))
    for path in sorted(CASES.glob("*.m*")):
        if path.stem.startswith(("damaged", "playlist")):
            with pytest.raises(VideoError):
                survey(path)
        else:
            assert survey(path).info.duration > 0


# Orientation


def test_a_mirrored_video_is_shown_as_players_do(decoder: None, tmp_path: Path) -> None:
    path = CASES / "mirrored.mp4"
    info = probe(path)
    assert (info.rotation, info.mirrored, info.width, info.height) == (0, True, 96, 72)
    with av.open(str(path)) as container:
        stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    expected = np.flipud(stored[25]).astype(int)
    assert np.abs(thumbnail(path, 1.0, 96) - expected).mean() < 3
    clip = cut(path, 1.0, 2.0, tmp_path / "clip.mp4").path
    reel = write_reel([Span(path, 1.0, 2.0)], tmp_path / "reel.mp4").path
    preview = write_preview(path, 1.0, 2.0, tmp_path / "preview.mp4")
    for written in (clip, reel, preview):
        assert not probe(written).mirrored
        assert np.abs(thumbnail(written, 0.0, 96) - expected).mean() < 6
    proxy = write_proxy(path, tmp_path / "proxy.mp4", reencode=True)
    assert np.abs(thumbnail(proxy, 1.0, 96) - expected).mean() < 6
    from PIL import Image

    poster = np.asarray(Image.open(write_poster(path, 1.0, tmp_path / "poster.jpg", side=96)))
    assert np.abs(poster - expected).mean() < 12


@pytest.mark.parametrize(
    "matrix",
    [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)],
)
def test_every_turn_and_reflection_is_shown(matrix: tuple[int, ...], decoder: None, tmp_path: Path) -> None:
    stored = render(tmp_path / "stored.mp4", 30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(with_matrix(stored.read_bytes(), matrix))
    expected = _applied(matrix, thumbnail(stored, 0.5, 96)).astype(int)
    shown = thumbnail(path, 0.5, 96)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).mean() < 3
    clip = cut(path, 0.48, 1.0, tmp_path / "clip.mp4").path
    assert np.abs(thumbnail(clip, 0.0, 96) - expected).mean() < 6


def _applied(matrix: tuple[int, ...], picture: np.ndarray) -> np.ndarray:
    """The picture as the matrix shows it: (x, y) goes to (a·x + c·y, b·x + d·y)."""
    a, b, c, d = matrix
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    x, y = a * columns + c * rows, b * columns + d * rows
    x, y = x - x.min(), y - y.min()
    shown = np.zeros((y.max() + 1, x.max() + 1, 3), np.uint8)
    shown[y, x] = picture
    return shown


def with_matrix(data: bytes, matrix: tuple[int, ...]) -> bytes:
    """An MP4 whose first track has another display matrix."""
    header = data.index(b"tkhd")
    place = header + 4 + 40  # behind version and flags, times, id, duration, layer, group and volume
    a, b, c, d = (value * 65536 for value in matrix)
    words = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return data[:place] + b"".join(word.to_bytes(4, "big", signed=True) for word in words) + data[place + 36 :]


# Times


def test_times_that_begin_anew_are_continued(decoder: None, tmp_path: Path) -> None:
    path = CASES / "times-start-anew.ts"
    assert probe(path).duration == 40
    ours = sampled(path, 0.5)
    picked = picked_by_fps_filter(path, 0.5)
    assert len(ours) == len(picked) == 20
    assert np.abs(ours.astype(int) - picked).mean(axis=(1, 2, 3)).max() < 1
    red, blue = ours[2:4].astype(int), ours[12:14].astype(int)
    assert ((red[..., 0] > 150) & (red[..., 1] < 100) & (red[..., 2] < 100)).any(axis=(1, 2)).all()
    assert ((blue[..., 2] > 150) & (blue[..., 0] < 100)).any(axis=(1, 2)).all()
    assert np.abs(thumbnail(path, 25.0, 64).astype(int) - ours[12]).mean() < 20
    clip = cut(path, 24.0, 28.0, tmp_path / "clip.mp4")
    assert (clip.start, clip.end, probe(clip.path).duration) == (24.0, 28.0, 4.0)
    assert np.abs(mean_colours(sampled(clip.path, 0.5)) - mean_colours(ours[12:14])).max() < 4


@pytest.mark.parametrize(
    ("ending", "offsets", "gap"),
    [
        ("ts", (0, 0), 0),  # begins anew
        ("mpg", (0, 0), 0),
        ("ts", (100, 3), 0),  # goes back
        ("ts", (0, 24), 0),  # jumps ahead by 20 s
        ("mpg", (0, 24), 0),
        ("ts", (0, 4004), 0),
        ("ts", (0, 9), 123),  # a gap in which a picture stands
    ],
)
def test_joined_recordings_play_one_after_the_other(
    ending: str, offsets: tuple[int, int], gap: int, decoder: None, tmp_path: Path
) -> None:
    path = joined(tmp_path, offsets, ending)
    expected = [*range(100), *[99] * gap, *range(500, 600)]
    codes = read_codes(sampled(path, 25))
    # Where one ends and the next begins, a picture may be missing or stand for two.
    assert codes[:98] == expected[:98] and codes[-95:] == expected[-95:]
    assert abs(len(codes) - len(expected)) <= 2
    assert probe(path).duration == pytest.approx(len(expected) / 25, abs=0.1)
    assert read_code(thumbnail(path, 1.0, 96)) == 25
    assert read_code(thumbnail(path, len(codes) / 25 - 1.0, 96)) in range(574, 577)
    later = [code for _, frames in sample_frames(path, 25, 64, start=2.0) for code in read_codes(frames)]
    assert later == codes[50:]


def joined(folder: Path, offsets: tuple[int, ...], ending: str) -> Path:
    encode = Codecs["h264"] if ending == "ts" else MPEG2
    content = b""
    for number, offset in enumerate(offsets):
        timing = ("-output_ts_offset", str(offset), "-muxdelay", "0")
        part = render(folder / f"part{number}.{ending}", 100, *timing, encode=encode, first=500 * number)
        content += part.read_bytes()
    path = folder / f"joined.{ending}"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("ending", ["ts", "mpg"])
def test_clips_of_joined_recordings_are_exact(ending: str, either_ffmpeg: None, tmp_path: Path) -> None:
    path = joined(tmp_path, (0, 0), ending)
    every = read_codes(sampled(path, 25))
    clip = cut(path, 3.2, 4.8, tmp_path / "clip.mp4")
    assert read_codes(sampled(clip.path, 25)) == every[80:120]
    reel = write_reel([Span(path, 5.0, 6.0), Span(path, 1.0, 2.0)], tmp_path / "reel.mp4")
    assert read_codes(sampled(reel.path, 25)) == every[125:150] + every[25:50]
    with pytest.raises(VideoError, match="start again"):
        cut(path, 3.2, 4.8, tmp_path / "copied.mkv", copy=True)
    whole = concat([path], tmp_path / "whole.mp4")
    assert probe(whole).duration == pytest.approx(8.0, abs=0.1)


def test_pictures_that_stand_cost_nothing(decoder: None) -> None:
    code = (
        "import sys\nfrom vtg.video import sample_frames, thumbnail\n"
        "thumbnail(sys.argv[1], 50.0, 480)\n"
        "assert sum(len(times) for times, _ in sample_frames(sys.argv[1], 0.5, 224)) == 40"
    )
    assert peak_memory(code, CASES / "long-standing-pictures.mp4") < 400 * MEGABYTE


def test_a_gap_of_hours_costs_nothing(decoder: None, tmp_path: Path) -> None:
    path = tmp_path / "gap.mkv"
    late = "if(lt(N,20),N/10,N/10+3*3600)/TB"
    render(path, 40, "-vf", f"settb=1/1000,setpts='{late}'", "-fps_mode", "vfr", "-enc_time_base", "1/1000", rate="10")
    assert probe(path).duration == pytest.approx(3 * 3600 + 4, abs=0.2)
    assert read_codes([thumbnail(path, time, 96) for time in (1.05, 5000.0, 3 * 3600 + 3.05)]) == [10, 19, 30]
    started = time.monotonic()
    assert read_codes(sampled(path, 0.1)) == [19] * 1080
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(("start", "end"), [(3.0, 5.0), (18.0, 23.0), (70.0, 80.0)])
def test_a_clip_of_a_standing_picture_is_as_long_as_asked(
    start: float, end: float, either_ffmpeg: None, tmp_path: Path
) -> None:
    path = CASES / "long-standing-pictures.mp4"
    clip = cut(path, start, end, tmp_path / "clip.mp4")
    assert (clip.start, clip.end) == (start, end)
    preview = write_preview(path, start, end, tmp_path / "preview.mp4")
    for written in (clip.path, preview):
        assert probe(written).duration == pytest.approx(end - start, abs=0.11)
        assert np.abs(thumbnail(written, 0.0, 32).astype(int) - thumbnail(path, start, 32)).mean() < 8


# Damage, size, playlists


@pytest.mark.parametrize("name", ["damaged-endless.avi", "damaged-129-days.mp4"])
def test_times_that_claim_years_are_refused(name: str, either_ffmpeg: None, tmp_path: Path) -> None:
    for attempt in (
        lambda: probe(CASES / name),
        lambda: list(sample_frames(CASES / name, 0.5, 64)),
        lambda: cut(CASES / name, 0, 2, tmp_path / "clip.mp4"),
        lambda: write_reel([Span(CASES / name, 0, 2)], tmp_path / "reel.mp4"),
        lambda: write_proxy(CASES / name, tmp_path / "proxy.mp4"),
    ):
        started = time.monotonic()
        with pytest.raises(VideoError, match="is damaged") as caught:
            attempt()
        assert "\n" not in str(caught.value) and time.monotonic() - started < 10
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_the_largest_pictures_are_decoded_within_the_limit(either_ffmpeg: None) -> None:
    code = "import sys\nfrom vtg.video import thumbnail\nassert thumbnail(sys.argv[1], 1.0, 64).shape == (64, 64, 3)"
    assert peak_memory(code, CASES / "huge-8k.mp4") < 1500 * MEGABYTE


def test_pictures_beyond_the_limit_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtg.video.limits.MAX_PIXELS", 8000 * 8000)
    with pytest.raises(VideoError, match="8192x8192 pixels; the limit is") as caught:
        probe(CASES / "huge-8k.mp4")
    assert "\n" not in str(caught.value)


def with_field(data: bytes, box: bytes, offset: int, value: int) -> bytes:
    """An MP4 with another 32-bit number at an offset behind the first name of a box."""
    place = data.index(box) + 4 + offset
    return data[:place] + value.to_bytes(4, "big") + data[place + 4 :]


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize(
    ("box", "offset", "value", "reason"),
    [
        (b"mvhd", 16, 1 << 31, ""),  # the movie's duration
        (b"mdhd", 16, 1 << 31, ""),  # the track's
        (b"mdhd", 12, 1, "is damaged"),  # ticks a second
        (b"stts", 12, 1 << 30, "is damaged"),  # ticks for which a picture is shown
        (b"stsz", 8, 1 << 29, "is not a video"),  # how many pictures there are
        (b"avc1", 24, 0xFFFFFFFF, ""),  # their size, of which their own headers know better
    ],
)
def test_numbers_of_a_header_are_not_believed(
    box: bytes, offset: int, value: int, reason: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = render(tmp_path / "whole.mp4", 100, sound=True)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(with_field(whole.read_bytes(), box, offset, value))
    if size == "large":
        monkeypatch.setattr("vtg.video.probing.SMALL_FILE_BYTES", 0)
    if reason:
        with pytest.raises(VideoError, match=reason):
            probe(path)
    else:
        assert (probe(path).duration, probe(path).width) == (4.0, 96)
        assert read_codes(sampled(path, 25)) == list(range(100))


@pytest.mark.parametrize("size", ["small", "large"])
def test_the_length_that_matroska_claims_is_held_against_its_pictures(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = render(tmp_path / "whole.mkv", 100).read_bytes()
    place = data.index(b"\x44\x89\x88") + 3  # the element of the duration, a float of 8 bytes
    path = tmp_path / "damaged.mkv"
    path.write_bytes(data[:place] + struct.pack(">d", 1e15) + data[place + 8 :])
    if size == "large":
        monkeypatch.setattr("vtg.video.probing.SMALL_FILE_BYTES", 0)
    with pytest.raises(VideoError, match="is cut short"):
        probe(path)


def test_pictures_as_narrow_as_a_line_are_refused(tmp_path: Path) -> None:
    path = render(tmp_path / "line.mkv", 3, size=(8192, 16), encode=["-c:v", "ffv1"])
    with pytest.raises(VideoError, match=r"is damaged \(its frames are 8192x16"):
        probe(path)


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\n{film}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '{film}'\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT4S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
    "<BaseURL>{film}</BaseURL></Representation></AdaptationSet></Period></MPD>\n",
    "session description": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "imf": '<?xml version="1.0"?>\n<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"/>\n',
}


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".ts", ".avi"])
@pytest.mark.parametrize("kind", list(PLAYLISTS))
def test_a_playlist_opens_no_other_file(kind: str, ending: str, decoder: None, tmp_path: Path) -> None:
    film = render(tmp_path / "film.mp4", 25)
    path = tmp_path / f"playlist{ending}"
    path.write_text(PLAYLISTS[kind].format(film=film.name))
    for attempt in (probe, lambda file: list(sample_frames(file, 1, 64)), lambda file: thumbnail(file, 0, 64)):
        with pytest.raises(VideoError, match=r"name (the|a) video file") as caught:
            attempt(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted(CASES.glob("playlist-*")), ids=lambda path: path.name)
def test_the_reported_playlists_are_refused(path: Path, either_ffmpeg: None) -> None:
    with pytest.raises(VideoError, match="is a playlist or manifest"):
        probe(path)


def test_a_pattern_is_no_sequence_of_pictures(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", str(tmp_path / "still1.png"))
    path = tmp_path / "still%d.png"
    path.write_bytes((tmp_path / "still1.png").read_bytes())
    with pytest.raises(VideoError, match="is an image"):
        probe(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no named pipes here")
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    with pytest.raises(VideoError, match="not a file"):
        probe(path)


# Decoders


def test_a_decoder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from vtg.errors import VtgError

    monkeypatch.setenv("VTG_DECODER", "quicktime")
    with pytest.raises(VtgError, match="VTG_DECODER=quicktime: no such decoder; choose one of pyav, decord, ffmpeg"):
        list(sample_frames(CASES / "start-timecode.mov", 1, 64))


def test_threads_of_a_large_picture_are_few() -> None:
    assert pyav_decoder.threads_for(survey(CASES / "huge-8k.mp4")) == 0
    assert pyav_decoder.threads_for(survey(CASES / "chapters.mp4")) >= 1
