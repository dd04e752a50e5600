"""Load the heads to evaluate, with the settings of the recipe."""

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

# Settings that published checkpoints do not contain, by the recipe's key.
UNSTATED_SETTINGS = {"data.fps": "rate", "evaluation.unit": "unit", "evaluation.nms": "suppression"}


class Heads:
    """Heads by model name; each is loaded once.

    Args:
        recipe: determines rate, unit, suppression and windows.
        like: a published model whose settings are used for checkpoints without settings.
        device: "cuda", "mps" or "cpu"; None for the best available.
        pretrained: weights of the CLIP of checkpoints, if the user has to name them.

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
        """The components of a model.

        Raises:
            VtgError: there is no such model, or the CLIP of a checkpoint has to be named.
        """
        return model_spec(model, pretrained=None if model in available_models() else self._pretrained)

    def find(self, model: str) -> R2Head | None:
        """The head of a model, in eval mode, with its configuration for the evaluation; None for CLIP only.

        Raises:
            VtgError: there is no such model, or the settings of its head are unknown.
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

    def clip_source(self, model: str) -> ModelSpec | str | None:
        """The model whose CLIP is used: the model itself, or the one given by `like`; None if unknown."""
        if model in self._guessed:
            return self.like
        return self.spec(model) if self._pretrained and model not in available_models() else model


def head_digest(head: R2Head) -> str:
    """The SHA-256 of a head's parameters, in 64 hex digits, independent of its file name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(head.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def evaluation_config(recipe: Recipe, config: HeadConfig, model: str, like: dict[str, Any] | None = None) -> HeadConfig:
    """The configuration of a head for the evaluation: values of the recipe, else those of the head's file.

    Args:
        recipe: of the benchmark.
        config: of the head, from its file.
        model: its name or checkpoint, for errors.
        like: settings of a published head, for a file without settings.

    Raises:
        VtgError: a setting is in neither the file, `like` nor the recipe; or a value is invalid.
    """
    if like is not None and not config.guessed:
        raise VtgError(f"{model}: contains its settings; --like is for checkpoints without settings")
    values = dict(like or {})
    if recipe.data.fps is not None:
        values["fps"] = recipe.data.fps
    if recipe.states("evaluation.unit"):
        values["unit"] = recipe.evaluation.unit
    if recipe.states("evaluation.nms"):
        values["nms"] = recipe.evaluation.nms
    if recipe.states("evaluation.nms") or recipe.states("evaluation.nms_threshold"):
        values["nms_threshold"] = recipe.evaluation.nms_threshold  # belongs to nms
    for key in ("window_seconds", "step_seconds"):
        if recipe.states(f"model.{key}"):
            values[key] = getattr(recipe.model, key)
    if config.guessed and like is None:
        # Unit and suppression apply to windows, which a highlight-only head does not predict.
        needed = UNSTATED_SETTINGS if config.moment_retrieval else {"data.fps": UNSTATED_SETTINGS["data.fps"]}
        if open_keys := [key for key in needed if not recipe.states(key)]:
            what = ", ".join(needed[key] for key in open_keys)
            raise VtgError(
                f"{model}: does not contain its {what}; name a published head with the same settings with --like, "
                f"or set {', '.join(open_keys)} in the recipe or with --set"
            )
    try:
        return replace(config, **values, guessed=False)
    except ValueError as error:
        raise VtgError(f"recipe {recipe.name}: {error}") from None


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """A context in which convolutions on a GPU use float32 instead of TensorFloat-32."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
