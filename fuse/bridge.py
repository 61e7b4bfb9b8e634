"""The bridge: the only place where trio meets the synchronous core.

Owns: worker threads of the FUSE door, who waits for them, and what becomes of errors. Used by: operations. Threading: called on the
loop.

Data and metadata have separate limits, so calls that hang on the object store never keep `ls` waiting. A hop through
a thread costs about 100 us; what memory can answer is answered on the loop with the core's `*_nowait` methods instead.

The kernel gets its answer when the core has one. A core call cannot be broken off, but who was killed while it waits must die
soon: once a second `watch` looks for such programs, which get EINTR; their calls go on in their threads without them.
"""

from __future__ import annotations

import errno
import functools
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar, TypeVarTuple

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


@dataclass(slots=True, eq=False)
class Waiter:
    """For whom a call is made. `program`: its process, 0 if nobody waits. `late`: the calls that go on without it; what they use,
    such as an open file, must not be let go before."""

    program: int
    late: set[trio.Event] = field(default_factory=set)

    async def settled(self) -> None:
        """No call for it is running any more."""
        for event in list(self.late):
            await event.wait()


class _Call(Generic[R]):
    """One core call in a thread, which the loop may stop waiting for. Both sides may come to that at once: a lock decides."""

    def __init__(self, waiter: Waiter, leftover: Callable[[R], object] | None) -> None:
        self._waiter = waiter
        self._leftover = leftover
        self._lock = threading.Lock()
        self._running = False
        self._let_go = False
        self._results: list[R] = []
        self._ended = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    def run(self, call: Callable[[*Ts], R], *args: *Ts) -> R:
        """In the thread."""
        with self._lock:
            if self._let_go:
                raise pyfuse3.FUSEError(errno.EINTR)  # to nobody
            self._running = True
        try:
            result = call(*args)
        except Exception as error:
            if self._finish():
                log.warning("What a killed program had asked for failed: %s", error)
            raise
        self._finish(result)
        return result

    def _finish(self, *result: R) -> bool:
        """True if nobody waits any more."""
        with self._lock:
            self._running = False
            self._results.extend(result)
            if not self._let_go:
                return False
        try:
            if result and self._leftover is not None:
                self._leftover(*result)
        finally:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._settle)
        return True

    def let_go(self) -> R:
        """On the loop. Raises FUSEError(EINTR) unless the call has succeeded in this moment."""
        with self._lock:
            if self._results:
                return self._results[0]
            self._let_go = True
            if self._running:
                self._waiter.late.add(self._ended)
        log.info("Process %d was killed while it waited; what it asked for goes on", self._waiter.program)
        raise pyfuse3.FUSEError(errno.EINTR)

    def _settle(self) -> None:
        self._ended.set()
        self._waiter.late.discard(self._ended)


class Bridge:
    """Runs core calls in threads. `leftover`: what becomes of the result when nobody waits for it any more, in the thread."""

    def __init__(self, data_threads: int = DATA_THREADS, metadata_threads: int = METADATA_THREADS) -> None:
        self._data = trio.CapacityLimiter(data_threads)
        self._metadata = trio.CapacityLimiter(metadata_threads)
        self._serving = threading.local()
        self._waiting: dict[trio.CancelScope, int] = {}  # the program that waits in each

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

    async def data(
        self, waiter: Waiter, call: Callable[[*Ts], R], *args: *Ts, leftover: Callable[[R], object] | None = None
    ) -> R:
        """A call that may read from or write to the object store. Raises FUSEError(EINTR) within a second or so when who waits is
        killed; the call then goes on."""
        return await self._run(self._data, waiter, leftover, call, *args)

    async def metadata(
        self, waiter: Waiter, call: Callable[[*Ts], R], *args: *Ts, leftover: Callable[[R], object] | None = None
    ) -> R:
        """As data, for a call that needs the catalog only."""
        return await self._run(self._metadata, waiter, leftover, call, *args)

    async def _run(
        self, limiter: trio.CapacityLimiter, waiter: Waiter, leftover: Callable[[R], object] | None,
        call: Callable[[*Ts], R], *args: *Ts,
    ) -> R:  # fmt: skip
        attempt = _Call(waiter, leftover)
        with trio.CancelScope(shield=True) as scope:  # nothing but `watch` ends it
            self._waiting[scope] = waiter.program
            try:
                return await trio.to_thread.run_sync(
                    attempt.run, self.serve, call, *args, abandon_on_cancel=True, limiter=limiter
                )
            finally:
                del self._waiting[scope]
        return attempt.let_go()

    async def watch(self) -> None:
        """Let those go who are killed while they wait. Runs as long as the mount."""
        while True:
            await trio.sleep(KILLED_SECONDS)
            killed = {program for program in set(self._waiting.values()) if is_killed(program)}
            for scope, program in self._waiting.items():
                if program in killed:
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
