"""Files of weights: every kind that PyTorch writes is read, and nothing hostile in one is run or allocated."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_weights import CANARY, RunsOnLoad, WritesOnLoad, saved, scripted, small_clip, write_hostile_weights
from safetensors.torch import load_file, save_file

from vtg.clip.checkpoints import read_openai_tensors
from vtg.clip.encoder import ClipEncoder
from vtg.errors import VtgError
from vtg.r2 import HeadConfig, R2Head
from vtg.r2.checkpoints import read_head, save_head
from vtg.weights import WeightsError, open_weights, read_content

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")


class Traced(torch.nn.Module):
    """A CLIP as OpenAI saved it: traced, with three numbers among its buffers."""

    def __init__(self, clip: torch.nn.Module) -> None:
        super().__init__()
        for name, module in clip.named_children():
            setattr(self, name, module)
        for name, parameter in clip.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.register_buffer("attn_mask", clip.attn_mask)
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(16))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.visual(pixels)


def write_archive(path: Path, clip: torch.nn.Module, pixels: int) -> None:
    traced = torch.jit.trace(Traced(clip), torch.zeros(1, 3, pixels, pixels), check_trace=False)
    torch.jit.save(traced, path)


def refusal(path: Path) -> WeightsError:
    with pytest.raises(WeightsError) as caught, open_weights(path) as file:
        file.read()
    assert "\n" not in str(caught.value)
    return caught.value


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None], method: int = zipfile.ZIP_STORED) -> Path:
    """An archive with other entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def pickle_name(entries: dict[str, bytes]) -> str:
    return next(name for name in entries if name.endswith("/data.pkl"))


class TestKinds:
    """What PyTorch itself reads as tensors."""

    @pytest.mark.parametrize("kind", ["zip", "legacy", "wrapped", "parallel", "archive"])
    def test_tensors_are_those_that_were_saved(self, kind: str, tmp_path: Path) -> None:
        clip, path = small_clip(), tmp_path / "w.pt"
        expected = clip.state_dict()
        if kind == "archive":
            write_archive(path, clip, 16)
        elif kind == "parallel":
            torch.save({f"module.{name}": tensor for name, tensor in expected.items()}, path)
        else:
            content = {"state_dict": expected, "epoch": 3, "args": ["x", 1.5, None]} if kind == "wrapped" else expected
            torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy")
        with open_weights(path) as file:
            shapes, tensors = file.shapes, file.read()
        assert set(expected) <= set(tensors)
        for name, tensor in expected.items():
            assert shapes[name] == tensor.shape and torch.equal(tensors[name], tensor)

    @pytest.mark.parametrize("legacy", [True, False])
    def test_views_types_and_shared_storages_are_kept(self, legacy: bool, tmp_path: Path) -> None:
        table = torch.arange(12).reshape(3, 4)
        content = {"turned": table.T, "row": table[1], "tied": table, "number": torch.tensor(2.5)}
        content |= {str(kind): torch.tensor([0, 1]).to(kind) for kind in (torch.bfloat16, torch.bool, torch.uint8)}
        torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
        with open_weights(tmp_path / "w.pt") as file:
            tensors = file.read()
        assert all(torch.equal(tensors[name], tensor) for name, tensor in content.items())
        assert {name: tensor.dtype for name, tensor in tensors.items()} == {n: t.dtype for n, t in content.items()}
        assert tensors["turned"].data_ptr() == tensors["tied"].data_ptr()

    def test_an_archive_as_openai_published_it_is_the_same_encoder(self, tmp_path: Path, tiny_clip: Path) -> None:
        from vtg.clip.checkpoints import build_openai_model

        clip = build_openai_model(load_file(tiny_clip), "tiny", torch.device("cpu"), torch.float32)
        write_archive(tmp_path / "ViT-T-16.pt", clip, 32)
        tensors = read_openai_tensors(tmp_path / "ViT-T-16.pt")
        assert set(tensors) == set(load_file(tiny_clip))
        frames = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
        ours = ClipEncoder(pretrained=tmp_path / "ViT-T-16.pt", device="cpu").encode_frames(frames)
        expected = ClipEncoder(pretrained=tiny_clip, device="cpu").encode_frames(frames)
        assert torch.equal(ours.layers, expected.layers)

    def test_containers_come_back_as_they_were(self, tmp_path: Path) -> None:
        content = {"a": [1, (2.5, None, True)], 3: OrderedDict(x=torch.ones(2)), "big": 1 << 80}
        torch.save(content, tmp_path / "state.pt")
        read = read_content(tmp_path / "state.pt")
        assert torch.equal(read[3].pop("x"), torch.ones(2))
        assert read == {"a": [1, (2.5, None, True)], 3: {}, "big": 1 << 80}


