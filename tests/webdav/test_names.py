"""MKCOL, DELETE, COPY, MOVE, PROPFIND of trees, OPTIONS, and names that make trouble."""

from __future__ import annotations

import stat
import unicodedata
from urllib.parse import quote

import pytest

from archivia_fs import errors
from archivia_fs.types import ROOT_INODE, Caller
from tests.webdav.conftest import Client
from tests.webdav.toy import ToyVfs

ME = Caller("alice", 0, 0)
LOCK = b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>'
TITLE = (
    b'<D:propertyupdate xmlns:D="DAV:" xmlns:dc="http://purl.org/dc/elements/1.1/"><D:set><D:prop>'
    b"<dc:title>x</dc:title></D:prop></D:set></D:propertyupdate>"
)


def test_mkcol(dav: Client) -> None:
    assert dav("MKCOL", "/Documents/a").status == 201
    assert dav("MKCOL", "/Documents/a/").status == 405
    assert dav("MKCOL", "/Documents/no/b").status == 409
    assert dav("MKCOL", "/Documents/b", b"<x/>").status == 415
    assert dav("MKCOL", "/Documents/b", iter([b"<x/>"])).status == 415
    assert dav("MKCOL", "/b").status == 403
    dav.put("/Documents/file")
    assert dav("MKCOL", "/Documents/file/b").status == 409


def test_delete(dav: Client) -> None:
    dav("MKCOL", "/Documents/a")
    dav.put("/Documents/a/f")
    assert dav("DELETE", "/Documents/a", Depth="0").status == 400
    assert dav("DELETE", "/Documents/a").status == 204
    assert dav("DELETE", "/Documents/a").status == 404
    assert dav("GET", "/Documents/a/f").status == 404


def tree(dav: Client) -> None:
    dav("MKCOL", "/Documents/a")
    dav("MKCOL", "/Documents/a/sub")
    dav.put("/Documents/a/sub/f", b"data")


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_tree(dav: Client, method: str) -> None:
    tree(dav)
    assert dav(method, "/Documents/a/", Destination=dav.url + "Documents/b").status == 201
    assert dav("GET", "/Documents/b/sub/f").body == b"data"
    assert (dav("GET", "/Documents/a/sub/f").status == 200) == (method == "COPY")


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
@pytest.mark.parametrize("source", ["file", "folder"])
@pytest.mark.parametrize("target", ["file", "folder"])
def test_over_what_is_there(dav: Client, vfs: ToyVfs, method: str, source: str, target: str) -> None:
    for name, kind in (("s", source), ("t", target)):
        if kind == "folder":
            dav("MKCOL", f"/Documents/{name}")
        dav.put(f"/Documents/{name}" + ("/in-" + name if kind == "folder" else ""), name.encode())
    before = [entry.name for entry in vfs.readdir(ME, vfs.resolve(ME, "/Documents").ino)]
    assert dav(method, "/Documents/s", Destination="/Documents/t", Overwrite="F").status == 412
    assert dav(method, "/Documents/s", Destination="/Documents/t").status == 204
    if source == "folder":
        assert dav("GET", "/Documents/t/in-s").body == b"s"
        assert dav("GET", "/Documents/t/in-t").status == 404
    else:
        assert dav("GET", "/Documents/t").body == b"s"
    after = [entry.name for entry in vfs.readdir(ME, vfs.resolve(ME, "/Documents").ino)]
    assert after == (before if method == "COPY" else [name for name in before if name != "s"])


