"""An archive with previews, for tests: a real catalog and core over a store in memory that counts.

A Drive shows /Thumbnails and reads it as any reader does.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Protocol

from PIL import Image

from archivia_fs.content import Content
from archivia_fs.errors import StoreUnavailable
from archivia_fs.store.memory import MemoryStore
from archivia_fs.types import Caller, Entry, ObjectKey, OpenFlags, Revision, RevisionId, Stat
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from archivia_fs.views.downloads.view import DownloadsView
from archivia_fs.views.thumbnails.background import Background
from archivia_fs.views.thumbnails.maker import Look, Made, Maker
from archivia_fs.views.thumbnails.pool import Pool
from archivia_fs.views.thumbnails.service import Previews
from archivia_fs.views.thumbnails.turns import Demand
from archivia_fs.views.thumbnails.view import ThumbnailsView
from catalog.catalog import Catalog
from catalog.namespace import NewInode

READ_MAX = 256 * 1024  # bytes, beyond those of the preview


class Readable(Protocol):
    """Bytes that are made when they are read."""

    size: int

    def read(self, offset: int, size: int) -> bytes: ...


class CountingStore(MemoryStore):
    """Says what was read, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[ObjectKey, int]] = []
        self.failing = False
        self.sketches: dict[ObjectKey, Readable] = {}

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        self.reads.append((key, len(buffer)))
        if self.failing:
            raise StoreUnavailable("The store sleeps.")
        if key in self.sketches:
            buffer[:] = self.sketches[key].read(offset, len(buffer))
        else:
            super().read_into(key, offset, buffer)


class CountingMaker(Maker):
    """Counts what is decoded."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.made = 0
        self.delay = 0.0

    def make(self, content: Content, look: Look, demand: Demand) -> Made:
        self.made += 1
        time.sleep(self.delay)
        return super().make(content, look, demand)


class Drive:
    """An archive with the view."""

    def __init__(self, path: Path, pool: Pool) -> None:
        self.catalog = Catalog.open(f"sqlite:///{path}/catalog.db")
        self.store = CountingStore()
        self.pool = pool
        self.maker = CountingMaker(pool)
        self.previews = Previews(self.catalog.previews, self.catalog, self.store, self.maker)
        self.background = Background(self.previews, pool, self.catalog, self.catalog.origin, settle=0.2)
        view = ThumbnailsView(self.previews, self.background.later)
        options = VfsOptions(path / "spill", memory=32 * 1024**2, spill_limit=1024**2)
        self.vfs = Vfs(self.catalog, self.store, options, views=[view, DownloadsView(self.catalog)])
        self.catalog.add_user("admin", "x", admin=True)
        self.catalog.add_user("guest", "x")
        self.caller = Caller("admin", 1, 1)
        self.catalog.add_collection("scans", "admin", NewInode(0o40755, 1, 1))

    def put(self, path: str, data: bytes, mtime_ns: int | None = None) -> Stat:
        folder, _, name = path.rpartition("/")
        handle = self.vfs.put(self.caller, self.vfs.resolve(self.caller, folder).ino, name, mtime_ns=mtime_ns)
        handle.write(data)
        stat, _ = handle.commit()
        handle.abort()
        return stat

    def list(self, path: str) -> list[Entry]:
        return list(self.vfs.readdir(self.caller, self.vfs.resolve(self.caller, path).ino))

    def names(self, path: str) -> list[str]:
        return [each.name for each in self.list(path)]

    def read(self, path: str) -> bytes:
        """As any reader: look up, open, read as much as was told."""
        stat = self.vfs.resolve(self.caller, path)
        handle = self.vfs.open(self.caller, stat.ino, OpenFlags.READ)
        try:
            data = bytes(handle.pread(0, 1 << 30))
        finally:
            handle.release()
        assert len(data) == stat.size
        return data

    def close(self) -> None:
        self.background.close()
        self.vfs.close()
        self.catalog.close()


def size_of(data: bytes) -> tuple[int, int]:
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.format == "JPEG"
    return image.size


def adopt(drive: Drive, name: str, file: Readable) -> Stat:
    """A file whose bytes only seem to be in the store."""
    key = ObjectKey(f"objects/{name}")
    drive.store.sketches[key] = file
    revision = Revision(RevisionId(name), key, file.size, file.size, None, None, 1)
    parent = drive.vfs.resolve(drive.caller, "/Documents/scans").ino
    drive.catalog.put_file(parent, name, revision, NewInode(0o100644, 1, 1), mtime_ns=1)
    return drive.vfs.resolve(drive.caller, f"/Documents/scans/{name}")
