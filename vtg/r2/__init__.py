"""R²-Tuning (ECCV 2024, arXiv 2404.00801): from CLIP layers of a video and a query to windows and saliency.

Inputs are tensors: frame features [T, K, P, Cv] and query features [L, K, Cq]; outputs are scored windows in seconds
and one saliency per frame. Read in the order of the data: `config`, `token_map`, `block` (spatial pooling and temporal
refinement), `pyramid`, `head` (the module), `decoding` and `postprocess`.

For many queries: `projection` (the query-independent part, int8) and `predictor`, which uses the compiled `engine`
(`kernels/`) or PyTorch. For training: `targets` and `losses`. `checkpoints` reads and writes files; `attention` makes
maps of the attention weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names

if TYPE_CHECKING:
    from vtg.r2.attention import attention_map
    from vtg.r2.checkpoints import read_head, save_head
    from vtg.r2.config import HeadConfig, LossWeights
    from vtg.r2.decoding import HeadOutput, Prediction
    from vtg.r2.head import R2Head
    from vtg.r2.losses import TrainingBatch, training_losses
    from vtg.r2.postprocess import postprocess_windows
    from vtg.r2.predictor import Predictor
    from vtg.r2.projection import VideoProjection

__all__ = [
    "HeadConfig",
    "HeadOutput",
    "LossWeights",
    "Prediction",
    "Predictor",
    "R2Head",
    "TrainingBatch",
    "VideoProjection",
    "attention_map",
    "postprocess_windows",
    "read_head",
    "save_head",
    "training_losses",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "HeadConfig": "config",
        "HeadOutput": "decoding",
        "LossWeights": "config",
        "Prediction": "decoding",
        "Predictor": "predictor",
        "R2Head": "head",
        "TrainingBatch": "losses",
        "VideoProjection": "projection",
        "attention_map": "attention",
        "postprocess_windows": "postprocess",
        "read_head": "checkpoints",
        "save_head": "checkpoints",
        "training_losses": "losses",
    },
)
