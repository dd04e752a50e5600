"""Options that commands on a library share, opening a library, and indexing with a progress bar."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtg.cli.console import complain, progress_bar
from vtg.errors import VtgError

if TYPE_CHECKING:
    from vtg.library.library import IndexReport, Library
    from vtg.models.specs import ModelSpec

__all__ = [
    "ClipOption",
    "DecoderOption",
    "DeviceOption",
    "EncodingOption",
    "FpsOption",
    "KeepLayersOption",
    "LibraryOption",
    "ModelOption",
    "PrecisionOption",
    "PretrainedOption",
    "asked_model",
    "ensure_indexed",
    "index_files",
    "open_library",
    "print_problems",
]

LibraryOption = Annotated[
    Path | None,
    typer.Option("--library", "-l", envvar="VTG_LIBRARY", help="Folder of the library; your data folder by default."),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A name from 'vtg models', or a head's checkpoint; r2-qvhighlights by default."),
]
ClipOption = Annotated[
    str | None, typer.Option("--clip", help="Another CLIP for it, of open_clip's catalogue, such as ViT-B-16-SigLIP.")
]
PretrainedOption = Annotated[
    str | None, typer.Option("--pretrained", help="Weights of the CLIP: a tag of open_clip's catalogue, or a file.")
]
FpsOption = Annotated[float | None, typer.Option("--fps", help="Frames a second to look at; 0.5 by default.")]
PrecisionOption = Annotated[
    str | None,
    typer.Option("--precision", hidden=True, help="Changes nothing any more: projections are int8."),
]
KeepLayersOption = Annotated[
    bool | None,
    typer.Option(
        "--keep-layers/--no-keep-layers", help="Keep CLIP's layers too, for any other head, at 4 times the space."
    ),
]
EncodingOption = Annotated[
    str,
    typer.Option(
        "--encoding", help="What CLIP computes in on a CPU: float32, bfloat16, or auto: whichever proves better."
    ),
]


def _choose_decoder(name: str | None) -> str | None:
    """Hand the decoder on by the variable of the environment that all processes read."""
    if name is not None:
        from vtg.video.decoders import DECODER_VARIABLE, chosen_decoder

        os.environ[DECODER_VARIABLE] = name
        chosen_decoder()
    return name


DecoderOption = Annotated[
    str | None,
    typer.Option(
        "--decoder",
        callback=_choose_decoder,
        help="What decodes videos: pyav, decord or ffmpeg; that of VTG_DECODER, or pyav, by default.",
    ),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cuda, mps or cpu; the best there is by default.")]


def open_library(
    folder: Path | None,
    model: str | None,
    clip: str | None,
    pretrained: str | None,
    fps: float | None,
    device: str | None,
    *,
    precision: str | None = None,
    keep_layers: bool | None = None,
    encoding: str = "auto",
) -> Library:
    """The library that the options name.

    Raises:
        VtgError: no such model, or the library was made with another CLIP.
    """
    from vtg.library.library import Library
    from vtg.library.settings import Storage, default_library_path, read_storage

    storage = None
    if precision is not None:
        Storage(precision)  # raises where there is no such precision
        complain("vtg: --precision changes nothing any more: projections are kept as int8", style="yellow")
    if keep_layers is not None:
        kept = read_storage(default_library_path() if folder is None else folder.expanduser()) or Storage()
        storage = replace(kept, keep_layers=keep_layers)
    return Library(folder, asked_model(folder, model, clip, pretrained, fps), device, storage, encoding)


def asked_model(
    folder: Path | None, model: str | None, clip: str | None, pretrained: str | None, fps: float | None
) -> ModelSpec | str | None:
    """What the options ask for; weights that are named alone are for the library's own model.

    Raises:
        VtgError: no such model, or the library names a head that has to be named too.
    """
    from vtg.library.named_files import name_weights
    from vtg.library.settings import default_library_path
    from vtg.models.specs import model_spec

    if clip is None and pretrained is None and fps is None:
        return model
    own = None
    if model is None and pretrained is not None:
        own = name_weights(default_library_path() if folder is None else folder.expanduser(), clip, pretrained, fps)
    return own or model_spec(model, clip, pretrained, fps)


def index_files(library: Library, paths: list[Path], retry_failed: bool) -> IndexReport:
    """Adds files to a library, with progress; see `Library.add`."""
    with progress_bar("looking") as show:
        return library.add(paths, show, retry_failed)


def ensure_indexed(library: Library, video: Path) -> None:
    """Adds one file to a library if it is not there or has changed.

    Raises:
        VtgError: it cannot be indexed.
    """
    report = index_files(library, [video], retry_failed=False)
    for path, reason in report.failed.items():
        raise VtgError(f"{path}: {reason}")
    print_problems(report)


def print_problems(report: IndexReport) -> None:
    """One line on standard error for each file that could not be indexed, and each subtitle file that was not read."""
    for path, reason in report.failed.items():
        complain(f"vtg: {path}: {reason}")
    for warning in report.warnings:
        complain(f"vtg: {warning}", style="yellow")
