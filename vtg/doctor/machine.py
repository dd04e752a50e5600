"""The machine: system, settings of the environment, compute device, query engine, and what reads and writes videos."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from vtg.doctor.report import ERROR, OK, WARNING, Check
from vtg.errors import VtgError
from vtg.version import __version__

__all__ = ["check_device", "check_engine", "check_environment", "check_system", "check_video"]

VARIABLES = (
    *("VTG_LIBRARY", "VTG_CACHE", "VTG_ENGINE", "VTG_DECODER", "VTG_PASSWORD", "HF_HOME", "HF_ENDPOINT"),
    *("HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
)
SECRET = re.compile("PASSWORD|TOKEN")  # in the name of a variable whose value is not shown
USER_OF_URL = re.compile("//[^/@]*@")
NVIDIA = Path("/proc/driver/nvidia/version")  # there where Linux has NVIDIA's driver
SLOWER = "which gives the same moments in two to three times the time"
COMPILE_AGAIN = "pip install --force-reinstall --no-deps --no-binary vtground vtground"
ENCODERS = {"libx264": "H.264", "aac": "AAC"}  # of ffmpeg, with which vtg writes videos


def check_system() -> Iterator[Check]:
    """Versions of vtg, Python and the system, and the size of the machine."""
    from vtg.weights.memory import total_memory

    yield Check("system", "vtg", OK, f"{__version__}, in {Path(__file__).parents[1]}")
    yield Check(
        "system", "Python", OK, f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}"
    )
    yield Check("system", "platform", OK, platform.platform())
    memory = total_memory()
    size = f", {memory / 1e9:.1f} GB of memory" if memory else ""
    yield Check("system", "processor", OK, f"{platform.machine()}, {os.cpu_count()} cores{size}")


def check_environment() -> Iterator[Check]:
    """Variables of the environment that change what vtg does; passwords are not shown."""
    for name in VARIABLES:
        if value := os.environ.get(name):
            shown = "(set, not shown)" if SECRET.search(name) else USER_OF_URL.sub("//", value)
            yield Check("environment", name, OK, shown)


def check_device() -> Iterator[Check]:
    """The device that models run on by default, and a GPU that this torch does not use."""
    import torch

    from vtg.clip.devices import choose_device

    device = choose_device(None)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found = f"cuda: {properties.name}, {properties.total_memory / 1e9:.1f} GB, CUDA {torch.version.cuda}"
    elif device.type == "cpu":
        capability = torch.backends.cpu.get_cpu_capability()
        found = f"cpu: {torch.get_num_threads()} threads, {capability}"
    else:
        found = device.type
    if device.type == "cpu" and (NVIDIA.exists() or shutil.which("nvidia-smi")):
        version = torch.version.cuda
        why = f"its CUDA is {version}, and it finds no GPU" if version else "it is built without CUDA"
        found = f"{found}; there is an NVIDIA driver, but torch does not use it: {why}"
        advice = "install the torch that pytorch.org shows for your driver's CUDA version"
        yield Check("device", "device", WARNING, found, advice)
    else:
        yield Check("device", "device", OK, found)


def check_engine() -> Iterator[Check]:
    """What answers queries from int8 projections: a compiled engine or PyTorch, and why."""
    from vtg.r2.engine import ENGINE_VARIABLE, NO_INSTRUCTIONS, NOT_COMPILED, engine_faults, engine_name

    faults = engine_faults()
    reasons = "; ".join(f"{name} {fault}" for name, fault in faults.items() if fault not in ("", NOT_COMPILED))
    advice = ""
    try:
        name = engine_name()
    except VtgError:
        name = ""
    if not name:
        found = f"{ENGINE_VARIABLE}={os.environ[ENGINE_VARIABLE]}: there is no such engine on this machine"
        usable = [name for name, fault in faults.items() if not fault]
        advice = f"unset {ENGINE_VARIABLE}, or set it to one of: {', '.join([*usable, 'torch'])}"
    elif name != "torch":
        found = f"compiled, {name}{f' ({reasons})' if reasons else ''}"
    elif os.environ.get(ENGINE_VARIABLE):
        found = f"PyTorch, because {ENGINE_VARIABLE} is torch"
    elif not reasons:
        found = f"PyTorch, {SLOWER}; no engine was compiled when vtg was installed"
        advice = f"install a C compiler (gcc or clang), then run: {COMPILE_AGAIN}"
    else:
        found = f"PyTorch, {SLOWER}; {reasons}"
        if set(faults.values()) - {NOT_COMPILED, NO_INSTRUCTIONS}:
            advice = f"compile it again: {COMPILE_AGAIN}"
    yield Check("engine", "engine", (WARNING if advice else OK) if name else ERROR, found, advice)


def check_video() -> Iterator[Check]:
    """The decoder, and the ffmpeg in use."""
    from vtg.video.decoders import DECODER_VARIABLE, chosen_decoder

    try:
        decoder = chosen_decoder()
        chosen = f", chosen by {DECODER_VARIABLE}" if os.environ.get(DECODER_VARIABLE) else ""
        yield Check("video", "decoder", OK, f"{decoder}{chosen}")
    except VtgError as error:
        yield Check("video", "decoder", ERROR, str(error), f"unset {DECODER_VARIABLE}")
    yield from _check_ffmpeg()


def _check_ffmpeg() -> Iterator[Check]:
    from vtg.video.process import MIN_VERSION, ffmpeg_candidates, run

    refused = []
    lowest = ".".join(map(str, MIN_VERSION))
    advice = f"install ffmpeg {lowest} or newer, or run: pip install --force-reinstall imageio-ffmpeg"
    binary = None
    try:
        for candidate, fault in ffmpeg_candidates():
            if not fault:
                binary = candidate
                break
            refused.append(f"{candidate} {fault}")
    except ImportError as error:
        refused.append(f"{error.name or error} is not installed")
    passed_over = f" ({'; '.join(refused)})" if refused else ""
    if binary is None:
        yield Check("video", "ffmpeg", ERROR, f"none can be used{passed_over}", advice)
        return
    version = run([binary, "-version"])[1].decode("utf-8", "replace").split()[2]
    yield Check("video", "ffmpeg", OK, f"{version}, {binary}{passed_over}")
    known = run([binary, "-hide_banner", "-encoders"])[1].decode("utf-8", "replace")
    names = {words[1] for line in known.splitlines() if len(words := line.split()) > 1}
    missing = [f"{name} ({codec})" for name, codec in ENCODERS.items() if name not in names]
    if missing:
        found = f"{binary} has no encoder {', '.join(missing)}: clips and reels cannot be written"
        yield Check("video", "encoders", WARNING, found, "install a full build of ffmpeg, or take this one from PATH")
