"""HTTP: waitress, its threads, the TLS relay before it, and the orderly stop.

waitress reads and writes all connections in one loop and gives a thread only to whole requests, so slow clients stop nobody.
With TLS an asyncio relay takes the connections, and hands to waitress one end of a socket pair each, with the peer's own address.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher

from .errors import Conflict, InvalidRequest

log = logging.getLogger(__name__)

CONNECTIONS = 4000
IDLE_SECONDS = 120  # a connection without a request is closed after that
HEADER_BYTES = 64 * 1024
BACKLOG = 1024
HANDSHAKE_SECONDS = 15.0
FINISH_SECONDS = 2.5  # that requests have to end when the server stops
RELAY_BYTES = 256 * 1024


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises Conflict (the port is in use), InvalidRequest (no such address here)."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InvalidRequest(f"{host!r} is no address: {error.strerror}", field="--host") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"port {port} of {host} is in use: stop what listens there, or give another --port (0: any that is free)"
            ) from None
        raise InvalidRequest(f"cannot listen at {host} port {port}: {error.strerror}", field="--host") from None
    bound.setblocking(False)
    return bound


def tls_context(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer. Raises InvalidRequest for files that are no certificate and its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"{cert} and {key} are not a PEM certificate and its key without password: {error}", field="--cert"
        ) from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


class HttpServer:
    """Serves a WSGI application on a listening socket, until `stop()`."""

    def __init__(
        self,
        application: Callable,
        bound: socket.socket,
        ident: str,
        max_body: int,
        tls: ssl.SSLContext | None,
        error_body: Callable[[str, str], bytes],
    ):
        """`error_body(code, message)` makes the JSON of an error."""
        self.dispatcher = _Threads()
        self._map: dict = {}
        self._stopping = False
        adjustments = Adjustments(
            sockets=[bound],
            ident=ident,
            connection_limit=CONNECTIONS,
            channel_timeout=IDLE_SECONDS,
            max_request_header_size=HEADER_BYTES,
            max_request_body_size=max_body + 1,
            url_scheme="https" if tls else "http",
            asyncore_use_poll=True,
            threads=1,
            clear_untrusted_proxy_headers=False,
            backlog=BACKLOG,
        )
        self._server = _Waitress(
            application,
            self._map,
            _start=tls is None,
            _sock=bound,
            dispatcher=self.dispatcher,
            adj=adjustments,
            bind_socket=False,
            sockinfo=(bound.family, bound.type, bound.proto, bound.getsockname()),
        )
        self._server.error_body = error_body
        self._relay = TlsRelay(bound, tls, self._server.take) if tls else None
        self._loop = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self, threads: int) -> None:
        """Begin to answer."""
        self.dispatcher.set_thread_count(threads)
        self._loop.start()
        if self._relay:
            self._relay.start()

    def stop(self) -> None:
        """Take no new connections, let the requests that run end (for FINISH_SECONDS at most), close all."""
        if self._loop.ident is None:  # it never began to answer
            wasyncore.close_all(self._map)
            return
        deadline = time.monotonic() + FINISH_SECONDS
        if self._relay:
            self._relay.stop_accepting()
        self._server.trigger.pull_trigger(self._server.stop_accepting)
        while self._is_busy() and time.monotonic() < deadline:
            time.sleep(0.01)
        if self._relay:
            self._relay.stop()
        self._stopping = True
        self._server.pull_trigger()
        self._loop.join(timeout=1)
        self.dispatcher.shutdown(timeout=0.5)
        if not self.dispatcher.threads:  # one that still answers would write to what has the number of a closed descriptor then
            wasyncore.close_all(self._map)

    def _is_busy(self) -> bool:
        """Whether a request is being received or answered, or an answer is not yet sent."""
        channels = list(self._server.active_channels.values())
        return any(channel.requests or channel.total_outbufs_len or _has_started(channel) for channel in channels)

    def _run(self) -> None:
        while not self._stopping:
            wasyncore.poll2(timeout=5.0, map=self._map)


def _has_started(channel: HTTPChannel) -> bool:
    return channel.request is not None and not channel.request.empty


class _Threads(ThreadedTaskDispatcher):
    """waitress's threads; a queue that is never long is no news."""

    def __init__(self):
        super().__init__()
        self.queue_logger = logging.getLogger("waitress.queue")
        self.queue_logger.setLevel(logging.ERROR)


