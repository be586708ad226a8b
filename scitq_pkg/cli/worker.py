"""`scitq worker SERVER [CONCURRENCY]`: runs tasks on this machine for a server."""

from __future__ import annotations

import argparse
import os

from ..errors import InvalidRequest
from .options import token_of
from .parser import Parser, number

_SLOTS = number(0, 100_000)


def main(arguments: list[str]) -> int:
    """Runs a worker until it is stopped; the exit code."""
    options = _parser().parse_args(arguments)
    if options.token:
        os.environ.pop("SCITQ_TOKEN", None)
    if options.refuse or options.only:
        _limit_fetching(options.refuse, options.only)
    from ..worker import Options, serve

    return serve(
        Options(
            server=options.server, token=options.token or token_of(options.token_file),
            name=options.name, scratch=options.scratch,
            concurrency=options.concurrency, prefetch=options.prefetch, batch=options.batch, permanent=options.permanent,
            flavor=options.flavor, provider=options.provider, region=options.region,
            engine=options.engine, stop_with_parent=options.stop_with_parent,
        )
    )  # fmt: skip


def _limit_fetching(refuse: list[str], only: list[str]) -> None:
    """For whatever fetches for this worker, besides what the environment says. Raises InvalidRequest."""
    from ..fetch.refusals import ONLY_VARIABLE, REFUSE_VARIABLE, Rules

    for name, given in ((REFUSE_VARIABLE, refuse), (ONLY_VARIABLE, only)):
        for one in given:
            if len(one.split()) != 1:
                raise InvalidRequest(f"'{one:.100}' holds white space: write ? in its place")
        text = " ".join([os.environ.get(name, ""), *given])
        Rules.of(text)
        os.environ[name] = text


def _parser() -> Parser:
    parser = Parser(
        prog="scitq worker",
        description="Runs tasks on this machine for a server. Its commands outlive it: started again it goes on with them.",
        epilog="SIGTERM and Ctrl-C end the worker and leave its commands running. docs/worker.md tells more.",
    )
    add = parser.add_argument
    add("server", nargs="?", metavar="SERVER", help="host, host:port or URL (default: $SCITQ_SERVER, else this machine)")
    add("concurrency", nargs="?", type=_SLOTS, metavar="CONCURRENCY", help="how many tasks at once (default: one a processor)")
    add("-b", "--batch", help="the batch it works for (default: Default)")
    add("-p", "--prefetch", type=_SLOTS, default=0, metavar="N", help="tasks held ready beyond those that run (default: 0)")
    add("-n", "--name", help="its name, unique on the server (default: the host's)")
    add("--scratch", metavar="DIR", help="where its directory is (default: /scratch if writable, else the user's cache)")
    add("--permanent", action=argparse.BooleanOptionalAction, default=None, help="whether its machine is kept when idle")
    add("--flavor", metavar="NAME", help="what kind of machine it is, for recruiters (any word; default: none)")
    add("--provider", metavar="NAME", help="whose machine it is, for recruiters")
    add("--region", metavar="NAME", help="where it is, for recruiters")
    add(
        "--engine", metavar="E",
        help="docker, podman or apptainer, or the path of one (default: $SCITQ_CONTAINER_ENGINE, else the first that is there)",
    )  # fmt: skip
    add("-t", "--token", help="the token to show (better: $SCITQ_TOKEN or --token-file; others can see words of a command)")
    add("--token-file", metavar="FILE", help="a file that holds the token")
    refused = "URIs that are not fetched or sent, or a network: 169.254.0.0/16 (repeatable)"
    add("--refuse", action="append", default=[], metavar="GLOB", help=refused)
    allowed = "the only URIs, or networks, that are fetched or sent (repeatable)"
    add("--only", action="append", default=[], metavar="GLOB", help=allowed)
    add("--stop-with-parent", action="store_true", help="end, and end all commands, when standard input closes")
    add("-v", "--verbose", action="store_true", help="show where an unexpected error came from")
    return parser
