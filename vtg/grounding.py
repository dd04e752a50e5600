"""Grounding: knows the order of operations from a video and a sentence to moments and a saliency curve."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtg.errors import VtgError
from vtg.features import FeatureKey, FeatureStore, VideoFeatures
from vtg.r2.attention import attention_map
from vtg.r2.postprocess import postprocess_windows
from vtg.specs import EncoderSpec, model_spec
from vtg.windows import central_window, join_curves, window_starts
from vtg.zero_shot import BACKGROUND_PROMPTS, propose_moments, query_margin, relevance

if TYPE_CHECKING:
    import torch

    from vtg.clip import ClipEncoder, TextFeatures
    from vtg.r2 import R2Head

__all__ = ["Grounder", "Grounding", "Moment", "Saliency", "ground_with_head", "load", "load_encoder"]

MOST_MOMENTS = 50  # of one query in one video, as many as the published heads keep


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
        moments: best first; none from a highlight-only head. The last ones may have a score of 0: repeats of better
            ones that the recipe's suppression left in the list.
        saliency: over the whole video.
    """

    query: str
    video: str
    duration: float
    moments: list[Moment]
    saliency: Saliency
    _attention: Callable[[int, int | None, int | None], np.ndarray] | None = field(
        default=None, repr=False, compare=False
    )

    def attention(self, time: float, layer: int | None = None, word: int | None = None) -> np.ndarray:
        """Where the head looked for the query at a time (R²-Tuning, Sec. 3.2: query-modulated spatial pooling).

        Args:
            time: seconds.
            layer: one of the K layers, 0 the earliest; None takes their mean.
            word: one of the query's words, 0 the first; None takes the strongest at each patch.

        Returns:
            [h, w] float32 in 0…1, over the square that CLIP sees: each patch's share of attention.

        Raises:
            VtgError: a grounding without a head, or a time, layer or word that there is not.
        """
        if self._attention is None:
            raise VtgError("zero-shot: looks at no patches; load an R² head, such as r2-qvhighlights")
        if not 0 <= time <= self.duration:
            raise VtgError(f"{self.video or 'video'}: {time:g} s is not in it; it is {self.duration:.2f} s long")
        times = self.saliency.times
        frame = min(len(times) - 1, int(np.searchsorted(times, time, side="right")) - 1)
        try:
            return self._attention(frame, layer, word)
        except ValueError as error:
            raise VtgError(f"{self.query!r}: {error}") from None

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


def load(
    name: str | os.PathLike[str] | None = None,
    *,
    clip: str | None = None,
    pretrained: str | os.PathLike[str] | None = None,
    fps: float | None = None,
    device: str | torch.device | None = None,
) -> Grounder:
    """Load a model.

    Args:
        name: one of `vtg.available_models()`: "zero-shot" is CLIP alone, "demo" the small bundled one; or the path of
            a head's checkpoint.
        clip: another CLIP of open_clip's catalogue than the model's own.
        pretrained: other weights for it: a tag of the catalogue or a file.
        fps: frames a second to look at; None for what the model wants.
        device: a torch device; None takes the best there is.

    Raises:
        VtgError: no such model, weights that cannot be had, or a head that does not fit the CLIP.
    """
    spec = model_spec(name, clip, pretrained, fps)
    head = spec.load_head()  # first: a head that cannot be had is known sooner than a CLIP is loaded
    return Grounder(load_encoder(spec.encoder, device), head, spec.fps)


def load_encoder(spec: EncoderSpec, device: str | torch.device | None = None) -> ClipEncoder:
    """Load the CLIP that a specification names.

    Raises:
        VtgError: its weights cannot be had.
    """
    from vtg.clip import ClipEncoder

    return ClipEncoder(spec.clip, spec.weights, layers=spec.layers, device=device)


