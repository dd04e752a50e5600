"""The command `vtg search`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtg.cli.console import JsonOption, messages, output, print_error, print_json, progress_bar, score_bar, span
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
from vtg.files.whole import fitted_name, write_whole
from vtg.progress import Progress
from vtg.timespans import format_time

if TYPE_CHECKING:
    from vtg.library.library import Hit, Library, Question

__all__ = ["add_search_command"]

DATE_FORMS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S")

QueryArgument = Annotated[
    str | None, typer.Argument(help="What to search for, as a sentence.", metavar="QUERY", show_default=False)
]
VideoArgument = Annotated[Path | None, typer.Argument(help="Search only this video; indexed first if necessary.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of moments.")]
MinScoreOption = Annotated[
    float | None,
    typer.Option(
        "--min-score", help="Minimum score of a moment, 0 to 1; the model's threshold by default.", show_default=False
    ),
]
NearestOption = Annotated[
    bool, typer.Option("--nearest", help="Show the best moments even if their scores are below the threshold.")
]
ImageOption = Annotated[
    list[Path] | None, typer.Option("--image", help="An image of what to search for.", show_default=False)
]
LikeOption = Annotated[
    list[str] | None,
    typer.Option("--like", help="Find similar moments: VIDEO@START-END of a video in the library.", show_default=False),
]
PlusOption = Annotated[list[str] | None, typer.Option("--plus", help="Also show: TEXT, or TEXT*WEIGHT.")]
MinusOption = Annotated[list[str] | None, typer.Option("--minus", help="Exclude: TEXT, or TEXT*WEIGHT.")]
SaidOption = Annotated[
    str,
    typer.Option(
        "--said", help="Words that are said there, by the subtitles; '\"...\"' for a phrase.", metavar="WORDS"
    ),
]
InOption = Annotated[
    list[Path] | None, typer.Option("--in", help="Search only this video or folder of the library; may be repeated.")
]
SinceOption = Annotated[
    datetime | None, typer.Option("--since", formats=list(DATE_FORMS), help="Only files changed on this date or later.")
]
UntilOption = Annotated[
    datetime | None, typer.Option("--until", formats=list(DATE_FORMS), help="Only files changed before this date.")
]
PerVideoOption = Annotated[
    int | None, typer.Option("--per-video", min=1, help="Maximum moments per video; 3 by default with several videos.")
]
ExplainOption = Annotated[
    Path | None, typer.Option("--explain", help="Folder for images of the head's attention, one per moment.")
]
ExportOption = Annotated[
    Path | None,
    typer.Option(
        "--export",
        help="Write the results: to .json, .csv (an apostrophe before what would be a formula), .srt, .edl or .otio.",
    ),
]
ClipsOption = Annotated[Path | None, typer.Option("--clips", help="Folder for all results as video files.")]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Overwrite existing files.")]


def add_search_command(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Example: vtg search 'a dog jumps into the lake' --limit 5. Others: vtg search --image lake.jpg; "
        "vtg search 'a horse' --plus snow --minus people*0.5; vtg search --like holiday.mp4@1:20-1:32; "
        "vtg search 'a lake' --said 'jump in' --export lake.otio"
    )(search)


def search(
    query: QueryArgument = None,
    video: VideoArgument = None,
    library: LibraryOption = None,
    limit: LimitOption = 10,
    min_score: MinScoreOption = None,
    nearest: NearestOption = False,
    image: ImageOption = None,
    like: LikeOption = None,
    plus: PlusOption = None,
    minus: MinusOption = None,
    said: SaidOption = "",
    places: InOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    per_video: PerVideoOption = None,
    explain: ExplainOption = None,
    export: ExportOption = None,
    clips: ClipsOption = None,
    force: ForceOption = False,
    model: ModelOption = None,
    clip: ClipOption = None,
    pretrained: PretrainedOption = None,
    preprocessing: PreprocessingOption = None,
    language: LanguageOption = None,
    fps: FpsOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find moments in the library or in one video: by a sentence, an image, a moment, or spoken words."""
    if query is None and not (image or like or plus or said):
        raise typer.BadParameter("give a QUERY, --image, --like, --plus or --said", param_hint="QUERY")
    if export is not None:
        from vtg.library.export import check_export

        check_export(export, force)
    question = _question(query, image or [], like or [], plus or [], minus or [], said)
    target = open_library(library, model, clip, pretrained, fps, device, preprocessing=preprocessing, language=language)
    target.warn = lambda line: print_error(f"vtg: {line}", style="yellow")
    if video is not None:
        ensure_indexed(target, video)
    chosen = [*(places or []), *([video] if video is not None else [])] or None
    nearest_hits = target.search(question, limit, 0.0, chosen, since=since, until=until, per_video=per_video)
    # The model's threshold is calibrated for sentences only.
    usual = target.threshold if question.sentence is not None else 0.0
    least = 0.0 if nearest else usual if min_score is None else min_score
    hits = [hit for hit in nearest_hits if hit.moment.score >= least]
    if explain is not None:
        _explain(target, question, hits, explain)
    if export is not None:
        from vtg.library.export import export_hits

        export_hits(export, str(question), hits)
        messages.print(f"{export}: {len(hits)} moments", markup=False, soft_wrap=True)
    if clips is not None:
        _cut_clips(hits, clips, force)
    _answer(question, hits, nearest_hits, as_json)


