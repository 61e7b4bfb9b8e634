"""One drive, used in three ways: the bare core, a real FUSE mount, a real WebDAV client. What a test sees is the same.

Owns: what each way calls things. Used by: the functional tests. Paths are relative to the collection `archive`.
"""

from __future__ import annotations

import enum
import errno
import http.client
import os
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from archivia_fs.errors import FsError
from archivia_fs.types import Caller, Stat
from archivia_fs.vfs.vfs import Vfs

HOME = "/Documents/archive"
ADMIN = Caller("admin", os.getuid(), os.getgid())


class No(enum.Enum):
    """Why something was refused."""

    MISSING = "missing"
    EXISTS = "exists"
    NOT_EMPTY = "not empty"
    FOLDER = "is a folder"
    NAME = "no possible name"
    OTHER = "other"


class Refused(Exception):
    def __init__(self, why: No) -> None:
        super().__init__(why)
        self.why = why


class Drive(Protocol):
    """Every method raises Refused."""

    name: str

    def write(self, path: str, data: bytes) -> None: ...
    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes: ...
    def mkdir(self, path: str) -> None: ...
    def names(self, path: str = "") -> list[str]: ...
    def size(self, path: str) -> int: ...
    def rename(self, old: str, new: str) -> None: ...
    def copy(self, old: str, new: str) -> None: ...
    def remove(self, path: str) -> None:
        """A file or an empty folder."""
        ...


_ERRNOS = {
    errno.ENOENT: No.MISSING,
    errno.EEXIST: No.EXISTS,
    errno.ENOTEMPTY: No.NOT_EMPTY,
    errno.EISDIR: No.FOLDER,
    errno.EINVAL: No.NAME,
    errno.EILSEQ: No.NAME,
    errno.ENAMETOOLONG: No.NAME,
}


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (OSError, FsError) as error:
        raise Refused(_ERRNOS.get(error.errno or 0, No.OTHER)) from error
    except ValueError as error:  # Python itself refuses NUL in a path
        raise Refused(No.NAME) from error


class VfsDrive:
    """The bare core."""

    name = "vfs"

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs

    def _split(self, path: str) -> tuple[Stat, str]:
        at = PurePosixPath(f"{HOME}/{path}")
        return self._vfs.resolve(ADMIN, str(at.parent)), at.name

    def _stat(self, path: str) -> Stat:
        return self._vfs.resolve(ADMIN, f"{HOME}/{path}")

    def write(self, path: str, data: bytes) -> None:
        with _refusals():
            parent, name = self._split(path)
            put = self._vfs.put(ADMIN, parent.ino, name)
            put.write(data)
            put.commit()

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        with _refusals():
            content = self._vfs.snapshot(ADMIN, self._stat(path).ino)
            try:
                return bytes(content.pread(start, (content.size if end is None else end) - start))
            finally:
                content.close()

    def mkdir(self, path: str) -> None:
        with _refusals():
            parent, name = self._split(path)
            self._vfs.mkdir(ADMIN, parent.ino, name, 0o755)

    def names(self, path: str = "") -> list[str]:
        with _refusals():
            return sorted(entry.name for entry in self._vfs.readdir(ADMIN, self._stat(path).ino))

    def size(self, path: str) -> int:
        with _refusals():
            return self._stat(path).size

    def rename(self, old: str, new: str) -> None:
        with _refusals():
            (parent, name), (new_parent, new_name) = self._split(old), self._split(new)
            self._vfs.rename(ADMIN, parent.ino, name, new_parent.ino, new_name)

    def copy(self, old: str, new: str) -> None:
        with _refusals():
            parent, name = self._split(new)
            self._vfs.copy(ADMIN, self._stat(old).ino, parent.ino, name)

    def remove(self, path: str) -> None:
        with _refusals():
            parent, name = self._split(path)
            is_dir = self._vfs.lookup(ADMIN, parent.ino, name).is_dir
            (self._vfs.rmdir if is_dir else self._vfs.unlink)(ADMIN, parent.ino, name)


