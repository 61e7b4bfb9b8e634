"""Random namespaces: the catalog against a model of nested dictionaries."""

from __future__ import annotations

import stat
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from archivia_fs.errors import (
    Exists,
    FsError,
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
)
from archivia_fs.types import InodeNo, RenameFlag, lookup_key
from catalog.catalog import Catalog
from tests.catalog.helpers import DIR, FILE, Heard, folder

NAMES = st.sampled_from(["a", "b", "c", "\u00e9", "e\u0301"])
PLACE = st.integers(0, 30)
FLAGS = st.sampled_from([RenameFlag.NONE, RenameFlag.NONE, RenameFlag.NOREPLACE, RenameFlag.EXCHANGE])
Children = dict[str, tuple[str, InodeNo]]


class Names(RuleBasedStateMachine):
    """`dirs` maps every directory to its children by key; what is no key of it is a file."""

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory(prefix="archivia-model-")
        self.catalog = Catalog.open(f"sqlite:///{self.home.name}/catalog.db")
        self.heard = Heard(self.catalog)
        self.top = folder(self.catalog, "top")
        self.dirs: dict[InodeNo, Children] = {self.top: {}}

    def teardown(self) -> None:
        self.catalog.close()
        self.home.cleanup()

    def dir(self, place: int) -> InodeNo:
        return list(self.dirs)[place % len(self.dirs)]

    def under(self, ino: InodeNo) -> set[InodeNo]:
        found = {ino}
        for _, child in self.dirs.get(ino, {}).values():
            found |= self.under(child)
        return found

    def do(self, expected: type[FsError] | None, call: Any, *arguments: Any, **options: Any) -> Any:
        if expected is None:
            return call(*arguments, **options)
        with pytest.raises(FsError) as caught:
            call(*arguments, **options)
        assert caught.type is expected
        return None

    @rule(place=PLACE, name=NAMES, new=st.sampled_from([FILE, DIR]))
    def make(self, place: int, name: str, new: Any) -> None:
        parent = self.dir(place)
        effects = self.do(
            Exists if lookup_key(name) in self.dirs[parent] else None, self.catalog.make, parent, name, new
        )
        if effects:
            self.dirs[parent][lookup_key(name)] = (name, effects.changes[0].ino)
            if stat.S_ISDIR(new.mode):
                self.dirs[effects.changes[0].ino] = {}

    @rule(place=PLACE, name=NAMES, to=PLACE, new_name=NAMES)
    def link(self, place: int, name: str, to: int, new_name: str) -> None:
        parent, target = self.dir(place), self.dir(to)
        if lookup_key(name) not in self.dirs[parent]:
            return
        ino = self.dirs[parent][lookup_key(name)][1]
        if ino in self.dirs:
            return
        taken = lookup_key(new_name) in self.dirs[target]
        if self.do(Exists if taken else None, self.catalog.link, ino, target, new_name):
            self.dirs[target][lookup_key(new_name)] = (new_name, ino)

    @rule(place=PLACE, name=NAMES, rmdir=st.booleans())
    def remove(self, place: int, name: str, rmdir: bool) -> None:
        parent = self.dir(place)
        _, ino = self.dirs[parent].get(lookup_key(name), (None, None))
        expected: type[FsError] | None = None
        if ino is None:
            expected = NotFound
        elif rmdir and ino not in self.dirs:
            expected = NotADirectory
        elif rmdir and self.dirs[ino]:
            expected = NotEmpty
        elif not rmdir and ino in self.dirs:
            expected = IsADirectory
        if self.do(expected, self.catalog.rmdir if rmdir else self.catalog.unlink, parent, name):
            del self.dirs[parent][lookup_key(name)]
            self.dirs.pop(InodeNo(ino or 0), None)

    @rule(place=PLACE, name=NAMES, to=PLACE, new_name=NAMES, flags=FLAGS)
    def rename(self, place: int, name: str, to: int, new_name: str, flags: RenameFlag) -> None:
        parent, new_parent, key, new_key = self.dir(place), self.dir(to), lookup_key(name), lookup_key(new_name)
        source, target = self.dirs[parent].get(key), self.dirs[new_parent].get(new_key)
        expected = self._refusal(parent, key, new_parent, new_key, new_name, flags)
        if not self.do(expected, self.catalog.rename, parent, name, new_parent, new_name, flags):
            return
        assert source is not None
        if flags == RenameFlag.EXCHANGE:
            assert target is not None
            self.dirs[parent][key] = (source[0], target[1])
            self.dirs[new_parent][new_key] = (target[0], source[1])
        elif target is None or target[1] != source[1] or (parent, key) == (new_parent, new_key):
            del self.dirs[parent][key]
            if target is not None and target[1] != source[1]:
                self.dirs.pop(target[1], None)
            self.dirs[new_parent][new_key] = (new_name, source[1])

    def _refusal(
        self, parent: InodeNo, key: str, new_parent: InodeNo, new_key: str, new_name: str, flags: RenameFlag
    ) -> type[FsError] | None:
        source, target = self.dirs[parent].get(key), self.dirs[new_parent].get(new_key)
        if source is None:
            return NotFound
        same = (parent, key) == (new_parent, new_key)
        if flags == RenameFlag.EXCHANGE and target is None:
            return NotFound
        if flags == RenameFlag.NOREPLACE and target is not None and not (same and source[0] != new_name):
            return Exists
        if target is not None and target[1] == source[1]:
            return None
        if source[1] in self.dirs and new_parent in self.under(source[1]):
            return InvalidArgument
        if target is None:
            return None
        if flags == RenameFlag.EXCHANGE:
            return InvalidArgument if target[1] in self.dirs and parent in self.under(target[1]) else None
        if source[1] in self.dirs and target[1] not in self.dirs:
            return NotADirectory
        if target[1] in self.dirs:
            if source[1] not in self.dirs:
                return IsADirectory
            return NotEmpty if self.dirs[target[1]] else None
        return None

    @rule(place=PLACE, name=NAMES)
    def remove_tree(self, place: int, name: str) -> None:
        parent = self.dir(place)
        found = self.dirs[parent].get(lookup_key(name))
        if self.do(None if found else NotFound, self.catalog.remove_tree, parent, name):
            assert found is not None
            del self.dirs[parent][lookup_key(name)]
            for ino in self.under(found[1]):
                self.dirs.pop(ino, None)

    @precondition(lambda self: sum(map(len, self.dirs.values())) < 40)
    @rule(place=PLACE, to=PLACE, name=NAMES)
    def copy(self, place: int, to: int, name: str) -> None:
        source, parent = self.dir(place), self.dir(to)
        expected: type[FsError] | None = Exists if lookup_key(name) in self.dirs[parent] else None
        if parent in self.under(source):
            expected = InvalidArgument
        effects = self.do(expected, self.catalog.copy_tree, source, parent, name, DIR, recursive=True)
        if effects:
            self.dirs[parent][lookup_key(name)] = (name, effects.changes[0].ino)
            self._adopt(source, effects.changes[0].ino)

    def _adopt(self, old: InodeNo, new: InodeNo) -> None:
        self.dirs[new] = {}
        for key, (name, ino) in self.dirs[old].items():
            copy = self.catalog.lookup(new, name).stat.ino
            self.dirs[new][key] = (name, copy)
            if ino in self.dirs:
                self._adopt(ino, copy)

    @invariant()
    def same(self) -> None:
        links: dict[InodeNo, int] = {}
        for children in self.dirs.values():
            for _, ino in children.values():
                links[ino] = links.get(ino, 0) + 1
        for ino, children in self.dirs.items():
            listing = self.catalog.listing(ino)
            assert {(entry.name, entry.stat.ino) for entry in listing.entries} == set(children.values())
            subdirectories = sum(child in self.dirs for _, child in children.values())
            assert self.catalog.stat(ino).nlink == 2 + subdirectories
            for entry in listing.entries:
                assert entry.stat.is_dir == (entry.stat.ino in self.dirs)
                assert entry.stat.is_dir or entry.stat.nlink == links[entry.stat.ino]
        assert [c.seq for c in self.heard.changes] == list(range(1, len(self.heard.changes) + 1))


Names.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestNames = Names.TestCase
