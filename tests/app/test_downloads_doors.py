"""/Downloads with the program: a document comes out of the mount and over HTTP as the same ZIP, in pieces and after a change."""

from __future__ import annotations

import io
import json
import random
import subprocess
import zipfile
from pathlib import Path

import pytest
from lxml import etree

from tests.app.drive import Drive
from tests.app.test_thumbnails import ask

PATH = "/Downloads/archive/Rolle%203.zip"
FILES = {"page 1.dng": 3_000_000, "page 2.dng": 1_000_000, "größe/é 📷.tif": 70_000, "größe/empty.txt": 0}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "Rolle 3"
    chance = random.Random(7)
    (folder / "größe").mkdir(parents=True)
    (folder / "leer").mkdir()
    for name, size in FILES.items():
        (folder / name).write_bytes(chance.randbytes(size))
    return folder


def test_both_doors_give_the_same_zip_whole_and_in_pieces(drive: Drive, sources: Path, tmp_path: Path) -> None:
    archive, downloads = drive.mount / "Documents/archive", drive.mount / "Downloads/archive"
    subprocess.run(["rsync", "-a", str(sources), f"{archive}/"], check=True, timeout=60)
    assert drive.run("describe", "/Documents/archive/Rolle 3", "dc.title=Der Wald").returncode == 0
    zipped = downloads / "Rolle 3.zip"

    status, headers, nothing = ask(drive, "HEAD", PATH)
    assert (status, nothing, headers["accept-ranges"]) == (200, b"", "bytes")
    size, etag = int(headers["content-length"]), headers["etag"]
    data = zipped.read_bytes()
    assert size == zipped.stat().st_size == len(data) > sum(FILES.values())
    assert not etag.startswith("W/")

    with zipfile.ZipFile(zipped) as opened:  # by its tail, through the mount
        assert opened.testzip() is None
        for name in FILES:
            assert opened.read(name) == (sources / name).read_bytes()
        tree = etree.fromstring(opened.read("Rolle 3_mets.xml"))
    assert "Der Wald" in [each.text for each in tree.iter("{http://purl.org/dc/elements/1.1/}title")]
    subprocess.run(["unzip", "-tqq", zipped], check=True, timeout=60)
    subprocess.run(["unzip", "-qq", zipped, "-d", tmp_path / "out"], check=True, timeout=60)
    assert (tmp_path / "out/leer").is_dir()
    done = subprocess.run(["diff", "-r", sources, tmp_path / "out"], check=False, capture_output=True, text=True)
    assert [line.rpartition(": ")[2] for line in done.stdout.splitlines()] == [
        "Rolle 3_metadata.csv",
        "Rolle 3_mets.xml",
    ]

    # In pieces, in any order, as a download manager does, each only of the state that was begun.
    pieces = [(start, min(start + 700_000, size)) for start in range(0, size, 700_000)]
    found = bytearray(size)
    for start, end in random.Random(8).sample(pieces, len(pieces)):
        status, headers, body = ask(drive, "GET", PATH, Range=f"bytes={start}-{end - 1}", **{"If-Range": etag})
        assert (status, headers["etag"]) == (206, etag)
        assert headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        found[start:end] = body
    assert found == data
    assert ask(drive, "GET", PATH, Range="bytes=-22")[::2] == (206, data[-22:])
    assert ask(drive, "GET", PATH, Range=f"bytes={size}-")[0] == 416
    assert ask(drive, "GET", PATH, **{"If-None-Match": etag})[0] == 304

    # Somebody reads it while a page is replaced: the reader's ZIP is the old one, a resumed download is whole and new.
    with zipped.open("rb", buffering=0) as reader:
        start = reader.read(100_000)
        (archive / "Rolle 3/page 1.dng").write_bytes(b"another page")
        rest = reader.read()
        while more := reader.read():
            rest += more
        assert start + rest == data
    status, headers, body = ask(drive, "GET", PATH, Range="bytes=100000-", **{"If-Range": etag})
    assert status == 200
    assert headers["etag"] != etag
    assert zipfile.ZipFile(io.BytesIO(body)).read("page 1.dng") == b"another page"
    assert zipped.read_bytes() == body

    # An ordinary, read-only tree.
    copy = tmp_path / "copy"
    for expected in ("12", "0"):
        done = subprocess.run(
            ["rsync", "-a", "--stats", f"{downloads}/", f"{copy}/"], check=True, timeout=60, capture_output=True, text=True
        )  # fmt: skip
        assert f"files transferred: {expected}\n" in done.stdout
    assert ask(drive, "PUT", PATH)[0] == 403
    assert ask(drive, "DELETE", PATH)[0] == 403
    with pytest.raises(OSError, match="Read-only"):
        zipped.write_bytes(b"x")
    told = json.loads(drive.run("describe", "/Documents/archive/Rolle 3", "--json").stdout)
    assert told["properties"] == {"dc.title": ["Der Wald"]}
    assert drive.end() == 0
