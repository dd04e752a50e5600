"""Libraries of strangers: what their settings name is loaded only where it is harmless, or the user names it too."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import vtg_in_process
from hostile_weights import CANARY, WritesOnLoad, scripted
from safetensors.torch import load_file, save_file

from vtg.cli.options import open_library
from vtg.clip.specs import EncoderSpec
from vtg.errors import VtgError
from vtg.library.library import Library
from vtg.library.settings import SETTINGS, read_settings
from vtg.models.specs import ModelSpec, model_spec


@pytest.fixture
def weights(tmp_path: Path, tiny_clip: Path) -> Path:
    return Path(shutil.copy(tiny_clip, tmp_path / "clip.safetensors"))


def begun(folder: Path, weights: Path) -> Library:
    library = Library(folder, model_spec("zero-shot", pretrained=weights), device="cpu")
    library.begin()
    return library


def edited(folder: Path, **encoder: Any) -> Path:
    """Change what a library's settings name, as a stranger may."""
    settings = json.loads((folder / SETTINGS).read_text())
    settings["model"]["encoder"].update(encoder)
    (folder / SETTINGS).write_text(json.dumps(settings))
    return folder


def as_pickle(weights: Path) -> Path:
    path = weights.with_suffix(".pt")
    torch.save(load_file(weights), path)
    return path


def refusal(folder: Path) -> str:
    with pytest.raises(VtgError) as caught:
        Library(folder, device="cpu").encoder  # noqa: B018 (it is loaded)
    assert str(caught.value).startswith(f"{folder}: ") and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("encoder", "fingerprint"),
    [
        (EncoderSpec(), "4676379768cb1513"),
        (EncoderSpec("ViT-B-32-quickgelu"), "4676379768cb1513"),
        (EncoderSpec("ViT-L-14", "laion2b_s32b_b82k"), "4f015ca27a0d4600"),
        (EncoderSpec(pretrained="demo"), "e720eeba0917b617"),
        (EncoderSpec(None, "w.safetensors"), "8e059b0c99aef905"),
        (EncoderSpec("ViT-B-32", "w.safetensors", 3), "8a551db3d4f6bba1"),
    ],
)
def test_fingerprints_are_those_of_existing_libraries(
    encoder: EncoderSpec, fingerprint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.safetensors").write_bytes(b"weights")
    assert encoder.fingerprint == fingerprint


def test_safetensors_with_the_librarys_hash_load_unnamed(weights: Path, tmp_path: Path) -> None:
    library = begun(tmp_path / "lib", weights)
    again = Library(tmp_path / "lib", device="cpu")
    assert again.encoder.fingerprint == again.fingerprint == library.fingerprint


def test_a_library_of_an_earlier_version_opens_as_before(weights: Path, tmp_path: Path) -> None:
    fingerprint = begun(tmp_path / "lib", weights).fingerprint
    settings = json.loads((tmp_path / "lib" / SETTINGS).read_text())
    del settings["weights_sha256"]
    (tmp_path / "lib" / SETTINGS).write_text(json.dumps(settings))
    assert Library(tmp_path / "lib", device="cpu").encoder.fingerprint == fingerprint


def test_a_pickle_is_named_by_the_user_or_not_loaded(weights: Path, tmp_path: Path) -> None:
    pickled = as_pickle(weights)
    begun(tmp_path / "lib", pickled)
    line = refusal(tmp_path / "lib")
    assert "not a safetensors file" in line
    assert line.endswith(f"vtg search QUERY --library {tmp_path / 'lib'} --pretrained {pickled}")
    named = open_library(tmp_path / "lib", None, None, str(pickled), None, "cpu")
    assert named.model.name == "zero-shot" and named.encoder.fingerprint == named.fingerprint
    assert Library(tmp_path / "lib", device="cpu").videos() == []  # what loads nothing needs no name


def test_an_archive_that_a_library_names_is_never_run(weights: Path, tmp_path: Path) -> None:
    begun(tmp_path / "lib", weights)
    evil = tmp_path / "evil.pt"
    evil.write_bytes(scripted(WritesOnLoad(str(tmp_path / CANARY))))
    edited(tmp_path / "lib", pretrained=str(evil))
    assert "not a safetensors file" in refusal(tmp_path / "lib")
    (tmp_path / "film.mp4").write_bytes(b"any")
    with pytest.raises(VtgError, match="not a safetensors file"):
        Library(tmp_path / "lib", device="cpu").add([tmp_path / "film.mp4"])
    with pytest.raises(VtgError, match="could run code"):
        open_library(tmp_path / "lib", None, None, str(evil), None, "cpu").encoder  # noqa: B018 (it is loaded)
    assert not (tmp_path / CANARY).exists()


def test_changed_weights_are_named_or_not_loaded(weights: Path, tmp_path: Path) -> None:
    begun(tmp_path / "lib", weights)
    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, weights)
    assert "have changed" in refusal(tmp_path / "lib")
    assert open_library(tmp_path / "lib", None, None, str(weights), None, "cpu").encoder


def test_other_weights_than_the_librarys_are_not_loaded(weights: Path, tmp_path: Path) -> None:
    begun(tmp_path / "lib", weights)
    other = tmp_path / "other.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, other)
    edited(tmp_path / "lib", pretrained=str(other))
    assert "have changed" in refusal(tmp_path / "lib")


