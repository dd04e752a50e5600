"""Sample frames of a video on a regular time grid, and decode single thumbnails."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Generator, Iterator
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from vtg.errors import VideoError, VtgError
from vtg.video.colour import resize_to_rgb
from vtg.video.containers import absolute, input_options
from vtg.video.decoders import decoders_of
from vtg.video.filters import filter_chain
from vtg.video.framing import Framing
from vtg.video.limits import child_threads
from vtg.video.probing import VideoTrack, survey
from vtg.video.process import Pipe, explain, ffmpeg_binary
from vtg.video.samples import DecodingError
from vtg.video.seeking import jump_before

__all__ = ["Chunk", "sample_frames", "thumbnail"]

FRAMES_PER_CHUNK = 32
MAX_DENOMINATOR = 1001000  # a rate becomes the same fraction as in ffmpeg: 29.97002997 is 30000/1001
THUMBNAIL_INTERVAL_SECONDS = Fraction(1, 1000)
TOLERATED_SHORTFALL_SECONDS = Fraction(1)  # without frames at the end, filled with the last frame

Chunk = tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]


def sample_frames(
    path: str | os.PathLike[str],
    fps: float,
    size: int | Framing,
    start: float = 0.0,
    end: float | None = None,
    *,
    track: VideoTrack | None = None,
    threads: int | None = None,
) -> Iterator[Chunk]:
    """Decode one small, square frame for each interval of 1/fps seconds.

    Time 0 is the first frame. Sample i represents [i/fps, (i+1)/fps) and is the last frame shown strictly before the
    middle of that interval, (i+½)/fps, or the first frame if there is none: the frame that ffmpeg's `fps` filter picks
    after `setpts=PTS-STARTPTS`. There are max(1, round(duration·fps)) samples. The frame is made a
    square as `size` says: with a number, the short side is resized (bicubic, antialiased) and the centre is cropped.

    Args:
        path: the file.
        fps: samples a second.
        size: side of the square, pixels; or how a frame becomes a square.
        start: only samples whose whole interval lies at or after this time, seconds; the grid itself does not move.
        end: only samples whose whole interval lies at or before this time; None, or a time at or after the end of the
            video: up to the last sample, whose interval may reach beyond the video.
        track: from `survey`, if the file has been probed already.
        threads: of the decoder; None: one per core, at most 4. Fewer are better where several videos are sampled at a
            time; the frames do not depend on it.

    Returns:
        An iterator over chunks of at most 32 samples: times [N] float64, seconds, i/fps; frames [N, size, size, 3]
        uint8 RGB, C-contiguous. Memory does not grow with the length of the video. It may be closed early, and may
        run in any single thread; decoding releases the interpreter lock.

    Raises:
        VtgError: `fps` or `size` is not positive, or `start` is not before `end`.
        VideoError: at the call if the file is not a complete, readable video; while iterating if its frames end early.
    """
    if not (fps > 0 and math.isfinite(fps)):
        raise VtgError(f"cannot sample {fps} frames a second: give a number above 0")
    framing = size if isinstance(size, Framing) else Framing(size)
    if framing.size < 1:
        raise VtgError(f"cannot make frames of {framing.size} pixels: give a size of 1 or more")
    if not (start >= 0 and (end is None or end > start)):
        raise VtgError(f"nothing lies between {start} s and {end} s: give a start of 0 or more and an end after it")
    track = track or survey(path)
    rate = as_rate(fps)
    first, stop = sample_range(track.duration, rate, start, end)
    return _decode(track, rate, framing, first, stop, threads)


def thumbnail(path: str | os.PathLike[str], time: float, size: int) -> npt.NDArray[np.uint8]:
    """Decode the whole frame shown at a time at a small size; seeks, so its speed does not depend on the time.

    Args:
        path: the file.
        time: seconds from the first frame, to the millisecond; the end of the video gives the last frame.
        size: the longer side, pixels.

    Returns:
        Array [H, W, 3] uint8 RGB.

    Raises:
        VtgError: `size` is not positive or `time` lies outside the video.
        VideoError: the file cannot be read.
    """
    if size < 1:
        raise VtgError(f"cannot make a thumbnail of {size} pixels: give a size of 1 or more")
    track = survey(path)
    info = track.info
    if not 0 <= time <= info.duration:
        raise VtgError(f"{path}: {time:g} s is not in the video: it is {info.duration:.2f} s long")
    longest = max(info.width, info.height)
    width, height = (max(1, round(side * size / longest)) for side in (info.width, info.height))
    moment = _exact(time)
    # A sample of one millisecond: its middle lies just after the requested time.
    index = math.floor(moment / THUMBNAIL_INTERVAL_SECONDS)
    for decoder in decoders_of(track):
        with contextlib.suppress(DecodingError):
            return next(
                decoder.decode(track, 1 / THUMBNAIL_INTERVAL_SECONDS, index, index + 1, width, height, chunk=1)
            )[0]
    # One sample whose middle lies there, however long the frames before it are shown. The last frame is repeated,
    # because there is none at the very end.
    rate = 1 / (2 * moment + THUMBNAIL_INTERVAL_SECONDS)
    shaping = filter_chain(resize_to_rgb(track.colours, width, height))
    jump = jump_before(track, moment)
    with contextlib.closing(
        _decode_with_ffmpeg(track, rate, 0, 1, shaping, (height, width), hold=True, jump=jump)
    ) as frames:
        return next(frames)[0]


def as_rate(fps: float) -> Fraction:
    """Samples a second as the fraction that ffmpeg would read."""
    return Fraction(fps).limit_denominator(MAX_DENOMINATOR) or Fraction(1, MAX_DENOMINATOR)


def sample_range(duration: Fraction, rate: Fraction, start: float, end: float | None) -> tuple[int, int]:
    """First sample and the one after the last for `start` and `end` in seconds, as `sample_frames` documents."""
    total = max(1, math.floor(duration * rate + Fraction(1, 2)))
    first = math.ceil(_exact(start) * rate)
    if end is None or end >= duration:
        return first, total
    return first, min(total, math.floor(_exact(end) * rate))


def _exact(seconds: float) -> Fraction:
    # 0.1 means one tenth, not the nearest binary number, which may lie just beyond the edge of a sample.
    return Fraction(seconds).limit_denominator(1_000_000)


def _decode(
    track: VideoTrack, rate: Fraction, framing: Framing, first: int, stop: int, threads: int | None
) -> Iterator[Chunk]:
    """Chunks of the samples first…stop-1."""
    done = first
    width, height = framing.resized(track.info.width, track.info.height)
    shaping = filter_chain(resize_to_rgb(track.colours, width, height, framing.interpolation))
    filters = f"{shaping},{framing.filter(width, height)}"
    shape = (framing.size, framing.size)
    for decoder in decoders_of(track) if first < stop else ():
        try:
            for whole in decoder.decode(
                track, rate, done, stop, width, height, FRAMES_PER_CHUNK, threads, framing.interpolation
            ):
                frames = framing.square(whole)
                yield _times(done, len(frames), rate), frames
                done += len(frames)
            return
        except DecodingError:
            pass  # the next decoder continues; ffmpeg, the last, distinguishes damaged frames from missing ones
    # For a video shorter than half an interval ffmpeg would return no frame.
    hold = track.duration * rate < Fraction(1, 2)
    for frames in _decode_with_ffmpeg(track, rate, done, stop, filters, shape, hold):
        yield _times(done, len(frames), rate), frames
        done += len(frames)


def _times(first: int, count: int, rate: Fraction) -> npt.NDArray[np.float64]:
    return np.arange(first, first + count) * rate.denominator / rate.numerator


def _decode_with_ffmpeg(
    track: VideoTrack,
    rate: Fraction,
    first: int,
    stop: int,
    shaping: str,
    shape: tuple[int, int],
    hold: bool = False,
    jump: list[str] | None = None,
) -> Generator[npt.NDArray[np.uint8], None, None]:
    """Run ffmpeg from the keyframe before the first sample and yield only the sampled frames."""
    if first >= stop:
        return
    if jump is None:
        jump = jump_before(track, (first + Fraction(1, 2)) / rate) if first else []
    # After a seek the first decoded frame is not the first of the file, so its time has to be given.
    origin, clock = (str(track.first), ["-copyts"]) if jump else ("STARTPTS", [])
    # The fps filter rounds its start time, which would move the grid: it gets one that needs no rounding, and the
    # samples before the first are dropped.
    step = math.lcm(rate.denominator, track.clock.numerator)
    begin = math.floor(first / rate / step) * step
    choosing = [
        f"setpts=PTS-{origin}",
        # At least one copy, because older versions lose the duration of the last frame.
        f"tpad=stop_mode=clone:stop={-1 if hold else 1}",
        f"fps=fps={rate.numerator}/{rate.denominator}:round=near:start_time={begin}",
        f"trim=start_frame={first - begin * rate}",
        "setpts=N",
    ]
    # Scale whichever are fewer: the samples, or the frames of which each gives several samples.
    filters = ",".join([shaping, *choosing] if rate > track.info.fps else [*choosing, shaping])
    threads = child_threads(track.coded_width, track.coded_height, track.pixel_bits)
    command = [ffmpeg_binary(), "-hide_banner", "-nostdin", "-v", "error", *clock, *jump, "-reinit_filter", "0"]
    command += ["-threads", str(threads), *input_options(), "-i", absolute(track.info.path), "-map", "0:V:0"]
    command += ["-vf", filters, "-frames:v", str(stop - first), "-f", "rawvideo", "pipe:1"]
    with Pipe(command) as pipe:
        wanted = stop - first
        last: npt.NDArray[np.uint8] | None = None
        while wanted:
            frames = np.empty((min(FRAMES_PER_CHUNK, wanted), *shape, 3), np.uint8)
            read = pipe.output.readinto(frames.data.cast("B")) // frames[0].nbytes
            if read:
                last = frames[read - 1].copy()
                yield frames[:read]
                wanted -= read
            if read < len(frames):
                break
        if wanted:
            pipe.finish()
            if last is None or wanted > max(Fraction(1), TOLERATED_SHORTFALL_SECONDS * rate):
                raise _truncated_error(track, stop - wanted, rate, pipe.error_output())
            for _ in range(wanted):
                yield last[None].copy()


def _truncated_error(track: VideoTrack, done: int, rate: Fraction, error_output: str) -> VideoError:
    reached = f"{float(done / rate):.1f} s"
    if done == 0:
        return VideoError(track.info.path, explain(error_output))
    return VideoError(
        track.info.path,
        f"is damaged: of its {float(track.duration):.1f} s only {reached} can be decoded; copy or download it again",
    )
