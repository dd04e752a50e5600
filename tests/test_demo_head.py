"""Training of the bundled head: queries, auxiliary targets, initialization."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tools.demo.auxiliary import TARGET_COLUMNS, AuxiliaryHead, SceneTargets
from tools.demo.head import MIN_HARDNESS, HeadBatch, QueryPool, presence_loss
from tools.demo.initialization import NEIGHBOUR_OFFSETS, init_from_one_layer, init_neighbour_attention
from tools.demo.queries import SceneQuery, make_queries
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
def queries(scenes: list[Scene]) -> list[list[SceneQuery]]:
    return [make_queries(scene, 30, 60, np.random.default_rng(index)) for index, scene in enumerate(scenes)]


def test_true_queries_match_and_false_ones_match_nowhere(scenes: list[Scene], queries: list[list[SceneQuery]]) -> None:
    for scene, own in zip(scenes, queries, strict=True):
        held = held_clips(scene, [query.sentence for query in own])
        for query, clips in zip(own, held.T, strict=True):
            assert bool(len(query.windows)) == clips.any()
            assert np.array_equal(query.saliency > 0, clips)
            windows = truth(scene, query.sentence).windows
            assert np.array_equal(query.windows, np.array(windows, np.float32).reshape(-1, 2))
        true = sum(len(query.windows) > 0 for query in own)
        assert 20 <= true <= 35 and len(own) - true >= 40


def test_false_queries_are_near_misses_of_every_kind(scenes: list[Scene], queries: list[list[SceneQuery]]) -> None:
    false = [query.sentence for own in queries for query in own if not len(query.windows)]
    assert {sentence.kind for sentence in false} == set(KINDS)
    near = 0
    for scene, own in zip(scenes, queries, strict=True):
        acting = [one.sentence for one in own if one.sentence.parts[0].action and not len(one.windows)]
        looks = [Sentence((replace(sentence.parts[0], action=None),)) for sentence in acting]
        near += held_clips(scene, looks).any(axis=0).sum()
    assert near >= 0.4 * sum(sentence.parts[0].action is not None for sentence in false)


def test_the_same_seed_gives_the_same_queries(scenes: list[Scene], queries: list[list[SceneQuery]]) -> None:
    again = make_queries(scenes[1], 30, 60, np.random.default_rng(1))
    assert [query.text for query in again] == [query.text for query in queries[1]]


def _scene(*things: Thing) -> Scene:
    return Scene(0, 20.0, things, (Backdrop(0.0, 20.0, "gradient", ((0, 0, 0), (9, 9, 9)), (0.5,) * 24),))


def test_the_auxiliary_targets_hold_pose_motion_and_action() -> None:
    mover = Thing("star", "red", "small", "left", 2.0, 18.0, Action("right", 6.0, 12.0, "right"))
    scene = _scene(mover, Thing("ring", "blue", "large", "top", 0.0, 8.0))
    sentence = Sentence((Description("star", "red", None, None, "right"),))
    held = held_clips(scene, [sentence])[:, 0]
    values, known = SceneTargets.from_scene(scene).for_sentence(sentence, held.astype(np.float32))
    assert values.shape == known.shape == (10, TARGET_COLUMNS)
    assert np.array_equal(values[:, 0] > 0, [False] + 8 * [True] + [False]) and known[:, 0].all()
    assert np.array_equal(values[:, 2] > 0, held) and held.any()
    assert not known[[0, 9], 7:].any() and known[1:9, 7:13].all()
    moving = np.flatnonzero(held)
    assert (np.diff(values[1:9, 7]) > -0.2).all() and values[8, 7] > 0.7 > -0.7 > values[1, 7]
    assert (values[moving, 13] > 0.3).all() and np.abs(values[[1, 8], 13]).max() < 0.15
    assert (values[moving, -1] == ACTIONS.index("right")).all() and values[1, -1] == len(ACTIONS)


def test_poses_of_ambiguous_things_are_unknown_and_orders_have_past_and_future() -> None:
    scene = _scene(
        Thing("star", "red", "small", "left", 0.0, 8.0),
        Thing("star", "red", "large", "right", 4.0, 12.0),
        Thing("ring", "blue", "large", "top", 14.0, 20.0),
    )
    order = Sentence((Description("star", "red"),), Order("before", Description("ring", "blue")))
    values, known = SceneTargets.from_scene(scene).for_sentence(order, np.ones(10, np.float32))
    assert np.array_equal(known[:, 7], [True, True, False, False, True, True, False, False, False, False])
    assert np.array_equal(values[:, 1] > 0, 7 * [False] + 3 * [True])
    assert np.array_equal(values[:, 3] > 0, 7 * [False] + 3 * [True]) and values[:, 4].all()
    assert np.array_equal(values[:, 5] > 0, [False] + 9 * [True])
    assert np.array_equal(values[:, 6] > 0, 5 * [True] + 5 * [False])


def test_unknown_targets_do_not_change_the_loss() -> None:
    torch.manual_seed(0)
    auxiliary, frames = AuxiliaryHead(8), torch.randn(2, 5, 8)
    values, known = torch.rand(2, 5, TARGET_COLUMNS), torch.rand(2, 5, TARGET_COLUMNS) < 0.5
    values[..., -1] = values[..., -1].round()
    known[0, 0] = True
    loss = auxiliary(frames, values, known)
    assert torch.equal(auxiliary(frames, torch.where(known, values, 1.0), known), loss)
    assert not torch.equal(auxiliary(frames, torch.where(known, 1.0, values), known), loss)


def test_some_attention_heads_initially_attend_to_neighbours() -> None:
    torch.manual_seed(0)
    head = R2Head(CONFIG)
    assert init_neighbour_attention(head) < 128 - 44
    attention = head.block.refinement.self_attention
    positions = temporal_positions(36, 128, like=head.level_scale)
    with torch.no_grad():
        query, key = (linear(positions).view(36, 8, 16) for linear in (attention.query, attention.key))
        weights = (torch.einsum("thd,shd->hts", query, key) / 4).softmax(dim=2)
    for number, frames in enumerate(NEIGHBOUR_OFFSETS):
        seen = weights[number, 5:-5] @ torch.arange(36.0) - torch.arange(5.0, 31.0)
        assert torch.allclose(seen, torch.tensor(float(frames)), atol=0.8)


def test_a_head_of_four_layers_starts_with_the_weights_of_one_layer() -> None:
    torch.manual_seed(0)
    one, four = R2Head(CONFIG), R2Head(replace(CONFIG, layers=4))
    with torch.no_grad():
        one.block.scale.fill_(0.3)
    init_from_one_layer(four, one)
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


def test_the_presence_loss_uses_the_best_point_without_padding() -> None:
    torch.manual_seed(0)
    batch = _batch(10, [2, ABSENT, 0])
    output = R2Head(CONFIG)(batch.video, batch.query, batch.video_mask, batch.query_mask)
    logits = torch.full_like(output.class_logits, -3.0)
    assert output.point_mask is not None and not output.point_mask[:, 9].any()
    logits[:, 9], logits[:, 4] = 9.0, torch.tensor([2.0, 2.0, -1.0])
    loss = presence_loss(replace(output, class_logits=logits), batch)
    assert torch.allclose(loss, -torch.tensor([2.0, -2.0, -1.0]).sigmoid().log())


def test_easy_queries_are_sampled_a_tenth_as_often_as_hard_ones(queries: list[list[SceneQuery]]) -> None:
    pool, random = QueryPool(queries[0][:20]), np.random.default_rng(0)
    assert sorted(index for _, index in pool.draw(30, random)) == list(range(20))
    empty = torch.zeros(0)
    batch = HeadBatch(_batch(4, []), empty, empty, [(pool, index) for index in range(20)])
    batch.update_hardness(torch.cat([torch.full((10,), 0.01), torch.ones(10)]))
    drawn = [index for _ in range(400) for own, index in pool.draw(1, random) if own is pool]
    assert 0.5 < np.mean(np.array(drawn) < 10) / (MIN_HARDNESS / (MIN_HARDNESS + 1)) < 1.5
    assert QueryPool([]).draw(3, random) == []
