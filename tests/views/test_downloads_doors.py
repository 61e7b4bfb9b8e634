"""Downloads through both doors: what HTTP promises of a file, and what programs read through the mount."""

from __future__ import annotations

import io
import subprocess
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from lxml import etree

from archivia_fs.store.memory import MemoryStore
from archivia_fs.types import Caller, ObjectKey, OpenFlags, Revision, RevisionId
from archivia_fs.vfs.passwords import hash_password
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from archivia_fs.views.downloads import plans
from archivia_fs.views.downloads.view import DownloadsView
from archivia_fs.views.thumbnails.facts import to_json
from archivia_fs.views.thumbnails.ifd import PictureFacts
from catalog.catalog import Catalog
from catalog.previews import PreviewRecord, PreviewState
from tests.fuse.conftest import mounted
from tests.webdav.conftest import Client, basic
from tests.webdav.toy import USERS
from webdav.server import WebDavOptions, WebDavServer

ALICE = Caller("alice", 0, 0)
BOX, ZIP = "/Documents/box", "/Downloads/box/roll%203.zip"
PAGES = {f"page {number}.dng": bytes([number]) * (number * 300_000 + 7) for number in range(1, 13)}


class CountingStore(MemoryStore):
    """Says how many bytes were read."""

    bytes_read = 0

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        self.bytes_read += len(buffer)
        super().read_into(key, offset, buffer)


@dataclass
class Drive:
    vfs: Vfs
    catalog: Catalog
    store: CountingStore
    url: str

    def put(self, name: str, data: bytes) -> None:
        put = self.vfs.put(ALICE, self.vfs.resolve(ALICE, f"{BOX}/roll 3").ino, name, mtime_ns=10**18)
        put.write(data)
        put.commit()


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    for user, password in USERS.items():
        catalog.add_user(user, hash_password(password), admin=user == "alice")
    catalog.add_user("admin", "no password", admin=True)  # who mounts
    store = CountingStore()
    options = VfsOptions(tmp_path / "spill", memory=64 * 1024**2)
    vfs = Vfs(catalog, store, options, views=[DownloadsView(catalog)])
    box = vfs.mkdir(ALICE, vfs.resolve(ALICE, "/Documents").ino, "box", 0o755)
    vfs.mkdir(ALICE, box.ino, "roll 3", 0o755)
    server = WebDavServer(vfs, WebDavOptions(port=0, threads=6))
    server.start()
    drive = Drive(vfs, catalog, store, server.url)
    for name, data in PAGES.items():
        drive.put(name, data)
    yield drive
    server.stop(5)
    vfs.close()
    catalog.close()


@pytest.fixture
def connect(drive: Drive) -> Iterator[Callable[[], Client]]:
    clients: list[Client] = []

    def make() -> Client:
        clients.append(Client(drive.url))
        return clients[-1]

    yield make
    for client in clients:
        client.connection.close()


def test_size_and_tag_before_the_first_byte(drive: Drive, connect: Callable[[], Client]) -> None:
    dav = connect()
    before = drive.store.bytes_read
    head = dav("HEAD", ZIP)
    listed = dav("PROPFIND", "/Downloads/box/", Depth="1")
    assert drive.store.bytes_read == before
    whole = dav("GET", ZIP)
    assert head.status == whole.status == 200
    assert int(head.headers["Content-Length"]) == len(whole.body)
    assert head.headers["ETag"] == whole.headers["ETag"]
    assert not head.headers["ETag"].startswith("W/")
    assert head.headers["Accept-Ranges"] == "bytes"
    assert head.headers["Content-Type"] == "application/zip"
    assert ZIP in listed.hrefs()
    assert f">{len(whole.body)}<" in listed.body.decode()
    archive = zipfile.ZipFile(io.BytesIO(whole.body))
    assert {name: archive.read(name) for name in PAGES} == PAGES


def test_segments_at_once_are_the_whole(connect: Callable[[], Client]) -> None:
    whole = connect()("GET", ZIP)
    size, segment = len(whole.body), 1_500_000
    starts = range(0, size, segment)
    clients = {start: connect() for start in starts}

    def fetch(start: int) -> bytes:
        wanted = f"bytes={start}-{start + segment - 1}"
        answer = clients[start]("GET", ZIP, Range=wanted, If_Range=whole.headers["ETag"])
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {start}-{min(start + segment, size) - 1}/{size}"
        return answer.body

    with ThreadPoolExecutor(4) as pool:
        assert b"".join(pool.map(fetch, starts)) == whole.body
    assert connect()("GET", ZIP, Range="bytes=-22").body == whole.body[-22:]
    assert connect()("GET", ZIP, Range=f"bytes={size}-").status == 416


