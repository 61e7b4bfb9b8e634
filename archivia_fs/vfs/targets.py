"""For whom an upload is, as the journal names it: by inode, because names change while 80 GB are sent.

Owns: these names. Used by: vfs, open_files, handle, commands. Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set

from archivia_fs.types import InodeNo, lookup_key

_TARGET = re.compile(r"inode (\d+)(?:/(.+))?", re.DOTALL)


def target_of(ino: InodeNo) -> str:
    """Of an open file."""
    return f"inode {ino}"


def target_of_entry(parent: InodeNo, name: str) -> str:
    """Of a PUT, which goes to a name, whatever file has it in the end."""
    return f"inode {parent}/{lookup_key(name)}"


def targets_of(ino: InodeNo, names: Iterable[tuple[InodeNo, str]]) -> Set[str]:
    """All by which the bytes of a file may be replaced; `names`: the folders it is in, and its names there."""
    return {target_of(ino), *(target_of_entry(parent, name) for parent, name in names)}


def parse_target(target: str) -> tuple[InodeNo, str | None] | None:
    """The inode, and of a PUT the name in it; None if it is something else, from an older version."""
    found = _TARGET.fullmatch(target)
    return None if found is None else (InodeNo(int(found[1])), found[2])
