"""Which files visitors may add by name: what is below the roots, wherever links lead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from streamlit_app.roots import Roots
from vtg.errors import VtgError
from vtg.video.sources import find_videos
from vtg.video.subtitles import SubtitleFolders


class TestRoots:
    """What visitors may add by name."""

    @pytest.fixture
    def roots(self, tmp_path: Path) -> Roots:
        (tmp_path / "films" / "2024" / "may").mkdir(parents=True)
        (tmp_path / "films" / ".hidden").mkdir()
        (tmp_path / "films-of-others").mkdir()
        return Roots([tmp_path / "films"])

    def test_what_is_inside_may_be_added(self, roots: Roots, tmp_path: Path) -> None:
        assert roots.allowed(str(tmp_path / "films" / "2024")) == (tmp_path / "films" / "2024").resolve()
        assert roots.allowed("2024/may") == (tmp_path / "films" / "2024" / "may").resolve()
        assert roots.folders() == [str((tmp_path / "films" / part).resolve()) for part in ("", "2024", "2024/may")]

    @pytest.mark.parametrize("path", ["../films-of-others", "/", "2024/../../films-of-others", "~"])
    def test_what_is_outside_may_not(self, roots: Roots, path: str) -> None:
        with pytest.raises(VtgError, match="outside the folders"):
            roots.allowed(path)

    def test_a_link_that_leads_out_may_not(self, roots: Roots, tmp_path: Path) -> None:
        try:
            (tmp_path / "films" / "out").symlink_to(tmp_path / "films-of-others")
        except OSError:
            pytest.skip("no links on this system")
        with pytest.raises(VtgError, match="outside the folders"):
            roots.allowed("out")

    def test_links_that_lead_out_are_neither_listed_nor_walked(
        self, roots: Roots, tmp_path: Path, make_video: Callable[..., Path]
    ) -> None:
        films, others = tmp_path / "films", tmp_path / "films-of-others"
        make_video(films / "a.mp4", seconds=2)
        make_video(others / "b.mp4", seconds=2)
        (others / "a.srt").write_text("1\n00:00:00,500 --> 00:00:01,000\na secret\n")
        try:
            (films / "out").symlink_to(others)
            (films / "b.mp4").symlink_to(others / "b.mp4")
            (films / "a.srt").symlink_to(others / "a.srt")
            (films / "inside").symlink_to(films / "2024")
        except OSError:
            pytest.skip("no links on this system")
        assert "out" not in {Path(path).name for path in roots.folders()}
        within = roots.places
        assert find_videos([films], within)[0] == [(films / "a.mp4").resolve()]
        assert len(find_videos([films])[0]) == 2
        assert find_videos([films / "b.mp4"], within)[1], "it is named as what may not be read"
        assert SubtitleFolders().subtitle_files(films / "a.mp4") and not SubtitleFolders(within).subtitle_files(
            films / "a.mp4"
        )
        assert roots.escapes(films / "b.mp4") and not roots.escapes(films / "a.mp4")
        assert not roots.escapes(others / "b.mp4"), "what its owner has added from elsewhere"

    def test_who_may_not_know_where_they_are_writes_their_names(self, tmp_path: Path) -> None:
        for place in ("x/films/2024", "y/films/2025"):
            (tmp_path / place).mkdir(parents=True)
        roots = Roots([tmp_path / "x" / "films", tmp_path / "y" / "films"], known=False)
        assert roots.folders() == ["films", "films/2024", "films (2)", "films (2)/2025"]
        assert roots.allowed("films (2)/2025") == (tmp_path / "y" / "films" / "2025").resolve()
        for written in ("/etc", str(tmp_path), "films/../../..", "~root", "x" * 5000, "\u3042" * 300, "nothing"):
            with pytest.raises(VtgError) as refused:
                roots.allowed(written)
            assert str(tmp_path) not in str(refused.value).removeprefix(written)

    def test_what_is_not_there_or_no_path_is_told_so(self, roots: Roots) -> None:
        with pytest.raises(VtgError, match="no such file"):
            roots.allowed("2025")
        with pytest.raises(VtgError, match=r"not a path|no such file"):
            roots.allowed("a\0b")
        with pytest.raises(VtgError, match="--root"):
            Roots([]).allowed("/tmp")
