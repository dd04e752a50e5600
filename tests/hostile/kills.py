"""`kill -9` at random moments: the next run finishes, everything is whole, and nothing half or hidden is left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .cases import BROKEN, Bench, Case, command, function
from .running import LEFTOVER

__all__ = ["Job", "forked", "half_files", "jobs", "kills"]

KILLS_A_CASE = 4
RUN_SECONDS = 60.0
COMMANDS = (
    "index",
    "extract",
    "train",
    "cut",
    "summarize",
    "index",
    "extract",
    "highlights",
    "export",
    "train",
    "page",
    "store",
)


@dataclass(frozen=True)
class Job:
    """A command that is killed or runs out of space, and how to see that its results are whole.

    Attributes:
        run: the command.
        again: the command after it was stopped; the same where nothing speaks against it.
        check: what is wrong with what it has written once it has finished; "" if nothing is.
    """

    run: Callable[[], int]
    again: Callable[[], int]
    check: Callable[[], str]


def kills(bench: Bench) -> Case:
    """One command, killed again and again, each time in a folder of its own."""
    name = COMMANDS[bench.number % len(COMMANDS)]
    problems: list[str] = []
    own = {"inputs": 0, "kills": 0}

    def run() -> int:
        began = time.monotonic()
        status, said = forked(jobs(name, bench, bench.made / "whole").run, bench.made / "whole.txt")
        lasting = time.monotonic() - began
        if status:
            problems.append(f"{name} fails undisturbed: {said[-300:]}")
            return 0
        for number in range(KILLS_A_CASE):
            folder = bench.made / str(number)
            problem = _killed(name, jobs(name, bench, folder), folder, lasting, bench, own)
            problems.extend([f"{name}, kill {number}: {problem}"] if problem else [])
            shutil.rmtree(folder, ignore_errors=not problem)
        return 0

    return Case(run, check=lambda: "; ".join(problems)[:1500], own=own)


def _killed(name: str, job: Job, folder: Path, lasting: float, bench: Bench, own: dict[str, int]) -> str:
    """Kills a job once while it runs, lets it finish, and looks at what is there."""
    share = 1.0
    while True:
        moment = bench.chance.uniform(0, share * lasting)
        status, said = forked(job.run, folder.with_suffix(".txt"), kill_after=moment)
        if status == -signal.SIGKILL:
            break
        if status:
            return f"failed before it was killed: {said[-300:]}"
        share *= 0.7  # it was quicker than before
        shutil.rmtree(folder, ignore_errors=True)
        job = jobs(name, bench, folder)
    own["kills"] += 1
    when = f"after {moment:.2f} of {lasting:.2f} s"
    if half := half_files(folder):
        return f"{when}: {half}"
    status, said = forked(job.again, folder.with_suffix(".txt"))
    if status:
        return f"{when}, the next run ends with status {status}: {said[-400:]}"
    left = [path for path in folder.rglob("*") if LEFTOVER.search(path.name)]
    if left:
        return f"{when}, the next run leaves {left[0].relative_to(folder)}"
    return f"{when}: {wrong}" if (wrong := job.check()) else ""


def forked(
    run: Callable[[], int], log: Path, kill_after: float | None = None, prepare: Callable[[], None] | None = None
) -> tuple[int, str]:
    """Run something in a process of its own.

    Args:
        run: gives the exit status.
        log: gets its standard error; what goes to standard output lies beside it, with the suffix ``.out``.
        kill_after: seconds after which it is killed; None never.
        prepare: called in the process before.

    Returns:
        Its exit status, negative for a signal, and its standard error.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        status = BROKEN
        try:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(file, 2)
            os.dup2(os.open(log.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 1)
            os.close(file)  # or a busy disk of the case would keep it
            if prepare is not None:
                prepare()
            status = run()
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    deadline = time.monotonic() + (RUN_SECONDS if kill_after is None else kill_after)
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            ended = os.waitpid(pid, 0)
            break
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(ended[1]), log.read_text(errors="replace") if log.exists() else ""


def half_files(folder: Path) -> str:
    """A file under its final name that is not whole."""
    from vtg.errors import VtgError
    from vtg.features.npy import read_npy
    from vtg.video import probe

    for path in folder.rglob("*"):
        if any(LEFTOVER.search(part) for part in path.relative_to(folder).parts) or not path.is_file():
            continue
        try:
            if path.suffix == ".npy":
                read_npy(path, 4)
            elif path.suffix == ".mp4":
                probe(path)
            elif path.suffix == ".json" and "_versions" not in path.parts:
                json.loads(path.read_text())
            elif path.suffix == ".safetensors":
                from safetensors import safe_open

                with safe_open(path, "numpy") as file:
                    file.keys()
        except (VtgError, ValueError, OSError, Exception) as error:
            return f"half a file under its final name: {path.relative_to(folder)}: {str(error)[:200]}"
    return ""


def jobs(name: str, bench: Bench, folder: Path) -> Job:
    """A job by its name, which writes to a folder of its own, made here."""
    folder.mkdir(parents=True, exist_ok=True)
    material = bench.material
    video = material.clips / f"{bench.number % 4}.mp4"
    library, out = folder / "library", folder / "out"
    demo = ["--library", library, "--model", "demo", "--device", "cpu"]
    if name in ("index", "refresh", "page"):
        check = ["library", "verify", "--checksums", "--library", library]
        index = command("index", material.clips, *demo)
        run = index
        if name == "refresh":
            shutil.copytree(material.library, library)
            run = command("library", "refresh", material.clips, "--library", library, "--device", "cpu")
        if name == "page":
            run = _page_indexing(material.clips, library)
        return Job(run, index if name == "page" else run, lambda: _status(command(*check), folder))
    if name in ("extract", "store"):
        layout = ["--layout", "store"] if name == "store" else []
        run = command(
            "extract", material.clips, out, "--pretrained", material.clip, "--device", "cpu", "--fps", "2", *layout
        )
        return Job(run, run, lambda: _status(command("extract", "--verify", out), folder))
    if name == "train":
        words = ["train", material.features / "mine.toml", "--device", "cpu", "--out", out, "--set", "train.epochs=3"]
        resumed = lambda: command(*words, *(["--resume"] if (out / "state.pt").exists() else []))()  # noqa: E731
        return Job(command(*words), resumed, lambda: _trained(out))
    if name == "cut":
        target = folder / "cut.mp4"
        run = command("cut", material.videos[0].with_name("00-good-h264.mp4"), "2", "14", target, "--force")
        return Job(run, run, lambda: half_files(folder) or ("" if target.exists() else "nothing was written"))
    if name in ("evaluate", "plot"):
        return _research(name, bench, folder)
    if name == "preview":
        return Job(_previews(video, folder), _previews(video, folder), lambda: half_files(folder))
    shutil.copytree(material.library, library)
    if name == "summarize":
        board = ["--storyboard", folder / "board.png", "--srt", folder / "short.srt"]
        run = command(
            "summarize",
            video,
            "--out",
            folder / "short.mp4",
            *board,
            "--ratio",
            "0.9",
            "--library",
            library,
            "--device",
            "cpu",
            "--force",
        )
        wanted = ["short.mp4", "board.png", "short.srt"]
    elif name == "highlights":
        run = command(
            "highlights",
            video,
            "--top",
            "2",
            "--length",
            "1",
            "--out",
            folder / "clips",
            "--library",
            library,
            "--device",
            "cpu",
            "--force",
        )
        wanted = ["clips"]
    else:
        endings = (".json", ".csv", ".srt", ".edl", ".otio")
        ending = endings[bench.number % len(endings)]
        run = command(
            "search",
            material.sentence,
            "--nearest",
            "--export",
            folder / f"found{ending}",
            "--clips",
            folder / "clips",
            "--library",
            library,
            "--device",
            "cpu",
            "--force",
        )
        wanted = [f"found{ending}", "clips"]

    def check_written() -> str:
        missing = [each for each in wanted if not (folder / each).exists()]
        return half_files(folder) or (f"has not written {missing[0]}" if missing else "")

    return Job(run, run, check_written)


def _status(run: Callable[[], int], folder: Path) -> str:
    status, said = forked(run, folder.with_suffix(".txt"))
    return f"verify finds: {said[-400:]}" if status else ""


def _trained(out: Path) -> str:
    from vtg.errors import VtgError
    from vtg.training.log import read_log

    try:
        import vtg

        vtg.load_head(out / "last.safetensors")
        steps = [entry["step"] for entry in read_log(out / "log.jsonl") if "rate" in entry]
        if steps != sorted(set(steps)):
            return "steps are twice in the log"
    except (VtgError, OSError, ValueError) as error:
        return str(error)
    return ""


def _page_indexing(clips: Path, library: Path) -> Callable[[], int]:
    """The page's own way of adding videos to a library, without a browser."""

    def run() -> int:
        from streamlit_app.backend import LOADING, Backend, Options
        from streamlit_app.tasks import add_videos

        backend = Backend(Options(library, (clips,), model="demo", device="cpu"))
        while backend.readiness.state == LOADING:
            time.sleep(0.01)
        job = add_videos(backend, [clips], "adding")
        while job.active:
            time.sleep(0.01)
        if job.error:
            print(f"vtg: {job.error}", file=sys.stderr)
        return int(bool(job.error))

    return run


def _research(name: str, bench: Bench, folder: Path) -> Job:
    """Predictions of a head that are written, and pictures of their figures."""
    data = bench.material.features
    predictions = folder / "predictions.jsonl"
    if name == "evaluate":
        words = ["--features", data, "--annotations", data / "val.jsonl", "--model", data / "head.safetensors"]
        run = command("evaluate", data / "mine.toml", *words, "--out", predictions, "--device", "cpu")
        return Job(run, run, lambda: "" if predictions.exists() else "no predictions")
    truth = [json.loads(line) for line in (data / "val.jsonl").read_text().splitlines()]
    lines = [{"qid": each["qid"], "vid": each["vid"], "pred_relevant_windows": [[0, 4, 0.5]]} for each in truth]
    predictions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = command("score", predictions, data / "val.jsonl", "--plot", folder / "plots")
    return Job(run, run, lambda: "" if any((folder / "plots").glob("*.png")) else "no pictures")


def _previews(video: Path, folder: Path) -> Callable[[], int]:
    from vtg.video.preview import write_poster, write_preview, write_proxy

    return function(
        lambda: write_poster(video, 1.0, folder / "a.jpg"),
        lambda: write_preview(video, 0.5, 2.0, folder / "b.mp4"),
        lambda: write_proxy(video, folder / "c.mp4"),
    )
