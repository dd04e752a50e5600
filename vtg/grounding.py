"""Grounding: knows the order of operations from a video and a sentence to moments and a saliency curve."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtg.specs import ModelSpec, available_models, model_spec
from vtg.zero_shot import BACKGROUND_PROMPTS, propose_moments, query_margin, relevance

if TYPE_CHECKING:
    import torch

    from vtg.clip import ClipEncoder

__all__ = ["Grounder", "Grounding", "Moment", "Saliency", "VideoEmbedding", "available_models", "load"]

VIDEOS_REMEMBERED = 8  # a grounder keeps the embeddings of so many files, about 1 MB an hour each


@dataclass(frozen=True)
class Moment:
    """A stretch of a video.

    Attributes:
        start: seconds.
        end: seconds.
        score: 0…1, how surely it is what was asked for.
    """

    start: float
    end: float
    score: float


@dataclass(frozen=True)
class Saliency:
    """How much each part of a video is what was asked for.

    Attributes:
        times: [T] seconds, the start of each sampled interval.
        scores: [T], higher is more.
    """

    times: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Grounding:
    """The answer to one query on one video.

    Attributes:
        query: the sentence.
        video: the file or id, "" where none was given.
        duration: of the video, seconds.
        moments: best first.
        saliency: over the whole video.
    """

    query: str
    video: str
    duration: float
    moments: list[Moment]
    saliency: Saliency

    def to_dict(self, qid: int | str | None = None, vid: str | None = None) -> dict[str, Any]:
        """The fields of a QVHighlights submission.

        Args:
            qid: the query's id in the data set; left out where None.
            vid: the video's id; the name of the file where None.
        """
        fields = {
            "query": self.query,
            "vid": Path(self.video).stem if vid is None else vid,
            "pred_relevant_windows": [[moment.start, moment.end, moment.score] for moment in self.moments],
            "pred_saliency_scores": [float(score) for score in self.saliency.scores],
        }
        return fields if qid is None else {"qid": qid, **fields}


@dataclass(frozen=True)
class VideoEmbedding:
    """What grounding without training needs of a video.

    Attributes:
        embedding: [T, E] float32, unit length.
        fps: frames a second.
        duration: seconds.
        name: the file or id.
    """

    embedding: np.ndarray
    fps: float
    duration: float
    name: str = ""


def load(
    name: str = "zero-shot",
    *,
    clip: str | None = None,
    pretrained: str | os.PathLike[str] | None = None,
    fps: float | None = None,
    device: str | torch.device | None = None,
) -> Grounder:
    """Load a model by its name.

    Args:
        name: one of `available_models`: "zero-shot" for CLIP alone, "demo" for the small bundled one.
        clip: another CLIP of open_clip's catalogue.
        pretrained: other weights for it: a tag of the catalogue or a file.
        fps: frames a second to look at; None for what the model wants.
        device: a torch device; None takes the best there is.

    Raises:
        VtgError: no such model, or weights that cannot be had.
    """
    return load_spec(model_spec(name, clip, pretrained, fps), device)


def load_spec(spec: ModelSpec, device: str | torch.device | None = None) -> Grounder:
    """Load what a `ModelSpec` names; see `load`."""
    from vtg.clip import ClipEncoder

    encoder = ClipEncoder(spec.encoder.clip, spec.encoder.weights, layers=spec.encoder.layers, device=device)
    return Grounder(encoder, spec.fps)


class Grounder:
    """Finds moments: a video goes once through CLIP and is remembered, then each sentence is quick.

    Args:
        encoder: the CLIP that encodes both sides.
        fps: frames a second to look at.
    """

    def __init__(self, encoder: ClipEncoder, fps: float = 0.5) -> None:
        self.encoder = encoder
        self.fps = fps
        self._videos: dict[tuple[str, int, int], VideoEmbedding] = {}

    def ground(self, video: str | os.PathLike[str] | VideoEmbedding, query: str) -> Grounding:
        """Find the moments of a video that a sentence describes.

        Args:
            video: a file, or what was made of it before.
            query: the sentence.

        Raises:
            VideoError: the file cannot be read.
        """
        return self.ground_many(video, [query])[0]

    def ground_many(self, video: str | os.PathLike[str] | VideoEmbedding, queries: Sequence[str]) -> list[Grounding]:
        """Find the moments of several sentences; the video's side is computed once.

        Args:
            video: a file, or what was made of it before.
            queries: sentences.

        Returns:
            One grounding a query, in their order.

        Raises:
            VideoError: the file cannot be read.
        """
        if not isinstance(video, VideoEmbedding):
            video = self.embed(video)
        texts = self.encoder.encode_texts(list(queries))
        return [
            self.ground_embedding(video, query, text.embedding.float().numpy())
            for query, text in zip(queries, texts, strict=True)
        ]

    def ground_embedding(self, video: VideoEmbedding, query: str, embedding: np.ndarray) -> Grounding:
        """Find moments for a query that is encoded already.

        Args:
            video: the video's side.
            query: the sentence, for the answer.
            embedding: [E], its embedding.
        """
        margin = query_margin(video.embedding @ embedding, video.embedding @ self._background.T, self._scale)
        windows = propose_moments(margin, video.fps, video.duration)
        moments = [Moment(float(start), float(end), float(score)) for start, end, score in windows]
        times = np.arange(len(margin)) / video.fps
        return Grounding(query, video.name, video.duration, moments, Saliency(times, relevance(margin)))

    def embed(self, path: str | os.PathLike[str]) -> VideoEmbedding:
        """Run a file through CLIP; what was done for it before is remembered until the file changes.

        Raises:
            VideoError: the file cannot be read.
        """
        from vtg.pipeline import encode_video
        from vtg.video import probe

        path = Path(path)
        info = probe(path)
        status = path.stat()
        known = (str(path.resolve()), status.st_size, status.st_mtime_ns)
        if known not in self._videos:
            chunks = [chunk.embedding for chunk in encode_video(path, self.encoder, self.fps)]
            while len(self._videos) >= VIDEOS_REMEMBERED:
                self._videos.pop(next(iter(self._videos)))
            self._videos[known] = VideoEmbedding(np.concatenate(chunks), self.fps, info.duration, str(path))
        return self._videos[known]

    @cached_property
    def _background(self) -> np.ndarray:
        texts = self.encoder.encode_texts(BACKGROUND_PROMPTS)
        return np.stack([text.embedding.float().numpy() for text in texts])

    @cached_property
    def _scale(self) -> float:
        return self.encoder.logit_scale
