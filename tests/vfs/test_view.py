"""The seam of views, proven by a trivial one through the bare core and both doors."""

from __future__ import annotations

import errno
import http.client
import os
import stat as stat_module
import threading
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from archivia_fs.content import BytesContent, Content
from archivia_fs.errors import NotFound, ReadOnly
from archivia_fs.types import Caller, InodeNo, OpenFlags
from archivia_fs.vfs.passwords import hash_password
from archivia_fs.vfs.view import Archive, ViewNode
from archivia_fs.vfs.view_handle import ViewHandle
from tests.fuse.conftest import mounted
from tests.vfs.conftest import ADMIN, Core, Make
from webdav.server import WebDavOptions, WebDavServer


@dataclass(frozen=True)
class Shouting:
    """`/Shouting` shows the files of the collection `archive` in capitals."""

    name: str = "Shouting"

    def root(self) -> ViewNode:
        return ViewNode("", self.name, directory=True, mtime_ns=0)

    def entries(self, archive: Archive, caller: Caller, node: ViewNode) -> Sequence[ViewNode]:
        documents = archive.lookup(caller, InodeNo(1), "Documents")
        home = archive.lookup(caller, documents.ino, "archive")
        return [
            ViewNode(
                str(entry.stat.ino), entry.name, False, entry.stat.mtime_ns, entry.stat.size, f"{entry.stat.etag}-loud"
            )
            for entry in archive.readdir(caller, home.ino)
        ]

    def lookup(self, archive: Archive, caller: Caller, node: ViewNode, name: str) -> ViewNode:
        for entry in self.entries(archive, caller, node):
            if entry.name == name:
                return entry
        raise NotFound(f"There is no {name!r}.")

    def open(self, archive: Archive, caller: Caller, node: ViewNode) -> Content:
        content = archive.snapshot(caller, InodeNo(int(node.id)))
        try:
            return BytesContent(bytes(content.pread(0, content.size)).upper(), node.etag)
        finally:
            content.close()


@pytest.fixture
def core(make_core: Make) -> Core:
    made = make_core(views=(Shouting(),))
    made.write("a.txt", b"quiet words")
    return made


def test_through_the_bare_core(core: Core, make_core: Make) -> None:
    """[V1] A view is read-only: writing in it is EROFS, or 403 over WebDAV.
    [V3] An open file of a view keeps the state it was opened with."""
    vfs = core.vfs
    assert [entry.name for entry in vfs.readdir(ADMIN, InodeNo(1))] == ["Documents", "Shouting"]
    folder = vfs.resolve(ADMIN, "/Shouting")
    stat = vfs.resolve(ADMIN, "/Shouting/a.txt")
    assert [entry.stat for entry in vfs.readdir(ADMIN, folder.ino)] == [stat]
    assert (folder.is_dir, stat.is_file, stat.size, stat.mode & 0o777) == (True, True, 11, 0o444)
    handle = vfs.open(ADMIN, stat.ino, OpenFlags.READ)
    assert isinstance(handle, ViewHandle)
    core.write("a.txt", b"other words")
    assert bytes(handle.pread(0, 100)) == b"QUIET WORDS"
    handle.release()
    assert core.read(vfs.resolve(ADMIN, "/Shouting/a.txt").ino) == b"OTHER WORDS"
    for attempt in (
        lambda: vfs.open(ADMIN, stat.ino, OpenFlags.WRITE),
        lambda: vfs.put(ADMIN, folder.ino, "b.txt"),
        lambda: vfs.mkdir(ADMIN, folder.ino, "b", 0o755),
        lambda: vfs.unlink(ADMIN, folder.ino, "a.txt"),
        lambda: vfs.remove(ADMIN, folder.ino, "a.txt"),
        lambda: vfs.truncate(ADMIN, stat.ino, 0),
        lambda: vfs.copy(ADMIN, stat.ino, folder.ino, "b.txt"),
        lambda: vfs.set_properties(ADMIN, stat.ino, {"user.x": b""}),
    ):
        with pytest.raises(ReadOnly) as refused:
            attempt()
        assert refused.value.errno == errno.EROFS
    with pytest.raises(NotFound):
        vfs.lookup(ADMIN, folder.ino, "b.txt")
    again = make_core(views=(Shouting(),))
    assert again.vfs.resolve(ADMIN, "/Shouting/a.txt").ino == stat.ino  # on every gateway, after every restart


