"""Colours as an SDR screen shows them: filters that map HDR (PQ, HLG) and wide colours (BT.2020, P3) to BT.709.

The filters are those that every ffmpeg and PyAV's libraries have, so that samples, thumbnails, posters, previews, clips
and reels agree: a table, made here from the formulas of the standards, brings HDR into the range of SDR, and a matrix
brings its light to BT.709's primaries. Pictures in the colours of SDR pass through the same filters as without.

The mapping: light by BT.2100 (PQ as it is; HLG for a screen of 1,000 nits, with a system gamma of 1.2), of which
203 nits are shown as SDR's white (BT.2408). What is brighter than about 90 nits is compressed by the curve of BT.2390
from a peak of 1,000 nits, by the largest of the three components, so that colours keep their hue. Then BT.709's
primaries, where what lies outside them is clipped, and the inverse of BT.1886 (an exponent of 1/2.4).
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
from vtg.video.filters import Step

__all__ = ["Colours", "resize_for_encoding", "resize_to_rgb", "sdr_values"]

PQ, HLG = "smpte2084", "arib-std-b67"
WHITE = 203.0  # nits that are shown as SDR's white
PEAK = 1000.0  # nits of the brightest light that is told apart
SDR_GAMMA = 2.4
GRID = 33  # points a side of the table: its error is at most 1.5 of 255 for 99 of 100 colours

# x and y of red, green and blue; white is D65 for all.
PRIMARIES = {
    "bt709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    "smpte432": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
D65 = (0.3127, 0.3290)

# What the scale filter of every version calls the matrices.
MATRICES = {
    "bt709": "bt709",
    "bt2020nc": "bt2020",
    "bt2020c": "bt2020",
    "smpte170m": "smpte170m",
    "bt470bg": "smpte170m",
    "smpte240m": "smpte240m",
    "fcc": "fcc",
}
# What the scale filter of newer versions takes at all.
SCALED_MATRICES = frozenset({"gbr", "bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc"})
# ICtCp, and Dolby Vision without a layer for other players: no filter of all versions knows them. Their first component
# is lightness in the same transfer, so they are shown in grey rather than in wrong colours.
GREY_MATRICES = frozenset({"ictcp", "ipt-c2"})

# ffmpeg's numbers, which PyAV gives; those missing here are not told apart from SDR's.
TRANSFER_NAMES = {1: "bt709", 14: "bt2020-10", 15: "bt2020-12", 16: PQ, 18: HLG}
PRIMARIES_NAMES = {1: "bt709", 9: "bt2020", 11: "smpte431", 12: "smpte432"}
MATRIX_NAMES = {
    0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc",
    10: "bt2020c", 11: "smpte2085", 12: "chroma-derived-nc", 13: "chroma-derived-c", 14: "ictcp", 15: "ipt-c2",
    16: "ycgco-re", 17: "ycgco-ro",
}  # fmt: skip
FULL_RANGE = 2

HD_WIDTH, HD_HEIGHT = 1280, 577  # pixels from which on players take what says nothing for BT.709
BT709_MATRIX = {"out_color_matrix": "bt709", "out_range": "tv"}
BT709_TAGS = {"color_primaries": "bt709", "color_trc": "bt709", "colorspace": "bt709", "range": "tv"}


@dataclass(frozen=True)
class Colours:
    """What the numbers of a picture mean, by ffmpeg's names.

    Attributes:
        transfer: from light to signal, e.g. "smpte2084"; None: the file does not say.
        primaries: e.g. "bt2020"; None as well.
        matrix: from RGB to luma and chroma, e.g. "bt2020nc"; None as well.
        full_range: black is 0 and white the largest number.
        is_hd: the picture is so large that players take it for BT.709 where the file does not say.
    """

    transfer: str | None
    primaries: str | None
    matrix: str | None
    full_range: bool = False
    is_hd: bool = False

    @classmethod
    def of_pictures(cls, source: Any) -> Colours:
        """The colours of a picture of PyAV, or of what its decoder will give."""
        transfer, primaries, matrix, full = (
            int(number or 0)
            for number in (source.color_trc, source.color_primaries, source.colorspace, source.color_range)
        )
        names = TRANSFER_NAMES.get(transfer), PRIMARIES_NAMES.get(primaries), MATRIX_NAMES.get(matrix)
        return cls(*names, full == FULL_RANGE)

    @property
    def is_hdr(self) -> bool:
        """Whether they reach beyond SDR's white."""
        return self.transfer in (PQ, HLG)

    @property
    def is_mapped(self) -> bool:
        """Whether they are not SDR's, and are mapped to them."""
        is_wide = self.primaries in PRIMARIES and self.primaries != "bt709" and self.matrix not in GREY_MATRICES
        return self.is_hdr or is_wide

    @property
    def known_primaries(self) -> str:
        """Those that they are mapped from: HDR that does not say is BT.2020."""
        return str(self.primaries) if self.primaries in PRIMARIES else "bt2020"


