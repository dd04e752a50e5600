"""The right picture at the right time, whatever the file; clips that are whole and in sync; errors in one line."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest
from timecode import Codecs, beeps, ffmpeg, ffmpeg_pick, read_code, read_codes, render, turned

from vtg.errors import VideoError, VtgError
from vtg.progress import Progress
from vtg.video import concat, cut, probe, probing, pyav_decoder, sample_frames, sampling, thumbnail
from vtg.video.process import ffmpeg_binary
from vtg.video.samples import DecodingError

SIZE = 64
RATES = (0.5, 1, 29.97)


def sampled(path: Path, fps: float, **limits: float) -> tuple[list[float], list[int]]:
    """Times and picture numbers of all samples."""
    times: list[float] = []
    codes: list[int] = []
    for chunk_times, frames in sample_frames(path, fps, SIZE, **limits):
        assert frames.shape == (len(chunk_times), SIZE, SIZE, 3)
        assert frames.dtype == np.uint8 and frames.flags.c_contiguous and chunk_times.dtype == np.float64
        assert len(frames) <= 32
        times += chunk_times.tolist()
        codes += read_codes(frames)
    return times, codes


def expected(count: int, rate: Fraction, fps: float) -> list[int]:
    """At a constant rate: the last picture shown strictly before the middle of each interval."""
    grid = Fraction(str(fps))
    samples = max(1, math.floor(count / rate * grid + Fraction(1, 2)))
    return [max(0, math.ceil((i + Fraction(1, 2)) / grid * rate) - 1) for i in range(samples)]


@pytest.fixture(params=["pyav", "ffmpeg"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to decode must give the same, and neither may lean on the other."""
    if request.param == "ffmpeg":
        monkeypatch.setattr(pyav_decoder, "can_decode", lambda track: False)
    else:
        forbid_ffmpeg(monkeypatch)
    return str(request.param)


