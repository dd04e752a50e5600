"""CLIP in bfloat16: close to float32, chosen only where it is found to be quicker and close, and said in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vtg.clip import precision as clip_precision
from vtg.clip.encoder import ClipEncoder
from vtg.errors import VtgError
from vtg.features.arrays import read_header
from vtg.features.store import EncodedChunk, FeatureKey, FeatureStore


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def encoder_of(tiny_clip: Path, encoding: str) -> ClipEncoder:
    return ClipEncoder(pretrained=tiny_clip, device="cpu", encoding=encoding)


def test_bfloat16_is_close_and_not_the_same(tiny_clip: Path, frames: np.ndarray) -> None:
    exact, half = (encoder_of(tiny_clip, encoding) for encoding in ("float32", "bfloat16"))
    assert (exact.computes, half.computes) == ("float32", "bfloat16")
    one, other = exact.encode_frames(frames), half.encode_frames(frames)
    assert other.layers.dtype == torch.float32
    assert (one.embedding * other.embedding).sum(dim=1).min() >= 0.995
    difference = (one.layers - other.layers).norm(dim=3) / one.layers.norm(dim=3)
    assert 0 < difference.max() < 0.02
    assert torch.equal(exact.encode_text("a dog").layers, half.encode_text("a dog").layers)
    assert exact.fingerprint == half.fingerprint


def test_float32_is_what_it_always_was(tiny_clip: Path, frames: np.ndarray) -> None:
    plain, named = ClipEncoder(pretrained=tiny_clip, device="cpu"), encoder_of(tiny_clip, "float32")
    assert torch.equal(plain.encode_frames(frames).layers, named.encode_frames(frames).layers)


def test_undoing_gives_the_same_numbers_again(tiny_clip: Path, frames: np.ndarray) -> None:
    encoder = encoder_of(tiny_clip, "float32")
    before = encoder.encode_frames(frames).layers
    restore = clip_precision.use_bfloat16_products(encoder.visual)
    assert not torch.equal(encoder.encode_frames(frames).layers, before)
    restore()
    assert torch.equal(encoder.encode_frames(frames).layers, before)


def test_a_small_tower_is_not_even_tried(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_precision, "_is_bfloat16_better", lambda encoder: pytest.fail("tried"))
    assert encoder_of(tiny_clip, "auto").computes == "float32"


class TestTrial:
    """What "auto" finds out."""

    @pytest.fixture(autouse=True)
    def anything_is_tried(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VTG_CACHE", str(tmp_path))
        monkeypatch.setattr(clip_precision, "MIN_PARAMETERS", 0)
        monkeypatch.setattr(clip_precision, "_multiplies_bfloat16", lambda: True)

    def time_as(self, monkeypatch: pytest.MonkeyPatch, gain: float) -> None:
        def seconds(encoder: ClipEncoder, frames: torch.Tensor) -> float:
            halved = any(isinstance(module, clip_precision._BFloat16Linear) for module in encoder.visual.modules())
            return 1.0 if halved else gain

        monkeypatch.setattr(clip_precision, "_seconds", seconds)

    @pytest.mark.parametrize(("gain", "expected"), [(1.5, "bfloat16"), (1.1, "float32")])
    def test_only_what_is_quicker_is_used(
        self, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch, gain: float, expected: str
    ) -> None:
        self.time_as(monkeypatch, gain)
        assert encoder_of(tiny_clip, "auto").computes == expected

    def test_a_processor_without_such_products_is_not_tried(
        self, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.time_as(monkeypatch, 9.0)
        monkeypatch.setattr(clip_precision, "_multiplies_bfloat16", lambda: False)
        monkeypatch.setattr(clip_precision, "use_bfloat16_products", lambda tower: pytest.fail("tried"))
        assert encoder_of(tiny_clip, "auto").computes == "float32"

    def test_only_what_is_close_is_used(self, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time_as(monkeypatch, 9.0)
        original = clip_precision._BFloat16Linear.forward
        monkeypatch.setattr(
            clip_precision._BFloat16Linear, "forward", lambda self, inputs: original(self, inputs).roll(1, -1)
        )
        assert encoder_of(tiny_clip, "auto").computes == "float32"

    def test_the_outcome_is_remembered(self, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time_as(monkeypatch, 1.5)
        encoder_of(tiny_clip, "auto")
        monkeypatch.setattr(clip_precision, "_is_bfloat16_better", lambda encoder: pytest.fail("tried again"))
        assert encoder_of(tiny_clip, "auto").computes == "bfloat16"
        (tmp_path / "encoding.json").write_text("damaged")
        monkeypatch.setattr(clip_precision, "_is_bfloat16_better", lambda encoder: False)
        assert encoder_of(tiny_clip, "auto").computes == "float32"


def test_another_name_is_refused(tiny_clip: Path) -> None:
    with pytest.raises(VtgError, match=r"int4: .*float32, bfloat16, auto"):
        encoder_of(tiny_clip, "int4")


def test_a_file_says_what_it_was_computed_in(tmp_path: Path) -> None:
    store, key = FeatureStore(tmp_path), FeatureKey("a" * 32, "b" * 16, 0.5)
    for computed, expected in (("bfloat16", "bfloat16"), ("float32", None)):
        with store.write(key, 1.0, computed=computed) as writer:
            writer.append(EncodedChunk(np.zeros(1), np.zeros((1, 4, 5, 8)), np.zeros((1, 3))))
        assert read_header(store.path(key))["__metadata__"].get("computed") == expected


def test_a_sentence_is_encoded_once(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(tiny_clip, "float32")
    before = encoder.encode_texts(["a dog", "a cat", "a dog"])
    monkeypatch.setattr(encoder, "tokenize", lambda texts: pytest.fail(f"encoded {texts} again"))
    again = encoder.encode_texts(["a cat", "a dog"])
    assert torch.equal(again[0].layers, before[1].layers) and torch.equal(again[1].layers, before[2].layers)