class Grounder:
    """Finds moments: a video goes once through CLIP and is remembered, then each sentence is quick.

    Args:
        encoder: the CLIP that encodes both sides.
        head: an R² head for that CLIP; None grounds by CLIP's embeddings alone.
        fps: frames a second to look at; None for what the head was trained with (without one, 0.5).

    Raises:
        VtgError: the head does not fit the encoder.
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
        """Find the moments of several sentences; the video's side is computed once.

        Args:
            video: a file, or its features.
            queries: sentences.

        Returns:
            One grounding a query, in their order.

        Raises:
            VideoError: the file cannot be read.
            VtgError: features of another CLIP.
        """
        features = video if isinstance(video, VideoFeatures) else self.features(video)
        return self.ground_texts(features, list(queries), self.encoder.encode_texts(list(queries)))

    def ground_texts(
        self, video: VideoFeatures, queries: Sequence[str], texts: Sequence[TextFeatures]
    ) -> list[Grounding]:
        """Find the moments of sentences that are encoded already.

        Args:
            video: its features.
            queries: the sentences, for the answers.
            texts: their features.

        Raises:
            VtgError: features of another CLIP.
        """
        if video.encoder and video.encoder != self.encoder.fingerprint:
            raise VtgError(f"{video.name}: has features of another CLIP than this model's; extract them with this one")
        if not queries:
            return []
        if self.head is None:
            return [self._ground_by_embedding(video, query, text) for query, text in zip(queries, texts, strict=True)]
        return ground_with_head(self.head, video, queries, [text.layers for text in texts])

    def _ground_by_embedding(self, video: VideoFeatures, query: str, text: TextFeatures) -> Grounding:
        margin = self._margin(video, text)
        windows = propose_moments(margin, video.fps, video.duration)
        saliency = Saliency(video.times, relevance(margin))
        return Grounding(query, video.name, video.duration, _moments(windows), saliency)

    def _margin(self, video: VideoFeatures, text: TextFeatures) -> np.ndarray:
        if video.embedding is None:
            raise VtgError(f"{video.name}: has no embeddings to ground by; load an R² head for its layers")
        similarity = video.embedding @ text.embedding.float().numpy()
        return query_margin(similarity, video.embedding @ self._background.T, self.encoder.logit_scale)

    def score_bound(self, video: VideoFeatures, text: TextFeatures) -> float:
        """What no moment of a video scores above, 0…1: much quicker to tell than the moments themselves.

        Without a head a moment scores at most as its best frame does; of a head nothing is known but 1.

        Args:
            video: its features, with embeddings.
            text: the sentence's features.
        """
        return 1.0 if self.head is not None else float(relevance(self._margin(video, text).max()))

    def features(self, path: str | os.PathLike[str]) -> VideoFeatures:
        """Run a file through CLIP; what was done for it before is remembered until the file changes.

        Returns:
            Features that are mapped from a temporary folder of this grounder, so a long video takes no memory.

        Raises:
            VideoError: the file cannot be read.
        """
        from vtg.pipeline import encode_video
        from vtg.video import probe

        path = Path(path)
        info = probe(path)
        status = path.stat()
        known = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
        key = FeatureKey(hashlib.sha256(known.encode()).hexdigest()[:32], self.encoder.fingerprint, self.fps)
        if key not in self._store:
            with self._store.write(key, info.duration) as writer:
                for chunk in encode_video(path, self.encoder, self.fps):
                    writer.append(chunk.layers, chunk.embedding)
        return self._store.open(key, str(path))

    @cached_property
    def _store(self) -> FeatureStore:
        self._folder = tempfile.TemporaryDirectory(prefix="vtg-", ignore_cleanup_errors=True)
        return FeatureStore(self._folder.name)

    @cached_property
    def _background(self) -> np.ndarray:
        texts = self.encoder.encode_texts(BACKGROUND_PROMPTS)
        return np.stack([text.embedding.float().numpy() for text in texts])


def ground_with_head(
    head: R2Head, video: VideoFeatures, queries: Sequence[str], texts: Sequence[torch.Tensor]
) -> list[Grounding]:
    """Ground queries in a video by a head, from cached layers alone: no CLIP is needed.

    A video longer than the head was trained on is cut into overlapping windows, whose moments are merged by the
    recipe's suppression and whose curves are joined without a seam.

    Args:
        head: an R² head.
        video: its features, with layers [T, K, P, Cv].
        queries: the sentences, for the answers.
        texts: the layers of each, [L, K, Cq].

    Returns:
        One grounding a query, in their order.

    Raises:
        VtgError: the video has no layers, or they are of another shape than the head reads.
    """
    layers = video.layers
    if layers is None:
        raise VtgError(f"{video.name}: has embeddings only, and a head needs layers; extract or index it again")
    length, step = (
        max(1, round(seconds * video.fps)) for seconds in (head.config.window_seconds, head.config.step_seconds)
    )
    starts = window_starts(len(layers), length, min(step, length))
    found: list[list[np.ndarray]] = [[] for _ in queries]
    curves: list[list[np.ndarray]] = [[] for _ in queries]
    for start in starts:
        # One window at a time: what is mapped from the disk is only in memory while it is looked at.
        part = _tensor(layers[start : start + length])
        for i, prediction in enumerate(head.predict_batch([part], list(texts), video.fps)):
            curves[i].append(prediction.saliency.float().cpu().numpy())
            if prediction.windows is not None:
                shift = np.array([start / video.fps, start / video.fps, 0.0], np.float32)
                found[i].append(prediction.windows.float().cpu().numpy() + shift)
    groundings = []
    for i, query in enumerate(queries):
        moments = _moments(_merge(head, found[i], video.duration)) if found[i] else []
        saliency = Saliency(video.times, join_curves(curves[i], starts))
        look = _Look(head, layers, texts[i], starts, length)
        groundings.append(Grounding(query, video.name, video.duration, moments, saliency, look))
    return groundings


@dataclass(frozen=True)
class _Look:
    """Asks the head where it looks, in the window that has a frame nearest to its middle."""

    head: R2Head
    layers: np.ndarray
    text: torch.Tensor
    starts: list[int]
    length: int

    def __call__(self, frame: int, layer: int | None, word: int | None) -> np.ndarray:
        start = self.starts[central_window(frame, self.starts, min(self.length, len(self.layers)))]
        part = _tensor(self.layers[start : start + self.length])
        weights = self.head.attention(part, self.text, [frame - start])
        return attention_map(weights.cpu().numpy(), layer, word)[0]


def _tensor(layers: np.ndarray) -> torch.Tensor:
    import torch

    # A copy: a file that is mapped for reading may not be handed to torch, which knows no read-only memory.
    return torch.from_numpy(np.array(layers))


def _merge(head: R2Head, windows: list[np.ndarray], duration: float) -> np.ndarray:
    """Windows of all parts of a video as one list, post-processed as the head's recipe says."""
    config = head.config
    joined = np.concatenate(windows)
    joined = joined[np.argsort(-joined[:, 2], kind="stable")]
    processed = postprocess_windows(
        joined, duration, unit=config.unit, nms=config.nms, threshold=config.nms_threshold, sigma=config.nms_sigma
    )
    return processed[:MOST_MOMENTS]


def _moments(windows: np.ndarray) -> list[Moment]:
    return [Moment(float(start), float(end), float(score)) for start, end, score in windows]


def _check_fit(encoder: ClipEncoder, head: R2Head) -> None:
    config = head.config
    name = config.name or "this head"
    if not encoder.class_tokens:
        raise VtgError(f"{name}: reads a class token, and this CLIP's image tower has none; choose CLIP's own ViTs")
    found = (encoder.layers, encoder.tokens, encoder.width, encoder.text_width)
    wanted = (config.layers, config.tokens or encoder.tokens, config.video_width, config.query_width)
    if found != wanted:
        raise VtgError(
            f"{name}: reads {_shape(wanted)}, and this CLIP gives {_shape(found)}; "
            f"load it with the CLIP that it was trained on ({config.clip_model or 'not named in its file'})"
        )


def _shape(sizes: tuple[int, ...]) -> str:
    layers, tokens, width, text_width = sizes
    return f"{layers} layers of {tokens} tokens, {width} and {text_width} wide"
