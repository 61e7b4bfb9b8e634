"""What is pushed to the kernel, what is not, and that nothing blocks: the invalidator over a kernel that records."""

from __future__ import annotations

import threading
import time
import unicodedata
from collections.abc import Callable, Iterator

import pytest

from archivia_fs.types import Change, ChangeKind, Effects, InodeNo
from fuse.convert import RootMap
from fuse.invalidate import SETTLE_SECONDS, Invalidator, Kernel
from fuse.known import Known, Opened
from tests.fuse.conftest import eventually
from tests.fuse.toy import ToyVfs

ROOT, DIRECTORY, FILE, OTHER = InodeNo(1), InodeNo(20), InodeNo(21), InodeNo(22)


class Recorder(Kernel):
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.gate = threading.Event()
        self.gate.set()

    def attributes(self, inode: int) -> None:
        self.calls.append(("attributes", inode))

    def pages(self, inode: int) -> None:
        self.gate.wait(10)
        self.calls.append(("pages", inode))

    def name(self, parent: int, name: str) -> None:
        self.calls.append(("name", parent, name))

    def of(self, kind: str) -> list[tuple[object, ...]]:
        return [call[1:] for call in self.calls if call[0] == kind]


@pytest.fixture
def kernel() -> Recorder:
    return Recorder()


@pytest.fixture
def known() -> Known:
    known = Known(lambda ino: None, lambda ino: None)
    known.add(DIRECTORY, ROOT, "d")
    known.add(FILE, DIRECTORY, "f")
    return known


@pytest.fixture
def push(kernel: Recorder, known: Known) -> Iterator[Invalidator]:
    invalidator = Invalidator(RootMap(), known, kernel, lambda: False, queue_max=8)
    invalidator.start()
    yield invalidator
    kernel.gate.set()
    assert invalidator.close()


def entry(kind: ChangeKind, name: str, ino: InodeNo = FILE) -> Effects:
    return Effects([Change(1, "x", kind, ino, DIRECTORY, name)], [])


def data(ino: InodeNo = FILE) -> Effects:
    return Effects([Change(1, "x", ChangeKind.DATA, ino)], [])


ADDED, REMOVED = ChangeKind.ENTRY_ADDED, ChangeKind.ENTRY_REMOVED


def settled(push: Invalidator) -> Callable[[], bool]:
    return lambda: push._names.idle and push._pages.idle


def test_attributes_are_pushed_before_the_listener_returns(push: Invalidator, kernel: Recorder) -> None:
    push.on_effects(data())
    assert kernel.of("attributes") == [(FILE,)]


def test_a_foreign_name_is_pushed_in_every_spelling_the_kernel_may_keep(push: Invalidator, kernel: Recorder) -> None:
    push.on_effects(entry(ADDED, "Blatt-ä"))
    eventually(settled(push))
    assert set(kernel.of("name")) == {(DIRECTORY, unicodedata.normalize(form, "Blatt-ä")) for form in ("NFC", "NFD")}


def test_what_the_kernel_does_not_know_is_not_pushed(push: Invalidator, kernel: Recorder) -> None:
    push.on_effects(Effects([Change(1, "x", ADDED, OTHER, OTHER, "f"), Change(2, "x", ChangeKind.DATA, OTHER)], []))
    eventually(settled(push))
    assert kernel.calls == []


def test_own_names_are_not_pushed(push: Invalidator, kernel: Recorder) -> None:
    with push.own_names((DIRECTORY, "new")) as watch:
        push.on_effects(entry(ADDED, "new", OTHER))
        watch.believe(DIRECTORY, "new", OTHER)
    with push.own_names((DIRECTORY, "new"), (DIRECTORY, "newer")) as watch:
        push.on_effects(entry(REMOVED, "new", OTHER))
        push.on_effects(entry(ADDED, "newer", OTHER))
        watch.moved((DIRECTORY, "new"), (DIRECTORY, "newer"))
    eventually(settled(push))
    assert kernel.of("name") == []


def test_an_own_name_that_another_door_changed_meanwhile_is_pushed(push: Invalidator, kernel: Recorder) -> None:
    with push.own_names((DIRECTORY, "new")) as watch:
        push.on_effects(entry(ADDED, "new", OTHER))
        push.on_effects(entry(REMOVED, "new", OTHER))
        watch.believe(DIRECTORY, "new", OTHER)
    eventually(lambda: kernel.of("name") == [(DIRECTORY, "new")])


def test_a_foreign_change_during_an_own_request_that_failed_is_pushed(push: Invalidator, kernel: Recorder) -> None:
    def request() -> None:
        with push.own_names((DIRECTORY, "new")):
            push.on_effects(entry(ADDED, "new", OTHER))
            raise FileExistsError

    with pytest.raises(FileExistsError):
        request()
    eventually(lambda: kernel.of("name") == [(DIRECTORY, "new")])


