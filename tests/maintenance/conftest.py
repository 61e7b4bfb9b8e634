"""An archive to look after: catalog, store and core, with the store in memory and on a real server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from archivia_fs.store.base import ObjectStore
from archivia_fs.store.faults import FaultyStore
from archivia_fs.store.memory import MemoryStore
from archivia_fs.store.s3 import S3Config, S3Store
from archivia_fs.store.stack import stack
from archivia_fs.types import DOCUMENTS_INODE, Caller, InodeNo, Revision
from archivia_fs.vfs.upload_plan import UploadPlan
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from catalog.catalog import Catalog
from tests.catalog.helpers import DIR
from tests.s3_servers import S3Server, seaweedfs

MIB = 1024**2
PLAN = UploadPlan(schedule=((10_000, 5 * MIB),), buffered_max=5 * MIB)
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Archive:
    """`bare` is the store behind `store`, to damage what is in it."""

    catalog: Catalog
    vfs: Vfs
    store: FaultyStore
    bare: ObjectStore
    url: str
    top: InodeNo
    caller: Caller = Caller("admin", 0, 0)  # noqa: RUF009 - frozen

    def put(self, name: str, data: bytes) -> Revision:
        """A file /Documents/archive/NAME with this content."""
        handle = self.vfs.put(self.caller, self.top, name)
        handle.write(data)
        stat, _ = handle.commit()
        return self.revision(name) if stat.size else Revision("", None, 0, 0, None, None, 0)  # type: ignore[arg-type]

    def revision(self, name: str) -> Revision:
        revision_id = self.vfs.lookup(self.caller, self.top, name).revision
        assert revision_id is not None
        return self.catalog.revision(revision_id)

    def keys(self) -> set[str]:
        return {found.key for found in self.bare.list("")}


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


def opened(bare: ObjectStore, path: Path) -> Iterator[Archive]:
    url = f"sqlite:///{path}/catalog.db"
    catalog = Catalog.open(url)
    store = FaultyStore(bare)
    vfs = Vfs(catalog, store, VfsOptions(spill_dir=path / "spill", memory=64 * MIB, plan=PLAN))
    try:
        catalog.add_user("admin", "x", admin=True)
        top = catalog.add_collection("archive", "admin", DIR).changes[0].ino
        assert catalog.stat(DOCUMENTS_INODE).nlink == 3
        yield Archive(catalog, vfs, store, bare, url, top)
    finally:
        vfs.close()
        catalog.close()


@pytest.fixture(params=["memory", "seaweedfs"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    if request.param == "memory":
        yield from opened(MemoryStore(), tmp_path)
        return
    server: S3Server = request.getfixturevalue("seaweed")
    prefix = f"archive-{next(_numbers)}/"
    bare = S3Store(
        S3Config(server.endpoint, server.bucket, server.access_key, server.secret_key, server.region, prefix)
    )
    stacked = stack(bare)
    stacked.probe()
    try:
        yield from opened(stacked, tmp_path)
    finally:
        bare.close()


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Archive]:
    yield from opened(MemoryStore(), tmp_path)
