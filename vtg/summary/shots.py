"""Divide a video into shots."""

from __future__ import annotations

import numpy as np

from vtg.features.store import VideoFeatures
from vtg.features.thumbnails import picture_changes

__all__ = ["change_points", "frame_embedding", "shot_edges", "video_shots"]

WINDOW_FRAMES = 240  # frames looked at together: the cost of a long still stretch grows with the square of this
CUT_SHARE = 0.7  # of the mean squared distance between any two frames of the video: a cut changes the picture so much
LEAST_CUT = 0.2  # squared distance between unit vectors: frames nearer than this show one shot in any video
PENALTY_SHARE = 0.3  # of a cut's change; below a half, so that a single frame between two cuts is a shot
LEAST_PICTURE_CHANGE = 0.75  # see `picture_changes`; within a shot few pictures 2 s apart differ as much


def video_shots(features: VideoFeatures) -> np.ndarray:
    """Cut a video into shots by all that is known of its frames; see `shot_edges`."""
    return shot_edges(frame_embedding(features), features.miniatures)


def shot_edges(embedding: np.ndarray, miniatures: np.ndarray | None = None) -> np.ndarray:
    """Cut a video into shots by kernel temporal segmentation (Potapov et al., ECCV 2014).

    The sum over segments of the scatter of their frames, under a linear kernel, plus a penalty a segment is made least
    (PELT of the ruptures package). Segments come and go within a shot too, where things do; so a boundary counts only
    if the two frames at it are nearly as different as any two frames of the video are on average. In a video of one
    shot that says little; so, where miniatures are at hand, the picture must have changed as a whole, too, and not only
    what CLIP sees in it.

    Args:
        embedding: [T, E] of the sampled frames, unit length.
        miniatures: [T, 8, 8, 3] uint8 of the same, from `vtg.features.thumbnails`; None: embeddings alone decide.

    Returns:
        [S + 1] frames: 0, the first frame of each further shot, T. As frame i stands for [i/fps, (i+1)/fps) and shows
        its middle, a boundary is off by half an interval at most.
    """
    signal = np.asarray(embedding, dtype=np.float64)
    if len(signal) < 2:
        return np.array([0, len(signal)])
    # Of unit vectors, the mean over all pairs of different ones follows from their mean.
    spread = 2 * (1 - np.square(signal.mean(axis=0)).sum()) * len(signal) / (len(signal) - 1)
    change = max(LEAST_CUT, CUT_SHARE * spread)
    inner = change_points(signal, PENALTY_SHARE * change)[1:-1]
    changes = np.square(signal[inner] - signal[inner - 1]).sum(axis=1)
    is_cut = changes >= change
    if miniatures is not None:
        is_cut &= picture_changes(miniatures)[inner - 1] >= LEAST_PICTURE_CHANGE
    return np.array([0, *inner[is_cut], len(signal)])


def change_points(signal: np.ndarray, penalty: float, shortest: int = 1) -> np.ndarray:
    """Where a signal changes: edges of the segments that cost least.

    A segment costs its scatter (squared distances from its mean) plus the penalty. A long signal is segmented window by
    window, each beginning at the last edge that is far from the end of the one before: left and right of an edge do not
    depend on each other, so that windows change nothing but that an edge is decided on by what is near.

    Args:
        signal: [T, D] float64.
        penalty: in the unit of the squared signal, above 0.
        shortest: frames in a segment at least.

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
        # What comes after might move an edge near the end of the window.
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
    """What shots are found in: the frames' embeddings.

    Published caches have layers only; the class token of the last one is what CLIP makes the embedding of.

    Returns:
        [T, E] float32, unit length.
    """
    if features.embedding is not None:
        return np.asarray(features.embedding)
    assert features.layers is not None
    tokens = np.asarray(features.layers[:, -1, 0], dtype=np.float32)
    return np.asarray(tokens / np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-12))
