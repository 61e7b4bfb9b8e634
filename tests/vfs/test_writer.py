"""Random writes, truncates and reads of one open file against a bytearray, through every regime of the writer.

The parts are tiny (1 MiB, then 3 MiB composed of 2 MiB ones), so that files of a few MiB take the paths that a 200 GiB one takes.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from pathlib import Path

import pytest

from archivia_fs.store.memory import MemoryStore
from archivia_fs.types import Beginning, ObjectKey, Part, Revision, UploadId, UploadRecord
from archivia_fs.vfs.reader import RevisionContent
from archivia_fs.vfs.transfers import Transfers
from archivia_fs.vfs.upload_plan import UploadPlan
from archivia_fs.vfs.writer import Writer

MIB = 1024**2
SMALL_PLAN = UploadPlan(
    schedule=((3, MIB), (10_000, 3 * MIB)), buffered_max=2 * MIB, part_min=MIB // 2, copy_max=2 * MIB
)


class ListJournal:
    """The journal as a dict: which uploads are open."""

    def __init__(self) -> None:
        self.open: dict[UploadId, list[Part]] = {}

    def begin_upload(self, upload_id: UploadId, key: ObjectKey, target: str) -> None:
        self.open[upload_id] = []

    def record_part(self, upload_id: UploadId, part: Part) -> None:
        self.open[upload_id].append(part)

    def drop_upload(self, upload_id: UploadId) -> bool:
        return self.open.pop(upload_id, None) is not None

    def claim_upload(self, beginning: Beginning, target: str) -> UploadRecord | None:
        return None

    def release_upload(self, upload_id: UploadId) -> None:
        raise AssertionError("nothing fails here")


class OpenFileModel:
    """One Writer beside a bytearray."""

    def __init__(self, transfers: Transfers, base: Revision | None, content: bytearray, chance: random.Random) -> None:
        self.writer = Writer(transfers, base, "a test")
        self.model = content
        self.chance = chance

    def write(self) -> None:
        in_order = self.chance.random() < 0.6
        offset = len(self.model) if in_order else self.chance.randrange(len(self.model) + 2 * MIB)
        data = self.chance.randbytes(self.chance.randrange(1, 700_000))
        if not (in_order and self.writer.pwrite_nowait(offset, data)):
            self.writer.pwrite(offset, data)
        self.model.extend(bytes(max(0, offset - len(self.model))))
        self.model[offset : offset + len(data)] = data

    def truncate(self) -> None:
        size = 0 if self.chance.random() < 0.2 else self.chance.randrange(len(self.model) + 100_000)
        self.writer.truncate(size)
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def read(self) -> None:
        offset = self.chance.randrange(len(self.model) + 1)
        size = self.chance.randrange(400_000)
        assert bytes(self.writer.pread(offset, size)) == self.model[offset : offset + size]


@pytest.mark.parametrize("seed", range(40))
def test_what_is_read_and_committed_is_what_was_written(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    store, journal = MemoryStore(part_size_min=1), ListJournal()
    store.probe()
    transfers = Transfers(store, journal, memory=64 * MIB, spill_dir=tmp_path, spill_limit=1024 * MIB, plan=SMALL_PLAN)
    try:
        base, content = None, bytearray()
        for _ in range(3):
            file = OpenFileModel(transfers, base, content, chance)
            for _ in range(chance.randrange(12)):
                chance.choices([file.write, file.truncate, file.read], [85, 8, 7])[0]()
                assert file.writer.size == len(content)
            draft = file.writer.finish()
            file.writer.committed()
            if draft.upload_id is not None:
                journal.drop_upload(draft.upload_id)  # the catalog's commit does
            base = draft.revision
            assert base.size == len(content)
            reader = RevisionContent(transfers, base)
            read = b"".join(bytes(reader.pread(at, 131_072)) for at in range(0, len(content), 131_072))
            reader.close()
            assert read == content
            assert base.sha256 in (None, hashlib.sha256(content).hexdigest())
            assert base.crc32 in (None, zlib.crc32(content))
        assert transfers.write_budget.used == 0
        assert not journal.open
        assert not list(store.list_uploads(""))
        assert not list(tmp_path.iterdir())
    finally:
        transfers.close()
