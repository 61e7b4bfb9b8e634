"""What is in systemd/: the units are well-formed, and the fstab helper says to the program what fstab says."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
INSTALLED = "/opt/archivia-fs/.venv/bin/archivia-fs"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_the_units_are_well_formed(tmp_path: Path) -> None:
    user = pwd.getpwuid(os.getuid()).pw_name
    for unit in [*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.timer")]:
        text = unit.read_text()
        assert unit.suffix == ".timer" or f"ExecStart={INSTALLED} " in text
        text = text.replace(INSTALLED, "/bin/true").replace("=archivia-fs\n", f"={user}\n")
        (tmp_path / unit.name.replace("@", "@srv-archive")).write_text(text)
    units = [str(path) for path in tmp_path.iterdir()]
    assert len(units) == 4
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert (done.returncode, told) == (0, [])


@pytest.fixture
def helper() -> Iterator[Path]:
    """mount.archivia-fs as installed: linked from elsewhere, with a program that tells its arguments."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is closed to the other user of a test below
        root = Path(name)
        root.chmod(0o755)
        yield _install(root)


def _install(root: Path) -> Path:
    installed = root / "opt/systemd/mount.archivia-fs"
    program = root / "opt/.venv/bin/archivia-fs"
    for path in (installed, program):
        path.parent.mkdir(parents=True)
    shutil.copy(SYSTEMD / "mount.archivia-fs", installed)
    program.write_text('#!/bin/sh\nid -u\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    link = root / "mount.archivia-fs"
    link.symlink_to(installed)
    return link


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ("-o rw", ""),
        ("", ""),
        ("-o rw,nofail,_netdev,noatime,x-systemd.requires=archivia-fs.service,nosuid,nodev", ""),
        ("-o ro,allow_other,xattr", "--read-only --allow-other --xattr"),
        ("-n -v -o 'home=/var/lib/my archive,user=anna,rw'", "'--home=/var/lib/my archive' --user=anna"),
        ("-s -o 'subtree=/Documents/a*b'", "'--subtree=/Documents/a*b'"),
    ],
)
def test_the_options_of_fstab(helper: Path, options: str, arguments: str) -> None:
    done = subprocess.run(
        [helper, "archivia-fs", "/srv/my archive", *shlex.split(options)], capture_output=True, text=True, check=True
    )
    expected = [str(os.getuid()), "mount", "--daemon", "/srv/my archive", *shlex.split(arguments)]
    assert done.stdout.splitlines() == expected


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_setuid(helper: Path) -> None:
    done = subprocess.run(
        [helper, "archivia-fs", "/srv/archive", "-o", "setuid=nobody,allow_other"],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [str(pwd.getpwnam("nobody").pw_uid), "mount", "--daemon", "/srv/archive", "--allow-other"]
    assert done.stdout.splitlines() == expected


def test_an_unknown_option_is_refused(helper: Path) -> None:
    done = subprocess.run([helper, "x", "/srv", "-o", "rw,subtre=/x"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "option subtre=/x is not known" in done.stderr
