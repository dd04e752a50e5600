"""The console in other encodings than UTF-8, and where nobody reads it; sentences that begin with a dash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Result, vtg_in_process

from vtg.cli.console import PIPE_CLOSED_STATUS
from vtg.files.text import READABLE, json_text, one_line

HERE = Path(__file__).resolve().parents[1]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.setenv("VTG_LIBRARY", str(tmp_path / "library"))
    return vtg_in_process(capsys, monkeypatch)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path], tiny_clip: Path) -> Path:
    """A library of one film, whose name has letters of several alphabets."""
    from vtg.library.library import Library
    from vtg.models.specs import model_spec

    folder = tmp_path_factory.mktemp("console")
    film = make_video(folder / "plain.mp4", seconds=8).rename(folder / "né фильм.mp4")
    Library(folder / "library", model_spec("zero-shot", None, str(tiny_clip), None), "cpu").add([film])
    return folder / "library"


def vtg(library: Path, *words: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Runs ``vtg`` as a process of its own.

    Args:
        library: to ask.
        words: of the command line.
        shell: what a shell does with its outputs, such as ``>&-``.
        environment: variables beside those of this process.
    """
    variables = {**os.environ, "VTG_LIBRARY": str(library), "PYTHONPATH": str(HERE), **environment}
    command = [sys.executable, "-m", "vtg", *words]
    if shell:
        command = ["bash", "-c", f'"$@" {shell}', "bash", *command]
    return subprocess.run(command, env=variables, capture_output=True, timeout=120, check=False)


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
ENCODINGS = [
    ("cp1252", {"PYTHONIOENCODING": "cp1252"}, "né \\u0444\\u0438\\u043b\\u044c\\u043c"),
    ("ascii", ASCII, "n\\u00e9 \\u0444\\u0438\\u043b\\u044c\\u043c"),
]


@pytest.mark.parametrize(("encoding", "environment", "name"), ENCODINGS, ids=[row[0] for row in ENCODINGS])
def test_a_table_is_readable_in_any_encoding(
    library: Path, encoding: str, environment: dict[str, str], name: str
) -> None:
    done = vtg(library, "search", "a red circle", "--nearest", "-n", "2", **environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode(encoding).splitlines()
    assert len(lines) >= 2
    assert name in lines[1]
    assert "#" in lines[1] or ".." in lines[1], "the bar"
    assert not done.stderr


@pytest.mark.parametrize(("encoding", "environment", "name"), ENCODINGS, ids=[row[0] for row in ENCODINGS])
def test_json_is_utf8_in_any_encoding(library: Path, encoding: str, environment: dict[str, str], name: str) -> None:
    done = vtg(library, "library", "list", "--json", **environment)
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout.decode("utf-8"))[0]["video"]).name == "né фильм.mp4"


@pytest.mark.parametrize(("encoding", "environment", "name"), ENCODINGS, ids=[row[0] for row in ENCODINGS])
def test_errors_are_readable_in_any_encoding(
    library: Path, encoding: str, environment: dict[str, str], name: str
) -> None:
    done = vtg(library, "search", "a dog", "--in", "né фильм.mp4", **environment)
    assert done.returncode == 1
    (line,) = done.stderr.decode(encoding).splitlines()
    assert line.startswith("vtg: ")
    assert "not in the library" in line


def test_help_has_nothing_but_ascii(run: Callable[..., Result]) -> None:
    for words in (
        [],
        ["search"],
        ["index"],
        ["highlights"],
        ["summarize"],
        ["extract"],
        ["train"],
        ["library", "list"],
    ):
        result = run(*words, "--help")
        assert result.status == 0
        assert result.out.isascii(), words


needs_bash = pytest.mark.skipif(os.name == "nt", reason="pipes as Unix has them")


