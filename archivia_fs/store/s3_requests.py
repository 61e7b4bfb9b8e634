"""Single S3 requests to one bucket: control calls through boto3, bytes over presigned URLs.

Owns: the boto3 clients, the wire, the presigned URLs. Used by: s3 (the store) and s3_probe. Threading: any thread.
Every method raises StoreError children only. Keys here are whole keys (with the prefix).
Bytes go over presigned URLs because boto3 hashes each body for its signature and copies on the way: a part of 16 MiB costs
6 ms of CPU this way and 25 ms through `upload_part` (SeaweedFS, loopback), a range read 0.5 ms and 1.3 ms. They are signed by
botocore's signer itself: a client's generate_presigned_url comes to the same URL in 0.17 ms instead of 0.06 ms.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from http.client import HTTPMessage
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

import boto3
import botocore.session
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from archivia_fs.errors import ConfigError, StoreRejected
from archivia_fs.store.s3_errors import TRANSPORT_ERRORS, S3Config, S3Failure, to_store_error
from archivia_fs.store.wire import Wire

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_PRESIGN_SECONDS = 3600
_PRESIGN_REUSE_SECONDS = 1800.0  # half its life, so that no request is sent with a URL about to expire
_PRESIGNED_MAX = 4096  # URLs of about 500 bytes: 2 MiB

# boto3's parameter for each header that a presigned PUT signs
_SIGNED_QUERY = {"UploadId": "uploadId", "PartNumber": "partNumber"}  # and for what stands in its query
_SIGNED_HEADERS = {"ChecksumCRC32": "x-amz-checksum-crc32", "ContentMD5": "Content-MD5", "IfNoneMatch": "If-None-Match"}


class S3Requests:
    """`client` answers quickly or not at all; `slow_client` waits for completions and part copies."""

    def __init__(self, config: S3Config) -> None:
        """Connects to nothing. Raises ConfigError for an endpoint that is no http or https URL."""
        address = urlsplit(config.endpoint)
        if address.scheme not in {"http", "https"} or not address.hostname:
            raise ConfigError(
                f'ARCHIVIA_S3_ENDPOINT is "{config.endpoint}", which is no URL like https://s3.example.org or http://127.0.0.1:8333.'
            )
        self.config = config
        session = _session()  # one for both clients: each reads botocore's service models, 0.2 s
        self.client = _client(session, config, config.read_timeout)
        self.slow_client = _client(session, config, config.slow_timeout)
        self._wire = Wire(config)
        self._credentials = Credentials(config.access_key, config.secret_key)
        self._bucket_url = f"{config.endpoint.rstrip('/')}/{quote(config.bucket)}/"
        self._lock = threading.Lock()
        self._get_targets: OrderedDict[str, tuple[str, float]] = OrderedDict()  # guarded by _lock; key: target, made at

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Turn whatever the way to the server raises into a StoreError that says `what` was tried."""
        try:
            yield
        except TRANSPORT_ERRORS as error:
            raise to_store_error(error, self.config, what) from error

    def send(self, key: str, body: memoryview, **parameters: str | int) -> HTTPMessage:
        """PUT `body` under a presigned URL; returns the response's headers. `parameters` are those of boto3's put_object, or of
        upload_part."""
        headers = {_SIGNED_HEADERS[name]: str(value) for name, value in parameters.items() if name in _SIGNED_HEADERS}
        query = {_SIGNED_QUERY[name]: str(value) for name, value in parameters.items() if name in _SIGNED_QUERY}
        with self.doing(f'store "{key}"'):
            return self._wire.put(self._presign("PUT", key, query, headers), headers, body)

    def receive(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (not empty) from `offset` of the object, or raise."""
        with self.doing(f'read {len(buffer)} bytes at {offset} of "{key}"'):
            try:
                self._wire.get_into(self._get_target(key), offset, buffer)
            except S3Failure as failure:
                if failure.status != 403:
                    raise
                with self._lock:  # may have been signed by a clock that was set since: sign anew, once
                    self._get_targets.pop(key, None)
                self._wire.get_into(self._get_target(key), offset, buffer)

    def close(self) -> None:
        self._wire.close()
        self.client.close()
        self.slow_client.close()

    def _get_target(self, key: str) -> str:
        now = time.monotonic()
        with self._lock:
            known = self._get_targets.get(key)
            if known is not None and now - known[1] < _PRESIGN_REUSE_SECONDS:
                self._get_targets.move_to_end(key)
                return known[0]
        target = self._presign("GET", key, {}, {})
        with self._lock:
            self._get_targets[key] = (target, now)
            self._get_targets.move_to_end(key)
            if len(self._get_targets) > _PRESIGNED_MAX:
                self._get_targets.popitem(last=False)
        return target

    def _presign(self, method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
        """Path and query for the wire (AWS Signature Version 4 in query parameters)."""
        url = self._bucket_url + quote(key, safe="/~") + (f"?{urlencode(query)}" if query else "")
        request = AWSRequest(method, url, headers=dict(headers))
        S3SigV4QueryAuth(self._credentials, "s3", self.config.region, expires=_PRESIGN_SECONDS).add_auth(request)
        parts = urlsplit(str(request.url))
        return f"{parts.path}?{parts.query}"


def _session() -> boto3.session.Session:
    """One that knows neither the user's ~/.aws nor AWS_PROFILE: they are about other servers."""
    inner = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    return boto3.session.Session(botocore_session=inner)


def _client(session: boto3.session.Session, config: S3Config, read_timeout: float) -> S3Client:
    authorities = config.ca_file or ssl.get_default_verify_paths().cafile
    try:
        return session.client(
            "s3",
            endpoint_url=config.endpoint,
            aws_access_key_id=config.access_key,
            aws_secret_access_key=config.secret_key,
            region_name=config.region,
            verify=authorities or True,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},  # bucket names need no DNS entries
                retries={"total_max_attempts": 1},  # RetryingStore decides that
                connect_timeout=config.connect_timeout,
                read_timeout=read_timeout,
                max_pool_connections=config.max_connections,
                proxies={},  # as the wire: the store is reached directly
                request_checksum_calculation="when_required",  # we send our own
                response_checksum_validation="when_required",
            ),
        )
    except ValueError as error:
        raise StoreRejected(
            f"The S3 settings cannot be used: {error}. Check ARCHIVIA_S3_ENDPOINT and _REGION."
        ) from error
