"""A core over a store in memory, with parts so small that files of kilobytes take the ways of terabytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from archivia_fs.store.base import ObjectStore
from archivia_fs.store.faults import FaultyStore
from archivia_fs.store.memory import MemoryStore
from archivia_fs.types import Caller, InodeNo
from archivia_fs.vfs.upload_plan import UploadPlan
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from archivia_fs.vfs.view import View
from catalog.catalog import Catalog

KIB = 1024
ADMIN = Caller("admin", 1000, 1000)
SMALL_PLAN = UploadPlan(
    schedule=((3, 4 * KIB), (10_000, 16 * KIB)), buffered_max=8 * KIB, part_min=1 * KIB, copy_max=8 * KIB
)


@dataclass
class Core:
    """A Vfs and what it stands on; `home` is the inode of the collection `archive`."""

    vfs: Vfs
    catalog: Catalog
    faults: FaultyStore
    memory: MemoryStore
    home: InodeNo

    def write(self, name: str, data: bytes, parent: InodeNo | None = None) -> InodeNo:
        put = self.vfs.put(ADMIN, parent or self.home, name)
        put.write(data)
        return put.commit()[0].ino

    def read(self, ino: InodeNo) -> bytes:
        content = self.vfs.snapshot(ADMIN, ino)
        try:
            return bytes(content.pread(0, content.size))
        finally:
            content.close()


Make = Callable[..., Core]


@pytest.fixture
def make_core(tmp_path: Path) -> Iterator[Make]:
    """Cores on one catalog file and one store: a second one is a second gateway, or the first after a restart."""
    made: list[Core] = []
    memory = MemoryStore(part_size_min=1)

    def make(
        *, plan: UploadPlan = SMALL_PLAN, views: tuple[View, ...] = (), memory_limit: int = 64 << 20,
        spill_limit: int = 64 << 20, wrap: Callable[[ObjectStore], ObjectStore] = lambda store: store,
    ) -> Core:  # fmt: skip
        faults = FaultyStore(memory)
        store = wrap(faults)
        store.probe()
        catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
        options = VfsOptions(tmp_path / "spill", memory=memory_limit, spill_limit=spill_limit, plan=plan)
        vfs = Vfs(catalog, store, options, views)
        if not catalog.users():
            catalog.add_user("admin", "no password", admin=True)
            vfs.mkdir(ADMIN, vfs.resolve(ADMIN, "/Documents").ino, "archive", 0o755)
        core = Core(vfs, catalog, faults, memory, vfs.resolve(ADMIN, "/Documents/archive").ino)
        made.append(core)
        return core

    yield make
    for core in made:
        core.faults.heal()
        core.vfs.close()
        core.catalog.close()


@pytest.fixture
def core(make_core: Make) -> Core:
    return make_core()
