"""A document as it is downloaded: its files with safe paths in natural order, and what is known of each.

Owns: what goes into a download and under which path. Used by: mets, table, plans, view.
Threading: values; `read_document` asks the catalog.
Symbolic links, fifos, sockets and devices are left out: unpacked elsewhere they would point anywhere.
"""

from __future__ import annotations

import datetime
import hashlib
import mimetypes
import stat as stat_module
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lxml import etree

from archivia_fs.errors import NotFound
from archivia_fs.types import InodeNo, RevisionId
from archivia_fs.views.downloads.names import natural_key, safe_name, unique_names
from archivia_fs.views.thumbnails.background import is_likely
from archivia_fs.views.thumbnails.facts import from_json
from archivia_fs.views.thumbnails.ifd import PictureFacts
from archivia_fs.views.thumbnails.view import NAME_BYTES, SUFFIX
from catalog.catalog import Below, Catalog

DC_PREFIX = "user.dc."
LOGICAL_ID = "user.logical_id"  # of a document; without it the name of its folder. user.archivia.* are read-only
STEM_MAX = 200  # bytes
PATH_MAX = 3_000  # bytes; PATH_MAX in limits.h is 4,096, and somebody unpacks it below something
UNKNOWN_TYPE = "application/octet-stream"
UNSAFE_IN_BAGS = "%"  # tools disagree on whether manifests encode it (RFC 8493 2.1.3)

Words = Sequence[tuple[str, str]]

_TYPES = mimetypes.MimeTypes(filenames=())  # Python's own table: the same on every machine
for _suffix, _type in {
    "dng": "image/x-adobe-dng", "cr2": "image/x-canon-cr2", "cr3": "image/x-canon-cr3", "nef": "image/x-nikon-nef",
    "arw": "image/x-sony-arw", "raf": "image/x-fuji-raf", "rw2": "image/x-panasonic-rw2", "orf": "image/x-olympus-orf",
    "pef": "image/x-pentax-pef", "heic": "image/heic", "webp": "image/webp", "xmp": "application/rdf+xml",
    "md": "text/markdown", "xml": "application/xml",
}.items():  # fmt: skip
    _TYPES.add_type(_type, f".{_suffix}")


@dataclass(frozen=True, slots=True)
class Item:
    """A file, or a folder (`path` ends in "/"), at `path` in the download and at `original` under the document; `depth` folders
    below it. `picture`: it has a preview under /Thumbnails, or may have, as long as nobody has looked into it. `checked`: no
    background work would tell more of it."""

    path: str
    original: str
    ino: InodeNo
    mode: int
    size: int
    mtime_ns: int
    revision: RevisionId | None
    sha256: str | None
    crc32: int | None
    media_type: str
    facts: PictureFacts | None
    picture: bool
    described: Words
    checked: bool

    @property
    def is_folder(self) -> bool:
        return self.path.endswith("/")


@dataclass(frozen=True, slots=True)
class Document:
    """As of change number `seq` of the catalog. `path`: where it is on the drive; `above`: the folders it is in and itself."""

    ino: InodeNo
    seq: int
    name: str
    path: str
    above: Sequence[InodeNo]
    logical_id: str
    created_ns: int
    changed_ns: int
    described: Words
    items: Sequence[Item]

    @property
    def stem(self) -> str:
        """The folder that a bag has at its top."""
        return _stem(self.logical_id)

    @property
    def mets_name(self) -> str:
        return _computed_names(self.logical_id)[0]

    @property
    def table_name(self) -> str:
        return _computed_names(self.logical_id)[1]

    @property
    def state(self) -> str:
        """Names what people have put into it: the same, whatever has become known of its files since."""
        digest = hashlib.sha256()
        digest.update(repr((self.path, self.logical_id, self.created_ns, self.changed_ns, self.described)).encode())
        for item in self.items:
            told = item.original, item.mode, item.size, item.mtime_ns, item.revision, item.described
            digest.update(repr(told).encode())
        return digest.hexdigest()


def read_document(catalog: Catalog, ino: InodeNo) -> Document:
    """Raises NotFound, CatalogError."""
    below: dict[InodeNo, list[Below]] = {}

    def keep(each: Below) -> None:
        if stat_module.S_ISDIR(each.mode) or stat_module.S_ISREG(each.mode):
            below.setdefault(each.parent, []).append(each)

    state = catalog.document(ino, keep)
    name = state.path[-1][1] if state.path else ""
    logical_id = _logical_id(state.properties, name)
    shell = Document(
        ino, state.seq, name, "/" + "/".join(name for _, name in state.path), tuple(ino for ino, _ in state.path),
        logical_id, state.stat.birth_ns, state.stat.mtime_ns, _words(state.properties), (),
    )  # fmt: skip
    items = _items(ino, below, state.described, (shell.mets_name, shell.table_name))
    changed_ns = max([state.stat.mtime_ns, *(item.mtime_ns for item in items)])
    return Document(
        ino, shell.seq, name, shell.path, shell.above, logical_id, shell.created_ns, changed_ns, shell.described, items
    )


