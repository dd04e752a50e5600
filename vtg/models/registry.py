"""The published heads: what each is, whether it is on this disk, and its download."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vtg.errors import VtgError
from vtg.files.hashing import file_sha256
from vtg.files.locks import hold_lock
from vtg.files.paths import cache_folder
from vtg.files.text import error_line
from vtg.progress import Reporter, silent
from vtg.weights.downloads import TooLongError, fetch_url

if TYPE_CHECKING:
    from vtg.r2.head import R2Head

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ModelEntry", "find_model", "load_head", "pull", "registry"]

HEAD_SETTINGS = (  # the fields of a head's configuration that its tensors cannot tell and the registry can
    "name",
    "fps",
    "unit",
    "nms",
    "nms_threshold",
    "dropout",
    "clip_model",
    "clip_pretrained",
    "window_seconds",
    "step_seconds",
)
MAX_HEAD_BYTES = 1 << 30  # of a published head; they have 11 to 16 MB
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


@dataclass(frozen=True)
class ModelEntry:
    """A head of the registry.

    Attributes:
        name: what `vtg.load` and `vtg models pull` call it.
        dataset: what it was trained on.
        task: "moments and highlights" or "highlights".
        fps: sampling rate in frames a second.
        domain: the part of the data set it is for, if it is one of several.
        split: where the figures were measured, if it was not a split of the domain.
        unit: windows are rounded to this many seconds; None leaves them.
        nms: the kind of suppression of overlapping windows; None leaves them.
        nms_threshold: the IoU from which "normal" suppression drops a window.
        dropout: in training.
        clip_model: the CLIP whose features it reads, as open_clip names it.
        clip_pretrained: that CLIP's weights, as open_clip names them.
        window_seconds: the longest stretch it sees at once.
        step_seconds: from one window of a longer video to the next.
        figures: the authors' results by metric, in percent.
        calibration: how its scores become comparable across videos: the fields of `vtg.models.calibration.Calibration`.
        repository: on the Hugging Face hub.
        revision: of the repository.
        file: in the repository.
        sha256: the first digits of the file's SHA-256.
        bundled: its file inside this package, instead of the four above.
    """

    name: str
    dataset: str
    task: str
    fps: float
    domain: str | None = None
    split: str | None = None
    unit: float | None = None
    nms: str | None = None
    nms_threshold: float = 0.7
    dropout: float = 0.5
    clip_model: str | None = None
    clip_pretrained: str | None = None
    window_seconds: float = 150.0
    step_seconds: float = 100.0
    figures: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, float] = field(default_factory=dict)
    repository: str | None = None
    revision: str | None = None
    file: str | None = None
    sha256: str | None = None
    bundled: str | None = None

    @property
    def path(self) -> Path:
        """Where the head is, or will be once pulled."""
        if self.bundled is not None:
            return Path(str(resources.files("vtg"))) / self.bundled
        return cache_folder() / "models" / f"{self.name}.safetensors"

    @property
    def present(self) -> bool:
        """Whether it is on this disk."""
        return self.path.is_file()

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of the head's configuration that its tensors cannot tell."""
        return {setting: getattr(self, setting) for setting in HEAD_SETTINGS}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON, with `present` and `path`."""
        return {**asdict(self), "present": self.present, "path": str(self.path)}


@cache
def registry() -> Mapping[str, ModelEntry]:
    """All known heads by name, in the order of `models.toml`."""
    text = resources.files("vtg.models").joinpath("registry.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    entries = {}
    for name, values in content["models"].items():
        shared = {} if "bundled" in values else content["shared"]
        entries[name] = ModelEntry(name=name, **{**shared, **values})
    return MappingProxyType(entries)


def find_model(name: str) -> ModelEntry:
    """The entry of a name.

    Raises:
        VtgError: no head has this name; the message offers the nearest ones.
    """
    entry = registry().get(name)
    if entry is None:
        near = difflib.get_close_matches(name, registry(), n=3, cutoff=0.4) or list(registry())[:3]
        raise VtgError(f"{name}: no model of this name; did you mean {', '.join(near)}? `vtg models` lists them all")
    return entry


def load_head(source: str | Path) -> R2Head:
    """Load an R² head in eval mode.

    Args:
        source: a published `.pth`, one of our `.safetensors`, or the name of a model that is on this disk. A published
            file is recognised by its hash and gets its recipe's rate, unit and suppression from the registry.

    Raises:
        VtgError: no such file or name, a model not yet pulled, or a file that is not a checkpoint of an R² head.
    """
    from vtg.r2.checkpoints import read_head

    path = Path(source).expanduser()
    if path.is_file() or path.suffix.lower() in CHECKPOINT_SUFFIXES or len(path.parts) > 1:
        return read_head(path, None if path.suffix == ".safetensors" else recognised_settings(path))
    entry = find_model(str(source))
    if not entry.present:
        raise VtgError(f"{entry.name}: not on this disk yet; get it with `vtg models pull {entry.name}`")
    return read_head(entry.path)


def recognised_settings(path: Path) -> dict[str, Any] | None:
    """The registry's settings for a published file, known by its hash; None for any other file."""
    if not path.is_file():
        return None
    digest = file_sha256(path)
    known = (entry for entry in registry().values() if entry.sha256 and digest.startswith(entry.sha256))
    entry = next(known, None)
    return entry.settings if entry else None


