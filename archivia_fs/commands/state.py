"""How it is: `status`, and `store` for the embedded object store.

Owns: nothing that lasts. Used by: cli. Threading: the main thread.
"""

from __future__ import annotations

from typing import Any

import typer

from archivia_fs import config
from archivia_fs.commands.common import Home, Json, open_gateway, out, print_facts
from archivia_fs.store.embedded import EmbeddedStore

commands = typer.Typer()
stores = typer.Typer(no_args_is_help=True, help="The embedded object store.")
commands.add_typer(stores, name="store")


@commands.command()
def status(home: Home = None, as_json: Json = False) -> None:
    """What the archive holds."""
    with open_gateway(home) as gateway:
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
    print_facts(facts, as_json=as_json)


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
