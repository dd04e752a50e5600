"""Offline features of many videos, from one machine to a cluster: what is there and whole is never done again."""

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
