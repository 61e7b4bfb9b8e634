"""`umount`: wait for those who write, show them, unmount.

Owns: what is known of writers, from proc(5). Used by: cli. Threading: the main thread.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from archivia_fs.commands.common import err, out, shown, size_text
from archivia_fs.errors import Busy, MountError

commands = typer.Typer()

POLL_SECONDS = 0.5
TELL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Writer:
    """A file open for writing, by whom, and how far (bytes, of the descriptor's position)."""

    path: str
    process: str
    position: int


@commands.command()
def umount(
    directory: Path,
    patience: Annotated[
        int, typer.Option(metavar="SECONDS", help="How long to wait for writers that stand still.")
    ] = 600,
    force: Annotated[
        bool, typer.Option("--force", help="Unmount now: files that are not closed keep their old content.")
    ] = False,
) -> None:
    """Unmount when nobody writes any more.

    Files that are being written are waited for, and shown. Ctrl-C ends the waiting; the mount then stays.
    """
    from fuse import mountpoint

    path = mountpoint.absolute(directory)
    if force:
        mount = mountpoint.mount_at(path)
        if mount is None or mount.fstype != mountpoint.FSTYPE:
            raise MountError(f"No archive is mounted at {path}.")
        mountpoint.detach(path, lazy=True)
        return
    moved = time.monotonic()
    told = 0.0
    before: Sequence[Writer] = ()
    quiet = 0  # times in a row that it was busy though nobody wrote; once, the last writer may just have closed
    while True:
        try:
            mountpoint.unmount(path)
            break
        except Busy:
            writers = find_writers(path)
            if writers != before:
                moved, before = time.monotonic(), writers
            quiet = 0 if writers else quiet + 1
            if quiet > 1 or time.monotonic() - moved > patience:
                raise
        if writers and (told == 0 or time.monotonic() - told > TELL_SECONDS or err.is_terminal):
            told = time.monotonic()
            _tell(writers)
        time.sleep(POLL_SECONDS)
    if told and err.is_terminal:
        _status_line("")


def _tell(writers: Sequence[Writer]) -> None:
    each = "; ".join(f"{shown(w.path)} ({size_text(w.position)} so far, {w.process})" for w in writers[:3])
    more = f" and {len(writers) - 3} more" if len(writers) > 3 else ""
    line = f"Waiting for {len(writers)} open upload(s): {each}{more}"
    if err.is_terminal:
        _status_line(line)
    else:
        out.print(line)


def _status_line(text: str) -> None:
    """In the place of the last one; rich would take the carriage return out."""
    sys.stderr.write(f"\r\x1b[K{text[: err.width - 1]}")
    sys.stderr.flush()


def find_writers(path: Path) -> Sequence[Writer]:
    """Files under `path` that processes we may look into have open for writing, once each, by name. Asks nothing of the mount."""
    found = sorted(_writers(str(path)), key=lambda writer: (writer.path, writer.position, writer.process))
    return list({writer.path: writer for writer in found}.values())


def _writers(top: str) -> Iterator[Writer]:
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError):  # another user's, or gone
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    target = os.readlink(descriptor)  # noqa: PTH115 - a str is what we compare
                    if target.startswith(f"{top}/"):
                        info = (process / "fdinfo" / descriptor.name).read_text()
                        fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
                        if int(fields["flags"], 8) & os.O_ACCMODE != os.O_RDONLY:  # proc_pid_fdinfo(5)
                            name = (process / "comm").read_text().strip()
                            yield Writer(target, f"{name} {process.name}", int(fields["pos"]))
