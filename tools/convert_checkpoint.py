"""Convert a head between the published layout (`.pth`) and vtg's (`.safetensors`); tensors stay byte-equal."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from vtg.errors import VtgError
from vtg.models.registry import find_model, recognised_settings
from vtg.r2.checkpoints import read_tensors, save_published, save_tensors


def convert(source: Path, out: Path, like: str | None) -> str | None:
    """Convert a checkpoint to the layout given by the suffix of `out`.

    Args:
        source: a published checkpoint, or one in vtg's layout.
        out: a `.safetensors` (vtg's layout) or a `.pth` (published layout).
        like: a registry model whose frame rate, unit and suppression are used; None recognises published files by hash.

    Returns:
        A one-line warning if settings are missing in the written file; None otherwise.

    Raises:
        VtgError: as `read_tensors`; or `out` has another suffix.
    """
    if out.suffix not in (".safetensors", ".pth"):
        raise VtgError(f"{out}: use the suffix .safetensors (vtg's layout) or .pth (published layout)")
    if source.suffix == ".safetensors":
        config, tensors = read_tensors(source)
        if like is not None and not config.guessed:
            raise VtgError(f"{source}: contains its settings; --like is only for checkpoints without settings")
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
    return f"{out}: does not contain frame rate, unit and suppression, as {source} does not; add them with --like MODEL"


def main(words: list[str] | None = None) -> int:
    """Run the command with the given arguments, by default those of the command line; 0 if it worked, 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="checkpoint to convert: a published .pth, or a .safetensors of vtg")
    parser.add_argument("out", type=Path, help="file to write: .safetensors (vtg's layout) or .pth (published layout)")
    parser.add_argument("--like", metavar="MODEL", help="use frame rate, unit and suppression of this registry model")
    arguments = parser.parse_args(words)
    try:
        warning = convert(arguments.source, arguments.out, arguments.like)
    except VtgError as error:
        print(error, file=sys.stderr)
        return 1
    if warning:
        print(warning, file=sys.stderr)
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
