"""Copies for looking at: what browsers play, short previews, whole copies, posters."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtg.errors import VideoError, VtgError
from vtg.progress import Progress
from vtg.video import probe, thumbnail
from vtg.video.preview import browsers_play, write_poster, write_preview, write_proxy
from vtg.video.process import ffmpeg_binary
from vtg.video.seeking import list_packets


def encode(path: Path, *options: str, seconds: float = 6.0, sound: bool = False) -> Path:
    """A picture that changes all the time, at 10 pictures a second."""
    command = [ffmpeg_binary(), "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc2=s=320x180:r=10:d={seconds}"]
    if sound:
        command += ["-f", "lavfi", "-i", f"sine=d={seconds}", "-c:a", "aac"]
    subprocess.run([*command, *options, str(path)], check=True)
    return path


HEVC = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


@pytest.mark.parametrize(
    ("name", "options", "played"),
    [
        ("a.mp4", H264, True),
        ("a.mov", H264, True),
        ("a.mkv", H264, False),
        ("a.mp4", HEVC, False),
        ("a.avi", ("-c:v", "mpeg4"), False),
        ("a.webm", ("-c:v", "libvpx", "-deadline", "realtime"), True),
    ],
)
def test_what_browsers_play(tmp_path: Path, name: str, options: tuple[str, ...], played: bool) -> None:
    assert browsers_play(encode(tmp_path / name, *options, seconds=1)) is played


def difference(film: Path, at: float, original: Path, time: float) -> float:
    """Mean absolute difference of two pictures, in grey levels."""
    one, other = thumbnail(film, at, 160).astype(float), thumbnail(original, time, 160).astype(float)
    return float(np.abs(one - other).mean())


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_preview_shows_its_part_small(tmp_path: Path, name: str) -> None:
    film = encode(tmp_path / name, *H264, sound=True)
    preview = write_preview(film, 2.0, 4.5, tmp_path / "p.mp4", side=160)
    info = probe(preview)
    assert (info.width, info.height) == ((160, 90) if name != "a.ts" else (320, 180))
    assert info.duration == pytest.approx(2.5, abs=0.15)
    assert info.audio == "aac"
    assert difference(preview, 1.0, film, 3.0) < 0.6 * difference(preview, 1.0, film, 2.8)


def test_a_preview_ends_with_the_video(tmp_path: Path) -> None:
    film = encode(tmp_path / "a.mp4", *H264)
    assert probe(write_preview(film, 5.0, 99.0, tmp_path / "p.mp4")).duration == pytest.approx(1.0, abs=0.11)
    with pytest.raises(VtgError, match="nothing lies between"):
        write_preview(film, 7.0, 8.0, tmp_path / "q.mp4")
    assert not (tmp_path / "q.mp4").exists()


def test_what_browsers_do_not_play_is_coded_for_them(tmp_path: Path) -> None:
    film = encode(tmp_path / "a.mkv", *HEVC, sound=True)
    shares: list[float] = []
    proxy = write_proxy(film, tmp_path / "p.mp4", lambda state: shares.append(state.share))
    assert browsers_play(proxy)
    assert probe(proxy).duration == pytest.approx(6.0, abs=0.11)
    assert shares == sorted(shares)
    assert shares[-1] > 0.9
    assert difference(proxy, 4.0, film, 4.0) < 0.6 * difference(proxy, 4.0, film, 3.8)
    assert sum(packet.key for packet in list_packets(proxy, 0, 6)) >= 3  # so that jumps are quick


def test_h264_in_another_container_is_copied(tmp_path: Path) -> None:
    film = encode(tmp_path / "a.mkv", *H264)
    proxy = write_proxy(film, tmp_path / "p.mp4")
    assert browsers_play(proxy)
    assert difference(proxy, 4.0, film, 4.0) == 0
    again = write_proxy(film, tmp_path / "q.mp4", reencode=True)
    assert difference(again, 4.0, film, 4.0) > 0


def test_a_copy_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    film = encode(tmp_path / "a.avi", "-c:v", "mpeg4")

    class EnoughError(Exception):
        pass

    def stop(state: Progress) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        write_proxy(film, tmp_path / "p.mp4", stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a.avi"]


@pytest.mark.parametrize("time", [0.0, 3.1, 6.0, 50.0])
def test_a_poster_shows_its_time(tmp_path: Path, time: float) -> None:
    film = encode(tmp_path / "a.mp4", *H264)
    if time > 6:
        with pytest.raises(VtgError, match="not in the video"):
            write_poster(film, time, tmp_path / "p.jpg")
        assert not (tmp_path / "p.jpg").exists()
        return
    poster = np.asarray(Image.open(write_poster(film, time, tmp_path / "p.jpg"))).astype(float)
    assert poster.shape == (180, 320, 3)
    right, wrong = (np.abs(poster - thumbnail(film, at, 320)).mean() for at in (time, abs(time - 0.4)))
    assert right < 0.6 * wrong


def test_what_is_no_video_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    for make in (
        lambda: write_poster(tmp_path / "a.mp4", 0, tmp_path / "p.jpg"),
        lambda: write_preview(tmp_path / "a.mp4", 0, 1, tmp_path / "p.mp4"),
        lambda: write_proxy(tmp_path / "a.mp4", tmp_path / "p.mp4"),
        lambda: browsers_play(tmp_path / "a.mp4"),
    ):
        with pytest.raises(VideoError, match="not a video"):
            make()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
