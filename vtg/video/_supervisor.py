"""Runs one command as its child, with limited memory, and ends it when the process that asked for it ends.

A program of its own, run by `vtg.video.children` on Linux and macOS as `python -I -S _supervisor.py PARENT MEMORY
COMMAND…`; it imports nothing but what starts within milliseconds. It leads a process group, so that whatever the
command starts can be ended with it.

A process of its own, because the alternatives are weaker: a signal at the parent's death (prctl) exists on Linux only,
comes when the *thread* that started the child ends, is switched off by the set-uid launchers of some packages, and
passes over what a wrapper script has started; code between fork and exec (`preexec_fn`) may deadlock in a program with
threads. It costs 15 ms and 9 MB for each command.
"""

import _signal as signal  # `signal` itself imports `enum`, which takes longer than all the rest
import _thread
import os
import resource
import sys
import time

POLL_SECONDS = 0.1  # between looks at the parent; and, on macOS, at the child's memory
NOT_STARTED = 127  # exit status, as a shell gives it
SIGNALLED = 128  # exit status of a command that signal n has ended: 128 + n, as a shell gives it


def main() -> None:
    """Runs the command of the command line; exits with its status."""
    parent, memory = int(sys.argv[1]), int(sys.argv[2])
    command = sys.argv[3:]
    signal.signal(signal.SIGTERM, lambda *_: end_group())
    child = os.fork()
    if not child:
        become(command, memory)
    # What the command reads and writes is its alone: its end, and only that, must be seen at the pipes' other ends.
    os.close(0)
    os.close(1)
    _thread.start_new_thread(watch, (parent, child, memory))
    _, status = os.waitpid(child, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)  # what the command has left behind would keep the pipes open
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        say(f"{command[0]} was ended by signal {-code} ({signal.strsignal(-code)})")
        code = SIGNALLED - code
    os._exit(code)


def become(command: list[str], memory: int) -> None:
    """Turns this process into the command."""
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # Python ignores some, which a program that it starts would inherit
        limit(resource.RLIMIT_CORE, 0)
        limit(resource.RLIMIT_DATA, memory)  # memory that the process alone can write to; macOS does not enforce it
        os.execvp(command[0], command)
    except OSError as error:
        say(f"{command[0]} cannot be started: {error.strerror}")
    finally:
        os._exit(NOT_STARTED)


def limit(kind: int, most: int) -> None:
    """Lowers a limit of this process."""
    hard = resource.getrlimit(kind)[1]
    if hard == resource.RLIM_INFINITY or hard > most:
        resource.setrlimit(kind, (most, most))


def watch(parent: int, child: int, memory: int) -> None:
    """Ends the whole group when the parent has ended, and on macOS when the child has outgrown its memory."""
    resident = resident_on_macos() if sys.platform == "darwin" else None
    while os.getppid() == parent:
        if resident is not None and resident(child) > memory:
            say("Cannot allocate memory")
            os.kill(child, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    end_group()


def end_group() -> None:
    """Ends the command, what it has started, and this process."""
    os.killpg(0, signal.SIGKILL)


def say(line: str) -> None:
    """Writes one line to standard error, if anybody still listens."""
    try:  # noqa: SIM105 - contextlib takes longer to import than all the rest
        os.write(2, f"{line}\n".encode(errors="replace"))
    except OSError:
        pass


def resident_on_macos():  # type: ignore[no-untyped-def]
    """A function that gives the memory in bytes that a process holds; 0 where it cannot be told."""
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
