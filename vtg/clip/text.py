"""Run CLIP's text tower on sentences, without padding tokens where these have no effect."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["encode_tokens", "unpadded_length"]


def unpadded_length(tokens: Tensor, end: int) -> int:
    """Number of tokens of a sentence [context] without padding: up to and including the first end token."""
    ends = (tokens == end).nonzero()
    return int(ends[0]) + 1 if len(ends) else len(tokens)


def encode_tokens(clip: nn.Module, tokens: Tensor, longest: int, layers: int) -> tuple[list[Tensor], Tensor]:
    """Run the text tower.

    With causal attention, tokens after the longest sentence have no effect and are left out: a typical query has a
    dozen tokens, and CLIP's context 77.

    Args:
        clip: an open_clip model whose text tower exposes its layers.
        tokens: int64 [M, context], on its device.
        longest: tokens of the longest sentence, without padding.
        layers: K, how many of the last blocks to return.

    Returns:
        K × [M, L, C] after each of the last blocks, before the final norm, earliest first, L at least `longest`; and
        the embeddings [M, E], of any length.
    """
    if _is_causal(clip):
        return _encode_real_tokens(clip, tokens[:, :longest], layers)
    output = clip.forward_intermediates(  # type: ignore[operator]
        text=tokens, text_indices=layers, text_output_fmt="NLC"
    )
    return list(output["text_intermediates"]), output["text_features"]


def _is_causal(clip: nn.Module) -> bool:
    from open_clip.model import CLIP

    # A text tower in a separate module may be another kind of model that open_clip wraps.
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
