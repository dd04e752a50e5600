"""The commands `vtg score` and `vtg evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtg.cli.console import (
    JsonOption,
    LibraryWeightsOption,
    ResearchDeviceOption,
    SettingsOption,
    messages,
    output,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from vtg.evaluation.scoring import Report

__all__ = ["add_research_commands"]

BOOTSTRAP_ROUNDS = 1000  # of the intervals of `vtg score`


def add_research_commands(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(epilog="Example: vtg score predictions.jsonl highlight_val_release.jsonl --json")(score)
    app.command(
        epilog="Example: vtg evaluate tacos --features features/ --annotations annotations/ --model best.safetensors"
    )(evaluate)


def score(
    predictions: Annotated[list[Path], typer.Argument(metavar="PREDICTIONS...", help="JSON lines, plain or gzipped.")],
    annotations: Annotated[Path, typer.Argument(metavar="ANNOTATIONS", help="Ground truth; plain or gzipped.")],
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Data set of the annotations; detected from the file by default."),
    ] = None,
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="95 % intervals, and which differences are within noise.")
    ] = False,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="DIR", help="Write plots of the figures.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Score predictions like the published evaluators; several files are compared."""
    from vtg.evaluation.scoring import plot as draw
    from vtg.evaluation.scoring import score_files

    report = score_files(predictions, annotations, dataset, BOOTSTRAP_ROUNDS if bootstrap else None)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_scores(report)
    for path in draw(report, plot) if plot is not None else ():
        messages.print(str(path), markup=False, soft_wrap=True)


def evaluate(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a benchmark, or your own .toml file.")],
    features: Annotated[
        Path | None, typer.Option("--features", help="Folder of cached features in the published layout, or a library.")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", help="The annotations, or a folder with the recipe's files; its own by default."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model to evaluate; the recipe's published head by default.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            metavar="MODEL",
            help="Published model whose sampling rate, unit and suppression a checkpoint without settings gets.",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Split to evaluate; the recipe's by default.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file of predictions to write.")] = None,
    settings: SettingsOption = None,
    pretrained: LibraryWeightsOption = None,
    device: ResearchDeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a model on a benchmark, write its predictions and score them; an interrupted run is resumed."""
    from vtg.demo.benchmark import prepare_demo
    from vtg.evaluation import default_model
    from vtg.evaluation import evaluate as run
    from vtg.evaluation.scoring import Report
    from vtg.recipes import load_recipe

    chosen = load_recipe(recipe, settings or ())
    part = split or chosen.evaluation.split
    with progress_bar("evaluating") as show:
        if chosen.name == "demo" and features is None:
            features, annotations = prepare_demo(chosen, part, show, device)
        target = out or Path(f"{chosen.name}-{Path(model or default_model(chosen)).stem}-{part}.jsonl")
        result = run(
            chosen,
            features or chosen.data.folder,
            target,
            annotations,
            model,
            split,
            show,
            like=like,
            device=device,
            pretrained=pretrained,
            warn=lambda line: messages.print(line, markup=False, soft_wrap=True),
        )
    if result.scores is None:
        messages.print("no ground truth: predictions are not scored", markup=False)
    elif not as_json:
        _print_scores(Report(annotations or Path(recipe), chosen.data.dataset, (result.scores,)))
    if as_json:
        figures = result.scores.to_dict() if result.scores else {}
        print_json({"recipe": chosen.name, "split": part, "predictions": str(result.predictions), **figures})
    else:
        messages.print(f"predictions: {result.predictions}", markup=False, soft_wrap=True)


def _print_scores(report: Report) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    table.add_column("figure")
    for scores in report.scores:
        table.add_column(Text(scores.name), justify="right")
    for row in report.table():
        texts = [
            Text(cell.text + (" ≈" if cell.is_near else "  "), "bold" if cell.is_best else "") for cell in row.cells
        ]
        table.add_row(row.figure, *texts)
    output.print(table)
    if report.differences and len(report.scores) > 1:
        messages.print("≈ behind the best by no more than noise (95 % paired bootstrap over the queries)")
        for difference in report.differences:
            if len(report.scores) > 2 and difference.within_noise:
                messages.print(
                    f"within noise: {difference.figure} of {difference.first} and {difference.second}", markup=False
                )
    for note in dict.fromkeys(note for scores in report.scores for note in scores.notes):
        messages.print(f"note: {note}", markup=False, soft_wrap=True)
