"""The feature store: what is there is whole, what is read is what was written, and keys follow content."""

from __future__ import annotations

import mmap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vtg.errors import VtgError
from vtg.features.arrays import HEADER_BYTES, arrays_header, read_header
from vtg.features.npy import NpyWriter, read_npy
from vtg.features.store import EncodedChunk, FeatureKey, FeatureStore, PublishedFeatures, content_key
from vtg.files.whole import WholeFileWriter

KEY = FeatureKey("0" * 32, "1" * 16, 0.5)


def stored(embedding: np.ndarray) -> np.ndarray:
    """Embeddings as a file keeps them, in float16."""
    return embedding.astype(np.float16).astype(np.float32)


def chunk(layers: np.ndarray, embedding: np.ndarray, thumbnails: np.ndarray | None = None) -> EncodedChunk:
    return EncodedChunk(np.arange(len(layers)), layers, embedding, thumbnails)


@pytest.fixture
def features() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(7, 4, 5, 8)).astype(np.float16), random.normal(size=(7, 3)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path, features: tuple[np.ndarray, np.ndarray]) -> FeatureStore:
    layers, embedding = features
    store = FeatureStore(tmp_path / "features")
    with store.write(KEY, duration=13.4) as writer:
        writer.append(chunk(layers[:3], embedding[:3]))
        writer.append(chunk(layers[3:], embedding[3:]))
    return store


def test_what_is_read_is_what_was_written(store: FeatureStore, features: tuple[np.ndarray, np.ndarray]) -> None:
    read = store.open(KEY)
    assert isinstance(read.layers, np.ndarray) and isinstance(read.layers.base, mmap.mmap)
    np.testing.assert_array_equal(read.layers, features[0])
    np.testing.assert_array_equal(read.embedding, stored(features[1]))
    assert read.duration == 13.4
    assert read.times.tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert list(store) == [KEY]
    assert KEY in store
    store.verify(KEY)


def test_thumbnails_are_kept_if_all_frames_have_theirs(tmp_path: Path, features: tuple[np.ndarray, np.ndarray]) -> None:
    layers, embedding = features
    thumbnails = np.random.default_rng(1).integers(0, 256, (7, 8, 8, 3)).astype(np.uint8)
    store = FeatureStore(tmp_path)
    for layout in ("int8", "none"):
        for last in (thumbnails[3:], None):
            with store.write(KEY, 13.4, layers=layout) as writer:
                writer.append(chunk(layers[:3], embedding[:3], thumbnails[:3]))
                writer.append(chunk(layers[3:], embedding[3:], last))
            read = store.open(KEY)
            np.testing.assert_array_equal(read.embedding, stored(embedding))
            if last is None:
                assert read.thumbnails is None
            else:
                np.testing.assert_array_equal(read.thumbnails, thumbnails)
            store.verify(KEY)


def test_a_file_is_plain_safetensors(store: FeatureStore, features: tuple[np.ndarray, np.ndarray]) -> None:
    from safetensors.numpy import load_file

    tensors = load_file(store.path(KEY))
    np.testing.assert_array_equal(tensors["layers"], features[0])
    np.testing.assert_array_equal(tensors["embedding"], features[1].astype(np.float16))


def test_embeddings_of_earlier_versions_are_read(tmp_path: Path, features: tuple[np.ndarray, np.ndarray]) -> None:
    """Those of vtg 0.1.0 are float32."""
    store = FeatureStore(tmp_path)
    embedding = features[1].astype("<f4")
    metadata = {"format": "vtg-features-1", "video": KEY.video, "encoder": KEY.encoder, "fps": repr(KEY.fps)}
    with WholeFileWriter(store.path(KEY), HEADER_BYTES) as file:
        file.write(embedding)
        arrays = {"embedding": ("<f4", embedding.shape)}
        file.complete(arrays_header({**metadata, "duration": "13.4"}, arrays, file.sha256), read_header)
    store.verify(KEY)
    np.testing.assert_array_equal(store.open(KEY).embedding, embedding)


def test_an_error_while_writing_leaves_nothing(tmp_path: Path, features: tuple[np.ndarray, np.ndarray]) -> None:
    store = FeatureStore(tmp_path)
    with pytest.raises(RuntimeError, match="decoder"), store.write(KEY, 1.0) as writer:
        writer.append(chunk(*features))
        raise RuntimeError("decoder")
    assert list(tmp_path.iterdir()) == []
    assert KEY not in store


