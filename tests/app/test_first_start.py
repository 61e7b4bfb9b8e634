"""The first start of an archive: the password of its first user is told once, whatever happens, and stored hashed."""

from __future__ import annotations

import re
import signal
import socket
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from archivia_fs import app
from archivia_fs.config import Settings
from archivia_fs.vfs.passwords import Passwords
from catalog.catalog import Catalog
from tests.app.program import Program, told, warm
from tests.s3_servers import S3Server, seaweedfs

TOLD = re.compile(r"password (\S{16}) ")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def program(server: S3Server, tmp_path: Path) -> Iterator[Program]:
    """With an archive that is not there yet, whose first password will be a random one."""
    with warm() as process:
        yield Program(tmp_path / "home", server, process, password="")


def stored_hash(home: Path) -> str:
    connection = sqlite3.connect(home / "catalog.db")
    ((found,),) = connection.execute("SELECT password_hash FROM users WHERE name = 'admin'").fetchall()
    connection.close()
    return str(found)


def the_password(said: str, home: Path) -> str:
    """The one password that was told, which is that of the catalog."""
    (password,) = TOLD.findall(said)
    catalog = Catalog.open(f"sqlite:///{home}/catalog.db")
    try:
        assert Passwords(catalog).verify("admin", password)
    finally:
        catalog.close()
    return str(password)


def test_it_is_stored_as_an_argon2id_hash(program: Program) -> None:
    """RFC 9106; the text is the PHC string format."""
    password = the_password(program.run("collection", "add", "scans").stderr, program.home)
    assert stored_hash(program.home).startswith("$argon2id$v=19$")
    every_file = b"".join(file.read_bytes() for file in program.home.glob("catalog.db*"))
    assert password.encode() not in every_file


def test_it_is_told_though_the_port_is_taken(program: Program) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        done = program.run("serve", "--listen", f"127.0.0.1:{holder.getsockname()[1]}")
    assert done.returncode == 2
    the_password(done.stderr, program.home)
    assert not TOLD.findall(program.run("user", "list").stderr)


@pytest.mark.parametrize("daemon", [[], ["--daemon"]])
def test_it_is_told_though_nothing_can_be_mounted(program: Program, tmp_path: Path, daemon: list[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/photo.dng").touch()
    done = program.run("mount", *daemon, tmp_path / "full")
    assert done.returncode == 5
    the_password(done.stderr, program.home)


def test_it_is_told_with_the_rest_and_only_once(program: Program) -> None:
    serve = program.start("serve", "--listen", "127.0.0.1:0")
    assert serve.stdout is not None
    said = ""
    while "password" not in said:
        said += serve.stdout.readline()
    serve.send_signal(signal.SIGINT)
    rest, _ = serve.communicate(timeout=60)
    assert serve.returncode == 0
    assert "User     admin" in the_line(said + rest, "password")
    the_password(said + rest, program.home)


def the_line(text: str, word: str) -> str:
    (line,) = [line for line in text.splitlines() if word in line]
    return line


@pytest.mark.parametrize(
    "words",
    [
        "status", "status /Documents", "user list", "user disable ann", "collection list", "collection grant archive ann read",
        "locks list", "describe /Documents/archive", "check", "scrub", "gc", "thumbnails", "import --dry-run . /Documents/archive/",
    ],
)  # fmt: skip
def test_what_needs_an_archive_does_not_make_one(program: Program, words: str) -> None:
    """In the wrong home there would be a second one, with another password."""
    told(
        program.run(*words.split()),
        2,
        "There is no archive in",
        str(program.home),
        "ARCHIVIA_HOME",
        "archivia-fs serve",
    )
    assert not program.home.exists()


def test_nor_does_what_looks_at_the_machine_and_the_store(program: Program) -> None:
    embedded = replace(program, server=None)
    assert "will be made at the first start" in embedded.run("doctor", "--listen", "127.0.0.1:0").stdout
    assert "False" in embedded.run("store", "status").stdout
    assert not program.home.exists()
    empty = f"sqlite:///{program.home.parent}/empty.db"
    told(program.run("status", ARCHIVIA_CATALOG_URL=empty), 2, "There is no archive in", "ARCHIVIA_CATALOG_URL")
    assert not (program.home.parent / "empty.db").exists()


def test_it_is_known_before_it_is_stored(tmp_path: Path) -> None:
    """An interruption may come right after the commit."""
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    first = app.first_user(catalog, Settings(home=tmp_path))
    assert first is not None
    assert (len(first.password), first.given, first.told) == (16, False, False)
    another = app.first_user(catalog, Settings(home=tmp_path, admin_password="chosen"))  # type: ignore[arg-type]
    assert another is not None
    assert another.given
    app.first_start(catalog, first)
    app.first_start(catalog, another)
    assert not first.told
    assert another.told, "it was not the first: its password is nobody's"
    assert app.first_user(catalog, Settings(home=tmp_path)) is None
    catalog.close()
