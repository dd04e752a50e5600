"""Records of the result of each video and query, and the settings of an output folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from vtg.extraction.jobs import QueryJob, VideoJob
from vtg.text import json_text, read_json

__all__ = [
    "LAYOUTS",
    "Elsewhere",
    "Layout",
    "OutputSettings",
    "QueryRecord",
    "Step",
    "VideoRecord",
    "from_json",
    "to_json",
]

Layout = Literal["published", "store"]
LAYOUTS: tuple[Layout, ...] = ("published", "store")


@dataclass(frozen=True)
class OutputSettings:
    """What everything in one OUT has in common.

    Attributes:
        encoder: fingerprint of the CLIP.
        clip: the same in words.
        layout: "published" (one float16 ``.npy`` a video and a query) or "store" (the files of a `FeatureStore`).
        videos: folder of videos in the published layout.
        queries: folder of queries in the published layout.
    """

    encoder: str
    clip: str
    layout: Layout = "published"
    videos: str = "clip_b32_vid_k4"
    queries: str = "clip_b32_txt_k4"

    def difference(self, asked: OutputSettings) -> str:
        """In words, how they are not what is asked for."""
        if self.encoder != asked.encoder:
            return f"was made with {self.clip}, not with {asked.clip}"
        if self.layout != asked.layout:
            return f"has the layout {self.layout!r}, not {asked.layout!r}"
        folders = f"{self.videos}/ and {self.queries}/"
        return f"keeps its features in {folders}, not in {asked.videos}/ and {asked.queries}/"


@dataclass(frozen=True)
class VideoRecord:
    """What became of one video; the same for whoever did it, and whenever.

    Attributes:
        id: of the job.
        source: path or URL.
        source_bytes: size of its file; -1 where that cannot be known.
        fps, clips, start, end: as the job asked.
        rate: frames a second in the features.
        duration: of the whole video, seconds.
        file: of the features, below OUT.
        file_bytes: its size.
        sha256: of the values in it, without its header.
        header_sha256: of what is before them.
        shape: of the layers, [T, K, P, Cv].
        failure: why there are no features; "" where there are.
    """

    id: str
    source: str
    source_bytes: int
    fps: float | None
    clips: int | None
    start: float
    end: float | None
    rate: float = 0.0
    duration: float = 0.0
    file: str = ""
    file_bytes: int = 0
    sha256: str = ""
    header_sha256: str = ""
    shape: tuple[int, ...] = ()
    failure: str = ""

    @classmethod
    def of(cls, job: VideoJob, source_bytes: int, **found: Any) -> VideoRecord:
        """A record of a job, with what was found."""
        return cls(job.id, job.source, source_bytes, job.fps, job.clips, job.start, job.end, **found)

    def failure_fields(self) -> dict[str, str]:
        """What reports and ``failures.jsonl`` tell of a video that failed."""
        return {"id": self.id, "source": self.source, "reason": self.failure}

    def is_of(self, job: VideoJob, source_bytes: int) -> bool:
        """Whether a job asks for just this."""
        asked = (job.fps, job.clips, job.start, job.end)
        return (self.fps, self.clips, self.start, self.end) == asked and self.source_bytes == source_bytes


@dataclass(frozen=True)
class QueryRecord:
    """What became of one query.

    Attributes:
        id: of the job.
        text: the sentence.
        file: of the features, below OUT.
        file_bytes: its size.
        sha256: of the values in it, without its header.
        header_sha256: of what is before them.
        shape: [L, K, Cq].
    """

    id: str
    text: str
    file: str
    file_bytes: int
    sha256: str
    header_sha256: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Elsewhere:
    """A job that another process is at work on, or has finished since the plan was made."""

    job: VideoJob | QueryJob


Step: TypeAlias = "VideoRecord | QueryRecord | Elsewhere | int"  # what happened; so many frames were encoded

Record = TypeVar("Record", VideoRecord, QueryRecord)


def to_json(record: VideoRecord | QueryRecord) -> bytes:
    """A record as it is stored."""
    return json_text(asdict(record)).encode()


def from_json(kind: type[Record], content: bytes | None) -> Record | None:
    """A stored record; None where there is none, or, after a power failure, not a whole one."""
    try:
        fields = read_json(content or b"")
        return kind(**{**fields, "shape": tuple(fields["shape"])})
    except (ValueError, TypeError, KeyError):
        return None
