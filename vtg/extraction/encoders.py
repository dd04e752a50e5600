"""Encode frames on all GPUs or cores of one machine, with results that do not depend on their number."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import numpy as np
import torch

from vtg.clip.encoder import ClipEncoder
from vtg.clip.specs import EncoderSpec
from vtg.features.pipeline import encode_chunk, to_float16
from vtg.features.store import EncodedChunk
from vtg.video import Chunk
from vtg.video.limits import MAX_THREADS

__all__ = ["EncoderPool", "devices", "load_encoder", "use_one_thread"]

GPU_BATCH_FRAMES = 32  # size of a chunk; independent of free memory, so that batches are the same on all machines

Result = TypeVar("Result")

_setting_threads = threading.Lock()


def devices(device: str | None) -> list[str]:
    """The devices to encode on: the given one, else every GPU, else the best available."""
    if device is not None and device != "cuda":
        return [device]
    if torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [device or ("mps" if torch.backends.mps.is_available() else "cpu")]


def load_encoder(spec: EncoderSpec, device: str) -> ClipEncoder:
    """Load a CLIP with a batch size that does not depend on free memory.

    Raises:
        VtgError: its weights cannot be loaded.
    """
    batch = GPU_BATCH_FRAMES if device.startswith("cuda") else None
    return ClipEncoder(spec.clip, spec.weights, spec.layers, device, batch_size=batch, preprocessing=spec.preprocessing)


def use_one_thread() -> None:
    """Limit torch to one thread for operations of the calling thread; other threads are not affected.

    The last bits of an operation's result depend on the number of threads.
    """
    with _setting_threads:
        default = torch.get_num_threads()
        torch.set_num_threads(1)
        # This applies to the calling thread, and to threads that have not used torch yet: a temporary thread resets it
        # for the latter.
        other = threading.Thread(target=torch.set_num_threads, args=(default,))
        other.start()
        other.join()


class EncoderPool:
    """A pool of encoders: one for each GPU or, on the CPU, one thread a core with shared weights.

    A batch is a chunk of one video and is encoded by one thread, so that a video's features depend neither on the
    number of cores nor on other videos encoded at the same time. Use it in a ``with`` statement.

    Args:
        spec: the CLIP.
        device: a torch device; None for every GPU, or the best available.
        workers: threads on the CPU; None for torch's number of threads.

    Raises:
        VtgError: the weights cannot be loaded.
    """

    def __init__(self, spec: EncoderSpec, device: str | None = None, workers: int | None = None) -> None:
        places = devices(device)
        encoders = [load_encoder(spec, place) for place in places]
        self._on_cpu = places == ["cpu"]
        if self._on_cpu:
            encoders *= workers or torch.get_num_threads()
        self._encoders: queue.SimpleQueue[ClipEncoder] = queue.SimpleQueue()
        for encoder in encoders:
            self._encoders.put(encoder)
        self._pool = ThreadPoolExecutor(
            len(encoders), thread_name_prefix="vtg-encode", initializer=use_one_thread if self._on_cpu else None
        )
        # Chunks that are being encoded or waiting: at most two for each encoder.
        self._room = threading.Semaphore(2 * len(encoders))
        self.framing = encoders[0].framing
        # Enough to keep the encoders busy; on the CPU decoding takes a small part of the time.
        self.decoders = max(2, len(encoders) if self._on_cpu else _cores())

    def __enter__(self) -> EncoderPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def decoding_threads(self, videos: int) -> int:
        """Threads for each decoder with a number of videos, so that all cores decode; at most `MAX_THREADS`."""
        return min(MAX_THREADS, max(1, _cores() // max(1, min(self.decoders, videos))))

    def encode_frames(self, chunk: Chunk, is_wanted: Callable[[], bool]) -> Future[EncodedChunk] | None:
        """Submit a chunk for encoding; blocks while too many others are waiting.

        Args:
            chunk: times [N] and frames [N, H, W, 3].
            is_wanted: called repeatedly while waiting; False cancels.

        Returns:
            A future of the chunk's features; None if cancelled.
        """
        while not self._room.acquire(timeout=0.2):
            if not is_wanted():
                return None
        future = self._submit(lambda encoder: encode_chunk(encoder, *chunk))
        future.add_done_callback(lambda _: self._room.release())
        return future

    def encode_text(self, text: str) -> Future[np.ndarray]:
        """Submit a sentence for encoding: a future of [L, K, C] float16."""
        return self._submit(lambda encoder: to_float16(encoder.encode_text(text).layers))

    def _submit(self, work: Callable[[ClipEncoder], Result]) -> Future[Result]:
        def run() -> Result:
            encoder = self._encoders.get()
            try:
                return work(encoder)
            finally:
                self._encoders.put(encoder)

        return self._pool.submit(run)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only: the cores that this process may use
    return len(affinity(0)) if affinity else os.cpu_count() or 1
