"""The R² head: from CLIP layers of a video and a query to windows and saliency."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vtg.errors import VtgError
from vtg.r2.block import R2Block, temporal_extent
from vtg.r2.config import HeadConfig
from vtg.r2.decoding import CalibrationFeatures, HeadOutput, Prediction, decode
from vtg.r2.projection import VideoProjection
from vtg.r2.pyramid import FeaturePyramid, QueryPooling, level_points, level_validity, prediction_head

__all__ = ["R2Head", "pad_queries"]


class R2Head(nn.Module):
    """The learnt part of R²-Tuning (ECCV 2024, arXiv 2404.00801, Sec. 3): 2.84 M parameters beside a frozen CLIP.

    Args:
        config: its configuration.
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
        # The logarithm of the saliency loss's inverse temperature; stored in published checkpoints, not trained.
        self.register_buffer("saliency_scale", torch.tensor([math.log(1 / 0.07)]))

    def forward(
        self,
        video: Tensor | Sequence[Tensor],
        query: Tensor,
        video_mask: Tensor | None = None,
        query_mask: Tensor | None = None,
    ) -> HeadOutput:
        """Training forward pass: outputs and the tensors for the losses, with the masking of the published code.

        Padded frames are zeros and are masked only as self-attention keys; padded query tokens are zeros, are masked as
        cross-attention keys and in query pooling, and do take part in the maximum over query tokens.

        Args:
            video: [B, T, K, P, Cv], or B equally long [T, K, P, Cv]; any float dtype; padding may hold any values.
                With V < B videos, each belongs to B / V consecutive queries, and is projected (with dropout) once.
            query: [B, L, K, Cq]; any float dtype; padding may hold any values.
            video_mask: [B, T], true for valid frames; None if all are valid.
            query_mask: [B, L], true for valid tokens; None if all are valid.
        """
        videos = len(video)
        # One mask per video: that of its first query.
        own_mask = None if video_mask is None else video_mask[:: len(video_mask) // videos]
        groups = query.unflatten(0, (videos, -1))
        query_groups = None if query_mask is None else query_mask.unflatten(0, (videos, -1))
        return self.answer(self._project(video, own_mask), groups, query_groups, video_mask, for_losses=True)

    def project(self, videos: Tensor | Sequence[Tensor]) -> VideoProjection:
        """Project videos to the block's channels: the query-independent part of the computation.

        Args:
            videos: [V, T, K, P, Cv], or V equally long [T, K, P, Cv]; any float dtype.

        Returns:
            The projection as floats; `VideoProjection.quantized` converts it to int8.

        Raises:
            VtgError: features of another CLIP, no frames, or videos of different lengths.
        """
        self._check_videos(videos)
        return self._project(videos, None)

    def _project(self, videos: Tensor | Sequence[Tensor], mask: Tensor | None) -> VideoProjection:
        layers = [self._map_video(videos, k, mask) for k in range(self.config.layers)]
        return VideoProjection(torch.stack(layers, dim=1))

    def answer(
        self,
        projection: VideoProjection,
        queries: Tensor,
        query_mask: Tensor | None = None,
        video_mask: Tensor | None = None,
        *,
        for_losses: bool = False,
    ) -> HeadOutput:
        """Compute the outputs for N queries on each of V projected videos.

        Args:
            projection: of V videos.
            queries: [V, N, L, K, Cq], or [1, N, L, K, Cq]: the same for every video; any float dtype.
            query_mask: [V or 1, N, L], true for valid tokens; None if all are valid.
            video_mask: [V·N, T], true for valid frames; None if all are valid.
            for_losses: as in published training, let padded tokens take part in the maximum over query tokens, and
                return the features of the calibration losses.

        Returns:
            Outputs for B = V·N pairs, those of the first video first.
        """
        videos = len(projection)
        words = [self._map_query(queries[..., k, :], query_mask) for k in range(self.config.layers)]
        words = [layer.expand(videos, -1, -1, -1).flatten(0, 1) for layer in words]  # K × [B, L, D]
        word_mask = None if query_mask is None else query_mask.expand(videos, -1, -1).flatten(0, 1)  # [B, L]
        block = self.block(projection.layers(), words, video_mask, word_mask, None if for_losses else word_mask)
        # Published training applies ReLU in place: all levels and the saliency use the rectified features.
        frames = block.video.relu()
        levels = self.pyramid(frames)
        with torch.autocast(frames.device.type, enabled=False):  # heads are float32 in published training
            pooled_query = self.pooling(block.query.float(), word_mask)
            calibration = None
            if for_losses:
                pooled_queries = torch.stack([self.pooling(query.float(), word_mask) for query in block.queries])
                calibration = CalibrationFeatures(torch.stack(block.class_tokens).float(), pooled_queries)
            class_logits = torch.cat([self._predict_points(self.class_head, level) for level in levels], 1).squeeze(2)
            offsets = None
            if self.coordinate_head is not None:
                scaled = [
                    self._predict_points(self.coordinate_head, level).exp() * scale
                    for level, scale in zip(levels, self.level_scale, strict=False)
                ]
                offsets = torch.cat(scaled, dim=1)
        strides = self.config.strides
        return HeadOutput(
            video=frames.float(),
            query=block.query.float(),
            pooled_query=pooled_query,
            class_logits=class_logits,
            offsets=offsets,
            points=level_points(frames.shape[1], strides, like=frames),
            level_sizes=tuple(level.shape[1] for level in levels),
            point_mask=None if video_mask is None else level_validity(video_mask, strides),
            calibration=calibration,
        )

    @torch.no_grad()
    def predict(self, video: Tensor, query: Tensor, fps: float | None = None) -> Prediction:
        """Predict windows and saliency for one query in one video.

        Args:
            video: [T, K, P, Cv], any float dtype; a memory-mapped float16 array is converted one layer at a time.
            query: [L, K, Cq], any float dtype: without padding, start and end tokens included.
            fps: the sampling rate of `video` in frames per second; None uses the configuration's.

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
        """Predict for several queries at once, with the same results as `predict` for each pair.

        Args:
            videos: [B, T, K, P, Cv], or B equally long [T, K, P, Cv]; B may be 1: for all queries.
            queries: N × [L, K, Cq], of any lengths; N may be 1: for all videos; otherwise N must equal B.
            fps: the sampling rate of the videos in frames per second; None uses the configuration's.

        Returns:
            max(B, N) predictions.

        Raises:
            VtgError: features of another CLIP, no frames, videos of different lengths, or B and N that do not match.
        """
        count = len(videos)
        if not count or not queries or (count != len(queries) and 1 not in (count, len(queries))):
            raise VtgError(
                f"{count} videos and {len(queries)} queries do not match: give equally many, or one of either"
            )
        for query in queries:
            self.check_query(query)
        padded, mask = pad_queries(queries, self.device)
        pairs = len(queries) == count > 1
        output = self.answer(
            self.project(videos),
            padded[:, None] if pairs else padded[None],
            None if mask is None else mask[:, None] if pairs else mask[None],
        )
        windows, saliency = decode(output, self.config, self.config.fps if fps is None else fps)
        return [
            Prediction(
                None if windows is None else windows[item],
                saliency[item],
                output.class_logits[item],
                None if output.offsets is None else output.offsets[item],
                output.points,
            )
            for item in range(len(saliency))
        ]

    @torch.no_grad()
    def attention(self, video: Tensor | VideoProjection, query: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        """Attention weights of query tokens on the patches of each frame (Sec. 3, Query-Modulated Spatial Pooling).

        Args:
            video: [T, K, P, Cv], any float dtype; or the projection of one window.
            query: [L, K, Cq], any float dtype.
            frames: indices of the frames to compute; None for all.

        Returns:
            [K, frames, L, patches] float32, earliest layer first: weights over the patches of the projection in
            row-major order. The class token takes part in the softmax and is left out of the result, so that the
            patches sum to at most 1.

        Raises:
            VtgError: features of another CLIP, or no frames; or the head has no spatial pooling.
        """
        if not self.config.spatial_pooling:
            raise VtgError("this head has no attention maps: it was trained without spatial pooling")
        if isinstance(video, Tensor):
            self._check_videos([video])
        self.check_query(query)
        chosen = list(range(len(video) if isinstance(video, Tensor) else video.frames) if frames is None else frames)
        maps = []
        for layer in range(self.config.layers):
            if isinstance(video, Tensor):
                tokens, scale = self._map_video([video], layer, None, frames=chosen), None
            else:
                projected = video[:1].select_frames(chosen).to(self.device).layers()[layer]
                ((tokens, scale),) = projected.chunks(len(chosen), self.level_scale.dtype)
            words = self._map_query(query[None, :, layer], None)
            maps.append(self.block.attention(tokens, words, scale)[0, :, :, 1:].float())
        return torch.stack(maps)

    @property
    def device(self) -> torch.device:
        """The device of the head; inputs are moved to it."""
        return self.level_scale.device

    @staticmethod
    def _predict_points(head: nn.Module, level: Tensor) -> Tensor:
        predicted: Tensor = head(level.float().transpose(1, 2)).transpose(1, 2)  # [B, points, 1 or 2]
        return predicted

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
        kept = slice(self.config.read_tokens)
        if isinstance(videos, Tensor):
            tokens = videos[:, :, layer, kept]  # [V, T, P, Cv]
        else:
            with torch.autocast(self.device.type, enabled=False):  # torch.stack fails for float16 under autocast
                tokens = torch.stack([video[:, layer, kept] for video in videos])
        return self.block.map_video(tokens.to(self.device), extent, mask)

    def _map_query(self, words: Tensor, mask: Tensor | None) -> Tensor:
        words = words.to(self.level_scale)  # [..., L, Cq]
        if mask is not None:
            words = words.masked_fill(~mask[..., None], 0)
        mapped: Tensor = self.block.query_map(words)
        return mapped

    def _check_videos(self, videos: Tensor | Sequence[Tensor]) -> None:
        for video in videos:
            wanted = (self.config.layers, self.config.tokens or "P", self.config.video_width)
            found = tuple(video.shape[1:])
            matches = len(found) == 3 and all(want in ("P", have) for want, have in zip(wanted, found, strict=True))
            if not matches:
                raise VtgError(
                    f"frame features are {list(video.shape)}, but this head reads [T, {', '.join(map(str, wanted))}]"
                    f": use features of the CLIP that it was trained on ({self.config.clip_model or 'unknown'})"
                )
            if len(video) == 0:
                raise VtgError("the video features contain no frames: extract them again")
            if len(video) != len(videos[0]):
                raise VtgError(f"videos of {len(videos[0])} and {len(video)} frames cannot be batched")

    def check_query(self, query: Tensor) -> None:
        """Check the shape of a query's features.

        Args:
            query: [L, K, Cq].

        Raises:
            VtgError: K or Cq are not this head's, or L is 0.
        """
        wanted = (self.config.layers, self.config.query_width)
        if query.dim() != 3 or tuple(query.shape[1:]) != wanted or len(query) == 0:
            raise VtgError(
                f"query features are {list(query.shape)}, but this head reads [L, {wanted[0]}, {wanted[1]}]"
                f": use features of the CLIP that it was trained on ({self.config.clip_model or 'unknown'})"
            )


def pad_queries(queries: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Pads queries [L, K, Cq] to [N, L, K, Cq], with the mask [N, L] of valid tokens; None if all are valid."""
    padded = nn.utils.rnn.pad_sequence(list(queries), batch_first=True).to(device)
    lengths = [len(query) for query in queries]
    if min(lengths) == max(lengths):
        return padded, None
    return padded, (torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]).to(device)
