"""Constraints that pin each dependency to its lower bound."""

from __future__ import annotations

import pytest

from tools.lowest_versions import PYPROJECT, lowest_versions

PROJECT = """
[project]
name = "mine"
dependencies = ["numpy>=1.26.4", "tomli>=2.0; python_version < '3.11'", "ray[data]>=2.30"]

[project.optional-dependencies]
test = ["pytest>=8.0", "mine[ui]"]
ui = ["streamlit>=1.53"]
"""


def test_each_dependency_is_pinned_to_its_bound() -> None:
    expected = ["numpy==1.26.4", "pytest==8.0", "ray==2.30", "streamlit==1.53", "tomli==2.0 ; python_version < '3.11'"]
    assert lowest_versions(PROJECT) == expected


@pytest.mark.parametrize("requirement", ["numpy", "numpy>1", "numpy>=1,<2", "numpy==1.26"])
def test_a_dependency_without_a_lower_bound_alone_is_refused(requirement: str) -> None:
    with pytest.raises(ValueError, match="needs exactly one lower bound"):
        lowest_versions(PROJECT.replace("numpy>=1.26.4", requirement))


def test_the_project_states_a_lower_bound_for_each_dependency() -> None:
    lines = lowest_versions(PYPROJECT.read_text(encoding="utf-8"))
    names = {line.partition("==")[0] for line in lines}
    assert {"torch", "av", "streamlit", "pytest"} <= names and len(names) == len(lines)
