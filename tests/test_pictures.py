"""Still pictures: damaged and absurd ones are one kind of error, and attention is painted on frames."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtg.video.pictures import PictureError, open_picture, paint_attention


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;"


def png() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(content, "PNG")
    return content.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a picture",
        gif(11585, 11582),  # Pillow only warns of it
        gif(65535, 65535),
        png()[:60],
        png()[:33] + chunk(b"IDAT", b"no deflated data") + chunk(b"IEND", b""),
        png()[:33] + b"\0\0\0\5!!!!" + png()[33:],
        b"II*\0\xff\xff\xff\xff",
    ],
    ids=["empty", "text", "134 MP", "4 GP", "short", "no deflate", "broken chunk", "TIFF"],
)
def test_what_is_no_picture_is_one_kind_of_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(content)
    with (
        warnings.catch_warnings(),
        pytest.raises(PictureError),
    ):
        warnings.simplefilter("error")
        with open_picture(path) as picture:
            picture.convert("RGB")


def test_a_picture_is_read_and_only_of_the_named_formats(tmp_path: Path) -> None:
    with open_picture(io.BytesIO(png())) as picture:
        assert picture.convert("RGB").getpixel((39, 29)) == (255, 0, 0)
    with pytest.raises(PictureError), open_picture(io.BytesIO(png()), formats=["JPEG"]):
        pass
    with pytest.raises(FileNotFoundError), open_picture(tmp_path / "none.png"):
        pass


def test_attention_is_painted_where_it_is() -> None:
    frame = np.full((70, 70, 3), 90, np.uint8)
    attention = np.zeros((7, 7), np.float32)
    attention[1, 5] = 0.3
    painted = paint_attention(frame, attention)
    changed = np.abs(painted.astype(int) - 90).sum(axis=2)
    assert np.unravel_index(changed.argmax(), changed.shape)[0] in range(10, 20)
    assert np.unravel_index(changed.argmax(), changed.shape)[1] in range(50, 60)
    assert changed[40:, :30].max() == 0


def test_no_attention_leaves_the_frame() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(paint_attention(frame, np.zeros((2, 2), np.float32)), frame)