def forbid_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on all samples must come from PyAV."""

    def nothing_left(track: object, rate: object, first: int, stop: int, *_: object) -> Iterator[np.ndarray]:
        assert first == stop, "PyAV has given up"
        return iter(())

    monkeypatch.setattr(sampling, "_decode_with_ffmpeg", nothing_left)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
def coded(folder: Path) -> dict[str, Path]:
    """Four seconds at 25 fps with each codec."""
    endings = {"h264": "mp4", "hevc": "mp4", "vp9": "webm", "av1": "mkv"}
    return {name: render(folder / f"{name}.{endings[name]}", 100, encode=Codecs[name]) for name in Codecs}


@pytest.fixture(scope="session")
def plain(coded: dict[str, Path]) -> Path:
    return coded["h264"]


@pytest.fixture(scope="session")
def talkie(folder: Path) -> Path:
    """Six seconds at 25 fps, a keyframe every 30 pictures, a beep at every whole second."""
    return render(folder / "talkie.mp4", 150, sound=True)


# The grid


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("codec", list(Codecs))
def test_every_sample_is_the_right_picture(codec: str, fps: float, coded: dict[str, Path], engine: str) -> None:
    path = coded[codec]
    times, codes = sampled(path, fps)
    assert codes == expected(100, Fraction(25), fps)
    assert codes == ffmpeg_pick(path, fps)
    assert times == pytest.approx([i / fps for i in range(len(codes))])
    assert pyav_decoder.can_decode(probing.survey(path)) == (engine == "pyav")


@pytest.mark.parametrize("rate", ["30000/1001", "12", "60"])
@pytest.mark.parametrize("fps", [*RATES, 30000 / 1001])
def test_ties_between_the_grid_and_the_pictures_go_to_the_earlier(
    rate: str, fps: float, folder: Path, engine: str
) -> None:
    path = folder / f"rate{rate.replace('/', '-')}.mp4"
    if not path.exists():
        render(path, 90, rate=rate)
    grid = Fraction(fps).limit_denominator(1001000)
    times, codes = sampled(path, fps)
    picks = [max(0, math.ceil((i + Fraction(1, 2)) / grid * Fraction(rate)) - 1) for i in range(len(codes))]
    assert codes == picks
    assert len(codes) == max(1, math.floor(90 / Fraction(rate) * grid + Fraction(1, 2)))
    assert times == pytest.approx([i / fps for i in range(len(codes))])


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("fps", [*RATES, 5])
def test_a_variable_picture_rate_is_followed(ending: str, fps: float, folder: Path, engine: str) -> None:
    path = folder / f"variable.{ending}"
    if not path.exists():
        # Steps of 21, 81 and 18 ms, and a still second now and then.
        clock = "(floor(N/3)*0.12+gte(mod(N,3),1)*0.021+gte(mod(N,3),2)*0.081+floor(N/20))/TB"
        render(path, 80, "-vf", f"settb=1/1000,setpts='{clock}'", "-fps_mode", "vfr", "-enc_time_base", "1/1000")
    shown = [n // 3 * 0.12 + (n % 3 >= 1) * 0.021 + (n % 3 >= 2) * 0.081 + n // 20 for n in range(80)]
    _, codes = sampled(path, fps)
    assert codes == ffmpeg_pick(path, fps)
    truth = [max([n for n in range(80) if shown[n] < (i + 0.5) / fps], default=0) for i in range(len(codes))]
    assert np.abs(np.array(codes) - truth).max() <= 1


@pytest.mark.parametrize("name", ["h264", "hevc", "vp9"])
def test_part_of_a_video_lies_on_the_same_grid(name: str, coded: dict[str, Path], engine: str) -> None:
    for fps in (5, 29.97):
        times, codes = sampled(coded[name], fps)
        for start, end in ((0.0, 1.0), (1.03, 2.0), (2.6, 3.9), (3.7, 99.0)):
            some_times, some_codes = sampled(coded[name], fps, start=start, end=end)
            whole = end > 4
            kept = [i for i, t in enumerate(times) if t >= start - 1e-6 and (whole or t + 1 / fps <= end + 1e-6)]
            assert some_times == [times[i] for i in kept]
            assert some_codes == [codes[i] for i in kept]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts, from here on, packets that a decoder gets, pictures that it gives, and how often it starts anew."""
    counts = {"packets": 0, "pictures": 0, "restarts": 0}
    decode, taken, restart = (
        pyav_decoder._Decoder.decode,
        pyav_decoder._Decoder._expected_frames,
        pyav_decoder._Decoder.restart,
    )

    def counted_decode(self: pyav_decoder._Decoder, *arguments: object) -> object:
        counts["packets"] += 1
        return decode(self, *arguments)

    def counted_taken(self: pyav_decoder._Decoder, pictures: list[object]) -> object:
        counts["pictures"] += len(pictures)
        return taken(self, pictures)

    def counted_restart(self: pyav_decoder._Decoder) -> object:
        counts["restarts"] += not self._is_fresh
        return restart(self)

    monkeypatch.setattr(pyav_decoder._Decoder, "decode", counted_decode)
    monkeypatch.setattr(pyav_decoder._Decoder, "_expected_frames", counted_taken)
    monkeypatch.setattr(pyav_decoder._Decoder, "restart", counted_restart)
    return counts


@pytest.mark.parametrize("codec", list(Codecs))
def test_what_lies_before_the_next_keyframe_is_not_decoded_for_nothing(
    codec: str, folder: Path, monkeypatch: pytest.MonkeyPatch, decoded: dict[str, int]
) -> None:
    path = folder / f"sparse-{codec}.{'webm' if codec == 'vp9' else 'mp4'}"
    render(path, 400, encode=Codecs[codec])
    monkeypatch.setattr(probing, "SMALL_FILE_BYTES", 0)
    forbid_ffmpeg(monkeypatch)
    assert sampled(path, 0.25)[1] == expected(400, Fraction(25), 0.25)  # pictures 49, 149, 249 and 349
    # A keyframe every 30 pictures: at most so many for each sample, and what overtakes it.
    assert decoded["restarts"] == 4 and decoded["packets"] < 4 * 36


def test_pictures_that_none_refers_to_are_decoded_only_if_sampled(plain: Path, decoded: dict[str, int]) -> None:
    assert sampled(plain, 1)[1] == expected(100, Fraction(25), 1)
    assert decoded["pictures"] < decoded["packets"] < 100
    decoded["pictures"] = 0
    assert sampled(plain, 25)[1] == list(range(100))
    assert decoded["pictures"] == 100


