"""A TCP relay that misbehaves on demand: slow, silent in one or both ways, refusing, cutting."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from urllib.parse import urlsplit

ANSWER_SECONDS = 60.0  # of its own thread, however busy the machine is
CHUNK_BYTES = 64 * 1024
METHODS = (b"GET ", b"POST ", b"PATCH ", b"DELETE ")
WAYS = ("up", "down")  # up: from the client to the server


class Relay:
    """Listens on loopback and passes everything on to `target` (a URL). Change the attributes at any time.

    `delay`: seconds that each piece waits. `silent`: ways ("up", "down") in which bytes are held back, connections staying
    open; `most`: bytes after which a way is. `refusing`: new connections are reset. `rate`: bytes per second and connection
    and way, None without limit.
    `recording`: requests are kept, for `replay`.
    """

    def __init__(self, target: str):
        parts = urlsplit(target)
        self.target = (parts.hostname, parts.port)
        self.delay = 0.0
        self.silent: set[str] = set()
        self.most = dict.fromkeys(WAYS, float("inf"))
        self.refusing = False
        self.rate: float | None = None
        self.recording = False
        self.accepted = 0  # connections so far
        self.requests = 0  # so far: clients wait for the answer of one before they send the next
        self.passed = dict.fromkeys(WAYS, 0)  # bytes so far
        self._recorded: list[bytearray] = []
        self._lines: set[int] = set()  # by number, those open
        self._frozen: set[int] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{parts.scheme}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Resets all open connections, both ends."""
        self._call(self._cut)

    def mend(self) -> None:
        """All is well from now on, and nothing has passed."""
        self.delay, self.rate, self.refusing = 0.0, None, False
        self.most.update(dict.fromkeys(WAYS, float("inf")))
        self.silent.clear()
        self.passed.update(dict.fromkeys(WAYS, 0))

    def freeze(self) -> None:
        """No byte passes any more over the connections that are open now, either way, and nobody is told; new ones are well."""
        self._call(lambda: self._frozen.update(self._lines))

    def half_close(self) -> None:
        """Ends one way (FIN) of all open connections, to both ends, and leaves the other open."""
        self._call(lambda: [writer.write_eof() for writer in self._writers if writer.can_write_eof()])

    def replay(self, count: int) -> None:
        """Sends the newest recorded syncs again, in their order; nobody hears the answers."""
        syncs = [request for request in self._recorded if b"/sync HTTP" in request.partition(b"\r\n")[0]]
        for request in syncs[-count:]:
            with contextlib.suppress(OSError), socket.create_connection(self.target, 5) as again:  # the server may be away
                again.sendall(request)
                again.settimeout(0.2)  # one that is held is answered to nobody
                again.recv(CHUNK_BYTES)

    def close(self) -> None:
        """Ends all."""
        if self._loop.is_closed():
            return
        self._call(self._server.close)
        self._call(self._cut)
        asyncio.run_coroutine_threadsafe(self._end_tasks(), self._loop).result(ANSWER_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_SECONDS)
        self._loop.close()

    def _call(self, function) -> None:
        async def call() -> None:
            function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(ANSWER_SECONDS)

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _cut(self) -> None:
        for writer in list(self._writers):
            sock = writer.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):  # it was closed by its other end
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends RST
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        if self.refusing:
            self._writers.discard(writer)
            writer.transport.abort()
            return
        try:
            there, out = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(out)
        line = self.accepted
        self._lines.add(line)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # `close()`; asyncio would log it
                await asyncio.gather(self._pass(reader, out, "up", line), self._pass(there, writer, "down", line))
        finally:
            self._lines.discard(line)
            for end in (writer, out):
                self._writers.discard(end)
                end.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str, line: int) -> None:
        with contextlib.suppress(OSError):  # either end may go away at any time: that is what this is for
            request = bytearray()
            while data := await reader.read(CHUNK_BYTES):
                if way == "up":
                    request = self._note(data, request)
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self.passed[way] + len(data) > self.most[way]:
                    self.silent.add(way)
                while way in self.silent or line in self._frozen:
                    await asyncio.sleep(0.02)
                if self.rate:
                    await asyncio.sleep(len(data) / self.rate)
                writer.write(data)
                await writer.drain()
                self.passed[way] += len(data)
            if writer.can_write_eof() and not writer.is_closing():
                writer.write_eof()

    def _note(self, data: bytes, request: bytearray) -> bytearray:
        """The request that these bytes belong to: the one before, or a new one."""
        if data.startswith(METHODS):
            self.requests += 1
            request = bytearray()
            if self.recording:
                self._recorded.append(request)
        request += data if self.recording else b""
        return request
