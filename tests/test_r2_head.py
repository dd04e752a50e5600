"""The R² head against the reference implementation's arrays, and against itself: batches, padding, precision."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from vtg.errors import VtgError
from vtg.r2 import HeadConfig, R2Head, attention_map, read_head
from vtg.r2.block import DropPath, R2Block

HERE = Path(__file__).parent / "data" / "r2"
SHARED = Path(__file__).parents[2] / "shared" / "parity"
HEADS = {
    "tiny": HERE / "head_tiny.pth",
    "highlight": HERE / "head_highlight_tiny.pth",
    "full": SHARED / "head_vit_b_32.pth",
}
CASES = ["tiny.t1", "tiny.t3", "tiny.t8", "tiny.t13", "tiny.t75", "highlight.t2", "highlight.t31", "full.t12"]


def parity(case):
    """A head, and the reference's inputs and outputs of one case."""
    kind = case.partition(".")[0]
    arrays = SHARED / "head_parity_full.safetensors" if kind == "full" else HERE / "head_parity.safetensors"
    if not arrays.exists() or not HEADS[kind].exists():
        pytest.skip("the full-size reference arrays are not here")
    with safe_open(arrays, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(f"{case}.")]  # noqa: SIM118 (not a mapping)
        return read_head(HEADS[kind]), {name.rpartition(".")[2]: file.get_tensor(name) for name in names}


def assert_same(one, other, tolerance=1e-5):
    """Two predictions that agree in everything."""
    for field in ("windows", "saliency", "class_logits", "offsets", "points"):
        ours, theirs = getattr(one, field), getattr(other, field)
        if theirs is None:
            assert ours is None
        else:
            torch.testing.assert_close(
                ours, theirs, atol=tolerance, rtol=0, msg=lambda text, field=field: f"{field}: {text}"
            )


def queries_of(lengths, config, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, config.layers, config.query_width, generator=generator) for length in lengths]


@pytest.mark.parametrize("case", CASES)
def test_every_intermediate_and_output_equals_the_reference(case):
    head, reference = parity(case)
    tolerance = 1e-4 if case.startswith("full") else 2e-5
    with torch.no_grad():
        output = head(reference["video"][None], reference["query"][None])
    prediction = head.predict(reference["video"], reference["query"], fps=0.5)
    found = {
        "block_video": output.video[0],
        "block_query": output.query[0],
        "query_pooled": output.pooled_query[0],
        "class_logits": prediction.class_logits,
        "saliency": prediction.saliency,
    }
    if not case.startswith("highlight"):
        found |= {"offsets": prediction.offsets, "boundary": prediction.windows}
    assert set(found) | {"video", "query", "points"} == set(reference)
    for name, array in found.items():
        torch.testing.assert_close(
            array, reference[name].view_as(array), atol=tolerance, rtol=0, msg=lambda t, n=name: f"{n}: {t}"
        )
    assert torch.equal(prediction.points, reference["points"])


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("highlight")])
def test_windows_rank_as_in_the_reference(case):
    head, reference = parity(case)
    windows = head.predict(reference["video"], reference["query"], fps=0.5).windows
    start = (reference["points"][:, 0] - reference["points"][:, 3] * reference["offsets"][:, 0]) / 0.5
    end = (reference["points"][:, 0] + reference["points"][:, 3] * reference["offsets"][:, 1]) / 0.5

    def points_of(found):
        distance = (start - found[:, :1]).abs() + (end - found[:, 1:2]).abs()
        return distance.argmin(dim=1)

    assert torch.equal(points_of(windows), points_of(reference["boundary"]))
    assert windows.shape == (min(50, len(start)), 3)
    assert windows.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("highlight")])
