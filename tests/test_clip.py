"""CLIP: what the encoder gives is what the towers compute, from every kind of file, and never silently another's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from vtg.clip.encoder import ClipEncoder
from vtg.clip.specs import EncoderSpec
from vtg.errors import VtgError
from vtg.models.specs import model_spec


@pytest.fixture(scope="module")
def encoder(tiny_clip: Path) -> ClipEncoder:
    return ClipEncoder(pretrained=tiny_clip, device="cpu")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def test_reference_arrays(shared: Path) -> None:
    parity = shared / "parity"
    expected = load_file(parity / "clip_parity.safetensors")
    texts = json.loads((parity / "clip_parity.json").read_text())["texts"]
    encoder = ClipEncoder(pretrained=parity / "clip_small.safetensors", device="cpu")

    features = encoder.encode_frames(expected["frames"])
    torch.testing.assert_close(encoder.pixels(expected["frames"]), expected["pixels"], atol=2e-5, rtol=0)
    torch.testing.assert_close(features.layers, expected["video_layers"], atol=2e-5, rtol=0)
    torch.testing.assert_close(features.embedding, F.normalize(expected["image_embedding"], dim=-1), atol=2e-5, rtol=0)

    assert torch.equal(encoder.tokenize(texts), expected["tokens"])
    for i, text in enumerate(encoder.encode_texts(texts)):
        torch.testing.assert_close(text.layers, expected[f"query_layers.{i}"], atol=2e-5, rtol=0)
        embedding = F.normalize(expected["text_embedding"][i], dim=-1)
        torch.testing.assert_close(text.embedding, embedding, atol=2e-5, rtol=0)


def test_layers_are_the_residual_stream_after_the_last_blocks(encoder: ClipEncoder, frames: np.ndarray) -> None:
    seen: list[torch.Tensor] = []
    blocks = encoder._clip.visual.transformer.resblocks[-4:]
    hooks = [block.register_forward_hook(lambda _, __, output: seen.append(output.clone())) for block in blocks]
    features = encoder.encode_frames(frames)
    for hook in hooks:
        hook.remove()
    assert features.layers.shape == (5, 4, 5, 64)
    torch.testing.assert_close(features.layers, torch.stack(seen[-4:], dim=1), atol=1e-6, rtol=0)


def test_embedding_is_open_clips(encoder: ClipEncoder, frames: np.ndarray, tiny_clip: Path) -> None:
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    plain = CLIP(
        32,
        CLIPVisionCfg(layers=5, width=64, head_width=64, patch_size=16, image_size=32),
        CLIPTextCfg(context_length=77, vocab_size=49408, width=64, heads=1, layers=4),
        quick_gelu=True,
    ).eval()
    plain.load_state_dict(load_file(tiny_clip))
    with torch.no_grad():
        expected = plain.encode_image(encoder.pixels(frames), normalize=True)
        expected_text = plain.encode_text(encoder.tokenize(["two dogs"]), normalize=True)[0]
    torch.testing.assert_close(encoder.encode_frames(frames).embedding, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.encode_text("two dogs").embedding, expected_text, atol=1e-5, rtol=0)


def test_text_keeps_only_its_real_tokens(encoder: ClipEncoder) -> None:
    short, long = encoder.encode_texts(["two dogs", "person " * 90])
    assert short.tokens.tolist()[0] == 49406
    assert short.tokens.tolist()[-1] == long.tokens.tolist()[-1] == 49407
    assert short.layers.shape == (4, 4, 64)
    assert long.layers.shape == (77, 4, 64)
    torch.testing.assert_close(encoder.encode_text("two dogs").layers, short.layers, atol=1e-6, rtol=0)


def test_padding_behind_the_longest_sentence_is_not_read(encoder: ClipEncoder) -> None:
    read: list[torch.Size] = []
    hook = encoder._clip.token_embedding.register_forward_hook(lambda _, tokens, __: read.append(tokens[0].shape))
    texts = ["a dog", "a dog jumps into the lake"]
    features = encoder.encode_texts(texts)
    hook.remove()
    assert read == [(2, 8)]
    with torch.no_grad():
        whole = encoder._clip.forward_intermediates(text=encoder.tokenize(texts), text_indices=4)
    for row, text in enumerate(features):
        layers = torch.stack(whole["text_intermediates"], dim=2)[row, : len(text.tokens)]
        torch.testing.assert_close(text.layers, layers, atol=1e-5, rtol=0)
        torch.testing.assert_close(text.embedding, whole["text_features"][row], atol=1e-5, rtol=0)


def test_no_text_is_no_features(encoder: ClipEncoder) -> None:
    assert encoder.encode_texts([]) == []


def test_batches_do_not_change_the_result(tiny_clip: Path, encoder: ClipEncoder, frames: np.ndarray) -> None:
    small = ClipEncoder(pretrained=tiny_clip, device="cpu", batch_size=2).encode_frames(frames)
    torch.testing.assert_close(small.layers, encoder.encode_frames(frames).layers, atol=1e-5, rtol=0)


def test_a_batch_too_large_for_the_memory_is_halved(
    tiny_clip: Path, encoder: ClipEncoder, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    cramped = ClipEncoder(pretrained=tiny_clip, device="cpu", batch_size=4)
    whole_pass = cramped._image_pass
    sizes: list[int] = []

    def pass_of_two_at_most(pixels: torch.Tensor) -> dict[str, object]:
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("no room")
        return whole_pass(pixels)

    monkeypatch.setattr(cramped, "_image_pass", pass_of_two_at_most)
    features = cramped.encode_frames(frames)
    torch.testing.assert_close(features.layers, encoder.encode_frames(frames).layers, atol=1e-5, rtol=0)
    assert max(sizes) == 4
    assert cramped.batch_size == 2


def test_frames_of_another_size_are_resized_and_cropped(encoder: ClipEncoder) -> None:
    # Left third black, the rest white: the centre square of a 3:1 picture is the middle third.
    wide = np.full((1, 32, 96, 3), 255, np.uint8)
    wide[:, :, :32] = 0
    white = np.full((1, 32, 32, 3), 255, np.uint8)
    torch.testing.assert_close(encoder.pixels(wide), encoder.pixels(white))
    large = np.full((1, 200, 100, 3), 77, np.uint8)
    torch.testing.assert_close(encoder.pixels(large), encoder.pixels(np.full((1, 32, 32, 3), 77, np.uint8)))


def test_frames_that_are_not_pictures_are_refused(encoder: ClipEncoder) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encoder.encode_frames(np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(ValueError, match=r"\[32, 32, 3\]"):
        encoder.encode_frames(np.zeros((32, 32, 3), np.uint8))


def test_half_precision_stays_close(tiny_clip: Path, encoder: ClipEncoder, frames: np.ndarray) -> None:
    half = ClipEncoder(pretrained=tiny_clip, device="cpu", dtype=torch.bfloat16)
    features = half.encode_frames(frames)
    assert features.layers.dtype == torch.bfloat16
    cosine = (features.embedding.float() * encoder.encode_frames(frames).embedding).sum(-1)
    assert cosine.min() > 0.999


TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 4}
SMALL_MODELS = {
    "small-vit": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 4, "head_width": 64},
    },
    "small-siglip": {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit2", "timm_pool": "map", "timm_proj": "none"},
    },
    "small-resnet": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16},
    },
    "small-efficientnet": {
        "embed_dim": 32,
        "vision_cfg": {
            "image_size": 64,
            "timm_model_name": "test_efficientnet",
            "timm_pool": "avg",
            "timm_proj": "linear",
        },
    },
}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """Adds small models to open_clip's catalogue; gives a file of random weights for one, and the plain model."""
    import open_clip

    folder = tmp_path_factory.mktemp("catalogue")
    for name, config in SMALL_MODELS.items():
        (folder / f"{name}.json").write_text(json.dumps({**config, "text_cfg": TEXT}))
    open_clip.add_model_config(folder)

    def weights(name: str) -> tuple[Path, Any]:
        torch.manual_seed(0)
        plain = open_clip.create_model(name).eval()
        path = folder / f"{name}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in plain.state_dict().items()}, path)
        return path, plain

    return weights


