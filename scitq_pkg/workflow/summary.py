"""What became of a workflow, for programs and in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..escapes import safe
from ..lib.join import DELETED
from ..protocol import FAILED, FINAL, SUCCEEDED, TASK_STATES

_SHOWN = 20  # failures, and steps that wait for ever
ORDER = (SUCCEEDED, *(state for state in reversed(TASK_STATES) if state != SUCCEEDED), DELETED)


def told(counts: dict[str, int]) -> str:
    """`10 succeeded, 2 failed, 8 running`, what has ended first."""
    return ", ".join(f"{counts[state]} {state}" for state in ORDER if counts.get(state)) or "no tasks"


@dataclass
class Summary:
    """How many tasks are in each state, of all and of each of `batches`, by its name in the script. True if all went well."""

    name: str
    batches: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: list[tuple[str, int, str]] = field(default_factory=list)  # step, task id and how it ended, of the latest of them
    blocked: list[tuple[str, str]] = field(default_factory=list)  # a step that waits for ever, and what for
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """How many of all tasks are in each state."""
        return dict(sum((Counter(counts) for counts in self.batches.values()), Counter()))

    @property
    def total(self) -> int:
        """How many tasks there are."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """How many tasks have ended."""
        return sum(number for state, number in self.counts.items() if state in (*FINAL, DELETED))

    @property
    def ok(self) -> bool:
        """Whether all succeeded."""
        return self.counts.get(SUCCEEDED, 0) == self.total

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The whole, in words."""
        lines = [f"workflow {safe(self.name)}: {self.total} tasks: {told(self.counts)}; {self.seconds:.1f} s"]
        width = max((len(safe(name)) for name in self.batches), default=0)
        if len(self.batches) > 1:
            lines += [f"  {safe(name):<{width}}  {told(counts)}" for name, counts in self.batches.items()]
        lines += [f"failed: {safe(step)} (task {task_id}): {safe(words)}" for step, task_id, words in self.failures[:_SHOWN]]
        if (more := self.counts.get(FAILED, 0) - min(len(self.failures), _SHOWN)) > 0:
            lines.append(f"... and {more} more failed")
        lines += [f"waits for ever: {safe(step)}, as {safe(cause)}" for step, cause in self.blocked[:_SHOWN]]
        if len(self.blocked) > _SHOWN:
            lines.append(f"... and {len(self.blocked) - _SHOWN} more wait for ever")
        if not self.ok and self.done + len(self.blocked) == self.total:
            lines.append("Mend it and start the script again: what succeeded stays, the rest goes on.")
        return lines
