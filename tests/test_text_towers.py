"""Text towers of every kind of open_clip's catalogue, with tiny configurations and tokenizers made here.

The models have random weights: XLM-RoBERTa and NLLB by Hugging Face's transformers, SigLIP's tokenizer, CLIP's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from vtg.cli.main import app
from vtg.clip.encoder import ClipEncoder
from vtg.errors import VtgError
from vtg.library.library import Library
from vtg.models.specs import model_spec

transformers = pytest.importorskip("transformers")

QUERIES = (
    "A dog jumps into the lake",
    "Un chien saute dans le lac à l'été",
    "Собака прыгает в озеро",
    "كلب يقفز في البحيرة",
    "一只狗跳进湖里",
    "झील में कूदता हुआ कुत्ता",
    "犬が湖に飛び込む",
)
VISION = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2, "head_width": 64}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
KINDS = ("own", "siglip", "xlm-roberta", "nllb")
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def write_tokenizer(folder: Path, kind: str) -> None:
    """A tokenizer of single letters, which gives every text back whole."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    letters = sorted({letter for query in QUERIES for letter in query} | set(map(chr, range(33, 127))) | {"▁"})
    whole = Tokenizer(models.BPE({token: i for i, token in enumerate([*SPECIAL, *letters])}, [], unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.Metaspace()
    whole.decoder = decoders.Metaspace()
    whole.post_processor = TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 2)])
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=whole, **names).save_pretrained(folder)
    if kind == "nllb":  # its own class adds the languages
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps(settings | {"tokenizer_class": "NllbTokenizer"}), "utf-8")


def text_configuration(folder: Path, kind: str) -> dict[str, Any]:
    """open_clip's configuration of a text tower, as its catalogue's models of that kind have it."""
    if kind == "own":
        return {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    write_tokenizer(folder, kind)
    if kind == "siglip":
        return {
            **{"context_length": 64, "vocab_size": 2000, "width": 64, "heads": 1, "layers": 2},
            **{"hf_tokenizer_name": str(folder), "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        }
    if kind == "nllb":
        sizes = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64}
        config = transformers.M2M100Config(vocab_size=3000, max_position_embeddings=128, pad_token_id=1, **sizes)
    else:
        config = transformers.XLMRobertaConfig(vocab_size=3000, max_position_embeddings=130, **SIZES)
    config.save_pretrained(folder)
    pooler = "cls_pooler" if kind == "nllb" else "mean_pooler"
    both = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "hf_pooler_type": pooler}
    return {**both, "context_length": 64, "hf_proj_type": "linear"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path, Any]]:
    """For each kind: a name in open_clip's catalogue, a file of random weights, and open_clip's model with them."""
    import open_clip

    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        name = f"tiny-{kind}"
        config = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": text_configuration(folder, kind)}
        if kind == "siglip":
            config |= {"custom_text": True, "init_logit_bias": -10}
        configurations = tmp_path_factory.mktemp("configurations")
        (configurations / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(configurations)
        torch.manual_seed(0)
        plain = open_clip.create_model(name, load_weights=False, pretrained_text=False).eval()
        path = folder / "weights.safetensors"
        save_file({key: tensor.clone() for key, tensor in plain.state_dict().items()}, path)
        made[kind] = (name, path, plain)
    return made


class Recorder:
    """Stands before a tokenizer and keeps the texts that it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self.texts: list[str] = []
        self._tokenizer = tokenizer

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        self.texts += texts
        return self._tokenizer(texts)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_open_clips(kind: str, models: dict[str, tuple[str, Path, Any]]) -> None:
    import open_clip

    name, weights, plain = models[kind]
    encoder = ClipEncoder(name, weights, layers=0, device="cpu", preprocessing="openai")
    with torch.no_grad():
        expected = plain.encode_text(open_clip.get_tokenizer(name)(list(QUERIES)), normalize=True)
    found = torch.stack([text.embedding for text in encoder.encode_texts(QUERIES)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert len({tuple(row.tolist()) for row in found}) == len(QUERIES)
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    assert encoder.encode_frames(frames).embedding.shape == (3, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_queries_in_every_script_reach_the_tokenizer_unchanged(
    kind: str, models: dict[str, tuple[str, Path, Any]], tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    name, weights, _ = models[kind]
    film = make_video(tmp_path / "film.mp4")
    options = ["--library", str(tmp_path / "library"), "--device", "cpu"]
    named = ["--model", "zero-shot", "--clip", name, "--pretrained", str(weights), "--preprocessing", "openai"]
    run = CliRunner().invoke(app, ["index", str(film), *named, *options])
    assert run.exit_code == 0, run.output

    library = Library(tmp_path / "library", device="cpu")
    recorder = Recorder(library.encoder._tokenizer)
    library.encoder._tokenizer = recorder
    for query in QUERIES:
        assert library.search(query)
        assert query in recorder.texts
    if kind != "own":  # CLIP's own tokenizer splits what it does not know into bytes, in lower case
        inner = recorder.tokenizer
        for query in QUERIES:
            tokens = library.encoder.tokenize([query])[0]
            assert inner.decode(tokens, skip_special_tokens=True).strip() == query
    answer = CliRunner().invoke(app, ["search", QUERIES[2], "--nearest", "--json", *options])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["query"] == QUERIES[2]


def test_nllb_takes_the_language_of_the_query(
    models: dict[str, tuple[str, Path, Any]], tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    name, weights, _ = models["nllb"]
    embeddings = {}
    for language in (None, "eng_Latn", "fra_Latn"):
        encoder = ClipEncoder(name, weights, layers=0, device="cpu", preprocessing="openai", language=language)
        tokens = encoder.tokenize(["abc"])[0].tolist()
        code = encoder._tokenizer.tokenizer.convert_tokens_to_ids(language or "eng_Latn")
        assert code in tokens
        embeddings[language] = encoder.encode_text("abc").embedding
    assert torch.equal(embeddings[None], embeddings["eng_Latn"])
    assert not torch.allclose(embeddings["eng_Latn"], embeddings["fra_Latn"])
    with pytest.raises(VtgError, match="knows no language 'klingon'"):
        ClipEncoder(name, weights, layers=0, device="cpu", preprocessing="openai", language="klingon")

    film = make_video(tmp_path / "film.mp4")
    library = Library(tmp_path / "library", model_spec("zero-shot", name, weights, preprocessing="openai"), "cpu")
    assert not library.add([film]).failed
    options = ["--library", str(library.folder), "--device", "cpu", "--nearest"]
    found = CliRunner().invoke(app, ["search", QUERIES[1], "--language", "fra_Latn", *options])
    assert found.exit_code == 0, found.output


@pytest.mark.parametrize("kind", ["own", "xlm-roberta"])
def test_a_tokenizer_without_languages_says_so(kind: str, models: dict[str, tuple[str, Path, Any]]) -> None:
    name, weights, _ = models[kind]
    with pytest.raises(VtgError, match="has no languages"):
        ClipEncoder(name, weights, layers=0, device="cpu", preprocessing="openai", language="fra_Latn")


@pytest.mark.parametrize("kind", ["xlm-roberta", "nllb"])
def test_a_head_cannot_read_a_tower_without_layers(kind: str, models: dict[str, tuple[str, Path, Any]]) -> None:
    name, weights, _ = models[kind]
    with pytest.raises(VtgError, match=r"does not expose its layers.*zero-shot"):
        ClipEncoder(name, weights, layers=2, device="cpu", preprocessing="openai")
