"""LOCK and UNLOCK: what litmus does not ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from archivia_fs.errors import Locked
from archivia_fs.types import Lock
from tests.webdav.conftest import Answer, Client
from tests.webdav.toy import ToyVfs
from webdav.conditions import State, parse_if
from webdav.locks import LOCK_MAX_S
from webdav.server import WebDavOptions, WebDavServer

FILE = "/Documents/a b.dng"
URL = "/Documents/a%20b.dng"
BODY = (
    b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:%s/></D:lockscope><D:locktype><D:write/></D:locktype>'
    b"<D:owner><D:href>mailto:alice</D:href></D:owner></D:lockinfo>"
)


def lock(dav: Client, url: str = URL, scope: bytes = b"exclusive", **headers: str) -> str:
    answer = dav("LOCK", url, BODY % scope, **headers)
    assert answer.status in (200, 201), answer
    token: str = answer.headers["Lock-Token"]
    return token


def active(answer: Answer, name: str) -> str | None:
    return answer.xml.findtext(f".//{{DAV:}}activelock/{{DAV:}}{name}")


@pytest.fixture(autouse=True)
def file(dav: Client) -> None:
    dav.put(URL, b"old")


def test_a_lock_that_another_gateway_got_first(dav: Client, vfs: ToyVfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the door's look and its own lock: the catalog decides."""

    def refuse(_lock: Lock) -> None:
        raise Locked("bob has locked it.")

    monkeypatch.setattr(vfs, "add_lock", refuse)
    answer = dav("LOCK", URL, BODY % b"exclusive")
    assert answer.status == 423
    assert "Lock-Token" not in answer.headers


def test_lock_keeps_others_out(dav: Client, connect: Callable[[str], Client]) -> None:
    token = lock(dav)
    bob = connect("bob")
    for method, headers in {
        "PUT": {},
        "DELETE": {},
        "PROPPATCH": {},
        "MOVE": {"Destination": "/Documents/b"},
        "LOCK": {},
    }.items():
        body = BODY % b"shared" if method == "LOCK" else b"<x/>" if method in ("PUT", "PROPPATCH") else None
        answer = (
            bob(method, URL, body, If=f"({token})", **headers) if method == "PUT" else bob(method, URL, body, **headers)
        )
        assert answer.status == 423, method
        assert "locked by somebody else" in (answer.xml.findtext("{DAV:}responsedescription") or "")
        assert answer.xml.findtext(".//{DAV:}href") == URL
    assert dav("PUT", URL, b"mine").status == 423  # the owner has to show the token too
    assert dav("PUT", URL, b"mine", If=f"({token})").status == 204
    assert bob("COPY", URL, Destination="/Documents/b").status == 201  # reading is free
    assert bob("UNLOCK", URL, Lock_Token=token).status == 403
    assert dav("UNLOCK", URL, Lock_Token=token).status == 204
    assert bob("PUT", URL, b"bob").status == 204


def test_lock_is_a_row_of_the_catalog(dav: Client, vfs: ToyVfs) -> None:
    token = lock(dav, Timeout="Second-600")
    (row,) = vfs.locks()
    assert (row.path, row.user, row.exclusive, row.depth, row.timeout_s) == (FILE, "alice", True, -1, 600)
    assert f"<{row.token}>" == token
    assert "mailto:alice" in row.owner


def test_another_gateway_and_a_restart_see_the_lock(dav: Client, vfs: ToyVfs) -> None:
    token = lock(dav)
    other = WebDavServer(vfs, WebDavOptions(port=0, threads=1))  # type: ignore[arg-type]
    other.start()
    try:
        there = Client(other.url)
        assert there("PUT", URL, b"x").status == 423
        assert there("PUT", URL, b"x", If=f"({token})").status == 204
        there.connection.close()
    finally:
        other.stop(5)


def test_expiry_and_bounds(dav: Client, vfs: ToyVfs) -> None:
    lock(dav, Timeout="Infinite, Second-4100000000")
    (row,) = vfs.locks()
    assert row.timeout_s == LOCK_MAX_S
    vfs.add_lock(replace(row, expires_ns=time.time_ns() - 1))
    assert dav("PUT", URL, b"free again").status == 204
    assert active(dav("PROPFIND", URL, Depth="0"), "locktoken") is None


def test_refresh(dav: Client, vfs: ToyVfs, connect: Callable[[str], Client]) -> None:
    token = lock(dav, Timeout="Second-600")
    assert connect("bob")("LOCK", URL, If=f"({token})", Timeout="Second-900").status == 403
    answer = dav("LOCK", URL, If=f"({token})", Timeout="Second-900")
    assert answer.status == 200
    assert vfs.locks()[0].timeout_s == 900
    assert dav("LOCK", URL, If="(<opaquelocktoken:none>)").status == 412
    assert dav("LOCK", URL).status == 400


