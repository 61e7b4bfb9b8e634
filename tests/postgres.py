"""A real PostgreSQL for tests: Debian's server, started by the tests, gone with them.

Owns: one server process in a temporary directory, on a loopback port. Used by: tests/catalog. Durability is on, as in earnest.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

BIN = Path("/usr/lib/postgresql/15/bin")  # Debian 12's package postgresql-15
START_SECONDS = 30.0
ACCOUNT = "postgres"  # initdb refuses root


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The SQLAlchemy URL of a new, empty database. Skips if the server is not installed."""
    if not (BIN / "postgres").exists():
        pytest.skip(f"PostgreSQL is not in {BIN}: apt-get install postgresql-15")
    home = Path(tempfile.mkdtemp(prefix="archivia-postgres-"))
    try:
        prefix: tuple[str, ...] = ()
        if os.getuid() == 0:
            account = pwd.getpwnam(ACCOUNT)
            os.chown(home, account.pw_uid, account.pw_gid)
            prefix = ("setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
        data, log = home / "data", home / "log"
        subprocess.run(
            [*prefix, BIN / "initdb", "-D", data, "-U", "archivia", "--auth=trust", "--encoding=UTF8", "--locale=C"],
            check=True, capture_output=True, cwd=home,
        )  # fmt: skip
        port = _free_port()
        with log.open("wb") as output:
            server = subprocess.Popen(
                [*prefix, BIN / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1",
                 "-c", "unix_socket_directories=", "-c", "shared_buffers=16MB"],
                stdout=output, stderr=output, cwd=home,
            )  # fmt: skip
        try:
            _wait(server, port, log)
            yield f"postgresql+psycopg://archivia@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(3)  # SIGQUIT: at once; there is nothing to keep
            server.wait(30)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        ready = subprocess.run([BIN / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False)
        if ready.returncode == 0:
            return
        time.sleep(0.05)
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}")
