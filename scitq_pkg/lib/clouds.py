"""What `Server` can do with machines of providers: deploy workers, follow jobs, look at flavors and machines."""

from __future__ import annotations

from collections.abc import Iterator

from ..protocol import DEFAULT_BATCH
from .client import Client
from .objects import id_of, shown

LOG_WAIT_SECONDS = 20.0  # that one answer is waited for while a log is followed
_OVER = ("succeeded", "failed", "canceled")


class Clouds:
    """Methods of `Server`."""

    client: Client
    style: str

    def worker_deploy(
        self,
        number: int,
        batch: str | None,
        region: str = "auto",
        flavor: str = "auto",
        concurrency: int | None = None,
        provider: str = "auto",
        prefetch: int = 0,
        *,
        permanent: bool = False,
        name: str | None = None,
    ) -> list:
        """Deploys `number` workers on new machines of a provider; for each its `worker` id, `name`, `machine` and `job`.

        `flavor` is a name, or a protofilter ('auto:cpu>=8:ram>=30'); provider and region may be 'auto'. `concurrency` is by
        default as many tasks as the flavor has processors. It answers at once: the machines are made by jobs (see `job_wait`).
        """
        body = dict(locals(), batch=batch or DEFAULT_BATCH)
        del body["self"]
        return self._made(self.client.send("POST", "/workers/deploy", body)["items"])

    # --- jobs -------------------------------------------------------------------------------------------------------

    def jobs(
        self, limit: int | None = None, order: str = "id", *, state=None, kind=None, provider=None, worker=None, batch=None
    ) -> list:  # fmt: skip
        """What the server does with providers: deploys, destroys, asks for flavors. States and kinds may be several."""
        several = {"state": _joined(state), "kind": _joined(kind)}
        rows = self.client.pages("/jobs", limit, order=order, **several, provider=provider, worker=worker, batch=batch)
        return self._made(list(rows), "job")

    def job_get(self, job):
        """A job."""
        return self._made(self.client.get(f"/jobs/{id_of(job)}"), "job")

    def job_log(self, job, follow: bool = False) -> Iterator[dict]:
        """The lines of its log, each `seq`, `at`, `line`; with `follow` until the job has ended."""
        path, after = f"/jobs/{id_of(job)}/log", 0
        while True:
            told = self.client.get(path, wait=LOG_WAIT_SECONDS if follow else None, after=after)
            yield from self._made(told["items"])
            if not told["items"] and (not follow or told["state"] in _OVER):
                return
            after = told["next"]

    def job_wait(self, job):
        """Waits until a job has ended; the job."""
        for _ in self.job_log(job, follow=True):
            pass
        return self.job_get(job)

    def job_cancel(self, job):
        """Ends a job; what it has deployed is destroyed. The job."""
        return self._made(self.client.send("POST", f"/jobs/{id_of(job)}/cancel", {}), "job")

    def job_relaunch(self, job):
        """Tries a job anew that failed or was canceled. The job."""
        return self._made(self.client.send("POST", f"/jobs/{id_of(job)}/relaunch", {}), "job")

    def job_delete(self, job) -> None:
        """Forgets a job that ended, with its log."""
        self.client.send("DELETE", f"/jobs/{id_of(job)}")

    # --- flavors, machines, providers ---------------------------------------------------------------------------------

    def flavors(
        self, flavor: str | None = None, provider: str | None = None, region: str | None = None, limit: int | None = None
    ) -> list:  # fmt: skip
        """The sizes of machines that providers have, cheapest first; by a protofilter in the order in which they are taken."""
        rows = self.client.get("/flavors", filter=flavor, provider=provider, region=region, limit=limit)["items"]
        return self._made(rows)

    def flavors_update(self, provider: str | None = None) -> list:
        """Has a provider, or all of them, asked what they have; the ids of the jobs that do it."""
        return [item["job"] for item in self.client.send("POST", "/flavors/update", {"provider": provider})["items"]]

    def machines(
        self, limit: int | None = None, order: str = "id", *, provider: str | None = None, state=None, unknown: bool | None = None
    ) -> list:  # fmt: skip
        """What providers run for the server; `unknown`: that nobody there asked for.

        Those that are gone with state='gone' alone.
        """
        told = None if unknown is None else str(unknown).lower()
        return self._made(
            list(self.client.pages("/machines", limit, order=order, provider=provider, state=_joined(state), unknown=told))
        )

    def machine_get(self, machine):
        """A machine."""
        return self._made(self.client.get(f"/machines/{id_of(machine)}"))

    def machine_delete(self, machine, forget: bool = False) -> int | None:
        """Destroys a machine, and its worker: the id of the job that does it, None if there is nothing to destroy.

        `forget`: takes it for gone without asking its provider, where it may go on and cost.
        """
        told = self.client.send("DELETE", f"/machines/{id_of(machine)}{'?forget=true' if forget else ''}")
        return told["job"] if told else None

    def providers(self) -> list:
        """The providers of the server's configuration, each with what troubles it, if anything does."""
        return self._made(self.client.get("/providers")["items"])

    def _made(self, plain, noun: str | None = None):
        return shown(plain, self.style, noun)


def _joined(value) -> str | None:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple, set)) else value
