"""Published domains and splits of YouTube Highlights and TVSum."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from vtg.datasets.samples import Split

__all__ = ["domain_of", "domains", "videos_of"]


def domains(dataset: str) -> tuple[str, ...]:
    """The domains of "youtube" or "tvsum", in their published order."""
    return tuple(_splits(dataset))


def videos_of(dataset: str, domain: str, split: Split) -> tuple[str, ...]:
    """The video ids of a split of a domain, in their published order; some have no annotation and are not used."""
    return tuple(_splits(dataset)[domain][split])


def domain_of(dataset: str, video_id: str) -> tuple[str | None, Split | None]:
    """The domain and split of a video; (None, None) if it is in no published split."""
    return _places(dataset).get(video_id, (None, None))


@cache
def _splits(dataset: str) -> dict[str, dict[Split, list[str]]]:
    content = (files("vtg.datasets") / "splits" / f"{dataset}.json").read_text(encoding="utf-8")
    splits: dict[str, dict[Split, list[str]]] = json.loads(content)
    return splits


@cache
def _places(dataset: str) -> dict[str, tuple[str | None, Split | None]]:
    return {
        video_id: (domain, split)
        for domain, parts in _splits(dataset).items()
        for split, video_ids in parts.items()
        for video_id in video_ids
    }