def test_lock_of_a_free_name_makes_an_empty_file(dav: Client, connect: Callable[[str], Client]) -> None:
    answer = dav("LOCK", "/Documents/new", BODY % b"exclusive")
    assert answer.status == 201
    assert dav("GET", "/Documents/new").body == b""
    assert connect("bob")("PUT", "/Documents/new", b"x").status == 423
    assert dav("PUT", "/Documents/new", b"x", If=f"({answer.headers['Lock-Token']})").status == 204
    assert dav("LOCK", "/Documents/no/new", BODY % b"exclusive").status == 409


def test_locked_folder(dav: Client, connect: Callable[[str], Client]) -> None:
    dav("MKCOL", "/Documents/d")
    token = lock(dav, "/Documents/d")
    bob = connect("bob")
    assert bob("LOCK", "/Documents/d/new", BODY % b"exclusive").status == 423
    assert bob("GET", "/Documents/d/new").status == 404  # and did not leave an empty file behind
    assert bob("MKCOL", "/Documents/d/sub").status == 423
    assert bob("PUT", "/Documents/d/f", b"x").status == 423
    assert dav("PUT", "/Documents/d/f", b"x", If=f"</Documents/d> ({token})").status == 201
    answer = dav("PROPFIND", "/Documents/d/f", Depth="0")
    assert answer.xml.findtext(".//{DAV:}lockroot/{DAV:}href") == "/Documents/d"  # inherited locks are told
    assert dav("DELETE", "/Documents/d", If=f"({token})").status == 204


def test_locked_member_guards_its_folder(dav: Client) -> None:
    dav("MKCOL", "/Documents/d")
    dav.put("/Documents/d/f")
    token = lock(dav, "/Documents/d/f")
    assert dav("DELETE", "/Documents/d").status == 423
    assert dav("MOVE", "/Documents/d", Destination="/Documents/e").status == 423
    assert dav("MOVE", "/Documents/d", Destination="/Documents/e", If=f"</Documents/d/f> ({token})").status == 201


def test_locks_go_with_their_resource(dav: Client, vfs: ToyVfs) -> None:
    token = lock(dav)
    assert dav("MOVE", URL, Destination="/Documents/b", If=f"({token})").status == 201
    assert vfs.locks() == []
    token = lock(dav, "/Documents/b")
    assert dav("DELETE", "/Documents/b", If=f"({token})").status == 204
    assert vfs.locks() == []


def test_no_lock_is_granted_during_an_upload(dav: Client, vfs: ToyVfs, connect: Callable[[str], Client]) -> None:
    begun = threading.Event()
    put = vfs.put

    def watched(*args: object, **more: object) -> object:
        begun.set()
        return put(*args, **more)  # type: ignore[arg-type]

    vfs.put = watched  # type: ignore[assignment, method-assign]

    def slow() -> object:
        yield b"first"
        assert begun.wait(10)
        assert connect("bob")("LOCK", URL, BODY % b"exclusive").status == 423
        yield b"second"

    assert dav("PUT", URL, slow()).status == 204


def test_lock_of_another_gateway_during_an_upload_counts(dav: Client, vfs: ToyVfs) -> None:
    other = WebDavServer(vfs, WebDavOptions(port=0, threads=1))  # type: ignore[arg-type]
    other.start()

    def slow() -> object:
        yield b"first"
        there = Client(other.url, "bob")
        lock(there)
        there.connection.close()
        yield b"second"

    try:
        assert dav("PUT", URL, slow()).status == 423
        assert dav("GET", URL).body == b"old"
    finally:
        other.stop(5)


def test_if_header_with_etags(dav: Client) -> None:
    etag = dav("HEAD", URL).headers["ETag"]
    assert dav("PUT", URL, b"1", If=f'(["{"x"}"])').status == 412
    assert dav("PUT", URL, b"1", If=f"([W/{etag}])").status == 412
    assert dav("PUT", URL, b"1", If=f"<{dav.url}Documents/a%20b.dng> ([{etag}])").status == 204
    assert (
        dav("PUT", URL, b"2", If=f"<{dav.url}Documents/a%20b.dng> ([{etag}])").status == 412
    )  # an absolute URL counts
    assert dav("PUT", URL, b"2", If="(Not <DAV:no-lock>)").status == 204


@pytest.mark.parametrize("text", ["", "()", "(", "<a>", "(<a>", "rubbish", "(<a>) x", "(Not)x", "((<a>))"])
def test_malformed_if(dav: Client, text: str) -> None:
    assert dav("PUT", URL, b"x", If=text).status == 400


def test_if_is_an_or_of_ands() -> None:
    here = State("e", frozenset({"urn:1"}))
    for text, truth in {
        "(<urn:1>)": True,
        "(<urn:2>)": False,
        "(Not <urn:2>)": True,
        '(<urn:1> ["e"])': True,
        '(<urn:1> ["f"])': False,
        '(<urn:2>) (["e"])': True,
        '(<urn:2> ["e"]) (Not ["e"])': False,
    }.items():
        assert parse_if(text).holds(lambda path: here) is truth, text


def test_unlock_needs_the_right_token(dav: Client) -> None:
    lock(dav)
    assert dav("UNLOCK", URL, Lock_Token="<opaquelocktoken:none>").status == 409
    assert dav("UNLOCK", URL).status == 400