def test_moved_weights_are_found_by_their_name(weights: Path, tmp_path: Path) -> None:
    begun(tmp_path / "lib", weights)
    moved = weights.rename(tmp_path / "moved.safetensors")
    assert refusal(tmp_path / "lib").endswith("--pretrained FILE")
    library = open_library(tmp_path / "lib", None, None, str(moved), None, "cpu")
    assert library.encoder.fingerprint == library.fingerprint


@pytest.mark.parametrize("name", ["head.pth", "head", "head.pt"])
def test_a_head_that_is_a_pickle_is_named_or_not_loaded(name: str, weights: Path, tmp_path: Path) -> None:
    encoder = EncoderSpec(None, str(weights))
    Library(tmp_path / "lib", ModelSpec(name, encoder, 0.5, str(tmp_path / name)), device="cpu").begin()
    (tmp_path / name).write_bytes((Path(__file__).parent / "data" / "r2" / "head_tiny.pth").read_bytes())
    with pytest.raises(VtgError, match=rf"its head .* not a safetensors file.*--model {tmp_path / name}$"):
        Library(tmp_path / "lib", device="cpu").grounder  # noqa: B018 (it is loaded)
    with pytest.raises(VtgError, match="not a safetensors file"):
        open_library(tmp_path / "lib", None, None, str(weights), None, "cpu")


def test_a_head_that_names_a_pickle_needs_the_name(tmp_path: Path, weights: Path) -> None:
    from vtg.r2 import HeadConfig, R2Head, save_head

    pickled = as_pickle(weights)
    config = HeadConfig(
        hidden_width=32, video_width=64, query_width=64, tokens=5, clip_model=None, clip_pretrained=str(pickled)
    )
    save_head(R2Head(config), tmp_path / "head.safetensors")
    with pytest.raises(VtgError, match=f"not safetensors; if you trust them, add --pretrained {pickled}"):
        model_spec(tmp_path / "head.safetensors")
    assert model_spec(tmp_path / "head.safetensors", pretrained=pickled).encoder.pretrained == str(pickled)


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/stdin", "http://127.0.0.1:9/w.safetensors", "..", "x\0y"])
def test_devices_and_addresses_are_not_opened(place: str, weights: Path, tmp_path: Path) -> None:
    begun(tmp_path / "lib", weights)
    settings = json.loads((tmp_path / "lib" / SETTINGS).read_text())
    settings["model"]["head"] = place
    settings["model"]["encoder"]["pretrained"] = place
    (tmp_path / "lib" / SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(VtgError) as caught:
        library = Library(tmp_path / "lib", device="cpu")
        assert library.features.head_fingerprint == ""
        library.grounder  # noqa: B018 (it is loaded)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "model",
    [
        {"fps": 1e308}, {"fps": 0}, {"fps": float("nan")}, {"fps": "fast"}, {"name": 3}, {"head": ["x"]},
        {"encoder": []}, {"encoder": {"clip": 5}}, {"encoder": {"layers": 10**9}}, {"encoder": {"layers": True}},
        {"encoder": {"pretrained": "x" * 10_000}}, {"encoder": {"other": 1}},
    ],
)  # fmt: skip
def test_absurd_settings_are_one_line(model: dict[str, Any], weights: Path, tmp_path: Path) -> None:
    begun(tmp_path / "lib", weights)
    settings = json.loads((tmp_path / "lib" / SETTINGS).read_text())
    settings["model"].update(model)
    (tmp_path / "lib" / SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(VtgError, match=r"library\.json: damaged"):
        Library(tmp_path / "lib")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{}", "[]", "null", "9" * 5000, '"x"', " " * 2_000_000, '{"format": {}}']
)
def test_settings_that_are_other_json_are_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / SETTINGS).write_text(text)
    with pytest.raises(VtgError, match=r"library\.json: damaged"):
        read_settings(tmp_path)


def test_every_command_takes_weights_that_have_to_be_named(
    weights: Path,
    tmp_path: Path,
    make_video: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = vtg_in_process(capsys, monkeypatch)
    pickled, library, films = as_pickle(weights), tmp_path / "lib", tmp_path / "films"
    films.mkdir()
    for number in range(4):
        make_video(films / f"v{number}.mp4", seconds=12, seed=number)
    assert run("index", films, "--library", library, "--keep-layers", "--pretrained", pickled).status == 0
    lines = [
        {"qid": n, "vid": f"v{n}", "query": f"thing {n}", "duration": 12, "relevant_windows": [[2, 6]]}
        for n in range(4)
    ]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        'data = { annotations = { train = "all.jsonl", val = "all.jsonl" } }\n'
        "model = { hidden_width = 32 }\ntrain = { batch = 4, epochs = 1 }\n"
    )
    run("train", recipe, "--features", library, "--out", tmp_path / "run", "--device", "cpu", "--pretrained", pickled)
    os.utime(films / "v0.mp4", (1, 1))
    head = tmp_path / "run" / "best.safetensors"
    on_library = ("--features", library, "--device", "cpu")
    for command in (
        ("library", "refresh", "--library", library, "--device", "cpu"),
        ("train", recipe, *on_library, "--out", tmp_path / "again"),
        ("evaluate", recipe, *on_library, "--model", head, "--out", tmp_path / "p.jsonl"),
        ("evaluate", recipe, *on_library, "--model", "zero-shot", "--out", tmp_path / "z.jsonl"),
    ):
        refused = run(*command)
        assert refused.status == 1, command
        assert f"--pretrained {pickled}\n" in refused.err and refused.err.count("\n") == 1
        named = run(*command, "--pretrained", pickled)
        assert named.status == 0, named.err
