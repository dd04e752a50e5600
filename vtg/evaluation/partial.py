"""Store the predictions of an unfinished evaluation beside the final file, to resume from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from vtg.datasets import QueryId
from vtg.files.text import read_json
from vtg.files.whole import write_whole

__all__ = ["Identity", "PartialPredictions"]

FORMAT = 2  # of the file; files of other versions are not used
DIFFERENCES = {"format": "another version of vtg", "head": "another head", "settings": "other settings"}
DIFFERENCES["queries"] = "other annotations"

Identity = Mapping[str, Any]  # digests of what all predictions depend on, by the keys of DIFFERENCES except "format"


class PartialPredictions:
    """The file of an unfinished run; use it in a ``with`` statement.

    The first line contains the identity of the run. Each prediction has a key over the identity and its own features,
    so that predictions of another run are never used.

    Args:
        out: the final file.
        identity: digests of what all predictions depend on.
        features: digest of the features of each query.
        warn: callback for a one-line message if existing predictions cannot be used.
    """

    def __init__(
        self, out: Path, identity: Identity, features: Mapping[QueryId, str], warn: Callable[[str], None]
    ) -> None:
        self._out = out
        self._path = out.with_name(f"{out.name}.part")
        self._header = {"format": FORMAT, **identity}
        text = json.dumps(self._header, sort_keys=True)
        self._keys = {query: hashlib.sha256(f"{text} {own}".encode()).hexdigest() for query, own in features.items()}
        self._warn = warn
        self._file: TextIO | None = None
        self.done: dict[QueryId, dict[str, Any]] = {}

    def __enter__(self) -> PartialPredictions:
        self._out.parent.mkdir(parents=True, exist_ok=True)
        self._read()
        # A new file under the same name, so that another process with the old file open cannot append to this one.
        lines = [json.dumps(self._header), *map(self._line, self.done.values())]
        _write(self._path, lines)
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def add(self, predictions: Sequence[dict[str, Any]]) -> None:
        """Append predictions, by their "qid"."""
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
        """Write the final file atomically, in the order of the queries, and remove this one."""
        if self._file is not None:
            self._file.close()  # on Windows, open files cannot be removed
        _write(self._out, [json.dumps(self.done[query]) for query in self._keys])
        self._path.unlink(missing_ok=True)

    def _line(self, prediction: dict[str, Any]) -> str:
        return json.dumps({"key": self._keys[prediction["qid"]], "prediction": prediction})

    def _read(self) -> None:
        """Read the predictions of an earlier run with the same identity."""
        if not self._path.is_file():
            return
        lines = _whole_lines(self._path)
        header = next(lines, None)
        if header is None:
            return
        if header != self._header:
            differences = [text for part, text in DIFFERENCES.items() if header.get(part) != self._header[part]]
            # The header of another version may have another structure.
            what = " and ".join(differences[:1] if header.get("format") != FORMAT else differences)
            self._warn(f"{self._path}: is of an evaluation with {what}; starting again")
            return
        left = set()
        for line in lines:
            prediction = line.get("prediction", {})
            query = prediction.get("qid")
            left.add(query)
            if query in self._keys and line.get("key") == self._keys[query]:
                self.done[query] = prediction
        if stale := len(left) - len(self.done):
            self._warn(
                f"{self._path}: {stale} of its {len(left)} predictions are of other features; they are computed again"
            )


def _write(path: Path, lines: Sequence[str]) -> None:
    """Write lines to a file atomically."""
    with write_whole(path) as beside:
        beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, up to an incomplete line of a killed process."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            content = read_json(line)
        except ValueError:
            return
        if not isinstance(content, dict):
            return
        yield content
