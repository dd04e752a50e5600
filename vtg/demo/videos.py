"""Render demo videos (H.264) and write annotations in QVHighlights' format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vtg.demo.scene import Scene
from vtg.demo.scenes import make_scene, split_seed
from vtg.demo.sentences import Sentence, choose_sentences, truth
from vtg.errors import VtgError
from vtg.files.whole import write_whole
from vtg.progress import Progress, Reporter, silent
from vtg.video.process import feed, ffmpeg_binary

__all__ = ["DemoVideo", "annotate", "make_videos", "write_annotations", "write_video"]

_FRAME_RATE = 10


@dataclass(frozen=True)
class DemoVideo:
    """A rendered scene.

    Attributes:
        path: the MP4 file.
        scene: the rendered scene.
        sentences: its queries, all true somewhere in it.
    """

    path: Path
    scene: Scene
    sentences: tuple[Sentence, ...]


def make_videos(
    folder: str | Path,
    split: str = "demo",
    count: int = 3,
    *,
    first: int = 0,
    sentences: int = 4,
    seconds: float | None = None,
    cuts: Iterable[float] = (),
    width: int = 320,
    height: int = 240,
    frame_rate: int = _FRAME_RATE,
    progress: Reporter = silent,
) -> list[DemoVideo]:
    """Render videos of a split, and write `annotations.jsonl` in the same folder.

    Existing videos are kept: a file of the same name has the same content. Other files in the folder are not changed.

    Args:
        folder: folder of the videos, created if it does not exist.
        split: "train", "val", "test" or "demo"; their scenes are different.
        count: number of videos.
        first: index of the first video within the split.
        sentences: maximum number of queries for each video.
        seconds: duration of each video; None for 60 to 90 s, depending on the video.
        cuts: times of hard cuts in seconds, the same in each video.
        width: pixels, even.
        height: pixels, even.
        frame_rate: frames a second.
        progress: called after every frame that is written.

    Returns:
        The videos in order.

    Raises:
        VtgError: an unknown split, an impossible duration or cut, or ffmpeg fails.
    """
    folder = Path(folder)
    cut_times = tuple(cuts)
    scenes = {
        f"{split}_{index:05d}": make_scene(split_seed(split, index), seconds, cut_times)
        for index in range(first, first + count)
    }
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(round(scene.duration * frame_rate) for scene in scenes.values())
    done = 0
    videos = []
    for name, scene in scenes.items():
        path = folder / f"{name}.mp4"
        if not path.exists():
            write_video(scene, path, width, height, frame_rate, partial(_report_more, progress, done, total))
        done += round(scene.duration * frame_rate)
        progress(Progress("rendering", done, total, "frames"))
        queries = choose_sentences(scene, sentences, np.random.default_rng([scene.seed, 2]))
        videos.append(DemoVideo(path, scene, tuple(queries)))
    write_annotations(videos, folder / "annotations.jsonl")
    return videos


def _report_more(progress: Reporter, before: int, total: int, state: Progress) -> None:
    progress(replace(state, done=before + state.done, total=total))


def annotate(scene: Scene, video_id: str, sentence: Sentence, query_id: int) -> dict[str, Any]:
    """One line of QVHighlights' annotation files, with the additional fields `single_frame` and `kind`."""
    true = truth(scene, sentence)
    return {
        "qid": query_id,
        "query": sentence.text,
        "vid": video_id,
        "duration": scene.duration,
        "relevant_windows": [list(window) for window in true.windows],
        "relevant_clip_ids": list(true.relevant_clip_ids),
        "saliency_scores": [list(scores) for scores in true.saliency_scores],
        "single_frame": sentence.single_frame,
        "kind": sentence.kind,
    }


def write_annotations(videos: Iterable[DemoVideo], path: str | Path) -> None:
    """Write the videos' sentences as JSON lines; query ids count from 0."""
    queries = [(video, sentence) for video in videos for sentence in video.sentences]
    lines = [
        json.dumps(annotate(video.scene, video.path.stem, sentence, query_id))
        for query_id, (video, sentence) in enumerate(queries)
    ]
    with write_whole(path) as beside:
        beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_video(
    scene: Scene,
    path: str | Path,
    width: int = 320,
    height: int = 240,
    frame_rate: int = _FRAME_RATE,
    progress: Reporter = silent,
) -> None:
    """Render a scene into an MP4 file (H.264, 4:2:0), written whole or not at all.

    Args:
        scene: the scene to render.
        path: the file to write.
        width: pixels, even.
        height: pixels, even.
        frame_rate: frames a second.
        progress: called after every frame that is written.

    Raises:
        VtgError: odd sizes, or ffmpeg fails.
    """
    if width % 2 or height % 2:
        raise VtgError(f"{path}: width and height must be even for H.264, not {width}x{height}")
    with write_whole(path) as beside:
        _encode(_frames(scene, width, height, frame_rate, progress), beside, width, height, frame_rate)


def _frames(scene: Scene, width: int, height: int, frame_rate: int, progress: Reporter) -> Iterator[bytes]:
    count = round(scene.duration * frame_rate)
    for index in range(count):
        yield scene.frame(index / frame_rate, width, height).tobytes()
        progress(Progress("rendering", index + 1, count, "frames"))


def _encode(frames: Iterator[bytes], path: Path, width: int, height: int, frame_rate: int) -> None:
    command = [ffmpeg_binary(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-r", str(frame_rate), "-i", "-", "-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20"]
    # One thread and no version strings: the same scene gives the same bytes.
    command += ["-pix_fmt", "yuv420p", "-threads", "1", "-bitexact", "-movflags", "+faststart", str(path)]
    status, error_output = feed(command, frames)
    if status != 0:
        raise VtgError(f"{path}: ffmpeg could not write the video: {error_output.strip() or 'it gave no reason'}")
