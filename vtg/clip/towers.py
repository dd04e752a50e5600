"""Examine the towers of an open_clip model: whether they expose layers, and how much memory a frame needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from vtg.errors import VtgError

__all__ = ["check_layers", "fuse_branches", "largest_output"]


def check_layers(clip: Any, layers: int, name: str) -> None:
    """Check that both towers of a model expose a number of their last layers.

    Args:
        clip: from `vtg.clip.building.load_clip`.
        layers: K.
        name: of the model, for error messages.

    Raises:
        VtgError: they do not.
    """
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    visual = clip.visual
    is_vit = isinstance(visual, VisionTransformer) or (
        isinstance(visual, TimmModel) and hasattr(visual.trunk, "patch_embed") and hasattr(visual.trunk, "blocks")
    )
    if not is_vit:
        raise VtgError(
            f"{name}: its image tower is not a ViT, so it has no layers for a head; use it with --model zero-shot, "
            "or choose a ViT model of open_clip's catalogue"
        )
    text = getattr(clip, "text", clip)
    if not hasattr(text, "forward_intermediates"):
        raise VtgError(
            f"{name}: its text tower does not expose its layers, which a head needs; use it with --model zero-shot, "
            "or choose a model with CLIP's own text tower"
        )
    blocks = visual.transformer.layers if isinstance(visual, VisionTransformer) else len(visual.trunk.blocks)
    text_blocks = getattr(text, "transformer", None)
    fewest = min(blocks, getattr(text_blocks, "layers", blocks))
    if not 1 <= layers <= fewest:
        raise VtgError(f"{name}: has {fewest} layers, {layers} were requested; choose 1 to {fewest}")


def fuse_branches(clip: Any) -> None:
    """Fuse the parallel convolutions of towers that are trained with several and used with one, such as MobileCLIP's.

    The embeddings stay the same up to rounding.
    """
    from open_clip.timm_model import TimmModel
    from timm.utils.model import reparameterize_model

    if isinstance(clip.visual, TimmModel):
        clip.visual.trunk = reparameterize_model(clip.visual.trunk, inplace=True)


@contextlib.contextmanager
def largest_output(tower: nn.Module) -> Iterator[Callable[[], int]]:
    """Watch a tower while it encodes: gives a function that returns the number of values of its largest output."""
    largest = 0

    def note(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal largest
        for tensor in output if isinstance(output, tuple) else (output,):
            if isinstance(tensor, Tensor):
                largest = max(largest, tensor.numel())

    hooks = [module.register_forward_hook(note) for module in tower.modules() if not next(module.children(), None)]
    try:
        yield lambda: largest
    finally:
        for hook in hooks:
            hook.remove()
