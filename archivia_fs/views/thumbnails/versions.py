"""What decodes here, and whether it may.

Owns: the name of the decoders that failures are remembered with, and which rawpy is too old. Used by: maker, commands. Threading:
values; nothing is loaded, so a gateway starts without the decoders.
"""

from __future__ import annotations

import importlib.metadata

GENERATION = 2  # of our own part; counted up when something that failed may work now
RAWPY_MIN = (0, 28)  # the first whose wheels have LibRaw 0.22.2, see worker.LIBRAW_MIN


def decoder_name() -> str:
    """With the versions of the libraries, so that after an upgrade what failed is tried again."""
    return f"{GENERATION} rawpy {_version('rawpy')} pillow {_version('pillow')}"


def no_raw() -> str:
    """Why raw data are not developed; "" if they are. A rawpy that was built here may have another LibRaw than its wheel: the
    worker looks at that itself."""
    version = _version("rawpy")
    numbers = tuple(int(each) for each in version.split(".")[:2] if each.isdigit())
    if numbers >= RAWPY_MIN:
        return ""
    wanted = ".".join(map(str, RAWPY_MIN))
    return f"Raw data are not developed: the LibRaw of rawpy {version} has known holes; install {wanted} or newer."


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
