"""Small data sets in the published layout, for the tests of training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from vtg.features.store import PublishedFeatures

LAYERS, TOKENS, VIDEO_WIDTH, QUERY_WIDTH = 4, 5, 16, 12
RECIPE = """
[data]
fps = 0.5
annotations = { train = "train.jsonl", val = "val.jsonl" }

[model]
hidden_width = 32
strides = [1, 2]

[train]
batch = 4
epochs = 2
rate = 1e-3
warmup_steps = 3
"""


def write_part(folder: Path, name: str, videos: int, queries: int = 2, seed: int = 0) -> None:
    """Videos of 6 to 12 frames with random features, and annotations in QVHighlights' form."""
    random = np.random.default_rng(seed)
    published = PublishedFeatures(folder)
    lines = []
    for number in range(videos):
        frames = int(random.integers(6, 13))
        video = f"{name}{number}"
        published.write_video(video, random.normal(size=(frames, LAYERS, TOKENS, VIDEO_WIDTH)))
        for _ in range(queries):
            start = int(random.integers(0, frames - 2))
            clips = list(range(start, int(random.integers(start + 1, frames))))
            query = f"{name}-{len(lines)}"
            published.write_query(query, random.normal(size=(int(random.integers(3, 7)), LAYERS, QUERY_WIDTH)))
            fields = {"qid": query, "vid": video, "query": "a dog", "duration": 2 * frames}
            windows = {"relevant_windows": [[2 * clips[0], 2 * clips[-1] + 2]], "relevant_clip_ids": clips}
            lines.append({**fields, **windows, "saliency_scores": [[2, 3, 4]] * len(clips)})
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_data_set(folder: Path, videos: int = 8) -> Path:
    """A training and a validation part and a recipe for them; returns the recipe."""
    write_part(folder, "train", videos)
    write_part(folder, "val", 2, seed=1)
    recipe = folder / "mine.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    return recipe
