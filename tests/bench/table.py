"""Results as tables for a person and as JSON for a script.

Owns: medians and ratios. Used by: __main__. No threads.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.bench.doors import Contender, Door
from tests.bench.measures import Measure, Row

# Of a ZIP beside its files; what is worse stands out.
SPEED_WANTED = 0.9
MEMORY_WANTED = 32 << 20  # bytes
_DOORS: Sequence[Door] = ("WebDAV", "FUSE", "S3", "local")


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one contender in one round."""

    contender: str
    door: Door
    round: int
    measure: Measure


@dataclass(slots=True)
class Results:
    """Everything measured so far."""

    samples: list[Sample]

    def of(self, contender: str, door: Door, row: str) -> list[Measure]:
        return [
            each.measure
            for each in self.samples
            if (each.contender, each.door, each.measure.row) == (contender, door, row)
        ]

    def median(self, contender: str, door: Door, row: str) -> float | None:
        """Median of seconds (of bytes for memory) over the rounds that worked."""
        values = [found.peak or found.seconds for found in self.of(contender, door, row) if found.peak or found.seconds]
        return statistics.median(values) if values else None

    def as_json(self, header: str) -> dict[str, object]:
        medians = {
            f"{name}/{door}/{row}": self.median(name, door, row)
            for name, door, row in dict.fromkeys((s.contender, s.door, s.measure.row) for s in self.samples)
        }
        samples = [
            {"contender": s.contender, "door": s.door, "round": s.round, **asdict(s.measure)} for s in self.samples
        ]
        return {"run": header, "medians": medians, "samples": samples}


def machine() -> str:
    """Processor, cores, memory, kernel, date, and how busy it was before we began: above 0.5 the times are not worth much."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?"
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {system}, {date}, load {os.getloadavg()[0]:.1f} before"


def show(
    console: Console,
    results: Results,
    contenders: Sequence[type[Contender]],
    rows: Sequence[Row],
    absent: Mapping[type[Contender], str],
) -> None:
    """One table per door, with plain S3 as its last column, then what to know about each contender."""
    for door in ("FUSE", "WebDAV"):
        columns = [each for each in contenders if each.door in (door, "S3")]
        if all(each.door == "S3" for each in columns):
            continue
        table = Table(
            title=f"{door}: median, rate; ratio of time to ours; to direct S3; CPU of the gateway", show_lines=True
        )
        table.add_column("")
        for each in columns:
            table.add_column(f"{each.name}", justify="right")
        for row in rows:
            cells = [_cell(results, each, door, row) for each in columns]
            if any(cells):
                table.add_row(row.title, *cells)
        console.print(table)
    for each in contenders:
        known = absent.get(each) or f"a finished write is {each.close}"
        console.print(f"{each.name} ({each.door}): {known}", highlight=False)


def show_views(console: Console, results: Results, rows: Sequence[Row]) -> None:
    """What stands beside the archive: one line per row and whoever has one."""
    table = Table(title="Downloads and previews")
    for name in ("what", "who", "median", "rate", "to ours", "note"):
        table.add_column(name, justify="left" if name in ("what", "who", "note") else "right")
    for row in rows:
        found = {(s.contender, s.door) for s in results.samples if s.measure.row == row.name}
        title = row.title
        for name, door in sorted(found, key=lambda each: (_DOORS.index(each[1]), each[0] != "ours", each[0])):
            table.add_row(title, f"{name}, {door}", *_view_cells(results, name, door, row))
            title = ""
        if found:
            table.add_section()
    if table.row_count:
        console.print(table)


def _view_cells(results: Results, contender: str, door: Door, row: Row) -> tuple[str, str, str, str]:
    measures = results.of(contender, door, row.name)
    value = results.median(contender, door, row.name)
    notes = ", ".join(_notes(results, contender, door, row.name))
    if value is None:
        return "", "", "", notes
    moved = max(each.moved for each in measures)
    ours = results.median("ours", door, row.name) or results.median("ours", "WebDAV", row.name)
    return (
        f"[bold]{value * 1000:.3g} ms[/]" if value < 1 else f"[bold]{value:.3g} s[/]",
        f"{moved / value / 1e6:.0f} MB/s" if moved else "",
        f"{value / ours:.2f}x" if ours and contender != "ours" else "",
        notes,
    )


def _notes(results: Results, contender: str, door: Door, row: str) -> Iterator[str]:
    measures = results.of(contender, door, row)
    yield from dict.fromkeys(escape(each.note[:120]) for each in measures if each.note)
    plain, value = results.median(contender, door, f"{row}-plain"), results.median(contender, door, row)
    if plain and value:
        yield _wanted(f"{plain / value:.2f} of the plain speed", row != "zip" or plain / value >= SPEED_WANTED)
    added = [each.added for each in measures if each.added is not None]
    if added:
        yield _wanted(f"{max(added) / 2**20:+.0f} MiB of memory", max(added) <= MEMORY_WANTED)
    requests = [each.requests for each in measures if each.requests is not None]
    if requests:
        yield f"{statistics.median(requests):.2g} S3 requests"
    read = [each.read for each in measures if each.read is not None]
    if read:
        yield f"{statistics.median(read) / 1024:.1f} KiB more from S3"
    cpu = [each.cpu for each in measures if each.cpu]
    if cpu:
        yield f"CPU {statistics.median(cpu):.2f} s"


def _wanted(text: str, is_met: bool) -> str:
    return text if is_met else f"[bold red]{text}[/]"


def _cell(results: Results, contender: type[Contender], door: Door, row: Row) -> str:
    return "\n".join(_cell_lines(results, contender, door, row))


def _cell_lines(results: Results, contender: type[Contender], door: Door, row: Row) -> Iterator[str]:
    measures = results.of(contender.name, contender.door, row.name)
    value = results.median(contender.name, contender.door, row.name)
    yield from dict.fromkeys(each.note[:120] for each in measures if each.note)
    if value is None:
        return
    if row.name == "memory":
        yield f"{value / 2**20:.0f} MiB"
    else:
        moved = max(each.moved for each in measures)
        yield f"[bold]{value:.3g} s[/]" + (f"  {moved / value / 1e6:.0f} MB/s" if moved else "")
    ratios = []
    ours = results.median("ours", door, row.name)
    if ours and contender.name != "ours":
        ratios.append(f"{value / ours:.2f}x ours")
    limit = results.median("direct", "S3", row.name) if row.limited else None
    if limit and contender.door != "S3":
        ratios.append(f"{value / limit:.2f}x direct")
    if ratios:
        yield ", ".join(ratios)
    cpu = [each.cpu for each in measures if each.cpu]
    if cpu:
        yield f"[dim]CPU {statistics.median(cpu):.2f} s[/]"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