def _question(
    query: str | None, image: list[Path], like: list[str], plus: list[str], minus: list[str], said: str
) -> Question:
    from vtg.library.query import Part, Question, parse_stretch, parse_weighted

    parts = [] if query is None else [Part(query)]
    parts += [Part(path.expanduser()) for path in image]
    parts += [Part(parse_stretch(text)) for text in like]
    for sign, texts in ((1.0, plus), (-1.0, minus)):
        for text, weight in map(parse_weighted, texts):
            parts.append(Part(text, sign * weight))
    return Question(tuple(parts), said)


def _answer(question: Question, hits: list[Hit], nearest: list[Hit], as_json: bool) -> None:
    if as_json:
        from vtg.library.export import results_document

        print_json(results_document(str(question), hits))
        return
    if hits:
        _print_hits(hits)
        return
    messages.print(f"nothing found for {str(question)!r}", markup=False)
    if nearest:
        best = nearest[0]
        where = f"{span(best.moment.start, best.moment.end)} of {one_line(best.video)}"
        messages.print(
            f"nearest, with a score of {best.moment.score:.2f}: {where}; --nearest shows more",
            markup=False,
            soft_wrap=True,
        )


def _cut_clips(hits: list[Hit], folder: Path, force: bool) -> None:
    from vtg.video import cut

    targets = [folder / _result_name(place, hit, hit.moment.start, ".mp4") for place, hit in enumerate(hits, 1)]
    for path in targets:
        if path.exists() and not force:
            raise VtgError(f"{path}: already exists; choose another folder, or overwrite it with --force")
    folder.mkdir(parents=True, exist_ok=True)
    with progress_bar("cutting") as show:
        for done, (path, hit) in enumerate(zip(targets, hits, strict=True)):
            show(Progress("cutting", done, len(targets), "clips", path=path))
            cut(hit.video, hit.moment.start, hit.moment.end, path)
    messages.print(f"{folder}: {len(hits)} clips", markup=False, soft_wrap=True)


def _explain(library: Library, question: Question, hits: list[Hit], folder: Path) -> None:
    from PIL import Image

    if question.sentence is None:
        raise VtgError("--explain shows the attention of a head, which needs a query that is a sentence")
    for place, hit in enumerate(hits, 1):
        time, picture = library.explain(question.sentence, hit)
        folder.mkdir(parents=True, exist_ok=True)
        with write_whole(folder / _result_name(place, hit, time, ".png")) as part:
            Image.fromarray(picture).save(part, format="png")
    messages.print(f"{folder}: {len(hits)} images of the head's attention", markup=False, soft_wrap=True)


def _result_name(place: int, hit: Hit, time: float, suffix: str) -> str:
    return fitted_name(
        f"{place:02d} ", one_line(Path(hit.video).stem), f" {format_time(time).replace(':', '.')}{suffix}"
    )


def _print_hits(hits: list[Hit]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("moment", no_wrap=True)
    table.add_column("score", no_wrap=True)
    table.add_column("video", overflow="fold")
    if any(hit.said for hit in hits):
        table.add_column("said", overflow="fold")
    for place, hit in enumerate(hits, 1):
        moment = span(hit.moment.start, hit.moment.end)
        said = [Text(one_line(hit.said))] if hit.said else []
        table.add_row(str(place), moment, score_bar(hit.moment.score), Text(one_line(hit.video)), *said)
    output.print(table)
