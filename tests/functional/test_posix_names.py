"""Names and what they stand for, as POSIX has it: on the mount as on a local filesystem."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.functional.posix import EXCHANGE, NOREPLACE, as_root, as_user, names, refusal, renameat2


def test_links_are_counted(top: Path) -> None:
    (top / "a").write_bytes(b"1")
    (top / "sub").mkdir()
    os.link(top / "a", top / "sub" / "b")
    assert ((top / "a").stat().st_nlink, (top / "sub" / "b").stat().st_ino) == (2, (top / "a").stat().st_ino)
    (top / "sub" / "b").write_bytes(b"22")
    assert (top / "a").read_bytes() == b"22"
    before = (top / "a").stat().st_ctime_ns
    (top / "sub" / "b").unlink()
    after = (top / "a").stat()
    assert (after.st_nlink, after.st_size) == (1, 2)
    assert after.st_ctime_ns > before
    assert top.stat().st_nlink == 3
    (top / "sub" / "deeper").mkdir()
    assert (top.stat().st_nlink, (top / "sub").stat().st_nlink) == (3, 3)
    (top / "sub" / "deeper").rename(top / "deeper")
    assert (top.stat().st_nlink, (top / "sub").stat().st_nlink) == (4, 2)
    assert refusal(os.link, top / "sub", top / "second") == "EPERM"
    assert refusal(os.link, top / "none", top / "second") == "ENOENT"
    assert refusal(os.link, top / "a", top / "sub") == "EEXIST"


def test_a_link_to_a_symbolic_link(top: Path) -> None:
    (top / "soft").symlink_to("nowhere")
    os.link(top / "soft", top / "again", follow_symlinks=False)
    assert (top / "again").readlink() == Path("nowhere")
    assert (top / "soft").lstat().st_nlink == 2


def test_renames_that_change_nothing(top: Path) -> None:
    (top / "a").write_bytes(b"a")
    os.link(top / "a", top / "b")
    (top / "a").rename(top / "a")
    (top / "a").rename(top / "b")  # both are one file: rename(2) does nothing and succeeds
    assert names(top) == ["a", "b"]
    assert (top / "a").stat().st_nlink == 2


def test_renames_over_what_is_there(top: Path) -> None:
    for name in ("file", "other"):
        (top / name).write_bytes(name.encode())
    for name in ("folder", "empty", "full"):
        (top / name).mkdir()
    (top / "full" / "inside").touch()
    assert refusal(os.rename, top / "folder", top / "full") in ("ENOTEMPTY", "EEXIST")
    assert refusal(os.rename, top / "file", top / "empty") == "EISDIR"
    assert refusal(os.rename, top / "folder", top / "file") == "ENOTDIR"
    assert refusal(os.rename, top / "none", top / "file") == "ENOENT"
    assert refusal(os.rename, top / "file", top / "none" / "x") == "ENOENT"
    assert refusal(os.rename, top / "file", top / "other" / "x") == "ENOTDIR"
    assert refusal(os.rename, top / "full", top / "full" / "itself") == "EINVAL"
    assert refusal(os.rename, top / "full" / "inside", top / "full") in ("ENOTEMPTY", "EISDIR")
    (top / "full").rename(top / "empty")
    (top / "file").rename(top / "other")
    assert names(top) == ["empty", "folder", "other"]
    assert (names(top / "empty"), (top / "other").read_bytes()) == (["inside"], b"file")


def test_a_folder_does_not_go_below_itself(top: Path) -> None:
    (top / "a" / "b" / "c").mkdir(parents=True)
    assert refusal(os.rename, top / "a", top / "a" / "b" / "c" / "d") == "EINVAL"
    assert refusal(os.rename, top / "a" / "b" / "c", top / "a") == "ENOTEMPTY"
    (top / "a" / "b").rename(top / "b")
    (top / "a").rename(top / "b" / "c" / "a")
    assert (top / "b" / "c" / "a").is_dir()


def test_rename_without_replacing_and_exchanging(top: Path) -> None:
    (top / "file").write_bytes(b"file")
    (top / "folder" / "sub").mkdir(parents=True)
    assert refusal(renameat2, top / "file", top / "folder", NOREPLACE) == "EEXIST"
    assert refusal(renameat2, top / "file", top / "new", NOREPLACE) is None
    assert refusal(renameat2, top / "new", top / "none", EXCHANGE) == "ENOENT"
    assert refusal(renameat2, top / "new", top / "folder", EXCHANGE) is None
    assert (top / "folder").read_bytes() == b"file"
    assert names(top / "new") == ["sub"]
    assert refusal(renameat2, top / "new", top / "new" / "sub", EXCHANGE) == "EINVAL"
    (top / "other").mkdir()
    renameat2(top / "new" / "sub", top / "folder", EXCHANGE)
    assert ((top / "new").stat().st_nlink, top.stat().st_nlink) == (2, 5)
    assert (top / "new" / "sub").read_bytes() == b"file"
    assert refusal(renameat2, top / "new", top / "other", NOREPLACE | EXCHANGE) == "EINVAL"


def test_unlinked_while_open(top: Path) -> None:
    (top / "a").write_bytes(b"old")
    file = os.open(top / "a", os.O_RDWR)
    (top / "a").unlink()
    assert os.fstat(file).st_nlink == 0
    assert os.pread(file, 10, 0) == b"old"
    os.pwrite(file, b"new and longer", 0)
    os.ftruncate(file, 7)
    os.fchmod(file, 0o600)
    assert (os.pread(file, 100, 0), os.fstat(file).st_size) == (b"new and", 7)
    assert names(top) == []
    (top / "a").write_bytes(b"another")
    assert os.pread(file, 100, 0) == b"new and"
    os.close(file)
    assert (top / "a").read_bytes() == b"another"


def test_renamed_and_replaced_while_open(top: Path) -> None:
    (top / "a").write_bytes(b"a")
    (top / "b").write_bytes(b"b")
    first, second = os.open(top / "a", os.O_RDWR), os.open(top / "b", os.O_RDWR)
    (top / "a").rename(top / "b")
    os.pwrite(first, b"A", 0)
    assert (os.fstat(first).st_nlink, os.fstat(second).st_nlink) == (1, 0)
    assert (os.pread(second, 10, 0), os.pread(first, 10, 0)) == (b"b", b"A")
    os.close(first)
    os.close(second)
    assert (top / "b").read_bytes() == b"A"


def test_a_folder_that_goes_while_it_is_open(top: Path) -> None:
    (top / "sub").mkdir()
    folder = os.open(top / "sub", os.O_RDONLY | os.O_DIRECTORY)
    (top / "sub").rmdir()
    assert names(folder) == []
    assert refusal(os.open, "new", os.O_CREAT | os.O_WRONLY, dir_fd=folder) == "ENOENT"
    assert refusal(os.mkdir, "new", dir_fd=folder) == "ENOENT"
    os.close(folder)


def test_removing_the_wrong_thing(top: Path) -> None:
    (top / "full" / "inside").mkdir(parents=True)
    (top / "file").touch()
    assert refusal(os.rmdir, top / "full") == "ENOTEMPTY"
    assert refusal(os.rmdir, top / "file") == "ENOTDIR"
    assert refusal(os.unlink, top / "full") == "EISDIR"
    assert refusal(os.rmdir, str(top / "full" / "inside") + "/.") == "EINVAL"
    assert refusal(os.rmdir, str(top / "full" / "inside") + "/..") == "ENOTEMPTY"
    assert refusal(os.unlink, top / "none") == "ENOENT"
    assert refusal(os.unlink, top / "file" / "x") == "ENOTDIR"


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.touch(), lambda path: os.mkfifo(path)])
def test_names_that_are_too_long(top: Path, make: object) -> None:
    assert callable(make)
    longest = "n" * 255
    assert refusal(make, top / longest) is None
    assert refusal(make, top / (longest + "n")) == "ENAMETOOLONG"
    assert refusal(os.stat, top / (longest + "n")) == "ENAMETOOLONG"
    assert refusal(os.rename, top / longest, top / (longest + "n")) == "ENAMETOOLONG"
    assert refusal(os.symlink, "x", top / (longest + "n")) == "ENAMETOOLONG"
    assert names(top) == [longest]


def test_paths_that_are_too_long(top: Path) -> None:
    start = str(top)
    path = start + "/x" * ((4095 - len(start)) // 2)
    assert refusal(os.stat, path) == "ENOENT"
    assert refusal(os.stat, path + "/x" * 2) == "ENAMETOOLONG"
    assert refusal(os.symlink, "t" * 4095, top / "longest") is None
    assert len(str((top / "longest").readlink())) == (top / "longest").lstat().st_size == 4095
    assert refusal(os.symlink, "t" * 4096, top / "longer") == "ENAMETOOLONG"


def test_symbolic_links_that_lead_nowhere(top: Path) -> None:
    (top / "a").symlink_to("b")
    (top / "b").symlink_to("a")
    (top / "itself").symlink_to("itself/x")
    for call in (os.stat, names, os.chmod):
        options = {"mode": 0o600} if call is os.chmod else {}
        assert refusal(call, top / "a", **options) == "ELOOP"
    assert refusal(os.open, top / "a" / "x", os.O_RDONLY) == "ELOOP"
    assert refusal(os.open, top / "itself", os.O_RDONLY) == "ELOOP"
    assert refusal(os.mkdir, top / "a" / "x") == "ELOOP"
    (top / "right").symlink_to("there")
    (top / "there").touch()
    assert refusal(os.open, top / "right", os.O_RDONLY | os.O_NOFOLLOW) == "ELOOP"
    assert refusal(os.open, top / "right", os.O_CREAT | os.O_EXCL | os.O_WRONLY) == "EEXIST"
    (top / "there").unlink()
    assert refusal(os.stat, top / "right") == "ENOENT"
    (top / "right").write_bytes(b"made through the link")
    assert (top / "there").read_bytes() == b"made through the link"


SPEAKS = """
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.sendall(b"hello")
print(server.accept()[0].recv(5))
"""


def test_sockets(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(top)  # a socket's path has 108 bytes
    done = subprocess.run([sys.executable, "-c", SPEAKS, "s"], capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout == "b'hello'\n", done.stderr
    assert stat.S_ISSOCK(Path("s").stat().st_mode)
    with socket.socket(socket.AF_UNIX) as client:
        assert refusal(client.connect, "s") == "ECONNREFUSED"
    assert refusal(os.open, "s", os.O_RDONLY) == "ENXIO"
    Path("s").unlink()
    monkeypatch.chdir("/")


def test_fifos(top: Path) -> None:
    os.mkfifo(top / "pipe", 0o640)
    assert stat.filemode((top / "pipe").stat().st_mode) == "prw-r-----"
    assert refusal(os.open, top / "pipe", os.O_WRONLY | os.O_NONBLOCK) == "ENXIO"
    with subprocess.Popen(["sh", "-c", f"echo through > '{top}/pipe'"]):
        assert (top / "pipe").read_bytes() == b"through\n"
    assert refusal(os.mkfifo, top / "pipe") == "EEXIST"
    (top / "pipe").rename(top / "moved")
    (top / "moved").unlink()


@as_root
def test_devices(top: Path) -> None:
    for kind in (stat.S_IFBLK, stat.S_IFCHR):
        os.mknod(top / "device", kind | 0o600, os.makedev(7, 300))
        found = (top / "device").stat()
        assert (stat.S_IFMT(found.st_mode), os.major(found.st_rdev), os.minor(found.st_rdev)) == (kind, 7, 300)
        (top / "device").unlink()
    assert as_user(65534, lambda: refusal(os.mknod, top / "device", stat.S_IFCHR | 0o600, os.makedev(7, 1))) == "EPERM"


def test_one_of_many_makes_it(top: Path) -> None:
    """O_EXCL is how programs lock."""

    def make(number: int) -> bool:
        try:
            os.close(os.open(top / f"lock-{number % 20}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(make, range(160))) == 20
    assert refusal(os.open, top / "lock-0", os.O_CREAT | os.O_EXCL | os.O_WRONLY) == "EEXIST"
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda number: refusal(os.mkdir, top / f"d{number % 5}"), range(40)))
    assert (made.count(None), made.count("EEXIST")) == (5, 35)


def test_opening_the_wrong_thing(top: Path) -> None:
    (top / "sub").mkdir()
    (top / "file").touch()
    assert refusal(os.open, top / "sub", os.O_WRONLY) == "EISDIR"
    assert refusal(os.open, top / "sub", os.O_RDWR | os.O_CREAT) == "EISDIR"
    assert refusal(os.open, top / "file", os.O_RDONLY | os.O_DIRECTORY) == "ENOTDIR"
    assert refusal(os.open, str(top / "file") + "/", os.O_RDONLY) == "ENOTDIR"
    assert refusal(os.open, top / "none", os.O_RDWR) == "ENOENT"
    assert refusal(os.open, top / "none" / "x", os.O_RDWR | os.O_CREAT) == "ENOENT"
    assert refusal(os.truncate, top / "sub", 0) == "EISDIR"
    assert refusal(os.truncate, top / "file", -1) == "EINVAL"
    assert refusal(os.readlink, top / "file") == "EINVAL"
