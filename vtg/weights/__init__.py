"""Read tensors from files without running anything that the files say.

`open_weights` reads what a file claims (names, types and shapes) and checks it against the file's size; only
`WeightsFile.read` allocates memory. Safetensors, state dicts of `torch.save` (both formats) and TorchScript archives
are read; a pickle is interpreted as data, so that it can call nothing.
"""

from vtg.weights.files import WeightsFile, check_finite, open_weights, read_content
from vtg.weights.stored import WeightsError

__all__ = ["WeightsError", "WeightsFile", "check_finite", "open_weights", "read_content"]