def test_through_the_mount(core: Core, tmp_path: Path) -> None:
    """[V2] Both doors show the same views, with exact sizes, ETags and ranges."""
    with mounted(core.vfs, tmp_path / "mnt") as mount:  # type: ignore[arg-type]
        path = mount.path / "Shouting" / "a.txt"
        assert [entry.name for entry in os.scandir(mount.path)] == ["Documents", "Shouting"]
        assert path.read_bytes() == b"QUIET WORDS"
        assert path.stat().st_size == 11
        for attempt in (
            lambda: path.write_bytes(b""),
            path.unlink,
            lambda: (path.parent / "b").mkdir(),
            lambda: os.truncate(path, 0),
        ):
            with pytest.raises(OSError, match=r".*") as refused:
                attempt()
            assert refused.value.errno in (errno.EROFS, errno.EACCES)
        with pytest.raises(OSError, match=r".*") as refused:
            path.rename(mount.path / "Documents" / "archive" / "b.txt")
        assert refused.value.errno == errno.EXDEV


def test_a_long_listing_is_not_looked_up_again_name_by_name(
    core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ls -l` of a thousand previews: to look one up may be to make it."""
    for number in range(1000):  # more than the kernel takes at once
        core.vfs.mknod(ADMIN, core.home, f"{number:03}-a-name-of-usual-length.txt", stat_module.S_IFREG | 0o644, 0)
    looked_up: list[str] = []
    plain = Shouting.lookup

    def lookup(self: Shouting, archive: Archive, caller: Caller, node: ViewNode, name: str) -> ViewNode:
        looked_up.append(name)
        return plain(self, archive, caller, node, name)

    monkeypatch.setattr(Shouting, "lookup", lookup)
    with mounted(core.vfs, tmp_path / "mnt") as mount:  # type: ignore[arg-type]
        with os.scandir(mount.path / "Shouting") as entries:
            sizes = [entry.stat().st_size for entry in entries]
        assert len(sizes) == 1001
    assert not looked_up


def test_through_webdav(core: Core) -> None:
    """[V2] Both doors show the same views, with exact sizes, ETags and ranges.
    [V1] A view is read-only: writing in it is EROFS, or 403 over WebDAV."""
    core.catalog.set_password("admin", hash_password("secret"))
    server = WebDavServer(core.vfs, WebDavOptions(port=0, threads=2))
    server.start()
    try:
        connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=10)

        def ask(method: str, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
            login = {"Authorization": "Basic " + b64encode(b"admin:secret").decode(), **headers}
            connection.request(method, path, headers=login)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

        status, headers, body = ask("GET", "/Shouting/a.txt")
        assert (status, body, headers["Content-Length"]) == (200, b"QUIET WORDS", "11")
        assert headers["ETag"] == f'"{core.vfs.resolve(ADMIN, "/Shouting/a.txt").etag}"'
        assert ask("HEAD", "/Shouting/a.txt")[1]["ETag"] == headers["ETag"]
        assert ask("GET", "/Shouting/a.txt", Range="bytes=6-")[::2] == (206, b"WORDS")
        assert b"a.txt" in ask("PROPFIND", "/Shouting/", Depth="1")[2]
        for method in ("PUT", "DELETE", "PROPPATCH"):
            assert ask(method, "/Shouting/a.txt")[0] in (400, 403)
        assert ask("PUT", "/Shouting/new.txt")[0] == 403
        assert ask("MKCOL", "/Shouting/new")[0] == 403
        assert ask("COPY", "/Documents/archive/a.txt", Destination="/Shouting/b.txt")[0] == 403
        connection.close()
    finally:
        server.stop(5)


def test_fifty_threads_look_at_once(core: Core) -> None:
    found: list[int] = []

    def look() -> None:
        found.append(core.vfs.resolve(ADMIN, "/Shouting/a.txt").ino)

    threads = [threading.Thread(target=look) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 50