def test_an_error_keeps_what_was_there(store: FeatureStore, features: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(RuntimeError), store.write(KEY, 1.0) as writer:
        writer.append(chunk(features[0][:1], features[1][:1]))
        raise RuntimeError
    assert len(store.open(KEY).layers) == 7


def test_frames_of_another_shape_are_refused(tmp_path: Path, features: tuple[np.ndarray, np.ndarray]) -> None:
    layers, embedding = features
    with pytest.raises(ValueError, match="do not continue"), FeatureStore(tmp_path).write(KEY, 1.0) as writer:
        writer.append(chunk(layers, embedding))
        writer.append(chunk(layers[:, :3], embedding))
    with pytest.raises(ValueError, match="no frames"), FeatureStore(tmp_path).write(KEY, 1.0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_damage_is_found(store: FeatureStore) -> None:
    path = store.path(KEY)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(VtgError, match="damaged"):
        store.open(KEY)
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    store.open(KEY)  # the size is right; only the checksum tells
    with pytest.raises(VtgError, match="checksum"):
        store.verify(KEY)
    path.write_bytes(b"")
    with pytest.raises(VtgError, match="damaged"):
        store.open(KEY)
    store.remove(KEY)
    with pytest.raises(VtgError, match="not there"):
        store.open(KEY)


def test_only_abandoned_files_are_swept(store: FeatureStore) -> None:
    old = store.root / "b.part"
    old.write_bytes(b"half")
    with NpyWriter(store.root / "c.npy") as writer:
        writer.append(np.zeros((2, 3)))
        store.sweep()
        assert [path.name.partition(".")[0] for path in store.root.glob("*.part")] == ["c"]
    assert not old.exists()
    assert (store.root / "c.npy").exists()
    assert KEY in store


def test_a_renamed_file_keeps_its_key_and_an_edited_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x" * 10_000_000)
    key = content_key(path)
    renamed = path.rename(tmp_path / "b.mkv")
    assert content_key(renamed) == key
    with renamed.open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"y")
    assert content_key(renamed) != key
    with pytest.raises(VtgError, match="cannot be read"):
        content_key(path)


class TestPublishedLayout:
    """One float16 .npy a video and one a query, as the published caches have them."""

    def test_round_trip(self, tmp_path: Path) -> None:
        published = PublishedFeatures(tmp_path)
        video = np.random.default_rng(0).normal(size=(6, 4, 5, 8))
        published.write_video("abc_60.0_210.0", video)
        published.write_query(2579, video[:, :, 0])
        np.testing.assert_array_equal(published.video("abc_60.0_210.0"), video.astype(np.float16))
        np.testing.assert_array_equal(published.query(2579), video[:, :, 0].astype(np.float16))
        assert np.load(tmp_path / "clip_b32_vid_k4" / "abc_60.0_210.0.npy").dtype == np.float16
        assert (tmp_path / "clip_b32_txt_k4" / "2579.npy").is_file()
        assert list(published.video_ids()) == ["abc_60.0_210.0"]

    def test_what_is_missing_or_damaged_is_named(self, tmp_path: Path) -> None:
        published = PublishedFeatures(tmp_path)
        with pytest.raises(VtgError, match=r"none\.npy: no such features"):
            published.video("none")
        path = published.write_video("a", np.zeros((2, 4, 5, 8)))
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(VtgError, match="not a whole"):
            published.video("a")
        np.save(path, np.zeros((2, 4)))
        with pytest.raises(VtgError, match=r"shape \[2, 4\]"):
            published.video("a")
        with pytest.raises(ValueError, match="dimensions"):
            published.write_video("a", np.zeros((2, 4)))

    def test_a_pickle_is_never_loaded(self, tmp_path: Path) -> None:
        published = PublishedFeatures(tmp_path)
        published.videos.mkdir()
        np.save(published.videos / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(VtgError, match="not a whole"):
            published.video("a")

    def test_headers_are_parsed_one_at_a_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        published = PublishedFeatures(tmp_path)
        published.write_video("a", np.zeros((2, 4, 5, 8)))
        parsing = threading.Lock()
        parse = np.lib.format.open_memmap

        def parse_alone(*arguments: Any, **options: Any) -> Any:
            assert parsing.acquire(blocking=False), "two threads parse headers, which Python 3.11 does not survive"
            try:
                time.sleep(0.01)
                return parse(*arguments, **options)
            finally:
                parsing.release()

        monkeypatch.setattr(np.lib.format, "open_memmap", parse_alone)
        with ThreadPoolExecutor(4) as pool:
            assert [array.shape for array in pool.map(published.video, "aaaaaaaa")] == [(2, 4, 5, 8)] * 8


def test_whole_numbers_keep_each_token_to_half_a_step_of_its_own(
    tmp_path: Path, features: tuple[np.ndarray, np.ndarray]
) -> None:
    layers, embedding = features
    layers[2, 1, 3] *= 100  # a token's scale is its own: its neighbours stay as exact as they were
    layers[4, 0, 0] = 0
    store = FeatureStore(tmp_path)
    with store.write(KEY, 13.4, layers="int8") as writer:
        writer.append(chunk(layers[:5], embedding[:5]))
        writer.append(chunk(layers[5:], embedding[5:]))
    store.verify(KEY)
    read = store.open(KEY).layers
    assert read is not None and read.shape == layers.shape and len(read) == 7 and read.dtype == np.float16
    step = np.abs(layers.astype(np.float32)).max(axis=3, keepdims=True) / 127
    difference = np.abs(np.asarray(read).astype(np.float32) - layers.astype(np.float32))
    assert (difference <= 0.51 * step + 1e-3 * np.abs(layers)).all()  # and it is read as float16
    assert not np.asarray(read)[4, 0, 0].any()
    np.testing.assert_array_equal(read[1:4], np.asarray(read)[1:4])
    np.testing.assert_array_equal(read[:, -1, 0], np.asarray(read)[:, -1, 0])
    assert read.nbytes == layers.size + layers[..., 0].nbytes


def test_embeddings_may_be_kept_alone(tmp_path: Path, features: tuple[np.ndarray, np.ndarray]) -> None:
    store = FeatureStore(tmp_path)
    with store.write(KEY, 13.4, layers="none", computed="bfloat16") as writer:
        writer.append(chunk(*features))
    read = store.open(KEY)
    assert read.layers is None and not store.keeps_layers(KEY)
    np.testing.assert_array_equal(read.embedding, stored(features[1]))
    assert len(read) == 7
    assert store.bytes_of(KEY) < 5000


@pytest.mark.parametrize("values", ["<i2", ">f2", "<c8", "|S4", "|b1"])
def test_arrays_of_other_types_are_refused(tmp_path: Path, values: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4), dtype=values))
    with pytest.raises(VtgError, match=r"a\.npy: holds .*, not float16"):
        read_npy(tmp_path / "a.npy", dimensions=3)


def test_an_archive_of_arrays_is_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros(4))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(VtgError, match=r"a\.npy: not a whole \.npy file"):
        read_npy(tmp_path / "a.npy", dimensions=3)
