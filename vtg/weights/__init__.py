"""Read tensors from files without running anything that the files say; the bundled weights; downloads.

`open_weights` reads what a file claims (names, types and shapes) and checks it against the file's size; only
`WeightsFile.read` allocates memory. Safetensors, state dicts of `torch.save` (both formats) and TorchScript archives
are read; a pickle is interpreted as data, so that it can call nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names

if TYPE_CHECKING:
    from vtg.weights.bundled import clip_path, head_path
    from vtg.weights.files import WeightsFile, check_finite, open_weights, read_content
    from vtg.weights.stored import WeightsError

__all__ = [
    "WeightsError",
    "WeightsFile",
    "check_finite",
    "clip_path",
    "head_path",
    "open_weights",
    "read_content",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "WeightsError": "stored",
        "WeightsFile": "files",
        "check_finite": "files",
        "clip_path": "bundled",
        "head_path": "bundled",
        "open_weights": "files",
        "read_content": "files",
    },
)
