"""What the POSIX tests share: system calls with their errno, and calls as another user.

Owns: nothing. Used by: the functional tests. Every test runs in a folder of the mount and in one of a local filesystem, which shows
that what is expected is what Linux does.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")

AT_FDCWD = -100
NOREPLACE, EXCHANGE = 1, 2
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
_SETRESUID, _SETRESGID, _SETGROUPS = {"x86_64": (117, 119, 116), "aarch64": (147, 149, 159)}.get(
    platform.machine(), (0, 0, 0)
)
as_root = pytest.mark.skipif(os.geteuid() != 0 or not _SETRESUID, reason="only root can become somebody else")

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def refusal(call: Callable[..., object], *arguments: object, **options: object) -> str | None:
    """The name of the errno a call is refused with; None if it is not."""
    try:
        call(*arguments, **options)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return None


def names(folder: os.PathLike[str] | int) -> list[str]:
    """What is in a folder, or in an open one."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)


def renameat2(old: os.PathLike[str], new: os.PathLike[str], flags: int) -> None:
    _checked(_libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def utimensat(path: os.PathLike[str], atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    """With UTIME_NOW and UTIME_OMIT as nanoseconds, which os.utime has not."""
    _checked(_libc.utimensat(AT_FDCWD, os.fsencode(path), (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime)), 0))


def fallocate(descriptor: int, mode: int, offset: int, size: int) -> None:
    """fallocate(2), which os.posix_fallocate would do in the C library instead."""
    _checked(_libc.fallocate(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(size)))


def _checked(answer: int) -> None:
    if answer:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def as_user(uid: int, call: Callable[[], T], *groups: int) -> T:
    """What `call` gives to a user without privileges, in a thread that is that user: the C library would change all threads."""
    given: list[T] = []
    failed: list[BaseException] = []

    def change_and_call() -> None:
        try:
            kernel = _libc.syscall
            numbers = (ctypes.c_uint * len(groups))(*groups)
            _checked(kernel(_SETGROUPS, len(groups), numbers))
            _checked(kernel(_SETRESGID, groups[0] if groups else uid, groups[0] if groups else uid, uid))
            _checked(kernel(_SETRESUID, uid, uid, uid))
            given.append(call())
        except BaseException as error:  # raised below
            failed.append(error)

    thread = threading.Thread(target=change_and_call)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return given[0]
