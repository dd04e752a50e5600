"""Heads on disk: published files in and out to the byte, and one clear line for every file that is not a head."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vtg.errors import VtgError
from vtg.r2 import HeadConfig, R2Head, read_head, save_head
from vtg.r2.checkpoints import read_tensors, save_published, save_tensors

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent / "data" / "r2"
SHARED = ROOT.parent / "shared" / "parity"
PUBLISHED = {
    "moments": HERE / "head_tiny.pth",
    "highlights": HERE / "head_highlight_tiny.pth",
    "full": SHARED / "head_vit_b_32.pth",
}


def published(kind="moments"):
    if not PUBLISHED[kind].exists():
        pytest.skip("the full-size reference head is not here")
    return torch.load(PUBLISHED[kind], weights_only=True)


def written(folder, content, name="head.pth"):
    torch.save(content, folder / name)
    return folder / name


def refusal(path):
    """The one line with which a file is refused."""
    with pytest.raises(VtgError) as caught:
        read_head(path)
    line = str(caught.value)
    assert "\n" not in line and line.startswith(str(path)) and len(line) < len(str(path)) + 600
    return line.removeprefix(str(path))


def tool():
    """The module of the conversion tool, which is not part of the package."""
    specification = importlib.util.spec_from_file_location(
        "convert_checkpoint", ROOT / "tools" / "convert_checkpoint.py"
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def same_bytes(one, other):
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and tensor.shape == other[name].shape, name
        assert tensor.numpy().tobytes() == other[name].numpy().tobytes(), name


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_to_ours_and_back_is_equal_to_the_byte(kind, tmp_path):
    before = published(kind)["state_dict"]
    ours, back = tmp_path / "head.safetensors", tmp_path / "head.pth"
    assert tool().main([str(PUBLISHED[kind]), str(ours)]) == 0
    assert tool().main([str(ours), str(back)]) == 0
    same_bytes(before, torch.load(back, weights_only=True)["state_dict"])
    with safe_open(ours, framework="pt") as file:
        names = list(file.keys())
        found = sorted(file.get_tensor(name).numpy().tobytes() for name in names)
    assert found == sorted(tensor.numpy().tobytes() for tensor in before.values())
    assert len(names) == len(before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.pth", "head.safetensors"]


def test_conversion_keeps_half_precision_as_it_is(tmp_path):
    state = {name: tensor.half() for name, tensor in published()["state_dict"].items()}
    config, tensors = read_tensors(written(tmp_path, {"state_dict": state}))
    save_tensors(config, tensors, tmp_path / "ours.safetensors")
    save_published(read_tensors(tmp_path / "ours.safetensors")[1], tmp_path / "back.pth")
    same_bytes(state, torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"])


def test_conversion_says_what_is_wrong_and_fails(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tool().main(["nowhere.pth", "out.safetensors"]) == 1
    assert capsys.readouterr().err == "nowhere.pth: no such checkpoint file\n"
    assert tool().main(["nowhere.pth", "out.onnx"]) == 1
    assert capsys.readouterr().err.startswith("out.onnx: use the suffix .safetensors")
    assert not list(tmp_path.iterdir())


def test_conversion_takes_the_settings_of_a_named_model(tmp_path):
    ours = tmp_path / "ours.safetensors"
    assert tool().main([str(PUBLISHED["moments"]), str(ours), "--like", "r2-charades"]) == 0
    config = read_head(ours).config
    assert (config.name, config.fps, config.unit, config.nms) == ("r2-charades", 1.0, 0.1, "linear")
    assert config.video_width == 48


def test_conversion_says_that_a_file_says_nothing_of_its_use(tmp_path, capsys):
    ours, named = tmp_path / "ours.safetensors", tmp_path / "named.safetensors"
    assert tool().main([str(PUBLISHED["moments"]), str(ours)]) == 0
    assert capsys.readouterr().err == (
        f"{ours}: does not contain frame rate, unit and suppression, as {PUBLISHED['moments']} does not; "
        "add them with --like MODEL\n"
    )
    assert read_head(ours).config.guessed
    assert tool().main([str(ours), str(named), "--like", "r2-charades"]) == 0
    config = read_head(named).config
    assert (config.guessed, config.fps, config.unit, config.nms) == (False, 1.0, 0.1, "linear")
    assert capsys.readouterr().err == ""
    assert tool().main([str(named), str(tmp_path / "again.safetensors"), "--like", "r2-tacos"]) == 1
    assert "contains its settings" in capsys.readouterr().err


def test_conversion_runs_as_a_script(tmp_path):
    script = [sys.executable, str(ROOT / "tools" / "convert_checkpoint.py"), "--help"]
    done = subprocess.run(
        script, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert "--like" in done.stdout


def test_our_file_carries_the_whole_configuration(tmp_path):
    config = HeadConfig(name="mine", hidden_width=16, video_width=6, query_width=4, layers=2, fps=1.5, nms="gaussian")
    head = R2Head(config)
    save_head(head, tmp_path / "mine.safetensors")
    again = read_head(tmp_path / "mine.safetensors")
    assert again.config == config and not again.training
    same_bytes(head.state_dict(), again.state_dict())


def test_recipes_are_recognised_from_the_tensors():
    moments, highlights = read_head(PUBLISHED["moments"]).config, read_head(PUBLISHED["highlights"]).config
    assert moments.moment_retrieval and moments.temporal_extent and moments.strides == (1, 2, 4, 8)
    assert not highlights.moment_retrieval and not highlights.temporal_extent and highlights.strides == (1,)
    assert moments.video_width == highlights.video_width == 48
    assert (moments.nms, highlights.nms) == ("normal", None)
    assert moments.clip_model is None  # no published CLIP has these widths


def test_head_of_one_layer_has_no_gate(tmp_path):
    torch.manual_seed(0)
    head = R2Head(HeadConfig(hidden_width=16, video_width=6, query_width=4, layers=1, tokens=None)).eval()
    save_published(head.state_dict(), tmp_path / "one.pth")
    assert "adapter.gate" not in torch.load(tmp_path / "one.pth", weights_only=True)["state_dict"]
    again = read_head(tmp_path / "one.pth")
    video, query = torch.randn(9, 1, 5, 6), torch.randn(4, 1, 4)
    assert again.config.layers == 1 and torch.equal(
        again.predict(video, query).windows, head.predict(video, query).windows
    )


def test_published_size_is_taken_for_the_published_clip():
    if not PUBLISHED["full"].exists():
        pytest.skip("the full-size reference head is not here")
    config = read_head(PUBLISHED["full"]).config
    assert (config.clip_model, config.clip_pretrained, config.tokens) == ("ViT-B-32-quickgelu", "openai", 50)


def test_prefixes_of_parallel_training_and_missing_company_do_not_matter(tmp_path):
    whole = published()
    expected = read_head(PUBLISHED["moments"]).state_dict()
    prefixed = {f"module.{name}": tensor for name, tensor in whole["state_dict"].items()}
    for content in (
        {"state_dict": prefixed, "meta": whole["meta"]},
        {"state_dict": whole["state_dict"]},
        {**whole, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 5e-4}]}},
        whole["state_dict"],
    ):
        same_bytes(expected, read_head(written(tmp_path, content)).state_dict())


def test_checkpoint_of_old_torch_versions_loads(tmp_path):
    torch.save(published(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    same_bytes(read_head(PUBLISHED["moments"]).state_dict(), read_head(tmp_path / "old.pth").state_dict())


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("new_format", [True, False])
def test_pickle_that_would_run_code_is_refused_and_does_not_run(new_format, tmp_path):
    marker = tmp_path / "ran"
    content = {**published(), "meta": Payload(marker)}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=new_format)
    assert "refused" in refusal(tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(marker), protocol=2))
    assert "refused" in refusal(tmp_path / "plain.pth") or "damaged" in refusal(tmp_path / "plain.pth")
    assert not marker.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)  # the payload works: only the refusal kept it from running
    assert marker.exists()


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(share, tmp_path):
    whole = PUBLISHED["moments"].read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: int(len(whole) * share)])
    assert "cut off or damaged" in refusal(tmp_path / "cut.pth")
    save_head(read_head(PUBLISHED["moments"]), tmp_path / "ours.safetensors")
    whole = (tmp_path / "ours.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: int(len(whole) * share)])
    assert "cut off" in refusal(tmp_path / "cut.safetensors")


def test_files_of_other_kinds_are_refused(tmp_path):
    (tmp_path / "text.pth").write_text("<!doctype html><title>404</title>")
    (tmp_path / "empty.pth").touch()
    assert "not a checkpoint" in refusal(tmp_path / "text.pth")
    assert "not a checkpoint" in refusal(tmp_path / "empty.pth")
    assert "no such checkpoint file" in refusal(tmp_path / "missing.pth")
    assert "no state_dict" in refusal(written(tmp_path, torch.zeros(3)))
    assert "no state_dict" in refusal(written(tmp_path, {"state_dict": {}}))
    assert "'epoch' is int" in refusal(written(tmp_path, {"state_dict": {"epoch": 3}}))
    (tmp_path / "text.safetensors").write_text("not tensors at all")
    assert "not a safetensors file" in refusal(tmp_path / "text.safetensors")


def test_checkpoint_of_another_architecture_is_refused(tmp_path):
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16)
    assert "another architecture" in refusal(written(tmp_path, {"state_dict": layer.state_dict()}))
    save_file({"visual.proj": torch.zeros(2, 2)}, tmp_path / "clip.safetensors", metadata={"format": "vtg-clip"})
    assert "not an R² head written by vtg" in refusal(tmp_path / "clip.safetensors")


def test_missing_extra_and_misshapen_tensors_are_listed(tmp_path):
    state = dict(published()["state_dict"])
    del state["adapter.gate"]
    state["adapter.bias"] = torch.zeros(3)
    state["pooling.att.weight"] = torch.zeros(1, 31)
    line = refusal(written(tmp_path, {"state_dict": state}))
    assert "missing: adapter.gate;" in line
    assert "extra: adapter.bias;" in line
    assert "misshapen: pooling.att.weight [1, 31] instead of [1, 32]" in line


def test_each_missing_tensor_is_named(tmp_path):
    state = published()["state_dict"]
    for name in state:
        rest = {other: tensor for other, tensor in state.items() if other != name}
        line = refusal(written(tmp_path, {"state_dict": rest}))
        assert name in line or "another architecture" in line


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("pyramid.blocks.1.99999999999.weight", torch.zeros(1)),
        ("coef", torch.tensor(1.0)),
        ("coef", torch.ones(400)),
        ("adapter.scale", torch.tensor(1.0)),
        ("adapter.query_map.2.weight", torch.zeros(0, 0)),
        ("adapter.video_map.2.weight", torch.zeros(33, 50)),
    ],
)
def test_absurd_tensors_are_one_line_too(name, tensor, tmp_path):
    refusal(written(tmp_path, {"state_dict": {**published()["state_dict"], name: tensor}}))


def test_long_lists_are_cut_short(tmp_path):
    state = published()["state_dict"]
    kept = {name: tensor for name, tensor in state.items() if "tem." not in name}
    assert len(state) - len(kept) == 26
    assert "and 20 more" in refusal(written(tmp_path, {"state_dict": kept}))


def test_our_own_file_is_checked_too(tmp_path):
    head = read_head(PUBLISHED["moments"])
    state = head.state_dict()
    del state["block.gate"]
    save_tensors(head.config, state, tmp_path / "less.safetensors")
    assert "missing: block.gate" in refusal(tmp_path / "less.safetensors")

    def with_metadata(**metadata):
        save_file(head.state_dict(), tmp_path / "other.safetensors", metadata=metadata)
        return refusal(tmp_path / "other.safetensors")

    assert "update vtg" in with_metadata(format="vtg-r2-head", version="2", config=head.config.to_json())
    odd = json.dumps({"colour": "red"})
    assert "unknown fields: colour" in with_metadata(format="vtg-r2-head", version="1", config=odd)
    assert "configuration cannot be read" in with_metadata(format="vtg-r2-head", version="1", config="{")
    huge = HeadConfig(hidden_width=10**6).to_json()  # compared before anything of that size is made
    assert "misshapen" in with_metadata(format="vtg-r2-head", version="1", config=huge)


def test_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    head = read_head(PUBLISHED["moments"])
    target = tmp_path / "head.safetensors"
    target.write_bytes(b"what was there")

    write = Path.write_bytes

    def break_off(path, content):
        write(path, content[:100])
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(Path, "write_bytes", break_off)
    with pytest.raises(VtgError, match=r"head\.safetensors: cannot be written \(disk full\)"):
        save_head(head, target)
    monkeypatch.undo()
    assert target.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_width", 0),
        ("hidden_width", 36),
        ("layers", 2.5),
        ("tokens", 1),
        ("strides", (1, 3)),
        ("strides", (2, 4)),
        ("strides", (1, 4, 2)),
        ("strides", ()),
        ("fps", 0.0),
        ("dropout", 1.0),
        ("unit", -2.0),
        ("nms", "median"),
        ("step_seconds", 200.0),
    ],
)
def test_configurations_that_cannot_be_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        HeadConfig(**{field: value})


def test_configuration_survives_json():
    config = HeadConfig(name="x", strides=(1, 2), unit=None, tokens=None)
    assert HeadConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="wrong kind"):
        HeadConfig.from_json('{"fps": "fast"}')
    with pytest.raises(ValueError, match="not a JSON object"):
        HeadConfig.from_json("[1]")
