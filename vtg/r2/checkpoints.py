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

FORMAT = {"format": "vtg-r2-head", "version": "1"}  # metadata of our files, beside the configuration

# Our prefixes and the published ones, for all tensors but the pyramid's, whose published indices count modules.
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
MODULES_PER_HALVING = 5  # published: transpose, convolution, transpose, norm, rectifier
MOST_HALVINGS = 16  # a hostile name must not make a stride of astronomical size
PYRAMID_PARTS = {"convolution": 1, "norm": 3}
LONGEST_NAME = 60  # characters of a tensor's name in an error
LISTED = 6  # names in an error's list of tensors before it is cut short


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
    """Our tensor names and their shapes for a configuration, without allocating any."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in R2Head(config).state_dict().items()}


def infer_config(published: Mapping[str, Tensor], path: Path | str) -> HeadConfig:
    """Recognises the recipe and the sizes of a published checkpoint from its tensors.

    A checkpoint with a coordinate head retrieves moments, over a pyramid and with temporal extents; one without is
    highlight-only. What tensors do not tell is as for QVHighlights, the method's main benchmark, but for its unit; the
    configuration says that it is guessed.

    Args:
        published: tensors by published name.
        path: where they came from, for the error.

    Raises:
        VtgError: the tensors are another architecture's.
    """
    video, query = published.get("adapter.video_map.2.weight"), published.get("adapter.query_map.2.weight")
    if video is None or query is None or video.dim() != 2 or query.dim() != 2:
        raise VtgError(
            f"{path}: not a checkpoint of an R²-Tuning head but of another architecture "
            f"(its tensors: {abbreviated(sorted(published))}); give one with adapter.*, class_head.*, pooling.*"
        )
    moments = any(name.startswith("coord_head.") for name in published)
    levels = published["coef"].numel() if "coef" in published else len(HeadConfig.strides) if moments else 1
    halvings = [0] * levels
    for name in published:
        match = re.fullmatch(r"pyramid\.blocks\.(\d+)\.(\d+)\.\w+", name)
        if match and int(match[1]) < len(halvings):
            level, module = int(match[1]), int(match[2])
            halvings[level] = max(halvings[level], min(module // MODULES_PER_HALVING + 1, MOST_HALVINGS))
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
    """Reads a checkpoint of either kind, checked but not yet a module: the tensors are those of the file, to the byte.

    Args:
        path: a published `.pth`, or one of our `.safetensors`.
        settings: fields of `HeadConfig` that a published checkpoint cannot tell; not for our own files, which can.

    Returns:
        The configuration, and the tensors by our names.

    Raises:
        VtgError: the file is missing, damaged, holds anything but plain tensors, or not those of a head.
    """
    path = Path(path)
    if not path.is_file():
        raise VtgError(f"{path}: no such checkpoint file")
    ours = path.suffix == ".safetensors"
    try:
        with open_weights(path) as file:
            claimed = claimed_tensors(file)
            config = our_config(path, file) if ours else infer_config(claimed, path)
            if settings and not ours:
                config = HeadConfig.from_values({**vars(config), **settings, "guessed": False})
            expected = head_shapes(config)
            renamed = {name: name if ours else published_name(name) for name in expected}
            check_tensors({renamed[name]: shape for name, shape in expected.items()}, claimed, path)
            tensors = file.read()
        check_finite(tensors)
    except WeightsError as error:
        raise VtgError(f"{path}: {refusal(error, ours)}") from error
    return config, {name: tensors[renamed[name]] for name in expected}


def claimed_tensors(file: WeightsFile) -> dict[str, Tensor]:
    """Tensors without memory, of the shapes and types that a file claims."""
    try:
        return {name: torch.empty(shape, dtype=file.dtypes[name], device="meta") for name, shape in file.shapes.items()}
    except (RuntimeError, OverflowError) as error:
        raise WeightsError(f"claims a tensor of impossible size: {one_line(error)}") from None


def refusal(error: WeightsError, ours: bool) -> str:
    """What to say of a file that is not one of plain tensors."""
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
    """Reads a checkpoint of either kind as a head in eval mode.

    Args:
        path: a published `.pth`, or one of our `.safetensors`.
        settings: fields of `HeadConfig` that a published checkpoint cannot tell.

    Raises:
        VtgError: as `read_tensors`.
    """
    config, tensors = read_tensors(path, settings)
    head = R2Head(config)
    head.load_state_dict(tensors)
    return head.eval()


def save_head(head: R2Head, path: Path | str) -> None:
    """Writes a head as one safetensors file with its configuration in the metadata; whole or not at all."""
    save_tensors(head.config, head.state_dict(), path)


def save_tensors(config: HeadConfig, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Writes tensors by our names, and the configuration, as one safetensors file; whole or not at all."""
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    # In memory first: what the libraries raise where a disk is full tells neither file nor reason.
    content = save(plain, metadata={**FORMAT, "config": config.to_json()})
    with write_whole(path) as beside:
        beside.write_bytes(content)


def save_published(tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Writes tensors by our names as a checkpoint in the published layout; whole or not at all."""
    renamed = {published_name(name): tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    save_pickled({"meta": {}, "state_dict": renamed}, path)


def save_pickled(content: Mapping[str, Any], path: Path | str) -> None:
    """Writes tensors and plain values as PyTorch does; whole or not at all.

    Raises:
        VtgError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with write_whole(path) as beside:
        beside.write_bytes(buffer.getbuffer())


def our_config(path: Path, file: WeightsFile) -> HeadConfig:
    """The configuration in the metadata of one of our files.

    Raises:
        VtgError: it is none of ours, of a later version, or has no configuration that can be.
    """
    metadata = file.metadata
    if metadata.get("format") != FORMAT["format"]:
        raise VtgError(
            f"{path}: not an R² head of ours (it has tensors such as {abbreviated(sorted(file.shapes))}); "
            "convert a published .pth with tools/convert_checkpoint.py"
        )
    if metadata.get("version") != FORMAT["version"]:
        version = str(metadata.get("version"))[:20]
        raise VtgError(f"{path}: written in version {version} of the format: update vtg to read it")
    try:
        return HeadConfig.from_json(metadata.get("config", ""))
    except ValueError as error:
        raise VtgError(f"{path}: its configuration cannot be read ({one_line(error)}); write it again") from error


def check_tensors(expected: Mapping[str, torch.Size], found: Mapping[str, Tensor], path: Path) -> None:
    """Compares a file's tensors with a head's.

    Raises:
        VtgError: one line that lists what is missing, extra or misshapen.
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
    wrong = "; ".join(f"{kind}: {abbreviated(names)}" for kind, names in lists.items() if names)
    if wrong:
        raise VtgError(f"{path}: the tensors are not those of an R² head: {wrong}")


def abbreviated(names: list[str]) -> str:
    """A list of names for a line of text, cut short when it is long."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(name[:LONGEST_NAME] for name in names[:LISTED]) + more


def one_line(error: Exception) -> str:
    """What an error of a library says first."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
