"""A head learns on image towers unlike CLIP's: small ones, trained on the demo world as the demo CLIP is (slow)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from timm.models import VisionTransformer, register_model
from torch import Tensor

from tools.demo.encoder import (
    BLOCKS_AFTER_MIDDLE,
    PIXEL_DEVIATION,
    PIXEL_MEAN,
    EncoderSettings,
    EncoderTraining,
    SmallClip,
    export_tensors,
    train_encoder,
)
from tools.demo.features import write_training_data
from tools.evaluate_demo import TestVideos, evaluate_demo
from tools.make_demo import HEAD_QUERIES, REPORT_STEPS, _Progress
from vtg import ClipEncoder, load_head
from vtg.clip.checkpoints import _with_all_token_rows
from vtg.recipes import load_recipe
from vtg.training.train import Sources, train

SETTINGS = EncoderSettings()
TRAINING = EncoderTraining(minutes=30.0)
SCENES, VALIDATION_SCENES, EPOCHS = 1200, 40, 20
MIN_R1 = 85.0  # R1@0.5, percent
TEXT = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": SETTINGS.text_width,
    "heads": SETTINGS.text_width // 64,
    "layers": SETTINGS.text_layers,
}


def _tower(**settings: Any) -> VisionTransformer:
    tower = VisionTransformer(
        img_size=SETTINGS.image_size,
        patch_size=SETTINGS.patch_size,
        embed_dim=SETTINGS.vision_width,
        depth=SETTINGS.vision_layers,
        num_heads=SETTINGS.vision_width // 64,
        fc_norm=False,
        **settings,
    )
    tower.default_cfg = {}
    return tower


@register_model
def demo_vit_without_class_token(**_: Any) -> VisionTransformer:
    """A tower of patches alone, whose embedding is their mean."""
    return _tower(class_token=False, global_pool="avg")


@register_model
def demo_vit_with_registers(**_: Any) -> VisionTransformer:
    """A tower with a class token and four register tokens."""
    return _tower(class_token=True, reg_tokens=4, global_pool="token")


POOLS = {"demo_vit_without_class_token": "avg", "demo_vit_with_registers": "token"}


class TimmClip(SmallClip):
    """The demo CLIP with a tower of timm."""

    tower = ""

    def __init__(self, settings: EncoderSettings, row_count: int) -> None:
        from open_clip.timm_model import TimmModel

        super().__init__(settings, row_count)
        self.clip.visual = TimmModel(
            self.tower, settings.embedding, settings.image_size, pool=POOLS[self.tower], proj="linear"
        )

    def encode_frames(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        visual, trunk = self.clip.visual, self.clip.visual.trunk
        pixels = (frames.float() / 255 - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_DEVIATION)
        stream = middle = trunk._pos_embed(trunk.patch_embed(pixels.permute(0, 3, 1, 2)))
        for depth, block in enumerate(trunk.blocks, 1):
            stream = block(stream)
            if depth == self.settings.vision_layers - BLOCKS_AFTER_MIDDLE:
                middle = stream
        tokens, leading = visual.head(trunk.norm(stream)), trunk.num_prefix_tokens
        patches = tokens[:, leading:]
        first = patches.mean(1, keepdim=True) if trunk.cls_token is None else tokens[:, :1]
        return torch.cat((first, patches), 1), middle[:, leading:], stream[:, leading:]


def make_tower(name: str, folder: Path, training: EncoderTraining) -> ClipEncoder:
    """Train a CLIP with this tower, and add it to open_clip's catalogue."""
    config = {
        "embed_dim": SETTINGS.embedding,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": SETTINGS.image_size,
            "timm_model_name": name,
            "timm_pool": POOLS[name],
            "timm_proj": "linear",
        },
        "text_cfg": TEXT,
    }
    (folder / "models").mkdir()
    (folder / "models" / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder / "models")
    clip = type("TrainedClip", (TimmClip,), {"tower": name})
    model, rows = train_encoder(SETTINGS, training, _Progress(REPORT_STEPS), clip)
    weights = folder / "clip.safetensors"
    save_file(_with_all_token_rows(export_tensors(model, rows), weights), weights)
    return ClipEncoder(name, weights, device="cpu", preprocessing="resize=shortest")


def learnt(
    name: str, folder: Path, training: EncoderTraining, scenes: int, validation_scenes: int, epochs: int, videos: int
) -> float:
    """R1@0.5, in percent, of a head trained by the demo recipe on a tower that was trained before."""
    encoder = make_tower(name, folder, training)
    features = write_training_data(folder, encoder, HEAD_QUERIES, scenes, validation_scenes, Console(stderr=True))
    data = load_recipe("demo").data
    settings = [
        f"model.clip_model={name}",
        f"model.clip_pretrained={encoder.pretrained}",
        f"data.video_features={data.video_features}",
        f"data.query_features={data.query_features}",
        f"train.epochs={epochs}",
    ]
    result = train(load_recipe("demo", settings), Sources(features, features), folder / "run", device="cpu")
    config = load_head(result.head).config
    assert (config.class_token, config.tokens) == (bool(encoder.class_tokens), encoder.class_tokens + 64)
    figures = evaluate_demo(folder / "test", TestVideos(videos), str(result.head))["all"]
    print(name, figures, flush=True)
    return figures["R1@0.5"]


@pytest.fixture
def all_cores() -> Iterator[None]:
    """All cores for PyTorch; other tests have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", POOLS)
@pytest.mark.usefixtures("all_cores")
def test_a_head_learns_on_a_tower_unlike_clips(name: str, tmp_path: Path) -> None:
    assert learnt(name, tmp_path, TRAINING, SCENES, VALIDATION_SCENES, EPOCHS, videos=100) >= MIN_R1
