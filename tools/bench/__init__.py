"""Benchmarks: each module measures one thing against what it should beat, in one run."""

import vtg  # noqa: F401 - before torch, whose threads it tells to sleep while they wait
