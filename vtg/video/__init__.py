"""The room that alone knows containers and codecs: PyAV, and ffmpeg where PyAV cannot."""

from vtg.video.editing import Cut, cut
from vtg.video.joining import Reel, Span, concat, write_reel
from vtg.video.probing import VideoInfo, probe
from vtg.video.sampling import Chunk, sample_frames, thumbnail
from vtg.video.writing import Progress

__all__ = [
    "Chunk",
    "Cut",
    "Progress",
    "Reel",
    "Span",
    "VideoInfo",
    "concat",
    "cut",
    "probe",
    "sample_frames",
    "thumbnail",
    "write_reel",
]
