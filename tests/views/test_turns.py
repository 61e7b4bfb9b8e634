"""Whose turn it is to decode: somebody who waits before nobody, quick before slow, few at a time; and what memory there is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from archivia_fs.errors import Busy
from archivia_fs.views.thumbnails.memory import UNKNOWN, memory_available
from archivia_fs.views.thumbnails.turns import Demand, Turns

HERE, AHEAD = True, False  # urgent, or not


def may(turns: Turns, urgent: bool, *, slow: bool = False, large: bool = False) -> bool:
    try:
        with turns.turn(Demand(urgent, 0.0), slow=slow, large=large):
            return True
    except Busy:
        return False


@pytest.mark.parametrize(
    ("running", "asked", "expected"),
    [
        ([], (HERE, True, True), True),
        ([(HERE, True, False)] * 2, (HERE, True, False), False),  # the last turn is kept for quick ones
        ([(HERE, True, False)] * 2, (HERE, False, False), True),
        ([(HERE, True, False)] * 2, (AHEAD, False, False), True),
        ([(HERE, False, False)] * 3, (HERE, False, False), False),
        ([(AHEAD, True, False)], (AHEAD, True, False), False),  # of what nobody waits for one slow one
        ([(AHEAD, True, False)], (HERE, True, False), True),
        (
            [(AHEAD, True, True)],
            (HERE, True, True),
            True,
        ),  # who opens a large one does not wait for what nobody waits for
        ([(HERE, True, True)], (HERE, True, True), False),
        ([(HERE, True, True)], (HERE, True, False), True),
    ],
)
def test_who_may_run_beside_whom(
    running: list[tuple[bool, bool, bool]], asked: tuple[bool, bool, bool], expected: bool
) -> None:
    turns = Turns()
    with ExitStack() as stack:
        for urgent, slow, large in running:
            stack.enter_context(turns.turn(Demand(urgent, 0.0), slow=slow, large=large))
        assert may(turns, asked[0], slow=asked[1], large=asked[2]) is expected
        assert turns.large == sum(large for *_, large in running)
    assert may(turns, AHEAD, slow=True, large=True)
    assert turns.large == 0


class Queue:
    """Callers that wait in threads; `order` is who had a turn when."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.order, self.threads = turns, list[str](), list[threading.Thread]()

    def add(self, name: str, demand: Demand, *, slow: bool = True) -> None:
        def run() -> None:
            try:
                with self.turns.turn(demand, slow=slow, large=False):
                    self.order.append(name)
            except Busy:
                self.order.append(f"{name} is told to come back")

        waiting = len(self.turns._waiting)
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()
        until(lambda: len(self.turns._waiting) > waiting or name in " ".join(self.order))

    def end(self) -> None:
        for thread in self.threads:
            thread.join(10)


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def queue() -> Iterator[Queue]:
    queue = Queue(Turns(number=1))
    yield queue
    queue.end()


def test_who_waits_goes_first(queue: Queue) -> None:
    with queue.turns.turn(Demand(), slow=False, large=False):
        for name, urgent in (("a", AHEAD), ("b", HERE), ("c", AHEAD), ("d", HERE)):
            queue.add(name, Demand(urgent, 10))
    queue.end()
    assert queue.order == ["b", "d", "a", "c"]


def test_what_somebody_waits_for_by_now_goes_first_too(queue: Queue) -> None:
    last = Demand(AHEAD, 10)
    with queue.turns.turn(Demand(), slow=False, large=False):
        queue.add("a", Demand(AHEAD, 10))
        queue.add("b", last)
        queue.turns.hurry(last)
    queue.end()
    assert queue.order == ["b", "a"]


def test_a_quick_one_overtakes_slow_ones() -> None:
    queue = Queue(Turns(number=2))
    with queue.turns.turn(Demand(), slow=True, large=False):
        queue.add("slow", Demand(HERE, 10))
        queue.add("quick", Demand(AHEAD, 10), slow=False)
        until(lambda: queue.order == ["quick"])
    queue.end()
    assert queue.order == ["quick", "slow"]


def test_the_queue_is_bounded() -> None:
    queue = Queue(Turns(number=1, waiting=2))
    with queue.turns.turn(Demand(), slow=False, large=False):
        for name in "abc":
            queue.add(name, Demand(HERE, 10))
        until(lambda: queue.order == ["c is told to come back"])
    queue.end()
    assert queue.order[1:] == ["a", "b"]


def test_patience_ends(queue: Queue) -> None:
    with queue.turns.turn(Demand(), slow=False, large=False):
        queue.add("a", Demand(HERE, 0.05))
        until(lambda: queue.order == ["a is told to come back"])
    assert may(queue.turns, AHEAD)


def test_closing_ends_waiting(queue: Queue) -> None:
    with queue.turns.turn(Demand(), slow=False, large=False):
        queue.add("a", Demand(HERE, 600))
        queue.turns.close()
        until(lambda: queue.order == ["a is told to come back"])
    assert not may(queue.turns, HERE)


# --- memory --------------------------------------------------------------------------------------------------------------


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MACHINE = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    8000 kB\nHugePages_Total:  0\n"}


def test_memory_is_that_of_the_machine(tmp_path: Path) -> None:
    assert memory_available(tree(tmp_path, MACHINE)) == 8000 * 1024
    assert memory_available(tmp_path / "nothing") == UNKNOWN
    assert 0 < memory_available() < 1 << 50


def test_the_limit_of_the_control_group_counts(tmp_path: Path) -> None:
    """In systemd's MemoryMax or in a container, whichever level has the least."""
    own = "sys/fs/cgroup/system.slice/archivia.service"
    tree(tmp_path, {**MACHINE, "proc/self/cgroup": "0::/system.slice/archivia.service\n"})
    assert memory_available(tmp_path) == 8000 * 1024
    tree(tmp_path, {f"{own}/memory.max": "max\n", f"{own}/memory.current": "5\n"})
    assert memory_available(tmp_path) == 8000 * 1024
    tree(tmp_path, {f"{own}/memory.max": "3000000\n", f"{own}/memory.current": "1000000\n"})
    assert memory_available(tmp_path) == 2_000_000
    tree(tmp_path, {f"{own}/memory.stat": "anon 700000\ninactive_file 300000\n"})  # cached files give way
    assert memory_available(tmp_path) == 2_300_000
    above = "sys/fs/cgroup/system.slice"
    tree(tmp_path, {f"{above}/memory.max": "1500000\n", f"{above}/memory.current": "1400000\n"})
    assert memory_available(tmp_path) == 100_000
    tree(tmp_path, {f"{above}/memory.current": "1600000\n"})
    assert memory_available(tmp_path) == 0


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    """There the own group is the top."""
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "900", "sys/fs/cgroup/memory.current": "400"}
    assert memory_available(tree(tmp_path, MACHINE | files)) == 500
