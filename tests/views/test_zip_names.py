"""Names of members: what no system refuses to unpack, and nothing that lands on something else."""

from __future__ import annotations

import random
import unicodedata

import pytest

from archivia_fs.views.downloads.names import natural_key, safe_name, unique_names

RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    "conin$",
    "conout$",
    *(f"{p}{d}" for p in ("com", "lpt") for d in "0123456789¹²³"),
}
ALPHABET = 'aAäÄß\u017fé\u0301e\u0308İ\u0131\u212a.. /\\:*?"<>|\0\n\x7f%~()2📷con'


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("page-001.dng", "page-001.dng"),
        ("größe 📷.tif", "größe 📷.tif"),
        ("e\u0301.txt", "é.txt"),
        ("..", "__"),
        (".", "_"),
        ("", "_"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("C:\\x", "C__x"),
        ("a*b?", "a_b_"),
        ("dot.", "dot_"),
        ("space ", "space_"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("COM1 .x", "_COM1 .x"),
        ("console", "console"),
        (".hidden", ".hidden"),
    ],
)
def test_a_safe_name(name: str, safe: str) -> None:
    assert safe_name(name) == safe
    assert safe_name(safe) == safe


def test_a_name_is_cut_at_a_character_and_keeps_its_suffix() -> None:
    safe = safe_name("ä" * 200 + ".dng")
    assert len(safe.encode()) <= 255
    assert safe.endswith("ä.dng")
    twins = unique_names(["x" * 251 + ".dng", "X" * 251 + ".dng"])
    assert set(twins.values()) == {"x" * 247 + " (2).dng", "X" * 251 + ".dng"}


def test_what_is_safe_keeps_its_name_and_the_others_make_way() -> None:
    assert unique_names(["a_b", "a:b", "a?b", "A_B"]) == {
        "A_B": "A_B", "a:b": "a_b (2)", "a?b": "a_b (3)", "a_b": "a_b (4)",
    }  # fmt: skip
    assert unique_names(["m.xml"], taken=["M.xml"]) == {"m.xml": "m (2).xml"}
    assert unique_names(["50%.tif"], also="%") == {"50%.tif": "50_.tif"}


def test_whatever_the_names_the_result_is_safe_and_unique() -> None:
    rng = random.Random(4)
    for _ in range(3000):
        names = {"".join(rng.choices(ALPHABET, k=rng.randrange(1, 6))) for _ in range(rng.randrange(1, 12))}
        found = unique_names(names)
        assert found == unique_names(sorted(names, reverse=True))
        assert set(found) == names
        keys = {unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()) for name in found.values()}
        assert len(keys) == len(names)
        for name in found.values():
            assert name == unicodedata.normalize("NFC", name)
            assert 0 < len(name.encode()) <= 255
            assert not set(name) & set('/\\:*?"<>|\0\n\x7f')
            assert name not in (".", "..")
            assert name[-1] not in ". "
            assert name.partition(".")[0].rstrip(" ").lower() not in RESERVED


def test_thousands_that_become_the_same_take_no_time() -> None:
    names = {"".join(":?*"[number // 3**place % 3] for place in range(9)) for number in range(3**9)}
    found = unique_names(names)  # the square of 19,683 would be minutes
    assert len(set(found.values())) == len(names) == 3**9


def test_natural_order() -> None:
    names = ["page 10", "page 2", "Page 1", "page", "page 002b", "cover"]
    assert sorted(names, key=natural_key) == ["cover", "page", "Page 1", "page 2", "page 002b", "page 10"]
    assert natural_key("a") != natural_key("A")
