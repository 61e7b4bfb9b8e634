"""SEMANTICS.md and the tests hold each other: every promise is quoted by a test, every quote is a promise."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROMISES = ROOT / "archivia_fs" / "vfs" / "SEMANTICS.md"
_QUOTE = re.compile(r"\[([A-Z]\d+)\] (.*?)(?= \[[A-Z]\d+\] |$)")


def promises() -> dict[str, str]:
    """Name to sentence, on one line."""
    items = re.split(r"^- ", PROMISES.read_text(), flags=re.MULTILINE)[1:]
    lines = [" ".join(re.split(r"\n\s*\n", item)[0].split()) for item in items]
    return {line[1 : line.index("]")]: line[line.index("]") + 2 :] for line in lines}


def quotes() -> Iterator[tuple[str, str, str]]:
    """(name, sentence, test) of every quote in a test's docstring. A quote ends its docstring, or another follows."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                text = " ".join((ast.get_docstring(node) or "").split())
                for name, sentence in _QUOTE.findall(text):
                    yield name, sentence, f"{path.relative_to(ROOT)}::{node.name}"


def test_every_promise_is_quoted_by_a_test() -> None:
    proven = {name for name, _, _ in quotes()}
    assert sorted(set(promises()) - proven) == []


def test_every_quote_is_the_promise() -> None:
    known = promises()
    for name, sentence, test in quotes():
        assert known.get(name) == sentence, f"{test} quotes [{name}] otherwise than SEMANTICS.md"


def test_the_promises_have_names_of_their_own() -> None:
    named = re.findall(r"^- \[([A-Z]\d+)\]", PROMISES.read_text(), flags=re.MULTILINE)
    assert len(named) == len(set(named)) > 40
