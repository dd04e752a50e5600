"""A program that imports vtg, or asks it something, finds its process as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from timecode import ffmpeg

from vtg.cli.main import ENVIRONMENT

CODE = """
import logging, os, pkgutil, signal, sys, threading, warnings
import av, torch

def state():
    return {
        "environment": dict(os.environ),
        "filters": list(warnings.filters),
        "handlers": {name: list(getattr(log, "handlers", [])) for name, log in logging.root.manager.loggerDict.items()},
        "levels": {name: getattr(log, "level", 0) for name, log in logging.root.manager.loggerDict.items()},
        "root": (list(logging.root.handlers), logging.root.level),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads(), threading.active_count()),
        "default dtype": torch.get_default_dtype(),
        "random": torch.initial_seed(),
        "av": av.logging.get_level(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
        "encodings": (sys.stdout.encoding, sys.stdout.errors),
    }

import accelerate, huggingface_hub, lancedb, matplotlib, open_clip  # what these change is theirs
av.logging.set_level(av.logging.ERROR)
logging.root.addHandler(logging.NullHandler())  # open_clip logs to the root, which makes a handler where none is
before = state()
import vtg
for module in pkgutil.walk_packages(vtg.__path__, "vtg."):
    if module.name != "vtg.__main__" and not module.name.startswith(("vtg.r2._engine", "vtg.video._")):
        __import__(module.name)
{action}
after = state()
loggers = set(before["levels"])
for part in ("handlers", "levels"):
    after[part] = {name: value for name, value in after[part].items() if name in loggers}
assert after == before, {part: (before[part], after[part]) for part in before if before[part] != after[part]}
"""


def run(action: str, *arguments: object) -> None:
    code = CODE.replace("{action}", action)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_importing_changes_nothing_of_others() -> None:
    run("pass")


def test_a_library_changes_nothing_of_others(tmp_path: Path, make_video: Callable[..., Path], tiny_clip: Path) -> None:
    make_video(tmp_path / "film.mp4", seconds=4)
    run(
        "from vtg.models import model_spec; "
        "library = vtg.Library(sys.argv[1], model_spec('zero-shot', pretrained=sys.argv[2]), device='cpu'); "
        "report = library.add([sys.argv[3]]); assert len(report.added) == 1, report; "
        "assert library.search('a red circle')",
        tmp_path / "library",
        tiny_clip,
        tmp_path / "film.mp4",
    )


def test_decoding_ends_early_while_another_library_listens_to_the_messages_of_ffmpeg(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=1920x1080:r=25:d=8", "-preset", "veryfast", "-g", "250", str(path))
    code = (
        "import av, contextlib, logging, sys; from vtg.video import sample_frames; "
        "av.logging.set_level(av.logging.DEBUG); logging.getLogger('libav').propagate = False\n"
        "for _ in range(30):\n"
        " with contextlib.closing(sample_frames(sys.argv[1], 25.0, 64)) as chunks: next(chunks)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], timeout=100, check=True)  # it stopped for ever at the 7th


@pytest.mark.parametrize(("settings", "is_silent"), [({"LANCEDB_LOG": "info"}, False), (ENVIRONMENT, True)])
def test_the_command_line_keeps_the_log_of_lancedb_from_people(
    settings: Mapping[str, str], is_silent: bool, tmp_path: Path
) -> None:
    code = (
        "import lancedb, pyarrow, sys; "
        "table = lancedb.connect(sys.argv[1]).create_table('words', pyarrow.table({'a': [1]})); "
        "table.add(pyarrow.table({'a': [2]})); table.optimize()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert (done.stderr == "") is is_silent
