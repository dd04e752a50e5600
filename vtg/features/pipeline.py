"""Encode videos, decoding in parallel.

Indexing (`encode_videos`), extraction on one machine and extraction on a cluster all consist of
`vtg.features.decoding.open_video`, which yields the chunks of one video, and `encode_chunks`.
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
from vtg.features.thumbnails import make_thumbnails
from vtg.video import Chunk, VideoInfo
from vtg.video.framing import Framing

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

CHUNKS_AHEAD = 2  # decoded chunks that may wait for the encoder; bounds memory
FLOAT16_MAX = 65504.0

Item = TypeVar("Item")


class FrameEncoder(Protocol):
    """An encoder for the pipeline, such as `vtg.ClipEncoder`."""

    @property
    def framing(self) -> Framing:
        """How the frames of videos become the squares that it encodes."""

    def encode_frames(self, frames: np.ndarray) -> FrameFeatures:
        """Encode uint8 frames [N, H, W, 3]."""


@dataclass
class EncodedVideo:
    """A video that is being encoded; iterating over it yields its chunks.

    Attributes:
        path: the file.
        key: its content key, "" if it could not be computed.
        info: from `probe`, None if the file could not be read or was skipped.
        skipped: whether the caller's ``skip`` returned True; it has no chunks.

    Raises:
        VtgError: while iterating, if the file cannot be read or decoded.
    """

    path: Path
    key: str
    info: VideoInfo | None = None
    skipped: bool = False
    chunks: Iterator[EncodedChunk] = field(default_factory=lambda: iter(()), repr=False)

    def __iter__(self) -> Iterator[EncodedChunk]:
        return self.chunks


# Messages for each video: an EncodedVideo first, its chunks, and None or an error at its end.
_Decoded = EncodedVideo | Chunk | VtgError | None


def encode_videos(
    paths: Iterable[Path],
    encoder: FrameEncoder,
    fps: float,
    skip: Callable[[str], bool] = lambda key: False,
) -> Generator[EncodedVideo, None, None]:
    """Encode videos in order; while one chunk is encoded, the next ones (of this video or the next) are decoded.

    Args:
        paths: the files.
        encoder: a `vtg.ClipEncoder`, or another `FrameEncoder`.
        fps: frames a second to sample.
        skip: called with each content key before its file is decoded; True skips the file.

    Yields:
        One `EncodedVideo` a path. Its chunks have to be consumed before the next video is requested; the others are
        discarded without encoding.
    """
    decoding = read_ahead(_decoded(list(paths), fps, encoder.framing, skip), CHUNKS_AHEAD, "vtg-decode")
    with contextlib.closing(decoding) as decoded:
        for video in decoded:
            assert isinstance(video, EncodedVideo)
            frames = _chunks_of_one(decoded)
            video.chunks = encode_chunks(frames, partial(encode_now, encoder))
            yield video
            with contextlib.suppress(VtgError):
                deque(frames, maxlen=0)  # discard the rest


def encode_video(path: Path, encoder: FrameEncoder, fps: float) -> Iterator[EncodedChunk]:
    """Encode one video; see `encode_videos`.

    Raises:
        VtgError: while iterating, if the file cannot be read or decoded.
    """
    with contextlib.closing(encode_videos([path], encoder, fps)) as videos:
        for video in videos:
            yield from video


def encode_chunks(
    chunks: Iterable[Chunk], submit: Callable[[Chunk], Future[EncodedChunk]]
) -> Generator[EncodedChunk, None, None]:
    """Yield the features of chunks in order, while later ones are decoded and encoded.

    Args:
        chunks: times [N] seconds and frames [N, H, W, 3] uint8 each.
        submit: encodes a chunk at once (`encode_now`) or in other threads; blocking in it pauses decoding.
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
    """Encode frames [N, H, W, 3] with times [N] in the calling thread."""
    features = encoder.encode_frames(frames)
    layers, embedding = to_float16(features.layers), features.embedding.float().numpy()
    return EncodedChunk(times, layers, embedding, make_thumbnails(frames))


def to_float16(layers: torch.Tensor) -> np.ndarray:
    """Convert features to float16, clamping them to its range."""
    if layers.dtype != torch.float16:
        layers = layers.clamp_(-FLOAT16_MAX, FLOAT16_MAX).half()
    return layers.numpy()


def read_ahead(items: Generator[Item, None, None], count: int, thread_name: str) -> Generator[Item, None, None]:
    """Yield the items of a generator that runs in another thread; closing this one closes it too.

    Args:
        items: the generator.
        count: number of items that it may be ahead.
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
        except BaseException as error:  # raised in the caller, which would wait forever otherwise
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


def _decoded(
    paths: list[Path], fps: float, framing: Framing, skip: Callable[[str], bool]
) -> Generator[_Decoded, None, None]:
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
                with open_video(path, framing, lambda _: fps) as video:
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
    """The chunks of the current video."""
    for message in decoded:
        if isinstance(message, VtgError):
            raise message
        if not isinstance(message, tuple):
            return
        yield message
