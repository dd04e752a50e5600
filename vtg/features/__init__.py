"""Features of videos on the disk, and the way there: frames are decoded and encoded side by side, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names

if TYPE_CHECKING:
    from vtg.features.pipeline import encode_videos
    from vtg.features.store import FeatureKey, FeatureStore, VideoFeatures

__all__ = [
    "FeatureKey",
    "FeatureStore",
    "VideoFeatures",
    "encode_videos",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FeatureKey": "store",
        "FeatureStore": "store",
        "VideoFeatures": "store",
        "encode_videos": "pipeline",
    },
)
