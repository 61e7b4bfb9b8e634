"""What an import copies where: the meaning of its arguments.

Owns: the rules of slashes. Used by: imports, importer. Threading: `measure` in a thread of its own, the rest in the main thread.
"""

from __future__ import annotations

import contextlib
import os
import stat as stat_module
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from archivia_fs.commands.common import shown
from archivia_fs.errors import Exists, InvalidArgument, NotADirectory, NotFound
from archivia_fs.types import Caller, InodeNo, Stat, lookup_key

if TYPE_CHECKING:
    from archivia_fs.vfs.vfs import Vfs


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder to copy, and its name in `folder`; None: what is in it goes straight into the folder."""

    path: Path
    name: str | None


def plan(
    vfs: Vfs, caller: Caller, sources: Sequence[Path | str], target: str, *, dry_run: bool
) -> tuple[Sequence[Source], InodeNo | None]:
    """What goes where, as rsync has it; the folders of `target` that are missing are made. A slash at the end of a source means
    what is in it, at the end of the target that it is a folder. Raises InvalidArgument, NotFound, NotADirectory, Exists,
    InvalidName, NameTooLong, NotUtf8, and what making a folder raises."""
    from archivia_fs.vfs.names import check_name

    given = [os.fspath(each) for each in sources]
    names = [name for name in target.split("/") if name]
    if not target.startswith("/") or len(names) < 2 or names[0] != "Documents":
        raise InvalidArgument(f"{shown(target)}: name a place in a collection, /Documents/COLLECTION/...")
    for name in names:
        check_name(name)
    stat = _collection(vfs, caller, names[1])
    rest = names[2:]
    in_the_way = False
    while rest and not in_the_way:
        try:
            child = vfs.lookup(caller, stat.ino, rest[0])
        except NotFound:
            break
        in_the_way = not child.is_dir
        if child.is_dir:
            stat = child
            rest.pop(0)
    leaf: str | None = None
    if rest and not target.endswith("/") and len(given) == 1 and not _is_folder(given[0]):
        leaf = rest.pop()  # one file, under another name or in the place of another
    if in_the_way and rest:
        raise NotADirectory(f"{shown(target)}: {rest[0]!r} is a file in the drive, and no folder can be made there.")
    chosen = _named(given) if leaf is None else [Source(Path(given[0]), leaf)]
    folder: InodeNo | None = stat.ino
    for name in rest:
        folder = None if dry_run or folder is None else vfs.mkdir(caller, folder, name, 0o755).ino
    return chosen, folder


def _collection(vfs: Vfs, caller: Caller, name: str) -> Stat:
    try:
        return vfs.resolve(caller, f"/Documents/{name}")
    except NotFound as error:
        raise NotFound(
            f"There is no collection {name!r}; `archivia-fs collection add` makes one, `collection list` shows all."
        ) from error


def _is_folder(path: str) -> bool:
    """Raises NotFound for what is not there."""
    try:
        return stat_module.S_ISDIR((os.stat if path.endswith("/") else os.lstat)(path).st_mode)
    except OSError as error:
        raise NotFound(f"{shown(path)}: {error.strerror}.") from error


def _named(given: Sequence[str]) -> Sequence[Source]:
    found: dict[str, str] = {}
    sources = []
    for path in given:
        inside = _is_folder(path) and (path.endswith("/") or os.path.basename(path) in (".", ".."))  # noqa: PTH119
        if inside:
            sources.append(Source(Path(path), None))
            continue
        name = Path(path).name
        other = found.setdefault(lookup_key(name), path)
        if other is not path:
            raise Exists(f"{shown(other)} and {shown(path)} would both become {shown(name)}; import them separately.")
        sources.append(Source(Path(path), name))
    return sources


def measure(sources: Sequence[Source], tell: Callable[[int, int], None], stop: threading.Event) -> None:
    """How many files and bytes there are, told now and then: for a progress bar. Ends early when `stop` is set."""
    files = size = 0
    folders = [str(source.path) for source in sources]
    while folders and not stop.is_set():
        path = folders.pop()
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            if not stat_module.S_ISDIR(found.st_mode) and not os.path.isdir(path):  # noqa: PTH112
                files, size = files + 1, size + found.st_size
                continue
            with os.scandir(path) as children:
                for child in children:
                    if child.is_dir(follow_symlinks=False):
                        folders.append(child.path)
                    elif child.is_file(follow_symlinks=False):
                        files, size = files + 1, size + child.stat(follow_symlinks=False).st_size
        tell(files, size)
    tell(files, size)
