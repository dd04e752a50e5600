"""The demo world: what is drawn is what is true, the same every time, and its small CLIP can be trained and read."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tools.evaluate_demo import TestVideos, evaluate_demo
from vtg.demo import (
    CLIP_SECONDS,
    Description,
    Order,
    Sentence,
    Thing,
    absent_sentences,
    annotate,
    clip_path,
    head_path,
    long_scene,
    make_scene,
    make_videos,
    split_seed,
    true_sentences,
    truth,
    write_video,
)
from vtg.demo.scene import Scene
from vtg.demo.scenes import SPLIT_SIZE, SPLITS
from vtg.demo.sentences import KINDS, choose_sentences, holds, part_codes
from vtg.demo.world import COLOURS, PLACES, SHAPES, SIZES, Action, Backdrop
from vtg.errors import VtgError
from vtg.progress import Progress
from vtg.timespans import interval_iou

SEEDS = range(3_500_000, 3_500_003)
GREY = Backdrop(0.0, 60.0, "gradient", ((90, 96, 104), (98, 100, 110)), (0.5,) * 24)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory):
    """Two short test videos at half size, and the progress that was reported."""
    folder = tmp_path_factory.mktemp("demo")
    reported: list[tuple[float, float | None]] = []
    made = make_videos(
        folder,
        "test",
        2,
        seconds=24,
        width=160,
        height=120,
        progress=lambda state: reported.append((state.done, state.total)),
    )
    return folder, made, reported


@pytest.fixture(scope="module")
def bundled():
    """The bundled CLIP."""
    from vtg import ClipEncoder

    return ClipEncoder(pretrained=str(clip_path()), device="cpu")


def test_the_same_seed_gives_the_same_scene_frames_and_annotations():
    first, again, other = (make_scene(split_seed("val", index)) for index in (3, 3, 4))
    assert first == again and other != first
    assert np.array_equal(frames_of(first), frames_of(again))
    assert annotations_of(first) == annotations_of(again) != annotations_of(other)


def frames_of(scene: Scene) -> np.ndarray:
    return np.stack([scene.frame(float(time), 80, 60) for time in scene.clip_times])


def annotations_of(scene: Scene) -> list[dict[str, Any]]:
    asked = choose_sentences(scene, 8, np.random.default_rng(0))
    return [annotate(scene, "a", sentence, number) for number, sentence in enumerate(asked)]


def test_the_same_scene_gives_the_same_file(tmp_path: Path):
    scene = make_scene(7, 8)
    write_video(scene, tmp_path / "a.mp4", 64, 48)
    write_video(scene, tmp_path / "b.mp4", 64, 48)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_splits_share_no_seed():
    ranges = sorted((split_seed(split, 0), split_seed(split, SPLIT_SIZE - 1)) for split in SPLITS)
    assert all(last < first for (_, last), (first, _) in pairwise(ranges))


@pytest.mark.parametrize(("split", "index"), [("dev", 0), ("test", -1), ("test", SPLIT_SIZE)])
def test_an_unknown_split_or_number_is_an_error(split: str, index: int):
    with pytest.raises(VtgError, match="split"):
        split_seed(split, index)


@pytest.mark.parametrize(("duration", "cuts"), [(4, ()), (20, (10, 10)), (20, (24,)), (20, (0,))])
def test_impossible_lengths_and_cuts_are_errors(duration: float, cuts: tuple[float, ...]):
    with pytest.raises(VtgError):
        make_scene(1, duration, cuts)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_thing_shows_during_its_life_and_at_no_other_time(seed: int):
    scene = make_scene(seed)
    for index, thing in enumerate(scene.things):
        without = replace(scene, things=scene.things[:index] + scene.things[index + 1 :])
        inside = [thing.start + 0.5, (thing.start + thing.end) / 2, thing.end - 0.5]
        for time in (*inside, thing.start - 0.01, thing.end + 0.01):
            differs = np.any(scene.frame(time, 120, 90) != without.frame(time, 120, 90))
            assert differs == (time in inside)


def test_pixels_have_the_colour_and_the_place_of_the_truth():
    for seed in SEEDS:
        scene = make_scene(seed)
        states = scene.clip_states
        for clip, time in enumerate(scene.clip_times):
            frame = scene.frame(time, 320, 240)
            for codes, index in zip(states.codes[clip], states.things[clip], strict=True):
                if index < 0 or codes[1] < 0 or SHAPES[codes[0]] == "ring":
                    continue
                thing = scene.things[index]
                if time - thing.start < 2 or thing.end - time < 2 or thing.action is not None:
                    continue
                x, y = 40 + 240 * thing.pose(time).x, 240 * thing.pose(time).y
                pixel = frame[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2].reshape(-1, 3).mean(0)
                colour = list(COLOURS)[codes[1]]
                assert min(COLOURS, key=lambda name: np.abs(pixel - COLOURS[name]).sum()) == colour
                row, column = divmod(int(codes[3]), 3)
                assert abs(x - 40 - 240 * (0.2 + 0.3 * column)) < 30 and abs(y - 240 * (0.2 + 0.3 * row)) < 30


def test_truth_is_what_the_things_say_clip_by_clip():
    for seed in SEEDS:
        scene = make_scene(seed)
        for sentence in true_sentences(scene, shortest=0, most=1)[::3]:
            held = _meant_plainly(scene, sentence)
            found = truth(scene, sentence)
            assert set(found.relevant_clip_ids) == held
            assert {
                c for s, e in found.windows for c in range(round(s / CLIP_SECONDS), round(e / CLIP_SECONDS))
            } == held


def _meant_plainly(scene: Scene, sentence: Sentence) -> set[int]:
    """The clips that a sentence means, by the world's rules once more: clip after clip, without tables."""

    def clips_of(parts: tuple[Description, ...]) -> list[int]:
        return [c for c, time in enumerate(scene.clip_times) if _holds_plainly(scene, Sentence(parts), float(time))]

    held = clips_of(sentence.parts)
    if sentence.order is None:
        return set(held)
    runs: list[list[int]] = []
    for clip in held:
        if runs and runs[-1][-1] == clip - 1:
            runs[-1].append(clip)
        else:
            runs.append([clip])
    relation, landmark = sentence.order.relation, sentence.order.landmark
    if landmark is None:
        return set(runs[0] if relation == "first" else runs[-1])
    seen = clips_of((landmark,))
    ordered = [run for run in runs if (max(run) < min(seen) if relation == "before" else min(run) > max(seen))]
    return {clip for run in ordered for clip in run}


