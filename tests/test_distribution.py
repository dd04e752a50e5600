"""What is given away: the sdist and the wheel, their metadata, and an installation in an empty environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest
from setuptools import find_packages

import vtg
from tools.lowest_versions import PYPROJECT, read_pyproject

ROOT = PYPROJECT.parent
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yml", ".yaml", ".cff", ".js", ".html", ".ipynb", ""}
ENGINE = re.compile(r"vtg/r2/_engine_\w+(\.abi3)?\.(so|pyd)")
GENERATED = re.compile(r"PKG-INFO|setup\.cfg|vtground\.egg-info/.*")
NOT_IN_SDIST = re.compile(r"\.(ci|github)/.*|\.[a-z-]+(\.yaml)?")  # settings of the project's host and of tools


def tracked_files() -> list[str]:
    """The files that git knows; the test is skipped outside of a checkout."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no checkout of git")
    return [name for name in done.stdout.split("\0") if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked files, with folders beside them that do not belong to the project."""
    folder = tmp_path_factory.mktemp("sources")
    for name in tracked_files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    for name in ("vtg_notes/__init__.py", "vtg-demo/a.py", "build/x.py", "notes/a.md", "vtg/r2/__pycache__/a.pyc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return folder


@pytest.fixture(scope="module")
def built(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The sdist, and the wheel that is made from it, built without a network."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--outdir", str(out)]
    done = subprocess.run([*command, str(sources)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    yield sdist, wheel


def expected_in_wheel() -> set[str]:
    """The tracked files of the two packages, without the sources of the engine."""
    return {
        name
        for name in tracked_files()
        if name.startswith(("vtg/", "streamlit_app/")) and not name.startswith("vtg/r2/kernels/")
    }


def test_only_the_packages_of_the_project_are_found(sources: Path) -> None:
    found = find_packages(str(sources), include=["vtg", "vtg.*", "streamlit_app", "streamlit_app.*"])
    folders = {str(Path(name).parent).replace("/", ".") for name in expected_in_wheel() if name.endswith("__init__.py")}
    assert set(found) == folders


def test_every_file_of_the_packages_is_code_or_named_as_data() -> None:
    named = read_pyproject(PYPROJECT.read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    lost = []
    for name in expected_in_wheel():
        package, _, inside = name.partition("/")
        patterns = named[package]
        if not name.endswith(".py") and not any(
            Path(inside).match(pattern.removeprefix("**/")) for pattern in patterns
        ):
            lost.append(name)
    assert lost == []


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = message_from_bytes(wheel.read(f"{info}/METADATA"))
    files = {name for name in names if not name.startswith(f"{info}/")}
    engines = {name for name in files if ENGINE.fullmatch(name)}
    assert files - engines == expected_in_wheel()
    if shutil.which("cc"):
        assert engines
        assert "-cp310-abi3-" in built[1].name or not hasattr(sys, "_is_gil_enabled") or sys._is_gil_enabled()
    assert (metadata["Name"], metadata["Version"]) == ("vtground", vtg.__version__)
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert f"{info}/licenses/LICENSE" in names
    assert set(metadata.get_all("Provides-Extra")) >= {"all", "ray", "siglip", "test", "train"}


@pytest.mark.slow
def test_the_sdist_holds_what_is_tracked_and_nothing_else(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as sdist:
        names = {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}
    tracked = {name for name in tracked_files() if not NOT_IN_SDIST.fullmatch(name)}
    assert {name for name in names if not GENERATED.fullmatch(name)} == tracked


@pytest.mark.slow
def test_the_wheel_runs_the_demo_in_an_empty_environment(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Installs torch and all else with pip: it takes minutes, some gigabytes and a network."""
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    own = ("PYTHON", "VTG_")  # variables that would lead to this checkout, or to a library
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    install = [programs / "python", "-m", "pip", "install", "--quiet", built[1]]
    subprocess.run(install, cwd=tmp_path, env=environment, check=True)

    def vtg_of_wheel(*words: str) -> str:
        command = [programs / "vtg", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    where = vtg_of_wheel("doctor", "--json")
    assert str(tmp_path / "venv").replace("\\", "\\\\") in where
    assert vtg_of_wheel("--version") == f"vtg {vtg.__version__}\n"
    assert "vtg can be used" in vtg_of_wheel("doctor")
    assert "100% of the moments found" in vtg_of_wheel("demo")
    assert (tmp_path / "vtg-demo" / "sheet.png").is_file()


def test_extras_are_those_of_the_manual() -> None:
    extras = read_pyproject(PYPROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    assert {"train", "siglip", "ray", "all", "test"} <= set(extras)
    assert extras["all"] == ["vtground[ray,siglip,train]"]
    assert all(extras.values())


def test_nothing_names_the_distribution_of_somebody_else() -> None:
    wrong = re.compile(r"pip3? install (-[-\w]+ )*['\"]?vtg(?![\w.-])|['\"]vtg\[")
    found = [
        f"{name}: {match[0]}"
        for name in tracked_files()
        if Path(name).suffix in TEXT_SUFFIXES and name != "tests/test_distribution.py"
        for match in wrong.finditer((ROOT / name).read_text("utf-8", errors="replace"))
    ]
    assert found == []
