"""The training losses against the reference implementation's arrays; their padding, counts, and several processes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, nn

from vtg.errors import VtgError
from vtg.r2 import HeadConfig, LossWeights, R2Head, TrainingBatch, read_head, training_losses
from vtg.r2.checkpoints import published_name
from vtg.r2.head import HeadOutput
from vtg.r2.losses import ABSENT, point_losses
from vtg.r2.pyramid import level_points
from vtg.r2.targets import point_targets, true_windows

HERE = Path(__file__).parent / "data" / "r2"
STRIDES = (1, 2, 4, 8)
WEIGHTS = {"qvh": LossWeights(), "cha": LossWeights(sal=0.01), "yt": LossWeights()}
RECIPES = list(WEIGHTS)


def head_of(recipe):
    return read_head(HERE / ("loss_highlight_tiny.pth" if recipe == "yt" else "loss_tiny.pth"))


def reference(recipe):
    """The reference's padded batch of three, and what it gives for it, by name."""
    arrays = load_file(HERE / "loss_parity.safetensors")
    padded = [window[window.isfinite().all(dim=1)] for window in arrays[f"{recipe}.windows"]]
    batch = TrainingBatch(
        video=arrays["video"],
        query=arrays["query"],
        video_mask=finite(arrays["video"]),
        query_mask=finite(arrays["query"]),
        saliency=arrays["saliency"],
        positive_frame=arrays["positive_frame"],
        windows=None if recipe == "yt" else padded,
        fps=arrays[f"{recipe}.fps"].item(),
    )
    given = {name.removeprefix(f"{recipe}."): array for name, array in arrays.items() if name.startswith(f"{recipe}.")}
    return batch, given


def finite(padded):
    """[B, S]: where a padded array holds anything but the infinities of the padding."""
    return padded.flatten(2).isfinite().all(dim=2)


def refill(batch, filler):
    """The batch with something else in its padding."""
    frames, words = ~batch.video_mask, ~batch.query_mask
    return replace(
        batch,
        video=batch.video.masked_fill(frames[:, :, None, None, None], filler),
        query=batch.query.masked_fill(words[:, :, None, None], filler),
        saliency=batch.saliency.masked_fill(frames, filler),
    )


def four_samples(recipe):
    """A batch of four of different lengths, in frames and in words: the reference's three and a piece of the first."""
    batch, _ = reference(recipe)
    video, query = batch.video[:1].flip(1), batch.query[2:].flip(1)
    video[:, 5:], query[:, 4:] = math.inf, math.inf
    video, query = torch.cat((batch.video, video)), torch.cat((batch.query, query))
    return TrainingBatch(
        video=video,
        query=query,
        video_mask=finite(video),
        query_mask=finite(query),
        saliency=torch.cat((batch.saliency, batch.saliency[:1].flip(1))),
        positive_frame=torch.cat((batch.positive_frame, torch.tensor([3]))),
        windows=None if batch.windows is None else [*batch.windows, torch.tensor([[2.0, 7.0]])],
        fps=batch.fps,
    )


def part(batch, samples):
    """Some samples of a batch, still padded to its lengths."""
    names = ("video", "query", "video_mask", "query_mask", "saliency", "positive_frame", "windows")
    return replace(
        batch, **{name: None if getattr(batch, name) is None else getattr(batch, name)[samples] for name in names}
    )