def _holds_plainly(scene: Scene, sentence: Sentence, time: float) -> bool:
    """The world's rules once more, without tables."""

    def meets(thing: Thing, part: Description) -> bool:
        if not thing.start <= time < thing.end:
            return False
        pose, action = thing.pose(time), thing.action
        done = 0.0 if action is None else float(np.clip((time - action.start) / (action.end - action.start), 0, 1))
        turning = action is not None and action.kind.startswith("turn")
        colour: str | None = thing.colour
        if part.action is None and turning and action is not None and done > 0.25:
            colour = action.target if done >= 0.75 else None
        radii = {name: abs(np.log(pose.radius / radius)) <= np.log(1.15) for name, radius in SIZES.items()}
        places = {
            name: max(abs(pose.x - (0.2 + 0.3 * (i % 3))), abs(pose.y - (0.2 + 0.3 * (i // 3)))) <= 0.11
            for i, name in enumerate(PLACES)
        }
        return (
            part.shape in (None, thing.shape)
            and part.colour in (None, colour)
            and (part.size is None or bool(radii[part.size]))
            and (part.place is None or bool(places[part.place]))
            and (part.action is None or (action is not None and action.kind == part.action and 0 < done < 1))
        )

    return all(any(meets(thing, part) for thing in scene.things) for part in sentence.parts)


def test_annotations_are_in_the_format_of_qvhighlights(videos):
    folder, made, _ = videos
    lines = [json.loads(line) for line in (folder / "annotations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["qid"] for line in lines] == list(range(len(lines))) and len(lines) == sum(
        len(video.sentences) for video in made
    )
    for line in lines:
        assert (folder / f"{line['vid']}.mp4").is_file() and line["query"] and line["duration"] == 24
        assert len(line["saliency_scores"]) == len(line["relevant_clip_ids"]) > 0
        assert all(len(scores) == 3 and set(scores) <= set(range(5)) for scores in line["saliency_scores"])
        clips = [clip for start, end in line["relevant_windows"] for clip in range(int(start / 2), int(end / 2))]
        assert clips == line["relevant_clip_ids"] and max(clips) < 12


def test_files_have_the_length_and_the_pictures_of_their_scenes(videos):
    from vtg.video import probe, sample_frames

    _, made, _ = videos
    for video in made:
        assert probe(video.path).duration == pytest.approx(video.scene.duration, abs=0.1)
        frames = np.concatenate([chunk for _, chunk in sample_frames(video.path, fps=0.5, size=120)])
        drawn = np.stack([video.scene.frame(time, 160, 120)[:, 20:140] for time in video.scene.clip_times])
        assert np.abs(frames.astype(float) - drawn).mean() < 6


def test_progress_rises_to_the_number_of_frames_and_nothing_else_is_left(videos):
    folder, made, reported = videos
    assert [done for done, _ in reported] == sorted(done for done, _ in reported)
    assert reported[-1] == (480, 480)
    assert {path.name for path in folder.iterdir()} == {"annotations.jsonl", *(video.path.name for video in made)}


def test_videos_that_are_there_are_kept(videos):
    folder, made, _ = videos
    before = [video.path.stat().st_mtime_ns for video in made]
    again = make_videos(folder, "test", 2, seconds=24, width=160, height=120)
    assert [video.path.stat().st_mtime_ns for video in again] == before and again == made


def test_a_video_that_cannot_be_written_leaves_nothing(tmp_path: Path):
    with pytest.raises(VtgError, match="even"):
        write_video(make_scene(1, 8), tmp_path / "odd.mp4", 63, 48)
    with pytest.raises(VtgError, match=r"missing.*cannot be written to"):
        write_video(make_scene(1, 8), tmp_path / "missing" / "a.mp4", 64, 48)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_rendering_leaves_no_file(tmp_path: Path):
    def stop(state: Progress) -> None:
        if state.done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(make_scene(1, 8), tmp_path / "a.mp4", 64, 48, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_cuts_are_where_they_were_asked_for_and_nowhere_else():
    scene = make_scene(11, 40, cuts=(12, 20, 32))
    assert scene.cuts == (12, 20, 32)
    times = np.arange(0, 40, 0.1)
    frames = np.stack([scene.frame(time, 64, 48) for time in times]).astype(float)
    jumps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    at_cuts = np.isclose(times[1:, None], scene.cuts, atol=0.05).any(1)
    assert jumps[at_cuts].min() > 2 * jumps[~at_cuts].max()


def test_a_long_scene_has_its_event_once_in_the_middle():
    for seed in range(3):
        scene, event = long_scene(seed, 1800)
        assert scene.duration == 1800
        for sentence in (
            Sentence((Description(event.shape, event.colour),)),
            Sentence((Description(event.shape, event.colour, event.size, event.place),)),
        ):
            assert truth(scene, sentence).windows == ((event.start, event.end),)
        assert abs((event.start + event.end) / 2 - 900) <= CLIP_SECONDS


def test_a_turning_thing_has_no_colour_between_the_two():
    turn = Action("turn blue", 10.0, 18.0, "blue")
    scene = Scene(0, 30.0, (Thing("star", "red", "large", "centre", 4.0, 26.0, turn),), (GREY,))
    assert truth(scene, Sentence((Description("star", "red"),))).windows == ((4.0, 12.0),)
    assert truth(scene, Sentence((Description("star", "blue"),))).windows == ((16.0, 26.0),)
    assert truth(scene, Sentence((Description("star", "red", action="turn blue"),))).windows == ((10.0, 18.0),)
    assert truth(scene, Sentence((Description("star", "blue", action="turn blue"),))).windows == ()


def test_a_moving_thing_leaves_one_place_for_another():
    move = Action("right", 8.0, 16.0, "top right")
    scene = Scene(0, 30.0, (Thing("heart", "pink", "small", "top left", 2.0, 26.0, move),), (GREY,))
    assert truth(scene, Sentence((Description("heart", place="top left"),))).windows[0][0] == 2.0
    assert truth(scene, Sentence((Description("heart", place="top right"),))).windows[-1][1] == 26.0
    assert truth(scene, Sentence((Description("heart", "pink", "small", action="right"),))).windows == ((8.0, 16.0),)
    assert truth(scene, Sentence((Description("heart", action="left"),))).windows == ()


def test_order_says_which_of_the_windows_is_meant():
    circles = [Thing("circle", "red", "large", "centre", start, start + 8.0) for start in (2.0, 20.0, 40.0)]
    square = Thing("square", "blue", "small", "top", 12.0, 18.0)
    scene = Scene(0, 60.0, (*circles, square), (GREY,))
    circle, landmark = (Description("circle", "red"),), Description("square", "blue")

    def windows(relation: str, landmark: Description | None = None) -> list[float]:
        return [start for start, _ in truth(scene, Sentence(circle, Order(relation, landmark))).windows]

    assert windows("first") == [2.0] and windows("last") == [40.0]
    assert windows("before", landmark) == [2.0] and windows("after", landmark) == [20.0, 40.0]
    assert windows("before", Description("heart")) == windows("after", Description("heart")) == []
    said = {sentence for sentence in true_sentences(scene) if sentence.order is not None}
    assert Sentence(circle, Order("after", landmark)) in said and not any(one.single_frame for one in said)
    assert not any(one.parts[0].shape == "square" for one in said)  # it is there once: any order would say nothing
    assert Sentence(circle, Order("after", landmark)).text == "a red circle after a blue square"


def test_an_ordered_sentence_never_means_all_windows_of_what_it_is_about():
    for seed in SEEDS:
        scene = make_scene(seed)
        for sentence in true_sentences(scene):
            if sentence.order is not None:
                meant = set(truth(scene, sentence).windows)
                assert meant < set(truth(scene, Sentence(sentence.parts)).windows) and meant


def test_raters_agree_that_some_clip_is_very_good():
    for seed in SEEDS:
        scene = make_scene(seed)
        for sentence in true_sentences(scene)[::7]:
            assert max(max(scores) for scores in truth(scene, sentence).saliency_scores) == 4


def test_what_shows_better_is_rated_higher():
    things = (Thing("circle", "red", "large", "centre", 0.0, 10.0), Thing("circle", "red", "small", "top", 12.0, 30.0))
    scene = Scene(0, 30.0, things, (GREY,))
    found = truth(scene, Sentence((Description("circle", "red"),)))
    means = {clip: np.mean(scores) for clip, scores in zip(found.relevant_clip_ids, found.saliency_scores, strict=True)}
    assert np.mean([means[clip] for clip in (1, 2, 3)]) > np.mean([means[clip] for clip in range(7, 14)])
    assert np.mean([means[0], means[4]]) < np.mean([means[clip] for clip in (1, 2, 3)])  # fading in and out


@pytest.mark.parametrize("seed", range(5))
def test_absent_sentences_hold_nowhere_and_are_easily_taken_for_true(seed: int):
    scene = make_scene(seed)
    absent = absent_sentences(scene, 8, np.random.default_rng(seed))
    assert len(set(absent)) == 8 and len({sentence.kind for sentence in absent}) >= 5
    assert absent == absent_sentences(scene, 8, np.random.default_rng(seed))
    for sentence in absent:
        assert not truth(scene, sentence).windows
        assert not truth(scene, replace(sentence, order=None)).windows
    words = {word for sentence in true_sentences(scene) for word in sentence.text.split()}
    assert any(set(sentence.text.split()) <= words for sentence in absent)


def test_videos_say_many_different_things():
    scenes = [make_scene(split_seed("test", index)) for index in range(60)]
    said = Counter(sentence for scene in scenes for sentence in true_sentences(scene))
    assert sum(count == 1 for count in said.values()) > 1000
    kinds = Counter(
        sentence.kind
        for index, scene in enumerate(scenes)
        for sentence in choose_sentences(scene, 8, np.random.default_rng(index))
    )
    assert set(kinds) == set(KINDS) and min(kinds.values()) > 30
    never = Sentence((Description("ring", "pink", "large"), Description("cross", "purple", "small")))
    held = [bool(holds(scene.clip_states, part_codes([never])).any()) for scene in scenes]
    assert [bool(truth(scene, never).windows) for scene in scenes] == held and not all(held)


def test_the_world_is_imported_without_torch():
    code = "import sys, vtg.demo; vtg.demo.make_scene(1); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_wording_is_known_to_the_tokenizer_rows():
    from tools.demo.batches import MAX_TEXT_TOKENS, TokenRows

    token_rows, chance = TokenRows(), random.Random(0)  # noqa: S311
    unknown = token_rows.row_count - 1
    for seed in SEEDS:
        for sentence in true_sentences(make_scene(seed)):
            for text in (sentence.text, sentence.paraphrase(chance)):
                rows = token_rows.encode(text)
                assert unknown not in rows and len(rows) < MAX_TEXT_TOKENS, text
    assert token_rows.encode("a small zebra").count(unknown) >= 1


def test_a_file_of_the_small_clip_reads_as_it_was_trained(tmp_path: Path):
    from tools.demo.encoder import EncoderSettings, save_encoder, train_encoder
    from tools.make_demo import SMOKE_CLIP
    from vtg import ClipEncoder

    steps: list[int] = []
    model, token_rows = train_encoder(
        EncoderSettings(), replace(SMOKE_CLIP, steps=3, minutes=20.0), lambda step, _done, _losses: steps.append(step)
    )
    assert steps == [1, 2, 3]
    path = tmp_path / "clip.safetensors"
    save_encoder(model, token_rows, path)
    assert list(tmp_path.iterdir()) == [path] and path.stat().st_size <= 4_000_000
    encoder = ClipEncoder(pretrained=str(path), device="cpu")
    frame = make_scene(5).frame(20.0, 112, 112)
    rows = torch.tensor([token_rows.encode("a small red zebra")])
    with torch.no_grad():
        trained_frame = model.encode_frames(torch.from_numpy(frame[None]))[0][0, 0]
        trained_text = model.encode_texts(rows, torch.tensor([rows.shape[1] - 1]))[0]
    read_frame, read_text = encoder.encode_frames(frame[None]).embedding[0], encoder.encode_text("a small red zebra")
    assert torch.cosine_similarity(trained_frame, read_frame.float(), dim=0) > 0.999
    assert torch.cosine_similarity(trained_text, read_text.embedding.float(), dim=0) > 0.999


def test_the_bundled_clip_is_small():
    assert clip_path().stat().st_size <= 4_000_000


def test_an_unknown_word_counts_for_little(bundled):
    plain, zebra, red = (
        bundled.encode_text(f"a {word}large circle").embedding.float() for word in ("", "zebra-like ", "red ")
    )
    assert float(plain @ zebra) > float(plain @ red)


def test_the_bundled_clip_tells_colours_shapes_sizes_and_places_apart(bundled):
    chance = random.Random(0)  # noqa: S311
    right = 0
    tries = [
        (chance.choice(SHAPES), chance.choice(list(COLOURS)), chance.choice(list(SIZES)), chance.choice(PLACES))
        for _ in range(40)
    ]
    for shape, colour, size, place in tries:
        scene = Scene(0, 20.0, (Thing(shape, colour, size, place, 0.0, 20.0),), (GREY,))
        frame = bundled.encode_frames(scene.frame(9.0)[None]).embedding[0].float()
        other = {
            "shape": chance.choice([name for name in SHAPES if name != shape]),
            "colour": chance.choice([name for name in COLOURS if name != colour]),
            "size": chance.choice([name for name in SIZES if name != size]),
            "place": chance.choice([name for name in PLACES if name != place]),
        }
        true = Description(shape, colour, size, place)
        texts = [Sentence((true,)).text]
        for name, value in other.items():
            texts.append(Sentence((replace(true, **{name: value}),)).text)
        similarities = [float(frame @ bundled.encode_text(text).embedding.float()) for text in texts]
        right += similarities[0] == max(similarities)
    assert right >= 36


UNSEEN = TestVideos(count=6, first=500, queries=8)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of six unseen videos."""
    return tmp_path_factory.mktemp("unseen")


@pytest.fixture(scope="module")
def clip_alone(unseen: Path) -> dict[str, dict[str, float]]:
    """Figures of the bundled CLIP alone on the unseen videos."""
    return evaluate_demo(unseen, UNSEEN, "zero-shot", clip_path())


def random_recall(folder: Path) -> float:
    """R1@0.5 in percent of random windows of a true length, for the queries that a single frame answers."""
    random, hits = np.random.default_rng(0), []
    for line in (folder / "annotations.jsonl").read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        if fields["single_frame"]:
            windows = np.array(fields["relevant_windows"])
            lengths = random.choice(windows[:, 1] - windows[:, 0], 200)
            starts = random.uniform(0, fields["duration"] - lengths)
            ious = interval_iou(np.column_stack([starts, starts + lengths]), windows).max(axis=1)
            hits.append((ious >= 0.5).mean())
    return 100 * float(np.mean(hits))


def test_the_bundled_clip_grounds_unseen_videos(clip_alone: dict[str, dict[str, float]], unseen: Path):
    figures = clip_alone["single-frame"]
    assert figures["queries"] > 20
    assert figures["R1@0.5"] >= 60
    assert figures["R1@0.5"] > 2 * random_recall(unseen)


def test_the_bundled_head_sees_what_single_frames_do_not_show(clip_alone: dict[str, dict[str, float]], unseen: Path):
    with_head = evaluate_demo(unseen, UNSEEN)
    assert {*with_head} == {"all", "single-frame", *KINDS} and with_head["all"]["queries"] == 48
    assert with_head["all"]["R1@0.5"] >= 80
    assert with_head["all"]["R1@0.5"] >= clip_alone["all"]["R1@0.5"] + 15


def test_the_demo_model_is_the_bundled_clip_with_the_bundled_head():
    import vtg

    grounder = vtg.load("demo", device="cpu")
    assert grounder.head is not None and grounder.head.config.layers == 4
    assert (
        grounder.encoder.fingerprint == vtg.load("zero-shot", pretrained=clip_path(), device="cpu").encoder.fingerprint
    )
    assert head_path().stat().st_size <= 3_000_000
    assert clip_path().stat().st_size + head_path().stat().st_size <= 7_000_000
