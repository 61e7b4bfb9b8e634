"""Where every byte of a ZIP is, before any of them has been read. Pure arithmetic, no I/O.

Owns: the format (PKWARE APPNOTE 6.3.10). Used by: plan, content. Threading: a Layout is immutable.

Members are stored: RAW pictures do not shrink, and only so are sizes and offsets known at once. There are no data descriptors
(Java and macOS refuse them for stored members), ZIP64 fields only where a value does not fit, names in UTF-8 (bit 11),
modification times in DOS form (UTC) and, exactly to the second, in the UT field of Info-ZIP. About 45 bytes of memory a member,
and its name.
"""

from __future__ import annotations

import copy
import hashlib
import stat as stat_module
import struct
import time
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_MAX_16 = 0xFFFF
_MAX_32 = 0xFFFFFFFF
NAME_MAX = _MAX_16  # bytes of a path; its length is a 16-bit field

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_END_64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR_64 = struct.Struct("<IIQI")
_UT = struct.Struct("<HHBi")  # Info-ZIP's extended timestamp, with the modification time only
_UTF8 = 0x0800  # bit 11 of the flags
_UNIX = 3 << 8  # "version made by": modes are in the upper half of the external attributes
_PLAIN, _ZIP64 = 20, 45  # version needed: 2.0 for folders, 4.5 for ZIP64
_DIRECTORY = 0x10  # MS-DOS attribute
_DOS_FIRST, _DOS_LAST = 315532800, 4354819198  # seconds: 1980-01-01 00:00:00 and 2107-12-31 23:59:58, UTC
_PIECE_MAX = 64 * 1024  # bytes of headers joined before they are handed out


@dataclass(frozen=True, slots=True)
class Member:
    """One file or (`path` ends in "/") folder. `size` in bytes, `mode` with its type bits. `identity` names the bytes:
    where it is the same, they are. `crc32` None: not known yet; `with_checksums` fills it in."""

    path: str
    size: int
    mtime_ns: int
    mode: int
    crc32: int | None
    identity: str


@dataclass(frozen=True, slots=True)
class FileRange:
    """`size` bytes from `offset` of the member with this index."""

    member: int
    offset: int
    size: int