@pytest.mark.parametrize("codec", list(Codecs))
def test_frames_do_not_depend_on_the_number_of_threads(codec: str, coded: dict[str, Path]) -> None:
    for fps in (1, 10):
        alone, *others = (
            np.concatenate([frames for _, frames in sample_frames(coded[codec], fps, SIZE, threads=threads)])
            for threads in (1, 2, 4)
        )
        assert all(np.array_equal(alone, other) for other in others)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("plain", ["-pix_fmt", "yuv420p", "-c:v", "libx264"]),
        ("full range", ["-vf", "scale=out_range=pc,format=yuvj420p", "-c:v", "libx264", "-color_range", "pc"]),
        ("bt709", ["-vf", "scale=out_color_matrix=bt709,format=yuv420p", "-c:v", "libx264", "-colorspace", "bt709"]),
        ("interlaced", ["-pix_fmt", "yuv420p", "-c:v", "libx264", "-flags", "+ildct+ilme"]),
        ("all colours", ["-vf", "format=yuv444p", "-c:v", "libx264"]),
        ("ten bits", ["-vf", "format=yuv420p10le", "-c:v", "libx265", "-x265-params", "log-level=error"]),
    ],
)
def test_both_ways_to_decode_give_the_same_bytes(
    kind: str, options: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / f"colours-{kind}.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=192x108:rate=25:duration=2", *options, str(path))
    with monkeypatch.context() as only_pyav:
        forbid_ffmpeg(only_pyav)
        ours = np.concatenate([frames for _, frames in sample_frames(path, 3, 56)])
    monkeypatch.setattr(pyav_decoder, "can_decode", lambda track: False)
    theirs = np.concatenate([frames for _, frames in sample_frames(path, 3, 56)])
    assert np.abs(ours.astype(int) - theirs).max() <= 1  # 0, as measured, but releases of ffmpeg may round otherwise


