"""The process that owns the commands of a worker and outlives it: their output and end are files.

One small single-threaded process per worker, in a session of its own. The worker talks to it through a unix socket in its
directory, in lines of JSON. The last one who connects is the worker.

    worker ► hello {env}                                            ◄ hello {pid, boot, running: [...], ended: [...]}
    worker ► run {id, dir, argv, env, cwd, uid, gid, timeout, grace, deadline}   ◄ started {id, pid, start, boot, started}
                                                                    ◄ refused {id, why, kind: "late", "now" or "before"}
    worker ► signal {id, order: suspend, resume, term, kill; asked, grace}
                                                                    ◄ ended {id, kind, exit_code, signal, ...} (as end.json)
    worker ► forget {id}      its end is known and its directory is no longer the keeper's
    worker ► leave {}         end as soon as nothing runs           ◄ replaced {}  another worker connected

A command that is only the client of something else (a container engine) has `verbs` in its order: {suspend, resume, term,
kill} -> argv, run in place of the signals, until they succeed or the client has ended; `GRACE` in their environment: seconds.

`timeout` is seconds of running (suspended time does not count), kept by the keeper itself, so that it holds without a worker.
`deadline` is the time of `processes.boot_seconds()` after which the command must not start any more.
"""

from __future__ import annotations

SOCKET_FILE = "keeper.sock"
LOCK_FILE = "keeper.lock"
LOG_FILE = "keeper.log"
WORKER_LOCK_FILE = "worker.lock"  # held by the worker's process as long as it lives

LATE = "late"  # the deadline of the start had passed
NOT_NOW = "now"  # no room for a process or file: to be tried again
BEFORE = "before"  # it was started once already


def main(arguments: list[str]) -> int:
    """`scitq keeper DIRECTORY`: owns the commands of a worker's directory until nobody needs it; the exit code.

    `scitq keeper --end DIRECTORY`: ends all that a worker's directory has, the worker included.
    """
    if arguments[0] == "--end":
        from .ending import end

        end(arguments[1])
        return 0
    from .loop import Keeper

    return Keeper(arguments[0]).serve()