@needs_bash
@pytest.mark.parametrize("words", [["library", "list"], ["library", "list", "--json"], ["--help"]])
def test_a_reader_that_has_gone_ends_the_run_quietly(library: Path, words: list[str]) -> None:
    done = vtg(library, *words, shell="| true; exit ${PIPESTATUS[0]}")
    assert done.returncode == PIPE_CLOSED_STATUS
    assert not done.stderr


@needs_bash
def test_nobody_need_read_the_messages(library: Path, tmp_path: Path) -> None:
    done = vtg(library, "index", str(tmp_path / "none.mp4"), shell="2> >(true)")
    assert done.returncode == 1, "the status is that of the work"
    done = vtg(library, "library", "info", shell="2>&1 | head -1; exit ${PIPESTATUS[0]}")
    assert done.returncode in (PIPE_CLOSED_STATUS, 0)
    assert len(done.stdout.splitlines()) == 1


@needs_bash
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_outputs_may_be_closed(library: Path, closed: str) -> None:
    done = vtg(library, "library", "list", "--json", shell=closed)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk as Linux has it")
def test_a_full_disk_behind_standard_output_is_one_line(library: Path) -> None:
    for words in (["models", "--json"], ["--help"]):
        done = vtg(library, *words, shell="> /dev/full")
        assert done.returncode == 1
        (line,) = done.stderr.decode().splitlines()
        assert "No space left" in line


@pytest.mark.parametrize(
    ("words", "example"),
    [
        (("search", "-dog"), "vtg search -- -dog"),
        (("search", "--dog"), "vtg search -- --dog"),
        (("search", "-a dog jumps"), "vtg search -- '-a dog jumps'"),
        (("search", "-5 degrees outside"), "vtg search -- '-5 degrees outside'"),
        (("search", "-n 3 dogs"), "vtg search -- '-n 3 dogs'"),
        (("search", "-man walks"), "vtg search -- '-man walks'"),
        (("highlights", "film.mp4", "-dog"), "vtg highlights -- -dog"),
        (("summarize", "film.mp4", "-a dog"), "vtg summarize -- '-a dog'"),
        (("index", "-film.mp4"), "vtg index -- -film.mp4"),
    ],
)
def test_what_begins_with_a_dash_gets_a_hint(run: Callable[..., Result], words: tuple[str, ...], example: str) -> None:
    result = run(*words)
    assert result.status == 2
    last = result.err.splitlines()[-1]
    assert last.startswith("Error: ")
    assert last.endswith(f"{example}")


def test_other_wrong_options_get_none(run: Callable[..., Result]) -> None:
    for words in (("search", "dog", "--limt", "3"), ("search", "dog", "-x"), ("search", "dog", "-n", "x"), ("search",)):
        result = run(*words)
        assert result.status == 2
        assert "dash" not in result.err
    assert run("search", "--", "-dog").status == 1, "which is a query"


def test_lookalikes_and_escapes_stand_for_what_an_encoding_lacks() -> None:
    text = "█░ – … ≥ é 日 \U0001f600 \udce9"
    assert text.encode("ascii", READABLE) == b"#. - ... >= \\u00e9 \\u65e5 \\U0001f600 \\xe9"
    assert text.encode("utf-8", READABLE).decode() == "█░ – … ≥ é 日 \U0001f600 \\xe9"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("utf-8", READABLE)


def test_json_keeps_names_that_are_not_utf8() -> None:
    document = {"video": "/caf\udce9/a\u2028b\x85\x00.mp4", "n": 1}
    for ascii_only in (False, True):
        text = json_text(document, ascii_only)
        assert json.loads(text.encode("utf-8")) == document
        assert len(text.splitlines()) == 4
    assert json_text({"a": "日"}, True).isascii()


@pytest.mark.parametrize(
    "sign", ["\n", "\r", "\r\n", "\t", "\x00", "\x0b", "\x0c", "\x1b", "\x1c", "\x85", "\u2028", "\u2029"]
)
def test_one_line_is_one_line(sign: str) -> None:
    text = one_line(f"a{sign}b{sign}")
    assert text.split() == ["a", "b"]
    assert text.isprintable()
