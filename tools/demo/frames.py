"""Frames of the demo world as a decoder gives them, with what is in each: endlessly, by a process of its own."""

from __future__ import annotations

import io
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import get_context, parent_process
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vtg.demo.scene import Scene
from vtg.demo.scenes import SPLIT_SIZE, make_scene, split_seed

__all__ = [
    "MOST_THINGS",
    "POSE_COLUMNS",
    "FrameBlock",
    "Plan",
    "end_with_parent",
    "render_block",
    "render_blocks",
    "render_frame",
    "run_ahead",
]

MOST_THINGS = 8  # slots for the things of a frame
POSE_COLUMNS = 7  # x, y, logarithm of the radius, opacity, red, green, blue
BLOCKS_AHEAD = 2

Result = TypeVar("Result")


@dataclass(frozen=True)
class Plan:
    """How much is shown at a time.

    Attributes:
        seed: decides everything.
        frames: in a lesson, four of a scene each.
        sentences: in a lesson.
        block_scenes: scenes rendered at a time.
        scene_frames: frames of each of them.
        blocks: how many blocks are at hand; the oldest goes when a new one comes.
        lessons_per_block: so often comes a new one.
        image_size: pixels along each side of a frame.
        patch_size: pixels along each side of a patch.
    """

    seed: int = 0
    frames: int = 64
    sentences: int = 144
    block_scenes: int = 48
    scene_frames: int = 8
    blocks: int = 12
    lessons_per_block: int = 16
    image_size: int = 112
    patch_size: int = 14


@dataclass(frozen=True)
class FrameBlock:
    """Frames and what is in them.

    Attributes:
        frames: uint8 [N, size, size, 3].
        codes: int8 [N, S, 6], as `States.codes`.
        poses: float32 [N, S, 7]: centre in sides of the frame, logarithm of the radius, opacity, red, green, blue 0…1.
        slots: int8 [N, P]: which of the S things covers a patch, −1 for none.
    """

    frames: NDArray[np.uint8]
    codes: NDArray[np.int8]
    poses: NDArray[np.float32]
    slots: NDArray[np.int8]


def render_blocks(plan: Plan) -> Generator[FrameBlock, None, None]:
    """Renders blocks without end, some ahead of those that are taken."""
    return run_ahead(partial(render_block, plan), count(), BLOCKS_AHEAD)


def run_ahead(function: Callable[[int], Result], numbers: Iterable[int], ahead: int) -> Generator[Result, None, None]:
    """Call a function with one number after the other in a process of its own, some calls before they are taken.

    Args:
        function: picklable.
        numbers: its arguments; may be endless.
        ahead: calls that are begun before the result that is taken next.

    Yields:
        The results, in order.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for number in numbers:
                waiting.append(pool.submit(function, number))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def end_with_parent() -> None:
    """Has this process end when the one that started it does: killed, it could not tell, and work would be awaited."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def render_block(plan: Plan, number: int) -> FrameBlock:
    """Renders block `number` of a plan."""
    rng = np.random.default_rng([plan.seed, number])
    frames, codes, poses, slots = [], [], [], []
    for index in range(plan.block_scenes):
        seed = split_seed("encoder", (number * plan.block_scenes + index) % SPLIT_SIZE)
        scene = make_scene(seed, density=float(rng.uniform(1.0, 5.0)))
        clips = rng.choice(scene.clip_count, plan.scene_frames, replace=False)
        times = scene.clip_times[clips] + rng.uniform(-0.6, 0.6, len(clips))
        states = scene.states(times)
        padded = np.full((len(times), MOST_THINGS, 6), -1, np.int8)
        padded[:, : states.codes.shape[1]] = states.codes
        codes.append(padded)
        for time, things in zip(times, states.things, strict=True):
            frames.append(render_frame(scene, float(time), plan.image_size, rng))
            poses.append(_poses(scene, float(time), things))
            slots.append(_covered_patches(scene, float(time), things, plan.image_size // plan.patch_size))
    return FrameBlock(np.stack(frames), np.concatenate(codes), np.stack(poses), np.stack(slots))


def render_frame(scene: Scene, time: float, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A frame's central square, uint8 [size, size, 3], with the faults of a video: JPEG's are like H.264's.

    Args:
        scene: what to draw.
        time: seconds.
        size: pixels along each side.
        rng: decides how large the video was, and how it was compressed.
    """
    side = 2 * int(rng.integers(90, 151))
    image = Image.fromarray(scene.frame(time, side, side))
    if rng.random() < 0.85:
        compressed = io.BytesIO()
        image.save(compressed, "JPEG", quality=int(rng.integers(45, 96)), subsampling=2)
        image = Image.open(compressed)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def _poses(scene: Scene, time: float, things: NDArray[np.int32]) -> NDArray[np.float32]:
    """float32 [MOST_THINGS, 7], as `FrameBlock.poses`; 0 where there is no thing."""
    poses = np.zeros((MOST_THINGS, POSE_COLUMNS), np.float32)
    for slot, index in enumerate(things):
        if index >= 0:
            pose = scene.things[index].pose(time)
            colour = (channel / 255 for channel in pose.colour)
            poses[slot] = (pose.x, pose.y, math.log(pose.radius), pose.opacity, *colour)
    return poses


def _covered_patches(scene: Scene, time: float, things: NDArray[np.int32], grid: int) -> NDArray[np.int8]:
    """int8 [grid²]: the slot of the thing that covers a patch's middle, −1 for none."""
    middles = (np.arange(grid) + 0.5) / grid
    slots = np.full((grid, grid), -1, np.int8)
    for slot, index in enumerate(things):
        if index >= 0:
            pose = scene.things[index].pose(time)
            reach = max(pose.radius, 0.55 / grid)  # the smallest things would else slip between the middles
            slots[(middles[None, :] - pose.x) ** 2 + (middles[:, None] - pose.y) ** 2 < reach**2] = slot
    return slots.reshape(-1)
