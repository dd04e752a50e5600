"""Read published `.pth` checkpoints; read and write heads as safetensors."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from vtg.errors import VtgError
from vtg.files.text import error_line
from vtg.files.whole import write_whole
from vtg.r2.config import HeadConfig
from vtg.r2.head import R2Head
from vtg.weights import WeightsError, WeightsFile, check_finite, open_weights

__all__ = [
    "infer_config",
    "read_head",
    "read_tensors",
    "save_head",
    "save_pickled",
    "save_published",
    "save_tensors",
]

FORMAT = {"format": "vtg-r2-head", "version": "1"}  # metadata of safetensors files, in addition to the configuration

# Prefixes of our tensor names and of the published ones; the pyramid's tensors are named by module index instead.
PREFIXES = (
    ("level_scale", "coef"),
    ("saliency_scale", "loss._loss_sal.scale"),
    ("block.video_key.", "adapter.v_map."),
    ("block.query_key.", "adapter.q_map."),
    ("block.refinement.cross_attention.", "adapter.tem.cross_att."),
    ("block.refinement.cross_norm.", "adapter.tem.cross_att_norm."),
    ("block.refinement.self_attention.", "adapter.tem.self_att."),
    ("block.refinement.self_norm.", "adapter.tem.self_att_norm."),
    ("block.refinement.feed_forward.", "adapter.tem.ffn.mapping."),
    ("block.refinement.feed_forward_norm.", "adapter.tem.ffn_norm."),
    ("block.", "adapter."),
    ("pooling.score.", "pooling.att."),
    ("class_head.0.", "class_head.module.1."),
    ("class_head.2.", "class_head.module.3."),
    ("coordinate_head.0.", "coord_head.module.1."),
    ("coordinate_head.2.", "coord_head.module.3."),
)
ATTENTION_PARTS = {"query": "q", "key": "k", "value": "v", "output": "m"}
MODULES_PER_HALVING = 5  # published: transpose, convolution, transpose, norm, ReLU
MAX_HALVINGS = 16  # bounds the stride that a malicious tensor name can declare
PYRAMID_PARTS = {"convolution": 1, "norm": 3}
MAX_NAME_CHARACTERS = 60  # of a tensor in an error message
MAX_LISTED_NAMES = 6  # tensors listed in an error message


def published_name(name: str) -> str:
    """The published name of one of our tensors."""
    pyramid = re.fullmatch(r"pyramid\.levels\.(\d+)\.(\d+)\.(convolution|norm)\.(weight|bias)", name)
    if pyramid:
        level, halving, part, parameter = pyramid.groups()
        return f"pyramid.blocks.{level}.{MODULES_PER_HALVING * int(halving) + PYRAMID_PARTS[part]}.{parameter}"
    ours, published = next((ours, published) for ours, published in PREFIXES if name.startswith(ours))
    rest = name[len(ours) :]
    if ours.endswith("attention."):
        part, _, parameter = rest.partition(".")
        rest = f"{ATTENTION_PARTS[part]}.{parameter}"
    return published + rest


def head_shapes(config: HeadConfig) -> dict[str, torch.Size]:
    """Names and shapes of a head's tensors for a configuration, without allocating them."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in R2Head(config).state_dict().items()}


