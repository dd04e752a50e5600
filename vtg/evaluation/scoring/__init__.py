"""Score predictions against annotations.

Inputs are predictions and samples of `vtg.datasets`; outputs are figures by their published names. Read `figures`
(scores of one set of predictions), `summaries` (TVSum), `report` (comparison of files) and `plots`.
"""

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
