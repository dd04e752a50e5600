"""`vtg doctor`: what it reports of a sound installation and of broken ones, and its exit status."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from commands import Result, vtg_in_process
from hostile_libraries import damage_library
from packaging.requirements import Requirement

from tools.lowest_versions import PYPROJECT, read_pyproject
from vtg.doctor import Check, packages
from vtg.doctor.packages import PACKAGES, check_packages, failed_imports, required_packages
from vtg.library.library import Library
from vtg.r2 import engine

ROOT = PYPROJECT.parent


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs ``vtg doctor`` on folders of this test; packages are not imported elsewhere, which takes seconds."""
    monkeypatch.setenv("VTG_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setenv("VTG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("vtg.doctor.examination.failed_imports", lambda modules: {})
    return vtg_in_process(capsys, monkeypatch, "doctor")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path], tiny_clip: Path) -> Path:
    """A folder with a library of one video."""
    from vtg.models.specs import model_spec

    folder = tmp_path_factory.mktemp("indexed")
    model = model_spec("zero-shot", pretrained=tiny_clip)
    Library(folder / "library", model, "cpu").add([make_video(folder / "a.mp4")])
    return folder


@pytest.fixture
def library(tmp_path: Path, indexed: Path) -> Path:
    """A library of its own for a test; its video is not moved along."""
    shutil.copytree(indexed / "library", tmp_path / "library")
    return tmp_path / "library"


def check(result: Result, name: str, section: str | None = None) -> dict[str, str]:
    """The check of a name in a report."""
    (found,) = [one for one in result.json["checks"] if one["name"] == name and section in (None, one["section"])]
    return found


def broken_environment(tmp_path: Path, **modules: str) -> dict[str, str]:
    """An environment in which modules of these names run other code when they are imported."""
    for name, code in modules.items():
        (tmp_path / f"{name}.py").write_text(code)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "VTG_LIBRARY": str(tmp_path / "library")}


