"""Random histories of a whole drive against a plain model: names, links, bytes, open files, restarts.

The model is what a careful person would say of a filesystem whose files change when they are closed. Every answer
is compared: what it returns, which error it raises, and now and then the whole tree.
"""

from __future__ import annotations

import errno
import stat as stat_module
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from archivia_fs.errors import FsError, NoAttribute
from archivia_fs.store.memory import MemoryStore
from archivia_fs.store.stack import stack
from archivia_fs.types import InodeNo, OpenFlags, RenameFlag
from archivia_fs.vfs.handle import FileHandle
from archivia_fs.vfs.put import PutHandle
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from catalog.catalog import Catalog
from tests.vfs.conftest import ADMIN, KIB, SMALL_PLAN

RW = OpenFlags.READ | OpenFlags.WRITE
NAMES = st.sampled_from(["a.dng", "b.dng", "ä.dng", "a\u0308.dng", "roll"])  # the third and fourth are one name
FOLDERS = st.integers(0, 5)
SIZES = st.integers(0, 40 * KIB)


@dataclass(eq=False)
class File:
    """`live` is what handles see, `kept` what the catalog has."""

    kept: bytes = b""
    live: bytearray | None = None
    links: int = 1
    properties: dict[str, bytes] = field(default_factory=dict)


@dataclass(eq=False)
class Link:
    target: str
    links: int = 1


@dataclass(eq=False)
class Folder:
    entries: dict[str, tuple[str, Node]] = field(default_factory=dict)  # NFC name -> (as spelled, node)
    parent: Folder | None = None

    def get(self, name: str) -> Node | None:
        found = self.entries.get(key(name))
        return None if found is None else found[1]


Node = File | Link | Folder


def key(name: str) -> str:
    return name.replace("a\u0308", "ä")


class Refused(Exception):
    def __init__(self, number: int) -> None:
        self.number = number


@dataclass
class Opened:
    handle: FileHandle
    file: File