class TestCode:
    """Files that run code as they are loaded by PyTorch."""

    def test_an_archive_that_runs_code_is_refused_unrun(self, tmp_path: Path) -> None:
        path, mark = tmp_path / "w.pt", tmp_path / CANARY
        path.write_bytes(scripted(WritesOnLoad(str(mark))))
        assert refusal(path).kind == "unsafe"
        with pytest.raises(VtgError, match="refused, as it could run code"):
            ClipEncoder(pretrained=path, device="cpu")
        with pytest.raises(VtgError, match="refused, as it could run code"):
            ClipEncoder("ViT-B-32", path, device="cpu")
        assert not mark.exists()
        torch.jit.load(path)  # it does run: only the refusal kept it from that
        assert mark.exists()

    @pytest.mark.parametrize("place", ["alone", "beside", "within", "old"])
    def test_a_pickle_that_runs_code_is_refused_unrun(self, place: str, tmp_path: Path) -> None:
        path, bomb = tmp_path / "w.pt", RunsOnLoad(tmp_path / CANARY)
        content = {"w": torch.ones(2), "x": [{"y": (bomb,)}]} if place == "within" else {"w": torch.ones(2), "x": bomb}
        raw = pickle.dumps(bomb) if place == "alone" else saved(content, _use_new_zipfile_serialization=place != "old")
        path.write_bytes(raw)
        assert refusal(path).kind == "unsafe" and "system" in str(refusal(path))
        with pytest.raises(WeightsError):
            read_content(path)
        assert not (tmp_path / CANARY).exists()

    @pytest.mark.parametrize(
        "raw",
        [
            b"cos\nsystem\n(S'touch %s'\ntR.",
            b"(S'touch %s'\nios\nsystem\n.",
            b"(cos\nsystem\nS'touch %s'\no.",
            b"\x80\x04\x8c\x02os\x8c\x06system\x93(S'touch %s'\ntR.",
            b"c__torch__.x\nY\n)\x81(S'touch %s'\ntb.",
            b'cbuiltins\neval\n(S\'open("%s", "w")\'\ntR.',
            b"ctorch._utils\n_rebuild_tensor_v2\n}(S'__setstate__'\ncos\nsystem\nsbS'%s'\nb.",
        ],
    )
    def test_hand_written_pickles_are_refused_unrun(self, raw: bytes, tmp_path: Path) -> None:
        path = tmp_path / "w.pt"
        torch.save({"w": torch.ones(2)}, path)
        bad = raw.replace(b"%s", os.fsencode(tmp_path / CANARY))
        rewritten(path, lambda entries: entries.update({pickle_name(entries): bad}))
        refusal(path)
        assert not (tmp_path / CANARY).exists()

    def test_pytorchs_and_open_clips_loaders_are_not_reached(
        self, tmp_path: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import open_clip

        def reached(*arguments: object, **named: object) -> None:
            raise AssertionError("a loader that unpickles was called")

        clip = open_clip.create_model("ViT-S-32")
        torch.save(clip.state_dict(), tmp_path / "w.pt")
        for place in ("torch.load", "torch.jit.load", "open_clip.factory.load_state_dict"):
            monkeypatch.setattr(place, reached)
        monkeypatch.setattr("vtg.clip.building.find_weights", lambda model, tag: tmp_path / "w.pt")
        monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda model: ["openai"])
        for pretrained in (tmp_path / "w.pt", "openai"):
            ours = ClipEncoder("ViT-S-32", pretrained, device="cpu")._clip
            assert torch.equal(ours.visual.conv1.weight, clip.visual.conv1.weight)


