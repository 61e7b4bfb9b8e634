"""Programs under measurement: started, timed, weighed with everything they fork, and ended for certain.

Owns: child processes and what /proc says of them. Used by: contenders, rows. Start services from the main thread only:
they die with the thread that started them (prctl(2) PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 90.0  # a mount may finish uploads before it goes
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A row that cannot be measured; the message stands in the table."""


@dataclass(slots=True)
class Service:
    """A program that runs until `stop`, and all processes that come from it."""

    process: subprocess.Popen[bytes]
    log: Path
    _peaks: dict[int, int] = field(default_factory=dict)

    @classmethod
    def start(cls, command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> Service:
        """Run `command` in `directory`; its output goes to a log there."""
        log = directory / f"{Path(command[0]).name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                # setpriv (util-linux) because a preexec_fn may deadlock in a process with threads
                ["setpriv", "--pdeathsig", "KILL", *command],
                cwd=directory,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, log)

    def wait_until(self, ready: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        """Poll `ready`. Raises BenchError with the end of the log when the program ends first or time runs out."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{what}: {self.tail()}")
            time.sleep(0.02)

    def tail(self) -> str:
        """The last lines of the log."""
        return self.log.read_text(errors="replace")[-600:].strip() or "no output"

    def peak_bytes(self) -> int:
        """Sum of the peak resident sizes (proc(5) VmHWM) of all its processes so far: an upper bound of the peak."""
        for pid in self._members():
            with contextlib.suppress(OSError, ValueError, StopIteration):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                peak = next(line for line in lines if line.startswith("VmHWM:"))
                self._peaks[pid] = max(self._peaks.get(pid, 0), int(peak.split()[1]) * 1024)
        return sum(self._peaks.values())

    def own_peak_bytes(self) -> int:
        """Peak resident size of its first process alone, since it began or `forget_peak`."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024

    def forget_peak(self) -> None:
        """The peak of its first process is what it has now (proc(5), clear_refs)."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu_seconds(self) -> float:
        """User and system time of its processes, and of children already waited for."""
        ticks = 0
        for pid in self._members():
            with contextlib.suppress(OSError):
                ticks += sum(int(value) for value in _stat(pid)[11:15])
        return ticks / _TICKS

    def stop(self) -> None:
        """SIGTERM, then after STOP_SECONDS SIGKILL; returns when every process is gone."""
        members = self._members()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        for pid in {*members, *self._members()} - {self.process.pid}:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def _members(self) -> list[int]:
        """Its process and descendants, and whoever else is in its session; they are ours alone."""
        found = {self.process.pid}
        parents: list[tuple[int, int, int]] = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    fields = _stat(int(entry.name))
                    parents.append((int(entry.name), int(fields[1]), int(fields[3])))
        grown = True
        while grown:
            grown = False
            for pid, parent, session in parents:
                if pid not in found and (parent in found or session == self.process.pid):
                    found.add(pid)
                    grown = True
        return sorted(found)


def _stat(pid: int) -> list[str]:
    """The fields of proc(5) /proc/PID/stat from `state` on; the name before it may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def run(
    command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None, codes: Collection[int] = (0,)
) -> str:
    """Run a program to its end; its standard output.

    Raises BenchError when its exit code is not among `codes` or it takes longer than `seconds`.
    """
    try:
        done = subprocess.run(
            command,
            timeout=seconds,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]}: not done after {seconds:.0f} s") from None
    if done.returncode not in codes:
        raise BenchError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def timed(command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> tuple[float, str]:
    """`run`, and how many seconds it took."""
    start = time.perf_counter()
    output = run(command, seconds, environment)
    return time.perf_counter() - start, output


def is_mounted(mountpoint: Path) -> bool:
    """Asks the mount table and not the mount, which may hang."""
    return any(line.split()[4] == str(mountpoint) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def drop_caches() -> bool:
    """Write dirty pages out and empty the kernel's caches of pages, entries and inodes; False when not root."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except PermissionError:
        return False
    return True
