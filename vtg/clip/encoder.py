"""Encode frames and sentences with CLIP: the last layers of both towers, and embeddings."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.clip.building import load_clip
from vtg.clip.devices import choose_device
from vtg.clip.layout import count_class_tokens
from vtg.clip.outputs import FrameFeatures, TextFeatures
from vtg.clip.precision import use_bfloat16_products, uses_bfloat16
from vtg.clip.specs import DEFAULT_PRETRAINED, EncoderSpec
from vtg.clip.text import encode_tokens, unpadded_length
from vtg.errors import VtgError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ClipEncoder", "FrameFeatures", "TextFeatures"]

ACTIVATION_BYTES = {"cpu": 256 << 20, "mps": 1 << 30}  # per batch; on cuda half of the free memory
MAX_BATCH_FRAMES = 256  # larger batches are not faster on any device
MAX_CACHED_TEXTS = 256  # of about 100 kB each; queries are often repeated


class ClipEncoder:
    """A frozen CLIP that gives the last K layers of both towers and both embeddings (R²-Tuning, Sec. 3.1).

    Args:
        model: a ViT in open_clip's catalogue; None for ``ViT-B-32-quickgelu``, or, with a file of weights with OpenAI's
            parameter names, for the architecture inferred from its tensors.
        pretrained: a catalogue tag (downloaded once by open_clip) or a file of weights.
        layers: K, how many of the last layers are returned.
        device: a torch device; None selects the first available of cuda, mps and cpu.
        dtype: of the computation; None for float16 on cuda and float32 elsewhere.
        batch_size: frames per batch; None derives it from the memory.
        encoding: arithmetic of matrix products in the image tower on a CPU: "float32", "bfloat16", or "auto" for
            bfloat16 if it is faster and accurate enough (see `vtg.clip.precision`). The text tower, and all other
            operations, always use float32.

    Raises:
        VtgError: unknown model, tag or device, weights that cannot be loaded, or a tower that is not a ViT.
    """

    def __init__(
        self,
        model: str | None = None,
        pretrained: str | os.PathLike[str] = DEFAULT_PRETRAINED,
        layers: int = 4,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int | None = None,
        encoding: str = "float32",
    ) -> None:
        self.device = choose_device(device)
        self.dtype = dtype or (torch.float16 if self.device.type == "cuda" else torch.float32)
        self.layers = layers
        self.model_name = model
        self.pretrained = os.fspath(pretrained)
        self._clip, self._tokenizer = load_clip(model, self.pretrained, self.device, self.dtype)
        self._batch_size = batch_size
        self._uses_bfloat16 = False
        self._check_towers(model or self.pretrained)
        _use_fused_quick_gelu(self._clip)
        visual = self._clip.visual
        self.image_size = int(_first(visual.image_size))  # side of the input in pixels
        mean, std = visual.image_mean, visual.image_std
        self._mean = torch.tensor(mean, device=self.device).mul(255).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=self.device).mul(255).view(1, 3, 1, 1)
        if self.device.type == "cpu":
            visual.to(memory_format=torch.channels_last)
        self._text_cache: OrderedDict[str, TextFeatures] = OrderedDict()
        self._texts_lock = threading.Lock()
        if uses_bfloat16(self, encoding):
            use_bfloat16_products(visual)
            self._uses_bfloat16 = True

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that identify model, weights, layers and preprocessing; part of the key of stored features."""
        return EncoderSpec(self.model_name, self.pretrained, self.layers).fingerprint

    @property
    def computes(self) -> str:
        """Arithmetic of matrix products in the image tower: "float32", "bfloat16" or "float16"."""
        return "bfloat16" if self._uses_bfloat16 else str(self.dtype).removeprefix("torch.")

    @property
    def visual(self) -> nn.Module:
        """The image tower, as open_clip builds it."""
        tower: nn.Module = self._clip.visual
        return tower

    @property
    def class_tokens(self) -> int:
        """Number of class tokens at the start of the P tokens (1 for CLIP's ViTs, 0 for SigLIP)."""
        return count_class_tokens(self._clip.visual)

    @property
    def tokens(self) -> int:
        """P, tokens per frame: the class token, if the tower has one, and the patches, without register tokens."""
        return self._frame_layout[0]

    @property
    def width(self) -> int:
        """C, channels of the image tower."""
        return self._frame_layout[1]

    @cached_property
    def text_width(self) -> int:
        """C, channels of the text tower."""
        return self.encode_text("").layers.shape[-1]

    @property
    def embedding_size(self) -> int:
        """E, the size of both embeddings."""
        return self._frame_layout[2]

    @cached_property
    def _frame_layout(self) -> tuple[int, int, int]:
        blank = torch.zeros(1, 3, self.image_size, self.image_size, device=self.device, dtype=self.dtype)
        with torch.inference_mode():
            output = self._image_pass(blank)
        patches = output["image_intermediates"][-1]
        return self.class_tokens + patches.shape[1], patches.shape[2], output["image_features"].shape[1]

    def encode_frames(self, frames: np.ndarray | Tensor) -> FrameFeatures:
        """Encode frames.

        Args:
            frames: uint8 [N, H, W, 3], RGB. Frames of another size than ``image_size`` are resized (short side,
                bicubic, antialiased) and cropped to their centre.

        Returns:
            Features on the CPU in the encoder's dtype.

        Raises:
            ValueError: not uint8 [N, H, W, 3].
        """
        frames = torch.as_tensor(frames)
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(f"frames are uint8 [N, H, W, 3], not {frames.dtype} {list(frames.shape)}")
        count = len(frames)
        layers = torch.empty(count, self.layers, self.tokens, self.width, dtype=self.dtype, pin_memory=self._pin_memory)
        embedding = torch.empty(count, self.embedding_size, dtype=self.dtype, pin_memory=self._pin_memory)
        with torch.inference_mode():
            for part in self._batches(count):
                self._encode_batch(frames[part], layers[part], embedding[part])
        if self._pin_memory:
            torch.cuda.current_stream(self.device).synchronize()
        return FrameFeatures(layers, embedding)

    @property
    def _pin_memory(self) -> bool:
        return self.device.type == "cuda"

    def _batches(self, count: int) -> Iterator[slice]:
        size = self.batch_size
        for start in range(0, count, size):
            yield slice(start, start + size)

    def _encode_batch(self, frames: Tensor, layers: Tensor, embedding: Tensor) -> None:
        try:
            output = self._image_pass(self.pixels(frames).to(self.dtype))
        except torch.OutOfMemoryError:
            if len(frames) == 1:
                raise
            # The estimated batch size is too large for this device: halve it.
            half = len(frames) // 2
            self._batch_size = half
            self._encode_batch(frames[:half], layers[:half], embedding[:half])
            self._encode_batch(frames[half:], layers[half:], embedding[half:])
            return
        leading = self.class_tokens
        for k, patches in enumerate(output["image_intermediates"]):
            if leading:  # register tokens, which follow the class token, are dropped
                prefix = output["image_intermediates_prefix"][k]
                layers[:, k, :leading].copy_(prefix[:, :leading], non_blocking=True)
            layers[:, k, leading:].copy_(patches, non_blocking=True)
        embedding.copy_(F.normalize(output["image_features"].float(), dim=-1), non_blocking=True)

    def _image_pass(self, pixels: Tensor) -> dict[str, Any]:
        return dict(
            self._clip.visual.forward_intermediates(
                pixels, indices=self.layers, output_fmt="NLC", output_extra_tokens=self._has_prefix
            )
        )

    @cached_property
    def _has_prefix(self) -> bool:
        # timm's trunks return another structure if prefix tokens are requested that they do not have.
        trunk = getattr(self._clip.visual, "trunk", None)
        return trunk is None or getattr(trunk, "num_prefix_tokens", 0) > 0

    def pixels(self, frames: np.ndarray | Tensor) -> Tensor:
        """Resize, crop and normalise frames for the image tower.

        Args:
            frames: uint8 [N, H, W, 3].

        Returns:
            float32 [N, 3, image_size, image_size] on the encoder's device.
        """
        frames = torch.as_tensor(frames)
        if self._pin_memory:
            frames = frames.pin_memory()
        pixels = frames.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            pixels = _resize_and_crop(pixels, self.image_size)
        return pixels.sub_(self._mean).div_(self._std)

    @property
    def batch_size(self) -> int:
        """Frames per batch, derived from the memory unless it was given."""
        if self._batch_size is None:
            # A block needs at most about 12 values per token and channel at a time (the MLP's 4, twice, and others).
            frame_bytes = 12 * self.tokens * self.width * self.dtype.itemsize
            if self.device.type == "cuda":
                budget = torch.cuda.mem_get_info(self.device)[0] // 2
            else:
                budget = ACTIVATION_BYTES.get(self.device.type, ACTIVATION_BYTES["cpu"])
            self._batch_size = max(1, min(MAX_BATCH_FRAMES, budget // frame_bytes))
        return self._batch_size

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids for the text tower: int64 [M, context], truncated to the context with the end token kept."""
        return self._tokenizer(list(texts))

    def encode_text(self, text: str) -> TextFeatures:
        """Encode one sentence."""
        return self.encode_texts([text])[0]

    def encode_texts(self, texts: Sequence[str]) -> list[TextFeatures]:
        """Encode sentences in one batch, each with its own L; recent results are cached.

        Args:
            texts: sentences; truncated to the context (77 tokens for CLIP).

        Returns:
            One ``TextFeatures`` per sentence, on the CPU in the encoder's dtype.
        """
        with self._texts_lock:
            known = {text: self._text_cache[text] for text in texts if text in self._text_cache}
        unknown = list(dict.fromkeys(text for text in texts if text not in known))
        known |= zip(unknown, self._encode_texts(unknown), strict=True)
        with self._texts_lock:
            for text in list(dict.fromkeys(texts))[-MAX_CACHED_TEXTS:]:
                self._text_cache[text] = known[text]
                self._text_cache.move_to_end(text)
            while len(self._text_cache) > MAX_CACHED_TEXTS:
                self._text_cache.popitem(last=False)
        return [known[text] for text in texts]

    def _encode_texts(self, texts: Sequence[str]) -> list[TextFeatures]:
        if not texts:
            return []
        tokens = self.tokenize(texts)
        lengths = [unpadded_length(row, self._end_token) for row in tokens]
        with torch.inference_mode():
            kept, features = encode_tokens(self._clip, tokens.to(self.device), max(lengths), self.layers)
            layers = torch.stack(kept, dim=2).to("cpu", self.dtype)  # [M, L, K, C]
            embedding = F.normalize(features.float(), dim=-1).to("cpu", self.dtype)
        return [
            TextFeatures(tokens[i, :length], layers[i, :length].clone(), embedding[i].clone())
            for i, length in enumerate(lengths)
        ]

    @property
    def _end_token(self) -> int:
        end = getattr(self._tokenizer, "eot_token_id", None)
        return int(end if end is not None else self._tokenizer.tokenizer.eos_token_id)

    @cached_property
    def logit_scale(self) -> float:
        """Scale of cosine similarities before the softmax in training (100 for OpenAI's models)."""
        return float(self._clip.logit_scale.detach().exp())

    def _check_towers(self, name: str) -> None:
        from open_clip.timm_model import TimmModel
        from open_clip.transformer import VisionTransformer

        visual = self._clip.visual
        is_vit = isinstance(visual, VisionTransformer) or (
            isinstance(visual, TimmModel) and hasattr(visual.trunk, "patch_embed") and hasattr(visual.trunk, "blocks")
        )
        if not is_vit:
            raise VtgError(f"{name}: its image tower is not a ViT; choose a ViT model of open_clip's catalogue")
        text = getattr(self._clip, "text", self._clip)
        if not hasattr(text, "forward_intermediates"):
            raise VtgError(
                f"{name}: its text tower does not expose its layers; choose a model with CLIP's own text tower"
            )
        blocks = visual.transformer.layers if isinstance(visual, VisionTransformer) else len(visual.trunk.blocks)
        text_blocks = getattr(text, "transformer", None)
        fewest = min(blocks, getattr(text_blocks, "layers", blocks))
        if not 1 <= self.layers <= fewest:
            raise VtgError(f"{name}: has {fewest} layers, {self.layers} were requested; choose 1 to {fewest}")


def _first(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else size[0]


def _resize_and_crop(pixels: Tensor, size: int) -> Tensor:
    height, width = pixels.shape[-2:]
    scale = size / min(height, width)
    resized = F.interpolate(
        pixels,
        size=(max(size, round(height * scale)), max(size, round(width * scale))),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    top, left = (resized.shape[-2] - size) // 2, (resized.shape[-1] - size) // 2
    # CLIP was trained on 8-bit images: round in the same way.
    return resized[..., top : top + size, left : left + size].round().clamp_(0, 255)


class _FusedQuickGELU(nn.Module):
    """QuickGELU, x · σ(1.702 x), in place: saves about a tenth of the time of a block."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x.mul_(1.702), inplace=True).mul_(1 / 1.702)


def _use_fused_quick_gelu(clip: nn.Module) -> None:
    from open_clip.transformer import QuickGELU

    for module in clip.modules():
        for name, child in module.named_children():
            if isinstance(child, QuickGELU):
                setattr(module, name, _FusedQuickGELU())
