"""The recipes: which files a data set consists of, how its features are sampled, and what decides on it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from vtg.datasets import DATASETS, RATED_DATASETS, Sample, load_samples
from vtg.errors import VtgError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["DataRecipe", "EvaluationRecipe", "Recipe", "available_recipes", "load_recipe"]

_SUPPRESSIONS = ("normal", "linear", "gaussian")
_TOP_KEYS = ("base", "data", "evaluation", "domains")

Section = TypeVar("Section", "DataRecipe", "EvaluationRecipe")


@dataclass(frozen=True)
class DataRecipe:
    """What a data set consists of, and where.

    Attributes:
        dataset: one of `vtg.datasets.DATASETS`, or a name of one's own.
        folder: holds everything else; `data/<dataset>` under the working directory if a published recipe does not say,
            the recipe's own folder if one's own does not.
        annotations: file names by part ("train", "val", "test"): the first that is there is used.
        videos: folder of the videos.
        video_features: folder of one `.npy` a video.
        query_features: folder of one `.npy` a query.
        video_name: the name of a video's file and features, without the ending, of {vid}.
        query_name: the name of a query's features, without the ending, of {qid} or {vid}.
        fps: frames a second in the features; None: one frame an annotated clip.
        min_duration: shorter videos, in seconds, are left out of training.
        domain: the only domain that is used; None for all, or where there are none.
    """

    dataset: str = "own"
    folder: Path = Path()
    annotations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    videos: str = "videos"
    video_features: str = "clip_b32_vid_k4"
    query_features: str = "clip_b32_txt_k4"
    video_name: str = "{vid}"
    query_name: str = "{qid}"
    fps: float | None = None
    min_duration: float = 0.0
    domain: str | None = None

    def annotation_file(self, split: str) -> Path:
        """The annotation file of a part.

        Raises:
            VtgError: the recipe knows no such part, or none of its files is there.
        """
        if split not in self.annotations:
            known = ", ".join(self.annotations) or "none"
            raise VtgError(f"the data set {self.dataset} has no part {split!r}; it has {known}")
        names = self.annotations[split]
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        raise VtgError(f"{self.folder}: no annotations for {split}; put {' or '.join(names)} there")

    def samples(self, split: str, file: Path | None = None) -> list[Sample]:
        """The samples of a part: of its domain if it has one, without videos that are too short to train on.

        Args:
            split: a part; what is not "train" keeps short videos.
            file: an annotation file to read in place of `annotation_file(split)`.

        Raises:
            VtgError: the file is not there or malformed, or has no sample of this part.
        """
        file = self.annotation_file(split) if file is None else file
        samples = load_samples(file, self.dataset if self.dataset in DATASETS else None)
        if self.dataset in RATED_DATASETS:
            samples = [sample for sample in samples if sample.split == split]
        if self.domain is not None:
            samples = [sample for sample in samples if sample.domain == self.domain]
        if split == "train":
            samples = [sample for sample in samples if sample.duration >= self.min_duration]
        if not samples:
            domain = f" in the domain {self.domain}" if self.domain else ""
            raise VtgError(f"{file}: no samples for {split}{domain}; give the file of that part")
        return samples

    def video_feature_file(self, video_id: str) -> Path:
        """Where the published layout has the features of a video."""
        return self.folder / self.video_features / f"{self.video_name.format(vid=video_id)}.npy"

    def query_feature_file(self, query_id: int | str, video_id: str) -> Path:
        """Where the published layout has the features of a query."""
        return self.folder / self.query_features / f"{self.query_name.format(qid=query_id, vid=video_id)}.npy"


@dataclass(frozen=True)
class EvaluationRecipe:
    """How predictions are made ready and what decides which head is the best.

    Attributes:
        split: the part that figures are published on.
        metric: the brief figure that decides, by its published name.
        unit: windows are rounded to this many seconds; None leaves them.
        nms: how windows that overlap a better one are rescored: "normal", "linear", "gaussian", or None.
        nms_threshold: the IoU from which "normal" drops a window.
    """

    split: str = "val"
    metric: str = "MR-full-mAP"
    unit: float | None = None
    nms: str | None = None
    nms_threshold: float = 0.7


@dataclass(frozen=True)
class Recipe:
    """One benchmark, one of its domains, or a data set of one's own.

    Attributes:
        name: of the recipe: `r2-<name>` is the published head's.
        data: what it is trained and evaluated on.
        evaluation: how.
        members: names of the recipes that make it up: one a domain, their mean is the figure; empty for a recipe on its
            own.
    """

    name: str
    data: DataRecipe
    evaluation: EvaluationRecipe
    members: tuple[str, ...] = ()


def available_recipes() -> tuple[str, ...]:
    """The names of the published recipes, those with domains followed by one name a domain."""
    names = []
    for resource in sorted(files(__name__).iterdir(), key=lambda resource: resource.name):
        if resource.name.endswith(".toml"):
            name = resource.name.removesuffix(".toml")
            domains = tomllib.loads(resource.read_text(encoding="utf-8")).get("domains", {})
            names += [name, *(f"{name}-{code}" for code in domains)]
    return tuple(names)


def load_recipe(name: str | Path) -> Recipe:
    """A published recipe by its name, or one's own by its path.

    Args:
        name: one of `available_recipes()`, or a `.toml` file: sections `[data]` and `[evaluation]` with the fields of
            `DataRecipe` and `EvaluationRecipe`; `base = "<published recipe>"` takes over what the file does not say.

    Raises:
        VtgError: there is no such recipe, the file is not TOML, or it has a key that no recipe has or a value of the
            wrong type.
    """
    if str(name).endswith(".toml"):
        return _own_recipe(Path(name))
    name = str(name)
    if name not in available_recipes():
        near = difflib.get_close_matches(name, available_recipes(), n=1)
        hint = f"did you mean {near[0]}?" if near else "see vtg.recipes.available_recipes()"
        raise VtgError(f"there is no recipe {name!r}; {hint}")
    return _published_recipe(name)


def _published_recipe(name: str) -> Recipe:
    whole, _, code = name.partition("-")
    source = f"recipe {whole}"
    content = _parsed((files(__name__) / f"{whole}.toml").read_text(encoding="utf-8"), source)
    folder = Path("data") / whole
    recipe = _recipe(name, content, source, Recipe(name, DataRecipe(folder=folder), EvaluationRecipe()), Path())
    domains = content.get("domains", {})
    if code:
        return replace(recipe, data=replace(recipe.data, domain=domains[code]))
    return replace(recipe, members=tuple(f"{name}-{member}" for member in domains))


def _own_recipe(path: Path) -> Recipe:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise VtgError(f"{path}: there is no such recipe; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise VtgError(f"{path}: cannot be read as text ({error}); give a TOML file") from None
    content = _parsed(text, str(path))
    if "domains" in content:
        raise VtgError(f"{path}: [domains] is for the published recipes; name one with data.domain")
    name = path.stem
    base = content.get("base")
    if base is not None and not isinstance(base, str):
        raise VtgError(f"{path}: base must be the name of a published recipe, not {base!r}")
    start = Recipe(name, DataRecipe(folder=path.parent), EvaluationRecipe())
    if base is not None:
        taken = load_recipe(base)
        start = Recipe(name, replace(taken.data, folder=path.parent), taken.evaluation)
    return _recipe(name, content, str(path), start, path.parent)


def _recipe(name: str, content: Mapping[str, Any], source: str, start: Recipe, beside: Path) -> Recipe:
    """`start` with what a file's content says; relative folders count from `beside`."""
    _refuse_unknown(content, _TOP_KEYS, "", source)
    data = _changed(start.data, content.get("data", {}), "data", source)
    if "folder" in content.get("data", {}):
        data = replace(data, folder=beside / data.folder)
    evaluation = _changed(start.evaluation, content.get("evaluation", {}), "evaluation", source)
    if evaluation.nms is not None and evaluation.nms not in _SUPPRESSIONS:
        raise VtgError(f"{source}: evaluation.nms is {evaluation.nms!r}; it is one of {', '.join(_SUPPRESSIONS)}")
    for pattern, key in ((data.video_name, "video_name"), (data.query_name, "query_name")):
        _check_pattern(pattern, key, source)
    return Recipe(name, data, evaluation)


