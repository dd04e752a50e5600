"""Heads on image towers unlike ViT-B/32: other widths and numbers of tokens, no class token, register tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_trained_towers import POOLS  # registers its towers with timm

import vtg
from vtg import ClipEncoder
from vtg.clip.layout import ClipLayout, clip_layout
from vtg.errors import VtgError
from vtg.evaluation import evaluate
from vtg.evaluation.sources import PublishedSource, open_features
from vtg.extraction import extract, read_source
from vtg.features.npy import feature_folders
from vtg.grounding.grounder import Grounder
from vtg.library.settings import Storage
from vtg.models.specs import ModelSpec
from vtg.r2 import HeadConfig, R2Head, read_head, save_head
from vtg.recipes import load_recipe
from vtg.training.features import FeatureShape
from vtg.training.preparation import head_config
from vtg.training.train import Sources, train

SMALL = {"hidden_width": 32, "video_width": 24, "query_width": 20, "layers": 3, "attention_heads": 4}
RECIPES = {
    "qvhighlights-b16": ("ViT-B-16-quickgelu", "openai", "vit_b_16", (197, True, 768, 512), 50),
    "qvhighlights-l14": ("ViT-L-14-quickgelu", "openai", "vit_l_14", (257, True, 1024, 768), 65),
    "qvhighlights-siglip2-b16": ("ViT-B-16-SigLIP2", "webli", "vit_b_16_siglip2", (196, False, 768, 768), 50),
    "qvhighlights-pe-core-b16": ("PE-Core-B-16", "meta", "pe_core_b_16", (197, True, 768, 1024), 50),
}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 4}


def lively(**settings: object) -> R2Head:
    """A head of random weights whose gates let everything take part."""
    torch.manual_seed(0)
    head = R2Head(HeadConfig(**{**SMALL, **settings})).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        if head.block.spatial_pooling:
            head.block.scale.uniform_(0.5, 1.0)
    return head


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Adds the towers to open_clip's catalogue; gives a file of random weights for one of them."""
    import open_clip

    folder = tmp_path_factory.mktemp("towers")
    for name, pool in POOLS.items():
        vision = {"image_size": 112, "timm_model_name": name, "timm_pool": pool, "timm_proj": "linear"}
        config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT}
        (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder)

    def weights(name: str) -> Path:
        path = folder / f"{name}.safetensors"
        if not path.exists():
            torch.manual_seed(0)
            plain = open_clip.create_model(name, load_weights=False)
            save_file({key: tensor.contiguous() for key, tensor in plain.state_dict().items()}, path)
        return path

    return weights


@pytest.mark.parametrize("name", POOLS)
def test_layers_are_the_class_token_and_the_patches_without_registers(name: str, towers: Callable[[str], Path]) -> None:
    encoder = ClipEncoder(name, towers(name), device="cpu", preprocessing="resize=shortest")
    frames = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    features, trunk = encoder.encode_frames(frames), encoder.visual.trunk
    with torch.no_grad():
        stream = trunk._pos_embed(trunk.patch_embed(encoder.pixels(frames)))
        for block in trunk.blocks:
            stream = block(stream)
        embedding = encoder._clip.encode_image(encoder.pixels(frames), normalize=True)
    class_tokens = int(name == "demo_vit_with_registers")
    assert trunk.num_prefix_tokens == 5 * class_tokens
    assert (encoder.class_tokens, encoder.tokens) == (class_tokens, class_tokens + 64)
    kept = [*range(class_tokens), *range(trunk.num_prefix_tokens, stream.shape[1])]
    torch.testing.assert_close(features.layers[:, -1], stream[:, kept], atol=1e-5, rtol=0)
    torch.testing.assert_close(features.embedding, embedding, atol=1e-5, rtol=0)
    assert clip_layout(name) == ClipLayout(class_tokens + 64, bool(class_tokens), encoder.width, encoder.text_width)


