"""The registry and its downloads, against a server on this machine that serves, cuts off, and serves wrong bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vtg.errors import VtgError
from vtg.models import registry as models
from vtg.models.registry import ModelEntry, find_model, load_head, pull, registry
from vtg.weights.downloads import BLOCK_BYTES

HERE = Path(__file__).parent / "data" / "r2"
CHECKPOINT = HERE / "head_tiny.pth"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What a hub does with one file, and what it was asked."""

    def __init__(self, content):
        self.content = content
        self.cut_after = None  # bytes of a body after which the connection closes
        self.cuts_left = 0
        self.knows_ranges = True
        self.out_of_order = False  # answers 503 to every GET
        self.requests = []  # (method, path, Range header)
        self.body_bytes = 0


def handler_of(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def answer(self, body):
            requested = self.headers.get("Range")
            hub.requests.append((self.command, self.path, requested))
            if not hub.knows_ranges:
                requested = None
            if not self.path.startswith("/yeliudev/R2-Tuning/resolve/main/checkpoints/r2_tuning_tiny-"):
                return self.plain(404)
            if body and hub.out_of_order:
                return self.plain(503)
            first = int(re.fullmatch(r"bytes=(\d+)-", requested)[1]) if requested else 0
            content = hub.content[first:]
            self.send_response(206 if requested else 200)
            self.send_header("ETag", f'"{hashlib.sha256(hub.content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Size", str(len(hub.content)))
            self.send_header("Content-Length", str(len(content)))
            if requested:
                self.send_header("Content-Range", f"bytes {first}-{len(hub.content) - 1}/{len(hub.content)}")
            self.end_headers()
            if body:
                if hub.cut_after is not None and hub.cuts_left:
                    hub.cuts_left -= 1
                    content = content[: hub.cut_after]
                    self.close_connection = True
                hub.body_bytes += len(content)
                self.wfile.write(content)
            return None

        def plain(self, status):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

    return Handler


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A running hub with one tiny published head, which the registry knows as r2-tiny."""
    hub = Hub(CHECKPOINT.read_bytes())
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    digest = hashlib.sha256(hub.content).hexdigest()[:8]
    tiny = dataclasses.replace(
        find_model("r2-charades"), name="r2-tiny", file=f"checkpoints/r2_tuning_tiny-{digest}.pth", sha256=digest
    )
    monkeypatch.setattr(models, "registry", lambda: {"r2-tiny": tiny})
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("VTG_CACHE", str(tmp_path / "cache"))
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def parts(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_twenty_published_heads_are_known():
    published = [entry for entry in registry().values() if entry.bundled is None]
    assert len(published) == 20
    by_set = {name: [e for e in published if e.dataset == name] for name in {e.dataset for e in published}}
    assert {name: len(entries) for name, entries in by_set.items()} == {
        "QVHighlights": 1,
        "Charades-STA": 1,
        "TACoS": 1,
        "Ego4D-NLQ": 1,
        "YouTube Highlights": 6,
        "TVSum": 10,
    }
    for entry in published:
        stem = entry.name.removeprefix("r2-").replace("-", "_")
        assert entry.file == f"checkpoints/r2_tuning_{stem}-{entry.sha256}.pth"
        assert re.fullmatch("[0-9a-f]{8}", entry.sha256)
        assert (entry.clip_model, entry.clip_pretrained) == ("ViT-B-32-quickgelu", "openai")
        assert (entry.window_seconds, entry.step_seconds) == (150, 100)
        assert entry.figures and all(0 < figure < 100 for figure in entry.figures.values())
        assert set(entry.figures) == {"HD mAP"} if entry.task == "highlights" else "R1@0.5" in entry.figures
    assert len({entry.sha256 for entry in published}) == 20


def test_recipes_differ_as_published():
    assert [(e.fps, e.unit, e.nms, e.dropout) for e in list(registry().values())[:4]] == [
        (0.5, 2.0, "normal", 0.5),
        (1.0, 0.1, "linear", 0.35),
        (0.5, None, "linear", 0.5),
        (0.5, None, "linear", 0.3),
    ]
    youtube = [entry.figures["HD mAP"] for entry in registry().values() if entry.dataset == "YouTube Highlights"]
    tvsum = [entry.figures["HD mAP"] for entry in registry().values() if entry.dataset == "TVSum"]
    assert sum(youtube) / 6 == pytest.approx(76.79, abs=0.005)
    assert sum(tvsum) / 10 == pytest.approx(86.35, abs=0.005)


def test_every_entry_is_plain_json():
    for entry in registry().values():
        values = json.loads(json.dumps(entry.to_dict()))
        assert values["name"] == entry.name and values["present"] is entry.present


def test_module_is_light():
    check = (
        "import sys, vtg.models.registry, vtg.r2.config; vtg.models.registry.registry(); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(__file__).parents[1])


def test_unknown_name_offers_the_nearest():
    with pytest.raises(VtgError, match=r"r2-charade: no model of this name; did you mean r2-charades") as caught:
        find_model("r2-charade")
    assert "\n" not in str(caught.value)


def test_bundled_head_is_found_in_the_package(monkeypatch):
    entry = ModelEntry("demo", "demo", "moments and highlights", 0.5, bundled="models/registry.toml")
    assert entry.present and entry.path == Path(models.__file__).with_name("registry.toml")
    monkeypatch.setattr(models, "registry", lambda: {"demo": entry})
    assert pull("demo") == entry.path
    monkeypatch.setattr(
        models, "registry", lambda: {"demo": dataclasses.replace(entry, bundled="weights/none.safetensors")}
    )
    with pytest.raises(VtgError, match="install vtg again"):
        pull("demo")


def test_pull_downloads_checks_and_converts(hub, tmp_path):
    steps = []
    path = pull("r2-tiny", progress=lambda state: steps.append((state.done, state.total)))
    assert path == tmp_path / "cache" / "models" / "r2-tiny.safetensors"
    assert parts(tmp_path) == [path]
    assert steps == sorted(steps) and steps[-1] == (len(hub.content), len(hub.content))
    head = load_head("r2-tiny")
    assert (head.config.name, head.config.fps, head.config.unit, head.config.nms) == ("r2-tiny", 1.0, 0.1, "linear")
    assert (head.config.window_seconds, head.config.clip_model) == (150, "ViT-B-32-quickgelu")
    reference = load_head(CHECKPOINT)
    assert all(tensor.equal(reference.state_dict()[name]) for name, tensor in head.state_dict().items())


def test_model_that_is_here_is_not_downloaded_again(hub):
    path = pull("r2-tiny")
    asked = len(hub.requests)
    assert pull("r2-tiny") == path and len(hub.requests) == asked


def test_model_that_is_not_here_says_how_to_get_it(hub):
    with pytest.raises(VtgError, match=r"r2-tiny: not on this disk yet; get it with `vtg models pull r2-tiny`"):
        load_head("r2-tiny")
    assert not hub.requests


@pytest.mark.parametrize("cuts", [1, 2])
def test_broken_download_goes_on_where_it_stopped(hub, tmp_path, cuts):
    hub.cut_after, hub.cuts_left = BLOCK_BYTES, cuts
    pull("r2-tiny")
    ranges = [None, f"bytes={BLOCK_BYTES}-", f"bytes={2 * BLOCK_BYTES}-"]
    assert [requested for method, _, requested in hub.requests if method == "GET"] == ranges[: cuts + 1]
    assert hub.body_bytes == len(hub.content)
    assert load_head("r2-tiny").config.hidden_width == 32


def test_download_without_a_byte_gives_up(hub, tmp_path):
    hub.cut_after, hub.cuts_left = 0, 10
    with pytest.raises(VtgError, match="pull it again"):
        pull("r2-tiny")
    assert len([method for method, _, _ in hub.requests if method == "GET"]) == 1
    assert not find_model("r2-tiny").present


def test_server_that_knows_no_ranges_is_read_from_the_start(hub, tmp_path):
    hub.knows_ranges = False
    hub.cut_after, hub.cuts_left = 70_000, 1
    pull("r2-tiny")
    assert hub.body_bytes == 70_000 + len(hub.content)
    assert load_head("r2-tiny").config.hidden_width == 32


def test_broken_download_goes_on_in_a_later_run(hub, tmp_path):
    part = tmp_path / "cache" / "downloads" / "r2-tiny.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(hub.content[:50_000])  # what an interrupted run left
    hub.out_of_order = True
    with pytest.raises(VtgError, match="pull it again to continue the download") as caught:
        pull("r2-tiny")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("r2-tiny: http://127.0.0.1")
    assert part.stat().st_size == 50_000 and not find_model("r2-tiny").present
    hub.out_of_order, hub.requests = False, []
    steps = []
    pull("r2-tiny", progress=lambda state: steps.append(state.done))
    assert [requested for method, _, requested in hub.requests if method == "GET"] == ["bytes=50000-"]
    assert hub.body_bytes == len(hub.content) - 50_000
    assert steps[0] > 50_000 and steps[-1] == len(hub.content)
    assert load_head("r2-tiny").config.hidden_width == 32 and not part.exists()


def test_wrong_bytes_leave_nothing(hub, tmp_path):
    right = hub.content
    hub.content = right[:1000] + bytes([right[1000] ^ 1]) + right[1001:]
    with pytest.raises(VtgError, match="not the published one") as caught:
        pull("r2-tiny")
    assert "\n" not in str(caught.value)
    assert parts(tmp_path) == [] and not find_model("r2-tiny").present
    hub.content = right
    assert pull("r2-tiny").is_file()


@pytest.mark.parametrize("left_over", [b"x" * 1000, b"x" * 500_000])
def test_spoilt_part_does_not_spoil_the_next_pull(hub, tmp_path, left_over):
    part = tmp_path / "cache" / "downloads" / "r2-tiny.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(left_over)
    if len(left_over) < len(hub.content):  # looks like a beginning until the hash says otherwise
        with pytest.raises(VtgError, match="not the published one"):
            pull("r2-tiny")
    assert pull("r2-tiny").is_file()


def test_file_that_the_hub_does_not_have_is_one_line(hub, tmp_path, monkeypatch):
    gone = dataclasses.replace(find_model("r2-tiny"), file="checkpoints/other.pth")
    monkeypatch.setattr(models, "registry", lambda: {"r2-tiny": gone})
    with pytest.raises(VtgError, match=r"r2-tiny: http.*failed \(.*404") as caught:
        pull("r2-tiny")
    assert "\n" not in str(caught.value) and parts(tmp_path) == []


def test_hub_out_of_reach_is_one_line(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    with pytest.raises(VtgError, match=r"r2-tiny: http.*failed") as caught:
        pull("r2-tiny")
    assert "\n" not in str(caught.value) and parts(tmp_path) == []


def test_cache_that_cannot_be_made_is_one_line(hub, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VTG_CACHE", str(tmp_path / "file"))
    with pytest.raises(VtgError, match=r"cannot be written .*set VTG_CACHE"):
        pull("r2-tiny")


def test_published_file_is_recognised_by_its_hash(hub, tmp_path):
    copy = tmp_path / "renamed.pth"
    copy.write_bytes(CHECKPOINT.read_bytes())
    assert load_head(copy).config.unit == 0.1
    assert load_head(str(HERE / "head_highlight_tiny.pth")).config.unit is None


def test_paths_and_names_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VtgError, match=r"^missing\.pth: no such checkpoint file$"):
        load_head("missing.pth")
    with pytest.raises(VtgError, match="no such checkpoint file"):
        load_head(Path("some") / "folder")
    with pytest.raises(VtgError, match="no model of this name"):
        load_head("missing")
