"""Features of videos on the disk, and the way there.

`decoding` opens a video and samples its frames, `pipeline` encodes them meanwhile: indexing and extraction use both;
`store` keeps what comes out, one checked and memory-mapped file a video (`arrays`), layers as int8 (`quantized`) if so
wished; `npy` reads and writes the layout of the published caches; `token_cache` holds what a head has made of a video
before any query.
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
