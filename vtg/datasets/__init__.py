"""Read annotations and predictions of the six benchmarks and the demo data set.

Inputs are files in their published formats; outputs are `Sample`s (query, video, windows, ratings) with the `Problem`s
of a file, and `Prediction`s. Read `samples` (data classes), `annotations` (detects the format and calls the readers
`moments`, `charades`, `ego4d` and `rated`) and `predictions`. `splits` has the published splits of domains; `files` and
`fields` read lines and check values.
"""

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
