"""The layout of a ZIP: every range of it is that range of the whole, and other people's readers accept it."""

from __future__ import annotations

import io
import random
import stat as stat_module
import subprocess
import zipfile
import zlib
from pathlib import Path
from shutil import which

import pytest

from archivia_fs.content import FileObject
from archivia_fs.vfs import crc
from archivia_fs.views.downloads.layout import FileRange, Layout, Member

FILE, FOLDER = stat_module.S_IFREG | 0o640, stat_module.S_IFDIR | 0o750
NAMES = ("a", "ä", "日本", "📷", "Über/größe", "e\u0301", "x" * 200, "with space", "p.dng")
MAX_32 = 0xFFFFFFFF
SEVEN_ZIP = "7zz" if which("7zz") else "7z"

# Reads all with both of Java's readers; with a second argument only that entry, by the directory.
JAVA = """
import java.io.*; import java.nio.charset.*; import java.util.*; import java.util.zip.*;
class Check { public static void main(String[] a) throws Exception {
  if (a.length > 1) try (ZipFile file = new ZipFile(a[0])) {
    System.out.println(file.size() + " " + file.getInputStream(file.getEntry(a[1])).readAllBytes().length); return; }
  long entries = 0, bytes = 0; byte[] b = new byte[65536];
  try (ZipInputStream in = new ZipInputStream(new BufferedInputStream(new FileInputStream(a[0])))) {
    for (ZipEntry e; (e = in.getNextEntry()) != null; entries++) for (int n; (n = in.read(b)) > 0; ) bytes += n; }
  try (ZipFile file = new ZipFile(a[0])) {
    long again = 0; Enumeration<? extends ZipEntry> all = file.entries();
    while (all.hasMoreElements()) { InputStream in = file.getInputStream(all.nextElement());
      for (int n; (n = in.read(b)) > 0; ) again += n; }
    System.out.println(entries + " " + bytes + " " + file.size() + " " + again); } } }
"""


