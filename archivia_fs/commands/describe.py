"""`describe`: what a document is, in Dublin Core, for METS, CSV and whoever asks over WebDAV.

Owns: the words of properties on the command line. Used by: cli. Threading: the main thread. Needs the catalog only, so it works
while the store is down; running gateways hear of the change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import typer

from archivia_fs.commands.common import Json, open_catalog, out, print_json, shown
from archivia_fs.commands.state import resolve
from archivia_fs.errors import InvalidArgument

commands = typer.Typer()

PREFIX = "user."  # of the properties that setfattr and PROPPATCH set
LOGICAL_ID = "logical_id"
# The Dublin Core Metadata Element Set 1.1, in its order.
ELEMENTS = (
    "title", "creator", "subject", "description", "publisher", "contributor", "date", "type", "format", "identifier",
    "source", "language", "relation", "coverage", "rights",
)  # fmt: skip
VALUE_MAX = 64 * 1024  # bytes, as XATTR_SIZE_MAX in limits.h


@commands.command()
def describe(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(help="A file or folder of the drive, /Documents/...")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="What to set, such as dc.title='A title'.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show or set what a document or file is: its title, its creators, its rights.

    NAME is dc.title or another element of Dublin Core, or logical_id, what a document's METS and CSV files are called after
    (its folder's name if it is not set). Say a name several times for several values; an empty VALUE removes it. What is not
    said stays.
    """
    changes = _changes(words or ())
    with open_catalog(ctx) as catalog:
        ino = resolve(catalog, path).ino
        known = catalog.properties(ino)
        wanted = {name: value for name, value in changes.items() if value is not None or name in known}
        if wanted:
            catalog.set_properties(ino, wanted)
            catalog.sync()
            known = catalog.properties(ino)
    told = _told(known)
    if as_json:
        print_json({"path": path, "properties": told})
        return
    width = max(map(len, told), default=0) + 2
    for name, values in told.items():
        for value in values:
            out.print(f"{name:{width}}{shown(value)}")
    if not told:
        out.print(f"{shown(path)} is not described yet; say what it is with NAME=VALUE, such as dc.title='A title'.")


def _changes(words: Iterable[str]) -> Mapping[str, bytes | None]:
    """The table's names and values; None removes. Raises InvalidArgument."""
    given: dict[str, list[str]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidArgument(f"{shown(word)}: say NAME=VALUE, such as dc.title='A title'.")
        if name not in _names():
            raise InvalidArgument(f"There is no {shown(name)}; there are {', '.join(_names())}.")
        given.setdefault(_key(name), []).extend(line for each in value.splitlines() if (line := each.strip()))
    changes = {}
    for key, values in given.items():
        try:
            data = "\n".join(values).encode()
        except UnicodeEncodeError:
            raise InvalidArgument("Values are UTF-8, and this one is not.") from None
        if len(data) > VALUE_MAX:
            raise InvalidArgument(f"All values of a name together have at most {VALUE_MAX} bytes.")
        changes[key] = data or None
    return changes


def _names() -> Sequence[str]:
    return [*(f"dc.{element}" for element in ELEMENTS), LOGICAL_ID]


def _key(name: str) -> str:
    return PREFIX + name


def _told(properties: Mapping[str, bytes]) -> Mapping[str, Sequence[str]]:
    """Name to values, in the order of Dublin Core; other properties (finders and backup programs have many) are not told."""
    told = {}
    for name in _names():
        values = properties.get(_key(name), b"").decode(errors="replace").splitlines()
        if values:
            told[name] = values
    return told
