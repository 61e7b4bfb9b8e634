"""What another door commits is on the mount at once, although the kernel keeps everything for an hour."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import unicodedata
from pathlib import Path

from archivia_fs.types import SetAttr
from tests.fuse.conftest import eventually
from tests.fuse.toy import ROOT, SELF, ToyVfs


def test_size_attributes_and_bytes_are_there_when_the_other_door_has_its_answer(vfs: ToyVfs, mount: Path) -> None:
    """[C1] What one door commits, the other shows at once: names, size, bytes and ETag, the kernel's caches included."""
    ino = vfs.add("/a", b"one")
    time.sleep(0)
    for round_ in range(50):
        content = b"x" * (round_ * 37 % 4096) + str(round_).encode()
        assert (mount / "a").stat().st_size == len(vfs.data[ino])
        vfs.commit(ino, content)
        assert (mount / "a").stat().st_size == len(content)
        assert (mount / "a").read_bytes() == content
        vfs.setattr(SELF, ino, SetAttr(mode=0o600 + round_ % 8))
        assert (mount / "a").stat().st_mode & 0o777 == 0o600 + round_ % 8


def test_an_open_descriptor_reads_the_new_bytes(vfs: ToyVfs, mount: Path) -> None:
    ino = vfs.add("/a", b"one")
    with (mount / "a").open("rb", buffering=0) as file:
        assert file.read() == b"one"
        vfs.commit(ino, b"three")
        file.seek(0)
        assert file.read() == b"three"


MAPPING = """
import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ) as mapping:
    print(mapping[:1], flush=True)
    for line in sys.stdin:
        print(mapping[:1], flush=True)
"""


def test_a_mapping_shows_new_bytes_even_under_the_same_size_and_mtime(vfs: ToyVfs, mount: Path) -> None:
    """In another process: a page fault holds the GIL, which the mount's thread needs to answer it."""
    ino = vfs.add("/a", b"o" * 4096)
    command = [sys.executable, "-c", MAPPING, str(mount / "a")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "b'o'\n"
            vfs.commit(ino, b"n" * 4096, mtime_ns=vfs.stats[ino].mtime_ns)
            time.sleep(0.1)
            child.stdin.write("again\n")
            assert child.stdout.readline() == "b'n'\n"
        finally:
            child.kill()


def test_names_come_and_go_in_every_spelling(vfs: ToyVfs, mount: Path) -> None:
    name = "Blatt-ä.dng"
    spelled = [mount / unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    for path in spelled:
        assert not path.exists()  # the kernel remembers that
    vfs.add(f"/{name}", b"1")
    for path in spelled:
        eventually(path.exists)
    assert [path.name for path in mount.iterdir()] == [name]
    vfs.rename(SELF, ROOT, name, ROOT, "other", 0)
    for path in spelled:
        eventually(lambda path=path: not path.exists())
    eventually((mount / "other").exists)
    assert [path.name for path in mount.iterdir()] == ["other"]


def test_a_name_removed_here_in_one_spelling_is_gone_in_the_other(vfs: ToyVfs, mount: Path) -> None:
    nfc, nfd = (mount / unicodedata.normalize(form, "ä") for form in ("NFC", "NFD"))
    nfc.touch()
    assert nfd.exists()
    nfd.unlink()
    eventually(lambda: not nfc.exists())


def test_a_file_replaced_by_another_is_the_other(vfs: ToyVfs, mount: Path) -> None:
    vfs.add("/a", b"one")
    assert (mount / "a").read_bytes() == b"one"
    vfs.unlink(SELF, ROOT, "a")
    vfs.add("/a", b"two")
    eventually(lambda: (mount / "a").exists() and (mount / "a").read_bytes() == b"two")


def test_a_folder_made_here_keeps_its_place_as_working_directory(vfs: ToyVfs, mount: Path) -> None:
    """Pushing our own mkdir back to the kernel would drop the name under the shell that stands in it."""
    for number in range(20):
        (mount / f"d{number}").mkdir()
        descriptor = os.open(mount / f"d{number}", os.O_RDONLY)
        (mount / f"d{number}" / "x").touch()
        time.sleep(0.005)
        assert os.readlink(f"/proc/self/fd/{descriptor}") == str(mount / f"d{number}")  # noqa: PTH115
        os.close(descriptor)


def test_another_door_that_interferes_with_our_own_request_is_seen(vfs: ToyVfs, mount: Path) -> None:
    vfs.between = lambda: vfs.unlink(SELF, ROOT, "d")  # after our mkdir is committed, before the kernel hears of it
    (mount / "d").mkdir()
    eventually(lambda: not (mount / "d").exists())
    vfs.add("/f", b"1")
    vfs.between = lambda: vfs.add("/f", b"2") and None
    (mount / "f").unlink()
    eventually((mount / "f").exists)
    assert (mount / "f").read_bytes() == b"2"


def test_changes_are_seen_while_a_reader_streams(vfs: ToyVfs, mount: Path) -> None:
    """Commits to a file being read wait for its READs in the page thread; nothing else may wait."""
    ino = vfs.add("/big", os.urandom(8 << 20))
    stop = threading.Event()

    def stream() -> None:
        while not stop.is_set():
            (mount / "big").read_bytes()

    reader = threading.Thread(target=stream)
    reader.start()
    try:
        for round_ in range(40):
            vfs.commit(ino, bytes([round_]) * (8 << 20))
            vfs.add(f"/n{round_}", b"1")
            eventually((mount / f"n{round_}").exists)
            with (mount / "big").open("rb") as file:
                eventually(lambda file=file, round_=round_: os.pread(file.fileno(), 1, 5 << 20) == bytes([round_]))
    finally:
        stop.set()
        reader.join(10)
    assert not reader.is_alive()


def test_names_are_pushed_while_the_store_hangs(vfs: ToyVfs, mount: Path) -> None:
    ino = vfs.add("/big", b"x" * 100_000)
    reader = threading.Thread(target=lambda: (mount / "big").read_bytes())
    with vfs.hanging_store():
        reader.start()
        eventually(lambda: vfs.calls["open"] == 1)
        time.sleep(0.05)  # the READ is in the toy now, its pages are locked
        vfs.commit(ino, b"y" * 100_000)
        assert not (mount / "new").exists()
        vfs.add("/new", b"")
        eventually((mount / "new").exists)
    reader.join(10)
    assert not reader.is_alive()
    eventually(lambda: (mount / "big").read_bytes() == b"y" * 100_000)
