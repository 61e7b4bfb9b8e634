"""What `doctor` looks at. Each check stands alone: it returns what it found or raises, and never depends on another.

Owns: the checks. Used by: doctor. Threading: the main thread.
"""

from __future__ import annotations

import email.utils
import http.client
import importlib.metadata
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from archivia_fs.commands.common import size_text
from archivia_fs.config import Settings
from archivia_fs.errors import FsError

PACKAGES = ("archivia_fs", "webdav", "fuse", "catalog")
DISTRIBUTION = "archivia-fs"
PYTHON = (3, 11)
LIBRAW = (0, 22, 2)  # older ones have CVEs in the DNG decoder
SKEW_FAILED = 900.0  # seconds; S3 refuses requests that are 15 minutes off (RequestTimeTooSkewed)
SKEW_NOTED = 60.0
DISK_FAILED = 1 << 30  # bytes
DISK_NOTED = 10 << 30
ANSWER_SECONDS = 5.0  # of a store, perhaps far away
LOCAL_SECONDS = 1.0  # of whoever has our port


@dataclass(frozen=True, slots=True)
class Finding:
    """`state` is "ok", "note" (only some uses need it) or "failed"; `advice` says what to do, "" if nothing."""

    state: str
    detail: str
    advice: str = ""


def ok(detail: str) -> Finding:
    return Finding("ok", detail)


def failed(detail: str, advice: str) -> Finding:
    return Finding("failed", detail, advice)


def note(detail: str, advice: str) -> Finding:
    return Finding("note", detail, advice)


Check = Callable[[], Finding]


def machine() -> Mapping[str, Check]:
    """What needs no settings."""
    return {
        "python": python,
        "/dev/fuse": fuse_device,
        "fusermount3": fusermount,
        "allow_other": allow_other,
        "packages": packages,
        "pyfuse3": pyfuse,
        "libmagic": libmagic,
        "libraw": libraw,
    }


def archive(settings: Settings, listen: str) -> Mapping[str, Check]:
    """What depends on them."""
    return {
        "disk of the home": lambda: disk(settings.home),
        "disk of the cache": lambda: disk(settings.cache_dir or settings.home / "cache"),
        "catalog": lambda: catalog(settings),
        "store": lambda: store(settings),
        "clock": lambda: clock(settings),
        "port": lambda: port(listen),
    }


def python() -> Finding:
    found = ".".join(str(each) for each in sys.version_info[:3])
    if sys.version_info >= PYTHON:
        return ok(found)
    return failed(found, "Install Python 3.11 or newer, and make the virtual environment anew (`make setup`).")


