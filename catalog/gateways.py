"""Who is alive: every open catalog is a gateway that says so now and then, until it is closed.

Owns: the table of gateways, and the thread that refreshes our row. Used by: journal, catalog. Threading: `Presence` has a thread
of its own, which writes through the writer like everybody; the functions are pure but for the connection given.

A gateway is dead if it has no row, if its process on this machine is gone, or, where that cannot be seen, if it has
not been heard of for a while. It may be only frozen, so whoever acts on its death makes sure that it fails when it wakes.

A gateway also says since when it has been reading one state of the archive: whatever is released later, somebody there may still
need. One number for all its readers, however many files they read.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from archivia_fs.errors import FsError
from catalog.engine import clock_ns
from catalog.models import gateways
from catalog.session import Session
from catalog.writer import Writer

log = logging.getLogger(__name__)

REFRESH_SECONDS = 20.0
DEAD_SECONDS = 90.0  # without a sign of life; four refreshes may be late
READING_SLACK = 60.0  # seconds earlier; who begins to read may not know yet what others have committed just before
READING_SECONDS = 7 * 24 * 3600.0  # that a reading may last; a reader that never ends does not keep bytes for ever

_ALL = select(gateways)
_ADD = insert(gateways)
_REFRESH = update(gateways).where(gateways.c.origin == bindparam("b_origin")).values(seen_ns=bindparam("now"))
_READING = update(gateways).where(gateways.c.origin == bindparam("b_origin")).values(reading_ns=bindparam("since"))
_DROP = delete(gateways).where(gateways.c.origin == bindparam("b_origin"))


@dataclass(frozen=True, slots=True)
class Process:
    """`machine` names a running kernel and its space of pids (containers have their own), `born` tells two processes
    with one pid apart: clock ticks since the machine started."""

    machine: str
    pid: int
    born: int


@functools.cache
def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()  # another one after a reboot
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _born(pid: int) -> int | None:
    """When a process started (proc_pid_stat(5), field 22); None if there is none, or it waits only to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # field 2 may hold anything
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process of another user, which /proc may keep from us (hidepid in proc(5))."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def this_process() -> Process:
    """What stands in our row."""
    born = _born(os.getpid())
    assert born is not None
    return Process(_machine(), os.getpid(), born)


def is_alive(row: Row[Any], now_ns: int) -> bool:
    """`row` has the columns of `gateways`, all None if there was none; `now_ns` is the shared clock."""
    if row.machine is None:
        return False
    if row.machine == _machine():
        born = _born(row.pid)
        if born is not None or not _is_hidden(row.pid):
            return bool(born == row.born)
    return bool(now_ns - row.seen_ns < DEAD_SECONDS * 1e9)


def refresh(session: Session) -> None:
    """This process is alive; with the first sign of life of an origin the rows of the dead go."""
    now = clock_ns(session.connection)
    if session.connection.execute(_REFRESH, {"b_origin": session.origin, "now": now}).rowcount:
        return
    dead = [row.origin for row in session.connection.execute(_ALL).all() if not is_alive(row, now)]
    for each in dead:
        session.connection.execute(_DROP, {"b_origin": each})
    own = this_process()
    row = {"origin": session.origin, "machine": own.machine, "pid": own.pid, "born": own.born, "seen_ns": now}
    session.connection.execute(_ADD, row)


def others_alive(session: Session) -> bool:
    """Whether any other gateway is alive."""
    now = clock_ns(session.connection)
    rows = session.connection.execute(_ALL).all()
    return any(row.origin != session.origin and is_alive(row, now) for row in rows)


def oldest_reading(connection: Connection) -> int | None:
    """When the oldest reading of a living gateway began; for gc."""
    now = clock_ns(connection)
    rows = connection.execute(_ALL).all()
    begun = [row.reading_ns for row in rows if row.reading_ns is not None and is_alive(row, now)]
    return max(min(begun), now - int(READING_SECONDS * 1e9)) if begun else None


def leave(session: Session) -> None:
    """This gateway ends; what it has not finished may be claimed."""
    session.connection.execute(_DROP, {"b_origin": session.origin})


class Presence:
    """Between `start` and `close` others see that we are alive."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._readings: dict[object, float] = {}  # when they began, by time.monotonic
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="catalog-presence", daemon=True)

    def start(self) -> None:
        """Returns at once: a catalog that is busy or on a full disk can still be read."""
        self._thread.start()

    def reading(self) -> Callable[[], None]:
        """From now on somebody reads the archive as it is, until what this returns is called. Others know REFRESH_SECONDS later,
        which is soon enough: gc always spares what was released within the hour."""
        token = object()
        with self._lock:
            self._readings[token] = time.monotonic()

        def end() -> None:
            with self._lock:
                self._readings.pop(token, None)

        return end

    def close(self) -> None:
        """Whatever we have not finished may be claimed. Idempotent; before the writer is closed."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        try:
            self._writer.submit(leave)
        except FsError as error:  # this process ends, which says the same
            log.debug("The row of this gateway stays: %s", error)

    def _run(self) -> None:
        failures = 0
        while True:
            try:
                self._writer.submit(self._say)
            except FsError as error:
                failures += 1
                if failures == 2:  # of a catalog that is only read for a moment nobody needs to know
                    log.warning("Other gateways may not see that this one is alive: %s", error)
            else:
                failures = 0
            if self._closing.wait(REFRESH_SECONDS):
                return

    def _say(self, session: Session) -> None:
        refresh(session)
        with self._lock:
            oldest = min(self._readings.values(), default=None)
        since = None
        if oldest is not None:
            since = clock_ns(session.connection) - int((time.monotonic() - oldest + READING_SLACK) * 1e9)
        session.connection.execute(_READING, {"b_origin": session.origin, "since": since})
