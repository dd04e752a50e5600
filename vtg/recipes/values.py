"""Convert and check the values of TOML files and settings for the sections of a recipe."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from vtg.errors import VtgError
from vtg.files.text import short_repr
from vtg.r2.config import SUPPRESSIONS, HeadConfig
from vtg.recipes.sections import MODEL_KEYS, POSITIVES, PRECISIONS, DataRecipe, EvaluationRecipe, TrainRecipe

__all__ = ["changed_section", "check_keys", "check_sections", "keys_of", "section_values", "with_values"]

NULL_TEXT = "none"  # text for None, as TOML has no null
POSITIVE_KEYS = ("batch", "accumulate", "epochs", "repeats", "queries_per_video", "validate_every")

Section = TypeVar("Section", DataRecipe, EvaluationRecipe, HeadConfig, TrainRecipe)


def keys_of(kind: type) -> tuple[str, ...]:
    """The keys of a section, by its data class."""
    return MODEL_KEYS if kind is HeadConfig else tuple(field.name for field in fields(kind))


def changed_section(section: Section, content: object, name: str, source: str) -> Section:
    """A section with the values of a TOML table.

    Args:
        section: with the values of missing keys.
        content: the table.
        name: of the section.
        source: the file, for errors.

    Raises:
        VtgError: not a table, an unknown key, or an invalid value.
    """
    return with_values(section, section_values(type(section), content, name, source), name, source)


def section_values(kind: type, content: object, name: str, source: str) -> dict[str, Any]:
    """The values of a TOML table, in the types of a section's fields.

    Args:
        kind: the section's data class.
        content: the table.
        name: of the section.
        source: the file, for errors.

    Raises:
        VtgError: not a table, an unknown key, or a value of the wrong type.
    """
    if not isinstance(content, dict):
        raise VtgError(f"{source}: {name} must be a section, [{name}], not {short_repr(content)}")
    check_keys(content, keys_of(kind), f"{name}.", source)
    kinds = {field.name: str(field.type) for field in fields(kind)}
    return {key: _converted(value, kinds[key], f"{name}.{key}", source) for key, value in content.items()}


def with_values(section: Section, values: Mapping[str, Any], name: str, source: str) -> Section:
    """A section with several values changed at once, as some are only valid together.

    Raises:
        VtgError: an invalid value.
    """
    try:
        return replace(section, **values)
    except ValueError as error:
        raise VtgError(f"{source}: {name}.{error}") from None


def check_sections(data: DataRecipe, evaluation: EvaluationRecipe, train: TrainRecipe, source: str) -> None:
    """Check values that depend on each other or have a fixed set of choices.

    Raises:
        VtgError: an invalid value.
    """
    _check_choice(evaluation.nms, (None, *SUPPRESSIONS), "evaluation.nms", source)
    _check_choice(train.precision, PRECISIONS, "train.precision", source)
    _check_choice(train.positive, POSITIVES, "train.positive", source)
    for key in POSITIVE_KEYS:
        if getattr(train, key) < 1:
            raise VtgError(f"{source}: train.{key} must be at least 1, not {getattr(train, key)}")
    if train.batch % train.queries_per_video:
        raise VtgError(
            f"{source}: train.batch {train.batch} is not a multiple of train.queries_per_video "
            f"{train.queries_per_video}; choose one that is"
        )
    for pattern, key in ((data.video_name, "video_name"), (data.query_name, "query_name")):
        try:
            pattern.format(vid="", qid="")
        except (KeyError, IndexError, ValueError):
            raise VtgError(
                f"{source}: data.{key} is {short_repr(pattern)}; only {{vid}} and {{qid}} can be used"
            ) from None


def check_keys(content: Mapping[str, Any], known: Sequence[str], prefix: str, source: str) -> None:
    """Check that all keys are known.

    Raises:
        VtgError: the first unknown key, with the most similar known one.
    """
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(known)}"
            raise VtgError(f"{source}: there is no {prefix}{key}; {hint}")


def _check_choice(value: str | None, choices: Sequence[str | None], key: str, source: str) -> None:
    if value not in choices:
        known = ", ".join(choice for choice in choices if choice is not None)
        raise VtgError(f"{source}: {key} is {short_repr(value)}; it is one of {known}")


def _converted(value: object, kind: str, key: str, source: str) -> Any:
    """Convert a TOML value to the type of a field."""
    kind, optional = kind.removesuffix(" | None"), kind.endswith(" | None")
    if optional and value == NULL_TEXT:
        return None
    if kind.startswith("Mapping"):
        return _parts(value, key, source)
    if kind.startswith("tuple"):
        if isinstance(value, list) and value and all(_is_whole(number) for number in value):
            return tuple(value)
        raise VtgError(f"{source}: {key} must be a list of whole numbers, not {short_repr(value)}")
    if kind == "bool":
        if isinstance(value, bool):
            return value
        raise VtgError(f"{source}: {key} must be true or false, not {short_repr(value)}")
    if kind == "int":
        if _is_whole(value):
            return value
        raise VtgError(f"{source}: {key} must be a whole number of at least 0, not {short_repr(value)}")
    if kind == "float":
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"):
            return float(value)
        raise VtgError(f"{source}: {key} must be a number of at least 0, not {short_repr(value)}")
    if not isinstance(value, str) or not value:
        raise VtgError(f"{source}: {key} must be a text, not {short_repr(value)}")
    return Path(value) if kind == "Path" else value


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _parts(value: object, key: str, source: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise VtgError(f'{source}: {key} must name files by part, like val = "val.jsonl", not {short_repr(value)}')
    parts = {}
    for part, names in value.items():
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise VtgError(
                f"{source}: {key}.{part} must be a file name or a list of them, not {short_repr(value[part])}"
            )
        parts[part] = tuple(names)
    return parts
