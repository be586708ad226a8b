"""An HTTP server for tests that play a cloud: it remembers what it was asked, and fails as it is told to."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: dict
    headers: Mapping[str, str]


@dataclass
class Answer:
    status: int = 200
    body: dict | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """The next `times` requests of this kind get `answer`; None: the line is cut. With `done` they are done all the same."""

    method: str
    path: str  # a regular expression, found somewhere in it
    answer: Answer | None
    times: int
    done: bool


class Cloud:
    """Answers on loopback by `answer`, one request at a time; `faults` come before it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.faults: list[Fault] = []
        self.asked: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: Request) -> Answer:
        raise NotImplementedError

    def fail(self, method: str, path: str, answer: Answer | None, times: int = 1, done: bool = False) -> None:
        self.faults.append(Fault(method, path, answer, times, done))

    def count(self, method: str, path: str) -> int:
        """How often it was asked so."""
        return sum(request.method == method and re.search(path, request.path) is not None for request in self.asked)

    def respond(self, request: Request) -> Answer | None:
        with self.lock:
            self.asked.append(request)
            for fault in self.faults:
                if fault.times and fault.method == request.method and re.search(fault.path, request.path):
                    fault.times -= 1
                    if fault.done:
                        self.answer(request)
                    return fault.answer
            return self.answer(request)


def _handler(cloud: Cloud) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_words):
            """Says nothing."""

        def reply(self):
            path, _, query = self.path.partition("?")
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(data) if data else {}
            request = Request(self.command, urllib.parse.unquote(path), dict(urllib.parse.parse_qsl(query)), body, self.headers)
            answer = cloud.respond(request)
            with contextlib.suppress(OSError):  # whoever asked was killed
                self.send(answer)

        def send(self, answer):
            if answer is None:
                self.close_connection = True
                return
            data = b"" if answer.body is None else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

        do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_HEAD = reply

    return Handler
