"""`Server`: the methods users call, one for each thing the API can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote

from ..errors import InvalidRequest, NotFound, nearest
from .client import DAY_SECONDS, Client
from .clouds import Clouds
from .join import join
from .listing import Listing
from .objects import LONGEST_QUERY, NO_ID, check_style, id_of, ids_of, range_groups, ranges, shown
from .output import pieces
from .specs import RESET, changes, task_spec

_FILTERS = ("batch", "state", "name", "ids", "worker", "exit_code", "grep", "since")
_OLDER_FILTERS = {"status": "state", "task_id": "ids", "task_ids": "ids", "id": "ids", "states": "state", "task_name": "name"}


class Server(Clouds):
    """A scitq server, as a Python program uses it.

    `server` is a host, `host:port` or a URL (default `$SCITQ_SERVER`, else this machine). With style 'object' answers are
    Namespaces instead of dictionaries. Times are in seconds. A server that is away is waited for (`get_timeout`, `put_timeout`;
    a day), except on first contact (`connect_timeout`). A wrong value raises an error of `scitq.errors` at once.
    """

    def __init__(
        self,
        server: str | None = None,
        style: str = "dict",
        token: str | None = None,
        *,
        timeout: float = 60.0,
        connect_timeout: float = 10.0,
        get_timeout: float = DAY_SECONDS,
        put_timeout: float = DAY_SECONDS,
    ):
        self.style = check_style(style)
        self.client = Client(server, token, timeout, connect_timeout, get_timeout, put_timeout)
        self.url = self.client.url

    def close(self) -> None:
        """Closes the connection; a later call opens it again."""
        self.client.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # --- tasks --------------------------------------------------------------------------------------------------

    def tasks(self, limit: int | None = None, order: str = "id", **filters) -> Listing:
        """The tasks that pass the filters, all of them or the first `limit`; `order` is 'id' or '-id'.

        However many there are, iterating over them holds one page in memory at a time.

        Filters: batch, state (or status; one or several), name (a glob), ids, worker, exit_code, grep, since ('2h', ISO time).
        """
        return self._list("tasks", "task", limit, order, filters)

    def task_create(
        self,
        command: str,
        name: str | None = None,
        *,
        batch: str | None = None,
        input: str | Iterable[str] | None = None,
        output: str | None = None,
        container: str | None = None,
        container_options: str | None = None,
        resource: str | Iterable[str] | None = None,
        required_task_ids=None,
        require=None,
        shell: bool | str = False,
        retry: int | None = None,
        download_timeout: float | str | None = None,
        run_timeout: float | str | None = None,
        use_cache: bool | None = None,
        priority: int | None = None,
        env: dict[str, str] | None = None,
        uid: int | None = None,
        gid: int | None = None,
        workdir: str | None = None,
    ):
        """Queues a command; the task as the server has it.

        `input` and `resource` are lists of URIs, or one text of URIs with spaces between. `shell` runs the command with `sh -c`
        (True, 'sh') or `bash -c` ('bash'); without, it is split as a shell would and run directly. `require` (or
        `required_task_ids`): tasks, or their ids, that must succeed first. Time limits are in seconds, or texts such as '2h'.
        """
        options = dict(locals())
        del options["self"]
        return self.task_get(self.client.send("POST", "/tasks", task_spec(options))["ids"][0])

    def tasks_create(self, tasks: Iterable[dict]) -> list[int]:
        """Queues many tasks in one transaction, all or none; their ids, in order.

        Each is a dictionary of the options of `task_create`. `require` may also hold '#N', the N-th task of this call, from 0.
        """
        specs = [task_spec(task) for task in tasks]
        if not specs:
            return []
        return self.client.send("POST", "/tasks", {"tasks": specs})["ids"]

    def task_get(self, task):
        """A task."""
        return self._shown(self.client.get(f"/tasks/{id_of(task)}"), "task")

    def task_update(self, task, relaunch: bool = False, **options):
        """Changes a task that is not running: any option of `task_create`, None leaves it, RESET sets it back. The task."""
        body = changes(options)
        if relaunch:
            body["relaunch"] = True
        return self._shown(self.client.send("PATCH", f"/tasks/{id_of(task)}", body), "task")

    def task_delete(self, task) -> None:
        """Deletes a task; a running one is stopped first."""
        self.client.send("DELETE", f"/tasks/{id_of(task)}")

    def task_relaunch(self, task):
        """Queues an ended task again. What the server says: `ids`, and `skipped` with the reason."""
        return self._bulk("relaunch", [task])

    def task_cancel(self, task):
        """Cancels a task; a running one is stopped. What the server says: `ids`, and `skipped` with the reason."""
        return self._bulk("cancel", [task])

    def task_signal(self, task, action: str):
        """suspend, resume, term or kill for a running task. What the server says: `ids`, and `skipped` with the reason."""
        return self._bulk("signal", [task], action=action)

    def task_explain(self, task) -> str:
        """Why a task is where it is, and what would move it: a sentence."""
        return self.client.get(f"/tasks/{id_of(task)}/explain")["sentence"]

    def task_output(self, task, stream: str = "stdout") -> bytes:
        """What the latest execution of a task wrote to 'stdout' or 'stderr'; nothing if it was never executed."""
        latest = self.client.get("/executions", task=id_of(task), order="-id", limit=1)["items"]
        return self.execution_output(latest[0]["id"], stream) if latest else b""

    def task_status(self, tasks) -> list[str]:
        """The states of these tasks, in their order; 'deleted' for those that are not there."""
        ids = ids_of(tasks)
        states = {task["id"]: task["state"] for group in range_groups(ids) for task in self.client.pages("/tasks", ids=group)}
        return [states.get(number, "deleted") for number in ids]

    def tasks_edit(
        self, ids=None, *, set: dict | None = None, sub=None, relaunch: bool = False, dry_run: bool = False, **filters
    ):  # fmt: skip
        """Changes many tasks at once: `set` as in `task_update`; `sub`: a regular expression and what replaces it in commands,
        everywhere or, with a third value, in so many places of each.

        Which ones: `ids` or filters, as everywhere. What the server says: `ids`, `skipped`, and in a dry run `changes`.
        """
        body: dict = {"relaunch": relaunch, "dry_run": dry_run}
        if set:
            body["set"] = changes(set)
        if sub:
            body["sub"] = dict(zip(("pattern", "replacement", "count"), sub))
        return self._bulk("edit", ids, filters, **body)

    def tasks_relaunch(self, ids=None, *, dry_run: bool = False, **filters):
        """Queues again the ended tasks among `ids`, or those that pass the filters."""
        return self._bulk("relaunch", ids, filters, dry_run=dry_run)

    def tasks_cancel(self, ids=None, *, dry_run: bool = False, **filters):
        """Cancels these tasks."""
        return self._bulk("cancel", ids, filters, dry_run=dry_run)

    def tasks_delete(self, ids=None, *, dry_run: bool = False, **filters):
        """Deletes these tasks."""
        return self._bulk("delete", ids, filters, dry_run=dry_run)

    def tasks_signal(self, action: str, ids=None, *, dry_run: bool = False, **filters):
        """suspend, resume, term or kill for the running ones of these tasks."""
        return self._bulk("signal", ids, filters, action=action, dry_run=dry_run)

    def counts(self, version: int | None = None, wait: float | None = None, **filters):
        """`version`, and `counts` of tasks per state. With a version seen before, waits up to `wait` seconds for a change."""
        return self._shown(self.client.get("/tasks/counts", wait=wait, version=version, **query(filters)))

    def join(self, tasks, retry: int = 1, check: bool = False, progress: bool | None = None) -> dict[str, int]:
        """Waits until all these tasks (objects, dictionaries or ids) are done; how many are in each state then.

        Failures are queued again up to `retry` times, beside the task's own retries. A task that waits for one that failed for
        good is not waited for. Progress goes to stderr (a bar on a terminal, a line now and then otherwise; False: none). With
        `check`, TaskFailed is raised if one did not succeed.
        """
        return join(self.client, ids_of(tasks), retry, check, progress)

    # --- executions -----------------------------------------------------------------------------------------------

    def executions(self, task=None, limit: int | None = None, order: str = "id", **filters) -> Listing:
        """The attempts to run tasks; of one `task` (or `task_id`), or those that pass the filters; a page in memory at a time."""
        task = filters.pop("task_id", None) if task is None else task
        filters = query(filters) | ({"task": id_of(task)} if task is not None else {})
        return self._listing(lambda: self.client.pages("/executions", limit, order=order, **filters), "execution")

    def execution_get(self, execution):
        """An attempt to run a task."""
        return self._shown(self.client.get(f"/executions/{id_of(execution)}"), "execution")

    def execution_output(self, execution, stream: str = "stdout", offset: int = 0, limit: int | None = None) -> bytes:
        """The kept bytes of 'stdout' or 'stderr' from an offset, all of them or at most `limit`.

        Of a very long output head and tail are kept; a line between them says how many bytes are missing.
        """
        return b"".join(pieces(self.client, id_of(execution), stream, offset, limit))

    # --- workers --------------------------------------------------------------------------------------------------

    def workers(self, limit: int | None = None, order: str = "id", **filters) -> Listing:
        """The workers, all of them or those of a batch."""
        return self._list("workers", "worker", limit, order, filters)

    def worker_get(self, worker):
        """A worker, by object, dictionary, id or name."""
        return self._shown(self.client.get(f"/workers/{self._worker_id(worker)}"), "worker")

    def worker_update(
        self,
        worker,
        name: str | None = None,
        *,
        batch: str | None = None,
        concurrency: int | None = None,
        prefetch: int | None = None,
        draining: bool | None = None,
        permanent: bool | None = None,
        flavor: str | None = None,
        provider: str | None = None,
        region: str | None = None,
    ):
        """Changes a worker while it works; None leaves a property, RESET takes flavor, provider or region away. The worker."""
        wanted = {"name": name, "batch": batch, "concurrency": concurrency, "prefetch": prefetch}
        wanted |= {"draining": draining, "permanent": permanent, "flavor": flavor, "provider": provider, "region": region}
        body = _given(wanted)
        return self._shown(self.client.send("PATCH", f"/workers/{self._worker_id(worker)}", body), "worker")

    def worker_drain(self, worker, draining: bool = True):
        """Lets a worker end what it has and gives it nothing more; False reverses. The worker."""
        return self.worker_update(worker, draining=draining)

    def worker_upgrade(self, worker):
        """Has a worker go on as the server's version of scitq; what it runs goes on.

        The worker, and that version as `to_version`.
        """
        return self._shown(self.client.send("POST", f"/workers/{self._worker_id(worker)}/upgrade"), "worker")

    def worker_delete(self, worker) -> int | None:
        """Forgets a worker; the machine of one that was deployed is destroyed: the id of the job that does it."""
        told = self.client.send("DELETE", f"/workers/{self._worker_id(worker)}")
        return told["job"] if told else None

    # --- recruiters -----------------------------------------------------------------------------------------------

    def recruiters(self, batch: str | None = None, rank: int | None = None, limit: int | None = None) -> list:
        """The rules by which batches take idle workers."""
        return self._shown(list(self.client.pages("/recruiters", limit, batch=batch, rank=rank)), "recruiter")

    def recruiter_create(
        self,
        batch: str,
        rank: int = 1,
        tasks_per_worker: int | None = None,
        flavor: str | None = None,
        concurrency: int | None = None,
        region: str | None = None,
        provider: str | None = None,
        prefetch: int = 0,
        minimum_tasks: int | None = None,
        maximum_workers: int | None = None,
    ):
        """Makes the recruiter of a batch and rank, or makes it this one; the recruiter.

        It wants a worker for each `tasks_per_worker` (default: `concurrency`) pending tasks, once there are `minimum_tasks`,
        up to `maximum_workers` in the batch. `flavor` is a name, or a protofilter ('auto:cpu>=8:ram>=30'); None: any worker.
        """
        body = dict(locals())
        del body["self"]
        return self._shown(self.client.send("POST", "/recruiters", body), "recruiter")

    def recruiter_update(
        self,
        batch: str,
        rank: int = 1,
        tasks_per_worker: int | None = None,
        flavor: str | None = None,
        concurrency: int | None = None,
        region: str | None = None,
        provider: str | None = None,
        prefetch: int | None = None,
        minimum_tasks: int | None = None,
        maximum_workers: int | None = None,
        *,
        new_rank: int | None = None,
    ):
        """Changes a recruiter; None leaves a property as it is, RESET takes it away. The recruiter."""
        wanted = dict(locals())
        for name in ("self", "batch", "new_rank"):
            del wanted[name]
        wanted["rank"] = new_rank
        return self._shown(self.client.send("PATCH", self._recruiter_path(batch, rank), _given(wanted)), "recruiter")

    def recruiter_delete(self, batch: str, rank: int = 1) -> None:
        """Removes a recruiter; what it took stays until it idles."""
        self.client.send("DELETE", self._recruiter_path(batch, rank))

    def recruiters_match(self, batch: str | None = None, rank: int | None = None) -> list:
        """The recruiters, each with the `workers` that are what it looks for: id, name, batch, and whether they are idle."""
        return self._shown(list(self.client.pages("/recruiters/match", batch=batch, rank=rank)), "recruiter")

    def _recruiter_path(self, batch: str, rank: int) -> str:
        found = list(self.client.pages("/recruiters", batch=batch, rank=rank))
        if not found:
            raise NotFound(f"batch {batch!r:.80} has no recruiter of rank {rank}")
        return f"/recruiters/{found[0]['id']}"

    # --- notifiers ------------------------------------------------------------------------------------------------

    def notifiers(self, batch: str | None = None, limit: int | None = None) -> list:
        """Who is told of batches; `last` says how its latest message fared."""
        return self._shown(list(self.client.pages("/notifiers", limit, batch=batch)), "notifier")

    def notifier_create(
        self,
        batch: str,
        webhook: str | None = None,
        mail: str | None = None,
        done: bool = True,
        failures: int | None = None,
    ):
        """Has the server tell a webhook (a URL) or an address when a batch is `done`, or more tasks than `failures` failed."""
        body = dict(locals())
        del body["self"]
        return self._shown(self.client.send("POST", "/notifiers", body), "notifier")

    def notifier_delete(self, notifier) -> None:
        """Removes a notifier with what it has not sent yet."""
        self.client.send("DELETE", f"/notifiers/{id_of(notifier)}")

    # --- batches ----------------------------------------------------------------------------------------------------

    def batches(self, limit: int | None = None) -> list:
        """The batches with their workers and the number of tasks in each state."""
        return self._shown(list(self.client.pages("/batches", limit)), "batch")

    def batch_get(self, batch: str):
        """A batch."""
        return self._shown(self.client.get(_batch_path(batch)), "batch")

    def batch_update(self, batch: str, *, budget=None):
        """Changes a batch; `budget`: money that its machines may cost before no more are recruited, RESET: none. The batch."""
        return self._shown(self.client.send("PATCH", _batch_path(batch), _given({"budget": budget})), "batch")

    def batch_stop(self, batch: str, running: str | None = None):
        """Nothing of the batch starts any more; `running` also does 'suspend', 'term' or 'kill' to what runs."""
        return self._shown(self.client.send("POST", _batch_path(batch) + "/stop", {"running": running}), "batch")

    def batch_go(self, batch: str):
        """Reverses `batch_stop`."""
        return self._shown(self.client.send("POST", _batch_path(batch) + "/go", {}), "batch")

    def batch_delete(self, batch: str) -> None:
        """Deletes a batch with all its tasks; running ones are stopped first."""
        self.client.send("DELETE", _batch_path(batch))

    def batch_report(self, batch: str):
        """Durations, failures by exit code and last line, peak memory."""
        return self._shown(self.client.get(_batch_path(batch) + "/report"))

    def batch_file(self, batch: str) -> str:
        """The text of a batch file that makes a batch again: its tasks, its recruiters, and who is told of it by mail."""
        return self.client.get_answer(_batch_path(batch) + "/file").body.decode()

    # --- the rest ---------------------------------------------------------------------------------------------------

    def info(self):
        """What the server says of itself: version, database, time, counts, and who we are to it."""
        return self._shown(self.client.get("/server"))

    def events(self, limit: int | None = None, order: str = "id", **filters) -> list:
        """Who changed what, when: filters `object`, `who`, `after` (an id)."""
        return self._shown(list(self.client.pages("/events", limit, order=order, **filters)))

    def tokens(self) -> list:
        """The tokens: names and roles, never the tokens themselves."""
        return self._shown(list(self.client.pages("/tokens")))

    def token_create(self, name: str, role: str = "user"):
        """Makes a token; the answer holds it, this once."""
        return self._shown(self.client.send("POST", "/tokens", {"name": name, "role": role}))

    def token_delete(self, token) -> None:
        """Revokes a token, by object, dictionary or id."""
        self.client.send("DELETE", f"/tokens/{id_of(token)}")

    def backup(self):
        """Makes a whole copy of the database in the server's data directory: `path`, `size_bytes`. A large one takes its time."""
        return self._shown(self.client.send("POST", "/backup", {}, timeout=DAY_SECONDS))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _shown(self, plain, noun: str | None = None):
        return shown(plain, self.style, noun)

    def _list(self, path: str, noun: str, limit: int | None, order: str, filters: dict) -> Listing:
        chosen = query(filters)
        return self._listing(lambda: find(self.client, path, limit, order, chosen), noun)

    def _listing(self, ask: Callable[[], Iterator[dict]], noun: str) -> Listing:
        return Listing(ask, lambda item: self._shown(item, noun))

    def _bulk(self, verb: str, ids, filters: dict | None = None, **body):
        """One write for many tasks. Without ids and filters nothing is sent: forgetting them must not mean all tasks."""
        chosen = query(filters or {})
        if ids is None and not chosen:
            raise InvalidRequest(f"which tasks should be changed by {verb}? give ids or a filter; name='*' means all of them")
        if isinstance(ids, str) or (ids is not None and chosen):
            chosen["ids"] = _filter_value("ids", ids)
        body |= {"filter": chosen} if chosen else {"ids": ids_of(ids)}
        return self._shown(self.client.send("POST", f"/tasks/{verb}", body))

    def _worker_id(self, worker) -> int:
        """The id of a worker that may be given by name."""
        if not isinstance(worker, str) or worker.isdigit():
            return id_of(worker)
        found = {item["name"]: item["id"] for item in self.client.pages("/workers")}
        if worker not in found:
            raise NotFound(f"there is no worker {worker!r}{nearest(worker, found)}")
        return found[worker]


