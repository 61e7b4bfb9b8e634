"""What makes a folder a bag (RFC 8493): the texts beside its `data/`. Pure.

Owns: the texts. Used by: plan. Threading: pure functions.
All are of a size that is known before the checksums are, so a bag's layout is too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from archivia_fs.views.downloads.document import Document, time_text

PENDING = "0" * 64  # in the place of a SHA-256 that is still to be computed
NAMES = ("bagit.txt", "bag-info.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt")
MANIFEST = 2  # its index in NAMES

_DECLARATION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"


def about(document: Document, sizes: Sequence[int]) -> tuple[bytes, bytes]:
    """The first two files. `sizes` in bytes, of all files under data/."""
    total = sum(sizes)
    info = [
        ("Bag-Software-Agent", "Archivia FS"),
        ("Bagging-Date", time_text(document.changed_ns)[:10]),
        ("Bag-Size", f"{total} bytes"),
        ("Payload-Oxum", f"{total}.{len(sizes)}"),
        ("External-Identifier", _one_line(document.logical_id)),
    ]
    info += [("External-Description", _one_line(value)) for element, value in document.described if element == "title"]
    return _DECLARATION, "".join(f"{label}: {value}\n" for label, value in info).encode()


def manifest(files: Iterable[tuple[str, str]]) -> bytes:
    """`files`: (path from the top of the bag, SHA-256 in hex)."""
    return "".join(f"{digest}  {path}\n" for path, digest in files).encode()


def tagged(tags: Sequence[bytes]) -> list[bytes]:
    """The first three files, and the last one, which has their checksums."""
    named = zip(NAMES, tags, strict=False)
    return [*tags, manifest((name, hashlib.sha256(data).hexdigest()) for name, data in named)]


def _one_line(text: str) -> str:
    return " ".join(text.split())
