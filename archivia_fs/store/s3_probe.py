"""What an S3 server really does, found by trying, because several answer 200 to what they ignore.

Owns: the probe. Used by: S3Store.probe. Threading: any thread; each probe has its own random keys.
Seen: `rclone serve s3` says 200 to UploadPartCopy and stores an empty part; JuiceFS' MinIO ignores
x-amz-checksum-crc32 and If-None-Match; SeaweedFS does all of it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import zlib

from archivia_fs.errors import CorruptData, PreconditionFailed, StoreError, StoreRejected
from archivia_fs.store.base import Capabilities, multipart_etag
from archivia_fs.store.s3_requests import S3Requests
from archivia_fs.types import Part

_CONTENT = memoryview(b"Archivia FS looks at what this server can do. " * 4)
_OTHER = memoryview(bytes(len(_CONTENT)))  # same length, other checksums


def crc32_header(crc32: int) -> str:
    """The value of x-amz-checksum-crc32: base64 of the big-endian CRC-32."""
    return base64.b64encode(crc32.to_bytes(4, "big")).decode()


def md5_header(body: memoryview) -> str:
    """The value of Content-MD5 (RFC 1864)."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def find_capabilities(requests: S3Requests) -> Capabilities:
    """Raises StoreRejected or StoreUnavailable when the server cannot be used at all."""
    bucket = requests.config.bucket
    key = f"{requests.config.prefix}archivia-probe-{secrets.token_hex(8)}"
    with requests.doing(f'list the bucket "{bucket}"'):
        requests.client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    probe = _Probe(requests, bucket, key)
    try:
        return probe.run()
    finally:
        probe.clean_up()


class _Probe:
    def __init__(self, requests: S3Requests, bucket: str, key: str) -> None:
        self._requests = requests
        self._bucket = bucket
        self._source = key
        self._target = f"{key}-copy"
        self._upload: str | None = None

    def run(self) -> Capabilities:
        etag = self._requests.send(self._source, _CONTENT).get("ETag", "").strip('"')
        md5_etag = etag == hashlib.md5(_CONTENT, usedforsecurity=False).hexdigest()
        with self._requests.doing("start an upload"):
            made = self._requests.client.create_multipart_upload(Bucket=self._bucket, Key=self._target)
        self._upload = made["UploadId"]
        return Capabilities(
            checksum=self._checksum(md5_etag=md5_etag),
            conditional_put=self._conditional_put(),
            part_copy=self._part_copy(),
            multipart_etag=self._multipart_etag(),
            md5_etag=md5_etag,
        )

    def _checksum(self, *, md5_etag: bool) -> str:
        if self._judges("ChecksumCRC32", crc32_header(zlib.crc32(_CONTENT)), crc32_header(zlib.crc32(_OTHER))):
            return "crc32"
        if self._judges("ContentMD5", md5_header(_CONTENT), md5_header(_OTHER)):
            return "md5"
        return "etag" if md5_etag else "none"

    def _judges(self, parameter: str, right: str, wrong: str) -> bool:
        """Whether objects and parts with a right checksum are taken and with a wrong one are not."""
        part: dict[str, str | int] = {"UploadId": self._upload or "", "PartNumber": 1}
        try:
            self._requests.send(self._source, _CONTENT, **{parameter: right})
            self._requests.send(self._target, _CONTENT, **part, **{parameter: right})
        except (StoreRejected, CorruptData):
            return False  # does not know the header
        return self._rejects(self._source, {parameter: wrong}) and self._rejects(
            self._target, {**part, parameter: wrong}
        )

    def _rejects(self, key: str, parameters: dict[str, str | int]) -> bool:
        try:
            self._requests.send(key, _CONTENT, **parameters)
        except (StoreRejected, CorruptData):
            return True
        return False

    def _conditional_put(self) -> bool:
        try:
            self._requests.send(self._source, _CONTENT, IfNoneMatch="*")
        except PreconditionFailed:
            return True
        except StoreRejected:
            return False
        return False

    def _part_copy(self) -> bool:
        # Amazon S3 copies ranges only of sources over 5 MiB (UploadPartCopy); a whole small source proves it there
        return any(self._copies(start) for start in (1, 0))

    def _copies(self, start: int) -> bool:
        """Copy the source from `start` to its end as the only part, complete, and compare what came of it."""
        place = {"CopySourceRange": f"bytes={start}-{len(_CONTENT) - 1}"} if start else {}
        client = self._requests.slow_client
        got = memoryview(bytearray(len(_CONTENT) - start))
        try:
            with self._requests.doing("copy a part"):
                answer = client.upload_part_copy(
                    Bucket=self._bucket,
                    Key=self._target,
                    UploadId=self._upload or "",
                    PartNumber=1,
                    CopySource={"Bucket": self._bucket, "Key": self._source},
                    **place,  # type: ignore[arg-type]
                )
                etag = answer.get("CopyPartResult", {}).get("ETag")
                if not etag:
                    return False
                client.complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=self._target,
                    UploadId=self._upload or "",
                    MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]},
                )
            self._requests.receive(self._target, 0, got)
        except StoreError:
            return False  # whatever it was: resending bytes always works
        return got == _CONTENT[start:]

    def _multipart_etag(self) -> bool:
        """Whether the ETag of a completed upload tells of what parts it was made. A server that encrypts may have others."""
        client, bucket, key = self._requests.client, self._bucket, self._target
        try:
            with self._requests.doing("complete an upload"):
                upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
                sent = client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=bytes(_CONTENT))
                made = client.complete_multipart_upload(
                    Bucket=bucket,
                    Key=key,
                    UploadId=upload,
                    MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": sent["ETag"]}]},
                )
        except StoreError:
            return False
        return made.get("ETag", "").strip('"') == multipart_etag([Part(1, len(_CONTENT), sent["ETag"].strip('"'), 0)])

    def clean_up(self) -> None:
        """Best effort: what failed the probe may fail this too, and `gc` finds the rest."""
        client = self._requests.client
        with contextlib.suppress(StoreError), self._requests.doing("abort the probe's upload"):
            if self._upload is not None:
                client.abort_multipart_upload(Bucket=self._bucket, Key=self._target, UploadId=self._upload)
        for key in (self._source, self._target):
            with contextlib.suppress(StoreError), self._requests.doing("delete the probe's object"):
                client.delete_object(Bucket=self._bucket, Key=key)