def resize_to_rgb(colours: Colours, width: int, height: int) -> list[Step]:
    """Filters to pictures of 8-bit RGB, resized (bicubic), as an SDR screen shows them.

    Args:
        colours: of the pictures.
        width: to resize to, pixels.
        height: the same.
    """
    return [*_retag(colours), *_resize(colours, width, height, "bicubic"), _format("rgb24")]


def resize_for_encoding(
    colours: Colours, width: int, height: int, flags: str = "bicubic", to_bt709: bool = False
) -> list[Step]:
    """Filters to resized pictures that an SDR video is encoded from.

    Args:
        colours: of the pictures.
        width: to resize to, pixels.
        height: the same.
        flags: of the scale filter.
        to_bt709: SDR, too, is converted to BT.709 of limited range and says so, as what is joined with other colours
            must; else only what has to be mapped is.
    """
    if colours.is_mapped:
        steps = [*_resize(colours, width, height, flags), _step("scale", **BT709_MATRIX)]
    elif to_bt709:
        matrix = MATRICES.get(colours.matrix or "", "bt709" if colours.is_hd else "smpte170m")
        source = {} if colours.matrix == "gbr" else {"in_color_matrix": matrix, "in_range": _range(colours)}
        steps = [_scale(width, height, flags, **source, **BT709_MATRIX)]
    else:
        return [*_retag(colours), *_resize(colours, width, height, flags)]
    # What says how bright the HDR master is would be written to the file.
    return [
        *_retag(colours),
        *steps,
        _format("yuv420p"),
        _step("sidedata", mode="delete"),
        _step("setparams", **BT709_TAGS),
    ]


def _retag(colours: Colours) -> list[Step]:
    """Filters that change a matrix which the scale filter refuses into the nearest that it takes."""
    if colours.matrix is None or colours.matrix in SCALED_MATRICES:
        return []
    if colours.is_hdr or colours.matrix == "bt2020c" or colours.primaries == "bt2020":
        return [_step("setparams", colorspace="bt2020nc")]
    return [_step("setparams", colorspace="bt709" if colours.matrix.startswith("chroma-derived") else "unknown")]


def _resize(colours: Colours, width: int, height: int, flags: str) -> list[Step]:
    """Filters that resize, and map what is not SDR to RGB of 16 bits."""
    if not colours.is_mapped:
        return [_scale(width, height, flags)]
    mapped = [_format("gbrp16le"), *_map_rgb(colours)]
    if colours.matrix == "gbr":
        return [_scale(width, height, flags), *mapped]
    usual = "bt2020" if colours.known_primaries == "bt2020" else "bt709"
    source = {"in_color_matrix": MATRICES.get(colours.matrix or "", usual), "in_range": _range(colours)}
    if colours.matrix in GREY_MATRICES:
        neutral = _step("lutyuv", u="(maxval+minval)/2", v="(maxval+minval)/2")
        return [_scale(width, height, flags), _format("yuv444p16le"), neutral, _step("scale", **source), *mapped]
    return [_scale(width, height, flags, **source), *mapped]


def _map_rgb(colours: Colours) -> list[Step]:
    """Filters of RGB: to the range of SDR, and to the primaries of BT.709 in linear light."""
    primaries = colours.known_primaries
    steps = [_step("lut3d", file=_table_file(str(colours.transfer), primaries))] if colours.is_hdr else []
    if primaries == "bt709":
        return steps
    coefficients = {
        f"{out}{into}": f"{_to_bt709(primaries)[row, column]:.6f}"
        for row, out in enumerate("rgb")
        for column, into in enumerate("rgb")
    }
    return [
        *steps,
        _step("lutrgb", **dict.fromkeys("rgb", f"pow(val/maxval,{SDR_GAMMA})*maxval")),
        _step("colorchannelmixer", **coefficients),
        _step("lutrgb", **dict.fromkeys("rgb", f"pow(val/maxval,1/{SDR_GAMMA})*maxval")),
    ]


