"""HDR and wide colours are shown as on an SDR screen, in the same way by every path; SDR is left as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from timecode import ffmpeg

from vtg.video import Span, concat, cut, probing, pyav_decoder, sample_frames, thumbnail, write_reel
from vtg.video.colour import MATRIX_NAMES, Colours, resize_for_encoding, resize_to_rgb, sdr_values
from vtg.video.filters import filter_chain
from vtg.video.preview import write_poster, write_preview, write_proxy
from vtg.video.samples import DecodingError

CASE = Path(__file__).parent / "data" / "cases" / "hdr-pq.mp4"
PATCHES = np.array([[222, 57, 60], [60, 170, 88]])  # left and right, as an SDR screen shows them
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # BT.2087
LUMA = np.array([0.2627, 0.6780, 0.0593])


def pq_signal(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of BT.2020 light in nits (BT.2100, table 4)."""
    power = (light / 10000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def hlg_signal(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The same for a screen of 1,000 nits (BT.2100, table 5)."""
    scene = light / 1000 * ((light / 1000) @ LUMA)[..., None] ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def wide_signal(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of SDR in BT.2020."""
    return np.asarray((light / 203) ** (1 / 2.4))


SIGNALS: dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]] = {
    "smpte2084": pq_signal,
    "arib-std-b67": hlg_signal,
    "bt2020-10": wide_signal,
}


def encode(out: Path, transfer: str, full_range: bool = False, seconds: int = 2) -> Path:
    """Writes the two patches in BT.2020 with a transfer, ten bits, at 5 pictures a second."""
    signal = SIGNALS[transfer](203 * (PATCHES / 255) ** 2.4 @ TO_BT2020.T)
    luma = signal @ LUMA
    chroma = (signal[:, 2] - luma) / 1.8814, (signal[:, 0] - luma) / 1.4746
    black, scale, chroma_scale = (0, 1023, 1023) if full_range else (64, 876, 896)
    planes = [np.tile(np.repeat(black + scale * luma, 80), (90, 1))]
    planes += [np.tile(np.repeat(512 + chroma_scale * part, 40), (45, 1)) for part in chroma]
    raw = b"".join(plane.round().astype("<u2").tobytes() for plane in planes) * (5 * seconds)
    color_range = "pc" if full_range else "tv"
    tags = ["-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc"]
    params = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:range={'full' if full_range else 'limited'}"
    source = [
        "-f",
        "rawvideo",
        "-pix_fmt",
        "yuv420p10le",
        "-s",
        "160x90",
        "-r",
        "5",
        *tags,
        "-color_range",
        color_range,
    ]
    codec = ["-c:v", "libx265", "-preset", "ultrafast", "-crf", "8", "-x265-params", f"log-level=error:{params}"]
    ffmpeg(*source, "-i", "pipe:0", *codec, *tags, "-color_range", color_range, str(out), given=raw)
    return out


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("colours")
    made = {name: encode(folder / f"{name}.mp4", name) for name in SIGNALS}
    return {**made, "case": CASE, "full range": encode(folder / "full.mkv", "smpte2084", full_range=True)}


KINDS = [*SIGNALS, "case", "full range"]


