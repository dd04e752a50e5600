"""Benchmarks: each module measures one thing against what it should beat, in one run."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded
