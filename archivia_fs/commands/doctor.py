"""`doctor`: is everything there that the drive needs? It changes nothing, and works when nothing else does.

Owns: how findings are told. Used by: cli. Threading: the main thread.
"""

from __future__ import annotations

from typing import Annotated

import typer

from archivia_fs.commands import checks
from archivia_fs.commands.checks import Finding
from archivia_fs.commands.common import Json, load_settings, out, print_json
from archivia_fs.errors import ConfigError

commands = typer.Typer()

_STYLES = {"ok": "green", "note": "yellow", "failed": "bold red"}


@commands.command()
def doctor(
    ctx: typer.Context,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="The address that `serve` shall have.")] = (
        "127.0.0.1:8080"
    ),
    as_json: Json = False,
) -> None:
    """Check everything, and say what to do.

    Machine, settings, catalog and store are looked at; nothing is changed. The exit code is 1 if anything failed. A `note` is
    about something that only some uses need.
    """
    todo = dict(checks.machine())
    findings: dict[str, Finding] = {}
    try:
        settings = load_settings(ctx)
    except ConfigError as error:
        findings["settings"] = checks.failed("cannot be used", str(error))
    else:
        findings["settings"] = checks.ok(f"home {settings.home}")
        todo |= checks.archive(settings, listen)
    findings |= {name: checks.run(check) for name, check in todo.items()}
    if as_json:
        print_json([{"check": name, **_object(finding)} for name, finding in findings.items()])
    else:
        for name, finding in findings.items():
            out.print(f"{finding.state:8}", style=_STYLES[finding.state], end="")
            out.print(f"{name:19}{finding.detail}{'. ' + finding.advice if finding.advice else ''}")
    if any(finding.state == "failed" for finding in findings.values()):
        raise typer.Exit(1)


def _object(finding: Finding) -> dict[str, str]:
    return {"state": finding.state, "detail": finding.detail, "advice": finding.advice}
