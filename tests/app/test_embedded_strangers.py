"""Another user of the machine can reach the embedded store's ports, and gets nothing there.

The strangers are real clients: HTTP requests, TLS, and weed's own commands run without our files. Each way in is also
tried with our files, so that a way that is closed to everybody does not count as safe.
"""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from archivia_fs.store import weed
from archivia_fs.store.embedded import Access, EmbeddedStore
from tests.app.test_embedded import get, put, sockets_in_tmp
from tests.s3_servers import tool

SECRET = b"what only the owner may read " * 4
CLOSED = {401, 403, 404, 405}
COMMAND_SECONDS = 4.0  # a stranger's `weed shell` waits for ever
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)  # RFC 9113 section 3.4, and empty SETTINGS


@dataclass(frozen=True)
class Target:
    """A running store that holds SECRET."""

    home: Path
    access: Access
    ports: dict[str, int]

    @property
    def folder(self) -> Path:
        return self.home / "store"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    home = tmp_path_factory.mktemp("home")
    store = EmbeddedStore(home)
    access = store.start()
    try:
        put(access, SECRET)
        yield Target(home, access, json.loads((home / "store/state.json").read_text())["ports"])
    finally:
        store.leave()


@pytest.fixture(autouse=True)
def _nothing_changed(target: Target) -> Iterator[None]:
    yield
    assert get(target.access) == SECRET


@pytest.mark.parametrize(
    ("port", "method", "path"),
    [
        ("master", "GET", "/col/delete?collection=archive"),  # would delete every object
        ("master", "GET", "/dir/assign"),  # these two would hand out tokens
        ("master", "GET", "/dir/lookup?fileId={file}"),
        ("master", "GET", "/dir/lookup?fileId={file}&read=yes"),
        ("master", "GET", "/dir/status"),
        ("master", "GET", "/vol/grow?count=1"),
        ("master", "GET", "/vol/vacuum"),
        ("master", "POST", "/submit"),
        ("master", "GET", "/{file}"),
        ("filer", "GET", "/buckets/archive/page-001.dng"),
        ("filer", "GET", "/buckets/?pretty=y"),
        ("filer", "GET", "/?proxyChunkId={file}"),
        ("filer", "PUT", "/buckets/archive/page-001.dng"),
        ("filer", "POST", "/.tus/buckets/archive/page-001.dng"),
        ("filer", "DELETE", "/buckets/archive?recursive=true"),
        ("volume", "GET", "/{file}"),
        ("volume", "PUT", "/{file}"),
        ("volume", "DELETE", "/{file}"),
        ("volume", "GET", "/ui/index.html"),
        ("volume", "GET", "/stats/disk"),
        ("s3", "GET", "/"),
        ("s3", "GET", "/archive"),
        ("s3", "GET", "/archive/page-001.dng"),
        ("s3", "PUT", "/archive/page-001.dng"),
        ("s3", "DELETE", "/archive/page-001.dng"),
        ("s3", "POST", "/?Action=ListUsers"),
        ("admin", "GET", "/"),
        ("admin", "GET", "/api/files?path=/buckets"),
        ("admin", "GET", "/object-store/buckets"),
    ],
)
def test_http_without_keys(target: Target, port: str, method: str, path: str) -> None:
    answer = http.client.HTTPConnection("127.0.0.1", target.ports[port], timeout=10)
    try:
        body = b"overwritten" if method in {"PUT", "POST"} else None
        answer.request(method, path.format(file="1,01637037d6"), body=body)
        response = answer.getresponse()
        content = response.read()
    finally:
        answer.close()
    assert response.status in CLOSED
    assert response.getheader("Authorization") is None, "a token"
    assert SECRET not in content


GRPC_PORTS = [name for name in weed.PORTS if name.endswith(".grpc")]


@pytest.mark.parametrize("port", GRPC_PORTS)
def test_grpc_without_our_certificate(target: Target, tmp_path: Path, port: str) -> None:
    """gRPC answers HTTP/2 to our certificate; not in clear, not without a certificate, not to a stranger's own."""
    number = target.ports[port]
    assert _speaks_grpc(number, _tls(target.folder / "grpc.crt")), "the way in is there"
    assert not _speaks_grpc(number, None)
    assert not _speaks_grpc(number, _tls(None))
    weed._make_certificate(tmp_path)
    assert not _speaks_grpc(number, _tls(tmp_path / "grpc.crt"))


