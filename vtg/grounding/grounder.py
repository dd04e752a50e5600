"""Ground sentences in a video with a head or with CLIP only: from a file to moments and a saliency curve."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vtg.clip.specs import EncoderSpec
from vtg.errors import VtgError
from vtg.features.store import FeatureKey, FeatureStore, VideoFeatures
from vtg.grounding.results import Grounding, Moment, Saliency
from vtg.grounding.windows import MAX_MOMENTS, check_groundable, ground_each_with_head, ground_with_head, moments_of
from vtg.grounding.zero_shot import BACKGROUND_PROMPTS, propose_moments, query_margin, relevance
from vtg.models.specs import model_spec

if TYPE_CHECKING:
    import torch

    from vtg.clip.encoder import ClipEncoder
    from vtg.clip.outputs import TextFeatures
    from vtg.r2 import Predictor, R2Head

__all__ = ["Grounder", "Grounding", "Moment", "Saliency", "ground_with_head", "load", "load_encoder"]


def load(
    name: str | os.PathLike[str] | None = None,
    *,
    clip: str | None = None,
    pretrained: str | os.PathLike[str] | None = None,
    fps: float | None = None,
    device: str | torch.device | None = None,
    preprocessing: str | None = None,
    language: str | None = None,
) -> Grounder:
    """Load a model.

    Args:
        name: one of `vtg.available_models()`: "zero-shot" uses CLIP only, "demo" is the small bundled model; or
            the path of a head's checkpoint.
        clip: a CLIP in open_clip's catalogue that replaces the model's.
        pretrained: weights that replace those of the CLIP: a tag of the catalogue or a file.
        fps: sampling rate, frames per second; None for the model's.
        device: a torch device; None for the best available.
        preprocessing: of frames, instead of that of the weights; see `vtg.ClipEncoder`.
        language: of the queries, for tokenizers that need it; see `vtg.ClipEncoder`.

    Raises:
        VtgError: unknown model, weights that cannot be loaded, or a head that does not match the CLIP.
    """
    spec = model_spec(name, clip, pretrained, fps, preprocessing)
    head = spec.load_head()  # first, as it fails sooner than loading a CLIP
    encoder = load_encoder(spec.encoder, device, with_layers=head is not None, language=language)
    return Grounder(encoder, head, spec.fps)


def load_encoder(
    spec: EncoderSpec,
    device: str | torch.device | None = None,
    encoding: str = "float32",
    *,
    with_layers: bool = True,
    language: str | None = None,
) -> ClipEncoder:
    """Load the CLIP of a specification.

    Args:
        spec: of the CLIP.
        device: a torch device; None for the best available.
        encoding: arithmetic of its image tower on a CPU; see `vtg.ClipEncoder`.
        with_layers: False where only embeddings are used; they are those of `spec`, and so is the fingerprint.
        language: of the sentences; see `vtg.ClipEncoder`.

    Raises:
        VtgError: its weights cannot be loaded.
    """
    from vtg.clip.encoder import ClipEncoder

    encoder = ClipEncoder(
        spec.clip,
        spec.weights,
        layers=spec.layers if with_layers else 0,
        device=device,
        encoding=encoding,
        preprocessing=spec.preprocessing,
        language=language,
    )
    encoder.identity = spec
    return encoder


class Grounder:
    """Finds moments in videos; each video is encoded once, after which queries are fast.

    Args:
        encoder: the CLIP that encodes frames and sentences.
        head: an R² head for that CLIP; None to use CLIP's embeddings only.
        fps: sampling rate, frames per second; None for that of the head (without a head, 0.5).

    Raises:
        VtgError: the head does not match the encoder.
    """

    def __init__(self, encoder: ClipEncoder, head: R2Head | None = None, fps: float | None = None) -> None:
        self.encoder = encoder
        self.head = head.to(encoder.device).eval() if head is not None else None
        self.fps = fps or (head.config.fps if head is not None else 0.5)
        if head is not None:
            _check_fit(encoder, head)

    def ground(self, video: str | os.PathLike[str] | VideoFeatures, query: str) -> Grounding:
        """Find the moments of a video that a sentence describes.

        Args:
            video: a file, or its features.
            query: the sentence.

        Raises:
            VideoError: the file cannot be read.
            VtgError: features of another CLIP.
        """
        return self.ground_many(video, [query])[0]

    def ground_many(self, video: str | os.PathLike[str] | VideoFeatures, queries: Sequence[str]) -> list[Grounding]:
        """Find the moments for several sentences; the video is encoded once.

        Args:
            video: a file, or its features.
            queries: sentences.

        Returns:
            One grounding per query, in their order.

        Raises:
            VideoError: the file cannot be read.
            VtgError: features of another CLIP.
        """
        features = video if isinstance(video, VideoFeatures) else self.features(video)
        return self.ground_texts(features, list(queries), self.encoder.encode_texts(list(queries)))

    def ground_texts(
        self, video: VideoFeatures, queries: Sequence[str], texts: Sequence[TextFeatures]
    ) -> list[Grounding]:
        """Find the moments for sentences that are already encoded.

        Args:
            video: its features.
            queries: the sentences, for the results.
            texts: their features.

        Raises:
            VtgError: features of another CLIP.
        """
        return self.ground_each([video], queries, texts)[0]

    def ground_each(
        self,
        videos: Sequence[VideoFeatures],
        queries: Sequence[str],
        texts: Sequence[TextFeatures],
        max_moments: int | None = None,
    ) -> list[list[Grounding]]:
        """Find the moments for encoded sentences in several videos, in batches.

        Args:
            videos: their features.
            queries: the sentences, for the results.
            texts: their features.
            max_moments: maximum number of moments per video and query; None for all.

        Returns:
            For each video, one grounding per sentence.

        Raises:
            VtgError: `check_groundable` refuses a video.
        """
        if not queries:
            return [[] for _ in videos]
        for video in videos:
            self._check_encoder(video)
        if self.head is not None:
            layers = [text.layers for text in texts]
            count = MAX_MOMENTS if max_moments is None else max_moments
            groundings = ground_each_with_head(self.head, videos, queries, layers, self._predictor, count)
            return [[_without_empty_moments(grounding) for grounding in own] for own in groundings]
        return [
            [
                self._ground_by_embedding(video, query, text, max_moments)
                for query, text in zip(queries, texts, strict=True)
            ]
            for video in videos
        ]

    def check_groundable(self, video: VideoFeatures) -> None:
        """Check that this model can ground queries in a video with the given features.

        Raises:
            VtgError: they are features of another CLIP, or not those that the head needs.
        """
        self._check_encoder(video)
        if self.head is not None:
            check_groundable(self.head, video)

    def _check_encoder(self, video: VideoFeatures) -> None:
        if video.encoder and video.encoder != self.encoder.fingerprint:
            raise VtgError(
                f"{video.name}: the features are of another CLIP than this model's; extract them with this CLIP"
            )

    def _ground_by_embedding(
        self, video: VideoFeatures, query: str, text: TextFeatures, max_moments: int | None
    ) -> Grounding:
        margin = self._margin(video, text)
        windows = propose_moments(margin, video.fps, video.duration)
        saliency = Saliency(video.times, relevance(margin))
        return Grounding(query, video.name, video.duration, moments_of(windows[:max_moments]), saliency)

    def _margin(self, video: VideoFeatures, text: TextFeatures) -> np.ndarray:
        if video.embedding is None:
            raise VtgError(f"{video.name}: has no embeddings for zero-shot grounding; use a model with an R² head")
        similarity = video.embedding @ text.embedding.float().numpy()
        return query_margin(similarity, video.embedding @ self.background.T, self.encoder.logit_scale)

    def score_bound(self, video: VideoFeatures, text: TextFeatures) -> float:
        """Upper bound of the scores of a video's moments, 0…1, much faster to compute than the moments.

        Without a head, a moment's score is at most that of its best frame; with a head, the bound is 1.

        Args:
            video: its features, with embeddings.
            text: the sentence's features.
        """
        return 1.0 if self.head is not None else float(relevance(self._margin(video, text).max()))

    def features(self, path: str | os.PathLike[str]) -> VideoFeatures:
        """Encode a file with CLIP; results are cached until the file changes.

        Returns:
            Features that are memory-mapped from a temporary folder of this grounder.

        Raises:
            VideoError: the file cannot be read.
        """
        from vtg.features.pipeline import encode_video
        from vtg.video import probe

        path = Path(path)
        info = probe(path)
        status = path.stat()
        known = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
        digest = hashlib.sha256(known.encode("utf-8", "surrogatepass")).hexdigest()
        key = FeatureKey(digest[:32], self.encoder.fingerprint, self.fps)
        if key not in self._store:
            layers = "float16" if self.encoder.layers else "none"
            with self._store.write(key, info.duration, layers) as writer:
                for chunk in encode_video(path, self.encoder, self.fps):
                    writer.append(chunk)
        return self._store.open(key, str(path))

    @cached_property
    def _store(self) -> FeatureStore:
        self._folder = tempfile.TemporaryDirectory(prefix="vtg-", ignore_cleanup_errors=True)
        return FeatureStore(self._folder.name)

    @cached_property
    def _predictor(self) -> Predictor:
        from vtg.r2 import Predictor

        assert self.head is not None  # used with a head only
        return Predictor(self.head)

    @cached_property
    def background(self) -> np.ndarray:
        """[B, E] embeddings of the background prompts, unit length."""
        texts = self.encoder.encode_texts(BACKGROUND_PROMPTS)
        return np.stack([text.embedding.float().numpy() for text in texts])


def _check_fit(encoder: ClipEncoder, head: R2Head) -> None:
    config = head.config
    name = config.name or "this head"
    if config.class_token and not encoder.class_tokens:
        raise VtgError(
            f"{name}: needs a class token, and this CLIP's image tower has none; choose one of OpenAI's ViTs"
        )
    if encoder.class_tokens and not config.class_token:
        raise VtgError(
            f"{name}: was trained on a CLIP without class token, and this CLIP's image tower has one; "
            f"load it with the CLIP that it was trained on ({config.clip_model or 'unknown'})"
        )
    found = (encoder.layers, encoder.tokens, encoder.width, encoder.text_width)
    layers = max(config.layers, encoder.layers)  # a head with fewer layers than the encoder's uses the last ones
    wanted = (layers, config.tokens or encoder.tokens, config.video_width, config.query_width)
    if found != wanted:
        raise VtgError(
            f"{name}: needs {_shape(wanted)}, and this CLIP has {_shape(found)}; "
            f"load it with the CLIP that it was trained on ({config.clip_model or 'unknown'})"
        )


def _without_empty_moments(grounding: Grounding) -> Grounding:
    """Remove moments that have no length after rounding; they count in published figures, but cannot be shown."""
    moments = [moment for moment in grounding.moments if moment.end > moment.start]
    return grounding if len(moments) == len(grounding.moments) else replace(grounding, moments=moments)


def _shape(sizes: tuple[int, ...]) -> str:
    layers, tokens, width, text_width = sizes
    return f"{layers} layers of {tokens} tokens, {width} and {text_width} wide"
