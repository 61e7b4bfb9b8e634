"""The programs people copy with, on the mount. Every byte is compared with its source.

What may map the file into memory (SQLite, Pillow) runs in a process of its own: a page fault does not let go of Python's lock, and
the daemon that has to answer it runs in this one.

The DNGs among the sources are generated, as no package ships a camera's own; where such lie beside the checkout they are sources
too (tests/masters.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.functional.conftest import House
from tests.fuse.conftest import eventually
from tests.masters import masters
from tests.views import pictures

MIB = 1024**2
SMALL_FILES = int(os.environ.get("SMALL_FILES", "1500"))  # 10,000 take minutes and tell no more


@pytest.fixture
def folder(house: House, roll: str) -> Path:
    return house.mount / "Documents" / "archive" / roll


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A roll of masters, and of files of awkward sizes."""
    top, chance = tmp_path / "roll", random.Random(3)
    (top / "sub" / "deeper").mkdir(parents=True)
    for number, size in enumerate((0, 1, 100_000, 8 * MIB, 20 * MIB + 1)):
        (top / f"{number:04}.dng").write_bytes(chance.randbytes(size))
    (top / "sub" / "Blatt ä.tif").write_bytes(chance.randbytes(300_000))
    (top / "sub" / "deeper" / "link").symlink_to("../Blatt ä.tif")
    for name, data in masters().items():
        (top / name).write_bytes(data)
    (top / "0002.dng").chmod(0o640)
    os.utime(top / "0002.dng", ns=(1, 1_234_567_890_123_456_789))
    return top


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=100, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return done  # type: ignore[no-any-return]


def digest(top: Path) -> dict[str, str]:
    """Every file and link below, by content."""
    found = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder"
    return found


def transferred(*arguments: object) -> int:
    """rsync, and how many files it sent."""
    lines = run("rsync", "--stats", *arguments).stdout.splitlines()
    return int(next(line for line in lines if "files transferred:" in line).rpartition(":")[2].replace(",", ""))


@pytest.mark.parametrize("how", ["-a", "-aH", "-a --inplace", "-a --whole-file --inplace", "-a --partial"])
def test_rsync(source: Path, folder: Path, how: str) -> None:
    """A second run transfers nothing; what changed is sent, what went is deleted."""
    options = how.split()
    os.link(source / "0001.dng", source / "again.dng")
    count = transferred(*options, f"{source}/", folder)
    assert count >= 6
    assert digest(folder) == digest(source)
    assert (folder / "0002.dng").stat().st_mtime_ns == (source / "0002.dng").stat().st_mtime_ns
    assert (folder / "0002.dng").stat().st_mode == (source / "0002.dng").stat().st_mode
    assert ((folder / "again.dng").stat().st_nlink == 2) == ("H" in "".join(options))
    assert transferred(*options, f"{source}/", folder) == 0
    with (source / "0004.dng").open("r+b") as file:
        file.seek(10 * MIB)
        file.write(b"retouched")
    os.utime(source / "0004.dng", (2_000_000_000, 2_000_000_000))  # rsync compares whole seconds
    (source / "sub" / "Blatt ä.tif").unlink()
    assert transferred(*options, "--delete", f"{source}/", folder) == 1
    assert digest(folder) == digest(source)