def _tls(certificate: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if certificate is not None:
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context


def _speaks_grpc(port: int, tls: ssl.SSLContext | None) -> bool:
    """Whether the server's SETTINGS frame comes (type 4, the fourth byte; RFC 9113 section 4.1)."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        try:
            connection = plain if tls is None else tls.wrap_socket(plain)
            with connection:
                connection.sendall(HTTP2)
                return connection.recv(9)[3:4] == b"\x04"
        except (ssl.SSLError, ConnectionError):
            return False


def test_weed_s_own_commands_without_our_files(target: Target, tmp_path: Path) -> None:
    """`weed shell`, `backup`, `upload`, `filer.copy`: with our files they read and write, without they do nothing."""
    master = f"127.0.0.1:{target.ports['master']}.{target.ports['master.grpc']}"
    filer = f"http://127.0.0.1:{target.ports['filer']}.{target.ports['filer.grpc']}"
    (tmp_path / "new.txt").write_text("a stranger was here")
    commands = {
        "shell": ["shell", f"-master={master}"],
        **{
            f"backup {volume}": ["backup", f"-master={master}", "-collection=archive", f"-volumeId={volume}", "-dir=."]
            for volume in range(1, weed.VOLUMES + 1)
        },
        "upload": ["upload", f"-master={master}", "-collection=archive", str(tmp_path / "new.txt")],
        "copy": ["filer.copy", str(tmp_path / "new.txt"), f"{filer}/buckets/archive/{{who}}/"],
    }
    owner, stranger = tmp_path / "owner", tmp_path / "stranger"
    said: dict[tuple[str, str], tuple[int, str]] = {}
    for folder in (stranger, owner):
        folder.mkdir()
    for name in ("security.toml", "grpc.crt", "grpc.key"):
        shutil.copy(target.folder / name, owner)
    running = {
        (folder.name, name): _weed(folder, [part.format(who=folder.name) for part in command])
        for folder in (stranger, owner)
        for name, command in commands.items()
    }
    for key, process in running.items():
        said[key] = _finish(process)

    assert "archive" in said["owner", "shell"][1]
    assert "archive" not in said["stranger", "shell"][1]
    assert any(SECRET in path.read_bytes() for path in owner.glob("*.dat"))
    assert not any(SECRET in path.read_bytes() for path in stranger.glob("*.dat"))
    assert '"fid"' in said["owner", "upload"][1]
    assert '"fid"' not in said["stranger", "upload"][1]
    listing = _finish(
        _weed(owner, commands["shell"], "fs.ls /buckets/archive/owner\nfs.ls /buckets/archive/stranger\n")
    )
    assert listing[1].count("new.txt") == 1


def _weed(folder: Path, command: list[str], typed: str = "fs.ls /buckets\n") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [tool("weed"), f"-logdir={folder}", *command],
        cwd=folder,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(typed)
    process.stdin.close()
    process.stdin = None
    return process


def _finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
    return process.returncode, output


def test_unix_sockets_are_the_owner_s(target: Target) -> None:
    inside = [target.folder / name for name in ("s3.sock", "filer.sock")]
    outside = sockets_in_tmp(target.ports)
    assert len(outside) == len(GRPC_PORTS)
    assert {path.stat().st_mode & 0o777 for path in inside + outside} == {0o700}


def test_its_logs_are_not_in_tmp(target: Target) -> None:
    pid = weed.find(target.folder)
    assert not list(Path("/tmp").glob(f"weed.*.{pid}"))
    assert list((target.folder / "log").glob(f"weed.*.{pid}"))


def test_the_environment_of_the_gateway_stays_outside(target: Target) -> None:
    """weed would take AWS_ACCESS_KEY_ID as another key for the archive, and WEED_ settings before our files."""
    pid = weed.find(target.folder)
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    assert {each.partition("=")[0] for each in variables if each} == {"PATH", "HOME"}
    assert target.access.secret_key.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
