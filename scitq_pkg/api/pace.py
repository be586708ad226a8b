"""How fast the batches go, and when they will be through: from the attempts that ended lately, which are kept in memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ..store import Transaction, attempts

RENEW_SECONDS = 5.0
KEPT = 300  # attempts of a batch
WINDOW_SECONDS = 600.0  # over which a throughput is told
LATELY_SECONDS = 3600.0  # in which failures count as late ones
ASK_AGAIN_SECONDS = 60.0  # for old durations of a batch that had none
FEW = 5  # durations that say little: the range is taken wider
QUEUED = ("waiting", "pending", "assigned", "accepted")


@dataclass
class _Track:
    """What is remembered of a batch."""

    ended: deque = field(default_factory=lambda: deque(maxlen=KEPT))  # rows of attempts, oldest end first
    elapsed: list[float] = field(default_factory=list)  # seconds that each of its running commands has run
    asked: float = float("-inf")

    def durations(self) -> list[float]:
        """Seconds that its succeeded commands took."""
        return [
            max(0.0, row["ended_at"] - row["started_at"])
            for row in self.ended
            if row["state"] == "succeeded" and row["started_at"]
        ]


class Pace:
    """Looks at the database at most every RENEW_SECONDS; only what is new is read."""

    def __init__(self):
        self._tracks: dict[int, _Track] = {}
        self._live: set[int] = set()
        self._seen = 0
        self._looked = float("-inf")

    def is_due(self, now: float) -> bool:
        """Whether it is time to look again; `now` is the server's time."""
        return not 0 <= now - self._looked < RENEW_SECONDS

    def look(self, tx: Transaction, batches: list[dict]) -> None:
        """Bring what is kept of these batches up to date."""
        self._looked = tx.now
        self._tracks = {row["id"]: self._tracks.get(row["id"], _Track()) for row in batches}
        live = attempts.live(tx)
        gone = self._live - {row["id"] for row in live}
        ended, self._seen = attempts.ended(tx, self._seen, sorted(gone))
        self._live = {row["id"] for row in live}
        for row in sorted(ended, key=lambda row: row["finished_at"]):
            if row["batch_id"] in self._tracks:
                self._tracks[row["batch_id"]].ended.append(row)
        self._note_elapsed(live, tx.now)
        self._ask_for_old(tx, batches)

    def _note_elapsed(self, live: list[dict], now: float) -> None:
        for track in self._tracks.values():
            track.elapsed = []
        for row in live:
            if row["state"] == "running" and row["started_at"] and row["batch_id"] in self._tracks:
                self._tracks[row["batch_id"]].elapsed.append(max(0.0, now - row["started_at"]))

    def _ask_for_old(self, tx: Transaction, batches: list[dict]) -> None:
        """A batch that has work, and of which nothing ended lately, may have ended tasks of long ago."""
        for row in batches:
            track = self._tracks[row["id"]]
            wants = row["counts"].get("succeeded") and any(row["counts"].get(state) for state in (*QUEUED, "running"))
            if wants and not track.durations() and tx.now - track.asked > ASK_AGAIN_SECONDS:
                track.asked = tx.now
                old = attempts.newest_succeeded(tx, row["id"], KEPT)
                track.ended = deque(sorted([*old, *track.ended], key=lambda one: one["finished_at"]), maxlen=KEPT)
                return  # one in a look: they are not cheap

    def of(self, batch: dict, slots: int, now: float) -> dict:
        """`throughput_per_hour`, `eta_seconds` ([low, high] or None) and `failed_lately` of a batch with so many run slots."""
        track = self._tracks.get(batch["id"]) or _Track()
        failed = sum(row["state"] == "failed" and row["finished_at"] > now - LATELY_SECONDS for row in track.ended)
        going = not batch["stopped"] and slots > 0
        return {
            "throughput_per_hour": _throughput(track.ended, now),
            "eta_seconds": _time_left(batch["counts"], track, slots) if going else None,
            "failed_lately": failed,
        }


def _throughput(ended: deque, now: float) -> float:
    """Attempts an hour, over the last minutes, or since the first one if that is less long ago."""
    lately = [row for row in ended if row["finished_at"] > now - WINDOW_SECONDS]
    if not lately:
        return 0.0
    first = lately[0]["finished_at"] if len(lately) == KEPT else min(row["started_at"] or row["finished_at"] for row in lately)
    return _rounded(len(lately) * 3600 / min(WINDOW_SECONDS, max(1.0, now - first)))


def _time_left(counts: dict[str, int], track: _Track, slots: int) -> list[float] | None:
    """Between which numbers of seconds all will be through, if all goes as lately; None if that cannot be said."""
    durations = sorted(track.durations())
    queued = sum(counts.get(state, 0) for state in QUEUED)
    moves = sum(counts.get(state, 0) for state in ("pending", "assigned", "accepted", "running"))
    if not durations or not moves:
        return None
    low, high = durations[len(durations) // 4], durations[-1 - len(durations) // 4]
    if len(durations) < FEW:
        low, high = durations[0] / 2, durations[-1] * 2
    return [_rounded(_spread(seconds, queued, track.elapsed, slots)) for seconds in (low, high)]


def _spread(seconds: float, queued: int, elapsed: list[float], slots: int) -> float:
    """Seconds until all is through if each takes so long; one that took longer already is taken for nearly through."""
    rest = [max(seconds - spent, seconds / 10) for spent in elapsed]
    longest = seconds if queued else max(rest, default=0.0)
    return max(longest, (queued * seconds + sum(rest)) / slots)


def _rounded(value: float) -> float:
    """To two figures: more would be no news."""
    return float(f"{value:.2g}")
