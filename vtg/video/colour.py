"""Convert video colours to SDR: ffmpeg filters that map HDR (PQ, HLG) and wide gamuts (BT.2020, P3) to BT.709.

The filters exist in every ffmpeg build and in PyAV's libraries, so that samples, thumbnails, posters, previews, clips
and reels agree: a 3D table, computed here from the formulas of the standards, compresses HDR to the range of SDR, and a
matrix converts linear light to the primaries of BT.709. SDR frames pass through unchanged.

The mapping: signal to light by BT.2100 (PQ directly; HLG for a display of 1,000 nits, with a system gamma of 1.2), with
203 nits as the white of SDR (BT.2408). Levels above about 90 nits are compressed by the curve of BT.2390 from a peak
of 1,000 nits, by the largest of the three components, which keeps the hue. Then conversion to the primaries of BT.709
with clipping, and the inverse of BT.1886 (an exponent of 1/2.4).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vtg.files.whole import working_folder
from vtg.video.filters import Filter

__all__ = ["Colours", "resize_for_encoding", "resize_to_rgb", "sdr_values"]

PQ, HLG = "smpte2084", "arib-std-b67"
SDR_WHITE_NITS = 203.0  # shown as white in SDR
PEAK_NITS = 1000.0  # brighter light is clipped
SDR_GAMMA = 2.4
TABLE_POINTS = 33  # per side of the 3D table: its error is at most 1.5 of 255 for 99 of 100 colours

# CIE x and y of red, green and blue; the white point is D65 for all.
PRIMARIES = {
    "bt709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    "smpte432": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
D65 = (0.3127, 0.3290)

# Names of the matrices in the scale filter of all versions.
MATRICES = {
    "bt709": "bt709",
    "bt2020nc": "bt2020",
    "bt2020c": "bt2020",
    "smpte170m": "smpte170m",
    "bt470bg": "smpte170m",
    "smpte240m": "smpte240m",
    "fcc": "fcc",
}
# Input matrices that the scale filter of newer versions accepts.
SCALED_MATRICES = frozenset({"gbr", "bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc"})
# ICtCp, and Dolby Vision without a compatible base layer: not every version has a filter for them. Their first
# component is lightness with the same transfer function, so they are shown in grey rather than in wrong colours.
GREY_MATRICES = frozenset({"ictcp", "ipt-c2"})

# ffmpeg's enum values, as PyAV gives them; values missing here are treated as SDR.
TRANSFER_NAMES = {1: "bt709", 14: "bt2020-10", 15: "bt2020-12", 16: PQ, 18: HLG}
PRIMARIES_NAMES = {1: "bt709", 9: "bt2020", 11: "smpte431", 12: "smpte432"}
MATRIX_NAMES = {
    0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc",
    10: "bt2020c", 11: "smpte2085", 12: "chroma-derived-nc", 13: "chroma-derived-c", 14: "ictcp", 15: "ipt-c2",
    16: "ycgco-re", 17: "ycgco-ro",
}  # fmt: skip
FULL_RANGE = 2

HD_WIDTH, HD_HEIGHT = 1280, 577  # pixels from which on players assume BT.709 for untagged video
BT709_MATRIX = {"out_color_matrix": "bt709", "out_range": "tv"}
BT709_TAGS = {"color_primaries": "bt709", "color_trc": "bt709", "colorspace": "bt709", "range": "tv"}


@dataclass(frozen=True)
class Colours:
    """Colour properties of a frame, by ffmpeg's names.

    Attributes:
        transfer: transfer function, from light to signal, e.g. "smpte2084"; None: not tagged.
        primaries: e.g. "bt2020"; None: not tagged.
        matrix: from RGB to luma and chroma, e.g. "bt2020nc"; None: not tagged.
        full_range: black is 0 and white the largest value.
        is_hd: the frame is so large that players assume BT.709 where it is not tagged.
    """

    transfer: str | None
    primaries: str | None
    matrix: str | None
    full_range: bool = False
    is_hd: bool = False

    @classmethod
    def of_frame(cls, source: Any) -> Colours:
        """The colours of a PyAV frame, or of a codec context."""
        transfer, primaries, matrix, full = (
            int(number or 0)
            for number in (source.color_trc, source.color_primaries, source.colorspace, source.color_range)
        )
        names = TRANSFER_NAMES.get(transfer), PRIMARIES_NAMES.get(primaries), MATRIX_NAMES.get(matrix)
        return cls(*names, full == FULL_RANGE)

    @property
    def is_hdr(self) -> bool:
        """Whether the transfer function is PQ or HLG."""
        return self.transfer in (PQ, HLG)

    @property
    def is_mapped(self) -> bool:
        """Whether the colours have to be mapped to SDR."""
        is_wide = self.primaries in PRIMARIES and self.primaries != "bt709" and self.matrix not in GREY_MATRICES
        return self.is_hdr or is_wide

    @property
    def known_primaries(self) -> str:
        """The primaries to map from: BT.2020 where HDR is not tagged."""
        return str(self.primaries) if self.primaries in PRIMARIES else "bt2020"


def resize_to_rgb(colours: Colours, width: int, height: int, interpolation: str = "bicubic") -> list[Filter]:
    """Filters that resize frames and convert them to 8-bit RGB in SDR.

    Args:
        colours: of the frames.
        width: output width, pixels.
        height: output height, pixels.
        interpolation: one of `vtg.video.framing.INTERPOLATIONS`.
    """
    return [*_relabel_matrix(colours), *_resize(colours, width, height, interpolation), _format("rgb24")]


def resize_for_encoding(
    colours: Colours, width: int, height: int, flags: str = "bicubic", to_bt709: bool = False
) -> list[Filter]:
    """Filters that resize frames and convert them for encoding an SDR video.

    Args:
        colours: of the frames.
        width: output width, pixels.
        height: output height, pixels.
        flags: of the scale filter.
        to_bt709: convert and tag SDR frames as BT.709 of limited range too, as joining videos of different colours
            requires; otherwise only HDR and wide gamuts are converted.
    """
    if colours.is_mapped:
        steps = [*_resize(colours, width, height, flags), _filter("scale", **BT709_MATRIX)]
    elif to_bt709:
        matrix = MATRICES.get(colours.matrix or "", "bt709" if colours.is_hd else "smpte170m")
        source = {} if colours.matrix == "gbr" else {"in_color_matrix": matrix, "in_range": _range(colours)}
        steps = [_scale(width, height, flags, **source, **BT709_MATRIX)]
    else:
        return [*_relabel_matrix(colours), *_resize(colours, width, height, flags)]
    # Side data that describes the HDR mastering display would otherwise be written to the file.
    return [
        *_relabel_matrix(colours),
        *steps,
        _format("yuv420p"),
        _filter("sidedata", mode="delete"),
        _filter("setparams", **BT709_TAGS),
    ]


def _relabel_matrix(colours: Colours) -> list[Filter]:
    """Filters that replace a matrix which the scale filter refuses by the nearest one that it accepts."""
    if colours.matrix is None or colours.matrix in SCALED_MATRICES:
        return []
    if colours.is_hdr or colours.matrix == "bt2020c" or colours.primaries == "bt2020":
        return [_filter("setparams", colorspace="bt2020nc")]
    return [_filter("setparams", colorspace="bt709" if colours.matrix.startswith("chroma-derived") else "unknown")]


def _resize(colours: Colours, width: int, height: int, flags: str) -> list[Filter]:
    """Filters that resize, and map other colours than SDR to 16-bit RGB."""
    if not colours.is_mapped:
        return [_scale(width, height, flags)]
    mapped = [_format("gbrp16le"), *_map_rgb(colours)]
    if colours.matrix == "gbr":
        return [_scale(width, height, flags), *mapped]
    usual = "bt2020" if colours.known_primaries == "bt2020" else "bt709"
    source = {"in_color_matrix": MATRICES.get(colours.matrix or "", usual), "in_range": _range(colours)}
    if colours.matrix in GREY_MATRICES:
        neutral = _filter("lutyuv", u="(maxval+minval)/2", v="(maxval+minval)/2")
        return [_scale(width, height, flags), _format("yuv444p16le"), neutral, _filter("scale", **source), *mapped]
    return [_scale(width, height, flags, **source), *mapped]


def _map_rgb(colours: Colours) -> list[Filter]:
    """Filters on RGB: tone mapping to the range of SDR, and conversion to the primaries of BT.709 in linear light."""
    primaries = colours.known_primaries
    steps = [_filter("lut3d", file=_table_file(str(colours.transfer), primaries))] if colours.is_hdr else []
    if primaries == "bt709":
        return steps
    coefficients = {
        f"{out}{into}": f"{_to_bt709(primaries)[row, column]:.6f}"
        for row, out in enumerate("rgb")
        for column, into in enumerate("rgb")
    }
    return [
        *steps,
        _filter("lutrgb", **dict.fromkeys("rgb", f"pow(val/maxval,{SDR_GAMMA})*maxval")),
        _filter("colorchannelmixer", **coefficients),
        _filter("lutrgb", **dict.fromkeys("rgb", f"pow(val/maxval,1/{SDR_GAMMA})*maxval")),
    ]


def _filter(name: str, **options: str) -> Filter:
    return Filter(name, tuple(options.items()))


def _scale(width: int, height: int, flags: str, **options: str) -> Filter:
    return _filter("scale", width=str(width), height=str(height), flags=flags, **options)


def _format(pixels: str) -> Filter:
    return _filter("format", pix_fmts=pixels)


def _range(colours: Colours) -> str:
    return "pc" if colours.full_range else "tv"


_files = contextlib.ExitStack()
_files_lock = threading.Lock()


def _table_file(transfer: str, primaries: str) -> str:
    """The file of a 3D table; it is deleted when this process ends."""
    with _files_lock:
        return (_folder() / _written_table(transfer, primaries)).as_posix()


@functools.lru_cache(maxsize=1)
def _folder() -> Path:
    folder = _files.enter_context(working_folder(tempfile.gettempdir()))
    owner = os.getpid()
    atexit.register(lambda: _files.close() if os.getpid() == owner else None)  # not in a forked child
    return folder


@functools.cache
def _written_table(transfer: str, primaries: str) -> str:
    axis = np.linspace(0, 1, TABLE_POINTS)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")  # red changes fastest
    values = _sdr_range(np.stack([red, green, blue], -1), transfer, primaries).reshape(-1, 3)
    lines = (f"{r:.5f} {g:.5f} {b:.5f}\n" for r, g, b in values.tolist())
    name = f"{transfer}-{primaries}.cube"
    (_folder() / name).write_text(f"LUT_3D_SIZE {TABLE_POINTS}\n" + "".join(lines), encoding="ascii")
    return name


def sdr_values(signal: npt.ArrayLike, colours: Colours) -> npt.NDArray[np.float64]:
    """Map a signal to SDR exactly; the filters approximate this.

    Args:
        signal: RGB, each 0…1, [..., 3].
        colours: of the signal; `is_mapped` must hold.

    Returns:
        RGB of BT.709, each 0…1, [..., 3].
    """
    values = np.asarray(signal, np.float64)
    if colours.is_hdr:
        values = _sdr_range(values, str(colours.transfer), colours.known_primaries)
    light = values**SDR_GAMMA @ _to_bt709(colours.known_primaries).T
    return np.asarray(np.clip(light, 0, 1) ** (1 / SDR_GAMMA))


def _sdr_range(signal: npt.NDArray[np.float64], transfer: str, primaries: str) -> npt.NDArray[np.float64]:
    """The SDR signal with the same primaries, [..., 3]."""
    light = _pq_light(signal) if transfer == PQ else _hlg_light(signal, _to_xyz(primaries)[1])
    return np.asarray(np.minimum(_tone_map(light) / SDR_WHITE_NITS, 1) ** (1 / SDR_GAMMA))


def _to_bt709(primaries: str) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.inv(_to_xyz("bt709")) @ _to_xyz(primaries))


def _to_xyz(primaries: str) -> npt.NDArray[np.float64]:
    """The matrix from linear RGB to CIE XYZ; its second row gives luminance."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in PRIMARIES[primaries]]).T
    x, y = D65
    return np.asarray(columns * np.linalg.solve(columns, np.array([x / y, 1, (1 - x - y) / y])))


