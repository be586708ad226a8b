"""`scitq server`: remembers everything, decides, answers."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time

from .. import settings
from .parser import Parser


def main(arguments: list[str]) -> int:
    """Runs a server until it is stopped; the exit code."""
    options = vars(_parser().parse_args(arguments))
    verbose, quiet, config = options.pop("verbose"), options.pop("quiet"), options.pop("config")
    _log_to_stderr(verbose)
    if options.pop("stop_with_parent"):
        threading.Thread(target=_stop_with_parent, name="parent", daemon=True).start()
    from ..server import serve  # what it needs is worth loading only once the words are right

    serve(settings.load(options, config), quiet)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="scitq server",
        description="Remembers everything in a database, decides who runs what, and answers the API.",
        epilog="Each option is also a variable SCITQ_OPTION and a key of the --config file; the command line wins.",
    )
    add = parser.add_argument
    add("--host", metavar="ADDRESS", help="where to listen (default: 127.0.0.1, this machine alone)")
    add("--port", metavar="N", help="default: 5000; 0: any that is free")
    add(
        "--database",
        metavar="URL",
        help="sqlite:///path or postgresql://user@host/name (default: scitq.db in the data directory)",
    )
    add("--data", metavar="DIR", help="directory of the database, backups and server.json (default: ~/.local/share/scitq)")
    add("--cert", metavar="FILE", help="PEM certificate, for TLS")
    add("--key", metavar="FILE", help="its PEM key")
    add("--config", metavar="FILE", help="a YAML file of settings")
    add(
        "--no-auth",
        action="store_true",
        default=None,
        help="no tokens: everybody on this machine is its administrator (loopback only)",
    )
    add("--insecure-http", action="store_true", default=None, help="listen to other machines without TLS, in a network you trust")
    add(
        "--allowed-host",
        action="append",
        metavar="NAME",
        help="one more name by which browsers may call this server (repeatable)",
    )
    add(
        "--lost-after", metavar="TIME", help="silence after which a worker's running tasks are given to others (default: 30m)"
    )
    add("--url", help="by which machines that are deployed reach this server (default: the one that it serves)")
    add("--threads", metavar="N", help="threads at most, one for each request that waits (default: 1200)")
    add("--max-body", metavar="BYTES", help="the largest request (default: 64 MiB)")
    add(
        "--webhook-host", action="append", metavar="HOST",
        help="where webhooks may go (repeatable): a name or a glob, an address, a network, public (default: public, which is all "
        "but loopback, link-local and private addresses)",
    )  # fmt: skip
    add("--smtp", metavar="HOST[:PORT]", help="the server that takes mail (default: none, and no mail is sent; port 25)")
    add("--smtp-sender", metavar="ADDRESS", help="whom mail comes from (default: scitq@ this machine)")
    add("--smtp-user", metavar="NAME", help="who logs in there; the password is SCITQ_SMTP_PASSWORD, or in a file")
    add("--smtp-password-file", metavar="FILE", help="the file of that password")
    add("--stop-with-parent", action="store_true", help="end when standard input closes")
    add("-q", "--quiet", action="store_true", help="print nothing at the start")
    add("-v", "--verbose", action="count", default=0, help="log every request; twice: everything")
    return parser


def _stop_with_parent() -> None:
    """Standard input is the parent's pipe: it says nothing, and ends with the parent."""
    with contextlib.suppress(OSError):  # it was never open: as if it had ended
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def _log_to_stderr(verbose: int) -> None:
    """One line an event, times in UTC."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=(logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)], handlers=[handler])
