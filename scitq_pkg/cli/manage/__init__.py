"""`scitq manage OBJECT VERB`: looks at and changes what a server holds. One file an object; each lists its verbs."""

from __future__ import annotations

import io
import sys
from importlib import import_module

from ...errors import InvalidRequest, nearest
from ..options import HELP, SERVER, TOKEN_FILE, VERBOSE, Option, described, duration, parse, token_of
from .verbs import Verb

OBJECTS = {
    "task": (".task", "commands: list, look at, change, queue again"),
    "batch": (".batch", "names that tasks and workers share: stop, go, report"),
    "execution": (".execution", "attempts to run tasks, and what they wrote"),
    "worker": (".worker", "the machines that run them"),
    "recruiter": (".recruiter", "rules by which batches take idle workers"),
    "notifier": (".notifier", "who is told when batches are done, or tasks failed"),
    "job": (".job", "what is deployed and destroyed, step by step"),
    "machine": (".machine", "what providers run for the server"),
    "flavor": (".flavor", "the sizes of machines that providers have"),
    "event": (".event", "who changed what, when"),
    "token": (".token", "who may do what"),
    "db": (".db", "the database: back it up, upgrade it"),
    "doctor": (".doctor", "says what is wrong here, or that nothing is"),
}
OPTIONS = (
    SERVER,
    Option("-t --timeout", "TIME", "how long to wait for a server that is away (default: 10s), or for its answer (60s)"),
    TOKEN_FILE,
    VERBOSE,
    HELP,
)
DEFAULT_TIMEOUT = "10s"
_LEAST_SECONDS = 1.0


def main(words: list[str]) -> int:
    """Runs `scitq manage WORDS...`; the exit code."""
    given, rest = parse(words, OPTIONS)
    if given.get("help"):
        sys.stdout.write(_help())
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may hold letters that this terminal does not know
    verb, rest = find(rest)
    arguments = verb.parser.parse_args(rest)
    arguments.server, arguments.token = given.get("server"), token_of(given.get("token_file"))
    arguments.timeout = duration(given.get("timeout", DEFAULT_TIMEOUT), "--timeout")
    stays = "timeout" not in given and (getattr(arguments, "follow", False) or getattr(arguments, "watch", None) is not None)
    if verb.local:
        return verb.run(arguments)
    from ...lib.client import DAY_SECONDS
    from ...lib.server import Server

    waits = {"connect_timeout": arguments.timeout, "put_timeout": arguments.timeout}
    waits["get_timeout"] = DAY_SECONDS if stays else arguments.timeout  # who watches goes on when a server comes back
    if "timeout" in given:
        waits["timeout"] = max(_LEAST_SECONDS, arguments.timeout)  # for an answer, too
    with Server(arguments.server, token=arguments.token, **waits) as server:
        return verb.run(server, arguments)


def find(words: list[str]) -> tuple[Verb, list[str]]:
    """The verb that the first words name, and the words left. Raises InvalidRequest with what there is; leaves after help."""
    name, rest = words[0] if words else None, words[1:]
    if name not in OBJECTS:
        known = f"there are {', '.join(OBJECTS)}"
        raise InvalidRequest(
            f"unknown object '{name}'{nearest(name, OBJECTS)}; {known}"
            if name
            else f"scitq manage OBJECT VERB: {known} (-h tells more)"
        )
    verbs = verbs_of(name)
    if len(verbs) == 1 and verbs[0].name == "":  # an object that has one verb only, without a name
        return verbs[0], rest
    if rest[:1] in (["-h"], ["--help"]):
        sys.stdout.write(_help_of(name, verbs))
        sys.exit(0)
    names = {verb.name: verb for verb in verbs}
    if not rest or rest[0] not in names:
        wrong = f"unknown verb '{rest[0]}'{nearest(rest[0], names)}" if rest else "which verb?"
        raise InvalidRequest(f"scitq manage {name}: {wrong}; there are {', '.join(names)} (-h tells more)")
    return names[rest[0]], rest[1:]


def verbs_of(name: str) -> tuple[Verb, ...]:
    """The verbs of an object."""
    return import_module(OBJECTS[name][0], __package__).VERBS


def _help() -> str:
    rows = "".join(f"  {name:<12}{about}\n" for name, (_, about) in OBJECTS.items())
    return (
        "usage: scitq manage [options] OBJECT VERB ...\n\nLooks at and changes what a server holds.\n\nobjects:\n"
        f"{rows}\noptions:\n{described(OPTIONS)}\nscitq manage OBJECT -h lists its verbs, "
        "scitq manage OBJECT VERB -h their options.\n"
        "Exit codes: 0 done, 1 some of it not, 2 a wrong word, 3 no such thing, 4 no right to it, 5 no server, 130 interrupted.\n"
    )


def _help_of(name: str, verbs: tuple[Verb, ...]) -> str:
    rows = "".join(f"  {verb.name:<12}{verb.about}\n" for verb in verbs)
    return (
        f"usage: scitq manage {name} VERB ...\n\n{OBJECTS[name][1]}\n\nverbs:\n{rows}\n"
        f"scitq manage {name} VERB -h tells more about each.\n"
    )
