"""HTTP Basic authentication (RFC 7617) against the archive's users.

Owns: reading the Authorization header. The Vfs checks the password, remembers what was right and bounds how many checks
run at once, so a kept-alive connection costs one HMAC per request. Used by: server. Threading: pure functions.
"""

from __future__ import annotations

import base64
import binascii
from http import HTTPStatus
from typing import NoReturn

from archivia_fs.vfs.vfs import Vfs
from webdav.convert import fail

REALM = "Archivia FS"
HEADER_MAX = 4096  # characters


def authenticate(vfs: Vfs, header: str | None) -> str:
    """The user's name. There is no anonymous access. Raises DAVError 401, and FsError when the catalog cannot be asked."""
    if not header or len(header) > HEADER_MAX:
        _challenge("This drive wants a name and a password.")
    user, password = _parse(header)
    if not vfs.authenticate(user, password):
        _challenge("The name or the password is wrong.")
    return user


def _parse(header: str) -> tuple[str, str]:
    scheme, _, value = header.partition(" ")
    try:
        raw = base64.b64decode(value.strip(), validate=True) if scheme.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        raw = b""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # older Windows
    user, colon, password = text.partition(":")
    if not (user and colon):
        _challenge("This drive wants Basic authentication.")
    return user, password


def _challenge(message: str) -> NoReturn:
    fail(HTTPStatus.UNAUTHORIZED, message, headers=[("WWW-Authenticate", f'Basic realm="{REALM}", charset="UTF-8"')])
