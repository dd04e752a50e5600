"""Files around the code: workflows, forms, citation, container and guides agree with the project and one another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import vtg
from tools.lowest_versions import PYPROJECT, read_pyproject

ROOT = PYPROJECT.parent
GITHUB = ROOT / ".github"
YAML_FILES = (
    *sorted(GITHUB.rglob("*.yml")),
    *(ROOT / name for name in (".pre-commit-config.yaml", "CITATION.cff", "compose.yaml", "compose.password.yaml")),
)
GUIDES = (
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs" / "model-cards").glob("*.md")),
    ROOT / "docs" / "licences.md",
)
VARIABLE = re.compile(r"\$\{(\w+)(:[-?][^}]*)?\}")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, which YAML forbids and PyYAML takes."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice: {keys}"
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    return yaml.load(path.read_text("utf-8"), _Loader)


def project() -> dict[str, Any]:
    return dict(read_pyproject(PYPROJECT.read_text("utf-8"))["project"])


def commands() -> list[str]:
    """Every command of the workflows, one a step."""
    workflows = [read_yaml(path) for path in sorted((GITHUB / "workflows").glob("*.yml"))]
    jobs = [job for workflow in workflows for job in workflow["jobs"].values()]
    return [step["run"] for job in jobs for step in job.get("steps", ()) if "run" in step]


def make_targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_yaml_is_valid(path: Path) -> None:
    assert isinstance(read_yaml(path), dict)
    assert "\t" not in path.read_text("utf-8")


def test_workflows_test_the_versions_of_python_that_the_package_names() -> None:
    classifiers = [
        line.rpartition(" ")[2] for line in project()["classifiers"] if re.search(r"Python :: 3\.\d+$", line)
    ]
    matrix = read_yaml(GITHUB / "workflows" / "tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix["python"] == classifiers
    assert project()["requires-python"] == f">={classifiers[0]}"
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_wheels_are_built_for_the_lowest_python_and_all_systems() -> None:
    lowest = "cp" + project()["requires-python"].removeprefix(">=").replace(".", "")
    assert f'LOWEST_PYTHON = "{lowest}"' in (ROOT / "setup.py").read_text("utf-8")
    assert read_pyproject(PYPROJECT.read_text("utf-8"))["tool"]["cibuildwheel"]["build"] == f"{lowest}-*"
    systems = read_yaml(GITHUB / "workflows" / "wheels.yml")["jobs"]["wheels"]["strategy"]["matrix"]["os"]
    assert {name.partition("-")[0] for name in systems} == {"ubuntu", "macos", "windows"}


def test_make_has_the_targets_that_workflows_and_guides_name() -> None:
    guides = [(ROOT / name).read_text("utf-8") for name in ("CONTRIBUTING.md", ".github/PULL_REQUEST_TEMPLATE.md")]
    quoted = re.findall(r"`(make [^`\n]+)`|^\$ (make .+)$", "\n".join(guides), re.M)
    in_guides = {text.split()[1] for found in quoted for text in found if text}
    in_workflows = {target for command in commands() for target in re.findall(r"\bmake ([\w-]+)", command)}
    assert in_guides and in_workflows
    assert in_guides | in_workflows <= make_targets()


def test_every_program_in_a_workflow_is_known() -> None:
    known = {"make", "pip", "pipx", "python", "vtg", "grep"}
    first = {re.split(r"\s", command.strip())[0] for command in commands()}
    assert first <= known


def test_workflows_have_limits_and_no_rights_they_do_not_need() -> None:
    for path in sorted((GITHUB / "workflows").glob("*.yml")):
        workflow = read_yaml(path)
        assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            assert "uses" in job or job["timeout-minutes"] <= 90
            assert job.get("permissions", {}) == ({"id-token": "write"} if name == "publish" else {})


def test_versions_agree() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["version"] == vtg.__version__
    assert citation["license"] == project()["license"]
    assert citation["repository-code"] == project()["urls"]["Source"]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert headings[0] == "Unreleased" and vtg.__version__ in headings
    assert headings[-1] == "0.1.0"


def test_the_method_is_cited() -> None:
    (paper,) = read_yaml(ROOT / "CITATION.cff")["references"]
    assert paper["url"].endswith("2404.00801") and len(paper["authors"]) == 7


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_files_in_guides_lead_somewhere(path: Path) -> None:
    text = path.read_text("utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    files = re.findall(r"`((?:vtg|tools|tests|streamlit_app|docs|\.github|\.ci)/[\w./-]+?)/?`", text)
    for link in links:
        assert link.startswith(("http", "mailto")) or not link or (path.parent / link).exists(), link
    for file in files:
        assert (ROOT / file).exists(), file


def test_the_container_gets_what_it_copies() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ").splitlines()
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert set(copied) == sent
    assert all((ROOT / name).exists() for name in copied)
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users and users[-1].isdecimal() and users[-1] != "0"
    assert any(line.startswith("HEALTHCHECK ") for line in lines)


def test_the_container_runs_a_command_that_there_is() -> None:
    import typer

    from vtg.cli.main import app

    page = typer.main.get_command(app).commands["ui"]  # type: ignore[attr-defined]
    options = {name for parameter in page.params for name in (*parameter.opts, *parameter.secondary_opts)}
    (line,) = re.findall(r"^CMD (\[.+\])$", (ROOT / "Dockerfile").read_text("utf-8"), re.M)
    command = yaml.safe_load(line)
    services = [read_yaml(ROOT / name)["services"]["vtg"] for name in ("compose.yaml", "compose.password.yaml")]
    for words in (command, *(service["command"] for service in services)):
        assert words[0] == "ui"
        assert {word.partition("=")[0] for word in words[1:] if word.startswith("--")} <= options


def test_compose_keeps_videos_read_only_and_the_page_on_this_machine() -> None:
    service = read_yaml(ROOT / "compose.yaml")["services"]["vtg"]
    videos = next(volume for volume in service["volumes"] if ":/videos" in volume)
    assert videos.endswith(":/videos:ro")
    assert service["ports"] == ["${VTG_ADDRESS:-127.0.0.1}:${VTG_PORT:-8501}:8501"]
    assert set(read_yaml(ROOT / "compose.yaml")["volumes"]) == {"library", "cache"}


def test_variables_of_compose_have_a_default_or_say_what_they_are() -> None:
    for name in ("compose.yaml", "compose.password.yaml"):
        body = "\n".join(line for line in (ROOT / name).read_text("utf-8").splitlines() if not line.startswith("#"))
        assert all(match[2] for match in VARIABLE.finditer(body))
