"""How much memory there is for a file that is handed to a decoder.

Owns: what counts as free. Used by: maker. Threading: pure but for reading /proc and /sys.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/")
UNKNOWN = 2**31  # bytes; the largest file that is ever handed over


def memory_available(root: Path = ROOT) -> int:
    """Bytes that can be used without swapping (MemAvailable of proc_meminfo(5)), and without reaching the limit of our control
    group or of one above it (memory.max of cgroup v2). Cached files there give way."""
    return min(_machine(root), *_groups(root))


def _machine(root: Path) -> int:
    return _fields(root / "proc/meminfo").get("MemAvailable:", UNKNOWN // 1024) * 1024


def _groups(root: Path) -> list[int]:
    free = [UNKNOWN * 1024]
    top = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return free
    for own in (top / line.removeprefix("0::/") for line in lines if line.startswith("0::/")):
        for group in (own, *own.parents):
            if not group.is_relative_to(top):
                break
            try:
                most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
            except (OSError, ValueError):  # "max": no limit here
                continue
            free.append(max(0, most - used + _fields(group / "memory.stat").get("inactive_file", 0)))
    return free


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    try:
        rows = (line.split() for line in path.read_text().splitlines())
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
