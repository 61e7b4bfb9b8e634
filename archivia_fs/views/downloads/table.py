"""The files of a document as a table: CSV as RFC 4180 has it, UTF-8, with Archivematica's first column and dc.* headers.

Owns: the columns. Used by: plan. Threading: a pure function.
"""

from __future__ import annotations

import csv
from collections import Counter

from archivia_fs.views.downloads.document import Document, Item, time_text
from archivia_fs.views.downloads.text import Packer, Text

COLUMNS = (
    "filename", "size", "mtime", "mime_type", "sha256", "crc32", "camera_make", "camera_model", "date_taken", "width",
    "height", "original_name",
)  # fmt: skip


def table(document: Document) -> Text:
    """One row per file, in the order of the ZIP. What is unknown is empty; a property with several values has several columns of
    the same name."""
    most: Counter[str] = Counter()
    for item in document.items:
        most |= Counter(element for element, _ in item.described)
    elements = [element for element in sorted(most) for _ in range(most[element])]
    out = _Utf8()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([*COLUMNS, *(f"dc.{element}" for element in elements)])
    for item in document.items:
        if not item.is_folder:
            writer.writerow([*_facts(item), *_described(item, elements)])
    return out.packer.text()


class _Utf8:
    """What csv writes to."""

    def __init__(self) -> None:
        self.packer = Packer()

    def write(self, text: str) -> int:
        return self.packer.write(text.encode())


def _facts(item: Item) -> list[str]:
    facts = item.facts
    return [
        item.path, str(item.size), time_text(item.mtime_ns), item.media_type, item.sha256 or "",
        "" if item.crc32 is None else f"{item.crc32:08x}",
        facts.make if facts else "", facts.model if facts else "", facts.taken if facts else "",
        str(facts.width) if facts and facts.width else "", str(facts.height) if facts and facts.height else "",
        item.original if item.original != item.path else "",
    ]  # fmt: skip


def _described(item: Item, elements: list[str]) -> list[str]:
    values: dict[str, list[str]] = {}
    for element, value in item.described:
        values.setdefault(element, []).append(value)
    return [values[element].pop(0) if values.get(element) else "" for element in elements]
