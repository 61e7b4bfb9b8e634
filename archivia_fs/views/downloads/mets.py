"""A document as METS 1.12.1 (loc.gov/standards/mets): Dublin Core, PREMIS 3 fixity, files and their order.

Owns: the XML. Used by: plans. Threading: a pure function; the same document gives the same bytes.

Masters are told by their path in the ZIP, beside the METS file; thumbnails, which it does not hold, by their path on the drive.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from lxml import etree

from archivia_fs.views.downloads.document import Document, Item, Words, time_text
from archivia_fs.views.thumbnails.background import is_likely

METS = "http://www.loc.gov/METS/"
XLINK = "http://www.w3.org/1999/xlink"
PREMIS = "http://www.loc.gov/premis/v3"
DC = "http://purl.org/dc/elements/1.1/"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
NAMESPACES = {"mets": METS, "xlink": XLINK, "premis": PREMIS, "dc": DC, "xsi": XSI}
SCHEMAS = f"{METS} http://www.loc.gov/standards/mets/version1121/mets.xsd"
AGENT = "Archivia FS"

_ELEMENTS = frozenset(
    ("contributor", "coverage", "creator", "date", "description", "format", "identifier", "language", "publisher",
     "relation", "rights", "source", "subject", "title", "type")
)  # fmt: skip
# What XML 1.0 cannot hold at all (its production 2, Char).
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def mets(document: Document) -> bytes:
    """The whole file. It is written as it grows: 10,000 files take 0.3 s."""
    out = io.BytesIO()
    with etree.xmlfile(out, encoding="UTF-8") as xml:
        xml.write_declaration()
        with xml.element(_m("mets"), _attributes(document), nsmap=NAMESPACES):
            writer = _Writer(xml, document)
            writer.head()
            writer.descriptions()
            writer.administration()
            writer.files()
            writer.structure()
    return out.getvalue()


def xml_text(text: str) -> str:
    """`text` with "\\x01" for a character that XML cannot hold."""
    return _NOT_XML.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _m(tag: str) -> str:
    return f"{{{METS}}}{tag}"


def _attributes(document: Document) -> dict[str, str]:
    return {
        "OBJID": xml_text(document.logical_id),
        "LABEL": xml_text(_title(document)),
        "TYPE": "document",
        f"{{{XSI}}}schemaLocation": SCHEMAS,
    }


def _title(document: Document) -> str:
    return next((value for element, value in document.described if element == "title"), document.name)


class _Writer:
    """One METS file. Items are numbered from 1 in their order; these numbers make the IDs."""

    def __init__(self, xml: Any, document: Document) -> None:
        self._xml = xml
        self._document = document
        self._files = [(number, item) for number, item in enumerate(document.items, 1) if not item.is_folder]

    def head(self) -> None:
        created, changed = time_text(self._document.created_ns), time_text(self._document.changed_ns)
        with (
            self._element("metsHdr", CREATEDATE=created, LASTMODDATE=changed),
            self._element("agent", ROLE="CREATOR", TYPE="OTHER", OTHERTYPE="SOFTWARE"),
        ):
            self._leaf("name", AGENT)

    def descriptions(self) -> None:
        document = self._document
        own = [pair for pair in document.described if pair[0] != "identifier"]
        given = [pair for pair in document.described if pair[0] == "identifier"]
        words = [*(given or [("identifier", document.logical_id)]), *own]
        if not any(element == "title" for element, _ in words):
            words.append(("title", document.name))
        self._dublin_core("DMD-0", words)
        for number, item in enumerate(document.items, 1):
            if item.described:
                self._dublin_core(f"DMD-{number}", item.described)

    def administration(self) -> None:
        if self._files:
            with self._element("amdSec", ID="AMD-0"):
                for number, item in self._files:
                    self._premis(number, item)

    def files(self) -> None:
        if not self._files:
            return
        with self._element("fileSec"):
            with self._element("fileGrp", USE="MASTER"):
                for number, item in self._files:
                    self._master(number, item)
            pictures = [(number, item) for number, item in self._files if _is_picture(item)]
            if pictures:
                with self._element("fileGrp", USE="THUMBNAIL"):
                    for number, item in pictures:
                        self._thumbnail(number, item)

    def structure(self) -> None:
        """Folders in folders, as divs; the path of each div is open while what is under it is written."""
        document = self._document
        with self._element("structMap", TYPE="PHYSICAL", LABEL="Folders and pages"):
            start = self._xml.element(
                _m("div"), {"TYPE": "physSequence", "LABEL": xml_text(_title(document)), "DMDID": "DMD-0"}
            )
            with start:
                self._divs()

    def _divs(self) -> None:
        open_divs: list[tuple[str, Any]] = []
        orders = [0]
        for number, item in enumerate(self._document.items, 1):
            while open_divs and not item.original.startswith(open_divs[-1][0]):
                open_divs.pop()[1].__exit__(None, None, None)
                orders.pop()
            orders[-1] += 1
            name = item.original.rstrip("/").rpartition("/")[2]
            attributes = {"ORDER": str(orders[-1]), "LABEL": xml_text(name)}
            if item.described:
                attributes["DMDID"] = f"DMD-{number}"
            if item.is_folder:
                div = self._xml.element(_m("div"), {"TYPE": "folder", **attributes})
                div.__enter__()
                open_divs.append((item.original, div))
                orders.append(0)
                continue
            picture = _is_picture(item)
            with self._xml.element(_m("div"), {"TYPE": "page" if picture else "file", **attributes}):
                self._leaf("fptr", FILEID=f"FILE-{number}")
                if picture:
                    self._leaf("fptr", FILEID=f"THUMB-{number}")
        for _, div in reversed(open_divs):
            div.__exit__(None, None, None)

    def _dublin_core(self, identity: str, words: Words) -> None:
        with self._element("dmdSec", ID=identity), self._element("mdWrap", MDTYPE="DC"), self._element("xmlData"):
            for element, value in words:
                if element in _ELEMENTS:
                    self._write(f"{{{DC}}}{element}", xml_text(value))

    def _premis(self, number: int, item: Item) -> None:
        with (
            self._element("techMD", ID=f"TECH-{number}"),
            self._element("mdWrap", MDTYPE="PREMIS:OBJECT", MDTYPEVERSION="3.0"),
            self._element("xmlData"),
        ):
            whole = etree.Element(f"{{{PREMIS}}}object", nsmap={"premis": PREMIS, "xsi": XSI})
            whole.set(f"{{{XSI}}}type", "premis:file")
            identifier = _premis(whole, "objectIdentifier")
            _premis(identifier, "objectIdentifierType", "Archivia FS revision")
            _premis(identifier, "objectIdentifierValue", item.revision or "empty")
            facts = _premis(whole, "objectCharacteristics")
            for algorithm, digest in _digests(item):
                fixity = _premis(facts, "fixity")
                _premis(fixity, "messageDigestAlgorithm", algorithm)
                _premis(fixity, "messageDigest", digest)
            _premis(facts, "size", str(item.size))
            designation = _premis(_premis(facts, "format"), "formatDesignation")
            _premis(designation, "formatName", item.media_type)
            _premis(whole, "originalName", xml_text(item.original))
            self._xml.write(whole)

    def _master(self, number: int, item: Item) -> None:
        checksum = {"CHECKSUM": item.sha256, "CHECKSUMTYPE": "SHA-256"} if item.sha256 else {}
        with self._element(
            "file", ID=f"FILE-{number}", ADMID=f"TECH-{number}", MIMETYPE=item.media_type, SIZE=str(item.size),
            CREATED=time_text(item.mtime_ns), **checksum,
        ):  # fmt: skip
            self._location("URL", quote(item.path), LABEL=item.original)

    def _thumbnail(self, number: int, item: Item) -> None:
        path = self._document.path.replace("/Documents/", "/Thumbnails/", 1)
        with self._element("file", ID=f"THUMB-{number}", MIMETYPE="image/jpeg"):
            self._location("OTHER", quote(f"{path}/{item.original}.jpg"), OTHERLOCTYPE="DRIVE")

    def _location(self, kind: str, href: str, LABEL: str = "", OTHERLOCTYPE: str = "") -> None:
        attributes = {"LOCTYPE": kind}
        if OTHERLOCTYPE:
            attributes["OTHERLOCTYPE"] = OTHERLOCTYPE
        attributes[f"{{{XLINK}}}href"] = href
        if LABEL:
            attributes[f"{{{XLINK}}}title"] = xml_text(LABEL)
        self._leaf("FLocat", **attributes)

    @contextmanager
    def _element(self, tag: str, **attributes: str) -> Iterator[None]:
        with self._xml.element(_m(tag), attributes):
            yield

    def _leaf(self, tag: str, text: str | None = None, **attributes: str) -> None:
        self._write(_m(tag), text, attributes)

    def _write(self, name: str, text: str | None, attributes: Mapping[str, str] | None = None) -> None:
        """Not as an Element of its own: that would declare all its namespaces again."""
        with self._xml.element(name, attributes):
            if text:
                self._xml.write(text)


def _digests(item: Item) -> Sequence[tuple[str, str]]:
    found = [("SHA-256", item.sha256)] if item.sha256 else []
    if item.crc32 is not None:
        found.append(("CRC32", f"{item.crc32:08x}"))
    return found


def _premis(parent: Any, tag: str, text: str | None = None) -> Any:
    element = etree.SubElement(parent, f"{{{PREMIS}}}{tag}")
    element.text = text
    return element


def _is_picture(item: Item) -> bool:
    """A file that has, or may have, a preview."""
    return item.revision is not None and is_likely(item.original)
