"""Encode frames and sentences with CLIP: the last layers of both towers, and embeddings."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.clip.building import RANDOM, check_clip_names, load_clip
from vtg.clip.devices import choose_device
from vtg.clip.layout import count_class_tokens
from vtg.clip.outputs import FrameFeatures, TextFeatures
from vtg.clip.precision import use_bfloat16_products, uses_bfloat16
from vtg.clip.specs import DEFAULT_PRETRAINED, EncoderSpec
from vtg.clip.text import encode_tokens, end_token, set_language, unpadded_length
from vtg.clip.towers import check_layers, fuse_branches, largest_output
from vtg.errors import VtgError
from vtg.video.framing import Framing

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ClipEncoder", "FrameFeatures", "TextFeatures"]

ACTIVATION_BYTES = {"cpu": 256 << 20, "mps": 1 << 30}  # per batch; on cuda half of the free memory
MAX_BATCH_FRAMES = 256  # larger batches are not faster on any device
MAX_CACHED_TEXTS = 256  # of about 100 kB each; queries are often repeated


class ClipEncoder:
    """A frozen CLIP that gives the last K layers of both towers and both embeddings (R²-Tuning, Sec. 3.1).

    With ``layers=0`` it gives embeddings only, and any model of the catalogue can be used.

    Args:
        model: a name in open_clip's catalogue; with layers, of a ViT with CLIP's own text tower. None for
            ``ViT-B-32-quickgelu``, or, with a file of weights with OpenAI's parameter names, for the architecture
            inferred from its tensors.
        pretrained: a catalogue tag (downloaded once) or a file of weights; None for random weights, without a
            tokenizer, to measure speed.
        layers: K, how many of the last layers are returned; 0 for embeddings only.
        device: a torch device; None selects the first available of cuda, mps and cpu.
        dtype: of the computation; None for float16 on cuda and float32 elsewhere.
        batch_size: frames per batch; None derives it from the memory.
        encoding: arithmetic of matrix products in the image tower on a CPU: "float32", "bfloat16", or "auto" for
            bfloat16 if it is faster and accurate enough (see `vtg.clip.precision`). The text tower, and all other
            operations, always use float32.
        preprocessing: of frames, instead of that of the weights: a tag of the model, or values such as
            "resize=squash,mean=0.5,std=0.5"; needed for files of weights whose model has no tag, or tags that differ.
        language: of the sentences, a code of the tokenizer such as "fra_Latn" (NLLB); None for its default. Other
            tokenizers have no languages and take any text.

    Attributes:
        preprocessing: the `vtg.clip.preprocessing.Preprocessing` of frames.
        image_size: side of the input of the image tower, pixels.

    Raises:
        VtgError: unknown model, tag, device, preprocessing or language, weights that cannot be loaded, or, with
            layers, a tower that does not expose them.
    """

    def __init__(
        self,
        model: str | None = None,
        pretrained: str | os.PathLike[str] | None = DEFAULT_PRETRAINED,
        layers: int = 4,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int | None = None,
        encoding: str = "float32",
        preprocessing: str | None = None,
        language: str | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.dtype = dtype or (torch.float16 if self.device.type == "cuda" else torch.float32)
        self.layers = layers
        pretrained = RANDOM if pretrained is None else os.fspath(pretrained)
        self._identity = EncoderSpec(model, pretrained, layers, preprocessing)
        if model is not None and pretrained != RANDOM:
            check_clip_names(model, pretrained)
        self.preprocessing = self._identity.frame_preprocessing  # before the weights are read, as it may be unknown
        self._clip, self._tokenizer = load_clip(model, pretrained, self.device, self.dtype)
        if language is not None:
            set_language(self._tokenizer, language, model or pretrained)
        self._batch_size = batch_size
        self._uses_bfloat16 = False
        if layers != 0:
            check_layers(self._clip, layers, model or pretrained)
        _use_fused_quick_gelu(self._clip)
        fuse_branches(self._clip)
        visual = self._clip.visual
        self.image_size = _square_side(visual.image_size, model or pretrained)
        self._mean = torch.tensor(self.preprocessing.mean, device=self.device).mul(255).view(1, 3, 1, 1)
        self._std = torch.tensor(self.preprocessing.std, device=self.device).mul(255).view(1, 3, 1, 1)
        if self.device.type == "cpu":
            visual.to(memory_format=torch.channels_last)
        self._text_cache: OrderedDict[str, TextFeatures] = OrderedDict()
        self._texts_lock = threading.Lock()
        if uses_bfloat16(self, encoding):
            use_bfloat16_products(visual)
            self._uses_bfloat16 = True

    @property
    def identity(self) -> EncoderSpec:
        """The specification whose fingerprint the features have; may be set to one with the same embeddings."""
        return self._identity

    @identity.setter
    def identity(self, spec: EncoderSpec) -> None:
        self._identity = spec
        vars(self).pop("fingerprint", None)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that identify model, weights, layers and preprocessing; part of the key of stored features."""
        return self.identity.fingerprint

    @property
    def framing(self) -> Framing:
        """How frames become the squares that the image tower gets; decoders resize in this way."""
        return self.preprocessing.framing(self.image_size)

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
        """P, tokens per frame: class token, if there is one, and patches, without registers; 0 without layers."""
        return self._frame_layout.tokens

    @property
    def width(self) -> int:
        """C, channels of the image tower; 0 without layers."""
        return self._frame_layout.width

    @cached_property
    def text_width(self) -> int:
        """C, channels of the text tower."""
        return self.encode_text("").layers.shape[-1]

    @property
    def embedding_size(self) -> int:
        """E, the size of both embeddings."""
        return self._frame_layout.embedding

    @cached_property
    def _frame_layout(self) -> _Layout:
        blank = torch.zeros(1, 3, self.image_size, self.image_size, device=self.device, dtype=self.dtype)
        with torch.inference_mode(), largest_output(self._clip.visual) as largest:
            output = self._image_pass(blank)
        embedding = output["image_features"].shape[1]
        if not self.layers:
            return _Layout(0, 0, embedding, largest())
        patches = output["image_intermediates"][-1]
        return _Layout(self.class_tokens + patches.shape[1], patches.shape[2], embedding, largest())

    def encode_frames(self, frames: np.ndarray | Tensor) -> FrameFeatures:
        """Encode frames.

        Args:
            frames: uint8 [N, H, W, 3], RGB. Frames that are not ``image_size`` squares yet are resized, antialiased,
                and cropped or padded as ``preprocessing`` says.

        Returns:
            Features on the CPU in the encoder's dtype; layers are [N, 0, 0, 0] if K = 0.

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
        for k, patches in enumerate(output["image_intermediates"] if self.layers else ()):
            if leading:  # register tokens, which follow the class token, are dropped
                prefix = output["image_intermediates_prefix"][k]
                layers[:, k, :leading].copy_(prefix[:, :leading], non_blocking=True)
            layers[:, k, leading:].copy_(patches, non_blocking=True)
        embedding.copy_(F.normalize(output["image_features"].float(), dim=-1), non_blocking=True)

    def _image_pass(self, pixels: Tensor) -> dict[str, Any]:
        if not self.layers:
            return {"image_features": self._clip.encode_image(pixels)}
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
            pixels = _resized(pixels, self.framing)
        return pixels.sub_(self._mean).div_(self._std)

    @property
    def batch_size(self) -> int:
        """Frames per batch, derived from the memory unless it was given."""
        if self._batch_size is None:
            # A block needs at most about three times its largest output (in a ViT that of the MLP) at a time.
            frame_bytes = 3 * self._frame_layout.largest * self.dtype.itemsize
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
            layers = (
                torch.stack(kept, dim=2).to("cpu", self.dtype)  # [M, L, K, C]
                if kept
                else torch.empty(len(texts), max(lengths), 0, 0, dtype=self.dtype)
            )
            embedding = F.normalize(features.float(), dim=-1).to("cpu", self.dtype)
        return [
            TextFeatures(tokens[i, :length], layers[i, :length].clone(), embedding[i].clone())
            for i, length in enumerate(lengths)
        ]

    @property
    def _end_token(self) -> int:
        return end_token(self._tokenizer)

    @cached_property
    def logit_scale(self) -> float:
        """Scale of cosine similarities before the softmax in training (100 for OpenAI's models)."""
        return float(self._clip.logit_scale.detach().exp())


@dataclass(frozen=True)
class _Layout:
    """Sizes of the image tower's output for one frame.

    Attributes:
        tokens: P; 0 without layers.
        width: C; 0 without layers.
        embedding: E.
        largest: values of the largest output of any of its modules.
    """

    tokens: int
    width: int
    embedding: int
    largest: int


def _square_side(size: int | Sequence[int], name: str) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise VtgError(f"{name}: takes pictures of {width}×{height} pixels; choose a model that takes squares")
    return int(height)


def _resized(pixels: Tensor, framing: Framing) -> Tensor:
    """Resize frames [N, 3, H, W], 0…255, and crop or pad them to squares; rounded, as CLIP saw 8-bit images."""
    width, height = framing.resized(pixels.shape[-1], pixels.shape[-2])
    resized = F.interpolate(pixels, (height, width), mode=framing.interpolation, antialias=True, align_corners=False)
    resized = resized.round().clamp_(0, 255)
    left, top = framing.offsets(width, height)
    if framing.resize == "longest":
        borders = (-left, framing.size - width + left, -top, framing.size - height + top)
        return F.pad(resized, borders, value=float(framing.fill))
    return resized[..., top : top + framing.size, left : left + framing.size]


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
