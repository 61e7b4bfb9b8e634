"""A document as METS 1.12.1 (loc.gov/standards/mets): Dublin Core, PREMIS 3 fixity, files and their order.

Owns: the XML. Used by: plan. Threading: a pure function; the same document gives the same bytes.

Masters are told by their path in the ZIP, beside the METS file; thumbnails, which it does not hold, by their path on the drive.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from lxml import etree

from archivia_fs.views.downloads.document import Document, Item, Words, time_text
from archivia_fs.views.downloads.text import Packer, Text
from archivia_fs.views.thumbnails.view import SUFFIX

METS = "http://www.loc.gov/METS/"
XLINK = "http://www.w3.org/1999/xlink"
PREMIS = "http://www.loc.gov/premis/v3"
DC = "http://purl.org/dc/elements/1.1/"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
HREF, TITLE = f"{{{XLINK}}}href", f"{{{XLINK}}}title"
NAMESPACES = {None: METS, "xlink": XLINK, "premis": PREMIS, "dc": DC, "xsi": XSI}
SCHEMAS = (
    f"{METS} http://www.loc.gov/standards/mets/version1121/mets.xsd"
    f" {PREMIS} http://www.loc.gov/standards/premis/v3/premis.xsd"
)
AGENT = "Archivia FS"
DEPTH_MAX = 200  # folders in folders; libxml2 reads elements 256 deep unless told XML_PARSE_HUGE

_ELEMENTS = frozenset(
    ("contributor", "coverage", "creator", "date", "description", "format", "identifier", "language", "publisher",
     "relation", "rights", "source", "subject", "title", "type")
)  # fmt: skip
# What XML 1.0 cannot hold at all (its production 2, Char).
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def mets(document: Document) -> Text:
    """The whole file. It is written as it grows: 10,000 files take a second."""
    out = Packer()
    with etree.xmlfile(out, encoding="UTF-8") as xml:
        xml.write_declaration()
        with xml.element(_m("mets"), _attributes(document), nsmap=NAMESPACES):
            writer = _Writer(xml, document)
            writer.head()
            writer.descriptions()
            writer.administration()
            writer.files()
            writer.structure()
    return out.text()


def xml_text(text: str) -> str:
    """`text` with "\\x01" for a character that XML cannot hold."""
    return _NOT_XML.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _m(tag: str) -> str:
    return f"{{{METS}}}{tag}"


def _p(tag: str) -> str:
    return f"{{{PREMIS}}}{tag}"


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
        self._in = xml.element
        self._document = document
        self._files = [(number, item) for number, item in enumerate(document.items, 1) if not item.is_folder]

    def head(self) -> None:
        created, changed = time_text(self._document.created_ns), time_text(self._document.changed_ns)
        with (
            self._in(_m("metsHdr"), {"CREATEDATE": created, "LASTMODDATE": changed}),
            self._in(_m("agent"), {"ROLE": "CREATOR", "TYPE": "OTHER", "OTHERTYPE": "SOFTWARE"}),
        ):
            self._leaf(_m("name"), AGENT)

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
            with self._in(_m("amdSec"), {"ID": "AMD-0"}):
                for number, item in self._files:
                    self._premis(number, item)

    def files(self) -> None:
        if not self._files:
            return
        with self._in(_m("fileSec")):
            with self._in(_m("fileGrp"), {"USE": "MASTER"}):
                for number, item in self._files:
                    self._master(number, item)
            pictures = [(number, item) for number, item in self._files if item.picture]
            if pictures:
                with self._in(_m("fileGrp"), {"USE": "THUMBNAIL"}):
                    for number, item in pictures:
                        self._thumbnail(number, item)

    def structure(self) -> None:
        """Folders in folders, as divs; the path of each div is open while what is under it is written."""
        document = self._document
        top = {"TYPE": "physSequence", "LABEL": xml_text(_title(document)), "DMDID": "DMD-0"}
        with self._in(_m("structMap"), {"TYPE": "PHYSICAL", "LABEL": "Folders and pages"}), self._in(_m("div"), top):
            self._divs()

    def _divs(self) -> None:
        """Folders deeper than parsers read stand beside what is in them, with their paths."""
        open_divs: list[tuple[str, Any]] = []
        orders = [0]
        for number, item in enumerate(self._document.items, 1):
            while open_divs and not item.original.startswith(open_divs[-1][0]):
                open_divs.pop()[1].__exit__(None, None, None)
                orders.pop()
            orders[-1] += 1
            name = item.original[len(open_divs[-1][0]) if open_divs else 0 :].rstrip("/")
            attributes = {"ORDER": str(orders[-1]), "LABEL": xml_text(name)}
            if item.described:
                attributes["DMDID"] = f"DMD-{number}"
            if item.is_folder and len(open_divs) < DEPTH_MAX:
                div = self._in(_m("div"), {"TYPE": "folder", **attributes})
                div.__enter__()
                open_divs.append((item.original, div))
                orders.append(0)
                continue
            kind = "folder" if item.is_folder else "page" if item.picture else "file"
            with self._in(_m("div"), {"TYPE": kind, **attributes}):
                if not item.is_folder:
                    self._pointer(f"FILE-{number}")
                if item.picture:
                    self._pointer(f"THUMB-{number}")
        for _, div in reversed(open_divs):
            div.__exit__(None, None, None)

    def _pointer(self, identity: str) -> None:
        with self._in(_m("fptr"), {"FILEID": identity}):
            pass

    def _dublin_core(self, identity: str, words: Words) -> None:
        with (
            self._in(_m("dmdSec"), {"ID": identity}),
            self._in(_m("mdWrap"), {"MDTYPE": "DC"}),
            self._in(_m("xmlData")),
        ):
            for element, value in words:
                if element in _ELEMENTS:
                    self._leaf(f"{{{DC}}}{element}", xml_text(value))

    def _premis(self, number: int, item: Item) -> None:
        wrap = {"MDTYPE": "PREMIS:OBJECT", "MDTYPEVERSION": "3.0"}
        whole = {f"{{{XSI}}}type": "premis:file"}
        with (
            self._in(_m("techMD"), {"ID": f"TECH-{number}"}),
            self._in(_m("mdWrap"), wrap),
            self._in(_m("xmlData")),
            self._in(_p("object"), whole),
        ):
            with self._in(_p("objectIdentifier")):
                self._leaf(_p("objectIdentifierType"), "Archivia FS revision")
                self._leaf(_p("objectIdentifierValue"), item.revision or "empty")
            with self._in(_p("objectCharacteristics")):
                for algorithm, digest in _digests(item):
                    with self._in(_p("fixity")):
                        self._leaf(_p("messageDigestAlgorithm"), algorithm)
                        self._leaf(_p("messageDigest"), digest)
                self._leaf(_p("size"), str(item.size))
                with self._in(_p("format")), self._in(_p("formatDesignation")):
                    self._leaf(_p("formatName"), item.media_type)
            self._leaf(_p("originalName"), xml_text(item.original))

    def _master(self, number: int, item: Item) -> None:
        facts = {
            "ID": f"FILE-{number}", "ADMID": f"TECH-{number}", "MIMETYPE": item.media_type, "SIZE": str(item.size),
            "CREATED": time_text(item.mtime_ns),
        }  # fmt: skip
        if item.sha256:
            facts |= {"CHECKSUM": item.sha256, "CHECKSUMTYPE": "SHA-256"}
        place = {"LOCTYPE": "URL", HREF: quote(item.path), TITLE: xml_text(item.original)}
        with self._in(_m("file"), facts), self._in(_m("FLocat"), place):
            pass

    def _thumbnail(self, number: int, item: Item) -> None:
        path = self._document.path.replace("/Documents/", "/Thumbnails/", 1)
        place = {"LOCTYPE": "OTHER", "OTHERLOCTYPE": "DRIVE", HREF: quote(f"{path}/{item.original}{SUFFIX}")}
        with self._in(_m("file"), {"ID": f"THUMB-{number}", "MIMETYPE": "image/jpeg"}), self._in(_m("FLocat"), place):
            pass

    def _leaf(self, tag: str, text: str) -> None:
        with self._in(tag):
            self._xml.write(text)


def _digests(item: Item) -> Sequence[tuple[str, str]]:
    found = [("SHA-256", item.sha256)] if item.sha256 else []
    if item.crc32 is not None:
        found.append(("CRC32", f"{item.crc32:08x}"))
    return found
