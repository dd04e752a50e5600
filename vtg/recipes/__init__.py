"""Recipes of benchmarks and custom data sets: files, head, training and evaluation.

Input is the name of a published recipe or a TOML file, with `--set` overrides; output is a `Recipe`. Read `sections`
(the data classes with their defaults) and `values` (conversion and checks of values).
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from vtg.errors import VtgError
from vtg.features.npy import feature_folders
from vtg.files.paths import check_regular
from vtg.files.text import short_repr
from vtg.r2.config import HeadConfig
from vtg.recipes.sections import DataRecipe, EvaluationRecipe, Recipe, TrainRecipe
from vtg.recipes.values import changed_section, check_keys, check_sections, keys_of, section_values, with_values

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "DataRecipe",
    "EvaluationRecipe",
    "Recipe",
    "TrainRecipe",
    "available_recipes",
    "load_recipe",
]

_SECTIONS = {"data": DataRecipe, "model": HeadConfig, "train": TrainRecipe, "evaluation": EvaluationRecipe}
_TOP_KEYS = ("base", *_SECTIONS, "domains")


def available_recipes() -> tuple[str, ...]:
    """The names of the published recipes, those with domains followed by one name a domain."""
    names = []
    for resource in sorted(files(__name__).iterdir(), key=lambda resource: resource.name):
        if resource.name.endswith(".toml"):
            name = resource.name.removesuffix(".toml")
            domains = tomllib.loads(resource.read_text(encoding="utf-8")).get("domains", {})
            names += [name, *(f"{name}-{code}" for code in domains)]
    return tuple(names)


def load_recipe(name: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """Load a published recipe by its name, or a custom one by its path.

    Args:
        name: one of `available_recipes()`, or a `.toml` file: sections `[data]`, `[train]` and `[evaluation]` with the
            fields of `DataRecipe`, `TrainRecipe` and `EvaluationRecipe`, and `[model]` with those fields of
            `vtg.r2.HeadConfig` that `MODEL_KEYS` names; `base = "<published recipe>"` gives the values that the file
            does not contain. "none" is the text for no value.
        settings: overrides of the recipe's values, each like "train.rate=1e-4".

    Raises:
        VtgError: there is no such recipe, the file is not TOML, or a key is unknown or a value has
            the wrong type.
    """
    if str(name).endswith(".toml"):
        return _with_folders(_with_settings(_own_recipe(Path(name)), settings))
    name = str(name)
    if name not in available_recipes():
        near = difflib.get_close_matches(name, available_recipes(), n=1)
        hint = f"did you mean {near[0]}?" if near else "see vtg.recipes.available_recipes()"
        raise VtgError(f"there is no recipe {name!r}; {hint}")
    return _with_folders(_with_settings(_published_recipe(name), settings))


def _published_recipe(name: str) -> Recipe:
    is_whole = (files(__name__) / f"{name}.toml").is_file()
    whole, _, code = (name, "", "") if is_whole else name.partition("-")
    source = f"recipe {whole}"
    content = _parsed((files(__name__) / f"{whole}.toml").read_text(encoding="utf-8"), source)
    start = Recipe(name, DataRecipe(folder=Path("data") / whole), EvaluationRecipe())
    if "base" in content:  # the same data set and training with another CLIP
        start = replace(_published_recipe(content["base"]), name=name)
    recipe = _changed(start, content, source, Path())
    domains = content.get("domains", {})
    if code:
        return replace(recipe, data=replace(recipe.data, domain=domains[code]))
    return replace(recipe, members=tuple(f"{name}-{member}" for member in domains))


def _own_recipe(path: Path) -> Recipe:
    check_regular(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise VtgError(f"{path}: there is no such recipe; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise VtgError(f"{path}: cannot be read as text ({error}); give a TOML file") from None
    content = _parsed(text, str(path))
    if "domains" in content:
        raise VtgError(f"{path}: [domains] is for the published recipes; name one with data.domain")
    base = content.get("base")
    if base is not None and not isinstance(base, str):
        raise VtgError(f"{path}: base must be the name of a published recipe, not {short_repr(base)}")
    start = Recipe(path.stem, DataRecipe(), EvaluationRecipe())
    if base is not None:
        try:
            start = replace(load_recipe(base), name=path.stem, members=())
        except VtgError as error:
            raise VtgError(f"{path}: base: {error}") from None
    start = replace(start, data=replace(start.data, folder=path.parent))
    return _changed(start, content, str(path), path.parent)


def _changed(start: Recipe, content: Mapping[str, Any], source: str, beside: Path) -> Recipe:
    """`start` with the values of a file; relative folders are relative to `beside`."""
    check_keys(content, _TOP_KEYS, "", source)
    data = changed_section(start.data, content.get("data", {}), "data", source)
    if "folder" in content.get("data", {}):
        data = replace(data, folder=beside / data.folder)
    evaluation = changed_section(start.evaluation, content.get("evaluation", {}), "evaluation", source)
    model = changed_section(start.model, content.get("model", {}), "model", source)
    train = changed_section(start.train, content.get("train", {}), "train", source)
    check_sections(data, evaluation, train, source)
    stated = start.stated | {f"{section}.{key}" for section in _SECTIONS for key in content.get(section, {})}
    return replace(start, data=data, evaluation=evaluation, model=model, train=train, stated=stated)


def _with_folders(recipe: Recipe) -> Recipe:
    """Name the folders of features after the CLIP that a recipe names, unless it states them."""
    model, data = recipe.model, recipe.data
    if model.clip_model is None and model.clip_pretrained is None:
        return recipe
    videos, queries = feature_folders(model.clip_model, model.clip_pretrained)
    if "data.video_features" not in recipe.stated:
        data = replace(data, video_features=videos)
    if "data.query_features" not in recipe.stated:
        data = replace(data, query_features=queries)
    return replace(recipe, data=data)


def _with_settings(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    known = [f"{section}.{key}" for section, kind in _SECTIONS.items() for key in keys_of(kind)]
    values: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    for setting in settings:
        source = f"--set {setting}"
        key, equals, text = setting.partition("=")
        if not equals:
            raise VtgError(f"{source}: has no value; write it like train.rate=1e-4")
        key = key.strip()
        if key not in known:
            names = {name.partition(".")[2]: name for name in known}
            near = [names[key]] if key in names else difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the sections are {', '.join(_SECTIONS)}"
            raise VtgError(f"{source}: there is no {key}; {hint}")
        section, _, field = key.partition(".")
        values[section] |= section_values(_SECTIONS[section], {field: _value(text.strip())}, section, source)
    source = " ".join(f"--set {setting}" for setting in settings)
    stated = recipe.stated | {f"{section}.{field}" for section, own in values.items() for field in own}
    changed = {section: with_values(getattr(recipe, section), own, section, source) for section, own in values.items()}
    recipe = replace(recipe, **changed, stated=stated)
    check_sections(recipe.data, recipe.evaluation, recipe.train, source)
    return recipe


def _value(text: str) -> Any:
    """Parse the value of a setting as TOML; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _parsed(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise VtgError(f"{source}: not valid TOML: {error}") from None
    except RecursionError:
        raise VtgError(f"{source}: not valid TOML: nested too deeply") from None
