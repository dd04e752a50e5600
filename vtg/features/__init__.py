"""Encode videos into features, and store them.

In: video files. Out: memory-mapped arrays by content key, encoder and frame rate.

Read `decoding` (open a video and sample its frames) and `pipeline` (encode them in parallel with decoding), which
indexing and extraction share; then `store` (one checksummed file a video) with `arrays` (its file format), `quantized`
(int8 layers) and `thumbnails`. `npy` reads and writes the layout of the published caches; `token_cache` has the type
of stored projections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names

if TYPE_CHECKING:
    from vtg.features.npy import PublishedFeatures
    from vtg.features.pipeline import encode_videos
    from vtg.features.store import FeatureKey, FeatureStore, VideoFeatures, content_key

__all__ = [
    "FeatureKey",
    "FeatureStore",
    "PublishedFeatures",
    "VideoFeatures",
    "content_key",
    "encode_videos",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FeatureKey": "store",
        "FeatureStore": "store",
        "PublishedFeatures": "npy",
        "VideoFeatures": "store",
        "content_key": "store",
        "encode_videos": "pipeline",
    },
)
