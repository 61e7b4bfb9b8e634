"""SeaweedFS as a child process: its command line, its files, its certificates, whether it runs and answers.

Owns: everything that is peculiar to `weed mini` 4.48. Used by: embedded. Threading: plain functions.

Besides S3, weed listens on ports that know no S3 keys. They are closed to everybody who cannot read our files:
- gRPC of master, volume, filer, S3 and admin asks for a client certificate (security.toml, `[grpc]`);
- HTTP of master and filer is off (`-disableHttp`). Where it is on, one GET of /col/delete?collection=archive deletes all;
- HTTP of volumes asks for JSON Web Tokens to read and to write (`[jwt.signing]`), which only gRPC hands out;
- its Unix sockets have mode 0700 (umask). Those in /tmp cannot be moved; who puts a false one there has no certificate.
The admin server cannot be left out of `weed mini` (`weed server` has none, but takes 18 s to stop). Its user interface
is off, and its worker, which could convert full volumes to erasure coding, never gets in: it has no certificate. The
master reclaims space without it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from archivia_fs.errors import StoreUnavailable

HTTP_PORTS = ("master", "volume", "filer", "s3", "admin")
PORTS = (*HTTP_PORTS, *(f"{name}.grpc" for name in HTTP_PORTS))
LOG = "weed.log"
OPENSSL_SECONDS = 30.0
CERTIFICATE_DAYS = 3650  # made anew at each start
TOKEN_SECONDS = 600  # life of a token; reading a part through a slow client takes no longer
ANSWER_SECONDS = 1.0
VOLUMES = 4  # written side by side: eight uploads at once took 0.7 of the time that they take with one (2026-11)
LOG_MIB = 8  # of each of its own log files; two of each level are kept
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp (linux/include/net/tcp_states.h)
_TOKENS = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
_GRPC = ("master", "volume", "filer", "s3", "admin", "client")  # without "worker"
_UNUSED = ("volume", "admin", "notification", "credential", "replication", "shell")


def programs() -> tuple[str, str]:
    """Where weed and openssl are. Raises StoreUnavailable: which is missing, and what to do."""
    beside = Path(sys.executable).with_name("weed")
    weed = str(beside) if beside.exists() else shutil.which("weed")
    if weed is None:
        raise StoreUnavailable("The embedded store's program `weed` is missing: run `make setup`, or name your own S3.")
    openssl = shutil.which("openssl")
    if openssl is None:
        raise StoreUnavailable(
            "The program `openssl` is missing, which makes the embedded store's certificate: run `make setup`, "
            "install the package openssl, or name your own S3."
        )
    return weed, openssl


def free_ports() -> dict[str, int]:
    """A free TCP port of loopback for each of PORTS. Another process may take one before weed does."""
    sockets = {name: socket.socket() for name in PORTS}
    try:
        for each in sockets.values():
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in sockets.items()}
    finally:
        for each in sockets.values():
            each.close()


def write_config(directory: Path, access_key: str, secret_key: str) -> None:
    """Keys, tokens, certificate. Raises OSError, StoreUnavailable (no openssl)."""
    identity = {
        "name": "archivia",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    write_private(directory / "s3.json", json.dumps({"identities": [identity]}))
    _make_certificate(directory)
    tokens = [
        f'[{name}]\nkey = "{secrets.token_hex(32)}"\nexpires_after_seconds = {TOKEN_SECONDS}\n' for name in _TOKENS
    ]
    grpc = [f'[grpc.{name}]\ncert = "grpc.crt"\nkey = "grpc.key"\n' for name in _GRPC]
    write_private(directory / "security.toml", "".join(['[grpc]\nca = "grpc.crt"\n', *grpc, *tokens]))
    # weed looks here first and then in /etc/seaweedfs, where another SeaweedFS of this machine may have its settings.
    write_private(directory / "filer.toml", '[leveldb2]\nenabled = true\ndir = "data/filerldb2"\n')
    write_private(directory / "master.toml", f"[master.volume_growth]\ncopy_1 = {VOLUMES}\n")
    for name in _UNUSED:
        write_private(directory / f"{name}.toml", "")


def launch(directory: Path, ports: dict[str, int], inherit: int) -> subprocess.Popen[bytes]:
    """Start it; the descriptor `inherit` stays open in it while it lives. Raises OSError, StoreUnavailable (no weed)."""
    for name in ("data", "log"):
        (directory / name).mkdir(mode=0o700, exist_ok=True)
    flags = [
        f"-{name.removesuffix('.grpc')}.port{'.grpc' if name.endswith('.grpc') else ''}={port}"
        for name, port in ports.items()
    ]
    command = [
        programs()[0], "-logdir=log", f"-log_max_size_mb={LOG_MIB}", "-log_max_files=2", "-alsologtostderr=false",
        "-stderrthreshold=ERROR", "mini", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *flags, "-disableHttp",
        "-master.telemetry=false", "-volume.preStopSeconds=0", "-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock",
        "-s3.config=s3.json", "-s3.iam=false", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-admin.ui=false", "-webdav=false",
    ]  # fmt: skip
    with os.fdopen(os.open(directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
        return subprocess.Popen(
            command,
            cwd=directory,
            # Nothing of ours: weed takes keys from AWS_*, settings from WEED_* and from the home.
            env={"PATH": os.defpath, "HOME": str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(inherit,),
            umask=0o077,
            start_new_session=True,  # Ctrl-C at the terminal is for the gateway, which stops the store in its turn
        )


def find(directory: Path) -> int | None:
    """The process id of the weed that runs in `directory`, as the kernel tells it (proc(5)); None if none does."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").samefile(directory) and b"\0mini\0" in (process / "cmdline").read_bytes():
                return int(process.name)
        except OSError:  # it ended, or is another user's
            continue
    return None


