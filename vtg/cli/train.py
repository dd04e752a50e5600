"""The command `vtg train`."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
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
from vtg.progress import Progress, Reporter

if TYPE_CHECKING:
    from vtg.recipes import Recipe
    from vtg.training.train import CheckResult, Sources, TrainingResult, TrainingStep

__all__ = ["add_training_command"]

INTERRUPTED_STATUS = 130  # exit status after Ctrl-C, by convention of shells


def add_training_command(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Example: vtg train qvhighlights --features features/ --annotations annotations/ --set train.batch=32"
    )(train)


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a benchmark, or your own .toml file.")],
    features: Annotated[
        Path | None, typer.Option("--features", help="Folder of cached features in the published layout, or a library.")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", help="Folder with the recipe's files, or the file of the training split."),
    ] = None,
    validation_features: Annotated[
        Path | None,
        typer.Option("--validation-features", help="Features of the validation split, if they are in another folder."),
    ] = None,
    validation_annotations: Annotated[
        Path | None, typer.Option("--validation-annotations", help="The file of the validation split.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run; training/RECIPE by default.")
    ] = None,
    settings: SettingsOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in the folder.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only run the overfit check: can 8 samples be learnt exactly?")
    ] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Plot losses and validation figures to curves.png.")] = False,
    pretrained: LibraryWeightsOption = None,
    device: ResearchDeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a head on cached features; on several GPUs with: accelerate launch --multi_gpu -m vtg train RECIPE."""
    is_main_process = int(os.environ.get("RANK", "0")) == 0  # with several processes, only the first prints
    messages.quiet = not is_main_process
    if not is_main_process:
        warnings.simplefilter("ignore")  # older versions of accelerate and torch warn in every process
    from vtg.recipes import load_recipe
    from vtg.training.processes import end_process_group, require_packages
    from vtg.training.train import Sources, member_recipes

    require_packages()
    chosen = load_recipe(recipe, settings or ())
    sources = Sources(features, annotations, validation_features, validation_annotations, pretrained)
    if chosen.name == "demo" and features is None:
        sources = _demo_sources(chosen, sources, device)
    recipes = member_recipes(chosen)
    if check:
        _check(recipes, sources, device, as_json)
        return
    folder = out or Path("training") / chosen.name
    results = []
    for member in recipes:
        target = folder / member.name if chosen.members else folder
        # Domains that had not started when a run was interrupted have no state to resume.
        resume_member = resume and (not chosen.members or (target / "state.pt").exists())
        results.append(_train(member, sources, target, resume_member, plot, device))
        if not results[-1].finished:
            break
    end_process_group()
    if is_main_process:
        _print_results(chosen, results, as_json)
    if not results[-1].finished:
        again = shlex.join(["vtg", *sys.argv[1:], *([] if resume else ["--resume"])])
        messages.print(f"stopped and saved; resume with: {again}", markup=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED_STATUS)


def _demo_sources(recipe: Recipe, sources: Sources, device: str | None) -> Sources:
    """Make the demo data set if it does not exist; returns its locations."""
    from vtg.demo.benchmark import prepare_demo

    with progress_bar("preparing") as show:
        features, annotations = prepare_demo(recipe, recipe.train.split, show, device)
        sources = replace(sources, features=features, annotations=annotations)
        if recipe.train.validation is None:
            return sources
        features, annotations = prepare_demo(recipe, recipe.train.validation, show, device)
        return replace(sources, validation_features=features, validation_annotations=annotations)


def _train(
    recipe: Recipe, sources: Sources, folder: Path, resume: bool, plot: bool, device: str | None
) -> TrainingResult:
    from vtg.training.train import train as run

    if recipe.train.accumulate > 1:
        messages.print(
            f"note: each of {recipe.train.accumulate} accumulated passes contrasts only its own {recipe.train.batch} "
            "samples; if memory allows, use a larger train.batch instead",
            markup=False,
            soft_wrap=True,
        )
    with progress_bar(recipe.name) as show:
        return run(
            recipe,
            sources,
            folder,
            resume=resume,
            plot=plot,
            device=device,
            progress=show,
            report=_reporter(show),
        )


def _reporter(show: Reporter) -> Callable[[TrainingStep], None]:
    """A callback that shows every batch in the progress bar; without a terminal, one line per epoch."""
    epoch = 0

    def report(state: TrainingStep) -> None:
        nonlocal epoch
        parts = " ".join(f"{name} {value:.3f}" for name, value in state.losses.items())
        figure = "" if state.figure is None else f", {state.metric} {state.figure:g}"
        total = sum(state.losses.values())
        line = f"{state.recipe} {state.epoch}/{state.epochs}: loss {total:.3f} ({parts}), rate {state.rate:.1e}{figure}"
        show(Progress("training", state.batches, state.all_batches, "batches", detail=line))
        if state.epoch != epoch and not messages.is_terminal:
            messages.print(line, markup=False, soft_wrap=True)
        epoch = state.epoch

    return report


def _check(recipes: list[Recipe], sources: Sources, device: str | None, as_json: bool) -> None:
    from vtg.training.processes import end_process_group
    from vtg.training.train import check as run

    results: list[CheckResult] = []
    for recipe in recipes:
        with progress_bar(f"checking {recipe.name}") as show:
            results.append(run(recipe, sources, device, show))
    end_process_group()
    if as_json:
        documents = [result.to_dict() for result in results]
        print_json(documents[0] if len(documents) == 1 else {"checks": documents})
    else:
        for result in results:
            output.print(f"{result.recipe}: {result.verdict}", markup=False, soft_wrap=True)
    if not all(result.fits for result in results):
        raise typer.Exit(1)


def _print_results(recipe: Recipe, results: list[TrainingResult], as_json: bool) -> None:
    figures = [result.figure for result in results if result.figure is not None]
    mean = sum(figures) / len(figures) if figures and len(figures) == len(recipe.members or (recipe.name,)) else None
    if as_json:
        documents = [result.to_dict() for result in results]
        print_json({"recipe": recipe.name, "figure": mean, "members": documents} if recipe.members else documents[0])
        return
    for result in results:
        figure = "not validated"
        if result.figure is not None:
            figure = f"{result.metric} {result.figure:g} after epoch {result.best_epoch}"
        messages.print(f"{result.recipe}: {result.head} ({figure})", markup=False, soft_wrap=True)
    if recipe.members and mean is not None:
        messages.print(f"{recipe.name}: mean {results[0].metric} {mean:.5g}", markup=False)
