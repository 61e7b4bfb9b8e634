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
from fuse.callers import is_killed
from fuse.convert import errno_of

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

DATA_THREADS = 32  # calls that may wait for the object store
METADATA_THREADS = 32  # calls that wait for the catalog at most
KILLED_SECONDS = 1.0  # how often somebody looks whether those who wait still live; most calls are answered before


class Bridge:
    """Runs core calls in threads. The kernel gets its answer when the core has one; who has been killed is let go before."""

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

    async def data_for(self, pid: int, call: Callable[[*Ts], None], *args: *Ts) -> None:
        """As data, as long as somebody waits: if thread `pid` is killed meanwhile, raises FUSEError(EINTR) within a second or so,
        and the call goes on without it."""
        ended: list[Exception | None] = []

        def attempt() -> None:
            try:
                self.serve(call, *args)
            except Exception as error:  # noqa: BLE001 - raised below: a nursery would wrap it in a group
                ended.append(error)
            else:
                ended.append(None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_killed, pid, nursery.cancel_scope)
            await trio.to_thread.run_sync(attempt, abandon_on_cancel=True, limiter=self._data)
            nursery.cancel_scope.cancel()
        if not ended:
            log.info("Process %d was killed while it waited; what it asked for goes on", pid)
            raise pyfuse3.FUSEError(errno.EINTR)
        if ended[0] is not None:
            raise ended[0]

    async def metadata(self, call: Callable[[*Ts], R], *args: *Ts) -> R:
        """A call that needs the catalog only."""
        return await trio.to_thread.run_sync(self.serve, call, *args, abandon_on_cancel=False, limiter=self._metadata)


async def _cancel_when_killed(pid: int, scope: trio.CancelScope) -> None:
    while True:
        await trio.sleep(KILLED_SECONDS)
        if is_killed(pid):
            scope.cancel()


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
