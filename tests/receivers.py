"""Whom a server tells: a web server and a mail server that do what a test wants, and keep what they got."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOLD_SECONDS = 60.0


class Receiver:
    """Does for each request the next of `does`, and for ever the last: a status, or `hang`, `drip`, `close`, `flood`.

    `hang` answers when `release` is set. A redirect leads to /elsewhere, where nobody may come.
    """

    def __init__(self, *does: int | str, tls: ssl.SSLContext | None = None):
        self.does: list[int | str] = list(does) or [200]
        self.got: list[dict] = []  # path, headers, body (JSON)
        self.release = threading.Event()
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                receiver._answer(self)

            do_GET = do_POST

            def log_message(self, *_):
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # whoever asked may be gone
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_port
        host = "127.0.0.1" if tls is None else "localhost"
        self.url = f"http{'s' * (tls is not None)}://{host}:{self.port}/hooks/T0/geheim-Abc?key=geheim-Abc"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def bodies(self) -> list[dict]:
        return [one["body"] for one in self.got]

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with self._lock:
            does = self.does.pop(0) if len(self.does) > 1 else self.does[0]
            told = json.loads(body) if body.startswith(b"{") else body
            self.got.append({"path": request.path, "headers": dict(request.headers), "body": told})
        if does == "hang":
            self.release.wait(HOLD_SECONDS)
            does = 200
        if does == "close":
            request.close_connection = True
            request.connection.close()
        elif does == "drip":
            self._drip(request)
        else:
            request.send_response(200 if does == "flood" else does)
            request.send_header("Location", f"http://127.0.0.1:{self.port}/elsewhere")
            request.send_header("Content-Length", str(2**31 if does == "flood" else 0))
            request.end_headers()
            while does == "flood":
                request.wfile.write(b"x" * 65536)

    def _drip(self, request: BaseHTTPRequestHandler) -> None:
        """A byte now and then, so that no single wait is long."""
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not self.release.wait(0.05):
            request.wfile.write(b"x")

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Mailbox:
    """A mail server, with STARTTLS if it is given a context. `refuse`: how many of its first mails are told to come later.

    `log` is what it was told by AUTH.
    """

    def __init__(self, refuse: int = 0, tls: ssl.SSLContext | None = None):
        self.refuse, self.tls, self.mails, self.recipients, self.log = refuse, tls, [], [], []
        box = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                if box._talk(self.rfile, self.wfile):
                    with box.tls.wrap_socket(self.request, server_side=True) as line, line.makefile("rwb", buffering=0) as file:
                        box._talk(file, file, greeting=None)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # whoever spoke may not trust it
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def _talk(self, lines: Iterable[bytes], out, greeting: str | None = "220 box") -> bool:
        """Whether it goes on by TLS."""

        def say(text: str) -> None:
            out.write(f"{text}\r\n".encode())

        if greeting:
            say(greeting)
        for line in lines:
            word = line.split()[0].upper().decode() if line.strip() else ""
            if word in ("EHLO", "HELO"):
                say("250-box")
                say("250-AUTH PLAIN" if self.tls and greeting else "250 AUTH PLAIN")
                if self.tls and greeting:
                    say("250 STARTTLS")
            elif word == "STARTTLS":
                say("220 go on")
                return True
            elif word == "AUTH":
                self.log.append(line.split()[-1])
                say("235 welcome")
            elif word == "RCPT":
                self.recipients.append(line.decode().strip())
                say("250 fine")
            elif word == "DATA":
                self._take(lines, say)
            elif word == "QUIT":
                say("221 bye")
                return False
            else:
                say("250 fine")
        return False

    def _take(self, lines: Iterable[bytes], say) -> None:
        say("354 go on")
        mail = []
        for line in lines:
            if line == b".\r\n":
                break
            mail.append(line)
        self.mails.append(b"".join(mail))
        self.refuse -= 1
        say("451 come later, please" if self.refuse >= 0 else "250 taken")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def wait_for(condition, seconds: float = 60.0):
    """The value of a condition, once it holds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return value
