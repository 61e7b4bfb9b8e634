"""What all commands share: options with one meaning, the two consoles, how facts are printed.

Owns: nothing that lasts. Used by: the other modules here, and cli. Threading: the main thread.

A module of this package has `commands`, a typer app; cli.py adds it with one line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from archivia_fs import config
from archivia_fs.app import Gateway
from archivia_fs.errors import ConfigError

out = Console(highlight=False, soft_wrap=True, markup=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

Home = Annotated[Path | None, typer.Option(help="Folder of the state (ARCHIVIA_HOME).")]
User = Annotated[str, typer.Option(help="The user of the archive it acts as.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def open_gateway(home: Path | None) -> Gateway:
    """The Gateway of the settings, to be entered with `with`. Raises ConfigError."""
    return Gateway(config.load({"home": home}))


def print_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """One fact per line, or all as one JSON object."""
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        out.print(f"{name.replace('_', ' '):20} {value}")


def print_json(value: object) -> None:
    """Indented on a terminal and off it: a person may read it too."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def ask_password(from_stdin: bool) -> str:
    """One line of standard input, or asked for twice. Raises ConfigError for an empty one."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    if not password:
        raise ConfigError("An empty password is none.")
    return password