@pytest.mark.parametrize("spatial_pooling", [True, False])
def test_the_mean_of_the_patches_stands_in_the_place_of_the_class_token(spatial_pooling: bool) -> None:
    bare = lively(tokens=9, class_token=False, spatial_pooling=spatial_pooling)
    usual = lively(tokens=10, spatial_pooling=spatial_pooling)
    patches, query = torch.randn(7, 3, 9, 24), torch.randn(4, 3, 20)
    found = bare.predict(patches, query)
    expected = usual.predict(torch.cat((patches.mean(2, keepdim=True), patches), 2), query)
    torch.testing.assert_close(found.saliency, expected.saliency)
    torch.testing.assert_close(found.class_logits, expected.class_logits)
    if spatial_pooling:
        assert bare.attention(patches, query).shape == (3, 7, 4, 9)


@pytest.mark.parametrize(
    ("side", "most", "pooled"),
    [(24, 64, 8), (16, 64, 8), (14, 64, 7), (27, 64, 7), (37, 64, 8), (9, 64, 5), (8, 64, 8), (7, 64, 7), (5, 1, 1)],
)
def test_a_grid_of_patches_is_pooled_to_the_finest_one_allowed(side: int, most: int, pooled: int) -> None:
    config = HeadConfig(**SMALL, tokens=1 + side * side, max_patches=most)
    assert config.projected_tokens == 1 + pooled**2 <= 1 + most
    tokens = torch.zeros(2, 3, 1 + side * side, side * side)
    tokens[:, :, 1:] = torch.eye(side * side)  # of each pooled patch: the weight of each patch
    shares = R2Head(config).block.frame_tokens(tokens)[:, :, 1:]
    assert shares.shape == (2, 3, pooled**2, side * side)
    torch.testing.assert_close(shares.sum(3), torch.ones(2, 3, pooled**2))
    assert (shares.amax(2) > 0).all()  # no patch is left out
    square = -(-side // pooled)
    first = shares[0, 0, 0].view(side, side)
    assert (first[:square, :square] == 1 / square**2).all() and first.count_nonzero() == square**2
    last = shares[0, 0, -1].view(side, side)
    assert (last[-square:, -square:] == 1 / square**2).all() and last.count_nonzero() == square**2


def test_training_and_projections_read_the_same_pooled_patches() -> None:
    head = lively(tokens=197, max_patches=64)
    video, query = torch.randn(2, 5, 3, 197, 24), torch.randn(2, 4, 3, 20)
    projection = head.project(video)
    assert projection.values.shape == (2, 3, 5, 50, 32)
    trained = head(video, query)
    for item in range(2):
        torch.testing.assert_close(trained.class_logits[item], head.predict(video[item], query[item]).class_logits)
    assert head.attention(video[0], query[0]).shape == (3, 5, 4, 49)
    torch.testing.assert_close(head.attention(projection[:1], query[0]), head.attention(video[0], query[0]))


def test_a_head_keeps_its_tokens_and_published_heads_their_format(tmp_path: Path) -> None:
    head = lively(tokens=196, class_token=False, max_patches=64)
    save_head(head, tmp_path / "head.safetensors")
    assert read_head(tmp_path / "head.safetensors").config == head.config
    assert not {"class_token", "max_patches"} & set(json.loads(HeadConfig().to_json()))
    with pytest.raises(ValueError, match="max_patches needs a square grid, which 195 patches are not"):
        HeadConfig(tokens=196, max_patches=64)
    with pytest.raises(ValueError, match="max_patches must be a positive whole number, not 0"):
        HeadConfig(max_patches=0)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_for_other_clips_name_their_clip_and_folders(name: str) -> None:
    clip, pretrained, folder, layout, projected = RECIPES[name]
    recipe, published = load_recipe(name), load_recipe("qvhighlights")
    assert (recipe.name, recipe.model.clip_model, recipe.model.clip_pretrained) == (name, clip, pretrained)
    assert recipe.data.video_features == f"{folder}_vid_k4" and recipe.data.query_features == f"{folder}_txt_k4"
    assert (recipe.train, recipe.evaluation, recipe.data.folder) == (
        published.train,
        published.evaluation,
        published.data.folder,
    )
    found = clip_layout(clip)
    assert found == ClipLayout(*layout)
    shape = FeatureShape(4, found.tokens, found.width, found.text_width)
    config = head_config(recipe, shape, PublishedSource(recipe.data))
    assert (config.class_token, config.max_patches, config.projected_tokens) == (layout[1], 64, projected)
    head = R2Head(config)
    assert head.block.video_map[0].normalized_shape == (layout[2] + 2,)
    assert head.block.query_map[0].normalized_shape == (layout[3],)
    with torch.no_grad():
        kept = head.project(torch.randn(1, 2, 4, found.tokens, found.width)).quantized().nbytes / 2
    # Windows overlap: each frame of a long video is in 1.5 of them.
    assert kept * config.window_seconds / config.step_seconds <= 110_000


def test_a_recipe_without_a_published_head_says_so(tmp_path: Path) -> None:
    line = {"qid": 5, "query": "a dog", "vid": "a", "duration": 8, "relevant_windows": [[0, 2]]}
    (tmp_path / "val.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    with pytest.raises(VtgError, match="recipe qvhighlights-b16: has no published head; train one"):
        evaluate(load_recipe("qvhighlights-b16"), tmp_path, tmp_path / "out.jsonl", tmp_path / "val.jsonl")


def test_the_published_recipe_is_untouched() -> None:
    recipe = load_recipe("qvhighlights")
    assert (recipe.data.video_features, recipe.data.query_features) == ("clip_b32_vid_k4", "clip_b32_txt_k4")
    config = head_config(recipe, FeatureShape(4, 50, 768, 512), PublishedSource(recipe.data))
    assert (config.class_token, config.max_patches, config.projected_tokens) == (True, None, 50)


@pytest.mark.parametrize(
    ("clip", "pretrained", "name"),
    [
        (None, "openai", "clip_b32"),
        ("ViT-B-32", "laion2b_s34b_b79k", "clip_b32"),
        (None, "/weights/ViT-B-32.pt", "clip_b32"),
        ("ViT-L-14-336", "openai", "vit_l_14_336"),
        ("MobileCLIP2-B", "dfndr2b", "mobileclip2_b"),
        (None, "demo", "demo"),
        (None, "my weights.safetensors", "my_weights"),
    ],
)
def test_feature_folders_are_named_after_their_encoder(clip: str | None, pretrained: str, name: str) -> None:
    assert feature_folders(clip, pretrained) == (f"{name}_vid_k4", f"{name}_txt_k4")


def test_stated_folders_and_class_tokens_hold(tmp_path: Path) -> None:
    stated = load_recipe("qvhighlights-b16", ["data.video_features=mine"])
    assert (stated.data.video_features, stated.data.query_features) == ("mine", "vit_b_16_txt_k4")
    assert load_recipe("charades", ["model.clip_model=PE-Core-B-16"]).data.video_features == "pe_core_b_16_vid_k4"
    recipe = load_recipe("qvhighlights-siglip2-b16", ["model.class_token=true"])
    with pytest.raises(VtgError, match=r"model\.class_token is true, and the features' CLIP has none"):
        head_config(recipe, FeatureShape(4, 196, 768, 768), PublishedSource(recipe.data))
    (tmp_path / "mine.toml").write_text("[model]\nclass_token = false\n", encoding="utf-8")
    own = load_recipe(tmp_path / "mine.toml")
    config = head_config(own, FeatureShape(4, 100, 48, 40), PublishedSource(own.data))
    assert (config.class_token, config.projected_tokens) == (False, 26)


@pytest.mark.parametrize("name", POOLS)
def test_a_library_of_such_a_tower_trains_and_is_searched_by_its_head(
    name: str, towers: Callable[[str], Path], tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    lines = []
    for number in range(4):
        make_video(tmp_path / f"v{number}.mp4", seconds=12, seed=number)
        windows = [[2 * number, 2 * number + 4]]
        fields = {"qid": number, "vid": f"v{number}", "query": "a red circle", "duration": 12}
        lines.append(json.dumps({**fields, "relevant_windows": windows}) + "\n")
    (tmp_path / "all.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "own.toml").write_text(
        'data = { fps = 0.5, annotations = { train = "all.jsonl", val = "all.jsonl" } }\n'
        f'[model]\nhidden_width = 32\nmax_patches = 16\nclip_model = "{name}"\nclip_pretrained = "{towers(name)}"\n'
        'clip_preprocessing = "resize=shortest"\n'
        "[train]\nbatch = 4\nepochs = 1\n",
        encoding="utf-8",
    )
    recipe = load_recipe(tmp_path / "own.toml")
    spec = ModelSpec(name, vtg.clip.EncoderSpec(name, str(towers(name)), preprocessing="resize=shortest"))
    library = vtg.Library(tmp_path / "library", spec, storage=Storage("float16", keep_layers=True))
    library.add(sorted(tmp_path.glob("*.mp4")))
    result = train(recipe, Sources(tmp_path / "library"), tmp_path / "out")
    has_class_token = name == "demo_vit_with_registers"
    config = vtg.load_head(result.head).config
    assert (config.class_token, config.tokens, config.projected_tokens) == (has_class_token, 64 + has_class_token, 17)

    out = tmp_path / "features"
    extract(read_source(str(tmp_path / "own.toml"), videos=str(tmp_path)), str(out), recipe_encoder(tmp_path))
    assert (out / f"{name}_vid_k4" / "v0.npy").is_file() and (out / f"{name}_txt_k4" / "0.npy").is_file()
    again = train(recipe, Sources(out), tmp_path / "again")
    assert vtg.load_head(again.head).config == config
    for features in (tmp_path / "library", out):
        scores = evaluate(recipe, features, tmp_path / "out.jsonl", model=str(result.head), split="val").scores
        assert scores is not None

    searched = vtg.Library(tmp_path / "searched", str(result.head))
    searched.add(sorted(tmp_path.glob("*.mp4")))
    assert searched.search("a red circle", limit=3)


def recipe_encoder(folder: Path) -> vtg.clip.EncoderSpec:
    """The CLIP that `vtg extract` takes from the recipe."""
    work = read_source(str(folder / "own.toml"), videos=str(folder))
    assert work.clip is not None
    return work.encoder(None, vtg.clip.EncoderSpec())


def test_a_head_and_a_tower_of_the_other_kind_are_refused(towers: Callable[[str], Path]) -> None:
    name = "demo_vit_with_registers"
    encoder = ClipEncoder(name, towers(name), device="cpu", preprocessing="resize=shortest")
    head = R2Head(HeadConfig(video_width=128, query_width=64, tokens=65, class_token=False))
    with pytest.raises(
        VtgError, match="was trained on a CLIP without class token, and this CLIP's image tower has one"
    ):
        Grounder(encoder, head)


def test_features_lie_where_extraction_says(tmp_path: Path) -> None:
    data = load_recipe("qvhighlights").data
    (tmp_path / "extraction").mkdir()
    (tmp_path / "other_vid_k4").mkdir()
    settings = tmp_path / "extraction" / "settings.json"
    settings.write_text('{"videos": "other_vid_k4", "queries": "other_txt_k4"}', encoding="utf-8")
    source = open_features(tmp_path, data)
    assert isinstance(source, PublishedSource) and source.video_file("v") == tmp_path / "other_vid_k4" / "v.npy"
    for content in (
        '{"videos": "../other_vid_k4", "queries": "a"}',
        '{"videos": "..", "queries": "a"}',
        "[]",
        "{",
        '{"videos": 3, "queries": "a"}',
    ):
        settings.write_text(content, encoding="utf-8")
        with pytest.raises(VtgError, match="has neither clip_b32_vid_k4/ nor a library"):
            open_features(tmp_path, data)
