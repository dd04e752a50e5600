"""Evaluation: run a model over a benchmark, write its predictions, and score them."""

from vtg.evaluation.heads import Heads
from vtg.evaluation.run import Evaluation, default_model, evaluate
from vtg.evaluation.sources import FeatureSource, LibrarySource, PublishedSource, open_features

__all__ = [
    "Evaluation",
    "FeatureSource",
    "Heads",
    "LibrarySource",
    "PublishedSource",
    "default_model",
    "evaluate",
    "open_features",
]
