"""What training is fed: targets by data set, batches by length, features by process, and the head's quick map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from training_sets import write_data_set

from vtg.datasets import Sample
from vtg.errors import VtgError
from vtg.r2 import HeadConfig, R2Head, TrainingBatch, training_losses
from vtg.r2.token_map import Dropout
from vtg.recipes import load_recipe
from vtg.training.batches import BatchPlan, Share, plan_epoch, read_batches
from vtg.training.data import TrainingSample, TrainingSet, frame_saliency, positive_frames
from vtg.training.preparation import Sources, prepare


def sample(duration: float = 20.0, **fields: object) -> Sample:
    return Sample("v", "q", "a dog", duration, **fields)  # type: ignore[arg-type]


def rated(saliency: list[float], seconds: float | None = 2.0) -> Sample:
    values = np.array(saliency)
    starts = (seconds or 0) * np.arange(len(values))
    clips = None if seconds is None else np.stack([starts, starts + seconds], axis=1)
    return sample(saliency=values, ratings=values[:, None], clips=clips)


def test_saliency_is_that_of_the_rated_clip_a_frame_lies_in() -> None:
    np.testing.assert_allclose(frame_saliency(rated([0.0, 0.5, 1.0, 0.25]), 3, 0.5), [0.0, 0.5, 1.0])
    np.testing.assert_allclose(frame_saliency(rated([0.0, 0.5]), 5, 1.0), [0.0, 0.0, 0.5, 0.5, 0.0])
    np.testing.assert_allclose(frame_saliency(rated([0.5, 1.0], None), 3, None), [0.5, 1.0, 0.0])


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ([2.0, 6.0], [0, 1, 1, 0, 0]),
        ([3.0, 6.5], [0, 0, 1, 1, 0]),  # ⌈1.5⌉ … ⌈3.25⌉ − 1
        ([6.0, 2.0], [0, 1, 1, 0, 0]),  # reversed
        ([4.0, 99.0], [0, 0, 1, 1, 1]),  # beyond the video
        ([5.0, 5.1], [0, 0, 0, 1, 0]),  # shorter than a frame: one frame around its centre, from 2.025 on
    ],
)
def test_saliency_without_ratings_is_one_within_the_windows(window: list[float], expected: list[int]) -> None:
    np.testing.assert_array_equal(frame_saliency(sample(10.0, windows=np.array([window])), 5, 0.5), expected)


def test_a_sample_without_any_truth_is_refused() -> None:
    with pytest.raises(VtgError, match="query q: has neither windows nor ratings"):
        frame_saliency(sample(), 5, 0.5)


@pytest.mark.parametrize(
    ("positive", "expected"), [("above 0", [1, 2, 3, 4]), ("above half", [3, 4]), ("above median", [3, 4])]
)
def test_positive_frames_by_data_set(positive: str, expected: list[int]) -> None:
    saliency = np.array([0.0, 0.2, 0.5, 0.6, 0.9], np.float32)
    np.testing.assert_array_equal(positive_frames(saliency, positive), expected)
    assert not len(positive_frames(np.zeros(4, np.float32), positive))


def samples_of_lengths(lengths: list[int], queries: int = 1) -> list[TrainingSample]:
    return [
        TrainingSample(
            Sample(f"v{video}", f"{video}-{query}", "a dog", 1.0), frames, 5, np.ones(frames, np.float32),
            np.arange(frames), torch.zeros(1, 2),
        )
        for video, frames in enumerate(lengths)
        for query in range(queries)
    ]  # fmt: skip


def test_an_epoch_has_every_sample_as_often_as_asked_and_none_twice_in_a_batch() -> None:
    samples = samples_of_lengths(list(range(10, 40)))
    plans = plan_epoch(samples, 4, 3, 1, seed=0, epoch=0)
    dealt = np.concatenate([plan.samples for plan in plans])
    counts = np.bincount(dealt, minlength=30)
    assert counts.min() == 3 and len(dealt) == 3 * 32  # the last batch of a pass is filled up
    for plan in plans:
        assert len(set(plan.samples.tolist())) == 4
        assert plan.frames == max(samples[index].frames for index in plan.samples)


def test_the_deal_follows_from_seed_and_epoch_alone() -> None:
    samples = samples_of_lengths(list(range(10, 40)))
    deals = [
        [plan.samples.tolist() for plan in plan_epoch(samples, 4, 1, 1, seed=seed, epoch=epoch)]
        for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))
    ]
    assert deals[0] == deals[1]
    assert deals[0] != deals[2] and deals[0] != deals[3]


def test_videos_of_about_one_length_come_together() -> None:
    random = np.random.default_rng(0)
    samples = samples_of_lengths(random.integers(5, 100, 640).tolist())
    plans = plan_epoch(samples, 16, 1, 1, seed=0, epoch=0)
    real = sum(one.frames for one in samples)
    padded = sum(len(plan.samples) * plan.frames for plan in plans)
    assert padded < 1.1 * real
    lengths = [plan.frames for plan in plans]
    assert lengths != sorted(lengths)  # but not from short to long


def test_queries_of_a_video_come_together_where_they_share_its_map() -> None:
    samples = samples_of_lengths([8, 9, 10, 11, 12, 13], queries=5)
    plans = plan_epoch(samples, 8, 1, 4, seed=0, epoch=0)
    for plan in plans:
        videos = [samples[index].sample.video_id for index in plan.samples]
        assert [videos[:4], videos[4:]] == [[videos[0]] * 4, [videos[4]] * 4]
    assert set(np.concatenate([plan.samples for plan in plans])) == set(range(30))


@pytest.fixture
def training_set(tmp_path: Path) -> TrainingSet:
    recipe = load_recipe(write_data_set(tmp_path))
    return prepare(recipe, Sources(), None).training_set


def read(training_set: TrainingSet, plans: list[BatchPlan], **changes: object) -> list[TrainingBatch]:
    options = {"layers": 4, "tokens": 5, "queries_per_video": 1, "share": Share(), "pin": False, **changes}
    seeds = [(0, number) for number in range(len(plans))]
    with read_batches(training_set, plans, seeds, **options) as batches:  # type: ignore[arg-type]
        return [TrainingBatch(**{**vars(batch), "video": batch.video.clone()}) for batch in batches]


def test_batches_hold_the_features_and_the_targets_padded(training_set: TrainingSet) -> None:
    plans = plan_epoch(training_set.samples, 4, 1, 1, seed=0, epoch=0)
    for plan, batch in zip(plans, read(training_set, plans), strict=True):
        assert batch.video.shape == (4, plan.frames, 4, 5, 16) and batch.video.dtype == torch.float16
        for row, index in enumerate(plan.samples):
            one = training_set.samples[index]
            video = np.array(training_set.files.video(one.sample.video_id))
            query = np.array(training_set.files.query(one.sample))
            assert np.array_equal(batch.video[row, : one.frames].numpy(), video)
            assert np.array_equal(batch.query[row, : one.tokens].numpy(), query)
            assert not batch.video[row, one.frames :].any() and not batch.query[row, one.tokens :].any()
            assert batch.video_mask[row].sum() == one.frames and batch.query_mask[row].sum() == one.tokens
            assert np.array_equal(batch.saliency[row, : one.frames].numpy(), one.saliency)
            assert batch.positive_frame[row] in one.positives
            assert torch.equal(batch.windows[row], one.windows)


def test_a_query_with_an_empty_list_of_windows_is_true_nowhere(tmp_path: Path) -> None:
    path = write_data_set(tmp_path)
    lines = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    nowhere = {"relevant_windows": [], "relevant_clip_ids": [], "saliency_scores": []}
    lines[1] = json.dumps({**json.loads(lines[1]), **nowhere})
    (tmp_path / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    ready = prepare(load_recipe(path), Sources(), None).training_set
    assert len(ready.samples) == len(lines) and ready.left_out == 0
    (batch,) = read(ready, [BatchPlan(np.arange(3), 12, 6)])
    assert batch.absent.tolist() == [False, True, False]
    assert not batch.saliency[1].any() and batch.windows is not None and batch.windows[1].shape == (0, 2)


def test_processes_share_a_batch_and_its_draws(training_set: TrainingSet) -> None:
    plans = plan_epoch(training_set.samples, 4, 1, 1, seed=0, epoch=0)
    whole = read(training_set, plans)
    shares = [read(training_set, plans, share=Share(rank, 2)) for rank in (0, 1)]
    for batch, first, second in zip(whole, *shares, strict=True):
        for name in ("video", "query", "video_mask", "query_mask", "saliency", "positive_frame"):
            assert torch.equal(getattr(batch, name), torch.cat((getattr(first, name), getattr(second, name))))


def test_the_last_layers_and_the_first_tokens_are_read(training_set: TrainingSet) -> None:
    plans = plan_epoch(training_set.samples, 4, 1, 1, seed=0, epoch=0)[:1]
    (whole,), (part,) = read(training_set, plans), read(training_set, plans, layers=2, tokens=1)
    assert torch.equal(part.video, whole.video[:, :, -2:, :1]) and torch.equal(part.query, whole.query[:, :, -2:])


def test_an_error_while_reading_ahead_reaches_the_training(training_set: TrainingSet) -> None:
    plans = plan_epoch(training_set.samples, 4, 1, 1, seed=0, epoch=0)
    first = training_set.samples[plans[2].samples[0]].sample.video_id
    Path(training_set.files.video_name(first)).unlink()
    with pytest.raises(VtgError, match="no such features"):
        read(training_set, plans)


def small_head(**changes: object) -> R2Head:
    torch.manual_seed(0)
    sizes = {"hidden_width": 32, "video_width": 16, "query_width": 12, "tokens": 5, "dropout": 0.0, "drop_path": 0.0}
    head = R2Head(HeadConfig(**{**sizes, **changes}))  # type: ignore[arg-type]
    with torch.no_grad():
        head.block.scale.uniform_(0.5, 1.0)
    return head.train()


def test_queries_that_share_a_video_have_the_losses_of_repeated_videos(training_set: TrainingSet) -> None:
    (plan,) = plan_epoch(training_set.samples, 16, 1, 2, seed=0, epoch=0)
    (shared,), (repeated,) = read(training_set, [plan], queries_per_video=2), read(training_set, [plan])
    assert len(shared.video) == 8 and len(repeated.video) == 16
    gradients = []
    for batch in (shared, repeated):
        head = small_head()
        losses = training_losses(head, batch)
        sum(losses.values()).backward()  # type: ignore[union-attr]
        gradients.append((losses, {name: parameter.grad for name, parameter in head.named_parameters()}))
    for ours, theirs in zip(*gradients, strict=True):
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], atol=2e-5, rtol=1e-4, msg=name)


def test_dropout_drops_the_share_that_it_should_and_keeps_the_mean() -> None:
    drop = Dropout(0.35)
    values = torch.full((301, 7, 33), 2.0, requires_grad=True)
    torch.manual_seed(3)
    one = drop(values)
    torch.manual_seed(3)
    assert torch.equal(drop(values), one)
    assert not torch.equal(drop(values), one)
    kept = one != 0
    assert kept.float().mean().item() == pytest.approx(0.65, abs=0.01)
    torch.testing.assert_close(one[kept], torch.full_like(one[kept], 2 / 0.65), atol=1e-3, rtol=0)
    across = np.corrcoef(kept[:, :, 0].flatten().numpy(), kept[:, :, 1].flatten().numpy())
    assert abs(across[0, 1]) < 0.06
    one.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, one.detach() / 2)
    assert torch.equal(drop.eval()(values), values)


def test_dropout_after_a_norm_is_the_norm_and_then_dropout() -> None:
    torch.manual_seed(1)
    drop, norm = Dropout(0.35), torch.nn.LayerNorm(33)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    results = []
    for apply in (drop.normalize, lambda norm, values: drop(norm(values))):
        torch.manual_seed(3)
        values = torch.from_numpy(np.random.default_rng(0).normal(size=(301, 33)).astype(np.float32)).requires_grad_()
        apply(norm, values).square().sum().backward()
        results.append([values.grad, *(parameter.grad for parameter in norm.parameters())])
        norm.zero_grad()
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
