"""Keeps the collector of garbage from looking through what stays loaded."""

from __future__ import annotations

import atexit
import gc

__all__ = ["set_aside"]


def set_aside() -> None:
    """Take what is loaded by now, for good, out of what the collector of garbage looks through.

    Streamlit has it look through everything after each run of the script. With a model and its libraries loaded that is
    a fifth of a second or more in which no other thread runs, and the cards wait for their way to the browser.
    """
    gc.unfreeze()  # of a library that was looked at before nothing has to stay
    gc.collect()
    gc.freeze()
    atexit.unregister(gc.unfreeze)
    atexit.register(gc.unfreeze)  # some libraries complain of what is not collected in the end
