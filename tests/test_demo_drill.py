"""How the bundled head learns: what it is asked, what it is told, where it begins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tools.demo.drill import MIN_HARDNESS, Lesson, Pool, presence_surprise
from tools.demo.questions import Question, ask_about
from tools.demo.start import NEIGHBOUR_OFFSETS, start_from_neighbours, start_from_one_layer
from tools.demo.teacher import TARGET_COLUMNS, SceneTargets, Teacher
from vtg.demo import Description, Order, Scene, Sentence, Thing, make_scene, split_seed, truth
from vtg.demo.sentences import KINDS, held_clips
from vtg.demo.world import ACTIONS, Action, Backdrop
from vtg.r2 import HeadConfig, R2Head, TrainingBatch
from vtg.r2.block import temporal_positions
from vtg.r2.losses import ABSENT

CONFIG = HeadConfig(hidden_width=128, video_width=16, query_width=16, layers=1, tokens=5)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(split_seed("train", index)) for index in range(4)]


@pytest.fixture(scope="module")
def asked(scenes: list[Scene]) -> list[list[Question]]:
    return [ask_about(scene, 30, 60, np.random.default_rng(index)) for index, scene in enumerate(scenes)]


def test_true_questions_are_true_and_false_ones_nowhere(scenes: list[Scene], asked: list[list[Question]]) -> None:
    for scene, questions in zip(scenes, asked, strict=True):
        held = held_clips(scene, [question.sentence for question in questions])
        for question, clips in zip(questions, held.T, strict=True):
            assert bool(len(question.windows)) == clips.any()
            assert np.array_equal(question.saliency > 0, clips)
            windows = truth(scene, question.sentence).windows
            assert np.array_equal(question.windows, np.array(windows, np.float32).reshape(-1, 2))
        true = sum(len(question.windows) > 0 for question in questions)
        assert 20 <= true <= 35 and len(questions) - true >= 40


def test_false_questions_are_near_misses_of_every_kind(scenes: list[Scene], asked: list[list[Question]]) -> None:
    false = [question.sentence for questions in asked for question in questions if not len(question.windows)]
    assert {sentence.kind for sentence in false} == set(KINDS)
    near = 0
    for scene, questions in zip(scenes, asked, strict=True):
        acting = [one.sentence for one in questions if one.sentence.parts[0].action and not len(one.windows)]
        looks = [Sentence((replace(sentence.parts[0], action=None),)) for sentence in acting]
        near += held_clips(scene, looks).any(axis=0).sum()
    assert near >= 0.4 * sum(sentence.parts[0].action is not None for sentence in false)


def test_the_same_draw_asks_the_same(scenes: list[Scene], asked: list[list[Question]]) -> None:
    again = ask_about(scenes[1], 30, 60, np.random.default_rng(1))
    assert [question.text for question in again] == [question.text for question in asked[1]]


def _scene(*things: Thing) -> Scene:
    return Scene(0, 20.0, things, (Backdrop(0.0, 20.0, "gradient", ((0, 0, 0), (9, 9, 9)), (0.5,) * 24),))


def test_the_teacher_tells_where_a_thing_is_and_what_it_does() -> None:
    mover = Thing("star", "red", "small", "left", 2.0, 18.0, Action("right", 6.0, 12.0, "right"))
    scene = _scene(mover, Thing("ring", "blue", "large", "top", 0.0, 8.0))
    sentence = Sentence((Description("star", "red", None, None, "right"),))
    held = held_clips(scene, [sentence])[:, 0]
    values, told = SceneTargets.of(scene).about(sentence, held.astype(np.float32))
    assert values.shape == told.shape == (10, TARGET_COLUMNS)
    assert np.array_equal(values[:, 0] > 0, [False] + 8 * [True] + [False]) and told[:, 0].all()
    assert np.array_equal(values[:, 2] > 0, held) and held.any()
    assert not told[[0, 9], 7:].any() and told[1:9, 7:13].all()
    moving = np.flatnonzero(held)
    assert (np.diff(values[1:9, 7]) > -0.2).all() and values[8, 7] > 0.7 > -0.7 > values[1, 7]
    assert (values[moving, 13] > 0.3).all() and np.abs(values[[1, 8], 13]).max() < 0.15
    assert (values[moving, -1] == ACTIONS.index("right")).all() and values[1, -1] == len(ACTIONS)


def test_of_one_among_several_nothing_is_told_and_of_an_order_what_was_and_what_comes() -> None:
    scene = _scene(
        Thing("star", "red", "small", "left", 0.0, 8.0),
        Thing("star", "red", "large", "right", 4.0, 12.0),
        Thing("ring", "blue", "large", "top", 14.0, 20.0),
    )
    order = Sentence((Description("star", "red"),), Order("before", Description("ring", "blue")))
    values, told = SceneTargets.of(scene).about(order, np.ones(10, np.float32))
    assert np.array_equal(told[:, 7], [True, True, False, False, True, True, False, False, False, False])
    assert np.array_equal(values[:, 1] > 0, 7 * [False] + 3 * [True])
    assert np.array_equal(values[:, 3] > 0, 7 * [False] + 3 * [True]) and values[:, 4].all()
    assert np.array_equal(values[:, 5] > 0, [False] + 9 * [True])
    assert np.array_equal(values[:, 6] > 0, 5 * [True] + 5 * [False])


def test_what_is_not_told_does_not_count() -> None:
    torch.manual_seed(0)
    teacher, frames = Teacher(8), torch.randn(2, 5, 8)
    values, told = torch.rand(2, 5, TARGET_COLUMNS), torch.rand(2, 5, TARGET_COLUMNS) < 0.5
    values[..., -1] = values[..., -1].round()
    told[0, 0] = True
    loss = teacher(frames, values, told)
    assert torch.equal(teacher(frames, torch.where(told, values, 1.0), told), loss)
    assert not torch.equal(teacher(frames, torch.where(told, 1.0, values), told), loss)


def test_some_heads_begin_by_looking_at_neighbours() -> None:
    torch.manual_seed(0)
    head = R2Head(CONFIG)
    assert start_from_neighbours(head) < 128 - 44
    attention = head.block.refinement.self_attention
    positions = temporal_positions(36, 128, like=head.level_scale)
    with torch.no_grad():
        query, key = (linear(positions).view(36, 8, 16) for linear in (attention.query, attention.key))
        weights = (torch.einsum("thd,shd->hts", query, key) / 4).softmax(dim=2)
    for number, frames in enumerate(NEIGHBOUR_OFFSETS):
        seen = weights[number, 5:-5] @ torch.arange(36.0) - torch.arange(5.0, 31.0)
        assert torch.allclose(seen, torch.tensor(float(frames)), atol=0.8)


def test_a_head_of_four_layers_takes_over_what_one_layer_taught() -> None:
    torch.manual_seed(0)
    one, four = R2Head(CONFIG), R2Head(replace(CONFIG, layers=4))
    with torch.no_grad():
        one.block.scale.fill_(0.3)
    start_from_one_layer(four, one)
    assert torch.equal(four.block.scale, torch.full((4,), 0.3)) and four.block.gate is not None
    assert len(four.block.gate) == 3 and (four.block.gate.sigmoid() < 0.5).all()
    assert torch.equal(four.block.video_map[2].weight, one.block.video_map[2].weight)  # type: ignore[arg-type]


def _batch(frames: int, positive: list[int]) -> TrainingBatch:
    mask = torch.ones(len(positive), frames, dtype=torch.bool)
    mask[:, -2:] = False
    return TrainingBatch(
        video=torch.randn(1, frames, 1, 5, 16),
        query=torch.randn(len(positive), 3, 1, 16),
        video_mask=mask,
        query_mask=torch.ones(len(positive), 3, dtype=torch.bool),
        saliency=torch.zeros(mask.shape),
        positive_frame=torch.tensor(positive),
        windows=[torch.zeros(0, 2) for _ in positive],
        fps=0.5,
    )


def test_the_best_point_that_is_no_padding_says_whether_a_sentence_is_true_anywhere() -> None:
    torch.manual_seed(0)
    batch = _batch(10, [2, ABSENT, 0])
    output = R2Head(CONFIG)(batch.video, batch.query, batch.video_mask, batch.query_mask)
    logits = torch.full_like(output.class_logits, -3.0)
    assert output.point_mask is not None and not output.point_mask[:, 9].any()
    logits[:, 9], logits[:, 4] = 9.0, torch.tensor([2.0, 2.0, -1.0])
    surprise = presence_surprise(replace(output, class_logits=logits), batch)
    assert torch.allclose(surprise, -torch.tensor([2.0, -2.0, -1.0]).sigmoid().log())


def test_what_was_answered_well_comes_a_tenth_as_often_as_what_was_not(asked: list[list[Question]]) -> None:
    pool, random = Pool(asked[0][:20]), np.random.default_rng(0)
    assert sorted(place for _, place in pool.draw(30, random)) == list(range(20))
    well, badly = [(pool, place) for place in range(10)], [(pool, place) for place in range(10, 20)]
    nothing = torch.zeros(0)
    Lesson(_batch(4, []), nothing, nothing, well + badly).remember(torch.cat([torch.full((10,), 0.01), torch.ones(10)]))
    drawn = [place for _ in range(400) for own, place in pool.draw(1, random) if own is pool]
    assert 0.5 < np.mean(np.array(drawn) < 10) / (MIN_HARDNESS / (MIN_HARDNESS + 1)) < 1.5
    assert Pool([]).draw(3, random) == []
