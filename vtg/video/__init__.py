"""The room that alone knows containers and codecs: decord, and ffmpeg where decord cannot."""

from vtg.video.editing import Cut, Progress, concat, cut
from vtg.video.probing import VideoInfo, probe
from vtg.video.sampling import Chunk, sample_frames, thumbnail

__all__ = ["Chunk", "Cut", "Progress", "VideoInfo", "concat", "cut", "probe", "sample_frames", "thumbnail"]
