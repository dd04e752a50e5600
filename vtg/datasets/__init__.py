"""The six benchmarks and the demo world as samples, and what models predict for them."""

from vtg.datasets.annotations import DATASETS, RATED_DATASETS, load_samples, read_annotations, samples_of
from vtg.datasets.moments import CLIP_SECONDS
from vtg.datasets.predictions import Prediction, load_predictions
from vtg.datasets.samples import Annotations, Problem, QueryId, Sample, Split
from vtg.datasets.splits import domain_of, domains, videos_of

__all__ = [
    "CLIP_SECONDS",
    "DATASETS",
    "RATED_DATASETS",
    "Annotations",
    "Prediction",
    "Problem",
    "QueryId",
    "Sample",
    "Split",
    "domain_of",
    "domains",
    "load_predictions",
    "load_samples",
    "read_annotations",
    "samples_of",
    "videos_of",
]