@pytest.mark.parametrize(("method", "call"), [("COPY", "copy"), ("MOVE", "move_over")])
def test_replacing_is_one_call_of_the_core_or_nothing(
    dav: Client, vfs: ToyVfs, method: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("s", "t"):
        dav("MKCOL", f"/Documents/{name}")
        dav.put(f"/Documents/{name}/{name}", name.encode())

    def busy(*_: object, **__: object) -> None:
        raise errors.CatalogBusy("Another process has the catalog; try again.")

    monkeypatch.setattr(vfs, call, busy)
    answer = dav(method, "/Documents/s", Destination="/Documents/t")
    assert (answer.status, answer.body) == (503, b"Another process has the catalog; try again.\n")
    for name in ("s", "t"):
        assert dav("GET", f"/Documents/{name}/{name}").body == name.encode()
    assert len(vfs.readdir(ME, vfs.resolve(ME, "/Documents").ino)) == 2


def test_copy_depth_0(dav: Client) -> None:
    tree(dav)
    assert dav("COPY", "/Documents/a", Destination="/Documents/b", Depth="0").status == 201
    assert len(dav("PROPFIND", "/Documents/b", Depth="1").hrefs()) == 1
    assert dav("COPY", "/Documents/a", Destination="/Documents/c", Depth="1").status == 400


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_refused_destinations(dav: Client, method: str) -> None:
    tree(dav)
    for destination, status in {
        "/Documents/a": 403,
        "/Documents/a/sub/b": 403,
        "/Documents/no/b": 409,
        "http://elsewhere.example/Documents/b": 502,
        "rubbish": 400,
        "/Documents/x%00y": 400,
        "/Documents/%2e%2e/b": 400,
        "/": 405,
    }.items():
        assert dav(method, "/Documents/a", Destination=destination).status == status, destination
    assert dav(method, "/Documents/a").status == 400
    assert dav(method, "/Documents/a/sub", Destination="/Documents/a").status == 403  # would delete itself first
    assert dav(method, "/Documents/no", Destination="/Documents/b").status == 404
    assert dav("GET", "/Documents/a/sub/f").body == b"data"


NAMES = [
    "ü ß",
    "100%",
    "a#b",
    "what?",
    "a+b",
    "a&b=c;d",
    "x%2Fy",
    "[1](2)'\"<>",
    "日本",
    "🦉",
    "a:b@c",
    "tab\there",
    "…" * 85,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_round_trip(dav: Client, name: str) -> None:
    path = "/Documents/" + quote(name, safe="")
    dav.put(path, b"data")
    hrefs = dav("PROPFIND", "/Documents/", Depth="1").hrefs()
    assert len(hrefs) == 2
    assert dav("GET", hrefs[1]).body == b"data"
    assert dav("PROPFIND", path, Depth="0").prop("{DAV:}displayname").text == name  # type: ignore[union-attr]
    assert dav("MOVE", path, Destination=dav.url + "Documents/plain").status == 201
    assert dav("MOVE", "/Documents/plain", Destination=dav.url.rstrip("/") + path).status == 201
    assert dav("DELETE", path).status == 204


def test_finder_and_linux_spell_one_file(dav: Client) -> None:
    nfc, nfd = (quote(unicodedata.normalize(form, "/Documents/Zürich")) for form in ("NFC", "NFD"))
    assert nfc != nfd
    dav.put(nfc, b"data")
    assert dav("GET", nfd).body == b"data"
    assert dav("PUT", nfd, b"more").status == 204
    assert dav("GET", nfc).body == b"more"


@pytest.mark.parametrize(
    "path", ["/Documents/a%00b", "/Documents/%ff", "/Documents/../x", "/%2e%2e/x", "/Documents/a%2Fb"]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "MKCOL", "PROPFIND", "DELETE", "LOCK"])
def test_names_that_cannot_be(dav: Client, method: str, path: str) -> None:
    answer = dav(method, path)
    assert answer.status == 400
    assert answer.body


def test_name_of_256_bytes(dav: Client) -> None:
    answer = dav("PUT", "/Documents/" + "x" * 256, b"x")
    assert answer.status == 400
    assert b"255 bytes" in answer.body
    assert dav("PUT", "/Documents/" + "x" * 255, b"x").status == 201


def test_links_and_special_files(dav: Client, vfs: ToyVfs) -> None:
    """A relative link to a file is that file; everything else that is no file or folder is hidden, and safe."""
    folder = vfs.resolve(ME, "/Documents").ino
    dav.put("/Documents/file", b"data")
    dav("MKCOL", "/Documents/dir")
    for name, target in {
        "good": "file",
        "dangling": "no",
        "absolute": "/etc/passwd",
        "up": "../..",
        "loop": "dir",
    }.items():
        vfs.symlink(ME, folder, name, target)
    vfs.symlink(ME, vfs.resolve(ME, "/Documents/dir").ino, "above", "../file")
    vfs.mknod(ME, folder, "fifo", stat.S_IFIFO | 0o600, 0)
    assert [href.rsplit("/", 1)[1] for href in dav("PROPFIND", "/Documents/", Depth="1").hrefs()] == [
        "",
        "",
        "file",
        "good",
    ]
    assert dav("GET", "/Documents/good").body == b"data"
    assert dav("GET", "/Documents/dir/above").body == b"data"
    for name in ("dangling", "absolute", "up", "loop", "fifo"):
        assert dav("GET", f"/Documents/{name}").status == 404
        assert dav("PUT", f"/Documents/{name}", b"x").status == 405
        assert dav("MKCOL", f"/Documents/{name}").status == 405
        assert dav("COPY", "/Documents/file", Destination=f"/Documents/{name}").status == 405
    assert dav("DELETE", "/Documents/good").status == 204
    assert dav("GET", "/Documents/file").body == b"data"


def test_a_link_is_written_through(dav: Client, vfs: ToyVfs) -> None:
    dav("MKCOL", "/Documents/dir")
    dav.put("/Documents/dir/file", b"data")
    link = "/Documents/link"
    vfs.symlink(ME, vfs.resolve(ME, "/Documents").ino, "link", "dir/file")
    answer = dav("PUT", link, b"more")
    assert answer.status == 204
    got = dav("GET", "/Documents/dir/file")
    assert (got.body, got.headers["ETag"]) == (b"more", answer.headers["ETag"])
    assert vfs.resolve(ME, link).is_symlink
    assert dav("PUT", link, b"x", If_Match='"other"').status == 412
    # the locks of both names count
    for locked in (link, "/Documents/dir/file"):
        token = dav("LOCK", locked, LOCK).headers["Lock-Token"]
        assert dav("PUT", link, b"x").status == 423
        assert dav("PROPPATCH", link, TITLE).status == 423
        assert dav("PUT", link, b"y", If=f"<{locked}> ({token})").status == 204
        assert dav("UNLOCK", locked, Lock_Token=token).status == 204
    assert dav("PROPPATCH", link, TITLE).status == 207
    assert vfs.properties(vfs.resolve(ME, "/Documents/dir/file").ino) == {"user.dc.title": b"x"}


def test_a_link_into_a_view_is_hidden(dav: Client, vfs: ToyVfs) -> None:
    """A preview would have to be made to list the folder."""
    vfs._add(ROOT_INODE, "Thumbnails", stat.S_IFDIR | 0o755)
    vfs._add(vfs.resolve(ME, "/Thumbnails").ino, "a.jpg", stat.S_IFREG | 0o644)
    vfs.symlink(ME, vfs.resolve(ME, "/Documents").ino, "preview", "../Thumbnails/a.jpg")
    assert len(dav("PROPFIND", "/Documents", Depth="1").hrefs()) == 1
    assert dav("GET", "/Documents/preview").status == 404


def test_propfind_of_a_large_folder(dav: Client, vfs: ToyVfs) -> None:
    folder = vfs.resolve(ME, "/Documents").ino
    for number in range(3000):
        vfs.mknod(ME, folder, f"page-{number:05}.dng", stat.S_IFREG | 0o644, 0)
    answer = dav("PROPFIND", "/Documents", Depth="1")
    assert len(answer.hrefs()) == 3001
    assert answer.headers["Transfer-Encoding"] == "chunked"


def test_whole_trees_are_refused(dav: Client) -> None:
    for depth in ({"Depth": "infinity"}, {}):
        answer = dav("PROPFIND", "/", **depth)
        assert answer.status == 403
        assert answer.xml.find("{DAV:}propfind-finite-depth") is not None
    assert dav("PROPFIND", "/", Depth="2").status == 400


def test_options(dav: Client) -> None:
    for path in ("/", "/Documents/", "*"):
        answer = dav("OPTIONS", path)
        assert answer.status == 200
        assert answer.headers["DAV"] == "1,2"
        assert answer.headers["MS-Author-Via"] == "DAV"
    assert "PROPFIND" in dav("OPTIONS", "/Documents/").headers["Allow"]
    answer = dav("PATCH", "/Documents/")
    assert answer.status == 405
    assert "PROPFIND" in answer.headers["Allow"]
    assert dav("POST", "/Documents/", b"x").status == 405
