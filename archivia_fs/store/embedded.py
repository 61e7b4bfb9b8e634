"""The embedded object store: one SeaweedFS per home, shared by all gateways of the home.

Owns: its life, its keys, its ports. Used by: app, cli. Threading: one thread; processes are kept apart by file locks.

Everything is under `home`/store, for the owner only: data, keys, ports, log. All gateways of a home share
one store: each holds a shared lock on `users.lock` while it runs, and the last one to leave stops it. SIGKILL of a
gateway leaves it running, and the next gateway adopts it. Whether it runs is asked of the kernel and not of a file. A
store that crashed comes back at its old ports with its old keys, so that gateways which use it go on.
weed itself holds `weed.lock`, so that two never write to the same data, not even from two containers.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from archivia_fs.errors import StoreUnavailable
from archivia_fs.store import weed

BUCKET = "archive"  # made by who uses it first
START_SECONDS = 60.0  # 1 s on an idle machine
# It takes 1 to 3 s: no more requests, then the volumes are closed. Now and then it waits for a connection of its own, opened ahead
# and never used, until that times out after 30 s. Then it is killed, which costs nothing: what was acknowledged is on the disk.
STOP_SECONDS = 5.0
KILL_SECONDS = 10.0
LAUNCHES = 3  # how often other ports are tried
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Access:
    """What an S3 client needs."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str


@dataclass(frozen=True, slots=True)
class _State:
    """What state.json keeps: what clients of a running store must know."""

    access_key: str
    secret_key: str
    ports: dict[str, int]


