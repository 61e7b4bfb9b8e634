"""The object store on S3: any server that speaks the S3 REST API (SeaweedFS, MinIO, Ceph RGW, AWS, rclone serve s3).

Owns: what each ObjectStore method means in S3 requests. Used by: app, through `stack`. Threading: any thread.
It repeats nothing (RetryingStore does) and trusts the server's answers (VerifyingStore compares them).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError
from typing_extensions import Buffer

from archivia_fs.errors import CorruptData, NotSupported, ObjectMissing
from archivia_fs.store import s3_probe
from archivia_fs.store.base import Capabilities, PendingUpload, StoredObject, multipart_etag
from archivia_fs.store.s3_errors import S3Config
from archivia_fs.store.s3_requests import S3Requests
from archivia_fs.types import ObjectKey, Part, UploadId

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef

__all__ = ["S3Config", "S3Store"]

MOST_CAREFUL = Capabilities(part_copy=False, conditional_put=False, checksum="none")


class S3Store:
    """ObjectStore over one bucket; all keys live under `config.prefix`. Raises ConfigError for an endpoint that is no URL."""

    def __init__(self, config: S3Config) -> None:
        self._requests = S3Requests(config)
        self._client = self._requests.client
        self._bucket = config.bucket
        self._prefix = config.prefix
        self._capabilities = MOST_CAREFUL

    def probe(self) -> Capabilities:
        self._capabilities = s3_probe.find_capabilities(self._requests)
        return self._capabilities

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def ensure_bucket(self) -> None:
        """Create the bucket if it is not there (the embedded store and tests; on other servers an admin does it)."""
        region = self._requests.config.region
        with self._requests.doing(f'create the bucket "{self._bucket}"'):
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
            else:
                return
            try:
                if region == "us-east-1":  # the one region that must not be named
                    self._client.create_bucket(Bucket=self._bucket)
                else:
                    place = {"LocationConstraint": region}
                    self._client.create_bucket(Bucket=self._bucket, CreateBucketConfiguration=place)  # type: ignore[arg-type]
            except ClientError as error:
                if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":  # somebody was faster
                    raise

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        if not buffer:
            self.head(key)
            return
        self._requests.receive(self._prefix + key, offset, buffer)

    def put(self, key: ObjectKey, body: Buffer, crc32: int) -> StoredObject:
        view = _bytes_view(body)
        headers = self._requests.send(self._prefix + key, view, **self._proof(view, crc32))
        return StoredObject(key, len(view), _bare(headers.get("ETag")))

    def head(self, key: ObjectKey) -> StoredObject:
        with self._requests.doing(f'look at "{key}"'):
            found = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        return StoredObject(
            key, found["ContentLength"], _bare(found.get("ETag")), _nanoseconds(found.get("LastModified"))
        )

    def delete(self, key: ObjectKey) -> None:
        try:
            with self._requests.doing(f'delete "{key}"'):
                self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)
        except ObjectMissing:
            return  # some servers say 404, S3 itself 204

    def list(self, prefix: str, start_after: str = "") -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket,
            Prefix=self._prefix + prefix,
            **({"StartAfter": self._prefix + start_after} if start_after else {}),  # type: ignore[arg-type]
        )
        with self._requests.doing(f'list "{prefix}"'):
            for page in pages:
                for found in page.get("Contents", []):
                    key = ObjectKey(found["Key"].removeprefix(self._prefix))
                    # MinIO's front of JuiceFS lists folders, and rclone answers from the page's beginning
                    if key.endswith("/") or (start_after and key <= start_after):
                        continue
                    yield StoredObject(
                        key, found["Size"], _bare(found.get("ETag")), _nanoseconds(found.get("LastModified"))
                    )

    def create_upload(self, key: ObjectKey) -> UploadId:
        with self._requests.doing(f'start an upload of "{key}"'):
            made = self._client.create_multipart_upload(Bucket=self._bucket, Key=self._prefix + key)
        return UploadId(made["UploadId"])

    def upload_part(self, key: ObjectKey, upload_id: UploadId, number: int, body: Buffer, crc32: int) -> Part:
        view = _bytes_view(body)
        headers = self._requests.send(
            self._prefix + key,
            view,
            UploadId=upload_id,
            PartNumber=number,
            **self._proof(view, crc32),
        )
        return Part(number, len(view), _bare(headers.get("ETag")), crc32)

    def copy_part(
        self, key: ObjectKey, upload_id: UploadId, number: int, source: ObjectKey, offset: int, size: int
    ) -> str:
        if not self._capabilities.part_copy:
            raise NotSupported(
                f"The S3 server at {self._requests.config.endpoint} cannot copy parts; read the bytes and send them again."
            )
        with self._requests.doing(f'copy {size} bytes of "{source}" to part {number} of "{key}"'):
            answer = self._requests.slow_client.upload_part_copy(
                Bucket=self._bucket,
                Key=self._prefix + key,
                UploadId=upload_id,
                PartNumber=number,
                CopySource={"Bucket": self._bucket, "Key": self._prefix + source},
                CopySourceRange=f"bytes={offset}-{offset + size - 1}",
            )
        etag = _bare(answer.get("CopyPartResult", {}).get("ETag"))
        if not etag:
            raise CorruptData(f'The S3 server said it copied part {number} of "{key}" but gave no ETag for it.')
        return etag

    def complete_upload(self, key: ObjectKey, upload_id: UploadId, parts: Sequence[Part]) -> StoredObject:
        # quoted as they came: rclone compares the ETags as strings
        listed: list[CompletedPartTypeDef] = [{"PartNumber": p.number, "ETag": f'"{p.etag}"'} for p in parts]
        try:
            with self._requests.doing(f'complete the upload of "{key}"'):
                made = self._requests.slow_client.complete_multipart_upload(
                    Bucket=self._bucket, Key=self._prefix + key, UploadId=upload_id, MultipartUpload={"Parts": listed}
                )
        except ObjectMissing as gone:
            return self._completed_before(key, parts, gone)
        if self._capabilities.multipart_etag and _bare(made.get("ETag")) != multipart_etag(parts):
            # SeaweedFS says 200 again to whoever completes an upload that is complete, whatever parts he names
            raise ObjectMissing(f'The upload of "{key}" was completed before, by another gateway and with other parts.')
        stored = self.head(key)
        expected = sum(part.size for part in parts)
        if stored.size != expected:
            raise CorruptData(f'The S3 server made "{key}" {stored.size} bytes long from parts of {expected} bytes.')
        return stored

    def _completed_before(self, key: ObjectKey, parts: Sequence[Part], gone: ObjectMissing) -> StoredObject:
        """No such upload, or no such part: then its completion happened and the answer was lost, or it is really gone. Another
        gateway, which was taken for dead, may have completed it with other parts: only the object of these counts."""
        try:
            stored = self.head(key)
        except ObjectMissing:
            raise gone from None
        etag = multipart_etag(parts)
        if not etag or (stored.size, stored.etag) != (sum(part.size for part in parts), etag):
            raise gone
        return stored

    def abort_upload(self, key: ObjectKey, upload_id: UploadId) -> None:
        try:
            with self._requests.doing(f'abort the upload of "{key}"'):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._prefix + key, UploadId=upload_id)
        except ObjectMissing:
            return  # aborted or completed before

    def list_parts(self, key: ObjectKey, upload_id: UploadId) -> Sequence[Part]:
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=self._bucket, Key=self._prefix + key, UploadId=upload_id
        )
        parts: dict[int, tuple[datetime | None, Part]] = {}
        with self._requests.doing(f'list the parts of "{key}"'):
            for page in pages:
                for found in page.get("Parts", []):
                    number, written = found["PartNumber"], found.get("LastModified")
                    crc32 = _crc32(found.get("ChecksumCRC32"))
                    # SeaweedFS lists a part that was sent again with other bytes twice: the later one counts
                    known = parts.get(number)
                    if known is None or _nanoseconds(known[0]) <= _nanoseconds(written):
                        parts[number] = (written, Part(number, found["Size"], _bare(found.get("ETag")), crc32))
        return [parts[number][1] for number in sorted(parts)]

    def list_uploads(self, prefix: str) -> Iterator[PendingUpload]:
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        with self._requests.doing(f'list the uploads under "{prefix}"'):
            for page in pages:
                for found in page.get("Uploads", []):
                    key = ObjectKey(found["Key"].removeprefix(self._prefix))
                    yield PendingUpload(key, UploadId(found["UploadId"]), _nanoseconds(found.get("Initiated")))

    def close(self) -> None:
        self._requests.close()

    def _proof(self, body: memoryview, crc32: int) -> dict[str, str]:
        """The parameter by which this server rejects bytes that changed on the way."""
        match self._capabilities.checksum:
            case "crc32":
                return {"ChecksumCRC32": s3_probe.crc32_header(crc32)}
            case "md5":
                return {"ContentMD5": s3_probe.md5_header(body)}
            case _:
                return {}


def _bytes_view(body: Buffer) -> memoryview:
    return memoryview(body).cast("B")


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')


def _nanoseconds(when: datetime | None) -> int:
    # not timestamp() * 1e9: a float has no room for nanoseconds since 1970
    return 0 if when is None else int(when.replace(microsecond=0).timestamp()) * 10**9 + when.microsecond * 1000


def _crc32(encoded: str | None) -> int:
    return int.from_bytes(base64.b64decode(encoded), "big") if encoded else 0
