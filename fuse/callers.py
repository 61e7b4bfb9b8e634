"""Whether the program that waits for us has been killed, or is being ended by a signal.

Owns: nothing. Used by: bridge, operations. Threading: any thread; reads /proc, about 10 us a file, which never waits for a mount.

A killed program cannot die while a request of it is with us, and when it has files open it makes one more as it dies: the kernel's
close of each. libfuse tells its users of FUSE_INTERRUPT, but pyfuse3 does not pass that on, so we look ourselves. Reads and writes
do not even say whose they are: they count as those of the program that opened the file.

What nobody knows (a program in another PID namespace, or of another user where we are not root) counts as neither.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_SIGKILL = 1 << (signal.SIGKILL - 1)
_ANY_ENDING = _SIGKILL | sum(1 << (number - 1) for number in _ENDING)
_PF_EXITING = 0x4  # include/linux/sched.h
_STATE, _FLAGS, _EXIT_CODE = 3, 9, 52  # fields of proc_pid_stat(5), from 1


def program_of(thread: int) -> int:
    """The program (thread group) a living thread belongs to; the thread's own number if nobody knows."""
    _, _, after = _read(f"/proc/{thread}/status").partition("\nTgid:")
    number, _, _ = after.partition("\n")
    return int(number) if number.strip().isdigit() else thread


def is_killed(program: int) -> bool:
    """Whether the program will not see what it waits for: SIGKILL is pending (as which the kernel also queues every other signal
    that ends a program, so Ctrl-C of `cp` too), or it is past that and closing its files."""
    return any(waits_in_vain(_read(f"/proc/{program}/task/{thread}/status")) for thread in _threads(program))


def waits_in_vain(status: str) -> bool:
    """`status`: the text of /proc/PID/status of one thread, proc_pid_status(5)."""
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    try:
        state = fields["State"][0]
        pending = int(fields["SigPnd"][0], 16) | int(fields["ShdPnd"][0], 16)
        if state in "ZX":
            return False
        if fields["FDSize"] == [
            "0"
        ]:  # it exits, and no signal reaches it any more: one that waits says that somebody sent it
            return state == "D" or bool(pending & _ANY_ENDING)
        return bool(pending & _SIGKILL)
    except (KeyError, IndexError, ValueError):
        return False


def ended_by_signal(program: int) -> bool:
    """Whether a signal (kill, Ctrl-C, a crash) is ending the program right now, so that the kernel closes its files for it. False
    for a program that exits by itself, whatever its exit code."""
    for thread in _threads(program):
        code = exit_code_of(_read(f"/proc/{program}/task/{thread}/stat"))
        if (
            code is not None
        ):  # of the threads that share their files the last one closes them, and all end with one code
            return bool(code & 0x7F)  # as in waitpid(2): the signal
    return False


def exit_code_of(stat: str) -> int | None:
    """As waitpid(2) will report it; 0 for a thread that does not end. None for one that is dead, or not known. `stat`: the text of
    /proc/PID/stat of one thread."""
    fields = stat.rpartition(")")[2].split()  # the name before it may contain anything
    try:
        if fields[_STATE - 3] in "ZX":
            return None
        return int(fields[_EXIT_CODE - 3]) if int(fields[_FLAGS - 3]) & _PF_EXITING else 0  # else it may be a stop's
    except (IndexError, ValueError):
        return None


def _threads(program: int) -> Iterator[str]:
    with suppress(OSError):
        yield from (path.name for path in Path(f"/proc/{program}/task").iterdir())


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return os.read(descriptor, 8192).decode(errors="replace")
        finally:
            os.close(descriptor)
    except OSError:
        return ""
