"""Auxiliary targets and loss for training the bundled head: pose, motion and action of the described thing by frame."""

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

__all__ = ["TARGET_COLUMNS", "AuxiliaryHead", "SceneTargets"]

# Columns of the targets.
CLAIMS = slice(0, 7)  # the thing is visible, the other is visible, the sentence holds, and four about orders (PASTS)
POSE = slice(7, 13)  # x, y, radius, colour
CHANGE = slice(13, 19)  # of the pose from frame to frame
TARGET_COLUMNS = 20  # the last one is the action
OTHER, HOLDS = 1, 2
PASTS = slice(3, 7)  # the landmark was or will be visible; the thing was visible before or will be after the frame
NO_ACTION = len(ACTIONS)
PLACE, ACTION = 3, 4  # columns of the codes of a description
POSE_LOSS_BETA = 0.3  # smaller errors of a pose are squared
LOSS_WEIGHTS = {"there": 1.0, "other": 1.5, "holds": 3.0, "past": 2.0, "pose": 2.0, "change": 4.0, "action": 1.5}


@dataclass(frozen=True, eq=False)
class SceneTargets:
    """Attributes, poses and motion of all things of a scene in each clip.

    Attributes:
        codes: int8 [things, clips, 6], as in `States.codes`; −1 where a thing is not visible.
        pose: float32 [things, clips, 6]: x, y, radius and colour, each scaled to about −1…1.
        change: float32 [things, clips, 6], twice the mean change of the pose from clip to clip.
        change_known: bool [things, clips], whether the thing is also visible in the previous or the next clip.
    """

    codes: NDArray[np.int8]
    pose: NDArray[np.float32]
    change: NDArray[np.float32]
    change_known: NDArray[np.bool_]

    @classmethod
    def from_scene(cls, scene: Scene) -> SceneTargets:
        """Compute the targets of a scene in the middle of each clip."""
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

    def for_sentence(
        self, sentence: Sentence, saliency: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The targets for a sentence about the scene.

        Args:
            sentence: a sentence that matches somewhere or nowhere.
            saliency: [clips], above 0 where it holds.

        Returns:
            [clips, TARGET_COLUMNS] values, and whether each is known: pose and action are unknown unless exactly one
            thing matches the description.
        """
        clips = len(saliency)
        values, known = np.zeros((clips, TARGET_COLUMNS), np.float32), np.zeros((clips, TARGET_COLUMNS), bool)
        matching = self._matches(sentence.parts[0])
        values[:, 0], known[:, 0] = matching.any(axis=0), True
        values[:, HOLDS], known[:, HOLDS] = saliency > 0, True
        order = sentence.order
        other = sentence.parts[1] if len(sentence.parts) > 1 else None if order is None else order.landmark
        if other is not None:
            visible = np.any(self._matches(other), axis=0)
            values[:, OTHER], known[:, OTHER] = visible, True
            if order is not None:
                values[:, 3], values[:, 4], known[:, 3:5] = _seen_until(visible), _seen_until(visible[::-1])[::-1], True
        if order is not None:
            visible = np.any(matching, axis=0)
            values[1:, 5], values[:-1, 6] = _seen_until(visible)[:-1], _seen_until(visible[::-1])[::-1][1:]
            known[:, 5:7] = True
        single, which, clip = matching.sum(axis=0) == 1, matching.argmax(axis=0), np.arange(clips)
        values[:, POSE], known[:, POSE] = self.pose[which, clip], single[:, None]
        values[:, CHANGE], known[:, CHANGE] = (
            self.change[which, clip],
            (single & self.change_known[which, clip])[:, None],
        )
        action = self.codes[which, clip, ACTION]
        values[:, -1], known[:, -1] = np.where(action < 0, NO_ACTION, action), single
        return values, known

    def _matches(self, part: Description) -> NDArray[np.bool_]:
        """[things, clips], whether a thing matches a description apart from its place and action."""
        wanted = np.array(part.codes)
        wanted[[PLACE, ACTION]] = -1
        return np.all((self.codes == wanted) | (wanted < 0), axis=-1) & (self.codes[..., 0] >= 0)


def _seen_until(visible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[clips], whether something is visible in this clip or an earlier one."""
    return np.asarray(np.logical_or.accumulate(visible))


class AuxiliaryHead(nn.Module):
    """An auxiliary output layer that predicts the targets from each refined frame, used only in training.

    Window labels contain little information for each sentence; positions, sizes and their changes are many numbers for
    each frame, from which motions are learned faster.

    Args:
        width: D, channels of the refined frames.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.output = nn.Linear(width, TARGET_COLUMNS - 1 + NO_ACTION + 1)

    def forward(self, frames: Tensor, values: Tensor, known: Tensor) -> Tensor:
        """The weighted loss of the predictions.

        Args:
            frames: [B, T, D], refined frames.
            values: [B, T, TARGET_COLUMNS], targets.
            known: bool [B, T, TARGET_COLUMNS], which targets are known.

        Returns:
            A scalar.
        """
        outputs = self.output(frames)
        claims = F.binary_cross_entropy_with_logits(outputs[..., CLAIMS], values[..., CLAIMS], reduction="none")
        claims = _means(claims, known[..., CLAIMS])
        poses = slice(POSE.start, CHANGE.stop)
        errors = F.smooth_l1_loss(outputs[..., poses], values[..., poses], reduction="none", beta=POSE_LOSS_BETA)
        pose, change = _means(errors, known[..., poses]).split(6)
        has_action = known[..., -1]
        action = F.cross_entropy(outputs[..., TARGET_COLUMNS - 1 :][has_action], values[..., -1][has_action].long())
        parts = {
            "there": claims[0],
            "other": claims[OTHER],
            "holds": claims[HOLDS],
            "past": claims[PASTS].mean(),
            "pose": pose.mean(),
            "change": change.mean(),
            "action": action,
        }
        return torch.stack([LOSS_WEIGHTS[name] * loss for name, loss in parts.items()]).sum()


def _means(errors: Tensor, known: Tensor) -> Tensor:
    """[N] from [B, T, N], the means over known targets."""
    return torch.where(known, errors, 0).sum(dim=(0, 1)) / known.sum(dim=(0, 1)).clamp(min=1)
