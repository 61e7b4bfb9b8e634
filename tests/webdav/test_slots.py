"""Names and attributes are answered whatever transfers wait for: clients that do not read or say nothing, a store that hangs."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from wsgidav.dav_error import DAVError

from archivia_fs.store.faults import Fault, FaultyStore, Kind
from archivia_fs.store.memory import MemoryStore
from archivia_fs.vfs.vfs import Vfs
from tests.webdav.conftest import BOX, Client, SlowView, real_drive
from tests.webdav.test_put import Raw
from webdav import connection, slots
from webdav.server import WebDavOptions, WebDavServer
from webdav.slots import Slots

LARGE = bytes(24 * 1024**2)  # more than the kernel keeps for a client that does not read
TRANSFERS, WAITING, THREADS = 6, 4, 4


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore())


@pytest.fixture
def view() -> SlowView:
    return SlowView()


@pytest.fixture
def drive(tmp_path: Path, store: FaultyStore, view: SlowView) -> Iterator[Vfs]:
    with real_drive(tmp_path, store, view) as vfs:
        yield vfs


@pytest.fixture
def server(drive: Vfs, store: FaultyStore) -> Iterator[WebDavServer]:
    server = WebDavServer(drive, WebDavOptions(port=0, threads=THREADS, transfers=TRANSFERS, waiting=WAITING))
    server.start()
    yield server
    store.heal()
    server.stop(0.5)


@pytest.fixture
def ask(server: WebDavServer) -> Iterator[_Ask]:
    with contextlib.ExitStack() as stack:
        yield _Ask(server.url, stack)


class _Ask:
    """Opens connections that send a request and then do nothing."""

    def __init__(self, url: str, stack: contextlib.ExitStack) -> None:
        self._url = url
        self._stack = stack

    def __call__(self, method: str, path: str, *lines: str, body: bytes = b"") -> Raw:
        raw = Raw(self._url)
        self._stack.callback(raw.socket.close)
        raw.head(method, path, *lines)
        raw.socket.sendall(body)
        return raw

    def silent(self, first: bytes = b"") -> None:
        host, port = urlsplit(self._url).netloc.split(":")
        sock = self._stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
        sock.sendall(first)


def answered_at_once(url: str) -> None:
    """A new client lists, asks, makes, moves and deletes, each within a second."""
    client = Client(url)
    client("OPTIONS", "/")
    for method, path, headers in (
        ("PROPFIND", BOX, {"Depth": "1"}),
        ("HEAD", BOX + "large", {}),
        ("GET", BOX, {}),
        ("MKCOL", BOX + "new", {}),
        ("MOVE", BOX + "new", {"Destination": BOX + "moved"}),
        ("DELETE", BOX + "moved", {}),
    ):
        began = time.monotonic()
        answer = client(method, path, **headers)
        assert answer.status < 300, (method, answer)
        assert time.monotonic() - began < 1, method
    client.connection.close()


def test_readers_that_do_not_read_and_a_store_that_hangs(
    dav: Client, server: WebDavServer, store: FaultyStore, ask: _Ask
) -> None:
    """A slow or hanging store makes readers and writers wait; names and attributes are answered as fast as ever."""
    dav.put(BOX + "large", LARGE)
    dav.put(BOX + "cold", LARGE[:1000])
    answered_at_once(server.url)
    for _ in range(TRANSFERS // 2):
        ask("GET", BOX + "large")
    store.inject(Fault(Kind.HANG, times=1000))
    for _ in range(TRANSFERS):
        ask("GET", BOX + "cold")
    for number in range(2 * WAITING):
        ask("PUT", f"{BOX}file-{number}", "Content-Length: 4", body=b"data")
    assert store.hanging.wait(10)
    time.sleep(0.5)
    answered_at_once(server.url)


def test_default_options_serve_many_at_once(drive: Vfs, store: FaultyStore) -> None:
    server = WebDavServer(drive, WebDavOptions(port=0))
    server.start()
    client = Client(server.url)
    client.put(BOX + "large", LARGE)
    with contextlib.ExitStack() as stack:
        ask = _Ask(server.url, stack)
        for _ in range(32):
            ask("GET", BOX + "large")
        assert client("GET", BOX + "large", Range="bytes=0-9").status == 206
        store.inject(Fault(Kind.HANG, times=1000))
        for number in range(64):
            ask("PUT", f"{BOX}file-{number}", "Content-Length: 4", body=b"data")
        assert store.hanging.wait(10)
        answered_at_once(server.url)
    client.connection.close()
    store.heal()
    server.stop(0.5)


def test_previews_that_are_being_made(dav: Client, server: WebDavServer, ask: _Ask, view: SlowView) -> None:
    """To ask for the attributes of one is to make it; to list the folder is not."""
    dav.put(BOX + "large", b"x")
    view.open_gate.clear()
    for _ in range(TRANSFERS + WAITING):
        ask("HEAD", "/Slow/a.jpg")
        ask("PROPFIND", "/Slow/a.jpg", "Depth: 0")
    time.sleep(0.5)
    answered_at_once(server.url)
    assert dav("PROPFIND", "/Slow/", Depth="1").hrefs() == ["/Slow/", "/Slow/a.jpg"]
    view.open_gate.set()


def test_who_is_too_many_is_told(dav: Client, ask: _Ask) -> None:
    dav.put(BOX + "large", LARGE)
    for _ in range(TRANSFERS + WAITING):
        ask("GET", BOX + "large")
    time.sleep(0.5)
    for method, body in (("GET", None), ("PUT", b"x")):
        answer = dav(method, BOX + "large", body)
        assert (answer.status, answer.body) == (
            503,
            b"The gateway is busy with other transfers; try again in a moment.\n",
        )
        assert int(answer.headers["Retry-After"]) > 0
    refused = ask("PUT", BOX + "a", "Content-Length: 80000000000", "Expect: 100-continue")
    assert refused.socket.recv(100).startswith(b"HTTP/1.1 503")  # before a byte of it was sent


def test_who_waits_gets_a_turn(dav: Client, ask: _Ask) -> None:
    dav.put(BOX + "large", LARGE)
    first = [ask("GET", BOX + "large") for _ in range(TRANSFERS)]
    time.sleep(0.3)
    second = ask("PUT", BOX + "new", "Content-Length: 4", body=b"data")
    time.sleep(0.3)
    assert dav("HEAD", BOX + "new").status == 404
    first[0].socket.close()
    assert second.answer().status == 201


def test_who_waits_is_refused_in_the_end(dav: Client, ask: _Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "PATIENCE_S", 0.3)
    dav.put(BOX + "large", LARGE)
    for _ in range(TRANSFERS):
        ask("GET", BOX + "large")
    time.sleep(0.3)
    assert dav("GET", BOX + "large").status == 503


def test_clients_that_say_nothing(dav: Client, server: WebDavServer, ask: _Ask) -> None:
    dav.put(BOX + "large", b"x")
    for _ in range(3 * (THREADS + TRANSFERS + WAITING)):
        ask.silent()
    kept = [Client(server.url) for _ in range(THREADS + TRANSFERS + WAITING)]
    for client in kept:
        assert client("OPTIONS", "/").status == 200  # and stays connected
    answered_at_once(server.url)
    for client in kept:
        client.connection.close()


def test_clients_that_stop_in_the_middle(
    server: WebDavServer, ask: _Ask, dav: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the header, in the XML, in reading a listing: a thread waits for them for seconds, not for minutes."""
    monkeypatch.setattr(connection, "QUICK_S", 0.3)
    dav.put(BOX + "large", b"x")
    threads = THREADS + TRANSFERS + WAITING
    for _ in range(threads):
        ask.silent(b"PROPFIND / HT")
    stopped = [ask("PROPFIND", BOX, "Content-Length: 100", body=b"<") for _ in range(threads)]
    assert stopped[-1].answer().status == 408
    answered_at_once(server.url)


