"""Run a model over a benchmark, write its predictions, and score them.

`run` is the order of it all: `sources` give the features (training reads the same), `grounding` asks heads about them,
`unfinished` keeps what is done, `scoring` makes figures.
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
