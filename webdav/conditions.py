"""May this request go on? RFC 9110 section 13 (If-Match and its kin, If-Range), RFC 4918 section 10.4 (If), and Range.

Owns: parsing and truth of these headers. wsgidav's own takes weak tags for strong ones, skips `If` lists with absolute URLs, and
answers the last of several ranges. Used by: methods, transfer. Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from webdav.convert import fail, lock_path, parse_http_date, url_path

_TAG = re.compile(r'\s*(?:(W/)?"([^"]*)"|(\*)|([^",\s]+))\s*(?:,|$)')
_IF = re.compile(r'\s*(?:<([^>]*)>|(\()|(\))|\[\s*((?:W/)?"[^"]*"|[^\]]*)\s*\]|(Not)\b)', re.IGNORECASE)
_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Span:
    """A byte range of a representation: `size` bytes from `start`."""

    start: int
    size: int


@dataclass(frozen=True, slots=True)
class State:
    """What `If` conditions are tested against: the strong tag without quotes (None: nothing there) and the lock tokens."""

    etag: str | None
    tokens: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Condition:
    negated: bool
    is_etag: bool
    value: str


@dataclass(frozen=True, slots=True)
class IfHeader:
    """A parsed `If`: for each list the path it is about (None: the request's own) and its conditions."""

    lists: Sequence[tuple[str | None, Sequence[_Condition]]] = ()

    @property
    def tokens(self) -> list[str]:
        """Every lock token the client shows (RFC 4918 10.4.1), true conditions or not."""
        return [test.value for _, tests in self.lists for test in tests if not test.is_etag]

    def holds(self, state_of: Callable[[str | None], State]) -> bool:
        """True if all conditions of at least one list are (RFC 4918 10.4.3), or there is no header."""
        return not self.lists or any(all(_true(test, state_of(path)) for test in tests) for path, tests in self.lists)


def _true(test: _Condition, state: State) -> bool:
    found = test.value == state.etag if test.is_etag else test.value in state.tokens
    return found != test.negated


def parse_if(text: str | None) -> IfHeader:
    """Parse `If`. Raises DAVError 400, also for an empty list."""
    if text is None:
        return IfHeader()
    lists: list[tuple[str | None, Sequence[_Condition]]] = []
    path: str | None = None
    tests: list[_Condition] | None = None
    negated = False
    position = 0
    text = text.strip()
    while position < len(text):
        match = _IF.match(text, position)
        if match is None:
            fail(HTTPStatus.BAD_REQUEST, f"The If header cannot be read from {text[position : position + 40]!r}.")
        position = match.end()
        reference, opening, closing, tag, negation = match.groups()
        if opening and tests is None:
            tests = []
        elif closing and tests:
            lists.append((path, tests))
            tests = None
        elif reference is not None and tests is None:
            path = lock_path(url_path(urlsplit(reference).path))
        elif negation and tests is not None:
            negated = True
        elif reference is not None and tests is not None:
            tests.append(_Condition(negated, False, reference))
            negated = False
        elif tag is not None and tests is not None:
            # a weak tag never equals a strong one (RFC 9110 8.8.3.2); the prefix keeps them apart
            tests.append(_Condition(negated, True, tag[1:-1] if tag.startswith('"') else tag))
            negated = False
        else:
            fail(HTTPStatus.BAD_REQUEST, "The If header is malformed.")
    if tests is not None or not lists:
        fail(HTTPStatus.BAD_REQUEST, "The If header has an unfinished list.")
    return IfHeader(lists)


def check_http(environ: Mapping[str, Any], etag: str | None, mtime_ns: int | None) -> None:
    """If-Match, If-Unmodified-Since, If-None-Match, If-Modified-Since in the order of RFC 9110 13.2.2.

    `etag` None: the resource does not exist. Raises DAVError 412, or 304 for GET and HEAD.
    """
    mtime_s = None if mtime_ns is None else mtime_ns // 10**9
    exists = etag is not None or mtime_ns is not None
    if (text := environ.get("HTTP_IF_MATCH")) is not None:
        if not (exists and any(any_tag or (not weak and tag == etag) for weak, tag, any_tag in _tags(text))):
            fail(HTTPStatus.PRECONDITION_FAILED, "If-Match: the resource is not the one you know.")
    elif (date := parse_http_date(environ.get("HTTP_IF_UNMODIFIED_SINCE", ""))) is not None and (
        mtime_s is None or mtime_s > date
    ):
        fail(HTTPStatus.PRECONDITION_FAILED, "If-Unmodified-Since: the resource has changed.")
    safe = environ["REQUEST_METHOD"] in ("GET", "HEAD")
    headers = [("ETag", f'"{etag}"')] if etag is not None else []
    if (text := environ.get("HTTP_IF_NONE_MATCH")) is not None:
        if exists and any(any_tag or tag == etag for _, tag, any_tag in _tags(text)):
            status = HTTPStatus.NOT_MODIFIED if safe else HTTPStatus.PRECONDITION_FAILED
            fail(status, "If-None-Match: the resource is there.", headers=headers)
    elif (
        safe
        and mtime_s is not None
        and (date := parse_http_date(environ.get("HTTP_IF_MODIFIED_SINCE", ""))) is not None
        and mtime_s <= date
    ):
        fail(HTTPStatus.NOT_MODIFIED, "Not modified.", headers=headers)


def expected_etags(environ: Mapping[str, Any]) -> Set[str] | None:
    """What If-Match names; None without it, or if it says that anything will do."""
    tags = _tags(environ.get("HTTP_IF_MATCH", ""))
    if not tags or any(any_tag for _, _, any_tag in tags):
        return None
    return {tag for weak, tag, _ in tags if not weak}


def _tags(text: str) -> list[tuple[bool, str, bool]]:
    """(weak, tag, is it "*") of an entity-tag list; bare words count as tags, since some clients forget the quotes."""
    return [(bool(m[1]), m[2] if m[2] is not None else (m[4] or ""), bool(m[3])) for m in _TAG.finditer(text)]


def requested_span(environ: Mapping[str, Any], size: int, etag: str, mtime_ns: int) -> Span | None:
    """The one range to answer with 206, or None for the whole representation.

    Whole: no Range, another unit, If-Range that does not hold, something malformed, or several ranges (RFC 9110 14.2 lets a
    server ignore Range; no client of a drive asks for several). Raises DAVError 416.
    """
    match = _RANGE.fullmatch(environ.get("HTTP_RANGE", ""))
    if match is None or not (match[1] or match[2]) or not _if_range(environ.get("HTTP_IF_RANGE"), etag, mtime_ns):
        return None
    if match[1]:
        start = int(match[1])
        end = int(match[2]) + 1 if match[2] else size
        if match[2] and end <= start:
            return None  # last before first: not a range at all
    else:
        start, end = max(0, size - int(match[2])), size
    span = Span(start, min(end, size) - start)
    if span.size <= 0:
        message = f"The range begins behind the end: the file has {size} bytes."
        fail(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, message, headers=[("Content-Range", f"bytes */{size}")])
    return span


def _if_range(text: str | None, etag: str, mtime_ns: int) -> bool:
    """RFC 9110 13.1.5: strong comparison of a tag, exact comparison of a date."""
    if text is None:
        return True
    text = text.strip()
    if text.startswith(('"', "W/")):
        return text == f'"{etag}"'
    return parse_http_date(text) == mtime_ns // 10**9