def run_broken(environment: dict[str, str]) -> tuple[int, dict[str, dict[str, str]], str]:
    """Exit status, checks by their names, and standard error of ``vtg doctor`` in an environment."""
    command = [sys.executable, "-m", "vtg", "doctor", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, {one["name"]: one for one in json.loads(done.stdout)["checks"]}, done.stderr


def test_a_sound_installation_is_usable(run: Callable[..., Result]) -> None:
    result = run("--json")
    assert result.status == 0
    assert result.json["usable"] is True
    assert {"system", "packages", "device", "engine", "video", "models", "library"} <= {
        one["section"] for one in result.json["checks"]
    }
    assert check(result, "engine")["found"].startswith(("compiled, ", "PyTorch"))
    assert re.search(r"^\S+, .*ffmpeg", check(result, "ffmpeg")["found"])
    assert check(result, "demo")["state"] == "ok"
    assert check(result, "folder")["state"] == "absent"
    assert all(one["advice"] for one in result.json["checks"] if one["state"] in ("warning", "error"))


def test_the_report_for_people_has_every_check(run: Callable[..., Result]) -> None:
    checks, printed = run("--json").json["checks"], run().out
    for one in checks:
        assert one["name"] in printed and one["advice"] in printed
        assert one["found"] in printed or one["name"] == "disk"  # whose space changes
    assert "vtg can be used" in printed


def test_nothing_is_written_and_nothing_is_downloaded(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection is made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert run("--json").status == 0
    assert list(tmp_path.iterdir()) == []


def test_a_sound_library_is_described(run: Callable[..., Result], library: Path) -> None:
    result = run("--json")
    assert check(result, "folder")["found"] == str(library)
    assert check(result, "videos")["found"].startswith("1 (00:08)")
    assert check(result, "problems")["found"] == "none found"
    assert "GB free" in check(result, "disk")["found"]


def test_problems_of_a_library_are_warnings_with_advice(
    run: Callable[..., Result], library: Path, indexed: Path
) -> None:
    (indexed / "a.mp4").rename(indexed / "b.mp4")
    result = run("--json")
    (indexed / "b.mp4").rename(indexed / "a.mp4")
    assert result.status == 0
    problem = check(result, "problem")
    assert problem["state"] == "warning" and "is not there any more" in problem["found"]
    assert "vtg library refresh" in problem["advice"]


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_library_is_reported(run: Callable[..., Result], library: Path, seed: int) -> None:
    damage_library(library, seed)
    result = run("--json")
    assert result.status == 0
    assert [one for one in result.json["checks"] if one["section"] == "library"]


def test_a_folder_that_is_no_library_is_reported(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no library")
    folder = check(run("--json", "--library", tmp_path / "notes"), "folder")
    assert folder["state"] == "warning"
    assert folder["advice"] == "name another folder with --library"


def test_a_long_check_of_a_library_is_cut_short(
    run: Callable[..., Result], library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtg.doctor.data.VERIFY_SECONDS", -1.0)
    assert "vtg library verify" in check(run("--json"), "problems")["advice"]


def test_a_full_disk_is_a_warning(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=10 << 20)
    monkeypatch.setattr("vtg.doctor.data.shutil.disk_usage", lambda path: usage)
    assert check(run("--json"), "disk")["state"] == "warning"


def test_no_usable_ffmpeg_makes_vtg_unusable(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtg.video.process.ffmpeg_candidates", lambda: iter([("/old/ffmpeg", "is version 4.4")]))
    result = run("--json")
    assert result.status == 1
    assert result.json["usable"] is False
    assert check(result, "ffmpeg")["state"] == "error"
    assert "/old/ffmpeg is version 4.4" in check(result, "ffmpeg")["found"]
    assert "imageio-ffmpeg" in check(result, "ffmpeg")["advice"]


@pytest.mark.skipif(sys.platform == "win32", reason="the fake ffmpeg is a script")
def test_an_ffmpeg_without_encoders_is_a_warning(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "bin" / "ffmpeg"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'ffmpeg version 7.1 Copyright'\n")
    fake.chmod(0o755)
    monkeypatch.setattr("vtg.video.process.ffmpeg_candidates", lambda: iter([(str(fake), "")]))
    encoders = check(run("--json"), "encoders")
    assert encoders["state"] == "warning"
    assert "libx264 (H.264), aac (AAC)" in encoders["found"]


@pytest.mark.parametrize(
    ("variable", "name"), [("VTG_ENGINE", "engine"), ("VTG_DECODER", "decoder")], ids=["engine", "decoder"]
)
def test_a_setting_that_stops_vtg_is_an_error(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    monkeypatch.setenv(variable, "nonsense")
    result = run("--json")
    assert result.status == 1
    assert check(result, name)["state"] == "error"
    assert variable in check(result, name)["advice"]
    assert check(result, variable)["found"] == "nonsense"


@pytest.mark.parametrize(
    ("faults", "state", "advice"),
    [
        ({"avx512": "was not compiled", "avx2": "was not compiled", "neon": "was not compiled"}, "warning", "compiler"),
        ({"avx512": engine.NO_INSTRUCTIONS, "avx2": engine.NO_INSTRUCTIONS, "neon": "was not compiled"}, "ok", ""),
        ({"avx512": "was compiled before its sources changed"}, "warning", "compile it again"),
    ],
    ids=["not compiled", "old processor", "other sources"],
)
def test_why_pytorch_is_used(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, faults: dict[str, str], state: str, advice: str
) -> None:
    monkeypatch.setattr(engine, "engine_name", lambda: "torch")
    monkeypatch.setattr(engine, "engine_faults", lambda: faults)
    monkeypatch.delenv("VTG_ENGINE", raising=False)
    found = check(run("--json"), "engine")
    assert found["state"] == state
    assert found["found"].startswith("PyTorch")
    assert advice in found["advice"]


def test_a_password_is_not_shown(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTG_PASSWORD", "swordfish")
    monkeypatch.setenv("HF_ENDPOINT", "https://ada:swordfish@hub.example")
    result = run("--json")
    assert "swordfish" not in result.out
    assert check(result, "HF_ENDPOINT")["found"] == "https://hub.example"


def test_a_section_that_fails_does_not_stop_the_others(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):
        """As Rust's code raises it."""

    def panic() -> Any:
        raise PanicException("index out of bounds")

    monkeypatch.setattr("vtg.models.specs.describe_models", panic)
    result = run("--json")
    assert result.status == 0
    assert check(result, "models")["found"] == "PanicException: index out of bounds"
    assert check(result, "disk")["state"] == "ok"


def test_a_package_that_cannot_be_imported_is_an_error_and_the_rest_is_examined(tmp_path: Path) -> None:
    status, checks, _ = run_broken(broken_environment(tmp_path, torch="raise OSError('libcudart.so: cannot open')"))
    assert status == 1
    assert checks["torch"]["state"] == "error"
    assert "OSError: libcudart.so: cannot open" in checks["torch"]["found"]
    assert "pip install --force-reinstall" in checks["torch"]["advice"]
    assert checks["engine"]["found"] == "not examined, because torch cannot be imported"
    assert checks["ffmpeg"]["state"] == "ok"


def test_a_package_that_ends_its_process_is_reported(tmp_path: Path) -> None:
    status, checks, _ = run_broken(broken_environment(tmp_path, numpy="import os; print('hello'); os._exit(7)"))
    assert status == 1
    assert "numpy" in checks and "ends its process with status 7" in checks["numpy"]["found"]


def test_imports_after_one_that_ends_the_process_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ends.py").write_text("import os; os._exit(3)")
    (tmp_path / "raises.py").write_text("raise ValueError('two\\nlines')")
    (tmp_path / "waits.py").write_text("import time; time.sleep(60)")
    monkeypatch.syspath_prepend(str(tmp_path))
    faults = failed_imports(["json", "ends", "raises", "not_there_at_all", "waits", "csv"], seconds=5)
    assert faults == {
        "ends": "ends its process with status 3",
        "raises": "ValueError: two\nlines",
        "not_there_at_all": "ModuleNotFoundError: No module named 'not_there_at_all'",
        "waits": "is not imported after 5 s",
    }


def states(requirements: dict[str, str], faults: dict[str, str] | None = None) -> dict[str, Check]:
    return {one.name: one for one in check_packages(faults or {}, requirements)}


def test_missing_and_old_packages_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in ("torch", "pysubs2", "ray"):
            raise packages.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(packages.metadata, "version", version)
    found = states({"torch": "2.4", "pysubs2": "1.7.1", "ray": "2.30", "av": "17.1", "numpy": "0.9"})
    assert {name: one.state for name, one in found.items()} == {
        **{"torch": "error", "pysubs2": "warning", "ray": "absent", "av": "warning", "numpy": "ok"}
    }
    assert found["torch"].advice == "pip install 'torch>=2.4'"
    assert found["ray"].advice == "pip install 'vtground[ray]'"
    assert found["av"].advice == "pip install -U 'av>=17.1'"


def test_every_dependency_is_examined() -> None:
    project = read_pyproject(PYPROJECT.read_text("utf-8"))["project"]
    extras = {
        extra: lines
        for extra, lines in project["optional-dependencies"].items()
        if extra not in ("all", "docs", "test")
    }
    named = {Requirement(line).name: "" for line in project["dependencies"]}
    named |= {Requirement(line).name: extra for extra, lines in extras.items() for line in lines}
    assert {name: package.extra for name, package in PACKAGES.items()} == named
    assert "" not in required_packages().values()


def test_packages_are_imported_by_their_right_names() -> None:
    owners = {
        module: {name.lower().replace("_", "-") for name in names}
        for module, names in metadata.packages_distributions().items()
    }
    installed = {name for names in owners.values() for name in names}
    wrong = [name for name, package in PACKAGES.items() if name in installed - owners.get(package.module, set())]
    assert wrong == []
    expected = {"torch", "pillow"}
    if sys.version_info >= (3, 11):  # before, only packages with a list of their modules were found
        expected.add("open-clip-torch")
    assert expected <= installed


def test_it_starts_without_any_package_that_may_be_broken() -> None:
    code = "import sys, vtg.cli.main, vtg.doctor.examination; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    needed = {package.module for name, package in PACKAGES.items() if name not in ("typer", "rich")}
    assert needed & set(done.stdout.split()) == set()


def test_training_without_its_packages_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtg.training.processes.importlib.util.find_spec", lambda name: None)
    result = vtg_in_process(capsys, monkeypatch)("train", "demo")
    assert result.status == 1
    assert result.err == "vtg: training needs accelerate, which is not installed; run: pip install 'vtground[train]'\n"


def test_the_version_is_one_line_and_needs_no_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import vtg

    assert vtg_in_process(capsys, monkeypatch)("--version").out == f"vtg {vtg.__version__}\n"
