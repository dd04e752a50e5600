"""Examine an installation, section by section; whatever is broken becomes a line of the report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vtg.doctor.data import check_library, check_models, check_space
from vtg.doctor.machine import check_device, check_engine, check_environment, check_system, check_video
from vtg.doctor.packages import PACKAGES, check_packages, failed_imports, required_packages
from vtg.doctor.report import ERROR, WARNING, Check, Report, check_of_error
from vtg.progress import Progress, Reporter, silent

__all__ = ["examine"]


@dataclass(frozen=True)
class _Section:
    """Checks that belong together.

    Attributes:
        name: of the section.
        run: makes the checks.
        needs: modules without which they cannot be made.
    """

    name: str
    run: Callable[[], Iterable[Check]]
    needs: tuple[str, ...] = ()


def examine(library: Path | None = None, progress: Reporter = silent) -> Report:
    """Examine this installation of vtg. Nothing is downloaded, and nothing is written.

    Args:
        library: folder of the library; None for the default.
        progress: called before each section.

    Returns:
        What was found. No error is raised, whatever is broken.
    """
    sections = (
        _Section("device", check_device, ("torch",)),
        _Section("engine", check_engine, ("torch",)),
        _Section("video", check_video, ("av", "numpy")),
        _Section("models", check_models, ("torch", "open_clip", "huggingface_hub")),
        _Section("library", partial(check_library, library), ("torch", "numpy", "lancedb", "pyarrow", "av")),
        _Section("library", partial(check_space, library)),
    )
    total = len(sections) + 1
    progress(Progress("examining packages", 0, total, "sections"))
    packages, broken = _examine_packages()
    checks = [*_run(_Section("system", check_system)), *packages, *_run(_Section("environment", check_environment))]
    for done, section in enumerate(sections, start=1):
        progress(Progress(f"examining {section.name}", done, total, "sections"))
        missing = [module for module in section.needs if module in broken]
        if missing:
            found = f"not examined, because {', '.join(missing)} cannot be imported"
            checks.append(Check(section.name, section.name, WARNING, found))
        else:
            checks += _run(section)
    return Report(tuple(checks))


def _examine_packages() -> tuple[list[Check], Collection[str]]:
    """The checks of all packages, and the modules that cannot be imported."""
    try:
        requirements = required_packages()
        modules = [package.module for name, package in PACKAGES.items() if name in requirements]
        faults = failed_imports(modules)
        return list(check_packages(faults, requirements)), faults
    except Exception as error:
        # As where no process can be started: what follows is examined all the same.
        return [check_of_error("packages", "packages", WARNING, error)], ()


def _run(section: _Section) -> list[Check]:
    """The checks of a section, up to the first that raises something, which is the last check then."""
    made: list[Check] = []
    try:
        made.extend(section.run())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of Rust's code is no Exception
        state = ERROR if isinstance(error, ImportError) else WARNING
        made.append(check_of_error(section.name, section.name, state, error, "report it, with this report"))
    return made
