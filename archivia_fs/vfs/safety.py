"""Is it safe yet? What is known of one file's bytes.

Owns: the answer. Used by: vfs, and through it status, the WebDAV live properties and the xattrs of a mount.
Threading: values and pure functions.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping
from dataclasses import dataclass

from archivia_fs.types import Revision, RevisionId, Stat

PREFIX = "user.archivia."  # of the read-only xattrs that tell it


class Safety(enum.StrEnum):
    """`STORED`: complete at the store, verified, in the catalog, all checksums known. `PENDING`: as stored, but a checksum of
    the whole is still to be computed by scrub. `UPLOADING`: somebody is writing; the other fields tell of the old content."""

    STORED = "stored"
    UPLOADING = "uploading"
    PENDING = "checksum-pending"


@dataclass(frozen=True, slots=True)
class FileState:
    """`size` in bytes, `sha256` in hex, `crc32` as a number; None while pending. `since_ns`: when these bytes were complete, or for
    an empty file when it was last changed. `revision` None: it is empty."""

    safety: Safety
    size: int
    sha256: str | None
    crc32: int | None
    revision: RevisionId | None
    since_ns: int

    def words(self) -> Mapping[str, str]:
        """Name to text; what is pending is left out."""
        since = datetime.datetime.fromtimestamp(self.since_ns / 1e9, datetime.UTC)
        told = {
            "state": self.safety.value,
            "size": str(self.size),
            "sha256": self.sha256,
            "crc32": None if self.crc32 is None else f"{self.crc32:08x}",
            "revision": self.revision,
            "since": since.isoformat(timespec="milliseconds"),
        }
        return {name: value for name, value in told.items() if value is not None}


EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of no bytes


def state_of(stat: Stat, revision: Revision | None, *, uploading: bool) -> FileState:
    """From the committed stat and its revision (None: empty)."""
    if revision is None:
        safety = Safety.UPLOADING if uploading else Safety.STORED
        return FileState(safety, 0, EMPTY_SHA256, 0, None, stat.mtime_ns)
    known = revision.sha256 is not None and revision.crc32 is not None
    safety = Safety.UPLOADING if uploading else Safety.STORED if known else Safety.PENDING
    return FileState(safety, revision.size, revision.sha256, revision.crc32, revision.id, revision.created_ns)
