"""The command `vtg extract`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from vtg.cli.console import JsonOption, messages, print_error, print_json, progress_bar
from vtg.cli.options import DecoderOption, PreprocessingOption
from vtg.timespans import format_time

if TYPE_CHECKING:
    from vtg.extraction import ExtractionReport
    from vtg.extraction.records import Layout

__all__ = ["add_extract_command"]

OWN_CLUSTER = "own"  # value of --ray without an address
ADDRESS = re.compile(r"auto|local|ray://\S+|[\w.-]+:\d+")  # addresses for --ray; other arguments are SOURCE or OUT
LINE_SECONDS = 60.0  # between progress lines without a terminal, as in the log of a job


class _Command(typer.core.TyperCommand):
    """A command whose option --ray has an optional value, which typer does not support."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for place, word in enumerate(args):
            if word == "--ray" and not (place + 1 < len(args) and ADDRESS.fullmatch(args[place + 1])):
                args = [*args[:place], f"--ray={OWN_CLUSTER}", *args[place + 1 :]]
        return super().parse_args(ctx, args)


def add_extract_command(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        cls=_Command,
        epilog="Examples: vtg extract videos/ features/ --fps 0.5; "
        "vtg extract highlight_val_release.jsonl features/ --dataset qvhighlights --videos videos/ --shard 1/4",
    )(extract)


def extract(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE", help="A video, a folder, a pattern, a manifest, annotations, a recipe's name, or a URL."
        ),
    ] = None,
    out: Annotated[str | None, typer.Argument(metavar="OUT", help="Folder or URL for the features.")] = None,
    fps: Annotated[
        float | None, typer.Option("--fps", help="Frames a second; the benchmark's, or 0.5, by default.")
    ] = None,
    videos: Annotated[str | None, typer.Option("--videos", help="Folder of the videos that annotations name.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Data set of the annotations.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only this split of a benchmark.")] = None,
    layout: Annotated[
        str, typer.Option("--layout", help="published: one .npy a video and a query; store: files as a library's.")
    ] = "published",
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Model whose CLIP is used; the recipe's, or that of r2-qvhighlights, by default."
        ),
    ] = None,
    clip: Annotated[str | None, typer.Option("--clip", help="Another CLIP, of open_clip's catalogue.")] = None,
    pretrained: Annotated[
        str | None, typer.Option("--pretrained", help="Weights of the CLIP: a tag of the catalogue, or a file.")
    ] = None,
    preprocessing: PreprocessingOption = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cuda, cuda:1, mps or cpu; every GPU there is by default.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Parallel encoders without a GPU; one per core by default.")
    ] = None,
    shard: Annotated[
        str,
        typer.Option("--shard", metavar="I/N", help="Process the I-th of N parts, from 1/N to N/N, for job arrays."),
    ] = "1/1",
    decoder: DecoderOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Retry files that failed before.")] = False,
    skip_wrong: Annotated[bool, typer.Option("--skip-wrong", help="Skip invalid lines and missing files.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="[ADDRESS]",
            help="Use this Ray cluster; without an address that of RAY_ADDRESS, or else a local one.",
        ),
    ] = None,
    verify: Annotated[
        str | None, typer.Option("--verify", metavar="OUT", help="Check every file in OUT, and exit.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Extract features for training, evaluation and libraries; an interrupted run is resumed."""
    if verify is not None:
        if source is not None:
            raise typer.BadParameter("takes no SOURCE", param_hint="--verify")
        _verify(verify, as_json)
        return
    if source is None or out is None:
        raise typer.BadParameter("both are needed", param_hint="SOURCE OUT")
    from vtg.extraction import WrongWorkError, read_source
    from vtg.extraction import extract as run
    from vtg.models.specs import model_spec

    part, form = _shard(shard), _layout(layout)
    spec = model_spec(model, clip, pretrained, fps, preprocessing)
    with progress_bar("looking", LINE_SECONDS) as show:
        work = read_source(source, fps, spec.fps, videos, dataset, split)
        encoder = work.encoder(spec.encoder if model or clip or pretrained else None, spec.encoder)
        if form == "store" and work.queries:
            messages.print("the store layout contains videos only: queries are skipped")
        try:
            report = run(
                work,
                out,
                encoder,
                layout=form,
                device=device,
                workers=workers,
                shard=part,
                retry_failed=retry_failed,
                skip_wrong=skip_wrong,
                ray="" if ray == OWN_CLUSTER else ray,
                progress=show,
            )
        except WrongWorkError as error:
            for problem in error.problems:
                print_error(problem)
            raise
    if as_json:
        print_json({"out": out, "layout": layout, "clip": str(encoder), "shard": shard, **report.to_dict()})
    _print_summary(report, out)
    if report.failed:
        raise typer.Exit(1)


def _verify(out: str, as_json: bool) -> None:
    from vtg.extraction.verify import verify

    with progress_bar("checking") as show:
        report = verify(out, show)
    for file, reason in report.problems:
        print_error(f"{file}: {reason}")
    if as_json:
        print_json({"out": out, **report.to_dict()})
    failed = f"; {_count(len(report.failed), 'video')} failed" if report.failed else ""
    messages.print(
        f"{out}: {_count(report.checked, 'file')} checked, {len(report.problems)} wrong{failed}",
        markup=False,
        soft_wrap=True,
    )
    if report.problems:
        raise typer.Exit(1)


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise typer.BadParameter(f"{text} is not one of 1/N to N/N, such as 2/4", param_hint="--shard")
    return int(found[1]), int(found[2])


def _layout(text: str) -> Layout:
    from vtg.extraction.records import LAYOUTS

    for layout in LAYOUTS:
        if layout == text:
            return layout
    raise typer.BadParameter(f"{text!r} is not one of {', '.join(LAYOUTS)}", param_hint="--layout")


def _print_summary(report: ExtractionReport, out: str) -> None:
    for record in report.failed:
        print_error(f"vtg: {record.source}: {record.failure}")
    for problem in report.problems:
        messages.print(f"left out: {problem}", markup=False, soft_wrap=True)
    parts = [_count(report.videos, "video")]
    parts += [_count(report.queries, "query", "queries")] if report.queries else []
    parts += [f"{report.finished} done before"] if report.finished else []
    parts += [f"{report.elsewhere} in the hands of another process"] if report.elsewhere else []
    parts += [f"{len(report.failed)} failed (again with --retry-failed)"] if report.failed else []
    speed = f", {_count(report.frames, 'frame')} in {format_time(report.seconds)}" if report.frames else ""
    messages.print(f"{out}: {', '.join(parts)}{speed}", markup=False, soft_wrap=True)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
