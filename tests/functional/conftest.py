"""A gateway with all doors open, over a real SeaweedFS; one for each module, an own folder for every test."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from archivia_fs.store.base import ObjectStore
from archivia_fs.store.s3 import S3Config, S3Store
from archivia_fs.store.stack import stack
from archivia_fs.vfs.passwords import hash_password
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from catalog.catalog import Catalog
from tests.functional.drives import ADMIN, DavDrive, Drive, MountDrive, VfsDrive
from tests.fuse.conftest import mounted
from tests.s3_servers import S3Server, seaweedfs
from webdav.server import WebDavOptions, WebDavServer

_numbers = itertools.count(1)


@contextmanager
def frozen(server: S3Server) -> Iterator[None]:
    """The S3 server, a child of this process, takes connections and answers nothing."""
    port = f"-s3.port={server.endpoint.rpartition(':')[2]}".encode()
    (process,) = [
        int(child)
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
        if port in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    ]
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@dataclass
class House:
    """The drives, the store beneath them, and what a second gateway needs to join."""

    drives: dict[str, Drive]
    store: S3Store
    config: S3Config
    catalog_url: str
    mount: Path

    @property
    def dav(self) -> DavDrive:
        drive = self.drives["webdav"]
        assert isinstance(drive, DavDrive)
        return drive

    def objects(self) -> int:
        return sum(1 for _ in self.store.list("objects/"))


@contextmanager
def open_house(
    home: Path, server: S3Server, *, wrap: Callable[[ObjectStore], ObjectStore] = stack, spill_limit: int = 1 << 30,
    xattr: bool = False,
) -> Iterator[House]:  # fmt: skip
    """`wrap`: what stands between the core and the S3 server. A process has one mount at a time, so it has one house."""
    url = f"sqlite:///{home}/catalog.db"
    config = S3Config(
        server.endpoint, server.bucket, server.access_key, server.secret_key, server.region, prefix=f"{home.name}/"
    )
    store = S3Store(config)
    store.ensure_bucket()
    stacked = wrap(store)
    stacked.probe()
    catalog = Catalog.open(url)
    catalog.add_user("admin", hash_password("secret"), admin=True)
    vfs = Vfs(catalog, stacked, VfsOptions(home / "spill", spill_limit=spill_limit))
    vfs.mkdir(ADMIN, vfs.resolve(ADMIN, "/Documents").ino, "archive", 0o755)
    webdav = WebDavServer(vfs, WebDavOptions(port=0, threads=4))
    webdav.start()
    dav = DavDrive(webdav.url, "secret")
    root = os.geteuid() == 0
    with mounted(vfs, home / "mnt", allow_other=root, xattr=xattr) as mount:  # type: ignore[arg-type]
        drives: dict[str, Drive] = {each.name: each for each in (VfsDrive(vfs), MountDrive(mount.path), dav)}
        yield House(drives, store, config, url, mount.path)
    dav.close()
    webdav.stop(5)
    vfs.close()
    catalog.close()
    store.close()


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Each house has its own prefix in the bucket."""
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")  # a process has one mount at a time: it must be gone before the next room's tests
def house(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("house"), server) as house:
        yield house


@pytest.fixture(params=["vfs", "mount", "webdav"])
def drive(request: pytest.FixtureRequest, house: House) -> Drive:
    return house.drives[request.param]


@pytest.fixture(params=["local", "mount"])
def top(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An empty folder, of a local filesystem and of the mount, that every user can reach and write."""
    if request.param == "local":
        folder = tmp_path / "top"
        folder.mkdir()
    else:
        house: House = request.getfixturevalue("house")
        roll: str = request.getfixturevalue("roll")
        folder = house.mount / "Documents" / "archive" / roll
    folder.chmod(0o777)
    for parent in folder.parents:
        if parent.stat().st_mode & 0o011 != 0o011:
            parent.chmod(parent.stat().st_mode | 0o011)
    return folder


@pytest.fixture
def roll(house: House) -> str:
    """A folder of this test alone, with a slash at the end."""
    name = f"roll-{next(_numbers)}"
    house.drives["vfs"].mkdir(name)
    return name + "/"
