"""From a video and a sentence, or none, to a plan: what is asked, what the ends of clips become, what is exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timecode import Codecs, ffmpeg

from vtg import ClipEncoder, Grounder, VtgError
from vtg.features.store import VideoFeatures
from vtg.summary import (
    NEUTRAL_PROMPTS,
    Clip,
    Plan,
    best_labels,
    find_highlights,
    plan_document,
    reel_spans,
    sharpen,
    subtitles,
    summarize,
    write_storyboard,
)
from vtg.summary.storyboard import draw_storyboard
from vtg.video import probe

CUTS = (2.44, 6.2, 9.0)  # seconds, at 25 pictures a second


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds in four flat colours, with a title of its own."""
    path = tmp_path_factory.mktemp("film") / "my_own-film.mp4"
    ends = np.diff([0.0, *CUTS, 12.0])
    inputs = [
        part
        for colour, seconds in zip(("red", "green", "blue", "white"), ends, strict=True)
        for part in ("-f", "lavfi", "-i", f"color={colour}:s=64x48:r=25:d={seconds:.2f}")
    ]
    join = ["-filter_complex", "[0][1][2][3]concat=n=4[v]", "-map", "[v]", "-metadata", "title=Four colours"]
    ffmpeg(*inputs, *join, *Codecs["h264"], str(path))
    return path


@pytest.fixture(scope="module")
def encoder(tiny_clip: Path) -> ClipEncoder:
    return ClipEncoder(pretrained=str(tiny_clip), device="cpu")


def highlight_only(encoder: ClipEncoder) -> Grounder:
    import torch

    from vtg.r2 import HeadConfig, R2Head

    torch.manual_seed(0)
    config = HeadConfig(
        hidden_width=32, video_width=64, query_width=64, tokens=5, strides=(1,), moment_retrieval=False,
        temporal_extent=False, clip_model=None, clip_pretrained=None,
    )  # fmt: skip
    return Grounder(encoder, R2Head(config), fps=1.0)


def plan_of(clips: list[Clip], shots: tuple[float, ...], budget: float | None, video: str = "film.mp4") -> Plan:
    return Plan(video, "a query", ("a query",), shots[-1], shots, tuple(clips), budget, 1.0)


def clip(start: float, end: float) -> Clip:
    return Clip(start, end, 0.5, (start + end) / 2)


# What is asked


def test_a_highlight_only_head_is_asked_with_the_title(encoder: ClipEncoder, film: Path, tmp_path: Path) -> None:
    grounder = highlight_only(encoder)
    assert probe(film).title == "Four colours"
    plan = find_highlights(grounder, film, top=2, seconds=3.0)
    assert plan.query is None and plan.prompts == ("Four colours",) and len(plan.clips) >= 1
    asked = find_highlights(grounder, film, "Four colours", top=2, seconds=3.0)
    assert asked.clips == plan.clips and asked.query == "Four colours"
    untitled = tmp_path / "my_own-film.mp4"
    ffmpeg("-i", str(film), "-c", "copy", "-map_metadata", "-1", str(untitled))
    assert summarize(grounder, untitled).prompts == ("my own film",)


def test_other_models_are_asked_neutral_prompts(encoder: ClipEncoder, film: Path) -> None:
    plan = summarize(Grounder(encoder, fps=1.0), film, seconds=4.0)
    assert plan.prompts == NEUTRAL_PROMPTS and plan.budget == 4.0
    assert 3.6 <= plan.seconds <= 4.0 + 1e-9


def test_a_budget_is_seconds_or_a_share(encoder: ClipEncoder, film: Path) -> None:
    grounder = Grounder(encoder, fps=1.0)
    assert summarize(grounder, film, "a circle", ratio=0.25).budget == pytest.approx(3.0)
    whole = summarize(grounder, film, "a circle", seconds=99.0)
    assert [(one.start, one.end) for one in whole.clips] == [(0.0, 12.0)] and whole.budget == 12.0
    for wrong in ({"ratio": 0.0}, {"seconds": 0.0}, {"seconds": -1.0}):
        with pytest.raises(VtgError, match="shows nothing"):
            summarize(grounder, film, "a circle", **wrong)
    with pytest.raises(VtgError, match="empty"):
        summarize(grounder, film, "  ")
    with pytest.raises(VtgError, match="length above 0"):
        find_highlights(grounder, film, seconds=0.0)


def test_clips_get_the_label_that_their_frames_are_nearest_to(encoder: ClipEncoder) -> None:
    red, blue = (text.embedding.float().numpy() for text in encoder.encode_texts(["red", "blue"]))
    features = VideoFeatures(1.0, 8.0, embedding=np.stack([red] * 4 + [blue] * 4), encoder=encoder.fingerprint)
    plan = plan_of([clip(0.0, 3.0), clip(4.0, 8.0), clip(1.0, 2.5)], (0.0, 4.0, 8.0), None)
    grounder = Grounder(encoder, fps=1.0)
    assert best_labels(grounder, features, plan, ["blue", "red"]) == ["red", "blue", "red"]
    with pytest.raises(VtgError, match="at least one"):
        best_labels(grounder, features, plan, [])
    without = VideoFeatures(1.0, 8.0, layers=np.zeros((8, 4, 5, 64), np.float16), name="x.npy")
    with pytest.raises(VtgError, match="no embeddings"):
        best_labels(grounder, without, plan, ["red"])


