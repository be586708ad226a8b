"""`scitq manage worker deploy`: workers on new machines of a provider."""

from __future__ import annotations

import sys

from ...lib.server import Server
from ...protocol import DEFAULT_BATCH
from ..parser import Parser, number
from . import tables
from .job import tell
from .verbs import Verb

MOST_WORKERS = 1000
MOST_SLOTS = 100_000


def _options(parser: Parser) -> None:
    add = parser.add_argument
    add("number", nargs="?", type=number(1, MOST_WORKERS), metavar="NUMBER", help="how many workers (default: 1)")
    add("-N", "--number", dest="count", type=number(1, MOST_WORKERS), metavar="NUMBER", help="the same")
    add("-f", "--flavor", default="auto", help="a name, or a protofilter: 'auto:cpu>=8:ram>=30' (default: auto, the cheapest)")
    add("-P", "--provider", default="auto", help="whose machines, or auto: whichever is best (default: auto)")
    add("-r", "--region", default="auto", help="where, or auto: whichever is best (default: auto)")
    add("-b", "--batch", default=DEFAULT_BATCH, help=f"the batch they work for (default: {DEFAULT_BATCH})")
    add(
        "-C", "--concurrency", type=number(1, MOST_SLOTS), metavar="N",
        help="tasks that run at once on each (default: as many as it has processors)",
    )  # fmt: skip
    add("-p", "--prefetch", type=number(0, MOST_SLOTS), default=0, metavar="N", help="tasks held ready beyond those")
    add("-n", "--name", help="its name; of several NAME-1, NAME-2... (default: PROVIDER-NUMBER)")
    add("--permanent", action="store_true", help="keep them when they idle")
    add("-w", "--wait", action="store_true", help="until they are up: shows their logs; exit code 1 if one of them is not")


def _deploy(server: Server, arguments) -> int:
    made = server.worker_deploy(
        arguments.count or arguments.number or 1, arguments.batch, arguments.region, arguments.flavor, arguments.concurrency,
        arguments.provider, arguments.prefetch, permanent=arguments.permanent, name=arguments.name,
    )  # fmt: skip
    for one in made:
        print(f"worker {one['name']} (id {one['worker']}) is being deployed by job {one['job']}", flush=True)
    if not arguments.wait:
        return 0
    for one in made:
        tell(server, one["job"], follow=True, before=f"{one['name']}: " if len(made) > 1 else "")
    up = [_is_up(server, one) for one in made]
    return 0 if all(up) else 1


def _is_up(server: Server, one: dict) -> bool:
    """Whether a worker whose deployment has ended came up; says so, or why not."""
    job = server.client.get(f"/jobs/{one['job']}")
    if job["state"] != "succeeded":
        why = tables.safe(job["message"] or "it does not say why")
        print(f"scitq: {one['name']} was not deployed, job {one['job']} {job['state']}: {why}", file=sys.stderr)
        return False
    row = server.client.get(f"/workers/{one['worker']}")
    print(f"worker {one['name']} (id {one['worker']}) is {row['state']}, {row['flavor']} of {row['provider']} in {row['region']}")
    return True


DEPLOY = Verb("worker", "deploy", "deploy workers on new machines of a provider", _options, _deploy)
