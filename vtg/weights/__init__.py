"""Read tensors from files of weights without running code in them; locate the bundled weights; download files.

Input is a file (safetensors, a state dict of `torch.save` in either format, or a TorchScript archive); output are
tensors by name. `open_weights` (`files`) reads names, types and shapes and checks them against the file's size; only
`WeightsFile.read` allocates memory. Read `files`, then `archives` (containers), `pickles` (interpreted as data, without
calls) and `stored` (descriptions of tensors). `memory` reports the memory size, `bundled` and `downloads` find files.
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