WAYS = ["--inplace", "--partial", "--partial-dir=.rsync-partial", "--append-verify"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_rsync_goes_on(source: Path, folder: Path, way: str, number: signal.Signals) -> None:
    """Asked to end, it keeps what came, and a second run sends the rest. Killed with all its processes, it leaves no half master
    under the name, and a second run makes it whole."""
    master, there = source / "0004.dng", folder / "0004.dng"
    command = ["rsync", "-a", way, "--bwlimit=8M", str(master), f"{folder}/"]
    if way == "--append-verify":
        there.write_bytes(master.read_bytes()[: 2 * MIB])
    before = there.read_bytes() if there.exists() else b""
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as slow:
        eventually(lambda: most_written(folder) >= 6 * MIB, 30)
        if number == signal.SIGKILL:
            os.killpg(slow.pid, number)
        else:
            slow.send_signal(number)
        assert slow.wait(30) != 0
    if number == signal.SIGKILL:  # its files are closed by the kernel, a little later
        eventually(lambda: (there.read_bytes() if there.exists() else b"") == before)
    else:
        kept = folder / ".rsync-partial" / "0004.dng" if "dir" in way else there
        eventually(kept.exists)  # the last of its processes may still be busy with that
        assert 4 * MIB <= kept.stat().st_size < master.stat().st_size
        assert kept.read_bytes() == master.read_bytes()[: kept.stat().st_size]
    assert transferred("-a", way, master, f"{folder}/") == 1
    assert there.read_bytes() == master.read_bytes()
    assert transferred("-a", way, master, f"{folder}/") == 0


def most_written(folder: Path) -> int:
    """Bytes of the largest file, whatever rsync calls it meanwhile."""
    with contextlib.suppress(FileNotFoundError):  # renamed in this moment
        return max((path.stat().st_size for path in folder.rglob("*")), default=0)
    return 0


def test_thousands_of_small_files(tmp_path: Path, folder: Path) -> None:
    """In a deep tree, too. A second run transfers nothing; what is gone is deleted."""
    top, deep = tmp_path / "notes", Path(*(f"level-{level}" for level in range(40)))
    for number in range(SMALL_FILES):
        path = top / (deep if number % 50 == 0 else f"{number % 20}") / f"note-{number:05}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"note {number}".encode())
    assert transferred("-a", f"{top}/", folder) == SMALL_FILES
    assert digest(folder) == digest(top)
    assert transferred("-a", f"{top}/", folder) == 0
    shutil.rmtree(top / "7")
    (top / deep / "note-00000.txt").write_bytes(b"another note")
    assert transferred("-a", "--delete", f"{top}/", folder) == 1
    assert {path.relative_to(folder) for path in folder.rglob("*")} == {
        path.relative_to(top) for path in top.rglob("*")
    }
    assert (folder / deep / "note-00000.txt").read_bytes() == b"another note"


def test_cp_mv_and_tar(source: Path, folder: Path, tmp_path: Path) -> None:
    run("cp", "-a", source, folder / "copy")
    assert digest(folder / "copy") == digest(source)
    (folder / "other document").mkdir()
    run("mv", folder / "copy", folder / "other document" / "moved")
    run("tar", "-C", folder / "other document" / "moved", "-cf", tmp_path / "out.tar", ".")
    (folder / "unpacked").mkdir()
    run("tar", "-C", folder / "unpacked", "-xf", tmp_path / "out.tar")
    assert digest(folder / "unpacked") == digest(source)
    run("cp", "-r", "--reflink=auto", source / "0004.dng", folder / "reflink.dng")
    assert (folder / "reflink.dng").read_bytes() == (source / "0004.dng").read_bytes()


def facts(top: Path) -> dict[str, tuple[int, ...]]:
    """What tar and rsync keep of every file, link and folder below, besides its content. The mtime is in nanoseconds."""
    found = {str(path.relative_to(top)): path.lstat() for path in sorted(top.rglob("*"))}
    return {name: (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime_ns) for name, stat in found.items()}


def dress(source: Path) -> None:
    """Owners, modes and times that nobody has by accident."""
    for number, path in enumerate(sorted(source.rglob("*"))):
        if os.geteuid() == 0:
            os.chown(path, 1000 + number, 2000 + number, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod([0o640, 0o4755, 0o600, 0o2751, 0o777, 0o1770][number % 6] | path.is_dir() * 0o700)
    for number, path in enumerate(sorted(source.rglob("*"), reverse=True)):  # folders after what is in them
        os.utime(path, ns=(1, 1_500_000_000_123_456_789 + number * 10**10 + number), follow_symlinks=False)


def test_owners_modes_and_times(source: Path, folder: Path, tmp_path: Path) -> None:
    """By tar into the mount, from the mount to the mount by rsync and cp, and by tar out of it again."""
    dress(source)
    expected, tar = facts(source), ["tar", "--format=posix"]  # ustar has whole seconds
    for name in ("unpacked", "synced", "copied"):
        (folder / name).mkdir()
    (tmp_path / "back").mkdir()
    run(*tar, "-C", source, "-cf", tmp_path / "in.tar", ".")
    run(*tar, "-C", folder / "unpacked", "-xpf", tmp_path / "in.tar")
    assert facts(folder / "unpacked") == expected
    run("rsync", "-a", f"{folder}/unpacked/", folder / "synced")
    run("cp", "-a", f"{folder}/unpacked/.", folder / "copied")
    assert facts(folder / "synced") == facts(folder / "copied") == expected
    run(*tar, "-C", folder / "copied", "-cf", tmp_path / "out.tar", ".")
    run(*tar, "-C", tmp_path / "back", "-xpf", tmp_path / "out.tar")
    assert facts(tmp_path / "back") == expected
    assert digest(tmp_path / "back") == digest(source)
    run(*tar, "-C", folder / "synced", "--compare", "-f", tmp_path / "in.tar")


def test_editing_in_place(source: Path, folder: Path) -> None:
    master, there = source / "0004.dng", folder / "0004.dng"
    shutil.copy2(master, there)
    expected = bytearray(master.read_bytes())
    run("dd", "if=/dev/zero", f"of={there}", "bs=4096", "seek=2000", "count=3", "conv=notrunc", "status=none")
    expected[2000 * 4096 : 2003 * 4096] = bytes(3 * 4096)
    assert there.read_bytes() == expected
    run("truncate", "-s", "15000000", there)
    with there.open("ab") as file:
        file.write(b"the end")
    assert there.read_bytes() == expected[:15_000_000] + b"the end"


def test_git(folder: Path, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    plain = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    run("git", "init", "-q", origin, env=plain)
    for number in range(30):
        (origin / f"{number}.txt").write_text(f"{number}\n" * 100)
    run("git", "-C", origin, "add", ".", env=plain)
    run("git", "-C", origin, *who, "commit", "-qm", "all", env=plain)
    run("git", "clone", "-q", "--no-local", origin, folder / "clone", env=plain)
    run("git", "-C", folder / "clone", "fsck", "--full", env=plain)
    assert run("git", "-C", folder / "clone", "status", "--porcelain", env=plain).stdout == ""


SQLITE = """
import sqlite3, sys
path, journal = sys.argv[1:]
try:
    database = sqlite3.connect(path, timeout=5)
    database.execute(f"PRAGMA journal_mode={journal}")
    database.execute("CREATE TABLE t (n INTEGER, text TEXT)")
    for number in range(20):
        database.execute("INSERT INTO t VALUES (?, ?)", (number, "x" * 1000))
        database.commit()
    database.close()
except sqlite3.OperationalError as error:
    print("refused", error)
    sys.exit()
again = sqlite3.connect(path)
print(*again.execute("PRAGMA integrity_check").fetchone(), *again.execute("SELECT count(*) FROM t").fetchone())
"""
PIXELS = """
import hashlib, sys
from PIL import Image
print(*(hashlib.sha256(Image.open(path).tobytes()).hexdigest() for path in sys.argv[1:]))
"""


@pytest.mark.parametrize("journal", ["delete", "truncate", "wal"])
def test_sqlite_never_corrupts(folder: Path, journal: str) -> None:
    """It works or refuses: a write-ahead log needs shared memory, which a network drive has not."""
    said = run(sys.executable, "-c", SQLITE, folder / f"{journal}.db", journal).stdout.strip()
    assert said == "ok 20" or (journal == "wal" and said.startswith("refused")), said


ROWS = 25
SQLITE_WRITER = """
import sqlite3, sys
path, name, rows = sys.argv[1:]
database = sqlite3.connect(path, timeout=30, isolation_level=None)
for number in range(int(rows)):
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO t VALUES (?, ?, ?)", (name, number, "x" * 3000))
    database.execute("UPDATE total SET n = n + 1")
    database.execute("COMMIT")
    print(number + 1, flush=True)
"""
SQLITE_LOOK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=30)
print(*database.execute("PRAGMA integrity_check").fetchone())
print(*database.execute("SELECT (SELECT count(*) FROM t), (SELECT n FROM total)").fetchone())
"""


@pytest.mark.parametrize("killed", [False, True], ids=["to the end", "one is killed"])
def test_two_processes_write_one_sqlite_database(folder: Path, killed: bool) -> None:
    """Every transaction that was acknowledged is there, none by half, also when one of them is killed in the midst of one."""
    path = folder / "shared.db"
    start = "CREATE TABLE t (name TEXT, n INTEGER, text TEXT); CREATE TABLE total (n INTEGER); INSERT INTO total VALUES (0);"
    run(
        sys.executable,
        "-c",
        "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])",
        path,
        start,
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", SQLITE_WRITER, str(path), name, rows], stdout=subprocess.PIPE, text=True
        )
        for name, rows in (("a", str(ROWS)), ("b", "100000" if killed else str(ROWS)))
    ]
    said = writers[0].communicate(timeout=100)[0].split()
    if killed:
        writers[1].kill()
    said += writers[1].communicate(timeout=100)[0].split()
    assert [writer.returncode for writer in writers] == [0, -signal.SIGKILL if killed else 0]
    integrity, counts = run(sys.executable, "-c", SQLITE_LOOK, path).stdout.splitlines()
    rows, total = (int(count) for count in counts.split())
    assert integrity == "ok"
    assert rows == total
    assert rows - len(said) in ((0, 1) if killed else (0,))  # one may have been stored and not yet acknowledged


LIBRAW = """
import hashlib, rawpy, sys
for path in sys.argv[1:]:
    with rawpy.imread(path) as raw:
        print(hashlib.sha256(raw.raw_image.tobytes()).hexdigest(), raw.sizes.raw_width, raw.sizes.raw_height)
"""


def test_a_libraw_program_reads_a_dng(folder: Path, tmp_path: Path) -> None:
    width, height = 3000, 2001  # 12 MB: three blocks
    pixels = random.Random(4).randbytes(width * height * 2)
    pictures.dng(raw=(width, height), raw_bytes=pixels, previews=[pictures.jpeg(400, 300)]).write(tmp_path / "a.dng")
    shutil.copy(tmp_path / "a.dng", folder / "a.dng")
    there, here = run(sys.executable, "-c", LIBRAW, folder / "a.dng", tmp_path / "a.dng").stdout.splitlines()
    assert there == here == f"{hashlib.sha256(pixels).hexdigest()} {width} {height}"


@pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="exiftool (Debian: libimage-exiftool-perl) is not installed"
)
@pytest.mark.parametrize("how", [["-overwrite_original"], ["-overwrite_original_in_place"], []])
def test_exiftool(folder: Path, tmp_path: Path, how: list[str]) -> None:
    """With its own temporary file, in place, and with a backup."""
    from PIL import Image

    Image.effect_noise((900, 700), 80).save(tmp_path / "a.tif")
    picture = folder / "a.tif"
    shutil.copy(tmp_path / "a.tif", picture)
    run("exiftool", "-q", *how, "-Artist=An archivist", picture)
    assert run("exiftool", "-s3", "-Artist", picture).stdout.strip() == "An archivist"
    changed, plain = run(sys.executable, "-c", PIXELS, picture, tmp_path / "a.tif").stdout.split()
    assert changed == plain


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_as_another_user(source: Path, folder: Path, house: House) -> None:
    folder.chmod(0o777)
    source.parent.chmod(0o755)
    for path in [source, *source.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755)
    for parent in (*source.parents, *house.mount.parents):
        if parent.stat().st_mode & 0o005 != 0o005 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o005)
    somebody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    by_somebody = [*somebody, "rsync", "-a", "--stats"]
    assert "files transferred: 0" not in run(*by_somebody, f"{source}/", folder / "his").stdout
    assert digest(folder / "his") == digest(source)
    assert "files transferred: 0" in run(*by_somebody, f"{source}/", folder / "his").stdout
    there = folder / "his" / "0004.dng"
    assert there.read_bytes() == (source / "0004.dng").read_bytes()
    assert (there.stat().st_uid, there.stat().st_gid) == (65534, 65534)
    there.chmod(0o600)
    there_by_root = folder / "root.dng"
    there_by_root.write_bytes(b"root's")
    there_by_root.chmod(0o600)
    refused = subprocess.run([*somebody, "cat", str(there_by_root)], capture_output=True, check=False)
    assert refused.returncode != 0
