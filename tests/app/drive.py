"""The program as a person runs it: a gateway in a process of its own, on its embedded default."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

PROGRAM = (sys.executable, "-m", "archivia_fs")
PASSWORD = "correct horse"  # of a throw-away archive


class Drive:
    """`archivia-fs serve --mount` in a process of its own."""

    def __init__(self, directory: Path, program: Sequence[str] = PROGRAM) -> None:
        self.program = program
        self.home, self.mount = directory / "home", directory / "mnt"
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None

    def start(self, *more: str) -> None:
        self.process = subprocess.Popen(
            [*self.program, "serve", f"--listen=127.0.0.1:{self.port}", f"--mount={self.mount}", *more],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "Copy in" in line:
                return
        raise AssertionError(f"serve ended with {self.process.wait()}")

    def end(self, how: signal.Signals = signal.SIGINT) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def clean(self) -> None:
        """After a test: nothing runs and nothing is mounted, however it ended."""
        if self.process is not None and self.process.poll() is None:
            self.end()
        subprocess.run(["umount", "-l", str(self.mount)], check=False, capture_output=True)
        self.run("store", "stop")

    def get(self, path: str, **headers: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        token = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        with urllib.request.urlopen(request, timeout=60) as response:
            body: bytes = response.read()
        return body

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments], env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "ARCHIVIA_HOME": str(self.home), "ARCHIVIA_ADMIN_PASSWORD": PASSWORD}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
