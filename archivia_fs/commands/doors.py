"""The doors: `serve`, `mount`, `umount`.

Owns: signals, the order in which doors open and close, what is said when they are open. Used by: cli.
Threading: the main thread; doors run in theirs.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from archivia_fs.app import ADMIN, Gateway
from archivia_fs.commands.common import Home, User, err, open_gateway, out
from archivia_fs.errors import ConfigError
from fuse.mount import FuseMount, MountOptions
from fuse.mountpoint import unmount
from webdav.server import WebDavOptions, WebDavServer

commands = typer.Typer()

ReadOnly = Annotated[bool, typer.Option("--read-only", help="Nothing can be changed through the mount.")]
AllowOther = Annotated[bool, typer.Option("--allow-other", help="Other users of this machine may use the mount.")]
Xattr = Annotated[bool, typer.Option("--xattr", help="Answer extended attributes (costs a request per write).")]
Subtree = Annotated[str, typer.Option(help="The folder of the drive that becomes the mount's top.")]


@commands.command()
def serve(
    listen: Annotated[str, typer.Option(help="Address of the WebDAV server.", metavar="HOST:PORT")] = "127.0.0.1:8080",
    mount: Annotated[Path | None, typer.Option(help="Mount the drive here too.")] = None,
    home: Home = None,
    read_only: ReadOnly = False,
    allow_other: AllowOther = False,
    xattr: Xattr = False,
    subtree: Subtree = "/",
    user: User = ADMIN,
    certificate: Annotated[Path | None, typer.Option(help="PEM file for TLS.")] = None,
    private_key: Annotated[Path | None, typer.Option(help="PEM file for TLS.")] = None,
    insecure_basic: Annotated[
        bool, typer.Option("--insecure-basic", help="Passwords in clear beyond loopback.")
    ] = False,
) -> None:
    """Serve the drive over WebDAV, and mount it with --mount."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--listen {listen}: write HOST:PORT, for example 127.0.0.1:8080.")
    with open_gateway(home) as gateway, contextlib.ExitStack() as doors:
        door = WebDavServer(
            gateway.vfs,
            WebDavOptions(
                host=host.strip("[]"),
                port=int(port),
                certificate=certificate,
                private_key=private_key,
                insecure_basic=insecure_basic,
            ),
        )
        door.start()
        doors.callback(door.stop)
        stop = _stop_on_signals(doors)
        mounted = None
        if mount is not None:
            gateway.caller(user)
            options = MountOptions(user, subtree, read_only, allow_other, xattr)
            mounted = _run_mount(FuseMount(gateway.vfs, mount, options), doors, stop)
        _announce(gateway, door.url, mount)
        stop.wait()
        _drain(gateway)
        if mounted is not None:
            mounted()


@commands.command("mount")
def mount_command(
    directory: Path,
    home: Home = None,
    subtree: Subtree = "/",
    read_only: ReadOnly = False,
    allow_other: AllowOther = False,
    xattr: Xattr = False,
    user: User = ADMIN,
) -> None:
    """Mount the drive on DIRECTORY, in the foreground, until Ctrl-C or `archivia-fs umount DIRECTORY`."""
    with open_gateway(home) as gateway, contextlib.ExitStack() as doors:
        gateway.caller(user)
        stop = _stop_on_signals(doors)
        options = MountOptions(user, subtree, read_only, allow_other, xattr)
        end = _run_mount(FuseMount(gateway.vfs, directory, options), doors, stop)
        _announce(gateway, None, directory)
        stop.wait()
        _drain(gateway)
        end()


@commands.command()
def umount(directory: Path) -> None:
    """Unmount DIRECTORY cleanly."""
    unmount(directory)


def _run_mount(mount: FuseMount, doors: contextlib.ExitStack, stop: threading.Event) -> Callable[[], None]:
    """Mount, and serve in a thread of its own; returns the way to end it. If the mount ends by itself, all stops."""
    mount.mount()

    def run() -> None:
        try:
            mount.run()
        finally:
            stop.set()

    thread = threading.Thread(target=run, name="fuse", daemon=True)
    thread.start()

    def end() -> None:
        if thread.is_alive():
            mount.unmount()
            thread.join(60)

    doors.callback(end)
    return end


def _stop_on_signals(doors: contextlib.ExitStack) -> threading.Event:
    """SIGINT and SIGTERM ask to stop; a second one ends at once, and what is uncommitted is lost."""
    stop = threading.Event()

    def ask(_number: int, _frame: object) -> None:
        if stop.is_set():
            err.print("Ending at once: uploads that are not complete are dropped, the old contents stay.")
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        doors.callback(signal.signal, number, signal.signal(number, ask))
    return stop


def _drain(gateway: Gateway) -> None:
    """Wait for open uploads, and say so."""
    said = False

    def tell(left: int) -> None:
        nonlocal said
        if not said:
            out.print(f"Waiting for {left} open upload(s); Ctrl-C again drops them.")
            said = True

    gateway.vfs.drain(tell)


def _announce(gateway: Gateway, url: str | None, mount: Path | None) -> None:
    out.print("Archivia FS is ready. Ctrl-C ends it.")
    if url is not None:
        out.print(f"  WebDAV   {url}")
    if mount is not None:
        out.print(f"  Mount    {mount.absolute()}")
    first = gateway.first_user
    if first is not None:
        shown = first.password or "(from ARCHIVIA_ADMIN_PASSWORD)"
        out.print(f"  User     {first.name}   password {shown}   (shown this once)")
    if mount is not None:
        out.print(f"  Copy in  rsync -a --info=progress2 FOLDER {mount.absolute()}/Documents/archive/")
