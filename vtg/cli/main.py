"""The program `vtg`: errors, exit status, and the commands index, cut, models and demo."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vtg.cli.clips import add_clip_commands
from vtg.cli.console import (
    PIPE_CLOSED_STATUS,
    Interrupted,
    JsonOption,
    explain_dashes,
    flush_output,
    messages,
    output,
    prepare_outputs,
    print_error,
    print_json,
    progress_bar,
    span,
)
from vtg.cli.doctor import add_doctor_command
from vtg.cli.extract import add_extract_command
from vtg.cli.library import add_library_commands
from vtg.cli.options import (
    ClipOption,
    DecoderOption,
    DeviceOption,
    EncodingOption,
    FpsOption,
    KeepLayersOption,
    LibraryOption,
    ModelOption,
    PrecisionOption,
    PreprocessingOption,
    PretrainedOption,
    index_files,
    open_library,
    print_problems,
)
from vtg.cli.page import add_page_command
from vtg.cli.research import add_research_commands
from vtg.cli.search import add_search_command
from vtg.cli.train import add_training_command
from vtg.errors import VtgError
from vtg.timespans import format_time, parse_time
from vtg.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="vtg",
    help="Ask a video for a moment in plain words, and get it.",
    epilog="Start with: vtg demo. Then: vtg index ~/Videos, and vtg search 'a dog jumps into the lake'.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        output.print(f"vtg {__version__}")
        raise typer.Exit


@app.callback()
def _general(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version of vtg, and exit."),
    ] = False,
) -> None:
    pass


# The base class of typer's usage errors, which is click's or typer's own, depending on the version.
UsageError: type[Exception] = typer.BadParameter.__mro__[2]


# Defaults of environment variables that libraries read when they are imported, after this module.
ENVIRONMENT = {
    "LANCEDB_LOG": "error",  # LanceDB would warn of every conflict of two processes, after which vtg tries again
    "OMP_WAIT_POLICY": "PASSIVE",  # otherwise idle threads of torch compete with the decoder
    "GOMP_SPINCOUNT": "3000",  # of GNU OpenMP: about 30 µs of waiting; waking a thread for each operator takes longer
}


def main() -> None:
    """Run the command line; errors become one line and exit status 1."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    prepare_outputs()
    try:
        status = flush_output(_run())
    except BrokenPipeError:
        status = flush_output(PIPE_CLOSED_STATUS)
    except OSError as error:  # of standard output itself
        print_error(f"vtg: standard output: {error.strerror or error}")
        status = 1
    sys.exit(status)


def _run() -> int:
    """Run a command, print errors, and return the exit status."""
    outputs = sys.stdout, sys.stderr
    try:
        return int(app(standalone_mode=False) or 0)
    except VtgError as error:
        print_error(f"vtg: {error}")
        return 1
    except SystemExit:
        if sys.stdout is outputs[0]:
            raise
        # Typer wraps both streams after a broken pipe, and exits with its own status.
        sys.stdout, sys.stderr = outputs
        return PIPE_CLOSED_STATUS
    except OSError as error:  # a full disk, a folder that may not be written to
        where = f"{error.filename}: " if error.filename else ""
        print_error(f"vtg: {where}{error.strerror or error}")
        return 1
    except Interrupted:
        messages.print("vtg: interrupted; finished work is kept, run the same command to continue")
        return 130
    except typer.Abort:
        print_error("vtg: stopped")
        return 1
    except UsageError as error:
        explain_dashes(error, sys.argv[1:])
        error.show(file=sys.stderr)  # type: ignore[attr-defined]
        return error.exit_code  # type: ignore[attr-defined]


@app.command(epilog="Example: vtg index ~/Videos clip.mp4 --library holidays.vtg")
def index(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Video files, and folders with their subfolders.")
    ],
    library: LibraryOption = None,
    model: ModelOption = None,
    clip: ClipOption = None,
    pretrained: PretrainedOption = None,
    preprocessing: PreprocessingOption = None,
    fps: FpsOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    keep_layers: KeepLayersOption = None,
    encoding: EncodingOption = "auto",
    decoder: DecoderOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Retry files that failed before.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add files and folders to a library; unchanged files are skipped."""
    target = open_library(
        library,
        model,
        clip,
        pretrained,
        fps,
        device,
        precision=precision,
        keep_layers=keep_layers,
        encoding=encoding,
        preprocessing=preprocessing,
    )
    report = index_files(target, paths, retry_failed)
    print_problems(report)
    if as_json:
        print_json(
            {
                "library": str(target.folder),
                "added": report.added,
                "moved": [{"from": old, "to": new} for new, old in report.moved.items()],
                "unchanged": report.unchanged,
                "failed": [{"path": path, "reason": reason} for path, reason in report.failed.items()],
                "warnings": report.warnings,
                "seconds": report.seconds,
            }
        )
    else:
        messages.print(
            f"{target.folder}: {len(report.added)} added ({format_time(report.seconds)} of video), "
            f"{len(report.unchanged)} unchanged, {len(report.failed)} failed",
            markup=False,
            soft_wrap=True,
        )
    if report.failed:
        raise typer.Exit(1)


@app.command(epilog="Example: vtg cut holiday.mp4 1:23.5 1:31 lake.mp4")
def cut(
    video: Annotated[Path, typer.Argument(help="The file to cut from; it is not changed.")],
    start: Annotated[str, typer.Argument(help="Seconds, mm:ss or hh:mm:ss.")],
    end: Annotated[str, typer.Argument(help="Seconds, mm:ss or hh:mm:ss.")],
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy without encoding: fast and lossless, but starts at a key frame.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite OUT if it exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write one clip, exact to the frame."""
    from vtg.video import cut as cut_video

    if out.exists() and not force:
        raise VtgError(f"{out}: already exists; choose another name, or overwrite it with --force")
    clip = cut_video(video, parse_time(start), parse_time(end), out, copy=copy)
    if as_json:
        print_json({"video": str(video), "out": str(out), "start": clip.start, "end": clip.end})
    else:
        span = f"{format_time(clip.start, 2)}-{format_time(clip.end, 2)}"
        messages.print(f"{out}: {span} of {video}", markup=False, soft_wrap=True)


