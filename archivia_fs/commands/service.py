"""A program that serves: signals, what the service manager hears, and going to the background.

Owns: the meaning of SIGINT, SIGTERM and SIGHUP; sd_notify(3); the daemon's fork and its log. Used by: doors.
Threading: the main thread, before and while the doors run.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

LOG_BYTES = 1 << 20  # of one daemon's log; as many again for each of the older ones
LOG_OLDER = 3
CLEANING_SECONDS = 30  # stopping the embedded store may take 5 of them, and 10 more if its disk hangs
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

log = logging.getLogger(__name__)


class Stop:
    """Before `serving` a signal interrupts (KeyboardInterrupt). Then the first asks to stop, the second interrupts, and any
    further one is ignored, so that it cannot hurt the cleaning up; which may take CLEANING_SECONDS, then the process ends.

    Nothing here takes a lock, and the waiting is on a pipe that the interpreter's own handler writes to: a signal that comes
    while threading.Event.wait, or select(2), is about to begin would be noticed only when something else ends the waiting."""

    def __init__(self) -> None:
        self._reader, self.wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.serving = False
        self._asked = False
        self._heard = False
        self._interrupted = False

    def ask(self) -> None:
        """From any thread, and from signal handlers."""
        self._asked = True
        with contextlib.suppress(BlockingIOError):  # full: it is readable anyway
            os.write(self.wakeup, b"\0")

    def wait(self) -> None:
        """Until somebody has asked."""
        while not self._asked:
            select.select([self._reader], [], [])
            os.read(self._reader, 4096)

    def hear(self, _number: int, _frame: FrameType | None) -> None:
        if self.serving and not self._heard:
            self._heard = True
            self.ask()
        elif not self._interrupted:
            self._interrupted = True
            signal.signal(signal.SIGALRM, lambda _number, _frame: os._exit(130))
            signal.alarm(CLEANING_SECONDS)
            raise KeyboardInterrupt


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """For the length of the block the signals mean what Stop says."""
    stop = Stop()
    before = {number: signal.signal(number, stop.hear) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(stop.wakeup, warn_on_full_buffer=False)
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)


def notify(*lines: str) -> None:
    """Tell the service manager, if there is one: sd_notify(3), "READY=1". Never fails: nobody depends on it being heard."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # Linux' abstract namespace, unix(7)
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(1.0)
        sender.sendto("\n".join(lines).encode(), address)


def in_background(log_file: Path) -> Callable[[], None]:
    """Go on in a child process, of which the caller's terminal sees everything until it calls what this returns. Then the caller's
    process ends with 0, and what is told goes to `log_file`. A child that ends sooner ends the caller with its exit code.

    Call it while there is one thread. The caller's signals reach the child while it starts.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(writer)
        _leave(child, reader)
    os.close(reader)
    os.setsid()  # the terminal's Ctrl-C and hang-up are no longer ours

    def ready() -> None:
        log_to(log_file)
        os.write(writer, b"1")
        os.close(writer)

    return ready


def _leave(child: int, reader: int) -> None:
    """The caller's end: with 0 once the child is ready, else as the child ends."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in _SIGNALS:
        signal.signal(number, pass_on)
    ready = os.read(reader, 1)  # b"" if the child ended
    code = 0 if ready else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(code if code >= 0 else 128 - code)  # as a shell tells of a signal


class _Log(logging.handlers.RotatingFileHandler):
    """A bounded log that standard output and error go to as well: what C libraries and the interpreter print is in it."""

    def doRollover(self) -> None:
        super().doRollover()
        self.take_over()

    def take_over(self) -> None:
        assert self.stream is not None  # it is opened at once
        for descriptor in (1, 2):
            os.dup2(self.stream.fileno(), descriptor)


def log_to(file: Path) -> None:
    """From now on everything that is told goes there, in at most LOG_OLDER + 1 files of LOG_BYTES."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = _Log(file, maxBytes=LOG_BYTES, backupCount=LOG_OLDER, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    for each in list(root.handlers):
        root.removeHandler(each)
    root.addHandler(handler)
    sys.stdout.flush()
    sys.stderr.flush()
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    handler.take_over()
