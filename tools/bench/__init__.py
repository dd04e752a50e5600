"""Benchmarks: each module measures one part of vtg against a baseline in the same run."""

import os

# As in the command line; must be set before PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
