"""The stores of the conformance suite, each real server started once per session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from archivia_fs.store.base import Capabilities, ObjectStore
from archivia_fs.store.faults import FaultyStore
from archivia_fs.store.memory import MemoryStore
from archivia_fs.store.s3 import S3Config, S3Store
from archivia_fs.store.stack import stack
from tests.s3_servers import S3Server, juicefs_gateway, rclone_s3, seaweedfs

_SERVERS = {"seaweedfs": seaweedfs, "rclone": rclone_s3, "juicefs": juicefs_gateway}


def config_of(server: S3Server, prefix: str = "") -> S3Config:
    return S3Config(server.endpoint, server.bucket, server.access_key, server.secret_key, server.region, prefix)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(
    scope="session", params=["memory", "wrapped memory", "seaweedfs", "stack on seaweedfs", "rclone", "juicefs"]
)
def shared_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    kind: str = request.param
    if kind == "memory":
        yield MemoryStore()
    elif kind == "wrapped memory":
        careful = Capabilities(part_copy=True, conditional_put=False, checksum="none")
        yield stack(FaultyStore(MemoryStore(careful)))
    elif kind.endswith("seaweedfs"):
        server: S3Server = request.getfixturevalue("seaweed")
        bare = S3Store(config_of(server, prefix=f"{kind.replace(' ', '-')}/"))
        yield from _probed(stack(bare) if kind.startswith("stack") else bare)
    else:
        with _SERVERS[kind](tmp_path_factory.mktemp(kind)) as server:
            yield from _probed(S3Store(config_of(server, prefix="in/a folder/")))


def _probed(store: ObjectStore) -> Iterator[ObjectStore]:
    store.probe()
    yield store
    store.close()


@pytest.fixture
def store(shared_store: ObjectStore) -> Iterator[ObjectStore]:
    """The shared store, empty before and after the test."""
    yield shared_store
    for upload in list(shared_store.list_uploads("")):
        shared_store.abort_upload(upload.key, upload.upload_id)
    for found in list(shared_store.list("")):
        shared_store.delete(found.key)
