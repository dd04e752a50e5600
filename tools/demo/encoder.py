"""The demo world's small CLIP: its towers as they are trained, its losses, its training and its file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.demo.frames import POSE_COLUMNS, Plan
from tools.demo.lessons import LONGEST_TEXT, Lesson, Lessons, Words
from tools.demo.optimizer import USES_BFLOAT16, StepTaker
from vtg.demo.sentences import RELATIONS
from vtg.demo.world import ACTIONS, COLOURS, PLACES, SHAPES, SIZES
from vtg.files.whole import write_whole

__all__ = [
    "EncoderSettings",
    "SmallClip",
    "Training",
    "export_tensors",
    "lesson_losses",
    "save_encoder",
    "train_encoder",
]

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's
PIXEL_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
HEAD_WIDTH = 64  # channels, in OpenAI's convention
CONTEXT = 77  # tokens
LEARNED_LAYERS_BELOW = 3  # blocks between the middle attribute head and the last one
ATTRIBUTES = (len(SHAPES), len(COLOURS), len(SIZES), len(PLACES))  # the first columns of `States.codes`
# What a text says of each, or that it does not: of the thing, of its action, of the order, of the order's landmark.
SAID = tuple(count + 1 for count in (*ATTRIBUTES, len(ACTIONS), len(RELATIONS), len(SHAPES), len(COLOURS)))
TRUE_WEIGHT = 3.0  # few sentences hold: each of their frames counts as three


@dataclass(frozen=True)
class EncoderSettings:
    """Sizes of the two towers.

    Sentences of four words that count (a small red circle on the left) need a wide text tower: its width bounds in
    how many directions embeddings of texts can differ. With five image blocks both fit into 4 MB.
    """

    image_size: int = 112
    patch_size: int = 14
    vision_width: int = 128
    vision_layers: int = 5
    text_width: int = 128
    text_layers: int = 4
    embedding: int = 128


@dataclass(frozen=True)
class Training:
    """How long and how fast.

    Attributes:
        steps: lessons at most.
        minutes: wall time at most; on a machine that is too slow for all steps the rate falls with the clock.
        rate: highest learning rate, but for the blocks' matrices.
        matrix_rate: theirs, see `StepTaker`.
        weight_decay: of matrices.
        warm_up: steps.
        plan: what a lesson holds.
    """

    steps: int = 6000
    minutes: float = 30.0
    rate: float = 2e-3
    matrix_rate: float = 0.02
    weight_decay: float = 0.05
    warm_up: int = 100
    plan: Plan = field(default_factory=Plan)


class SmallClip(nn.Module):
    """A CLIP under training, with what only training needs: scales, biases and heads that name what a patch shows.

    Args:
        settings: sizes.
        row_count: token rows, see `Words`.
    """

    def __init__(self, settings: EncoderSettings, row_count: int) -> None:
        super().__init__()
        from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

        self.settings = settings
        self.clip = CLIP(
            settings.embedding,
            CLIPVisionCfg(
                layers=settings.vision_layers,
                width=settings.vision_width,
                head_width=HEAD_WIDTH,
                patch_size=settings.patch_size,
                image_size=settings.image_size,
            ),
            CLIPTextCfg(
                context_length=CONTEXT,
                vocab_size=row_count,
                width=settings.text_width,
                heads=settings.text_width // HEAD_WIDTH,
                layers=settings.text_layers,
            ),
            quick_gelu=True,
        )
        attributes = sum(ATTRIBUTES) + 1
        self.middle_head = nn.Linear(settings.vision_width, attributes)
        self.last_head = nn.Linear(settings.vision_width, attributes)
        self.pose_head = nn.Linear(settings.vision_width, POSE_COLUMNS)
        self.frame_head = nn.Linear(settings.embedding, len(PLACES) * (sum(ATTRIBUTES[:3]) + 1))
        self.text_head = nn.Linear(settings.embedding, sum(SAID))
        self.scales = nn.Parameter(torch.tensor([3.0, 3.0]))  # of frames and of patches, logarithms
        self.biases = nn.Parameter(torch.tensor([-6.0, -6.0]))

    def encode_frames(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encodes frames.

        Args:
            frames: uint8 [N, H, W, 3].

        Returns:
            All tokens in the common space [N, 1+P, E]; the patches' residual stream [N, P, C] in the middle and last.
        """
        tower, settings = self.clip.visual, self.settings
        count, patch, grid = len(frames), settings.patch_size, settings.image_size // settings.patch_size
        pixels = (frames.float() / 255 - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_DEVIATION)
        pixels = pixels.view(count, grid, patch, grid, patch, 3)
        patches = pixels.permute(0, 1, 3, 5, 2, 4).reshape(count, grid * grid, 3 * patch * patch)
        stream = patches @ tower.conv1.weight.flatten(1).t()
        stream = torch.cat([tower.class_embedding.expand(count, 1, -1), stream], 1) + tower.positional_embedding
        stream = middle = tower.ln_pre(stream)
        for depth, block in enumerate(tower.transformer.resblocks, 1):
            stream = _run_block(block, stream, None)
            if depth == settings.vision_layers - LEARNED_LAYERS_BELOW:
                middle = stream
        return tower.ln_post(stream) @ tower.proj, middle[:, 1:], stream[:, 1:]

    def encode_texts(self, rows: Tensor, ends: Tensor) -> Tensor:
        """Encodes texts given as rows [M, L] that end at `ends` [M] into the common space: [M, E]."""
        tower = self.clip
        length = rows.shape[1]
        stream = tower.token_embedding(rows) + tower.positional_embedding[:length]
        mask = torch.full((length, length), float("-inf")).triu(1).to(stream.dtype)
        for block in tower.transformer.resblocks:
            stream = _run_block(block, stream, mask)
        return tower.ln_final(stream[torch.arange(len(rows)), ends]) @ tower.text_projection


