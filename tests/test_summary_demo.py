"""Highlights and summaries of unseen scenes by the bundled demo head: what was asked for is in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import vtg
from tools.demo.features import SplitQueries, draw_scene
from vtg.features.store import VideoFeatures
from vtg.grounding.grounder import Grounder
from vtg.metrics import highlight_detection
from vtg.summary import find_highlights, summarize

RATIO = 0.3


@dataclass(frozen=True)
class SceneQuery:
    """A query about a scene.

    Attributes:
        features: features of the scene.
        query: the text.
        windows: windows that match, in seconds.
        marks: [clips, 3] ratings by three raters.
    """

    features: VideoFeatures
    query: str
    windows: list[list[float]]
    marks: np.ndarray


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return vtg.load("demo", device="cpu")


@pytest.fixture(scope="module")
def queries(grounder: Grounder) -> list[SceneQuery]:
    queries = []
    for index in range(700, 710):
        scene = draw_scene(SplitQueries("test", 8), index, grounder.encoder.image_size)
        encoded = grounder.encoder.encode_frames(scene.frames)
        layers, embedding = encoded.layers.half().numpy(), encoded.embedding.float().numpy()
        features = VideoFeatures(0.5, 2.0 * len(layers), layers, embedding)
        for fields in scene.annotations:
            marks = np.zeros((len(layers), 3))
            marks[fields["relevant_clip_ids"]] = fields["saliency_scores"]
            queries.append(SceneQuery(features, fields["query"], fields["relevant_windows"], marks))
    return queries


def test_summaries_hold_what_is_asked_for_where_the_budget_allows(
    grounder: Grounder, queries: list[SceneQuery]
) -> None:
    held = wanted = 0.0
    for one in queries:
        seconds = sum(end - start for start, end in one.windows)
        if seconds > RATIO * one.features.duration:
            continue
        plan = summarize(grounder, one.features, one.query, ratio=RATIO)
        assert plan.seconds <= RATIO * one.features.duration + 1e-6
        spans = [(clip, window) for clip in plan.clips for window in one.windows]
        held += sum(max(0.0, min(clip.end, end) - max(clip.start, start)) for clip, (start, end) in spans)
        wanted += seconds
    assert wanted > 300 and held >= 0.8 * wanted


def test_the_first_highlight_is_a_very_good_clip(grounder: Grounder, queries: list[SceneQuery]) -> None:
    peaks, marks = [], []
    for one in queries:
        best = find_highlights(grounder, one.features, one.query, top=1, seconds=6.0).clips[0]
        peak = np.zeros(len(one.marks))
        peak[int(best.peak * one.features.fps)] = 1
        peaks.append(peak)
        marks.append(one.marks)
    assert highlight_detection(peaks, marks)["VeryGood"].hit_at_one() >= 0.8
