"""PUT: all of it or nothing, from clients that behave and clients that do not."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from archivia_fs import errors
from archivia_fs.types import Caller
from tests.webdav.conftest import Client, basic
from tests.webdav.toy import ToyPut, ToyVfs
from webdav.connection import LINGER_BYTES

FILE = "/Documents/a.dng"
ME = Caller("alice", 0, 0)


class Raw:
    """A client that sends what it likes."""

    def __init__(self, url: str) -> None:
        host, port = urlsplit(url).netloc.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)

    def head(self, method: str, path: str, *lines: str, user: str = "alice") -> None:
        head = [
            f"{method} {path} HTTP/1.1",
            "Host: x",
            f"Authorization: {basic(user)['Authorization']}",
            *lines,
            "",
            "",
        ]
        self.socket.sendall("\r\n".join(head).encode())

    def answer(self) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(self.socket)
        response.begin()
        response.read()
        return response


@pytest.fixture
def raw(dav: Client) -> Iterator[Raw]:
    client = Raw(dav.url)
    yield client
    client.socket.close()


def test_create_then_replace(dav: Client) -> None:
    created = dav("PUT", FILE, b"one")
    replaced = dav("PUT", FILE, b"two")
    assert (created.status, replaced.status) == (201, 204)
    assert created.headers["ETag"] != replaced.headers["ETag"]
    got = dav("GET", FILE)
    assert (got.body, got.headers["ETag"]) == (b"two", replaced.headers["ETag"])


@pytest.mark.parametrize("size", [0, 1, 1024**2 - 1, 1024**2, 1024**2 + 1, 3_000_000])
def test_sizes(dav: Client, size: int) -> None:
    data = bytes(index % 251 for index in range(size))
    dav.put(FILE, data)
    assert dav("GET", FILE).body == data


def test_chunked_as_finder_sends_it(dav: Client) -> None:
    chunks = [b"a" * 70_000, b"b", b"c" * 2_000_000]
    answer = dav("PUT", FILE, iter(chunks), X_Expected_Entity_Length=str(sum(map(len, chunks))))
    assert answer.status == 201
    assert dav("GET", FILE).body == b"".join(chunks)


def test_chunk_extensions_and_trailers(raw: Raw, dav: Client) -> None:
    raw.head("PUT", FILE, "Transfer-Encoding: chunked")
    raw.socket.sendall(b"5;name=value\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert raw.answer().status == 201
    raw.head("GET", FILE)  # the same connection: the trailer is not taken for a request
    assert raw.answer().status == 200
    assert dav("GET", FILE).body == b"hello"


def test_fewer_bytes_than_finder_announced_change_nothing(dav: Client) -> None:
    dav.put(FILE, b"old")
    assert dav("PUT", FILE, iter([b"short"]), X_Expected_Entity_Length="100").status == 400
    assert dav("GET", FILE).body == b"old"


@pytest.mark.parametrize(
    ("framing", "part"),
    [
        ("Content-Length: 1000000", b"x" * 5000),
        ("Transfer-Encoding: chunked", b"1388\r\n" + b"x" * 5000 + b"\r\n"),
        ("Transfer-Encoding: chunked", b"1388\r\n" + b"x" * 100),
        ("Transfer-Encoding: chunked", b"zzz\r\n"),
        ("Transfer-Encoding: chunked", b"-5\r\nxxxxx\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"5\r\nhelloworld\r\n0\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("path", [FILE, "/Documents/new"])
def test_broken_upload_changes_nothing(raw: Raw, dav: Client, framing: str, part: bytes, path: str) -> None:
    etag = dav.put(FILE, b"old").headers["ETag"]
    raw.head("PUT", path, framing)
    raw.socket.sendall(part)
    raw.socket.shutdown(socket.SHUT_WR)
    assert raw.answer().status == 400
    got = dav("GET", FILE)
    assert (got.body, got.headers["ETag"]) == (b"old", etag)
    assert dav("GET", "/Documents/new").status == 404


def test_reset_in_the_middle_aborts(raw: Raw, dav: Client, vfs: ToyVfs) -> None:
    aborted = threading.Event()
    put = vfs.put

    def watched(*args: object, **more: object) -> object:
        handle = put(*args, **more)  # type: ignore[arg-type]
        handle.abort = aborted.set  # type: ignore[method-assign]
        return handle

    vfs.put = watched  # type: ignore[assignment, method-assign]
    raw.head("PUT", FILE, "Content-Length: 1000000")
    raw.socket.sendall(b"x" * 5000)
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raw.socket.close()
    assert aborted.wait(5)
    assert dav("GET", FILE).status == 404


def test_100_continue_only_for_what_will_be_read(raw: Raw, dav: Client) -> None:
    raw.head("PUT", "/Documents/no/a", "Content-Length: 80000000000", "Expect: 100-continue")
    assert raw.answer().status == 409  # and not "100 Continue" before it


def test_100_continue(raw: Raw, dav: Client) -> None:
    raw.head("PUT", FILE, "Content-Length: 5", "Expect: 100-continue")
    assert raw.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    raw.socket.sendall(b"hello")
    assert raw.answer().status == 201


@pytest.mark.parametrize("error", [errors.StoreUnavailable, errors.NoSpace, errors.FileTooBig])
def test_error_reaches_a_client_that_is_still_sending(dav: Client, vfs: ToyVfs, error: type[errors.FsError]) -> None:
    dav.put(FILE, b"old")
    vfs.fail_put = error("The store is full; make room.")
    answer = dav("PUT", FILE, bytes(LINGER_BYTES // 2))
    assert answer.status == {errors.StoreUnavailable: 503, errors.NoSpace: 507, errors.FileTooBig: 413}[error]
    assert answer.body == b"The store is full; make room.\n"
    assert answer.headers["Connection"] == "close"
    vfs.fail_put = None
    assert dav("GET", FILE).body == b"old"


def test_small_refused_body_keeps_the_connection(dav: Client) -> None:
    assert dav("PUT", "/Documents/no/a", b"x" * 1000).headers["Connection"] is None
    port = dav.connection.sock.getsockname()[1]
    assert dav("PUT", "/Documents/no/a", iter([b"x" * 1000, b"y"])).status == 409
    assert dav("GET", "/Documents/").status == 200
    assert dav.connection.sock.getsockname()[1] == port


def test_refusals(dav: Client) -> None:
    assert dav("PUT", "/Documents/no/a", b"x").status == 409
    assert dav("PUT", FILE, b"x", Content_Range="bytes 0-0/5").status == 400
    assert dav("PUT", FILE, b"x", Content_Encoding="gzip").status == 415
    assert dav("PUT", "/Documents/", b"x").status == 405
    assert dav("PUT", "/", b"x").status == 405
    assert dav("PUT", "/a.dng", b"x").status == 403  # the top of the drive is fixed
    dav.put(FILE)
    assert dav("PUT", FILE + "/below", b"x").status == 409


def test_conditions(dav: Client) -> None:
    assert dav("PUT", FILE, b"1", If_Match='"x"').status == 412
    etag = dav.put(FILE, b"1", If_None_Match="*").headers["ETag"]
    assert dav("PUT", FILE, b"2", If_None_Match="*").status == 412
    assert dav("PUT", FILE, b"2", If_Match='"x"').status == 412
    assert dav("GET", FILE).body == b"1"
    assert dav("PUT", FILE, b"2", If_Match=etag).status == 204


def test_change_during_an_upload_is_noticed(raw: Raw, dav: Client) -> None:
    etag = dav.put(FILE, b"1").headers["ETag"]
    raw.head("PUT", FILE, "Content-Length: 5", f"If-Match: {etag}", "Expect: 100-continue")
    raw.socket.recv(100)
    dav.put(FILE, b"2")
    raw.socket.sendall(b"later")
    assert raw.answer().status == 412
    assert dav("GET", FILE).body == b"2"


def test_change_at_the_very_end_of_an_upload_is_noticed(
    dav: Client, vfs: ToyVfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the door's last look, before the commit: only the commit itself can see it."""
    etag = dav.put(FILE, b"1").headers["ETag"]
    commit = ToyPut.commit

    def late(handle: ToyPut) -> object:
        monkeypatch.setattr(ToyPut, "commit", commit)
        other = vfs.put(ME, vfs.resolve(ME, "/Documents").ino, "a.dng")
        other.write(b"2")
        other.commit()
        return handle.commit()

    monkeypatch.setattr(ToyPut, "commit", late)
    assert dav("PUT", FILE, b"later", If_Match=etag).status == 412
    assert dav("GET", FILE).body == b"2"


