"""The small CLIP of the demo world: its towers, losses, training and file."""

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

from tools.demo.batches import MAX_TEXT_TOKENS, EncoderBatch, EncoderBatches, TokenRows
from tools.demo.frames import POSE_COLUMNS, BatchPlan
from tools.demo.optimizer import USES_BFLOAT16, MuonAdamW
from vtg.demo.sentences import RELATIONS
from vtg.demo.world import ACTIONS, COLOURS, PLACES, SHAPES, SIZES
from vtg.files.whole import write_whole

__all__ = [
    "EncoderSettings",
    "EncoderTraining",
    "SmallClip",
    "encoder_losses",
    "export_tensors",
    "save_encoder",
    "train_encoder",
]

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's
PIXEL_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
ATTENTION_HEAD_WIDTH = 64  # channels, as in OpenAI's models
CONTEXT_TOKENS = 77
BLOCKS_AFTER_MIDDLE = 3  # transformer blocks between the middle attribute head and the last one
ATTRIBUTES = (len(SHAPES), len(COLOURS), len(SIZES), len(PLACES))  # the first columns of `States.codes`
# Classes of the text head, with one for "not given": attributes, action, relation, and the landmark's shape and colour.
TEXT_CLASSES = tuple(count + 1 for count in (*ATTRIBUTES, len(ACTIONS), len(RELATIONS), len(SHAPES), len(COLOURS)))
POSITIVE_WEIGHT = 3.0  # loss weight of a matching pair of sentence and frame, as few of the pairs match


@dataclass(frozen=True)
class EncoderSettings:
    """Sizes of the two towers.

    Sentences with four content words ("a small red circle on the left") need a wide text tower: its width is the
    number of dimensions in which text embeddings can differ. With five image blocks, both towers fit into 4 MB.
    """

    image_size: int = 112
    patch_size: int = 14
    vision_width: int = 128
    vision_layers: int = 5
    text_width: int = 128
    text_layers: int = 4
    embedding: int = 128


@dataclass(frozen=True)
class EncoderTraining:
    """Duration, learning rates and batches of the training.

    Attributes:
        steps: maximum number of batches.
        minutes: maximum wall time; on a machine too slow for all steps, the learning rate decays with the time.
        learning_rate: highest learning rate of AdamW.
        matrix_learning_rate: highest learning rate of the transformer blocks' matrices, see `MuonAdamW`.
        weight_decay: weight decay of parameters with more than one dimension.
        warm_up_steps: steps until the highest learning rate.
        plan: sizes of the batches.
    """

    steps: int = 6000
    minutes: float = 30.0
    learning_rate: float = 2e-3
    matrix_learning_rate: float = 0.02
    weight_decay: float = 0.05
    warm_up_steps: int = 100
    plan: BatchPlan = field(default_factory=BatchPlan)