class Layout:
    """The members in their order. `size` is that of the whole ZIP in bytes; `etag` changes when one byte of it would."""

    def __init__(self, members: Iterable[Member]) -> None:
        """Raises ValueError for a path over 65,535 bytes and for a folder that is not empty."""
        self._names = bytearray()
        self._name_ends = array("Q")
        self._sizes = array("Q")
        self._times = array("q")
        self._modes = array("I")
        self._crcs = array("I")
        self._starts = array("Q")  # of each local header
        self._central = array("Q")  # of each central header, from the first one's
        self._unknown: set[int] = set()
        digest = hashlib.sha256(b"zip layout 1")
        at = central = 0
        for index, member in enumerate(members):
            name = member.path.encode()
            if not 0 < len(name) <= NAME_MAX:
                raise ValueError(f"a path in a ZIP has 1 to {NAME_MAX} bytes, not {len(name)}")
            if member.path.endswith("/") and member.size:
                raise ValueError("a folder has no bytes")
            self._names += name
            self._name_ends.append(len(self._names))
            self._sizes.append(member.size)
            self._times.append(member.mtime_ns // 10**9)
            self._modes.append(member.mode)
            self._crcs.append(member.crc32 or 0)
            if member.crc32 is None and member.size:
                self._unknown.add(index)
            self._starts.append(at)
            self._central.append(central)
            time_size = len(_time_extra(self._times[-1]))
            central += _CENTRAL.size + len(name) + _central_64_size(member.size, at) + time_size
            at += _LOCAL.size + len(name) + (20 if member.size >= _MAX_32 else 0) + time_size + member.size
            digest.update(
                b"%d %d %d %d %s %s"
                % (len(name), member.size, self._times[-1], member.mode, member.identity.encode(), name)
            )
        self._central_start = at
        self._end = _end_records(len(self._sizes), at, central)
        self._end_start = at + central
        self.size = self._end_start + len(self._end)
        self.etag = digest.hexdigest()[:40]

    def __len__(self) -> int:
        """The number of members."""
        return len(self._sizes)

    @property
    def memory(self) -> int:
        """About how many bytes this takes."""
        return len(self._names) + 64 * len(self)

    @property
    def unknown(self) -> frozenset[int]:
        """The members whose CRC-32 is still to be filled in; until then the bytes of their headers are wrong."""
        return frozenset(self._unknown)

    def with_checksums(self, found: Mapping[int, int]) -> Layout:
        """The same ZIP, of the same size and ETag, knowing these CRC-32s by member."""
        other = copy.copy(self)
        other._crcs = self._crcs[:]
        for index, crc in found.items():
            other._crcs[index] = crc
        other._unknown = self._unknown - found.keys()
        return other

    def pieces(self, offset: int, size: int) -> Iterator[bytes | FileRange]:
        """What the `size` bytes from `offset` consist of, in order; less at the end of the ZIP, nothing behind it."""
        end = min(offset + size, self.size)
        headers = bytearray()
        while offset < end:
            piece = self._piece(offset)
            if isinstance(piece, FileRange):
                if headers:
                    yield bytes(headers)
                    headers.clear()
                count = min(piece.size, end - offset)
                yield FileRange(piece.member, piece.offset, count)
            else:
                count = min(len(piece), end - offset)
                headers += piece[:count]
                if len(headers) >= _PIECE_MAX:
                    yield bytes(headers)
                    headers.clear()
            offset += count
        if headers:
            yield bytes(headers)

    def size_of(self, member: int) -> int:
        """Bytes of a member."""
        return self._sizes[member]

    def _piece(self, offset: int) -> bytes | FileRange:
        """All from `offset` to the end of the header or member it is in."""
        if offset >= self._end_start:
            return self._end[offset - self._end_start :]
        if offset >= self._central_start:
            offset -= self._central_start
            index = bisect_right(self._central, offset) - 1
            return self._central_header(index)[offset - self._central[index] :]
        # A member without bytes begins where its header ends, so the last one that begins here is the one.
        index = bisect_right(self._starts, offset) - 1
        offset -= self._starts[index]
        header = self._local_header(index)
        if offset < len(header):
            return header[offset:]
        offset -= len(header)
        return FileRange(index, offset, self._sizes[index] - offset)

    def _name(self, index: int) -> bytes:
        return bytes(self._names[self._name_ends[index - 1] if index else 0 : self._name_ends[index]])

    def _local_header(self, index: int) -> bytes:
        name, size, seconds = self._name(index), self._sizes[index], self._times[index]
        big = size >= _MAX_32
        extra = (struct.pack("<HHQQ", 1, 16, size, size) if big else b"") + _time_extra(seconds)
        shown = _MAX_32 if big else size
        head = _LOCAL.pack(
            0x04034B50, _ZIP64 if big else _PLAIN, _UTF8, 0, *_dos_time(seconds), self._crcs[index], shown, shown,
            len(name), len(extra),
        )  # fmt: skip
        return head + name + extra

    def _central_header(self, index: int) -> bytes:
        name, size, seconds, start = self._name(index), self._sizes[index], self._times[index], self._starts[index]
        fields = ([size, size] if size >= _MAX_32 else []) + ([start] if start >= _MAX_32 else [])
        extra = struct.pack(f"<HH{len(fields)}Q", 1, 8 * len(fields), *fields) if fields else b""
        extra += _time_extra(seconds)
        needed = _ZIP64 if fields else _PLAIN
        mode = self._modes[index]
        attributes = mode << 16 | (_DIRECTORY if stat_module.S_ISDIR(mode) else 0)
        shown = min(size, _MAX_32)
        head = _CENTRAL.pack(
            0x02014B50, _UNIX | needed, needed, _UTF8, 0, *_dos_time(seconds), self._crcs[index], shown, shown,
            len(name), len(extra), 0, 0, 0, attributes, min(start, _MAX_32),
        )  # fmt: skip
        return head + name + extra


def _central_64_size(size: int, start: int) -> int:
    fields = (2 if size >= _MAX_32 else 0) + (1 if start >= _MAX_32 else 0)
    return 4 + 8 * fields if fields else 0


def _end_records(count: int, central_start: int, central_size: int) -> bytes:
    end = _END.pack(
        0x06054B50,
        0,
        0,
        min(count, _MAX_16),
        min(count, _MAX_16),
        min(central_size, _MAX_32),
        min(central_start, _MAX_32),
        0,
    )
    if count < _MAX_16 and central_size < _MAX_32 and central_start < _MAX_32:
        return end
    end_64 = _END_64.pack(
        0x06064B50, _END_64.size - 12, _UNIX | _ZIP64, _ZIP64, 0, 0, count, count, central_size, central_start
    )
    return end_64 + _LOCATOR_64.pack(0x07064B50, 0, central_start + central_size, 1) + end


def _time_extra(seconds: int) -> bytes:
    """Nothing for a time that does not fit: its 32 bits end in 2038."""
    return _UT.pack(0x5455, 5, 1, seconds) if -(2**31) <= seconds < 2**31 else b""


def _dos_time(seconds: int) -> tuple[int, int]:
    """(time, date) in UTC, to two seconds; from 1980 to 2107."""
    at = time.gmtime(min(max(seconds, _DOS_FIRST), _DOS_LAST))
    clock = at.tm_hour << 11 | at.tm_min << 5 | min(at.tm_sec, 59) // 2
    return clock, at.tm_year - 1980 << 9 | at.tm_mon << 5 | at.tm_mday
