"""The command line.

Owns: commands, what they print, exit codes. Used by: people and scripts. Threading: the main thread; doors run in theirs.

Exit codes: 0 done; 1 some of it failed; 2 wrong use or settings; 3 the object store; 4 the catalog; 5 the mount;
130 interrupted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from archivia_fs import config
from archivia_fs.app import ADMIN, Gateway
from archivia_fs.errors import CatalogError, ConfigError, FsError, MountError, StoreError
from archivia_fs.store.embedded import EmbeddedStore
from archivia_fs.types import Right
from archivia_fs.vfs.passwords import hash_password
from fuse.mount import FuseMount, MountOptions
from fuse.mountpoint import unmount
from webdav.server import WebDavOptions, WebDavServer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="An S3 bucket as a network drive.")
users = typer.Typer(no_args_is_help=True, help="Who may log in.")
collections = typer.Typer(no_args_is_help=True, help="Top-level folders: whose they are, who may read and write.")
stores = typer.Typer(no_args_is_help=True, help="The embedded object store.")
app.add_typer(users, name="user")
app.add_typer(collections, name="collection")
app.add_typer(stores, name="store")

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Home = Annotated[Path | None, typer.Option(help="Folder of the state (ARCHIVIA_HOME).")]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Nothing can be changed through the mount.")]
AllowOther = Annotated[bool, typer.Option("--allow-other", help="Other users of this machine may use the mount.")]
Xattr = Annotated[bool, typer.Option("--xattr", help="Answer extended attributes (costs a request per write).")]
Subtree = Annotated[str, typer.Option(help="The folder of the drive that becomes the mount's top.")]
User = Annotated[str, typer.Option(help="The user the mount acts as.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]


def main() -> None:
    """The program. Errors are one line and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app(standalone_mode=True)
    except FsError as error:
        err.print(f"[bold red]Error:[/] {error}", markup=True)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)


def exit_code(error: FsError) -> int:
    """The one table from errors to exit codes."""
    if isinstance(error, StoreError):
        return 3
    if isinstance(error, CatalogError):
        return 4
    if isinstance(error, MountError):
        return 5
    return 2


@app.command()
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
    with Gateway(config.load({"home": home})) as gateway, contextlib.ExitStack() as doors:
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


@app.command("mount")
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
    with Gateway(config.load({"home": home})) as gateway, contextlib.ExitStack() as doors:
        gateway.caller(user)
        stop = _stop_on_signals(doors)
        options = MountOptions(user, subtree, read_only, allow_other, xattr)
        end = _run_mount(FuseMount(gateway.vfs, directory, options), doors, stop)
        _announce(gateway, None, directory)
        stop.wait()
        _drain(gateway)
        end()


@app.command()
def umount(directory: Path) -> None:
    """Unmount DIRECTORY cleanly."""
    unmount(directory)


@app.command()
def status(home: Home = None, as_json: Json = False) -> None:
    """What the archive holds."""
    with Gateway(config.load({"home": home})) as gateway:
        counts = gateway.catalog.counts()
        capabilities = gateway.capabilities
        facts: dict[str, Any] = {
            "files": counts.files,
            "folders": counts.directories,
            "bytes": counts.bytes,
            "open_uploads": counts.uploads,
            "checksums_pending": counts.checksums_pending,
            "store": "embedded" if gateway.settings.embedded_store else gateway.settings.s3_endpoint,
            "store_verifies_by": capabilities.checksum if capabilities else None,
        }
    _print_facts(facts, as_json)


@users.command("list")
def user_list(home: Home = None, as_json: Json = False) -> None:
    """All users."""
    with Gateway(config.load({"home": home})) as gateway:
        found = gateway.catalog.users()
    if as_json:
        out.print_json(json.dumps([{"name": u.name, "admin": u.admin, "disabled": u.disabled} for u in found]))
        return
    for user in found:
        out.print(f"{user.name}{'  admin' if user.admin else ''}{'  disabled' if user.disabled else ''}")


@users.command("add")
def user_add(
    name: str,
    admin: Annotated[bool, typer.Option("--admin", help="May do everything.")] = False,
    password_stdin: PasswordStdin = False,
    home: Home = None,
) -> None:
    """Add a user; asks for the password."""
    password = _password(password_stdin)
    with Gateway(config.load({"home": home})) as gateway:
        gateway.catalog.add_user(name, hash_password(password), admin=admin)


@users.command("passwd")
def user_passwd(name: str, password_stdin: PasswordStdin = False, home: Home = None) -> None:
    """Change a user's password."""
    password = _password(password_stdin)
    with Gateway(config.load({"home": home})) as gateway:
        gateway.catalog.set_password(name, hash_password(password))


@users.command("disable")
def user_disable(
    name: str, undo: Annotated[bool, typer.Option("--undo", help="Let the user in again.")] = False, home: Home = None
) -> None:
    """Keep a user out without forgetting what is theirs."""
    with Gateway(config.load({"home": home})) as gateway:
        gateway.catalog.set_disabled(name, not undo)


@collections.command("list")
def collection_list(home: Home = None) -> None:
    """All collections and who may use them."""
    with Gateway(config.load({"home": home})) as gateway:
        for each in gateway.catalog.collections():
            rights = "".join(f"  {user}:{right}" for user, right in each.grants)
            out.print(f"{each.name}  owner:{each.owner}{rights}")


@collections.command("add")
def collection_add(name: str, owner: str = ADMIN, home: Home = None) -> None:
    """Make a collection."""
    with Gateway(config.load({"home": home})) as gateway:
        gateway.add_collection(name, owner)


@collections.command("grant")
def collection_grant(name: str, user: str, right: Right, home: Home = None) -> None:
    """Let a user read, or read and write, a collection."""
    with Gateway(config.load({"home": home})) as gateway:
        gateway.catalog.grant(name, user, right)


@collections.command("revoke")
def collection_revoke(name: str, user: str, home: Home = None) -> None:
    """Take a user's rights on a collection away."""
    with Gateway(config.load({"home": home})) as gateway:
        gateway.catalog.revoke(name, user)


@stores.command("start")
def store_start(home: Home = None) -> None:
    """Start the embedded store and leave it running."""
    store = EmbeddedStore(config.load({"home": home}).home)
    out.print(store.start().endpoint)


@stores.command("stop")
def store_stop(home: Home = None) -> None:
    """Stop the embedded store, if nobody uses it."""
    stopped = EmbeddedStore(config.load({"home": home}).home).stop()
    out.print("stopped" if stopped else "it was not running")


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


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        out.print_json(json.dumps(facts))
        return
    for name, value in facts.items():
        out.print(f"{name.replace('_', ' '):20} {value}")


def _password(from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    if not password:
        raise ConfigError("An empty password is none.")
    return password