models_app = typer.Typer(
    help="List the available models, and which of them are on this disk; pull downloads one.",
    epilog="Example: vtg models --json",
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.add_typer(models_app, name="models")


@models_app.callback()
def models(
    context: typer.Context,
    measure: Annotated[
        str | None,
        typer.Option("--measure", metavar="NAME", help="Measure how many frames a second a model's CLIP encodes here."),
    ] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the available models, and which of them are on this disk; pull downloads one."""
    if context.invoked_subcommand:
        return
    from vtg.models.specs import describe_models

    if measure is not None:
        _measure_speed(measure, device, as_json)
        return
    rows = describe_models()
    if as_json:
        print_json(rows)
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("model", "on this disk", "CLIP", "what for"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row["name"], "yes" if row["present"] else "no", row["clip"], escape(row["purpose"]))
    output.print(table)
    encoders = Table(box=None, pad_edge=False, title="\nEncoders for grounding without a head", title_justify="left")
    for column in ("encoder", "download", "languages", "ImageNet zero-shot", "licence"):
        encoders.add_column(column, overflow="fold")
    for row in rows:
        if "imagenet" in row:
            accuracy = f"{row['imagenet']:g} % ({row['source']})"
            size = f"{row['download_gb']:g} GB"
            encoders.add_row(row["name"], size, row["languages"], accuracy, row["licence"])
    output.print(encoders)
    absent = sorted({row["clip"] for row in rows if not row["clip_present"]})
    if absent:
        messages.print(f"\nnot on this disk yet, downloaded when first needed: {', '.join(absent)}", markup=False)


def _measure_speed(name: str, device: str | None, as_json: bool) -> None:
    from vtg.models.encoders import measure_speed
    from vtg.models.specs import model_spec

    spec = model_spec(name)
    with progress_bar("measuring"):
        speed = {"name": name, **measure_speed(spec.encoder, device)}
    if as_json:
        print_json(speed)
        return
    weights = " (random weights: its own are not on this disk)" if speed["random_weights"] else ""
    output.print(
        f"{name}: {speed['frames_per_second']:.1f} frames a second on {speed['device']}, {speed['computes']}, "
        f"{speed['image_size']} pixels{weights}",
        markup=False,
        soft_wrap=True,
    )
    hours = 3600 * spec.fps / speed["frames_per_second"] / 60
    output.print(f"an hour of video at {spec.fps:g} frames a second takes {hours:.1f} minutes", markup=False)


@models_app.command(epilog="Example: vtg models pull r2-qvhighlights")
def pull(
    name: Annotated[str, typer.Argument(help="A published head, from 'vtg models'.")],
    as_json: JsonOption = False,
) -> None:
    """Download and check a published head; an interrupted download is resumed."""
    from vtg.models.registry import pull as pull_model

    with progress_bar("downloading") as show:
        path = pull_model(name, show)
    if as_json:
        print_json({"name": name, "path": str(path)})
    else:
        messages.print(f"{name}: {path}", markup=False, soft_wrap=True)


@app.command(epilog="Example: vtg demo --out vtg-demo")
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the videos, the library and the sheet.")] = Path(
        "vtg-demo"
    ),
    as_json: JsonOption = False,
) -> None:
    """Render small videos, index them, search for moments, and compare the results with the ground truth."""
    from vtg.demo.run import run_demo

    with progress_bar("rendering") as show:
        result = run_demo(out, show)
    if as_json:
        print_json(result.to_dict())
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("video", "query", "found", "true", "IoU"):
        table.add_column(column, justify="right" if column == "IoU" else "left")
    for answer in result.answers:
        true = ", ".join(span(*window) for window in answer.windows)
        table.add_row(answer.video, answer.query, span(*answer.found), true, f"{answer.iou:.2f}")
    output.print(table)
    messages.print(
        f"\nmean IoU {result.mean_iou:.2f}, {result.found_share:.0%} of the moments found at IoU ≥ 0.5 "
        f"(the bundled demo CLIP and its head, on videos that neither has seen)\n"
        f"contact sheet: {result.sheet}\n"
        f"search more: vtg search 'a red circle' --library {result.library}",
        markup=False,
        soft_wrap=True,
    )


add_search_command(app)
add_library_commands(app)
add_clip_commands(app)
add_extract_command(app)
add_research_commands(app)
add_training_command(app)
add_page_command(app)
add_doctor_command(app)

if __name__ == "__main__":
    main()
