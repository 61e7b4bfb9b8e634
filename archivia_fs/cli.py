"""The command line.

Owns: what commands there are, and the one table of exit codes. Used by: people and scripts. Threading: the main thread.

Exit codes: 0 done; 1 some of it failed; 2 wrong use or settings; 3 the object store; 4 the catalog; 5 the mount;
130 interrupted.
"""

from __future__ import annotations

import logging
import sys

import typer

from archivia_fs.commands import accounts, doors, state
from archivia_fs.commands.common import err
from archivia_fs.errors import CatalogError, FsError, MountError, StoreError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="An S3 bucket as a network drive.")
for module in (
    doors,
    state,
    accounts,
):
    app.add_typer(module.commands)


def main() -> None:
    """The program. Errors are one line and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app(standalone_mode=True)
    except FsError as error:
        err.print(f"[bold red]Error:[/] {error}", markup=True)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)


def exit_code(error: FsError) -> int:
    """The one table from errors to exit codes."""
    if isinstance(error, StoreError):
        return 3
    if isinstance(error, CatalogError):
        return 4
    if isinstance(error, MountError):
        return 5
    return 2
