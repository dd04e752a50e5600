"""Extract features of many videos offline, on one machine or a Ray cluster; complete output is never redone.

In: a folder, manifest, benchmark or URL with videos and queries. Out: feature files and records in an output folder or
object store. Read `jobs` with `sources`, `manifest` and `benchmarks` (what to extract), `plan` (what is left), `run`
with `machine` or `cluster` (how), `decoding` and `encoders` (stages), then `output`, `places`, `records` and `verify`.
What is listed in `__all__` is public.
"""

from vtg.extraction.jobs import QueryJob, VideoJob, Work
from vtg.extraction.run import ExtractionReport, WrongWorkError, extract
from vtg.extraction.sources import read_source

__all__ = [
    "ExtractionReport",
    "QueryJob",
    "VideoJob",
    "Work",
    "WrongWorkError",
    "extract",
    "read_source",
]