# What the ends of clips become


def test_ends_on_shot_boundaries_move_to_the_cut(film: Path) -> None:
    # Sampled once a second, the boundaries are found at 2, 6 and 9 s.
    plan = plan_of([clip(2.0, 4.5), clip(6.0, 9.0)], (0.0, 2.0, 6.0, 9.0, 12.0), None, str(film))
    moved = sharpen(plan)
    assert [(one.start, one.end) for one in moved.clips] == [(pytest.approx(2.44), 4.5), (pytest.approx(6.2), 9.0)]


def test_what_moves_inwards_pays_for_what_moves_outwards(film: Path) -> None:
    shots = (0.0, 2.0, 6.0, 9.0, 12.0)
    # The first clip would end 0.44 s later; the second begins 0.2 s later and sets that free.
    tight = sharpen(plan_of([clip(0.5, 2.0), clip(6.0, 8.0)], shots, 3.5, str(film)))
    assert [(one.start, one.end) for one in tight.clips] == [(0.5, 2.0), (pytest.approx(6.2), 8.0)]
    roomy = sharpen(plan_of([clip(0.5, 2.0), clip(6.0, 8.0)], shots, 3.74, str(film)))
    assert [(one.start, one.end) for one in roomy.clips] == [(0.5, pytest.approx(2.44)), (pytest.approx(6.2), 8.0)]
    assert roomy.seconds <= 3.74 + 1e-6


def test_clips_that_end_elsewhere_or_would_meet_stay(film: Path) -> None:
    calls: list[tuple[float, float | None]] = []
    inside = plan_of([clip(3.0, 5.0)], (0.0, 2.0, 6.0, 9.0, 12.0), None, str(film))
    assert sharpen(inside, lambda state: calls.append((state.done, state.total))).clips == inside.clips
    assert calls[-1] == (2, 2)
    meeting = plan_of([clip(0.0, 2.0), clip(2.2, 4.0)], (0.0, 2.0, 6.0, 12.0), None, str(film))
    assert sharpen(meeting).clips == meeting.clips


# What is exported


def test_a_plan_is_json_and_subtitles_in_the_time_of_the_reel() -> None:
    plan = plan_of([clip(10.0, 12.5), clip(63.0, 65.0), clip(70.0, 71.0)], (0.0, 30.0, 90.0), 6.0)
    labels = ["lake", "lake", "hut"]
    document = json.loads(json.dumps(plan_document(plan, labels)))
    assert document["shots"] == 2 and document["seconds"] == 5.5 and document["clips"][0]["label"] == "lake"
    assert document["chapters"] == [
        {"title": "lake", "start": 0.0, "end": 4.5},
        {"title": "hut", "start": 4.5, "end": 5.5},
    ]
    assert "chapters" not in plan_document(plan) and "label" not in plan_document(plan)["clips"][0]
    entries = subtitles(plan, labels).split("\n\n")
    assert entries[1] == "2\n00:00:02,500 --> 00:00:04,500\nlake, 01:03–01:05"
    assert subtitles(plan).startswith("1\n00:00:00,000 --> 00:00:02,500\n00:10–00:12\n\n2\n")
    spans = reel_spans(plan, labels, captions=True)
    assert [span.chapter for span in spans] == labels and spans[2].caption == "hut, 01:10–01:11"
    assert all(span.caption == span.chapter == "" for span in reel_spans(plan))


def test_a_storyboard_shows_the_peaks_with_their_captions(film: Path, tmp_path: Path) -> None:
    clips = [Clip(0.0, 2.0, 0.9, 1.0), Clip(3.0, 5.0, 0.5, 4.0), Clip(9.5, 12.0, 0.1, 11.9)]
    plan = plan_of(clips, (0.0, 12.0), None, str(film))
    out = write_storyboard(plan, ["one", "two", "three"], tmp_path / "board.png")
    board = np.asarray(Image.open(out)).astype(int)
    middles = [board[100, 170], board[100, 500], board[100 + board.shape[0] // 2, 170]]
    for middle, colour in zip(middles, ((255, 0, 0), (0, 128, 0), (255, 255, 255)), strict=True):
        assert np.abs(middle - colour).max() < 30
    assert [path.name for path in tmp_path.iterdir()] == ["board.png"]
    for wrong, reason in ((tmp_path / "x.jpg", "ending"), (tmp_path / "no" / "x.png", "does not exist")):
        with pytest.raises(VtgError, match=reason):
            write_storyboard(plan, ["", "", ""], wrong)
    with pytest.raises(VtgError, match="has no clips for a storyboard"):
        write_storyboard(plan_of([], (0.0, 12.0), None, str(film)), [], tmp_path / "x.png")


def test_key_frames_of_any_shape_keep_it() -> None:
    frames = [np.full((90, 160, 3), 200, np.uint8), np.full((160, 90, 3), 100, np.uint8)]
    board = draw_storyboard(frames, ["wide", "upright " * 30])
    assert (board == 200).all(axis=2).sum() > 0.9 * 160 * 90
    columns = np.flatnonzero((board == 100).all(axis=2).any(axis=0))
    assert 90 <= np.ptp(columns) + 1 <= 110
