"""The composition root: where store, catalog, core and doors meet.

Owns: the order of start and stop. Used by: cli. Threading: one thread builds and ends a Gateway; doors run in theirs.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from archivia_fs.config import ADMIN, Settings
from archivia_fs.errors import ConfigError, Exists
from archivia_fs.store.base import Capabilities, ObjectStore
from archivia_fs.store.durable import DurableStore
from archivia_fs.store.embedded import EmbeddedStore
from archivia_fs.store.s3 import S3Config, S3Store
from archivia_fs.store.stack import stack
from archivia_fs.types import Caller
from archivia_fs.vfs.names import check_name
from archivia_fs.vfs.passwords import hash_password
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from archivia_fs.vfs.view import View
from archivia_fs.views.downloads.view import DownloadsView
from archivia_fs.views.thumbnails.background import Background
from archivia_fs.views.thumbnails.maker import Maker
from archivia_fs.views.thumbnails.pool import Pool
from archivia_fs.views.thumbnails.service import Previews
from archivia_fs.views.thumbnails.view import ThumbnailsView
from catalog.catalog import Catalog
from catalog.namespace import NewInode

log = logging.getLogger(__name__)

FIRST_COLLECTION = "archive"
_M_TRIM_THRESHOLD = -1  # mallopt(3)
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
MMAP_FROM = 2 * 1024**2  # bytes; blocks and parts are larger, the kernel's requests of up to 1 MiB smaller
TRIM_FROM = 4 * 1024**2  # bytes

Room = TypeVar("Room")


@dataclass(slots=True)
class FirstUser:
    """Made at the first start. The catalog keeps a hash: until somebody has `told` it, the password is known only here.
    `given`: it came from ARCHIVIA_ADMIN_PASSWORD."""

    name: str
    password: str
    given: bool
    told: bool = False


class Gateway:
    """A context manager: inside it the core is there. Leaving waits for nothing; call `drain` before."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.first_user: FirstUser | None = None
        self.capabilities: Capabilities | None = None
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Gateway:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def caller(self, user: str = ADMIN) -> Caller:
        """The archive's user, with this process's uid and gid. Raises ConfigError for a user that is not there."""
        if not any(each.name == user and not each.disabled for each in self.catalog.users()):
            raise ConfigError(f"There is no (enabled) user {user!r}; `archivia-fs user list` shows who there is.")
        return Caller(user, os.getuid(), os.getgid())

    def _start(self) -> None:
        bound_allocator()
        settings = self.settings
        make_home(settings)
        store, _ = self._enter(open_store(settings))
        plain = stacked = stack(store)
        if settings.embedded_store:
            stacked = DurableStore(plain, EmbeddedStore(settings.home).data)
        self.capabilities = stacked.probe()
        self.store = stacked
        self.catalog = Catalog.open(settings.catalog)
        self._undo.append(self.catalog.close)
        self.catalog.forget_orphans()
        self.first_user = first_user(self.catalog, settings)
        first_start(self.catalog, self.first_user)
        background = self._start_previews(plain)
        options = VfsOptions(spill_dir=settings.spill_dir, memory=settings.memory)
        views: list[View] = [ThumbnailsView(self.previews, background.later), DownloadsView(self.catalog)]
        self.vfs = Vfs(self.catalog, stacked, options, views)
        self._undo.append(self.vfs.close)
        self.vfs.subscribe(background.on_effects)

    def _start_previews(self, store: ObjectStore) -> Background:
        """Previews can be made again, so their `store` need not survive a power cut."""
        pool = Pool()
        self.previews = Previews(
            self.catalog.previews, self.catalog, store, Maker(pool), cache_bytes=self.settings.memory // 16
        )
        background = Background(self.previews, pool, self.catalog, self.catalog.origin)
        self._undo += [background.close, pool.close]  # from behind: what is being decoded ends first
        background.start()
        return background

    def _enter(self, room: contextlib.AbstractContextManager[Room]) -> Room:
        inside = room.__enter__()
        self._undo.append(lambda: room.__exit__(None, None, None))
        return inside

    def _stop(self) -> None:
        while self._undo:
            undo = self._undo.pop()
            try:
                undo()
            except Exception:
                log.exception("Something could not be closed")


@contextlib.contextmanager
def open_store(settings: Settings) -> Iterator[tuple[S3Store, S3Config]]:
    """The object store of the settings, unprobed, and where it is. The embedded one is started if it does not run, and stopped by
    the last who leaves. Raises StoreError."""
    embedded = EmbeddedStore(settings.home) if settings.embedded_store else None
    try:
        if embedded is not None:
            access = embedded.start()
            config = S3Config(access.endpoint, access.bucket, access.access_key, access.secret_key)
        else:
            secret = settings.s3_secret_key.get_secret_value()
            config = S3Config(
                settings.s3_endpoint, settings.s3_bucket, settings.s3_access_key, secret, settings.s3_region
            )
        store = S3Store(config)
        try:
            if embedded is not None:
                store.ensure_bucket()
            yield store, config
        finally:
            store.close()
    finally:
        if embedded is not None:
            embedded.leave()


def first_user(catalog: Catalog, settings: Settings) -> FirstUser | None:
    """Whom an empty catalog gets; None if it has users."""
    if catalog.users():
        return None
    given = settings.admin_password.get_secret_value()
    return FirstUser(ADMIN, given or secrets.token_urlsafe(12), bool(given))


def first_start(catalog: Catalog, first: FirstUser | None) -> None:
    """Give an empty catalog its first user and collection. Tell the password, also if this is interrupted: it may be stored."""
    if first is None:
        return
    try:
        catalog.add_user(first.name, hash_password(first.password), admin=True)
    except Exists:  # another process was first, and tells its own
        first.told = True
        return
    add_collection(catalog, FIRST_COLLECTION, first.name)


def add_collection(catalog: Catalog, name: str, owner: str) -> None:
    """A top-level folder. Raises Exists, NotFound (the owner), InvalidName, NameTooLong."""
    check_name(name)
    catalog.add_collection(name, owner, NewInode(stat.S_IFDIR | 0o755, os.getuid(), os.getgid()))


def make_home(settings: Settings) -> None:
    """The state's folder, for the owner only. Raises ConfigError."""
    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The folder {settings.home} for the state cannot be made ({error.strerror}); set ARCHIVIA_HOME to another."
        ) from error


def bound_allocator() -> None:
    """Have glibc give large buffers back to the system at once, and use those of requests again.

    By default free(3) of one large buffer raises the mmap threshold to 32 MiB, and from then on parts and blocks fragment
    the heaps of many threads: measured 460 MiB of RSS after two 1 GiB copies, against 210 MiB with this (2026-11). A WRITE's
    megabyte taken from the system each time costs 256 page faults: 3.0 s of processor time for 1 GiB, against 2.2 s.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, MMAP_FROM)
        libc.mallopt(_M_TRIM_THRESHOLD, TRIM_FROM)
        libc.mallopt(_M_ARENA_MAX, 2)
    except (OSError, AttributeError):
        log.info("The C library has no mallopt; memory may stay higher than ARCHIVIA_MEMORY suggests")