def fuse_device() -> Finding:
    from fuse import mountpoint

    try:
        os.close(os.open(mountpoint.FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return failed(
            f"cannot be opened ({error.strerror})",
            "Load the kernel module with `modprobe fuse`; in a container add `--device /dev/fuse --cap-add SYS_ADMIN`. "
            "Only the mount needs it; WebDAV works without.",
        )
    return ok("can be opened")


def fusermount() -> Finding:
    found = shutil.which("fusermount3")
    if found is not None:
        return ok(found)
    advice = "Install it (Debian: `apt install fuse3`)."
    return note("missing; root can mount without it", advice) if os.geteuid() == 0 else failed("missing", advice)


def allow_other() -> Finding:
    from fuse import mountpoint

    try:
        lines = mountpoint.FUSE_CONF.read_text().splitlines()
    except OSError:
        lines = []
    if "user_allow_other" in (line.strip() for line in lines):
        return ok(f"user_allow_other is in {mountpoint.FUSE_CONF}")
    return note(
        "only root may mount with --allow-other",
        f"If other users shall see a mount of yours, put the line `user_allow_other` into {mountpoint.FUSE_CONF}.",
    )


def packages() -> Finding:
    """The names of our top-level packages are plain words, which other distributions may have too."""
    owners = importlib.metadata.packages_distributions()
    others = {f"{package} ({name})" for package in PACKAGES for name in owners.get(package, ()) if name != DISTRIBUTION}
    if not others:
        return ok("nobody else has modules of our names")
    return failed(
        f"other distributions have modules of our names: {', '.join(sorted(others))}",
        "Uninstall them, or give Archivia FS a virtual environment of its own (`make setup`).",
    )


def pyfuse() -> Finding:
    import fuse.mount  # noqa: F401 - loads pyfuse3, and with it libfuse3

    return ok(importlib.metadata.version("pyfuse3"))


def libmagic() -> Finding:
    import magic

    found = magic.from_buffer(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01", mime=True)
    if found == "image/jpeg":
        return ok("recognizes a JPEG")
    return failed(
        f"takes a JPEG for {found}", "Reinstall it (Debian: `apt install --reinstall libmagic1 libmagic-mgc`)."
    )


def libraw() -> Finding:
    import rawpy

    found = tuple(rawpy.libraw_version)
    text = ".".join(str(each) for each in found)
    if found >= LIBRAW:
        return ok(text)
    return failed(text, "Update rawpy (`make setup`): older LibRaw can be attacked by a picture.")


def disk(folder: Path) -> Finding:
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return failed(f"{place} is not a folder", "Set ARCHIVIA_HOME or ARCHIVIA_CACHE_DIR to another place.")
    if not os.access(place, os.W_OK | os.X_OK):
        return failed(f"{place} is not writable for you", "Change its owner, or set ARCHIVIA_HOME to another folder.")
    free = shutil.disk_usage(place).free
    detail = f"{size_text(free)} free at {folder}"
    advice = "Make room, or set ARCHIVIA_HOME or ARCHIVIA_CACHE_DIR to another disk."
    if free < DISK_FAILED:
        return failed(detail, advice)
    return note(detail, advice) if free < DISK_NOTED else ok(detail)


def catalog(settings: Settings) -> Finding:
    from catalog.schema import look

    if not settings.catalog_url and not settings.home.exists():
        return ok(f"will be made at the first start: {settings.home}/catalog.db")
    found, head = look(settings.catalog)
    if found is None:
        return ok("empty; its tables will be made at the first start")
    if found == head:
        return ok(f"schema {found}")
    return note(f"schema {found}, this version has {head}", "The next start migrates it; make a backup before.")


def store(settings: Settings) -> Finding:
    from archivia_fs.app import open_store
    from archivia_fs.store.weed import programs

    if settings.embedded_store and not (settings.home / "store").exists():
        return ok(f"embedded; {programs()[0]} will be started with the first gateway")
    with open_store(settings) as (found, config):
        able = found.probe()
    words = {"part copy": able.part_copy, "conditional put": able.conditional_put}
    has = ", ".join([name for name, there in words.items() if there] + [f"checksum {able.checksum}"])
    detail = f"{'embedded' if settings.embedded_store else config.endpoint} answers: {has}"
    lacks = [name for name, there in words.items() if not there]
    if able.checksum == "none":
        lacks.append("checksums")
    if lacks:
        return note(detail, f"Without {' and '.join(lacks)} it works, but moves more bytes to be sure.")
    return ok(detail)


def clock(settings: Settings) -> Finding:
    """By the Date of any HTTP answer (RFC 9110 6.6.1), which has a resolution of one second."""
    if settings.embedded_store:
        return ok("the embedded store has this machine's")
    where = urlsplit(settings.s3_endpoint)
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
    connection = kind(where.hostname or "", where.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("HEAD", "/")
        told = connection.getresponse().getheader("Date")
    except (OSError, http.client.HTTPException) as error:
        return failed(f"the store does not tell its time: {error}", "See what is said of the store.")
    finally:
        connection.close()
    if told is None:
        return note("the store does not tell its time", "Make sure that both have NTP.")
    skew = abs(email.utils.parsedate_to_datetime(told).timestamp() - time.time())
    advice = "Set this machine's clock (`timedatectl set-ntp true`), or the store's."
    if skew > SKEW_FAILED:
        return failed(f"differs from the store's by {skew:.0f} s; S3 refuses more than {SKEW_FAILED:.0f}", advice)
    return (
        note(f"differs from the store's by {skew:.0f} s", advice) if skew > SKEW_NOTED else ok(f"within {skew:.0f} s")
    )


def port(listen: str) -> Finding:
    from archivia_fs.commands.doors import parse_address

    host, number = parse_address(listen)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: TIME_WAIT is no obstacle
            probe.bind(address)
    except OSError as error:
        if _ours(host, number):
            return ok(f"an Archivia FS serves {listen}")
        return failed(
            f"{listen} cannot be had ({error.strerror})", "Choose another with --listen HOST:PORT, or end who has it."
        )
    return ok(f"{listen} is free")


def _ours(host: str, number: int) -> bool:
    connection = http.client.HTTPConnection(host, number, timeout=LOCAL_SECONDS)
    try:
        connection.request("OPTIONS", "/")
        return (connection.getresponse().getheader("Server") or "").startswith("Archivia FS")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def run(check: Check) -> Finding:
    """What it found, or what it broke at."""
    try:
        return check()
    except FsError as error:
        return failed("cannot be used", str(error))
    except ImportError as error:
        return failed(f"cannot be loaded: {error}", "Run `make setup`; it installs Debian's packages and the rest.")
    except Exception as error:  # noqa: BLE001 - a check that breaks is a finding, and the others go on
        return failed(f"the check broke: {type(error).__name__}: {error}", "Report this.")
