"""GET and HEAD: ranges, conditions, and what happens when the store or the client goes away."""

from __future__ import annotations

import http.client
import re
import socket
import stat
import time
from urllib.parse import urlsplit

import pytest

from tests.webdav.conftest import ALICE as ME
from tests.webdav.conftest import Client, basic
from tests.webdav.toy import ToyVfs
from webdav.listing import readable

FILE = "/Documents/a.dng"
DATA = bytes(range(256)) * 10_000  # 2.56 MB: more than two blocks


@pytest.fixture
def etag(dav: Client) -> str:
    return dav.put(FILE, DATA).headers["ETag"]


def test_whole(dav: Client, etag: str) -> None:
    answer = dav("GET", FILE)
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.headers["ETag"] == etag
    assert etag.startswith('"')
    assert answer.headers["Content-Type"] == "image/x-adobe-dng"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Last-Modified"].endswith("GMT")


def test_head_has_the_headers_of_get(dav: Client, etag: str) -> None:
    head, get = dav("HEAD", FILE, Range="bytes=0-3"), dav("GET", FILE)
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Length", "ETag", "Last-Modified", "Content-Type", "Accept-Ranges"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=2000000-", 2_000_000, len(DATA)),
        ("bytes=-5", len(DATA) - 5, len(DATA)),
        ("bytes=-99999999", 0, len(DATA)),
        ("bytes=5-99999999", 5, len(DATA)),
    ],
)
def test_one_range(dav: Client, etag: str, header: str, start: int, end: int) -> None:
    answer = dav("GET", FILE, Range=header)
    assert (answer.status, answer.body) == (206, DATA[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
    assert answer.headers["Content-Length"] == str(end - start)


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "lines=1-2", "bytes=9-3", "bytes=-", "bytes=x-y"])
def test_what_is_no_single_range_gives_the_whole(dav: Client, etag: str, header: str) -> None:
    answer = dav("GET", FILE, Range=header)
    assert (answer.status, answer.body) == (200, DATA)


@pytest.mark.parametrize("header", [f"bytes={len(DATA)}-", "bytes=9999999-99999999", "bytes=-0"])
def test_unsatisfiable_range(dav: Client, etag: str, header: str) -> None:
    answer = dav("GET", FILE, Range=header)
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(DATA)}"
    assert dav("HEAD", FILE).status == 200  # the connection goes on


def test_if_range(dav: Client, etag: str) -> None:
    modified = dav("HEAD", FILE).headers["Last-Modified"]
    for good in (etag, modified):
        assert dav("GET", FILE, Range="bytes=0-3", If_Range=good).status == 206
    for bad in ('"other"', f"W/{etag}", "Sun, 06 Nov 1994 08:49:37 GMT", etag.strip('"')):
        assert dav("GET", FILE, Range="bytes=0-3", If_Range=bad).status == 200


def test_conditions(dav: Client, etag: str) -> None:
    modified = dav("HEAD", FILE).headers["Last-Modified"]
    for header in (etag, f"W/{etag}", "*", f'"a", {etag}'):
        answer = dav("GET", FILE, If_None_Match=header)
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", etag)
    assert dav("GET", FILE, If_None_Match='"other"').status == 200
    assert dav("GET", FILE, If_Modified_Since=modified).status == 304
    assert dav("GET", FILE, If_Modified_Since=modified, If_None_Match='"other"').status == 200  # RFC 9110 13.2.2
    assert dav("GET", FILE, If_Match='"other"').status == 412
    assert dav("GET", FILE, If_Match=f"W/{etag}").status == 412  # strong comparison
    assert dav("GET", FILE, If_Match=f'"other", {etag}').status == 200
    assert dav("GET", FILE, If_Unmodified_Since="Sun, 06 Nov 1994 08:49:37 GMT").status == 412
    assert dav("GET", FILE, If_Unmodified_Since="rubbish").status == 200


def test_empty_file(dav: Client) -> None:
    dav.put(FILE, b"")
    answer = dav("GET", FILE)
    assert (answer.status, answer.body) == (200, b"")
    assert dav("GET", FILE, Range="bytes=0-").status == 416


def test_missing_file_and_below_a_file(dav: Client, etag: str) -> None:
    assert dav("GET", "/Documents/no").status == 404
    assert dav("GET", FILE + "/below").status == 404