def find(client: Client, path: str, limit: int | None, order: str, chosen: dict) -> Iterator[dict]:
    """The items of a list that pass filters, page by page; more ids than a URL holds are asked for in several requests."""
    groups = range_groups(ids_of(chosen["ids"])) if len(str(chosen.get("ids", ""))) > LONGEST_QUERY else [chosen.get("ids")]
    left = limit
    for ids in groups if order == "id" else reversed(groups):
        for item in client.pages("/" + path, left, order=order, **chosen | {"ids": ids}):
            left = None if left is None else left - 1
            yield item
        if left == 0:
            return


def _given(wanted: dict) -> dict:
    """What is to be changed: None is left out, RESET takes away."""
    return {name: None if value is RESET else value for name, value in wanted.items() if value is not None}


def query(filters: dict) -> dict:
    """Filters as the API writes them, from any of their names. Raises InvalidRequest naming an unknown one."""
    found = {}
    for name, value in filters.items():
        ours = _OLDER_FILTERS.get(name, name)
        if ours not in _FILTERS:
            raise InvalidRequest(f"there is no such filter{nearest(name, _FILTERS)}: there are {', '.join(_FILTERS)}", field=name)
        if value is not None:
            found[ours] = _filter_value(ours, value)
    return found


def _filter_value(name: str, value):
    if name == "ids":
        return value if isinstance(value, str) else ranges(ids_of(value)) or NO_ID
    return ",".join(map(str, value)) if isinstance(value, (list, tuple, set)) else value


def _batch_path(batch: str) -> str:
    return "/batches/" + quote(batch, safe="")
