"""A running WebDAV server over the toy drive, and a client that shows every byte of HTTP."""

from __future__ import annotations

import base64
import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element, fromstring

import pytest

from archivia_fs.content import BytesContent, Content
from archivia_fs.errors import NotFound
from archivia_fs.store.base import ObjectStore
from archivia_fs.types import Caller
from archivia_fs.vfs.passwords import hash_password
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from archivia_fs.vfs.view import Archive, View, ViewNode
from catalog.catalog import Catalog
from tests.webdav.toy import USERS, ToyVfs
from webdav.server import WebDavOptions, WebDavServer

ALICE = Caller("alice", 0, 0)
BOX = "/Documents/archive/"  # a collection of alice's on the real drive


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def xml(self) -> Element:
        return fromstring(self.body)

    def prop(self, clark: str) -> Element | None:
        """A property with status 200 of the first response."""
        for propstat in self.xml.iter("{DAV:}propstat"):
            if "200" in (propstat.findtext("{DAV:}status") or ""):
                return propstat.find(f"{{DAV:}}prop/{clark}")
        return None

    def hrefs(self) -> list[str]:
        return [element.findtext("{DAV:}href") or "" for element in self.xml.iter("{DAV:}response")]


class Client:
    """One kept-alive connection of one user."""

    def __init__(self, url: str, user: str = "alice") -> None:
        self.url = url
        self.user = user
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Header names are written as keywords: If_Match becomes If-Match."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body=body, headers=basic(self.user) | names)  # type: ignore[arg-type]
        response = self.connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    def put(self, path: str, data: bytes = b"x", **headers: str) -> Answer:
        answer = self("PUT", path, data, **headers)
        assert answer.status in (201, 204), answer
        return answer


def basic(user: str = "alice", password: str | None = None) -> dict[str, str]:
    text = f"{user}:{USERS[user] if password is None else password}"
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


class SlowView:
    """`/Slow` with one file; to look at it waits for `open_gate`, as for a preview that has to be made."""

    name = "Slow"

    def __init__(self) -> None:
        self.open_gate = threading.Event()
        self.open_gate.set()
        self._file = ViewNode("a", "a.jpg", directory=False, mtime_ns=0, size=4, etag="e")

    def root(self) -> ViewNode:
        return ViewNode("", self.name, directory=True, mtime_ns=0)

    def entries(self, archive: Archive, caller: Caller, node: ViewNode) -> Sequence[ViewNode]:
        return [self._file]

    def lookup(self, archive: Archive, caller: Caller, node: ViewNode, name: str) -> ViewNode:
        if name != self._file.name:
            raise NotFound(f"There is no {name!r}.")
        assert self.open_gate.wait(30)
        return self._file

    def open(self, archive: Archive, caller: Caller, node: ViewNode) -> Content:
        return BytesContent(b"jpeg", "e")


@contextlib.contextmanager
def real_drive(home: Path, store: ObjectStore, *views: View) -> Iterator[Vfs]:
    """The core itself, with alice as admin, bob, and BOX."""
    catalog = Catalog.open(f"sqlite:///{home}/catalog.db")
    for user, password in USERS.items():
        catalog.add_user(user, hash_password(password), admin=user == "alice")
    vfs = Vfs(catalog, store, VfsOptions(home / "spill", memory=64 * 1024**2), views)
    vfs.mkdir(ALICE, vfs.resolve(ALICE, "/Documents").ino, "archive", 0o755)
    yield vfs
    vfs.close()
    catalog.close()


@pytest.fixture
def vfs() -> ToyVfs:
    return ToyVfs()


@pytest.fixture
def server(vfs: ToyVfs) -> Iterator[WebDavServer]:
    server = WebDavServer(vfs, WebDavOptions(port=0, threads=4))  # type: ignore[arg-type]
    server.start()
    yield server
    server.stop(5)


@pytest.fixture
def connect(server: WebDavServer) -> Iterator[Callable[[str], Client]]:
    clients: list[Client] = []

    def make(user: str = "alice") -> Client:
        clients.append(Client(server.url, user))
        return clients[-1]

    yield make
    for client in clients:
        client.connection.close()


@pytest.fixture
def dav(connect: Callable[[str], Client]) -> Client:
    return connect("alice")
