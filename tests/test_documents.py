"""README and manual: their examples run, their links lead somewhere, and every option is described."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import vtg_in_process
from examples import (
    REPOSITORY,
    Example,
    check_command,
    check_python,
    command_at,
    commands,
    documents,
    examples,
)

from vtg.cli import main as cli

DOCS = REPOSITORY / "docs"
GENERATED = DOCS / "commands.md"
README_LINES = 160
PICTURE_BYTES = 400_000
MESSAGE_LENGTHS = 15, 400  # characters
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")
SHOWN_HOME = "/home/me"  # stands in the documents for the folder in which a reader is

ALL = [example for document in documents() if document != GENERATED for example in examples(document)]


def name_of(value: object) -> str:
    return str(value.relative_to(REPOSITORY)) if isinstance(value, Path) else str(value)


def leaves(command: Any, names: tuple[str, ...] = ("vtg",)) -> Iterator[tuple[str, Any]]:
    """Every command that can be given, with its full name."""
    yield " ".join(names), command
    for name, own in getattr(command, "commands", {}).items():
        yield from leaves(own, (*names, name))


COMMANDS = dict(leaves(typer.main.get_command(cli.app)))


# What the examples run on


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a reader tries the examples: what `vtg demo --out films` makes, and the files that they name.

    holiday.mp4 and ~/Videos/** are demo videos, lake.jpg is a frame of one, and the words of demo_00001.srt are spoken
    in films/videos/demo_00001.mp4.
    """
    from PIL import Image

    from vtg.demo.run import run_demo
    from vtg.video import thumbnail

    folder = tmp_path_factory.mktemp("desk").resolve()
    videos = folder / "films" / "videos"
    videos.mkdir(parents=True)
    lines = "1\n00:00:05,000 --> 00:00:08,000\nand now we jump into the lake\n"
    (videos / "demo_00001.srt").write_text(lines, encoding="utf-8")
    run_demo(folder / "films")
    shutil.copy(videos / "demo_00001.mp4", folder / "holiday.mp4")
    (folder / "Videos" / "old").mkdir(parents=True)
    shutil.copy(videos / "demo_00001.mp4", folder / "Videos")
    shutil.copy(videos / "demo_00002.mp4", folder / "Videos" / "old")
    Image.fromarray(thumbnail(videos / "demo_00001.mp4", 8.0, 320)).save(folder / "lake.jpg")
    return folder


@pytest.fixture
def at_desk(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder as the current one, and as the reader's home; what an example writes beside is removed afterwards."""
    monkeypatch.chdir(desk)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(desk))
    monkeypatch.delenv("VTG_LIBRARY", raising=False)
    before = set(desk.iterdir())
    yield desk
    for path in set(desk.iterdir()) - before:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)  # Windows keeps what is still mapped
        else:
            path.unlink()


RUN = [document for document in documents() if any(one.document == document and one.is_run for one in ALL)]


