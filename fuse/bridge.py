"""The bridge: the only place where trio meets the synchronous core.

Owns: worker threads of the FUSE door and what becomes of errors. Used by: operations. Threading: called on the loop.

Data and metadata have separate limits, so calls that hang on the object store never keep `ls` waiting. A hop through
a thread costs about 100 us; what memory can answer is answered on the loop with the core's `*_nowait` methods instead.
"""

from __future__ import annotations

import errno
import functools
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

import pyfuse3
import trio

from archivia_fs.errors import FsError
from fuse.convert import errno_of

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

DATA_THREADS = 32  # calls that may wait for the object store
METADATA_THREADS = 32  # calls that wait for the catalog at most


class Bridge:
    """Runs core calls in threads. A call is never abandoned: the kernel gets its answer when the core has one."""

    def __init__(self, data_threads: int = DATA_THREADS, metadata_threads: int = METADATA_THREADS) -> None:
        self._data = trio.CapacityLimiter(data_threads)
        self._metadata = trio.CapacityLimiter(metadata_threads)
        self._serving = threading.local()

    def is_serving(self) -> bool:
        """Whether this thread serves a request of the kernel, and so must never wait for the kernel. Any thread may ask."""
        return getattr(self._serving, "is_on", False)

    def serve(self, call: Callable[[*Ts], R], *args: *Ts) -> R:
        """What this thread does for the kernel."""
        self._serving.is_on = True
        try:
            return call(*args)
        finally:
            self._serving.is_on = False

    async def data(self, call: Callable[[*Ts], R], *args: *Ts) -> R:
        """A call that may read from or write to the object store."""
        return await trio.to_thread.run_sync(self.serve, call, *args, abandon_on_cancel=False, limiter=self._data)

    async def metadata(self, call: Callable[[*Ts], R], *args: *Ts) -> R:
        """A call that needs the catalog only."""
        return await trio.to_thread.run_sync(self.serve, call, *args, abandon_on_cancel=False, limiter=self._metadata)


def handler(method: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Give the kernel an errno for whatever goes wrong: any exception but FUSEError would tear the whole mount down."""

    @functools.wraps(method)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await method(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except FsError as error:
            code = errno_of(error)
            if code == errno.EIO:
                log.warning("%s: %s", method.__name__, error)
            raise pyfuse3.FUSEError(code) from error
        except Exception as error:
            log.exception("%s failed; the caller gets EIO", method.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from error

    guarded.is_handler = True  # type: ignore[attr-defined]  # a test looks for it on every handler
    return guarded
