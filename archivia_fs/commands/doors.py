"""The doors: `serve` and `mount`.

Owns: the order in which doors open and close, what is said when they are open. Used by: cli.
Threading: the main thread; doors run in theirs.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from archivia_fs.commands.common import User, err, load_settings, open_gateway, out, password_of, program
from archivia_fs.commands.service import Stop, in_background, notify, stop_on_signals
from archivia_fs.commands.state import uploads_text
from archivia_fs.config import ADMIN
from archivia_fs.errors import Busy, ConfigError, MountError

if TYPE_CHECKING:
    from archivia_fs.app import Gateway
    from fuse.mount import FuseMount, MountOptions
    from webdav.server import WebDavOptions, WebDavServer

log = logging.getLogger(__name__)
commands = typer.Typer()

ReadOnly = Annotated[bool, typer.Option("--read-only", help="Nothing can be changed through the mount.")]
AllowOther = Annotated[bool, typer.Option("--allow-other", help="Other users of this machine may use the mount.")]
Xattr = Annotated[bool, typer.Option("--xattr", help="Answer extended attributes (costs a request per write).")]
Subtree = Annotated[str, typer.Option(metavar="PATH", help="The folder of the drive that becomes the mount's top.")]

MOUNT_SECONDS = 30.0  # for the kernel to ask its first question after mount(2)
READERS_SECONDS = 10.0  # at the end: for those who only read, or stand in a folder
FORCED_SECONDS = 5.0  # a second signal: for the mount to go
TELL_SECONDS = 5.0


@commands.command()
def serve(
    ctx: typer.Context,
    listen: Annotated[str, typer.Option(help="Address of the WebDAV server.", metavar="HOST:PORT")] = "127.0.0.1:8080",
    mount: Annotated[Path | None, typer.Option(metavar="DIRECTORY", help="Mount the drive here too.")] = None,
    read_only: ReadOnly = False,
    allow_other: AllowOther = False,
    xattr: Xattr = False,
    subtree: Subtree = "/",
    user: User = ADMIN,
    certificate: Annotated[Path | None, typer.Option(help="PEM file for TLS.")] = None,
    private_key: Annotated[Path | None, typer.Option(help="PEM file for TLS.")] = None,
    insecure_basic: Annotated[
        bool, typer.Option("--insecure-basic", help="Allow passwords in clear beyond this machine.")
    ] = False,
) -> None:
    """Serve the drive over WebDAV, and mount it.

    The drive is mounted too with --mount. Ctrl-C (or SIGTERM) ends it and waits for open uploads. A second Ctrl-C drops them:
    the old contents stay.

    Examples:

    \b
      archivia-fs serve
      archivia-fs serve --mount ./archive
      archivia-fs serve --listen 0.0.0.0:8443 --certificate cert.pem --private-key key.pem
    """
    host, port = parse_address(listen)
    if mount is not None:
        _check_host(allow_other)
    with stop_on_signals() as stop, open_gateway(ctx, new=True, announced=True) as gateway:
        from fuse.mount import MountOptions
        from webdav.server import WebDavOptions

        doors = Doors(gateway, stop)
        with doors.closing():
            doors.serve(WebDavOptions(
                host=host, port=port, certificate=certificate, private_key=private_key, insecure_basic=insecure_basic
            ))  # fmt: skip
            if mount is not None:
                doors.mount(mount, MountOptions(user, subtree, read_only, allow_other, xattr))
            doors.run()


@commands.command("mount")
def mount_command(
    ctx: typer.Context,
    directory: Path,
    subtree: Subtree = "/",
    read_only: ReadOnly = False,
    allow_other: AllowOther = False,
    xattr: Xattr = False,
    user: User = ADMIN,
    daemon: Annotated[
        bool, typer.Option("--daemon", help="Return when the mount answers, and go on in the background.")
    ] = False,
) -> None:
    """Mount the drive on a directory.

    It stays until Ctrl-C or `archivia-fs umount DIRECTORY`. DIRECTORY is empty, or does not exist yet. With --daemon,
    messages go to the folder `log` in the home once the mount answers; what goes wrong before is shown here, and is in the
    exit code.

    Examples:

    \b
      archivia-fs mount ./archive
      archivia-fs mount /mnt/roll-03 --subtree /Documents/archive/roll-03 --read-only
      archivia-fs mount /mnt/archive --allow-other --daemon
    """
    settings = load_settings(ctx)
    _check_host(allow_other)
    ready = in_background(settings.home / "log" / log_name(directory)) if daemon else None
    with stop_on_signals() as stop, open_gateway(ctx, new=True, announced=True) as gateway:
        from fuse.mount import MountOptions

        doors = Doors(gateway, stop)
        with doors.closing():
            doors.mount(directory, MountOptions(user, subtree, read_only, allow_other, xattr))
            doors.run(ready)


def _check_host(allow_other: bool) -> None:
    """Before anything is started for nothing. Raises MountError."""
    from fuse import mountpoint

    mountpoint.check_host(allow_other=allow_other)


def parse_address(text: str) -> tuple[str, int]:
    """ "127.0.0.1:8080", "[::1]:8080" to host and port; port 0 lets the system choose. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError(f"--listen {text}: write HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080.")
    return host.strip("[]"), int(port)


def log_name(directory: Path) -> str:
    """ "/mnt/archive" has the log "mount-mnt-archive.log"."""
    return f"mount-{str(directory.absolute()).strip('/').replace('/', '-')[-200:]}.log"


