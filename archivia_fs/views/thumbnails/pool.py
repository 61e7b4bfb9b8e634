"""The gateway's side of the decoders: a few processes, started when they are needed and replaced when they die.

Owns: the worker processes and their time limits. Used by: maker. Threading: any thread; `decode` blocks its caller, and at most
`size` callers decode at a time, a bounded number wait. No lock is held while a worker works.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archivia_fs.errors import BadPicture, Busy
from archivia_fs.views.thumbnails.ifd import ColourSpace
from archivia_fs.views.thumbnails.parts import Part
from archivia_fs.views.thumbnails.windows import Read

log = logging.getLogger(__name__)

WORKERS = 2
WAITING_MAX = 64  # callers; each is a thread of a door
PATIENCE = 60.0  # seconds that a caller waits for a worker
START_SECONDS = 20.0  # 0.15 on an idle machine
JOB_SECONDS = 30.0  # of the clock; the worker itself has a limit of CPU time below that
JOBS_MAX = 200  # of one worker, so that no leak of a library grows
IDLE_SECONDS = 60.0  # then its memory is more useful elsewhere
ANSWER_MAX = 8 * 1024**2  # bytes; three JPEGs of at most 1200x1200 have 2

CLOSING = "The gateway is shutting down."
_HEADER_SIZE = 8
_ROOT = Path(__file__).parents[3]
_BOOT = """
import sys
sys.path.insert(0, sys.argv[1])
from archivia_fs.views.thumbnails.worker import main
main(int(sys.argv[2]))
"""
# One thread each: pictures are decoded side by side, and threads would need clone(2).
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}


class DecoderDied(BadPicture):
    """The worker ended or had to be ended in the middle of a picture. It may be the machine's fault."""


@dataclass(frozen=True, slots=True)
class Job:
    """`kind`: "jpeg", "png", "webp", "tiff", "heif" or "raw". `orientation` 1..8, or 0: as the picture's own Exif data say."""

    kind: str
    orientation: int = 0
    colour_space: ColourSpace = ColourSpace.UNKNOWN


