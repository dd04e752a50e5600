"""Benchmarks: each module measures one part of vtg against a baseline in the same run."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the command line; must be set before PyTorch is loaded
