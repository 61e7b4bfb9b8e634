"""The real program in processes of its own, on one S3 server of the test module.

Owns: nothing; processes belong to the tests that start them. Used by: the tests of the command line.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.s3_servers import S3Server

PROGRAM = (sys.executable, "-m", "archivia_fs")
PASSWORD = "correct horse"  # of throw-away archives
ROOT = Path(__file__).parents[2]
SECONDS = 90

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Program:
    """`archivia-fs` with a home and a store (None: the embedded one). The environment of the test run sets nothing of it."""

    home: Path
    server: S3Server | None
    warm: subprocess.Popen[str] | None = None
    password: str = PASSWORD

    def environment(self, **changes: str) -> Mapping[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("ARCHIVIA_")}
        own |= {"ARCHIVIA_HOME": str(self.home), "ARCHIVIA_ADMIN_PASSWORD": self.password, "PYTHONPATH": str(ROOT)}
        if self.server is not None:
            own |= {
                "ARCHIVIA_S3_ENDPOINT": self.server.endpoint,
                "ARCHIVIA_S3_BUCKET": self.server.bucket,
                "ARCHIVIA_S3_ACCESS_KEY": self.server.access_key,
                "ARCHIVIA_S3_SECRET_KEY": self.server.secret_key,
            }
        return {**own, **changes}

    def begin(self) -> Program:
        """Make its archive: only some commands do."""
        done = self.run("collection", "add", "first")
        assert done.returncode == 0, done.stderr
        return self

    def run(self, *arguments: str | Path, **changes: str) -> Done:
        """To its end, in a fork of a process that has loaded the libraries: ten times as fast as from the start."""
        if self.warm is None:
            return self.wrapped((), *arguments, **changes)
        with TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            request = {
                "argv": [*map(str, arguments)], "env": self.environment(**changes), "out": str(out), "err": str(err)
            }  # fmt: skip
            assert self.warm.stdin is not None
            assert self.warm.stdout is not None
            self.warm.stdin.write(json.dumps(request) + "\n")
            self.warm.stdin.flush()
            code = int(self.warm.stdout.readline())
            done = Done(request["argv"], code, out.read_text(errors="replace"), err.read_text(errors="replace"))
        assert "Traceback" not in done.stderr + done.stdout
        return done

    def wrapped(
        self, wrapper: Sequence[str], *arguments: str | Path, program: Sequence[str] = PROGRAM, typed: str = "",
        **changes: str,
    ) -> Done:  # fmt: skip
        """From the start, by another program (unshare(1) for instance), with `typed` on standard input."""
        done = subprocess.run(
            [*wrapper, *program, *map(str, arguments)],
            env=self.environment(**changes),
            input=typed,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr + done.stdout
        return done

    def start(self, *arguments: str | Path, **changes: str) -> subprocess.Popen[str]:
        """From the start, and go on with the test; standard error goes to standard output."""
        return subprocess.Popen(
            [*PROGRAM, *map(str, arguments)],
            env=self.environment(**changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextlib.contextmanager
def warm() -> Iterator[subprocess.Popen[str]]:
    """For `Program.warm`."""
    command = [sys.executable, "-m", "tests.app.warm"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def told(done: Done, code: int, *words: str) -> None:
    """A message on standard error, with these words in it, and this exit code."""
    assert done.returncode == code, done.stderr
    message = " ".join(done.stderr.split())
    assert message
    for word in words:
        assert word in message
