"""Group commit; and what happens when something breaks."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import event, make_url

from archivia_fs.errors import CatalogBusy, CatalogError, Exists, NoSpace
from archivia_fs.types import Effects, ObjectKey, Part, UploadId
from catalog.catalog import Catalog
from tests.catalog.helpers import FILE, D, Heard, file, folder, names, revision, together


@contextmanager
def held_writer(catalog: Catalog) -> Iterator[Callable[[], None]]:
    """The writer waits until it is let go, so that what is submitted meanwhile becomes one group."""
    held, go = threading.Event(), threading.Event()

    def wait(_: Effects) -> None:
        if not held.is_set():
            held.set()
            go.wait(20)

    catalog.subscribe(wait)
    first = threading.Thread(target=file, args=(catalog, "first"))
    first.start()
    assert held.wait(10)
    try:
        yield go.set
    finally:
        go.set()
        first.join()


def commits(catalog: Catalog) -> list[object]:
    """Grows by one with every transaction."""
    seen: list[object] = []
    event.listen(catalog._engine, "commit", lambda connection: seen.append(connection))
    return seen


def announced(catalog: Catalog) -> None:
    """The gateway's first sign of life, a transaction of its own thread, is over."""
    deadline = time.monotonic() + 10
    with catalog._engine.connect() as connection:
        while not connection.exec_driver_sql("SELECT count(*) FROM gateways").scalar_one():
            connection.rollback()
            assert time.monotonic() < deadline
            time.sleep(0.005)
    with catalog._writer._turn:
        """Its thread has given the turn back."""


