"""What somebody inside the sandbox might try, as a program: test_sandbox runs it and reads what came of each trial.

Arguments: where the project is; the layers to put on, with "+" between; the number of a process that is not to be touched; a file
and a folder that are not either; a port and an abstract socket where somebody listens; the names of the trials, "" for all.
"""

# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH115, PTH116, PTH123, PTH208, PTH211, SIM115
from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from archivia_fs.views.thumbnails import sandbox, seccomp

LAYERS, OTHER, PATH, FOLDER, PORT, SOCKET = sys.argv[2].split("+"), int(sys.argv[3]), *sys.argv[4:8]
MINE = os.open(PATH, os.O_RDONLY)
QUEUED = bytes(8) + b"\xff" * 4 + bytes(116)  # siginfo_t with SI_QUEUE
NAME, LIBC = PATH.encode(), ctypes.CDLL(None, use_errno=True)


def call(on_x86: int, on_arm: int, *arguments: int | bytes) -> Callable[[], None]:
    """A call by its number."""

    def trial() -> None:
        ctypes.set_errno(0)
        number = on_x86 if platform.machine() == "x86_64" else on_arm
        given = (each if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments)
        if LIBC.syscall(ctypes.c_long(number), *given) < 0:
            raise OSError(ctypes.get_errno(), "")

    return trial


def connect(address: tuple[str, int] | str, family: socket.AddressFamily) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.connect(address)


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def access() -> None:
    if not os.access(PATH, os.F_OK):
        raise PermissionError(errno.EPERM, "")


TRIALS: dict[str, Callable[[], object]] = {
    # files
    "read a file": lambda: open(PATH),
    "write a file": lambda: open(PATH, "a"),
    "make a file": lambda: open(f"{FOLDER}/new", "x"),
    "list a folder": lambda: os.listdir(FOLDER),
    "make a folder": lambda: os.mkdir(f"{FOLDER}/folder"),
    "make a link": lambda: os.symlink("a", f"{FOLDER}/symlink"),
    "make a fifo": lambda: os.mkfifo(f"{FOLDER}/fifo"),
    "truncate": lambda: os.truncate(PATH, 0),
    "look at its maps": lambda: open("/proc/self/maps"),
    "chmod": lambda: os.chmod(PATH, 0o777),
    "fchmod": lambda: os.fchmod(MINE, 0o777),
    "fchmodat2": call(452, 452, -100, NAME, 0o777, 0),
    "chown": lambda: os.chown(PATH, os.getuid(), os.getgid()),
    "getxattr": lambda: os.getxattr(PATH, "user.x"),
    "setxattr": lambda: os.setxattr(PATH, "user.x", b"x"),
    "fsetxattr": lambda: os.setxattr(MINE, "user.x", b"x"),
    "removexattr": lambda: os.removexattr(PATH, "user.x"),
    "setxattrat": call(463, 463, -100, NAME, 0, b"user.x", bytes(16), 16),
    "removexattrat": call(466, 466, -100, NAME, 0, b"user.x"),
    "utimensat": call(280, 88, -100, NAME, bytes(32), 0),
    "futimens": call(280, 88, MINE, 0, bytes(32), 0),
    "file_setattr": call(469, 469, -100, NAME, bytes(24), 24, 0),
    "stat": lambda: os.stat(PATH),
    "access": access,
    "readlink": lambda: os.readlink("/proc/self/exe"),
    "chdir": lambda: os.chdir("/"),
    "mount": call(165, 40, b"none", b"/tmp", b"tmpfs", 0, 0),
    "memfd_create": lambda: os.memfd_create("x"),
    "io_uring": call(425, 425, 1, bytes(120)),
    # network
    "open a socket": lambda: socket.socket(),
    "make a socket pair": lambda: socket.socketpair(),
    "connect": lambda: connect(("127.0.0.1", int(PORT)), socket.AF_INET),
    "connect to a name": lambda: connect(f"\0{SOCKET}", socket.AF_UNIX),
    # programs
    "fork": fork,
    "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    "replace itself": lambda: os.execv("/bin/true", ["true"]),
    "clone into a namespace": call(56, 220, 0x40010F00, 0, 0, 0, 0),
    "unshare": call(272, 97, 0x10000000),
    # other processes
    "kill": lambda: os.kill(OTHER, 0),
    "tgkill": call(234, 131, OTHER, OTHER, 0),
    "tkill": call(200, 130, OTHER, 0),
    "rt_sigqueueinfo": call(129, 138, OTHER, 0, QUEUED),
    "rt_tgsigqueueinfo": call(297, 240, OTHER, OTHER, 0, QUEUED),
    "pidfd_open": call(434, 434, OTHER, 0),
    "pidfd_send_signal": call(424, 424, MINE, 0, 0, 0),
    "send signals of a descriptor": lambda: fcntl.fcntl(MINE, fcntl.F_SETOWN, OTHER),
    "limit another": lambda: resource.prlimit(OTHER, resource.RLIMIT_CORE, (0, 0)),
    "look at its limits": lambda: resource.prlimit(OTHER, resource.RLIMIT_CORE),
    "setpriority": lambda: os.setpriority(os.PRIO_PROCESS, OTHER, 19),
    "setpriority of all": lambda: os.setpriority(os.PRIO_USER, 0, 19),
    "sched_setscheduler": lambda: os.sched_setscheduler(OTHER, os.SCHED_BATCH, os.sched_param(0)),
    "sched_setaffinity": lambda: os.sched_setaffinity(OTHER, [0]),
    "ioprio_set": call(251, 30, 1, OTHER, 0),
    "ptrace": call(101, 117, 16, OTHER, 0, 0),
    "process_vm_readv": call(310, 270, OTHER, bytes(16), 0, bytes(16), 0, 0),
    "process_madvise": call(440, 440, MINE, 0, 0, 0, 0),
    "kcmp": call(312, 272, OTHER, OTHER, 0, 0, 0),
    # what all processes have in common
    "shmget": call(29, 194, 0, 4096, 0o1600),
    "msgget": call(68, 186, 0, 0o1600),
    "semget": call(64, 190, 0, 1, 0o1600),
    "mq_open": call(240, 180, b"archivia-test", 0o102, 0o600, 0),
    "keyctl": call(250, 219, 0, -3, 0),
    "bpf": call(321, 280, 0, bytes(120), 120),
    "perf_event_open": call(298, 241, bytes(120), 0, -1, -1, 0),
    "userfaultfd": call(323, 282, 0),
    # what younger C libraries try
    "a call that is not known yet": call(1000, 1000, 0),
    "clone3": call(435, 435, bytes(88), 88),
    # last, as they move files
    "link": lambda: os.link(PATH, f"{PATH}.link"),
    "remove": lambda: os.unlink(f"{PATH}.spare"),
    "rename": lambda: os.rename(PATH, f"{PATH}.moved"),
}


def outcome(trial: Callable[[], object]) -> str:
    try:
        trial()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "done"


def main() -> None:
    assert sandbox.give_up_privileges(LIBC)
    layers = {"landlock": sandbox.landlock, "seccomp": seccomp.install}
    missing = [each for each in LAYERS if each and not layers[each](LIBC)]
    found = {name: outcome(TRIALS[name]) for name in sys.argv[8].split(",") if name} or {
        name: outcome(trial) for name, trial in TRIALS.items()
    }
    thread = threading.Thread(target=lambda: None)  # its own threads and limits are its own
    thread.start()
    thread.join()
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    os.write(1, json.dumps([missing, found]).encode())


if __name__ == "__main__":
    assert Path(PATH).is_file()
    main()
