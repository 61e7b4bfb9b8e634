"""What a process that decodes may not do: each layer of its sandbox by itself, and the list of calls against the kernel."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from archivia_fs.views.thumbnails import seccomp

ROOT = Path(__file__).parents[2]
REFUSED = {"Operation not permitted", "Permission denied"}


def tried(layers: str, tmp_path: Path, wanted: str = "") -> Mapping[str, str]:
    """The outcome of each trial, under these layers only, beside a process that could be touched and listeners."""
    path = tmp_path / "file"
    path.write_bytes(b"untouched")
    (tmp_path / "file.spare").touch()
    other = subprocess.Popen(["sleep", "60"])
    try:
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as local:
            local.bind(f"\0archivia-test-{os.getpid()}")
            local.listen()
            before = path.stat()
            arguments = [
                str(ROOT), layers, str(other.pid), str(path), str(tmp_path), str(tcp.getsockname()[1]),
                f"archivia-test-{os.getpid()}", wanted,
            ]  # fmt: skip
            program = [sys.executable, "-I", str(Path(__file__).parent / "sandbox_trials.py"), *arguments]
            ran = subprocess.run(program, capture_output=True, timeout=60, check=False)
            assert ran.returncode == 0, ran.stderr.decode()
            missing, found = json.loads(ran.stdout)
            if missing:
                pytest.skip(f"this kernel refuses {missing}; limits and the process of its own remain")
            if layers:
                assert path.stat() == before
                assert path.read_bytes() == b"untouched"
            return dict(found)
    finally:
        other.kill()
        other.wait()


def test_nothing_outside_is_within_reach(tmp_path: Path) -> None:
    """By the list of calls alone."""
    found = tried("seccomp", tmp_path)
    for name in ("a call that is not known yet", "clone3"):
        assert found[name] == "Function not implemented"
    rest = {name: said for name, said in found.items() if name not in ("a call that is not known yet", "clone3")}
    assert {name: said for name, said in rest.items() if said not in REFUSED} == {}


FILES = "read a file,write a file,list a folder,make a file,make a folder,make a link,make a fifo,truncate,link,remove,rename"
NETWORK = "connect,connect to a name"
SIGNALS = "kill,tgkill,tkill,rt_sigqueueinfo"


@pytest.mark.parametrize(("wanted", "version"), [(FILES, 3), (NETWORK, 6), (SIGNALS, 6)])
def test_landlock_holds_by_itself(tmp_path: Path, wanted: str, version: int) -> None:
    """Files, network and signals, without the list of calls; and without Landlock the same can be done."""
    if ctypes.CDLL(None).syscall(444, None, 0, 1) < version:
        pytest.skip("this kernel's Landlock is too old for that")
    free = tried("", tmp_path, wanted)
    assert not set(free.values()) & REFUSED, free
    (tmp_path / "again").mkdir()
    held = tried("landlock", tmp_path / "again", wanted)
    assert set(held.values()) <= REFUSED, held


EVERY = """
import ctypes, json, os, sys
sys.path.insert(0, sys.argv[1])
from archivia_fs.views.thumbnails import sandbox, seccomp
libc = ctypes.CDLL(None, use_errno=True)
numbers = json.loads(sys.argv[2])
if not (sandbox.give_up_privileges(libc) and seccomp.install(libc)):
    os.write(1, b"null"); sys.exit()
said = {}
for number in numbers:
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(0)] * 6)
    said[number] = [result, ctypes.get_errno()]
os.write(1, json.dumps(said).encode())
"""


def test_every_other_call_is_refused() -> None:
    """All numbers there are, those of x32 too, but for the list."""
    column = 0 if platform.machine() == "x86_64" else 1
    known = {each[column] for each in seccomp.ALLOWED.values()}
    known |= {each.numbers[column] for each in seccomp.checked(1).values()}
    probes = {335, 336} if column == 0 else set()  # uretprobe, uprobe: never filtered, and SIGILL outside of a probe
    numbers = [number for number in range(600) if number not in known | probes]
    numbers += [0x40000000 + number for number in range(600) if number not in probes]
    ran = subprocess.run(
        [sys.executable, "-I", "-c", EVERY, str(ROOT), json.dumps(numbers)], capture_output=True, timeout=60, check=True
    )
    said = json.loads(ran.stdout)
    if said is None:
        pytest.skip("this kernel refuses seccomp filters")
    assert len(said) == len(numbers)
    assert {number: outcome for number, outcome in said.items() if outcome not in ([-1, 1], [-1, 38])} == {}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_of_each_architecture_is_a_program(machine: str) -> None:
    """Steps go forward, stay inside, and end; run by hand, it says what the lists say."""
    program = list(seccomp.steps(machine, 4711))
    assert len(program) < 4096
    column = 0 if machine == "x86_64" else 1
    audit = seccomp._AUDIT[machine]
    for numbers in seccomp.ALLOWED.values():
        if numbers[column] is not None:
            assert _run(program, audit, numbers[column] or 0) == "allow"
    rules = {name: rule.numbers[column] or 0 for name, rule in seccomp.checked(4711).items()}
    for name, argument, value, expected in (
        ("clone", 0, 0x10F00, "allow"), ("clone", 0, 0x11, "refuse"), ("clone", 0, 0x40010F00, "refuse"),
        ("newfstatat", 3, 0x1000, "allow"), ("newfstatat", 3, 0, "refuse"), ("prlimit64", 0, 0, "allow"),
        ("prlimit64", 0, 4711, "refuse"), ("tgkill", 0, 4711, "allow"), ("tgkill", 0, 1, "refuse"), ("fcntl", 1, 8, "refuse"),
        ("fcntl", 1, 1030, "allow"), ("prctl", 0, 15, "allow"), ("prctl", 0, 22, "refuse"),
    ):  # fmt: skip
        assert _run(program, audit, rules[name], {argument: value}) == expected, name
    assert [_run(program, audit, number) for number in (435, seccomp.NEWEST + 1, seccomp.NEWEST)] == [
        "missing", "missing", "refuse",
    ]  # fmt: skip
    assert _run(program, 0x40000003, 0) == "refuse"  # i386


def _run(program: list[seccomp.Step], audit: int, number: int, arguments: Mapping[int, int] | None = None) -> str:
    data = {0: number, 4: audit} | {16 + 8 * index: 0 for index in range(6)}
    data |= {16 + 8 * index: value for index, value in (arguments or {}).items()}
    at, register = 0, 0
    while True:
        code, if_true, if_false, value = program[at]
        if code == 0x06:
            return {0x7FFF0000: "allow", 0x50001: "refuse", 0x50026: "missing"}[value]
        if code == 0x20:
            register = data[value]
            at += 1
        else:
            true = {0x15: register == value, 0x25: register > value, 0x45: bool(register & value)}[code]
            assert 0 <= if_true < 256 > if_false >= 0
            at += 1 + (if_true if true else if_false)


CPU = """
import sys, time
sys.path.insert(0, sys.argv[1])
from archivia_fs.views.thumbnails import sandbox
while time.process_time() < 0.7: pass
sandbox.limit_job(1 << 32, 1)
while True: pass
"""


def test_cpu_time_is_limited() -> None:
    """The kernel ends it: a second, rounded up, beside what was used before."""
    start = time.monotonic()
    ran = subprocess.run([sys.executable, "-I", "-c", CPU, str(ROOT)], timeout=60, check=False)
    assert ran.returncode in (-24, -9)  # SIGXCPU, SIGKILL
    assert 1.5 < time.monotonic() - start < 30
