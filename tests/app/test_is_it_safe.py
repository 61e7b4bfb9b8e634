"""Is it safe yet? The xattrs of a mount and the live properties of WebDAV, over one real core."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import zlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from archivia_fs.store.memory import MemoryStore
from archivia_fs.types import Caller
from archivia_fs.vfs.passwords import hash_password
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from catalog.catalog import Catalog
from fuse.mount import FuseMount
from tests.fuse.conftest import mounted
from webdav.server import WebDavOptions, WebDavServer

ADMIN = Caller("admin", 0, 0)
MIB = 1024**2
ASK = (
    '<D:propfind xmlns:D="DAV:"><D:prop><a:state xmlns:a="archivia-fs:state"/><a:sha256 xmlns:a="archivia-fs:state"/>'
    "</D:prop></D:propfind>"
)
CHANGE = (
    '<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><a:state xmlns:a="archivia-fs:state">stored</a:state></D:prop>'
    "</D:set></D:propertyupdate>"
)


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Vfs]:
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    catalog.add_user("admin", hash_password("secret"), admin=True)
    vfs = Vfs(catalog, MemoryStore(), VfsOptions(tmp_path / "spill", memory=64 * MIB))
    vfs.mkdir(ADMIN, vfs.resolve(ADMIN, "/Documents").ino, "archive", 0o755)
    yield vfs
    vfs.close()
    catalog.close()


@pytest.fixture
def mount(drive: Vfs, tmp_path: Path) -> Iterator[FuseMount]:
    with mounted(drive, tmp_path / "mnt", xattr=True, subtree="/Documents/archive") as mount:  # type: ignore[arg-type]
        yield mount


@pytest.fixture
def server(drive: Vfs) -> Iterator[WebDavServer]:
    server = WebDavServer(drive, WebDavOptions(port=0, threads=2))
    server.start()
    yield server
    server.stop(5)


def ask(server: WebDavServer, method: str, body: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=10)
    login = {"Authorization": "Basic " + b64encode(b"admin:secret").decode(), "Depth": "0"}
    connection.request(method, "/Documents/archive/a.dng", body, login)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_a_file_tells_whether_it_is_safe(mount: FuseMount, server: WebDavServer) -> None:
    """[D14] Both doors tell for every file whether it is stored, uploading or checksum-pending, and its checksums.
    [D12] An edited file's CRC-32 is known at once; its SHA-256 is pending until `archivia-fs scrub` has read it.
    """
    path = mount.path / "a.dng"
    data = bytes(range(256)) * 100_000  # 25.6 MB: several parts
    path.write_bytes(data)
    assert os.getxattr(path, "user.archivia.state") == b"stored"
    assert os.getxattr(path, "user.archivia.size") == str(len(data)).encode()
    assert os.getxattr(path, "user.archivia.sha256") == hashlib.sha256(data).hexdigest().encode()
    assert os.getxattr(path, "user.archivia.crc32") == f"{zlib.crc32(data):08x}".encode()
    assert os.getxattr(path, "user.archivia.since").startswith(b"20")
    assert len(os.getxattr(path, "user.archivia.revision")) == 32
    status, text = ask(server, "PROPFIND", ASK)
    assert status == 207
    assert ">stored<" in text
    assert hashlib.sha256(data).hexdigest() in text

    with path.open("r+b") as edited:
        edited.write(b"changed")
        edited.flush()
        assert os.getxattr(path, "user.archivia.state") == b"uploading"
        assert ">uploading<" in ask(server, "PROPFIND", ASK)[1]
    data = b"changed" + data[7:]
    assert os.getxattr(path, "user.archivia.state") == b"checksum-pending"
    assert os.getxattr(path, "user.archivia.crc32") == f"{zlib.crc32(data):08x}".encode()
    with pytest.raises(OSError) as refused:
        os.getxattr(path, "user.archivia.sha256")
    assert refused.value.errno == errno.ENODATA
    status, text = ask(server, "PROPFIND", ASK)
    assert ">checksum-pending<" in text
    assert "404" in text  # sha256 is not known


def test_nobody_can_say_so_himself(mount: FuseMount, server: WebDavServer) -> None:
    path = mount.path / "a.dng"
    path.write_bytes(b"")
    assert os.getxattr(path, "user.archivia.state") == b"stored"
    assert os.getxattr(path, "user.archivia.sha256") == hashlib.sha256().hexdigest().encode()
    with pytest.raises(PermissionError):
        os.setxattr(path, "user.archivia.state", b"stored")
    with pytest.raises(PermissionError):
        os.removexattr(path, "user.archivia.state")
    assert os.listxattr(path) == []  # or `cp -a` would try to set them
    with pytest.raises(OSError) as refused:
        os.getxattr(mount.path, "user.archivia.state")
    assert refused.value.errno == errno.ENODATA
    status, text = ask(server, "PROPPATCH", CHANGE)
    assert status == 207
    assert "403" in text
