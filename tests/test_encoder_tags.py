"""Encoders of eight tags equal open_clip's own preprocessing and towers; weights are random, of the real shapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors.torch import save_file
from torch.nn import functional as F
from typer.testing import CliRunner

from vtg.cli.main import app
from vtg.clip import building
from vtg.clip.encoder import ClipEncoder
from vtg.demo.scenes import make_scene
from vtg.features.store import FeatureStore
from vtg.video.process import feed, ffmpeg_binary

# Model, tag, and the factor of the random weights: the initial ones give nearly the same embedding for every picture.
SMALL = [("MobileCLIP2-S0", "dfndr2b", 2)]
LARGE = [
    ("PE-Core-S-16-384", "meta", 4),
    ("ViT-B-32-quickgelu", "openai", 2),
    ("ViT-B-16-quickgelu", "openai", 2),
    ("ViT-L-14", "datacomp_xl_s13b_b90k", 2),
    ("PE-Core-B-16", "meta", 3),
    ("MobileCLIP2-B", "dfndr2b", 2),
    ("EVA02-B-16", "merged2b_s8b_b131k", 2),
]
TAGS = [*SMALL, *(pytest.param(*tag, marks=pytest.mark.slow) for tag in LARGE)]
TEXTS = [
    "a dog jumps into the lake", "a red car", "two people dance at a wedding", "snow on a mountain", "a cat sleeps",
    "a man opens a door", "children play football", "a boat leaves the harbour", "a cake with candles", "rain",
]  # fmt: skip
SIZE = (640, 360)  # of the film


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Ten pictures of different sizes: photographs and graphics that matplotlib brings, and demo scenes."""
    import matplotlib

    samples = Path(matplotlib.get_data_path()) / "sample_data"
    photograph = Image.open(samples / "grace_hopper.jpg").convert("RGB")
    width, height = photograph.size
    parts = [(0, 0, width // 2, height // 3), (0, height // 2, width, height), (width // 2, 0, width, height // 2)]
    graphics = [Image.open(samples / name).convert("RGB") for name in ("Minduka_Present_Blue_Pack.png", "logo2.png")]
    scenes = [make_scene(seed).frame(6.0, 640, 360) for seed in (2, 9, 15)]
    crops = [photograph.crop(part) for part in parts]
    return [photograph, *crops, ImageOps.invert(crops[0]), *graphics, *map(Image.fromarray, scenes)]


@pytest.fixture(scope="module")
def film(pictures: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each picture for two seconds, without losses."""
    path = tmp_path_factory.mktemp("film") / "pictures.mp4"
    frames = [np.asarray(picture.resize(SIZE, Image.Resampling.BICUBIC)).tobytes() for picture in pictures]
    command = [ffmpeg_binary(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIZE[0]}x{SIZE[1]}"]
    command += ["-r", "5", "-i", "-", "-c:v", "libx264", "-qp", "0", "-preset", "ultrafast", "-pix_fmt", "yuv444p"]
    status, error = feed([*command, str(path)], (frame for frame in frames for _ in range(10)))
    assert status == 0, error
    return path


def whole_frames(film: Path) -> list[Image.Image]:
    """The frames of the film at their size, one every two seconds."""
    import av

    with av.open(str(film)) as container:
        return [frame.to_image() for frame in container.decode(video=0)][4::10]


class Plain:
    """open_clip's own model of a tag, with random weights that tell pictures apart, and its own preprocessing."""

    def __init__(self, model: str, tag: str, gain: float, pictures: list[Image.Image]) -> None:
        import open_clip
        from open_clip.transform import PreprocessCfg, merge_preprocess_dict

        torch.manual_seed(0)
        self.clip = open_clip.create_model(model, load_weights=False, pretrained_text=False).eval()
        self.tokenizer = open_clip.get_tokenizer(model)
        size = PreprocessCfg(size=self.clip.visual.image_size)
        self.configuration = merge_preprocess_dict(size, open_clip.get_pretrained_cfg(model, tag))
        with torch.no_grad():
            for parameter in self.clip.visual.parameters():
                if parameter.ndim >= 2:
                    parameter.mul_(gain)
            bias = dict(self.clip.visual.named_parameters()).get("trunk.head.bias")
            if bias is None:
                bias = dict(self.clip.visual.named_parameters()).get("trunk.head.fc.bias")
            if bias is not None:  # so that what all pictures have in common is left out
                bias.sub_(self.clip.encode_image(self.inputs(pictures)).mean(0))

    def inputs(self, pictures: list[Image.Image], **changed: Any) -> torch.Tensor:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        transform = image_transform_v2(PreprocessCfg(**{**self.configuration, **changed}), is_train=False)
        return torch.stack([transform(picture) for picture in pictures])

    def embeddings(self, pictures: list[Image.Image], **changed: Any) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(F.normalize(self.clip.encode_image(self.inputs(pictures, **changed)), dim=-1))


@pytest.fixture
def published(tmp_path: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plain]:
    """Makes the model of a tag, and its file, which is found as if it had been downloaded."""

    def publish(model: str, tag: str, gain: float) -> Plain:
        plain = Plain(model, tag, gain, pictures)
        path = tmp_path / "weights.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in plain.clip.state_dict().items()}, path)
        monkeypatch.setattr(building, "find_weights", lambda *_: path)
        return plain

    return publish


@pytest.mark.parametrize(("model", "tag", "gain"), TAGS)
def test_an_encoder_is_open_clips(
    model: str,
    tag: str,
    gain: float,
    published: Callable[..., Plain],
    pictures: list[Image.Image],
    film: Path,
    tmp_path: Path,
) -> None:
    plain = published(model, tag, gain)
    expected = plain.embeddings(pictures)
    others = expected @ expected.T - 2 * np.eye(len(pictures))
    assert others.max() < 0.9  # the pictures are told apart
    encoder = ClipEncoder(model, tag, layers=0, device="cpu")
    found = np.concatenate([encoder.encode_frames(np.array(one)[None]).embedding.numpy() for one in pictures])
    assert (found * expected).sum(1).min() >= 0.9999
    wrong = "shortest" if plain.configuration["resize_mode"] == "squash" else "squash"
    assert (found * plain.embeddings(pictures, resize_mode=wrong)).sum(1).min() < 0.99  # it would not pass

    with torch.no_grad():
        of_texts = np.asarray(plain.clip.encode_text(plain.tokenizer(TEXTS), normalize=True))
    texts = np.stack([text.embedding.numpy() for text in encoder.encode_texts(TEXTS)])
    assert (texts * of_texts).sum(1).min() >= 0.9999

    library = tmp_path / "library"
    options = ["--library", str(library), "--device", "cpu"]
    named = ["--model", "zero-shot", "--clip", model, "--pretrained", tag, "--encoding", "float32"]
    run = CliRunner().invoke(app, ["index", str(film), *named, *options])
    assert run.exit_code == 0, run.output
    store = FeatureStore(library / "features")
    stored = store.open(next(iter(store)))
    assert stored.layers is None
    assert stored.embedding is not None
    of_frames = plain.embeddings(whole_frames(film))
    assert (stored.embedding * of_frames).sum(1).min() >= 0.995
    assert (stored.embedding * plain.embeddings(whole_frames(film), resize_mode=wrong)).sum(1).min() < 0.98
    answer = CliRunner().invoke(app, ["search", "a red car", "--json", "--nearest", *options])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["results"]
