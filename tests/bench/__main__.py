"""`python -m tests.bench [--size 1GiB] [--only NAME,…] [--rows NAME,…] [--all] [--rounds N] [--quick] [--streams] [--json FILE]`.

Owns: one run. Names: ours, rclone, juicefs, s3fs, direct, each optionally with -fuse or -webdav; beside ZIPs and previews also
zipfile, exiftool, rawpy. Rows of these: zip, previews.
Exit code 1 when a row of ours failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tests.bench.contenders import CONTENDERS
from tests.bench.documents import Documents
from tests.bench.doors import Contender, Place, Unavailable, s3_client
from tests.bench.measures import LONG, MANY, SMALL_BYTES, Measure, Workload
from tests.bench.previews import Pictures
from tests.bench.processes import BenchError, drop_caches
from tests.bench.rows import measure, rows
from tests.bench.steps import View
from tests.bench.streams import eight_streams
from tests.bench.table import Results, Sample, machine, show, show_views
from tests.s3_servers import S3Server, seaweedfs

VIEWS: tuple[type[View], ...] = (Documents, Pictures)
_CHUNK = 4 << 20
_MIN_RATE = 4 << 20  # bytes per second; slower than this on loopback is hanging
_MIN_FILES = 100  # and this, files per second
console = Console(width=None if sys.stdout.isatty() else 160)


def main() -> int:
    """One run; the exit code."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that mounts and servers end
    chosen = [each for each in CONTENDERS if _is_chosen(each, arguments.only)]
    versions, absent = _versions(chosen)
    present = [each for each in chosen if each not in absent]
    results = Results([])
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="archivia-bench-", dir=arguments.dir)))
        files = arguments.files
        workload = Workload(work / "big.dng", work / "small", arguments.size, copied_files=files, tree_files=10 * files)
        every = frozenset({*(row.name for row in rows(workload)), *(each.name for each in VIEWS)})
        wanted = arguments.rows or (every if arguments.all else every - LONG)
        views = [each for each in VIEWS if each.name in wanted]
        versions += [version for view in views for version in view.versions()]
        server = stack.enter_context(seaweedfs(work / "s3"))
        header = f"{machine()}; {', '.join(versions)}; {arguments.rounds} round(s); data in {work.parent}"
        if not drop_caches():
            header += "; NOT ROOT: the kernel's caches stay warm"
        console.print(header, highlight=False)
        if not wanted.isdisjoint(row.name for row in rows(workload)):
            _make(workload)
            for number in range(arguments.rounds):
                # each round begins with another one, so that no one always follows the same neighbour
                first = number % max(1, len(present))
                for kind in present[first:] + present[:first]:
                    results.samples += _turn(kind, number, work, server, workload, wanted)
            show(console, results, chosen, rows(workload), absent)
        for view in views:
            results.samples += _view(view, work, server, arguments)
        show_views(console, results, [row for view in views for row in view.rows(arguments.size)])
        if arguments.streams:
            _make(workload)
            with _place(work, server, 8 * 2 * workload.size) as place:
                console.print(
                    f"ours, eight streams: {eight_streams(place, workload.big, console.print)}", highlight=False
                )
        if arguments.json:
            arguments.json.write_text(json.dumps(results.as_json(header), indent=1))
    return 1 if any(each.contender == "ours" and each.measure.failed for each in results.samples) else 0


def _turn(
    kind: type[Contender], number: int, work: Path, server: S3Server, workload: Workload, wanted: frozenset[str]
) -> list[Sample]:
    """One contender, from an empty bucket to a deleted one."""
    samples = []
    many = 0 if wanted.isdisjoint(MANY) else workload.tree_files
    with _place(work, server, workload.size, many) as place:
        contender = kind(place)
        try:
            for found in measure(contender, workload, wanted):
                samples.append(Sample(kind.name, kind.door, number, found))
                value = found.note or (f"{found.peak / 2**20:.0f} MiB" if found.peak else f"{found.seconds:.3f} s")
                console.print(f"  {kind.name:8} {kind.door:7} {found.row:13} {value}", highlight=False)
        except BenchError as error:  # it does not even start
            samples.append(Sample(kind.name, kind.door, number, Measure("write", note=str(error), failed=True)))
            console.print(f"  {kind.name:8} {kind.door:7} {error}", highlight=False)
        finally:
            contender.stop()
    return samples


