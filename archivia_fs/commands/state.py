"""Is it safe yet: `status` of the whole or of one path.

Owns: how state is told. Used by: cli, doors. Threading: the main thread. `status` reads the catalog only, so it answers while the
store is down.
"""

from __future__ import annotations

import contextlib
import datetime
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
from archivia_fs.types import ROOT_INODE, InodeNo, OpenUpload, Stat

if TYPE_CHECKING:
    from archivia_fs.app import Gateway
    from catalog.catalog import Catalog

commands = typer.Typer()

UPLOADS_SHOWN = 3  # of those that are waited for
GREY_MAX = 20  # pictures without a preview that are told by name
_KINDS = {"is_dir": "folder", "is_symlink": "symbolic link"}


@dataclass(frozen=True, slots=True)
class Upload:
    """One open upload: `bytes` of it are stored. `alive` False: it was interrupted, and sending the same bytes again goes on with
    it, until the first gc after `resumable_until` (None while it is alive). Times are RFC 3339."""

    target: str
    bytes: int
    since: str
    alive: bool
    resumable_until: str | None


@dataclass(frozen=True, slots=True)
class Grey:
    """A picture that could not be decoded. `failure`: the reason in one word, "unsupported", "corrupt", "limits", "memory" or
    "crashed". `again_at`: RFC 3339, "" for not with this `decoder`."""

    path: str
    failure: str
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

    Without PATH: what it holds, what is being uploaded, what was interrupted and until when sending it again goes on where
    it was, what is mounted here. With PATH, of one file: it is `stored`
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
        again = f"again at {picture.again_at}" if picture.again_at else "again with another decoder"
        tries = f"{picture.attempts} {'try' if picture.attempts == 1 else 'tries'} with decoder {picture.decoder}"
        out.print(f"no preview  {shown(picture.path)}  {picture.failure}: {picture.reason} ({tries}; {again})")
    for each in uploads:
        state = "uploading  " if each.alive else "interrupted"
        until = f"; send it again to go on, until {each.resumable_until}" if each.resumable_until else ""
        out.print(f"{state}  {shown(each.target)}  {size_text(each.bytes)} stored, since {each.since}{until}")


def _whole(ctx: typer.Context, catalog: Catalog) -> dict[str, Any]:
    from fuse import mountpoint

    settings = load_settings(ctx)
    counts, uploads = catalog.counts(), _uploads(catalog)
    return {
        "files": counts.files,
        "folders": counts.directories,
        "bytes": counts.bytes,
        "open_uploads": sum(upload.alive for upload in uploads),
        "interrupted_uploads": sum(not upload.alive for upload in uploads),
        "checksums_pending": counts.checksums_pending,
        "store": "embedded" if settings.embedded_store else settings.s3_endpoint,
        "mounts": [str(mount.path) for mount in mountpoint.mounts() if mount.fstype == mountpoint.FSTYPE],
        **_previews(catalog),
        "uploads": uploads,
    }


def _previews(catalog: Catalog) -> dict[str, Any]:
    from archivia_fs.views.thumbnails.versions import no_raw
    from catalog.previews import PreviewState

    counts = catalog.previews.counts()
    grey = [
        Grey(
            next(iter(catalog.revision_paths(each.revision, 1)), f"revision {each.revision}"), each.failure,
            each.reason, each.attempts,
            "" if each.retry_ns is None else _time(each.retry_ns), each.decoder,
        )
        for each in catalog.previews.failed(GREY_MAX)
    ]  # fmt: skip
    return {
        "previews": counts.get(PreviewState.EMBEDDED, 0) + counts.get(PreviewState.DECODED, 0),
        "previews_grey": counts.get(PreviewState.PLACEHOLDER, 0),
        "previews_failed": grey,
        "raw_decoding": no_raw() or "on",
    }


def _one(catalog: Catalog, path: str) -> dict[str, Any]:
    from archivia_fs.vfs.safety import state_of
    from archivia_fs.vfs.targets import targets_of

    stat = resolve(catalog, path)
    if not stat.is_file:
        kind = next((text for test, text in _KINDS.items() if getattr(stat, test)), "special file")
        return {"path": path, "kind": kind, "state": "stored", "since": _time(stat.ctime_ns)}
    uploading = catalog.is_uploading(targets_of(stat.ino, catalog.parents(stat.ino)))
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
    return [
        Upload(
            _path_of(catalog, each.target), each.bytes, _time(each.created_ns), each.alive, _resumable_until(each)
        )
        for each in catalog.open_uploads()
    ]  # fmt: skip


def _resumable_until(upload: OpenUpload) -> str | None:
    from archivia_fs.maintenance.gc import UPLOAD_AGE

    return None if upload.alive else _time(upload.active_ns + int(UPLOAD_AGE * 1e9))


def uploads_text(gateway: Gateway, left: int) -> str:
    """What this gateway is uploading, `left` of them, and how far each is: "2 open upload(s): /Documents/a.dng (8.0 MiB stored)".
    A PUT has a name here from its first part on."""
    from archivia_fs.vfs.targets import target_of

    catalog, vfs = gateway.catalog, gateway.vfs
    told: list[str] = []
    with contextlib.suppress(FsError):  # the number will do: who waits must not fail because the catalog is busy
        far = {target_of(ino): 0 for ino in vfs.written()}
        far |= {each.target: each.bytes for each in catalog.open_uploads() if each.origin == catalog.origin}
        paths = {_path_of(catalog, target): size for target, size in far.items()}
        told = [f"{shown(path)} ({size_text(size)} stored)" for path, size in sorted(paths.items())[:UPLOADS_SHOWN]]
    more = [f"{left - len(told)} more"] if told and left > len(told) else []
    return f"{left} open upload(s)" + (f": {'; '.join([*told, *more])}" if told else "")


def _path_of(catalog: Catalog, target: str) -> str:
    """A path for what the journal names by inodes, which may be called otherwise now than when the upload began."""
    from archivia_fs.vfs.targets import parse_target

    parsed = parse_target(target)
    if parsed is None:
        return target
    ino, name = parsed
    if name is not None:
        return _path(catalog, ino, name)
    names = catalog.parents(ino)
    return _path(catalog, *names[0]) if names else f"{target}, which has no name any more"


def _path(catalog: Catalog, parent: InodeNo, name: str) -> str:
    names = [name]
    while parent != ROOT_INODE:
        named = catalog.parents(parent)
        if not named:
            names.append("(a deleted folder)")
            break
        parent, name = named[0]
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
