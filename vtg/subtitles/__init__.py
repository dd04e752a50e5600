"""Subtitles: which files belong to a video, what is said in them and in the tracks of the video, and writing SubRip."""

from vtg.subtitles.folders import SubtitleFolders
from vtg.subtitles.formats import parse_subtitles
from vtg.subtitles.reading import said_lines
from vtg.subtitles.writing import captions_in_turn

__all__ = ["SubtitleFolders", "captions_in_turn", "parse_subtitles", "said_lines"]
