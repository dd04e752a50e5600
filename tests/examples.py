"""The examples of README and manual: found in the Markdown, and checked against the real command line and API."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from vtg.cli import main as cli

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["REPOSITORY", "Example", "check_command", "check_python", "command_at", "commands", "documents", "examples"]

REPOSITORY = Path(__file__).resolve().parents[1]
MARK = re.compile(r"<!-- example: parsed, .+ -->")  # says why the next block cannot be run here
FENCE = re.compile(r"```(\w*)(?: title=\"([^\"]+)\")?$")
DISTRIBUTION = "vtground"
OTHERS = {"cd", "curl", "docker", "ffmpeg", "git", "pre-commit", "ray"}  # programs whose options are not checked here


@dataclass(frozen=True)
class Example:
    """A block of code in a document.

    Attributes:
        document: the file.
        line: of the block's first line, from 1.
        language: as the fence names it.
        title: the file that the block is the content of; "" for none.
        text: the block.
        is_run: whether a test runs it; otherwise it is parsed.
    """

    document: Path
    line: int
    language: str
    title: str
    text: str
    is_run: bool

    def __str__(self) -> str:
        return f"{self.document.relative_to(REPOSITORY)}:{self.line}"


def documents() -> list[Path]:
    """README, the other texts of the root, and the manual without what is generated."""
    return [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]


def examples(document: Path) -> list[Example]:
    """All fenced blocks of a document, in its order."""
    found, block, opened, is_run = [], [], None, True
    for number, line in enumerate(document.read_text("utf-8").splitlines(), 1):
        if opened is not None:
            if line.strip() == "```":
                language, title, begin = opened
                found.append(Example(document, begin, language, title, "\n".join(block) + "\n", is_run))
                block, opened, is_run = [], None, True
            else:
                block.append(line)
        elif fence := FENCE.match(line.strip()):
            opened = fence[1], fence[2] or "", number + 1
        elif MARK.fullmatch(line.strip()):
            is_run = False
        elif line.strip():
            is_run = True
    assert opened is None, f"{document}: a block of code is not closed"
    return found


def commands(example: Example) -> Iterator[tuple[list[str], list[str]]]:
    """The commands of a console block as words, each with the lines of output that are shown below it."""
    words: list[str] | None = None
    shown: list[str] = []
    for line in example.text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            if words is not None:
                yield words, shown
            words, shown = [word for word in shlex.split(line[2:], comments=True) if word != "…"], []
        else:
            assert words is not None, f"{example}: output comes before a command"
            shown.append(line)
    if words is not None:
        yield words, shown


def command_at(words: list[str]) -> tuple[Any, list[str], list[str]]:
    """The command that words name, its own names, and the words that are left for it."""
    command, names, rest = typer.main.get_command(cli.app), [], list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest[0]]
        names.append(rest.pop(0))
    return command, names, rest


def check_command(words: list[str], is_whole: bool = True) -> None:
    """Check a command that is not run: vtg's options against the command line, those of others against their files.

    Args:
        words: of the command.
        is_whole: whether arguments that it needs have to be there; a command in running text may lack them.

    Raises:
        AssertionError: it is wrong, or nothing here knows such commands.
    """
    while re.match(r"[A-Z_]+=", words[0]):  # a variable for this command alone
        words = words[1:]
    program, rest = words[0].rsplit("/", 1)[-1], words[1:]
    if program == "vtg":
        _check_vtg(rest, is_whole)
    elif program in ("accelerate", "torchrun"):
        at = rest.index("-m")
        assert rest[at + 1] == "vtg", words
        _check_vtg(rest[at + 2 :], is_whole)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text("utf-8"), re.M)
        assert set(rest[:1]) <= set(targets), f"make {rest}: no such target"
    elif program == "pip" or rest[:2] == ["-m", "pip"]:
        _check_pip(rest)
    elif program == "python":
        _check_python_program(rest)
    else:
        assert program in OTHERS, f"{shlex.join(words)}: no check knows this program"


def _check_vtg(words: list[str], is_whole: bool) -> None:
    command, names, rest = command_at(words)
    if not rest and not is_whole:
        assert names, words
        return
    name = " ".join(["vtg", *names])
    if not names:  # options of vtg itself, which end it as soon as they are read
        known = {option for parameter in command.params for option in parameter.opts} | {"-h", "--help"}
        assert rest and set(rest) <= known, f"{name} {shlex.join(rest)}: there is no such command"
        return
    try:
        command.make_context(name, rest)
    except cli.UsageError as error:
        message = error.format_message()  # type: ignore[attr-defined]
        is_lacking = type(error).__name__ == "MissingParameter" or message.endswith("requires an argument.")
        assert is_lacking and not is_whole, f"{name} {shlex.join(rest)}: {message}"


def _check_pip(words: list[str]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    for word in words:
        assert not re.match(r"vtg\b", word), f"{word}: that is a package of somebody else's"
        if extras := re.fullmatch(rf"(?:{DISTRIBUTION}|\.)\[(.+)\]", word):
            assert set(extras[1].split(",")) <= set(project["optional-dependencies"]), word


def _check_python_program(words: list[str]) -> None:
    if words[0] == "-m":
        place = REPOSITORY / (words[1].replace(".", "/") + ".py")
        options = words[2:]
        if words[1] in ("venv", "pytest"):
            return
    else:
        place, options = REPOSITORY / words[0], words[1:]
    assert place.is_file(), f"{shlex.join(words)}: there is no {place.name}"
    source = place.read_text("utf-8")
    for option in options:
        if option.startswith("--"):
            assert f'"{option.split("=")[0]}"' in source, f"{shlex.join(words)}: there is no {option}"


def check_python(example: Example) -> None:
    """Check Python that is not run: its imports are made, and the arguments of calls to what they import are known.

    Raises:
        AssertionError: it names what there is not.
        SyntaxError: it is not Python.
    """
    tree = ast.parse(example.text)
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            exec(compile(ast.Module([node], []), str(example), "exec"), names)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        head, *attributes = ast.unparse(node.func).split(".")
        if head not in names:
            continue  # of an object that only a run would make
        target = functools.reduce(getattr, attributes, names[head])
        given = {keyword.arg for keyword in node.keywords if keyword.arg}
        parameters = inspect.signature(target).parameters
        takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        assert takes_any or given <= set(parameters), f"{example}: {ast.unparse(node)}"
