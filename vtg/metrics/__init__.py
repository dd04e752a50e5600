"""The published metrics of the six benchmarks, as functions of arrays.

Inputs are predicted and true windows [N, 3] and [M, 2] in seconds, or saliency and ratings per clip; outputs are
figures in 0…1, per query and as means. Read `moments` (with `overlap`, IoU), `highlights`, `ranking` (YouTube
Highlights and TVSum, with `order`) and `summaries`; `bootstrap` gives confidence intervals.
"""

from vtg.metrics.bootstrap import interval, resampled_means
from vtg.metrics.highlights import RATING_LEVELS, HighlightFigures, highlight_detection
from vtg.metrics.moments import (
    LENGTH_RANGES,
    PRECISION_THRESHOLDS,
    RECALL_THRESHOLDS,
    MomentFigures,
    moment_retrieval,
)
from vtg.metrics.overlap import crossed_iou, paired_iou
from vtg.metrics.ranking import TVSUM_CLIPS, tvsum_precision, youtube_precision
from vtg.metrics.summaries import SUMMARY_SHARE, RankCorrelation, SummaryF1, keyshots, rank_correlation, summary_f1

__all__ = [
    "LENGTH_RANGES",
    "PRECISION_THRESHOLDS",
    "RATING_LEVELS",
    "RECALL_THRESHOLDS",
    "SUMMARY_SHARE",
    "TVSUM_CLIPS",
    "HighlightFigures",
    "MomentFigures",
    "RankCorrelation",
    "SummaryF1",
    "crossed_iou",
    "highlight_detection",
    "interval",
    "keyshots",
    "moment_retrieval",
    "paired_iou",
    "rank_correlation",
    "resampled_means",
    "summary_f1",
    "tvsum_precision",
    "youtube_precision",
]
