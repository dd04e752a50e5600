"""Options shared by commands on a library, opening a library, and indexing with a progress bar."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtg.cli.console import print_error, progress_bar
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
    "LanguageOption",
    "LibraryOption",
    "ModelOption",
    "PrecisionOption",
    "PreprocessingOption",
    "PretrainedOption",
    "ensure_indexed",
    "index_files",
    "open_library",
    "print_problems",
    "selected_model",
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
    str | None,
    typer.Option("--clip", help="Another CLIP for the model, from open_clip's catalogue, such as ViT-B-16-SigLIP."),
]
PretrainedOption = Annotated[
    str | None, typer.Option("--pretrained", help="Weights of the CLIP: a tag of open_clip's catalogue, or a file.")
]
PreprocessingOption = Annotated[
    str | None,
    typer.Option(
        "--preprocessing",
        metavar="TAG|VALUES",
        help="Preprocessing of frames, where a file of weights needs it: that of another tag of the CLIP, or like "
        "resize=squash,interpolation=bicubic,mean=0.5,std=0.5.",
    ),
]
LanguageOption = Annotated[
    str | None,
    typer.Option(
        "--language",
        metavar="CODE",
        help="Language of the query, for CLIPs whose tokenizer needs it (NLLB), such as fra_Latn.",
    ),
]
FpsOption = Annotated[
    float | None, typer.Option("--fps", help="Frames per second to encode; the model's (0.5) by default.")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option("--precision", hidden=True, help="Has no effect: projections are always int8."),
]
KeepLayersOption = Annotated[
    bool | None,
    typer.Option(
        "--keep-layers/--no-keep-layers", help="Also store CLIP's layers, for other heads, with 4 times the disk space."
    ),
]
EncodingOption = Annotated[
    str,
    typer.Option("--encoding", help="Arithmetic of CLIP on a CPU: float32, bfloat16, or auto (the better one)."),
]


def _choose_decoder(name: str | None) -> str | None:
    """Set the environment variable for the decoder, which all processes read."""
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
        help="Video decoder: pyav, decord or ffmpeg; VTG_DECODER, or pyav, by default.",
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
    preprocessing: str | None = None,
    language: str | None = None,
) -> Library:
    """Open the library that the options name.

    Raises:
        VtgError: unknown model, or the library was made with another CLIP.
    """
    from vtg.library.library import Library
    from vtg.library.settings import Storage, default_library_path, read_storage

    storage = None
    if precision is not None:
        Storage(precision)  # raises for an unknown precision
        print_error("vtg: --precision has no effect: projections are always stored as int8", style="yellow")
    if keep_layers is not None:
        kept = read_storage(default_library_path() if folder is None else folder.expanduser()) or Storage()
        storage = replace(kept, keep_layers=keep_layers)
    chosen = selected_model(folder, model, clip, pretrained, fps, preprocessing)
    return Library(folder, chosen, device, storage, encoding, language)


def selected_model(
    folder: Path | None,
    model: str | None,
    clip: str | None,
    pretrained: str | None,
    fps: float | None,
    preprocessing: str | None = None,
) -> ModelSpec | str | None:
    """The model that the options name; `pretrained` alone applies to the library's own model.

    Raises:
        VtgError: unknown model, or the library uses a head that the user has to name too.
    """
    from vtg.library.named_files import name_weights
    from vtg.library.settings import default_library_path
    from vtg.models.specs import model_spec

    if clip is None and pretrained is None and fps is None and preprocessing is None:
        return model
    own = None
    if model is None and pretrained is not None:
        place = default_library_path() if folder is None else folder.expanduser()
        own = name_weights(place, clip, pretrained, fps, preprocessing)
    return own or model_spec(model, clip, pretrained, fps, preprocessing)


def index_files(library: Library, paths: list[Path], retry_failed: bool) -> IndexReport:
    """Add files to a library, with progress; see `Library.add`."""
    with progress_bar("looking") as show:
        return library.add(paths, show, retry_failed)


def ensure_indexed(library: Library, video: Path) -> None:
    """Add one file to a library if it is missing or has changed.

    Raises:
        VtgError: it cannot be indexed.
    """
    report = index_files(library, [video], retry_failed=False)
    for path, reason in report.failed.items():
        raise VtgError(f"{path}: {reason}")
    print_problems(report)


def print_problems(report: IndexReport) -> None:
    """Print one line for each file that could not be indexed and each subtitle file that could not be read."""
    for path, reason in report.failed.items():
        print_error(f"vtg: {path}: {reason}")
    for warning in report.warnings:
        print_error(f"vtg: {warning}", style="yellow")
