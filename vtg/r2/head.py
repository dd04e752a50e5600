"""The R² head: frozen CLIP layers of a video and of a query in, windows and saliency out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.errors import VtgError
from vtg.r2.block import R2Block, temporal_extent
from vtg.r2.config import HeadConfig
from vtg.r2.projection import VideoProjection
from vtg.r2.pyramid import FeaturePyramid, QueryPooling, level_points, level_validity, prediction_head

__all__ = ["CalibrationFeatures", "HeadOutput", "Prediction", "R2Head"]


@dataclass(frozen=True, eq=False)
class CalibrationFeatures:
    """What the two granularity calibration losses contrast (Sec. 3, Granularity Calibration); last layer first.

    Attributes:
        class_tokens: [K, B, T, D] the frames' class tokens before pooling.
        queries: [K, B, D] the pooled queries.
    """

    class_tokens: Tensor
    queries: Tensor


@dataclass(frozen=True, eq=False)
class HeadOutput:
    """Everything one pass gives, before decoding.

    Attributes:
        video: [B, T, D] the rectified result of the R² block.
        query: [B, L, D] the block's query tokens of the earliest layer.
        pooled_query: [B, D].
        class_logits: [B, points].
        offsets: [B, points, 2] distances to start and end in strides; None for a highlight-only head.
        points: [points, 4] position, lower and upper end of the regression range, stride; in frames.
        level_sizes: points of each level that exists.
        point_mask: [B, points] which points stand on a real frame; None if no frame is padding.
        calibration: for the losses; None at inference.
    """

    video: Tensor
    query: Tensor
    pooled_query: Tensor
    class_logits: Tensor
    offsets: Tensor | None
    points: Tensor
    level_sizes: tuple[int, ...]
    point_mask: Tensor | None
    calibration: CalibrationFeatures | None


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one video and one query, before post-processing.

    Attributes:
        windows: [N, 3] float32: start s, end s, score 0…1; best first, at most `HeadConfig.max_windows`; None for a
            highlight-only head.
        saliency: [T] float32, one score a frame.
        class_logits: [points].
        offsets: [points, 2] distances to start and end in strides; None for a highlight-only head.
        points: [points, 4] position, lower and upper end of the regression range, stride; in frames.
    """

    windows: Tensor | None
    saliency: Tensor
    class_logits: Tensor
    offsets: Tensor | None
    points: Tensor


