"""What import copies where, what it leaves alone, and what it does when things go wrong. Over the core, with a store in memory."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from archivia_fs.app import add_collection
from archivia_fs.commands.importer import FAILURES_MAX, WORKERS, Importer, Listener
from archivia_fs.commands.sources import measure, plan
from archivia_fs.errors import (
    Exists,
    FsError,
    InvalidArgument,
    InvalidName,
    NameTooLong,
    NoSpace,
    NotADirectory,
    NotFound,
    NotUtf8,
    StoreFull,
    StoreUnavailable,
)
from archivia_fs.store.faults import Fault, FaultyStore, Kind
from archivia_fs.store.memory import MemoryStore
from archivia_fs.types import Caller, InodeNo
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from catalog.catalog import Catalog

ME = Caller("admin", os.getuid(), os.getgid())
MIB = 1 << 20


class Drive:
    def __init__(self, directory: Path) -> None:
        self.catalog = Catalog.open(f"sqlite:///{directory}/catalog.db")
        self.catalog.add_user("admin", "-", admin=True)
        add_collection(self.catalog, "archive", "admin")
        self.store = FaultyStore(MemoryStore())
        self.store.probe()
        self.vfs = Vfs(self.catalog, self.store, VfsOptions(spill_dir=directory / "spill", memory=64 * MIB))
        self.home = directory

    def copy(
        self,
        *sources: Path | str,
        to: str = "/Documents/archive/",
        listener: Listener | None = None,
        dry_run: bool = False,
    ) -> Importer:
        planned, folder = plan(self.vfs, ME, sources, to, dry_run=dry_run)
        importer = Importer(self.vfs, ME, listener or Listener(), state=self.home, dry_run=dry_run)
        importer.run(planned, folder)
        return importer

    def tree(self, path: str = "/Documents/archive") -> dict[str, bytes | str | None]:
        """Path from there to bytes, link target, or None for a folder."""
        found: dict[str, bytes | str | None] = {}

        def walk(ino: InodeNo, at: str) -> None:
            for entry in self.vfs.readdir(ME, ino):
                name = f"{at}{entry.name}"
                if entry.stat.is_dir:
                    found[name] = None
                    walk(entry.stat.ino, f"{name}/")
                elif entry.stat.is_symlink:
                    found[name] = entry.stat.symlink
                else:
                    with contextlib.closing(self.vfs.snapshot(ME, entry.stat.ino)) as content:
                        blocks = range(0, entry.stat.size, MIB)
                        found[name] = b"".join(bytes(content.pread(offset, MIB)) for offset in blocks)

        walk(self.vfs.resolve(ME, path).ino, "")
        return found


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    (tmp_path / "state").mkdir()
    drive = Drive(tmp_path / "state")
    yield drive
    drive.vfs.close()
    drive.catalog.close()


@pytest.fixture
def roll(tmp_path: Path) -> Path:
    roll = tmp_path / "roll"
    (roll / "sub/deep").mkdir(parents=True)
    for number, name in enumerate(("1.dng", "sub/2.dng", "sub/deep/3.dng")):
        file = roll / name
        file.write_bytes(os.urandom(number * MIB + number))
        os.utime(file, ns=(0, 1_000_000_007 + number))
        file.chmod(0o640)
    (roll / "sub/link").symlink_to("../1.dng")
    (roll / "sub/broken").symlink_to("nowhere")
    (roll / "empty").mkdir(mode=0o700)
    os.utime(roll / "sub", ns=(0, -5))
    return roll


def local(top: Path) -> dict[str, bytes | str | None]:
    return {
        str(path.relative_to(top)): str(path.readlink())
        if path.is_symlink()
        else None
        if path.is_dir()
        else path.read_bytes()
        for path in top.rglob("*")
    }


def test_bytes_times_modes_and_links(drive: Drive, roll: Path) -> None:
    tally = drive.copy(roll).tally
    assert (tally.copied, tally.skipped, tally.folders, tally.errors) == (5, 0, 4, [])
    assert tally.bytes == 3 * MIB + 3
    assert drive.tree("/Documents/archive/roll") == local(roll)
    for path in (roll, *roll.rglob("*")):
        here, there = path.lstat(), drive.vfs.resolve(ME, f"/Documents/archive/{path.relative_to(roll.parent)}")
        assert there.mode == here.st_mode or path.is_symlink()
        assert there.mtime_ns == here.st_mtime_ns


def test_a_second_run_transfers_nothing(drive: Drive, roll: Path) -> None:
    drive.copy(roll)
    before = drive.catalog.current_seq()
    calls = dict(drive.store.calls)
    tally = drive.copy(roll).tally
    assert (tally.copied, tally.skipped, tally.folders, tally.bytes) == (0, 5, 0, 0)
    assert drive.catalog.current_seq() == before
    assert drive.store.calls == calls


def test_only_what_changed_is_copied_and_keeps_its_inode(drive: Drive, roll: Path) -> None:
    drive.copy(roll)
    ino = drive.vfs.resolve(ME, "/Documents/archive/roll/1.dng").ino
    (roll / "1.dng").write_bytes(b"new")
    (roll / "1.dng").chmod(0o600)
    (roll / "sub/link").unlink()
    (roll / "sub/link").symlink_to("elsewhere")
    (roll / "sub/2.dng").chmod(0o444)
    tally = drive.copy(roll).tally
    assert (tally.copied, tally.skipped) == (2, 3)
    assert drive.tree("/Documents/archive/roll") == local(roll)
    after = drive.vfs.resolve(ME, "/Documents/archive/roll/1.dng")
    assert (after.ino, stat.S_IMODE(after.mode)) == (ino, 0o600)
    assert stat.S_IMODE(drive.vfs.resolve(ME, "/Documents/archive/roll/sub/2.dng").mode) == 0o444


@pytest.mark.parametrize(
    ("sources", "target", "expected"),
    [
        (("roll",), "/Documents/archive", "roll/1.dng"),
        (("roll",), "/Documents/archive/a", "a/roll/1.dng"),
        (("roll/",), "/Documents/archive/a", "a/1.dng"),
        (("roll/.",), "/Documents/archive/a/", "a/1.dng"),
        (("roll/1.dng",), "/Documents/archive/a", "a"),
        (("roll/1.dng",), "/Documents/archive/a/b/c.dng", "a/b/c.dng"),
        (("roll/1.dng",), "/Documents/archive/a/", "a/1.dng"),
        (("roll/1.dng", "roll/sub"), "/Documents/archive/a", "a/sub/2.dng"),
        (("roll/1.dng",), "//Documents//archive/", "1.dng"),
    ],
)
def test_slashes_mean_what_they_mean_to_rsync(
    drive: Drive, roll: Path, sources: tuple[str, ...], target: str, expected: str
) -> None:
    given = [f"{roll.parent}/{source}" for source in sources]
    drive.copy(*given, to=target, dry_run=True)
    assert drive.tree() == {}
    drive.copy(*given, to=target)
    first = drive.tree()
    assert first[expected] in ((roll / "1.dng").read_bytes(), (roll / "sub/2.dng").read_bytes())
    assert drive.copy(*given, to=target).tally.copied == 0  # the same command means the same again
    assert drive.tree() == first


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("/Documents/archive/../x", InvalidName),
        ("/Documents/archive/./x", InvalidName),
        ("/Documents/archive/a\0b", InvalidName),
        ("/Documents/archive/" + "x" * 256, NameTooLong),
        ("/Documents/archive/" + "ü" * 128, NameTooLong),
        ("/Documents/archive/\udcff", NotUtf8),
        ("/Documents/none/a", NotFound),
        ("/Documents", InvalidArgument),
        ("/", InvalidArgument),
        ("Documents/archive", InvalidArgument),
        ("/Thumbnails/archive/a", InvalidArgument),
    ],
)
def test_targets_that_cannot_be(drive: Drive, roll: Path, target: str, error: type[FsError]) -> None:
    with pytest.raises(error):
        drive.copy(roll, to=target)
    assert drive.tree() == {}


def test_a_name_of_255_bytes(drive: Drive, roll: Path) -> None:
    name = "x" * 251 + ".dng"
    drive.copy(roll / "1.dng", to=f"/Documents/archive/{name}")
    assert list(drive.tree()) == [name]


def test_two_sources_of_one_name_are_refused(drive: Drive, roll: Path) -> None:
    (roll / "sub/1.dng").touch()
    with pytest.raises(Exists, match="separately"):
        drive.copy(roll / "1.dng", roll / "sub/1.dng")
    with pytest.raises(NotFound, match="No such file"):
        drive.copy(roll / "none.dng")
    assert drive.tree() == {}


def test_two_spellings_of_one_name(drive: Drive, tmp_path: Path) -> None:
    """NFC and NFD are one name in the drive; a Linux folder may have both."""
    folder = tmp_path / "f"
    folder.mkdir()
    for form in ("NFC", "NFD"):
        (folder / unicodedata.normalize(form, "Äpfel.dng")).write_text(form)
    tally = drive.copy(f"{folder}/").tally
    assert (tally.copied, len(tally.errors)) == (1, 1)
    assert "spelling" in tally.errors[0][1]


def test_names_that_are_not_utf8_are_told_and_the_rest_is_copied(drive: Drive, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.dng")).touch()
    (folder / "good.dng").touch()
    tally = drive.copy(f"{folder}/").tally
    assert list(drive.tree()) == ["good.dng"]
    assert "UTF-8" in tally.errors[0][1]


def test_special_files_are_told_and_skipped(drive: Drive, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "socket"))
    (folder / "file").write_text("x")
    tally = drive.copy(f"{folder}/").tally
    assert sorted(tally.special) == [f"{folder}/fifo", f"{folder}/socket"]
    assert (tally.copied, tally.errors) == (1, [])
    assert list(drive.tree()) == ["file"]


def test_what_stands_in_the_way_is_never_replaced_by_another_kind(drive: Drive, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "a").mkdir(parents=True)
    (one / "b").write_text("b")
    (one / "c").symlink_to("x")
    (two / "b").mkdir(parents=True)
    (two / "a").write_text("a")
    (two / "c").write_text("c")
    drive.copy(f"{one}/")
    before = drive.tree()
    tally = drive.copy(f"{two}/").tally
    assert sorted(path for path, _ in tally.errors) == [f"{two}/a", f"{two}/b", f"{two}/c"]
    assert drive.tree() == before
    with pytest.raises(NotADirectory):
        drive.copy(one, to="/Documents/archive/b/x")


def test_contents_of_two_folders_meet_as_if_one_after_the_other(drive: Drive, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.dng").write_text(name)
        os.utime(tmp_path / name / "same.dng", ns=(0, len(drive.tree()) + ord(name[0])))
    tally = drive.copy(f"{tmp_path}/one/", f"{tmp_path}/two/").tally
    assert (tally.copied, tally.errors) == (2, [])
    assert drive.tree() == {"same.dng": b"two"}


class Interfere(Listener):
    """Does something when the first bytes of a file are on their way."""

    def __init__(self, what: object) -> None:
        self._what = what
        self._done = threading.Event()
        self.active: set[int] = set()

    def advanced(self, size: int) -> None:
        self.active.add(threading.get_ident())
        if not self._done.is_set():
            self._done.set()
            assert callable(self._what)
            self._what()


@pytest.mark.parametrize("how", ["longer", "shorter", "rewritten"])
def test_a_file_that_changes_while_it_is_read_is_an_error(drive: Drive, tmp_path: Path, how: str) -> None:
    file = tmp_path / "scan.tif"
    file.write_bytes(bytes(3 * MIB))
    drive.copy(file)
    os.utime(file, ns=(0, 1))

    def change() -> None:
        if how == "shorter":
            os.truncate(file, 5)
        else:
            with file.open("ab" if how == "longer" else "r+b") as handle:
                handle.write(b"more")

    tally = drive.copy(file, listener=Interfere(change)).tally
    assert tally.copied == 0
    assert "changed while it was read" in tally.errors[0][1]
    assert drive.tree() == {"scan.tif": bytes(3 * MIB)}  # the old content, whole
    assert drive.vfs.open_uploads() == 0
    assert drive.copy(file).tally.copied == 1  # when nobody writes any more


def test_a_file_that_vanishes_is_an_error(drive: Drive, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02}").write_bytes(bytes(MIB))
    tally = drive.copy(f"{folder}/", listener=Interfere((folder / "19").unlink)).tally
    assert tally.copied == 19
    assert [path for path, _ in tally.errors] == [f"{folder}/19"]


def test_files_are_copied_by_a_bounded_number_of_workers(drive: Drive, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for number in range(200):
        (folder / str(number)).write_bytes(bytes(1000 + number))
    listener = Interfere(lambda: None)
    assert drive.copy(f"{folder}/", listener=listener).tally.copied == 200
    assert 1 <= len(listener.active) <= WORKERS
    assert drive.tree() == local(folder)


def test_one_failed_put_fails_one_file(drive: Drive, roll: Path) -> None:
    drive.store.inject(Fault(Kind.FAIL, "put"))
    tally = drive.copy(f"{roll}/sub/").tally
    assert len(tally.errors) == 1
    assert tally.copied == 3
    assert drive.copy(f"{roll}/sub/").tally.copied == 1
    assert drive.tree() == local(roll / "sub")


def test_a_store_that_is_down_ends_the_import(drive: Drive, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for number in range(100):
        (folder / str(number)).write_bytes(b"x")
    drive.store.inject(Fault(Kind.FAIL, "put", times=1000))
    with pytest.raises(StoreUnavailable):
        drive.copy(f"{folder}/")
    assert drive.store.calls["put"] < FAILURES_MAX + 2 * WORKERS
    assert drive.tree() == {}


def test_a_full_store_ends_the_import_at_once(drive: Drive, roll: Path) -> None:
    drive.store.inject(Fault(Kind.FAIL, "put", times=1000, error=StoreFull("It is full.")))
    with pytest.raises(NoSpace):
        drive.copy(roll)


def test_the_archive_is_not_imported_into_itself(drive: Drive, tmp_path: Path) -> None:
    (tmp_path / "photo.dng").write_text("x")
    tally = drive.copy(tmp_path, to="/Documents/archive/").tally
    assert [(path, "state" in message) for path, message in tally.errors] == [(f"{tmp_path}/state", True)]
    assert f"{tmp_path.name}/photo.dng" in drive.tree()


def test_deeper_than_python_recurs(drive: Drive, tmp_path: Path) -> None:
    """As deep as PATH_MAX lets the walk go; what is deeper is told."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(2100):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    try:
        tally = drive.copy(tmp_path / "d", to="/Documents/archive/", dry_run=True).tally
    finally:
        subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)  # shutil.rmtree, which pytest uses, recurs
    assert tally.folders > 1900
    assert [message for _, message in tally.errors] == ["It cannot be read: File name too long."]


def test_measure_counts_what_will_be_copied(drive: Drive, roll: Path) -> None:
    planned, _ = plan(drive.vfs, ME, [f"{roll}/", roll / "1.dng"], "/Documents/archive/a/", dry_run=True)
    heard: list[tuple[int, int]] = []
    measure(planned, lambda files, size: heard.append((files, size)), threading.Event())
    assert heard[-1] == (4, 3 * MIB + 3)