def patches(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    height, width = picture.shape[:2]
    return np.array([picture[height // 2, width // 4], picture[height // 2, 3 * width // 4]], np.int64)


def is_right(picture: npt.NDArray[np.uint8], within: int = 8) -> bool:
    return int(np.abs(patches(picture) - PATCHES).max()) <= within


def tags(path: Path) -> tuple[str | None, str | None, str | None, bool]:
    track = probing.survey(path)
    return track.transfer, track.primaries, track.matrix, track.full_range


@pytest.mark.parametrize("kind", KINDS)
def test_samples_thumbnails_and_posters_show_what_sdr_shows(
    kind: str, films: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = films[kind]
    assert is_right(thumbnail(film, 1.0, 128))
    assert is_right(np.asarray(Image.open(write_poster(film, 1.0, tmp_path / "a.jpg"))))
    # A square has only the middle of both patches.
    with_libraries = np.concatenate([frames for _, frames in sample_frames(film, 2, 64)])
    assert with_libraries.shape[0] == 4 and all(is_right(frame) for frame in with_libraries)
    monkeypatch.setattr(pyav_decoder, "can_decode", lambda track: False)
    with_binary = np.concatenate([frames for _, frames in sample_frames(film, 2, 64)])
    assert np.abs(with_libraries.astype(int) - with_binary).max() <= 2
    monkeypatch.setattr("vtg.video.preview.frame_near", _fails)
    assert is_right(np.asarray(Image.open(write_poster(film, 1.0, tmp_path / "b.jpg"))))


def _fails(*_: object) -> None:
    raise DecodingError("not this time")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_sdr_and_says_so(kind: str, films: dict[str, Path], tmp_path: Path) -> None:
    film = films[kind]
    written = [
        cut(film, 0.4, 1.4, tmp_path / "cut.mp4").path,
        cut(film, 0.4, 1.4, tmp_path / "cut.mkv").path,
        write_preview(film, 0.4, 1.4, tmp_path / "preview.mp4", side=80),
        write_proxy(film, tmp_path / "proxy.mp4"),
        concat([film, film], tmp_path / "joined.mp4"),
    ]
    for path in written:
        assert is_right(thumbnail(path, 0.6, 160)), path
        assert tags(path) == ("bt709", "bt709", "bt709", False), path
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            assert "MASTERING_DISPLAY_METADATA" not in frame.side_data
    copied = cut(film, 0.4, 1.4, tmp_path / "copied.mp4", copy=True).path
    assert tags(copied) == tags(film) and is_right(thumbnail(copied, 0.6, 160))


@pytest.mark.parametrize("order", [("hdr", "sdr"), ("sdr", "hdr")])
def test_a_reel_of_sdr_and_hdr_has_the_colours_of_both(
    order: tuple[str, str], films: dict[str, Path], tmp_path: Path
) -> None:
    sdr = tmp_path / "sdr.mp4"
    left, right = ("0x{:02x}{:02x}{:02x}".format(*patch) for patch in PATCHES)
    source = f"color={left}:s=160x90:r=10:d=2,format=gbrp,drawbox=x=80:w=80:h=90:color={right}:t=fill"
    # Without any tag: 90 lines high, so that players take it for BT.601.
    ffmpeg(
        *("-f", "lavfi", "-i", f"{source},scale=out_color_matrix=smpte170m:out_range=tv,format=yuv420p"),
        *("-c:v", "libx264", "-crf", "8", str(sdr)),
    )
    spans = [Span(sdr if name == "sdr" else films["case"], 0.0, 1.0) for name in order]
    reel = write_reel(spans, tmp_path / "reel.mp4")
    assert tags(reel.path) == ("bt709", "bt709", "bt709", False)
    for time in (0.5, 1.5):
        assert is_right(thumbnail(reel.path, time, 160), within=10)


@pytest.mark.parametrize(
    "colours",
    [
        Colours(None, None, None),
        Colours("bt709", "bt709", "bt709"),
        Colours("bt709", None, "smpte170m"),
        Colours(None, None, "bt470bg", full_range=True),
        Colours("bt709", "smpte431", None),
        Colours(None, None, "gbr", full_range=True),
    ],
)
def test_sdr_passes_through_nothing_else(colours: Colours) -> None:
    assert not colours.is_mapped
    assert filter_chain(resize_to_rgb(colours, 64, 48)) == (
        "scale=width=64:height=48:flags=bicubic,format=pix_fmts=rgb24"
    )
    assert filter_chain(resize_for_encoding(colours, 64, 48)) == "scale=width=64:height=48:flags=bicubic"


def filtered(signal: npt.NDArray[np.float64], colours: Colours) -> npt.NDArray[np.float64]:
    """A picture of these RGB values (0…1, [H, W, 3]) behind the filters, 0…255."""
    height, width = signal.shape[:2]
    raw = (signal * 65535).round().astype("<u2").tobytes()
    source = ("-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", f"{width}x{height}", "-i", "pipe:0")
    chain = filter_chain(resize_to_rgb(colours, width, height))
    shown = ffmpeg(*source, "-vf", chain, "-f", "rawvideo", "pipe:1", given=raw)
    return np.frombuffer(shown, np.uint8).reshape(height, width, 3).astype(np.float64)


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67", "bt709"])
@pytest.mark.parametrize("primaries", ["bt2020", "smpte432"])
def test_the_filters_come_close_to_the_formulas(transfer: str, primaries: str) -> None:
    random = np.random.default_rng(0)
    grey = random.random((60, 80, 1)) * 0.8
    signal = np.clip(grey + random.normal(0, 0.05, (60, 80, 3)), 0, 1)
    colours = Colours(transfer, primaries, "gbr", full_range=True)
    error = np.abs(filtered(signal, colours) - 255 * sdr_values(signal, colours))
    assert error.mean() < 0.6 and np.quantile(error, 0.99) < 3


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_greys_stay_grey_and_in_order(transfer: str) -> None:
    colours = Colours(transfer, "bt2020", "bt2020nc")
    values = sdr_values(np.linspace(0, 1, 101)[:, None].repeat(3, axis=1), colours)
    assert np.abs(values - values[:, :1]).max() < 1e-3
    assert (np.diff(values[:, 0]) >= -1e-9).all()
    assert values[0].max() == 0 and values[-1].min() == pytest.approx(1, abs=1e-3)
    # Reference white is not burnt out, and what is dark in SDR is as dark here.
    white, dark = (SIGNALS[transfer](np.full((1, 3), nits)) for nits in (203.0, 20.3))
    assert 0.9 < sdr_values(white, colours).mean() < 0.97
    assert sdr_values(dark, colours).mean() == pytest.approx(0.1 ** (1 / 2.4), abs=0.003)


def test_colours_that_no_filter_knows_are_shown_in_grey() -> None:
    chain = filter_chain(resize_to_rgb(Colours("smpte2084", "bt2020", "ictcp"), 160, 90))
    shown = ffmpeg("-i", str(CASE), "-frames:v", "1", "-vf", chain, "-f", "rawvideo", "pipe:1")
    picture = np.frombuffer(shown, np.uint8).reshape(90, 160, 3).astype(int)
    assert np.abs(picture - picture.mean(axis=2, keepdims=True)).max() <= 1
    left, right = patches(picture.astype(np.uint8))[:, 0]
    assert 60 < left < right < 200


@pytest.mark.parametrize("number", sorted(MATRIX_NAMES))
@pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])
def test_any_matrix_that_a_file_claims_is_read(
    number: int, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hdr, sdr, plain = tmp_path / "hdr.mp4", tmp_path / "sdr.mp4", tmp_path / "plain.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x90:r=5:d=1", "-pix_fmt", "yuv420p", "-c:v", "libx264", str(plain))
    tag = f"metadata=matrix_coefficients={number}"
    ffmpeg("-i", str(CASE), "-c", "copy", "-bsf:v", f"hevc_{tag}", str(hdr), is_reference=True)
    ffmpeg("-i", str(plain), "-c", "copy", "-bsf:v", f"h264_{tag}", str(sdr), is_reference=True)
    if engine == "ffmpeg":
        monkeypatch.setattr(pyav_decoder, "can_decode", lambda track: False)
    for path in (hdr, sdr):
        (_, frames), *_ = sample_frames(path, 1, 64)
        assert frames.std() > 10  # neither black nor one colour
        assert tags(cut(path, 0, 0.6, tmp_path / "clip.mp4").path)[2] in (None, *MATRIX_NAMES.values())
    if number in (9, 10):
        assert is_right(thumbnail(hdr, 0.5, 160))
