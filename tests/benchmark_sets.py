"""Long videos with random features, and annotations in the own form of TACoS, Ego4D-NLQ and TVSum, for evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtg.datasets import domains, videos_of
from vtg.features.store import PublishedFeatures
from vtg.r2 import HeadConfig, R2Head, save_head
from vtg.recipes import load_recipe

LAYERS, TOKENS, VIDEO_WIDTH, QUERY_WIDTH = 4, 5, 24, 20
RATE = 0.5  # frames a second, of all three
FILES = {"tacos": "test.jsonl", "ego4d": "nlq_val.json", "tvsum": "tvsum_train.jsonl"}
SPLITS = {"tacos": "test", "ego4d": "val", "tvsum": "train"}  # TVSum's val part has 10 videos only


@dataclass(frozen=True)
class Query:
    """One query: its features are named by `file`, its line in the predictions by `query_id`."""

    query_id: str
    file: str
    video_id: str
    text: str
    duration: float


def write_benchmark(folder: Path, dataset: str, frames: Sequence[int], queries: int = 2, seed: int = 0) -> list[Query]:
    """Annotations and features of as many videos as there are numbers of frames, with so many queries each.

    TVSum has one query a video. Windows and ratings are random too.
    """
    random = np.random.default_rng(seed)
    published, data = PublishedFeatures(folder), load_recipe(dataset).data
    ids = [f"v{number}" for number in range(len(frames))]
    if dataset == "tvsum":
        ids = [video for domain in domains("tvsum") for video in videos_of("tvsum", domain, "train")][: len(frames)]
    asked = []
    for video, length in zip(ids, frames, strict=True):
        duration = length / RATE - (0 if dataset == "tvsum" else 0.7)
        name = data.video_feature_file(video).stem
        published.write_video(name, random.normal(size=(length, LAYERS, TOKENS, VIDEO_WIDTH)))
        for place in range(1 if dataset == "tvsum" else queries):
            query = video if dataset == "tvsum" else f"{video}_{place}"
            file = data.query_feature_file(query, video).stem
            published.write_query(file, random.normal(size=(int(random.integers(4, 12)), LAYERS, QUERY_WIDTH)))
            asked.append(Query(query, file, video, f"what happens in {query}", duration))
    lines = {"tacos": _tacos, "ego4d": _ego4d, "tvsum": _tvsum}[dataset](asked, random)
    (folder / FILES[dataset]).write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return asked


def _window(query: Query, random: np.random.Generator) -> list[float]:
    return sorted(random.uniform(0, query.duration, 2).round(2).tolist())


def _tacos(queries: Sequence[Query], random: np.random.Generator) -> list[dict[str, Any]]:
    return [
        {
            "qid": query.query_id,
            "query": query.text,
            "duration": query.duration,
            "vid": query.video_id,
            "relevant_windows": [_window(query, random)],
        }
        for query in queries
    ]


def _ego4d(queries: Sequence[Query], random: np.random.Generator) -> list[dict[str, Any]]:
    """One document: videos, their clips, the annotations of a clip, the queries of an annotation."""
    clips: dict[str, dict[str, Any]] = {}
    for query in queries:
        annotation = {"annotation_uid": query.video_id, "language_queries": []}
        clip = clips.setdefault(
            query.video_id,
            {
                "clip_uid": query.video_id,
                "video_start_sec": 30.0,
                "video_end_sec": 30.0 + query.duration,
                "clip_start_sec": 0.0,
                "clip_end_sec": query.duration,
                "annotations": [annotation],
            },
        )
        start, end = _window(query, random)
        own = {"query": query.text, "clip_start_sec": start, "clip_end_sec": end}
        clip["annotations"][0]["language_queries"].append(own)
    return [{"version": "1", "videos": [{"video_uid": "all", "clips": [clip]} for clip in clips.values()]}]


def _tvsum(queries: Sequence[Query], random: np.random.Generator) -> list[dict[str, Any]]:
    lines = []
    for query in queries:
        clips = round(query.duration / 2)
        marks = random.integers(1, 6, size=(clips, 20)).astype(float).tolist()
        fields = {"qid": query.query_id, "query": query.text, "duration": clips, "vid": query.video_id}
        lines.append({**fields, "relevant_clip_ids": None, "relevant_windows": None, "label": marks})
    return lines


def write_head(path: Path, seed: int = 0, **changes: Any) -> R2Head:
    """A head of random weights, whose gates and scales let every part have a say; returned as it was saved."""
    torch.manual_seed(seed)
    config = {
        "hidden_width": 32,
        "video_width": VIDEO_WIDTH,
        "query_width": QUERY_WIDTH,
        "layers": LAYERS,
        "tokens": TOKENS,
        "clip_model": None,
        "clip_pretrained": None,
    }
    head = R2Head(HeadConfig(**{**config, **changes})).eval()
    with torch.no_grad():
        head.block.scale.uniform_(0.5, 1.0)
        if head.block.gate is not None:
            head.block.gate.uniform_(-1.0, 1.0)
        # Scores and lengths as different as a trained head's: windows of random weights are nearly alike.
        head.class_head[-1].weight.mul_(20)
        if head.coordinate_head is not None:
            head.coordinate_head[-1].weight.mul_(5)
    save_head(head, path)
    return head
