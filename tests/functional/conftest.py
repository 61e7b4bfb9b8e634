"""A gateway with all doors open, over a real SeaweedFS; one for each module, an own folder for every test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from archivia_fs.store.s3 import S3Config, S3Store
from archivia_fs.store.stack import stack
from archivia_fs.vfs.passwords import hash_password
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from catalog.catalog import Catalog
from tests.functional.drives import ADMIN, DavDrive, Drive, MountDrive, VfsDrive
from tests.fuse.conftest import mounted
from tests.s3_servers import seaweedfs
from webdav.server import WebDavOptions, WebDavServer

_numbers = itertools.count(1)


@dataclass
class House:
    """The drives, the store beneath them, and what a second gateway needs to join."""

    drives: dict[str, Drive]
    store: S3Store
    config: S3Config
    catalog_url: str
    mount: Path

    def objects(self) -> int:
        return sum(1 for _ in self.store.list("objects/"))


@pytest.fixture(scope="module")  # a process has one mount at a time: it must be gone before the next room's tests
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("house")
    url = f"sqlite:///{home}/catalog.db"
    with seaweedfs(home / "s3") as server:
        config = S3Config(server.endpoint, server.bucket, server.access_key, server.secret_key, server.region)
        store = S3Store(config)
        store.ensure_bucket()
        stacked = stack(store)
        stacked.probe()
        catalog = Catalog.open(url)
        catalog.add_user("admin", hash_password("secret"), admin=True)
        vfs = Vfs(catalog, stacked, VfsOptions(home / "spill"))
        vfs.mkdir(ADMIN, vfs.resolve(ADMIN, "/Documents").ino, "archive", 0o755)
        webdav = WebDavServer(vfs, WebDavOptions(port=0, threads=4))
        webdav.start()
        dav = DavDrive(webdav.url, "secret")
        with mounted(vfs, home / "mnt", allow_other=os.geteuid() == 0) as mount:  # type: ignore[arg-type]
            drives: dict[str, Drive] = {each.name: each for each in (VfsDrive(vfs), MountDrive(mount.path), dav)}
            yield House(drives, store, config, url, mount.path)
        dav.close()
        webdav.stop(5)
        vfs.close()
        catalog.close()
        store.close()


@pytest.fixture(params=["vfs", "mount", "webdav"])
def drive(request: pytest.FixtureRequest, house: House) -> Drive:
    return house.drives[request.param]


@pytest.fixture
def roll(house: House) -> str:
    """A folder of this test alone, with a slash at the end."""
    name = f"roll-{next(_numbers)}"
    house.drives["vfs"].mkdir(name)
    return name + "/"
