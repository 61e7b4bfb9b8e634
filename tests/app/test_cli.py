"""The command line as a person, a script and a service manager use it: the real program on a real S3 server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from archivia_fs.cli import app, command
from archivia_fs.commands.common import shown, size_text
from archivia_fs.commands.service import notify
from archivia_fs.types import Lock
from catalog.catalog import Catalog
from tests.app.program import PROGRAM, Program, told, warm
from tests.s3_servers import S3Server, free_ports, seaweedfs

MIB = 1 << 20
WRITER = (  # writes 20 MiB, waits for a line, writes 1 MiB more, closes
    "import sys; f = open(sys.argv[1], 'wb'); f.write(bytes(20 << 20)); f.flush(); print('half', flush=True); "
    "sys.stdin.readline(); f.write(bytes(1 << 20)); f.close()"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def program(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with warm() as process:
        yield Program(tmp_path_factory.mktemp("home"), server, process).begin()


@pytest.fixture
def mount(program: Program, tmp_path: Path) -> Iterator[Path]:
    """A daemon's mount."""
    mount = tmp_path / "mount"
    done = program.run("mount", "--daemon", mount)
    assert done.returncode == 0, done.stderr
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)


@contextlib.contextmanager
def writing(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Somebody is in the middle of writing `file`; a line to its standard input ends it."""
    command = [sys.executable, "-c", WRITER, str(file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "half\n"
        try:
            yield writer
        finally:
            writer.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"{words!r} was not said, but: {said}")


def eventually(what: str, happened: object, seconds: float = 20.0) -> None:
    assert callable(happened)
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, what
        time.sleep(0.05)


# --- import and status ---------------------------------------------------------------------------------------------------


def test_import_tells_what_it_did(program: Program, tmp_path: Path) -> None:
    (tmp_path / "roll").mkdir()
    for number in range(3):
        (tmp_path / f"roll/{number}.dng").write_bytes(os.urandom(MIB))
    os.mkfifo(tmp_path / "roll/fifo")
    dry = program.run("import", "--dry-run", f"{tmp_path}/roll", "/Documents/archive/a/")
    assert dry.stdout.count("would copy") == 3
    first = program.run("import", "--json", f"{tmp_path}/roll", "/Documents/archive/a/")
    assert first.returncode == 0
    summary = json.loads(first.stdout)
    assert (summary["copied"], summary["bytes"], summary["errors"]) == (3, 3 * MIB, [])
    assert summary["special"] == [f"{tmp_path}/roll/fifo"]
    again = program.run("import", f"{tmp_path}/roll", "/Documents/archive/a/")
    assert "Copied 0 file(s), 0 bytes" in again.stdout
    assert "3 were there already, 1 special, 0 failed" in again.stdout
    (tmp_path / os.fsdecode(b"roll/\xff")).touch()
    told(program.run("import", f"{tmp_path}/roll", "/Documents/archive/a/"), 1, "UTF-8", r"\udcff")
    told(program.run("import", tmp_path / "none", "/Documents/archive/a/"), 2, "No such file")


def test_import_shows_a_bar_on_a_terminal(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "big.dng"
    file.write_bytes(bytes(30 * MIB))
    ours, theirs = pty.openpty()
    environment = {**program.environment(), "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        [*PROGRAM, "import", str(file), "/Documents/archive/"], env=environment, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while data := os.read(ours, 65536):
                seen += data
        os.close(ours)
        assert process.stdout is not None
        assert b"Copied 1 file(s), 30.0 MiB" in process.stdout.read()
    assert process.returncode == 0
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", seen).decode()
    assert "30.0 MiB" in text
    assert "1 files" in text


def test_an_interrupted_import_goes_on_where_it_stopped(program: Program, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(150):
        (folder / f"{number}.dng").write_bytes(os.urandom(200_000))
    process = program.start("import", f"{folder}/", "/Documents/archive/many")
    eventually("some are copied", lambda: program.run("status", "/Documents/archive/many/1.dng").returncode == 0)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Interrupted" in said
    assert "Traceback" not in said
    copied = int(re.search(r"Copied (\d+) file", said)[1])  # type: ignore[index]
    rest = json.loads(program.run("import", "--json", f"{folder}/", "/Documents/archive/many").stdout)
    assert rest["skipped"] >= copied > 0
    assert rest["copied"] + rest["skipped"] == 150


def test_is_it_safe_yet(program: Program, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"123456789")
    program.run("import", tmp_path / "a.txt", "/Documents/archive/")
    found = json.loads(program.run("status", "/Documents/archive/a.txt", "--json").stdout)
    assert found.pop("since").startswith("20")
    assert len(found.pop("revision")) == 32
    assert found == {
        "path": "/Documents/archive/a.txt",
        "kind": "file",
        "state": "stored",
        "size": 9,
        "sha256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
        "crc32": "cbf43926",  # the check value of CRC-32/ISO-HDLC
    }
    assert "stored" in program.run("status", "/Documents/archive/a.txt").stdout
    assert json.loads(program.run("status", "/Documents/archive", "--json").stdout)["kind"] == "folder"


def test_what_is_being_uploaded(program: Program, mount: Path) -> None:
    file = mount / "Documents/archive/open.dng"
    with writing(file) as writer:
        whole = json.loads(program.run("status", "--json").stdout)
        (upload,) = [each for each in whole["uploads"] if each["target"] == "/Documents/archive/open.dng"]
        assert 0 < upload["bytes"] <= 20 * MIB
        assert upload["alive"]
        assert str(mount) in whole["mounts"]
        state = json.loads(program.run("status", "/Documents/archive/open.dng", "--json").stdout)
        assert (state["state"], state["size"]) == ("uploading", 0)
        assert "/Documents/archive/open.dng" in program.run("status").stdout
        writer.communicate("go on\n")
        assert writer.returncode == 0
    state = json.loads(program.run("status", "/Documents/archive/open.dng", "--json").stdout)
    assert (state["state"], state["size"]) == ("stored", 21 * MIB)


def _descriptor(process: str, number: int) -> str:
    """What a process has open there; "" if it is none, or gone, or not ours to see."""
    try:
        return str(Path(f"/proc/{process}/fd/{number}").readlink())
    except OSError:
        return ""


# --- the daemon, umount --------------------------------------------------------------------------------------------------


def test_umount_waits_for_writers_and_shows_them(program: Program, mount: Path) -> None:
    with writing(mount / "Documents/archive/slow.dng") as writer:
        umount = program.start("umount", mount)
        said = read_until(umount, "Waiting for 1 open upload")
        assert f"{mount}/Documents/archive/slow.dng (20.0 MiB so far, python" in said
        assert mount.is_mount()
        writer.communicate("go on\n")
        assert writer.returncode == 0
        umount.communicate(timeout=30)
        assert umount.returncode == 0
    assert not mount.is_mount()
    state = json.loads(program.run("status", "/Documents/archive/slow.dng", "--json").stdout)
    assert (state["state"], state["size"]) == ("stored", 21 * MIB)


def test_umount_gives_up_on_a_writer_that_stands_still(program: Program, mount: Path) -> None:
    with writing(mount / "Documents/archive/still.dng") as writer:
        told(program.run("umount", "--patience", "0", mount), 5, "in use", f"({writer.pid})")
        assert mount.is_mount()
        assert program.run("umount", "--force", mount).returncode == 0
        assert not mount.is_mount()


def test_a_daemon_has_a_log_and_no_terminal(program: Program, mount: Path) -> None:
    log = program.home / "log" / f"mount-{str(mount).strip('/').replace('/', '-')}.log"
    (daemon,) = [process for process in Path("/proc").iterdir() if _descriptor(process.name, 2) == str(log)]
    assert _descriptor(daemon.name, 0) == "/dev/null"
    assert os.getsid(int(daemon.name)) != os.getsid(0)
    assert program.run("umount", mount).returncode == 0
    eventually("the daemon ends", lambda: not daemon.exists() or "Z" in (daemon / "stat").read_text())


def test_a_daemons_log_is_bounded_and_has_what_libraries_print(tmp_path: Path) -> None:
    code = (
        "import logging, os, sys; from pathlib import Path; from archivia_fs.commands import service; "
        "service.LOG_BYTES = 3000; service.log_to(Path(sys.argv[1])); "
        "[(logging.warning('line %d', i), os.write(2, b'a library\\n')) for i in range(400)]"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "log/it.log")], check=False, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    logs = list((tmp_path / "log").iterdir())
    assert len(logs) == 4
    assert all(log.stat().st_size < 3200 for log in logs)
    assert (tmp_path / "log/it.log").read_text().endswith("WARNING root: line 399\na library\n")


# --- signals and the service manager -----------------------------------------------------------------------------------------


def test_a_second_ctrl_c_ends_at_once_and_the_old_content_stays(program: Program, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    serve = program.start("serve", "--listen", "127.0.0.1:0", "--mount", mount)
    read_until(serve, "Copy in")
    file = mount / "Documents/archive/old.dng"
    file.write_bytes(b"the old content")
    with writing(file):
        serve.send_signal(signal.SIGINT)
        read_until(serve, "Waiting for 1 open upload")
        serve.send_signal(signal.SIGINT)
        started = time.monotonic()
        said, _ = serve.communicate(timeout=60)
        assert serve.returncode == 130, said
        assert time.monotonic() - started < 15
        assert "the old contents stay" in said
        assert "Traceback" not in said
        assert not os.path.ismount(mount)
    state = json.loads(program.run("status", "/Documents/archive/old.dng", "--json").stdout)
    assert state["size"] == len("the old content")


@pytest.mark.parametrize("abstract", [True, False])
def test_a_service_manager_is_told(program: Program, tmp_path: Path, abstract: bool) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = f"@archivia-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
        manager.bind("\0" + address[1:] if abstract else address)
        manager.settimeout(30)
        arguments = ["mount", tmp_path / "mount"] if abstract else ["serve", "--listen", "127.0.0.1:0"]
        process = program.start(*arguments, NOTIFY_SOCKET=address)
        assert manager.recv(4096).decode().splitlines()[0] == "READY=1"
        process.send_signal(signal.SIGTERM)
        assert manager.recv(4096).decode() == "STOPPING=1"
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 0, said


def test_a_signal_is_heard_whenever_it_comes() -> None:
    """Also while the main thread begins to wait, where a handler that took a lock would hang."""
    code = (
        "import os, signal, threading; from archivia_fs.commands.service import stop_on_signals\n"
        "for i in range(400):\n"
        "    with stop_on_signals() as stop:\n"
        "        stop.serving = True\n"
        "        timer = threading.Timer(i % 50 * 4e-6, os.kill, (os.getpid(), signal.SIGTERM))\n"
        "        timer.start(); stop.wait(); timer.join()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


def test_nobody_need_listen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for address in (str(tmp_path / "none"), "@nobody-is-here", "vsock:2:1234", "", "x" * 500):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1")


# --- doctor, version, help, JSON -----------------------------------------------------------------------------------------------


def test_doctor_on_a_good_day(program: Program) -> None:
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    done = program.run("doctor", "--json", "--listen", listen)
    found = {each["check"]: each for each in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert {each["state"] for each in found.values()} <= {"ok", "note"}
    assert "part copy" in found["store"]["detail"]
    assert found["catalog"]["detail"].startswith("schema")
    assert set(found) == {
        "settings", "python", "/dev/fuse", "fusermount3", "allow_other", "packages", "pyfuse3", "libmagic", "libraw",
        "disk of the home", "disk of the cache", "catalog", "store", "clock", "port",
    }  # fmt: skip


def test_doctor_on_a_bad_day(program: Program, tmp_path: Path) -> None:
    """Every check is made, though nearly everything is broken; and nothing is changed."""
    home = tmp_path / "none"
    done = program.run(
        "doctor", "--json", "--listen", "nonsense", ARCHIVIA_S3_ENDPOINT="http://127.0.0.1:9",
        ARCHIVIA_CATALOG_URL="postgresql://user@127.0.0.1:9/x", ARCHIVIA_HOME=str(home),
    )  # fmt: skip
    assert done.returncode == 1
    found = {each["check"]: each for each in json.loads(done.stdout)}
    assert {name for name, each in found.items() if each["state"] == "failed"} == {"catalog", "store", "clock", "port"}
    assert all(each["advice"] for each in found.values() if each["state"] != "ok")
    assert not home.exists()


def test_doctor_finds_another_distribution_with_our_module(program: Program, tmp_path: Path) -> None:
    metadata = tmp_path / "fusepy-3.0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fusepy\nVersion: 3.0.1\n")
    (metadata / "top_level.txt").write_text("fuse\n")
    path = f"{program.environment()['PYTHONPATH']}:{tmp_path}"
    done = program.wrapped((), "doctor", "--json", PYTHONPATH=path)
    (found,) = [each for each in json.loads(done.stdout) if each["check"] == "packages"]
    assert found["state"] == "failed"
    assert "fuse (fusepy)" in found["detail"]
    assert done.returncode == 1


def test_lists_are_json_for_scripts(program: Program) -> None:
    program.run("collection", "add", "scans")
    collections = json.loads(program.run("collection", "list", "--json").stdout)
    assert {"name": "scans", "owner": "admin", "grants": {}} in collections
    assert {"name": "admin", "admin": True, "disabled": False} in json.loads(
        program.run("user", "list", "--json").stdout
    )
    store = json.loads(program.run("store", "status", "--json").stdout)
    assert (store["kind"], store["running"], store["part_copy"]) == ("s3", True, True)
    version = json.loads(program.run("version", "--json").stdout)["archivia_fs"]
    assert program.run("--version").stdout == f"archivia-fs {version}\n"


def test_users_and_their_rights(program: Program, tmp_path: Path) -> None:
    (tmp_path / "a.dng").write_bytes(b"a")
    assert program.wrapped((), "user", "add", "ann", "--password-stdin", typed="secret\n").returncode == 0
    assert program.run("collection", "add", "hers").returncode == 0
    file, place = tmp_path / "a.dng", "/Documents/hers/"
    told(program.run("import", "--user", "ann", file, place), 2, "ann")
    assert program.run("collection", "grant", "hers", "ann", "read").returncode == 0
    told(program.run("import", "--user", "ann", file, place), 1, "ann")
    assert program.run("collection", "grant", "hers", "ann", "write").returncode == 0
    assert program.run("import", "--user", "ann", file, place).returncode == 0
    listed = json.loads(program.run("collection", "list", "--json").stdout)
    assert {"name": "hers", "owner": "admin", "grants": {"ann": "write"}} in listed
    assert program.run("user", "disable", "ann").returncode == 0
    told(program.run("import", "--user", "ann", file, place), 2, "'ann'")
    users = json.loads(program.run("user", "list", "--json").stdout)
    assert {"name": "ann", "admin": False, "disabled": True} in users


def test_locks_are_shown_and_ended(program: Program) -> None:
    assert program.run("locks", "list").stdout == ""
    with contextlib.closing(Catalog.open(f"sqlite:///{program.home}/catalog.db")) as catalog:
        catalog.add_lock(Lock("t1", "/Documents/office/a.dng", "ann", "", True, 0, 600, None))
        catalog.add_lock(Lock("t2", "/Documents/\u00e4", "ben", "", False, -1, 600, time.time_ns() + 600 * 10**9))
    shown = program.run("locks", "list").stdout
    assert "/Documents/office/a.dng  exclusive  ann  until it is unlocked" in shown
    assert re.search(r"/Documents/\u00e4 \(and all below\)  shared  ben  for 59\d s", shown)
    assert [lock["token"] for lock in json.loads(program.run("locks", "list", "--json").stdout)] == ["t1", "t2"]
    assert program.run("locks", "remove", "/Documents/a\u0308/").returncode == 0
    assert program.run("locks", "remove", "Documents/office/a.dng").returncode == 0
    assert program.run("locks", "list").stdout == ""
    told(program.run("locks", "remove", "/Documents/office"), 2, "Nothing has locked", "locks list")


def test_every_command_has_help_and_the_shared_options() -> None:
    def leaves(group: object, path: str = "") -> Iterator[tuple[str, object]]:
        for name, each in getattr(group, "commands", {}).items():
            if hasattr(each, "commands"):
                yield from leaves(each, f"{path}{name} ")
            else:
                yield f"{path}{name}", each

    found = dict(leaves(command()))
    assert len(found) >= 19
    for name, each in found.items():
        assert each.get_short_help_str(), name  # type: ignore[attr-defined]
        options = {option for parameter in each.params for option in parameter.opts}  # type: ignore[attr-defined]
        assert {"--home", "--config", "--log-level"} <= options, name
    assert typer.main.get_command(app).epilog


@pytest.mark.parametrize("name", ["serve", "mount", "import"])
def test_help_has_examples(program: Program, name: str) -> None:
    said = program.run(name, "--help").stdout
    assert said == program.run("help", name).stdout.replace("  --help  ", "  --help  ")
    examples = [line.strip() for line in said.splitlines() if line.startswith("    archivia-fs")]
    assert len(examples) >= 2
    assert all(example.startswith(f"archivia-fs {name}") for example in examples)


def test_help_prints_what_is_promised(program: Program) -> None:
    """Or says that this installation has lost the file."""
    promises = Path(__file__).parents[2] / "archivia_fs/vfs/SEMANTICS.md"
    done = program.run("help", "semantics")
    if promises.exists():
        assert done.stdout == promises.read_text()
    else:
        told(done, 2, "SEMANTICS.md", "install")
    told(program.run("help", "semantic"), 2, "no help")


# --- words ---------------------------------------------------------------------------------------------------------------


def test_sizes_and_names_for_people() -> None:
    assert [size_text(size) for size in (0, 1023, 1024, 1536, 5 << 40)] == [
        "0 bytes", "1023 bytes", "1.0 KiB", "1.5 KiB", "5.0 TiB"
    ]  # fmt: skip
    assert shown("Äpfel 🍎.dng") == "Äpfel 🍎.dng"
    assert shown("a\nb\x1b[2J\udcff") == r"a\nb\x1b[2J\udcff"


def test_a_wheel_would_have_the_promises() -> None:
    """hatchling takes every file of the packages that Git knows or would know."""
    git = shutil.which("git")
    assert git is not None
    ignored = subprocess.run(
        [git, "check-ignore", "archivia_fs/vfs/SEMANTICS.md"], cwd=Path(__file__).parents[2], check=False
    )
    assert ignored.returncode == 1
