"""Print pip constraints that pin every dependency of pyproject.toml to its lower bound.

    python -m tools.lowest_versions > lowest.txt
    pip install -e '.[test]' -c lowest.txt

`make test-lowest` installs them into a separate environment and runs the tests there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9][0-9.]*)\s*(;.*)?")


def read_pyproject(pyproject: str) -> dict[str, Any]:
    """Parse the text of a pyproject.toml."""
    return tomllib.loads(pyproject)


def lowest_versions(pyproject: str) -> list[str]:
    """Constraints, one for each dependency, including those of the extras.

    Args:
        pyproject: the text of a pyproject.toml.

    Raises:
        ValueError: a dependency states no lower bound.
    """
    project = read_pyproject(pyproject)["project"]
    extras = project.get("optional-dependencies", {}).values()
    lines = []
    for requirement in [*project["dependencies"], *(one for extra in extras for one in extra)]:
        if requirement.startswith(project["name"] + "["):
            continue  # an extra that includes other extras of this project
        found = REQUIREMENT.fullmatch(requirement)
        if found is None:
            raise ValueError(f"{requirement!r}: needs exactly one lower bound; write it as 'name>=version'")
        name, version, marker = found.groups()
        lines.append(f"{name}=={version}{' ' + marker if marker else ''}")
    return sorted(set(lines))


def main() -> None:
    """Run from a shell."""
    print("\n".join(lowest_versions(PYPROJECT.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
