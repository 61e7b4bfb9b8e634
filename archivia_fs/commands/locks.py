"""What WebDAV clients have locked, and the way out when one never came back: `locks`.

Owns: nothing that lasts. Used by: cli. Threading: the main thread.
"""

from __future__ import annotations

import time

import typer

from archivia_fs.commands.common import Json, open_catalog, out, print_json, shown
from archivia_fs.errors import NotFound
from archivia_fs.types import Lock, lookup_key

commands = typer.Typer()
locks = typer.Typer(no_args_is_help=True, help="What WebDAV clients have locked.")
commands.add_typer(locks, name="locks")


@locks.command("list")
def lock_list(ctx: typer.Context, as_json: Json = False) -> None:
    """All locks: whose, on what, for how long yet."""
    with open_catalog(ctx) as catalog:
        found = sorted(catalog.locks(), key=lambda lock: lock.path)
    if as_json:
        print_json(found)
        return
    for lock in found:
        kind = "exclusive" if lock.exclusive else "shared"
        below = "" if lock.depth == 0 or lock.path == "/" else " (and all below)"
        out.print(f"{shown(lock.path)}{below}  {kind}  {lock.user}  {_left(lock)}")


@locks.command("remove")
def lock_remove(ctx: typer.Context, path: str) -> None:
    """End the locks on PATH (as `locks list` shows it). Who held one gets an error at the next write."""
    key = lookup_key("/" + path.strip("/"))
    with open_catalog(ctx) as catalog:
        found = [lock for lock in catalog.locks() if lock.path == key]
        if not found:
            raise NotFound(f"Nothing has locked {shown(path)}; `archivia-fs locks list` shows all there are.")
        for lock in found:
            catalog.remove_lock(lock.token)


def _left(lock: Lock) -> str:
    if lock.expires_ns is None:
        return "until it is unlocked"
    return f"for {max(0, (lock.expires_ns - time.time_ns()) // 10**9)} s"
