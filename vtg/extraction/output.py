"""Write extracted features in one of the layouts, with a record of each; check which of them are complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from vtg.errors import VideoError, VtgError
from vtg.extraction.jobs import QueryJob, VideoJob
from vtg.extraction.places import Place, open_place
from vtg.extraction.records import OutputSettings, QueryRecord, VideoRecord, from_json, to_json
from vtg.features.npy import EXTRACTION_SETTINGS, NPY_HEADER_BYTES, NpyWriter, is_folder_name
from vtg.features.store import EncodedChunk, FeatureKey, FeatureStore
from vtg.files.text import json_text, read_json
from vtg.files.whole import PART_SUFFIX

__all__ = ["FAILURES", "Output", "header_sha256", "query_claim", "span_key"]

FORMAT = 1  # version of the files in OUT besides the features; later versions are rejected
SETTINGS = EXTRACTION_SETTINGS
VIDEO_RECORDS = "extraction/videos"
QUERY_RECORDS = "extraction/queries"
SEGMENT_RECORDS = "extraction/segments"
SEGMENT_SUFFIX = ".safetensors"
FAILURES = "failures.jsonl"
MAX_HEADER_BYTES = 1 << 20  # a damaged file may claim a header larger than memory


class Output:
    """A folder of features, with a record of each.

    A record is written after its features: a video or query with a record is finished.

    Args:
        out: path or URL.
        settings: of the output.
        keep_folders: whether the folders of an earlier run in `out` are used in place of those of the settings.
    """

    def __init__(self, out: str, settings: OutputSettings, keep_folders: bool = False) -> None:
        self.out = out
        self.settings = settings
        self._keep_folders = keep_folders
        self.place: Place = open_place(out)

    def check(self) -> None:
        """Check that an extraction with these settings can start or continue; nothing is written.

        Raises:
            VtgError: it cannot be written to, or has features of another CLIP, layout or program.
        """
        self.place.check()
        found = read_settings(self.place)
        if found is not None and self._keep_folders and all(map(is_folder_name, (found.videos, found.queries))):
            self.settings = replace(self.settings, videos=found.videos, queries=found.queries)
        if found is None and any(name.endswith(".npy") for name in self.place.sizes(self.settings.videos)):
            raise VtgError(f"{self.out}: has features that were not extracted by vtg; choose another OUT")
        if (
            found is not None and replace(found, clip=self.settings.clip) != self.settings
        ):  # copies of weights are the same
            is_empty = not (self.place.sizes(VIDEO_RECORDS) or self.place.sizes(QUERY_RECORDS))
            mend = f"nothing is in it yet: remove {SETTINGS} there, or choose" if is_empty else "choose"
            raise VtgError(f"{self.out}: {found.difference(self.settings)}; {mend} another OUT")

    def begin(self) -> None:
        """Create the folder and its settings, if they do not exist."""
        self.place.make()
        with self.place.claims.held(SETTINGS):
            if read_settings(self.place) is None:
                document = json.dumps({"format": FORMAT, **asdict(self.settings)}, ensure_ascii=False, indent=1)
                self.place.write(SETTINGS, document.encode())

    @classmethod
    def open(cls, out: str) -> Output:
        """Open an existing output for reading.

        Raises:
            VtgError: it has no settings.
        """
        settings = read_settings(open_place(out))
        if settings is None:
            raise VtgError(f"{out}: nothing was extracted to it; check the folder")
        return cls(out, settings)

    def video_records(self) -> dict[str, VideoRecord]:
        """The records of all videos, by id."""
        contents = self.place.read(_json_files(self.place, VIDEO_RECORDS)).values()
        records = [from_json(VideoRecord, content) for content in contents]
        return {record.id: record for record in records if record}

    def query_records(self) -> dict[str, QueryRecord]:
        """The records of all queries, by id."""
        contents = self.place.read(_json_files(self.place, QUERY_RECORDS)).values()
        records = [from_json(QueryRecord, content) for content in contents]
        return {record.id: record for record in records if record}

    def has_done(self, job: VideoJob, source_bytes: int) -> bool:
        """Whether the features of a job exist and are complete."""
        name = f"{VIDEO_RECORDS}/{job.id}.json"
        record = from_json(VideoRecord, self.place.read([name]).get(name))
        if record is None or record.failure or not record.is_of(job, source_bytes):
            return False
        return self.place.size(record.file) == record.file_bytes

    def claim(self, video: str) -> bool:
        """Claim a video; False if another process has claimed it."""
        return self.place.claims.take(_video_claim(video))

    def release(self, video: str) -> None:
        """Release the claim of a video."""
        self.place.claims.release(_video_claim(video))

    def write_video(
        self,
        job: VideoJob,
        source_bytes: int,
        duration: float,
        content: str,
        chunks: Iterable[EncodedChunk],
    ) -> VideoRecord:
        """Write the features of a video chunk by chunk, and its record.

        Args:
            job: the job.
            source_bytes: size of its file.
            duration: of the whole video, seconds.
            content: content key of the file; only the "store" layout needs it.
            chunks: consecutive, from the first frame on.

        Raises:
            VideoError: there are no frames between the job's start and end.
        """
        rate = job.rate(duration)
        if self.settings.layout == "store":
            file, sha256, shape = self._write_to_store(job, rate, duration, content, chunks)
        else:
            file, sha256, shape = self._write_npy(job, chunks)
        written = self.place.path(file)
        record = VideoRecord.of(
            job,
            source_bytes,
            rate=rate,
            duration=duration,
            file=file,
            file_bytes=written.stat().st_size,
            sha256=sha256,
            header_sha256=header_sha256(written),
            shape=shape,
        )
        self.place.publish(file)
        self._write_record(record)
        return record

    def _write_npy(self, job: VideoJob, chunks: Iterable[EncodedChunk]) -> tuple[str, str, tuple[int, ...]]:
        file = f"{self.settings.videos}/{job.id}.npy"
        with NpyWriter(self.place.path(file)) as writer:
            for chunk in chunks:
                writer.append(chunk.layers)
            if not writer.shape[0]:
                raise _no_frames(job)
        return file, writer.sha256, writer.shape

    def _write_to_store(
        self, job: VideoJob, rate: float, duration: float, content: str, chunks: Iterable[EncodedChunk]
    ) -> tuple[str, str, tuple[int, ...]]:
        key = FeatureKey(span_key(content, job.start, job.end), self.settings.encoder, rate)
        shape: tuple[int, ...] = ()
        with (
            self.place.claims.held(key.file_name),
            FeatureStore(self.place.path(key.file_name).parent).write(key, duration) as writer,
        ):
            for chunk in chunks:
                writer.append(chunk)
                shape = (sum(shape[:1]) + len(chunk.layers), *chunk.layers.shape[1:])
            if not shape:
                raise _no_frames(job)
        return key.file_name, writer.sha256, shape

    def write_failure(self, job: VideoJob, source_bytes: int, reason: str) -> VideoRecord:
        """Record that a video failed, and remove features of an earlier file with its id."""
        record = VideoRecord.of(job, source_bytes, failure=reason)
        if self.settings.layout == "published":
            self.place.remove(f"{self.settings.videos}/{job.id}.npy")
        self._write_record(record)
        return record

    def write_query(self, job: QueryJob, layers: np.ndarray) -> QueryRecord:
        """Write the features of a query, [L, K, Cq], and its record."""
        file = f"{self.settings.queries}/{job.id}.npy"
        with NpyWriter(self.place.path(file)) as writer:
            writer.append(layers)
        written = self.place.path(file)
        file_bytes = written.stat().st_size
        record = QueryRecord(job.id, job.text, file, file_bytes, writer.sha256, header_sha256(written), writer.shape)
        self.place.publish(file)
        self.place.write(f"{QUERY_RECORDS}/{job.id}.json", to_json(record))
        return record

    def _write_record(self, record: VideoRecord) -> None:
        self.place.write(f"{VIDEO_RECORDS}/{record.id}.json", to_json(record))

    def write_segment(self, job: VideoJob, first: int, chunk: EncodedChunk) -> None:
        """Write a temporary segment of a long video; ``first`` is the number of its first frame."""
        from safetensors.numpy import save

        arrays = {name: array for name, array in vars(chunk).items() if array is not None}
        self.place.write(_segment(job.id, first), save(arrays))

    def read_segments(self, job: VideoJob, firsts: Iterable[int]) -> Iterator[EncodedChunk]:
        """The segments of a video in order."""
        from safetensors.numpy import load

        for first in sorted(firsts):
            name = _segment(job.id, first)
            yield EncodedChunk(**load(self.place.read([name])[name]))

    def remove_segments(self, job: VideoJob, firsts: Iterable[int]) -> None:
        """Remove the segments of a video."""
        for first in firsts:
            self.place.remove(_segment(job.id, first))

    def write_failures(self, records: Iterable[VideoRecord]) -> None:
        """Update ``failures.jsonl``: one line for each video that failed; without failures the file is removed.

        Args:
            records: of all videos.
        """
        failed = sorted((record for record in records if record.failure), key=lambda record: record.id)
        with self.place.claims.held(FAILURES):
            if failed:
                text = "".join(json_text(record.failure_fields(), indent=None) for record in failed)
                self.place.write(FAILURES, text.encode())
            else:
                self.place.remove(FAILURES)

    def sweep(self) -> None:
        """Remove unfinished files of processes that were killed."""
        claims = self.place.claims
        for name in self.place.sizes():
            owner = self._unfinished_of(name)
            if not owner:
                continue
            if not claims.are_kept:
                if self.place.is_abandoned(name):
                    self.place.remove(name)
            elif claims.take(owner):
                self.place.remove(name)
                claims.release(owner)

    def _unfinished_of(self, name: str) -> str:
        """The claim that the writer of an unfinished file holds; "" for a finished file."""
        final = name.removesuffix(PART_SUFFIX).rpartition(".")[0] if name.endswith(PART_SUFFIX) else name
        if final.startswith(f"{SEGMENT_RECORDS}/"):
            return _video_claim(
                final.removeprefix(f"{SEGMENT_RECORDS}/").removesuffix(SEGMENT_SUFFIX).rpartition(".")[0]
            )
        if final == name:
            return ""
        for folder, suffix in ((self.settings.videos, ".npy"), (VIDEO_RECORDS, ".json")):
            if final.startswith(f"{folder}/"):
                return _video_claim(final.removeprefix(f"{folder}/").removesuffix(suffix))
        for folder, suffix in ((self.settings.queries, ".npy"), (QUERY_RECORDS, ".json")):
            if final.startswith(f"{folder}/"):
                return query_claim(final.removeprefix(f"{folder}/").removesuffix(suffix))
        return final


def read_settings(place: Place) -> OutputSettings | None:
    """Read the settings of an output folder; None if it has none.

    Raises:
        VtgError: the settings are damaged, or of a later version.
    """
    content = place.read([SETTINGS]).get(SETTINGS)
    if content is None:
        return None
    try:
        fields = read_json(content)
        if fields.pop("format") > FORMAT:
            raise VtgError(f"{place.name}: was made by a later vtg; update with: pip install -U vtground")
        return OutputSettings(**fields)
    except (ValueError, TypeError, KeyError):
        raise VtgError(f"{place.name}/{SETTINGS}: damaged; choose another OUT") from None


def span_key(content: str, start: float, end: float | None) -> str:
    """The content key of a span of a video; that of the whole video is the file's."""
    if start == 0 and end is None:
        return content
    return hashlib.sha256(f"{content} {start!r} {end!r}".encode()).hexdigest()[: len(content)]


def header_sha256(path: Path) -> str:
    """The SHA-256, in 64 hex digits, of the header of a file of features.

    Args:
        path: a ``.npy`` or safetensors file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if path.suffix == ".npy":
            return hashlib.sha256(file.read(NPY_HEADER_BYTES)).hexdigest()
        length = file.read(8)
        rest = file.read(min(int.from_bytes(length, "little"), MAX_HEADER_BYTES))
        return hashlib.sha256(length + rest).hexdigest()


def query_claim(query: str) -> str:
    """The name of a claim on a query."""
    return f"query {query}"


def _video_claim(video: str) -> str:
    return f"video {video}"


def _segment(video: str, first: int) -> str:
    # Not in a folder named by the video's id, which may be a prefix of another id, such as "a" of "a/b".
    return f"{SEGMENT_RECORDS}/{video}.{first:08d}{SEGMENT_SUFFIX}"


def _no_frames(job: VideoJob) -> VideoError:
    return VideoError(job.source, f"has no whole frame between {job.start:g} s and its end")


def _json_files(place: Place, folder: str) -> list[str]:
    return [name for name in place.sizes(folder) if name.endswith(".json")]
