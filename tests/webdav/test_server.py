"""The door itself: who may come in, where it listens, how it closes, and that it never shows its insides."""

from __future__ import annotations

import base64
import http.client
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from archivia_fs import errors
from archivia_fs.errors import ConfigError
from tests.webdav.conftest import Client, basic
from tests.webdav.toy import ToyVfs
from webdav.convert import STATUS, status_of
from webdav.server import WebDavOptions, WebDavServer


@pytest.mark.parametrize(
    "header",
    [
        None,
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"alice").decode(),
        "Basic " + base64.b64encode(b"alice:wrong").decode(),
        "Basic " + base64.b64encode(b":secret").decode(),
        "Bearer x",
        "Basic " + "A" * 10_000,
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT"])
def test_nobody_comes_in_without_a_password(server: WebDavServer, method: str, header: str | None) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    connection.request(method, "/Documents/", headers={} if header is None else {"Authorization": header})
    response = connection.getresponse()
    assert response.status == 401
    assert response.headers["WWW-Authenticate"] == 'Basic realm="Archivia FS", charset="UTF-8"'
    connection.close()


def test_passwords_in_utf8_and_with_colons(connect: Callable[[str], Client]) -> None:
    assert connect("bob")("GET", "/Documents/").status == 200


def test_refused_upload_is_not_read(server: WebDavServer) -> None:
    host, port = urlsplit(server.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"PUT /Documents/a HTTP/1.1\r\nHost: x\r\nContent-Length: 80000000000\r\n\r\n" + b"x" * 1000)
        assert raw.recv(100).startswith(b"HTTP/1.1 401")


def test_requests_of_one_connection(dav: Client) -> None:
    for _ in range(3):
        assert dav("OPTIONS", "/").status == 200
        assert dav("GET", "/Documents/no").status == 404
        port = dav.connection.sock.getsockname()[1]
    dav("GET", "/Documents/no")
    assert dav.connection.sock.getsockname()[1] == port


def test_port_that_is_taken(server: WebDavServer, vfs: ToyVfs) -> None:
    port = urlsplit(server.url).port
    assert port
    with pytest.raises(ConfigError, match="--listen"):
        WebDavServer(vfs, WebDavOptions(port=port)).start()  # type: ignore[arg-type]


def test_address_that_is_not_ours(vfs: ToyVfs) -> None:
    with pytest.raises(ConfigError, match="--listen"):
        WebDavServer(vfs, WebDavOptions(host="192.0.2.1", port=0, insecure_basic=True)).start()  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "archive.example"])
def test_no_passwords_in_clear_over_the_network(vfs: ToyVfs, host: str) -> None:
    with pytest.raises(ConfigError, match="passwords in clear"):
        WebDavServer(vfs, WebDavOptions(host=host))  # type: ignore[arg-type]
    WebDavServer(vfs, WebDavOptions(host=host, insecure_basic=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_loopback(vfs: ToyVfs, host: str) -> None:
    WebDavServer(vfs, WebDavOptions(host=host))  # type: ignore[arg-type]


def test_tls(vfs: ToyVfs, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the test's certificate (Debian: openssl)")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
    ]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with pytest.raises(ConfigError, match="both"):
        WebDavServer(vfs, WebDavOptions(certificate=certificate))  # type: ignore[arg-type]
    options = WebDavOptions(port=0, threads=2, certificate=certificate, private_key=key)
    server = WebDavServer(vfs, options)  # type: ignore[arg-type]
    server.start()
    try:
        assert server.url.startswith("https://127.0.0.1:")
        host, port = urlsplit(server.url).netloc.split(":")
        silent = socket.create_connection((host, int(port)))  # must not keep the next one waiting
        trust = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection(urlsplit(server.url).netloc, context=trust, timeout=10)
        data = bytes(range(256)) * 10_000
        for method, body in (("PUT", data), ("GET", None)):
            connection.request(method, "/Documents/a", body=body, headers=basic())
            response = connection.getresponse()
            assert response.status in (200, 201)
            received = response.read()
        assert received == data
        connection.close()
        silent.close()
    finally:
        server.stop(5)


def test_stop_lets_a_running_upload_end(vfs: ToyVfs) -> None:
    server = WebDavServer(vfs, WebDavOptions(port=0, threads=2))  # type: ignore[arg-type]
    server.start()
    client = Client(server.url)
    stopper = threading.Thread(target=server.stop, args=(20,))
    running = threading.Event()
    begin = vfs.put
    vfs.put = lambda *args, **more: (running.set(), begin(*args, **more))[1]  # type: ignore[method-assign]

    def body() -> object:
        yield b"first"
        assert running.wait(30)
        stopper.start()
        time.sleep(0.4)
        yield b"second"

    assert client("PUT", "/Documents/a", body()).status == 201
    stopper.join(10)
    assert not stopper.is_alive()
    with pytest.raises(OSError):
        Client(server.url)("GET", "/")
    client.connection.close()
    server.stop()  # again, harmless


def test_stop_cuts_what_does_not_end(vfs: ToyVfs) -> None:
    server = WebDavServer(vfs, WebDavOptions(port=0, threads=2))  # type: ignore[arg-type]
    server.start()
    host, port = urlsplit(server.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        head = f"PUT /Documents/a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nAuthorization: {basic()['Authorization']}\r\n\r\n12"
        raw.sendall(head.encode())
        time.sleep(0.2)
        began = time.monotonic()
        server.stop(0.5)
        assert time.monotonic() - began < 5
    assert [entry.name for entry in vfs.readdir(None, vfs.resolve(None, "/Documents").ino)] == []  # type: ignore[arg-type]


def test_our_mistakes_do_not_show(dav: Client, vfs: ToyVfs, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    vfs.resolve = broken  # type: ignore[assignment, method-assign]
    answer = dav("PROPFIND", "/Documents/", Depth="0")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    assert "secret detail" in caplog.text  # but the log has it


def test_the_log_says_what_the_client_was_told(dav: Client, caplog: pytest.LogCaptureFixture) -> None:
    dav.put("/Documents/a")
    assert dav("MOVE", "/Documents/a", Destination="http://elsewhere/a").status == 502
    assert "MOVE /Documents/a: 502 Bad Gateway: The destination is on another server." in caplog.text


def test_every_error_of_the_core_has_a_status() -> None:
    def below(kind: type[errors.FsError]) -> list[type[errors.FsError]]:
        return [kind, *(found for child in kind.__subclasses__() for found in below(child))]

    for kind in below(errors.FsError):
        assert 400 <= status_of(kind.__new__(kind)) <= 599  # some want more than a message
    assert status_of(errors.CorruptData("x")) == 502
    assert status_of(errors.CatalogBusy("x")) == 503
    assert set(STATUS) <= set(below(errors.FsError))


def test_headers_that_are_too_large(server: WebDavServer) -> None:
    host, port = urlsplit(server.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")
