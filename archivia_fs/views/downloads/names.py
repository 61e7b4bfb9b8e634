"""Names that every system can unpack, made from names that only some can. Pure, deterministic.

Owns: what a safe name is. Used by: document, view. Threading: pure functions.

A safe name is one folder deep, in NFC, at most 255 bytes of UTF-8, without what Windows forbids or reserves (learn.microsoft.com,
"Naming Files, Paths, and Namespaces"). Within a folder no two are the same after NFC and case folding, because
Windows and macOS would unpack them over each other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable

NAME_MAX = 255  # bytes of UTF-8

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)", re.IGNORECASE)


def safe_name(name: str, *, also: str = "") -> str:
    """`name` itself if it is safe, else one with "_" for what is not. `also`: more characters to avoid."""
    name = unicodedata.normalize("NFC", name)
    name = _FORBIDDEN.sub("_", name)
    for character in also:
        name = name.replace(character, "_")
    bare = name.rstrip(". ")
    name = bare + "_" * (len(name) - len(bare)) or "_"
    if _RESERVED.match(name):
        name = "_" + name
    return _shortened(name, "")


def unique_names(names: Iterable[str], *, taken: Collection[str] = (), also: str = "") -> dict[str, str]:
    """A safe name for each of the names of one folder, none that clashes with another or with `taken`. Those that are safe
    already keep theirs; the others follow in order, " (2)" telling them apart."""
    ordered = sorted(names)
    used = dict.fromkeys(map(_key, taken), 1)
    found: dict[str, str] = {}
    later = []
    for name in ordered:
        if safe_name(name, also=also) == name and _key(name) not in used:
            used[_key(name)] = 1
            found[name] = name
        else:
            later.append(name)
    for name in later:
        found[name] = free_name(safe_name(name, also=also), used, _key)
    return {name: found[name] for name in ordered}


def free_name(name: str, used: dict[str, int], key: Callable[[str], str]) -> str:
    """`name`, at most 255 bytes of it, or the first of "name (2)", "name (3)"... whose `key` is not in `used`; then it is, with the
    number that was tried last, so that thousands of the same name are not tried from 2 on each time."""
    first = candidate = _shortened(name, "")
    count = max(1, used.get(key(first), 1))
    while key(candidate) in used:
        count += 1
        candidate = _shortened(name, f" ({count})")
    used[key(first)] = count
    used.setdefault(key(candidate), 1)
    return candidate


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts "page 2" before "page 10", whatever the case; names that differ never compare as equal."""
    parts = re.split(r"([0-9]+)", unicodedata.normalize("NFC", name).casefold())
    pieces = tuple((0, int(part), "") if index % 2 else (1, 0, part) for index, part in enumerate(parts) if part)
    return (*pieces, (-1, 0, name))


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _shortened(name: str, mark: str) -> str:
    """`name` with `mark` before its suffix, cut at a character so that it has at most 255 bytes."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix.encode()) > 16:
        stem, dot, suffix = name, "", ""
    room = NAME_MAX - len((mark + dot + suffix).encode())
    if len(stem.encode()) > room:
        stem = stem.encode()[:room].decode(errors="ignore").rstrip(". ")
    return stem + mark + dot + suffix
