"""Projections on disk: written as layers come, whole or absent, converted from older libraries."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from vtg.errors import VtgError
from vtg.features.arrays import HEADER_BYTES, arrays_header, read_header
from vtg.features.store import FeatureKey, VideoFeatures
from vtg.files.whole import WholeFileWriter
from vtg.grounding.projections import ProjectionKey, ProjectionStore, head_fingerprint, quantized_windows
from vtg.grounding.windows import ground_with_head
from vtg.library.library import Library
from vtg.library.settings import Storage, read_storage
from vtg.library.stored_features import LibraryFeatures
from vtg.models.registry import load_head
from vtg.models.specs import ModelSpec, model_spec
from vtg.r2 import Predictor, R2Head, read_head
from vtg.timespans import interval_iou

KEY = FeatureKey("a" * 32, "b" * 16, 0.5)
OWN = ProjectionKey(KEY.video, KEY.encoder, KEY.fps, "c" * 16)
HERE = Path(__file__).parent / "data"
FLOAT_PRECISIONS = HERE / "older_projections"  # as the version before int8 became the only one wrote them, of "tiny.t3"
DIMENSIONS = (4, 5, 64)  # K, P, C of `tiny_head`


@pytest.fixture(scope="module")
def head(tiny_head: Path) -> R2Head:
    return load_head(tiny_head)


def layers_of(frames: int) -> np.ndarray:
    return np.random.default_rng(frames).normal(size=(frames, *DIMENSIONS)).astype(np.float16)


def write(store: ProjectionStore, head: R2Head, layers: np.ndarray, chunk: int, key: ProjectionKey = OWN) -> None:
    with store.write(key, head) as writer:
        for first in range(0, len(layers), chunk):
            writer.append(layers[first : first + chunk])


# The head's windows are 10 frames, 6 apart.
@pytest.mark.parametrize("frames", [1, 9, 10, 11, 16, 17, 47])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_streamed_windows_are_those_of_the_whole_video(tmp_path: Path, head: R2Head, frames: int, chunk: int) -> None:
    store, layers = ProjectionStore(tmp_path), layers_of(frames)
    write(store, head, layers, chunk)
    store.verify(OWN)
    assert list(store) == [OWN]
    read = store.open(OWN)
    assert len(read) == frames
    for number, start in enumerate(read.starts):
        window = torch.from_numpy(layers[start : start + 10])
        with torch.no_grad():
            expected = head.project([window]).quantized()
        found = quantized_windows(read, slice(number, number + 1))
        assert found.scale is not None and expected.scale is not None
        assert (found.values.int() - expected.values.int()).abs().max() <= 1
        torch.testing.assert_close(found.scale, expected.scale)
    assert read.starts[-1] + read.length == frames


def test_a_projection_is_answered_as_its_layers_are(tmp_path: Path, head: R2Head) -> None:
    store, layers = ProjectionStore(tmp_path), layers_of(47)
    write(store, head, layers, 7)
    embedding = np.ones((47, 3), np.float32)
    texts = [torch.randn(words, 4, 64, generator=torch.Generator().manual_seed(words)) for words in (5, 3)]
    raw = ground_with_head(head, VideoFeatures(0.5, 94.0, layers, embedding), ["a", "b"], texts)
    stored = VideoFeatures(0.5, 94.0, None, embedding, projection=store.open(OWN))
    for one, other in zip(raw, ground_with_head(head, stored, ["a", "b"], texts), strict=True):
        np.testing.assert_allclose(one.saliency.scores, other.saliency.scores, atol=5e-3)
        found, expected = ([[moment.start, moment.end] for moment in own.moments[:1]] for own in (one, other))
        assert interval_iou(np.array(found), np.array(expected))[0, 0] >= 0.98
        np.testing.assert_allclose(one.attention(60.0), other.attention(60.0), atol=0.02)


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_projections_of_older_versions_are_converted_and_answer_the_same(
    tmp_path: Path, precision: str, writable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = replace(OWN, precision=precision)
    shutil.copy(FLOAT_PRECISIONS / older.file_name, tmp_path)
    store = ProjectionStore(tmp_path)
    assert OWN in store
    store.verify(older)
    if not writable:

        def refuse(*_: object) -> None:
            raise PermissionError("read-only")

        monkeypatch.setattr(WholeFileWriter, "__enter__", refuse)
    stored = store.open(OWN)
    assert [key.precision for key in store] == ["int8" if writable else precision]
    for key in store:
        store.verify(key)
    projection = quantized_windows(stored)
    assert projection.values.dtype == torch.int8
    head = read_head(HERE / "r2" / "head_tiny.pth")
    with safe_open(HERE / "r2" / "head_parity.safetensors", framework="pt") as file:
        video, query = file.get_tensor("tiny.t3.video"), file.get_tensor("tiny.t3.query")
    expected = head.predict(video, query, fps=0.5)
    (found,) = Predictor(head).predict([projection], [query], 0.5)
    assert found.windows is not None and expected.windows is not None
    top, other = found.windows[0, 0, 0].numpy(), expected.windows[0].numpy()
    assert interval_iou(top[None, :2], other[None, :2])[0, 0] >= 0.95 and abs(top[2] - other[2]) <= 0.02
    torch.testing.assert_close(found.saliency[0, 0], expected.saliency, atol=0.02, rtol=0)


def test_damage_in_a_projection_of_an_older_version_is_not_converted(tmp_path: Path) -> None:
    older = replace(OWN, precision="float16")
    whole = (FLOAT_PRECISIONS / older.file_name).read_bytes()
    (tmp_path / older.file_name).write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(VtgError, match="checksum"):
        ProjectionStore(tmp_path).open(OWN)
    assert [path.name for path in tmp_path.iterdir()] == [older.file_name]


def test_memory_holds_about_a_window(tmp_path: Path, head: R2Head) -> None:
    held = 0
    with ProjectionStore(tmp_path).write(OWN, head) as writer:
        for first in range(0, 300, 3):
            writer.append(layers_of(300)[first : first + 3])
            assert writer._layers is not None
            held = max(held, len(writer._layers))
    assert held <= 10 + 3


def test_an_error_leaves_nothing_and_damage_is_found(tmp_path: Path, head: R2Head) -> None:
    store = ProjectionStore(tmp_path)
    with pytest.raises(RuntimeError, match="decoder"), store.write(OWN, head) as writer:
        writer.append(layers_of(30))
        raise RuntimeError("decoder")
    assert list(tmp_path.iterdir()) == []
    write(store, head, layers_of(30), 30)
    path = store.path(OWN)
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(VtgError, match="checksum"):
        store.verify(OWN)
    path.write_bytes(whole[:-1])
    with pytest.raises(VtgError, match="damaged"):
        store.open(OWN)


def test_layers_of_another_clip_are_refused(tmp_path: Path, head: R2Head) -> None:
    with pytest.raises(VtgError, match="this head reads"), ProjectionStore(tmp_path).write(OWN, head) as writer:
        writer.append(np.zeros((40, 4, 5, 32), np.float16))
    assert list(tmp_path.iterdir()) == []


class TestLibraryFeatures:
    """What is kept of a video, by the library's settings."""

    def kept(self, folder: Path, storage: Storage, tiny_head: Path, head: R2Head | None) -> LibraryFeatures:
        return LibraryFeatures(folder, storage, str(tiny_head), lambda: head)

    def fill(self, features: LibraryFeatures, frames: int = 23) -> None:
        with features.write(KEY, 2.0 * frames) as writer:
            writer.append(layers_of(frames), np.ones((frames, 3), np.float32))

    @pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
    def test_a_head_keeps_its_projection_alone(
        self, tmp_path: Path, tiny_head: Path, head: R2Head, precision: str
    ) -> None:
        features = self.kept(tmp_path, Storage(precision), tiny_head, head)
        assert KEY not in features
        self.fill(features)
        assert KEY in features
        read = features.open(KEY)
        assert read.layers is None and read.embedding is not None and read.projection is not None
        assert read.projection.values.dtype == np.int8
        features.verify(KEY)
        assert features.bytes_of(KEY) == sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
        features.remove(KEY)
        assert not list(tmp_path.rglob("*.safetensors"))

    def test_layers_are_kept_on_demand_and_asking_for_them_later_wants_the_video_again(
        self, tmp_path: Path, tiny_head: Path, head: R2Head
    ) -> None:
        self.fill(self.kept(tmp_path, Storage("float16"), tiny_head, head))
        later = self.kept(tmp_path, Storage("float16", keep_layers=True), tiny_head, head)
        assert KEY not in later
        self.fill(later)
        assert KEY in later
        np.testing.assert_array_equal(later.open(KEY).layers, layers_of(23))

    def test_another_head_needs_the_layers(self, tmp_path: Path, tiny_head: Path, head: R2Head) -> None:
        self.fill(self.kept(tmp_path, Storage(), tiny_head, head))
        other_path = tmp_path / "other.safetensors"
        from vtg.r2 import save_head

        torch.manual_seed(9)
        other = R2Head(replace(head.config, name="other")).eval()
        save_head(other, other_path)
        assert head_fingerprint(str(other_path)) != head_fingerprint(str(tiny_head))
        features = LibraryFeatures(tmp_path, Storage(), str(other_path), lambda: other)
        assert KEY not in features  # so that indexing with this head encodes it again
        with pytest.raises(VtgError, match="index it again with this model, or with --keep-layers") as caught:
            ground_with_head(other, features.open(KEY, "a.mp4"), ["a"], [torch.zeros(3, 4, 64)])
        assert "\n" not in str(caught.value)
        self.fill(features)
        assert KEY in features and KEY in self.kept(tmp_path, Storage(), tiny_head, head)  # both can be asked now

    def test_without_the_head_the_layers_stay_and_are_projected_later(
        self, tmp_path: Path, tiny_head: Path, head: R2Head
    ) -> None:
        def fails() -> None:
            raise VtgError("no network")

        absent = LibraryFeatures(tmp_path, Storage("float16"), str(tmp_path / "absent.safetensors"), fails)
        self.fill(absent)
        assert KEY in absent and absent.open(KEY).projection is None
        later = self.kept(tmp_path, Storage("float16"), tiny_head, head)
        later.project(KEY)
        read = later.open(KEY)
        assert read.layers is not None and read.projection is not None and len(read.projection) == 23

    def test_a_model_without_head_keeps_embeddings_alone(self, tmp_path: Path) -> None:
        features = LibraryFeatures(tmp_path, Storage(), None, lambda: None)
        self.fill(features)
        read = features.open(KEY)
        assert KEY in features and read.layers is None and read.projection is None and len(read) == 23


