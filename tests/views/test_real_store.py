"""A preview out of a file of gigabytes through the whole way to a real S3 server, with the bytes counted that it sends."""

from __future__ import annotations

import io
import shutil
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from archivia_fs.store.s3 import S3Config, S3Store
from archivia_fs.store.stack import stack
from archivia_fs.types import DOCUMENTS_INODE, ObjectKey, Part, Revision, RevisionId
from archivia_fs.views.thumbnails.maker import Maker
from archivia_fs.views.thumbnails.pool import Pool
from archivia_fs.views.thumbnails.service import Previews
from catalog.catalog import Catalog
from catalog.namespace import NewInode
from catalog.previews import PreviewState
from tests.s3_servers import S3Server, seaweedfs
from tests.views.drive import READ_MAX
from tests.views.pictures import dng, jpeg

MIB = 1024**2
SIZE = 2200 * MIB  # over 2 GiB, where LibRaw ends; each byte of it is on the disk
STEP = 128 * MIB
ENDS = 8 * MIB  # sent; between them there are copies of one part
ANSWERS = 64 * 1024  # bytes of the heads of all answers, and of the preview that is stored


class Counting:
    """Goes between a client and the server; `received`: bytes of the server's answers."""

    def __init__(self, server: S3Server) -> None:
        at = urlsplit(server.endpoint)
        self._target = (at.hostname or "", at.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.received = 0
        self.server = replace(server, endpoint=f"http://127.0.0.1:{self._listener.getsockname()[1]}")
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                upstream = socket.create_connection(self._target)
                for source, sink, counted in ((client, upstream, 0), (upstream, client, 1)):
                    threading.Thread(target=self._pump, args=(source, sink, counted), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: int) -> None:
        with suppress(OSError), source, sink:
            while data := source.recv(256 * 1024):
                self.received += counted * len(data)
                sink.sendall(data)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Counting]:
    (tmp_path / "s3").mkdir()
    with seaweedfs(tmp_path / "s3") as server:
        counting = Counting(server)
        yield counting
        counting.close()
    shutil.rmtree(tmp_path / "s3")


def test_a_preview_of_gigabytes_costs_what_it_has(server: Counting, tmp_path: Path) -> None:
    """[T5] Of a file with a preview inside at most 256 KiB are read beside that preview, whatever its size."""
    config = server.server
    store = stack(
        S3Store(S3Config(config.endpoint, config.bucket, config.access_key, config.secret_key, config.region))
    )
    assert store.probe().part_copy
    preview = jpeg(1600, 1200)
    file = dng(big=True, previews=[jpeg(64, 48), preview], size=SIZE, preview_at=SIZE - 500_000)
    zeros = bytes(STEP)
    store.put(ObjectKey("objects/zeros"), zeros, zlib.crc32(zeros))
    key = ObjectKey("objects/huge")
    upload = store.create_upload(key)
    parts = []
    head, tail = file.read(0, ENDS), file.read(SIZE - ENDS, ENDS)
    parts.append(store.upload_part(key, upload, 1, head, zlib.crc32(head)))
    for offset in range(ENDS, SIZE - ENDS, STEP):
        number, size = len(parts) + 1, min(STEP, SIZE - ENDS - offset)
        etag = store.copy_part(key, upload, number, ObjectKey("objects/zeros"), 0, size)
        parts.append(Part(number, size, etag, zlib.crc32(zeros[:size])))
    parts.append(store.upload_part(key, upload, len(parts) + 1, tail, zlib.crc32(tail)))
    assert store.complete_upload(key, upload, parts).size == SIZE

    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    pool = Pool()
    try:
        revision = Revision(RevisionId("huge"), key, SIZE, SIZE, None, None, 1)
        catalog.put_file(DOCUMENTS_INODE, "huge.dng", revision, NewInode(0o100644, 1, 1), mtime_ns=1)
        previews = Previews(catalog.previews, catalog, store, Maker(pool))
        server.received = 0
        record = previews.ensure(revision.id)
        assert record.state is PreviewState.EMBEDDED
        assert server.received <= len(preview) + READ_MAX + ANSWERS
        assert Image.open(io.BytesIO(previews.read(record, 1200))).size == (1200, 900)
    finally:
        pool.close()
        catalog.close()
        store.close()