def train(head, batch, steps, weights=None, across_processes=False):
    """AdamW as published; each step's losses and gradients."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-4, weight_decay=1e-4)
    history = []
    for _ in range(steps):
        losses = training_losses(head, batch, weights, across_processes=across_processes)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        gradients = [parameter.grad.clone() for parameter in head.parameters() if parameter.grad is not None]
        nn.utils.clip_grad_norm_(head.parameters(), 35)
        optimizer.step()
        history.append(({name: loss.item() for name, loss in losses.items()}, gradients))
    return history


@pytest.mark.parametrize("recipe", RECIPES)
def test_losses_and_their_total_equal_the_reference(recipe):
    batch, expected = reference(recipe)
    losses = training_losses(head_of(recipe), batch, WEIGHTS[recipe])
    names = {"cls", "reg", "sal", "video_cal", "layer_cal"} - ({"reg"} if recipe == "yt" else set())
    # A loss of one's own, with a weight of 0 by default, changes nothing.
    assert {name for name in losses if getattr(WEIGHTS[recipe], name)} == names
    for name in names:
        assert losses[name].item() == pytest.approx(expected[name].item(), abs=2e-6), name
        assert losses[name].dtype == torch.float32 and losses[name].shape == ()
    assert sum(losses.values()).item() == pytest.approx(expected["total"].item(), abs=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_parameters_gradient_equals_the_reference(recipe):
    batch, expected = reference(recipe)
    head = head_of(recipe)
    sum(training_losses(head, batch, WEIGHTS[recipe]).values()).backward()
    learning = {name: value.grad for name, value in head.named_parameters() if value.grad is not None}
    norms = {f"grad_norm.{published_name(name)}": gradient.norm() for name, gradient in learning.items()}
    assert set(norms) == {name for name in expected if name.startswith("grad_norm.")}
    for name in norms:
        found, wanted = norms[name].item(), expected[name].item()
        assert found == pytest.approx(wanted, rel=1e-4, abs=0) if wanted > 1e-6 else found < 1e-6, name


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_follows_the_references_curve(recipe):
    batch, expected = reference(recipe)
    history = train(head_of(recipe), batch, 25, WEIGHTS[recipe])
    totals = torch.tensor([sum(losses.values()) for losses, _ in history])
    torch.testing.assert_close(totals, expected["adamw_curve"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("filler", [0.0, 1e4, math.nan])
def test_what_lies_in_the_padding_changes_nothing(recipe, filler):
    batch, _ = reference(recipe)
    (losses, gradients), (other_losses, other_gradients) = (
        train(head_of(recipe), padded, 1)[0] for padded in (batch, refill(batch, filler))
    )
    assert losses == other_losses
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(map(torch.equal, gradients, other_gradients))


def test_one_sample_has_no_other_queries_to_be_told_from():
    batch, _ = reference("qvh")
    losses = training_losses(head_of("qvh"), part(batch, slice(1, 2)))
    assert losses["video_cal"].item() == pytest.approx(0, abs=1e-6)
    assert all(losses[name].item() > 0.01 for name in ("cls", "reg", "sal", "layer_cal"))


def test_weights_scale_their_loss():
    batch, _ = reference("qvh")
    plain = training_losses(head_of("qvh"), batch)
    weights = LossWeights(cls=3.0, reg=0.4, sal=0.0, video_cal=0.1, layer_cal=1.0)
    weighed = training_losses(head_of("qvh"), batch, weights)
    for name, factor in {"cls": 3, "reg": 2, "sal": 0, "video_cal": 1, "layer_cal": 10}.items():
        assert weighed[name].item() == pytest.approx(factor * plain[name].item(), rel=1e-6)


def test_losses_are_float32_under_autocast_and_near_the_exact_ones():
    batch, _ = reference("qvh")
    head = head_of("qvh")
    exact = training_losses(head, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = training_losses(head, batch)
    sum(rounded.values()).backward()
    assert all(loss.dtype == torch.float32 for loss in rounded.values())
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    for name, loss in exact.items():
        assert rounded[name].item() == pytest.approx(loss.item(), rel=0.1)
    assert rounded != exact  # autocast did something


class Wrapper(nn.Module):
    """Hides a head as data-parallel wrappers do, and counts the calls."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.calls = 0

    def forward(self, *inputs):
        self.calls += 1
        return self.module(*inputs)


def test_a_wrapped_head_is_called_through_its_wrapper():
    batch, _ = reference("qvh")
    wrapper = Wrapper(head_of("qvh"))
    wrapped = training_losses(wrapper, batch)
    assert wrapper.calls == 1
    assert wrapped == training_losses(wrapper.module, batch)
    assert wrapped == training_losses(Wrapper(wrapper), batch)


def test_across_processes_changes_nothing_where_there_is_one():
    batch, _ = reference("qvh")
    assert training_losses(head_of("qvh"), batch, across_processes=True) == training_losses(head_of("qvh"), batch)


