"""Looking after the archive: `gc`, `scrub`, `check`.

Owns: what is shown, and where an interrupted scrub goes on. Used by: cli. Threading: the main thread.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from archivia_fs.commands.common import Json, err, load_settings, open_gateway, out, print_json, shown, size_text
from archivia_fs.commands.service import stop_on_signals
from archivia_fs.config import ADMIN
from archivia_fs.errors import InvalidArgument

if TYPE_CHECKING:
    from archivia_fs.app import Gateway
    from archivia_fs.maintenance.scrub import Damage, Scrub, ScrubReport
    from archivia_fs.types import InodeNo

commands = typer.Typer()

SCRUB_STATE = "scrub.json"  # in the home: where an interrupted scrub goes on
STATE_BYTES = 256 * 1024**2  # read between two notes of it
HOUR = 3600.0


@commands.command()
def gc(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, say what would go.")] = False,
    grace: Annotated[float, typer.Option(help="Hours for which replaced and deleted bytes are kept.", min=1)] = 24,
    upload_age: Annotated[float, typer.Option(help="Days in which an interrupted upload can be resumed.", min=1)] = 7,
    force: Annotated[
        bool, typer.Option("--force", help="Even if the catalog knows less than half of the objects.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete from the object store what nobody needs any more.

    These are the bytes of replaced and deleted files (a reader may have them open for the grace period), uploads that
    nobody goes on with, and what a crash left behind. Whatever a running gateway uploads is not touched. Run it once a day.
    """
    from archivia_fs.maintenance.gc import Gc

    with stop_on_signals(), open_gateway(ctx) as gateway, _spinner() as tell:
        job = Gc(
            gateway.catalog,
            gateway.store,
            grace=grace * HOUR,
            upload_age=upload_age * 24 * HOUR,
            dry_run=dry_run,
            progress=lambda report: tell(f"{report.objects + report.unknown_objects} objects"),
        )
        report = job.run(force=force)
    if as_json:
        print_json({"dry_run": dry_run, **asdict(report)})
    else:
        uploads = report.expired_uploads + report.unknown_uploads
        out.print(
            f"{'Would delete' if dry_run else 'Deleted'} {report.objects} object(s) of {report.revisions} old revision(s), "
            f"{report.unknown_objects} object(s) without a name, {report.previews} preview(s) and "
            f"{uploads} abandoned upload(s): {size_text(report.bytes)}."
        )
    for line in report.failed:
        err.print(line)
    if report.failed:
        raise typer.Exit(1)


