"""Whether the program that waits for us has been killed.

Owns: nothing. Used by: bridge. Threading: any thread; reads /proc, which never waits for a mount.

A killed program cannot die while a request of it is with us, and when it has files open it makes one more as it dies: the kernel's
close of each. libfuse tells its users of FUSE_INTERRUPT, but pyfuse3 does not pass that on, so we look ourselves.
"""

from __future__ import annotations

import signal
from pathlib import Path

_SIGKILL = 1 << (signal.SIGKILL - 1)


def is_killed(pid: int, status: str | None = None) -> bool:
    """Whether thread `pid` waits inside the kernel and will not see the answer: SIGKILL is pending (as which the kernel also queues
    every other signal that ends a program, so Ctrl-C of `cp` too), or it is dying and has let go of its files. False if
    nobody knows: it may be in another PID namespace. `status`: the text of /proc/PID/status, proc_pid_status(5)."""
    if status is None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return False
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    try:
        if fields["State"][0] != "D":
            return False
        pending = int(fields["SigPnd"][0], 16) | int(fields["ShdPnd"][0], 16)
        return bool(pending & _SIGKILL) or fields["FDSize"] == ["0"]
    except (KeyError, IndexError, ValueError):
        return False
