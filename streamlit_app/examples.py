"""Choose example queries: everyday phrases that match frames of the library."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from vtg.grounding.zero_shot import BACKGROUND_PROMPTS

if TYPE_CHECKING:
    from vtg.library.library import Library

__all__ = ["choose_examples", "examples_or_none", "rank_phrases"]

log = logging.getLogger(__name__)

MAX_SAMPLED_VIDEOS = 60  # of a large library, evenly spaced
EVERYDAY_PHRASES = (
    "a dog running",
    "a cat on a sofa",
    "a child laughing",
    "people dancing",
    "a person cooking",
    "food on a plate",
    "a cake is cut",
    "someone playing guitar",
    "a crowd at a concert",
    "a person giving a speech",
    "a car driving on a road",
    "riding a bicycle",
    "a train arriving",
    "an airplane in the sky",
    "a boat on the water",
    "waves on a beach",
    "someone swimming",
    "snow on mountains",
    "a walk in the forest",
    "a city street at night",
    "a sunset",
    "flowers in a garden",
    "a bird flying",
    "horses in a field",
    "a football match",
    "a basketball game",
    "someone climbing a rock",
    "skiing down a slope",
    "a person typing on a laptop",
    "a presentation on a screen",
    "a close-up of a face",
    "two people talking",
    "a birthday party",
    "fireworks",
    "a baby",
    "a cartoon animal",
    "pouring a drink",
    "a kitchen",
    "an office",
    "an interview",
)


def examples_or_none(library: Library, count: int) -> tuple[str, ...]:
    """As `choose_examples`; empty where that fails, because examples are optional."""
    try:
        return choose_examples(library, count)
    except Exception:
        log.exception("no examples could be chosen")
        return ()


def choose_examples(library: Library, count: int) -> tuple[str, ...]:
    """Phrases that match the library's videos.

    Args:
        library: with its model loaded.
        count: maximum number of phrases.
    """
    from vtg.library.tables import INDEXED

    paths = [entry.path for entry in library.videos() if entry.state == INDEXED]
    step = max(1, len(paths) // MAX_SAMPLED_VIDEOS)
    embeddings = [library.open_features(path).embedding for path in paths[::step][:MAX_SAMPLED_VIDEOS]]
    frames = [np.asarray(embedding) for embedding in embeddings if embedding is not None]
    if not frames:
        return ()
    phrases, others = _phrases(library), list(BACKGROUND_PROMPTS)
    texts = np.stack([text.embedding.float().numpy() for text in library.encoder.encode_texts([*phrases, *others])])
    logits = [library.encoder.logit_scale * (video @ texts.T) for video in frames]
    return tuple(phrases[index] for index in rank_phrases(logits, len(phrases))[:count])


def rank_phrases(logits: list[np.ndarray], count: int) -> list[int]:
    """Rank phrases by their highest probability in a frame; phrases of different videos come first.

    Args:
        logits: one per video, [T, M + B]: of its frames with the phrases and with the background prompts.
        count: M.

    Returns:
        Indices of the phrases, best first, without phrases that are not the likeliest in any frame.
    """
    clarity = np.stack([_best_share(video)[:count] for video in logits])  # [videos, M]
    best, best_video = clarity.max(axis=0), clarity.argmax(axis=0)
    order = [int(index) for index in np.argsort(-best) if best[index] > 0]
    first_of: dict[int, int] = {}
    for index in order:
        first_of.setdefault(int(best_video[index]), index)
    leading = set(first_of.values())
    return [index for index in order if index in leading] + [index for index in order if index not in leading]


def _best_share(logits: np.ndarray) -> np.ndarray:
    """[M]: each phrase's largest probability among the frames in which it is the likeliest; 0 where it never is."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(shares.shape[1])[None, :] != shares.argmax(axis=1)[:, None]] = 0.0
    return np.asarray(shares.max(axis=0))


def _phrases(library: Library) -> list[str]:
    from vtg.clip.specs import DEMO

    if library.model.encoder.pretrained != DEMO:
        return list(EVERYDAY_PHRASES)
    from vtg.demo.world import COLOURS, SHAPES

    return [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