def test_what_was_surveyed_before_is_not_surveyed_again(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    track = probing.survey(plain)
    monkeypatch.setattr(sampling, "survey", lambda path: pytest.fail("surveyed again"))
    (times, _), *_ = sample_frames(plain, 1, SIZE, track=track)
    assert times.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("codec", list(Codecs))
def test_a_part_of_a_long_video_is_jumped_to(
    codec: str, folder: Path, monkeypatch: pytest.MonkeyPatch, decoded: dict[str, int]
) -> None:
    path = folder / f"long-{codec}.{'webm' if codec == 'vp9' else 'mp4'}"
    render(path, 400, encode=Codecs[codec])
    monkeypatch.setattr(probing, "SMALL_FILE_BYTES", 0)
    forbid_ffmpeg(monkeypatch)
    whole = expected(400, Fraction(25), 5)
    assert sampled(path, 5, start=9.3)[1] == whole[47:]
    decoded["packets"] = 0
    assert sampled(path, 5, start=12.1, end=12.5)[1] == whole[61:62]
    assert decoded["packets"] < 100


def test_a_long_video_without_jumps_is_as_exact(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_groups = [*Codecs["h264"][:4], "-g", "12", "-x264-params", "open-gop=1:scenecut=0:bframes=3"]
    path = render(folder / "long-open.mp4", 300, encode=open_groups)
    one_group = render(folder / "long-group.mp4", 300, encode=["-c:v", "libx264", "-g", "600"])
    monkeypatch.setattr(probing, "SMALL_FILE_BYTES", 0)
    monkeypatch.setattr(pyav_decoder, "MAX_PENDING_BYTES", 2000)
    for video in (path, one_group):
        assert probe(video).duration == 12
        assert sampled(video, 5)[1] == expected(300, Fraction(25), 5)
        assert sampled(video, 5, start=7.1, end=9)[1] == expected(300, Fraction(25), 5)[36:45]
        assert read_code(thumbnail(video, 8.0, 96)) == 200


def test_a_long_video_that_is_cut_short_is_recognised(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = render(folder / "long-whole.mp4", 400, "-movflags", "+faststart", sound=True)
    path = folder / "long-short.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    monkeypatch.setattr(probing, "SMALL_FILE_BYTES", 0)
    assert probe(whole).duration == 16
    with pytest.raises(VideoError, match="is cut short"):
        probe(path)


# Odd files


def _variants(folder: Path) -> dict[str, Callable[[], Path]]:
    """Every special case as a file of 60 pictures (unless its name says otherwise) at 25 fps."""

    def copied(name: str, *arguments: str, source: Path) -> Path:
        before, after = arguments[: arguments.index("-c")], arguments[arguments.index("-c") :]
        ffmpeg(*before, "-i", str(source), *after, str(folder / name))
        return folder / name

    def late_pictures() -> Path:
        base = render(folder / "late-base.mp4", 60, sound=True)
        out = folder / "late.mp4"
        ffmpeg(
            "-itsoffset", "0.7", "-i", str(base), "-i", str(base), "-map", "0:v", "-map", "1:a", "-c", "copy", str(out)
        )
        return out

    def edited() -> Path:
        base = render(folder / "edited-base.mp4", 60)
        # A copy from the middle of a keyframe interval: the edit list hides the pictures before it.
        return copied("edited.mp4", "-ss", "1.6", "-c", "copy", source=base)

    def resized() -> Path:
        for index, size in enumerate([(96, 72), (64, 48)]):
            render(
                folder / f"part{index}.ts",
                30,
                "-bf",
                "0",
                "-output_ts_offset",
                f"{index * 1.2}",
                size=size,
                first=index * 30,
            )
        (folder / "resized.ts").write_bytes(b"".join((folder / f"part{index}.ts").read_bytes() for index in (0, 1)))
        return folder / "resized.ts"

    open_h264 = [*Codecs["h264"][:4], "-bf", "3", "-g", "12", "-x264-params", "open-gop=1:scenecut=0"]
    open_hevc = [*Codecs["hevc"][:4], "-x265-params", "log-level=error:keyint=12:open-gop=1:bframes=3"]
    deep = [*Codecs["hevc"][:4], "-x265-params", "log-level=error"]
    return {
        "transport stream": lambda: render(folder / "stream.ts", 60, sound=True),
        "late start": lambda: render(folder / "offset.mkv", 60, "-output_ts_offset", "7.3"),
        "pictures later than sound": late_pictures,
        "edit list": edited,
        "open groups, h264": lambda: render(folder / "open.mp4", 60, encode=open_h264),
        "open groups, hevc": lambda: render(folder / "open-hevc.mp4", 60, encode=open_hevc),
        "odd size": lambda: render(folder / "odd.mkv", 60, size=(97, 73), pixels="yuv444p"),
        "ten bits": lambda: render(folder / "deep.mp4", 60, encode=deep, pixels="yuv420p10le"),
        "no duration": lambda: render(folder / "live.mkv", 60, "-live", "1"),
        "raw h264": lambda: render(folder / "raw.h264", 60),
        "avi with B-pictures": lambda: render(
            folder / "old.avi", 60, encode=["-c:v", "mpeg4", "-bf", "2", "-q:v", "2"]
        ),
        "flash": lambda: render(folder / "old.flv", 60, sound=True),
        "vp8 with hidden pictures": lambda: render(
            folder / "vp8.webm",
            60,
            encode=["-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-b:v", "300k"],
        ),
        "wide pixels": lambda: render(folder / "wide.mp4", 60, "-vf", "scale=96:96,setsar=2", size=(192, 96)),
        "tall pixels": lambda: render(folder / "tall.mp4", 60, "-vf", "scale=96:96,setsar=1/2", size=(96, 192)),
        "size changes on the way": resized,
        "one picture": lambda: render(folder / "single.mp4", 1),
        "cover picture": lambda: _with_cover(folder),
        "negative first times": lambda: render(folder / "negative.mp4", 60, "-use_editlist", "0", "-bf", "3"),
        "interlaced": lambda: render(folder / "interlaced.mp4", 60, "-flags", "+ildct+ilme"),
        "a deep pyramid": lambda: render(
            folder / "pyramid.mp4", 60, "-x264-params", "bframes=8:b-pyramid=normal:ref=6"
        ),
        "layers in time": lambda: render(
            folder / "layers.mp4",
            60,
            encode=[*Codecs["hevc"][:4], "-x265-params", "log-level=error:temporal-layers=1:bframes=3"],
        ),
        "no keyframes but refreshed": lambda: render(
            folder / "refreshed.mp4", 60, encode=[*Codecs["h264"][:4], "-x264-params", "intra-refresh=1:keyint=15"]
        ),
        "two picture tracks": lambda: _with_second_track(folder),
        "keyframes far between": lambda: render(folder / "long-gop.mp4", 60, encode=["-c:v", "libx264", "-g", "600"]),
    }


def _with_cover(folder: Path) -> Path:
    base, cover, out = render(folder / "cover-base.mp4", 60), folder / "cover.png", folder / "cover.mp4"
    ffmpeg("-i", str(base), "-frames:v", "1", str(cover))
    ffmpeg(
        "-i",
        str(cover),
        "-i",
        str(base),
        "-map",
        "0",
        "-map",
        "1",
        "-c",
        "copy",
        "-disposition:v:0",
        "attached_pic",
        str(out),
    )
    return out


def _with_second_track(folder: Path) -> Path:
    base, other = render(folder / "track0.mp4", 60), render(folder / "track1.mp4", 60, size=(64, 48), first=500)
    out = folder / "tracks.mp4"
    ffmpeg("-i", str(base), "-i", str(other), "-map", "0", "-map", "1", "-c", "copy", str(out))
    return out


@pytest.mark.parametrize("name", list(_variants(Path())))
def test_odd_files_give_the_right_pictures(name: str, folder: Path) -> None:
    path = _variants(folder)[name]()
    info = probe(path)
    for fps in (1, 29.97):
        _, codes = sampled(path, fps)
        assert -1 not in codes
        # ffmpeg starts its count anew where the size changes, and gives nothing for less than half an interval.
        if name != "size changes on the way":
            assert codes == (ffmpeg_pick(path, fps) or [0])
        assert len(codes) == max(1, math.floor(info.duration * fps + 0.5))
        if "edit" not in name and name != "one picture":
            assert codes == expected(60, Fraction(25), fps)
            assert info.duration == pytest.approx(2.4, abs=0.002)
        late = sampled(path, fps, start=1.1)
        assert late[1] == codes[len(codes) - len(late[1]) :]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_pictures_are_upright(degrees: int, folder: Path) -> None:
    base = render(
        folder / f"turned-base{degrees}.mp4",
        30,
        "-vf",
        {90: "transpose=2", 180: "hflip,vflip", 270: "transpose=1"}[degrees],
    )
    path = turned(base, folder / f"turned{degrees}.mp4", degrees)
    info = probe(path)
    assert (info.width, info.height, info.rotation) == (96, 72, degrees)
    assert sampled(path, 10)[1] == expected(30, Fraction(25), 10)
    assert thumbnail(path, 0.5, 96).shape == (72, 96, 3)
    assert read_code(thumbnail(path, 0.5, 96)) == 12


def test_shape_is_kept_and_the_middle_cropped(folder: Path) -> None:
    path = folder / "striped.mp4"
    # Red left and right of the central square, which is blue.
    source = "color=red:s=160x80,drawbox=x=40:y=0:w=80:h=80:color=blue:t=fill"
    ffmpeg("-f", "lavfi", "-i", f"{source},format=yuv420p", "-t", "1", "-c:v", "libx264", str(path))
    (_, frames), *_ = sample_frames(path, 2, 40)
    inner = frames[0, 2:-2, 2:-2].astype(int)
    assert inner[..., 2].min() > 200 and inner[..., 0].max() < 60


def test_probe_tells_what_is_there(talkie: Path, folder: Path) -> None:
    info = probe(talkie)
    assert (info.duration, info.fps, info.width, info.height) == (6.0, 25.0, 96, 72)
    assert (info.codec, info.audio, info.rotation, info.path) == ("h264", "aac", 0, talkie)
    wide = probe(render(folder / "wide-probe.mp4", 5, "-vf", "setsar=3/2"))
    assert (wide.width, wide.height, wide.audio) == (144, 72, None)


def fitted(path: Path, filters: str) -> np.ndarray:
    """Pictures as ffmpeg's filters give them, resized and cropped as samples are; int16 [N, SIZE, SIZE, 3]."""
    info = probe(path)
    width = SIZE * info.width // info.height
    fit = f"scale={width}:{SIZE}:flags=bicubic,format=rgb24,crop={SIZE}:{SIZE}:{round((width - SIZE) / 2)}:0"
    passing = ("-fps_mode", "passthrough", "-f", "rawvideo", "-")
    raw = ffmpeg("-i", str(path), "-map", "0:V:0", "-vf", filters + fit, *passing)
    return np.frombuffer(raw, np.uint8).reshape(-1, SIZE, SIZE, 3).astype(np.int16)


@pytest.fixture(scope="session")
def every_picture(shared: Path) -> Callable[[str], np.ndarray]:
    return functools.lru_cache(lambda name: fitted(shared / "videos" / name, ""))


@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "bikes.mp4", "charades.mp4", "pancake.mkv"])
@pytest.mark.parametrize("fps", [0.5, 2])
def test_real_videos_give_what_ffmpeg_picks(
    name: str, fps: float, shared: Path, every_picture: Callable[[str], np.ndarray], engine: str
) -> None:
    path = shared / "videos" / name
    every, rate = every_picture(name), probe(path).fps
    picked = fitted(path, f"setpts=PTS-STARTPTS,fps={fps},")
    ours = np.concatenate([frames for _, frames in sample_frames(path, fps, SIZE)]).astype(np.int16)
    assert len(ours) == len(picked)
    for sample, (frame, pick) in enumerate(zip(ours, picked, strict=True)):
        assert np.abs(frame - pick).mean() < 1
        # At a constant rate the number is known; the neighbours may be the same picture, but none is nearer.
        number = max(0, math.ceil((sample + 0.5) / fps * rate - 1e-3) - 1)
        near = range(max(0, number - 3), min(len(every), number + 4))
        distances = [np.abs(every[other] - frame).mean() for other in near]
        assert distances[number - near.start] == min(distances)


# Resources


def test_closing_early_leaves_nothing_behind(plain: Path, engine: str) -> None:
    threads = threading.active_count()
    samples = sample_frames(plain, 200, SIZE)
    next(samples)
    samples.close()
    assert [child for child in psutil.Process().children() if "ffmpeg" in child.name()] == []
    assert threading.active_count() == threads


def test_sampling_works_in_another_thread(plain: Path, engine: str) -> None:
    result: list[int] = []
    worker = threading.Thread(target=lambda: result.extend(sampled(plain, 5)[1]))
    worker.start()
    worker.join(60)
    assert result == expected(100, Fraction(25), 5)


@pytest.mark.parametrize("ending", ["mp4", "ts"])
def test_a_video_shorter_than_half_an_interval_has_one_sample(ending: str, folder: Path) -> None:
    path = render(folder / f"brief.{ending}", 10)
    assert sampled(path, 0.5)[1] == [9]


def test_nothing_reaches_the_terminal(plain: Path, folder: Path) -> None:
    broken = folder / "noisy.mp4"
    data = bytearray(plain.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(range(250)) * 12
    broken.write_bytes(data)
    script = (
        "import sys\nfrom vtg.errors import VtgError\nfrom vtg.video import sample_frames\n"
        "import av\nav.logging.set_level(av.logging.DEBUG)\n"  # as other libraries do
        "for path in sys.argv[1:]:\n"
        "    try:\n        print(sum(len(frames) for _, frames in sample_frames(path, 10, 32)))\n"
        "    except VtgError as error:\n        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(plain), str(broken), str(folder / "none.mp4")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "40"


def test_what_pyav_cannot_go_on_with_ffmpeg_does(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_half_way(*arguments: object) -> Iterator[np.ndarray]:
        yield next(real(*arguments))
        raise DecodingError("an expected frame is missing")

    real = pyav_decoder.decode
    monkeypatch.setattr(pyav_decoder, "decode", fails_half_way)
    assert sampled(plain, 25)[1] == list(range(100))


def test_the_ffmpeg_package_serves_without_one_on_the_path(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    ffmpeg_binary.cache_clear()
    assert probe(plain).duration == 4
    ffmpeg_binary.cache_clear()


# Errors


def _broken(name: str, folder: Path, plain: Path) -> Path:
    path = folder / f"{name.replace(' ', '-')}.mp4"
    match name:
        case "text":
            path.write_text("Dear diary,\n" * 100)
        case "empty":
            path.write_bytes(b"")
        case "no index":
            data = plain.read_bytes()
            path.write_bytes(data[: len(data) * 2 // 3])
        case "data ends early":
            whole = folder / "faststart.mp4"
            ffmpeg("-i", str(plain), "-c", "copy", "-movflags", "+faststart", str(whole))
            data = whole.read_bytes()
            path.write_bytes(data[: len(data) // 2])
        case "matroska ends early":
            whole = folder / "whole.mkv"
            ffmpeg("-i", str(plain), "-c", "copy", str(whole))
            path = folder / "short.mkv"
            path.write_bytes(whole.read_bytes()[: plain.stat().st_size // 2])
        case "sound only":
            ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", str(path))
        case "still picture":
            path = folder / "still.png"
            ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", str(path))
        case "folder":
            path.mkdir(exist_ok=True)
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "no such file"),
        ("folder", "is a folder"),
        ("empty", "is an empty file"),
        ("text", "is not a video"),
        ("no index", "is cut short"),
        ("data ends early", "is cut short"),
        ("matroska ends early", "is cut short"),
        ("sound only", "has no video stream"),
        ("still picture", "is an image"),
    ],
)
def test_what_is_no_video_is_said_in_one_line(
    name: str, reason: str, folder: Path, plain: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = _broken(name, folder, plain)
    for attempt in (probe, lambda file: list(sample_frames(file, 1, SIZE)), lambda file: thumbnail(file, 0, SIZE)):
        with pytest.raises(VideoError) as caught:
            attempt(path)
        assert str(caught.value).startswith(f"{path}: {reason}")
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may read everything")
def test_a_file_that_may_not_be_read_is_named(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(plain.read_bytes())
    path.chmod(0)
    with pytest.raises(VideoError, match="permission denied"):
        probe(path)


def test_names_are_not_taken_for_options_or_patterns(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-i.mp4", "50% off %d [x] 'é'.mp4"):
        Path(name).write_bytes(plain.read_bytes())
        assert probe(name).duration == 4
        assert sampled(Path(name), 1)[1] == expected(100, Fraction(25), 1)
        assert cut(name, 1, 2, f"-out {name}").end == 2


@pytest.mark.parametrize(
    ("fps", "size", "limits"), [(0, 64, {}), (1, 0, {}), (1, 64, {"start": 2, "end": 1}), (-1, 64, {})]
)
def test_impossible_requests_are_refused(fps: float, size: int, limits: dict[str, float], plain: Path) -> None:
    with pytest.raises(VtgError):
        sample_frames(plain, fps, size, **limits)


# Thumbnails


def test_a_thumbnail_is_the_picture_shown_then(plain: Path) -> None:
    for time, number in ((0, 0), (0.039, 0), (0.04, 1), (2.0, 50), (3.999, 99), (4.0, 99)):
        frame = thumbnail(plain, time, 96)
        assert frame.shape == (72, 96, 3) and frame.dtype == np.uint8
        assert read_code(frame) == number
    with pytest.raises(VtgError, match=r"4\.00 s long"):
        thumbnail(plain, 4.5, 96)


# Clips


def codes_of(path: Path) -> list[int]:
    """The numbers of all pictures of a file."""
    info = probe(path)
    shape = (info.height, info.width, 3)
    raw = ffmpeg(
        "-i", str(path), "-map", "0:V:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"
    )
    return read_codes(np.frombuffer(raw, np.uint8).reshape(-1, *shape))


@pytest.mark.parametrize(
    ("start", "end", "first", "last"), [(0, 1, 0, 24), (1.2, 3.4, 30, 84), (2.05, 2.06, 51, 51), (5.5, 6, 137, 149)]
)
def test_a_clip_holds_exactly_what_was_asked_for(
    start: float, end: float, first: int, last: int, talkie: Path, tmp_path: Path
) -> None:
    shares: list[float] = []
    clip = cut(talkie, start, end, tmp_path / "clip.mp4", progress=lambda state: shares.append(state.share))
    assert codes_of(clip.path) == list(range(first, last + 1))
    assert clip.start == pytest.approx(first / 25) and clip.end == pytest.approx(min(end, (last + 1) / 25))
    assert probe(clip.path).audio == "aac"
    assert shares == sorted(shares) and shares[-1] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_a_clip_of_a_long_video_is_as_exact(
    ending: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = render(folder / f"long-talkie.{ending}", 300, sound=True)
    monkeypatch.setattr(probing, "SMALL_FILE_BYTES", 0)
    clip = cut(path, 8.2, 10.4, tmp_path / "clip.mp4")
    assert codes_of(clip.path) == list(range(205, 260))
    assert beeps(clip.path) == pytest.approx([0.8, 1.8], abs=0.04)


def test_sound_stays_in_sync_with_the_pictures(talkie: Path, tmp_path: Path) -> None:
    assert beeps(talkie) == pytest.approx([0, 1, 2, 3, 4, 5], abs=0.03)
    clip = cut(talkie, 1.48, 4.6, tmp_path / "clip.mp4")
    # A beep sounds with the pictures 50, 75 and 100.
    assert beeps(clip.path) == pytest.approx([(number - 37) / 25 for number in (50, 75, 100)], abs=0.03)


def test_sound_stays_in_sync_where_pictures_start_late(folder: Path, tmp_path: Path) -> None:
    late = _variants(folder)["pictures later than sound"]()
    clip = cut(late, 0.5, 1.6, tmp_path / "clip.mp4")
    # The pictures are 0.7 s late, so the beep at 2 s comes 1.3 s after the first picture.
    assert beeps(clip.path) == pytest.approx([0.8], abs=0.03)


def test_a_copied_clip_starts_at_the_keyframe_before(talkie: Path, tmp_path: Path) -> None:
    clip = cut(talkie, 2.0, 3.5, tmp_path / "clip.mp4", copy=True)
    assert clip.start == pytest.approx(30 / 25) and 3.5 <= clip.end <= 3.7
    _, codes = sampled(clip.path, 25)
    assert codes == list(range(30, 30 + len(codes))) and len(codes) == round((clip.end - clip.start) * 25)
    assert beeps(clip.path)[0] == pytest.approx((50 - 30) / 25, abs=0.03)
    brief = cut(talkie, 2.0, 2.1, tmp_path / "brief.mp4", copy=True)
    assert brief.start == pytest.approx(1.2) and 2.1 <= brief.end <= 2.3
    assert codes_of(brief.path)[0] == 30


def test_a_turned_video_gives_an_upright_clip(folder: Path, tmp_path: Path) -> None:
    base = render(folder / "turn.mp4", 30, "-vf", "transpose=2")
    path = turned(base, folder / "turned.mp4", 90)
    clip = cut(path, 0.2, 0.8, tmp_path / "clip.mp4")
    assert probe(clip.path).rotation == 0
    assert codes_of(clip.path) == list(range(5, 20))
    copied = cut(path, 0.2, 0.8, tmp_path / "copied.mp4", copy=True)
    assert probe(copied.path).rotation == 90


@pytest.mark.parametrize(
    "name", ["open groups, h264", "edit list", "transport stream", "raw h264", "ten bits", "odd size"]
)
def test_clips_of_odd_files_are_exact(name: str, folder: Path, tmp_path: Path) -> None:
    path = _variants(folder)[name]()
    _, codes = sampled(path, 25)
    clip = cut(path, 0.28, 0.72, tmp_path / "clip.mp4")
    assert codes_of(clip.path) == codes[7:18]


@pytest.mark.parametrize(("start", "end"), [(3, 2), (-1, 2), (5, 8), (9, 10), (2, 2)])
def test_times_outside_the_video_are_refused(start: float, end: float, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(VtgError) as caught:
        cut(plain, start, end, tmp_path / "clip.mp4")
    assert str(plain) in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_clip_cannot_replace_its_source_or_go_nowhere(plain: Path, tmp_path: Path) -> None:
    for out, reason in (
        (plain, "overwrite"),
        (tmp_path / "no" / "x.mp4", "does not exist"),
        (tmp_path / "x.txt", "endings"),
    ):
        with pytest.raises(VtgError, match=reason):
            cut(plain, 0, 1, out)


def test_a_failed_clip_leaves_the_old_file_alone(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "clip.mp4"
    out.write_bytes(b"precious")

    def stop(state: Progress) -> None:
        raise RuntimeError("stopped by the user")

    with pytest.raises(RuntimeError):
        cut(plain, 0, 4, out, progress=stop)
    assert out.read_bytes() == b"precious" and [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


def test_different_clips_are_joined(talkie: Path, folder: Path, tmp_path: Path) -> None:
    silent = render(folder / "silent.mkv", 36, rate="12", size=(48, 64), encode=Codecs["vp9"], first=1000)
    shares: list[float] = []
    out = concat([talkie, silent, talkie], tmp_path / "joined.mp4", progress=lambda state: shares.append(state.share))
    info = probe(out)
    assert (info.width, info.height, info.fps, info.audio) == (96, 72, 25.0, "aac")
    assert info.duration == pytest.approx(15.0, abs=0.05)
    codes = sampled(out, 25)[1]
    assert codes[:150] == list(range(150)) and codes[225:375] == list(range(150))
    # Three times narrower than high inside the larger picture: its code is smaller, so only its time is looked at.
    assert beeps(out) == pytest.approx([0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14], abs=0.04)
    assert shares == sorted(shares) and shares[-1] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["joined.mp4"]


def test_clips_without_sound_are_joined_without(plain: Path, tmp_path: Path) -> None:
    out = concat([plain, plain], tmp_path / "joined.mkv")
    assert probe(out).audio is None
    assert sampled(out, 25)[1] == [*range(100), *range(100)]
    with pytest.raises(VtgError, match="at least one"):
        concat([], tmp_path / "none.mp4")


def test_tags_that_are_not_utf8_lose_those_bytes_alone(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    command = [ffmpeg_binary(), "-v", "error", "-f", "lavfi", "-i", "testsrc=d=2:s=64x48:r=5"]
    subprocess.run([*command, "-metadata", "title=Caf? Ol?", str(film)], check=True)
    content = film.read_bytes()
    assert content.count(b"Caf? Ol?") == 1
    film.write_bytes(content.replace(b"Caf? Ol?", "Café Olé".encode("latin-1")))
    assert probe(film).title == "Caf Ol"
    assert sum(len(chunk) for chunk in sample_frames(film, 1.0, size=32)) == 2
