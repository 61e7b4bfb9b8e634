"""The door over the real core: catalog on SQLite, object store in memory. What the toy cannot show is asked here."""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archivia_fs.store.memory import MemoryStore
from archivia_fs.types import OpenFlags, Right
from archivia_fs.vfs.vfs import Vfs
from catalog.namespace import NewInode
from tests.catalog.test_durability import pytestmark as needs_cachestat
from tests.catalog.test_durability import unwritten
from tests.webdav.conftest import ALICE, BOX, Client, SlowView, real_drive
from tests.webdav.test_clients import program
from tests.webdav.test_names import LOCK
from tests.webdav.test_put import Raw
from tests.webdav.toy import USERS
from webdav.server import WebDavOptions, WebDavServer

BOBS = "/Documents/bobs/"
DATA = bytes(range(256)) * 80_000  # 20 MB: several parts


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Vfs]:
    with real_drive(tmp_path, MemoryStore(), SlowView()) as vfs:
        yield vfs


@pytest.fixture
def server(drive: Vfs) -> Iterator[WebDavServer]:
    server = WebDavServer(drive, WebDavOptions(port=0, threads=4))
    server.start()
    yield server
    server.stop(5)


def test_litmus(server: WebDavServer, tmp_path: Path) -> None:
    command = [program("litmus", "Debian: litmus"), server.url + BOX.lstrip("/"), "alice", USERS["alice"]]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    summaries = re.findall(r"summary for `\w+': of (\d+) tests run: (\d+) passed, (\d+) failed", run.stdout)
    assert len(summaries) == 5, run.stdout
    assert all(total == passed for total, passed, _ in summaries), run.stdout
    assert run.returncode == 0


def test_bytes_and_etags(dav: Client, drive: Vfs) -> None:
    etag = dav.put(BOX + "a.dng", DATA).headers["ETag"]
    got = dav("GET", BOX + "a.dng")
    assert (got.body, got.headers["ETag"]) == (DATA, etag)
    assert dav("HEAD", BOX + "a.dng").headers["ETag"] == etag
    assert dav("GET", BOX + "a.dng", Range="bytes=9999999-10000001").body == DATA[9_999_999:10_000_002]
    assert dav("COPY", BOX + "a.dng", Destination=BOX + "b.dng").status == 201
    assert dav("GET", BOX + "b.dng", If_Match=etag).body == DATA  # the revision is shared, so is its tag
    assert drive.open_uploads() == 0


def test_broken_upload_leaves_no_upload_behind(dav: Client, drive: Vfs) -> None:
    dav.put(BOX + "a.dng", b"old")

    def body() -> Iterator[bytes]:
        yield DATA
        assert drive.open_uploads() == 1

    assert dav("PUT", BOX + "a.dng", body(), X_Expected_Entity_Length=str(2 * len(DATA))).status == 400
    assert drive.open_uploads() == 0
    assert dav("GET", BOX + "a.dng").body == b"old"


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
@pytest.mark.parametrize("kinds", ["ff", "fd", "df", "dd"])
def test_over_what_is_there(dav: Client, method: str, kinds: str) -> None:
    for name, kind in zip("st", kinds, strict=True):
        if kind == "d":
            dav("MKCOL", BOX + name)
        dav.put(BOX + name + ("/in-" + name if kind == "d" else ""), name.encode())
    assert dav(method, BOX + "s", Destination=BOX + "t").status == 204
    assert dav("GET", BOX + ("t/in-s" if kinds[0] == "d" else "t")).body == b"s"
    names = dav("PROPFIND", BOX, Depth="1").hrefs()[1:]
    assert len(names) == (2 if method == "COPY" else 1), names
    assert dav("PROPFIND", BOX + "t", Depth="1").hrefs()[1:] == ([BOX + "t/in-s"] if kinds[0] == "d" else [])


def test_what_the_mount_writes_is_here(dav: Client, drive: Vfs) -> None:
    folder = drive.resolve(ALICE, BOX).ino
    new, handle = drive.create(ALICE, folder, "new", 0o644, OpenFlags.WRITE)
    handle.pwrite(0, b"mount")
    assert dav("GET", BOX + "new").body == b""  # not closed yet: not committed
    handle.flush()
    handle.release()
    assert dav("GET", BOX + "new").body == b"mount"
    drive.set_properties(ALICE, new.ino, {"user.dc.title": "Brücke".encode()})
    answer = dav("PROPFIND", BOX + "new", Depth="0")
    assert answer.prop("{http://purl.org/dc/elements/1.1/}title").text == "Brücke"  # type: ignore[union-attr]


def test_a_link_is_written_through(dav: Client, drive: Vfs, server: WebDavServer) -> None:
    """As on a mount; who may not write where it leads is told so before a byte of the body was sent."""
    dav.put(BOX + "a.dng", b"old")
    drive.symlink(ALICE, drive.resolve(ALICE, BOX).ino, "link", "a.dng")
    assert dav("PUT", BOX + "link", DATA).status == 204
    assert dav("GET", BOX + "a.dng").body == DATA
    assert drive.resolve(ALICE, BOX + "link").is_symlink
    bobs_collection(drive)
    drive._catalog.grant("archive", "bob", Right.READ)
    drive.symlink(ALICE, drive.resolve(ALICE, BOBS).ino, "link", "../archive/a.dng")
    raw = Raw(server.url)
    raw.head("PUT", BOBS + "link", "Content-Length: 80000000000", "Expect: 100-continue", user="bob")
    assert raw.answer().status == 403
    raw.socket.close()