class Drive(RuleBasedStateMachine):
    """The system and the model side by side. Folders are numbered; a number beyond the last means the first."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.store = MemoryStore(part_size_min=1)
        self.top = Folder()
        self.opened: list[Opened] = []
        self.puts: list[tuple[PutHandle, Folder, str, bytearray]] = []
        self._start()
        self.catalog.add_user("admin", "no password", admin=True)
        self.vfs.mkdir(ADMIN, self.vfs.resolve(ADMIN, "/Documents").ino, "archive", 0o755)

    def _start(self) -> None:
        self.catalog = Catalog.open(f"sqlite:///{self.directory.name}/catalog.db")
        store = stack(self.store)
        store.probe()
        options = VfsOptions(Path(self.directory.name) / "spill", memory=8 << 20, plan=SMALL_PLAN)
        self.vfs = Vfs(self.catalog, store, options)

    def teardown(self) -> None:
        self._end()
        assert not list(Path(self.directory.name, "spill").glob("*"))
        self.directory.cleanup()

    def _end(self) -> None:
        for opened in self.opened:
            opened.handle.release()
            self._commit(opened.file)
        for put, *_ in self.puts:
            put.abort()
        self.opened, self.puts = [], []
        self.vfs.close()
        self.catalog.close()

    # --- the way from model to system -------------------------------------------------------------------------------

    def folders(self) -> list[Folder]:
        found, waiting = [], [self.top]
        while waiting:
            folder = waiting.pop(0)
            found.append(folder)
            waiting += [node for _, node in folder.entries.values() if isinstance(node, Folder)]
        return found

    def folder(self, number: int) -> Folder:
        folders = self.folders()
        return folders[number] if number < len(folders) else self.top

    def ino(self, folder: Folder) -> InodeNo:
        names: list[str] = []
        at = folder
        while at.parent is not None:
            names.append(next(name for name, node in at.parent.entries.values() if node is at))
            at = at.parent
        return self.vfs.resolve(ADMIN, "/".join(["/Documents/archive", *reversed(names)])).ino

    def both(self, model: Callable[[], object], system: Callable[[], object]) -> tuple[object, bool]:
        """Run both; they agree on success or on the errno. Returns the system's result and whether it succeeded."""
        try:
            model()
            expected = 0
        except Refused as refused:
            expected = refused.number
        try:
            result = system()
        except FsError as error:
            assert error.errno == expected, f"{error!r} instead of {errno.errorcode.get(expected, 'success')}"
            return None, False
        assert expected == 0, f"success instead of {errno.errorcode[expected]}"
        return result, True

    # --- names -------------------------------------------------------------------------------------------------------

    def _add(self, folder: Folder, name: str, node: Node) -> None:
        if folder.get(name) is not None:
            raise Refused(errno.EEXIST)
        folder.entries[key(name)] = name, node
        if isinstance(node, Folder):
            node.parent = folder

    @rule(where=FOLDERS, name=NAMES)
    def mkdir(self, where: int, name: str) -> None:
        folder = self.folder(where)
        ino = self.ino(folder)
        self.both(lambda: self._add(folder, name, Folder()), lambda: self.vfs.mkdir(ADMIN, ino, name, 0o755))

    @rule(where=FOLDERS, name=NAMES, data=st.binary(max_size=64), repeat=st.integers(1, 700))
    def put(self, where: int, name: str, data: bytes, repeat: int) -> None:
        folder, content = self.folder(where), data * repeat
        ino = self.ino(folder)

        def system() -> None:
            put = self.vfs.put(ADMIN, ino, name)
            put.write(content)
            put.commit()

        self.both(lambda: self._put(folder, name, content), system)

    def _put(self, folder: Folder, name: str, content: bytes) -> None:
        node = folder.get(name)
        if isinstance(node, Folder):
            raise Refused(errno.EISDIR)
        if isinstance(node, Link):
            raise Refused(errno.EINVAL)
        if node is None:
            node = File()
            self._add(folder, name, node)
        node.kept = content

    @rule(where=FOLDERS, name=NAMES, data=st.binary(min_size=1, max_size=64), repeat=st.integers(1, 500))
    def begin_put(self, where: int, name: str, data: bytes, repeat: int) -> None:
        folder = self.folder(where)
        put = self.vfs.put(ADMIN, self.ino(folder), name)
        put.write(data * repeat)
        self.puts.append((put, folder, name, bytearray(data * repeat)))

    @precondition(lambda self: self.puts)
    @rule(number=st.integers(0, 9), commits=st.booleans())
    def end_put(self, number: int, commits: bool) -> None:
        put, folder, name, content = self.puts.pop(number % len(self.puts))
        if not commits:
            put.abort()
            return
        if folder not in self.folders():  # removed meanwhile
            self.both(lambda: refuse(errno.ENOENT), put.commit)
            return
        self.both(lambda: self._put(folder, name, bytes(content)), put.commit)

    @rule(where=FOLDERS, name=NAMES, to=FOLDERS, new_name=NAMES, flag=st.sampled_from(list(RenameFlag)))
    def rename(self, where: int, name: str, to: int, new_name: str, flag: RenameFlag) -> None:
        old, new = self.folder(where), self.folder(to)
        a, b = self.ino(old), self.ino(new)
        self.both(
            lambda: self._rename(old, name, new, new_name, flag),
            lambda: self.vfs.rename(ADMIN, a, name, b, new_name, flag),
        )

    def _rename(self, old: Folder, name: str, new: Folder, new_name: str, flag: RenameFlag) -> None:
        source, target = old.get(name), new.get(new_name)
        if source is None:
            raise Refused(errno.ENOENT)
        spelled = old.entries[key(name)][0]
        respelled = old is new and key(name) == key(new_name) and spelled != new_name
        if target is None and flag is RenameFlag.EXCHANGE:
            raise Refused(errno.ENOENT)
        if target is not None and flag is RenameFlag.NOREPLACE and not respelled:
            raise Refused(errno.EEXIST)
        if target is source and (flag is RenameFlag.EXCHANGE or not respelled):
            return
        if isinstance(source, Folder) and inside(new, source):
            raise Refused(errno.EINVAL)
        if flag is RenameFlag.EXCHANGE and not respelled:
            if isinstance(target, Folder) and inside(old, target):
                raise Refused(errno.EINVAL)
            new_spelled = new.entries[key(new_name)][0]
            assert target is not None
            old.entries[key(name)] = spelled, target
            new.entries[key(new_name)] = new_spelled, source
            for node, folder in ((target, old), (source, new)):
                if isinstance(node, Folder):
                    node.parent = folder
            return
        if target is not None and not respelled:
            if isinstance(source, Folder) and not isinstance(target, Folder):
                raise Refused(errno.ENOTDIR)
            if isinstance(target, Folder) and not isinstance(source, Folder):
                raise Refused(errno.EISDIR)
            if isinstance(target, Folder) and target.entries:
                raise Refused(errno.ENOTEMPTY)
            self._drop(new, new_name)
        del old.entries[key(name)]
        new.entries[key(new_name)] = new_name, source
        if isinstance(source, Folder):
            source.parent = new

    def _drop(self, folder: Folder, name: str) -> None:
        node = folder.entries.pop(key(name))[1]
        if not isinstance(node, Folder):
            node.links -= 1

    @rule(where=FOLDERS, name=NAMES, to=FOLDERS, new_name=NAMES)
    def link(self, where: int, name: str, to: int, new_name: str) -> None:
        source, target = self.folder(where), self.folder(to)
        node = source.get(name)
        if node is None:
            return
        ino, parent = self.vfs.lookup(ADMIN, self.ino(source), name).ino, self.ino(target)

        def model() -> None:
            if isinstance(node, Folder):
                raise Refused(errno.EPERM)
            self._add(target, new_name, node)
            node.links += 1

        self.both(model, lambda: self.vfs.link(ADMIN, ino, parent, new_name))

    @rule(where=FOLDERS, name=NAMES, path=st.sampled_from(["x", "../a.dng", "/etc/passwd"]))
    def symlink(self, where: int, name: str, path: str) -> None:
        folder = self.folder(where)
        ino = self.ino(folder)
        self.both(lambda: self._add(folder, name, Link(path)), lambda: self.vfs.symlink(ADMIN, ino, name, path))

    @rule(where=FOLDERS, name=NAMES)
    def unlink(self, where: int, name: str) -> None:
        folder = self.folder(where)
        ino = self.ino(folder)

        def model() -> None:
            node = folder.get(name)
            if node is None:
                raise Refused(errno.ENOENT)
            if isinstance(node, Folder):
                raise Refused(errno.EISDIR)
            self._drop(folder, name)

        self.both(model, lambda: self.vfs.unlink(ADMIN, ino, name))

    @rule(where=FOLDERS, name=NAMES)
    def rmdir(self, where: int, name: str) -> None:
        folder = self.folder(where)
        ino = self.ino(folder)

        def model() -> None:
            node = folder.get(name)
            if node is None:
                raise Refused(errno.ENOENT)
            if not isinstance(node, Folder):
                raise Refused(errno.ENOTDIR)
            if node.entries:
                raise Refused(errno.ENOTEMPTY)
            self._drop(folder, name)

        self.both(model, lambda: self.vfs.rmdir(ADMIN, ino, name))

    @rule(where=FOLDERS, name=NAMES)
    def remove(self, where: int, name: str) -> None:
        folder = self.folder(where)
        ino = self.ino(folder)

        def model() -> None:
            node = folder.get(name)
            if node is None:
                raise Refused(errno.ENOENT)
            self._drop_all(node)
            self._drop(folder, name)

        self.both(model, lambda: self.vfs.remove(ADMIN, ino, name))

    def _drop_all(self, node: Node) -> None:
        if isinstance(node, Folder):
            for name, child in list(node.entries.values()):
                self._drop_all(child)
                self._drop(node, name)

    @rule(where=FOLDERS, name=NAMES, to=FOLDERS, new_name=NAMES)
    def copy(self, where: int, name: str, to: int, new_name: str) -> None:
        source, target = self.folder(where), self.folder(to)
        node = source.get(name)
        if node is None:
            return
        ino, parent = self.vfs.lookup(ADMIN, self.ino(source), name).ino, self.ino(target)

        def model() -> None:
            if isinstance(node, Folder) and inside(target, node):
                raise Refused(errno.EINVAL)
            self._add(target, new_name, copied(node))

        objects = len(list(self.store.list("objects/")))
        self.both(model, lambda: self.vfs.copy(ADMIN, ino, parent, new_name))
        assert len(list(self.store.list("objects/"))) == objects  # no byte moves

    # --- bytes -------------------------------------------------------------------------------------------------------

    @rule(where=FOLDERS, name=NAMES, truncates=st.booleans())
    def open(self, where: int, name: str, truncates: bool) -> None:
        folder = self.folder(where)
        ino, node = self.ino(folder), folder.get(name)
        flags = RW | OpenFlags.TRUNCATE if truncates else RW
        if node is None:
            _, handle = self.vfs.create(ADMIN, ino, name, 0o644, flags)
            node = File()
            self._add(folder, name, node)
        elif isinstance(node, File):
            handle = self.vfs.open(ADMIN, self.vfs.lookup(ADMIN, ino, name).ino, flags)
        else:
            return
        assert isinstance(handle, FileHandle)
        if truncates and (node.live is not None or node.kept):
            node.live = bytearray()
        self.opened.append(Opened(handle, node))

    def an_open_file(self, number: int) -> Opened:
        return self.opened[number % len(self.opened)]

    @precondition(lambda self: self.opened)
    @rule(number=st.integers(0, 9), offset=SIZES, data=st.binary(min_size=1, max_size=64), repeat=st.integers(1, 300))
    def write(self, number: int, offset: int, data: bytes, repeat: int) -> None:
        opened, piece = self.an_open_file(number), data * repeat
        if opened.handle.pwrite_nowait(offset, piece) is None:
            assert opened.handle.pwrite(offset, piece) == len(piece)
        self._write(opened.file, offset, piece)

    @precondition(lambda self: self.opened)
    @rule(number=st.integers(0, 9), data=st.binary(min_size=1, max_size=64), repeat=st.integers(1, 600))
    def append(self, number: int, data: bytes, repeat: int) -> None:
        opened, piece = self.an_open_file(number), data * repeat
        offset = opened.handle.stat().size
        opened.handle.pwrite(offset, piece)
        self._write(opened.file, offset, piece)

    def _write(self, file: File, offset: int, piece: bytes) -> None:
        if file.live is None:
            file.live = bytearray(file.kept)
        file.live.extend(bytes(max(0, offset - len(file.live))))
        file.live[offset : offset + len(piece)] = piece

    @precondition(lambda self: self.opened)
    @rule(number=st.integers(0, 9), size=SIZES)
    def ftruncate(self, number: int, size: int) -> None:
        opened = self.an_open_file(number)
        opened.handle.truncate(size)
        self._truncate(opened.file, size)

    def _truncate(self, file: File, size: int) -> None:
        if file.live is None:
            if size == len(file.kept):
                return
            file.live = bytearray(file.kept)
        del file.live[size:]
        file.live.extend(bytes(size - len(file.live)))

    @rule(where=FOLDERS, name=NAMES, size=SIZES)
    def truncate(self, where: int, name: str, size: int) -> None:
        """truncate(2) by name: at once, unless somebody is writing."""
        folder = self.folder(where)
        node = folder.get(name)
        if not isinstance(node, File):
            return
        ino = self.vfs.lookup(ADMIN, self.ino(folder), name).ino
        assert self.vfs.truncate(ADMIN, ino, size).size == size
        was_open = node.live is not None
        self._truncate(node, size)
        if not was_open:
            self._commit(node)

    @precondition(lambda self: self.opened)
    @rule(number=st.integers(0, 9), offset=SIZES, size=SIZES)
    def read(self, number: int, offset: int, size: int) -> None:
        opened = self.an_open_file(number)
        expected = (opened.file.kept if opened.file.live is None else opened.file.live)[offset : offset + size]
        at_once = opened.handle.pread_nowait(offset, size)
        assert at_once is None or bytes(at_once) == expected
        assert bytes(opened.handle.pread(offset, size)) == expected

    @precondition(lambda self: self.opened)
    @rule(number=st.integers(0, 9), syncs=st.booleans())
    def flush(self, number: int, syncs: bool) -> None:
        opened = self.an_open_file(number)
        if syncs:
            opened.handle.fsync()
        else:
            opened.handle.flush()
        self._commit(opened.file)

    @precondition(lambda self: self.opened)
    @rule(number=st.integers(0, 9))
    def close(self, number: int) -> None:
        opened = self.opened.pop(number % len(self.opened))
        opened.handle.flush()
        opened.handle.release()
        self._commit(opened.file)

    def _commit(self, file: File) -> None:
        if file.live is not None:
            file.kept, file.live = bytes(file.live), None

    # --- properties, restarts ------------------------------------------------------------------------------------------

    @rule(where=FOLDERS, name=NAMES, value=st.none() | st.binary(max_size=8))
    def set_property(self, where: int, name: str, value: bytes | None) -> None:
        folder = self.folder(where)
        node = folder.get(name)
        if not isinstance(node, File):
            return
        ino = self.vfs.lookup(ADMIN, self.ino(folder), name).ino
        try:
            self.vfs.set_properties(ADMIN, ino, {"user.dc.title": value})
        except NoAttribute:
            assert value is None
            assert "user.dc.title" not in node.properties
        if value is None:
            node.properties.pop("user.dc.title", None)
        else:
            node.properties["user.dc.title"] = value
        assert self.vfs.properties(ino) == node.properties

    @rule()
    def restart(self) -> None:
        self._end()
        self._start()

    @precondition(lambda self: self.top.entries)
    @invariant()
    def the_names_agree(self) -> None:
        for folder in self.folders():
            listed = self.vfs.readdir(ADMIN, self.ino(folder))
            assert {entry.name for entry in listed} == {name for name, _ in folder.entries.values()}
            for entry in listed:
                node = folder.get(entry.name)
                assert node is not None
                if isinstance(node, Folder):
                    folders = sum(isinstance(child, Folder) for _, child in node.entries.values())
                    assert entry.stat.is_dir
                    assert entry.stat.nlink == 2 + folders
                    continue
                assert entry.stat.nlink == node.links
                if isinstance(node, Link):
                    assert self.vfs.readlink(entry.stat.ino) == node.target
                    assert stat_module.S_ISLNK(entry.stat.mode)
                else:
                    assert entry.stat.size == len(node.kept if node.live is None else node.live)

    @rule()
    def the_bytes_agree(self) -> None:
        for folder in self.folders():
            ino = self.ino(folder)
            for name, node in folder.entries.values():
                if isinstance(node, File):
                    content = self.vfs.snapshot(ADMIN, self.vfs.lookup(ADMIN, ino, name).ino)
                    assert bytes(content.pread(0, content.size)) == node.kept
                    content.close()


def refuse(number: int) -> None:
    raise Refused(number)


def inside(folder: Folder, ancestor: Folder) -> bool:
    at: Folder | None = folder
    while at is not None:
        if at is ancestor:
            return True
        at = at.parent
    return False


def copied(node: Node) -> Node:
    if isinstance(node, File):
        return File(node.kept, properties=dict(node.properties))
    if isinstance(node, Link):
        return Link(node.target)
    made = Folder()
    for folded, (name, child) in node.entries.items():
        made.entries[folded] = name, copied(child)
    for _, child in made.entries.values():
        if isinstance(child, Folder):
            child.parent = made
    return made


Drive.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestDrive = Drive.TestCase