class R2Head(nn.Module):
    """The learnt part of R²-Tuning (ECCV 2024, arXiv 2404.00801, Sec. 3): 2.84 M parameters beside a frozen CLIP.

    Args:
        config: shapes and use.
    """

    saliency_scale: Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_width
        self.level_scale = nn.Parameter(torch.ones(len(config.strides)))
        self.block = R2Block(config)
        self.pyramid = FeaturePyramid(width, config.strides)
        self.pooling = QueryPooling(width)
        self.class_head = prediction_head(width, 1)
        self.coordinate_head = prediction_head(width, 2) if config.moment_retrieval else None
        # The logarithm of the saliency loss's inverse temperature; published checkpoints carry it, nothing learns it.
        self.register_buffer("saliency_scale", torch.tensor([math.log(1 / 0.07)]))

    def forward(
        self,
        video: Tensor | Sequence[Tensor],
        query: Tensor,
        video_mask: Tensor | None = None,
        query_mask: Tensor | None = None,
    ) -> HeadOutput:
        """One pass with the padding of published training: the intermediate tensors that the losses want.

        Padded frames enter as zeros and are masked only as self-attention keys; padded query tokens enter as zeros, are
        masked as cross-attention keys and in the query's pooling, and do take part in the maximum over words.

        Args:
            video: [B, T, K, P, Cv], or B equally long [T, K, P, Cv]; any float dtype; padding may hold anything. Fewer
                videos than queries stand each for the next B / V queries, and are mapped, and dropped out, once.
            query: [B, L, K, Cq]; any float dtype; padding may hold anything.
            video_mask: [B, T], true where a frame is real; None if all are.
            query_mask: [B, L], true where a token is real; None if all are.
        """
        return self._run(video, query, video_mask, query_mask, inference=False)

    @torch.no_grad()
    def project(self, videos: Tensor | Sequence[Tensor], precision: str = "float32") -> VideoProjection:
        """Maps videos into the block's space, the part of the work that no query changes; `QueryPass` asks them.

        Args:
            videos: [B, T, K, P, Cv], or B equally long [T, K, P, Cv]; any float dtype.
            precision: what is kept, one of `vtg.r2.projection.PRECISIONS`.

        Raises:
            VtgError: features of another CLIP, no frames, or videos of several lengths.
        """
        self._check_videos(videos)
        mapped = [self._map_video(videos, layer, None) for layer in range(self.config.layers)]
        return VideoProjection.of(torch.stack(mapped, dim=1), precision)

    @torch.no_grad()
    def predict(self, video: Tensor, query: Tensor, fps: float | None = None) -> Prediction:
        """Grounds one query in one video.

        Args:
            video: [T, K, P, Cv], any float dtype; a memory-mapped float16 array is converted one layer at a time.
            query: [L, K, Cq], any float dtype: the real tokens, start and end included.
            fps: the sampling rate of `video` in frames a second; None takes the configuration's.

        Raises:
            VtgError: features of another CLIP, or no frames.
        """
        return self.predict_batch([video], [query], fps)[0]

    @torch.no_grad()
    def predict_batch(
        self,
        videos: Tensor | Sequence[Tensor],
        queries: Sequence[Tensor],
        fps: float | None = None,
    ) -> list[Prediction]:
        """Grounds many queries at once; each answer is what `predict` gives for its pair alone.

        Args:
            videos: [B, T, K, P, Cv], or B equally long [T, K, P, Cv]; B may be 1: all queries share it.
            queries: N × [L, K, Cq], of any lengths; N may be 1: it is asked of all videos; else N must be B.
            fps: the sampling rate of the videos in frames a second; None takes the configuration's.

        Returns:
            max(B, N) predictions.

        Raises:
            VtgError: features of another CLIP, no frames, videos of several lengths, or B and N that do not pair.
        """
        count = len(videos)
        if not count or not queries or (count != len(queries) and 1 not in (count, len(queries))):
            raise VtgError(
                f"{count} videos and {len(queries)} queries do not pair: give as many of both, or one of either"
            )
        self._check_videos(videos)
        for query in queries:
            self.check_query(query)
        lengths = torch.tensor([len(query) for query in queries])
        padded = nn.utils.rnn.pad_sequence(list(queries), batch_first=True)
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).to(self.device)
        if len(queries) == 1:
            padded, mask = padded.expand(count, -1, -1, -1), mask.expand(count, -1)
        output = self._run(videos, padded, None, None if mask.all() else mask, inference=True)
        rate = self.config.fps if fps is None else fps
        return [self._decode(output, item, rate) for item in range(len(padded))]

    @torch.no_grad()
    def attention(self, video: Tensor | VideoProjection, query: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        """Where each word of the query looks in each frame, layer by layer (Sec. 3, Query-Modulated Spatial Pooling).

        Args:
            video: [T, K, P, Cv], any float dtype; or the projection of one window.
            query: [L, K, Cq], any float dtype.
            frames: the frames that are wanted; None wants all.

        Returns:
            [K, frames, L, P−1] float32, earliest layer first: each word's share of attention on each patch, row by row
            of the patch grid. The class token took part in the softmax and is left out, so a row sums to at most 1.

        Raises:
            VtgError: features of another CLIP, or no frames; or the head has no spatial pooling.
        """
        if not self.config.spatial_pooling:
            raise VtgError("this head looks at no patches: it was trained without spatial pooling")
        if isinstance(video, Tensor):
            self._check_videos([video])
        self.check_query(query)
        chosen = list(range(len(video) if isinstance(video, Tensor) else video.frames) if frames is None else frames)
        maps = []
        for layer in range(self.config.layers):
            if isinstance(video, Tensor):
                tokens = self._map_video([video], layer, None, frames=chosen)
            else:
                tokens = video.tokens(0, layer, chosen, like=self.level_scale)[None]
            words = self._map_query(query[None], layer, None)
            maps.append(self.block.attention(tokens, words)[0, :, :, 1:].float())
        return torch.stack(maps)

    @property
    def device(self) -> torch.device:
        """Where the head is, and where it brings its inputs."""
        return self.level_scale.device

    def _run(
        self,
        video: Tensor | Sequence[Tensor],
        query: Tensor,
        video_mask: Tensor | None,
        query_mask: Tensor | None,
        *,
        inference: bool,
    ) -> HeadOutput:
        block = self.block(
            self._layers(video, query, video_mask, query_mask),
            video_mask,
            query_mask,
            word_mask=query_mask if inference else None,
            keep=not inference,
        )
        # Published training rectifies the block's result in place: all levels and the saliency see rectified frames.
        frames = block.video.relu()
        levels = self.pyramid(frames)
        strides, length = self.config.strides, frames.shape[1]
        with torch.autocast(frames.device.type, enabled=False):  # published training keeps the heads in float32
            pooled_query = self.pooling(block.query.float(), query_mask)
            class_logits = torch.cat([self._read_off(self.class_head, level) for level in levels], dim=1).squeeze(2)
            offsets = None
            if self.coordinate_head is not None:
                scaled = [
                    self._read_off(self.coordinate_head, level).exp() * scale
                    for level, scale in zip(levels, self.level_scale, strict=False)
                ]
                offsets = torch.cat(scaled, dim=1)
            calibration = None
            if not inference:
                queries = torch.stack([self.pooling(kept.float(), query_mask) for kept in block.queries])
                calibration = CalibrationFeatures(torch.stack(block.class_tokens).float(), queries)
        return HeadOutput(
            video=frames.float(),
            query=block.query.float(),
            pooled_query=pooled_query,
            class_logits=class_logits,
            offsets=offsets,
            points=level_points(length, strides, like=frames),
            level_sizes=tuple(level.shape[1] for level in levels),
            point_mask=None if video_mask is None else level_validity(video_mask, strides),
            calibration=calibration,
        )

    @staticmethod
    def _read_off(head: nn.Module, level: Tensor) -> Tensor:
        predicted: Tensor = head(level.float().transpose(1, 2)).transpose(1, 2)  # [B, points, 1 or 2]
        return predicted

    def _layers(
        self,
        video: Tensor | Sequence[Tensor],
        query: Tensor,
        video_mask: Tensor | None,
        query_mask: Tensor | None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # One layer at a time, so that only one is alive in the block's space: a video's features may be a mapped file.
        for layer in reversed(range(self.config.layers)):
            yield self._map_video(video, layer, video_mask), self._map_query(query, layer, query_mask)

    def _map_video(
        self,
        videos: Tensor | Sequence[Tensor],
        layer: int,
        mask: Tensor | None,
        frames: Sequence[int] | None = None,
    ) -> Tensor:
        extent = temporal_extent(len(videos[0]), like=self.level_scale)
        if frames is not None:
            videos, extent = [video[list(frames)] for video in videos], extent[list(frames)]
        seen = slice(None) if self.config.spatial_pooling else slice(1)  # without pooling the patches have no part
        if isinstance(videos, Tensor):
            tokens = videos[:, :, layer, seen]  # [V, T, P, Cv]
        else:
            first = videos[0][:, layer, seen]
            tokens = first.new_empty(len(videos), *first.shape)
            for place, video in zip(tokens, videos, strict=True):
                place.copy_(video[:, layer, seen])
        if mask is not None:
            mask = mask[:: len(mask) // len(videos)]  # that of a video's first query is the video's
        return self.block.map_video(tokens.to(self.device), extent, mask)

    def _map_query(self, query: Tensor, layer: int, mask: Tensor | None) -> Tensor:
        tokens = query[:, :, layer].to(self.level_scale)  # [B, L, Cq]
        if mask is not None:
            tokens = tokens.masked_fill(~mask[:, :, None], 0)
        mapped: Tensor = self.block.query_map(tokens)
        return mapped

    def _decode(self, output: HeadOutput, item: int, fps: float) -> Prediction:
        logits = output.class_logits[item]
        score = logits.sigmoid()
        windows = offsets = None
        if output.offsets is not None:
            offsets = output.offsets[item]
            position, stride = output.points[:, 0], output.points[:, 3]
            start = (position - stride * offsets[:, 0]) / fps
            end = (position + stride * offsets[:, 1]) / fps
            best = score.argsort(descending=True, stable=True)[: self.config.max_windows]
            windows = torch.stack((start, end, score), dim=1)[best]
        return Prediction(windows, self._saliency(output, item, score), logits, offsets, output.points)

    def _saliency(self, output: HeadOutput, item: int, score: Tensor) -> Tensor:
        """Each frame's best level score, times its similarity to the query if the head retrieves moments; [T]."""
        length = output.video.shape[1]
        stretched = []
        for level in score.split(output.level_sizes):
            repeated = level.repeat_interleave(length // len(level))
            stretched.append(torch.cat((repeated, level[-1:].expand(length - len(repeated)))))
        saliency = torch.stack(stretched).amax(dim=0)
        if not self.config.moment_retrieval:
            return saliency
        return saliency * F.cosine_similarity(output.video[item], output.pooled_query[item][None], dim=-1)

    def _check_videos(self, videos: Tensor | Sequence[Tensor]) -> None:
        for video in videos:
            wanted = (self.config.layers, self.config.tokens or "P", self.config.video_width)
            found = tuple(video.shape[1:])
            matches = len(found) == 3 and all(want in ("P", have) for want, have in zip(wanted, found, strict=True))
            if not matches:
                raise VtgError(
                    f"frame features are {list(video.shape)}, but this head reads [T, {', '.join(map(str, wanted))}]"
                    f": use features of its CLIP, {self.config.clip_model or 'whichever it was trained on'}"
                )
            if len(video) == 0:
                raise VtgError("frame features have no frames: nothing to search")
            if len(video) != len(videos[0]):
                raise VtgError(f"videos of {len(videos[0])} and {len(video)} frames do not batch: batch equal lengths")

    def check_query(self, query: Tensor) -> None:
        """Raises a VtgError where a query's features [L, K, Cq] are not what this head reads."""
        wanted = (self.config.layers, self.config.query_width)
        if query.dim() != 3 or tuple(query.shape[1:]) != wanted or len(query) == 0:
            raise VtgError(
                f"query features are {list(query.shape)}, but this head reads [L, {wanted[0]}, {wanted[1]}]"
                f": use features of its CLIP, {self.config.clip_model or 'whichever it was trained on'}"
            )