def serves(pid: int, port: int) -> bool:
    """Whether `pid`, and no stranger who took the port, answers S3 requests on it."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == _LISTEN}
    try:
        if not any(each.readlink().name in sockets for each in Path(f"/proc/{pid}/fd").iterdir()):
            return False
        with socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return connection.recv(12).endswith(b"200")
    except OSError:
        return False


def sweep_sockets(ports: dict[str, int]) -> None:
    """Remove the sockets that a weed which ended left in /tmp; one on which somebody listens stays."""
    for port in ports.values():
        for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - weed's choice
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(path))
                except ConnectionRefusedError:
                    _unlink_ours(path)
                except OSError:
                    continue


def last_words(directory: Path) -> str:
    """The end of its log in one line."""
    try:
        lines = (directory / LOG).read_text(errors="replace").splitlines()
    except OSError as error:
        return f"(no log: {error.strerror})"
    return " / ".join(line.strip() for line in lines if line.strip()[:1].isalnum())[-600:] or "(an empty log)"


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only. Raises OSError."""
    fresh = path.with_name(f"{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as sink:
        sink.write(text)
        sink.flush()
        os.fsync(descriptor)
    fresh.replace(path)


def _make_certificate(directory: Path) -> None:
    """One certificate, its own authority, for both ends of weed's calls to itself: who has its key is in."""
    command = [
        programs()[1], "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-subj", "/CN=archivia-fs", "-days", str(CERTIFICATE_DAYS), "-keyout", "grpc.key", "-out", "grpc.crt",
    ]  # fmt: skip
    try:
        subprocess.run(
            command, cwd=directory, check=True, capture_output=True, text=True, timeout=OPENSSL_SECONDS, umask=0o077
        )
    except subprocess.CalledProcessError as error:
        raise StoreUnavailable(
            f"`openssl` made no certificate for the embedded store: {error.stderr.strip()}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise StoreUnavailable(f"`openssl` made no certificate within {OPENSSL_SECONDS:.0f} s.") from error


def _unlink_ours(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # another user's, who got that port later
        return
