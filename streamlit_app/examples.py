"""Questions to begin with: of many everyday phrases, those that a library has frames for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from vtg.grounding.zero_shot import BACKGROUND_PROMPTS

if TYPE_CHECKING:
    from vtg.library.library import Library

__all__ = ["choose_examples", "examples_or_none", "rank_phrases"]

log = logging.getLogger(__name__)

VIDEOS_LOOKED_AT = 60  # of a large library, evenly chosen
EVERYDAY = (
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
    """As `choose_examples`; none where that fails, for what is only an invitation may be missing."""
    try:
        return choose_examples(library, count)
    except Exception:
        log.exception("no examples could be chosen")
        return ()


def choose_examples(library: Library, count: int) -> tuple[str, ...]:
    """Phrases that the library's videos answer.

    Args:
        library: with its model loaded.
        count: how many at most.
    """
    from vtg.library.tables import INDEXED

    paths = [entry.path for entry in library.videos() if entry.state == INDEXED]
    step = max(1, len(paths) // VIDEOS_LOOKED_AT)
    embeddings = [library.open_features(path).embedding for path in paths[::step][:VIDEOS_LOOKED_AT]]
    frames = [np.asarray(embedding) for embedding in embeddings if embedding is not None]
    if not frames:
        return ()
    phrases, others = _phrases(library), list(BACKGROUND_PROMPTS)
    texts = np.stack([text.embedding.float().numpy() for text in library.encoder.encode_texts([*phrases, *others])])
    logits = [library.encoder.logit_scale * (video @ texts.T) for video in frames]
    return tuple(phrases[index] for index in rank_phrases(logits, len(phrases))[:count])


def rank_phrases(logits: list[np.ndarray], count: int) -> list[int]:
    """Order phrases by how clearly some frame shows them and nothing else; those of different videos come first.

    Args:
        logits: one a video, [T, M + B]: of its frames with the phrases, and with prompts for nothing in particular.
        count: M.

    Returns:
        Indices into the phrases, best first; a phrase that is nowhere the likeliest is left out.
    """
    clarity = np.stack([_best_share(video)[:count] for video in logits])  # [videos, M]
    best, home = clarity.max(axis=0), clarity.argmax(axis=0)
    order = [int(index) for index in np.argsort(-best) if best[index] > 0]
    first_of: dict[int, int] = {}
    for index in order:
        first_of.setdefault(int(home[index]), index)
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
        return list(EVERYDAY)
    from vtg.demo.world import COLOURS, SHAPES

    return [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