def _view(kind: type[View], work: Path, server: S3Server, arguments: argparse.Namespace) -> list[Sample]:
    """All rounds of what one view shows: our archive and a bucket of plain objects are filled once."""
    samples: list[Sample] = []
    with _place(work, server, arguments.size) as own, _place(work, server, arguments.size) as plain:
        view = kind(work, own, plain, arguments.size)
        for number, steps in enumerate(view.rounds(arguments.rounds)):
            for step in steps:
                if arguments.only and step.contender not in arguments.only and step.name not in arguments.only:
                    continue
                for found in step.take():
                    samples.append(Sample(step.contender, step.door, number, found))
                    text = found.note or f"{found.seconds:.4f} s"
                    line = f"  {step.contender:8} {step.door:7} {found.row:14} {text}"
                    console.print(line, highlight=False, markup=False)
    return samples


@contextlib.contextmanager
def _place(work: Path, server: S3Server, size: int, files: int = 0) -> Iterator[Place]:
    """A new bucket and an empty directory; deleting the bucket also frees SeaweedFS's volumes at once."""
    directory = Path(tempfile.mkdtemp(prefix="turn-", dir=work))
    own = replace(server, bucket=f"turn-{secrets.token_hex(6)}")
    with contextlib.closing(s3_client(server)) as client:
        client.create_bucket(Bucket=own.bucket)
        client.put_object(Bucket=own.bucket, Key="ready", Body=b"?")  # the first write grows the volumes
        client.delete_object(Bucket=own.bucket, Key="ready")
        try:
            yield Place(own, directory, seconds=60 + size / _MIN_RATE + files / _MIN_FILES)
        finally:
            client.delete_bucket(Bucket=own.bucket)
            shutil.rmtree(directory, ignore_errors=True)


def _make(workload: Workload) -> None:
    if workload.small.exists():
        return
    with workload.big.open("wb") as file:
        for start in range(0, workload.size, _CHUNK):
            file.write(os.urandom(min(_CHUNK, workload.size - start)))
    workload.small.mkdir()
    for number in range(workload.small_files):
        (workload.small / f"page-{number:03}.dng").write_bytes(os.urandom(SMALL_BYTES))


def _versions(chosen: Sequence[type[Contender]]) -> tuple[list[str], dict[type[Contender], str]]:
    versions: dict[str, None] = {}
    absent: dict[type[Contender], str] = {}
    for each in chosen:
        try:
            versions[each.version()] = None
        except Unavailable as error:
            absent[each] = str(error)
    return list(versions), absent


def _is_chosen(kind: type[Contender], only: Sequence[str]) -> bool:
    return not only or kind.name in only or f"{kind.name}-{kind.door.lower()}" in only


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--size", type=_size, default=1 << 30, help="of the big file, such as 256MiB (default: 1GiB)")
    parser.add_argument(
        "--only", type=_names, default=[], help="contenders: ours, rclone-webdav, juicefs-fuse, direct, …"
    )
    parser.add_argument(
        "--rows", type=lambda text: frozenset(_names(text)), default=frozenset(), help="such as write,read"
    )
    parser.add_argument("--all", action="store_true", help="also the rows that take minutes each")
    parser.add_argument(
        "--files",
        type=int,
        default=10_000,
        help="of the rows that copy many (default: 10000; a tree has ten times as many)",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_const", const=1, dest="rounds", help="one round")
    parser.add_argument(
        "--streams", action="store_true", help="also eight streams at once through ours, with its memory"
    )
    parser.add_argument(
        "--dir", type=Path, help="where data and the S3 server live (default: the system's temporary directory)"
    )
    parser.add_argument("--json", type=Path, help="also write every sample there")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)\s*([KMG]i?)?B?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 1GiB")
    return int(found[1]) << {None: 0, "K": 10, "M": 20, "G": 30}[(found[2] or "")[:1] or None]


if __name__ == "__main__":
    sys.exit(main())
