"""Whether the program that waits for us has been killed, or is being ended by a signal; and whether it still has a file open.

Owns: nothing. Used by: bridge, operations. Threading: any thread; reads /proc, about 10 us a file, which never waits for a mount.

A killed program cannot die while a request of it is with us, and when it has files open it makes one more as it dies: the kernel's
close of each. libfuse tells its users of FUSE_INTERRUPT, but pyfuse3 does not pass that on, so we look ourselves. Reads and writes
do not even say whose they are: they count as those of the program that opened the file.

What nobody knows (a program in another PID namespace, or of another user where we are not root) counts as neither.
"""

from __future__ import annotations

import enum
import itertools
import os
import signal
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import trio

_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_SIGKILL = 1 << (signal.SIGKILL - 1)
_ANY_ENDING = _SIGKILL | sum(1 << (number - 1) for number in _ENDING)
_PF_EXITING = 0x4  # include/linux/sched.h
LOOKS = 200  # a millisecond apart; on a busy machine a dying program has to wait for its turn
FAMILY = 64  # programs, and threads of each, that are looked at
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


async def closed_by_signal(program: int, others: Collection[int] = ()) -> bool:
    """Whether a file is being closed right now because a signal (kill, Ctrl-C, a crash) ends the program that opened it, or one of
    the others that have it from there. False if all live, or exit by themselves, whatever the exit code. On trio's loop; takes
    LOOKS ms if one is being ended and does not get on."""
    for _ in range(LOOKS):
        own = set(_endings(program))
        seen = own.union(*(_endings(each) for each in others if each != program))
        if Ending.CLOSES in seen:
            return True
        if not seen:
            return False
        await trio.sleep(0.001)  # it is on its way to waiting for us, or has not come to its files yet
    return bool(own)


class Ending(enum.Enum):
    """How far a thread is that a signal ends."""

    RUNS = enum.auto()
    CLOSES = enum.auto()  # it waits for the answer to a request of the kernel's, made as it exits: the close of a file


def ending_of(stat: str, wchan: str) -> Ending | None:
    """None for a thread that no signal ends, and one that is gone. `stat` and `wchan`: the texts of these files in
    /proc/PID/task/TID (proc_pid_stat(5), proc_pid_wchan(5)); `wchan` names the kernel's function, "0" if it tells nobody."""
    code = exit_code_of(stat)
    if not (code or 0) & 0x7F:  # as in waitpid(2): the signal
        return None
    sleeps = stat.rpartition(")")[2].split()[0] in "SD"
    waits = sleeps and (wchan in ("", "0") or "fuse" in wchan or "request_wait" in wchan)
    return Ending.CLOSES if waits else Ending.RUNS


def _endings(program: int) -> Iterator[Ending]:
    for thread in _threads(program):
        task = f"/proc/{program}/task/{thread}"
        stat = _read(f"{task}/stat")
        code = exit_code_of(stat)
        if code is None:  # of the threads that share their files the last one closes them
            continue
        ending = ending_of(stat, _read(f"{task}/wchan")) if code else None
        if ending is None:
            return
        yield ending


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


def family(programs: Collection[int]) -> frozenset[int]:
    """Those of the programs that live, and their children; FAMILY at most. What a program has open, its children inherit."""
    living = [each for each in programs if Path(f"/proc/{each}").exists()]
    everybody = itertools.chain(living, *(_children(each) for each in living))
    return frozenset(itertools.islice(everybody, FAMILY))


def holds(programs: Iterable[int], ino: int) -> bool:
    """Whether one of the programs has a file of this inode number open for writing (one on another filesystem counts too). A
    descriptor that is being closed does not count. False on kernels before 5.14, whose proc_pid_fdinfo(5) has no `ino`."""
    return any(writes_to(_read(file), ino) for each in programs for file in _descriptors(each))


def writes_to(fdinfo: str, ino: int) -> bool:
    """`fdinfo`: the text of /proc/PID/fdinfo/FD of one descriptor."""
    fields = dict(line.split(":\t", 1) for line in fdinfo.splitlines() if ":\t" in line)
    return fields.get("ino") == str(ino) and int(fields.get("flags", "0"), 8) & os.O_ACCMODE != os.O_RDONLY


def _children(program: int) -> Iterator[int]:
    for thread in itertools.islice(_threads(program), FAMILY):
        yield from map(int, _read(f"/proc/{program}/task/{thread}/children").split())


def _descriptors(program: int) -> Iterator[str]:
    with suppress(OSError):
        yield from (str(path) for path in Path(f"/proc/{program}/fdinfo").iterdir())


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
