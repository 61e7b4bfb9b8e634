"""The embedded store on the real weed: who starts and stops it, what it survives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from archivia_fs.errors import StoreUnavailable
from archivia_fs.store import embedded, weed
from archivia_fs.store.embedded import Access, EmbeddedStore

GATEWAY = """
import sys, pathlib
from archivia_fs.store.embedded import EmbeddedStore
store = EmbeddedStore(pathlib.Path(sys.argv[1]))
print(store.start().endpoint, flush=True)
sys.stdin.read()
store.leave()
"""

A_START = """
from archivia_fs import app, config
with app.Gateway(config.load({})):
    pass
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A name with what could trip a command line: weed splits its -dir at commas."""
    folder = tmp_path / "my, archive"
    yield folder
    store = folder / "store"
    if store.exists() and (pid := weed.find(store)) is not None:
        os.kill(pid, signal.SIGKILL)
        _await(lambda: weed.find(store) is None)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        weed.sweep_sockets(_state(folder)["ports"])


def s3(access: Access) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=access.endpoint,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}),
    )


def put(access: Access, body: bytes) -> None:
    client = s3(access)
    client.create_bucket(Bucket=access.bucket)
    client.put_object(Bucket=access.bucket, Key="page-001.dng", Body=body)


def get(access: Access) -> bytes:
    body: bytes = s3(access).get_object(Bucket=access.bucket, Key="page-001.dng")["Body"].read()
    return body


def _state(home: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((home / "store/state.json").read_text())
    return state


def _await(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def sockets_in_tmp(ports: dict[str, int]) -> list[Path]:
    """Where weed puts the Unix sockets of its gRPC services; there or not."""
    names = [name.removesuffix(".grpc") for name in ports if name.endswith(".grpc")]
    return [Path(f"/tmp/seaweedfs-{name}-grpc-{ports[name + '.grpc']}.sock") for name in names]


def test_all_share_one_and_the_last_to_leave_stops_it(home: Path) -> None:
    first, second = EmbeddedStore(home), EmbeddedStore(home)
    access = first.start()
    put(access, b"a master")
    pid = weed.find(home / "store")
    assert second.start() == access
    assert weed.find(home / "store") == pid
    sockets = sockets_in_tmp(_state(home)["ports"])
    deadline = time.monotonic() + 20  # weed makes them one after the other
    while not all(path.exists() for path in sockets):
        assert time.monotonic() < deadline, "the check below looks at the right place"
        time.sleep(0.05)

    with pytest.raises(StoreUnavailable, match="still uses"):
        EmbeddedStore(home).stop()
    assert not first.leave()
    assert get(access) == b"a master"
    with pytest.raises(StoreUnavailable, match="still uses"):
        EmbeddedStore(home).stop()
    assert second.leave()
    assert not second.leave(), "twice does no harm"
    assert not second.running()
    assert not any(path.exists() for path in sockets)
    assert not EmbeddedStore(home).stop()

    assert first.start() == access, "same ports and keys, so nobody has to be told"
    assert get(access) == b"a master"
    assert first.leave()


def test_a_killed_gateway_leaves_it_to_the_next(home: Path) -> None:
    gateway = subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert gateway.stdout is not None
    endpoint = gateway.stdout.readline().strip()
    pid = weed.find(home / "store")
    gateway.kill()
    gateway.communicate()

    next_one = EmbeddedStore(home)
    assert next_one.running()
    assert next_one.start().endpoint == endpoint
    assert weed.find(home / "store") == pid
    assert next_one.leave()
    assert not next_one.running()


def test_a_crashed_one_comes_back_for_those_who_use_it(home: Path) -> None:
    user, rescuer = EmbeddedStore(home), EmbeddedStore(home)
    access = user.start()
    put(access, b"a master")
    pid = weed.find(home / "store")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    _await(lambda: not rescuer.running())
    assert rescuer.start() == access
    assert get(access) == b"a master"
    assert not user.leave()
    assert rescuer.leave()


@pytest.mark.parametrize("garbage", ["", '{"access_key": "5ca7', "null", '{"access_key": "a", "ports": []}', "\xff"])
def test_a_garbled_state_file_counts_as_none(home: Path, garbage: str) -> None:
    (home / "store").mkdir(parents=True)
    (home / "store/state.json").write_bytes(garbage.encode("latin-1"))
    assert EmbeddedStore(home)._load() is None


def test_a_store_whose_state_file_is_lost_is_stopped_and_started_anew(home: Path) -> None:
    store = EmbeddedStore(home)
    put(store.start(), b"a master")
    pid = weed.find(home / "store")
    (home / "store/state.json").write_text('{"access_key": "5c')
    again = EmbeddedStore(home)
    access = again.start()
    assert weed.find(home / "store") not in (None, pid)
    assert get(access) == b"a master"
    assert not store.leave()
    assert again.leave()


def test_a_stranger_in_its_folder_is_not_taken_for_it(home: Path) -> None:
    """Neither a process with the number of an old one nor one that happens to stand in the folder."""
    (home / "store").mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"], cwd=home / "store") as stranger:
        try:
            (home / "store/state.json").write_text(json.dumps({"pid": stranger.pid, "born": "1", "ports": {}}))
            store = EmbeddedStore(home)
            assert not store.running()
            assert not store.stop()
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_port_that_was_taken_meanwhile_is_left_to_its_owner(home: Path) -> None:
    store = EmbeddedStore(home)
    old = store.start()
    put(old, b"a master")
    assert store.leave()
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind(("127.0.0.1", _state(home)["ports"]["s3"]))
        taker.listen()
        new = store.start()
        assert new.endpoint != old.endpoint
        assert get(new) == b"a master"
        assert store.leave()


def test_it_does_not_try_forever(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times other ports; then the end of weed's own log says why."""
    launches = 0
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        taker.listen()
        honest = weed.free_ports

        def unlucky() -> dict[str, int]:
            nonlocal launches
            launches += 1
            return honest() | {"filer": taker.getsockname()[1]}

        monkeypatch.setattr(weed, "free_ports", unlucky)
        store = EmbeddedStore(home)
        with pytest.raises(StoreUnavailable, match=r"weed\.log ends with: .*port .* is not available"):
            store.start()
        assert embedded.LAUNCHES <= launches <= embedded.LAUNCHES + 1
        assert not store.running()
        assert not store.leave(), "a failed start holds nothing"