class EmbeddedStore:
    """`start()` to use it, `leave()` when done."""

    def __init__(self, home: Path) -> None:
        self._directory = home / "store"
        self.data = self._directory / "data"
        self._users: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> Access:
        """Start it, or join the one that runs. Waits START_SECONDS at most, and as long for another who starts it.

        Raises StoreUnavailable: with the end of its log if it does not come up, or if a program or the folder is missing.
        """
        with self._folder(), self._locked("start.lock", START_SECONDS + STOP_SECONDS):
            users = self._open("users.lock")
            try:
                fcntl.flock(users, fcntl.LOCK_SH)
                access = self._join() or self._launch()
            except BaseException:
                os.close(users)
                raise
            self._users = users
        return access

    def leave(self) -> bool:
        """Stop using it; the last one stops it. True if it was stopped."""
        if self._users is None:
            return False
        with self._folder(), self._locked("start.lock", START_SECONDS + STOP_SECONDS):
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            finally:
                os.close(self._users)
                self._users = None
            return self._stop()

    def stop(self) -> bool:
        """Stop it unless someone uses it (then StoreUnavailable). False if it did not run."""
        if not self._directory.exists():
            return False
        with self._folder(), self._locked("start.lock", START_SECONDS + STOP_SECONDS), self._locked("users.lock", 0.0):
            return self._stop()

    def running(self) -> bool:
        """Whether it runs now."""
        return self._directory.exists() and weed.find(self._directory) is not None

    def _join(self) -> Access | None:
        """The access to the one that runs; None if none does, or if its ports and keys are lost (then it is stopped)."""
        pid = weed.find(self._directory)
        if pid is None:
            return None
        state = self._load()
        if state is None:
            self._stop()
            return None
        end = time.monotonic() + START_SECONDS
        while not weed.serves(pid, state.ports["s3"]):  # whoever started it may have been killed before it was up
            if weed.find(self._directory) != pid:
                return None
            if time.monotonic() > end:
                raise StoreUnavailable(
                    f"The embedded store (process {pid}) does not answer. End `serve` and `mount`, run "
                    "`archivia-fs store stop`, and start again."
                )
            time.sleep(_POLL_SECONDS)
        return _access(state)

    def _launch(self) -> Access:
        known = self._load() or _State(secrets.token_hex(16), secrets.token_hex(32), {})
        weed.sweep_sockets(known.ports)
        weed.write_config(self._directory, known.access_key, known.secret_key)
        ports = known.ports or weed.free_ports()
        for _ in range(LAUNCHES):
            state = _State(known.access_key, known.secret_key, ports)
            weed.write_private(self._directory / "state.json", json.dumps(asdict(state)))
            if self._comes_up(ports):
                return _access(state)
            weed.sweep_sockets(ports)
            ports = weed.free_ports()  # the most likely reason: another process has one of the ports
        raise self._failed("did not start")

    def _comes_up(self, ports: dict[str, int]) -> bool:
        """Start weed and wait until it answers; False if it ended before. Raises StoreUnavailable after START_SECONDS."""
        with self._locked("weed.lock", 0.0) as lock:
            self._child = weed.launch(self._directory, ports, lock)
        end = time.monotonic() + START_SECONDS
        while not weed.serves(self._child.pid, ports["s3"]):
            if self._child.poll() is not None:
                return False
            if time.monotonic() > end:
                self._stop()
                raise self._failed(f"does not answer after {START_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
        return True

    def _failed(self, what: str) -> StoreUnavailable:
        log = self._directory / weed.LOG
        return StoreUnavailable(f"The embedded store {what}; {log} ends with: {weed.last_words(self._directory)}")

    def _stop(self) -> bool:
        pid = weed.find(self._directory)
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(pid)  # from here on no other process can be meant
            try:
                if weed.find(self._directory) == pid:
                    _end(process)
            finally:
                os.close(process)
        if self._child is not None:
            self._child.wait()
            self._child = None
        state = self._load()
        if state is not None:
            weed.sweep_sockets(state.ports)
        return True

    def _load(self) -> _State | None:
        """None if there is no state.json or it makes no sense: then keys and ports are chosen anew."""
        try:
            state = _State(**json.loads((self._directory / "state.json").read_text()))
            whole = set(state.ports) == set(weed.PORTS) and all(0 < port < 65536 for port in state.ports.values())
            return state if whole and len(state.access_key) > 15 and len(state.secret_key) > 15 else None
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return None

    @contextlib.contextmanager
    def _folder(self) -> Iterator[None]:
        """The folder is there and ours; what the system refuses becomes a StoreUnavailable."""
        try:
            self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._directory.chmod(0o700)
            yield
        except OSError as error:
            raise StoreUnavailable(
                f"The embedded store cannot use {error.filename or self._directory}: {error.strerror}."
            ) from error

    @contextlib.contextmanager
    def _locked(self, name: str, seconds: float) -> Iterator[int]:
        """flock(2) on a file for the length of the block. Raises StoreUnavailable if another has it for `seconds`."""
        descriptor = self._open(name)
        try:
            end = time.monotonic() + seconds
            while not _lock(descriptor):
                if time.monotonic() >= end:
                    raise StoreUnavailable(_HELD[name])
                time.sleep(_POLL_SECONDS)
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, name: str) -> int:
        return os.open(self._directory / name, os.O_RDWR | os.O_CREAT, 0o600)


_HELD = {
    "start.lock": "Another process starts or stops the embedded store and does not get done; end it, then try again.",
    "users.lock": "A gateway still uses the embedded store; end `serve` and `mount` first.",
    "weed.lock": "Another SeaweedFS has this store's data open, in another container perhaps; end it first.",
}


def _access(state: _State) -> Access:
    return Access(f"http://127.0.0.1:{state.ports['s3']}", BUCKET, state.access_key, state.secret_key)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end(process: int) -> None:
    """SIGTERM, and SIGKILL to one that does not heed it. `process` is a pidfd, readable when it ended (pidfd_open(2))."""
    ended = select.poll()
    ended.register(process, select.POLLIN)
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        signal.pidfd_send_signal(process, number)
        if ended.poll(seconds * 1000):
            return
    raise StoreUnavailable("The embedded store's process does not end, not even when killed; its disk may hang.")