def test_a_catalogue_model_reads_a_file(catalogue: Callable[[str], tuple[Path, Any]], frames: np.ndarray) -> None:
    weights, plain = catalogue("small-vit")
    encoder = ClipEncoder("small-vit", weights, device="cpu", preprocessing="openai")
    features = encoder.encode_frames(frames)
    assert features.layers.shape == (5, 4, 5, 64)
    with torch.no_grad():
        expected = plain.encode_image(encoder.pixels(frames), normalize=True)
    torch.testing.assert_close(features.embedding, expected, atol=1e-5, rtol=0)


def test_a_tower_without_a_class_token_has_none(
    catalogue: Callable[[str], tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    class LetterTokenizer:
        """Stands in for SigLIP's own, which has to be downloaded."""

        eot_token_id = 1

        def __call__(self, texts: list[str]) -> torch.Tensor:
            rows = [[2 + ord(letter) % 97 for letter in text[:76]] for text in texts]
            return torch.tensor([row + [1] * (77 - len(row)) for row in rows])

    weights, plain = catalogue("small-siglip")
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: LetterTokenizer())
    encoder = ClipEncoder("small-siglip", weights, device="cpu", preprocessing="mean=0.5,std=0.5")
    assert encoder.class_tokens == 0
    assert encoder.tokens >= 100
    frames = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    features = encoder.encode_frames(frames)
    assert features.layers.shape == (2, 4, encoder.tokens, encoder.width)
    with torch.no_grad():
        expected = plain.encode_image(encoder.pixels(frames), normalize=True)
    torch.testing.assert_close(features.embedding, expected, atol=1e-5, rtol=0)
    assert encoder.encode_text("abc").layers.shape == (4, 4, 64)


@pytest.mark.parametrize("name", ["small-resnet", "small-efficientnet"])
def test_a_tower_that_is_no_vit_is_refused(name: str, catalogue: Callable[[str], tuple[Path, Any]]) -> None:
    weights, _ = catalogue(name)
    with pytest.raises(VtgError, match="not a ViT"):
        ClipEncoder(name, weights, device="cpu", preprocessing="openai")


@pytest.mark.parametrize("name", ["small-vit", "small-resnet", "small-efficientnet"])
def test_any_tower_gives_embeddings(
    name: str, catalogue: Callable[[str], tuple[Path, Any]], frames: np.ndarray
) -> None:
    import open_clip

    weights, plain = catalogue(name)
    encoder = ClipEncoder(name, weights, layers=0, device="cpu", preprocessing="openai")
    features = encoder.encode_frames(frames)
    assert features.layers.shape == (len(frames), 0, 0, 0)
    assert (encoder.tokens, encoder.width) == (0, 0)
    texts = ["a dog jumps into the lake", "a cat"]
    with torch.no_grad():
        expected = plain.encode_image(encoder.pixels(frames), normalize=True)
        of_texts = plain.encode_text(open_clip.get_tokenizer(name)(texts), normalize=True)
    torch.testing.assert_close(features.embedding, expected, atol=1e-5, rtol=0)
    encoded = encoder.encode_texts(texts)
    torch.testing.assert_close(torch.stack([text.embedding for text in encoded]), of_texts, atol=1e-5, rtol=0)
    assert [tuple(text.layers.shape) for text in encoded] == [(8, 0, 0), (4, 0, 0)]


def test_more_layers_than_there_are_is_refused(tiny_clip: Path) -> None:
    with pytest.raises(VtgError, match="has 4 layers, 9 were requested"):
        ClipEncoder(pretrained=tiny_clip, layers=9, device="cpu")


class TestFiles:
    """Weights in files: other containers, compact token tables, damage."""

    def test_a_state_dict_is_the_same_encoder_output(self, tiny_clip: Path, tmp_path: Path, frames: np.ndarray) -> None:
        path = tmp_path / "weights.pt"
        torch.save({"state_dict": {f"module.{k}": v for k, v in load_file(tiny_clip).items()}}, path)
        ours = ClipEncoder(pretrained=path, device="cpu").encode_frames(frames)
        expected = ClipEncoder(pretrained=tiny_clip, device="cpu").encode_frames(frames)
        assert torch.equal(ours.layers, expected.layers)

    def test_rows_that_were_left_out_are_the_unknown_word(self, tiny_clip: Path, tmp_path: Path) -> None:
        tensors = load_file(tiny_clip)
        table = tensors["token_embedding.weight"]
        rows = torch.tensor([49406, 49407, 320, 1929], dtype=torch.int32)  # start, end, "a", "dog"
        tensors["token_embedding.rows"] = rows
        tensors["token_embedding.weight"] = table[rows.long()].contiguous()
        tensors["token_embedding.unknown"] = torch.zeros(64)
        path = tmp_path / "compact.safetensors"
        save_file(tensors, path)
        compact, whole = ClipEncoder(pretrained=path, device="cpu"), ClipEncoder(pretrained=tiny_clip, device="cpu")
        assert torch.equal(compact.encode_text("a dog").layers, whole.encode_text("a dog").layers)
        unknown = compact.encode_text("a zebra").embedding
        assert torch.isfinite(unknown).all()
        assert torch.equal(unknown, compact.encode_text("a cat").embedding)

    @pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
    @pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x10\0\0\0\0\0\0\0{}"])
    def test_damage_is_one_line(self, tmp_path: Path, name: str, content: bytes) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(VtgError) as error:
            ClipEncoder(pretrained=path, device="cpu")
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_pickle_that_runs_code_is_refused_unrun(self, tmp_path: Path) -> None:
        mark = tmp_path / "was_run"

        class Bomb:
            def __reduce__(self) -> tuple[object, ...]:
                return Path.touch, (mark,)

        path = tmp_path / "weights.pt"
        torch.save({"state_dict": Bomb()}, path)
        with pytest.raises(VtgError, match="not a file of weights"):
            ClipEncoder(pretrained=path, device="cpu")
        assert not mark.exists()

    def test_other_weights_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "other.safetensors"
        save_file({"layer.weight": torch.zeros(2, 2)}, path)
        with pytest.raises(VtgError, match=r"no visual\.conv1\.weight"):
            ClipEncoder(pretrained=path, device="cpu")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(VtgError, match="no such file"):
            ClipEncoder(pretrained=tmp_path / "none.safetensors", device="cpu")


class TestNames:
    """Models and tags, without loading anything."""

    def test_unknown_names_say_what_is_known(self) -> None:
        with pytest.raises(VtgError, match="not a model of open_clip's catalogue"):
            ClipEncoder("ViT-B-33", "openai", device="cpu")
        with pytest.raises(VtgError, match=r"known tags: .*openai"):
            ClipEncoder("ViT-B-32-quickgelu", "opanai", device="cpu")
        with pytest.raises(VtgError, match="no such model"):
            model_spec("r3-none")

    def test_a_fingerprint_follows_content_model_and_layers(self, tiny_clip: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy.safetensors"
        copy.write_bytes(tiny_clip.read_bytes())
        assert EncoderSpec(None, str(copy)).fingerprint == EncoderSpec(None, str(tiny_clip)).fingerprint
        copy.write_bytes(tiny_clip.read_bytes()[:-4] + b"\1\2\3\4")
        different = {
            EncoderSpec(None, str(tiny_clip)).fingerprint,
            EncoderSpec(None, str(copy)).fingerprint,
            EncoderSpec(None, str(tiny_clip), layers=3).fingerprint,
            EncoderSpec("ViT-B-32", "openai").fingerprint,
            EncoderSpec("ViT-B-32", "laion2b_e16").fingerprint,
        }
        assert len(different) == 5

    def test_an_encoder_has_the_fingerprint_of_its_names(self, encoder: ClipEncoder, tiny_clip: Path) -> None:
        assert encoder.fingerprint == EncoderSpec(None, str(tiny_clip)).fingerprint
