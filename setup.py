"""Compiles the kernels where there is a compiler for them; all else about the package is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

KERNELS = Path("vtg/r2/kernels")

setup(
    ext_modules=[
        Extension(
            "vtg.r2._kernels",
            sources=[str(KERNELS / "answer.c")],
            depends=sorted(map(str, KERNELS.glob("*.h"))),
            extra_compile_args=["-O3", "-g0", "-fno-math-errno", "-fno-strict-aliasing"],
            optional=True,  # without, torch alone answers questions
        )
    ]
)
