"""The preprocessing of a CLIP's weights: from open_clip's catalogue to decoded frames, fingerprints and libraries."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vtg.clip.encoder import ClipEncoder
from vtg.clip.preprocessing import Preprocessing, preprocessing_of
from vtg.clip.specs import EncoderSpec
from vtg.demo.scene import Scene
from vtg.demo.scenes import make_scene
from vtg.demo.videos import write_video
from vtg.demo.world import Thing
from vtg.errors import VtgError
from vtg.library.library import Library
from vtg.library.query import Part, Question, _embed_picture
from vtg.models.specs import ModelSpec
from vtg.timespans import TimeSpan, interval_iou
from vtg.video import sample_frames
from vtg.video.framing import Framing

SHA256 = "a" * 64
SQUASH = "resize=squash,interpolation=bilinear,mean=0.5,std=0.5"


class TestFraming:
    """Squares of frames of any size."""

    @pytest.mark.parametrize(
        ("resize", "size", "expected"),
        [
            ("shortest", (640, 360), (398, 224)),
            ("shortest", (360, 640), (224, 398)),
            ("squash", (640, 360), (224, 224)),
            ("longest", (640, 360), (224, 126)),
            ("longest", (1, 5000), (1, 224)),
        ],
    )
    def test_sizes(self, resize: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
        assert Framing(224, resize).resized(*size) == expected

    def test_borders_are_filled_on_both_sides(self) -> None:
        framing = Framing(6, "longest", fill=9)
        square = framing.square(np.ones((2, 3, 6, 3), np.uint8))
        assert square.shape == (2, 6, 6, 3)
        assert square[0, :, 0, 0].tolist() == [9, 1, 1, 1, 9, 9]

    @pytest.mark.parametrize("wrong", [{"resize": "crop"}, {"interpolation": "nearest"}, {"fill": 256}])
    def test_unknown_values_are_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Framing(224, **wrong)  # type: ignore[arg-type]

    @pytest.mark.parametrize("resize", ["shortest", "squash", "longest"])
    @pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
    def test_all_decoders_give_the_same_squares(
        self, wide_film: Path, monkeypatch: pytest.MonkeyPatch, resize: str, interpolation: str
    ) -> None:
        framing = Framing(96, resize, interpolation, fill=127)
        frames = {}
        for decoder in ("pyav", "ffmpeg", "decord"):
            monkeypatch.setenv("VTG_DECODER", decoder)
            frames[decoder] = np.concatenate([part for _, part in sample_frames(wide_film, 0.5, framing)])
        assert frames["pyav"].shape[1:] == (96, 96, 3)
        np.testing.assert_array_equal(frames["ffmpeg"], frames["pyav"])
        np.testing.assert_array_equal(frames["decord"], frames["pyav"])
        if resize == "longest":
            assert (frames["pyav"][:, [0, -1]] == 127).all()

    @pytest.mark.parametrize("resize", ["shortest", "squash", "longest"])
    @pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
    def test_pillow_gives_nearly_the_same(self, wide_film: Path, resize: str, interpolation: str) -> None:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        configuration = PreprocessCfg(96, resize_mode=resize, interpolation=interpolation, mean=(0,) * 3, std=(1,) * 3)
        transform = image_transform_v2(configuration, is_train=False)
        whole = _whole_frames(wide_film)
        expected = np.stack([255 * transform(Image.fromarray(frame)).permute(1, 2, 0).numpy() for frame in whole])
        framing = Framing(96, resize, interpolation)
        frames = np.concatenate([part for _, part in sample_frames(wide_film, 0.5, framing)])
        assert np.abs(frames - expected).mean() < 2.5
        wrong = replace(framing, resize="squash" if resize != "squash" else "shortest")
        others = np.concatenate([part for _, part in sample_frames(wide_film, 0.5, wrong)])
        assert np.abs(others - expected).mean() > 5


def _whole_frames(path: Path) -> NDArray[np.uint8]:
    """One frame every 2 s, at the size of the film."""
    import av

    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    rate = round(len(frames) / WideScene.duration)
    return np.stack(frames[rate - 1 :: 2 * rate])


class WideScene:
    """A film of 21:9 whose whole width is the square of a demo scene, stretched.

    A red circle is in its left quarter from 20 to 34 s; a blue square is in its centre all the time.
    """

    duration = 48.0
    thing = TimeSpan(20.0, 34.0)

    def __init__(self) -> None:
        plain = make_scene(7, self.duration)
        circle = Thing("circle", "red", "small", "left", self.thing.start, self.thing.end)
        square = Thing("square", "blue", "medium", "centre", 0.0, self.duration)
        self._scene = Scene(7, self.duration, (square, circle), plain.backdrops)

    def frame(self, time: float, width: int, height: int) -> NDArray[np.uint8]:
        square = Image.fromarray(self._scene.frame(time, height, height))
        return np.asarray(square.resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def wide_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "wide.mp4"
    write_video(WideScene(), path, 560, 240)  # type: ignore[arg-type]
    return path


class TestTags:
    """What open_clip's catalogue prescribes."""

    @pytest.mark.parametrize(
        ("model", "tag", "expected"),
        [
            ("ViT-B-32-quickgelu", "openai", Preprocessing()),
            ("ViT-L-14", "laion2b_s32b_b82k", Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)),
            ("ViT-B-16-SigLIP", "webli", Preprocessing("squash", "bicubic", (0.5,) * 3, (0.5,) * 3)),
            ("PE-Core-B-16", "meta", Preprocessing("squash", "bilinear", (0.5,) * 3, (0.5,) * 3)),
            ("MobileCLIP2-S0", "dfndr2b", Preprocessing("shortest", "bilinear", (0.0,) * 3, (1.0,) * 3)),
        ],
    )
    def test_a_tag_has_its_own(self, model: str, tag: str, expected: Preprocessing) -> None:
        assert preprocessing_of(model, tag, in_file=False) == expected

    def test_a_file_has_that_of_the_models_tags_if_they_agree(self) -> None:
        assert preprocessing_of("PE-Core-B-16", "w.safetensors", in_file=True).resize == "squash"
        assert preprocessing_of(None, "w.safetensors", in_file=True) == Preprocessing()
        with pytest.raises(VtgError, match=r"w\.pt: .* of ViT-L-14 do not agree .*--preprocessing"):
            preprocessing_of("ViT-L-14", "w.pt", in_file=True)
        with pytest.raises(VtgError, match=r"open_clip knows no weights of ViT-H-16"):
            preprocessing_of("ViT-H-16", "w.pt", in_file=True)

    def test_it_can_be_stated(self) -> None:
        stated = preprocessing_of("ViT-L-14", "w.pt", True, "datacomp_xl_s13b_b90k")
        assert stated == Preprocessing()
        values = preprocessing_of("ViT-L-14", "w.pt", True, "resize=longest,mean=0.1/0.2/0.3,fill=7")
        assert values == Preprocessing("longest", mean=(0.1, 0.2, 0.3), fill=7)
        assert preprocessing_of("ViT-L-14", "w.pt", True, str(values)) == values

    @pytest.mark.parametrize(
        "wrong",
        ["meta", "resize=crop", "resize", "mean=a", "mean=1/2", "std=0", "fill=-1", "fill=300", "size=4", "mean=nan"],
    )
    def test_what_cannot_be_read_is_one_line(self, wrong: str) -> None:
        with pytest.raises(VtgError, match=r"--preprocessing") as error:
            preprocessing_of("ViT-L-14", "w.pt", True, wrong)
        assert "\n" not in str(error.value)

    def test_the_catalogue_is_known(self) -> None:
        """Every tag of open_clip has a preprocessing that vtg can do; another would be a new kind."""
        import open_clip

        for model, tag in open_clip.list_pretrained():
            entry = open_clip.get_pretrained_cfg(model, tag)
            known = preprocessing_of(model, tag, in_file=False)
            assert known.resize == (entry.get("resize_mode") or "shortest")
            assert known.framing(224)