def waiting(catalog: Catalog, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(catalog._writer._jobs) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def run_as_one_group(catalog: Catalog, calls: list[Callable[[], object]]) -> list[object]:
    """Results and errors of calls that wait for the writer together."""
    results: list[object] = [None] * len(calls)

    def run(number: int) -> None:
        try:
            results[number] = calls[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    with held_writer(catalog) as let_go:
        for count, thread in enumerate(threads, 1):
            thread.start()
            waiting(catalog, count)  # in this order
        let_go()
        for thread in threads:
            thread.join()
    return results


def test_mutations_that_wait_share_a_commit(catalog: Catalog) -> None:
    heard = Heard(catalog)
    announced(catalog)
    seen = commits(catalog)
    calls: list[Callable[[], object]] = [lambda n=n: catalog.make(D, f"f{n}", FILE) for n in range(16)]  # type: ignore[misc]
    results = run_as_one_group(catalog, calls)
    assert len(seen) == 2  # "first", and all the others
    assert [len(group.changes) for group in heard.groups] == [1, 16]
    assert all(isinstance(each, Effects) and len(each.changes) == 1 for each in results)
    assert names(catalog) == sorted([f"f{n}" for n in range(16)] + ["first"])
    assert {each.ino for each in heard.groups[1].stats} == {c.ino for c in heard.groups[1].changes} | {D}


def test_a_failing_mutation_leaves_its_neighbours_alone(catalog: Catalog) -> None:
    heard = Heard(catalog)
    catalog.begin_upload(UploadId("u"), ObjectKey("k"), "x")
    half = dataclasses.replace(revision("half"), parts=(Part(1, 1, "e", 1), Part(1, 1, "e", 1)))
    results = run_as_one_group(
        catalog,
        [
            lambda: catalog.make(D, "a", FILE),
            lambda: catalog.make(D, "a", FILE),  # says no
            lambda: catalog.begin_upload(UploadId("u"), ObjectKey("k"), "x"),  # the database says no
            lambda: catalog.make(D, "\udcff", FILE),  # the driver says no
            lambda: catalog.put_file(D, "half", half, FILE, mtime_ns=None),  # the inode and its name are made by then
            lambda: catalog.make(D, "b", FILE),
        ],
    )
    assert [type(each) for each in results] == [Effects, Exists, CatalogError, CatalogError, CatalogError, Effects]
    assert names(catalog) == ["a", "b", "first"]
    assert [c.name for c in heard.changes] == ["first", "a", "b"]
    assert [c.seq for c in heard.changes] == [c.seq for c in catalog.changes_after(0)]
    made = [c.ino for c in heard.changes]
    assert made == list(range(made[0], made[0] + 3))
    assert catalog.counts().files == 3
    with pytest.raises(CatalogError):
        catalog.put_file(D, "half", half, FILE, mtime_ns=None)  # and alone in its transaction
    assert catalog.counts().files == 3


def test_sixteen_threads(catalog: Catalog) -> None:
    def work(number: int) -> None:
        mine = folder(catalog, f"d{number}")
        for step in range(6):
            file(catalog, f"f{step}", mine)
            with pytest.raises(Exists):
                catalog.make(mine, f"f{step}", FILE)

    seen = commits(catalog)
    together(16, work)
    assert catalog.stat(D).nlink == 18
    assert catalog.counts().files == 16 * 6
    assert len(seen) < 16 * 7


def test_after_close_everything_is_refused(catalog: Catalog) -> None:
    catalog.close()
    for call in (lambda: catalog.make(D, "a", FILE), lambda: catalog.stat(D), lambda: catalog.listing(D)):
        with pytest.raises(CatalogError, match="closed"):
            call()
    catalog.close()


def test_what_is_queued_is_committed_before_close(catalog: Catalog, url: str) -> None:
    with held_writer(catalog) as let_go:
        maker = threading.Thread(target=file, args=(catalog, "a"))
        maker.start()
        waiting(catalog, 1)
        closer = threading.Thread(target=catalog.close)
        closer.start()
        let_go()
        maker.join()
        closer.join()
    again = Catalog.open(url)
    assert names(again) == ["a", "first"]
    again.close()


def test_an_interrupt_reaches_the_one_who_called_and_nobody_else(catalog: Catalog) -> None:
    """Ctrl-C in the thread that commits: what is committed is told to all, and the writer goes on."""
    interrupts = [KeyboardInterrupt()]

    def interrupted(_: Effects) -> None:
        if interrupts:
            raise interrupts.pop()

    catalog.subscribe(interrupted)
    heard = Heard(catalog)
    announced(catalog)  # or its thread might have the turn
    with pytest.raises(KeyboardInterrupt):
        catalog.make(D, "a", FILE)
    catalog.make(D, "b", FILE)
    assert names(catalog) == ["a", "b"]
    assert [c.name for c in heard.changes] == ["a", "b"]


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Another process that does not let go."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        other = sqlite3.connect(str(parsed.database), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield
        other.close()
    else:
        with psycopg.connect(host=parsed.host, port=parsed.port, user=parsed.username, dbname=parsed.database) as link:
            link.execute("SELECT pg_advisory_lock(1095910216)")  # 0x41524348
            yield


def test_a_locked_catalog_says_so_and_recovers(url: str) -> None:
    catalog = Catalog.open(url, busy_timeout=0.2)
    try:
        with locked(url):
            with pytest.raises(CatalogBusy, match="locked"):
                catalog.make(D, "a", FILE)
            assert names(catalog) == []  # readers do not mind
        file(catalog, "b")
        assert names(catalog) == ["b"]
    finally:
        catalog.close()


def test_a_full_disk_is_no_space(tmp_path: Path) -> None:
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    try:

        @event.listens_for(catalog._engine, "checkout")
        def _small(connection: sqlite3.Connection, *_: object) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")

        with catalog._writer._turn:
            catalog._writer._let_go()  # the connection it holds may be older than our listener
        f = file(catalog, "f")
        with pytest.raises(NoSpace, match="full"):
            catalog.set_properties(f, {"user.big": bytes(1 << 20)})
        assert catalog.properties(f) == {}
        event.remove(catalog._engine, "checkout", _small)
    finally:
        catalog.close()


def test_a_restarted_server_is_found_again(request: pytest.FixtureRequest) -> None:
    from tests.catalog.conftest import new_database

    url = new_database(request.getfixturevalue("server"))
    catalog = Catalog.open(url)
    try:
        heard = Heard(catalog)
        together(3, lambda n: [catalog.stat(D) for _ in range(20)] and None)
        parsed = make_url(url)
        with psycopg.connect(host=parsed.host, port=parsed.port, user=parsed.username, dbname="postgres") as link:
            link.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [parsed.database])
        assert catalog.stat(D).ino == D
        file(catalog, "a")
        assert names(catalog) == ["a"]
        other = Catalog.open(url)
        file(other, "b")
        other.close()
        heard.wait_for(catalog.current_seq())
        assert [c.name for c in heard.changes] == ["a", "b"]
    finally:
        catalog.close()


_CHILD = """
import sys
from catalog.catalog import Catalog
from tests.catalog.helpers import D, FILE, revision
catalog = Catalog.open(sys.argv[1])
for number in range(100000):
    ino = catalog.make(D, f"{sys.argv[2]}-{number}", FILE).changes[0].ino
    catalog.commit_revision(ino, revision(f"{sys.argv[2]}-{number}"), mtime_ns=None)
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_sigkill(url: str) -> None:
    root = Path(__file__).parents[2]
    acknowledged: dict[str, int] = {}
    for life in ("a", "b", "c"):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, url, life], stdout=subprocess.PIPE, text=True, cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(8)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
        child.wait()
        child.stdout.close()
        acknowledged[life] = max(int(line) for line in lines if line.endswith("\n") and line.strip())
    catalog = Catalog.open(url)
    try:
        found = {entry.name: entry.stat for entry in catalog.listing(D).entries}
        for life, last in acknowledged.items():
            assert all(found[f"{life}-{number}"].revision == f"{life}-{number}" for number in range(last + 1))
        log = catalog.changes_after(0, 100_000)
        assert [c.seq for c in log] == list(range(1, len(log) + 1))
        assert len({stat.ino for stat in found.values()}) == len(found)
    finally:
        catalog.close()