class Doors:
    """Open them, `run()`, and leave `closing()`."""

    def __init__(self, gateway: Gateway, stop: Stop) -> None:
        self._gateway = gateway
        self._stop = stop
        self._webdav: WebDavServer | None = None
        self._mount: FuseMount | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._told = -math.inf  # when something was that is waited for

    def serve(self, options: WebDavOptions) -> None:
        """Open the WebDAV door. Raises ConfigError."""
        from webdav.server import WebDavServer

        door = WebDavServer(self._gateway.vfs, options)
        door.start()
        self._webdav = door

    def mount(self, directory: Path, options: MountOptions) -> None:
        """Mount, and wait until the mount answers. If it ends by itself later, all stops. Raises MountError, Busy, ConfigError."""
        from fuse.mount import FuseMount

        self._gateway.caller(options.user)
        mount = FuseMount(self._gateway.vfs, directory, options)
        mount.mount()
        self._mount = mount

        def run() -> None:
            try:
                mount.run()
            except BaseException as error:  # noqa: BLE001 - raised again by `run`, in the main thread
                self._failure = error
            finally:
                self._stop.ask()

        self._thread = threading.Thread(target=run, name="fuse", daemon=True)
        self._thread.start()
        end = time.monotonic() + MOUNT_SECONDS
        while not mount.ready.wait(0.1):
            self._check()
            if mount.finished.is_set() or time.monotonic() > end:
                raise MountError(f"The mount at {directory} does not answer; unmount it and try again.")

    def run(self, ready: Callable[[], None] | None = None) -> None:
        """Say that all is open, and return when it shall close and everything is uploaded. Raises MountError if the mount broke.
        `ready` is called when all is said: from then on we are in the background."""
        self._stop.serving = True
        self._announce("Ctrl-C" if ready is None else f"`{program()} umount {shlex.quote(self._places())}`")
        if ready is not None:
            ready()
        notify("READY=1", f"STATUS={self._places()}")
        self._stop.wait()
        notify("STOPPING=1")
        self._check()
        if self._webdav is not None:
            self._webdav.refuse_uploads()  # a mount cannot: who copies a folder would be left with half of it
        self._drain()

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Close at the end, the mount first; at once if the end is an error or an interruption."""
        try:
            yield
            self._unmount()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and self._stop.serving:
                err.print("Ending at once: uploads that are not complete are dropped, the old contents stay.")
            with contextlib.suppress(Busy, MountError):
                if self._mount is not None:
                    self._mount.unmount(force=True, timeout=FORCED_SECONDS)
            if self._webdav is not None:
                self._webdav.stop(0)
            raise
        if self._webdav is not None:
            self._webdav.stop()

    def _check(self) -> None:
        if self._failure is not None:
            raise MountError(f"The mount broke down: {self._failure!r}. What was not closed keeps its old content.")

    def _drain(self) -> None:
        """Wait for open uploads, and say so now and then; the service manager is asked for patience."""

        def tell(left: int) -> None:
            notify("EXTEND_TIMEOUT_USEC=30000000", f"STATUS=Waiting for {left} open upload(s)")
            self._tell(f"Waiting for {uploads_text(self._gateway, left)}; Ctrl-C again drops what is open.")

        self._gateway.vfs.drain(tell)

    def _unmount(self) -> None:
        """Who writes is waited for, also with the next file of many; who only reads a little, and then is cut off."""
        if self._mount is None or self._thread is None:
            return
        vfs = self._gateway.vfs
        end = time.monotonic() + READERS_SECONDS
        while self._thread.is_alive():
            if vfs.open_uploads():
                self._drain()
                end = time.monotonic() + READERS_SECONDS
            try:
                self._mount.unmount()
            except Busy as error:
                left = end - time.monotonic()
                self._tell(f"{error} In {max(0, left):.0f} s it is cut off.")
                if left < 0 and not vfs.open_uploads():
                    self._mount.unmount(force=True)
                time.sleep(0.2)
            self._thread.join(0.2)
        self._check()

    def _tell(self, text: str) -> None:
        """What is waited for, every TELL_SECONDS at most."""
        if time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            out.print(text)

    def _places(self) -> str:
        return ", ".join(
            place for place in (self._webdav and self._webdav.url, self._mount and str(self._mount.path)) if place
        )

    def _announce(self, ending: str) -> None:
        out.print(f"Archivia FS is ready. {ending} ends it.")
        if self._webdav is not None:
            out.print(f"  WebDAV   {self._webdav.url}")
        if self._mount is not None:
            out.print(f"  Mount    {self._mount.path}")
        home = self._gateway.settings.home
        out.print(f"  Home     {home}")
        first = self._gateway.first_user
        if first is not None and not first.told:
            out.print(f"  User     {first.name}   password {password_of(first)}   (shown this once)")
            first.told = True
        out.print(f"  Ask      {program()} status --home {shlex.quote(str(home))}")
        target = self._copy_target()
        if target is not None:
            out.print(f"  Copy in  rsync -a --info=progress2 FOLDER {shlex.quote(f'{target}/')}")
        out.file.flush()

    def _copy_target(self) -> Path | None:
        """Where on the mount masters go, if it shows such a place and is not read-only."""
        from archivia_fs.app import FIRST_COLLECTION

        if self._mount is None or self._mount.options.read_only:
            return None
        top, documents = PurePosixPath("/", self._mount.options.subtree), PurePosixPath("/Documents")
        first = documents / FIRST_COLLECTION
        if first.is_relative_to(top):
            return self._mount.path / first.relative_to(top)
        return self._mount.path if top.is_relative_to(documents) else None
