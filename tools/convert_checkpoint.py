"""Convert a head between the published layout (`.pth`) and ours (`.safetensors`), both ways, tensors byte-equal."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from vtg.errors import VtgError
from vtg.models.registry import find_model, recognised_settings
from vtg.r2.checkpoints import read_tensors, save_published, save_tensors


def convert(source: Path, out: Path, like: str | None) -> str | None:
    """Read a checkpoint of either kind and writes one of the kind that `out`'s suffix names.

    Args:
        source: a published checkpoint, or one of our `.safetensors`.
        out: a `.safetensors` (ours) or a `.pth` (published layout).
        like: a model of the registry whose rate, unit and suppression a published file gets; None goes by its hash.

    Returns:
        What the file that was written does not say, in one line; None where it says everything that it can.

    Raises:
        VtgError: as `read_tensors`; or an `out` that is neither.
    """
    if out.suffix not in (".safetensors", ".pth"):
        raise VtgError(f"{out}: end it in .safetensors (our format) or .pth (the published layout)")
    if source.suffix == ".safetensors":
        config, tensors = read_tensors(source)
        if like is not None and not config.guessed:
            raise VtgError(f"{source}: has its settings inside; --like is for checkpoints that say nothing of them")
        if like is not None:
            config = replace(config, **find_model(like).settings, guessed=False)
    else:
        config, tensors = read_tensors(source, find_model(like).settings if like else recognised_settings(source))
    if out.suffix == ".pth":
        save_published(tensors, out)
        return None
    save_tensors(config, tensors, out)
    if not config.guessed:
        return None
    return f"{out}: says nothing of its rate, unit and suppression, as {source} does not; --like MODEL gives them"


def main(words: list[str] | None = None) -> int:
    """Run the command on the given words, else on those of the command line; 0 if it worked, 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="a published .pth, or one of our .safetensors")
    parser.add_argument("out", type=Path, help="what to write: .safetensors (ours) or .pth (published layout)")
    parser.add_argument(
        "--like", metavar="MODEL", help="take rate, unit and suppression from this model of the registry"
    )
    arguments = parser.parse_args(words)
    try:
        left_open = convert(arguments.source, arguments.out, arguments.like)
    except VtgError as error:
        print(error, file=sys.stderr)
        return 1
    if left_open:
        print(left_open, file=sys.stderr)
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