def test_half_precision_keeps_the_best_window(case, dtype):
    head, reference = parity(case)
    exact = head.predict(reference["video"], reference["query"], fps=0.5)
    with torch.autocast("cpu", dtype):
        rounded = head.predict(reference["video"], reference["query"], fps=0.5)
    (start, end, _), (other_start, other_end, _) = exact.windows[0].tolist(), rounded.windows[0].tolist()
    shared = min(end, other_end) - max(start, other_start)
    assert shared / (max(end, other_end) - min(start, other_start)) >= 0.99
    assert not torch.equal(exact.class_logits, rounded.class_logits)  # autocast did something
    assert rounded.windows.dtype == rounded.saliency.dtype == torch.float32


def test_published_size_has_as_many_parameters_as_published():
    head = R2Head(HeadConfig())
    assert round(sum(parameter.numel() for parameter in head.parameters()) / 1e6, 2) == 2.84


@pytest.mark.parametrize("case", ["tiny.t13", "highlight.t31"])
def test_queries_of_many_lengths_on_one_video_agree_with_each_alone(case):
    head, reference = parity(case)
    queries = queries_of([9, 2, 5, 1, 5], head.config)
    batch = head.predict_batch([reference["video"]], queries, fps=0.5)
    assert len(batch) == 5
    for query, prediction in zip(queries, batch, strict=True):
        assert_same(prediction, head.predict(reference["video"], query, fps=0.5))


def test_equally_long_windows_of_one_query_agree_with_each_alone():
    head, reference = parity("tiny.t75")
    windows = [reference["video"][start : start + 25] for start in (0, 20, 50)]
    batch = head.predict_batch(windows, [reference["query"]], fps=0.5)
    stacked = head.predict_batch(torch.stack(windows), [reference["query"]], fps=0.5)
    for window, one, other in zip(windows, batch, stacked, strict=True):
        assert_same(one, head.predict(window, reference["query"], fps=0.5))
        assert_same(other, one)


def test_pairs_of_windows_and_queries_agree_with_each_alone():
    head, reference = parity("tiny.t75")
    windows = [reference["video"][start : start + 10] for start in (0, 20, 50)]
    queries = queries_of([3, 8, 5], head.config)
    for window, query, prediction in zip(windows, queries, head.predict_batch(windows, queries), strict=True):
        assert_same(prediction, head.predict(window, query))


def test_padding_may_hold_anything():
    head, reference = parity("tiny.t13")
    video, query = reference["video"].float(), reference["query"].float()
    video_mask = torch.arange(13)[None] < 9
    query_mask = torch.arange(len(query))[None] < 3

    def run(filler):
        padded_video = torch.where(video_mask[0, :, None, None, None], video, filler)
        padded_query = torch.where(query_mask[0, :, None, None], query, filler)
        with torch.no_grad():
            return head(padded_video[None], padded_query[None], video_mask, query_mask)

    zeros, infinite = run(0.0), run(math.inf)
    assert torch.equal(zeros.class_logits, infinite.class_logits)
    assert torch.equal(zeros.offsets, infinite.offsets)
    assert torch.equal(zeros.pooled_query, infinite.pooled_query)
    assert zeros.point_mask.sum().item() == 9 + 5 + 3 + 1  # frames 8, 8 and 8 keep a point of strides 2 and 4 alive


def test_padded_words_count_in_the_pooling_of_training_only():
    head, reference = parity("tiny.t13")
    query = reference["query"][:3]
    padded = torch.cat((query, torch.zeros_like(query)))
    mask = torch.arange(6)[None] < 3
    with torch.no_grad():
        alone = head(reference["video"][None], query[None]).class_logits
        trained = head(reference["video"][None], padded[None], None, mask).class_logits
    longer = queries_of([6], head.config)[0]
    asked = head.predict_batch([reference["video"]], [query, longer])[0].class_logits
    assert (trained - alone).abs().max() > 1e-4
    torch.testing.assert_close(asked[None], alone, atol=1e-5, rtol=0)


