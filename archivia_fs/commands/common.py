"""What all commands share: the options that every command has, settings, the two consoles, how facts are printed.

Owns: nothing that lasts. Used by: the other modules here, and cli. Threading: the main thread.

A module of this package has `commands`, a typer app; cli.py adds it with one line. Its commands take `ctx: typer.Context` for
`open_gateway(ctx)` or `open_catalog(ctx)`, and import what is heavy (the app, the doors) when they run: `--help` and
`doctor` then answer quickly, and even where a library is missing.
"""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from archivia_fs import config
from archivia_fs.config import ADMIN, Settings
from archivia_fs.errors import ConfigError

if TYPE_CHECKING:
    from archivia_fs.app import FirstUser, Gateway
    from catalog.catalog import Catalog

OWN_LOGGERS = ("archivia_fs", "catalog", "fuse", "webdav")
BUSY_SECONDS = 3.0  # a person waits; gateways hold the catalog for milliseconds
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")

out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

User = Annotated[str, typer.Option(help=f"The user of the archive it acts as (default: {ADMIN}).", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="For scripts: JSON on standard output.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(slots=True)
class Shared:
    """The values of the options that every command has."""

    home: Path | None = None
    config: Path | None = None


def _keep(ctx: typer.Context, param: typer.CallbackParam, value: Path | None) -> None:
    if value is not None:
        setattr(ctx.ensure_object(Shared), str(param.name), value)


def _set_level(value: LogLevel | None) -> None:
    """Only our own packages: what libraries say at `debug` is for their authors, and too much."""
    for name in OWN_LOGGERS if value is not None else ():
        logging.getLogger(name).setLevel(str(value).upper())


_PANEL = "Options of every command"


def shared_options(
    home: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the state (ARCHIVIA_HOME).", callback=_keep, expose_value=False, rich_help_panel=_PANEL
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="File of settings, instead of archivia-fs.toml in the home.",
            callback=_keep,
            expose_value=False,
            rich_help_panel=_PANEL,
        ),
    ] = None,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(
            help="How much is told on standard error (default: warning).",
            callback=_set_level,
            expose_value=False,
            rich_help_panel=_PANEL,
        ),
    ] = None,
) -> None:
    """A command that is never run: cli gives its options to all others."""


def load_settings(ctx: typer.Context) -> Settings:
    """Flags over environment over file. Raises ConfigError."""
    shared = ctx.ensure_object(Shared)
    return config.load({"home": shared.home}, file=shared.config)


@contextlib.contextmanager
def open_gateway(ctx: typer.Context, *, new: bool = False, announced: bool = False) -> Iterator[Gateway]:
    """Store, catalog and core; `new`: of an archive that may not be there yet. Its first user is told at once, or (`announced`) at
    the end if the command has not done it: whatever goes wrong. Raises ConfigError, StoreError, CatalogError."""
    from archivia_fs.app import Gateway

    gateway = Gateway(load_settings(ctx) if new else settings_of_archive(ctx))
    try:
        with gateway:
            if not announced:
                tell_first_user(gateway.first_user)
            yield gateway
    finally:
        tell_first_user(gateway.first_user)


@contextlib.contextmanager
def open_catalog(ctx: typer.Context, *, new: bool = False) -> Iterator[Catalog]:
    """The catalog alone, for what needs no store; `new` as above. Raises ConfigError, CatalogError."""
    from archivia_fs.app import first_start, first_user, make_home
    from catalog.catalog import Catalog

    settings = load_settings(ctx) if new else settings_of_archive(ctx)
    make_home(settings)
    with contextlib.closing(Catalog.open(settings.catalog, busy_timeout=BUSY_SECONDS)) as catalog:
        first = first_user(catalog, settings)
        try:
            first_start(catalog, first)
        finally:
            tell_first_user(first)
        yield catalog


def settings_of_archive(ctx: typer.Context) -> Settings:
    """As load_settings, for what makes no sense without an archive: in the wrong home it must not make another, with other
    passwords. Raises ConfigError if there is none, CatalogError."""
    settings = load_settings(ctx)
    if schema_of(settings) is None:
        where = f"{settings.home}" if not settings.catalog_url else "the database of ARCHIVIA_CATALOG_URL"
        raise ConfigError(
            f"There is no archive in {where}. If yours has another home, name it with --home or ARCHIVIA_HOME; "
            "`archivia-fs serve` makes a new archive."
        )
    return settings


def schema_of(settings: Settings) -> str | None:
    """What the archive's catalog has, None if there is none. Makes nothing. Raises CatalogTooNew, CatalogError."""
    from catalog.schema import look

    if not settings.catalog_url and not settings.home.exists():
        return None
    found, _ = look(settings.catalog, BUSY_SECONDS)
    return found


def program() -> str:
    """What to type in any shell to run this program: its name where PATH finds it, else its path."""
    beside, found = Path(sys.executable).with_name("archivia-fs"), shutil.which("archivia-fs")
    named = not beside.exists() or (found is not None and beside.samefile(found))
    return "archivia-fs" if named else shlex.quote(str(beside))


def tell_first_user(first: FirstUser | None) -> None:
    """Once. On standard error: standard output may be read by a script."""
    if first is not None and not first.told:
        err.print(f"A new archive. Its first user is {first.name}, password {password_of(first)} (shown this once).")
        first.told = True


def password_of(first: FirstUser) -> str:
    """What is shown as the password; one that the person chose is not."""
    return "(from ARCHIVIA_ADMIN_PASSWORD)" if first.given else first.password


def print_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """One fact per line, or all as one JSON object."""
    if as_json:
        print_json(facts)
        return
    width = max(len(name) for name in facts) + 2
    for name, value in facts.items():
        out.print(f"{name.replace('_', ' '):{width}}{'-' if value is None else value}")


def print_json(value: object) -> None:
    """One JSON text. Dataclasses become objects; names that are not UTF-8 keep their bytes as lone surrogates, escaped."""
    sys.stdout.write(json.dumps(value, indent=2, default=_plain) + "\n")


def _plain(value: Any) -> object:
    if isinstance(value, Path):
        return str(value)
    return {field.name: getattr(value, field.name) for field in fields(value)}


def shown(name: str | Path) -> str:
    """A name as a terminal may see it: what is not printable (or not UTF-8) is escaped."""
    text = os.fspath(name)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def size_text(size: float) -> str:
    """1536 is "1.5 KiB"; units are powers of 1024."""
    for unit in UNITS:
        if size < 1024 or unit == UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def ask_password(from_stdin: bool) -> str:
    """One line of standard input, or asked for twice. Raises ConfigError for an empty one."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\n")
    elif not sys.stdin.isatty():
        raise ConfigError("There is no terminal to ask for the password; say --password-stdin and send it there.")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    if not password:
        raise ConfigError("An empty password is none.")
    return password
