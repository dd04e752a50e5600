"""Builds the compiled engine where there is a compiler for it; all else about the package is in pyproject.toml.

The engine is loaded with ctypes and does not use Python's own interface, so one wheel serves all versions of Python. On
Windows it is compiled by Zig's C compiler, which the build requires there: the source is written for GCC and Clang.
"""

import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

KERNELS = Path("vtg/r2/kernels")
FLAGS = ["-O3", "-g0", "-fno-math-errno", "-fno-strict-aliasing", "-ffp-contract=fast"]
AVX512 = ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512bf16", "fma"]
X86 = {"avx2": ["-mavx2", "-mfma"], "avx512": [f"-m{name}" for name in AVX512]}
ENGINES = {"x86_64": X86, "amd64": X86, "aarch64": {"neon": []}, "arm64": {"neon": []}}
ZIG_PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64"}  # other names are the same
LOWEST_PYTHON = "cp310"
IS_LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")  # free-threaded Pythons need wheels of their own


class BuildEngine(build_ext):
    """Compiles the engine with the system's compiler, or with Zig's on Windows."""

    def build_extension(self, ext: Extension) -> None:
        """Compile one engine.

        Raises:
            CompileError: it cannot be compiled, and is left out.
        """
        if sys.platform != "win32":
            super().build_extension(ext)
            return
        out = Path(self.build_temp, f"{ext.name}.dll")  # Zig leaves debug information and an import library beside it
        out.parent.mkdir(parents=True, exist_ok=True)
        place = Path(self.get_ext_fullpath(ext.name))
        place.parent.mkdir(parents=True, exist_ok=True)
        processor = platform.machine().lower()
        target = f"{ZIG_PROCESSORS.get(processor, processor)}-windows-gnu"
        command = [sys.executable, "-m", "ziglang", "cc", "-target", target]
        try:
            subprocess.run([*command, "-shared", *ext.extra_compile_args, "-o", out, *ext.sources], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CompileError(str(error)) from error
        shutil.copyfile(out, place)


setup(
    ext_modules=[
        Extension(
            f"vtg.r2._engine_{name}",
            sources=[str(KERNELS / "engine.c")],
            depends=sorted(map(str, KERNELS.glob("*.h"))),
            extra_compile_args=FLAGS + flags,
            py_limited_api=IS_LIMITED,
            optional=True,  # without, PyTorch is used
        )
        for name, flags in ENGINES.get(platform.machine().lower(), {}).items()
    ],
    cmdclass={"build_ext": BuildEngine},
    options={"bdist_wheel": {"py_limited_api": LOWEST_PYTHON}} if IS_LIMITED else {},
)