class TestSizes:
    """Claims that are larger than the file are refused before memory is asked for."""

    @pytest.fixture
    def path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        def asked(*arguments: object, **named: object) -> None:
            raise AssertionError("memory was asked for")

        torch.save({"w": torch.ones(64, 64), "v": torch.ones(3)}, tmp_path / "w.pt")
        monkeypatch.setattr("vtg.weights.archives._Container.read", asked)
        return tmp_path / "w.pt"

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (b"M\x00\x10", b"J\xff\xff\xff\x7f"),  # elements of the storage
            (b"K\x40K\x40", b"J\xff\xff\xff\x7fK\x40"),  # rows
            (b"K\x40K\x01", b"K\x00K\x00"),  # strides of 0, as of an expanded tensor
            (b"K\x40K\x01", b"J\xff\xff\xff\xffK\x01"),  # a negative stride
            (b"FloatStorage", b"DoubleStorage"),
            (b"FloatStorage", b"ComplexFloatStorage"),
        ],
    )
    def test_a_tensor_larger_than_its_data(self, path: Path, before: bytes, after: bytes) -> None:
        def change(entries: dict[str, bytes]) -> None:
            name = pickle_name(entries)
            assert before in entries[name]
            shape = b"K\x40K\x40\x86"
            content = entries[name].replace(before, after)
            if after == b"K\x00K\x00":  # what `torch.ones(1).expand(10**9, 10**9)` would be
                content = content.replace(shape, b"J\x00\xca\x9a;J\x00\xca\x9a;\x86")
            entries[name] = content

        refusal(rewritten(path, change))

    def test_a_compressed_entry(self, path: Path) -> None:
        def change(entries: dict[str, bytes]) -> None:
            entries.update({name: bytes(1 << 26) for name in entries if "/data/" in name})

        assert "compressed" in str(refusal(rewritten(path, change, zipfile.ZIP_DEFLATED)))

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_two_entries_of_one_name(self, path: Path) -> None:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(archive.namelist()[0], b"other")
        assert "same name" in str(refusal(path))

    def test_an_endless_list_of_entries(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
            for number in range(70_000):
                archive.writestr(f"archive/data/{number:0100}", b"")
        assert "more entries" in str(refusal(tmp_path / "w.pt"))

    @pytest.mark.parametrize(
        "raw",
        [
            b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo of 2**31 places
            b"\x80\x02]" + b"\x85" * 100_000 + b"}" + b"(" + b"]" + b"\x85" * 100_000 + b"K\x01u.",  # a deep key
            b"\x80\x02" + b"(" * 200_000 + b".",
            b"\x80\x02" + b"0" * 100 + b".",
            b"\x80\x02X\xff\xff\xff\x7fabc.",
            b"\x80\x02" + b"]0" * 2 + b"I" + b"9" * 100_000 + b"\n.",
            b"\x80\x02" + b"N\x85" * 1_100_000 + b".",
            b"",
        ],
    )
    def test_pickles_made_to_exhaust(self, path: Path, raw: bytes) -> None:
        refusal(rewritten(path, lambda entries: entries.update({pickle_name(entries): raw})))

    def test_containers_in_one_another(self, tmp_path: Path) -> None:
        doubled: Any = [1]
        for _ in range(60):
            doubled = [doubled, doubled]
        endless: list[Any] = []
        endless.append(endless)
        for content in (doubled, endless):
            torch.save({"x": content}, tmp_path / "state.pt")
            with pytest.raises(WeightsError, match="without end"):
                read_content(tmp_path / "state.pt")

    def test_more_than_the_machine_has(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.save({"w": torch.ones(64, 64)}, tmp_path / "w.pt")
        monkeypatch.setattr("vtg.weights.files.total_memory", lambda: 1000)
        assert refusal(tmp_path / "w.pt").kind == "large"

    @pytest.mark.parametrize("length", [2**63, 1 << 30, 3])
    def test_headers_of_safetensors(self, length: int, tmp_path: Path) -> None:
        (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", length) + b"{}" + b" " * 100)
        refusal(tmp_path / "w.safetensors")


class TestModels:
    """CLIPs and heads of absurd sizes."""

    @pytest.mark.parametrize(
        ("name", "tensor", "reason"),
        [
            ("visual.conv1.weight", torch.zeros(64, 3, 9000, 1), "9000 width"),
            ("token_embedding.weight", torch.zeros(2_000_000, 0), "2000000 token rows"),
            ("positional_embedding", torch.zeros(100_000, 1), "100000 positions"),
            ("visual.proj", torch.zeros(0, 0), "visual.proj"),
            ("ln_final.weight", torch.zeros(1), "multiple of 64"),
            ("ln_final.weight", torch.zeros(64, 64), "do not fit"),
            ("token_embedding.rows", torch.zeros(3), "token_embedding.rows"),
            ("extra.weight", torch.zeros(3), "extra.weight is"),
            ("logit_scale", torch.tensor(float("nan")), "NaN or infinite weights, in logit_scale"),
            ("visual.proj", torch.full((64, 16), torch.inf), "NaN or infinite weights, in visual.proj"),
        ],
    )
    @pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
    def test_a_clip(self, name: str, tensor: torch.Tensor, reason: str, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"w{suffix}"
        tensors = {**small_clip().state_dict(), name: tensor}
        save_file({n: t.contiguous() for n, t in tensors.items()}, path) if suffix != ".pt" else torch.save(
            tensors, path
        )
        with pytest.raises(VtgError) as caught:
            read_openai_tensors(path)
        assert (
            str(caught.value).startswith(f"{path}: ") and reason in str(caught.value) and "\n" not in str(caught.value)
        )

    def test_a_clip_of_a_million_blocks(self, tmp_path: Path) -> None:
        tensors = {f"transformer.resblocks.{block}.ln_1.weight": torch.zeros(1) for block in range(15_000)}
        save_file(
            {**{n: t.contiguous() for n, t in small_clip().state_dict().items()}, **tensors}, tmp_path / "w.safetensors"
        )
        with pytest.raises(VtgError, match="15000 blocks, where no CLIP has more than 256"):
            read_openai_tensors(tmp_path / "w.safetensors")

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"hidden_width": 10**9}, "hidden_width must be at most"),
            ({"layers": 10**6}, "layers must be at most"),
            ({"strides": [1 << n for n in range(40)]}, "strides must be at most"),
            ({"video_width": 65}, "misshapen"),
            ({"layers": 3}, "misshapen"),
            ({"temporal_extent": 10**9}, "temporal_extent must be true or false"),
            ({"fps": 1e308}, "fps must be positive"),
            ({"fps": float("nan")}, "fps must be positive"),
            ({"name": ["x"]}, "name must be a text"),
            ({"hidden_width": True}, "hidden_width must be a positive whole number"),
        ],
    )
    def test_a_head_whose_configuration_is_another(self, changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
        config = HeadConfig(hidden_width=32, video_width=64, query_width=64, tokens=5)
        text = json.dumps({**json.loads(config.to_json()), **changes})
        metadata = {"format": "vtg-r2-head", "version": "1", "config": text}
        save_file(R2Head(config).state_dict(), tmp_path / "h.safetensors", metadata=metadata)
        with pytest.raises(VtgError, match=reason) as caught:
            read_head(tmp_path / "h.safetensors")
        assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)

    @pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, '{"fps": ' + "9" * 5000 + "}", "null", "NaN"])
    def test_a_head_with_hostile_json(self, text: str, tmp_path: Path) -> None:
        metadata = {"format": "vtg-r2-head", "version": "1", "config": text}
        save_file({"x": torch.zeros(1)}, tmp_path / "h.safetensors", metadata=metadata)
        with pytest.raises(VtgError, match="configuration cannot be read") as caught:
            read_head(tmp_path / "h.safetensors")
        assert len(str(caught.value)) < len(str(tmp_path)) + 300

    def test_a_head_that_is_not_a_number(self, tmp_path: Path) -> None:
        head = R2Head(HeadConfig(hidden_width=32, video_width=64, query_width=64, tokens=5))
        torch.nn.init.constant_(head.block.gate, torch.nan)
        save_head(head, tmp_path / "h.safetensors")
        with pytest.raises(VtgError, match=r"NaN or infinite weights, in block\.gate"):
            read_head(tmp_path / "h.safetensors")


@pytest.mark.parametrize("seed", range(2))
def test_mutated_files_load_or_are_one_line(seed: int, tmp_path: Path) -> None:
    loaded = 0
    for path in write_hostile_weights(tmp_path, seed, 150):
        read: Callable[[Path], object] = read_head if "-head-" in path.name else read_openai_tensors
        try:
            read(path)
            loaded += 1
        except VtgError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error) and len(str(error)) < 1000
    assert 0 < loaded < 100
    assert not (tmp_path / CANARY).exists()