def read_names(catalog: Catalog, ino: InodeNo) -> tuple[str, str]:
    """The names of a document's METS and CSV, whatever is in it. Raises NotFound, CatalogError."""
    named = catalog.parents(ino)
    if not named:
        raise NotFound("That document was removed.")
    return _computed_names(_logical_id(catalog.properties(ino), named[0][1]))


def _logical_id(properties: Mapping[str, bytes], name: str) -> str:
    return _text(properties.get(LOGICAL_ID, b"")).strip() or name


def _stem(logical_id: str) -> str:
    return safe_name(logical_id, also=UNSAFE_IN_BAGS)


def _computed_names(logical_id: str) -> tuple[str, str]:
    """They leave room for what follows in the 255 bytes of a name."""
    short = _stem(logical_id).encode()[:STEM_MAX].decode(errors="ignore")
    return f"{short}_mets.xml", f"{short}_metadata.csv"


def time_text(ns: int) -> str:
    """RFC 3339 in UTC, to the second; the first or last that there is for years before 1 and after 9999."""
    seconds = min(max(ns // 10**9, -62135596800), 253402300799)
    return (datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)).isoformat() + "Z"


def _items(
    top: InodeNo, below: dict[InodeNo, list[Below]], described: Mapping[InodeNo, Mapping[str, bytes]],
    taken: Sequence[str],
) -> list[Item]:  # fmt: skip
    """Depth first, each folder before what is in it. Takes `below` apart, so that not both are in memory."""
    found: list[Item] = []
    waiting = [(top, "", "", iter(_ordered(below.pop(top, ()), taken)))]
    while waiting:
        _, path, original, children = waiting[-1]
        child = next(children, None)
        if child is None:
            waiting.pop()
            continue
        each, safe = child
        item = _item(each, _fitting(path, safe), original + each.name, described)
        found.append(item)
        if item.is_folder:
            rest = iter(_ordered(below.pop(each.ino, ()), ()))
            waiting.append((each.ino, item.path, item.original, rest))
    return found


def _ordered(children: Sequence[Below], taken: Sequence[str]) -> list[tuple[Below, str]]:
    safe = unique_names((each.name for each in children), taken=taken, also=UNSAFE_IN_BAGS)
    return sorted(((each, safe[each.name]) for each in children), key=lambda pair: natural_key(pair[1]))


def _fitting(folder: str, name: str) -> str:
    """The path, or where it would be too long to unpack, one at the top that stands for its folder."""
    if len((folder + name).encode()) <= PATH_MAX:
        return folder + name
    return f"_deep/{hashlib.sha256(folder.encode()).hexdigest()[:32]}/{name}"


def _item(each: Below, path: str, original: str, described: Mapping[InodeNo, Mapping[str, bytes]]) -> Item:
    words = _words(described.get(each.ino, {}))
    if stat_module.S_ISDIR(each.mode):
        return Item(
            path + "/", original + "/", each.ino, each.mode, 0, each.mtime_ns, None, None, None, "", None, False, words,
            True,
        )  # fmt: skip
    facts = from_json(each.facts) if each.facts else None
    empty = each.revision is None
    return Item(
        path, original, each.ino, each.mode, each.size, each.mtime_ns, each.revision,
        hashlib.sha256().hexdigest() if empty else each.sha256, 0 if empty else each.crc32,
        _media_type(each, facts), facts, not empty and _has_preview(each), words,
        empty or (each.sha256 is not None and (each.facts is not None or not is_likely(each.name))),
    )  # fmt: skip


def _media_type(each: Below, facts: PictureFacts | None) -> str:
    """By content where that is known; the name of what is no picture says nothing of pictures."""
    if facts is not None and facts.media_type:
        return facts.media_type
    guess = _TYPES.guess_type(each.name)[0] or UNKNOWN_TYPE
    return UNKNOWN_TYPE if each.facts == "" and guess.startswith("image/") else guess


def _has_preview(each: Below) -> bool:
    if len((each.name + SUFFIX).encode()) > NAME_BYTES:
        return False
    return is_likely(each.name) if each.facts is None else each.facts != ""


def _words(properties: Mapping[str, bytes]) -> Words:
    """(element, value), a value for every line of the property."""
    return [
        (name.removeprefix(DC_PREFIX), line.strip())
        for name, value in sorted(properties.items())
        if name.startswith(DC_PREFIX)
        for line in _plain(_text(value)).splitlines()
        if line.strip()
    ]


def _plain(value: str) -> str:
    """The text of a WebDAV property that was set with attributes, such as xml:lang, and is kept as XML; else `value`."""
    if not value.startswith("<"):
        return value
    try:
        element = etree.fromstring(value.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError:
        return value
    return str(etree.tostring(element, method="text", encoding="unicode"))


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
