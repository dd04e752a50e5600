"""The packages that vtg needs: their versions, whether these are new enough, and whether they can be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vtg.doctor.report import ABSENT, ERROR, OK, WARNING, Check

__all__ = ["DISTRIBUTION", "PACKAGES", "Package", "check_packages", "failed_imports"]

DISTRIBUTION = "vtground"
IMPORT_SECONDS = 120.0  # in which all packages must be imported
SECTION = "packages"


@dataclass(frozen=True)
class Package:
    """A package that vtg needs.

    Attributes:
        module: what is imported.
        purpose: what it is for, in words that follow "for ".
        core: whether nothing works without it.
        extra: that installs it; empty where it is always installed.
    """

    module: str
    purpose: str
    core: bool = False
    extra: str = ""


PACKAGES: Mapping[str, Package] = {
    "numpy": Package("numpy", "all computations", core=True),
    "torch": Package("torch", "all models", core=True),
    "open-clip-torch": Package("open_clip", "CLIP", core=True),
    "av": Package("av", "decoding videos", core=True),
    "lancedb": Package("lancedb", "libraries", core=True),
    "pyarrow": Package("pyarrow", "libraries", core=True),
    "safetensors": Package("safetensors", "files of weights", core=True),
    "huggingface-hub": Package("huggingface_hub", "downloading models", core=True),
    "pillow": Package("PIL", "pictures", core=True),
    "platformdirs": Package("platformdirs", "the default folders", core=True),
    "rich": Package("rich", "the command line", core=True),
    "typer": Package("typer", "the command line", core=True),
    "tomli": Package("tomli", "recipes", core=True),
    "ffmpeg-python": Package("ffmpeg", "writing videos"),
    "imageio-ffmpeg": Package("imageio_ffmpeg", "the ffmpeg that comes with vtg"),
    "decord2": Package("decord", "--decoder decord; PyAV decodes without it"),
    "streamlit": Package("streamlit", "the page (vtg ui)"),
    "altair": Package("altair", "charts on the page"),
    "matplotlib": Package("matplotlib", "figures, and the font of captions"),
    "ruptures": Package("ruptures", "finding shots"),
    "scipy": Package("scipy", "scores of summaries"),
    "pysubs2": Package("pysubs2", "subtitles"),
    "charset-normalizer": Package("charset_normalizer", "the encodings of subtitle files"),
    "fsspec": Package("fsspec", "extracting features to object stores"),
    "packaging": Package("packaging", "comparing versions in this report"),
    "accelerate": Package("accelerate", "training", extra="train"),
    "tensorboard": Package("tensorboard", "training", extra="train"),
    "transformers": Package("transformers", "the tokenizers of SigLIP", extra="siglip"),
    "sentencepiece": Package("sentencepiece", "the tokenizers of SigLIP", extra="siglip"),
    "ray": Package("ray", "vtg extract --ray", extra="ray"),
}

# Imports modules one after the other and tells of each before and after, on a descriptor that they do not write to.
IMPORT_EACH = """
import json, os, sys
task = json.load(sys.stdin)
sys.path[:] = task["path"]
tell = os.fdopen(os.dup(1), "w", encoding="ascii")
os.dup2(2, 1)
for module in task["modules"]:
    print(json.dumps([module, None]), file=tell, flush=True)
    try:
        __import__(module)
        fault = ""
    except BaseException as error:
        fault = f"{type(error).__name__}: {error}"
    print(json.dumps([module, fault]), file=tell, flush=True)
tell.flush()
os._exit(0)
"""


def failed_imports(modules: Iterable[str], seconds: float = IMPORT_SECONDS) -> dict[str, str]:
    """Import modules in another process: one that ends its process ends only that one.

    Args:
        modules: names of modules, in the order in which they are imported.
        seconds: time limit, after which the module that is being imported counts as failed.

    Returns:
        Why a module cannot be imported, by its name; modules that can are left out.
    """
    faults: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        task = json.dumps({"path": sys.path, "modules": waiting})
        command = [sys.executable, "-c", IMPORT_EACH]
        try:
            done = subprocess.run(command, input=task.encode(), capture_output=True, timeout=seconds, check=False)
            output, end = done.stdout, f"ends its process with status {done.returncode}"
        except subprocess.TimeoutExpired as error:
            output, end = error.stdout or b"", f"is not imported after {seconds:.0f} s"
        reported = dict(json.loads(line) for line in output.splitlines())
        faults |= {module: fault for module, fault in reported.items() if fault}
        importing = [module for module, fault in reported.items() if fault is None]
        # A process without output failed before the first import: the first module is taken as the cause.
        faults |= dict.fromkeys(importing or waiting[: not reported], end)
        waiting = [module for module in waiting if module not in reported and module not in faults]
    return faults


def check_packages(faults: Mapping[str, str], requirements: Mapping[str, str]) -> Iterator[Check]:
    """One check a package that this machine is to have, or may have.

    Args:
        faults: why modules cannot be imported, by their names.
        requirements: of each package that belongs on this machine, its lower bound; "" where none is known.
    """
    for name, package in PACKAGES.items():
        if name not in requirements:
            continue  # not for this system or this Python
        bound = requirements[name]
        wanted = f"'{DISTRIBUTION}[{package.extra}]'" if package.extra else f"'{name}>={bound}'" if bound else name
        broken = ERROR if package.core else WARNING
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            state = ABSENT if package.extra else broken
            yield Check(SECTION, name, state, f"not installed (for {package.purpose})", f"pip install {wanted}")
            continue
        if package.module in faults:
            found = f"{version}, cannot be imported: {' '.join(faults[package.module].split())[:300]}"
            yield Check(SECTION, name, broken, found, f"pip install --force-reinstall {wanted}")
        elif is_older(version, bound):
            yield Check(SECTION, name, WARNING, f"{version}, older than {bound}", f"pip install -U {wanted}")
        else:
            yield Check(SECTION, name, OK, version)


def is_older(version: str, bound: str) -> bool:
    """Whether a version is below a bound; False where they cannot be compared."""
    try:
        from packaging.version import Version

        return bool(bound) and Version(version) < Version(bound)
    except (ImportError, ValueError):
        return False


def required_packages() -> dict[str, str]:
    """The packages that belong on this machine, extras included, and their lower bounds.

    They are those of the installed distribution, or of the `pyproject.toml` of a checkout that was not installed. Where
    there is neither, or `packaging` is missing, all of `PACKAGES` are given, without bounds.
    """
    lines = _requirements()
    try:
        from packaging.requirements import Requirement
    except ImportError:
        lines = []
    if not lines:
        return dict.fromkeys((name for name in PACKAGES if name != "tomli" or sys.version_info < (3, 11)), "")
    found = {}
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        extras = ("", *(package.extra for package in PACKAGES.values() if package.extra))
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            bounds = [part.version for part in requirement.specifier if part.operator == ">="]
            found[requirement.name] = bounds[0] if bounds else ""
    return found


def _requirements() -> list[str]:
    try:
        return metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        pass
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    if not pyproject.is_file():
        return []
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    chosen = [
        line for extra in {package.extra for package in PACKAGES.values() if package.extra} for line in extras[extra]
    ]
    return [*project["dependencies"], *chosen]
