"""Long videos, at their real length: minutes to run, so marked slow."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import vtg
from vtg.clip.outputs import TextFeatures
from vtg.features.store import EncodedChunk, FeatureKey, FeatureStore
from vtg.grounding.grounder import Grounder
from vtg.r2 import HeadConfig, R2Head

pytestmark = pytest.mark.slow

STATUS = Path("/proc/self/status")


@pytest.mark.parametrize("seed", range(3))
def test_an_event_that_happens_once_in_thirty_minutes_is_found(seed: int, tmp_path: Path) -> None:
    from vtg.demo import long_scene, write_video

    scene, thing = long_scene(seed, 1800.0)
    path = tmp_path / "long.mp4"
    write_video(scene, path, frame_rate=2)
    best = vtg.load("demo").ground(path, f"a {thing.colour} {thing.shape}").moments[0]
    overlap = min(best.end, thing.end) - max(best.start, thing.start)
    together = max(best.end, thing.end) - min(best.start, thing.start)
    assert overlap / together >= 0.5, (best, thing.start, thing.end)


def anonymous_megabytes() -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not STATUS.exists(), reason="private memory is read where Linux tells it")
def test_three_hours_are_grounded_in_little_memory(tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = R2Head(HeadConfig())
    encoder = SimpleNamespace(device="cpu", class_tokens=1, layers=4, tokens=50, width=768, text_width=512)
    encoder.fingerprint = "f" * 16
    grounder = Grounder(encoder, head)  # type: ignore[arg-type]
    store, key = FeatureStore(tmp_path), FeatureKey("0" * 32, "f" * 16, 0.5)
    random = np.random.default_rng(0)
    with store.write(key, 10_800.0) as writer:
        for _ in range(54):
            layers = random.standard_normal((100, 4, 50, 768), np.float32)
            writer.append(EncodedChunk(np.arange(100), layers, random.standard_normal((100, 512), np.float32)))
    text = TextFeatures(torch.arange(12), torch.randn(12, 4, 512), torch.randn(512))
    before, highest, done = anonymous_megabytes(), [0.0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            highest.append(anonymous_megabytes())
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    (grounding,) = grounder.ground_texts(store.open(key), ["a dog"], [text])
    done.set()
    watcher.join()
    assert grounding.saliency.scores.shape == (5400,)
    growth = max(highest) - before
    print(f"private memory grew by {growth:.0f} MB over {before:.0f} MB")
    assert growth <= 300
