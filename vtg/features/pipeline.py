"""Decode and encode videos side by side.

`vtg.features.decoding.open_video` gives the chunks of one video and `encode_chunks` their features: indexing
(`encode_videos`), extraction on one machine and the stages on a cluster are made of these two.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch

from vtg.clip.outputs import FrameFeatures
from vtg.errors import VtgError
from vtg.features.decoding import open_video
from vtg.features.store import EncodedChunk, content_key
from vtg.features.thumbnails import make_miniatures
from vtg.video import Chunk, VideoInfo

__all__ = [
    "EncodedChunk",
    "EncodedVideo",
    "FrameEncoder",
    "encode_chunk",
    "encode_chunks",
    "encode_now",
    "encode_video",
    "encode_videos",
    "read_ahead",
    "to_float16",
]

CHUNKS_AHEAD = 2  # decoded chunks that may wait for the encoder: enough to keep it busy, and memory bounded
FLOAT16_MAX = 65504.0

Item = TypeVar("Item")


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
    info: VideoInfo | None = None
    skipped: bool = False
    chunks: Iterator[EncodedChunk] = field(default_factory=lambda: iter(()), repr=False)

    def __iter__(self) -> Iterator[EncodedChunk]:
        return self.chunks


_Decoded = (
    EncodedVideo | Chunk | VtgError | None
)  # of a video: its beginning, its chunks, and None or an error at its end


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
    decoding = read_ahead(_decoded(list(paths), fps, encoder.image_size, skip), CHUNKS_AHEAD, "vtg-decode")
    with contextlib.closing(decoding) as decoded:
        for video in decoded:
            assert isinstance(video, EncodedVideo)
            frames = _chunks_of_one(decoded)
            video.chunks = encode_chunks(frames, partial(encode_now, encoder))
            yield video
            with contextlib.suppress(VtgError):
                deque(frames, maxlen=0)  # what was not taken is thrown away, and not encoded


def encode_video(path: Path, encoder: FrameEncoder, fps: float) -> Iterator[EncodedChunk]:
    """Encode one video; see `encode_videos`.

    Raises:
        VtgError: while iterating, where the file cannot be read or decoded.
    """
    with contextlib.closing(encode_videos([path], encoder, fps)) as videos:
        for video in videos:
            yield from video


def encode_chunks(
    chunks: Iterable[Chunk], submit: Callable[[Chunk], Future[EncodedChunk]]
) -> Generator[EncodedChunk, None, None]:
    """The features of chunks in their order, while later ones are decoded and encoded.

    Args:
        chunks: times [N] seconds and frames [N, H, W, 3] uint8 each.
        submit: has one encoded, at once (`encode_now`) or in other threads; where it waits, decoding waits.
    """
    waiting: deque[Future[EncodedChunk]] = deque()
    try:
        for chunk in chunks:
            waiting.append(submit(chunk))
            while waiting and waiting[0].done():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def encode_now(encoder: FrameEncoder, chunk: Chunk) -> Future[EncodedChunk]:
    """Encode a chunk in the calling thread, for `encode_chunks`."""
    future: Future[EncodedChunk] = Future()
    future.set_result(encode_chunk(encoder, *chunk))
    return future


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


def read_ahead(items: Generator[Item, None, None], count: int, thread_name: str) -> Generator[Item, None, None]:
    """The items of a generator, which runs in a thread of its own; closing this closes it too.

    Args:
        items: the generator.
        count: items that it may be ahead.
        thread_name: of the thread.
    """
    waiting: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(maxsize=count)
    stop = threading.Event()

    def put(message: tuple[Item] | BaseException | None) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(message, timeout=0.1)
                return True
        return False

    def read() -> None:
        try:
            with contextlib.closing(items):
                if all(put((item,)) for item in items):
                    put(None)
        except BaseException as error:  # a bug here must reach the caller, who would wait for ever
            put(error)

    thread = threading.Thread(target=read, name=thread_name, daemon=True)
    thread.start()
    try:
        while (message := waiting.get()) is not None:
            if isinstance(message, BaseException):
                raise message
            yield message[0]
    finally:
        stop.set()
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):
                waiting.get(timeout=0.05)


def _decoded(paths: list[Path], fps: float, size: int, skip: Callable[[str], bool]) -> Generator[_Decoded, None, None]:
    for path in paths:
        key, begun = "", False
        try:
            content = content_key(path)
            is_skipped = skip(content)
            key = content
            if is_skipped:
                begun = True
                yield EncodedVideo(path, key, skipped=True)
            else:
                with open_video(path, size, lambda _: fps) as video:
                    begun = True
                    yield EncodedVideo(path, key, video.info)
                    yield from video.chunks
        except VtgError as error:
            if not begun:
                yield EncodedVideo(path, key)
            yield error
        else:
            yield None


def _chunks_of_one(decoded: Iterator[_Decoded]) -> Iterator[Chunk]:
    """The chunks up to the end of the video that has just begun."""
    for message in decoded:
        if isinstance(message, VtgError):
            raise message
        if not isinstance(message, tuple):
            return
        yield message
