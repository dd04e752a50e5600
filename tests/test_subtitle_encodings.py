"""Encodings that a file does not say: short subtitles of many languages, in all that people saved them in."""

from __future__ import annotations

import codecs
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtg.video.subtitles import SubtitleFolders, read_transcript
from vtg.video.subtitles.encodings import UnknownEncodingError, decode_text

# Two cues of each language, and the encodings that its files are found in.
SENTENCES = {
    "fr": ("J'ai rêvé que tu étais là.\nÇa m'a fait très peur.", "cp1252 iso8859-1 iso8859-15 mac_roman cp850"),
    "de": ("Über den Dächern wird es früh hell.\nGrüß deine Schwester schön.", "cp1252 iso8859-1 iso8859-15"),
    "es": ("¿Quién rompió la ventana del salón?\nMi niño no fue, señora.", "cp1252 iso8859-1"),
    "pt": ("Ninguém respondeu à porta.\nO coração dela não aguentou.", "cp1252 iso8859-1"),
    "it": ("La città è più bella di notte.\nPerò così non può andare.", "cp1252 iso8859-1"),
    "sv": ("Björnen sover i snön.\nVi åker över sjön på måndag.", "cp1252 iso8859-1"),
    "da": ("Skibet sejler mod øen.\nPå fredag må vi gå.", "cp1252 iso8859-1"),
    "fi": ("Tämä järvi on jäätynyt.\nÄlä mene sinne yksin, pyydän.", "cp1252 iso8859-1"),
    "is": ("Þeir sáu eldinn á fjallinu.\nÉg hélt að þú værir dáinn.", "cp1252 iso8859-1"),
    "pl": ("Królowa śpi w wieży.\nZgubiłem książkę, którą mi dałaś.", "cp1250 iso8859-2"),
    "cs": ("Královna spí ve věži.\nŽádný člověk ho neviděl přijít.", "cp1250 iso8859-2 cp852"),
    "sk": ("Kráľovná spí vo veži.\nŽiadny človek ho nevidel prísť.", "cp1250 iso8859-2"),
    "hu": ("A királynő a toronyban alszik.\nElőször nem hittem a fülemnek.", "cp1250 iso8859-2"),
    "ro": ("Împărăteasa doarme în turn.\nPână mâine sunt aşteptaţi acasă.", "cp1250 iso8859-2"),
    "hr": ("Kraljica spava, već je noć.\nMoraš reći što je čuo čuvar.", "cp1250 iso8859-2"),
    "tr": ("Kraliçe kulede uyuyor, gürültü yapmayın.\nGüneş doğarken yağmur yağıyordu.", "cp1254 iso8859-9"),
    "et": ("Kuninganna magab öösel tornis.\nÜks väike tüdruk jõudis järve äärde.", "cp1257 iso8859-13"),
    "lv": ("Karaliene guļ tornī.\nNeviens neredzēja, kā viņš ieradās šovakar.", "cp1257 iso8859-13"),
    "lt": ("Karalienė miega bokšte.\nNiekas nematė, kaip jis čia atėjo šį vakarą.", "cp1257 iso8859-13 iso8859-4"),
    "ru": ("Королева спит в башне.\nНикто не видел, как он вошёл.", "cp1251 koi8-r iso8859-5 cp866 mac_cyrillic"),
    "uk": ("Королева спить у вежі.\nНіхто не бачив, як він увійшов, їй-богу.", "cp1251 koi8-u iso8859-5"),
    "bg": ("Кралицата спи в кулата.\nНикой не видя как влезе човекът.", "cp1251 iso8859-5"),
    "sr": ("Краљица спава у кули.\nНико није видео како је ушао.", "cp1251 iso8859-5"),
    "el": ("Η βασίλισσα κοιμάται στον πύργο.\nΚανείς δεν τον είδε να μπαίνει.", "cp1253 iso8859-7"),
    "he": ("המלכה ישנה במגדל.\nאיש לא ראה איך הוא נכנס.", "cp1255 iso8859-8"),
    "ar": ("الملكة نائمة في البرج.\nلم يره أحد وهو يدخل القصر.", "cp1256 iso8859-6"),
    "th": ("ราชินีกำลังหลับอยู่ในหอคอย\nไม่มีใครเห็นเขาเข้ามา", "cp874 tis-620"),
    "ja": ("女王は塔で眠っている。\nだれも彼が入るのを見なかった。", "shift_jis cp932 euc-jp iso2022-jp"),
    "zh": ("王后在塔里睡觉。\n没有人看见他进来。", "gb18030 gb2312 gbk"),
    "zh-TW": ("王后在塔裡睡覺。\n沒有人看見他進來。", "big5 cp950 gb18030"),
    "ko": ("여왕은 탑에서 자고 있다.\n아무도 그가 들어오는 것을 보지 못했다.", "euc-kr cp949"),
}
CASES = [(language, encoding) for language, (_, encodings) in SENTENCES.items() for encoding in encodings.split()]
MARKS = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE, "utf-8": codecs.BOM_UTF8}


