"""`thumbnails`: make the previews of all pictures in a folder, and show how far it is.

Owns: what is shown. Used by: cli. Threading: the main thread; a few threads wait for previews.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from archivia_fs.commands.common import Json, User, err, open_gateway, out, print_json, shown
from archivia_fs.commands.service import stop_on_signals
from archivia_fs.config import ADMIN
from archivia_fs.errors import FsError, InvalidArgument
from archivia_fs.types import InodeNo, RevisionId
from archivia_fs.vfs.view import is_view

if TYPE_CHECKING:
    from archivia_fs.app import Gateway

commands = typer.Typer()

THREADS = 4  # two wait for decoders, two for the store
BATCH = 200  # files between looks at the catalog
PATIENCE = 3600.0  # seconds to wait for a decoder: behind the others of this command
TELL_SECONDS = 5.0  # between two lines where there is no terminal


@dataclass(frozen=True, slots=True)
class Problem:
    """A picture without a preview, by one of its names. `failure`: the reason in one word, "" if it may be made at another time."""

    path: str
    reason: str
    failure: str


@dataclass(slots=True)
class Report:
    """How many different contents there are of each kind."""

    made: int = 0
    there: int = 0
    no_picture: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.made + self.there + self.no_picture + len(self.problems)


@commands.command()
def thumbnails(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(help="A file or folder of the drive, /Documents/...")] = "/Documents",
    retry: Annotated[bool, typer.Option("--retry", help="Try again what could not be decoded.")] = False,
    user: User = ADMIN,
    as_json: Json = False,
) -> None:
    """Make the previews of all pictures now.

    Previews are made when pictures come in, or when somebody opens them; this is for what was there before, or adopted. What
    is there already costs nothing, so after an interruption it goes on. The exit code is 1 if a picture has no preview.
    """
    with stop_on_signals(), open_gateway(ctx) as gateway:
        stat = gateway.vfs.resolve(gateway.caller(user), path)
        if is_view(stat.ino):
            raise InvalidArgument(f"{path} is computed; name a place under /Documents, where the pictures are.")
        for batch in _batches(gateway, stat.ino) if retry else ():
            gateway.catalog.previews.forgive(batch)
        total, _ = gateway.catalog.totals_in_use(below=stat.ino)
        report = Report()
        with _progress(total, quiet=as_json) as told:
            _make(gateway, stat.ino, report, lambda: told(report.done))
    if as_json:
        print_json(report)
    else:
        out.print(f"{report.made} previews made, {report.there} were there, {report.no_picture} files are no pictures.")
        for problem in report.problems:
            out.print(f"grey  {shown(problem.path)}  {problem.failure or 'not now'}: {problem.reason}")
    if report.problems:
        raise typer.Exit(1)


@contextlib.contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere a line now and then, but none if `quiet`. What it gives is told how many are done."""
    if err.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err, transient=True) as progress:
            task = progress.add_task("Previews", total=total)
            yield lambda done: progress.update(task, completed=done)
        return
    last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        if not quiet and time.monotonic() - last >= TELL_SECONDS:
            last = time.monotonic()
            err.print(f"{done} of {total} files")

    yield tell


def _make(gateway: Gateway, below: InodeNo, report: Report, progress: Callable[[], None]) -> None:
    """The previews of all contents in a folder, a few at a time."""
    threads = ThreadPoolExecutor(THREADS, "previews")
    try:
        for batch in _batches(gateway, below):
            there = {each for each in batch if gateway.previews.is_settled(each)}
            for revision, failed in zip(batch, threads.map(lambda r: _one(gateway, r), batch), strict=True):
                _count(gateway, report, revision, failed, was_there=revision in there)
                progress()
    finally:
        threads.shutdown(cancel_futures=True)


def _batches(gateway: Gateway, below: InodeNo) -> Iterator[list[RevisionId]]:
    after = ""
    while batch := [each.id for each in gateway.catalog.revisions_in_use(BATCH, after, below=below)]:
        yield batch
        after = batch[-1]


def _one(gateway: Gateway, revision: RevisionId) -> tuple[str, str]:
    """Why there is no preview, and the same in one word; "" if there is one, or it is no picture."""
    from catalog.previews import PreviewState

    try:
        record = gateway.previews.ensure(revision, patience=PATIENCE)
    except FsError as error:
        return str(error), ""
    return (record.reason, record.failure) if record.state is PreviewState.PLACEHOLDER else ("", "")


def _count(gateway: Gateway, report: Report, revision: RevisionId, failed: tuple[str, str], *, was_there: bool) -> None:
    from catalog.previews import PreviewState

    record = gateway.catalog.previews.get(revision)
    if failed[0]:
        path = next(iter(gateway.catalog.revision_paths(revision, 1)), f"revision {revision}")
        report.problems.append(Problem(path, *failed))
    elif record is not None and record.state is PreviewState.NONE:
        report.no_picture += 1
    elif was_there:
        report.there += 1
    else:
        report.made += 1
