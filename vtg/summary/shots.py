"""Detect shot boundaries from frame embeddings and thumbnails."""

from __future__ import annotations

import math

import numpy as np

from vtg.features.store import VideoFeatures
from vtg.features.thumbnails import frame_differences

__all__ = ["change_points", "frame_embedding", "shot_edges", "video_shots"]

WINDOW_FRAMES = 240  # segmented together; the cost of a static span grows with the square of this
CUT_SHARE = 0.7  # of the mean squared distance between two frames of the video: minimum change at a cut
MIN_CUT_DISTANCE = 0.2  # squared distance of unit vectors: minimum change at a cut in any video
PENALTY_SHARE = 0.3  # of the change at a cut; below 0.5, so that a single frame between two cuts is a shot
MIN_PICTURE_CHANGE = 0.75  # see `frame_differences`; few frames 2 s apart in a shot differ by as much


def video_shots(features: VideoFeatures) -> np.ndarray:
    """Detect the shots of a video from its embeddings and thumbnails; see `shot_edges`."""
    return shot_edges(frame_embedding(features), features.thumbnails)


def shot_edges(embedding: np.ndarray, thumbnails: np.ndarray | None = None) -> np.ndarray:
    """Detect shots by kernel temporal segmentation (Potapov et al., ECCV 2014).

    Minimizes the sum over segments of the scatter of their frames (linear kernel) plus a penalty per segment (PELT of
    the ruptures package). Segments also change within a shot, when objects appear; so a boundary counts only if its two
    frames differ nearly as much as two frames of the video do on average. This says little in a video of a single shot;
    so, with thumbnails, the image as a whole must have changed as well, and not only its embedding.

    Args:
        embedding: [T, E] of the sampled frames, unit length.
        thumbnails: [T, 8, 8, 3] uint8 thumbnails of them, from `vtg.features.thumbnails`; None: only embeddings.

    Returns:
        [S + 1] frames: 0, the first frame of each further shot, T. As frame i represents [i/fps, (i+1)/fps) and shows
        its middle, a boundary has an error of half an interval at most.
    """
    signal = np.asarray(embedding, dtype=np.float64)
    if len(signal) < 2:
        return np.array([0, len(signal)])
    # The mean squared distance over all pairs of unit vectors follows from their mean.
    spread = 2 * (1 - np.square(signal.mean(axis=0)).sum()) * len(signal) / (len(signal) - 1)
    change = max(MIN_CUT_DISTANCE, CUT_SHARE * spread)
    inner = change_points(signal, PENALTY_SHARE * change)[1:-1]
    changes = np.square(signal[inner] - signal[inner - 1]).sum(axis=1)
    is_cut = changes >= change
    if thumbnails is not None:
        is_cut &= frame_differences(thumbnails)[inner - 1] >= MIN_PICTURE_CHANGE
    return np.array([0, *inner[is_cut], len(signal)])


def change_points(signal: np.ndarray, penalty: float, shortest: int = 1) -> np.ndarray:
    """Detect change points: edges of the segments with the lowest total cost.

    A segment costs its scatter (squared distances from its mean) plus the penalty. A long signal is segmented in
    windows, each starting at the last edge that is far from the end of the window before. The parts on either side of
    an edge are independent, so windows only limit how far away frames can influence an edge.

    Args:
        signal: [T, D] float64.
        penalty: in the unit of the squared signal, above 0.
        shortest: minimum number of frames in a segment.

    Returns:
        [S + 1] ascending, from 0 to T.
    """
    edges, begin, total = [0], 0, len(signal)
    while begin < total:
        window = signal[begin : begin + WINDOW_FRAMES]
        found = [begin + edge for edge in _segment(window, penalty, shortest)]
        if begin + len(window) == total:
            edges += [edge for edge in found if edge > edges[-1]]
            break
        # Later frames might move an edge near the end of the window.
        steady = [edge for edge in found if edges[-1] < edge <= begin + WINDOW_FRAMES // 2]
        edges += steady
        begin = steady[-1] if steady else begin + WINDOW_FRAMES // 2
    if edges[-1] != total:
        edges.append(total)
    return np.array(edges)


def _segment(signal: np.ndarray, penalty: float, shortest: int) -> list[int]:
    """Edges after the first, up to and including the end."""
    if len(signal) < 2 * shortest:
        return [len(signal)]
    from ruptures import KernelCPD

    return [int(edge) for edge in KernelCPD(kernel="linear", min_size=shortest).fit_predict(signal, pen=penalty)]


def frame_embedding(features: VideoFeatures) -> np.ndarray:
    """The frame embeddings for shot detection.

    Published feature caches have layers only; the class token of the last one, before CLIP's projection, is used, or
    for a tower without, whose tokens are a square grid of patches, their mean.

    Returns:
        [T, E] float32, unit length.
    """
    if features.embedding is not None:
        return np.asarray(features.embedding)
    assert features.layers is not None
    count = features.layers.shape[2]
    own = slice(None) if math.isqrt(count) ** 2 == count else slice(1)
    tokens = np.asarray(features.layers[:, -1, own], dtype=np.float32).mean(axis=1)
    return np.asarray(tokens / np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-12))