def test_every_parameter_learns_from_a_padded_batch():
    head, reference = parity("tiny.t13")
    head.train()
    video = reference["video"].float().expand(2, -1, -1, -1, -1)
    query = reference["query"].float().expand(2, -1, -1, -1)
    video_mask = torch.arange(13)[None] < torch.tensor([[13], [7]])
    query_mask = torch.arange(query.shape[1])[None] < torch.tensor([[5], [2]])
    torch.manual_seed(0)
    output = head(video, query, video_mask, query_mask)
    similarity = (output.calibration.class_tokens[:, :, 3] * output.calibration.queries).sum()
    (output.class_logits.sum() + output.offsets.sum() + output.pooled_query.sum() + similarity).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert output.calibration.class_tokens.shape == (4, 2, 13, 32)
    assert output.calibration.queries.shape == (4, 2, 32)


def test_mapped_half_precision_features_enter_one_layer_at_a_time(tmp_path, monkeypatch):
    head, reference = parity("tiny.t75")
    exact = head.predict(reference["video"].float(), reference["query"].float())
    np.save(tmp_path / "video.npy", reference["video"].numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "video.npy", mmap_mode="r+"))
    shapes = []
    original = R2Block.map_video
    monkeypatch.setattr(
        R2Block, "map_video", lambda self, layer, *rest: shapes.append(layer.shape) or original(self, layer, *rest)
    )
    assert_same(head.predict(mapped, reference["query"]), exact)
    assert shapes == [(1, 75, 10, 48)] * 4


def test_attention_is_the_papers_softmax_without_the_class_token():
    head, reference = parity("tiny.t8")
    attention = head.attention(reference["video"], reference["query"])
    assert attention.shape == (4, 8, 7, 9)
    block, frame, layer = head.block, 5, 2
    with torch.no_grad():
        extent = torch.tensor([5 / 8, 6 / 8]).expand(10, 2)
        tokens = block.video_map(torch.cat((reference["video"][frame, layer].float(), extent), dim=1))
        words = block.query_map(reference["query"][:, layer].float())
        expected = (block.query_key(words) @ block.video_key(tokens).T / math.sqrt(32)).softmax(dim=1)[:, 1:]
    torch.testing.assert_close(attention[layer, frame], expected, atol=1e-6, rtol=0)


def test_attention_of_some_frames_is_that_of_the_whole_video():
    head, reference = parity("tiny.t8")
    some = head.attention(reference["video"], reference["query"], frames=[6, 1])
    torch.testing.assert_close(
        some, head.attention(reference["video"], reference["query"])[:, [6, 1]], atol=1e-6, rtol=0
    )


def test_attention_map_leaves_start_and_end_tokens_out():
    attention = np.zeros((2, 1, 4, 9), dtype=np.float32)
    attention[:, :, 0] = attention[:, :, -1] = 0.9  # start and end
    attention[0, 0, 1, 4], attention[1, 0, 1, 4], attention[1, 0, 2, 8] = 0.4, 0.2, 0.6
    both = attention_map(attention)
    assert both.shape == (1, 3, 3)
    assert both[0, 1, 1] == pytest.approx(0.3) and both[0, 2, 2] == pytest.approx(0.3) and both.max() < 0.31
    assert attention_map(attention, layer=0)[0, 1, 1] == pytest.approx(0.4)
    assert attention_map(attention, word=0)[0, 2, 2] == 0
    assert attention_map(attention, layer=1, word=1)[0, 2, 2] == pytest.approx(0.6)


@pytest.mark.parametrize("choice", [{"layer": 2}, {"layer": -1}, {"word": 2}])
def test_attention_map_refuses_what_is_not_there(choice):
    with pytest.raises(ValueError, match="is not one of"):
        attention_map(np.zeros((2, 1, 4, 9), dtype=np.float32), **choice)


def test_highlight_only_head_has_saliency_and_no_windows():
    head, reference = parity("highlight.t31")
    prediction = head.predict(reference["video"], reference["query"])
    assert prediction.windows is None and prediction.offsets is None
    torch.testing.assert_close(prediction.saliency, prediction.class_logits.sigmoid())


