"""A query of the search page (sentence, transcript words, picture, moment), and its conversion for the library."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vtg.errors import VtgError
from vtg.library.query import Part, Question, Stretch

from .names import plain_name

__all__ = ["Picture", "SearchQuery", "read_picture"]

MAX_PICTURE_BYTES = 1_500_000  # the page scales pictures down to far less before it sends them
MAX_SIDE_PIXELS = 4096
KINDS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
DIGEST_DIGITS = 16
MAX_NAME_CHARACTERS = 80  # characters
MAX_NAME_CHARACTERS_READ = 8192  # of a name from a browser


@dataclass(frozen=True)
class Picture:
    """A picture in a query; it is kept in memory during the session.

    Attributes:
        digest: of its content, 16 hexadecimal digits.
        name: of the visitor's file, for display.
        suffix: of its format.
        content: of the file.
    """

    digest: str
    name: str = field(compare=False)
    suffix: str = field(compare=False)
    content: bytes = field(compare=False, repr=False)


def read_picture(name: str, encoded: str) -> Picture:
    """Read a picture that a browser has sent.

    Args:
        name: of the visitor's file.
        encoded: its content in base64.

    Raises:
        VtgError: it is not a picture, or too large.
    """
    from vtg.video.pictures import PictureError, open_picture

    shown = plain_name(name[-MAX_NAME_CHARACTERS_READ:])[-MAX_NAME_CHARACTERS:].strip(" .") or "picture"
    if len(encoded) > MAX_PICTURE_BYTES * 4 / 3:
        raise VtgError(f"{shown}: is too large; choose a smaller picture")
    try:
        content = base64.b64decode(encoded, validate=True)
        with open_picture(io.BytesIO(content), formats=list(KINDS)) as image:
            kind, sides = str(image.format), image.size
            image.verify()
    except (binascii.Error, PictureError):
        raise VtgError(f"{shown}: is not a picture that can be read; save it as JPEG or PNG") from None
    if max(sides) > MAX_SIDE_PIXELS:
        raise VtgError(f"{shown}: has {sides[0]}×{sides[1]} pixels; choose a smaller picture")
    return Picture(hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS], shown, KINDS[kind], content)


@dataclass(frozen=True)
class SearchQuery:
    """A query of the search page.

    Attributes:
        words: the sentence; "" for none.
        said: words in the transcript; "" for any.
        like: the span to find similar moments of.
        picture: to find similar moments of.
    """

    words: str = ""
    said: str = ""
    like: Stretch | None = None
    picture: Picture | None = None

    @property
    def sentence(self) -> str | None:
        """The sentence, if the query has no picture or moment: only then there are a saliency curve and attention."""
        return self.words if self.words and not (self.like or self.picture) else None

    def __str__(self) -> str:
        return str(self._question(Path(self.picture.name) if self.picture else None))

    @contextlib.contextmanager
    def question(self, folder: Path) -> Iterator[Question]:
        """The library's query, for a ``with`` statement.

        Args:
            folder: for a temporary file of the picture.

        Raises:
            VtgError: the query is empty.
        """
        if self.picture is None:
            yield self._question(None)
            return
        with tempfile.TemporaryDirectory(prefix=".picture-", dir=folder) as home:
            path = Path(home) / f"picture{self.picture.suffix}"
            path.write_bytes(self.picture.content)
            yield self._question(path)

    def _question(self, picture: Path | None) -> Question:
        parts = [Part(what) for what in (self.words, picture, self.like) if what]
        return Question(tuple(parts), self.said)
