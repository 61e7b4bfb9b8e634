"""One preview of one file: find out what it is, try the ways there are, decode.

Owns: what a file is, and how many are decoded at a time. Used by: service. Threading: any thread.
python-magic names the family, from the first bytes and never from the name; within TIFF the directories decide (libmagic
calls every DNG image/tiff).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import magic

from archivia_fs.content import Content
from archivia_fs.errors import BadPicture, Busy
from archivia_fs.views.thumbnails.facts import picture_facts
from archivia_fs.views.thumbnails.failures import Failure, NoPreview, NotNow, failure_of
from archivia_fs.views.thumbnails.ifd import PictureFacts
from archivia_fs.views.thumbnails.memory import memory_available
from archivia_fs.views.thumbnails.pool import Decoded, Pool, handed_over
from archivia_fs.views.thumbnails.turns import CLOSING, Demand
from archivia_fs.views.thumbnails.versions import decoder_name, no_raw
from archivia_fs.views.thumbnails.ways import Way, plain_ways, raw_ways, tiff_ways
from archivia_fs.views.thumbnails.windows import Read
from catalog.previews import PreviewState

log = logging.getLogger(__name__)

HEAD = 4096  # bytes that libmagic sees; more do not make it wiser, and it parses strangers' bytes in our process
SMALL_PICTURE = 16 * 1024**2  # bytes handed to a decoder; what is larger is so one at a time

_KINDS = {
    "image/jpeg": "jpeg", "image/png": "png", "image/webp": "webp", "image/heic": "heif", "image/heif": "heif",
    "image/heic-sequence": "heif", "image/heif-sequence": "heif", "image/avif": "heif",
}  # fmt: skip
_RAW_TYPES = frozenset({"image/x-fuji-raf", "image/x-canon-crw", "image/x-x3f", "image/x-sigma-x3f"})
# What libmagic 5.44 does not know: (offset, bytes, media type).
_RAW_MARKS = (
    (4, b"ftypcrx ", "image/x-canon-cr3"), (0, b"FUJIFILMCCD-RAW", "image/x-fuji-raf"), (0, b"\0MRM", "image/x-minolta-mrw"),
    (0, b"FOVb", "image/x-sigma-x3f"), (6, b"HEAPCCDR", "image/x-canon-crw"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    """What a file is. `facts` None: no picture. `ways` in the order of trying."""

    facts: PictureFacts | None
    ways: Sequence[Way] = ()
    reason: str = ""
    failure: Failure = Failure.LIMITS  # what `reason` is about

    @property
    def quick(self) -> bool:
        """Whether it costs some 50 ms, and does not look like a file that is still being written."""
        return self.facts is None or (bool(self.ways) and self.ways[0].state is PreviewState.EMBEDDED)


@dataclass(frozen=True, slots=True)
class Made:
    """`pictures`: three JPEGs (256, 512, 1200), none for what is no picture or cannot be decoded; then `reason` says why, and
    `failure` in one word. `again`: it may work later. `facts` None: no picture."""

    state: PreviewState
    facts: PictureFacts | None = None
    pictures: Sequence[bytes] = ()
    reason: str = ""
    failure: Failure | None = None
    again: bool = False


class Maker:
    """Makes previews with the workers of `pool`. `decoder` names the versions of what decodes."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._magic = magic.Magic(mime=True)
        self._magic_lock = threading.Lock()
        self._no_raw = no_raw()
        self.decoder = decoder_name()
        if self._no_raw:
            log.error("%s Pictures without a preview inside them are shown grey.", self._no_raw)

    def look(self, content: Content) -> Look:
        """Reads at most 256 KiB; of a large TIFF without a preview also the tables of its strips or tiles. Raises StoreError."""
        read = reader(content)
        head = read(0, min(HEAD, content.size))
        family = self._family(head)
        if family in _KINDS:
            return self._plain(content, family)
        if family != "image/tiff":
            if family is None:
                return Look(None, reason="It is no picture.")
            return Look(PictureFacts(family, raw=True), *raw_ways(content.size))
        try:
            facts = picture_facts(read, content.size)
        except BadPicture as error:
            return Look(PictureFacts(family), reason=str(error), failure=Failure.CORRUPT)
        if facts is None:
            return Look(None, reason="It is no picture.")
        return Look(facts, *tiff_ways(read, content.size, facts))

    def make(self, content: Content, look: Look, demand: Demand) -> Made:
        """Raises StoreError, Busy."""
        if look.facts is None:
            return Made(PreviewState.NONE, reason=look.reason)
        reasons = {look.reason: look.failure} if look.reason else {}
        again: Failure | None = None
        for way in look.ways:
            try:
                decoded = self._decode(content, way, demand)
                return Made(way.state, look.facts.completed(decoded.facts), decoded.pictures)
            except BadPicture as error:
                reasons.setdefault(str(error), failure_of(error))
                if isinstance(error, NotNow):
                    again = again or error.failure
        failure = again or next(iter(reasons.values()), Failure.UNSUPPORTED)
        return Made(PreviewState.PLACEHOLDER, look.facts, (), " ".join(reasons), failure, again is not None)

    def hurry(self, demand: Demand) -> None:
        """Somebody waits now for what is being made."""
        self._pool.turns.hurry(demand)

    def _family(self, head: bytes) -> str | None:
        """A media type; None for what is no picture. All of TIFF is "image/tiff"."""
        for offset, mark, media_type in _RAW_MARKS:
            if head[offset : offset + len(mark)] == mark:
                return media_type
        if head[:4] in (b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return "image/tiff"
        with self._magic_lock:
            found = str(self._magic.from_buffer(head)) if head else ""
        return found if found in _KINDS or found in _RAW_TYPES else None

    def _plain(self, content: Content, family: str) -> Look:
        facts = PictureFacts(family)
        try:
            facts = picture_facts(reader(content), content.size) or facts
        except BadPicture as error:
            return Look(facts, reason=str(error), failure=Failure.CORRUPT)
        return Look(facts, *plain_ways(_KINDS[family], content.size))

    def _decode(self, content: Content, way: Way, demand: Demand) -> Decoded:
        if way.job.kind == "raw" and self._no_raw:
            raise NoPreview(self._no_raw, Failure.UNSUPPORTED)
        turns, size = self._pool.turns, way.part.size
        large = size > SMALL_PICTURE
        with turns.turn(demand, slow=large or way.job.kind != "jpeg", large=large):
            if size > memory_available() // 2:
                if turns.large > large:
                    raise Busy("Other large pictures are being decoded; try again in a moment.")
                words = f"This machine has too little free memory for the {size} bytes of the file now."
                raise NotNow(words, Failure.MEMORY)
            with handed_over(way.part, self._reader(content)) as picture:
                return self._pool.decode(way.job, picture)

    def _reader(self, content: Content) -> Read:
        """As reader, until we are closing."""
        read = reader(content)

        def read_on(offset: int, size: int) -> bytes:
            if self._pool.turns.closed:
                raise Busy(CLOSING)
            return read(offset, size)

        return read_on


def reader(content: Content) -> Read:
    """A content as the walker wants it; raises StoreError."""
    return lambda offset, size: bytes(content.pread(offset, size))
