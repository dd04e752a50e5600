"""Choose the decoder of a video: PyAV, decord or the ffmpeg binary (`VTG_DECODER`); all give the same frames."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

import vtg.video.decord_decoder as decord_decoder
import vtg.video.pyav_decoder as pyav_decoder
from vtg.errors import VtgError
from vtg.video.probing import VideoTrack

__all__ = ["DECODERS", "DECODER_VARIABLE", "Decoder", "chosen_decoder", "decoders_of"]

DECODER_VARIABLE = "VTG_DECODER"
DECODERS = ("pyav", "decord", "ffmpeg")


class Decoder(Protocol):
    """Decodes in this process; where it fails, the next decoder is used, and last the ffmpeg binary."""

    def can_decode(self, track: VideoTrack) -> bool:
        """Whether the decoder may try a video."""

    def decode(
        self,
        track: VideoTrack,
        rate: Fraction,
        first: int,
        stop: int,
        width: int,
        height: int,
        chunk: int,
        threads: int | None = None,
        interpolation: str = "bicubic",
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the frames of samples first…stop-1, [N, height, width, 3] uint8 RGB, at most `chunk` at a time.

        Raises:
            DecodingError: a frame cannot be decoded; the frames yielded before are correct.
        """


def chosen_decoder() -> str:
    """The decoder that `VTG_DECODER` names, or "pyav".

    Raises:
        VtgError: it names an unknown decoder, or one that is not installed.
    """
    name = os.environ.get(DECODER_VARIABLE, "").strip().lower() or "pyav"
    if name not in DECODERS:
        raise VtgError(f"{DECODER_VARIABLE}={name}: no such decoder; choose one of {', '.join(DECODERS)}")
    if name == "decord" and importlib.util.find_spec("decord") is None:
        raise VtgError("decord is not installed: pip install decord2, or choose another decoder")
    return name


def decoders_of(track: VideoTrack) -> list[Decoder]:
    """The in-process decoders for a video, in the order in which to try them.

    Raises:
        VtgError: `VTG_DECODER` names an unknown decoder, or one that is not installed.
    """
    order: dict[str, list[Decoder]] = {"pyav": [pyav_decoder], "decord": [decord_decoder, pyav_decoder], "ffmpeg": []}
    return [decoder for decoder in order[chosen_decoder()] if decoder.can_decode(track)]
