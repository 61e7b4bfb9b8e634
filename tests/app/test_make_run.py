"""`make run` as the README says it: the Makefile's own command line, from the first start to Ctrl-C, and what to do next."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archivia_fs.store import weed
from tests.app.drive import free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text()


class Clone:
    """A folder like a fresh clone in which `make setup` has run, with a space in its name; its archive is the default one."""

    def __init__(self, top: Path) -> None:
        self.top = top
        top.mkdir()
        (top / "Makefile").symlink_to(ROOT / "Makefile")
        (top / ".venv").mkdir()
        (top / ".venv/bin").symlink_to(BIN)
        self.mount = top / "archive"
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        own = {
            name: value for name, value in os.environ.items() if not name.startswith(("ARCHIVIA_", "MAKE", "MFLAGS"))
        }
        return {**own, "PYTHONPATH": str(ROOT)}

    def run(self, **changes: str) -> str:
        """`make run` in a session of its own, so that Ctrl-C reaches all of it as from a terminal; what it says. Nothing is
        installed (-o): these tests run with what `make test` has set up."""
        command = ["make", "-o", ".venv/.ready", "run", f"LISTEN=127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(
            command, cwd=self.top, env=self.environment | changes, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if "Copy in" in line:
                return said
        raise AssertionError(said)

    def gateways(self) -> list[int]:
        """The processes of this clone's `archivia-fs`."""
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    line, place = (process / "cmdline").read_bytes(), (process / "cwd").readlink()
                except OSError:
                    continue
                if b"/archivia-fs\0serve\0" in line and place == self.top:
                    found.append(int(process.name))
        return found

    def shell(self, *lines: str) -> subprocess.CompletedProcess[str]:
        """What a person pastes into a shell in the clone."""
        return subprocess.run(
            ["bash", "-ec", "\n".join(lines)], cwd=self.top, env=self.environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    def nothing_is_left(self) -> bool:
        return not (self.gateways() or self.mount.exists() or weed.find(self.top / ".archivia/store"))


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    it = Clone(tmp_path / "a clone")
    yield it
    if it.process is not None and it.process.poll() is None:
        os.killpg(it.process.pid, signal.SIGTERM)
        it.process.communicate(timeout=60)
    subprocess.run(["umount", "-l", str(it.mount)], check=False, capture_output=True)
    it.shell(f"{BIN}/archivia-fs store stop --home .archivia")


def ended(clone: Clone) -> tuple[int, str]:
    assert clone.process is not None
    rest, _ = clone.process.communicate(timeout=60)
    deadline = time.monotonic() + 10
    while not clone.nothing_is_left():
        assert time.monotonic() < deadline, clone.gateways()
        time.sleep(0.1)
    return clone.process.returncode, rest


def test_from_the_first_start_to_ctrl_c(clone: Clone, tmp_path: Path) -> None:
    said = clone.run()
    assert f"http://127.0.0.1:{clone.port}/" in said
    assert len(re.findall(r"password \S{16} ", said)) == 1
    assert clone.mount.is_mount()
    lines = {line[2:11].strip(): line[11:].strip() for line in said.splitlines() if line.startswith("  ")}

    (tmp_path / "roll-03").mkdir()
    (tmp_path / "roll-03/0001.dng").write_bytes(b"a master")
    pasted = clone.shell(f"cd {tmp_path}", lines["Copy in"].replace("FOLDER", "roll-03"), lines["Ask"])
    assert pasted.returncode == 0, pasted.stderr
    assert (clone.mount / "Documents/archive/roll-03/0001.dng").read_bytes() == b"a master"
    assert re.search(r"^files +1$", pasted.stdout, re.MULTILINE)

    assert clone.process is not None
    os.killpg(clone.process.pid, signal.SIGINT)
    code, rest = ended(clone)
    assert code == -signal.SIGINT, "make ends as its signal says"
    assert "Traceback" not in rest
    assert "Error " not in rest, "the drive itself ended with 0"

    again = clone.run()
    assert "password" not in again
    assert (clone.mount / "Documents/archive/roll-03/0001.dng").read_bytes() == b"a master"
    (gateway,) = clone.gateways()
    os.kill(gateway, signal.SIGINT)
    assert ended(clone)[0] == 0


def test_the_readmes_commands_are_for_the_same_archive(clone: Clone) -> None:
    said = clone.run(ARCHIVIA_HOME=str(clone.top / ".archivia"))  # as from a shell that has it exported
    assert re.search(r"password \S{16} ", said)
    (export,) = re.findall(r"^export .*ARCHIVIA_HOME.*$", README, re.MULTILINE)
    done = clone.shell(export, "archivia-fs collection add scans", "archivia-fs user list", "command -v archivia-fs")
    assert done.returncode == 0, done.stderr
    assert "password" not in done.stderr, "no second archive"
    assert done.stdout.splitlines() == ["admin  admin", str(clone.top / ".venv/bin/archivia-fs")]
    assert (clone.mount / "Documents/scans").is_dir()