def pull(name: str, progress: Reporter = silent) -> Path:
    """Download a published head, check its hash, convert it to vtg's format, and store it in the cache folder.

    An interrupted download is continued, also by another process. `HF_ENDPOINT` sets another hub.

    Args:
        name: name of the model; a head that is stored already is not changed.
        progress: called with the number of received bytes, and the total if the server states it.

    Returns:
        The head's file.

    Raises:
        VtgError: there is no such model or no connection, or the hash of the file is wrong; no file is stored.
    """
    entry = find_model(name)
    if entry.present:
        return entry.path
    if entry.bundled is not None:
        raise VtgError(f"{entry.path}: the bundled head is missing; install vtg again")
    partial = cache_folder() / "downloads" / f"{entry.name}.pth.part"
    try:
        for folder in (partial.parent, entry.path.parent):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VtgError(f"{cache_folder()}: cannot be written ({error.strerror}); set VTG_CACHE to a folder") from error

    from vtg.r2.checkpoints import read_tensors, save_tensors

    with hold_lock(partial.with_suffix(".lock")):  # two pulls would write into the same part
        if not entry.present:
            download(entry, partial, progress)
            try:
                check_hash(entry, partial)
                save_tensors(*read_tensors(partial, entry.settings), entry.path)
            finally:
                partial.unlink()
    return entry.path


def download(entry: ModelEntry, partial: Path, progress: Reporter) -> None:
    """Fetch a published file, going on from what `partial` already holds.

    Raises:
        VtgError: it could not be fetched whole; `partial` keeps what arrived.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None  # read now: the client reads it on its import
    url = hf_hub_url(str(entry.repository), str(entry.file), revision=entry.revision, endpoint=endpoint)
    try:
        size = get_hf_file_metadata(url).size
        if size is not None and size > MAX_HEAD_BYTES:
            raise TooLongError(f"{size} bytes are announced, more than any head has")
        fetch_url(url, partial, size, lambda state: progress(replace(state, detail=entry.name)))
    except Exception as error:  # from the client, its HTTP library (which depends on the version) or the disk
        line = f"{entry.name}: {url} failed ({error_line(error)}); pull it again to continue the download"
        raise VtgError(line) from error


def check_hash(entry: ModelEntry, path: Path) -> None:
    """Compare a downloaded file with the registry.

    Raises:
        VtgError: it is not the published file.
    """
    digest = file_sha256(path)
    if not digest.startswith(str(entry.sha256)):
        raise VtgError(
            f"{entry.name}: the downloaded file is not the published one (its SHA-256 starts with {digest[:8]}, not "
            f"{entry.sha256}) and was dropped; pull it again, and if that repeats do not trust where it came from"
        )
