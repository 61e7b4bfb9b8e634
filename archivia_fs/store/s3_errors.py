"""From everything that can go wrong on the way to an S3 server to the StoreError tree, in sentences for a person.

Owns: S3Config, the table of S3 error codes, and the words. Used by: s3_requests, s3, s3_probe.
Threading: values and pure functions.
Codes: Amazon S3 API Reference, "Error responses", and what MinIO, SeaweedFS, Ceph and rclone send beside them.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from html import unescape
from http.client import HTTPException

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError, SSLError

from archivia_fs.errors import (
    CorruptData,
    ObjectMissing,
    PreconditionFailed,
    QuotaReached,
    StoreError,
    StoreFull,
    StoreRejected,
    StoreUnavailable,
)

TRANSPORT_ERRORS = (BotoCoreError, ClientError, HTTPException, OSError)  # OSError: sockets, TLS, timeouts


@dataclass(frozen=True, slots=True)
class S3Config:
    """One bucket on one server. Timeouts in seconds; `slow_timeout` is for part copies and completion, which
    a server may answer only after moving gigabytes. `max_connections` are kept open, not a limit of requests."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    prefix: str = ""
    max_connections: int = 32
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    slow_timeout: float = 300.0
    ca_file: str | None = None  # PEM; None trusts the system's certificate authorities

    def __repr__(self) -> str:
        return f"S3Config({self.endpoint}, bucket={self.bucket!r}, prefix={self.prefix!r})"  # no keys in logs


class S3Failure(OSError):
    """An error response to a presigned request: HTTP status, S3 code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code} {message}")
        self.status = status
        self.code = code
        self.message = message

    @staticmethod
    def parse(status: int, headers: Message, body: bytes) -> S3Failure:
        """From the beginning of an error document; a body that is none gives an empty code."""
        text = body.decode("utf-8", "replace")
        code = headers.get("x-minio-error-code", "") or _element(text, "Code")
        return S3Failure(status, code, _element(text, "Message"))


def _element(document: str, name: str) -> str:
    # a pattern, because error documents may be cut off, and an XML parser then tells nothing at all
    found = re.search(rf"<{name}>([^<]*)</{name}>", document)
    return unescape(found.group(1)).strip() if found else ""


_KINDS: Mapping[str, type[StoreError]] = {
    "NoSuchKey": ObjectMissing,
    "NoSuchUpload": ObjectMissing,
    "InvalidPart": ObjectMissing,
    "PreconditionFailed": PreconditionFailed,
    "ConditionalRequestConflict": StoreUnavailable,
    "OperationAborted": StoreUnavailable,
    "BadDigest": CorruptData,
    "InvalidDigest": CorruptData,
    "IncompleteBody": CorruptData,
    "InvalidRange": CorruptData,
    "XAmzContentChecksumMismatch": CorruptData,
    "XAmzContentSHA256Mismatch": CorruptData,
    "RequestTimeout": StoreUnavailable,
    "SlowDown": StoreUnavailable,
    "XMinioStorageFull": StoreFull,
    "QuotaExceeded": QuotaReached,  # Ceph RGW
    "XMinioAdminBucketQuotaExceeded": QuotaReached,  # MinIO
    "InsufficientStorage": StoreFull,
}
_STATUSES: Mapping[int, type[StoreError]] = {
    404: ObjectMissing,
    408: StoreUnavailable,
    412: PreconditionFailed,
    416: CorruptData,
    429: StoreUnavailable,
    501: StoreRejected,
    507: StoreFull,
}
_REGION_CODES = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}


def to_store_error(error: Exception, config: S3Config, what: str) -> StoreError:
    """The StoreError for `error`, raised while doing `what` ("read archive/ab12"). Anything unknown that came
    over the network counts as unavailable: repeating is safe, because every request of ours may be repeated."""
    if isinstance(error, S3Failure):
        return _from_answer(error.status, error.code, error.message, config, what)
    if isinstance(error, ClientError):
        answer = error.response
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        details = answer.get("Error", {})
        return _from_answer(status, details.get("Code", ""), details.get("Message", ""), config, what)
    if isinstance(error, ParamValidationError):
        return StoreRejected(f"The S3 settings cannot be used ({what}): {error}. Check ARCHIVIA_S3_BUCKET.")
    if isinstance(error, (ssl.SSLError, SSLError)) and "CERTIFICATE_VERIFY" in str(error):
        return StoreRejected(
            f"The TLS certificate of the S3 server at {config.endpoint} is not trusted: {error}. "
            "Install the certificate authority on this machine, or correct ARCHIVIA_S3_ENDPOINT."
        )
    return StoreUnavailable(
        f"The S3 server at {config.endpoint} cannot be reached ({what}): {error or type(error).__name__}. "
        "Check that it runs and that ARCHIVIA_S3_ENDPOINT is right; for the embedded store, `archivia-fs store start`."
    )


def _from_answer(status: int, code: str, message: str, config: S3Config, what: str) -> StoreError:
    server = f"The S3 server at {config.endpoint}"
    said = f"(HTTP {status} {code or 'without a code'}{': ' + message if message else ''})"
    if code in {"NoSuchBucket", "InvalidBucketName"}:
        return StoreRejected(
            f'{server} has no bucket "{config.bucket}" {said}. Create it, or correct ARCHIVIA_S3_BUCKET.'
        )
    if code in _REGION_CODES or status == 301:
        return StoreRejected(
            f'{server} is not in the region "{config.region}" {said}. Correct ARCHIVIA_S3_REGION or ARCHIVIA_S3_ENDPOINT.'
        )
    if code == "RequestTimeTooSkewed":
        return StoreRejected(f"{server} says that the clocks differ {said}. Set this machine's clock.")
    if kind := _KINDS.get(code) or (_STATUSES.get(status) if status != 404 or _bodiless(code) else None):
        return kind(f"{server} could not {what} {said}.{_way_out(kind)}")
    if status in {401, 403}:
        return StoreRejected(f"{server} did not let us {what} {said}. {_keys_way_out(code, config)}")
    if status >= 500:
        return StoreUnavailable(f"{server} could not {what} now {said}. Look into its log if this goes on.")
    return StoreRejected(f"{server} refused to {what} {said}.")


def _bodiless(code: str) -> bool:
    """A 404 to HEAD carries no document, so boto3 gives the status as the code."""
    return code in {"", "404", "NotFound"}


_WAYS_OUT: Mapping[type[StoreError], str] = {
    StoreFull: " It is full: add disk space.",
    QuotaReached: " The quota is reached: raise it, or remove what is not needed and run `archivia-fs gc`.",
}


def _way_out(kind: type[StoreError]) -> str:
    return _WAYS_OUT.get(kind, "")


def _keys_way_out(code: str, config: S3Config) -> str:
    if code == "InvalidAccessKeyId":
        return "It does not know the access key: check ARCHIVIA_S3_ACCESS_KEY."
    if code == "SignatureDoesNotMatch":
        return "The secret key does not belong to the access key: check ARCHIVIA_S3_SECRET_KEY."
    return (
        "Check ARCHIVIA_S3_ACCESS_KEY and ARCHIVIA_S3_SECRET_KEY, "
        f'and that they may list, read, write and delete in the bucket "{config.bucket}".'
    )
