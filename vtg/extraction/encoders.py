"""Encode frames on all GPUs or cores of one machine, with the same result on each."""

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

GPU_BATCH = 32  # frames: as many as a chunk has, whatever memory is free, so that batches are the same everywhere

Result = TypeVar("Result")

_setting_threads = threading.Lock()


def devices(device: str | None) -> list[str]:
    """The devices to encode on: the one that is named, else every GPU, else the best that there is."""
    if device is not None and device != "cuda":
        return [device]
    if torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [device or ("mps" if torch.backends.mps.is_available() else "cpu")]


def load_encoder(spec: EncoderSpec, device: str) -> ClipEncoder:
    """Load a CLIP whose batches do not depend on the memory that happens to be free.

    Raises:
        VtgError: its weights cannot be had.
    """
    batch = GPU_BATCH if device.startswith("cuda") else None
    return ClipEncoder(spec.clip, spec.weights, layers=spec.layers, device=device, batch_size=batch)


def use_one_thread() -> None:
    """Let torch compute in one thread what the calling thread asks for; all other threads keep what they have.

    How many threads share an operation decides on the last bits of its result.
    """
    with _setting_threads:
        default = torch.get_num_threads()
        torch.set_num_threads(1)
        # This holds for the calling thread, and is now the default of threads that have not used torch yet: a thread
        # that ends at once sets that back.
        other = threading.Thread(target=torch.set_num_threads, args=(default,))
        other.start()
        other.join()


class EncoderPool:
    """Encoders side by side: one for each GPU; on the CPU one thread a core, which share the weights.

    A batch is a chunk of one video and is encoded by one thread, so that a video's features depend neither on how many
    cores there are nor on what else is encoded at the time. Use it in a ``with`` statement.

    Args:
        spec: the CLIP.
        device: a torch device; None takes every GPU, or the best that there is.
        workers: threads on the CPU; None takes as many as torch would.

    Raises:
        VtgError: the weights cannot be had.
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
        # What is decoded and waits for an encoder: as many chunks again as are being encoded.
        self._room = threading.Semaphore(2 * len(encoders))
        self.image_size = encoders[0].image_size
        # Enough to keep the encoders busy: on the CPU decoding takes a small part of the time.
        self.decoders = max(2, len(encoders) if self._on_cpu else _cores())

    def __enter__(self) -> EncoderPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def decoding_threads(self, videos: int) -> int:
        """Threads for each decoder so that all cores decode when so many videos are to be done, at most 4."""
        return min(MAX_THREADS, max(1, _cores() // max(1, min(self.decoders, videos))))

    def encode_frames(self, chunk: Chunk, is_wanted: Callable[[], bool]) -> Future[EncodedChunk] | None:
        """Encode a chunk as soon as an encoder is free; waits while too many others wait already.

        Args:
            chunk: times [N] and frames [N, H, W, 3].
            is_wanted: asked now and then while waiting; False ends it.

        Returns:
            What will be the chunk's features; None where it was no longer wanted.
        """
        while not self._room.acquire(timeout=0.2):
            if not is_wanted():
                return None
        future = self._submit(lambda encoder: encode_chunk(encoder, *chunk))
        future.add_done_callback(lambda _: self._room.release())
        return future

    def encode_text(self, text: str) -> Future[np.ndarray]:
        """Encode a sentence alone: [L, K, C] float16."""
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
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: the cores that this process may use
    return len(affinity(0)) if affinity else os.cpu_count() or 1
