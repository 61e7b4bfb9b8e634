"""Is it safe yet: `status` of the whole or of one path.

Owns: how state is told. Used by: cli, doors. Threading: the main thread. `status` reads the catalog only, so it answers while the
store is down.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archivia_fs.commands.common import (
    Json,
    load_settings,
    open_catalog,
    out,
    print_facts,
    print_json,
    shown,
    size_text,
)
from archivia_fs.errors import FsError, NotADirectory, NotFound
from archivia_fs.types import ROOT_INODE, InodeNo, Stat, UploadRecord

if TYPE_CHECKING:
    from archivia_fs.app import Gateway
    from catalog.catalog import Catalog

commands = typer.Typer()

UPLOADS_SHOWN = 3  # of those that are waited for
GREY_MAX = 20  # pictures without a preview that are told by name
_INODE = "inode "  # how the journal names an upload for an open file; its path may change meanwhile
_KINDS = {"is_dir": "folder", "is_symlink": "symbolic link"}


@dataclass(frozen=True, slots=True)
class Upload:
    """One open upload. `alive` False: its gateway is gone, and sending the same bytes again goes on with it. Times are RFC 3339."""

    target: str
    bytes: int
    since: str
    alive: bool


@dataclass(frozen=True, slots=True)
class Grey:
    """A picture that could not be decoded. `again_at`: RFC 3339, "" for not with this `decoder`."""

    path: str
    reason: str
    attempts: int
    again_at: str
    decoder: str


@commands.command()
def status(
    ctx: typer.Context,
    path: Annotated[str | None, typer.Argument(help="A file or folder of the drive, /Documents/...")] = None,
    as_json: Json = False,
) -> None:
    """What the archive holds; is a file safe yet?

    Without PATH: what it holds, what is being uploaded, what is mounted here. With PATH, of one file: it is `stored`
    (complete at the store, verified, all checksums known), `uploading` (what is told is the old content) or `checksum-
    pending` (stored; a checksum of the whole is still to be computed by scrub).
    """
    with open_catalog(ctx) as catalog:
        facts = _whole(ctx, catalog) if path is None else _one(catalog, path)
    if as_json:
        print_json(facts)
        return
    uploads: Sequence[Upload] = facts.pop("uploads", ())
    grey: Sequence[Grey] = facts.pop("previews_failed", ())
    print_facts({name: _words(name, value) for name, value in facts.items()}, as_json=False)
    for picture in grey:
        again = f"; again at {picture.again_at}" if picture.again_at else ""
        out.print(f"no preview  {shown(picture.path)}  {picture.reason} ({picture.attempts} tries{again})")
    for each in uploads:
        state = "" if each.alive else "  interrupted; send it again to go on"
        out.print(f"uploading  {shown(each.target)}  {size_text(each.bytes)} so far, since {each.since}{state}")


def _whole(ctx: typer.Context, catalog: Catalog) -> dict[str, Any]:
    from fuse import mountpoint

    settings = load_settings(ctx)
    counts = catalog.counts()
    return {
        "files": counts.files,
        "folders": counts.directories,
        "bytes": counts.bytes,
        "open_uploads": counts.uploads,
        "checksums_pending": counts.checksums_pending,
        "store": "embedded" if settings.embedded_store else settings.s3_endpoint,
        "mounts": [str(mount.path) for mount in mountpoint.mounts() if mount.fstype == mountpoint.FSTYPE],
        **_previews(catalog),
        "uploads": _uploads(catalog),
    }


def _previews(catalog: Catalog) -> dict[str, Any]:
    from catalog.previews import PreviewState

    counts = catalog.previews.counts()
    grey = [
        Grey(
            next(iter(catalog.revision_paths(each.revision, 1)), f"revision {each.revision}"), each.reason, each.attempts,
            "" if each.retry_ns is None else _time(each.retry_ns), each.decoder,
        )
        for each in catalog.previews.failed(GREY_MAX)
    ]  # fmt: skip
    return {
        "previews": counts.get(PreviewState.EMBEDDED, 0) + counts.get(PreviewState.DECODED, 0),
        "previews_grey": counts.get(PreviewState.PLACEHOLDER, 0),
        "previews_failed": grey,
    }


def _one(catalog: Catalog, path: str) -> dict[str, Any]:
    from archivia_fs.vfs.handle import target_of
    from archivia_fs.vfs.safety import state_of

    stat = resolve(catalog, path)
    if not stat.is_file:
        kind = next((text for test, text in _KINDS.items() if getattr(stat, test)), "special file")
        return {"path": path, "kind": kind, "state": "stored", "since": _time(stat.ctime_ns)}
    targets = {target_of(stat.ino), *(_put_target(catalog, *named) for named in catalog.parents(stat.ino))}
    uploading = any(upload.target in targets for upload in catalog.uploads())
    revision = None if stat.revision is None else catalog.revision(stat.revision)
    state = state_of(stat, revision, uploading=uploading)
    return {
        "path": path,
        "kind": "file",
        "state": state.safety.value,
        "size": state.size,
        "sha256": state.sha256,
        "crc32": None if state.crc32 is None else f"{state.crc32:08x}",
        "revision": state.revision,
        "since": _time(state.since_ns),
    }


def resolve(catalog: Catalog, path: str) -> Stat:
    """What a path names, from the catalog alone. Raises NotFound, NotADirectory, InvalidName, NotUtf8, NameTooLong."""
    from archivia_fs.vfs.names import check_name

    stat = catalog.stat(ROOT_INODE)
    for name in PurePosixPath("/", path).parts[1:]:
        check_name(name)
        if not stat.is_dir:
            raise NotADirectory(f"{path}: {name!r} is below something that is not a folder.")
        try:
            stat = catalog.lookup(stat.ino, name).stat
        except NotFound as error:
            raise NotFound(f"{path}: there is no {name!r}. Paths begin with /Documents.") from error
    return stat


def _uploads(catalog: Catalog) -> Sequence[Upload]:
    dead = {upload.upload_id for upload in catalog.expired_uploads(time.time_ns())}
    return [
        Upload(
            _target(catalog, upload), sum(part.size for part in upload.parts), _time(upload.created_ns),
            upload.upload_id not in dead,
        )
        for upload in catalog.uploads()
    ]  # fmt: skip


def uploads_text(gateway: Gateway, left: int) -> str:
    """What this gateway is uploading, `left` of them, and how far each is: "2 open upload(s): /Documents/a.dng (8.0 MiB stored)".
    A PUT has a name here from its first part on."""
    from archivia_fs.vfs.handle import target_of

    catalog, vfs = gateway.catalog, gateway.vfs
    told: list[str] = []
    with contextlib.suppress(FsError):  # the number will do: who waits must not fail because the catalog is busy
        stored = {
            each.target: sum(part.size for part in each.parts)
            for each in catalog.uploads()
            if each.origin == catalog.origin
        }
        far = {vfs.path(ino): stored.get(target_of(ino), 0) for ino in vfs.written()}
        far |= {target: size for target, size in stored.items() if not target.startswith(_INODE)}
        told = [f"{shown(name)} ({size_text(size)} stored)" for name, size in sorted(far.items())[:UPLOADS_SHOWN]]
    more = [f"{left - len(told)} more"] if told and left > len(told) else []
    return f"{left} open upload(s)" + (f": {'; '.join([*told, *more])}" if told else "")


def _target(catalog: Catalog, upload: UploadRecord) -> str:
    """The journal's words, with a path where it has only the number of an inode."""
    number = upload.target.removeprefix(_INODE)
    if number == upload.target or not number.isdigit():
        return upload.target
    names = catalog.parents(InodeNo(int(number)))
    return _path(catalog, *names[0]) if names else f"{upload.target}, which has no name any more"


def _put_target(catalog: Catalog, parent: InodeNo, name: str) -> str:
    """As Vfs.put tells the journal."""
    return f"{name!r} in {_path(catalog, *catalog.parents(parent)[0])}"


def _path(catalog: Catalog, parent: InodeNo, name: str) -> str:
    names = [name]
    while parent != ROOT_INODE:
        parent, name = catalog.parents(parent)[0]
        names.append(name)
    return "/" + "/".join(reversed(names))


def _time(ns: int) -> str:
    return datetime.datetime.fromtimestamp(ns / 1e9, datetime.UTC).isoformat(timespec="milliseconds")


def _words(name: str, value: Any) -> Any:
    if name in ("bytes", "size"):
        return f"{value}  ({size_text(value)})"
    if isinstance(value, list):
        return ", ".join(shown(each) for each in value) or None
    if value is None:
        return "pending" if name in ("sha256", "crc32") else None
    return shown(value) if isinstance(value, str) else value
