"""Exclude loaded models and libraries from garbage collection, which Streamlit runs after each script run."""

from __future__ import annotations

import atexit
import gc

__all__ = ["freeze_loaded_objects"]


def freeze_loaded_objects() -> None:
    """Exclude all objects that exist now from garbage collection.

    Streamlit runs a full collection after each run of the script. With a model and its libraries loaded this takes
    0.2 s or more in which no other thread runs, and delays the results.
    """
    gc.unfreeze()  # objects of a library that was open before may be collected
    gc.collect()
    gc.freeze()
    atexit.unregister(gc.unfreeze)
    atexit.register(gc.unfreeze)  # some libraries warn about objects that are not collected at exit
