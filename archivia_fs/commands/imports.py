"""`import`: copy from local disk into the drive, and show how far it is.

Owns: what is shown. Used by: cli. Threading: the main thread walks; Listener methods are called from workers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from archivia_fs.commands.common import Json, User, err, load_settings, open_gateway, out, print_json, shown, size_text
from archivia_fs.commands.importer import Importer, Listener, Tally
from archivia_fs.commands.service import stop_on_signals
from archivia_fs.commands.sources import Source, measure, plan
from archivia_fs.config import ADMIN

commands = typer.Typer()

TELL_SECONDS = 5.0  # between lines where there is no terminal


@commands.command("import")
def import_command(
    ctx: typer.Context,
    sources: Annotated[list[str], typer.Argument(metavar="SRC", help="Files and folders on this machine.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A place in the drive: /Documents/COLLECTION/...")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Copy nothing, say what would be copied.")] = False,
    user: User = ADMIN,
    as_json: Json = False,
) -> None:
    """Copy files and folders into the drive.

    It needs no mount and copies several files at once.

    Slashes mean what they mean to rsync: `roll-03` copies the folder, `roll-03/` what is in it; `TARGET/` is a folder, and so is
    TARGET if there is one already, or if more than one file is copied. Missing folders of TARGET are made.

    Modification times, modes and symbolic links are kept. A file of the same size and time is skipped, so a second run
    transfers nothing, and after an interruption it goes on. Each file appears when it is completely stored. Hard links
    become files of their own; sockets, fifos and devices are named and skipped. One that changes while it is read is an error.
    If anything failed, the exit code is 1.

    Examples:

    \b
      archivia-fs import roll-03 /Documents/archive/
      archivia-fs import roll-03/ /Documents/archive/1927/roll-03
      archivia-fs import --dry-run --json ~/scans/*.dng /Documents/archive/scans/
    """
    settings = load_settings(ctx)
    with stop_on_signals(), open_gateway(ctx, new=not dry_run) as gateway:
        caller = gateway.caller(user)
        found, folder = plan(gateway.vfs, caller, sources, target, dry_run=dry_run)
        listener = _Bar(found) if err.is_terminal else _Lines(quiet=as_json, dry_run=dry_run)
        importer = Importer(gateway.vfs, caller, listener, state=settings.home, dry_run=dry_run)
        started = time.monotonic()
        try:
            with listener:
                importer.run(found, folder)
        except KeyboardInterrupt:
            err.print("Interrupted. What was copied is safe; the same command goes on with the rest.")
            raise
        finally:
            _sum_up(importer.tally, time.monotonic() - started, dry_run=dry_run, as_json=as_json)
    if importer.tally.errors:
        raise typer.Exit(1)


def _sum_up(tally: Tally, seconds: float, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "copied": tally.copied,
                "skipped": tally.skipped,
                "folders": tally.folders,
                "bytes": tally.bytes,
                "seconds": round(seconds, 3),
                "special": [shown(path) for path in tally.special],
                "errors": [{"path": shown(path), "message": message} for path, message in tally.errors],
            }
        )
        return
    rate = "" if dry_run else f" in {seconds:.1f} s ({size_text(tally.bytes / max(seconds, 1e-3))}/s)"
    out.print(
        f"{'Would copy' if dry_run else 'Copied'} {tally.copied} file(s), {size_text(tally.bytes)}{rate}; "
        f"{tally.skipped} were there already, {len(tally.special)} special, {len(tally.errors)} failed."
    )


class _Lines(Listener):
    """For logs and pipes: errors at once, progress now and then, in a dry run every file."""

    def __init__(self, *, quiet: bool, dry_run: bool) -> None:
        self._quiet = quiet
        self._dry_run = dry_run
        self._lock = threading.Lock()
        self._bytes = self._files = 0
        self._told = time.monotonic()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def advanced(self, size: int) -> None:
        with self._lock:
            self._bytes += size
            if self._quiet or self._dry_run or time.monotonic() - self._told < TELL_SECONDS:
                return
            self._told = time.monotonic()
            out.print(f"{self._files} file(s), {size_text(self._bytes)}")

    def finished(self, path: str) -> None:
        with self._lock:
            self._files += 1
            if self._dry_run and not self._quiet:
                out.print(f"would copy {shown(path)}")

    def skipped(self) -> None:
        with self._lock:
            self._files += 1

    def failed(self, path: str, message: str) -> None:
        err.print(f"{shown(path)}: {message}")


class _Bar(Listener):
    """For a terminal, on standard error: bytes, files, rate, time left. The total grows until all folders have been looked into."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._progress = Progress(
            BarColumn(), DownloadColumn(binary_units=True), TextColumn("{task.fields[files]} files"),
            TransferSpeedColumn(), TimeRemainingColumn(), console=err, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=None, files=0)
        self._lock = threading.Lock()
        self._files = 0
        self._stop = threading.Event()
        self._measuring = threading.Thread(target=measure, args=(sources, self._total, self._stop), daemon=True)

    def __enter__(self) -> None:
        self._progress.start()
        self._measuring.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._progress.stop()

    def _total(self, _files: int, size: int) -> None:
        self._progress.update(self._task, total=size)

    def advanced(self, size: int) -> None:
        self._progress.advance(self._task, size)

    def finished(self, path: str) -> None:
        self.skipped()

    def skipped(self) -> None:
        with self._lock:
            self._files += 1
            self._progress.update(self._task, files=self._files)

    def failed(self, path: str, message: str) -> None:
        self._progress.console.print(f"{shown(path)}: {message}")
