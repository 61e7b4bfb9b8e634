"""METS and CSV of documents as they come: pure, so the same document gives the same bytes."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest
from lxml import etree

from archivia_fs.types import InodeNo, RevisionId
from archivia_fs.views.downloads.document import Document, Item, _words, time_text
from archivia_fs.views.downloads.mets import mets, xml_text
from archivia_fs.views.downloads.table import table
from archivia_fs.views.thumbnails.ifd import PictureFacts
from tests.views.test_downloads_acceptance import SPACES, _schema


def item(path: str, **more: object) -> Item:
    folder = path.endswith("/")
    whole = Item(
        path, path, InodeNo(1), 0o40755 if folder else 0o100644, 0 if folder else 5, 10**18,
        None if folder else RevisionId("r"), None if folder else "a" * 64, None if folder else 0xAB,
        "" if folder else "image/x-adobe-dng", None, path.endswith(".dng"), [], True,
    )  # fmt: skip
    return replace(whole, **more)  # type: ignore[arg-type]


def document(*items: Item, **more: object) -> Document:
    whole = Document(InodeNo(9), 1, "roll", "/Documents/box/roll", (), "roll", 0, 10**18, [], items)
    return replace(whole, **more)  # type: ignore[arg-type]


def tree_of(given: Document) -> etree._Element:
    data = mets(given)
    assert mets(given) == data
    tree = etree.fromstring(data.data())
    _schema().assertValid(tree)
    return tree


def find(tree: etree._Element, path: str) -> list[str]:
    return [str(each) for each in tree.xpath(path, namespaces=SPACES)]


def test_folders_are_divs_in_divs() -> None:
    tree = tree_of(document(item("1.dng"), item("a/"), item("a/1.dng"), item("a/b/"), item("a/b/x.txt"), item("z.dng")))
    top = "/m:mets/m:structMap/m:div"
    assert find(tree, f"{top}/@TYPE") == ["physSequence"]
    assert find(tree, f"{top}/m:div/@LABEL") == ["1.dng", "a", "z.dng"]
    assert find(tree, f"{top}/m:div/@ORDER") == ["1", "2", "3"]
    assert find(tree, f"{top}/m:div/m:div/@LABEL") == ["1.dng", "b"]
    assert find(tree, f"{top}/m:div/m:div/m:div/@LABEL") == ["x.txt"]
    assert find(tree, f"{top}/m:div/m:div/m:div/@TYPE") == ["file"]
    for identity in find(tree, "//m:fptr/@FILEID"):
        assert len(find(tree, f"//m:file[@ID='{identity}']/@ID")) == 1
    assert len(find(tree, "//m:fptr")) == 4 + 3  # a picture has a thumbnail too


def test_one_without_files_and_one_that_knows_nothing() -> None:
    assert find(tree_of(document()), "//m:fileSec") == []
    assert find(tree_of(document(item("empty/"))), "//m:amdSec") == []
    tree = tree_of(document(item("x", sha256=None, crc32=None, revision=None, size=0)))
    assert find(tree, "//@CHECKSUM") == find(tree, "//p:fixity") == []
    assert find(tree, "//d:identifier/text()") == find(tree, "//d:title/text()") == ["roll"]


def test_descriptions_of_files_are_theirs() -> None:
    tree = tree_of(document(item("1.dng"), item("2.dng", described=[("title", "Zwei"), ("nonsense", "x")])))
    (identity,) = find(tree, "//m:div[@LABEL='2.dng']/@DMDID")
    assert find(tree, f"//m:dmdSec[@ID='{identity}']//d:*/text()") == ["Zwei"]
    assert find(tree, "//m:div[@LABEL='1.dng']/@DMDID") == []


def test_characters_that_xml_cannot_hold_or_uris_escape() -> None:
    odd = "a\x01b\ufffe&<\"'>é 📷%?#.dng"
    tree = tree_of(document(item("safe.dng", original=odd), item("b ü%.dng"), logical_id="\x00id", name="\x02"))
    assert find(tree, "//p:originalName/text()")[0] == "a\\x01b\\xfffe&<\"'>é 📷%?#.dng"
    assert find(tree, "//m:fileGrp[@USE='MASTER']/m:file/m:FLocat/@x:href") == ["safe.dng", "b%20%C3%BC%25.dng"]
    assert find(tree, "/m:mets/@OBJID") == ["\\x00id"]
    assert xml_text("plain") == "plain"


def test_properties_with_lines_and_with_xml() -> None:
    given = {
        "user.dc.creator": b" A \n\nB\n", "user.dc.title": b'<title xml:lang="en">One &amp; two</title>',
        "user.dc.subject": b"<not xml", "user.dc.rights": b"\xff", "user.other": b"no",
        "user.dc.date": b'<?xml version="1.0" encoding="utf-8"?><d>1927</d>',
    }  # fmt: skip
    assert _words(given) == [
        ("creator", "A"), ("creator", "B"), ("date", "1927"), ("rights", "\ufffd"), ("subject", "<not xml"),
        ("title", "One & two"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (2**63, "2262-04-11T23:47:16Z"),
        (-(10**30), "0001-01-01T00:00:00Z"),
        (10**30, "9999-12-31T23:59:59Z"),
    ],
)
def test_times(ns: int, text: str) -> None:
    assert time_text(ns) == text


# RFC 4180, section 2, with UTF-8 for TEXTDATA.
FIELD = re.compile(r'"(?:[^"]|"")*"|[^",\r\n]*')


def strictly(text: str) -> list[list[str]]:
    """Fields by the grammar of RFC 4180 and nothing else: every record ends with CRLF, quotes stand around a whole field."""
    records, record, at = [], list[str](), 0
    while at < len(text):
        found = FIELD.match(text, at)
        assert found is not None
        field, at = found[0], found.end()
        record.append(field[1:-1].replace('""', '"') if field.startswith('"') else field)
        if text.startswith("\r\n", at):
            records.append(record)
            record, at = [], at + 2
        else:
            assert text.startswith(",", at), text[at - 20 : at + 20]
            at += 1
    assert not record
    return records


def test_the_table_is_what_rfc_4180_says() -> None:
    odd = ['"', '""', ",", ";", "\r", "\n", "\r\n", " a ", "a\tb", "é 📷", "=1+1", "'", "", 'a"b,c\nd', "\ufeff"]
    items = [item(f"{number}.dng", original=text, described=[("title", text)]) for number, text in enumerate(odd)]
    data = table(document(*items)).data()
    assert not data.startswith(b"\xef\xbb\xbf")
    head, *records = strictly(data.decode())
    assert {len(record) for record in records} == {len(head)}
    assert [record[0] for record in records] == [each.path for each in items]
    assert [record[head.index("original_name")] for record in records] == odd
    assert [record[head.index("dc.title")] for record in records] == odd
    assert [head, *records] == [*csv.reader(io.StringIO(data.decode(), newline=""))]


def test_the_table_repeats_columns_for_repeated_values() -> None:
    facts = PictureFacts("image/x-adobe-dng", "Leica", 'M "11"', "2026-01-02T03:04:05", 9528, 6328)
    data = table(
        document(
            item("a, b.dng", facts=facts, described=[("creator", "A"), ("creator", "B")]),
            item("folder/"),
            item("folder/c\n.txt", original="folder/c:.txt", described=[("title", "=1+1")], crc32=None),
        )
    ).data()
    head, first, second = csv.reader(io.StringIO(data.decode(), newline=""))
    assert head[-4:] == ["original_name", "dc.creator", "dc.creator", "dc.title"]
    assert first[0] == "a, b.dng"
    assert first[5:] == ["000000ab", "Leica", 'M "11"', "2026-01-02T03:04:05", "9528", "6328", "", "A", "B", ""]
    assert second[0] == "folder/c\n.txt"
    assert second[5:] == ["", "", "", "", "", "", "folder/c:.txt", "", "", "=1+1"]
