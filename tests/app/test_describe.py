"""`archivia-fs describe`: what is set is told, by people's words and as JSON, and kept where both doors keep it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from archivia_fs.types import DOCUMENTS_INODE
from catalog.catalog import Catalog
from tests.app.program import Program, warm

PLACE = "/Documents/archive"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """It has no store: none is needed, and none is started."""
    with warm() as process:
        yield Program(tmp_path_factory.mktemp("home"), None, process).begin()


def described(program: Program, *words: str) -> dict[str, list[str]]:
    done = program.run("describe", PLACE, "--json", *words)
    assert done.returncode == 0, done.stderr
    told: dict[str, list[str]] = json.loads(done.stdout)["properties"]
    return told


def test_what_is_set_is_told_and_what_is_not_said_stays(program: Program) -> None:
    assert described(program) == {}
    both = described(program, "dc.title=Größe 📷", "dc.creator=A. Adams", "dc.creator=B = C")
    assert both == {"dc.title": ["Größe 📷"], "dc.creator": ["A. Adams", "B = C"]}
    assert described(program, "logical_id=inv-17") == {**both, "logical_id": ["inv-17"]}
    assert described(program, "dc.creator=", "dc.rights=") == {"dc.title": ["Größe 📷"], "logical_id": ["inv-17"]}
    done = program.run("describe", PLACE)
    assert done.stdout.splitlines() == ["dc.title    Größe 📷", "logical_id  inv-17"]
    assert not (program.home / "store").exists()


def test_it_is_the_property_of_mount_and_webdav(program: Program) -> None:
    described(program, "dc.title=A title")
    catalog = Catalog.open(f"sqlite:///{_database(program.home)}")
    try:
        place = catalog.lookup(DOCUMENTS_INODE, "archive").stat.ino
        assert catalog.properties(place)["user.dc.title"] == b"A title"
        catalog.set_properties(place, {"user.dc.title": b"by PROPPATCH\nof two lines", "user.other": b"\xff"})
    finally:
        catalog.close()
    assert described(program)["dc.title"] == ["by PROPPATCH", "of two lines"]


@pytest.mark.parametrize(
    ("path", "word", "said"),
    [
        (PLACE, "dc.titel=x", "There is no dc.titel; there are dc.title,"),
        (PLACE, "title=x", "There is no title"),
        (PLACE, "dc.title", "NAME=VALUE"),
        (PLACE, "dc.title=" + "x" * 65_537, "65536 bytes"),
        ("/Documents/nowhere", "dc.title=x", "nowhere"),
        ("/Thumbnails/archive", "dc.title=x", "begin with /Documents"),
    ],
)
def test_what_cannot_be_said(program: Program, path: str, word: str, said: str) -> None:
    before = described(program)
    done = program.run("describe", path, word)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert described(program) == before


def _database(home: Path) -> Path:
    (found,) = home.glob("*.db")
    return found
