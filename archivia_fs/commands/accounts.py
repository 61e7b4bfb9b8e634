"""Who may use the archive: `user` and `collection`.

Owns: nothing that lasts. Used by: cli. Threading: the main thread.
"""

from __future__ import annotations

from typing import Annotated

import typer

from archivia_fs.app import ADMIN
from archivia_fs.commands.common import Home, Json, PasswordStdin, ask_password, open_gateway, out, print_json
from archivia_fs.types import Right
from archivia_fs.vfs.passwords import hash_password

commands = typer.Typer()
users = typer.Typer(no_args_is_help=True, help="Who may log in.")
collections = typer.Typer(no_args_is_help=True, help="Top-level folders: whose they are, who may read and write.")
commands.add_typer(users, name="user")
commands.add_typer(collections, name="collection")


@users.command("list")
def user_list(home: Home = None, as_json: Json = False) -> None:
    """All users."""
    with open_gateway(home) as gateway:
        found = gateway.catalog.users()
    if as_json:
        print_json([{"name": u.name, "admin": u.admin, "disabled": u.disabled} for u in found])
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
    password = ask_password(password_stdin)
    with open_gateway(home) as gateway:
        gateway.catalog.add_user(name, hash_password(password), admin=admin)


@users.command("passwd")
def user_passwd(name: str, password_stdin: PasswordStdin = False, home: Home = None) -> None:
    """Change a user's password."""
    password = ask_password(password_stdin)
    with open_gateway(home) as gateway:
        gateway.catalog.set_password(name, hash_password(password))


@users.command("disable")
def user_disable(
    name: str, undo: Annotated[bool, typer.Option("--undo", help="Let the user in again.")] = False, home: Home = None
) -> None:
    """Keep a user out without forgetting what is theirs."""
    with open_gateway(home) as gateway:
        gateway.catalog.set_disabled(name, not undo)


@collections.command("list")
def collection_list(home: Home = None, as_json: Json = False) -> None:
    """All collections and who may use them."""
    with open_gateway(home) as gateway:
        found = gateway.catalog.collections()
    if as_json:
        print_json([{"name": c.name, "owner": c.owner, "grants": dict(c.grants)} for c in found])
        return
    for each in found:
        rights = "".join(f"  {user}:{right}" for user, right in each.grants)
        out.print(f"{each.name}  owner:{each.owner}{rights}")


@collections.command("add")
def collection_add(name: str, owner: str = ADMIN, home: Home = None) -> None:
    """Make a collection."""
    with open_gateway(home) as gateway:
        gateway.add_collection(name, owner)


@collections.command("grant")
def collection_grant(name: str, user: str, right: Right, home: Home = None) -> None:
    """Let a user read, or read and write, a collection."""
    with open_gateway(home) as gateway:
        gateway.catalog.grant(name, user, right)


@collections.command("revoke")
def collection_revoke(name: str, user: str, home: Home = None) -> None:
    """Take a user's rights on a collection away."""
    with open_gateway(home) as gateway:
        gateway.catalog.revoke(name, user)
