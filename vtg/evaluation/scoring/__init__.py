"""Scoring of predictions: figures, the report that compares them, and its plots."""

from vtg.evaluation.scoring.figures import Scores, score_predictions
from vtg.evaluation.scoring.plots import plot
from vtg.evaluation.scoring.report import Cell, Difference, Report, Row, score_files
from vtg.evaluation.scoring.summaries import with_summary_figures

__all__ = [
    "Cell",
    "Difference",
    "Report",
    "Row",
    "Scores",
    "plot",
    "score_files",
    "score_predictions",
    "with_summary_figures",
]
