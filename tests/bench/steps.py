"""Rows that do not go contender by contender, because each of their lines has others beside it.

Owns: Step and View, the base of documents and previews. Used by: __main__. Threading: the main thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.bench.doors import Door, Place, Unavailable
from tests.bench.measures import Measure, Row
from tests.bench.processes import BenchError


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of work; it starts what it needs cold, and stops it. If it fails, `row` says so."""

    contender: str
    door: Door
    row: str
    act: Callable[[], list[Measure]]

    @property
    def name(self) -> str:
        """As --only knows it."""
        return f"{self.contender}-{self.door.lower()}"

    def take(self) -> list[Measure]:
        """What it measured, or why not."""
        try:
            return self.act()
        except Unavailable as error:
            return [Measure(self.row, note=str(error))]
        except BenchError as error:
            return [Measure(self.row, note=str(error), failed=True)]


class View(ABC):
    """Rows about one tree of computed files. `own`: where our archive is, `plain`: a bucket for plain objects; both last for all
    rounds. `size`: of the largest data, in bytes."""

    name: ClassVar[str]

    def __init__(self, work: Path, own: Place, plain: Place, size: int) -> None:
        self.work = work
        self.own = own
        self.plain = plain
        self.size = size

    @classmethod
    @abstractmethod
    def rows(cls, size: int) -> list[Row]:
        """In order, with titles."""

    @classmethod
    def versions(cls) -> list[str]:
        """Of who is beside it and not a contender."""
        return []

    @abstractmethod
    def prepare(self) -> list[Step]:
        """Fill the archive and the bucket; untimed, so without measures."""

    @abstractmethod
    def steps(self, number: int) -> list[Step]:
        """Those of one round."""

    def rounds(self, count: int) -> Iterator[list[Step]]:
        """All steps of each round."""
        for number in range(count):
            yield [*(self.prepare() if number == 0 else []), *self.steps(number)]
