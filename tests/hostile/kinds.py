"""All kinds of cases, with their number in a whole run."""

from __future__ import annotations

from . import arrays, disks, kills, media, pages, playlists, sins, subtitles, texts
from .cases import Kind

__all__ = ["KINDS", "OWN_TESTS"]

KINDS = (
    Kind("media", 2400, media.media),
    Kind("headers", 1800, media.headers),
    Kind("pictures", 600, media.pictures),
    Kind("playlists", 1000, playlists.playlists),
    Kind("subtitles", 1000, subtitles.subtitles),
    Kind("annotations", 1000, texts.annotations),
    Kind("manifests", 700, texts.manifests),
    Kind("recipes", 600, texts.recipes),
    Kind("submissions", 500, texts.submissions),
    Kind("features", 500, arrays.features),
    Kind("weights", 300, arrays.weights),
    Kind("libraries", 250, arrays.libraries),
    Kind("pages", 2, pages.pages, seconds=600.0, has_server=True),
    Kind("kills", 52, kills.kills, seconds=300.0),
    Kind("disks", 117, disks.disks, seconds=180.0, as_root=True),
)
OWN_TESTS = (Kind("sins", sins.COUNT, sins.sins, seconds=10.0),)