class _ErrorTask(ErrorTask):
    """Requests that waitress itself refuses (too large, not HTTP) are told in the shape of all errors."""

    def execute(self):
        """Writes the answer; waitress calls it in the place of the application."""
        error = self.request.error
        code, message = self._told(error.code, error.body)
        body = self.channel.server.error_body(code, message)
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)

    def _told(self, status: int, why: str) -> tuple[str, str]:
        if status == 413:
            return (
                "too_large",
                f"the request is larger than the {self.channel.adj.max_request_body_size - 1} bytes that this server takes: "
                "send it in parts",
            )
        if status == 431:
            return "too_large", f"the headers are larger than {HEADER_BYTES} bytes"
        return ("invalid_request" if status < 500 else "error"), f"this is not HTTP as it should be: {why}"


class _Channel(HTTPChannel):
    """Idle by the monotonic clock: by the time of day a jump of it would close every connection, or none any more."""

    error_task_class = _ErrorTask

    @property
    def last_activity(self) -> float:
        """When something last came or went."""
        return self._last_activity

    @last_activity.setter
    def last_activity(self, _time_of_day: float) -> None:
        self._last_activity = time.monotonic()


class _Waitress(TcpWSGIServer):
    """waitress's server, that can be given connections and can stop accepting."""

    channel_class = _Channel
    error_body: Callable[[str, str], bytes]
    next_channel_cleanup = math.inf  # by the time of day: never
    _cleanup_at = 0.0

    def readable(self) -> bool:
        """Whether connections are wanted; waitress asks in each turn of its loop."""
        now = time.monotonic()
        if now >= self._cleanup_at:
            self._cleanup_at = now + self.adj.cleanup_interval
            self.maintenance(now)
        return super().readable()

    def take(self, connection: socket.socket, peer: tuple) -> None:
        """Serve this connection of `peer`; from any thread."""
        self.trigger.pull_trigger(lambda: self.channel_class(self, connection, peer, self.adj, map=self._map))

    def stop_accepting(self) -> None:
        """Close the listening socket; in the loop's thread."""
        self.accepting = False
        self.del_channel()
        self.socket.close()


class TlsRelay:
    """Accepts TLS connections and passes their bytes on, in a thread with an event loop."""

    def __init__(self, bound: socket.socket, context: ssl.SSLContext, take: Callable[[socket.socket, tuple], None]):
        self._bound = bound.dup()
        self._context = context
        self._take = take
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._run, name="tls", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def stop_accepting(self) -> None:
        """Close the listening socket; what is connected goes on."""
        self._loop.call_soon_threadsafe(lambda: self._server and self._server.close())

    def stop(self) -> None:
        """End all connections and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=1)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda loop, context: log.debug("tls: %s", context.get("message")))
        self._server = self._loop.run_until_complete(self._listen())
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(
            self._serve, sock=self._bound, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS, limit=RELAY_BYTES
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours, theirs = socket.socketpair()
        try:
            inner_reader, inner_writer = await asyncio.open_connection(sock=ours, limit=RELAY_BYTES)
            self._take(theirs, writer.get_extra_info("peername") or ("", 0))
            await asyncio.gather(_pump(reader, inner_writer, True), _pump(inner_reader, writer, False))
        finally:
            for end in (writer, inner_writer):
                end.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, half_close: bool) -> None:
    """Copy until the source ends, then end the sink; TLS has no half of a connection to close."""
    with contextlib.suppress(ConnectionError, ssl.SSLError, OSError):  # either side went away: the other is told by the close
        while data := await source.read(RELAY_BYTES):
            sink.write(data)
            await sink.drain()
        if half_close and sink.can_write_eof():
            sink.write_eof()
            return
    with contextlib.suppress(ConnectionError, ssl.SSLError, OSError):  # it is closed already
        sink.close()
        await sink.wait_closed()