class Zeros:
    """A Content over a layout whose members are all zeros, however large."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.size = layout.size
        self.etag = layout.etag
        self.read = 0

    def pread(self, offset: int, size: int) -> bytes:
        self.read += size
        pieces = self.layout.pieces(offset, size)
        return b"".join(bytes(each.size) if isinstance(each, FileRange) else each for each in pieces)

    def expect(self, start: int, end: int) -> None:
        """Nothing to fetch."""

    def close(self) -> None:
        """Nothing is held."""


def zeros(path: str, size: int, mtime: int = 1_600_000_000) -> Member:
    return Member(path, size, mtime * 10**9, FILE, crc.zeros(size), f"zeros {size}")


def whole(layout: Layout, bodies: list[bytes]) -> bytes:
    return piece_of(layout, bodies, 0, layout.size)


def piece_of(layout: Layout, bodies: list[bytes], offset: int, size: int) -> bytes:
    found = bytearray()
    for piece in layout.pieces(offset, size):
        if isinstance(piece, FileRange):
            assert piece.size > 0
            assert piece.offset + piece.size <= len(bodies[piece.member])
            found += bodies[piece.member][piece.offset : piece.offset + piece.size]
        else:
            found += piece
    return bytes(found)


def some(rng: random.Random) -> tuple[Layout, list[Member], list[bytes]]:
    members, bodies = [], []
    for index in range(rng.choice((0, 1, 2, 3, 10, 60))):
        folder = rng.random() < 0.2
        body = b"" if folder or rng.random() < 0.2 else rng.randbytes(rng.choice((1, 10, 1000, 5000)))
        path = f"{rng.choice(NAMES)}-{index}" + ("/" if folder else "")
        seconds = rng.choice((-5, 0, 315532799, 1_600_000_001, 2**31 - 1, 2**31, 2**33))
        members.append(
            Member(path, len(body), seconds * 10**9, FOLDER if folder else FILE, zlib.crc32(body), str(index))
        )
        bodies.append(body)
    return Layout(members), members, bodies


def test_every_range_is_that_range_of_the_whole() -> None:
    rng = random.Random(1)
    for _ in range(150):
        layout, _, bodies = some(rng)
        data = whole(layout, bodies)
        assert len(data) == layout.size
        for _ in range(40):
            offset = rng.randrange(layout.size + 10)
            size = rng.choice((0, 1, 7, 100, 4096, layout.size))
            assert piece_of(layout, bodies, offset, size) == data[offset : offset + size]


def test_zipfile_reads_what_went_in() -> None:
    rng = random.Random(2)
    for _ in range(100):
        layout, members, bodies = some(rng)
        with zipfile.ZipFile(io.BytesIO(whole(layout, bodies))) as archive:
            assert archive.testzip() is None
            infos = archive.infolist()
            assert [info.filename for info in infos] == [member.path for member in members]
            for info, member, body in zip(infos, members, bodies, strict=True):
                assert archive.read(info) == body
                assert info.external_attr >> 16 == member.mode
                assert info.compress_type == zipfile.ZIP_STORED
                assert info.flag_bits == 0x800
                assert info.is_dir() == member.path.endswith("/")
                assert info.extract_version == info.create_version == 20
                assert info.create_system == 3


def test_times_are_exact_or_the_nearest_that_there_is() -> None:
    times = {
        -(10**10): (1980, 1, 1, 0, 0, 0),
        1_600_000_001: (2020, 9, 13, 12, 26, 40),
        10**10: (2107, 12, 31, 23, 59, 58),
    }
    for seconds, shown in times.items():
        layout = Layout([Member("a", 0, seconds * 10**9 + 5, FILE, 0, "")])
        info = zipfile.ZipFile(io.BytesIO(whole(layout, [b""]))).infolist()[0]
        assert info.date_time == shown
        exact = b"UT\x05\0\x01" + seconds.to_bytes(4, "little", signed=True) if abs(seconds) < 2**31 else b""
        assert info.extra == exact


@pytest.mark.parametrize("size", [MAX_32 - 1, MAX_32, MAX_32 + 1, 80 * 10**9])
def test_zip64_just_where_it_is_needed(size: int) -> None:
    layout = Layout([zeros("first", 5), zeros("large", size), zeros("last", 3)])
    content = Zeros(layout)
    first, large, last = zipfile.ZipFile(FileObject(content)).infolist()
    assert (first.file_size, large.file_size, last.file_size) == (5, size, 3)
    assert [each.extract_version for each in (first, large, last)] == [20, 45 if size >= MAX_32 else 20, 45]
    assert last.header_offset > MAX_32 - 1
    local = content.pread(large.header_offset, 30)
    assert int.from_bytes(local[4:6], "little") == large.extract_version
    assert content.pread(last.header_offset, 4) == b"PK\3\4"
    assert content.read < 10_000
    assert zipfile.ZipFile(FileObject(content)).read("last") == bytes(3)


def test_ranges_of_a_large_one_agree_with_each_other() -> None:
    rng = random.Random(3)
    layout = Layout([zeros(f"{index:04}", rng.choice((0, 1, 2**20, 2**32, 2**36))) for index in range(500)])
    content = Zeros(layout)
    edges = [info.header_offset for info in zipfile.ZipFile(FileObject(content)).infolist()] + [layout.size]
    for _ in range(1000):
        middle = max(0, rng.choice(edges) + rng.randrange(-200, 200))
        before, after = rng.randrange(300), rng.randrange(300)
        start = max(0, middle - before)
        both = content.pread(start, middle - start) + content.pread(middle, after)
        assert content.pread(start, middle - start + after) == both


@pytest.mark.parametrize("count", [65_534, 65_535, 70_000])
def test_many_members(count: int) -> None:
    layout = Layout(zeros(f"pages/{index}.dng", 0) for index in range(count))
    archive = zipfile.ZipFile(FileObject(Zeros(layout)))
    assert len(archive.infolist()) == count == len(layout)
    assert (Zeros(layout).pread(layout.size - 42, 4) == b"PK\6\7") == (count >= 65_535)
    assert layout.memory < 100 * count


def test_the_etag_names_the_bytes() -> None:
    one = Member("a", 5, 10**9, FILE, 1, "x")
    tags = {
        Layout(members).etag
        for members in (
            [one], [], [one, one], [Member("b", 5, 10**9, FILE, 1, "x")], [Member("a", 6, 10**9, FILE, 1, "x")],
            [Member("a", 5, 2 * 10**9, FILE, 1, "x")], [Member("a", 5, 10**9, FILE | 1, 1, "x")],
            [Member("a", 5, 10**9, FILE, 1, "y")],
        )
    }  # fmt: skip
    assert len(tags) == 8
    assert Layout([one]).etag == Layout([Member("a", 5, 10**9 + 7, FILE, None, "x")]).etag


def test_checksums_may_come_later() -> None:
    bodies = [b"first", b"", b"third"]
    members = [Member(str(i), len(body), 0, FILE, None, str(i)) for i, body in enumerate(bodies)]
    layout = Layout(members)
    assert layout.unknown == {0, 2}
    known = layout.with_checksums({index: zlib.crc32(bodies[index]) for index in layout.unknown})
    assert not known.unknown
    assert (known.size, known.etag) == (layout.size, layout.etag)
    assert layout.unknown
    assert zipfile.ZipFile(io.BytesIO(whole(known, bodies))).testzip() is None


@pytest.mark.parametrize("path", ["", "x" * 65_536])
def test_a_path_that_no_zip_can_hold(path: str) -> None:
    with pytest.raises(ValueError, match="1 to 65535 bytes"):
        Layout([zeros(path, 0)])
    with pytest.raises(ValueError, match="folder"):
        Layout([zeros("folder/", 1)])


def kinds() -> dict[str, Layout]:
    odd = [Member(f"{name}-{i}", 0, i * 10**17, FILE, 0, "") for i, name in enumerate(NAMES)]
    folders = [Member("leer/", 0, 0, FOLDER, 0, ""), Member("a/b/", 0, 0, FOLDER, 0, "")]
    return {
        "empty document": Layout(folders),
        "names": Layout([*folders, *odd, zeros("umlaut ä.dng", 100_000)]),
        "70,000 members": Layout(zeros(f"{index}.txt", 1) for index in range(70_000)),
    }


@pytest.mark.parametrize("kind", list(kinds()))
def test_programs_accept_it(kind: str, tmp_path: Path) -> None:
    layout = kinds()[kind]
    content = Zeros(layout)
    path = tmp_path / "x.zip"
    path.write_bytes(content.pread(0, layout.size))
    _check_with_programs(path, layout)


@pytest.mark.parametrize("kind", ["one member", "all together", "many members"])
def test_programs_accept_more_than_4_gib(kind: str, tmp_path: Path) -> None:
    """Sparse files: only headers take disk. 7-Zip reads them whole; unzip and bsdtar do too, but need a minute for it."""
    large = {
        "one member": [zeros("large", MAX_32 + 10)],
        "all together": [zeros(f"page {index}.dng", 2**26) for index in range(65)],
        "many members": [zeros("large", MAX_32 + 10), *(zeros(f"{index}", 0) for index in range(70_000))],
    }
    layout = Layout([*large[kind], zeros("small", 10)])
    path = tmp_path / "x.zip"
    with path.open("wb") as file:
        offset = 0
        for piece in layout.pieces(0, layout.size):
            if not isinstance(piece, FileRange):
                file.seek(offset)
                file.write(piece)
            offset += piece.size if isinstance(piece, FileRange) else len(piece)
    assert path.stat().st_size == layout.size > 2**32
    for listing in (["unzip", "-l", path], [SEVEN_ZIP, "l", path], ["bsdtar", "-tvf", path]):
        words = run(*listing).split()
        assert {"small", str(large[kind][0].size)} <= set(words)
    run("unzip", "-tqq", path, "small")
    for extract in (
        ["unzip", "-p", path, "small"],
        [SEVEN_ZIP, "x", "-so", path, "small"],
        ["bsdtar", "-xOf", path, "small"],
    ):
        assert run(*extract) == "\0" * 10
    if kind != "many members":
        run(SEVEN_ZIP, "t", path)
    if which("java"):
        assert java(path, "small") == [len(layout), 10]


def _check_with_programs(path: Path, layout: Layout) -> None:
    for program in (["unzip", "-tqq"], [SEVEN_ZIP, "t"], ["bsdtar", "-xOf"]):
        run(*program, path)
    if which("java"):
        entries, size, again, size_again = java(path)
        assert entries == again == len(layout)
        assert size == size_again == sum(info.file_size for info in zipfile.ZipFile(path).infolist())


def run(*words: str | Path) -> str:
    """What a program says. All but Java come with `make test`."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stdout[-500:], done.stderr)
    return done.stdout


def java(path: Path, *names: str) -> list[int]:
    """The numbers that JAVA prints."""
    source = path.with_name("Check.java")
    source.write_text(JAVA)
    return [int(word) for word in run("java", "-XX:TieredStopAtLevel=1", source, path, *names).split()]
