"""Run one command as a child process with limited memory, and end it when the parent process ends.

A separate program, run by `vtg.video.child_processes` on Linux and macOS as `python -I -S _supervisor.py PARENT MEMORY
COMMAND…`. It imports only modules that load within milliseconds. It leads a process group, so that everything the
command starts can be ended with it.

It is a separate process because the alternatives are weaker: a signal at the parent's death (prctl) exists on Linux
only, arrives when the *thread* that started the child ends, is disabled by the set-uid launchers of some packages, and
does not reach what a wrapper script has started; code between fork and exec (`preexec_fn`) may deadlock in a program
with threads. It costs 15 ms and 9 MB for each command.
"""

import _signal as signal  # `signal` itself imports `enum`, which takes longer than all the rest
import _thread
import os
import resource
import sys
import time

POLL_SECONDS = 0.1  # between checks of the parent and, on macOS, of the child's memory
NOT_STARTED = 127  # exit status, as a shell gives it
SIGNALLED = 128  # exit status of a command ended by signal n is 128 + n, as in a shell


def main() -> None:
    """Run the command given on the command line; exit with its status."""
    parent, memory = int(sys.argv[1]), int(sys.argv[2])
    command = sys.argv[3:]
    signal.signal(signal.SIGTERM, lambda *_: end_group())
    child = os.fork()
    if not child:
        become(command, memory)
    # Only the command may hold the pipes, so that the other ends see when it closes them.
    os.close(0)
    os.close(1)
    _thread.start_new_thread(watch, (parent, child, memory))
    _, status = os.waitpid(child, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)  # processes that the command left running would keep the pipes open
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        say(f"{command[0]} was ended by signal {-code} ({signal.strsignal(-code)})")
        code = SIGNALLED - code
    os._exit(code)


def become(command: list[str], memory: int) -> None:
    """Replace this process by the command."""
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # Python ignores some of them, and child processes inherit that
        limit(resource.RLIMIT_CORE, 0)
        limit(resource.RLIMIT_DATA, memory)  # private writable memory; macOS does not enforce it
        os.execvp(command[0], command)
    except OSError as error:
        say(f"{command[0]} cannot be started: {error.strerror}")
    finally:
        os._exit(NOT_STARTED)


def limit(kind: int, most: int) -> None:
    """Lower a resource limit of this process."""
    hard = resource.getrlimit(kind)[1]
    if hard == resource.RLIM_INFINITY or hard > most:
        resource.setrlimit(kind, (most, most))


def watch(parent: int, child: int, memory: int) -> None:
    """End the process group when the parent has ended, and on macOS also when the child exceeds its memory limit."""
    resident = resident_on_macos() if sys.platform == "darwin" else None
    while os.getppid() == parent:
        if resident is not None and resident(child) > memory:
            say("Cannot allocate memory")
            os.kill(child, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    end_group()


def end_group() -> None:
    """End the command, what it has started, and this process."""
    os.killpg(0, signal.SIGKILL)


def say(line: str) -> None:
    """Write one line to standard error, if it is still open."""
    try:  # noqa: SIM105 - contextlib takes longer to import than all the rest
        os.write(2, f"{line}\n".encode(errors="replace"))
    except OSError:
        pass


def resident_on_macos():  # type: ignore[no-untyped-def]
    """Return a function that gives the resident memory of a process in bytes; 0 where it is unknown."""
    import ctypes

    task_info, size = 4, 96  # PROC_PIDTASKINFO and the size of its struct proc_taskinfo
    library = ctypes.CDLL("/usr/lib/libproc.dylib")
    library.proc_pidinfo.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int]

    def resident(process: int) -> int:
        fields = (ctypes.c_uint64 * (size // 8))()  # virtual size, resident size, times …
        filled = library.proc_pidinfo(process, task_info, 0, fields, size)
        return fields[1] if filled == size else 0

    return resident


if __name__ == "__main__":
    main()