class SmallClip(nn.Module):
    """A CLIP with the additional parameters of its training: scales, biases and auxiliary heads.

    Args:
        settings: sizes of the towers.
        row_count: number of token rows, see `TokenRows`.
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
                head_width=ATTENTION_HEAD_WIDTH,
                patch_size=settings.patch_size,
                image_size=settings.image_size,
            ),
            CLIPTextCfg(
                context_length=CONTEXT_TOKENS,
                vocab_size=row_count,
                width=settings.text_width,
                heads=settings.text_width // ATTENTION_HEAD_WIDTH,
                layers=settings.text_layers,
            ),
            quick_gelu=True,
        )
        attributes = sum(ATTRIBUTES) + 1
        self.middle_head = nn.Linear(settings.vision_width, attributes)
        self.last_head = nn.Linear(settings.vision_width, attributes)
        self.pose_head = nn.Linear(settings.vision_width, POSE_COLUMNS)
        self.frame_head = nn.Linear(settings.embedding, len(PLACES) * (sum(ATTRIBUTES[:3]) + 1))
        self.text_head = nn.Linear(settings.embedding, sum(TEXT_CLASSES))
        self.scales = nn.Parameter(torch.tensor([3.0, 3.0]))  # logarithms of the logit scales of frames and patches
        self.biases = nn.Parameter(torch.tensor([-6.0, -6.0]))

    def encode_frames(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode frames.

        Args:
            frames: uint8 [N, H, W, 3].

        Returns:
            All tokens in the common space, [N, 1+P, E], and the patches' residual streams [N, P, C] after the middle
            block and after the last one.
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
            if depth == settings.vision_layers - BLOCKS_AFTER_MIDDLE:
                middle = stream
        return tower.ln_post(stream) @ tower.proj, middle[:, 1:], stream[:, 1:]

    def encode_texts(self, rows: Tensor, ends: Tensor) -> Tensor:
        """Encode texts, given as token rows [M, L] with end tokens at `ends` [M], into the common space: [M, E]."""
        tower = self.clip
        length = rows.shape[1]
        stream = tower.token_embedding(rows) + tower.positional_embedding[:length]
        mask = torch.full((length, length), float("-inf")).triu(1).to(stream.dtype)
        for block in tower.transformer.resblocks:
            stream = _run_block(block, stream, mask)
        return tower.ln_final(stream[torch.arange(len(rows)), ends]) @ tower.text_projection


def _run_block(block: Any, stream: Tensor, mask: Tensor | None) -> Tensor:
    """Run a block of open_clip; on a CPU in bfloat16, its own attention takes twice the time in backward passes."""
    count, length, width = stream.shape
    joint = F.linear(block.ln_1(stream), block.attn.in_proj_weight, block.attn.in_proj_bias)
    heads = width // ATTENTION_HEAD_WIDTH
    query, key, value = joint.view(count, length, 3, heads, ATTENTION_HEAD_WIDTH).permute(2, 0, 3, 1, 4)
    scores = (query * ATTENTION_HEAD_WIDTH**-0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    attended = (scores.softmax(-1) @ value).transpose(1, 2).reshape(count, length, width)
    stream = stream + block.attn.out_proj(attended)
    hidden = block.mlp.c_fc(block.ln_2(stream))
    return stream + block.mlp.c_proj(F.silu(1.702 * hidden) / 1.702)  # QuickGELU, fused


def encoder_losses(model: SmallClip, batch: EncoderBatch) -> dict[str, Tensor]:
    """Compute the training losses of a batch.

    Sentences are matched with frames as in SigLIP (a sigmoid for each of the N × M pairs), but with the truth of every
    pair known; sentences about one thing are also matched with the patches that show it. These losses alone never learn
    places: as long as neither tower represents them, neither gets a gradient for them. Therefore auxiliary heads
    classify what is where from the frame embeddings, the content of the sentence from the text embeddings, and the
    attributes of the thing on each patch from the residual streams of the middle and the last block. From the middle
    block, they also predict its pose to a fraction of a patch, so that two frames can show a motion.

    Returns:
        `frame`, `patch`, `where`, `text`, `middle`, `last`, `pose`: weighted scalars, to be summed.
    """
    tokens, middle, last = model.encode_frames(torch.from_numpy(batch.frames))
    texts = model.encode_texts(torch.from_numpy(batch.rows), torch.from_numpy(batch.ends))
    where = _place_loss(model.frame_head(tokens[:, 0]).float(), torch.from_numpy(batch.codes).long())
    text = _text_loss(
        model.text_head(texts).float(), torch.from_numpy(batch.parts).long(), torch.from_numpy(batch.orders)
    )
    tokens, texts = F.normalize(tokens.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    frame_scale, patch_scale = model.scales.exp()
    frame_bias, patch_bias = model.biases
    frame_logits = frame_scale * tokens[:, 0] @ texts.t() + frame_bias
    patch_logits = patch_scale * tokens[:, 1:] @ texts[torch.from_numpy(batch.located)].t() + patch_bias
    covering = torch.from_numpy(batch.slots).long()
    slot = covering.clamp(min=0)[..., None]
    labels = torch.from_numpy(batch.codes).long().gather(1, slot.expand(-1, -1, 6))
    poses = torch.from_numpy(batch.poses).gather(1, slot.expand(-1, -1, POSE_COLUMNS))
    return {
        "frame": 20 * _match_loss(frame_logits, torch.from_numpy(batch.truth), torch.from_numpy(batch.weights)),
        "patch": 20 * _match_loss(patch_logits, torch.from_numpy(batch.patch_truth)),
        "where": 10 * where,
        "text": 0.5 * text,
        "middle": _attribute_loss(model.middle_head(middle).float(), labels, covering >= 0),
        "last": _attribute_loss(model.last_head(last).float(), labels, covering >= 0),
        "pose": 2 * _pose_loss(model.pose_head(middle).float(), poses, covering >= 0),
    }


def _match_loss(logits: Tensor, truth: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (each * weights * (1 + (POSITIVE_WEIGHT - 1) * (truth == 1))).mean()


def _attribute_loss(outputs: Tensor, labels: Tensor, covered: Tensor) -> Tensor:
    """Whether there is a thing on each patch, and its attributes: outputs [N, P, ·], labels [N, P, 6]."""
    *columns, there = outputs.split([*ATTRIBUTES, 1], -1)
    loss = F.binary_cross_entropy_with_logits(there[..., 0], covered.float())
    for column, logits in enumerate(columns):
        known = covered & (labels[..., column] >= 0)
        if known.any():
            loss = loss + F.cross_entropy(logits[known], labels[..., column][known])
    return loss


def _pose_loss(outputs: Tensor, poses: Tensor, covered: Tensor) -> Tensor:
    """The pose of the thing on each patch, relative to the patch: outputs and poses [N, P, 7]."""
    grid = round(poses.shape[1] ** 0.5)
    middles = (torch.arange(grid) + 0.5) / grid
    centres = torch.stack(torch.meshgrid(middles, middles, indexing="xy"), -1).flatten(0, 1)  # [P, 2]
    # Centres in patches, the rest scaled to similar ranges: a relevant error is about 0.1 of each.
    targets = torch.cat([(poses[..., :2] - centres) * grid, poses[..., 2:3] + 2, 2 * poses[..., 3:]], -1)
    if not covered.any():
        return outputs.sum() * 0
    return F.smooth_l1_loss(outputs[covered], targets[covered], beta=0.2)


def _place_loss(outputs: Tensor, codes: Tensor) -> Tensor:
    """Whether there is a thing in each place, and its shape, colour and size: outputs [N, ·], codes [N, S, 6]."""
    shape, colour, size, place = codes[..., :4].unbind(-1)
    targets = torch.zeros(len(codes), len(PLACES), sum(ATTRIBUTES[:3]) + 1)
    frame = torch.arange(len(codes))[:, None].expand_as(place)
    for offset, attribute in ((1, shape), (1 + len(SHAPES), colour), (1 + len(SHAPES) + len(COLOURS), size)):
        known = (place >= 0) & (attribute >= 0)
        targets[frame[known], place[known], offset + attribute[known]] = 1
    targets[frame[place >= 0], place[place >= 0], 0] = 1
    return _match_loss(outputs, targets.flatten(1))


def _text_loss(outputs: Tensor, parts: Tensor, orders: Tensor) -> Tensor:
    """The shape, colour, size, place, action and order that a text about one thing states.

    Args:
        outputs: [M, ·].
        parts: [M, 2, 6].
        orders: [M, 3].
    """
    one = (parts[:, 1] < 0).all(-1) & (parts[:, 0] >= 0).any(-1)
    shape, colour, size, place, action, colour_before = parts[one, 0].unbind(-1)
    named = (shape, torch.maximum(colour, colour_before), size, place, action, *orders[one].unbind(-1))
    losses = [
        F.cross_entropy(logits, code + 1)
        for logits, code in zip(outputs[one].split(TEXT_CLASSES, -1), named, strict=True)
    ]
    return torch.stack(losses).sum()


def train_encoder(
    settings: EncoderSettings,
    training: EncoderTraining,
    report: Callable[[int, float, dict[str, float]], None],
    make: Callable[[EncoderSettings, int], SmallClip] = SmallClip,
) -> tuple[SmallClip, TokenRows]:
    """Train a CLIP on the demo world; the same arguments give the same weights if all steps fit into the time.

    Args:
        settings: sizes of the towers; its image and patch sizes override the plan's.
        training: duration, learning rates and batches.
        report: called after each step with its number, the completed share of the training and the losses.
        make: makes the model from its settings and the number of token rows.

    Returns:
        The trained model and its token rows.
    """
    torch.manual_seed(training.plan.seed)
    plan = replace(training.plan, image_size=settings.image_size, patch_size=settings.patch_size)
    token_rows = TokenRows()
    model = make(settings, token_rows.row_count)
    optimizer = MuonAdamW(model, training.learning_rate, training.matrix_learning_rate, training.weight_decay)
    begin = time.monotonic()
    done, step = 0.0, 0
    with closing(iter(EncoderBatches(plan, token_rows))) as batches:
        while done < 1:
            with torch.autocast("cpu", torch.bfloat16, enabled=USES_BFLOAT16):
                losses = encoder_losses(model, next(batches))
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step(_rate_factor(step, done, training.warm_up_steps))
            model.zero_grad(set_to_none=True)
            step += 1
            done = max(step / training.steps, (time.monotonic() - begin) / 60 / training.minutes)
            report(step, done, {name: float(loss.detach()) for name, loss in losses.items()})
    return model, token_rows


def _rate_factor(step: int, done: float, warm_up_steps: int) -> float:
    return min((step + 1) / warm_up_steps, 0.5 + 0.5 * math.cos(math.pi * min(1.0, done)))


def export_tensors(model: SmallClip, token_rows: TokenRows) -> dict[str, Tensor]:
    """The float16 tensors of a trained model under OpenAI's names, with the trained token rows only."""
    tensors = {name: tensor.detach().clone() for name, tensor in model.clip.state_dict().items()}
    # Later positions were never trained; the last trained one is the best approximation.
    tensors["positional_embedding"][MAX_TEXT_TOKENS:] = tensors["positional_embedding"][MAX_TEXT_TOKENS - 1]
    tensors["logit_scale"] = model.scales.detach()[0].clone()
    table = tensors.pop("token_embedding.weight")
    tensors["token_embedding.weight"], tensors["token_embedding.unknown"] = table[:-1], table[-1]
    tensors = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    return {**tensors, "token_embedding.rows": torch.tensor(token_rows.tokens, dtype=torch.int32)}


def save_encoder(model: SmallClip, token_rows: TokenRows, path: Path) -> None:
    """Write a trained model for `vtg.ClipEncoder(pretrained=path)`, whole or not at all."""
    from safetensors.torch import save

    metadata = {"format": "vtg-clip", "version": "1", "logit_bias": f"{float(model.biases.detach()[0]):.4f}"}
    with write_whole(path) as beside:
        beside.write_bytes(save(export_tensors(model, token_rows), metadata))
