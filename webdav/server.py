"""The WebDAV server: cheroot's threads, wsgidav's application, the drive behind them.

Owns: the listening socket, the worker threads, the life of the door, and the last word on every request (authentication first,
one response for every error). Used by: app. Threading: start() and stop() from one thread; requests in the pool's. A connection has
a thread only from the first byte of a request to the last of its answer.
"""

from __future__ import annotations

import contextlib
import errno
import io
import ipaddress
import logging
import os
import socket
import ssl
import threading
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter
from wsgidav.dav_error import DAVError
from wsgidav.mw.base_mw import BaseMiddleware
from wsgidav.wsgidav_app import WsgiDAVApp

from archivia_fs.errors import ConfigError, FsError
from archivia_fs.types import Caller
from archivia_fs.vfs.vfs import Vfs
from webdav.auth import authenticate
from webdav.connection import Body, BrokenBody, Connection, Gateway, WorkerPool
from webdav.convert import error_response, fail, url_path
from webdav.methods import Response, StartResponse
from webdav.provider import CALLER, VfsProvider
from webdav.resources import Environ
from webdav.slots import Slots
from webdav.transfer import DriveServer

log = logging.getLogger(__name__)

HEADER_MAX = 64 * 1024  # bytes of request line and headers
SMALL_BODY_MAX = 1024**2  # bytes of XML
QUEUE = 128  # connections that wait for a thread; more get 503
IDLE_MAX = 512  # connections that say nothing at the moment; they cost a descriptor each, of 1,024


@dataclass(frozen=True, slots=True)
class WebDavOptions:
    """`port` 0 lets the system choose. `transfers` (GETs, PUTs, previews being made) run at once, `waiting` more wait a while for
    their turn; `threads` are for all else. A transfer may pass `timeout` seconds without any byte from or to its client. With
    `certificate` and `private_key` (PEM files) the server speaks TLS. `insecure_basic` allows passwords in clear beyond this
    machine."""

    host: str = "127.0.0.1"
    port: int = 8080
    threads: int = 16
    transfers: int = 48  # 1 MiB of buffers each
    waiting: int = 32
    timeout: float = 120.0
    certificate: Path | None = None
    private_key: Path | None = None
    insecure_basic: bool = False


class WebDavServer:
    """One listening WebDAV door over a Vfs."""

    def __init__(self, vfs: Vfs, options: WebDavOptions | None = None) -> None:
        """Raises ConfigError for options that cannot be or would send passwords in clear."""
        self._options = options = options or WebDavOptions()
        if (options.certificate is None) != (options.private_key is None):
            raise ConfigError("TLS needs both a certificate and its private key; give both or none.")
        self._tls = options.certificate is not None
        if not (self._tls or options.insecure_basic or _is_loopback(options.host)):
            raise ConfigError(
                f"Listening on {options.host} would send passwords in clear over the network. Give a certificate and key, "
                "listen on 127.0.0.1 behind a proxy with TLS, or say --insecure-basic if the network is trusted."
            )
        self._app = WebDavApp(vfs)
        self._server: wsgi.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where clients connect, "http://127.0.0.1:8080/". Known after start()."""
        assert self._server is not None, "start() first"
        host, port = self._server.bind_addr
        return f"{'https' if self._tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/"

    def start(self) -> None:
        """Bind and serve in the background. Raises ConfigError if the address or the certificate cannot be used."""
        options = self._options
        try:
            server = _HttpServer((options.host, options.port), self._app, options)
            if options.certificate is not None:
                server.ssl_adapter = _TlsAdapter(str(options.certificate), str(options.private_key))
            server.prepare()
        except OSError as error:
            raise ConfigError(_start_message(options, error)) from error
        self._server = server
        self._thread = threading.Thread(target=server.serve, name="webdav-accept", daemon=True)
        self._thread.start()

    def refuse_uploads(self) -> None:
        """From now on a PUT that begins gets 503; those that have begun go on, and so does all else. From any thread."""
        self._app.refuses_uploads = True

    def stop(self, timeout: float = 30.0) -> None:
        """Accept nothing more, give running requests `timeout` seconds, then cut their connections. Idempotent."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown_timeout = max(timeout, 0.001)
        stopper = threading.Thread(target=self._server.stop, name="webdav-stop", daemon=True)
        stopper.start()
        stopper.join(timeout + 10)  # a request that hangs in the store even without its connection is left behind
        if stopper.is_alive():
            log.warning("a WebDAV request did not end in time; it is abandoned")
        self._thread.join(5)
        self._thread = None


