"""Windows only: limit the memory of child processes and end them with this process (job object); process statistics."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import sys

__all__ = ["adopt", "bytes_read", "resident_bytes"]

PROCESS_MEMORY, DIE_ON_UNHANDLED_EXCEPTION, KILL_ON_JOB_CLOSE = 0x100, 0x400, 0x2000  # JOB_OBJECT_LIMIT_…
EXTENDED_LIMITS = 9  # JobObjectExtendedLimitInformation


class _BasicLimits(ctypes.Structure):
    _fields_ = [
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", ctypes.c_uint32),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", ctypes.c_uint32),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", ctypes.c_uint32),
        ("SchedulingClass", ctypes.c_uint32),
    ]


class _Transfers(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "ReadOperationCount",
            "WriteOperationCount",
            "OtherOperationCount",
            "ReadTransferCount",
            "WriteTransferCount",
            "OtherTransferCount",
        )
    ]


class _ExtendedLimits(ctypes.Structure):
    _fields_ = [
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", _Transfers),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    ]


class _MemoryCounters(ctypes.Structure):
    _fields_ = [
        ("cb", ctypes.c_uint32),
        ("PageFaultCount", ctypes.c_uint32),
        ("PeakWorkingSetSize", ctypes.c_size_t),
        ("WorkingSetSize", ctypes.c_size_t),
        ("QuotaPeakPagedPoolUsage", ctypes.c_size_t),
        ("QuotaPagedPoolUsage", ctypes.c_size_t),
        ("QuotaPeakNonPagedPoolUsage", ctypes.c_size_t),
        ("QuotaNonPagedPoolUsage", ctypes.c_size_t),
        ("PagefileUsage", ctypes.c_size_t),
        ("PeakPagefileUsage", ctypes.c_size_t),
    ]


if sys.platform == "win32":

    @functools.cache
    def _kernel() -> ctypes.WinDLL:
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateJobObjectW.restype = ctypes.c_void_p
        kernel.CreateJobObjectW.argtypes = [ctypes.c_void_p, ctypes.c_wchar_p]
        kernel.SetInformationJobObject.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32]
        kernel.AssignProcessToJobObject.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.K32GetProcessMemoryInfo.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32]
        kernel.GetProcessIoCounters.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        return kernel

    @functools.cache
    def _job(memory: int) -> int:
        """The job object of all child processes. Its handle stays open: the system closes it when this process ends."""
        kernel = _kernel()
        job = kernel.CreateJobObjectW(None, None)
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = PROCESS_MEMORY | DIE_ON_UNHANDLED_EXCEPTION | KILL_ON_JOB_CLOSE
        limits.ProcessMemoryLimit = memory
        size = ctypes.sizeof(limits)
        if not job or not kernel.SetInformationJobObject(job, EXTENDED_LIMITS, ctypes.byref(limits), size):
            raise ctypes.WinError(ctypes.get_last_error())
        return int(job)

    def _handle(process: subprocess.Popen[bytes]) -> int:
        """The system's handle of a process. Python offers none publicly; one opened by the id could lack rights."""
        return int(process._handle)  # type: ignore[attr-defined]

    def adopt(process: subprocess.Popen[bytes], memory: int) -> None:
        """Apply the limits to a process that has just been started.

        Args:
            process: the process.
            memory: maximum memory that it may commit, bytes.

        Raises:
            OSError: the system refuses; the process has been ended.
        """
        try:
            if not _kernel().AssignProcessToJobObject(_job(memory), _handle(process)):
                raise ctypes.WinError(ctypes.get_last_error())
        except OSError:
            if process.poll() is None:
                process.kill()
                process.wait()
                raise

    def bytes_read(process: subprocess.Popen[bytes]) -> int | None:
        """Bytes that a process has read so far; None where unknown."""
        transfers = _Transfers()
        known = _kernel().GetProcessIoCounters(_handle(process), ctypes.byref(transfers))
        return int(transfers.ReadTransferCount) if known else None

    def resident_bytes() -> int | None:
        """Resident memory of this process in bytes; None where unknown."""
        counters = _MemoryCounters(cb=ctypes.sizeof(_MemoryCounters))
        kernel = _kernel()
        known = kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
        return int(counters.WorkingSetSize) if known else None
