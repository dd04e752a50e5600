"""Read and write feature caches in the published layout: one `.npy` file a video and one a query."""

from __future__ import annotations

import math
import os
import re
import threading
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from vtg.clip.specs import DEFAULT_CLIP, DEMO, is_weights_file
from vtg.errors import VtgError
from vtg.files.paths import check_regular
from vtg.files.text import read_json
from vtg.files.whole import WholeFileWriter

__all__ = [
    "EXTRACTION_SETTINGS",
    "NPY_HEADER_BYTES",
    "NpyWriter",
    "PublishedFeatures",
    "extracted_folders",
    "feature_folders",
    "is_folder_name",
    "read_npy",
]

FLOAT_TYPES = ("<f2", "<f4", "<f8")  # valid data types
NPY_HEADER_BYTES = 128  # of version 1.0, a multiple of 64 with room for any shape; written last, when T is known

EXTRACTION_SETTINGS = "extraction/settings.json"  # in a folder that `vtg extract` wrote
PUBLISHED_NAMES = {"vit_b_32": "clip_b32"}  # of CLIPs, in the folders of the published caches

# Python 3.11 cannot parse the literals in headers in two threads at once ("AST constructor recursion depth mismatch").
_PARSING = threading.Lock()


def feature_folders(clip: str | None, pretrained: str | None, layers: int = 4) -> tuple[str, str]:
    """The names of the folders of videos and of queries in the published layout, named after a CLIP.

    ``clip_b32_vid_k4`` and ``clip_b32_txt_k4`` for ViT-B/32; for others open_clip's name, such as ``vit_l_14_vid_k4``.

    Args:
        clip: open_clip's name of the CLIP; None for ViT-B/32, or for the name of the file of weights.
        pretrained: a tag, a file of weights, or "demo".
        layers: K.
    """
    name = clip or DEFAULT_CLIP
    if clip is None and pretrained is not None and (pretrained == DEMO or is_weights_file(pretrained)):
        name = Path(pretrained).stem
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").removesuffix("_quickgelu") or "clip"
    slug = PUBLISHED_NAMES.get(slug, slug)
    return f"{slug}_vid_k{layers}", f"{slug}_txt_k{layers}"


def extracted_folders(root: Path) -> tuple[str, str] | None:
    """The folders of videos and of queries in a folder that `vtg extract` wrote; None for another folder."""
    path = root / EXTRACTION_SETTINGS
    try:
        settings = read_json(path.read_bytes()) if path.is_file() else {}
        names = settings["videos"], settings["queries"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return names if all(map(is_folder_name, names)) else None


def is_folder_name(name: object) -> bool:
    """Whether a value from a file names a folder inside another one, and nothing outside it."""
    return isinstance(name, str) and re.fullmatch(r"[\w][\w .-]*", name) is not None


class PublishedFeatures:
    """The layout of the published feature caches: one float16 ``.npy`` a video and one a query.

    Args:
        root: the folder that holds ``clip_b32_vid_k4/`` and ``clip_b32_txt_k4/``.
        videos: name of the folder of videos, ``{vid}.npy`` of shape [T, K, P, Cv].
        queries: name of the folder of queries, ``{qid}.npy`` of shape [L, K, Cq].
    """

    def __init__(
        self, root: str | os.PathLike[str], videos: str = "clip_b32_vid_k4", queries: str = "clip_b32_txt_k4"
    ) -> None:
        self.videos = Path(root) / videos
        self.queries = Path(root) / queries

    def video(self, vid: str) -> np.ndarray:
        """Map one video's layers, [T, K, P, Cv] float16.

        Raises:
            VtgError: the file is missing, damaged or of another shape.
        """
        return read_npy(self.videos / f"{vid}.npy", dimensions=4)

    def query(self, qid: str | int) -> np.ndarray:
        """Map one query's layers, [L, K, Cq] float16.

        Raises:
            VtgError: the file is missing, damaged or of another shape.
        """
        return read_npy(self.queries / f"{qid}.npy", dimensions=3)

    def video_ids(self) -> Iterator[str]:
        """The ids of all videos, sorted."""
        return iter(sorted(path.stem for path in self.videos.glob("*.npy")))

    def write_video(self, vid: str, layers: np.ndarray) -> Path:
        """Write one video's layers [T, K, P, Cv] as float16, atomically."""
        return _write(self.videos / f"{vid}.npy", layers, dimensions=4)

    def write_query(self, qid: str | int, layers: np.ndarray) -> Path:
        """Write one query's layers [L, K, Cq] as float16, atomically."""
        return _write(self.queries / f"{qid}.npy", layers, dimensions=3)


def read_npy(path: Path, dimensions: int) -> np.ndarray:
    """Map an array of features from a ``.npy`` file.

    Raises:
        VtgError: the file is missing, damaged, of another type or of another number of dimensions.
    """
    check_regular(path)
    try:
        with _PARSING, np.errstate(over="raise"):  # overflow in a damaged shape
            array: np.ndarray = np.lib.format.open_memmap(path, mode="r")  # rejects pickles and .npz archives
    except FileNotFoundError:
        raise VtgError(f"{path}: no such features; extract them, or check the folder") from None
    except (ValueError, OSError, EOFError, ArithmeticError, SyntaxError, tokenize.TokenError):  # damaged headers
        raise VtgError(f"{path}: not a whole .npy file; extract it again") from None
    if array.dtype.str not in FLOAT_TYPES:
        raise VtgError(f"{path}: holds {array.dtype.str}, not float16, float32 or float64; extract it again")
    if array.ndim != dimensions or not math.prod(array.shape):
        raise VtgError(f"{path}: has shape {list(array.shape)}, not {dimensions} dimensions; extract it again")
    return array


class NpyWriter:
    """Writer of a float16 ``.npy`` file, chunk by chunk along its first axis; use it in a ``with`` statement.

    The file appears under its name if the statement exits without an error.

    Args:
        path: the file; its folder is created.
    """

    def __init__(self, path: Path) -> None:
        self._file = WholeFileWriter(path, NPY_HEADER_BYTES)
        self._path = path
        self._rest: tuple[int, ...] | None = None
        self._length = 0

    @property
    def sha256(self) -> str:
        """SHA-256 of the values written so far, without the header, in 64 hex digits."""
        return self._file.sha256

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values written so far."""
        return (self._length, *(self._rest or ()))

    def __enter__(self) -> NpyWriter:
        self._file.__enter__()
        return self

    def append(self, values: np.ndarray) -> None:
        """Write [N, ...] as float16.

        Raises:
            ValueError: the shape after N differs from the values before.
        """
        values = np.ascontiguousarray(values, dtype="<f2")
        if self._rest is not None and values.shape[1:] != self._rest:
            raise ValueError(f"{self._path.name}: shape {values.shape} does not continue {self.shape}")
        self._rest = values.shape[1:]
        self._length += len(values)
        self._file.write(values)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if not math.prod(self.shape):
                    raise ValueError(f"{self._path}: nothing was written")
                self._file.complete(_npy_header(self.shape))
        finally:
            self._file.__exit__(kind, error, trace)


def _npy_header(shape: tuple[int, ...]) -> bytes:
    fields = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape!r}, }}".encode("latin1")
    room = NPY_HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + fields.ljust(room - 1) + b"\n"


def _write(path: Path, array: np.ndarray, dimensions: int) -> Path:
    if array.ndim != dimensions:
        raise ValueError(f"{path.name}: shape {array.shape} does not have {dimensions} dimensions")
    with NpyWriter(path) as writer:
        writer.append(array)
    return path
