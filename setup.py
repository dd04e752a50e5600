"""Builds the compiled engine where there is a compiler for it; all else about the package is in pyproject.toml."""

import platform
from pathlib import Path

from setuptools import Extension, setup

KERNELS = Path("vtg/r2/kernels")
FLAGS = ["-O3", "-g0", "-fno-math-errno", "-fno-strict-aliasing", "-ffp-contract=fast"]
AVX512 = ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512bf16", "fma"]
X86 = {"avx2": ["-mavx2", "-mfma"], "avx512": [f"-m{name}" for name in AVX512]}
ENGINES = {"x86_64": X86, "amd64": X86, "aarch64": {"neon": []}, "arm64": {"neon": []}}

setup(
    ext_modules=[
        Extension(
            f"vtg.r2._engine_{name}",
            sources=[str(KERNELS / "engine.c")],
            depends=sorted(map(str, KERNELS.glob("*.h"))),
            extra_compile_args=FLAGS + flags,
            optional=True,  # without, PyTorch is used
        )
        for name, flags in ENGINES.get(platform.machine().lower(), {}).items()
    ]
)