def as_older(library: Library, precision: str) -> None:
    """Writes a library's only projection as an older version did, in the stead of the one that is there."""
    (key,) = library.features.projections
    path = library.features.projections.path(key)
    metadata = read_header(path)["__metadata__"] | {"precision": precision}
    stored = library.features.projections.open(key)
    assert stored.scale is not None
    values = (stored.values * stored.scale.astype(np.float32)[..., None]).astype(precision)
    with WholeFileWriter(library.features.projections.path(replace(key, precision=precision)), HEADER_BYTES) as file:
        file.write(values)
        file.complete(arrays_header(metadata, {"values": (values.dtype.str, values.shape)}, file.sha256))
    path.unlink()


class TestLibrary:
    """The settings of a library, from indexing to a question."""

    @pytest.fixture
    def spec(self, tiny_clip: Path, tiny_head: Path) -> ModelSpec:
        return model_spec(tiny_head, pretrained=tiny_clip)

    def test_what_was_asked_for_is_kept_and_remembered(
        self, tmp_path: Path, spec: ModelSpec, make_video: Callable[..., Path]
    ) -> None:
        video = make_video(tmp_path / "a.mp4", seconds=50)
        library = Library(tmp_path / "library", spec, device="cpu", storage=Storage("float16"))
        library.add([video])
        assert read_storage(library.folder) == Storage("float16")
        exact = library.grounder.ground(video, "a red circle")
        again = Library(library.folder, device="cpu")
        assert again.open_features(video).projection is not None
        found = again.ground(video, "a red circle")
        np.testing.assert_allclose(found.saliency.scores, exact.saliency.scores, atol=5e-3)
        assert found.attention(20.0).shape == (2, 2)
        assert again.describe()["bytes_per_minute"] > 0
        assert again.add([video]).unchanged == [str(video)]

    @pytest.mark.parametrize("precision", ["float32", "float16"])
    def test_a_library_of_an_older_version_opens_and_finds_the_same(
        self, tmp_path: Path, spec: ModelSpec, make_video: Callable[..., Path], precision: str
    ) -> None:
        video = make_video(tmp_path / "a.mp4", seconds=50)
        library = Library(tmp_path / "library", spec, device="cpu", storage=Storage(precision, keep_layers=True))
        library.add([video])
        before = library.ground(video, "a red circle")
        as_older(library, precision)
        again = Library(library.folder, device="cpu")
        assert again.add([video]).unchanged == [str(video)]
        assert not again.verify()
        after = again.ground(video, "a red circle")
        np.testing.assert_allclose(after.saliency.scores, before.saliency.scores, atol=0.02)
        best, other = after.moments[0], before.moments[0]
        iou = interval_iou(np.array([[best.start, best.end]]), np.array([[other.start, other.end]]))
        assert iou[0, 0] >= 0.95 and abs(best.score - other.score) <= 0.02
        assert not again.verify()
        assert [key.precision for key in again.features.projections] == ["int8"]

    def test_keeping_layers_encodes_a_library_once_more(
        self, tmp_path: Path, spec: ModelSpec, make_video: Callable[..., Path]
    ) -> None:
        video = make_video(tmp_path / "a.mp4", seconds=12)
        Library(tmp_path / "library", spec, device="cpu").add([video])
        library = Library(tmp_path / "library", device="cpu", storage=Storage(keep_layers=True))
        assert library.add([video]).added == [str(video)]
        assert Library(tmp_path / "library", device="cpu").open_features(video).layers is not None
        assert read_storage(library.folder) == Storage(keep_layers=True)