# SMPTE ST 2084
PQ_M1, PQ_M2 = 2610 / 16384, 2523 / 32
PQ_C1, PQ_C2, PQ_C3 = 3424 / 4096, 2413 / 128, 2392 / 128
PQ_PEAK = 10000.0  # nits


def _pq_light(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Light in nits for a PQ signal."""
    power = signal ** (1 / PQ_M2)
    return np.asarray(PQ_PEAK * (np.maximum(power - PQ_C1, 0) / (PQ_C2 - PQ_C3 * power)) ** (1 / PQ_M1))


def _pq_signal(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    power = (light / PQ_PEAK) ** PQ_M1
    return np.asarray(((PQ_C1 + PQ_C2 * power) / (1 + PQ_C3 * power)) ** PQ_M2)


def _hlg_light(signal: npt.NDArray[np.float64], luma: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Light in nits for an HLG signal on a display of 1,000 nits (ARIB STD-B67, BT.2100)."""
    a, b, c, system_gamma = 0.17883277, 0.28466892, 0.55991073, 1.2
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return np.asarray(PEAK_NITS * scene * (scene @ luma)[..., None] ** (system_gamma - 1))


def _tone_map(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Compress light from a range of 1,000 nits to the range of SDR (BT.2390, in PQ), keeping the hue."""
    brightest = light.max(axis=-1, keepdims=True)
    peak, white = _pq_signal(np.array([PEAK_NITS, SDR_WHITE_NITS]))
    top = white / peak
    knee = 1.5 * top - 0.5
    level = _pq_signal(np.minimum(brightest, PEAK_NITS)) / peak
    t = np.maximum(level - knee, 0) / (1 - knee)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    target = _pq_light(peak * np.where(level < knee, level, bent))
    return np.asarray(light * target / np.maximum(brightest, 1e-9))
