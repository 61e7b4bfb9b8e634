"""The README tells the truth: its settings, commands, exit codes and links are the program's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from archivia_fs import config
from archivia_fs.cli import app, exit_code
from archivia_fs.errors import CatalogError, ConfigError, MountError, StoreError

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the section's table, without its two head rows."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def commands(group: TyperGroup, before: str = "") -> set[str]:
    found: set[str] = set()
    for name, command in group.commands.items():
        if not command.hidden:
            found |= commands(command, f"{name} ") if isinstance(command, TyperGroup) else {before + name}
    return found


def test_commands() -> None:
    told = {name for row in rows("Commands") for name in re.findall(r"`([^`]+)`", row[0])}
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    assert told == commands(group)


def test_settings_and_their_defaults() -> None:
    told = {row[0].strip("`"): row[1].strip("`") for row in rows("Settings")}
    assert set(told) == {config.PREFIX + name.upper() for name in config.Settings.model_fields}
    default = config.Settings(home=Path("/HOME"))
    assert config.parse_size(told["ARCHIVIA_MEMORY"]) == default.memory
    assert told["ARCHIVIA_S3_REGION"] == default.s3_region
    assert told["ARCHIVIA_CATALOG_URL"].replace("HOME", "/HOME") == default.catalog
    assert told["ARCHIVIA_CACHE_DIR"].replace("HOME", "/HOME") == str(default.spill_dir.parent)
    assert default.embedded_store


def test_the_settings_of_the_example_are_accepted(tmp_path: Path) -> None:
    example = section("Your own S3 and PostgreSQL").partition("```toml\n")[2].partition("```")[0]
    (tmp_path / config.FILE_NAME).write_text(example)
    settings = config.load({"home": tmp_path}, {})
    assert not settings.embedded_store
    assert settings.catalog.startswith("postgresql://")


@pytest.mark.parametrize(
    ("code", "words"), [(3, "the object store"), (4, "the catalog"), (5, "the mount"), (2, "wrong use or settings")]
)
def test_exit_codes(code: int, words: str) -> None:
    assert f"; {code} {words};" in section("Commands")
    error = {2: ConfigError, 3: StoreError, 4: CatalogError, 5: MountError}[code]
    assert exit_code(error("…")) == code


def test_links_lead_somewhere() -> None:
    targets = set(re.findall(r"\]\(([^)]+)\)", README))
    promises = "archivia_fs/vfs/SEMANTICS.md"  # with tests of its own
    assert promises in targets
    assert [target for target in targets - {promises} if not (ROOT / target).exists()] == []


def test_it_is_short_enough_to_read() -> None:
    assert len(README.splitlines()) < 200


def test_make_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z-]+)", README)):
        assert f"\n{target}:" in makefile


def test_make_bench_has_the_eight_streams() -> None:
    told = subprocess.run(["make", "-n", "-C", str(ROOT), "bench"], capture_output=True, text=True, check=True).stdout
    assert re.search(r"python -m tests\.bench .*--streams", told)
    assert "eight streams of 2 GiB" in section("Working on it")
