"""Who may use the archive: `user` and `collection`.

Owns: nothing that lasts. Used by: cli. Threading: the main thread.
"""

from __future__ import annotations

from typing import Annotated

import typer

from archivia_fs.commands.common import Json, PasswordStdin, ask_password, open_catalog, out, print_json
from archivia_fs.config import ADMIN
from archivia_fs.errors import ConfigError
from archivia_fs.types import Right

commands = typer.Typer()
users = typer.Typer(no_args_is_help=True, help="Who may log in.")
collections = typer.Typer(no_args_is_help=True, help="Top-level folders: whose they are, who may read and write.")
commands.add_typer(users, name="user")
commands.add_typer(collections, name="collection")


@users.command("list")
def user_list(ctx: typer.Context, as_json: Json = False) -> None:
    """All users."""
    with open_catalog(ctx) as catalog:
        found = catalog.users()
    if as_json:
        print_json([{"name": u.name, "admin": u.admin, "disabled": u.disabled} for u in found])
        return
    for user in found:
        out.print(f"{user.name}{'  admin' if user.admin else ''}{'  disabled' if user.disabled else ''}")


@users.command("add")
def user_add(
    ctx: typer.Context,
    name: str,
    admin: Annotated[bool, typer.Option("--admin", help="May do everything.")] = False,
    password_stdin: PasswordStdin = False,
) -> None:
    """Add a user; asks for the password."""
    from archivia_fs.vfs.passwords import hash_password

    check_user(name)
    password = ask_password(password_stdin)
    with open_catalog(ctx, new=True) as catalog:
        catalog.add_user(name, hash_password(password), admin=admin)


def check_user(name: str) -> None:
    """RFC 7617 2: a name for Basic authentication has no colon and no control character. Raises ConfigError."""
    if not name or ":" in name or not name.isprintable():
        raise ConfigError(f"{name!r} cannot be a user's name: it is empty, or has a colon or a control character.")


@users.command("passwd")
def user_passwd(ctx: typer.Context, name: str, password_stdin: PasswordStdin = False) -> None:
    """Change a user's password."""
    from archivia_fs.vfs.passwords import hash_password

    password = ask_password(password_stdin)
    with open_catalog(ctx) as catalog:
        catalog.set_password(name, hash_password(password))


@users.command("disable")
def user_disable(
    ctx: typer.Context, name: str, undo: Annotated[bool, typer.Option("--undo", help="Let the user in again.")] = False
) -> None:
    """Keep a user out without forgetting what is theirs."""
    with open_catalog(ctx) as catalog:
        catalog.set_disabled(name, not undo)


@collections.command("list")
def collection_list(ctx: typer.Context, as_json: Json = False) -> None:
    """All collections and who may use them."""
    with open_catalog(ctx) as catalog:
        found = catalog.collections()
    if as_json:
        print_json([{"name": c.name, "owner": c.owner, "grants": dict(c.grants)} for c in found])
        return
    for each in found:
        rights = "".join(f"  {user}:{right}" for user, right in each.grants)
        out.print(f"{each.name}  owner:{each.owner}{rights}")


@collections.command("add")
def collection_add(ctx: typer.Context, name: str, owner: str = ADMIN) -> None:
    """Make a collection."""
    from archivia_fs.app import add_collection

    with open_catalog(ctx, new=True) as catalog:
        add_collection(catalog, name, owner)


@collections.command("grant")
def collection_grant(ctx: typer.Context, name: str, user: str, right: Right) -> None:
    """Let a user `read`, or `write` (which includes reading), a collection."""
    with open_catalog(ctx) as catalog:
        catalog.grant(name, user, right)


@collections.command("revoke")
def collection_revoke(ctx: typer.Context, name: str, user: str) -> None:
    """Take a user's rights on a collection away."""
    with open_catalog(ctx) as catalog:
        catalog.revoke(name, user)