class TestFingerprints:
    """Names of features: kept where the frames are the same, new where they were wrong."""

    @pytest.mark.parametrize(
        ("spec", "fingerprint"),
        [
            (EncoderSpec(), "4676379768cb1513"),
            (EncoderSpec(layers=6), "ca71962059de1693"),
            (EncoderSpec("ViT-B-16", "openai"), "ed700409ae02e7a0"),
            (EncoderSpec("ViT-L-14", "datacomp_xl_s13b_b90k"), "c9289ff83a323c84"),
            (EncoderSpec("ViT-L-14", "laion2b_s32b_b82k"), "4f015ca27a0d4600"),
            (EncoderSpec(pretrained="demo"), "e720eeba0917b617"),
        ],
    )
    def test_those_of_libraries_made_before_stay(self, spec: EncoderSpec, fingerprint: str) -> None:
        assert spec.fingerprint == fingerprint

    @pytest.mark.parametrize(("model", "fingerprint"), [(None, "9a470926ee819794"), ("ViT-B-32", "6017d0c3e317687e")])
    def test_those_of_files_stay(self, model: str | None, fingerprint: str) -> None:
        assert EncoderSpec(model, "clip.safetensors").fingerprint_of(SHA256) == fingerprint

    @pytest.mark.parametrize(
        ("model", "tag", "earlier"),
        [
            ("ViT-B-16-SigLIP", "webli", "4d72606db848f847"),
            ("PE-Core-B-16", "meta", "922723f7e04de657"),
            ("MobileCLIP2-S0", "dfndr2b", "b035b4ffec6e86fc"),
        ],
    )
    def test_a_wrong_picture_has_another(self, model: str, tag: str, earlier: str) -> None:
        spec = EncoderSpec(model, tag)
        assert spec.earlier_fingerprint_of(None) == earlier
        assert spec.fingerprint != earlier

    def test_it_follows_what_is_stated(self) -> None:
        plain = EncoderSpec(None, "clip.safetensors")
        assert replace(plain, preprocessing="openai").fingerprint_of(SHA256) == plain.fingerprint_of(SHA256)
        assert replace(plain, preprocessing=SQUASH).fingerprint_of(SHA256) != plain.fingerprint_of(SHA256)


