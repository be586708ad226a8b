"""A process for each question to a provider: whatever hangs, leaks or crashes in a provider's libraries, the server goes on.

    server ► {"provider", "config", "tag", "lock", "call": "check", "create", "list", "delete" or "flavors", "arguments": {...}}
    server ◄ {"log": LINE}...   ◄ {"result": ...} or {"error": {"code", "message"}}

Standard input is the server's pipe: the process ends with the server. Secrets come through it and through the environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ..errors import InvalidRequest, ScitqError
from ..uris import shown
from . import provider as provider_of
from .provider import CloudRefused, CloudTrouble, Flavor, Machine, NoRoom, Order, Provider, Start

CODES = {kind.code: kind for kind in (CloudTrouble, NoRoom, CloudRefused)}


def main(arguments: list[str]) -> int:
    """`scitq cloud`: answers the one question of standard input; the exit code. `--become`: see `local`."""
    if arguments[:1] == ["--become"]:
        from .local import become

        return become(arguments[1])
    say = _Voice()
    question = json.loads(_line())
    threading.Thread(target=_end_with_the_server, name="server", daemon=True).start()
    try:
        with _alone(question.get("lock"), for_good=question["call"] == "delete"):
            say(result=answer(question, lambda line: say(log=shown(line))))
    except Exception as error:  # noqa: BLE001 - whatever it is, the server is told
        say(error=_told(error))
    return 0


class _Voice:
    """Lines for the server; what libraries print to standard output goes to standard error instead."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def __call__(self, **message) -> None:
        with self._lock:
            self._out.write(json.dumps(message, default=str) + "\n")
            self._out.flush()


def _line() -> bytes:
    """The first line of standard input, of which nothing is kept in a buffer: another thread waits for its end."""
    read = b""
    while not read.endswith(b"\n") and (piece := os.read(0, 65536)):
        read += piece
    return read


def _end_with_the_server() -> None:
    """A server that was killed starts again and asks anew: nothing must go on being made for the old one."""
    with contextlib.suppress(OSError):  # as if it had ended
        while os.read(0, 4096):
            pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # what it has started too: ssh, sbatch
    os._exit(1)


@contextlib.contextmanager
def _alone(path: str | None, for_good: bool):
    """One question about a machine at a time, over a restart of the server too; `for_good`: it is the last one."""
    if path is None:
        yield
        return
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        if for_good:
            with contextlib.suppress(FileNotFoundError):  # by another one that waited for it
                os.unlink(path)
    finally:
        os.close(descriptor)


def answer(question: dict, tell: Callable[[str], None]):
    """What a provider answers to a question, as JSON values. Raises what it raises."""
    asked: Provider = provider_of(question["provider"], question["config"], question["tag"], tell)
    return _CALLS[question["call"]](asked, **question.get("arguments", {}))


def _check(asked: Provider, flavor: str, region: str, number: int) -> None:
    asked.check(flavor, region, number)


def _create(asked: Provider, order: dict) -> dict:
    return asdict(asked.create(Order(**{**order, "start": Start(**order["start"])})))


def _list(asked: Provider) -> list[dict]:
    return [asdict(machine) for machine in asked.list()]


def _delete(asked: Provider, machine: dict) -> None:
    asked.delete(Machine(**machine))


def _flavors(asked: Provider) -> list[dict]:
    return [_plain(flavor) for flavor in asked.flavors()]


def _plain(flavor: Flavor) -> dict:
    return {name: getattr(flavor, name) for name in Flavor.__slots__}


_CALLS = {"check": _check, "create": _create, "list": _list, "delete": _delete, "flavors": _flavors}


def _told(error: Exception) -> dict:
    """An error as the server tells it on; what nobody foresaw may pass, so it counts as trouble of the provider."""
    if isinstance(error, ImportError) and error.name and not error.name.startswith(__package__.partition(".")[0]):
        return {
            "code": CloudRefused.code,
            "message": f"the Python package '{error.name}' is not installed where the server runs: pip install it there, or use "
            "the one file",
        }
    if isinstance(error, (CloudTrouble, NoRoom, CloudRefused)):
        return {"code": error.code, "message": shown(str(error))}
    if isinstance(error, InvalidRequest):
        return {"code": CloudRefused.code, "message": shown(str(error))}
    if isinstance(error, (ScitqError, OSError)):
        return {"code": CloudTrouble.code, "message": shown(str(error))}
    return {"code": CloudTrouble.code, "message": shown(f"unexpected {type(error).__name__}: {error} ({_place(error)})")}


def _place(error: Exception) -> str:
    """Where it was raised: for whoever mends it."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return "?" if last is None else f"{Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}"
