"""Decode the frame shown near a time with PyAV, quickly; for thumbnails of previews."""

from __future__ import annotations

import math
import os
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from vtg.video.colour import Colours, resize_to_rgb
from vtg.video.containers import open_container, rational, reading_errors
from vtg.video.damage import check_coded_rate
from vtg.video.filters import filter_graph
from vtg.video.limits import decoding_threads
from vtg.video.orientation import UPRIGHT, orientation_of
from vtg.video.probing import video_stream
from vtg.video.pyav_decoder import INDEXED, ONE_FRAME_CODECS
from vtg.video.samples import DecodingError

__all__ = ["frame_near"]


def frame_near(path: str | os.PathLike[str], time: float, side: int) -> npt.NDArray[np.uint8]:
    """Decode the frame shown at about a time, quickly; non-reference frames are skipped.

    Args:
        path: the video.
        time: seconds from the start of the file.
        side: maximum of the longer side, pixels.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        DecodingError: not possible for this file; use the ffmpeg binary.
        VideoError: it cannot be opened, or is damaged.
    """
    import av

    try:
        with open_container(path) as container:
            stream, _ = video_stream(container)
            clock = None if stream is None else rational(stream.time_base)
            if stream is None or stream.codec_context is None or clock is None:
                raise DecodingError("has no video stream that can be decoded")
            context = stream.codec_context
            dated = INDEXED.search(container.format.name) and context.codec.canonical_name in ONE_FRAME_CODECS
            if not dated or rational(stream.sample_aspect_ratio) not in (None, 1):
                raise DecodingError("cannot be sought, or has no square pixels")
            check_coded_rate(path, rational(context.framerate))
            if not decoding_threads(context.width, context.height):
                raise DecodingError("has frames too large to be decoded in this process")
            context.skip_frame = "NONREF"
            context.thread_count = 1
            at = math.floor((Fraction(time) + Fraction(container.start_time or 0, av.time_base)) / clock)
            container.seek(at, stream=stream)
            found = None
            for decoded in container.decode(stream):
                if decoded.pts is None or orientation_of(decoded) != UPRIGHT:
                    raise DecodingError("has rotated frames, or frames without timestamps")
                if decoded.pts > at and found is not None:
                    break
                found = decoded
            else:
                if found is None or found.pts + (found.duration or 0) < at:
                    raise DecodingError("has no frame at this time")
            scale = min(1.0, side / max(found.width, found.height))
            width, height = (max(1, round(length * scale)) for length in (found.width, found.height))
            colours = Colours.of_frame(found)
            if not colours.is_mapped:
                shown = found.reformat(width, height, format="rgb24", interpolation="BICUBIC")
            else:
                fitting = filter_graph(stream, resize_to_rgb(colours, width, height))
                fitting.push(found)
                shown = fitting.pull()
            frame: npt.NDArray[np.uint8] = shown.to_ndarray()
            return frame
    except reading_errors() as error:
        raise DecodingError(str(error)) from error
