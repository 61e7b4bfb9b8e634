"""What goes into a download under which path: whatever the names, every file once, inside, and readable by its order."""

from __future__ import annotations

import random
import unicodedata
from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from archivia_fs.types import InodeNo, RevisionId
from archivia_fs.views.downloads.document import PATH_MAX, _items
from archivia_fs.views.thumbnails.facts import to_json
from archivia_fs.views.thumbnails.ifd import PictureFacts
from catalog.catalog import Below
from tests.views.test_mets import document, find, tree_of

NAMES = ("a", "A", "ä", "a\u0308", "a:b", "a?b", "a_b", "..x", "CON", "con.txt", "x.", "x ", "50%", "roll_mets.xml",
         "ROLL_METS.XML", "_deep", "\n", "\u017f", "s", "page 2", "page 10", "ß", "ss", "x" * 255, "X" * 255)  # fmt: skip
TAKEN = ("roll_mets.xml", "roll_metadata.csv")


def below(parent: int, ino: int, name: str, *, folder: bool) -> Below:
    return Below(
        InodeNo(parent), name, InodeNo(ino), 0o40755 if folder else 0o100644, 0 if folder else 1, 0,
        None if folder else RevisionId(f"r{ino}"), None, None, None,
    )  # fmt: skip


def folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def test_every_file_once_under_a_path_of_its_own() -> None:
    rng = random.Random(9)
    for _ in range(300):
        children: dict[InodeNo, list[Below]] = {}
        folders, expected = [1], {}
        places = {1: ""}
        for ino in range(2, rng.randrange(2, 60)):
            parent = rng.choice(folders)
            used = {unicodedata.normalize("NFC", each.name) for each in children.get(InodeNo(parent), ())}
            name = rng.choice([name for name in NAMES if unicodedata.normalize("NFC", name) not in used] or [f"n{ino}"])
            folder = rng.random() < 0.4
            if folder:
                folders.append(ino)
                places[ino] = f"{places[parent]}{name}/"
            expected[ino] = places[parent] + name + ("/" if folder else "")
            children.setdefault(InodeNo(parent), []).append(below(parent, ino, name, folder=folder))
        items = _items(InodeNo(1), children, {}, TAKEN)
        assert {item.ino: item.original for item in items} == expected
        paths = [folded(item.path.rstrip("/")) for item in items]
        assert len({*paths, *TAKEN}) == len(paths) + len(TAKEN)
        for item in items:
            assert len(item.path.encode()) <= PATH_MAX + 1
            assert not set(item.path) & set('\\:*?"<>|\n%')
            assert not {"..", ".", ""} & set(item.path.rstrip("/").split("/"))
            assert not PurePosixPath(item.path).is_absolute()
        seen = {"."}
        for item in items:  # a folder stands before what is in it
            assert str(PurePosixPath(item.path).parent) in seen
            if item.is_folder:
                seen.add(item.path.rstrip("/"))


def test_folders_deeper_than_anybody_can_unpack() -> None:
    children = {
        InodeNo(ino): [below(ino, ino + 1, "x" * 255, folder=True), below(ino, 1000 + ino, "page.dng", folder=False)]
        for ino in range(1, 60)
    }
    items = _items(InodeNo(1), children, {}, ())
    assert len(items) == 2 * 59
    assert len({item.path for item in items}) == len(items)
    assert max(len(item.path.encode()) for item in items) <= PATH_MAX + 1
    assert max(len(item.original.encode()) for item in items) > 59 * 200
    assert any(item.path.startswith("_deep/") for item in items)


FACTS = to_json(PictureFacts("image/x-adobe-dng", make="Leica"))


@pytest.mark.parametrize(
    ("name", "facts", "media_type", "picture"),
    [
        ("page.dng", None, "image/x-adobe-dng", True),  # nobody has looked yet
        ("page.dng", "", "application/octet-stream", False),  # a text of this name
        ("page.txt", "", "text/plain", False),
        ("page.bin", None, "application/octet-stream", False),
        ("page.bin", FACTS, "image/x-adobe-dng", True),
        ("x" * 251 + ".dng", FACTS, "image/x-adobe-dng", False),  # no room for ".jpg" in the 255 bytes of a name
    ],
)
def test_content_decides_what_is_a_picture(name: str, facts: str | None, media_type: str, picture: bool) -> None:
    each = replace(below(1, 2, name, folder=False), facts=facts)
    (item,) = _items(InodeNo(1), {InodeNo(1): [each]}, {}, ())
    assert (item.media_type, item.picture) == (media_type, picture)
    tree = tree_of(document(item))
    assert bool(find(tree, "//m:fileGrp[@USE='THUMBNAIL']")) == picture
    assert len(find(tree, "//m:fptr")) == 1 + picture
    assert find(tree, "//m:div/@TYPE")[1:] == ["page" if picture else "file"]
