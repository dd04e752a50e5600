"""Write damaged and hostile files of weights: heads, CLIPs, state dicts and TorchScript archives, mutated by a seed.

Whatever a reader does with them, no file named `CANARY` may appear in the folder: each hostile pickle and archive tries
to write it.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CANARY = "code-ran"
VOCABULARY = 64  # token rows of the small CLIP, so that a file is small


class RunsOnLoad:
    """Pickled as a call: unpickling it makes the file `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch '{self._path}'",)


def write_hostile_weights(folder: Path, seed: int, count: int) -> list[Path]:
    """Write `count` mutated files of weights into a folder; the same seed gives the same mutations.

    Args:
        folder: where they are written; made where it is missing.
        seed: of the choice of base files and mutations.
        count: how many files.

    Returns:
        Their paths. A name says the kind and the mutation: ``00012-head-edited.safetensors``. A flipped bit of a
        tensor's data may leave a file that is still whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(seed)  # noqa: S311 (mutations, not secrets)
    bases = base_files(folder / CANARY)
    paths = []
    for number in range(count):
        kind, suffix, content = generator.choice(bases)
        fitting = [_flip_bits, _truncate, _splice, _edit_header if suffix == ".safetensors" else _edit_archive]
        mutate = generator.choice(fitting)
        path = folder / f"{number:05}-{kind}-{mutate.__name__.strip('_')}{suffix}"
        path.write_bytes(mutate(content, generator))
        paths.append(path)
    return paths


def base_files(canary: Path) -> list[tuple[str, str, bytes]]:
    """The files that mutations begin with: kind, suffix and content.

    Args:
        canary: what the hostile ones among them write when they are run.
    """
    from safetensors.torch import save

    from vtg.r2 import HeadConfig, R2Head
    from vtg.r2.checkpoints import published_name

    torch.manual_seed(0)
    config = HeadConfig(
        hidden_width=32, video_width=64, query_width=64, tokens=5, clip_model=None, clip_pretrained=None
    )
    head = R2Head(config).state_dict()
    metadata = {"format": "vtg-r2-head", "version": "1", "config": config.to_json()}
    clip = small_clip().state_dict()
    published = {published_name(name): tensor for name, tensor in head.items()}
    return [
        ("head", ".safetensors", save(head, metadata)),
        ("clip", ".safetensors", save({name: tensor.contiguous() for name, tensor in clip.items()})),
        ("head", ".pth", saved({"meta": {}, "state_dict": published})),
        ("legacy", ".pth", saved({"state_dict": published}, _use_new_zipfile_serialization=False)),
        ("clip", ".pt", saved(clip)),
        ("torchscript", ".pt", scripted(WritesOnLoad(str(canary)))),
        ("pickle", ".pt", pickle.dumps({"visual.proj": RunsOnLoad(canary)})),
        ("pickle", ".pth", saved({"state_dict": {"coef": RunsOnLoad(canary)}})),
    ]


def small_clip() -> torch.nn.Module:
    """A CLIP of two blocks a tower with random weights, under OpenAI's parameter names."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    return CLIP(
        16,
        CLIPVisionCfg(layers=2, width=64, head_width=64, patch_size=8, image_size=16),
        CLIPTextCfg(context_length=16, vocab_size=VOCABULARY, width=64, heads=1, layers=2),
        quick_gelu=True,
    ).eval()


class WritesOnLoad(torch.nn.Module):
    """Scripted, saved and loaded again by `torch.jit.load`, writes the file `path`."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.proj = torch.nn.Parameter(torch.zeros(2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give back what comes in."""
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, torch.Tensor, bool]:
        """What is kept: the path and the weights."""
        return self.path, self.proj, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]) -> None:
        """What TorchScript runs as it loads."""
        self.path = state[0]
        self.proj = state[1]
        self.training = state[2]
        torch.save(state[1], state[0])


def saved(content: object, **options: Any) -> bytes:
    """What `torch.save` writes."""
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def scripted(module: torch.nn.Module) -> bytes:
    """What `torch.jit.save` writes of a scripted module."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), stream)
    return stream.getvalue()


def _flip_bits(content: bytes, generator: random.Random) -> bytes:
    changed = bytearray(content)
    early = generator.random() < 0.5  # where headers and pickles are
    for _ in range(generator.randint(1, 16)):
        place = generator.randrange(min(len(changed), 4096) if early else len(changed))
        changed[place] ^= 1 << generator.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(len(content))]


def _splice(content: bytes, generator: random.Random) -> bytes:
    start = generator.randrange(len(content))
    end = min(len(content), start + generator.randint(1, 4096))
    noise = generator.choice([b"", generator.randbytes(end - start), b"\0" * (end - start), content[:512]])
    return content[:start] + noise + content[end:]


def _edit_header(content: bytes, generator: random.Random) -> bytes:
    """Change what a safetensors header says, and leave the data as it is."""
    length = struct.unpack("<Q", content[:8])[0]
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    name = generator.choice([name for name in header if name != "__metadata__"])
    huge = generator.choice([0, 1, -1, 10**6, 10**9, 10**18, 2**63, 1e308, True, None, "7"])
    edits: list[Callable[[], object]] = [
        lambda: header[name].update(shape=[huge]),
        lambda: header[name].update(shape=[huge, huge]),
        lambda: header[name].update(shape=[*header[name]["shape"], 1]),
        lambda: header[name].update(data_offsets=[0, huge]),
        lambda: header[name].update(dtype=generator.choice(["F64", "I8", "BOOL", "F8_E4M3", "X", 5])),
        lambda: header.pop(name),
        lambda: header.update({f"extra.{n}": header[name] for n in range(10_000)}),
        lambda: header.update(__metadata__=_hostile_metadata(header.get("__metadata__", {}), generator, huge)),
    ]
    generator.choice(edits)()
    text = json.dumps(header).encode()
    claimed = generator.choice([len(text)] * 9 + [2**63])
    return struct.pack("<Q", claimed) + text + content[8 + length :]


def _hostile_metadata(metadata: dict[str, Any], generator: random.Random, huge: object) -> dict[str, Any]:
    field = generator.choice(["hidden_width", "layers", "strides", "fps", "video_width", "max_windows", "name"])
    config = json.loads(metadata.get("config", "{}")) | {field: [huge] * 9 if field == "strides" else huge}
    texts = [json.dumps(config), "[" * 100_000, "9" * 100_000, "{}", "null", '{"a":' * 50_000]
    return {**metadata, "config": generator.choice(texts)}


def _edit_archive(content: bytes, generator: random.Random) -> bytes:
    """Write a zip archive anew with another pickle, missing, doubled, compressed or cut entries."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return _splice(content, generator)
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(stream, "w") as target:
        names = source.namelist()
        chosen = generator.choice([name for name in names if name.endswith(".pkl")] + names)
        edit = generator.choice(["drop", "cut", "noise", "bomb", "double", "number"])
        for name in names:
            data, method = source.read(name), zipfile.ZIP_STORED
            if name == chosen and edit == "drop":
                continue
            if name == chosen and edit == "cut":
                data = data[: len(data) // 2]
            if name == chosen and edit == "noise":
                data = _flip_bits(data or b"\0", generator)
            if name == chosen and edit == "bomb":
                data, method = data + bytes(1 << 24), zipfile.ZIP_DEFLATED
            if name == chosen and edit == "number":  # sizes in a pickle become other sizes
                data = data.replace(b"K\x40", b"J\xff\xff\xff\x7f").replace(b"K\x20", b"J\xff\xff\xff\x7f")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the doubled name
                target.writestr(name, data, method)
                if name == chosen and edit == "double":
                    target.writestr(name, data[::-1], method)
    return stream.getvalue()
