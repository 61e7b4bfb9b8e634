"""A folder as a web page, for people with nothing but a browser.

Owns: its HTML. No scripts, nothing from elsewhere; links are whole paths. Used by: transfer. Threading: pure functions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from html import escape

from webdav.convert import Headers, href, iso_date
from webdav.resources import Folder, Node

HEADERS: Headers = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
    ("Cache-Control", "no-cache"),
]
BATCH = 500  # rows, about 150 KB: a folder of a million files is never one string
TOP = "Archivia FS"

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.2rem; font-weight: 500; overflow-wrap: anywhere }
table { width: 100%; border-collapse: collapse }
th { font-weight: 500; text-align: left; opacity: .65 }
td, th { padding: .25rem .5rem; border-bottom: 1px solid #8883; vertical-align: top }
td:first-child { overflow-wrap: anywhere }
td + td, th + th { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
tr:hover td { background: #8881 }
a { color: LinkText; text-decoration: none } a:hover { text-decoration: underline }
"""


def page(folder: Folder, members: Iterator[Node]) -> Iterator[bytes]:
    """The page in pieces. `members` are the shown ones."""
    title = escape(folder.name or TOP)
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><h1>{_way(folder.path)}</h1>\n"
        "<table><thead><tr><th>Name</th><th>Size</th><th>Modified (UTC)</th></tr></thead><tbody>\n"
    ).encode()
    rows: list[str] = []
    empty = True
    for member in members:
        empty = False
        rows.append(_row(member))
        if len(rows) == BATCH:
            yield "".join(rows).encode()
            rows = []
    if empty:
        rows = ["<tr><td>This folder is empty.</td><td></td><td></td></tr>\n"]
    yield ("".join(rows) + "</tbody></table></body></html>\n").encode()


def _way(path: str) -> str:
    """The folders from the root to this one, as links but for the last."""
    names = [TOP, *(name for name in path.split("/") if name)]
    paths = ["/" + "".join(f"{name}/" for name in names[1 : count + 1]) for count in range(len(names))]
    links = [f'<a href="{escape(href(to))}">{escape(name)}</a>' for name, to in zip(names[:-1], paths, strict=False)]
    return " / ".join([*links, escape(names[-1])])


def _row(node: Node) -> str:
    name, size, exact = node.name + "/", "", ""
    if not node.stat.is_dir:
        name, size, exact = node.name, readable(node.stat.size), f' title="{node.stat.size:,} bytes"'
    modified = time.strftime("%Y-%m-%d %H:%M", time.gmtime(node.stat.mtime_ns // 10**9))
    return (
        f'<tr><td><a href="{escape(node.get_href())}">{escape(name)}</a></td><td{exact}>{size}</td>'
        f'<td><time datetime="{iso_date(node.stat.mtime_ns)}">{modified}</time></td></tr>\n'
    )


def readable(size: int) -> str:
    """Bytes as Finder and GNOME show them, in powers of 1,000."""
    if size < 1000:
        return f"{size} B"
    value, units = size / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.95:  # would be shown as 1000.0
        value /= 1000
        units.pop(0)
    return f"{value:.1f} {units[0]}"
