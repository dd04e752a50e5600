"""Decoding and encoding at the same time: the only module that runs the two side by side."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from vtg.clip import FrameFeatures
from vtg.errors import VtgError
from vtg.features import EncodedChunk, content_key
from vtg.miniatures import make_miniatures
from vtg.video import VideoInfo, sample_frames
from vtg.video.probing import survey

__all__ = [
    "EncodedChunk",
    "EncodedVideo",
    "FrameEncoder",
    "encode_chunk",
    "encode_video",
    "encode_videos",
    "to_float16",
]

CHUNKS_AHEAD = 2  # decoded chunks that may wait for the encoder: enough to keep it busy, and memory bounded
FLOAT16_MAX = 65504.0


class FrameEncoder(Protocol):
    """What the pipeline asks of an encoder; `vtg.ClipEncoder` is one."""

    image_size: int

    def encode_frames(self, frames: np.ndarray) -> FrameFeatures:
        """Turn uint8 frames [N, H, W, 3] into features."""


@dataclass
class EncodedVideo:
    """One video on its way through the encoder; iterating over it gives its chunks.

    Attributes:
        path: the file.
        key: its content key, "" where none could be computed.
        info: what `probe` says, None where the file could not be read or was skipped.
        skipped: the caller's ``skip`` said that it knows this content already; it has no chunks.

    Raises:
        VtgError: while iterating, where the file cannot be read or decoded.
    """

    path: Path
    key: str
    info: VideoInfo | None
    skipped: bool
    chunks: Iterator[EncodedChunk] = field(repr=False)

    def __iter__(self) -> Iterator[EncodedChunk]:
        return self.chunks


@dataclass(frozen=True)
class _Begin:
    path: Path
    key: str = ""
    info: VideoInfo | None = None
    skipped: bool = False


_Frames = tuple[np.ndarray, np.ndarray]
_Message = _Begin | _Frames | BaseException | None  # None ends a video; an exception ends it badly


def encode_videos(
    paths: Iterable[Path],
    encoder: FrameEncoder,
    fps: float,
    skip: Callable[[str], bool] = lambda key: False,
) -> Generator[EncodedVideo, None, None]:
    """Encode videos in order; while one chunk is encoded, the next ones (of this video or the next) are decoded.

    Args:
        paths: the files.
        encoder: a `vtg.ClipEncoder`, or what looks like one.
        fps: frames a second to sample.
        skip: asked with each content key before its file is decoded; True passes it over.

    Yields:
        One `EncodedVideo` a path. Its chunks are taken before the next video is asked for; what was not taken is
        thrown away.
    """
    waiting: queue.Queue[_Message] = queue.Queue(maxsize=CHUNKS_AHEAD)
    stop = threading.Event()
    producer = threading.Thread(
        target=_decode, args=(list(paths), fps, encoder.image_size, skip, waiting, stop), name="vtg-decode", daemon=True
    )
    producer.start()
    try:
        while (message := waiting.get()) is not None:
            if not isinstance(message, _Begin):
                raise _unexpected(message)
            chunks = _Chunks(waiting, encoder)
            yield EncodedVideo(message.path, message.key, message.info, message.skipped, chunks)
            chunks.throw_rest_away()
    finally:
        stop.set()
        _drain(waiting, producer)


def encode_video(path: Path, encoder: FrameEncoder, fps: float) -> Iterator[EncodedChunk]:
    """Encode one video; see `encode_videos`.

    Raises:
        VtgError: while iterating, where the file cannot be read or decoded.
    """
    with contextlib.closing(encode_videos([path], encoder, fps)) as videos:
        for video in videos:
            yield from video


def encode_chunk(encoder: FrameEncoder, times: np.ndarray, frames: np.ndarray) -> EncodedChunk:
    """Encode frames [N, H, W, 3] of times [N] in the calling thread."""
    features = encoder.encode_frames(frames)
    layers, embedding = to_float16(features.layers), features.embedding.float().numpy()
    return EncodedChunk(times, layers, embedding, make_miniatures(frames))


def to_float16(layers: torch.Tensor) -> np.ndarray:
    """Features as they are kept: float16, where the largest number stands for what is larger."""
    if layers.dtype != torch.float16:
        layers = layers.clamp_(-FLOAT16_MAX, FLOAT16_MAX).half()
    return layers.numpy()


def _unexpected(message: _Message) -> BaseException:
    return message if isinstance(message, BaseException) else RuntimeError(f"unexpected message {type(message)}")


class _Chunks:
    """Encodes the waiting frames of one video, up to its end."""

    def __init__(self, waiting: queue.Queue[_Message], encoder: FrameEncoder) -> None:
        self._waiting = waiting
        self._encoder = encoder
        self._ended = False

    def __iter__(self) -> Iterator[EncodedChunk]:
        return self

    def __next__(self) -> EncodedChunk:
        return encode_chunk(self._encoder, *self._next_frames())

    def _next_frames(self) -> _Frames:
        if self._ended:
            raise StopIteration
        message = self._waiting.get()
        if isinstance(message, tuple):
            return message
        self._ended = True
        if message is None:
            raise StopIteration
        raise _unexpected(message)

    def throw_rest_away(self) -> None:
        """Take what was not taken, without encoding it."""
        while not self._ended:
            with contextlib.suppress(VtgError, StopIteration):
                self._next_frames()


def _decode(
    paths: list[Path],
    fps: float,
    size: int,
    skip: Callable[[str], bool],
    waiting: queue.Queue[_Message],
    stop: threading.Event,
) -> None:
    try:
        for path in paths:
            begun, key = False, ""
            try:
                key = content_key(path)
                if skip(key):
                    begun = _put(waiting, _Begin(path, key, skipped=True), stop)
                else:
                    track = survey(path)
                    begun = _put(waiting, _Begin(path, key, track.info), stop)
                    for times, frames in sample_frames(path, fps, size, track=track):
                        if not _put(waiting, (times, frames), stop):
                            return
            except VtgError as error:
                if not begun:
                    _put(waiting, _Begin(path, key), stop)
                _put(waiting, error, stop)
            else:
                _put(waiting, None, stop)
        _put(waiting, None, stop)
    except BaseException as error:  # a bug here must reach the caller, who would wait for ever
        _put(waiting, error, stop)


def _put(waiting: queue.Queue[_Message], message: _Message, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            waiting.put(message, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


def _drain(waiting: queue.Queue[_Message], producer: threading.Thread) -> None:
    while producer.is_alive():
        try:
            waiting.get(timeout=0.05)
        except queue.Empty:
            continue