class MountDrive:
    """System calls on the mount."""

    name = "mount"

    def __init__(self, mount: Path) -> None:
        self.home = Path(f"{mount}{HOME}")

    def write(self, path: str, data: bytes) -> None:
        with _refusals():
            (self.home / path).write_bytes(data)

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        with _refusals(), (self.home / path).open("rb", buffering=0) as file:
            file.seek(start)
            return b"".join(iter(lambda: file.read(1 << 20), b""))[: None if end is None else end - start]

    def mkdir(self, path: str) -> None:
        with _refusals():
            (self.home / path).mkdir()

    def names(self, path: str = "") -> list[str]:
        with _refusals():
            return sorted(entry.name for entry in (self.home / path).iterdir())

    def size(self, path: str) -> int:
        with _refusals():
            return (self.home / path).stat().st_size

    def rename(self, old: str, new: str) -> None:
        with _refusals():
            (self.home / old).rename(self.home / new)

    def copy(self, old: str, new: str) -> None:
        self.write(new, self.read(old))  # a mount knows no other way

    def remove(self, path: str) -> None:
        with _refusals():
            target = self.home / path
            (target.rmdir if target.is_dir() else target.unlink)()


class DavDrive:
    """HTTP."""

    name = "webdav"

    def __init__(self, url: str, password: str) -> None:
        self._connection = http.client.HTTPConnection(url.split("/")[2], timeout=60)
        self._login = {"Authorization": "Basic " + b64encode(f"admin:{password}".encode()).decode()}

    def close(self) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, self.url(path), body, {**self._login, **named})
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def url(self, path: str) -> str:
        """The path of the URL, escaped: for requests and for Destination."""
        return quote(f"{HOME}/{path}", safe="/", errors="surrogateescape")

    def _do(self, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        status, answer = self.ask(method, path, body, **headers)
        if status >= 400:
            raise Refused(self._why(status, method))
        return answer

    def _why(self, status: int, method: str) -> No:
        if status == 400:
            return No.NAME
        if status in (404, 409):
            return No.MISSING
        if status == 405:
            return No.EXISTS if method == "MKCOL" else No.FOLDER
        return No.EXISTS if status == 412 else No.OTHER

    def write(self, path: str, data: bytes) -> None:
        self._do("PUT", path, data)

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        if start == 0 and end is None:
            return self._do("GET", path)
        last = "" if end is None else str(end - 1)
        if end is not None and end <= start:
            return b""
        status, body = self.ask("GET", path, Range=f"bytes={start}-{last}")
        if status == 416:  # there is nothing from there on
            return b""
        assert status == 206, status
        return body

    def mkdir(self, path: str) -> None:
        self._do("MKCOL", path)

    def names(self, path: str = "") -> list[str]:
        answer = self._do("PROPFIND", path, Depth="1")
        hrefs = [unquote(each.text or "") for each in ElementTree.fromstring(answer).iter("{DAV:}href")]
        return sorted(href.rstrip("/").rpartition("/")[2] for href in hrefs[1:])

    def size(self, path: str) -> int:
        answer = self._do("PROPFIND", path, Depth="0")
        found = ElementTree.fromstring(answer).find(".//{DAV:}getcontentlength")
        return 0 if found is None else int(found.text or 0)

    def rename(self, old: str, new: str) -> None:
        self._do("MOVE", old, Destination=self.url(new))

    def copy(self, old: str, new: str) -> None:
        self._do("COPY", old, Destination=self.url(new), Overwrite="F")

    def remove(self, path: str) -> None:
        if self.names_or_none(path):
            raise Refused(No.NOT_EMPTY)  # DELETE of a folder takes all that is in it; this drive is careful
        self._do("DELETE", path)

    def names_or_none(self, path: str) -> list[str]:
        try:
            return self.names(path)
        except Refused:
            return []


def refused(act: Callable[[], object]) -> No | None:
    """Why it was refused; None if it was not."""
    try:
        act()
    except Refused as error:
        return error.why
    return None
