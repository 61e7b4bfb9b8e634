"""Wrong settings and sick servers: which error, and whether its sentence helps."""

from __future__ import annotations

import dataclasses
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from archivia_fs.errors import (
    ConfigError,
    CorruptData,
    QuotaReached,
    StoreError,
    StoreFull,
    StoreRejected,
    StoreUnavailable,
)
from archivia_fs.store.s3 import S3Config, S3Store
from archivia_fs.store.s3_errors import S3Failure, to_store_error
from archivia_fs.types import ObjectKey, UploadId
from tests.s3_servers import S3Server, free_ports
from tests.store.conftest import config_of

KEY = ObjectKey("a")
BODY = b"picture" * 1000

Call = Callable[[S3Store], object]
CALLS: dict[str, Call] = {
    "probe": lambda store: store.probe(),
    "read_into": lambda store: store.read_into(KEY, 0, memoryview(bytearray(9))),
    "put": lambda store: store.put(KEY, BODY, zlib.crc32(BODY)),
    "upload_part": lambda store: store.upload_part(KEY, UploadId("0" * 40), 1, BODY, zlib.crc32(BODY)),
    "delete": lambda store: store.delete(KEY),
    "list": lambda store: list(store.list("")),
    "create_upload": lambda store: store.create_upload(KEY),
    "list_uploads": lambda store: list(store.list_uploads("")),
}


@pytest.fixture
def opened() -> Iterator[Callable[[S3Config], S3Store]]:
    stores: list[S3Store] = []

    def opener(config: S3Config) -> S3Store:
        stores.append(S3Store(config))
        return stores[-1]

    yield opener
    for store in stores:
        store.close()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("wrong", "kind", "named"),
    [
        ({"access_key": "AKNOBODY"}, StoreRejected, "ARCHIVIA_S3_ACCESS_KEY"),
        ({"secret_key": "not the secret"}, StoreRejected, "ARCHIVIA_S3_SECRET_KEY"),
        ({"bucket": "no-such-bucket"}, StoreRejected, "ARCHIVIA_S3_BUCKET"),
        ({"bucket": "?"}, StoreRejected, "ARCHIVIA_S3_BUCKET"),
        ({"endpoint": "unreachable"}, StoreUnavailable, "ARCHIVIA_S3_ENDPOINT"),
        ({"endpoint": "http://archivia.invalid:1"}, StoreUnavailable, "ARCHIVIA_S3_ENDPOINT"),
    ],
)
def test_wrong_settings_name_the_setting(
    seaweed: S3Server,
    opened: Callable[[S3Config], S3Store],
    name: str,
    wrong: dict[str, Any],
    kind: type[StoreError],
    named: str,
) -> None:
    if wrong.get("endpoint") == "unreachable":
        wrong = {"endpoint": f"http://127.0.0.1:{free_ports(1)[0]}"}
    store = opened(dataclasses.replace(config_of(seaweed), **wrong))
    with pytest.raises(StoreError) as caught:
        CALLS[name](store)
    assert type(caught.value) is kind
    assert named in str(caught.value)
    assert seaweed.secret_key not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["", "localhost:9000", "ftp://host", "http://"])
def test_an_endpoint_that_is_no_url(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="ARCHIVIA_S3_ENDPOINT"):
        S3Store(S3Config(endpoint, "archive", "key", "secret"))


def test_keys_are_not_printed() -> None:
    assert "secret!" not in repr(S3Config("http://h", "b", "key", "secret!"))


def test_the_bucket_is_created_once(seaweed: S3Server, opened: Callable[[S3Config], S3Store]) -> None:
    store = opened(dataclasses.replace(config_of(seaweed), bucket="made-by-test"))
    for _ in range(2):
        store.ensure_bucket()
        assert list(store.list("")) == []


def test_the_users_aws_settings_are_not_ours(
    seaweed: S3Server, opened: Callable[[S3Config], S3Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "a-profile-that-is-not-there")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKSOMEBODY")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert list(opened(config_of(seaweed, prefix="nothing/")).list("")) == []


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (503, "SlowDown", StoreUnavailable),
        (500, "InternalError", StoreUnavailable),
        (429, "", StoreUnavailable),
        (400, "RequestTimeout", StoreUnavailable),
        (400, "BadDigest", CorruptData),
        (507, "XMinioStorageFull", StoreFull),
        (403, "QuotaExceeded", QuotaReached),
        (400, "XMinioAdminBucketQuotaExceeded", QuotaReached),
        (403, "AccessDenied", StoreRejected),
        (403, "RequestTimeTooSkewed", StoreRejected),
        (301, "PermanentRedirect", StoreRejected),
        (501, "NotImplemented", StoreRejected),
        (400, "SomethingNew", StoreRejected),
        (404, "NoSuchWebsite", StoreRejected),
    ],
)
def test_codes(status: int, code: str, kind: type[StoreError]) -> None:
    config = S3Config("http://h", "b", "k", "s")
    error = to_store_error(S3Failure(status, code, "because"), config, "try")
    assert type(error) is kind
    assert "because" in str(error)