def infer_config(published: Mapping[str, Tensor], path: Path | str) -> HeadConfig:
    """Infer the configuration of a published checkpoint from its tensors.

    A checkpoint with a coordinate head predicts moments, with a pyramid and temporal extents; one without is
    highlight-only. Values that tensors do not determine are those of QVHighlights, the method's main benchmark, except
    for its unit; `guessed` is then true.

    Args:
        published: tensors by published name.
        path: of the file, for error messages.

    Raises:
        VtgError: the tensors are of another architecture.
    """
    video, query = published.get("adapter.video_map.2.weight"), published.get("adapter.query_map.2.weight")
    if video is None or query is None or video.dim() != 2 or query.dim() != 2:
        raise VtgError(
            f"{path}: not a checkpoint of an R²-Tuning head but of another architecture "
            f"(its tensors: {shorten_list(sorted(published))}); give one with adapter.*, class_head.*, pooling.*"
        )
    moments = any(name.startswith("coord_head.") for name in published)
    levels = published["coef"].numel() if "coef" in published else len(HeadConfig.strides) if moments else 1
    halvings = [0] * levels
    for name in published:
        match = re.fullmatch(r"pyramid\.blocks\.(\d+)\.(\d+)\.\w+", name)
        if match and int(match[1]) < len(halvings):
            level, module = int(match[1]), int(match[2])
            halvings[level] = max(halvings[level], min(module // MODULES_PER_HALVING + 1, MAX_HALVINGS))
    values: dict[str, Any] = {
        "hidden_width": video.shape[0],
        "video_width": video.shape[1] - 2 * moments,
        "query_width": query.shape[1],
        "layers": published["adapter.scale"].numel() if "adapter.scale" in published else HeadConfig.layers,
        "strides": [2**count for count in halvings],
        "moment_retrieval": moments,
        "temporal_extent": moments,
        "guessed": True,
    }
    if moments:
        values["nms"] = "normal"
    if (values["video_width"], values["query_width"]) != (HeadConfig.video_width, HeadConfig.query_width):
        values |= {"tokens": None, "clip_model": None, "clip_pretrained": None}
    try:
        return HeadConfig.from_values(values)
    except ValueError as error:
        raise VtgError(f"{path}: not a checkpoint of an R²-Tuning head: {error}") from error


def read_tensors(path: Path | str, settings: Mapping[str, Any] | None = None) -> tuple[HeadConfig, dict[str, Tensor]]:
    """Read and check the tensors of a checkpoint, without building a module; values are those of the file, bit for bit.

    Args:
        path: a published `.pth`, or a `.safetensors` file written by `save_head`.
        settings: fields of `HeadConfig` that a published checkpoint does not contain; ignored for safetensors.

    Returns:
        The configuration, and the tensors by our names.

    Raises:
        VtgError: the file is missing or damaged, contains anything but plain tensors, or not those of a head.
    """
    path = Path(path)
    if not path.is_file():
        raise VtgError(f"{path}: no such checkpoint file")
    ours = path.suffix == ".safetensors"
    try:
        with open_weights(path) as file:
            declared = declared_tensors(file)
            config = our_config(path, file) if ours else infer_config(declared, path)
            if settings and not ours:
                config = HeadConfig.from_values({**vars(config), **settings, "guessed": False})
            expected = head_shapes(config)
            renamed = {name: name if ours else published_name(name) for name in expected}
            check_tensors({renamed[name]: shape for name, shape in expected.items()}, declared, path)
            tensors = file.read()
        check_finite(tensors)
    except WeightsError as error:
        raise VtgError(f"{path}: {error_message(error, ours)}") from error
    return config, {name: tensors[renamed[name]] for name in expected}


def declared_tensors(file: WeightsFile) -> dict[str, Tensor]:
    """Meta tensors of the shapes and types that a file declares."""
    try:
        return {name: torch.empty(shape, dtype=file.dtypes[name], device="meta") for name, shape in file.shapes.items()}
    except (RuntimeError, OverflowError) as error:
        raise WeightsError(f"claims a tensor of impossible size: {error_line(error)}") from None


def error_message(error: WeightsError, ours: bool) -> str:
    """The message for a file that is not a valid file of tensors."""
    if error.kind == "unsafe":
        return (
            f"refused: it is damaged or holds more than plain tensors, and could run code on loading ({error}); "
            "get it from its publisher again"
        )
    if error.kind == "large":
        return f"{error}; give a smaller head"
    if ours:
        return f"cut off or not a safetensors file ({error}); get or write it again"
    if error.kind == "foreign":
        return f"not a checkpoint: {error}"
    return f"cut off or damaged ({error}); download it again"


def read_head(path: Path | str, settings: Mapping[str, Any] | None = None) -> R2Head:
    """Read a checkpoint as a head in eval mode.

    Args:
        path: a published `.pth`, or a `.safetensors` file written by `save_head`.
        settings: fields of `HeadConfig` that a published checkpoint does not contain.

    Raises:
        VtgError: as `read_tensors`.
    """
    config, tensors = read_tensors(path, settings)
    head = R2Head(config)
    head.load_state_dict(tensors)
    return head.eval()


def save_head(head: R2Head, path: Path | str) -> None:
    """Write a head atomically as one safetensors file with its configuration in the metadata."""
    save_tensors(head.config, head.state_dict(), path)


def save_tensors(config: HeadConfig, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Write a state dict and its configuration atomically as one safetensors file."""
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    # Serialise in memory first: on a full disk the library's error contains neither file nor reason.
    content = save(plain, metadata={**FORMAT, "config": config.to_json()})
    with write_whole(path) as beside:
        beside.write_bytes(content)


def save_published(tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Write a state dict atomically as a checkpoint in the published layout."""
    renamed = {published_name(name): tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    save_pickled({"meta": {}, "state_dict": renamed}, path)


def save_pickled(content: Mapping[str, Any], path: Path | str) -> None:
    """Write tensors and plain values atomically in the format of `torch.save`.

    Raises:
        VtgError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with write_whole(path) as beside:
        beside.write_bytes(buffer.getbuffer())


def our_config(path: Path, file: WeightsFile) -> HeadConfig:
    """The configuration in the metadata of a safetensors file.

    Raises:
        VtgError: the file was not written by `save_head`, is of a later version, or has no valid configuration.
    """
    metadata = file.metadata
    if metadata.get("format") != FORMAT["format"]:
        raise VtgError(
            f"{path}: not an R² head written by vtg (it has tensors such as {shorten_list(sorted(file.shapes))}); "
            "convert a published .pth with tools/convert_checkpoint.py"
        )
    if metadata.get("version") != FORMAT["version"]:
        version = str(metadata.get("version"))[:20]
        raise VtgError(f"{path}: written in version {version} of the format: update vtg to read it")
    try:
        return HeadConfig.from_json(metadata.get("config", ""))
    except ValueError as error:
        raise VtgError(f"{path}: its configuration cannot be read ({error_line(error)}); write it again") from error


def check_tensors(expected: Mapping[str, torch.Size], found: Mapping[str, Tensor], path: Path) -> None:
    """Compare a file's tensors with those of a head.

    Raises:
        VtgError: with a list of missing, extra or misshapen tensors.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    misshapen = [
        f"{name} {list(found[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name].shape != shape
    ]
    integral = [name for name in expected if name in found and not found[name].is_floating_point()]
    lists = {"missing": missing, "extra": extra, "misshapen": misshapen, "not floating point": integral}
    wrong = "; ".join(f"{kind}: {shorten_list(names)}" for kind, names in lists.items() if names)
    if wrong:
        raise VtgError(f"{path}: the tensors are not those of an R² head: {wrong}")


def shorten_list(names: list[str]) -> str:
    """A comma-separated list of names, shortened if it is long."""
    more = f" and {len(names) - MAX_LISTED_NAMES} more" if len(names) > MAX_LISTED_NAMES else ""
    return ", ".join(name[:MAX_NAME_CHARACTERS] for name in names[:MAX_LISTED_NAMES]) + more
