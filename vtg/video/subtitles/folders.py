"""Match subtitle files to videos by name and folder, as players do.

A file belongs to the video whose name is a prefix of its name; of several videos, to the one with the longest name. The
rest may only name a language (``film.en.srt``, ``film.pt-BR.srt``) or a purpose (``film.en.forced.srt``,
``film.sdh.srt``): a part, a version or an episode means another video. Case, and composed or decomposed accents, are
ignored. The same rule holds for files in a folder ``Subs`` or ``Subtitles`` beside the video. If it is the only video
of its folder, files there may be named by a language alone (``Subs/2_English.srt``). All files in ``Subs/<its name>/``
belong to it.
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
READER_VERSION = "tracks 2"  # first part of a fingerprint: changes when subtitles have to be read again
_CODE = re.compile(r"[a-z]{2,3}")
_REGION = re.compile(r"[a-z]{2}|[0-9]{3}|hans|hant|latn|cyrl|arab")  # a country, a part of the world, a script
_SEPARATORS = ". _-[](+),"
_SEPARATOR = re.compile(f"[{re.escape(_SEPARATORS)}]+")
_FIRST_NUMBER = re.compile(r"[0-9]{1,2}[ ._-]+")


@dataclass(frozen=True)
class _Folder:
    """The content of a folder; names are normalized by `_comparable`.

    Attributes:
        subtitles: names without suffix, sorted, and paths.
        videos: names of the video files.
        names: of the video files, with and without suffix.
        folders: paths of subfolders by name.
    """

    subtitles: list[tuple[str, Path]]
    videos: frozenset[str]
    names: frozenset[str]
    folders: dict[str, Path]


class SubtitleFolders:
    """Finds the subtitle files of videos; each folder is listed once.

    Args:
        within: resolved folders outside of which no link is followed; empty for everywhere.
    """

    def __init__(self, within: Sequence[Path] = ()) -> None:
        self._within = within
        self._folders: dict[Path, _Folder] = {}

    def subtitle_files(self, video: Path) -> list[Path]:
        """The subtitle files of a video, sorted."""
        folder = self._list(video.parent)
        own = frozenset((_comparable(video.name), _comparable(video.stem)))
        found = list(_of_names(own, folder, folder.names))
        for name in FOLDERS & folder.folders.keys():
            inner = self._list(folder.folders[name])
            found += _of_names(own, inner, folder.names)
            if folder.videos <= own:
                found += [path for label, path in inner.subtitles if _is_label(label)]
            for place in own & inner.folders.keys():
                found += [path for _, path in self._list(inner.folders[place]).subtitles]
        return sorted(set(found))

    def fingerprint(self, video: Path) -> str:
        """A text that changes when the subtitle files of a video change; never empty."""
        names = [READER_VERSION]
        for path in self.subtitle_files(video):
            try:
                status = path.stat()
            except OSError:
                continue
            names.append(f"{path.relative_to(video.parent)} {status.st_size} {status.st_mtime_ns}")
        return "|".join(names)

    def _list(self, place: Path) -> _Folder:
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
                if suffix in SUFFIXES and entry.is_file():  # reading a pipe would block
                    subtitles.append((stem, place / entry.name))
                elif suffix in VIDEO_SUFFIXES:
                    videos.append((name, stem))
                elif entry.is_dir():
                    folders[name] = place / entry.name
    except OSError:
        pass  # a folder that cannot be listed counts as empty
    names = frozenset(key for video in videos for key in video)
    return _Folder(sorted(subtitles), frozenset(name for name, _ in videos), names, folders)


def _comparable(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _of_names(own: frozenset[str], folder: _Folder, names: frozenset[str]) -> Iterator[Path]:
    """The subtitle files in a folder that belong to a video of these names; `names` are those of all videos."""
    for name in own:
        for stem, path in folder.subtitles[bisect_left(folder.subtitles, name, key=lambda item: item[0]) :]:
            if not stem.startswith(name):
                break
            if _owner(stem, names | own) == name:
                yield path


def _owner(stem: str, names: frozenset[str]) -> str | None:
    """The longest of the names that is a prefix of a subtitle's name, if the rest is a language or purpose."""
    for end in range(len(stem), 0, -1):
        if (end == len(stem) or stem[end] in _SEPARATORS) and stem[:end] in names:
            return stem[:end] if _is_qualifier(stem[end:]) else None
    return None


def _is_qualifier(rest: str) -> bool:
    """Whether the rest of a name consists of language and purpose only."""
    return all(_kinds(rest, dotted=rest.startswith(".") or (None if rest.lstrip().startswith(("(", "[")) else False)))


def _is_label(name: str) -> bool:
    """Whether a whole name consists of a language, with an optional number before it and purpose after it."""
    kinds = list(_kinds(_FIRST_NUMBER.sub("", name, count=1), dotted=None))
    return "language" in kinds and all(kinds)


def _kinds(rest: str, dotted: bool | None) -> Iterator[str]:
    """Classify each part of a name: "language", "purpose", "detail" (of the part before), or "" for anything else.

    Args:
        rest: of the name.
        dotted: True (it starts with a dot): any two or three letters are a language code. False: codes that are common
            words ("it", "no") are not languages. None (in brackets, or a whole name): they are.
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
    """The language in the name of a subtitle file, without the name of its video: a value of `language_codes`."""
    rest = _comparable(path.stem)
    for name in (_comparable(video.name), _comparable(video.stem)):
        if rest.startswith(name):
            rest = rest[len(name) :]
            break
    for part in (one for word in rest.split(".") for one in (word.replace("_", "-"), *_SEPARATOR.split(word))):
        if part in language_codes():
            return language_codes()[part]
    return None


@functools.cache
def _known_names() -> dict[str, frozenset[str]]:
    with Path(__file__).with_name("names.toml").open("rb") as file:
        return {kind: frozenset(names.split()) for kind, names in tomllib.load(file).items()}