def test_rate_scales_the_windows_and_defaults_to_the_heads_own():
    head, reference = parity("tiny.t13")
    slow = head.predict(reference["video"], reference["query"], fps=0.5).windows
    fast = head.predict(reference["video"], reference["query"], fps=2.0).windows
    torch.testing.assert_close(slow[:, :2], 4 * fast[:, :2])
    assert torch.equal(slow, head.predict(reference["video"], reference["query"]).windows)


@pytest.mark.parametrize(
    ("video", "query", "said"),
    [
        ((8, 3, 10, 48), (5, 4, 40), r"\[8, 3, 10, 48\].*reads \[T, 4, P, 48\]"),
        ((8, 4, 10, 64), (5, 4, 40), r"\[8, 4, 10, 64\].*reads \[T, 4, P, 48\]"),
        ((4, 10, 48), (5, 4, 40), r"\[4, 10, 48\].*reads"),
        ((0, 4, 10, 48), (5, 4, 40), "no frames"),
        ((8, 4, 10, 48), (5, 4, 32), r"\[5, 4, 32\].*reads \[L, 4, 40\]"),
        ((8, 4, 10, 48), (0, 4, 40), r"\[0, 4, 40\].*reads"),
    ],
)
def test_features_of_another_clip_are_refused_in_one_line(video, query, said):
    head = read_head(HEADS["tiny"])
    with pytest.raises(VtgError, match=said) as caught:
        head.predict(torch.zeros(video), torch.zeros(query))
    assert "\n" not in str(caught.value)


def test_token_count_is_checked_where_the_head_knows_it():
    head = R2Head(
        HeadConfig(hidden_width=16, video_width=6, query_width=4, layers=2, tokens=10, attention_heads=2)
    ).eval()
    with pytest.raises(VtgError, match=r"reads \[T, 2, 10, 6\].*ViT-B-32"):
        head.predict(torch.zeros(3, 2, 5, 6), torch.zeros(2, 2, 4))


def test_batches_that_do_not_pair_are_refused():
    head, reference = parity("tiny.t13")
    video, query = reference["video"], reference["query"]
    with pytest.raises(VtgError, match="2 videos and 3 queries"):
        head.predict_batch([video] * 2, [query] * 3)
    with pytest.raises(VtgError, match="13 and 5 frames"):
        head.predict_batch([video, video[:5]], [query])


def test_head_moves_and_copies_like_any_module():
    head, reference = parity("tiny.t13")
    before = head.predict(reference["video"], reference["query"])
    assert_same(head.double().float().predict(reference["video"], reference["query"]), before)
    copy = R2Head(head.config)
    copy.load_state_dict(head.state_dict())
    assert_same(copy.eval().predict(reference["video"], reference["query"]), before)


def test_published_initial_values():
    torch.manual_seed(0)
    head = R2Head(HeadConfig(hidden_width=64, video_width=32, query_width=32))
    layer = head.block.refinement
    assert torch.equal(head.block.gate, torch.zeros(3)) and torch.equal(head.block.scale, torch.zeros(4))
    assert torch.equal(head.level_scale, torch.ones(4))
    assert head.saliency_scale.exp().item() == pytest.approx(1 / 0.07)
    bound = math.sqrt(6 / 128)  # Xavier-uniform of a 64 × 64 matrix
    assert 0.95 * bound < layer.cross_attention.query.weight.abs().max() <= bound
    assert layer.feed_forward[0].weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.05)  # Kaiming, fan-out
    assert layer.feed_forward[2].weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.05)
    assert not layer.feed_forward[0].bias.any() and not layer.self_attention.output.bias.any()


def test_drop_path_leaves_whole_samples_out_in_training():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    branch = torch.ones(4000, 3, 2)
    dropped = drop(branch)
    samples = dropped.flatten(1)
    assert ((samples == 0).all(dim=1) | torch.isclose(samples, torch.tensor(4 / 3)).all(dim=1)).all()
    assert (samples[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(drop.eval()(branch), branch)
