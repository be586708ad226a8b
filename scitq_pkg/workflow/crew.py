"""Who works for a batch of a workflow, and the recruiters that bring them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import InvalidRequest
from ..protofilter import is_protofilter, parse

RANKS = (1, 2)  # of recruiters that workflows make
_ANY_REGION = "auto"


class _Unset:
    """The type of UNSET."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = _Unset()  # not given. None is a value: it takes a default of the workflow away


@dataclass(slots=True)
class Crew:
    """The workers that a batch asks for. All may be None: then any idle worker serves it, as it is."""

    flavor: str | None = None
    provider: str | None = None
    region: str | None = None
    concurrency: int | None = None
    prefetch: int | None = None
    maximum_workers: int | None = None
    tasks_per_worker: int | None = None
    rounds: int | None = None

    def check(self, batch: str, limit: int | None) -> None:
        """Raises InvalidRequest for what no recruiter can be. `limit`: the workers that the whole workflow may deploy."""
        for name in ("concurrency", "prefetch", "maximum_workers", "tasks_per_worker", "rounds"):
            check_number(name, getattr(self, name), 0 if name == "prefetch" else 1)
        for name in ("flavor", "provider", "region"):
            _check_text(name, getattr(self, name))
        if self.flavor is not None and is_protofilter(self.flavor):
            parse(self.flavor)
        if self.provider is None:
            return
        if self.flavor is None:
            raise InvalidRequest(f"batch {batch!r} has a provider and no flavor: say which machines, as flavor='auto:cpu>=8'")
        if self.maximum_workers is None and limit is None:
            raise InvalidRequest(
                f"batch {batch!r} has a provider and no limit: give maximum_workers, or max_workflow_workers to the workflow"
            )

    def check_same(self, batch: str, given: dict) -> None:
        """The steps of a batch share its workers: what a later one says of them is what the first one said."""
        for name, value in given.items():
            known = getattr(self, name)
            if value is not UNSET and value != known:
                raise InvalidRequest(
                    f"batch {batch!r} has {name}={known!r} since its first step, and this one says {value!r}: "
                    "the steps of a batch share its workers"
                )

    @property
    def pending_per_worker(self) -> int | None:
        """The pending tasks for which a worker is wanted."""
        if self.tasks_per_worker is not None:
            return self.tasks_per_worker
        return (self.concurrency or 1) * self.rounds if self.rounds else self.concurrency

    def recruiters(self, batch: str, left: int | None) -> list[dict]:
        """The recruiters of a batch, while the workflow may deploy so many workers more (None: any number).

        The first one deploys, if it has a provider; what is beyond the workflow's limit comes by a second one, from idle workers.
        """
        common = {
            "batch": batch, "flavor": self.flavor, "concurrency": self.concurrency, "prefetch": self.prefetch,
            "tasks_per_worker": self.pending_per_worker,
        }  # fmt: skip
        first = {**common, "rank": 1, "provider": self.provider, "region": self._region(), "maximum_workers": self.deployed(left)}
        second = {**common, "rank": 2, "maximum_workers": self.maximum_workers}
        is_cut = first["maximum_workers"] != self.maximum_workers
        return ([first] if first["maximum_workers"] != 0 else []) + ([second] if is_cut else [])

    def deployed(self, left: int | None) -> int | None:
        """How many workers it may have by its first recruiter."""
        if self.provider is None or left is None:
            return self.maximum_workers
        return min(left, self.maximum_workers or left)

    def _region(self) -> str | None:
        return None if self.provider is None and self.region == _ANY_REGION else self.region


def crew_of(batch: str, given: dict, defaults: dict, limit: int | None) -> Crew:
    """The crew of a batch from what its first step says and what the workflow says for all. Raises InvalidRequest."""
    crew = Crew(**{one.name: defaults.get(one.name) if given[one.name] is UNSET else given[one.name] for one in fields(Crew)})
    crew.check(batch, limit)
    return crew


def _check_text(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise InvalidRequest(f"must be a text that is not empty, or None, not {value!r:.80}", field=name)


def check_number(name: str, value: object, least: int) -> None:
    """Raises InvalidRequest unless it is a whole number, or None."""
    if value is not None and (type(value) is not int or value < least):
        raise InvalidRequest(f"must be a whole number from {least} on, not {value!r}", field=name)
