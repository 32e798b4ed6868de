"""Jobs that want one lease: any of them is killed or paused, and the store's answers are late, lost or errors."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from stream_processing.lease import LEASE, Holder, Lease, LeaseLostError, StoredObject, StoreError, Timing

from tests.models.exploration import ViolationError

JOBS: Final = 2
OUTCOMES: Final = ("", "with an error", "with a lost response", "with a late write", "with a slow response")
"""Of a write."""
TICKS: Final = (10.0, 20.0)
_TIMING: Final = Timing(settling=0.0)


@dataclass(frozen=True)
class Job:
    """What a job knows, and whether it has the lease; one that is killed or loses it is followed by another."""

    me: Holder
    etag: str = ""
    held_until: float = float("-inf")
    seen: str | None = None
    seen_at: float = 0.0
    runs: bool = False


@dataclass(frozen=True)
class State:
    """The time, the object, the writes that may still arrive, and the jobs."""

    jobs: tuple[Job, ...]
    now: float = 0.0
    stored: StoredObject | None = None
    late: tuple[tuple[str | None, str], ...] = ()
    """The ETag that is required, None for no object, and the text."""
    started: int = JOBS
    """Jobs up to now."""


@dataclass
class Store:
    """One object in memory, whose next write has the given outcome."""

    state: State
    outcome: str = ""
    meanwhile: Callable[[State], State] = lambda state: state
    """What happens between a write and its slow response."""

    def get(self, name: str) -> StoredObject | None:
        return {LEASE: self.state.stored}[name]

    def put_if_absent(self, name: str, text: str) -> str | None:
        return self._put(name, None, text)

    def put_if_match(self, name: str, text: str, etag: str) -> str | None:
        return self._put(name, etag, text)

    def delete(self, name: str) -> None:
        raise AssertionError(f"no job deletes {name}")

    def _put(self, name: str, etag: str | None, text: str) -> str | None:
        assert name == LEASE
        outcome, self.outcome = self.outcome, ""
        if outcome == "with an error":
            raise StoreError("refused")
        if outcome == "with a late write":
            self.state = replace(self.state, late=(*self.state.late, (etag, text)))
            raise StoreError("timeout")
        self.state, written = _put(self.state, etag, text)
        if outcome == "with a slow response":
            self.state = self.meanwhile(self.state)
        if outcome == "with a lost response":
            raise StoreError("timeout")
        return written


def _put(state: State, etag: str | None, text: str) -> tuple[State, str | None]:
    current = None if state.stored is None else state.stored.etag
    if current != etag:
        return state, None
    # As in S3, the same content has the same ETag.
    return replace(state, stored=StoredObject(text, text)), text


def new_job(number: int) -> Job:
    """Return a job that has not asked for the lease yet."""
    return Job(Holder("host", number, token=str(number), number=1))


@dataclass
class LeaseModel:
    """The steps of two jobs."""

    timing: Timing = _TIMING
    start: State = field(default_factory=lambda: State(tuple(map(new_job, range(JOBS)))))

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield each step."""
        for seconds in TICKS:
            yield f"{seconds:.0f} s", replace(state, now=state.now + seconds)
        for n, (etag, text) in enumerate(state.late):
            later, _ = _put(state, etag, text)
            yield "a late write arrives", replace(later, late=state.late[:n] + state.late[n + 1 :])
        for n, job in enumerate(state.jobs):
            yield f"job {n} is killed", _with_new_job(state, n)
            for outcome in OUTCOMES:
                action = "renews" if job.runs else "asks"
                yield f"job {n} {action} {outcome}", self._ask(state, n, outcome)
            if job.runs:
                yield f"job {n} stops", self._release(state, n)

    def check(self, state: State) -> None:
        """At most one job relies on the lease; and a new one gets it once the others are silent."""
        holders = [n for n in range(len(state.jobs)) if state.jobs[n].runs and self._is_held(state, n)]
        if len(holders) > 1:
            raise ViolationError("two jobs hold the lease")
        store = Store(state)
        waiting = self._lease(store, new_job(-1), len(state.jobs))
        if not waiting.try_take():
            store.state = replace(store.state, now=store.state.now + self.timing.duration)
            if not waiting.try_take():
                raise ViolationError("a lease that nobody renews does not expire")

    def _is_held(self, state: State, n: int) -> bool:
        return self._lease(Store(state), state.jobs[n], n).is_held()

    def _ask(self, state: State, n: int, outcome: str) -> State:
        def meanwhile(written: State) -> State:
            """Another job asks, and time passes."""
            other = 1 - n
            asked = written if written.jobs[other].runs else self._ask(written, other, "")
            return replace(asked, now=asked.now + self.timing.duration)

        store = Store(state, outcome, meanwhile)
        lease, runs = self._lease(store, state.jobs[n], n), state.jobs[n].runs
        if runs and not lease.is_held():
            return _with_new_job(state, n)
        try:
            if runs:
                lease.renew()
            else:
                runs = lease.try_take()
        except StoreError:
            pass
        except LeaseLostError:
            return _with_new_job(store.state, n)
        job = Job(lease._me, lease._etag, lease._held_until, lease._seen, lease._seen_at, runs)
        return _with(store.state, n, job)

    def _release(self, state: State, n: int) -> State:
        store = Store(state)
        self._lease(store, state.jobs[n], n).release()
        return _with_new_job(store.state, n)

    def _lease(self, store: Store, job: Job, n: int) -> Lease:
        def clock() -> float:
            # Of another machine.
            return store.state.now + 1_000 * n

        return Lease(
            store, self.timing, clock, lambda _: None,
            _me=job.me, _etag=job.etag, _held_until=job.held_until, _seen=job.seen, _seen_at=job.seen_at,
        )  # fmt: skip


def _with_new_job(state: State, n: int) -> State:
    return _with(replace(state, started=state.started + 1), n, new_job(state.started))


def _with(state: State, n: int, job: Job) -> State:
    return replace(state, jobs=(*state.jobs[:n], job, *state.jobs[n + 1 :]))
