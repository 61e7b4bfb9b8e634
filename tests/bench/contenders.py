"""Who is measured: our gateway, rclone, JuiceFS, s3fs, and plain S3 as the limit. One class per contender.

Owns: how each program is started, with its defaults as far as a server on loopback allows. Used by: __main__.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import time
import urllib.request
from pathlib import Path

from tests.bench.doors import Contender, DavDoor, MountDoor, Unavailable, fill_bucket, fill_bucket_tree, s3_client
from tests.bench.processes import BenchError, is_mounted, run, timed
from tests.s3_servers import S3Server, free_ports, tool


class OursMount(MountDoor):
    """`archivia-fs serve --mount`: both doors in one process, used through the mount."""

    name = "ours"
    close = "stored, verified and named in the catalog"

    @classmethod
    def version(cls) -> str:
        return _ours()

    @property
    def root(self) -> Path:
        return self.mountpoint / "Documents" / "archive"

    def start(self) -> None:
        command, environment = _serve(self.place.server, self.place.directory, free_ports(1)[0], self.mountpoint)
        self._mount(*command, **environment)


class OursDav(DavDoor):
    """The same process, used through WebDAV."""

    name = "ours"
    close = OursMount.close
    user = "admin:benchmark-only"

    @classmethod
    def version(cls) -> str:
        return _ours()

    @property
    def url(self) -> str:
        return self.url_of("Documents")

    def url_of(self, tree: str) -> str:
        """The collection in another tree of the drive."""
        return f"{super().url}{tree}/archive/"

    @property
    def _mountpoint(self) -> Path:
        return self.place.directory / "mnt-ours"

    def start(self) -> None:
        self._mountpoint.mkdir(exist_ok=True)
        port = free_ports(1)[0]
        command, environment = _serve(self.place.server, self.place.directory, port, self._mountpoint)
        self._serve(port, *command, **environment)

    def stop(self) -> None:
        super().stop()
        _unmount(self._mountpoint)

    @property
    def mounted(self) -> Path:
        """The same collection through the mount."""
        return self.mounted_of("Documents")

    def mounted_of(self, tree: str) -> Path:
        """The collection in another tree of the drive, through the mount."""
        return self._mountpoint / tree / "archive"

    def archivia(self, *words: str) -> str:
        """What another `archivia-fs` command of the same archive says; while this one is stopped. Raises BenchError."""
        command, environment = _ours_command(self.place.server, self.place.directory)
        return run([*command, *words], self.place.seconds, environment)

    def fill(self, folder: str, count: int) -> None:
        self._probe("create", str(self.mounted / folder), str(count))


class RcloneMount(MountDoor):
    """`rclone mount --vfs-cache-mode writes`."""

    name = "rclone"
    close = "on the local disk; uploaded from 5 s later on (--vfs-write-back), so `stored` is the comparable time"
    _control = 0

    @classmethod
    def version(cls) -> str:
        return _first_line("rclone", "version")

    def start(self) -> None:
        self._control = free_ports(1)[0]
        options = ["--vfs-cache-mode", "writes", "--rc", "--rc-no-auth", "--rc-addr", f"127.0.0.1:{self._control}"]
        self._mount(
            *_rclone(self.place.directory, "mount", self._remote, str(self.mountpoint), *options),
            **_keys(self.place.server),
        )

    @property
    def _remote(self) -> str:
        return f":s3:{self.place.server.bucket}"

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.place.directory / "cache", ignore_errors=True)

    def wait_stored(self) -> None:
        deadline = time.monotonic() + self.place.seconds
        while time.monotonic() < deadline:
            ask = urllib.request.Request(f"http://127.0.0.1:{self._control}/vfs/stats", method="POST")
            with urllib.request.urlopen(ask, timeout=10) as answer:
                cache = json.load(answer)["diskCache"]
            if cache["uploadsInProgress"] + cache["uploadsQueued"] == 0:
                return
            time.sleep(0.02)
        raise BenchError("rclone has not emptied its upload queue in time")

    def fill(self, folder: str, count: int) -> None:
        fill_bucket(self.place.server, folder, count)

    def fill_tree(self, folder: str, count: int) -> None:
        fill_bucket_tree(self.place.server, folder, count)


class RcloneDav(DavDoor):
    """`rclone serve webdav`."""

    name = "rclone"
    close = "stored (no cache by default; a PUT is streamed)"

    @classmethod
    def version(cls) -> str:
        return _first_line("rclone", "version")

    def start(self) -> None:
        port = free_ports(1)[0]
        remote = f":s3:{self.place.server.bucket}"
        command = _rclone(self.place.directory, "serve", "webdav", remote, "--addr", f"127.0.0.1:{port}")
        self._serve(port, *command, **_keys(self.place.server))

    def fill(self, folder: str, count: int) -> None:
        fill_bucket(self.place.server, folder, count)


class JuicefsMount(MountDoor):
    """`juicefs mount` with a SQLite catalog."""

    name = "juicefs"
    close = "stored"

    @classmethod
    def version(cls) -> str:
        return _first_line("juicefs", "version")

    def prepare(self) -> None:
        _juicefs_format(self.place.server, self.place.directory)

    def start(self) -> None:
        command = _juicefs(self.place.directory, "mount", str(self.mountpoint))
        self._mount(*command)

    def redirect(self, server: S3Server) -> None:
        super().redirect(server)
        bucket = f"{server.endpoint}/{server.bucket}"
        run([_installed("juicefs"), "config", _meta(self.place.directory), "--bucket", bucket, "--yes"], 60)

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.place.directory / "cache", ignore_errors=True)


class JuicefsDav(DavDoor):
    """`juicefs webdav` with a SQLite catalog."""

    name = "juicefs"
    close = "stored"

    @classmethod
    def version(cls) -> str:
        return _first_line("juicefs", "version")

    def prepare(self) -> None:
        _juicefs_format(self.place.server, self.place.directory)

    def start(self) -> None:
        port = free_ports(1)[0]
        self._serve(port, *_juicefs(self.place.directory, "webdav", f"127.0.0.1:{port}"))

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.place.directory / "cache", ignore_errors=True)

    def fill(self, folder: str, count: int) -> None:
        mount = JuicefsMount(self.place)
        try:
            mount.start()
            mount.fill(folder, count)
        finally:
            mount.stop()


class S3fs(MountDoor):
    """`s3fs` of Debian, without a cache."""

    name = "s3fs"
    close = "stored"

    @classmethod
    def version(cls) -> str:
        return "s3fs " + "".join(re.findall(r"V([\d.]+)", _first_line("s3fs", "--version")))

    def start(self) -> None:
        server, directory = self.place.server, self.place.directory
        keys = directory / "s3fs.keys"
        keys.touch(mode=0o600)
        keys.write_text(f"{server.access_key}:{server.secret_key}\n")
        options = ["use_path_request_style", f"url={server.endpoint}", f"passwd_file={keys}", f"tmpdir={directory}"]
        command = [_installed("s3fs"), server.bucket, str(self.mountpoint), "-f"]
        self._mount(*command, *(word for option in options for word in ("-o", option)))

    def fill(self, folder: str, count: int) -> None:
        fill_bucket(self.place.server, folder, count)

    def fill_tree(self, folder: str, count: int) -> None:
        fill_bucket_tree(self.place.server, folder, count)


class Direct(Contender):
    """The limit: boto3 and curl against the S3 server, with no gateway between."""

    name = "direct"
    door = "S3"
    close = "stored"

    @classmethod
    def version(cls) -> str:
        import boto3

        return f"boto3 {boto3.__version__}"

    def start(self) -> None:
        """Nothing runs."""

    def fill(self, folder: str, count: int) -> None:
        fill_bucket(self.place.server, folder, count)

    def write(self, source: Path, name: str) -> float:
        server = self.place.server
        keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
        return self._probe("upload", server.endpoint, server.bucket, name, str(source), **keys)

    def read(self, name: str, size: int) -> float:
        command = ["curl", "-sS", "--fail", "-o", "/dev/null", "-w", "%{size_download}", self.presigned(name)]
        seconds, output = timed(command, self.place.seconds)
        if int(output) != size:
            raise BenchError(f"short read: {output} bytes")
        return seconds

    def read_random(self, name: str, source: Path, count: int) -> float:
        return self._probe("random_http", self.presigned(name), str(source), str(count))

    def presigned(self, name: str) -> str:
        """A URL for an object, good for an hour."""
        with contextlib.closing(s3_client(self.place.server)) as client:
            parameters = {"Bucket": self.place.server.bucket, "Key": name}
            return client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=3600)


CONTENDERS: tuple[type[Contender], ...] = (
    OursMount,
    RcloneMount,
    JuicefsMount,
    S3fs,
    OursDav,
    RcloneDav,
    JuicefsDav,
    Direct,
)


def _installed(name: str) -> str:
    try:
        return tool(name)
    except FileNotFoundError:
        raise Unavailable(f"{name} is not installed") from None


def _first_line(name: str, argument: str) -> str:
    return run([_installed(name), argument], 60).splitlines()[0]


def _ours() -> str:
    try:
        run([sys.executable, "-m", "archivia_fs", "--help"], 60)
    except BenchError as error:
        raise Unavailable(f"archivia-fs does not start: {error}") from None
    return "archivia-fs"


def _serve(server: S3Server, directory: Path, port: int, mountpoint: Path) -> tuple[list[str], dict[str, str]]:
    command, environment = _ours_command(server, directory)
    return [*command, "serve", "--listen", f"127.0.0.1:{port}", "--mount", str(mountpoint)], environment


def _ours_command(server: S3Server, directory: Path) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "archivia_fs"], {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "ARCHIVIA_HOME": str(directory / "home"),
        "ARCHIVIA_S3_ENDPOINT": server.endpoint,
        "ARCHIVIA_S3_BUCKET": server.bucket,
        "ARCHIVIA_S3_ACCESS_KEY": server.access_key,
        "ARCHIVIA_S3_SECRET_KEY": server.secret_key,
        "ARCHIVIA_S3_REGION": server.region,
        "ARCHIVIA_ADMIN_PASSWORD": OursDav.user.partition(":")[2],
    }


def _rclone(directory: Path, *arguments: str) -> list[str]:
    return [_installed("rclone"), *arguments, "--config", "/dev/null", "--cache-dir", str(directory / "cache")]


def _keys(server: S3Server) -> dict[str, str]:
    """rclone's settings for an S3 remote without a configuration file."""
    return {
        "RCLONE_S3_PROVIDER": "SeaweedFS",
        "RCLONE_S3_ENDPOINT": server.endpoint,
        "RCLONE_S3_ACCESS_KEY_ID": server.access_key,
        "RCLONE_S3_SECRET_ACCESS_KEY": server.secret_key,
        "RCLONE_S3_REGION": server.region,
    }


def _juicefs_format(server: S3Server, directory: Path) -> None:
    bucket = f"{server.endpoint}/{server.bucket}"
    keys = {"ACCESS_KEY": server.access_key, "SECRET_KEY": server.secret_key}
    command = [_installed("juicefs"), "format", _meta(directory), "volume", "--storage", "s3", "--bucket", bucket]
    run(command, 60, keys)


def _juicefs(directory: Path, command: str, where: str) -> list[str]:
    """Defaults, but for what would touch the machine outside of `directory` or the network."""
    return [
        _installed("juicefs"), "--no-agent", command, _meta(directory), where, "--no-usage-report",
        "--metrics", f"127.0.0.1:{free_ports(1)[0]}", "--cache-dir", str(directory / "cache"),
        "--log", str(directory / "juicefs-own.log"),
    ]  # fmt: skip


def _meta(directory: Path) -> str:
    return f"sqlite3://{directory / 'meta.db'}"


def _unmount(mountpoint: Path) -> None:
    if is_mounted(mountpoint):
        run(["fusermount3", "-u", "-z", str(mountpoint)], 60)