def subrip(sentences: str) -> str:
    return "".join(
        f"{number}\r\n00:00:0{number},000 --> 00:00:0{number},900\r\n{words}\r\n\r\n"
        for number, words in enumerate(sentences.split("\n"), 1)
    )


@pytest.mark.parametrize(("language", "encoding"), CASES)
def test_two_cues_are_enough_to_tell_the_encoding(language: str, encoding: str) -> None:
    text = subrip(SENTENCES[language][0])
    assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("language", SENTENCES)
def test_unicode_is_read_with_a_mark_and_without(language: str, encoding: str, marked: bool) -> None:
    text = subrip(SENTENCES[language][0])
    assert decode_text((MARKS[encoding] if marked else b"") + text.encode(encoding)) == text


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_sentence_among_english_ones_and_markup_is_read(data: st.DataObject) -> None:
    language, encoding = data.draw(st.sampled_from(CASES))
    others = data.draw(st.lists(st.sampled_from(["Stop!", "<i>Go on.</i>", "- Who?\r\n- Me.", "♪", "OK"]), max_size=5))
    lines = [*SENTENCES[language][0].split("\n"), *(one for one in others if encodable(one, encoding))]
    text = subrip("\n".join(data.draw(st.permutations(lines)))[:-1])
    assert decode_text(text.encode(encoding)) == text


def encodable(text: str, encoding: str) -> bool:
    return text.encode(encoding, "ignore").decode(encoding) == text


def test_the_language_in_the_name_of_a_file_helps(tmp_path: Path) -> None:
    (tmp_path / "film.mkv").write_bytes(b"no video")
    for language, words in (("lt", "šį vakarą"), ("is", "ðað þá"), ("ru", "да"), ("he", "לא")):
        encoding = {"lt": "cp1257", "is": "cp1252", "ru": "cp1251", "he": "cp1255"}[language]
        (tmp_path / f"film.{language}.srt").write_bytes(subrip(words).encode(encoding))
        lines = read_transcript(tmp_path / "film.mkv", SubtitleFolders())
        assert [line.text for line in lines] == [words]
        (tmp_path / f"film.{language}.srt").unlink()


def test_english_with_quotation_marks_of_an_old_editor_is_read() -> None:
    text = subrip("I don’t know “that” café – really…\nIt’s naïve, isn’t it?")
    assert decode_text(text.encode("cp1252")) == text


def test_lines_of_another_encoding_among_utf_8_are_read() -> None:
    parts = [subrip(SENTENCES["fr"][0]), subrip(SENTENCES["fr"][0] + "\nDéjà l'été à Besançon ?")]
    assert decode_text(parts[1].encode() + parts[0].encode("cp1252")) == parts[1] + parts[0]
    cut = parts[1].encode()[: parts[1].encode().rindex("ç".encode()) + 1]  # in the middle of a letter
    assert decode_text(cut) == cut.decode("utf-8", "replace")


@pytest.mark.parametrize("kind", ["noise", "words", "zeros", "all bytes"])
def test_what_is_no_text_is_not_taken_for_one(kind: str) -> None:
    dice = np.random.default_rng(7)
    content = {
        "noise": bytes(dice.integers(128, 256, 300).tolist()),
        "words": b" ".join(bytes(dice.integers(0xA0, 256, size).tolist()) for size in dice.integers(2, 8, 80)),
        "zeros": bytes((dice.integers(0, 256, 300) * dice.integers(0, 2, 300)).tolist()),
        "all bytes": bytes(range(128, 256)) * 2,
    }[kind]
    with pytest.raises(UnknownEncodingError):
        decode_text(b"1\n00:00:01,000 --> 00:00:02,000\n" + content + b"\n")


def test_zeros_at_the_end_of_a_file_are_no_encoding() -> None:
    text = subrip(SENTENCES["cs"][0])
    assert decode_text(text.encode("cp1250") + bytes(3000)) == text
    assert decode_text(text.encode() + bytes(3)) == text


def test_some_damaged_bytes_do_not_hide_the_encoding() -> None:
    content = subrip("\n".join([SENTENCES["ja"][0]] * 5)).encode("cp932")
    damaged = content[:60] + b"\xff\xff" + content[60:]
    assert decode_text(damaged).count("見なかった") == 5


def test_large_files_take_no_longer_than_their_size() -> None:
    began = time.monotonic()
    for content in (b"\xe9\n" * 2_000_000, b"\xe9" * 4_000_000, "привет\n".encode("cp1251") * 500_000):
        decode_text(content)
    assert time.monotonic() - began < 30  # about 3 s
