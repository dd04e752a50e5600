"""Run CLIP's text tower on sentences, without padding tokens where these have no effect."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vtg.errors import VtgError
from vtg.files.text import short_repr

__all__ = ["encode_tokens", "end_token", "set_language", "unpadded_length"]


def end_token(tokenizer: Any) -> int:
    """The id of the token that ends a sentence, for open_clip's own tokenizers and those of Hugging Face."""
    end = getattr(tokenizer, "eot_token_id", None)
    if end is None:
        end = tokenizer.tokenizer.eos_token_id
    if end is None:  # as BERT's
        end = tokenizer.tokenizer.sep_token_id
    return -1 if end is None else int(end)


def set_language(tokenizer: Any, language: str, name: str) -> None:
    """Set the language of a tokenizer that marks it in its tokens, such as NLLB's.

    Args:
        tokenizer: of open_clip.
        language: its code there, such as "fra_Latn".
        name: of the model, for error messages.

    Raises:
        VtgError: the tokenizer has no languages, or not this one.
    """
    inner = getattr(tokenizer, "tokenizer", None)
    change = getattr(tokenizer, "set_lang_fn", None)
    if inner is None or change is None:
        raise VtgError(f"{name}: its tokenizer has no languages; leave the language out, any can be asked")
    if inner.convert_tokens_to_ids(language) == inner.unk_token_id:
        raise VtgError(f"{name}: knows no language {short_repr(language)}; give a code like eng_Latn or fra_Latn")
    inner.src_lang = language
    change(language)


def unpadded_length(tokens: Tensor, end: int) -> int:
    """Number of tokens of a sentence [context] without padding: up to and including the first end token."""
    ends = (tokens == end).nonzero()
    return int(ends[0]) + 1 if len(ends) else len(tokens)


def encode_tokens(clip: nn.Module, tokens: Tensor, longest: int, layers: int) -> tuple[list[Tensor], Tensor]:
    """Run the text tower.

    With causal attention, tokens after the longest sentence have no effect and are left out: a typical query has a
    dozen tokens, and CLIP's context 77.

    Args:
        clip: an open_clip model; its text tower exposes its layers if any are requested.
        tokens: int64 [M, context], on its device.
        longest: tokens of the longest sentence, without padding.
        layers: K, how many of the last blocks to return; 0 for embeddings only.

    Returns:
        K × [M, L, C] after each of the last blocks, before the final norm, earliest first, L at least `longest`; and
        the embeddings [M, E], of any length.
    """
    if _is_causal(clip):
        return _encode_real_tokens(clip, tokens[:, :longest], layers)
    if not layers:
        return [], clip.encode_text(tokens)  # type: ignore[operator]
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
    mask = clip.attn_mask[:length, :length]
    kept: list[Tensor] = []
    if layers:
        state, kept = clip.transformer.forward_intermediates(state, attn_mask=mask, indices=layers)
    else:
        state = clip.transformer(state, attn_mask=mask)
    ends = text_global_pool(
        clip.ln_final(state), tokens, clip.text_pool_type, eos_token_id=getattr(clip, "text_eos_id", None)
    )
    projection = clip.text_projection
    if projection is None:
        return kept, ends
    return kept, projection(ends) if isinstance(projection, nn.Linear) else ends @ projection
