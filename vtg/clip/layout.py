"""The sizes of a CLIP of open_clip's catalogue: tokens and widths of both towers, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from vtg.clip.building import quiet
from vtg.errors import VtgError

__all__ = ["ClipLayout", "clip_layout", "count_class_tokens"]


@dataclass(frozen=True)
class ClipLayout:
    """The shape of a CLIP's layers.

    Attributes:
        tokens: P, tokens per frame: the class token, if there is one, and the patches; register tokens are dropped.
        class_token: whether the first of them is a class token.
        width: Cv, channels of the image tower.
        text_width: Cq, channels of the text tower.
    """

    tokens: int
    class_token: bool
    width: int
    text_width: int


def count_class_tokens(visual: nn.Module) -> int:
    """Number of class tokens of an image tower of open_clip: 1 for CLIP's ViTs, 0 for SigLIP's."""
    trunk = getattr(visual, "trunk", None)
    return 1 if trunk is None else int(getattr(trunk, "cls_token", None) is not None)


@lru_cache(maxsize=8)
def clip_layout(model: str) -> ClipLayout | None:
    """The layout of a model, which is built without memory for its weights.

    Args:
        model: a name in open_clip's catalogue.

    Returns:
        None if its image tower is not a ViT, or its text tower is not open_clip's own.

    Raises:
        VtgError: the catalogue has no such model.
    """
    import open_clip

    config = open_clip.get_model_config(model)
    if config is None:
        raise VtgError(f"{model}: open_clip does not know it; set model.clip_model to one, or none")
    if "hf_model_name" in config.get("text_cfg", {}):
        return None
    with quiet(), torch.device("meta"):
        clip = open_clip.create_model(model, device="meta", load_weights=False, pretrained_text=False)
    visual, text = clip.visual, getattr(clip, "text", clip)
    trunk = getattr(visual, "trunk", None)
    if trunk is None and hasattr(visual, "conv1") and hasattr(visual, "class_embedding"):
        patches, width = visual.grid_size[0] * visual.grid_size[1], visual.conv1.weight.shape[0]
    elif trunk is not None and hasattr(trunk, "patch_embed") and hasattr(trunk, "blocks"):
        patches, width = trunk.patch_embed.num_patches, trunk.embed_dim
    else:
        return None
    class_tokens = count_class_tokens(visual)
    return ClipLayout(class_tokens + patches, class_tokens > 0, width, text.token_embedding.weight.shape[1])
