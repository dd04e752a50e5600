"""The commands `vtg highlights` and `vtg summarize`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtg.cli.console import JsonOption, messages, output, print_json, progress_bar, score_bar, span
from vtg.cli.options import (
    ClipOption,
    DeviceOption,
    FpsOption,
    LanguageOption,
    LibraryOption,
    ModelOption,
    PreprocessingOption,
    PretrainedOption,
    ensure_indexed,
    open_library,
)
from vtg.errors import VtgError
from vtg.files.text import one_line
from vtg.files.whole import check_name, fitted_name
from vtg.timespans import format_time

if TYPE_CHECKING:
    from vtg.summary import Plan

__all__ = ["add_clip_commands"]

VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".mkv")
DEFAULT_RATIO = 0.15

VideoArgument = Annotated[Path, typer.Argument(help="The video; indexed first if necessary.")]
QueryArgument = Annotated[
    str | None,
    typer.Argument(help="What to show, as a sentence; by default the most salient parts.", show_default=False),
]
CaptionsOption = Annotated[bool, typer.Option("--captions", help="Show the time in the source video over each clip.")]
FadeOption = Annotated[
    float, typer.Option("--fade", min=0.0, help="Seconds of fade-in from black and fade-out to black of each clip.")
]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Overwrite existing files.")]


def add_clip_commands(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(epilog="Example: vtg highlights holiday.mp4 'a dog jumps into the lake' --top 3 --out best.mp4")(
        highlights
    )
    app.command(epilog="Example: vtg summarize holiday.mp4 --seconds 30 --out short.mp4 --storyboard board.png")(
        summarize
    )


def highlights(
    video: VideoArgument,
    query: QueryArgument = None,
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="How many clips at most.")] = 5,
    length: Annotated[float, typer.Option("--length", min=0.1, help="Length of a clip, in seconds.")] = 10.0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Write the clips: to one file (.mp4, .m4v, .mov, .mkv), or to a folder, one file each."
        ),
    ] = None,
    captions: CaptionsOption = False,
    fade: FadeOption = 0.0,
    force: ForceOption = False,
    library: LibraryOption = None,
    model: ModelOption = None,
    clip: ClipOption = None,
    pretrained: PretrainedOption = None,
    preprocessing: PreprocessingOption = None,
    language: LanguageOption = None,
    fps: FpsOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the best clips of a video around the peaks of its saliency, and optionally write them to a file."""
    from vtg.summary import find_highlights, plan_document, sharpen

    _check_reel_options(out, captions, fade)
    into_folder = out is not None and (out.is_dir() or not out.suffix)
    if out is not None and not into_folder:
        _check_target(out, VIDEO_ENDINGS, video, force)
    target = open_library(library, model, clip, pretrained, fps, device, preprocessing=preprocessing, language=language)
    ensure_indexed(target, video)
    plan = find_highlights(target.grounder, target.open_features(video), query, top, length)
    written: list[Path] = []
    if out is not None:
        with progress_bar("looking for cuts") as show:
            plan = sharpen(plan, show)
        written = (
            _write_clips(plan, out, captions, fade, force) if into_folder else _write_reel(plan, out, captions, fade)
        )
    if as_json:
        print_json({**plan_document(plan), "out": [str(path) for path in written]})
    else:
        _print_clips(plan, [])
        _print_paths(written)


