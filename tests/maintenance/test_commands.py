"""`gc`, `scrub` and `check` as a person or a timer runs them, against a real server."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from archivia_fs import cli
from archivia_fs.store.s3 import S3Config, S3Store
from archivia_fs.types import ObjectKey
from archivia_fs.vfs.transfers import new_key
from tests.catalog.helpers import query, sql
from tests.s3_servers import S3Server


@dataclass(frozen=True, slots=True)
class Said:
    stdout: str
    stderr: str


class Program:
    """`archivia-fs` with a home of its own, in this process, and the bucket it uses."""

    def __init__(
        self, home: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.home = home
        self.url = f"sqlite:///{home}/catalog.db"
        self.store = S3Store(S3Config(server.endpoint, server.bucket, server.access_key, server.secret_key))
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        for name, value in {
            "ARCHIVIA_HOME": str(home),
            "ARCHIVIA_CATALOG_URL": self.url,
            "ARCHIVIA_ADMIN_PASSWORD": "for a throw-away archive",
            "ARCHIVIA_S3_ENDPOINT": server.endpoint,
            "ARCHIVIA_S3_BUCKET": server.bucket,
            "ARCHIVIA_S3_ACCESS_KEY": server.access_key,
            "ARCHIVIA_S3_SECRET_KEY": server.secret_key,
        }.items():
            monkeypatch.setenv(name, value)

    def run(self, *arguments: str, code: int = 0) -> Said:
        self._monkeypatch.setattr(sys, "argv", ["archivia-fs", *arguments])
        self._capsys.readouterr()
        ended = cli.run()
        said = Said(*self._capsys.readouterr())
        assert ended == code, said
        return said


@pytest.fixture
def program(
    tmp_path: Path, seaweed: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Program]:
    made = Program(tmp_path / "home", seaweed, monkeypatch, capsys)
    source = tmp_path / "scans"
    source.mkdir()
    (source / "page-1.dng").write_bytes(b"one" * 1000)
    (source / "page-2.dng").write_bytes(b"two" * 1000)
    made.run("import", str(source), "/Documents/archive/")
    yield made
    for found in list(made.store.list("objects/")):
        made.store.delete(found.key)
    made.store.close()


def key_of(program: Program, name: str) -> ObjectKey:
    statement = "SELECT object_key FROM revisions r JOIN inodes i ON i.revision = r.id JOIN dentries d ON d.ino = i.ino"
    ((key,),) = query(program.url, f"{statement} WHERE d.name = '{name}'")
    return ObjectKey(key)


def test_a_sound_archive_and_a_damaged_one(program: Program) -> None:
    assert "All is sound" in program.run("check").stdout
    sound = json.loads(program.run("scrub", "--json").stdout)
    assert (sound["complete"], sound["revisions"], sound["bytes"], sound["damaged"]) == (True, 2, 6000, [])
    program.store.put(key_of(program, "page-1.dng"), b"TWO" * 1000, zlib.crc32(b"TWO" * 1000))
    program.store.delete(key_of(program, "page-2.dng"))
    said = program.run("check", code=1)
    assert "/Documents/archive/scans/page-2.dng: the object is missing" in said.stderr
    assert json.loads(program.run("check", "--json", code=1).stdout)["sound"] is False
    said = program.run("scrub", code=1)
    assert "/Documents/archive/scans/page-1.dng: CRC-32 is" in said.stderr
    assert "2 damaged" in said.stdout
    assert json.loads(program.run("scrub", "--json", "--pending").stdout)["revisions"] == 0
    one = json.loads(program.run("scrub", "--json", "/Documents/archive/scans/page-1.dng", code=1).stdout)
    assert [each["paths"] for each in one["damaged"]] == [["/Documents/archive/scans/page-1.dng"]]
    assert "nowhere" in program.run("scrub", "/Documents/archive/nowhere", code=2).stderr


def test_an_interrupted_scrub_goes_on(program: Program) -> None:
    first = min(row[0] for row in query(program.url, "SELECT id FROM revisions"))
    state = program.home / "scrub.json"
    state.write_text(json.dumps({"path": None, "pending": False, "after": first}))
    assert json.loads(program.run("scrub", "--json").stdout)["revisions"] == 1
    assert not state.exists()
    state.write_text(json.dumps({"path": None, "pending": False, "after": first}))
    assert json.loads(program.run("scrub", "--json", "--restart").stdout)["revisions"] == 2
    for other in (json.dumps({"path": "/Documents", "pending": False, "after": first}), "no JSON", "[]"):
        state.write_text(other)  # of another question, or damaged
        assert json.loads(program.run("scrub", "--json").stdout)["revisions"] == 2


def test_gc(program: Program) -> None:
    orphan = new_key()
    program.store.put(orphan, b"orphan", zlib.crc32(b"orphan"))
    gone = key_of(program, "page-1.dng")
    sql(
        program.url,
        "UPDATE inodes SET revision = NULL, size = 0 WHERE ino = (SELECT ino FROM dentries WHERE name = 'page-1.dng')",
        f"UPDATE revisions SET released_ns = 1 WHERE object_key = '{gone}'",
    )
    report = json.loads(program.run("gc", "--dry-run", "--json").stdout)
    assert (report["dry_run"], report["objects"], report["unknown_objects"], report["bytes"]) == (True, 1, 0, 3000)
    assert gone in {found.key for found in program.store.list("objects/")}
    assert "Deleted 1 object(s) of 1 old revision(s), 0 object(s) without a name" in program.run("gc").stdout
    assert {found.key for found in program.store.list("objects/")} == {key_of(program, "page-2.dng"), orphan}, (
        "what came into the store a moment ago may be somebody's who is about to name it"
    )
    program.run("gc", "--grace", "0", code=2)
