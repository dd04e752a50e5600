"""Render frames of the demo world, with the attributes and poses of their things, in a separate process."""

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
    "MAX_THINGS",
    "POSE_COLUMNS",
    "BatchPlan",
    "FrameBlock",
    "exit_with_parent",
    "map_ahead",
    "render_block",
    "render_blocks",
    "render_frame",
]

MAX_THINGS = 8  # in a frame
POSE_COLUMNS = 7  # x, y, logarithm of the radius, opacity, red, green, blue
BLOCKS_AHEAD = 2  # blocks that are rendered ahead of training

Result = TypeVar("Result")


@dataclass(frozen=True)
class BatchPlan:
    """Sizes of the training batches, and of the blocks of rendered frames from which they are sampled.

    Attributes:
        seed: random seed of frames and sentences.
        frames: frames in a batch, four from each scene.
        sentences: sentences in a batch.
        block_scenes: scenes in a block.
        scene_frames: frames from each scene of a block.
        blocks: maximum number of blocks in memory; a new one replaces the oldest.
        batches_per_block: number of batches after which a new block is added.
        image_size: pixels along each side of a frame.
        patch_size: pixels along each side of a patch.
    """

    seed: int = 0
    frames: int = 64
    sentences: int = 144
    block_scenes: int = 48
    scene_frames: int = 8
    blocks: int = 12
    batches_per_block: int = 16
    image_size: int = 112
    patch_size: int = 14


@dataclass(frozen=True)
class FrameBlock:
    """Rendered frames with the attributes and poses of their things.

    Attributes:
        frames: uint8 [N, size, size, 3].
        codes: int8 [N, S, 6], attributes of up to S things, as in `States.codes`.
        poses: float32 [N, S, 7]: centre in sides of the frame, logarithm of the radius, opacity, red, green, blue 0…1.
        slots: int8 [N, P], which of the S things covers each patch; −1 for none.
    """

    frames: NDArray[np.uint8]
    codes: NDArray[np.int8]
    poses: NDArray[np.float32]
    slots: NDArray[np.int8]


def render_blocks(plan: BatchPlan) -> Generator[FrameBlock, None, None]:
    """Yield rendered blocks endlessly; the next ones are rendered in a separate process."""
    return map_ahead(partial(render_block, plan), count(), BLOCKS_AHEAD)


def map_ahead(function: Callable[[int], Result], numbers: Iterable[int], ahead: int) -> Generator[Result, None, None]:
    """Call a function with each of some numbers in a separate process, ahead of their use.

    Args:
        function: a picklable function.
        numbers: its arguments; may be endless.
        ahead: maximum number of calls beyond the next result.

    Yields:
        The results in order.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), exit_with_parent) as pool:
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


def exit_with_parent() -> None:
    """Exit this worker process when its parent ends, even if the parent is killed and cannot stop it."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def render_block(plan: BatchPlan, number: int) -> FrameBlock:
    """Render block `number` of a plan; the same arguments give the same block."""
    rng = np.random.default_rng([plan.seed, number])
    frames, codes, poses, slots = [], [], [], []
    for index in range(plan.block_scenes):
        seed = split_seed("encoder", (number * plan.block_scenes + index) % SPLIT_SIZE)
        scene = make_scene(seed, density=float(rng.uniform(1.0, 5.0)))
        clips = rng.choice(scene.clip_count, plan.scene_frames, replace=False)
        times = scene.clip_times[clips] + rng.uniform(-0.6, 0.6, len(clips))
        states = scene.states(times)
        padded = np.full((len(times), MAX_THINGS, 6), -1, np.int8)
        padded[:, : states.codes.shape[1]] = states.codes
        codes.append(padded)
        for time, things in zip(times, states.things, strict=True):
            frames.append(render_frame(scene, float(time), plan.image_size, rng))
            poses.append(_poses(scene, float(time), things))
            slots.append(_covered_patches(scene, float(time), things, plan.image_size // plan.patch_size))
    return FrameBlock(np.stack(frames), np.concatenate(codes), np.stack(poses), np.stack(slots))


def render_frame(scene: Scene, time: float, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The central square of a frame, uint8 [size, size, 3], with compression artefacts (JPEG's resemble H.264's).

    Args:
        scene: the scene to draw.
        time: seconds.
        size: pixels along each side.
        rng: draws the size of the video and the strength of the compression.
    """
    side = 2 * int(rng.integers(90, 151))
    image = Image.fromarray(scene.frame(time, side, side))
    if rng.random() < 0.85:
        compressed = io.BytesIO()
        image.save(compressed, "JPEG", quality=int(rng.integers(45, 96)), subsampling=2)
        image = Image.open(compressed)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def _poses(scene: Scene, time: float, things: NDArray[np.int32]) -> NDArray[np.float32]:
    """float32 [MAX_THINGS, 7], as `FrameBlock.poses`; 0 where there is no thing."""
    poses = np.zeros((MAX_THINGS, POSE_COLUMNS), np.float32)
    for slot, index in enumerate(things):
        if index >= 0:
            pose = scene.things[index].pose(time)
            colour = (channel / 255 for channel in pose.colour)
            poses[slot] = (pose.x, pose.y, math.log(pose.radius), pose.opacity, *colour)
    return poses


def _covered_patches(scene: Scene, time: float, things: NDArray[np.int32], grid: int) -> NDArray[np.int8]:
    """int8 [grid²]: the slot of the thing that covers the centre of each patch, −1 for none."""
    centres = (np.arange(grid) + 0.5) / grid
    slots = np.full((grid, grid), -1, np.int8)
    for slot, index in enumerate(things):
        if index >= 0:
            pose = scene.things[index].pose(time)
            reach = max(pose.radius, 0.55 / grid)  # otherwise the smallest things could cover no centre
            slots[(centres[None, :] - pose.x) ** 2 + (centres[:, None] - pose.y) ** 2 < reach**2] = slot
    return slots.reshape(-1)