def summarize(
    video: VideoArgument,
    query: QueryArgument = None,
    ratio: Annotated[
        float | None,
        typer.Option("--ratio", min=0.001, max=1.0, help="Length as a share of the video; 0.15 by default."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.1, help="Length in seconds, instead of --ratio.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the short version: .mp4, .m4v, .mov or .mkv.")
    ] = None,
    storyboard: Annotated[
        Path | None, typer.Option("--storyboard", help="Draw its key frames with their times, to a .png file.")
    ] = None,
    srt: Annotated[
        Path | None, typer.Option("--srt", help="Write subtitles with the source time of each clip.")
    ] = None,
    chapters: Annotated[
        list[str] | None,
        typer.Option("--chapters", help="Comma-separated labels; each clip gets the one that matches best."),
    ] = None,
    captions: CaptionsOption = False,
    fade: FadeOption = 0.0,
    force: ForceOption = False,
    library: LibraryOption = None,
    model: ModelOption = None,
    clip: ClipOption = None,
    pretrained: PretrainedOption = None,
    preprocessing: PreprocessingOption = None,
    language: LanguageOption = None,
    fps: FpsOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose the shots that make the best short version of a video, and optionally write it to a file."""
    from vtg.summary import best_labels, plan_document, sharpen, subtitles, write_storyboard
    from vtg.summary import summarize as make_summary
    from vtg.summary.exports import clip_caption, write_text

    _check_reel_options(out, captions, fade)
    if ratio is not None and seconds is not None:
        raise typer.BadParameter("give --ratio or --seconds, not both")
    labels = [label.strip() for part in chapters or [] for label in part.split(",") if label.strip()]
    if chapters and not labels:
        raise typer.BadParameter("--chapters needs comma-separated labels")
    for path, endings in ((out, VIDEO_ENDINGS), (storyboard, (".png",)), (srt, (".srt",))):
        if path is not None:
            _check_target(path, endings, video, force)
    target = open_library(library, model, clip, pretrained, fps, device, preprocessing=preprocessing, language=language)
    ensure_indexed(target, video)
    features = target.open_features(video)
    plan = make_summary(
        target.grounder, features, query, ratio=DEFAULT_RATIO if ratio is None else ratio, seconds=seconds
    )
    written: list[Path] = []
    chosen: list[str] = []
    with progress_bar("looking for cuts") as show:
        if out is not None:
            plan = sharpen(plan, show)
        chosen = best_labels(target.grounder, features, plan, labels) if labels else []
        if storyboard is not None:
            texts = [clip_caption(*pair) for pair in zip(plan.clips, chosen or [""] * len(plan.clips), strict=True)]
            written.append(write_storyboard(plan, texts, storyboard, show))
    if srt is not None:
        write_text(srt, subtitles(plan, chosen))
        written.append(srt)
    if out is not None:
        written += _write_reel(plan, out, captions, fade, chosen)
    if as_json:
        print_json({**plan_document(plan, chosen), "out": [str(path) for path in written]})
    else:
        _print_clips(plan, chosen)
        _print_paths(written)


def _check_reel_options(out: Path | None, captions: bool, fade: float) -> None:
    if out is None and (captions or fade):
        raise typer.BadParameter("--captions and --fade need --out")


def _check_target(path: Path, endings: tuple[str, ...], video: Path, force: bool) -> None:
    """Check an output path before the work begins.

    Raises:
        VtgError: its name, folder or type is not possible, or it exists and `force` is not set.
    """
    check_name(path)
    if path.suffix.lower() not in endings:
        raise VtgError(f"{path}: unsupported file type; use {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise VtgError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.exists() and video.exists() and path.samefile(video):
        raise VtgError(f"{path}: would overwrite the source video; choose another name")
    if path.exists() and not force:
        raise VtgError(f"{path}: already exists; choose another name, or overwrite it with --force")


def _write_reel(plan: Plan, out: Path, captions: bool, fade: float, labels: list[str] | None = None) -> list[Path]:
    """Write all clips to one file, in the order of the video."""
    from vtg.summary import reel_spans
    from vtg.video import write_reel

    if not plan.clips:
        raise VtgError(f"{plan.video}: no clips to write")
    with progress_bar("writing") as show:
        spans = sorted(reel_spans(plan, labels or [], captions), key=lambda each: each.start)
        reel = write_reel(spans, out, fade, lambda state: show(replace(state, path=out)))
    return [reel.path]


def _write_clips(plan: Plan, folder: Path, captions: bool, fade: float, force: bool) -> list[Path]:
    """Write one file per clip, named by rank and time."""
    stem, times = one_line(Path(plan.video).stem), [format_time(clip.start).replace(":", ".") for clip in plan.clips]
    paths = [folder / fitted_name(f"{place:02d} ", stem, f" {time}.mp4") for place, time in enumerate(times, 1)]
    for path in paths:
        if path.exists() and not force:
            raise VtgError(f"{path}: already exists; choose another folder, or overwrite it with --force")
    folder.mkdir(parents=True, exist_ok=True)
    for clip, path in zip(plan.clips, paths, strict=True):
        _write_reel(replace(plan, clips=(clip,)), path, captions, fade)
    return paths


def _print_clips(plan: Plan, labels: list[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("clip", no_wrap=True)
    table.add_column("score", no_wrap=True)
    if labels:
        table.add_column("chapter")
    for place, clip in enumerate(plan.clips, 1):
        row: list[Any] = [str(place), span(clip.start, clip.end), score_bar(clip.score)]
        table.add_row(*row, *([Text(labels[place - 1])] if labels else []))
    output.print(table)
    purpose = "" if plan.query is None else f" for {plan.query!r}"
    messages.print(
        f"{len(plan.clips)} clips{purpose}, {format_time(plan.seconds, 1)} of {format_time(plan.duration, 1)}, "
        f"{len(plan.shots) - 1} shots",
        markup=False,
        soft_wrap=True,
    )


def _print_paths(paths: list[Path]) -> None:
    for path in paths:
        messages.print(str(path), markup=False, soft_wrap=True)
