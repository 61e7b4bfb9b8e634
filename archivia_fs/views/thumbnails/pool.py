"""The gateway's side of the decoders: a few processes, started when they are needed and replaced when they die.

Owns: the worker processes and their time limits. Used by: maker. Threading: any thread; `decode` blocks its caller. How many
decode at a time is told by `turns`. No lock is held while a worker works.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from archivia_fs.errors import BadPicture, Busy
from archivia_fs.views.thumbnails import SIDES
from archivia_fs.views.thumbnails.failures import DecoderDied, Failure, NoPreview
from archivia_fs.views.thumbnails.ifd import TEXT_MAX, ColourSpace, PictureFacts, exif_date
from archivia_fs.views.thumbnails.jpeg import jpeg_head
from archivia_fs.views.thumbnails.parts import Part
from archivia_fs.views.thumbnails.turns import CLOSING, Turns
from archivia_fs.views.thumbnails.windows import Read, Windows

log = logging.getLogger(__name__)

START_SECONDS = 20.0  # 0.15 on an idle machine
JOB_SECONDS = 30.0  # of the clock; the worker itself has a limit of CPU time below that
JOBS_MAX = 200  # of one worker, so that no leak of a library grows
IDLE_SECONDS = 60.0  # then its memory is more useful elsewhere
ANSWER_MAX = 8 * 1024**2  # bytes; three JPEGs of at most 1200x1200 have 2

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

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """`kind`: "jpeg", "png", "webp", "tiff", "heif" or "raw". `orientation` 1..8, or 0: as the picture's own Exif data say."""

    kind: str
    orientation: int = 0
    colour_space: ColourSpace = ColourSpace.UNKNOWN


@dataclass(frozen=True, slots=True)
class Hello:
    """What a worker says of itself: the layers of its sandbox, and why it does not develop raw data ("": it does)."""

    layers: Sequence[str]
    no_raw: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """JPEGs with at most SIDES pixels, and what the decoder saw of the picture (no media type, no previews)."""

    pictures: Sequence[bytes]
    facts: PictureFacts


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
            self.hello = self._answer(START_SECONDS, _hello)
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def decode(self, job: Job, picture: int, seconds: float) -> Decoded:
        """A job's answer. Raises NoPreview, DecoderDied."""
        self.jobs += 1
        text = json.dumps({"kind": job.kind, "orientation": job.orientation, "colour_space": job.colour_space}).encode()
        head = len(text).to_bytes(4, "big") + bytes(4)
        try:
            socket.send_fds(self._channel, [head], [picture])
            self._channel.sendall(text)
        except OSError as error:
            raise DecoderDied("The decoder was gone.") from error
        return self._answer(seconds, _decoded)

    def end(self) -> None:
        """Kill it, if it still runs."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _answer(self, seconds: float, understand: Callable[[Any, bytes], T]) -> T:
        """One message. The worker has met hostile bytes, so whatever is not as expected is nonsense."""
        deadline = time.monotonic() + seconds
        head = self._receive(_HEADER_SIZE, deadline)
        text_size, body_size = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
        if text_size + body_size > ANSWER_MAX:
            raise DecoderDied("The decoder answers nonsense.")
        data = self._receive(text_size + body_size, deadline)
        try:
            return understand(json.loads(data[:text_size]), data[text_size:])
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise DecoderDied("The decoder answers nonsense.") from error

    def _receive(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                piece = self._channel.recv(size - len(data))
            except TimeoutError:
                raise DecoderDied("Decoding took too long and was ended.", Failure.LIMITS) from None
            except OSError as error:
                raise DecoderDied("The decoder crashed.") from error
            if not piece:
                raise DecoderDied("The decoder crashed or reached its limits.")
            data += piece
        return bytes(data)


class Pool:
    """As many workers as `turns` has turns; whoever decodes has one. `seconds`: the time limit of a job. `close()` it."""

    def __init__(self, turns: Turns | None = None, seconds: float = JOB_SECONDS) -> None:
        self.turns = turns or Turns()
        self._seconds = seconds
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._closed = False
        self._told = False

    def decode(self, job: Job, picture: int) -> Decoded:
        """The picture whose bytes are in the memfd `picture`. Raises NoPreview if it cannot be decoded, DecoderDied if that ended
        the worker, Busy while closing."""
        worker = self._take()
        try:
            made = worker.decode(job, picture, self._seconds)
        except NoPreview as error:  # who met a broken picture does not see another one
            self._end(worker)
            if self._closed and isinstance(error, DecoderDied):
                raise Busy(CLOSING) from error
            raise
        except BaseException:
            self._end(worker)
            raise
        self._give_back(worker)
        return made

    def check(self) -> Hello:
        """Start a worker, if none is there. Raises DecoderDied, Busy."""
        worker = self._take()
        self._give_back(worker)
        return worker.hello

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
        """End all workers; who decodes or waits for a turn gets Busy, which is no failure of the picture."""
        self.turns.close()
        with self._lock:
            self._closed = True
            workers = [*self._idle, *self._busy]
            self._idle = []
        for each in workers:
            each.end()

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
            log.info("Pictures are decoded in a process with %s", ", ".join(worker.hello.layers))
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


def _hello(answer: Any, body: bytes) -> Hello:
    if "error" in answer:
        raise DecoderDied(f"The decoder does not start: {_words(answer['error'])}.")
    return Hello([_words(each) for each in answer["layers"]], _words(answer["no_raw"]))


def _decoded(answer: Any, body: bytes) -> Decoded:
    if "error" in answer:
        raise NoPreview(f"It cannot be decoded ({_words(answer['error'])}).", Failure(answer["failure"]))
    sizes = [_number(each) for each in answer["sizes"]]
    if len(sizes) != len(SIDES) or min(sizes) <= 0 or sum(sizes) != len(body):
        raise ValueError("sizes that are not those of the pictures")
    pictures, at = [], 0
    for side, size in zip(SIDES, sizes, strict=True):
        pictures.append(_checked(body[at : at + size], side))
        at += size
    told = answer["facts"]
    make, model, taken = (_words(told[name]).strip() for name in ("make", "model", "taken"))
    return Decoded(
        pictures, PictureFacts("", make, model, exif_date(taken), _number(told["width"]), _number(told["height"]))
    )


def _checked(picture: bytes, side: int) -> bytes:
    """It goes to browsers and Finders, so it is a JPEG of the size it should have, at least by its head."""
    try:
        head = jpeg_head(Windows(lambda offset, size: picture[offset : offset + size], len(picture)), 0, len(picture))
    except BadPicture as error:
        raise ValueError("no JPEG") from error
    if head is None or max(head.width, head.height) > side or not picture.endswith(b"\xff\xd9"):
        raise ValueError("no JPEG, or a larger one")
    return picture


def _number(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise ValueError("no number")
    return value


def _words(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no words")
    return "".join(c if c.isprintable() else "?" for c in value[:TEXT_MAX])
