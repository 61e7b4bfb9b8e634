"""WebDAV's locks and the locks of programs on the mount bind each other. The programs are processes of their own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.functional.conftest import House
from tests.functional.drives import DavDrive, No, refused

LOCK = b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>'
HOLDERS = {  # each says so, and holds until its standard input ends
    "flock": "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_SH)",
    "fcntl": "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX, 100, 50)",
    "writing": "import sys; f = open(sys.argv[1], 'r+b', buffering=0); f.write(b'half')",
}


@pytest.fixture
def dav(house: House) -> DavDrive:
    drive = house.drives["webdav"]
    assert isinstance(drive, DavDrive)
    return drive


@pytest.fixture
def folder(house: House, roll: str) -> Path:
    return house.mount / "Documents" / "archive" / roll


@contextmanager
def program(does: str, file: Path) -> Iterator[None]:
    command = [sys.executable, "-c", f"{HOLDERS[does]}; print('held', flush=True); sys.stdin.read()", str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield
        finally:
            holder.communicate(timeout=20)


def lock(dav: DavDrive, path: str, depth: str = "0") -> tuple[int, str]:
    """The status, and the token of the new lock."""
    status, body = dav.ask("LOCK", path, LOCK, Depth=depth, Timeout="Second-600")
    if status >= 300:
        return status, ""
    token = ElementTree.fromstring(body).findtext(".//{DAV:}locktoken/{DAV:}href")
    assert token
    return status, token


def unlock(dav: DavDrive, path: str, token: str) -> None:
    assert dav.ask("UNLOCK", path, Lock_Token=f"<{token}>")[0] == 204


def busy(call: str, *arguments: object) -> bool:
    """Whether os.<call> is refused with EBUSY; True or False, any other error is raised."""
    try:
        result = getattr(os, call)(*arguments)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return True
    if call == "open":
        os.close(result)
    return False


def test_programs_may_only_read(house: House, dav: DavDrive, roll: str, folder: Path) -> None:
    """[K1] What a WebDAV client has locked, programs on a mount may read; to write, rename or remove it is EBUSY, and so is
    `import` into it."""
    dav.write(roll + "a.dng", b"kept")
    dav.write(roll + "b.dng", b"other")
    file, other = folder / "a.dng", folder / "b.dng"
    already_open = os.open(file, os.O_RDWR)
    _, token = lock(dav, roll + "a.dng")
    assert file.read_bytes() == b"kept"
    for call, *arguments in (
        ("open", file, os.O_WRONLY), ("open", file, os.O_RDWR | os.O_TRUNC), ("truncate", file, 1), ("chmod", file, 0o600),
        ("utime", file), ("unlink", file), ("rename", file, folder / "c.dng"), ("rename", other, file),
        ("write", already_open, b"x"), ("ftruncate", already_open, 1), ("rename", folder, folder.with_name("moved")),
        ("link", file, folder / "c.dng"),
    ):  # fmt: skip
        assert busy(call, *arguments), call
    assert not busy("rename", other, folder / "d.dng")  # what is not locked is free
    assert refused(lambda: house.drives["vfs"].write(roll + "a.dng", b"imported")) is No.OTHER
    assert (file.read_bytes(), sorted(each.name for each in folder.iterdir())) == (b"kept", ["a.dng", "d.dng"])
    assert dav.ask("PUT", roll + "a.dng", b"by its owner", If=f"(<{token}>)")[0] == 204
    unlock(dav, roll + "a.dng", token)
    assert os.pwrite(already_open, b"BY", 0) == 2
    os.close(already_open)
    assert file.read_bytes() == b"BY its owner"


def test_a_locked_folder(dav: DavDrive, roll: str, folder: Path) -> None:
    dav.write(roll + "a.dng", b"kept")
    dav.mkdir(roll + "sub")
    _, shallow = lock(dav, roll + "sub")
    assert busy("mkdir", folder / "sub" / "new")
    assert not busy("truncate", folder / "a.dng", 2)
    unlock(dav, roll + "sub", shallow)
    _, deep = lock(dav, roll, "infinity")
    assert busy("mkdir", folder / "sub" / "new")
    assert busy("truncate", folder / "a.dng", 1)
    assert busy("open", folder / "new.dng", os.O_CREAT | os.O_WRONLY)
    unlock(dav, roll, deep)
    assert not busy("mkdir", folder / "sub" / "new")


@pytest.mark.parametrize("does", ["flock", "fcntl"])
def test_webdav_waits_for_programs(dav: DavDrive, roll: str, folder: Path, does: str) -> None:
    """[K2] What a program on the gateway's mount has locked with flock(2) or fcntl(2), WebDAV clients may read; to change, rename,
    remove or lock it is 423."""
    path, other = roll + "a.dng", roll + "b.dng"
    dav.write(path, b"kept")
    dav.write(other, b"free")
    with program(does, folder / "a.dng"):
        assert dav.read(path) == b"kept"
        assert dav.ask("PUT", path, b"new")[0] == 423
        assert dav.ask("DELETE", path)[0] == 423
        assert dav.ask("DELETE", roll)[0] == 423
        assert dav.ask("MOVE", path, Destination=dav.url(roll + "c.dng"))[0] == 423
        assert dav.ask("MOVE", other, Destination=dav.url(path))[0] == 423
        assert lock(dav, path)[0] == 423
        assert lock(dav, roll, "infinity")[0] == 423
        assert dav.ask("PUT", other, b"still free")[0] == 204
    assert dav.read(path) == b"kept"
    assert dav.ask("PUT", path, b"new")[0] == 204
    status, token = lock(dav, path)
    assert status == 200
    unlock(dav, path, token)


def test_what_is_being_written(dav: DavDrive, roll: str, folder: Path) -> None:
    """[K3] What a program on the gateway's mount is writing, WebDAV clients cannot lock: 423."""
    path = roll + "a.dng"
    dav.write(path, b"whole")
    with program("writing", folder / "a.dng"):
        assert lock(dav, path)[0] == 423
        assert dav.ask("PROPFIND", path, Depth="0")[1].count(b"activelock") == 0  # the refused lock is not left behind
    assert dav.read(path) == b"halfe"
    status, token = lock(dav, path)
    assert status == 200
    unlock(dav, path, token)
