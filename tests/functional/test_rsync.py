"""The programs people copy with, on the mount. Every byte is compared with its source.

What may map the file into memory (SQLite, Pillow) runs in a process of its own: a page fault does not let go of Python's lock, and
the daemon that has to answer it runs in this one.

The DNGs among the sources are generated, as no package ships a camera's own; where such lie beside the checkout they are sources
too (tests/masters.py).
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.functional.conftest import House
from tests.masters import masters

MIB = 1024**2


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


@pytest.mark.parametrize("how", ["-a", "-aH", "-a --inplace", "-a --whole-file --inplace", "-aHAX", "-a --partial"])
def test_rsync(source: Path, folder: Path, how: str) -> None:
    """A second run transfers nothing; what changed is sent, what went is deleted."""
    options = how.split()
    if "A" in how and os.geteuid() != 0:
        options = ["-aH"]
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


def test_an_interrupted_rsync_goes_on(source: Path, folder: Path) -> None:
    """--partial keeps what came, --append-verify sends the rest."""
    master = source / "0004.dng"
    slow = subprocess.Popen(["rsync", "-a", "--partial", "--inplace", "--bwlimit=8M", str(master), f"{folder}/"])
    time.sleep(1.5)
    slow.send_signal(signal.SIGTERM)
    slow.wait(30)
    there = folder / master.name
    size = there.stat().st_size
    assert 0 < size < master.stat().st_size
    assert there.read_bytes() == master.read_bytes()[:size]
    run("rsync", "-a", "--append-verify", master, f"{folder}/")
    assert there.read_bytes() == master.read_bytes()


def test_small_files(tmp_path: Path, folder: Path) -> None:
    top = tmp_path / "notes"
    for number in range(200):
        path = top / f"{number % 10}" / f"note-{number:03}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"note {number}".encode())
    assert transferred("-a", f"{top}/", folder) == 200
    assert digest(folder) == digest(top)
    assert transferred("-a", f"{top}/", folder) == 0


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
    run(*somebody, "rsync", "-rt", f"{source}/", folder)
    there = folder / "0004.dng"
    assert there.read_bytes() == (source / "0004.dng").read_bytes()
    assert (there.stat().st_uid, there.stat().st_gid) == (65534, 65534)
    there.chmod(0o600)
    there_by_root = folder / "root.dng"
    there_by_root.write_bytes(b"root's")
    there_by_root.chmod(0o600)
    refused = subprocess.run([*somebody, "cat", str(there_by_root)], capture_output=True, check=False)
    assert refused.returncode != 0
