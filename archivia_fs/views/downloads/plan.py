"""A document laid out for download: its METS and CSV, and where every byte of its ZIP and of its bag is.

Owns: what the ZIP and the bag consist of. Used by: plans, view. Threading: pure; a Plan is immutable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from archivia_fs.types import RevisionId
from archivia_fs.views.downloads import bag
from archivia_fs.views.downloads.content import Source
from archivia_fs.views.downloads.document import Document
from archivia_fs.views.downloads.layout import Layout, Member
from archivia_fs.views.downloads.mets import mets
from archivia_fs.views.downloads.table import table
from archivia_fs.views.downloads.text import Text

FILE_MODE = 0o100644  # of what is computed
COMPUTED = 2  # METS and CSV: the first members of every ZIP
OVERHEAD = 6_000  # bytes that a plan takes whatever is in it, by sys.getsizeof
TAGS = 4  # the first members of every bag, before those of the ZIP


@dataclass(frozen=True, slots=True)
class Archive:
    """A layout, and where the bytes of its members are."""

    layout: Layout
    sources: Sequence[Source]


@dataclass(frozen=True, slots=True)
class Plan:
    """A document laid out. `unhashed`: members of the ZIP whose SHA-256 is pending, with their lines in the bag's manifest."""

    mets: Text
    table: Text
    zip: Archive
    bag: Archive
    unhashed: Mapping[int, int]

    @property
    def memory(self) -> int:
        """About how many bytes this takes."""
        texts = sum(each.memory for each in (self.mets, self.table, *self.bag.sources[:TAGS]) if isinstance(each, Text))
        return OVERHEAD + texts + self.zip.layout.memory + self.bag.layout.memory + 128 * len(self.zip.sources)


def lay_out(document: Document) -> Plan:
    """The ZIP and the bag of a document; pure."""
    described, listed = mets(document), table(document)
    sources: list[Source] = [described, listed, *(item.revision for item in document.items)]
    layout = Layout(_members(document, described, listed))
    plan_bag, unhashed = _bag(document, described, listed, layout.etag, sources)
    return Plan(described, listed, Archive(layout, sources), plan_bag, unhashed)


def complete(plan: Plan, digests: Callable[[RevisionId], tuple[str, int]], *, hashes: bool) -> Plan:
    """`plan` with all CRC-32s, and with `hashes` all SHA-256s too; itself if it has them. `digests` gives both of a revision."""
    missing = plan.zip.layout.unknown | (plan.unhashed.keys() if hashes else set())
    if not missing:
        return plan
    found: dict[int, tuple[str, int]] = {}
    for member in sorted(missing):
        source = plan.zip.sources[member]
        assert isinstance(source, str)
        found[member] = digests(source)
    crcs = {member: crc for member, (_, crc) in found.items()}
    zip_layout = plan.zip.layout.with_checksums(crcs)
    bag_crcs = {TAGS + member: crc for member, crc in crcs.items()}
    sources = list(plan.bag.sources)
    tags = [source.data() for source in sources[:TAGS] if isinstance(source, Text)]
    lines = tags[bag.MANIFEST].split(b"\n")
    for member, line in plan.unhashed.items():
        if member in found:
            lines[line] = found[member][0].encode() + lines[line][len(bag.PENDING) :]
    tags[bag.MANIFEST] = b"\n".join(lines)
    tags = bag.tagged(tags[:-1])
    for index, data in enumerate(tags):
        sources[index] = computed = Text.of(data)
        bag_crcs[index] = computed.crc32
    return replace(
        plan,
        zip=Archive(zip_layout, plan.zip.sources),
        bag=Archive(plan.bag.layout.with_checksums(bag_crcs), sources),
        unhashed={member: line for member, line in plan.unhashed.items() if member not in found},
    )


def _members(document: Document, described: Text, listed: Text, folder: str = "") -> Iterator[Member]:
    yield _computed(folder + document.mets_name, described, document)
    yield _computed(folder + document.table_name, listed, document)
    for item in document.items:
        yield Member(folder + item.path, item.size, item.mtime_ns, item.mode, item.crc32, item.revision or "")


def _bag(
    document: Document, described: Text, listed: Text, etag: str, sources: Sequence[Source]
) -> tuple[Archive, Mapping[int, int]]:
    """The same members under `data/`. Its manifest follows from the ZIP, so the ZIP's `etag` names it before it is known."""
    files = [(COMPUTED + index, item) for index, item in enumerate(document.items) if not item.is_folder]
    lines = [(document.mets_name, described.sha256), (document.table_name, listed.sha256)]
    lines += [(item.path, item.sha256 or bag.PENDING) for _, item in files]
    sizes = [described.size, listed.size, *(item.size for _, item in files)]
    payload = bag.manifest((f"data/{path}", digest) for path, digest in lines)
    tags = [Text.of(tag) for tag in bag.tagged([*bag.about(document, sizes), payload])]
    top = [
        replace(
            _computed(f"{document.stem}/{name}", tag, document),
            identity=f"{tag.sha256 if index < bag.MANIFEST else name} of {etag}",
        )
        for index, (name, tag) in enumerate(zip(bag.NAMES, tags, strict=True))
    ]
    layout = Layout(chain(top, _members(document, described, listed, f"{document.stem}/data/")))
    unhashed = {index: line for line, (index, item) in enumerate(files, COMPUTED) if item.sha256 is None}
    return Archive(layout, [*tags, *sources]), unhashed


def _computed(path: str, text: Text, document: Document) -> Member:
    return Member(path, text.size, document.changed_ns, FILE_MODE, text.crc32, text.sha256)