def bobs_collection(drive: Vfs) -> None:
    drive._catalog.add_collection("bobs", "bob", NewInode(stat.S_IFDIR | 0o755, 0, 0))


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_whose_collection_it_is(dav: Client, drive: Vfs, connect: Callable[[str], Client], method: str) -> None:
    """What a client may not replace is as it was, and so is what should have replaced it."""
    bobs_collection(drive)
    drive._catalog.grant("archive", "bob", Right.READ)
    bob = connect("bob")
    for folder in (BOX, BOBS):
        dav("MKCOL", folder + "roll")
        dav.put(folder + "roll/whose", folder.encode())
    for source, target in (
        (BOBS.rstrip("/"), BOX.rstrip("/")),
        (BOBS + "roll", BOX.rstrip("/")),
        (BOBS + "roll", BOX + "roll"),
        (BOBS + "roll/whose", BOX + "roll"),
        (BOBS + "roll/whose", BOX + "roll/whose"),
        (BOBS + "roll", BOX + "new"),
    ):
        assert bob(method, source, Destination=target).status == 403
        for folder in (BOX, BOBS):
            assert dav("GET", folder + "roll/whose").body == folder.encode()
            assert dav("PROPFIND", folder, Depth="1").hrefs() == [folder, folder + "roll/"]


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_between_the_archive_and_a_view(dav: Client, method: str) -> None:
    dav.put(BOX + "a")
    answer = dav(method, "/Slow/a.jpg", Destination=BOX + "b.jpg")
    assert (answer.status, b"download it" in answer.body) == (403, True)
    answer = dav(method, BOX + "a", Destination="/Slow/a")
    assert (answer.status, b"write under /Documents" in answer.body) == (403, True)
    assert dav("PROPFIND", BOX, Depth="1").hrefs() == [BOX, BOX + "a"]


def test_rights(dav: Client, server: WebDavServer) -> None:
    dav.put(BOX + "a.dng")
    bob = Client(server.url, "bob")
    for method in ("GET", "PUT", "DELETE", "PROPFIND"):
        assert bob(method, BOX + "a.dng", Depth="0").status in (403, 404)
    assert bob("MKCOL", "/Documents/mine").status == 403
    assert bob("PROPFIND", "/Documents", Depth="1").hrefs() == ["/Documents/"]
    bob.connection.close()
    assert dav("PUT", "/a.dng", b"x").status == 403
    assert dav("PUT", "/Documents/a.dng", b"x").status == 403
    assert dav("DELETE", "/Documents").status == 403


def test_who_may_not_write_may_not_lock(dav: Client, drive: Vfs, connect: Callable[[str], Client]) -> None:
    dav.put(BOX + "a.dng")
    bobs_collection(drive)
    drive._catalog.grant("archive", "bob", Right.READ)
    bob = connect("bob")
    for path in ("/", "/Documents", BOX, BOX + "a.dng", BOX + "new", "/Slow", "/Slow/a.jpg"):
        assert bob("LOCK", path, LOCK).status == 403, path
    assert dav("LOCK", "/Slow/a.jpg", LOCK).status == 403
    assert bob("LOCK", BOBS, LOCK).status == 200
    drive._catalog.grant("archive", "bob", Right.WRITE)
    assert bob("LOCK", BOX + "a.dng", LOCK).status == 200
    assert dav("PUT", BOX + "a.dng", b"x").status == 423


def test_locks_are_kept_by_the_catalog(dav: Client, drive: Vfs, server: WebDavServer) -> None:
    token = dav("LOCK", BOX + "a.dng", LOCK).headers["Lock-Token"]
    again = WebDavServer(drive, WebDavOptions(port=0, threads=2))
    again.start()
    other = Client(again.url)
    assert other("PUT", BOX + "a.dng", b"x").status == 423
    assert other("PUT", BOX + "a.dng", b"x", If=f"({token})").status == 204
    assert other("UNLOCK", BOX + "a.dng", Lock_Token=token).status == 204
    other.connection.close()
    again.stop(5)
    assert dav("PUT", BOX + "a.dng", b"y").status == 204


@needs_cachestat
def test_what_was_answered_with_2xx_is_on_the_disk(dav: Client, tmp_path: Path) -> None:
    """A 2xx survives a power cut."""
    log = tmp_path / "catalog.db-wal"
    dav.put(BOX + "a.dng", b"bytes")
    assert unwritten(log) == 0
    move = {"Destination": BOX + "b.dng"}
    for method, path, headers in (
        ("MKCOL", BOX + "roll", {}),
        ("MOVE", BOX + "a.dng", move),
        ("DELETE", BOX + "roll", {}),
    ):
        assert dav(method, path, **headers).status in (201, 204)
        assert unwritten(log) == 0, method
