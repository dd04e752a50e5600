"""The commands `vtg library list`, `info`, `verify`, `remove`, `refresh` and `watch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtg.cli.console import JsonOption, messages, output, print_error, print_json, progress_bar
from vtg.cli.options import (
    DeviceOption,
    LibraryOption,
    PretrainedOption,
    open_library,
    print_problems,
)
from vtg.errors import VtgError
from vtg.files.paths import is_there
from vtg.files.text import one_line
from vtg.timespans import format_time

if TYPE_CHECKING:
    from vtg.library.library import IndexReport, Library, VideoEntry

__all__ = ["add_library_commands"]

PathsArgument = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="Video files, and folders with all below.")
]
FoldersArgument = Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders, with subfolders.")]

library_app = typer.Typer(
    help="Manage a library: list, info, verify, remove, refresh, watch.",
    epilog="Example: vtg library list",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_library_commands(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(library_app, name="library")


def _existing(folder: Path | None, device: str | None = None, pretrained: str | None = None) -> Library:
    library = open_library(folder, None, None, pretrained, None, device)
    if not library.exists:
        raise VtgError(f"{library.folder}: there is no library in this folder; create one with: vtg index PATH")
    return library


@library_app.command("list", epilog="Example: vtg library list --library holidays.vtg")
def list_videos(library: LibraryOption = None, as_json: JsonOption = False) -> None:
    """List the files of a library, with those that could not be indexed."""
    entries = _existing(library).videos()
    if as_json:
        print_json([_row(entry) for entry in entries])
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("length", "size", "added", "state", "video"):
        table.add_column(column, overflow="fold" if column == "video" else "ellipsis", no_wrap=column != "video")
    for entry in entries:
        state = entry.state if is_there(entry.path) else "not there"
        where = f"{entry.path} ({entry.failure})" if entry.failure else entry.path
        added = f"{entry.added.astimezone():%Y-%m-%d}"
        table.add_row(format_time(entry.duration), f"{entry.size / 1e6:.1f} MB", added, state, Text(one_line(where)))
    output.print(table)


def _row(entry: VideoEntry) -> dict[str, Any]:
    return {
        "video": entry.path,
        "content": entry.video,
        "duration": entry.duration,
        "size": entry.size,
        "added": entry.added.isoformat(),
        "encoder": entry.encoder,
        "state": entry.state,
        "failure": entry.failure,
    }


@library_app.command(epilog="Example: vtg library info")
def info(library: LibraryOption = None, as_json: JsonOption = False) -> None:
    """Show the size and settings of a library."""
    target = _existing(library)
    facts = target.describe()
    if as_json:
        print_json(facts)
        return
    of_minute = facts["bytes_per_minute"]
    a_minute = f", {of_minute / 1e6:.2f} MB a minute of video" if of_minute else ""
    lines = [
        ("library", facts["library"]),
        ("videos", f"{facts['videos']} ({format_time(facts['seconds'])}), {facts['failed']} failed"),
        ("frames", f"{facts['frames']} ({facts['fps']:g} a second)"),
        ("words", f"{facts['said_lines']} lines said in {facts['videos_with_words']} videos"),
        ("made with", facts["encoder"]),
        ("asked with", facts["model"]),
        ("kept", f"{facts['precision']}, {'with' if facts['keep_layers'] else 'without'} CLIP's layers"),
        ("on the disk", f"{facts['bytes'] / 1e6:.1f} MB{a_minute}"),
    ]
    for name, value in lines:
        output.print(f"{name:<12}{value}", markup=False, soft_wrap=True)


@library_app.command(epilog="Example: vtg library verify --checksums")
def verify(
    library: LibraryOption = None,
    checksums: Annotated[
        bool,
        typer.Option("--checksums", help="Also read all features and compare their checksums, which may take long."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that files, features and database are consistent; exit status 1 if they are not."""
    target = _existing(library)
    with progress_bar("checking") as show:
        problems = target.verify(checksums, show)
    if as_json:
        found = [{"where": problem.where, "what": problem.what} for problem in problems]
        print_json({"library": str(target.folder), "problems": found})
    else:
        for problem in problems:
            print_error(f"{problem.where}: {problem.what}")
        messages.print(f"{target.folder}: {len(problems) or 'no'} problems", markup=False, soft_wrap=True)
    if problems:
        raise typer.Exit(1)


@library_app.command(epilog="Example: vtg library remove ~/Videos/old")
def remove(paths: PathsArgument, library: LibraryOption = None, as_json: JsonOption = False) -> None:
    """Remove files and folders from the library; the files themselves are not deleted."""
    target = _existing(library)
    removed = target.remove(paths)
    if as_json:
        print_json({"library": str(target.folder), "removed": removed})
    elif removed:
        messages.print(f"{target.folder}: {len(removed)} removed", markup=False, soft_wrap=True)
    if not removed:
        raise VtgError(f"{', '.join(map(str, paths))}: not in the library; see 'vtg library list'")


@library_app.command(epilog="Example: vtg library refresh ~/Videos/new-place")
def refresh(
    look_in: Annotated[
        list[Path] | None, typer.Argument(metavar="[FOLDER]...", help="Further folders to search for moved files.")
    ] = None,
    library: LibraryOption = None,
    pretrained: PretrainedOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Update the library: index changed files again, find moved ones, remove deleted ones."""
    target = _existing(library, device, pretrained)
    with progress_bar("looking") as show:
        report = target.refresh(show, look_in or [])
    if as_json:
        print_json({"library": str(target.folder), **_changes(report)})
    else:
        _print_report(target, report)
    if report.failed:
        raise typer.Exit(1)


@library_app.command(epilog="Example: vtg library watch ~/Videos --every 60")
def watch(
    folders: FoldersArgument,
    library: LibraryOption = None,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between checks.")] = 10.0,
    pretrained: PretrainedOption = None,
    device: DeviceOption = None,
) -> None:
    """Keep a library in sync with folders until Ctrl-C: new files are added, deleted ones removed."""
    from vtg.library.watching import watch as watch_folders

    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        raise VtgError(f"{missing[0]}: no such folder; check the path")
    target = open_library(library, None, None, pretrained, None, device)
    messages.print(f"watching {', '.join(map(str, folders))}; stop with Ctrl-C", markup=False, soft_wrap=True)
    with progress_bar("looking") as show:
        watch_folders(target, folders, every, lambda report: _print_report(target, report), show)


def _changes(report: IndexReport) -> dict[str, Any]:
    return {
        "added": [path for path in report.added if path not in report.moved],
        "moved": [{"from": old, "to": new} for new, old in report.moved.items()],
        "removed": report.removed,
        "away": report.away,
        "failed": [{"path": path, "reason": reason} for path, reason in report.failed.items()],
        "warnings": report.warnings,
    }


def _print_report(library: Library, report: IndexReport) -> None:
    for new, old in report.moved.items():
        messages.print(one_line(f"{old}: is now {new}"), markup=False, soft_wrap=True)
    for path in report.removed:
        messages.print(one_line(f"{path}: is not there any more, and forgotten"), markup=False, soft_wrap=True)
    for path in report.away:
        messages.print(one_line(f"{path}: cannot be seen, nor its folder; kept"), markup=False, soft_wrap=True)
    print_problems(report)
    done = len(report.added) - len(report.moved)
    messages.print(
        f"{library.folder}: {done} indexed, {len(report.moved)} moved, {len(report.removed)} removed, "
        f"{len(report.unchanged)} unchanged, {len(report.failed)} failed",
        markup=False,
        soft_wrap=True,
    )
