"""Match subtitle files to videos by name and folder, as players do.

A file belongs to the video whose name it begins with; of several, to the one with the longest. What follows may only
name a language (``film.en.srt``, ``film.pt-BR.srt``) or a purpose (``film.en.forced.srt``, ``film.sdh.srt``): what
names a part, a version or another episode is for another video. Upper and lower case, and composed and decomposed
accents, are the same. Files of a folder ``Subs`` or ``Subtitles`` beside the video belong to it by the same rule; where
it is the only video of its folder, by a language alone (``Subs/2_English.srt``); and all in ``Subs/<its name>/``.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from vtg.files.paths import lies_within
from vtg.video.sources import VIDEO_SUFFIXES
from vtg.video.subtitles.language_models import language_codes

__all__ = ["SUFFIXES", "SubtitleFolders", "language_of"]

SUFFIXES = frozenset({".srt", ".vtt", ".ass", ".ssa", ".sub"})
FOLDERS = frozenset({"sub", "subs", "subtitle", "subtitles"})  # beside a video
READ_AS = "tracks 2"  # first in the name of what was read: the tracks of the video, and the version of the reading
_CODE = re.compile(r"[a-z]{2,3}")
_REGION = re.compile(r"[a-z]{2}|[0-9]{3}|hans|hant|latn|cyrl|arab")  # a country, a part of the world, a script
_SEPARATORS = ". _-[](+),"
_SEPARATOR = re.compile(f"[{re.escape(_SEPARATORS)}]+")
_FIRST_NUMBER = re.compile(r"[0-9]{1,2}[ ._-]+")


@dataclass(frozen=True)
class _Folder:
    """What is in a folder; names are as `_comparable` makes them.

    Attributes:
        subtitles: names without suffix, sorted, and the files.
        videos: names.
        names: of videos, with suffix and without.
        folders: by name.
    """

    subtitles: list[tuple[str, Path]]
    videos: frozenset[str]
    names: frozenset[str]
    folders: dict[str, Path]


class SubtitleFolders:
    """The subtitle files beside videos; each folder is looked at once.

    Args:
        within: folders, without links, outside of which no link is followed; none for everywhere.
    """

    def __init__(self, within: Sequence[Path] = ()) -> None:
        self._within = within
        self._folders: dict[Path, _Folder] = {}

    def subtitle_files(self, video: Path) -> list[Path]:
        """The subtitle files of a video, sorted."""
        folder = self._look(video.parent)
        own = frozenset((_comparable(video.name), _comparable(video.stem)))
        found = list(_of_names(own, folder, folder.names))
        for name in FOLDERS & folder.folders.keys():
            inner = self._look(folder.folders[name])
            found += _of_names(own, inner, folder.names)
            if folder.videos <= own:
                found += [path for label, path in inner.subtitles if _is_label(label)]
            for place in own & inner.folders.keys():
                found += [path for _, path in self._look(inner.folders[place]).subtitles]
        return sorted(set(found))

    def fingerprint(self, video: Path) -> str:
        """Names what there is to read for a video, so that a change of it is seen; never empty."""
        names = [READ_AS]
        for path in self.subtitle_files(video):
            try:
                status = path.stat()
            except OSError:
                continue
            names.append(f"{path.relative_to(video.parent)} {status.st_size} {status.st_mtime_ns}")
        return "|".join(names)

    def _look(self, place: Path) -> _Folder:
        if place not in self._folders:
            self._folders[place] = _list(place, self._within)
        return self._folders[place]


def _list(place: Path, within: Sequence[Path]) -> _Folder:
    subtitles, videos, folders = [], [], {}
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                name = _comparable(entry.name)
                stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a folder may hold a hundred thousand names
                if within and not lies_within(place / entry.name, within):
                    continue
                if suffix in SUFFIXES and entry.is_file():  # a pipe of that name would be waited for
                    subtitles.append((stem, place / entry.name))
                elif suffix in VIDEO_SUFFIXES:
                    videos.append((name, stem))
                elif entry.is_dir():
                    folders[name] = place / entry.name
    except OSError:
        pass  # what cannot be listed has no subtitles
    names = frozenset(key for video in videos for key in video)
    return _Folder(sorted(subtitles), frozenset(name for name, _ in videos), names, folders)


def _comparable(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _of_names(own: frozenset[str], folder: _Folder, names: frozenset[str]) -> Iterator[Path]:
    """The subtitles in a folder that belong to a video of these names, among videos of others."""
    for name in own:
        for stem, path in folder.subtitles[bisect_left(folder.subtitles, name, key=lambda item: item[0]) :]:
            if not stem.startswith(name):
                break
            if _owner(stem, names | own) == name:
                yield path


def _owner(stem: str, names: frozenset[str]) -> str | None:
    """The longest of the names that a subtitle's begins with, if what follows is no name of another video."""
    for end in range(len(stem), 0, -1):
        if (end == len(stem) or stem[end] in _SEPARATORS) and stem[:end] in names:
            return stem[:end] if _is_qualifier(stem[end:]) else None
    return None


def _is_qualifier(rest: str) -> bool:
    """Whether the rest of a name only says language and purpose."""
    return all(_kinds(rest, dotted=rest.startswith(".") or (None if rest.lstrip().startswith(("(", "[")) else False)))


def _is_label(name: str) -> bool:
    """Whether a whole name only says a language, perhaps with a number before it and a purpose after."""
    kinds = list(_kinds(_FIRST_NUMBER.sub("", name, count=1), dotted=None))
    return "language" in kinds and all(kinds)


def _kinds(rest: str, dotted: bool | None) -> Iterator[str]:
    """What each part of a name is: "language", "purpose", "detail" (of the part before), or "" for anything else.

    Args:
        rest: of the name.
        dotted: it begins with a dot, as languages do: any two or three letters are one. False: words that languages are
            short for ("it", "no") are none. None: these are, as in brackets, or where it is all there is.
    """
    known = _known_names()
    before = ""
    for part in filter(None, _SEPARATOR.split(rest)):
        kind = ""
        if before == "language" and _REGION.fullmatch(part):
            kind = "detail"
        elif part in known["purposes"] and (part != "hi" or dotted):
            kind = "purpose"
        elif part in language_codes() or part in known["languages"]:
            kind = "" if dotted is False and part in known["common_words"] else "language"
        elif dotted and _CODE.fullmatch(part) and part not in known["no_languages"]:
            kind = "language"
        elif before and part.isdecimal() and len(part) <= 2:
            kind = "detail"
        yield kind
        before = kind


def language_of(path: Path, video: Path) -> str | None:
    """The language that the name of a subtitle file of a video says, by its own words: a value of `language_codes`."""
    said = _comparable(path.stem)
    for name in (_comparable(video.name), _comparable(video.stem)):
        if said.startswith(name):
            said = said[len(name) :]
            break
    for part in (one for word in said.split(".") for one in (word.replace("_", "-"), *_SEPARATOR.split(word))):
        if part in language_codes():
            return language_codes()[part]
    return None


@functools.cache
def _known_names() -> dict[str, frozenset[str]]:
    with Path(__file__).with_name("names.toml").open("rb") as file:
        return {kind: frozenset(names.split()) for kind, names in tomllib.load(file).items()}
