"""What a picture says of itself, whatever its format.

Owns: the way from the first bytes to the reader of a format. Used by: maker, and whoever lists facts of files (see PictureFacts).
Threading: pure but for the reading.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from archivia_fs.errors import BadPicture
from archivia_fs.views.thumbnails.ifd import ColourSpace, PictureFacts, Preview, walk
from archivia_fs.views.thumbnails.jpeg import jpeg_head
from archivia_fs.views.thumbnails.windows import Inside, Read, Windows


def picture_facts(read: Read, size: int) -> PictureFacts | None:
    """TIFF with its relatives, JPEG and PNG; None for everything else. `read(offset, size)` gives bytes of the file, which is
    `size` bytes long; at most 256 KiB are asked. Raises BadPicture if a TIFF or JPEG is broken, and what `read` raises."""
    windows = Windows(read, size)
    head = windows.get(0, min(size, 32))
    if head[:2] in (b"II", b"MM"):
        return walk(windows)
    if head[:3] == b"\xff\xd8\xff":
        return _jpeg(windows)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR":
        width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        return PictureFacts("image/png", width=width, height=height)
    return None


def _jpeg(windows: Windows) -> PictureFacts:
    head = jpeg_head(windows, 0, windows.size)
    if head is None:
        raise BadPicture("The JPEG has no frame.")
    facts = PictureFacts("image/jpeg", width=head.width, height=head.height)
    if head.exif is None:
        return facts
    try:
        exif = walk(Inside(windows, *head.exif))
    except BadPicture:  # what is beside the picture does not hide it
        return facts
    return replace(facts, make=exif.make, model=exif.model, taken=exif.taken)


def to_json(facts: PictureFacts | None) -> str:
    """As the catalog keeps them; "" for None."""
    return "" if facts is None else json.dumps(asdict(facts), ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> PictureFacts | None:
    """What to_json wrote."""
    if not text:
        return None
    found = json.loads(text)
    previews = [
        Preview(**{**each, "colour_space": ColourSpace(each["colour_space"])}) for each in found.pop("previews")
    ]
    return PictureFacts(**found, previews=tuple(previews))
