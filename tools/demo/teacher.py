"""Auxiliary targets for training the bundled head: for each frame, position, look and action of the described thing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.demo import Scene, Sentence
from vtg.demo.descriptions import Description
from vtg.demo.world import ACTIONS

__all__ = ["TARGET_COLUMNS", "SceneTargets", "Teacher"]

CLAIMS = slice(0, 7)  # the thing is there, the other is there, the sentence holds; an order's past and future
POSE = slice(7, 13)  # x, y, radius, colour
CHANGE = slice(13, 19)  # of these from frame to frame
TARGET_COLUMNS = 20  # the last one is the action
OTHER, HOLDS, PASTS = 1, 2, (3, 7)
NO_ACTION = len(ACTIONS)
PLACE, ACTION = 3, 4  # columns of a description's codes
ROUNDED_BELOW = 0.3  # errors of a pose; smaller ones count by their square
WEIGHTS = {"there": 1.0, "other": 1.5, "holds": 3.0, "past": 2.0, "pose": 2.0, "change": 4.0, "action": 1.5}


@dataclass(frozen=True, eq=False)
class SceneTargets:
    """State and motion of all things of a scene, clip by clip.

    Attributes:
        codes: int8 [things, clips, 6], as `States.codes` has them; −1 where a thing is not there.
        pose: float32 [things, clips, 6]: x, y, radius and colour, each about −1…1.
        change: of the pose, a clip, twice.
        changes: bool [things, clips], whether a clip has a neighbour to change from or to.
    """

    codes: NDArray[np.int8]
    pose: NDArray[np.float32]
    change: NDArray[np.float32]
    changes: NDArray[np.bool_]

    @classmethod
    def of(cls, scene: Scene) -> SceneTargets:
        """Compute the state of a scene in the middle of each clip."""
        shape = (len(scene.things), scene.clip_count, 6)
        codes, pose = np.full(shape, -1, np.int8), np.zeros(shape, np.float32)
        for row, thing in enumerate(scene.things):
            for clip, time in enumerate(scene.clip_times.tolist()):
                if not thing.alive(time):
                    continue
                now = thing.pose(time)
                codes[row, clip] = thing.state(time)
                colour = [2 * (value / 255 - 0.6) for value in now.colour]
                pose[row, clip] = [3 * (now.x - 0.5), 3 * (now.y - 0.5), 2 * np.log(now.radius / 0.105), *colour]
        there = codes[..., 0] >= 0
        clips = np.arange(scene.clip_count)
        before, after = np.zeros(shape[:2], int), np.zeros(shape[:2], int)
        before[:, 1:], after[:, :-1] = there[:, :-1], there[:, 1:]
        rows, span = np.arange(len(pose))[:, None], before + after
        change = 2 * (pose[rows, clips + after] - pose[rows, clips - before]) / np.maximum(span, 1)[..., None]
        return cls(codes, pose, change * there[..., None], there & (span > 0))

    def about(self, sentence: Sentence, saliency: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The targets for a sentence.

        Args:
            sentence: true or not.
            saliency: [clips], above 0 where it holds.

        Returns:
            [clips, TARGET_COLUMNS] values, and which of them are known: pose and action are not known if several things
            meet the description.
        """
        clips = len(saliency)
        values, known = np.zeros((clips, TARGET_COLUMNS), np.float32), np.zeros((clips, TARGET_COLUMNS), bool)
        met = self._met(sentence.parts[0])
        values[:, 0], known[:, 0] = met.any(axis=0), True
        values[:, HOLDS], known[:, HOLDS] = saliency > 0, True
        order = sentence.order
        other = sentence.parts[1] if len(sentence.parts) > 1 else None if order is None else order.landmark
        if other is not None:
            seen = np.any(self._met(other), axis=0)
            values[:, OTHER], known[:, OTHER] = seen, True
            if order is not None:
                values[:, 3], values[:, 4], known[:, 3:5] = _so_far(seen), _so_far(seen[::-1])[::-1], True
        if order is not None:
            there = np.any(met, axis=0)
            values[1:, 5], values[:-1, 6], known[:, 5:7] = _so_far(there)[:-1], _so_far(there[::-1])[::-1][1:], True
        single, which, clip = met.sum(axis=0) == 1, met.argmax(axis=0), np.arange(clips)
        values[:, POSE], known[:, POSE] = self.pose[which, clip], single[:, None]
        values[:, CHANGE], known[:, CHANGE] = self.change[which, clip], (single & self.changes[which, clip])[:, None]
        action = self.codes[which, clip, ACTION]
        values[:, -1], known[:, -1] = np.where(action < 0, NO_ACTION, action), single
        return values, known

    def _met(self, part: Description) -> NDArray[np.bool_]:
        """[things, clips], where a thing looks as described, wherever it is and whatever it does."""
        wanted = np.array(part.codes)
        wanted[[PLACE, ACTION]] = -1
        return np.all((self.codes == wanted) | (wanted < 0), axis=-1) & (self.codes[..., 0] >= 0)


def _so_far(seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(np.logical_or.accumulate(seen))


class Teacher(nn.Module):
    """An auxiliary output layer that predicts the targets from each refined frame, in training only.

    The labels of windows give about one bit a sentence; position, size and their change give dozens of numbers a frame,
    which speeds up learning of motions.

    Args:
        width: D of the frames.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, TARGET_COLUMNS - 1 + NO_ACTION + 1)

    def forward(self, frames: Tensor, values: Tensor, known: Tensor) -> Tensor:
        """The loss of the predictions.

        Args:
            frames: [B, T, D].
            values: [B, T, TARGET_COLUMNS].
            known: bool [B, T, TARGET_COLUMNS].

        Returns:
            A scalar.
        """
        outputs = self.read(frames)
        claims = F.binary_cross_entropy_with_logits(outputs[..., CLAIMS], values[..., CLAIMS], reduction="none")
        claims = _means(claims, known[..., CLAIMS])
        poses = slice(POSE.start, CHANGE.stop)
        errors = F.smooth_l1_loss(outputs[..., poses], values[..., poses], reduction="none", beta=ROUNDED_BELOW)
        pose, change = _means(errors, known[..., poses]).split(6)
        has_action = known[..., -1]
        action = F.cross_entropy(outputs[..., TARGET_COLUMNS - 1 :][has_action], values[..., -1][has_action].long())
        parts = {
            "there": claims[0],
            "other": claims[OTHER],
            "holds": claims[HOLDS],
            "past": claims[slice(*PASTS)].mean(),
            "pose": pose.mean(),
            "change": change.mean(),
            "action": action,
        }
        return torch.stack([WEIGHTS[name] * loss for name, loss in parts.items()]).sum()


def _means(errors: Tensor, known: Tensor) -> Tensor:
    """[N] of [B, T, N], the mean over known targets."""
    return torch.where(known, errors, 0).sum(dim=(0, 1)) / known.sum(dim=(0, 1)).clamp(min=1)
