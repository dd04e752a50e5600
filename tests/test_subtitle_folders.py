"""Which subtitle file belongs to which video: the habits of players, and nothing that belongs to another video."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from vtg.video.subtitles import SubtitleFolders
from vtg.video.subtitles.folders import language_of


def beside(folder: Path, video: str, *names: str) -> set[str]:
    """The subtitles of a video among files of these names, each made if it is not there."""
    for name in (video, *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return {str(path.relative_to(folder)) for path in SubtitleFolders().subtitle_files(folder / video)}


@pytest.mark.parametrize(
    "names",
    [
        "film.srt film.en.srt film.eng.vtt film.en.forced.srt film.eng.sdh.srt film.en.hi.srt film.hi.srt",
        "film.pt-BR.srt film.pt_BR.ssa film.zh-Hans.ass film.es-419.srt film.en.2.srt film.English.srt film.German.vtt",
        "film.default.en.srt film.forced.srt film.en.cc.srt film.sub FILM.SRT Film.En.Srt film.mkv.srt film.mkv.en.srt",
        "film_en.srt film-eng.srt film_pt-BR.srt film.русский.srt film.en[sdh].srt film_de.srt film[it].srt",
        "subs/film.en.srt Subs/film.srt Subtitles/film.de.srt subs/2_English.srt Subs/German.srt subs/film/3_fre.srt",
    ],
)
def test_language_and_purpose_may_follow_the_name(tmp_path: Path, names: str) -> None:
    for number, name in enumerate([*names.split(), "film (English).srt", "film - English.srt"]):
        assert beside(tmp_path / str(number), "film.mkv", name) == {name}


@pytest.mark.parametrize(
    "name",
    [
        *("film2.srt", "film 2.srt", "film.2.srt", "film.cd2.srt", "film.part2.srt", "film.s01e02.srt", "fil.srt"),
        *("film_it.srt", "film_is_no.srt", "film.part.en.srt", "film.trailer.en.srt", "film (cut).srt"),
        *("film.en.txt", "my film.srt", "other/film.srt"),
    ],
)
def test_another_name_is_for_another_video(tmp_path: Path, name: str) -> None:
    assert beside(tmp_path, "film.mkv", name) == set()


def test_the_video_with_the_longest_name_has_it(tmp_path: Path) -> None:
    names = ("film.srt", "film.en.srt", "film.part2.srt", "film.part2.en.srt", "film.de.srt", "film_en.srt")
    assert beside(tmp_path, "film.mkv", "film.part2.mkv", "film.de.mp4", "film_en.avi", *names) == {
        "film.srt",
        "film.en.srt",
    }
    assert beside(tmp_path, "film.part2.mkv") == {"film.part2.srt", "film.part2.en.srt"}
    assert beside(tmp_path, "film.de.mp4") == {"film.de.srt"}
    assert beside(tmp_path, "film_en.avi") == {"film_en.srt"}


def test_parts_have_their_own(tmp_path: Path) -> None:
    names = ("film.cd1.srt", "film.cd2.srt", "film.cd2.en.srt", "film.srt")
    assert beside(tmp_path, "film.cd1.mkv", "film.cd2.mkv", *names) == {"film.cd1.srt"}
    assert beside(tmp_path, "film.cd2.mkv") == {"film.cd2.srt", "film.cd2.en.srt"}


def test_two_containers_of_one_name_share_what_does_not_name_one(tmp_path: Path) -> None:
    assert beside(tmp_path, "film.mkv", "film.mp4", "film.srt", "film.mp4.srt") == {"film.srt"}
    assert beside(tmp_path, "film.mp4") == {"film.srt", "film.mp4.srt"}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_composed_and_decomposed_accents_are_the_same(tmp_path: Path, forms: tuple[str, str]) -> None:
    video, subtitles = (unicodedata.normalize(form, "Été à Köln") for form in forms)
    assert beside(tmp_path, f"{video}.mkv", f"{subtitles}.FR.srt") == {f"{subtitles}.FR.srt"}


def test_a_folder_of_subtitles_is_shared_by_name(tmp_path: Path) -> None:
    names = ("Subs/a.en.srt", "Subs/b/2_English.srt", "Subs/English.srt")
    assert beside(tmp_path, "a.mkv", "b.mkv", *names) == {"Subs/a.en.srt"}
    assert beside(tmp_path, "b.mkv") == {"Subs/b/2_English.srt"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_pipes_and_folders_are_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "film.srt")
    (tmp_path / "film.en.srt").mkdir()
    assert beside(tmp_path, "film.mkv") == set()


@pytest.mark.parametrize(
    ("name", "language"),
    [
        *(("film.ru.srt", "ru"), ("film.en.hi.srt", "en"), ("film_ger.srt", "de"), ("film.zh-TW.srt", "zh_hant")),
        *(("film.zh.srt", None), ("film.srt", None), ("2_Polish.srt", "pl"), ("film.pt-BR.srt", "pt")),
    ],
)
def test_the_language_is_what_follows_the_name_of_the_video(name: str, language: str | None) -> None:
    assert language_of(Path(name), Path("film.mkv")) == language
    assert language_of(Path("what.he.is.srt"), Path("what.he.is.mkv")) is None


def test_a_change_of_any_of_them_is_seen(tmp_path: Path) -> None:
    assert beside(tmp_path, "film.mkv", "Subs/film.srt") == {"Subs/film.srt"}
    name = SubtitleFolders().fingerprint(tmp_path / "film.mkv")
    assert SubtitleFolders().fingerprint(tmp_path / "film.mkv") == name
    (tmp_path / "Subs" / "film.srt").write_text("more")
    assert SubtitleFolders().fingerprint(tmp_path / "film.mkv") != name
