"""Bad days: each ends with a sentence that says what to do and with the right exit code, never with a traceback."""

from __future__ import annotations

import os
import shutil
import site
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from archivia_fs.cli import exit_code
from archivia_fs.commands.doors import parse_address
from archivia_fs.errors import Busy, CatalogTooNew, ConfigError, MountError, NoSpace, NotFound, StoreFull, StoreRejected
from catalog.catalog import Catalog
from tests.app.program import Program, told, warm
from tests.s3_servers import S3Server, free_ports, seaweedfs

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs mount(2) in a namespace of its own, so root")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def program(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with warm() as process:
        yield Program(tmp_path_factory.mktemp("home"), server, process).begin()


@pytest.fixture(scope="module", autouse=True)
def locked(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A command that meets a locked catalog. It waits for seconds, so it is started before all others."""
    program = Program(tmp_path_factory.mktemp("locked"), server)
    file = program.home / "catalog.db"
    Catalog.open(f"sqlite:///{file}").close()
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with program.start("user", "list") as process:
        yield process
        process.kill()
    connection.close()


def test_each_room_has_its_exit_code() -> None:
    codes = {
        StoreRejected: 3, StoreFull: 3, CatalogTooNew: 4, NoSpace: 4, MountError: 5, Busy: 5, ConfigError: 2, NotFound: 2
    }  # fmt: skip
    assert {kind: exit_code(kind("")) for kind in codes} == codes


# --- the store -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ARCHIVIA_S3_ENDPOINT": "http://127.0.0.1:9"}, ("cannot be reached", "ARCHIVIA_S3_ENDPOINT")),
        ({"ARCHIVIA_S3_ACCESS_KEY": "stranger"}, ("ARCHIVIA_S3_ACCESS_KEY",)),
        ({"ARCHIVIA_S3_SECRET_KEY": "guessed"}, ("ARCHIVIA_S3_SECRET_KEY",)),
        ({"ARCHIVIA_S3_BUCKET": "nowhere"}, ("no bucket", "ARCHIVIA_S3_BUCKET")),
    ],
)
def test_a_store_that_cannot_be_used(program: Program, changes: dict[str, str], words: tuple[str, ...]) -> None:
    told(program.run("serve", "--listen", "127.0.0.1:0", **changes), 3, *words)


def test_what_needs_no_store_works_without_it(program: Program) -> None:
    away = {"ARCHIVIA_S3_ENDPOINT": "http://127.0.0.1:9"}
    assert program.run("status", **away).returncode == 0
    assert "archive" in program.run("collection", "list", **away).stdout
    told(program.run("store", "status", **away), 3, "ARCHIVIA_S3_ENDPOINT")


def test_the_embedded_store_without_its_program(tmp_path: Path) -> None:
    """A Python that has all libraries but no `weed` beside it."""
    alone = tmp_path / "bin/python"
    alone.parent.mkdir()
    alone.symlink_to(sys.executable)
    program = Program(tmp_path / "home", None)
    path = os.pathsep.join([program.environment()["PYTHONPATH"], *site.getsitepackages()])
    command = [str(alone), "-m", "archivia_fs"]
    away = {"PYTHONPATH": path, "PATH": str(_bin_without(tmp_path, "weed"))}
    told(program.wrapped((), "store", "start", program=command, **away), 3, "weed", "make setup")
    found = program.wrapped((), "doctor", program=command, **away)
    assert found.returncode == 1
    assert "weed" in found.stdout


def _bin_without(directory: Path, name: str) -> Path:
    """A folder for PATH with what the program starts, but `name`."""
    folder = directory / "path"
    folder.mkdir()
    for tool in ("fusermount3", "openssl"):
        found = shutil.which(tool)
        if found is not None and tool != name:
            (folder / tool).symlink_to(found)
    return folder


# --- the catalog -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", ("ARCHIVIA_CATALOG_URL", "sqlite:////")),
        ("mysql://host/name", ("postgresql",)),
        ("sqlite:////nowhere/at/all/catalog.db", ("/nowhere/at/all/catalog.db", "folder")),
        ("postgresql://user:secret@127.0.0.1:9/archive", ("cannot be reached", "ARCHIVIA_CATALOG_URL")),
    ],
)
def test_a_catalog_that_cannot_be_reached(program: Program, url: str, words: tuple[str, ...]) -> None:
    done = program.run("status", ARCHIVIA_CATALOG_URL=url)
    told(done, 4, *words)
    assert "secret" not in done.stderr


def test_a_catalog_of_a_newer_version(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "catalog.db"
    _copy_catalog(program, file)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    url = f"sqlite:///{file}"
    told(program.run("status", ARCHIVIA_CATALOG_URL=url), 4, "9999", "Install")
    assert "9999" in program.run("doctor", ARCHIVIA_CATALOG_URL=url).stdout


def test_a_catalog_that_is_none(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "catalog.db"
    file.write_bytes(b"This is a letter to my aunt. " * 1000)
    told(program.run("status", ARCHIVIA_CATALOG_URL=f"sqlite:///{file}"), 4, "no catalog", "backup")


def _copy_catalog(program: Program, target: Path) -> None:
    with sqlite3.connect(program.home / "catalog.db") as source, sqlite3.connect(target) as copy:
        source.backup(copy)
    source.close()
    copy.close()


# --- the doors -----------------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken(program: Program) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        listen = f"127.0.0.1:{holder.getsockname()[1]}"
        told(program.run("serve", "--listen", listen), 2, "taken", "--listen")
        found = program.run("doctor", "--listen", listen)
        assert found.returncode == 1
        assert "failed  port" in found.stdout


@pytest.mark.parametrize(
    "listen", ["8080", "localhost", "localhost:http", "localhost:70000", ":80", "localhost:\u0663"]
)
def test_an_address_that_is_none(listen: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parse_address(listen)


def test_addresses() -> None:
    assert parse_address("[::1]:8080") == ("::1", 8080)
    assert parse_address("nas.example:0") == ("nas.example", 0)


def test_a_wrong_address_is_wrong_use(program: Program) -> None:
    told(program.run("serve", "--listen", "8080"), 2, "--listen", "HOST:PORT")


def test_passwords_in_clear_are_refused(program: Program) -> None:
    told(program.run("serve", "--listen", "0.0.0.0:0"), 2, "--insecure-basic")


def test_a_mountpoint_that_cannot_be_one(program: Program, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "photo.dng").touch()
    told(program.run("mount", full), 5, "not empty")
    told(program.run("mount", full / "photo.dng"), 5, "not a directory")
    told(program.run("mount", tmp_path / "a/b"), 5, "does not exist")
    told(program.run("mount", tmp_path / "new", "--subtree", "/Documents/none"), 5, "/Documents/none")
    told(program.run("umount", full), 5, "Nothing is mounted")
    assert [entry.name for entry in tmp_path.iterdir()] == ["full"]


def test_a_mountpoint_that_is_busy(program: Program, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    assert program.run("mount", "--daemon", mount).returncode == 0
    try:
        told(program.run("mount", "--daemon", mount), 5, "already mounted", "umount")
        holder = subprocess.Popen(["sleep", "60"], cwd=mount)
        try:
            told(program.run("umount", mount), 5, "in use", f"sleep ({holder.pid})")
        finally:
            holder.kill()
            holder.wait()
    finally:
        assert program.run("umount", mount).returncode == 0


@ROOT_ONLY
def test_a_machine_without_fuse(program: Program, tmp_path: Path) -> None:
    """/dev/fuse is hidden in a mount namespace: as in a container, its device may not be opened."""
    hide = 'mount --bind /dev/fuse /dev/fuse && mount -o remount,bind,nodev /dev/fuse && exec "$@"'
    wrapper = ["unshare", "--mount", "sh", "-c", hide, "sh"]
    told(program.wrapped(wrapper, "mount", tmp_path / "mount"), 5, "/dev/fuse", "modprobe fuse", "--device /dev/fuse")
    told(program.wrapped(wrapper, "mount", "--daemon", tmp_path / "mount"), 5, "/dev/fuse")
    found = program.wrapped(wrapper, "doctor", "--listen", f"127.0.0.1:{free_ports(1)[0]}")
    assert found.returncode == 1
    assert "failed  /dev/fuse" in found.stdout
    assert "ok      store" in found.stdout


# --- settings, the home, users -------------------------------------------------------------------------------------------


def test_a_setting_that_is_none(program: Program, tmp_path: Path) -> None:
    told(program.run("status", ARCHIVIA_MEMROY="1G"), 2, "ARCHIVIA_MEMROY", "ARCHIVIA_MEMORY")
    file = tmp_path / "settings.toml"
    file.write_text('memroy = "1G"\n')
    told(program.run("status", "--config", file), 2, str(file), "Did you mean memory")
    file.write_text("memory is plenty\n")
    told(program.run("status", "--config", file), 2, str(file), "TOML")
    told(program.run("status", "--config", tmp_path / "none.toml"), 2, "none.toml", "does not exist")
    told(program.run("status", "--home", tmp_path, ARCHIVIA_MEMORY="12"), 2, "ARCHIVIA_MEMORY", "32 MiB")
    found = program.run("doctor", ARCHIVIA_MEMROY="1G")
    assert found.returncode == 1
    assert "failed  settings" in found.stdout
    assert "ok      python" in found.stdout


def test_settings_in_a_file_of_ones_own(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'catalog_url = "sqlite:///{tmp_path}/own.db"\n')
    assert program.run("collection", "add", "papers", "--config", file).returncode == 0
    assert (tmp_path / "own.db").exists()
    assert program.run("status", "--config", file).returncode == 0


def test_a_home_that_cannot_be_made(program: Program, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told(program.run("serve", ARCHIVIA_HOME=str(tmp_path / "file/home")), 2, str(tmp_path / "file/home"))


@ROOT_ONLY
def test_a_home_on_a_full_disk(program: Program, tmp_path: Path) -> None:
    fill = f'mount -t tmpfs -o size=64k tmpfs {tmp_path} && (cat /dev/zero > {tmp_path}/fill 2>/dev/null; exec "$@")'
    wrapper = ["unshare", "--mount", "sh", "-c", fill, "sh"]
    done = program.wrapped(wrapper, "collection", "add", "papers", ARCHIVIA_HOME=str(tmp_path / "home"))
    told(done, 4, "full", "make room")
    own = Program(tmp_path / "home", None)
    told(own.wrapped(wrapper, "store", "start"), 3, "No space left")
    found = own.wrapped(wrapper, "doctor")
    assert found.returncode == 1
    assert "failed  disk of the home" in found.stdout


def test_a_user_that_is_none(program: Program, tmp_path: Path) -> None:
    told(program.run("mount", tmp_path / "mount", "--user", "nobody"), 2, "'nobody'", "user list")
    told(program.run("collection", "grant", "archive", "nobody", "read"), 2, "'nobody'", "user list")
    told(program.run("import", "--user", "nobody", tmp_path, "/Documents/archive/"), 2, "'nobody'")
    told(program.run("user", "add", "a:b", "--password-stdin"), 2, "'a:b'", "colon")
    told(program.run("user", "add", "ann", "--password-stdin"), 2, "empty password")


def test_a_path_that_is_none(program: Program) -> None:
    told(program.run("status", "/Documents/archive/none.dng"), 2, "'none.dng'")
    told(program.run("status", "/Documents/archive/" + "x" * 256), 2, "255 bytes")
    told(program.run("status", "/Documents/../Documents"), 2, "'..'")


def test_wrong_use(program: Program) -> None:
    told(program.run("sreve"), 2, "Did you mean 'serve'")
    told(program.run("serve", "--lisen", "x"), 2, "--listen")
    told(program.run("mount"), 2, "directory")
    told(program.run("user", "passwd", "admin"), 2, "--password-stdin")


def test_a_catalog_that_is_locked(locked: subprocess.Popen[str]) -> None:
    """The last test, because it takes longest."""
    said, _ = locked.communicate(timeout=60)
    assert locked.returncode == 4
    assert "locked" in said
    assert "try again" in said
    assert "Traceback" not in said
