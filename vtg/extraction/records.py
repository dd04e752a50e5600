"""Records of the result of each video and query, and the settings of an output folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from vtg.extraction.jobs import QueryJob, VideoJob
from vtg.files.text import json_text, read_json

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
    """Settings of an output folder.

    Attributes:
        encoder: fingerprint of the CLIP.
        clip: name of the CLIP, for messages.
        layout: "published" (one float16 ``.npy`` a video and a query) or "store" (the files of a `FeatureStore`).
        videos: folder of videos in the published layout.
        queries: folder of queries in the published layout.
    """

    encoder: str
    clip: str
    layout: Layout = "published"
    videos: str = "clip_b32_vid_k4"
    queries: str = "clip_b32_txt_k4"

    def difference(self, requested: OutputSettings) -> str:
        """A description of the difference to the requested settings, for a message."""
        if self.encoder != requested.encoder:
            return f"was made with {self.clip}, not with {requested.clip}"
        if self.layout != requested.layout:
            return f"has the layout {self.layout!r}, not {requested.layout!r}"
        folders = f"{self.videos}/ and {self.queries}/"
        return f"keeps its features in {folders}, not in {requested.videos}/ and {requested.queries}/"


@dataclass(frozen=True)
class VideoRecord:
    """The result of a video; reproducible, without the time and the machine.

    Attributes:
        id: of the job.
        source: path or URL.
        source_bytes: size of its file; -1 if unknown.
        fps, clips, start, end: of the job.
        rate: frames a second of the features.
        duration: of the whole video, seconds.
        file: of the features, relative to OUT.
        file_bytes: its size.
        sha256: of its values, without the header.
        header_sha256: of its header.
        shape: of the layers, [T, K, P, Cv].
        failure: the reason why there are no features; "" if there are.
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
        """Create a record of a job."""
        return cls(job.id, job.source, source_bytes, job.fps, job.clips, job.start, job.end, **found)

    def failure_fields(self) -> dict[str, str]:
        """The fields of a failed video in reports and ``failures.jsonl``."""
        return {"id": self.id, "source": self.source, "reason": self.failure}

    def is_of(self, job: VideoJob, source_bytes: int) -> bool:
        """Whether the record belongs to a job with the same settings and file size."""
        requested = (job.fps, job.clips, job.start, job.end)
        return (self.fps, self.clips, self.start, self.end) == requested and self.source_bytes == source_bytes


@dataclass(frozen=True)
class QueryRecord:
    """The result of a query.

    Attributes:
        id: of the job.
        text: the sentence.
        file: of the features, relative to OUT.
        file_bytes: its size.
        sha256: of its values, without the header.
        header_sha256: of its header.
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
    """A job that another process is working on, or has finished since the plan was made."""

    job: VideoJob | QueryJob


Step: TypeAlias = "VideoRecord | QueryRecord | Elsewhere | int"  # the result of a job, or a number of encoded frames

Record = TypeVar("Record", VideoRecord, QueryRecord)


def to_json(record: VideoRecord | QueryRecord) -> bytes:
    """Serialise a record."""
    return json_text(asdict(record)).encode()


def from_json(kind: type[Record], content: bytes | None) -> Record | None:
    """Parse a stored record; None if there is none, or it is incomplete after a power failure."""
    try:
        fields = read_json(content or b"")
        return kind(**{**fields, "shape": tuple(fields["shape"])})
    except (ValueError, TypeError, KeyError):
        return None