@commands.command()
def scrub(
    ctx: typer.Context,
    path: Annotated[str | None, typer.Argument(help="A file or folder of the drive; without it, everything.")] = None,
    pending: Annotated[bool, typer.Option("--pending", help="Only files whose SHA-256 or CRC-32 is pending.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="From the beginning, not where the last run stopped.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read every byte and compare it with its checksums; fill in those that are pending.

    An interrupted scrub goes on where it stopped. The exit code is 1 if anything is damaged, and every path of it is named.
    """
    from archivia_fs.maintenance.scrub import Scrub

    state = load_settings(ctx).home / SCRUB_STATE
    asked = {"path": path, "pending": pending}
    with stop_on_signals(), open_gateway(ctx) as gateway:
        after = "" if restart else _went_on_after(state, asked)
        if after and not as_json:
            out.print("Going on where the last scrub stopped; --restart begins again.")
        with _bar() as show:
            notes = _Notes(state, asked)

            def progress(report: ScrubReport) -> None:
                show(report.bytes, report.total_bytes, f"{report.revisions} of {report.total_revisions} files")
                notes.maybe(report)

            job = Scrub(
                gateway.catalog,
                gateway.store,
                pending=pending,
                below=None if path is None else _inode(gateway, path),
                after=after,
                progress=progress,
            )
            try:
                job.run()
            except BaseException:
                notes.write(job.report)
                _tell_scrub(job, as_json=as_json, complete=False)
                raise
        state.unlink(missing_ok=True)
    _tell_scrub(job, as_json=as_json, complete=True)
    if job.report.damaged:
        raise typer.Exit(1)


def _tell_scrub(job: Scrub, *, as_json: bool, complete: bool) -> None:
    report = job.report
    if as_json:
        print_json({"complete": complete, **asdict(report)})
        return
    for each in report.damaged:
        _tell_damage(each)
    end = "" if complete else " Interrupted; the same command goes on from here."
    out.print(
        f"Read {report.revisions} file(s), {size_text(report.bytes)}; filled in the checksums of {report.filled}; "
        f"{len(report.damaged)} damaged.{end}"
    )


def _tell_damage(damage: Damage) -> None:
    where = ", ".join(f"bytes {start} to {end - 1}" for start, end in damage.ranges)
    for path in damage.paths or [f"(revision {damage.revision}, open without a name)"]:
        err.print(f"{shown(path)}: {damage.reason}{f' ({where})' if where else ''}")


@commands.command()
def check(ctx: typer.Context, as_json: Json = False) -> None:
    """Compare the catalog with what the object store lists (names and sizes), and with itself.

    It reads no file; `scrub` does. The exit code is 1 if anything is wrong.
    """
    from archivia_fs.maintenance.check import Check

    with stop_on_signals(), open_gateway(ctx) as gateway, _spinner() as tell:
        job = Check(gateway.catalog, gateway.store, progress=lambda report: tell(f"{report.revisions} files"))
        report = job.run()
    if as_json:
        print_json({"sound": report.sound, **asdict(report)})
    else:
        for each in report.bad_objects:
            for path in each.paths or [f"(revision {each.revision}, open without a name)"]:
                err.print(f"{shown(path)}: {each.reason} ({each.key})")
        for line in report.contradictions:
            err.print(f"Catalog: {line}")
        wrong = len(report.bad_objects) + len(report.contradictions)
        verdict = "All is sound." if report.sound else f"{wrong} thing(s) are wrong."
        out.print(f"Checked {report.revisions} file(s), {size_text(report.bytes)}. {verdict}")
    if not report.sound:
        raise typer.Exit(1)


def _inode(gateway: Gateway, path: str) -> InodeNo:
    """Raises NotFound, InvalidArgument."""
    from archivia_fs.vfs.view import is_view

    ino = gateway.vfs.resolve(gateway.caller(ADMIN), path).ino
    if is_view(ino):
        raise InvalidArgument(f"{path} is computed; only what is under /Documents has bytes of its own.")
    return ino


class _Notes:
    """Where a scrub is, written down now and then."""

    def __init__(self, path: Path, asked: dict[str, Any]) -> None:
        self._path = path
        self._asked = asked
        self._noted = 0

    def maybe(self, report: ScrubReport) -> None:
        if report.bytes - self._noted >= STATE_BYTES:
            self._noted = report.bytes
            self.write(report)

    def write(self, report: ScrubReport) -> None:
        """A note that is lost costs time, nothing else."""
        fresh = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            fresh.write_text(json.dumps({**self._asked, "after": report.last}))
            fresh.replace(self._path)


def _went_on_after(path: Path, asked: dict[str, Any]) -> str:
    try:
        noted = json.loads(path.read_text())
    except (OSError, ValueError):
        return ""
    if not isinstance(noted, dict) or {name: noted.get(name) for name in asked} != asked:
        return ""
    return str(noted.get("after", ""))


@contextlib.contextmanager
def _spinner() -> Iterator[Any]:
    """A line that moves, on a terminal; nothing elsewhere."""
    if not err.is_terminal:
        yield lambda _text: None
        return
    with err.status("looking") as status:
        yield status.update


@contextlib.contextmanager
def _bar() -> Iterator[Any]:
    """Bytes, rate, time left, on a terminal; nothing elsewhere."""
    if not err.is_terminal:
        yield lambda _done, _total, _text: None
        return
    with Progress(
        BarColumn(), DownloadColumn(binary_units=True), TextColumn("{task.description}"),
        TransferSpeedColumn(), TimeRemainingColumn(), console=err, transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("")
        yield lambda done, total, text: progress.update(task, completed=done, total=total, description=text)