def learn_in_a_process(rank, processes, folder):
    """Trains each recipe's head on this process's share of four samples, and leaves the history in a file."""
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "store"), processes)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    share = slice(rank * 4 // processes, (rank + 1) * 4 // processes)
    histories = {}
    for recipe in ("qvh", "yt"):
        # A highlight-only head has a parameter that nothing reads, the scale of its one level.
        head = nn.parallel.DistributedDataParallel(head_of(recipe), find_unused_parameters=recipe == "yt")
        histories[recipe] = train(head, part(four_samples(recipe), share), 10, across_processes=True)
    torch.save(histories, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_with_half_the_batch_each_learn_as_one(tmp_path):
    children = torch.multiprocessing.spawn(learn_in_a_process, (2, tmp_path), nprocs=2, join=False)
    alone = {recipe: train(head_of(recipe), four_samples(recipe), 10) for recipe in ("qvh", "yt")}
    while not children.join():
        pass
    for rank in range(2):
        histories = torch.load(tmp_path / f"{rank}.pt")
        for recipe, history in alone.items():
            for (losses, gradients), (other_losses, other_gradients) in zip(history, histories[recipe], strict=True):
                assert other_losses == pytest.approx(losses, abs=1e-5, rel=0)
                torch.testing.assert_close(other_gradients, gradients, atol=1e-5, rtol=1e-4)


def test_the_halves_of_a_batch_differ_from_the_whole():
    """What the test of two processes rests on: means of the halves' losses are not the whole's."""
    batch = four_samples("qvh")
    whole = training_losses(head_of("qvh"), batch)
    halves = [training_losses(head_of("qvh"), part(batch, half)) for half in (slice(0, 2), slice(2, 4))]
    for name in ("cls", "reg", "sal", "video_cal"):
        assert abs(whole[name] - (halves[0][name] + halves[1][name]) / 2) > 5e-5


def test_samples_without_windows_teach_that_nothing_is_there():
    batch, _ = reference("qvh")
    head = head_of("qvh")
    losses = training_losses(head, replace(batch, windows=[torch.zeros(0, 2)] * 3))
    sum(losses.values()).backward()
    assert losses["reg"].item() == 0 and losses["cls"].item() > 0
    assert not head.coordinate_head[0].weight.grad.any()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


def absent_too(batch, samples):
    """The batch and, after it, the first `samples` of it again, as if they were true nowhere."""
    names = ("video", "query", "video_mask", "query_mask", "saliency", "positive_frame")
    twice = {name: torch.cat((getattr(batch, name), getattr(batch, name)[:samples])) for name in names}
    twice["saliency"][-samples:] = 0
    twice["positive_frame"][-samples:] = ABSENT
    windows = None if batch.windows is None else [*batch.windows, *[torch.zeros(0, 2)] * samples]
    return replace(batch, **twice, windows=windows)


@pytest.mark.parametrize("recipe", RECIPES)
def test_absent_samples_have_no_part_in_what_needs_a_positive_frame(recipe):
    batch, _ = reference(recipe)
    head = head_of(recipe)
    alone, together = training_losses(head, batch), training_losses(head, absent_too(batch, 2))
    for name in ("sal", "video_cal", "layer_cal"):
        torch.testing.assert_close(together[name], alone[name], atol=1e-6, rtol=1e-6)
    assert together["cls"] != alone["cls"]
    sum(together.values()).backward()
    assert all(value.grad.isfinite().all() for value in head.parameters() if value.grad is not None)


def test_a_batch_of_absent_samples_teaches_by_its_points_alone():
    batch, _ = reference("qvh")
    empty = [torch.zeros(0, 2)] * 3
    absent = replace(batch, positive_frame=torch.full((3,), ABSENT), saliency=0 * batch.saliency, windows=empty)
    head = head_of("qvh")
    losses = training_losses(head, absent)
    assert losses["cls"] > 0
    assert all(losses[name] == 0 for name in ("reg", "sal", "video_cal", "layer_cal"))
    sum(losses.values()).backward()
    assert all(value.grad.isfinite().all() for value in head.parameters() if value.grad is not None)


def test_one_frame_one_layer_and_one_sample_are_enough():
    torch.manual_seed(0)
    head = R2Head(HeadConfig(hidden_width=16, video_width=6, query_width=4, layers=1, tokens=5)).eval()
    batch = TrainingBatch(
        video=torch.randn(1, 1, 1, 5, 6),
        query=torch.randn(1, 2, 1, 4),
        video_mask=torch.ones(1, 1, dtype=torch.bool),
        query_mask=torch.ones(1, 2, dtype=torch.bool),
        saliency=torch.ones(1, 1),
        positive_frame=torch.zeros(1, dtype=torch.int64),
        windows=[torch.tensor([[0.0, 2.0]])],
        fps=0.5,
    )
    losses = training_losses(head, batch)
    sum(losses.values()).backward()
    assert losses["sal"].item() == losses["video_cal"].item() == losses["layer_cal"].item() == 0  # nothing to contrast
    assert losses["cls"].item() > 0 and losses["reg"].item() > 0
    assert all(value.grad.isfinite().all() for value in head.parameters() if value.grad is not None)


def test_points_are_averaged_over_the_valid_and_over_the_positive_ones():
    points = level_points(6, STRIDES[:2], like=torch.zeros(0))  # 0…5 and 0, 2, 4
    mask = torch.tensor([[True, True, True, False, False, False]])
    batch = TrainingBatch(
        video=torch.zeros(1, 6, 1, 2, 3),
        query=torch.zeros(1, 1, 1, 3),
        video_mask=mask,
        query_mask=torch.ones(1, 1, dtype=torch.bool),
        saliency=torch.zeros(1, 6),
        positive_frame=torch.zeros(1, dtype=torch.int64),
        windows=[torch.tensor([[1.0, 3.0]])],
        fps=1.0,
    )
    output = HeadOutput(
        video=torch.zeros(1, 6, 4),
        query=torch.zeros(1, 1, 4),
        pooled_query=torch.zeros(1, 4),
        class_logits=torch.zeros(1, 9),
        offsets=torch.zeros(1, 9, 2),
        points=points,
        level_sizes=(6, 3),
        point_mask=torch.cat((mask, torch.tensor([[True, True, False]])), dim=1),
        calibration=None,
    )
    positive = point_targets(points, true_windows(batch.windows, mask.sum(dim=1), 1.0)).positive
    # Frame 3 is padding and no valid point, but the moment ends there: its offsets are learnt, its class is not.
    assert positive[0].nonzero().flatten().tolist() == [1, 2, 3]
    losses = point_losses(output, batch, lambda tensor: tensor)
    assert losses["cls"].item() == pytest.approx(math.log(2) / 4)  # (1 − ½)² · −log ½, whatever the target
    assert losses["reg"].item() == pytest.approx(((0 + 2) + (1 + 1) + (2 + 0)) / 6)


@pytest.mark.parametrize("recipe", ["qvh", "yt"])
def test_only_real_and_no_more_salient_frames_compete_with_the_positive_one(recipe):
    batch, _ = reference(recipe)
    saliency = batch.saliency.clone()
    saliency[:, 4] = 2.0  # competes in no video, so that its column of the contrast between queries is empty
    positive = [9, 1, 8]  # the reference's positive frames are the most salient ones; these are not
    saliency[1, 8], saliency[1, 9] = 0.9, math.inf
    batch = replace(batch, saliency=saliency, positive_frame=torch.tensor(positive))
    head = head_of(recipe)
    output = head(batch.video, batch.query, batch.video_mask, batch.query_mask)
    logits = []
    for sample in range(3):
        own = saliency[sample, positive[sample]]
        similarity = [
            torch.cosine_similarity(frame, output.pooled_query[sample], dim=0) for frame in output.video[sample]
        ]
        logits.append(
            [
                value.item() / 0.07 if real and score <= own else None
                for value, real, score in zip(similarity, batch.video_mask[sample], saliency[sample], strict=True)
            ]
        )

    def surprise(chosen, among):
        return -chosen + math.log(sum(math.exp(logit) for logit in among if logit is not None))

    rows = [surprise(logits[sample][positive[sample]], logits[sample]) for sample in range(3)]
    columns = [surprise(logits[i][frame], [sample[frame] for sample in logits]) for i, frame in enumerate(positive)]
    expected = sum(rows) / 3 + (0 if recipe == "yt" else sum(columns) / 3)
    losses = training_losses(head, batch)
    assert losses["sal"].item() == pytest.approx(0.1 * expected, rel=1e-5)
    losses["sal"].backward()
    assert all(value.grad.isfinite().all() for value in head.parameters() if value.grad is not None)


def test_a_head_that_finds_moments_needs_windows():
    batch, _ = reference("qvh")
    with pytest.raises(VtgError, match="no windows"):
        training_losses(head_of("qvh"), replace(batch, windows=None))


def test_fields_that_do_not_belong_together_are_refused():
    batch, _ = reference("qvh")
    with pytest.raises(ValueError, match="saliency is"):
        replace(batch, saliency=batch.saliency[:, :5])
    with pytest.raises(ValueError, match="windows is"):
        replace(batch, windows=batch.windows[:2])
    with pytest.raises(ValueError, match="is in the padding"):
        replace(batch, positive_frame=torch.tensor([2, 9, 11]))


def test_masks_may_be_zeros_and_ones():
    batch, _ = reference("qvh")
    numbers = replace(batch, video_mask=batch.video_mask.long(), query_mask=batch.query_mask.float())
    assert training_losses(head_of("qvh"), numbers) == training_losses(head_of("qvh"), batch)


def test_a_batch_moves_to_a_device_without_its_windows():
    batch, _ = reference("qvh")
    moved = batch.to("meta")
    assert {getattr(moved, name).device.type for name in ("video", "query", "video_mask", "saliency")} == {"meta"}
    assert moved.windows is batch.windows and moved.fps == batch.fps