@pytest.mark.parametrize("document", RUN, ids=name_of)
def test_examples_run(
    document: Path, at_desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_vtg = vtg_in_process(capsys, monkeypatch)
    own = [example for example in ALL if example.document == document and example.is_run]
    for example in own:
        if example.title:
            Path(example.title).write_text(example.text, encoding="utf-8")
        elif example.language == "console":
            for words, shown in commands(example):
                if words[0] == "export":
                    monkeypatch.setenv(*words[1].split("=", 1))
                elif words[0] == "vtg":
                    result = run_vtg(*(os.path.expanduser(word) for word in words[1:]))  # noqa: PTH111 - as a shell does
                    assert result.status == 0, f"{example}: {words}: {result.err}"
                    said = plain(result.out + result.err, at_desk)
                    assert all(plain(line, at_desk) in said for line in shown), f"{example}: {words}: {said}"
                else:
                    check_command(words)
    if program := "\n".join(example.text for example in own if example.language == "python"):
        run_python(program)


def run_python(program: str) -> None:
    """Run a program as a reader does: in an interpreter that has imported nothing else."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def plain(text: str, folder: Path) -> str:
    """A text with single blanks, in which the reader's folder has the name that the documents give it."""
    return " ".join(text.replace(str(folder), SHOWN_HOME).replace("\\", "/").split())


@pytest.mark.parametrize("example", [one for one in ALL if not one.is_run], ids=name_of)
def test_examples_that_cannot_run_here_are_right(example: Example) -> None:
    if example.language == "python":
        check_python(example)
    else:
        assert example.language == "console"
        for words, _ in commands(example):
            check_command(words)


@pytest.mark.parametrize("document", [one for one in documents() if one != GENERATED], ids=name_of)
def test_commands_in_running_text_are_right(document: Path) -> None:
    for code in re.findall(r"(?<!`)`(vtg [^`\n]+)`(?!`)", without_blocks(document)):
        words = [word for word in shlex.split(code) if word != "…"]
        check_command(words, is_whole=False)


def test_every_command_has_examples_that_are_right() -> None:
    for name, command in COMMANDS.items():
        if name == "vtg":
            continue
        assert command.epilog and command.epilog.startswith(("Example: ", "Examples: ")), name
        for example in re.findall(r"(?<!')\bvtg \w[^;]*", command.epilog.replace(". Others: ", "; ")):
            check_command(shlex.split(example))


# The manual is complete and its links lead somewhere


def test_every_option_of_every_command_is_in_the_manual() -> None:
    sections = re.split(r"^#+ `?(vtg[^`\n]*|Commands)`?$", GENERATED.read_text("utf-8"), flags=re.M)
    told = dict(zip(sections[1::2], sections[2::2], strict=True))
    told["vtg"] = told.pop("Commands")
    assert set(told) == set(COMMANDS), "run: make commands"
    for name, command in COMMANDS.items():
        options = {
            word
            for option in command.params
            if option.param_type_name == "option" and not getattr(option, "hidden", False)
            for word in (*option.opts, *option.secondary_opts)
            if word.startswith("--")
        }
        listed = re.findall(r"^\* `([^`]*)`", told[name], re.M)
        written = set(re.findall(r"--[\w-]+", " ".join(listed)))
        assert written - {"--help"} == options - {"--help"}, f"{name}: run: make commands"


def without_blocks(document: Path) -> str:
    return re.sub(r"^\s*```.*?^\s*```$", "", document.read_text("utf-8"), flags=re.S | re.M)


def anchors(document: Path) -> set[str]:
    """Of the headings, as GitHub and mkdocs name them; and those that are set by hand."""
    found = set(re.findall(r'id="([^"]+)"|\{#([\w-]+)\}', without_blocks(document)))
    names = {one for pair in found for one in pair if one}
    for heading in re.findall(r"^#+ (.+)$", without_blocks(document), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        names.add(re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower()))
    return names


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for pair in LINK.findall(without_blocks(document)):
        link = pair[0] or pair[1]
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        if anchor in ("only-light", "only-dark"):
            anchor = ""
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link}: there is no {target}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: {target.name} has no such heading"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text("utf-8")
    for page in DOCS.rglob("*.md"):
        assert re.search(rf"[ /]{re.escape(page.name)}$", navigation, re.M), f"{page}: is not in mkdocs.yml"


def messages() -> list[str]:
    """The texts in the code that are as long as a message, with … for what is put into them."""
    found: list[str] = []
    for package in ("vtg", "streamlit_app"):
        for path in (REPOSITORY / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append(
                        "".join(str(one.value) if isinstance(one, ast.Constant) else "…" for one in node.values)
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return [text for text in found if MESSAGE_LENGTHS[0] <= len(text) <= MESSAGE_LENGTHS[1]]


def test_messages_that_are_explained_exist() -> None:
    text = (DOCS / "troubleshooting.md").read_text("utf-8")
    explained = re.findall(r"^### `(.+)`$", text, re.M)
    assert len(explained) >= 15
    known = messages()
    patterns = {one: re.compile(".*".join(map(re.escape, re.split("…:? ?", one))), re.S) for one in explained}
    gone = [one for one, pattern in patterns.items() if not any(map(pattern.search, known))]
    assert not gone, "there are no such messages any more"


# The README


def test_the_readme_is_short_and_shows_the_page() -> None:
    text = (REPOSITORY / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= README_LINES
    for look in ("light", "dark"):
        assert f"docs/pictures/page-{look}.png" in text


@pytest.mark.parametrize("picture", sorted((DOCS / "pictures").iterdir()), ids=lambda path: path.name)
def test_pictures_are_small(picture: Path) -> None:
    assert picture.stat().st_size <= PICTURE_BYTES


def test_no_document_names_a_package_of_somebody_else() -> None:
    for document in documents():
        assert not re.search(r"pip install (-\S+ )*'?\"?vtg\b", document.read_text("utf-8")), document


def test_the_commands_name_themselves_right() -> None:
    assert command_at(["library", "list", "--json"])[1:] == (["library", "list"], ["--json"])


@pytest.mark.slow
def test_the_manual_builds_without_a_warning(tmp_path: Path) -> None:
    """As `make docs` does, which CI runs; its pages load nothing from other hosts."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        html = page.read_text("utf-8")
        assert not re.search(r"<(script|img|iframe)[^>]+src=\"?https?:", html), page
        assert not re.search(r"<link[^>]+rel=\"?(stylesheet|preconnect)[^>]+https?:", html), page
