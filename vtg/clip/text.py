"""Run a CLIP's text tower over sentences, without their padding where it has no effect."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["encode_tokens", "real_length"]


def real_length(tokens: Tensor, end: int) -> int:
    """How many of a sentence's tokens, [context], are real: up to and including the first end token."""
    ends = (tokens == end).nonzero()
    return int(ends[0]) + 1 if len(ends) else len(tokens)


def encode_tokens(clip: nn.Module, tokens: Tensor, longest: int, layers: int) -> tuple[list[Tensor], Tensor]:
    """Runs the text tower.

    In a tower whose tokens see none after them, what follows the longest sentence changes nothing, and is left out: of
    CLIP's 77 places a usual query fills a dozen.

    Args:
        clip: an open_clip model, whose text tower gives its layers.
        tokens: int64 [M, context], on its device.
        longest: real tokens of the longest sentence.
        layers: K, how many of the last blocks are wanted.

    Returns:
        K × [M, L, C] after each of the last blocks, before the final norm, earliest first, L at least `longest`; and
        the embeddings [M, E], of any length.
    """
    if _reads_forward_only(clip):
        return _encode_real_tokens(clip, tokens[:, :longest], layers)
    output = clip.forward_intermediates(  # type: ignore[operator]
        text=tokens, text_indices=layers, text_output_fmt="NLC"
    )
    return list(output["text_intermediates"]), output["text_features"]


def _reads_forward_only(clip: nn.Module) -> bool:
    from open_clip.model import CLIP

    # A text tower that is a module of its own may be a model of another kind, which open_clip only wraps.
    return isinstance(clip, CLIP) and clip.attn_mask is not None and clip.text_pool_type in ("argmax", "eos")


def _encode_real_tokens(clip: Any, tokens: Tensor, layers: int) -> tuple[list[Tensor], Tensor]:
    from open_clip.transformer import text_global_pool

    length = tokens.shape[1]
    dtype = clip.transformer.get_cast_dtype()
    state = clip.token_embedding(tokens).to(dtype) + clip.positional_embedding[:length].to(dtype)
    state, kept = clip.transformer.forward_intermediates(
        state, attn_mask=clip.attn_mask[:length, :length], indices=layers
    )
    ends = text_global_pool(
        clip.ln_final(state), tokens, clip.text_pool_type, eos_token_id=getattr(clip, "text_eos_id", None)
    )
    projection = clip.text_projection
    if projection is None:
        return kept, ends
    return kept, projection(ends) if isinstance(projection, nn.Linear) else ends @ projection
