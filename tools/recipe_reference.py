"""Write docs/recipes.md, the list of all recipe keys, from the data classes and their docstrings.

python -m tools.recipe_reference            # writes the page
python -m tools.recipe_reference --check    # exit status 1 if the page is out of date
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from vtg.datasets import DATASETS
from vtg.r2.config import SUPPRESSIONS
from vtg.recipes import DataRecipe, EvaluationRecipe, TrainRecipe, available_recipes, load_recipe
from vtg.recipes.sections import MODEL_KEYS, NO_CLIP, POSITIVES, PRECISIONS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"
SECTIONS: dict[str, Any] = {
    "data": DataRecipe(),
    "model": NO_CLIP,
    "train": TrainRecipe(),
    "evaluation": EvaluationRecipe(),
}
CHOICES = {"vtg.datasets.DATASETS": DATASETS, "SUPPRESSIONS": SUPPRESSIONS, "POSITIVES": POSITIVES}
TYPES = {
    "bool": "true or false",
    "float": "number",
    "int": "whole number",
    "str": "text",
    "Path": "folder",
    "tuple[int, ...]": "list of whole numbers",
    "Mapping[str, tuple[str, ...]]": "table of file names",
}
PER_RECIPE = {
    "data.folder",
    "data.annotations",
    "data.domain",
}  # differ between all recipes; not in the table of published values

INTRODUCTION = """\
<!-- Written by `python -m tools.recipe_reference` from the data classes; change their docstrings, not this page. -->

# Recipe keys

A recipe is a TOML file with the sections `[data]`, `[model]`, `[train]` and `[evaluation]`, or the name of a published
one: {names}. `youtube` and `tvsum` stand for all their domains; one domain is `youtube-dog` or `tvsum-bk`, for example.
`qvhighlights` has variants [for other CLIPs](#recipes-for-other-clips).

- `base = "NAME"` at the top of a file takes the values that it does not state from a published recipe.
- `--set SECTION.KEY=VALUE` of `vtg train` and `vtg evaluate` overrides one value; it can be given several times.
- `"none"` is the text for no value, as TOML has none.
- Relative folders count from the recipe's own folder.
- A key that does not exist, or a value of the wrong type, is an error that names the nearest key that exists.

How recipes are used is described in [Training](training.md) and [Benchmarks](benchmarks.md); in Python,
`vtg.recipes.load_recipe` reads one ([API reference](reference/recipes.md)).
"""

ABOUT = {
    "data": "The files of the data set.",
    "model": "The head. The number and width of CLIP's tokens are not keys: they come from the features.",
    "train": "The training. The first keys are the weights of the losses.",
    "evaluation": "The post-processing of predictions, and the metric that decides which epoch is the best.",
}

OTHER_CLIPS = """\
## Recipes for other CLIPs

They state another CLIP, and take all else from the recipe that they are named after.

| recipe | `model.clip_model` | `model.clip_pretrained` | `data.video_features` |
| --- | --- | --- | --- |
"""
VALUES = "## Values of the published recipes\n\nA dash means that the recipe does not state the key: the default holds."


def page() -> str:
    """The page as Markdown."""
    whole = [name for name in available_recipes() if "-" not in name]
    parts = [INTRODUCTION.format(names=", ".join(f"`{name}`" for name in whole))]
    for name, section in SECTIONS.items():
        parts.append(f"## Section `[{name}]`\n\n{ABOUT[name]}\n\n{_section_table(name, section)}")
    parts.append(OTHER_CLIPS + _other_clips())
    parts.append(f"{VALUES}\n\n{_values_table(whole)}")
    return "\n".join(parts)


def _section_table(name: str, section: Any) -> str:
    described = descriptions(type(section))
    rows = [
        f"| `{name}.{key}` | {_type(section, key)} | {_default(section, key)} | {described[key]} |"
        for key in _keys(name)
    ]
    return "\n".join(["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows, ""])


def _other_clips() -> str:
    """A row for each published recipe that is based on another one: it is no domain of that."""
    loaded = [load_recipe(name) for name in available_recipes() if "-" in name]
    rows = [
        (recipe.name, recipe.model.clip_model, recipe.model.clip_pretrained, recipe.data.video_features)
        for recipe in loaded
        if recipe.data.domain is None
    ]
    return "".join(f"| {' | '.join(f'`{cell}`' for cell in row)} |\n" for row in rows)


def _values_table(recipes: list[str]) -> str:
    loaded = {name: load_recipe(name) for name in recipes}
    rows = []
    for section in SECTIONS:
        for key in _keys(section):
            full = f"{section}.{key}"
            if full in PER_RECIPE or not any(full in recipe.stated for recipe in loaded.values()):
                continue
            cells = [
                _shown(getattr(getattr(recipe, section), key)) if full in recipe.stated else "–"
                for recipe in loaded.values()
            ]
            rows.append(f"| `{full}` | {' | '.join(cells)} |")
    head = f"| key | {' | '.join(recipes)} |"
    return "\n".join([head, "| --- |" + " --- |" * len(recipes), *rows, ""])


def _keys(section: str) -> tuple[str, ...]:
    return MODEL_KEYS if section == "model" else tuple(field.name for field in fields(SECTIONS[section]))


def descriptions(kind: type) -> dict[str, str]:
    """The descriptions of all attributes in the docstrings of a data class and its bases, each on one line.

    Raises:
        KeyError: a field has no description.
    """
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        text = inspect.getdoc(base) or ""
        _, _, attributes = text.partition("Attributes:\n")
        attributes = attributes.split("\n\n")[0]
        for match in re.finditer(r"^    (\w+): (.*(?:\n     .*)*)", attributes, re.M):
            found[match[1]] = _with_choices(" ".join(match[2].split()))
    missing = {field.name for field in fields(kind)} - set(found)
    if missing:
        raise KeyError(f"{kind.__name__}: no description of {', '.join(sorted(missing))}")
    return found


def _with_choices(text: str) -> str:
    """Replace names of constants by their values, and escape Markdown's special characters."""
    for name, choices in CHOICES.items():
        text = text.replace(f"`{name}`", ", ".join(f"`{choice}`" for choice in choices))
    text = re.sub(r'"(float32|bf16|fp16)"', r"`\1`", text) if all(f'"{one}"' in text for one in PRECISIONS) else text
    return re.sub(r"\bNone\b", "`none`", text).replace("|", "\\|")


def _type(section: Any, key: str) -> str:
    kind = next(str(field.type) for field in fields(section) if field.name == key)
    plain = kind.removesuffix(" | None")
    return TYPES[plain] + (" or `none`" if plain != kind else "")


def _default(section: Any, key: str) -> str:
    if key == "folder":
        return "the recipe's folder"
    field = next(field for field in fields(section) if field.name == key)
    assert field.default is not MISSING or field.default_factory is not MISSING
    value = getattr(section, key)
    return "no files" if value == {} else _shown(value)


def _shown(value: object) -> str:
    if value is None:
        return "`none`"
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{json.dumps(value, ensure_ascii=False) if isinstance(value, bool) else value}`"


def main() -> int:
    """Write the page, or compare it with the file."""
    parser = argparse.ArgumentParser(description="Write docs/recipes.md from the data classes.")
    parser.add_argument("--check", action="store_true", help="only compare; exit status 1 if they differ")
    if parser.parse_args().check:
        if PAGE.read_text(encoding="utf-8") == page():
            return 0
        print(f"{PAGE}: is out of date; run: python -m tools.recipe_reference", file=sys.stderr)
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
