"""Read the transcript of a video from subtitle files and tracks; write SubRip.

In: the path of a video. Out: `TranscriptLine`s in order of time, from its subtitle tracks and the subtitle files that
belong to it. Read `folders` (which files belong to a video), `encodings` with `language_models` (decode their text),
`formats` with `cleaning` and `markup` (parse it into cues), `cues` (cues to lines that hold each word once) and
`reading`, which combines them. `writing` is independent. What is listed in `__all__` is public.
"""

from vtg.video.subtitles.folders import SubtitleFolders
from vtg.video.subtitles.formats import parse_subtitles
from vtg.video.subtitles.reading import said_lines
from vtg.video.subtitles.writing import sequential_captions

__all__ = ["SubtitleFolders", "parse_subtitles", "said_lines", "sequential_captions"]
