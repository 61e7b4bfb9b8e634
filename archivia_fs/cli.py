"""The command line.

Owns: what commands there are, and the one table of exit codes. Used by: people and scripts. Threading: the main thread.

Exit codes: 0 done; 1 some of it failed; 2 wrong use or settings; 3 the object store; 4 the catalog; 5 the mount;
130 interrupted.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from typing import Annotated, Any

import typer
import typer.main

from archivia_fs.commands import (
    about,
    accounts,
    describe,
    doctor,
    doors,
    imports,
    locks,
    maintenance,
    state,
    stores,
    unmounting,
    views,
)
from archivia_fs.commands.common import err, out, shared_options
from archivia_fs.errors import Busy, CatalogError, FsError, MountError, NoSpace, StoreError

EPILOG = (
    "Exit codes: 0 done; 1 some of it failed; 2 wrong use or settings; 3 store; 4 catalog; 5 mount; 130 interrupted."
)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)  # fmt: skip
for module in (
    doors,
    unmounting,
    imports,
    state,
    accounts,
    locks,
    stores,
    maintenance,
    views,
    describe,
    doctor,
    about,
):
    app.add_typer(module.commands)

log = logging.getLogger(__name__)


def _print_version(asked: bool) -> None:
    if asked:
        out.print(f"archivia-fs {about.version_text()}")
        raise typer.Exit


@app.callback(help="An S3 bucket as a network drive.", epilog=EPILOG)
def whole(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """What stands before the command: only the version is asked for without one."""


def main() -> None:
    """The program. Errors are one line and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names need not suit the terminal
    code = run()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # who read it has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or the interpreter tries again
            code = code or 1
    if code == 130:  # at once: the interpreter's own end would wait for threads that wait for the store
        os._exit(code)
    sys.exit(code)


def run() -> int:
    """Run the command of sys.argv; the exit code. Says what went wrong."""
    try:
        command()()
    except SystemExit as done:  # the usual end, and wrong use
        return done.code if isinstance(done.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except FsError as error:
        _say(str(error), error)
        return exit_code(error)
    except ImportError as error:
        _say(f"A part of the program cannot be loaded: {error}. `archivia-fs doctor` says what is missing.", error)
    except BrokenPipeError:
        return 1
    except OSError as error:
        _say(_os_error(error), error)
    except Exception as error:  # noqa: BLE001 - a person gets a sentence
        _say(
            f"A fault of Archivia FS itself ({type(error).__name__}: {error}). Run it with --log-level debug and report it.",
            error,
        )
        return 1
    return 2


def command() -> Any:
    """The whole tree of commands, each with the shared options."""
    shared = typer.Typer(add_completion=False)
    shared.command()(shared_options)
    options = [option for option in typer.main.get_command(shared).params if option.name != "help"]

    def give(each: Any) -> None:
        each.params.extend(options)
        for child in getattr(each, "commands", {}).values():
            give(child)

    whole = typer.main.get_command(app)
    give(whole)
    return whole


def exit_code(error: FsError) -> int:
    """The one table from errors to exit codes."""
    if isinstance(error, StoreError):
        return 3
    if isinstance(error, CatalogError | NoSpace):  # the store's own NoSpace is a StoreError
        return 4
    if isinstance(error, MountError | Busy):
        return 5
    return 2


def _say(message: str, error: Exception) -> None:
    err.print("Error:", style="bold red", end=" ")
    err.print(message)
    log.debug("Where it came from", exc_info=error)


def _os_error(error: OSError) -> str:
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full ({what}). Make room, or set ARCHIVIA_HOME to a folder on another disk."
    return f"The system refused: {what}. Check the folder's rights, or set ARCHIVIA_HOME to another."