class TestFilms:
    """The whole way, with the demo CLIP."""

    def test_what_is_in_the_left_quarter_is_found_with_the_whole_frame(self, wide_film: Path) -> None:
        import vtg
        from vtg.clip.specs import DEMO
        from vtg.grounding.grounder import Grounder, load_encoder

        head = vtg.load_head(DEMO)

        def best(preprocessing: str | None) -> tuple[float, float]:
            """IoU with the truth, and score, of the best moment."""
            encoder = load_encoder(EncoderSpec(pretrained=DEMO, preprocessing=preprocessing), "cpu")
            moment = Grounder(encoder, head).ground(wide_film, "a red circle").moments[0]
            true = np.array([[WideScene.thing.start, WideScene.thing.end]])
            return float(interval_iou(np.array([[moment.start, moment.end]]), true).item()), moment.score

        overlap, score = best("resize=squash")
        assert overlap > 0.8
        overlap_of_centre, score_of_centre = best(None)
        assert overlap_of_centre < 0.5
        assert score_of_centre < score / 2

    def test_a_library_that_saw_only_the_centre_is_refused(
        self, wide_film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from vtg.clip.specs import DEMO

        library = Library(tmp_path / "library", ModelSpec("zero-shot", EncoderSpec(pretrained=DEMO)), "cpu")
        assert not library.add([wide_film]).failed
        settings = json.loads((library.folder / "library.json").read_text("utf-8"))
        settings["model"]["encoder"]["preprocessing"] = "resize=squash"
        (library.folder / "library.json").write_text(json.dumps(settings), "utf-8")
        opened = Library(library.folder, device="cpu")
        with pytest.raises(VtgError, match=r"the centre of each frame only.*resize=squash.*vtg index PATH"):
            opened.search("a red circle")
        assert opened.add([wide_film]).added == [str(wide_film.resolve())]
        assert opened.search("a red circle")

    def test_an_option_is_kept_by_the_library(self, wide_film: Path, tmp_path: Path, tiny_clip: Path) -> None:
        spec = ModelSpec("zero-shot", EncoderSpec(None, str(tiny_clip), preprocessing="resize=squash"))
        library = Library(tmp_path / "library", spec, "cpu")
        assert not library.add([wide_film]).failed
        opened = Library(library.folder, device="cpu")
        assert opened.encoder.framing == Framing(32, "squash")
        assert opened.search("a dog")
        with pytest.raises(VtgError, match="was made with"):
            Library(library.folder, replace(spec, encoder=EncoderSpec(None, str(tiny_clip))), "cpu")


def test_a_picture_in_a_query_is_prepared_as_frames_are(tmp_path: Path, wide_film: Path, tiny_clip: Path) -> None:
    """Searched by one of its own frames, a film has the similarity of a frame with itself."""
    picture = tmp_path / "frame.png"
    Image.fromarray(_whole_frames(wide_film)[3]).save(picture)
    for stated in ("resize=squash", "resize=longest,fill=127", "resize=shortest"):
        spec = ModelSpec("zero-shot", EncoderSpec(None, str(tiny_clip), preprocessing=stated))
        library = Library(tmp_path / stated[7:10], spec, "cpu")
        assert not library.add([wide_film]).failed
        stored = library.open_features(wide_film).embedding
        assert stored is not None
        embedding = _embed_picture(picture, library.encoder)
        assert float((stored @ embedding).max()) > 0.9995
        assert library.search(Question((Part(picture),)))


def test_frames_of_full_size_are_squeezed_or_padded(tiny_clip: Path) -> None:
    frames = np.zeros((1, 16, 64, 3), np.uint8)
    frames[:, :, :16] = 255
    for stated, white in (("resize=shortest", 0.0), ("resize=squash", 0.25), ("resize=longest,fill=255", 0.8125)):
        encoder = ClipEncoder(pretrained=tiny_clip, device="cpu", preprocessing=stated)
        pixels = encoder.pixels(frames) * encoder._std + encoder._mean
        assert float(pixels.mean()) / 255 == pytest.approx(white, abs=0.01)


def test_a_model_of_oblong_pictures_is_refused(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vtg.clip import encoder as module

    load = module.load_clip

    def oblong(*arguments: object) -> object:
        clip, tokenizer = load(*arguments)  # type: ignore[arg-type]
        clip.visual.image_size = (32, 64)
        return clip, tokenizer

    monkeypatch.setattr(module, "load_clip", oblong)
    with pytest.raises(VtgError, match="takes pictures of 64×32 pixels"):
        ClipEncoder(pretrained=tiny_clip, device="cpu")