class SickServer:
    """Answers each request with the next of `answers` (bytes), then closes the connection if told; counts connections."""

    def __init__(self, *answers: bytes | None, close_after_answer: bool = False) -> None:
        self._answers = list(answers)
        self._close = close_after_answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self.connections = 0
        self.requests = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def config(self) -> S3Config:
        port = self._listener.getsockname()[1]
        return S3Config(f"http://127.0.0.1:{port}", "archive", "key", "secret", connect_timeout=1.0, read_timeout=0.3)

    def end(self) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        while self._answers:
            if b"\r\n\r\n" not in connection.recv(65536):
                return
            self.requests += 1
            answer = self._answers.pop(0)
            if answer is None:  # hang
                self._ended.wait(5)
                return
            connection.sendall(answer)
            if self._close:
                return


@pytest.fixture
def sick() -> Iterator[Callable[..., SickServer]]:
    servers: list[SickServer] = []

    def start(*answers: bytes | None, close_after_answer: bool = False) -> SickServer:
        servers.append(SickServer(*answers, close_after_answer=close_after_answer))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def answer(body: bytes, offset: int = 0, length: int | None = None, status: str = "206 Partial Content") -> bytes:
    length = len(body) if length is None else length
    content_range = f"bytes {offset}-{offset + length - 1}/1000"
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nContent-Range: {content_range}\r\n\r\n".encode() + body


Sick = Callable[..., SickServer]
Opened = Callable[[S3Config], S3Store]


def read(store: S3Store, size: int = 9, offset: int = 0) -> bytes:
    buffer = bytearray(size)
    store.read_into(KEY, offset, memoryview(buffer))
    return bytes(buffer)


def test_connections_are_kept(sick: Sick, opened: Opened) -> None:
    server = sick(answer(b"012345678"), answer(b"abcdefghi"))
    store = opened(server.config())
    assert read(store) == b"012345678"
    assert read(store) == b"abcdefghi"
    assert server.connections == 1


def test_an_idle_connection_that_the_server_closed_is_replaced_silently(sick: Sick, opened: Opened) -> None:
    server = sick(answer(b"012345678"), answer(b"abcdefghi"), close_after_answer=True)
    store = opened(server.config())
    assert read(store) == b"012345678"
    assert read(store) == b"abcdefghi"
    assert server.connections == 2


def test_a_body_cut_short(sick: Sick, opened: Opened) -> None:
    store = opened(sick(answer(b"0123", length=9), close_after_answer=True).config())
    with pytest.raises(CorruptData, match="broke off after 4 of 9 bytes"):
        read(store)


def test_another_range_than_asked(sick: Sick, opened: Opened) -> None:
    store = opened(sick(answer(b"012345678", offset=1)).config())
    with pytest.raises(CorruptData, match="bytes 1-9/1000"):
        read(store)


def test_a_server_that_ignores_ranges(sick: Sick, opened: Opened) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n0123456789ab"
    store = opened(sick(whole, whole, close_after_answer=True).config())
    assert read(store) == b"012345678", "from the beginning it happens to be right"
    with pytest.raises(CorruptData, match="ignores Range"):
        read(store, offset=3)


@pytest.mark.parametrize("name", ["read_into", "put", "list"])
def test_a_server_that_hangs(sick: Sick, opened: Opened, name: str) -> None:
    store = opened(sick(None).config())
    with pytest.raises(StoreUnavailable, match=r"timed out|[Tt]imeout"):
        CALLS[name](store)


@pytest.mark.parametrize("name", ["read_into", "put", "list"])
def test_no_http_at_all(sick: Sick, opened: Opened, name: str) -> None:
    store = opened(sick(b"220 mail.example.org ESMTP\r\n", close_after_answer=True).config())
    with pytest.raises(StoreUnavailable, match="ARCHIVIA_S3_ENDPOINT"):
        CALLS[name](store)


def test_a_refusal_while_a_big_body_is_sent_tells_its_reason(sick: Sick, opened: Opened) -> None:
    full = b"<Error><Code>XMinioStorageFull</Code><Message>disk &amp; quota</Message></Error>"
    refusal = b"HTTP/1.1 507 Insufficient Storage\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
        len(full),
        full,
    )
    server = sick(refusal, close_after_answer=True)
    store = opened(server.config())
    body = bytes(32 * 1024**2)
    with pytest.raises(StoreError) as caught:
        store.put(KEY, body, zlib.crc32(body))
    # the answer may be lost when the connection is reset first (RFC 9112 9.6); then the next attempt meets it
    if type(caught.value) is StoreFull:
        assert "disk & quota" in str(caught.value)
    else:
        assert caught.value.retryable