def test_uploads_may_be_slow(dav: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "QUICK_S", 0.2)

    def body() -> Iterator[bytes]:
        yield b"one"
        time.sleep(0.6)
        yield b"two"

    assert dav("PUT", BOX + "a", body()).status == 201
    assert dav("GET", BOX + "a").body == b"onetwo"


def test_a_slot_is_given_back_whatever_happens(
    dav: Client, server: WebDavServer, ask: _Ask, store: FaultyStore
) -> None:
    dav.put(BOX + "large", LARGE)
    store.inject(Fault(Kind.FAIL, "put", times=2 * TRANSFERS))
    for number in range(2 * TRANSFERS):
        if number % 2:
            assert dav("PUT", f"{BOX}{number}", b"data").status == 503
        ask("GET", BOX + "large").socket.close()
        ask("PUT", BOX + "b", "Content-Length: 9", body=b"half").socket.close()
        with contextlib.suppress(http.client.HTTPException):
            dav("PUT", BOX + "large", b"x", If_Match='"other"')
    store.heal()
    deadline = time.monotonic() + 10
    slots_now: Slots = server._server.slots  # type: ignore[union-attr]
    while slots_now._running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert slots_now._running == 0


def test_the_end_refuses_who_waits() -> None:
    few = Slots(1, 1)
    few.take()
    answers: list[int] = []

    def wait() -> None:
        try:
            few.take()
        except DAVError as error:
            answers.append(error.value)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.1)
    few.close()
    waiter.join(5)
    assert answers == [503]
    assert not few.take_now()


def test_strangers_take_no_slots(dav: Client) -> None:
    dav.put(BOX + "large", LARGE)
    host = urlsplit(dav.url).netloc
    for _ in range(2 * (TRANSFERS + WAITING)):
        stranger = http.client.HTTPConnection(host, timeout=10)
        stranger.request("GET", BOX + "large")
        assert stranger.getresponse().status == 401
        stranger.close()
    assert dav("GET", BOX + "large", Range="bytes=0-9").status == 206