def test_name_that_comes_into_being_during_an_exclusive_upload(raw: Raw, dav: Client) -> None:
    raw.head("PUT", FILE, "Content-Length: 5", "If-None-Match: *", "Expect: 100-continue")
    raw.socket.recv(100)
    dav.put(FILE, b"2")
    raw.socket.sendall(b"later")
    assert raw.answer().status == 412
    assert dav("GET", FILE).body == b"2"


def test_modification_time_of_the_client(dav: Client, vfs: ToyVfs) -> None:
    answer = dav.put(FILE, b"x", X_OC_Mtime="1000000000")
    assert answer.headers["X-OC-Mtime"] == "accepted"
    assert dav("HEAD", FILE).headers["Last-Modified"] == "Sun, 09 Sep 2001 01:46:40 GMT"
    dav.put(FILE, b"x", X_OC_Mtime="1000000000.5")
    assert vfs.resolve(None, FILE).mtime_ns == 1_000_000_000_500_000_000  # type: ignore[arg-type]
    assert dav("PUT", FILE, b"x", X_OC_Mtime="yesterday").status == 400


@pytest.mark.parametrize("lines", [["Content-Length: 5", "Transfer-Encoding: chunked"], ["Content-Length: -5"]])
def test_ambiguous_framing_is_refused(raw: Raw, lines: list[str]) -> None:
    raw.head("PUT", FILE, *lines)
    raw.socket.sendall(b"5\r\nhello\r\n0\r\n\r\n")
    assert raw.answer().status == 400
    assert raw.socket.recv(10) == b""
