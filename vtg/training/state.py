"""Save and load the state from which a stopped training continues: epoch, weights, optimiser and random numbers."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vtg.errors import VtgError
from vtg.r2.checkpoints import save_pickled
from vtg.recipes import Recipe
from vtg.recipes.values import keys_of
from vtg.weights import read_content

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer

__all__ = ["TrainingPosition", "read_state", "recipe_values", "restore", "save_state"]

MUTABLE_KEYS = (
    "train.epochs",
    "train.validate_every",
    "data.folder",
    "data.video_features",
    "data.query_features",
)  # recipe values that may differ when a run is resumed


@dataclass(frozen=True)
class TrainingPosition:
    """Progress of a training.

    Attributes:
        epoch: the current one, from 0, equal to the number of finished epochs.
        batch: number of finished batches in the epoch.
        step: number of optimiser steps in total.
        best: the highest validation figure so far; None before the first.
        best_epoch: its epoch, from 1; 0 before the first.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """All values of a recipe by dotted names, as plain values for JSON."""
    values = {}
    for section in ("data", "model", "train", "evaluation"):
        own = asdict(getattr(recipe, section))
        for key in keys_of(type(getattr(recipe, section))):
            value = own[key]
            values[f"{section}.{key}"] = str(value) if isinstance(value, Path) else value
    return values


def save_state(
    path: Path,
    accelerator: Accelerator,
    head: torch.nn.Module,
    optimizer: AcceleratedOptimizer,
    place: TrainingPosition,
    recipe: Recipe,
) -> None:
    """Write the state of a training atomically. Every process must call this.

    Args:
        path: of the file, written by the main process.
        accelerator: of the run.
        head: without wrappers.
        optimizer: as prepared by accelerate.
        place: progress of the run.
        recipe: of the run; a resumed run must have the same one.
    """
    from accelerate.utils import gather_object

    own = [_random_state(accelerator.device)]
    random_states = gather_object(own) if accelerator.num_processes > 1 else own
    if not accelerator.is_main_process:
        return
    scaler = accelerator.scaler
    content = {
        "place": asdict(place),
        "values": {key: repr(value) for key, value in recipe_values(recipe).items()},
        "head": head.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "random": random_states,
    }
    save_pickled(content, path)


def read_state(path: Path, recipe: Recipe, processes: int) -> dict[str, Any]:
    """Read a file of `save_state`.

    Raises:
        VtgError: the file is missing or damaged, or of another recipe or number of processes.
    """
    try:
        content: dict[str, Any] = read_content(path)
        values, saved = content["values"], len(content["random"])
    except FileNotFoundError:
        raise VtgError(f"{path}: there is no training to resume; leave out --resume, or check --out") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise VtgError(f"{path}: damaged; train again, with another --out") from None
    for key, value in recipe_values(recipe).items():
        # A key that is not there is younger than the training: its effect is that of the default.
        if key not in MUTABLE_KEYS and values.get(key, repr(value)) != repr(value):
            raise VtgError(
                f"{path}: was trained with {key} = {values.get(key)}, not {value!r}; resume with the same value, "
                "or start a new training with another --out"
            )
    if saved != processes:
        raise VtgError(f"{path}: was trained by {saved} processes, not {processes}; resume with the same number")
    return content


def restore(
    content: dict[str, Any], accelerator: Accelerator, head: torch.nn.Module, optimizer: AcceleratedOptimizer
) -> TrainingPosition:
    """Restore head, optimizer and random number generators."""
    head.load_state_dict(content["head"])
    optimizer.load_state_dict(content["optimizer"])
    if accelerator.scaler is not None and content["scaler"] is not None:
        accelerator.scaler.load_state_dict(content["scaler"])
    state = content["random"][accelerator.process_index]
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["device"] is not None:
        torch.cuda.set_rng_state(state["device"], accelerator.device)
    return TrainingPosition(**content["place"])


def _random_state(device: torch.device) -> dict[str, Any]:
    kind, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), place, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
