"""Settings: flags over environment over archivia-fs.toml.

Owns: what can be set, and the messages when it is set wrong. Used by: app, cli. Threading: frozen values.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_validator, model_validator

from archivia_fs.errors import ConfigError

PREFIX = "ARCHIVIA_"
FILE_NAME = "archivia-fs.toml"
ADMIN = "admin"  # the first user, and whom a mount acts as
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"\s*(\d+)\s*([KMGT]?)(?:i?B)?\s*", re.IGNORECASE)
MEMORY_MIN = 32 << 20


def parse_size(text: str | int) -> int:
    """ "256 MiB", "1G", "65536" to bytes; units are powers of 1024. Raises ValueError."""
    match = _SIZE.fullmatch(str(text))
    if match is None:
        raise ValueError(f'"{text}" is no size; write it like 256MiB or 1G')
    return int(match[1]) * _UNITS[match[2].upper()]


class Settings(BaseModel):
    """Names are those of the environment without ARCHIVIA_, in lower case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    catalog_url: str = ""
    s3_endpoint: str = ""
    s3_bucket: str = ""
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")
    s3_region: str = "us-east-1"
    memory: int = 256 << 20
    cache_dir: Path | None = None
    admin_password: SecretStr = SecretStr("")

    @field_validator("memory", mode="before")
    @classmethod
    def _memory(cls, value: str | int) -> int:
        size = parse_size(value)
        if size < MEMORY_MIN:
            raise ValueError("memory under 32 MiB cannot stream; give at least 32MiB")
        return size

    @model_validator(mode="after")
    def _all_of_s3(self) -> Settings:
        given = {
            "ARCHIVIA_S3_ENDPOINT": self.s3_endpoint,
            "ARCHIVIA_S3_BUCKET": self.s3_bucket,
            "ARCHIVIA_S3_ACCESS_KEY": self.s3_access_key,
            "ARCHIVIA_S3_SECRET_KEY": self.s3_secret_key.get_secret_value(),
        }
        missing = [name for name, value in given.items() if not value]
        if missing and len(missing) < len(given):
            raise ValueError(f"for your own S3 set {', '.join(missing)} too; for the embedded store set none of them")
        return self

    @property
    def embedded_store(self) -> bool:
        """Whether no S3 is named."""
        return not self.s3_endpoint

    @property
    def catalog(self) -> str:
        """The catalog's URL; by default SQLite in the home."""
        return self.catalog_url or f"sqlite:///{self.home}/catalog.db"

    @property
    def spill_dir(self) -> Path:
        """Where bytes that come out of order wait."""
        return (self.cache_dir or self.home / "cache") / "spill"


def default_home() -> Path:
    """/var/lib/archivia-fs for root, else under XDG_DATA_HOME (XDG Base Directory Specification)."""
    if os.geteuid() == 0:
        return Path("/var/lib/archivia-fs")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "archivia-fs"


def load(flags: dict[str, Any], environment: dict[str, str] | None = None, *, file: Path | None = None) -> Settings:
    """Settings from all sources; `file` is read instead of the home's archivia-fs.toml, and then may set `home` too. Raises
    ConfigError that names the setting and the way out."""
    environment = dict(os.environ) if environment is None else environment
    known = set(Settings.model_fields)
    from_environment: dict[str, Any] = {}
    for name, value in environment.items():
        if name.startswith(PREFIX):
            key = name.removeprefix(PREFIX).lower()
            if key not in known:
                raise ConfigError(_unknown(name, [PREFIX + each.upper() for each in known]))
            from_environment[key] = value
    given = {key: value for key, value in flags.items() if value is not None}
    named = {**(_read_file(file, known) if file is not None else {}), **from_environment, **given}
    home = Path(named.get("home") or default_home()).absolute()
    own = _read_file(home / FILE_NAME, known, optional=True) if file is None else {}
    merged = {**own, **named, "home": home}
    try:
        return Settings(**merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{PREFIX}{str(first['loc'][0]).upper()}: " if first["loc"] else ""
        raise ConfigError(where + str(first["msg"]).removeprefix("Value error, ")) from error


def _read_file(path: Path, known: set[str], *, optional: bool = False) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        if optional:
            return {}
        raise ConfigError(f"{path}, the file of settings, does not exist.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f'{path} is not TOML: {error}. A line looks like: memory = "512MiB"') from error
    for key in values:
        if key not in known:
            raise ConfigError(f"{path}: " + _unknown(key, list(known)))
    return values


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"{name} is not a setting." + (
        f" Did you mean {near[0]}?" if near else f" There are: {', '.join(sorted(known))}."
    )