def _parsed(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise VtgError(f"{source}: not valid TOML: {error}") from None


def _changed(section: Section, content: object, name: str, source: str) -> Section:
    """The section with the values of a TOML table; every key and type is checked."""
    if not isinstance(content, dict):
        raise VtgError(f"{source}: {name} must be a section, [{name}], not {content!r}")
    _refuse_unknown(content, [field.name for field in fields(section)], f"{name}.", source)
    kinds = {field.name: str(field.type) for field in fields(section)}
    values = {key: _converted(value, kinds[key], f"{name}.{key}", source) for key, value in content.items()}
    return replace(section, **values)


def _converted(value: object, kind: str, key: str, source: str) -> Any:
    """A TOML value as the field's type, which is one of the few that recipes have."""
    if kind.startswith("Mapping"):
        return _parts(value, key, source)
    if kind.startswith("float"):
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"):
            return float(value)
        raise VtgError(f"{source}: {key} must be a number of at least 0, not {value!r}")
    if not isinstance(value, str) or not value:
        raise VtgError(f"{source}: {key} must be a text, not {value!r}")
    return Path(value) if kind == "Path" else value


def _parts(value: object, key: str, source: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise VtgError(f'{source}: {key} must name files by part, like val = "val.jsonl", not {value!r}')
    parts = {}
    for part, names in value.items():
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise VtgError(f"{source}: {key}.{part} must be a file name or a list of them, not {value[part]!r}")
        parts[part] = tuple(names)
    return parts


def _check_pattern(pattern: str, key: str, source: str) -> None:
    try:
        pattern.format(vid="", qid="")
    except (KeyError, IndexError, ValueError):
        raise VtgError(f"{source}: data.{key} is {pattern!r}; only {{vid}} and {{qid}} stand for something") from None


def _refuse_unknown(content: Mapping[str, Any], known: Any, prefix: str, source: str) -> None:
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(known)}"
            raise VtgError(f"{source}: there is no {prefix}{key}; {hint}")