def test_one_that_hangs_is_reported_and_can_be_killed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = EmbeddedStore(home)
    user.start()
    pid = weed.find(home / "store")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(embedded, "START_SECONDS", 0.3)
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.3)
    monkeypatch.setattr(weed, "ANSWER_SECONDS", 0.1)
    with pytest.raises(StoreUnavailable, match=f"process {pid}. does not answer"):
        EmbeddedStore(home).start()
    assert user.leave(), "by SIGKILL, since it does not heed SIGTERM"
    assert not user.running()


def test_two_never_share_the_data(home: Path) -> None:
    """A weed that this machine's process table does not show, as in another container, keeps others away."""
    (home / "store").mkdir(parents=True)
    with (home / "store/weed.lock").open("w") as lock:
        embedded.fcntl.flock(lock, embedded.fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match="has this store's data open"):
            EmbeddedStore(home).start()


def test_a_missing_program_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(StoreUnavailable, match="`openssl` is missing"):
        EmbeddedStore(home).start()
    monkeypatch.undo()
    monkeypatch.setattr(weed.sys, "executable", "/nonexistent/python")
    monkeypatch.setattr(weed.shutil, "which", lambda name: None if name == "weed" else f"/usr/bin/{name}")
    with pytest.raises(StoreUnavailable, match="`weed` is missing: run `make setup`"):
        EmbeddedStore(home).start()


def test_a_folder_that_cannot_be_used_is_named(home: Path) -> None:
    home.mkdir()
    (home / "store").write_text("in the way")
    with pytest.raises(StoreUnavailable, match=r"cannot use .*store"):
        EmbeddedStore(home).start()


def test_a_lock_that_is_not_let_go_is_not_waited_for_forever(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "START_SECONDS", 0.2)
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.2)
    (home / "store").mkdir(parents=True)
    with (home / "store/start.lock").open("w") as lock:
        embedded.fcntl.flock(lock, embedded.fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match="does not get done"):
            EmbeddedStore(home).start()


def test_everything_in_the_home_is_for_its_owner_only(home: Path) -> None:
    """Even in a home that others may enter, and with a umask that lets them write."""
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    environment = {**os.environ, "ARCHIVIA_HOME": str(home)}
    subprocess.run([sys.executable, "-c", A_START], env=environment, umask=0, check=True, timeout=60)
    open_to_others = [
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) and home / "store/data" not in path.parents
    ]
    assert (home / "catalog.db").exists()
    assert (home / "store/data").stat().st_mode & 0o777 == 0o700
    assert open_to_others == []
