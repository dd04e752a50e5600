"""Check predictions for QVHighlights' val and test parts and pack them for its evaluation server.

python -m tools.make_submission val.jsonl test.jsonl --annotations data/qvhighlights --out submission.zip
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from vtg.datasets import Prediction, Sample, load_predictions, load_samples
from vtg.errors import VtgError
from vtg.files.whole import write_whole
from vtg.recipes import load_recipe

PARTS = ("val", "test")
NAMES = {part: f"hl_{part}_submission.jsonl" for part in PARTS}  # file names in the archive, given by the server
CLIP_SECONDS = 2.0


def check(predictions: Sequence[Prediction], samples: Sequence[Sample], source: Path) -> None:
    """Check that the server accepts the predictions.

    Args:
        predictions: predictions of one part.
        samples: samples of that part.
        source: the file of predictions, for messages.

    Raises:
        VtgError: a query is missing, unknown, without windows or saliency, or has a window outside its video.
    """
    wanted = {sample.query_id: sample for sample in samples}
    given = {prediction.query_id for prediction in predictions}
    for query_id in wanted:
        if query_id not in given:
            missing = len(wanted.keys() - given)
            raise VtgError(
                f"{source}: has no prediction for query {query_id} ({missing} missing); predict the whole part"
            )
    for prediction in predictions:
        where = f"{source}:{prediction.line}: query {prediction.query_id}"
        sample = wanted.get(prediction.query_id)
        if sample is None:
            raise VtgError(f"{where} is not of this part; give the file of the other part")
        if prediction.windows is None or prediction.saliency is None:
            raise VtgError(f"{where} lacks windows or saliency; the server requires both")
        if prediction.windows[:, 1].max() > sample.duration + CLIP_SECONDS or prediction.windows[:, 0].min() < 0:
            raise VtgError(f"{where} has a window outside its video of {sample.duration:g} s")
        clips = -(-sample.duration // CLIP_SECONDS)
        if abs(len(prediction.saliency) - clips) > 1:
            raise VtgError(f"{where} has {len(prediction.saliency)} saliency scores for {clips:.0f} clips of 2 s")


def pack(files: dict[str, Path], annotations: Path, out: Path) -> None:
    """Check the predictions of both parts and write the archive, whole or not at all.

    Args:
        files: predictions by part.
        annotations: the folder of QVHighlights' annotation files.
        out: the archive to write.

    Raises:
        VtgError: predictions or annotations are missing or wrong.
    """
    data = load_recipe("qvhighlights").data
    for part, path in files.items():
        names = [annotations / name for name in data.annotations[part] if (annotations / name).is_file()]
        if not names:
            raise VtgError(f"{annotations}: has none of {', '.join(data.annotations[part])}; check --annotations")
        check(load_predictions(path), load_samples(names[0], "qvhighlights"), path)
    with write_whole(out) as part_file, zipfile.ZipFile(part_file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, path in files.items():
            archive.write(path, NAMES[part])


def main() -> int:
    """Run from a shell; 0 if it worked, 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("val", type=Path, help="predictions of the val part, JSON lines")
    parser.add_argument("test", type=Path, help="predictions of the test part, JSON lines")
    parser.add_argument(
        "--annotations", type=Path, default=Path("data/qvhighlights"), help="folder of annotation files"
    )
    parser.add_argument("--out", type=Path, default=Path("submission.zip"), help="archive to write")
    arguments = parser.parse_args()
    try:
        pack({"val": arguments.val, "test": arguments.test}, arguments.annotations, arguments.out)
    except (VtgError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{arguments.out}: both parts are complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
