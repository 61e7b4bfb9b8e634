"""What a name may be. Pure.

Owns: the rules for names and symlink targets. Used by: vfs. Threading: pure functions.
"""

from __future__ import annotations

from archivia_fs.errors import InvalidName, NameTooLong, NotUtf8
from archivia_fs.types import NAME_MAX, PATH_MAX


def check_name(name: str) -> None:
    """Any UTF-8 name of 1 to 255 bytes without "/" and NUL, other than "." and "..". Raises InvalidName, NameTooLong, NotUtf8."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InvalidName(f'{name!r} cannot be a name: "/", NUL, ".", ".." and the empty name are not allowed.')
    if len(name) * 4 > NAME_MAX and _utf8_size(name) > NAME_MAX:
        raise NameTooLong(f"A name has at most {NAME_MAX} bytes of UTF-8; this one has {_utf8_size(name)}.")
    if not name.isascii():
        _utf8_size(name)


def check_target(target: str) -> None:
    """A symlink target of 1 to 4,095 bytes without NUL. Raises InvalidName, NameTooLong, NotUtf8."""
    if not target or "\0" in target:
        raise InvalidName("A symbolic link needs a target without NUL.")
    if _utf8_size(target) >= PATH_MAX:
        raise NameTooLong(f"A link's target has at most {PATH_MAX - 1} bytes.")


def _utf8_size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise NotUtf8("Names are UTF-8; this one is not. Rename it (convmv does whole folders).") from error
