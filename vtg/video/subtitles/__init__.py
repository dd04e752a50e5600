"""Subtitles: which files belong to a video, what is said in them and in the tracks of the video, and writing SubRip."""

from vtg.video.subtitles.folders import SubtitleFolders
from vtg.video.subtitles.formats import parse_subtitles
from vtg.video.subtitles.reading import said_lines
from vtg.video.subtitles.writing import sequential_captions

__all__ = ["SubtitleFolders", "sequential_captions", "parse_subtitles", "said_lines"]