def test_own_bytes_stay_in_the_page_cache_foreign_ones_do_not(push: Invalidator, kernel: Recorder) -> None:
    with push.own_data(FILE):
        push.on_effects(data())
    eventually(settled(push))
    assert kernel.of("pages") == []
    with push.own_data(FILE):
        push.on_effects(data())
        push.on_effects(data())
    eventually(lambda: kernel.of("pages") == [(FILE,)])


def test_pages_that_wait_for_the_store_do_not_hold_up_names(push: Invalidator, kernel: Recorder) -> None:
    kernel.gate.clear()
    push.on_effects(data())
    push.on_effects(entry(REMOVED, "f"))
    eventually(lambda: kernel.of("name") == [(DIRECTORY, "f")])
    assert kernel.of("pages") == []


def test_who_commits_waits_until_the_kernel_knows(push: Invalidator, kernel: Recorder) -> None:
    for number in range(1000):
        push.on_effects(entry(ADDED, "x"))
        push.on_effects(data())
        push.settle()
        assert len(kernel.of("name")) == len(kernel.of("pages")) == number + 1


def test_who_commits_does_not_wait_long_for_a_kernel_that_waits(push: Invalidator, kernel: Recorder) -> None:
    kernel.gate.clear()
    push.on_effects(data())
    began = time.monotonic()
    push.settle()
    first = time.monotonic() - began
    for _ in range(20):
        push.settle()
    assert first > SETTLE_SECONDS * 0.9
    assert time.monotonic() - began < 3 * first  # all the others together


def test_who_serves_the_kernel_never_waits_for_it(kernel: Recorder, known: Known) -> None:
    push = Invalidator(RootMap(), known, kernel, lambda: True)
    push.start()
    kernel.gate.clear()
    push.on_effects(data())
    began = time.monotonic()
    push.settle()
    assert time.monotonic() - began < SETTLE_SECONDS / 2
    kernel.gate.set()
    assert push.close()


def test_a_full_queue_becomes_everything_the_kernel_knows(push: Invalidator, kernel: Recorder, known: Known) -> None:
    kernel.gate.clear()
    push.on_effects(data(DIRECTORY))  # the thread waits with this one
    eventually(lambda: not push._pages._items)
    for number in range(100, 120):
        known.add(InodeNo(number), DIRECTORY, str(number))
        push.on_effects(data(InodeNo(number)))
        assert len(push._pages._items) <= 8
    kernel.gate.set()
    eventually(settled(push))
    assert {ino for (ino,) in kernel.of("pages")} == set(known.inodes())


@pytest.mark.parametrize("kind", [ChangeKind.RESET, ChangeKind.ACCESS])
def test_after_a_gap_or_a_change_of_rights_all_names_are_looked_up_again(
    push: Invalidator, kernel: Recorder, kind: ChangeKind
) -> None:
    push.on_effects(Effects([Change(1, "x", kind, ROOT)], []))
    eventually(lambda: set(kernel.of("name")) == {(ROOT, "d"), (DIRECTORY, "f")})


def test_nothing_is_pushed_after_close(kernel: Recorder, known: Known) -> None:
    push = Invalidator(RootMap(), known, kernel, lambda: False)
    push.start()
    assert push.close()
    push.on_effects(data())
    push.on_effects(entry(REMOVED, "f"))
    assert kernel.calls == []


def test_lookup_counts_reach_the_core_at_the_first_and_the_last_reference() -> None:
    heard: list[tuple[str, InodeNo]] = []
    known = Known(lambda ino: heard.append(("remember", ino)), lambda ino: heard.append(("forget", ino)))
    known.add(FILE, DIRECTORY, "f")
    known.add(FILE, DIRECTORY, "g")
    assert known.names() == [(DIRECTORY, "f"), (DIRECTORY, "g")]
    known.drop(FILE, 1)
    assert FILE in known
    known.drop(FILE, 1)
    known.add(OTHER, DIRECTORY, "h")
    known.clear()
    assert heard == [("remember", FILE), ("forget", FILE), ("remember", OTHER), ("forget", OTHER)]


def test_pages_of_an_unchanged_revision_may_be_kept() -> None:
    vfs, opened = ToyVfs(), Opened(limit=1)
    ino = vfs.add("/a", b"1")
    assert not opened.again(vfs.stats[ino])
    assert opened.again(vfs.stats[ino])
    vfs.commit(ino, b"2")
    assert not opened.again(vfs.stats[ino])
    assert not opened.again(vfs.stats[vfs.add("/b", b"1")])
    assert not opened.again(vfs.stats[ino])  # the limit made it forget
