"""The program with its libraries loaded, for tests that run it dozens of times: each run is a fork of this process.

Owns: the loop. Used by: program.py, which starts it as `python -m tests.app.warm`. Threading: one thread, so that forking is safe.
Each line of standard input is a run: JSON with argv, env and the files for standard output and error. The answer is its exit code.
"""

from __future__ import annotations

import gc
import json
import os
import sys

import archivia_fs.app
import archivia_fs.commands.importer
import archivia_fs.vfs.safety  # noqa: F401
import fuse.mount  # noqa: F401
import webdav.server  # noqa: F401
from archivia_fs.cli import main


def serve() -> None:
    """Until the end of standard input."""
    gc.freeze()  # or the first collection of each child would copy the whole heap
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def run(argv: list[str], env: dict[str, str], out: str, err: str) -> None:
    """In the child: as if the program had just been started."""
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["archivia-fs", *argv]
    main()


if __name__ == "__main__":
    serve()