def _step(name: str, **options: str) -> Step:
    return Step(name, tuple(options.items()))


def _scale(width: int, height: int, flags: str, **options: str) -> Step:
    return _step("scale", width=str(width), height=str(height), flags=flags, **options)


def _format(pixels: str) -> Step:
    return _step("format", pix_fmts=pixels)


def _range(colours: Colours) -> str:
    return "pc" if colours.full_range else "tv"


_files = contextlib.ExitStack()
_files_guard = threading.Lock()


def _table_file(transfer: str, primaries: str) -> str:
    """The file of a table, which lives as long as this process."""
    with _files_guard:
        return (_folder() / _written_table(transfer, primaries)).as_posix()


@functools.lru_cache(maxsize=1)
def _folder() -> Path:
    folder = _files.enter_context(working_folder(tempfile.gettempdir()))
    owner = os.getpid()
    atexit.register(lambda: _files.close() if os.getpid() == owner else None)  # not at the end of a forked copy
    return folder


@functools.cache
def _written_table(transfer: str, primaries: str) -> str:
    axis = np.linspace(0, 1, GRID)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")  # red changes fastest
    values = _sdr_range(np.stack([red, green, blue], -1), transfer, primaries).reshape(-1, 3)
    lines = (f"{r:.5f} {g:.5f} {b:.5f}\n" for r, g, b in values.tolist())
    name = f"{transfer}-{primaries}.cube"
    (_folder() / name).write_text(f"LUT_3D_SIZE {GRID}\n" + "".join(lines), encoding="ascii")
    return name


def sdr_values(signal: npt.ArrayLike, colours: Colours) -> npt.NDArray[np.float64]:
    """What an SDR screen is given for a signal: what the filters come close to.

    Args:
        signal: RGB, each 0…1, [..., 3].
        colours: of the signal, which are mapped.

    Returns:
        RGB of BT.709, each 0…1, [..., 3].
    """
    values = np.asarray(signal, np.float64)
    if colours.is_hdr:
        values = _sdr_range(values, str(colours.transfer), colours.known_primaries)
    light = values**SDR_GAMMA @ _to_bt709(colours.known_primaries).T
    return np.asarray(np.clip(light, 0, 1) ** (1 / SDR_GAMMA))


def _sdr_range(signal: npt.NDArray[np.float64], transfer: str, primaries: str) -> npt.NDArray[np.float64]:
    """The signal of SDR with the same primaries, [..., 3]."""
    light = _pq_light(signal) if transfer == PQ else _hlg_light(signal, _to_xyz(primaries)[1])
    return np.asarray(np.minimum(_compressed(light) / WHITE, 1) ** (1 / SDR_GAMMA))


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
    """Nits."""
    power = signal ** (1 / PQ_M2)
    return np.asarray(PQ_PEAK * (np.maximum(power - PQ_C1, 0) / (PQ_C2 - PQ_C3 * power)) ** (1 / PQ_M1))


def _pq_signal(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    power = (light / PQ_PEAK) ** PQ_M1
    return np.asarray(((PQ_C1 + PQ_C2 * power) / (1 + PQ_C3 * power)) ** PQ_M2)


def _hlg_light(signal: npt.NDArray[np.float64], luma: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Nits on a screen of 1,000 nits (ARIB STD-B67, BT.2100)."""
    a, b, c, system_gamma = 0.17883277, 0.28466892, 0.55991073, 1.2
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return np.asarray(PEAK * scene * (scene @ luma)[..., None] ** (system_gamma - 1))


def _compressed(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Light with its range of 1,000 nits brought into that of SDR (BT.2390, in PQ), with the hue kept."""
    strongest = light.max(axis=-1, keepdims=True)
    peak, white = _pq_signal(np.array([PEAK, WHITE]))
    top = white / peak
    knee = 1.5 * top - 0.5
    level = _pq_signal(np.minimum(strongest, PEAK)) / peak
    t = np.maximum(level - knee, 0) / (1 - knee)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    target = _pq_light(peak * np.where(level < knee, level, bent))
    return np.asarray(light * target / np.maximum(strongest, 1e-9))