def test_going_on_after_a_change_gives_the_new_one_whole(drive: Drive, connect: Callable[[], Client]) -> None:
    dav = connect()
    tag = dav("HEAD", ZIP).headers["ETag"]
    drive.put("page 5.dng", b"changed" * 1000)
    answer = dav("GET", ZIP, Range="bytes=1000-", If_Range=tag)
    assert answer.status == 200
    assert answer.headers["ETag"] != tag
    assert zipfile.ZipFile(io.BytesIO(answer.body)).read("page 5.dng") == b"changed" * 1000
    assert dav("GET", ZIP, If_Match=tag).status == 412
    assert dav("GET", ZIP, If_None_Match=answer.headers["ETag"]).status == 304


def test_going_on_while_more_becomes_known_of_the_files(
    drive: Drive, connect: Callable[[], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Previews are made in the background; what the pictures say of themselves would make another METS."""
    monkeypatch.setattr(plans, "PENDING_SECONDS", 0)
    monkeypatch.setattr(plans, "PENDING_FACTOR", 0)
    dav, facts = connect(), to_json(PictureFacts("image/x-adobe-dng", make="Leica"))
    whole = dav("GET", ZIP, Range="bytes=0-999999")
    tag = whole.headers["ETag"]
    for number, name in enumerate(PAGES, 1):
        revision = drive.vfs.resolve(ALICE, f"{BOX}/roll 3/{name}").revision
        assert revision is not None
        drive.catalog.previews.save(PreviewRecord(revision, PreviewState.DECODED, facts))
        answer = dav("GET", ZIP, Range=f"bytes={number}000000-{number}999999", If_Range=tag)
        assert (answer.status, answer.headers["ETag"]) == (206, tag)
    assert dav("GET", ZIP, Range="bytes=0-999999", If_Match=tag).body == whole.body


def test_a_download_in_progress_is_one_state(drive: Drive, connect: Callable[[], Client]) -> None:
    expected = connect()("GET", ZIP).body
    slow = Client(drive.url)
    connection = slow.connection
    connection.request("GET", ZIP, headers=basic("alice"))
    response = connection.getresponse()
    first = response.read(500_000)
    for name in PAGES:
        drive.put(name, b"other")
    assert first + response.read() == expected
    connection.close()


def test_it_cannot_be_written(connect: Callable[[], Client]) -> None:
    dav = connect()
    for method in ("PUT", "DELETE"):
        assert dav(method, ZIP, b"x" if method == "PUT" else None).status == 403
    assert dav("GET", ZIP).status == 200


def test_the_mount_shows_the_same(drive: Drive, tmp_path: Path, connect: Callable[[], Client]) -> None:
    whole = connect()("GET", ZIP).body
    with mounted(drive.vfs, tmp_path / "mnt") as mount:  # type: ignore[arg-type]  # a Vfs is what it stands for
        path = mount.path / "Downloads/box/roll 3.zip"
        assert path.stat().st_size == len(whole)
        with zipfile.ZipFile(path) as archive:
            assert len(archive.namelist()) == len(PAGES) + 2
            assert archive.read("page 7.dng") == PAGES["page 7.dng"]
        subprocess.run(["unzip", "-tqq", path], timeout=60, check=True)
        assert path.read_bytes() == whole
        with pytest.raises(OSError, match="Read-only"):
            path.write_bytes(b"x")
        bag = mount.path / "Downloads/box/roll 3_bag.zip"
        assert zipfile.ZipFile(bag).testzip() is None


def test_listing_a_zip_on_the_mount_reads_its_tail_only(drive: Drive, tmp_path: Path) -> None:
    drive.put("page 99.dng", b"last" * 7_500_000)
    with mounted(drive.vfs, tmp_path / "mnt") as mount:  # type: ignore[arg-type]  # a Vfs is what it stands for
        path = mount.path / "Downloads/box/roll 3.zip"
        before = drive.store.bytes_read
        listed = subprocess.run(["unzip", "-l", path], capture_output=True, text=True, timeout=60, check=True).stdout
        assert f"{len(PAGES) + 3} files" in listed
        with zipfile.ZipFile(path) as archive:
            assert len(archive.namelist()) == len(PAGES) + 3
        assert drive.store.bytes_read - before <= 1024**2  # of the last page, what the kernel reads before the tail


def test_descriptions_set_through_either_door_are_in_mets(
    drive: Drive, tmp_path: Path, connect: Callable[[], Client]
) -> None:
    dav, place = connect(), "/Downloads/box/roll%203/roll%203_mets.xml"
    before = dav("GET", place)
    body = b"""<D:propertyupdate xmlns:D="DAV:" xmlns:dc="http://purl.org/dc/elements/1.1/"><D:set><D:prop>
        <dc:title xml:lang="de">Der gro&#xDF;e Wald</dc:title></D:prop></D:set></D:propertyupdate>"""
    assert dav("PROPPATCH", f"{BOX}/roll%203/", body).status == 207
    with mounted(drive.vfs, tmp_path / "mnt", xattr=True) as mount:  # type: ignore[arg-type]  # a Vfs is what it stands for
        for name, value in (("", "Ansel"), ("/page 2.dng", "Berenice")):
            path = f"{mount.path}/Documents/box/roll 3{name}"
            subprocess.run(["setfattr", "-n", "user.dc.creator", "-v", value, path], timeout=60, check=True)
        after = dav("GET", place)
        assert after.headers["ETag"] != before.headers["ETag"]
        assert (mount.path / "Downloads/box/roll 3/roll 3_mets.xml").read_bytes() == after.body
    tree = etree.fromstring(after.body)
    told = {}
    for section in tree.iter("{http://www.loc.gov/METS/}dmdSec"):
        dublin = section.iter("{http://purl.org/dc/elements/1.1/}*")
        told[section.get("ID")] = {etree.QName(each).localname: each.text for each in dublin}
    (page,) = (
        each.get("DMDID") for each in tree.iter("{http://www.loc.gov/METS/}div") if each.get("LABEL") == "page 2.dng"
    )
    assert told["DMD-0"] == {"title": "Der große Wald", "creator": "Ansel", "identifier": "roll 3"}
    assert told[page] == {"creator": "Berenice"}
    (row,) = (
        line for line in dav("GET", place.replace("mets.xml", "metadata.csv")).body.splitlines() if b"page 2" in line
    )
    assert row.endswith(b",Berenice")


def test_the_mount_sees_changes_and_an_open_zip_does_not(drive: Drive, tmp_path: Path) -> None:
    with mounted(drive.vfs, tmp_path / "mnt") as mount:  # type: ignore[arg-type]  # a Vfs is what it stands for
        path = mount.path / "Downloads/box/roll 3.zip"
        whole = path.read_bytes()
        with path.open("rb") as file:
            assert file.read(100) == whole[:100]
            (mount.path / "Documents/box/roll 3/page 1.dng").write_bytes(b"new")
            deadline = time.monotonic() + 5
            while path.stat().st_size == len(whole):  # names of views are known for a second
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert file.read() == whole[100:]
        assert zipfile.ZipFile(path).read("page 1.dng") == b"new"


def test_opening_what_was_looked_up_just_before_a_change_opens_the_new_one(drive: Drive, tmp_path: Path) -> None:
    with mounted(drive.vfs, tmp_path / "mnt") as mount:  # type: ignore[arg-type]  # a Vfs is what it stands for
        path = mount.path / "Downloads/box/roll 3.zip"
        for number in range(5):
            path.stat()  # the kernel knows the name now, for a second
            drive.put("page 1.dng", b"new" * number)
            assert zipfile.ZipFile(path).read("page 1.dng") == b"new" * number


def test_fifty_who_open_at_once_compute_a_checksum_once(drive: Drive) -> None:
    data = b"adopted" * 300_000
    folder = drive.vfs.resolve(ALICE, f"{BOX}/roll 3")
    ino = drive.vfs.mknod(ALICE, folder.ino, "adopted.dng", 0o100644, 0).ino
    drive.store.put(ObjectKey("adopted"), data, zlib.crc32(data))
    revision = Revision(RevisionId("adopted"), ObjectKey("adopted"), len(data), len(data), None, None, 0)
    drive.catalog.commit_revision(ino, revision, mtime_ns=1)
    stat = drive.vfs.resolve(ALICE, "/Downloads/box/roll 3_bag.zip")
    before = drive.store.bytes_read

    def tail(_: int) -> bytes:
        handle = drive.vfs.open(ALICE, stat.ino, OpenFlags.READ)
        try:
            return bytes(handle.pread(stat.size - 1000, 1000))
        finally:
            handle.release()

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(tail, range(50)))) == 1
    assert drive.store.bytes_read - before == len(data)


def test_closed_handles_hold_nothing(drive: Drive) -> None:
    ino = drive.vfs.resolve(ALICE, "/Downloads/box/roll 3.zip").ino
    handle = drive.vfs.open(ALICE, ino, OpenFlags.READ)
    assert handle.pread(0, 4) == b"PK\3\4"
    handle.release()
    with pytest.raises(Exception, match="closed"):
        handle.pread(5_000_000, 4)
