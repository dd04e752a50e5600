"""The heads that are evaluated: loaded once, on their device, with the settings that the recipe gives them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vtg.errors import VtgError
from vtg.models.specs import ModelSpec, available_models, model_spec
from vtg.recipes import Recipe

if TYPE_CHECKING:
    from vtg.r2 import HeadConfig, R2Head

__all__ = ["Heads", "evaluation_config", "full_precision", "head_digest"]

# What a published checkpoint does not say, by the recipe's key.
LEFT_OPEN = {"data.fps": "rate", "evaluation.unit": "unit", "evaluation.nms": "suppression"}


class Heads:
    """The heads of an evaluation, by the names of their models.

    Args:
        recipe: whose rate, unit, suppression and windows they are used with.
        like: a model of the registry, whose settings a checkpoint that has none gets.
        device: "cuda", "mps" or "cpu"; None takes the best there is.
        pretrained: weights of the CLIP of checkpoints, where they have to be named by the user.

    Raises:
        VtgError: there is no such device here, or no such model.
    """

    def __init__(
        self, recipe: Recipe, like: str | None = None, device: str | None = None, pretrained: str | None = None
    ) -> None:
        from vtg.clip.devices import choose_device  # here, as it imports torch
        from vtg.models.registry import find_model

        self._device = choose_device(device)
        self._pretrained = pretrained
        self.like = like
        self._recipe = recipe
        self._like_settings = None if like is None else find_model(like).settings
        self._heads: dict[str, R2Head | None] = {}
        self._guessed: set[str] = set()

    def spec(self, model: str) -> ModelSpec:
        """What a model is made of.

        Raises:
            VtgError: there is no such model, or the CLIP of a checkpoint has to be named.
        """
        return model_spec(model, pretrained=None if model in available_models() else self._pretrained)

    def find(self, model: str) -> R2Head | None:
        """The head of a model, in eval mode, with the configuration that it is evaluated with; None for CLIP alone.

        Raises:
            VtgError: there is no such model, or nothing says with which settings its head is evaluated.
        """
        if model not in self._heads:
            self._heads[model] = None if self.spec(model).head is None else self._load(model)
        return self._heads[model]

    def _load(self, model: str) -> R2Head:
        from vtg.models.registry import load_head, pull, registry

        if model in registry():
            pull(model)
        head = load_head(model)
        if head.config.guessed:
            self._guessed.add(model)
        head.config = evaluation_config(self._recipe, head.config, model, self._like_settings)
        return head.to(self._device)

    def whose_clip(self, model: str) -> ModelSpec | str | None:
        """The model whose CLIP one reads: its own, or that of the model it is like; None where nothing says."""
        if model in self._guessed:
            return self.like
        return self.spec(model) if self._pretrained and model not in available_models() else model


def head_digest(head: R2Head) -> str:
    """The SHA-256 of a head's parameters, in 64 hex digits: a copy of its file under another name has the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(head.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def evaluation_config(recipe: Recipe, config: HeadConfig, model: str, like: dict[str, Any] | None = None) -> HeadConfig:
    """The configuration that a head is evaluated with: what the recipe states, else what the head's file says.

    Args:
        recipe: of the benchmark.
        config: of the head, from its file.
        model: its name or checkpoint, for errors.
        like: settings of a published head, for a file that says nothing of them.

    Raises:
        VtgError: the file says nothing of a setting, and neither `like` nor the recipe does; or a value that cannot be.
    """
    if like is not None and not config.guessed:
        raise VtgError(f"{model}: has its settings inside; --like is for checkpoints that say nothing of them")
    values = dict(like or {})
    if recipe.data.fps is not None:
        values["fps"] = recipe.data.fps
    if recipe.states("evaluation.unit"):
        values["unit"] = recipe.evaluation.unit
    if recipe.states("evaluation.nms"):
        values["nms"] = recipe.evaluation.nms
    if recipe.states("evaluation.nms") or recipe.states("evaluation.nms_threshold"):
        values["nms_threshold"] = recipe.evaluation.nms_threshold  # one belongs to the other
    for key in ("window_seconds", "step_seconds"):
        if recipe.states(f"model.{key}"):
            values[key] = getattr(recipe.model, key)
    if config.guessed and like is None:
        # Windows are what unit and suppression are for: a highlight-only head has none.
        asked = LEFT_OPEN if config.moment_retrieval else {"data.fps": LEFT_OPEN["data.fps"]}
        if open_keys := [key for key in asked if not recipe.states(key)]:
            what = ", ".join(asked[key] for key in open_keys)
            raise VtgError(
                f"{model}: says nothing of its {what}; name the published head that it is like with --like, "
                f"or state {', '.join(open_keys)} in the recipe or with --set"
            )
    try:
        return replace(config, **values, guessed=False)
    except ValueError as error:
        raise VtgError(f"recipe {recipe.name}: {error}") from None


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Inside, convolutions on a GPU are computed in float32, which TensorFloat-32 would round to 10 bits."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