@contextlib.contextmanager
def handed_over(part: Part, read: Read) -> Iterator[int]:
    """A memfd (memfd_create(2)) with a part of a file. It counts as this machine's memory while it is open."""
    descriptor = os.memfd_create("picture", os.MFD_CLOEXEC)
    try:
        part.write(read, descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


class Worker:
    """One process. Raises DecoderDied if it does not come up, with its own words if it has any."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel = ours
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, str(_ROOT), str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
            )
        self.jobs = 0
        self.idle_since = 0.0
        try:
            self.hello, _ = self._answer(START_SECONDS)
        except BaseException:
            self.end()
            raise
        if "error" in self.hello:
            self.end()
            raise DecoderDied(f"The decoder does not start: {self.hello['error']}.")

    @property
    def pid(self) -> int:
        return self._process.pid

    def decode(self, job: Job, picture: int, seconds: float) -> Sequence[bytes]:
        """The JPEGs of a job. Raises BadPicture, DecoderDied."""
        self.jobs += 1
        text = json.dumps({"kind": job.kind, "orientation": job.orientation, "colour_space": job.colour_space}).encode()
        head = len(text).to_bytes(4, "big") + bytes(4)
        try:
            socket.send_fds(self._channel, [head], [picture])
            self._channel.sendall(text)
        except OSError as error:
            raise DecoderDied("The decoder was gone.") from error
        answer, body = self._answer(seconds)
        if "error" in answer:
            raise BadPicture(f"It cannot be decoded ({answer['error']}).")
        made, at = [], 0
        for size in answer["sizes"]:
            made.append(body[at : at + size])
            at += size
        return made

    def end(self) -> None:
        """Kill it, if it still runs."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _answer(self, seconds: float) -> tuple[dict[str, Any], bytes]:
        deadline = time.monotonic() + seconds
        head = self._receive(_HEADER_SIZE, deadline)
        text_size, body_size = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
        if text_size + body_size > ANSWER_MAX:
            raise DecoderDied("The decoder answers nonsense.")
        data = self._receive(text_size + body_size, deadline)
        try:
            return _checked(json.loads(data[:text_size]), body_size), data[text_size:]
        except (ValueError, TypeError, KeyError) as error:
            raise DecoderDied("The decoder answers nonsense.") from error

    def _receive(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                piece = self._channel.recv(size - len(data))
            except TimeoutError:
                raise DecoderDied("Decoding took too long and was ended.") from None
            except OSError as error:
                raise DecoderDied("The decoder crashed.") from error
            if not piece:
                raise DecoderDied("The decoder crashed or reached its limits.")
            data += piece
        return bytes(data)


class Pool:
    """`size` workers at most; `seconds`: the time limit of a job; `waiting`: callers that may wait. `close()` it."""

    def __init__(self, size: int = WORKERS, seconds: float = JOB_SECONDS, waiting: int = WAITING_MAX) -> None:
        self._seconds = seconds
        self._slots = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._waiting_max = waiting
        self._waiting = 0
        self._closed = False
        self._told = False

    def decode(self, job: Job, picture: int) -> Sequence[bytes]:
        """The JPEGs of a picture whose bytes are in the memfd `picture`, by size. Raises BadPicture if it cannot be decoded,
        DecoderDied if that ended the worker, Busy if too many are waiting."""
        with self._slot():
            worker = self._take()
            try:
                made = worker.decode(job, picture, self._seconds)
            except BaseException as error:  # who met a broken picture does not see another one
                self._end(worker)
                if self._closed and isinstance(error, DecoderDied):
                    raise Busy(CLOSING) from error
                raise
            self._give_back(worker)
            return made

    def check(self) -> Sequence[str]:
        """Start a worker, if none is there. Returns the layers of its sandbox. Raises DecoderDied, Busy."""
        with self._slot():
            worker = self._take()
            self._give_back(worker)
            return list(worker.hello["layers"])

    def workers(self) -> Sequence[int]:
        """The pids of the workers that run."""
        with self._lock:
            return [each.pid for each in (*self._idle, *self._busy)]

    def trim(self, idle: float = IDLE_SECONDS) -> None:
        """End workers that had nothing to do for so many seconds."""
        now = time.monotonic()
        with self._lock:
            old = [each for each in self._idle if now - each.idle_since >= idle]
            self._idle = [each for each in self._idle if each not in old]
        for each in old:
            each.end()

    def close(self) -> None:
        """End all workers; who waits for one gets Busy, which is no failure of the picture."""
        with self._lock:
            self._closed = True
            workers = [*self._idle, *self._busy]
            self._idle = []
        for each in workers:
            each.end()

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        with self._lock:
            if self._waiting >= self._waiting_max:
                raise Busy("Many previews are being made; try again in a moment.")
            self._waiting += 1
        try:
            free = self._slots.acquire(timeout=PATIENCE)
        finally:
            with self._lock:
                self._waiting -= 1
        if not free:
            raise Busy("Many previews are being made; try again in a moment.")
        try:
            yield
        finally:
            self._slots.release()

    def _take(self) -> Worker:
        with self._lock:
            if self._closed:
                raise Busy(CLOSING)
            worker = self._idle.pop() if self._idle else None
            if worker is not None:
                self._busy.add(worker)
                return worker
        worker = Worker()
        with self._lock:
            closed, first, self._told = self._closed, not self._told, True
            self._busy.add(worker)
        if closed:
            self._end(worker)
            raise Busy(CLOSING)
        if first:
            log.info("Pictures are decoded in a process with %s", ", ".join(worker.hello["layers"]))
        return worker

    def _give_back(self, worker: Worker) -> None:
        worker.idle_since = time.monotonic()
        with self._lock:
            self._busy.discard(worker)
            if not self._closed and worker.jobs < JOBS_MAX:
                self._idle.append(worker)
                return
        worker.end()

    def _end(self, worker: Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
        worker.end()


def _checked(answer: Any, body_size: int) -> dict[str, Any]:
    """What a worker may say: it has met hostile bytes. Raises ValueError, TypeError, KeyError."""
    if not isinstance(answer, dict):
        raise TypeError("no object")
    if "error" in answer:
        words = str(answer["error"])[:200]
        return {"error": "".join(c if c.isprintable() else "?" for c in words)}
    if "layers" in answer:
        return {"layers": [str(each) for each in answer["layers"]]}
    sizes = [int(each) for each in answer["sizes"]]
    if len(sizes) != 3 or min(sizes) <= 0 or sum(sizes) != body_size:
        raise ValueError("sizes that are not those of the pictures")
    return {"sizes": sizes}
