"""Words that the tests of the catalog share."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import create_engine, text

from archivia_fs.errors import NotFound
from archivia_fs.types import (
    DOCUMENTS_INODE,
    Change,
    Effects,
    InodeNo,
    ObjectKey,
    Part,
    Revision,
    RevisionId,
)
from catalog.catalog import Catalog, NewInode

D = DOCUMENTS_INODE
FILE = NewInode(stat.S_IFREG | 0o644, 1000, 1000)
DIR = NewInode(stat.S_IFDIR | 0o755, 1000, 1000)


def sql(url: str, *statements: str) -> None:
    """Behind the catalog's back."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    """What the tables hold."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(text(statement))]
    engine.dispose()
    return found


def file(catalog: Catalog, name: str, parent: InodeNo = D) -> InodeNo:
    return catalog.make(parent, name, FILE).changes[0].ino


def folder(catalog: Catalog, name: str, parent: InodeNo = D) -> InodeNo:
    return catalog.make(parent, name, DIR).changes[0].ino


def revision(name: str, size: int = 1000, *, sha256: str | None = "a" * 64) -> Revision:
    parts = (Part(1, size, f'"{name}"', 7),)
    return Revision(RevisionId(name), ObjectKey(f"objects/{name}"), size, size, sha256, 0xFFFFFFFF, 5, parts)


def names(catalog: Catalog, ino: InodeNo = D) -> list[str]:
    return sorted(entry.name for entry in catalog.listing(ino).entries)


def complete(catalog: Catalog, effects: Effects, before: dict[InodeNo, object]) -> None:
    """The effects hold every inode whose row changed, as it is now."""
    now = rows(catalog)
    changed = {ino for ino in now if before.get(ino) != now[ino]}
    assert changed <= {each.ino for each in effects.stats}
    for each in effects.stats:
        assert each == now[each.ino]


def rows(catalog: Catalog) -> dict[InodeNo, object]:
    """All inodes up to the highest."""
    found: dict[InodeNo, object] = {}
    for ino in range(1, 80):
        try:
            found[InodeNo(ino)] = catalog.stat(InodeNo(ino))
        except NotFound:
            continue
    return found


def together(count: int, work: Callable[[int], None]) -> None:
    """In as many threads at once; the first failure is raised."""
    failures: list[BaseException] = []
    gate = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            gate.wait()
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


class Heard:
    """A listener that keeps everything."""

    def __init__(self, catalog: Catalog) -> None:
        self.changes: list[Change] = []
        self.groups: list[Effects] = []
        catalog.subscribe(self)

    def __call__(self, effects: Effects) -> None:
        self.groups.append(effects)
        self.changes.extend(effects.changes)

    def wait_for(self, seq: int, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not self.changes or self.changes[-1].seq < seq:
            assert time.monotonic() < deadline, f"change {seq} was not told"
            time.sleep(0.01)
