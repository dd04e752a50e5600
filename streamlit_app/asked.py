"""Turn a visitor's words, picture and moment into a query of the library."""

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

__all__ = ["Asked", "Picture", "read_picture"]

LARGEST_PICTURE = 1_500_000  # bytes; browsers send what is scaled down to far less
LARGEST_SIDE = 4096  # pixels
KINDS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
DIGEST_DIGITS = 16
LONGEST_NAME = 80  # characters
MOST_READ = 8192  # characters of a name that a browser has sent


@dataclass(frozen=True)
class Picture:
    """A picture of what is looked for; it is kept as long as its visitor stays, in memory alone.

    Attributes:
        digest: names its content, 16 hexadecimal digits.
        name: of the visitor's file, for people.
        suffix: of its kind.
        content: of the file.
    """

    digest: str
    name: str = field(compare=False)
    suffix: str = field(compare=False)
    content: bytes = field(compare=False, repr=False)


def read_picture(name: str, encoded: str) -> Picture:
    """Take a picture that a browser has sent.

    Args:
        name: of the visitor's file.
        encoded: its content in base64.

    Raises:
        VtgError: it is none, or too large.
    """
    from vtg.video.pictures import PictureError, open_picture

    shown = plain_name(name[-MOST_READ:])[-LONGEST_NAME:].strip(" .") or "picture"
    if len(encoded) > LARGEST_PICTURE * 4 / 3:
        raise VtgError(f"{shown}: is too large; choose a smaller picture")
    try:
        content = base64.b64decode(encoded, validate=True)
        with open_picture(io.BytesIO(content), formats=list(KINDS)) as image:
            kind, sides = str(image.format), image.size
            image.verify()
    except (binascii.Error, PictureError):
        raise VtgError(f"{shown}: is not a picture that can be read; save it as JPEG or PNG") from None
    if max(sides) > LARGEST_SIDE:
        raise VtgError(f"{shown}: has {sides[0]}×{sides[1]} pixels; choose a smaller picture")
    return Picture(hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS], shown, KINDS[kind], content)


@dataclass(frozen=True)
class Asked:
    """What is looked for.

    Attributes:
        words: the sentence; "" for none.
        said: words that are said there; "" for any.
        like: the stretch that others are to be like.
        picture: of what is looked for.
    """

    words: str = ""
    said: str = ""
    like: Stretch | None = None
    picture: Picture | None = None

    @property
    def sentence(self) -> str | None:
        """The sentence, where it is all that is to be seen: only then are there curves, and a head that looked."""
        return self.words if self.words and not (self.like or self.picture) else None

    def __str__(self) -> str:
        return str(self._question(Path(self.picture.name) if self.picture else None))

    @contextlib.contextmanager
    def question(self, folder: Path) -> Iterator[Question]:
        """The library's question, as long as it is being asked.

        Args:
            folder: where a picture lies meanwhile.

        Raises:
            VtgError: nothing is asked for.
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
