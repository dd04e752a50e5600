"""The published metrics of the six benchmarks: numbers in, numbers out, no files."""

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
