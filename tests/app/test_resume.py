"""Uploads that survive: the gateway dies at two thirds of a file, and whoever sends it again sends only the rest."""

from __future__ import annotations

import base64
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from archivia_fs.types import UploadRecord
from archivia_fs.vfs.transfers import revision_of
from catalog.catalog import Catalog
from tests.app.drive import PASSWORD, Drive

MIB = 1024**2
SIZE = 60 * MIB  # parts of 8 MiB
SENT = 44 * MIB


@pytest.fixture(scope="module")
def master() -> bytes:
    return random.Random(9).randbytes(SIZE)


def journalled(drive: Drive, parts: int) -> UploadRecord:
    """The one upload in the journal, once it has that many parts."""
    catalog = Catalog.open(f"sqlite:///{drive.home}/catalog.db")
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            records = catalog.uploads()
            if len(records) == 1 and len(records[0].parts) >= parts:
                return records[0]
            time.sleep(0.05)
        raise AssertionError(f"{parts} parts are not in the journal: {records}")
    finally:
        catalog.close()


def begin_put(drive: Drive, data: bytes) -> socket.socket:
    """A PUT of `master` of which only the first bytes come."""
    connection = socket.create_connection(("127.0.0.1", drive.port), timeout=30)
    token = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
    connection.sendall(
        f"PUT /Documents/archive/master.dng HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {token}\r\n"
        f"Content-Length: {SIZE}\r\n\r\n".encode()
    )
    connection.sendall(data[:SENT])
    return connection


def state(path: Path, word: str) -> str:
    run = subprocess.run(
        ["getfattr", "--only-values", "-n", f"user.archivia.{word}", str(path)],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    return run.stdout


@pytest.mark.timeout(180)
def test_a_killed_gateway_goes_on_where_it_was(drive: Drive, master: bytes, tmp_path: Path) -> None:
    """[D13] What a dead gateway had stored is taken over by whoever sends the same bytes again, through any door."""
    source = tmp_path / "master.dng"
    source.write_bytes(master)
    with begin_put(drive, master):
        broken = journalled(drive, 4)
        drive.end(signal.SIGKILL)
    drive.start("--xattr")
    there = drive.mount / "Documents/archive/master.dng"
    assert not there.exists()  # the old content (none) stays
    subprocess.run(["rsync", "--inplace", "--append-verify", str(source), str(there)], check=True, timeout=90)
    assert there.read_bytes() == master
    assert state(there, "revision") == revision_of(broken.key)  # the very object that the dead gateway had begun
    assert state(there, "state") == "stored"


@pytest.mark.timeout(180)
def test_a_broken_connection_goes_on_where_it_was(drive: Drive, master: bytes, tmp_path: Path) -> None:
    """A PUT that breaks off leaves the old content, and its parts to the next who sends these bytes."""
    source = tmp_path / "master.dng"
    source.write_bytes(master)
    with begin_put(drive, master):
        broken = journalled(drive, 4)
    subprocess.run(
        ["curl", "--fail", "-s", "-u", f"admin:{PASSWORD}", "-T", str(source),
         f"http://127.0.0.1:{drive.port}/Documents/archive/copy.dng"],
        check=True, timeout=90,
    )  # fmt: skip
    drive.end()
    drive.start("--xattr")
    there = drive.mount / "Documents/archive/copy.dng"
    assert there.read_bytes() == master
    assert state(there, "revision") == revision_of(broken.key)
    assert not (there.parent / "master.dng").exists()
