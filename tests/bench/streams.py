"""Eight streams at once through our gateway, each twice the big file: two in and two out by each door.

Owns: the memory promise under load. Used by: __main__ with --streams.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.contenders import OursDav
from tests.bench.doors import Place
from tests.bench.processes import BenchError, drop_caches

EACH_WAY = 4


def eight_streams(place: Place, source: Path, tell: Callable[[str], object]) -> str:
    """Store EACH_WAY files, reopen cold, then read them all while EACH_WAY more are written; a line of numbers.

    The sources come out of pipes, so WebDAV uploads are chunked. Raises BenchError when a stream fails.
    """
    gateway = OursDav(place)
    try:
        gateway.start()
        for number in range(EACH_WAY):
            _await([_writer(gateway, source, f"out-{number}.dng", number)], place.seconds)
        gateway.stop()
        drop_caches()
        gateway.start()
        tell("eight streams start")
        idle, cpu, start = gateway.peak_bytes(), gateway.cpu_seconds(), time.perf_counter()
        streams = [_writer(gateway, source, f"in-{number}.dng", number) for number in range(EACH_WAY)]
        streams += [_reader(gateway, f"out-{number}.dng", number) for number in range(EACH_WAY)]
        _await(streams, place.seconds)
        seconds, cpu, peak = time.perf_counter() - start, gateway.cpu_seconds() - cpu, gateway.peak_bytes()
        _check_sizes(gateway, 2 * source.stat().st_size)
    finally:
        gateway.stop()
    moved = 2 * EACH_WAY * 2 * source.stat().st_size
    return (
        f"{moved / 2**30:.1f} GiB in {seconds:.1f} s ({moved / seconds / 1e6:.0f} MB/s in and out together), "
        f"CPU {cpu:.1f} s, peak RSS {peak / 2**20:.0f} MiB (idle {idle / 2**20:.0f} MiB)"
    )


def _writer(gateway: OursDav, source: Path, name: str, number: int) -> subprocess.Popen[bytes]:
    twice = 'cat "$1" "$1" | '
    if number % 2:
        return _shell(twice + 'curl -sS --fail -u "$3" -T - "$2"', source, gateway.url + name, gateway.user)
    return _shell(twice + 'dd of="$2" bs=1M iflag=fullblock conv=fsync status=none', source, gateway.mounted / name)


def _reader(gateway: OursDav, name: str, number: int) -> subprocess.Popen[bytes]:
    if number % 2:
        return _shell('curl -sS --fail -u "$2" -o /dev/null "$1"', gateway.url + name, gateway.user)
    return _shell('dd if="$1" of=/dev/null bs=1M status=none', gateway.mounted / name)


def _shell(script: str, *words: str | Path) -> subprocess.Popen[bytes]:
    command = ["bash", "-o", "pipefail", "-c", script, "bash", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def _await(streams: list[subprocess.Popen[bytes]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    try:
        for each in streams:
            _, errors = each.communicate(timeout=max(0.1, deadline - time.monotonic()))
            if each.returncode:
                raise BenchError(f"a stream failed: {errors.decode(errors='replace')[-300:]}")
    except subprocess.TimeoutExpired:
        raise BenchError(f"the streams took longer than {seconds:.0f} s") from None
    finally:
        for each in streams:
            if each.poll() is None:
                os.killpg(each.pid, 9)
                each.wait()


def _check_sizes(gateway: OursDav, size: int) -> None:
    for number in range(EACH_WAY):
        for name in (f"in-{number}.dng", f"out-{number}.dng"):
            if (found := (gateway.mounted / name).stat().st_size) != size:
                raise BenchError(f"{name} has {found} bytes instead of {size}")