def _run_block(block: Any, stream: Tensor, mask: Tensor | None) -> Tensor:
    """One of open_clip's blocks; its own attention takes twice the time, backwards, in bfloat16 on a CPU."""
    count, length, width = stream.shape
    joint = F.linear(block.ln_1(stream), block.attn.in_proj_weight, block.attn.in_proj_bias)
    query, key, value = joint.view(count, length, 3, width // HEAD_WIDTH, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
    scores = (query * HEAD_WIDTH**-0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    attended = (scores.softmax(-1) @ value).transpose(1, 2).reshape(count, length, width)
    stream = stream + block.attn.out_proj(attended)
    hidden = block.mlp.c_fc(block.ln_2(stream))
    return stream + block.mlp.c_proj(F.silu(1.702 * hidden) / 1.702)  # QuickGELU, fused


def lesson_losses(model: SmallClip, lesson: Lesson) -> dict[str, Tensor]:
    """What is wrong with a model's answers to a lesson.

    Sentences are matched with frames as in SigLIP (a sigmoid for each of the N × M pairs), but with the whole table
    of what is true; and those about one thing with the patches that show it. That alone never finds places: as long
    as neither tower tells them apart, neither has anything to gain. So heads also read from each embedding what is
    where and what is said, and from the patches' residual streams what they show: everywhere in words, and in the
    middle to a fraction of a patch, by which two frames can tell a motion.

    Returns:
        `frame`, `patch`, `where`, `said`, `middle`, `last`, `pose`: scalars, to be added.
    """
    tokens, middle, last = model.encode_frames(torch.from_numpy(lesson.frames))
    texts = model.encode_texts(torch.from_numpy(lesson.rows), torch.from_numpy(lesson.ends))
    where = _where_loss(model.frame_head(tokens[:, 0]).float(), torch.from_numpy(lesson.codes).long())
    said = _said_loss(
        model.text_head(texts).float(), torch.from_numpy(lesson.parts).long(), torch.from_numpy(lesson.orders)
    )
    tokens, texts = F.normalize(tokens.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    frame_scale, patch_scale = model.scales.exp()
    frame_bias, patch_bias = model.biases
    frame_logits = frame_scale * tokens[:, 0] @ texts.t() + frame_bias
    patch_logits = patch_scale * tokens[:, 1:] @ texts[torch.from_numpy(lesson.located)].t() + patch_bias
    covering = torch.from_numpy(lesson.slots).long()
    slot = covering.clamp(min=0)[..., None]
    labels = torch.from_numpy(lesson.codes).long().gather(1, slot.expand(-1, -1, 6))
    poses = torch.from_numpy(lesson.poses).gather(1, slot.expand(-1, -1, POSE_COLUMNS))
    return {
        "frame": 20 * _match_loss(frame_logits, torch.from_numpy(lesson.truth), torch.from_numpy(lesson.weights)),
        "patch": 20 * _match_loss(patch_logits, torch.from_numpy(lesson.patch_truth)),
        "where": 10 * where,
        "said": 0.5 * said,
        "middle": _attribute_loss(model.middle_head(middle).float(), labels, covering >= 0),
        "last": _attribute_loss(model.last_head(last).float(), labels, covering >= 0),
        "pose": 2 * _pose_loss(model.pose_head(middle).float(), poses, covering >= 0),
    }


def _match_loss(logits: Tensor, truth: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (each * weights * (1 + (TRUE_WEIGHT - 1) * (truth == 1))).mean()


def _attribute_loss(outputs: Tensor, labels: Tensor, covered: Tensor) -> Tensor:
    """Is there a thing on a patch, and what can be said of it? outputs [N, P, ·], labels [N, P, 6]."""
    *columns, there = outputs.split([*ATTRIBUTES, 1], -1)
    loss = F.binary_cross_entropy_with_logits(there[..., 0], covered.float())
    for column, logits in enumerate(columns):
        known = covered & (labels[..., column] >= 0)
        if known.any():
            loss = loss + F.cross_entropy(logits[known], labels[..., column][known])
    return loss


def _pose_loss(outputs: Tensor, poses: Tensor, covered: Tensor) -> Tensor:
    """How exactly does a patch know the thing on it? outputs and poses [N, P, 7]; centres count from the patch's."""
    grid = round(poses.shape[1] ** 0.5)
    middles = (torch.arange(grid) + 0.5) / grid
    centres = torch.stack(torch.meshgrid(middles, middles, indexing="xy"), -1).flatten(0, 1)  # [P, 2]
    # In patches, and in shares of the range of what else there is: errors that matter are about a tenth of each.
    wanted = torch.cat([(poses[..., :2] - centres) * grid, poses[..., 2:3] + 2, 2 * poses[..., 3:]], -1)
    if not covered.any():
        return outputs.sum() * 0
    return F.smooth_l1_loss(outputs[covered], wanted[covered], beta=0.2)


def _where_loss(outputs: Tensor, codes: Tensor) -> Tensor:
    """Is there anything in a place, and is it of a shape, colour, size? outputs [N, ·], codes [N, S, 6]."""
    shape, colour, size, place = codes[..., :4].unbind(-1)
    targets = torch.zeros(len(codes), len(PLACES), sum(ATTRIBUTES[:3]) + 1)
    frame = torch.arange(len(codes))[:, None].expand_as(place)
    for offset, attribute in ((1, shape), (1 + len(SHAPES), colour), (1 + len(SHAPES) + len(COLOURS), size)):
        known = (place >= 0) & (attribute >= 0)
        targets[frame[known], place[known], offset + attribute[known]] = 1
    targets[frame[place >= 0], place[place >= 0], 0] = 1
    return _match_loss(outputs, targets.flatten(1))


def _said_loss(outputs: Tensor, parts: Tensor, orders: Tensor) -> Tensor:
    """Which shape, colour, size, place, action and order does a text about one thing name?

    Args:
        outputs: [M, ·].
        parts: [M, 2, 6].
        orders: [M, 3].
    """
    one = (parts[:, 1] < 0).all(-1) & (parts[:, 0] >= 0).any(-1)
    shape, colour, size, place, action, colour_before = parts[one, 0].unbind(-1)
    named = (shape, torch.maximum(colour, colour_before), size, place, action, *orders[one].unbind(-1))
    losses = [
        F.cross_entropy(logits, code + 1) for logits, code in zip(outputs[one].split(SAID, -1), named, strict=True)
    ]
    return torch.stack(losses).sum()


def train_encoder(
    settings: EncoderSettings, training: Training, report: Callable[[int, float, dict[str, float]], None]
) -> tuple[SmallClip, Words]:
    """Trains a CLIP on the demo world; the same arguments give the same weights if the time is enough for all steps.

    Args:
        settings: sizes of the towers; those of the frames go before the plan's.
        training: how long and how fast.
        report: called after each step with its number, the share that is done and the losses.

    Returns:
        The trained model and the words it was trained with.
    """
    torch.manual_seed(training.plan.seed)
    plan = replace(training.plan, image_size=settings.image_size, patch_size=settings.patch_size)
    words = Words()
    model = SmallClip(settings, words.row_count)
    steps = StepTaker(model, training.rate, training.matrix_rate, training.weight_decay)
    begin = time.monotonic()
    done, step = 0.0, 0
    with closing(iter(Lessons(plan, words))) as lessons:
        while done < 1:
            with torch.autocast("cpu", torch.bfloat16, enabled=USES_BFLOAT16):
                losses = lesson_losses(model, next(lessons))
            torch.stack(list(losses.values())).sum().backward()
            steps.step(_rate_factor(step, done, training.warm_up))
            model.zero_grad(set_to_none=True)
            step += 1
            done = max(step / training.steps, (time.monotonic() - begin) / 60 / training.minutes)
            report(step, done, {name: float(loss.detach()) for name, loss in losses.items()})
    return model, words


def _rate_factor(step: int, done: float, warm_up: int) -> float:
    return min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * min(1.0, done)))


def export_tensors(model: SmallClip, words: Words) -> dict[str, Tensor]:
    """A trained model's float16 tensors under OpenAI's names, without the token rows that were never trained."""
    tensors = {name: tensor.detach().clone() for name, tensor in model.clip.state_dict().items()}
    # Later positions were never trained; the last trained one is the best guess.
    tensors["positional_embedding"][LONGEST_TEXT:] = tensors["positional_embedding"][LONGEST_TEXT - 1]
    tensors["logit_scale"] = model.scales.detach()[0].clone()
    table = tensors.pop("token_embedding.weight")
    tensors["token_embedding.weight"], tensors["token_embedding.unknown"] = table[:-1], table[-1]
    tensors = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    return {**tensors, "token_embedding.rows": torch.tensor(words.tokens, dtype=torch.int32)}


def save_encoder(model: SmallClip, words: Words, path: Path) -> None:
    """Writes a trained model for `vtg.ClipEncoder(pretrained=path)`; the file appears only when it is whole."""
    from safetensors.torch import save

    metadata = {"format": "vtg-clip", "version": "1", "logit_bias": f"{float(model.biases.detach()[0]):.4f}"}
    with write_whole(path) as beside:
        beside.write_bytes(save(export_tensors(model, words), metadata))
