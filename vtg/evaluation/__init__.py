"""Run models on benchmarks, write their predictions, and score them.

Inputs are a recipe and features (cached arrays or a library); outputs are a file of predictions and its figures. Read
`run` (the whole sequence), `sources` (features, also for training), `heads` (loaded heads with the recipe's settings),
`grounding` (predictions for a data set), `partial` (predictions of an interrupted run) and `scoring`.
"""

from vtg.evaluation.grounding import CacheGrounder, LibraryGrounder
from vtg.evaluation.heads import Heads
from vtg.evaluation.run import Evaluation, default_model, evaluate
from vtg.evaluation.sources import FeatureSource, LibrarySource, PublishedSource, open_features

__all__ = [
    "CacheGrounder",
    "Evaluation",
    "FeatureSource",
    "Heads",
    "LibraryGrounder",
    "LibrarySource",
    "PublishedSource",
    "default_model",
    "evaluate",
    "open_features",
]
