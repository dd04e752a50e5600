"""The predictions of an evaluation that is not finished: kept beside the final file, and gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from vtg.datasets import QueryId
from vtg.files.whole import write_whole
from vtg.text import read_json

__all__ = ["Identity", "Unfinished"]

FORMAT = 2  # of the file; one of another is begun anew
PARTS = {"format": "another version of vtg", "head": "another head", "settings": "other settings"}
PARTS["queries"] = "other annotations"

Identity = Mapping[str, Any]  # what all predictions of a run depend on: the keys of PARTS without "format"


class Unfinished:
    """The file of an unfinished run; use it in a ``with`` statement.

    Its first line says what all of its predictions depend on. Each prediction carries a key over that and over its
    own features, so that one of another run is never taken, however it came there.

    Args:
        out: the final file.
        identity: what all predictions depend on, as plain values.
        features: by query, what its prediction depends on besides.
        note: told in one line when predictions that are there cannot be used.
    """

    def __init__(
        self, out: Path, identity: Identity, features: Mapping[QueryId, str], note: Callable[[str], None]
    ) -> None:
        self._out = out
        self._path = out.with_name(f"{out.name}.part")
        self._header = {"format": FORMAT, **identity}
        text = json.dumps(self._header, sort_keys=True)
        self._keys = {query: hashlib.sha256(f"{text} {own}".encode()).hexdigest() for query, own in features.items()}
        self._note = note
        self._file: TextIO | None = None
        self.done: dict[QueryId, dict[str, Any]] = {}

    def __enter__(self) -> Unfinished:
        self._out.parent.mkdir(parents=True, exist_ok=True)
        self._read()
        # Written anew under the same name: a process that still adds to the old file adds nothing to this one.
        lines = [json.dumps(self._header), *map(self._line, self.done.values())]
        _write(self._path, lines)
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def add(self, predictions: Sequence[dict[str, Any]]) -> None:
        """Keep predictions, by their "qid"."""
        assert self._file is not None  # inside the with statement
        for prediction in predictions:
            self.done[prediction["qid"]] = prediction
            self._file.write(self._line(prediction) + "\n")
        self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def finish(self) -> None:
        """Write the final file, whole, in the order of the queries, and remove this one."""
        if self._file is not None:
            self._file.close()  # Windows removes no open file
        _write(self._out, [json.dumps(self.done[query]) for query in self._keys])
        self._path.unlink(missing_ok=True)

    def _line(self, prediction: dict[str, Any]) -> str:
        return json.dumps({"key": self._keys[prediction["qid"]], "prediction": prediction})

    def _read(self) -> None:
        """Take what an earlier run of the same finished."""
        if not self._path.is_file():
            return
        lines = _whole_lines(self._path)
        header = next(lines, None)
        if header is None:
            return
        if header != self._header:
            differences = [text for part, text in PARTS.items() if header.get(part) != self._header[part]]
            # The other parts of another version's header may be of another form.
            what = " and ".join(differences[:1] if header.get("format") != FORMAT else differences)
            self._note(f"{self._path}: was left by an evaluation with {what}; begun anew")
            return
        left = set()
        for line in lines:
            prediction = line.get("prediction", {})
            query = prediction.get("qid")
            left.add(query)
            if query in self._keys and line.get("key") == self._keys[query]:
                self.done[query] = prediction
        if stale := len(left) - len(self.done):
            self._note(
                f"{self._path}: {stale} of its {len(left)} predictions are of other features than there are now; "
                "these are made anew"
            )


def _write(path: Path, lines: Sequence[str]) -> None:
    """Write lines to a file, which appears whole."""
    with write_whole(path) as beside:
        beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, up to a line that a killed process left unfinished."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            content = read_json(line)
        except ValueError:
            return
        if not isinstance(content, dict):
            return
        yield content
