"""`store`: the object store, embedded or your own.

Owns: nothing that lasts. Used by: cli. Threading: the main thread.
"""

from __future__ import annotations

import typer

from archivia_fs.commands.common import Json, load_settings, out, print_facts
from archivia_fs.config import Settings
from archivia_fs.errors import ConfigError

commands = typer.Typer()
stores = typer.Typer(no_args_is_help=True, help="The object store, embedded or your own.")
commands.add_typer(stores, name="store")


@stores.command("start")
def store_start(ctx: typer.Context) -> None:
    """Start the embedded store and leave it running; prints its address."""
    from archivia_fs.app import make_home
    from archivia_fs.store.embedded import EmbeddedStore

    settings = _embedded(ctx)
    make_home(settings)
    out.print(EmbeddedStore(settings.home).start().endpoint)


@stores.command("stop")
def store_stop(ctx: typer.Context) -> None:
    """Stop the embedded store, if nobody uses it."""
    from archivia_fs.store.embedded import EmbeddedStore

    out.print("stopped" if EmbeddedStore(_embedded(ctx).home).stop() else "it was not running")


@stores.command("status")
def store_status(ctx: typer.Context, as_json: Json = False) -> None:
    """Where the store is, whether it answers, and what it can do."""
    from archivia_fs.app import open_store
    from archivia_fs.store.embedded import EmbeddedStore

    settings = load_settings(ctx)
    facts: dict[str, object] = {"kind": "embedded" if settings.embedded_store else "s3"}
    if settings.embedded_store:
        facts["data"] = str(settings.home / "store")
        if not EmbeddedStore(settings.home).running():
            print_facts({**facts, "running": False}, as_json=as_json)
            return
    with open_store(settings) as (store, config):
        capabilities = store.probe()
    facts |= {
        "running": True,
        "endpoint": config.endpoint,
        "bucket": config.bucket,
        "part_copy": capabilities.part_copy,
        "conditional_put": capabilities.conditional_put,
        "checksum": capabilities.checksum,
    }
    print_facts(facts, as_json=as_json)


def _embedded(ctx: typer.Context) -> Settings:
    settings = load_settings(ctx)
    if not settings.embedded_store:
        raise ConfigError(
            f"The settings name an S3 server of your own ({settings.s3_endpoint}), so there is no embedded one."
        )
    return settings
