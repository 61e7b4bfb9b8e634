"""Programs that copy extended attributes and ACLs, on a mount with `--xattr`."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.conftest import House, open_house
from tests.s3_servers import S3Server

ACL = "system.posix_acl_access"
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 1, 2, 4, 16, 32  # acl(5), tags
NOBODY = 0xFFFFFFFF
ENTRIES = [(USER_OBJ, 6, NOBODY), (USER, 6, 1234), (GROUP_OBJ, 4, NOBODY), (MASK, 6, NOBODY), (OTHER, 0, NOBODY)]
NAMES = {
    "user.dc.title": "Blatt ä, recto".encode(),
    "user.rating": b"5",
    "user.empty": b"",
    "user.bytes": bytes(range(256)),
}


@pytest.fixture(scope="module")
def house(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("attributes"), server, xattr=True) as house:
        yield house


@pytest.fixture
def folder(house: House, roll: str) -> Path:
    return house.mount / "Documents" / "archive" / roll


@pytest.fixture
def source(tmp_path: Path) -> Path:
    top = tmp_path / "roll"
    (top / "sub").mkdir(parents=True)
    for name in ("a.dng", "plain.dng", "sub/b.dng"):
        (top / name).write_bytes(name.encode() * 1000)
    os.link(top / "a.dng", top / "sub" / "again.dng")
    (top / "link").symlink_to("a.dng")
    try:
        for path in (top / "a.dng", top / "sub", top / "sub" / "b.dng"):
            for name, value in NAMES.items():
                os.setxattr(path, name, value)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip(f"the file system of {tmp_path} has no user xattrs")
        raise
    return top


def rsync(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["rsync", "--itemize-changes", *(str(word) for word in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def attributes(top: Path) -> dict[str, dict[str, bytes]]:
    """The xattrs of everything below."""
    found = {}
    for path in sorted(top.rglob("*")):
        names = [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user.")]
        found[str(path.relative_to(top))] = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    return found


def test_rsync_copies_xattrs_and_hard_links(source: Path, folder: Path, tmp_path: Path) -> None:
    """There, and back again; a second run changes nothing, and a changed xattr alone is sent."""
    assert rsync("-aHX", f"{source}/", folder).returncode == 0
    assert attributes(folder) == attributes(source)
    assert attributes(folder)["sub/b.dng"] == NAMES
    assert (folder / "a.dng").samefile(folder / "sub" / "again.dng")
    assert (folder / "a.dng").stat().st_nlink == 2
    again = rsync("-aHX", f"{source}/", folder)
    assert (again.returncode, again.stdout) == (0, "")
    os.setxattr(source / "sub" / "b.dng", "user.rating", b"1")
    os.removexattr(source / "sub" / "b.dng", "user.empty")
    assert rsync("-aHX", f"{source}/", folder).stdout.split() == [".f........x", "sub/b.dng"]  # no byte of it
    assert attributes(folder) == attributes(source)
    assert rsync("-aHX", f"{folder}/", tmp_path / "back").returncode == 0
    assert attributes(tmp_path / "back") == attributes(source)


def test_cp_and_tar_copy_xattrs(source: Path, folder: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", f"{source}/.", folder / "copied"], check=True, timeout=60)
    subprocess.run(["tar", "--xattrs", "-C", source, "-cf", tmp_path / "roll.tar", "."], check=True, timeout=60)
    (folder / "unpacked").mkdir()
    subprocess.run(["tar", "--xattrs", "-C", folder / "unpacked", "-xf", tmp_path / "roll.tar"], check=True, timeout=60)
    assert attributes(folder / "copied") == attributes(folder / "unpacked") == attributes(source)


def test_acls_are_refused(source: Path, folder: Path) -> None:
    """[R7] POSIX ACLs are EOPNOTSUPP: `rsync -A` copies files that have none beyond their mode, and names those that have."""
    assert rsync("-aHAX", f"{source}/", folder).returncode == 0
    assert attributes(folder) == attributes(source)
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in ENTRIES)
    for follow in (folder / "a.dng", folder / "sub"):
        with pytest.raises(OSError, match="not supported") as refused:
            os.setxattr(follow, ACL, value)
        assert refused.value.errno == errno.EOPNOTSUPP
    try:
        os.setxattr(source / "plain.dng", ACL, value)
    except OSError:
        pytest.skip(f"the file system of {source} has no ACLs")
    said = rsync("-aHAX", f"{source}/", folder)
    assert said.returncode == 23
    assert "plain.dng" in said.stderr
    assert "not supported" in said.stderr
    assert (folder / "plain.dng").read_bytes() == (source / "plain.dng").read_bytes()