def test_contents_are_closed(dav: Client, etag: str, vfs: ToyVfs) -> None:
    dav("GET", FILE)
    dav("GET", FILE, Range="bytes=99999999-")
    assert vfs.open_contents == 0


def test_client_that_breaks_off_lets_the_content_go(dav: Client, etag: str, vfs: ToyVfs) -> None:
    dav.put("/Documents/big", bytes(64 * 1024**2))
    host, port = urlsplit(dav.url).netloc.split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(
            f"GET /Documents/big HTTP/1.1\r\nHost: x\r\nAuthorization: {basic()['Authorization']}\r\n\r\n".encode()
        )
        assert raw.recv(1000).startswith(b"HTTP/1.1 200")
        assert vfs.open_contents == 1
    deadline = time.monotonic() + 5
    while vfs.open_contents and time.monotonic() < deadline:
        time.sleep(0.01)
    assert vfs.open_contents == 0


def test_store_that_fails_in_the_middle_breaks_the_connection(dav: Client, etag: str, vfs: ToyVfs) -> None:
    """Fewer bytes than Content-Length says is what tells the client; a normal end would be a lie."""
    vfs.fail_read_at = 1024**2
    with pytest.raises(http.client.IncompleteRead):
        dav("GET", FILE)
    assert vfs.open_contents == 0


def test_store_that_fails_at_once_is_a_503(dav: Client, etag: str, vfs: ToyVfs) -> None:
    def away(*_: object) -> None:
        from archivia_fs.errors import StoreUnavailable

        raise StoreUnavailable("The store at :8333 does not answer; is it running?")

    vfs.snapshot = away  # type: ignore[assignment, method-assign]
    answer = dav("GET", FILE)
    assert answer.status == 503
    assert answer.headers["Retry-After"]
    assert b"does not answer" in answer.body


def test_folder_listing_for_people(dav: Client, etag: str) -> None:
    dav.put("/Documents/%3Cb%3E%20%26%20%C3%BC.txt")
    dav("MKCOL", "/Documents/sub")
    dav("MKCOL", "/Documents/sub/%22deep%22")
    for path in ("/Documents/", "/Documents"):
        answer = dav("GET", path)
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/html")
        links = re.findall(r'<a href="([^"]*)">(.*?)</a>', answer.body.decode())
        assert links == [
            ("/", "Archivia FS"),
            ("/Documents/%3Cb%3E%20%26%20%C3%BC.txt", "&lt;b&gt; &amp; ü.txt"),
            ("/Documents/a.dng", "a.dng"),
            ("/Documents/sub/", "sub/"),
        ]
        assert b"<script" not in answer.body
    assert all(dav("GET", link).status == 200 for link, _ in links)
    body = dav("GET", "/Documents/sub/%22deep%22").body.decode()
    assert '<a href="/Documents/sub/">sub</a> / &quot;deep&quot;</h1>' in body
    assert "empty" in body
    assert dav("GET", "/").status == 200
    head = dav("HEAD", "/Documents/")
    assert (head.status, head.body) == (200, b"")
    assert dav("GET", "/Documents/no/").status == 404


def test_large_folder_for_people(dav: Client, vfs: ToyVfs) -> None:
    folder = vfs.resolve(ME, "/Documents").ino
    for number in range(3000):
        vfs.mknod(ME, folder, f"page-{number:05}.dng", stat.S_IFREG | 0o644, 0)
    answer = dav("GET", "/Documents")
    assert answer.body.count(b"<tr>") == 3001
    assert answer.headers["Transfer-Encoding"] == "chunked"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (8 * 10**10, "80.0 GB")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert readable(size) == text


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.xml", "a.rdf", "A.HTM"])
def test_pages_in_the_archive_run_no_scripts(dav: Client, name: str) -> None:
    """They would run with the password of whoever opens them in a browser."""
    dav.put("/Documents/" + name)
    for method in ("GET", "HEAD"):
        headers = dav(method, "/Documents/" + name).headers
        assert headers["Content-Security-Policy"] == "sandbox"
        assert headers["X-Content-Type-Options"] == "nosniff"
    dav.put("/Documents/a.pdf")
    assert dav("GET", "/Documents/a.pdf").headers["Content-Security-Policy"] is None  # a sandboxed PDF is not shown