class WebDavApp(WsgiDAVApp):
    """wsgidav's application with another front: strict paths, our authentication, one answer for every error."""

    def __init__(self, vfs: Vfs) -> None:
        logging.getLogger("wsgidav").setLevel(logging.WARNING)  # it tells of every OPTIONS otherwise
        provider = VfsProvider(vfs)
        super().__init__(  # type: ignore[no-untyped-call]
            {
                "provider_mapping": {"/": provider},
                "lock_storage": False,
                "property_manager": None,
                "verbose": 1,
                "logging": {"enable": False},  # or wsgidav would install handlers of its own
                "http_authenticator": {"accept_basic": False},
                "middleware_stack": [_Methods],
            }
        )
        provider.set_lock_manager(provider.locks)  # type: ignore[no-untyped-call]  # the constructor above took it away
        self.refuses_uploads = False
        self._drive = provider
        self._vfs = vfs
        self._uid, self._gid = os.getuid(), os.getgid()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Response:
        try:
            user = authenticate(self._vfs, environ.get("HTTP_AUTHORIZATION"))
            environ["wsgidav.auth.user_name"] = user
            environ[CALLER] = Caller(user, self._uid, self._gid, has_tokens=True)
            path = "*" if environ["REQUEST_URI"] == "*" else url_path(environ["REQUEST_URI"])
            environ["PATH_INFO"] = path
            environ["wsgidav.app"] = self
            environ["wsgidav.config"] = self.config
            environ["wsgidav.verbose"] = self.verbose
            environ["wsgidav.provider"] = self._drive
            if environ["REQUEST_METHOD"] != "PUT":
                _read_small_body(environ)
            elif self.refuses_uploads:
                fail(HTTPStatus.SERVICE_UNAVAILABLE, "The gateway is being stopped; send the file again in a moment.")
            response: Response = self.application(environ, start_response)
        except Exception as error:  # noqa: BLE001 - the client gets a status for anything
            return _failed(error, environ, start_response)
        return response


class _Methods(BaseMiddleware):
    """The innermost application."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Response:
        if environ["PATH_INFO"] == "*":
            start_response("200 OK", [("DAV", "1,2"), ("MS-Author-Via", "DAV"), ("Content-Length", "0")])
            return []
        return DriveServer(environ["wsgidav.provider"])(environ, start_response)


class _TlsAdapter(BuiltinSSLAdapter):
    """The handshake happens with the first read, in a worker's thread: in the accepting one, as cheroot has it, a client that says
    nothing would keep everybody else out."""

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), {}


class _HttpServer(wsgi.Server):
    """cheroot with our connections and bounds, logging where we log."""

    ConnectionClass = Connection
    max_request_header_size = HEADER_MAX
    keep_alive_conn_limit = IDLE_MAX
    expiration_interval = 0.1  # seconds; also how long stop() waits for the accepting thread

    def __init__(self, address: tuple[str, int], app: WebDavApp, options: WebDavOptions) -> None:
        super().__init__(
            address,
            app,
            server_name="Archivia FS",
            request_queue_size=QUEUE,
            timeout=options.timeout,  # type: ignore[arg-type]
        )
        self.gateway = Gateway
        self.slots = Slots(options.transfers, options.waiting)
        threads = options.threads + options.transfers + options.waiting
        self.requests = WorkerPool(self, min=threads, max=threads, accepted_queue_size=QUEUE, accepted_queue_timeout=1)

    def process_conn(self, conn: Connection) -> None:
        """A thread for a connection that has something to say; cheroot gives one to a new connection at once."""
        if conn.last_used is None and self.can_add_keepalive_connection:
            self.put_conn(conn)
        else:
            super().process_conn(conn)

    def stop(self) -> None:
        self.slots.close()
        super().stop()

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        log.log(level, "%s", msg, exc_info=traceback)


def _read_small_body(environ: Environ) -> None:
    """Replace a body that is not a file by one in memory of known length, chunked or not. Raises DAVError 400, 408, 413."""
    body: Body = environ["wsgi.input"]
    try:
        data = body.read(SMALL_BODY_MAX)
    except BrokenBody as error:
        fail(HTTPStatus.BAD_REQUEST, f"The request is incomplete: {error.strerror}.")
    except TimeoutError:
        fail(HTTPStatus.REQUEST_TIMEOUT, "The request stopped in its middle.")
    if not body.complete:
        fail(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request body other than a file may have {SMALL_BODY_MAX} bytes.")
    environ["wsgi.input"] = io.BytesIO(data)
    environ["CONTENT_LENGTH"] = "0" if environ["REQUEST_METHOD"] in ("GET", "HEAD") else str(len(data))


def _failed(error: Exception, environ: Environ, start_response: StartResponse) -> Response:
    status, headers, body = error_response(error)
    if not isinstance(error, DAVError | FsError):
        log.error("%s %s failed", environ["REQUEST_METHOD"], environ["REQUEST_URI"], exc_info=error)
    elif int(status[:3]) >= 500:
        said = body.decode().strip()
        log.warning("%s %s: %s: %s", environ["REQUEST_METHOD"], environ["REQUEST_URI"], status, said)
    start_response(status, headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def _start_message(options: WebDavOptions, error: OSError) -> str:
    where = f"{options.host}:{options.port}"
    text = str(error)
    if error.errno == errno.EADDRINUSE or "Address already in use" in text:
        return f"The port of {where} is taken by another program; choose another with --listen HOST:PORT."
    if "Permission denied" in text:
        return f"This user may not listen on {where}; choose a port above 1023 with --listen HOST:PORT."
    return f"Cannot listen on {where} ({text}); check --listen HOST:PORT and the certificate files."
