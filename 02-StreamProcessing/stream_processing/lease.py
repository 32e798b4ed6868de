"""A lease in an object store, which at most one stream job holds at a time.

It is one small object. A job takes it by a conditional write, which the store refuses if another was faster, and renews
it by replacing exactly the version that it has written last. Whoever waits takes it once it has not changed for
`Timing.duration`, by the clock of the waiting one. The clocks of two machines are never compared: the holder relies on
it for a shorter time, `Timing.validity`, counted from before it sent the last renewal.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Final, Protocol, Self

logger = logging.getLogger(__name__)

LEASE: Final = ".lease"
"""The name of the object, in the folder of the checkpoints."""
_PROBE: Final = ".lease-probe"
_REPORTED: Final = 2
"""Renewals that fail one after the other before the log says so."""
_MAX_HOST: Final = 100
"""Characters of a host's name in a message: the object can have been written by anyone."""


class StoreError(Exception):
    """The store has not answered, or with an error: whether it has written anything is unknown."""


class UnsupportedError(StoreError):
    """The store does not support conditional writes."""


class LeaseLostError(Exception):
    """Another job has taken the lease; the message says which."""


@dataclass(frozen=True)
class StoredObject:
    """An object and the identity of its version, which each write changes."""

    text: str
    etag: str


class ConditionalStore(Protocol):
    """Small objects by name, written on conditions. All methods raise `StoreError`."""

    def get(self, name: str) -> StoredObject | None:
        """Return an object; None if it does not exist."""

    def put_if_absent(self, name: str, text: str) -> str | None:
        """Create an object and return its ETag; None if it exists."""

    def put_if_match(self, name: str, text: str, etag: str) -> str | None:
        """Replace the version with this ETag and return the new one's; None if that is not the current version."""

    def delete(self, name: str) -> None:
        """Delete an object."""


@dataclass(frozen=True)
class Timing:
    """Seconds. `duration - validity` is what the holder has to end everything that writes."""

    duration: float = 20.0
    """Without a change after which another job takes the lease."""
    validity: float = 15.0
    """After a renewal was sent, for which its holder relies on it."""
    renewal: float = 5.0
    """Between two renewals."""
    retry: float = 1.0
    """Between two attempts of a renewal that fails, or of a job that waits for the lease."""
    settling: float = 0.5
    """Until a lease that was taken over is read back."""
    check: float = 0.5
    """Between two checks of whether it is still held."""


@dataclass(frozen=True)
class Holder:
    """What the object says about the job that holds the lease."""

    host: str
    process: int
    token: str
    """Identifies the job: a process id can be used again."""
    number: int
    """Grows each time that a job takes the lease over."""
    writes: int = 0
    """Makes each version, and so its ETag, another one."""
    released: bool = False
    """Whether the job has ended, and nothing of it can write any more."""

    def to_json(self) -> str:
        """Return the content of the object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse the content of the object. One that is damaged has an unknown holder, and expires like another."""
        try:
            found = json.loads(text)
            return cls(
                str(found["host"])[:_MAX_HOST],
                int(found["process"]),
                str(found["token"]),
                int(found["number"]),
                int(found["writes"]),
                found["released"] is True,
            )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return cls("an unknown host", 0, "", 0)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host!r}"


def enforces_conditions(store: ConditionalStore) -> bool:
    """Whether the store refuses a write whose condition is false; many that are compatible with S3 ignore it.

    Raises `StoreError`.
    """
    name = f"{_PROBE}-{secrets.token_hex(8)}"
    try:
        first = store.put_if_absent(name, "1")
        if first is None:
            # The name is new: it was this write, repeated by the client.
            raise StoreError("the response to a write was lost")
        if store.put_if_absent(name, "2") is not None:
            return False
        return store.put_if_match(name, "3", first) is not None and store.put_if_match(name, "4", first) is None
    except UnsupportedError:
        return False
    finally:
        # One that stays there does no harm.
        with suppress(StoreError):
            store.delete(name)


def clock() -> float:
    """Return a time that runs on while the machine is suspended, where the system has one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass
class Lease:
    """One job's view of the lease: takes it, renews it, and knows for how long it is held."""

    store: ConditionalStore
    timing: Timing = field(default_factory=Timing)
    clock: Callable[[], float] = clock
    sleep: Callable[[float], object] = time.sleep
    holder: Holder | None = None
    """Who held it at the last attempt to take it."""
    lost: str = ""
    """How another job or person has taken it from this one."""
    _me: Holder = field(
        default_factory=lambda: Holder(socket.gethostname(), os.getpid(), secrets.token_hex(16), number=1)
    )
    _etag: str = ""
    """Of the version that this job has written last."""
    _held_until: float = float("-inf")
    _seen: str | None = None
    """The ETag of another job's version, and when it was seen first."""
    _seen_at: float = 0.0
    _has_changed: bool = False

    def try_take(self) -> bool:
        """Take the lease if it is free, released or expired; a job that waits calls this again and again.

        Raises `StoreError`; the next call finds out whether it was taken nevertheless.
        """
        current = self.store.get(LEASE)
        if current is None:
            self.holder = None
            return self._write(None) and self.is_held()
        self.holder = holder = Holder.from_json(current.text)
        if holder.token == self._me.token:
            # The response to an earlier attempt was lost.
            return self._write(current.etag) and self._is_settled()
        # After the response: this version is older than that.
        now = self.clock()
        if current.etag != self._seen:
            self._has_changed = self._seen is not None
            self._seen, self._seen_at = current.etag, now
        if not holder.released and now < self._seen_at + self.timing.duration:
            return False
        self._me = replace(self._me, number=holder.number + 1)
        return self._write(current.etag) and self._is_settled()

    def renew(self) -> None:
        """Renew the lease. Raises `LeaseLostError`, or `StoreError` if it may be held until its time is over."""
        if self._write(self._etag):
            return
        current = self.store.get(LEASE)
        holder = None if current is None else Holder.from_json(current.text)
        # It can have been replaced by this job itself, if the response to that was lost.
        if current and holder and holder.token == self._me.token and self._write(current.etag):
            return
        self.lost = "it was deleted" if holder is None else f"{holder} has taken it"
        self._held_until = float("-inf")
        raise LeaseLostError(self.lost)

    def is_held(self) -> bool:
        """Whether no other job can have taken the lease yet, without asking the store."""
        return self.clock() < self._held_until

    def release(self) -> bool:
        """Let another job take the lease at once; returns whether this one still held it. Raises `StoreError`."""
        self._me = replace(self._me, released=True)
        is_released = self._write(self._etag)
        self._held_until = float("-inf")
        return is_released

    @property
    def is_in_use(self) -> bool:
        """Whether another job was seen to renew it, and that not long ago."""
        return self._has_changed and self.clock() < self._seen_at + 2 * self.timing.renewal

    @property
    def number(self) -> int:
        """How often it was taken, up to now."""
        return self._me.number

    def _write(self, etag: str | None) -> bool:
        # Each attempt is a new version, for one without a response may have been written: with the same ETag again,
        # one that waits would count from the first.
        self._me = replace(self._me, writes=self._me.writes + 1)
        sent = self.clock()
        text = self._me.to_json()
        written = self.store.put_if_absent(LEASE, text) if etag is None else self.store.put_if_match(LEASE, text, etag)
        if written is None:
            return False
        self._etag, self._held_until = written, sent + self.timing.validity
        return True

    def _is_settled(self) -> bool:
        """Whether the take-over is still there after a moment.

        A store may check a condition and write in two steps: of two jobs at the same moment, both would succeed.
        """
        self.sleep(self.timing.settling)
        current = self.store.get(LEASE)
        if current is None or current.etag != self._etag:
            self._held_until = float("-inf")
        return self.is_held()


class LeaseKeeper:
    """Renews a lease that was taken, in a thread, and calls `on_lost` with the reason as soon as it is lost.

    `on_lost` has to end everything that writes, and so this process.
    """

    def __init__(self, lease: Lease, location: str, on_lost: Callable[[str], object]) -> None:
        self._lease = lease
        self._location = location
        self._on_lost = on_lost
        self._stop = threading.Event()
        self._losing = threading.Lock()
        self._error: StoreError | None = None
        # Two of them: a renewal can hang, as in a Java process that was paused.
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for name, run in (("lease", self._renew), ("lease check", self._check))
        ]
        for thread in self._threads:
            thread.start()

    def require_held(self) -> None:
        """Call `on_lost` unless the lease is held for certain: to be called before each write, it costs no request."""
        if not self._lease.is_held():
            seconds, error = self._lease.timing.validity, self._error or "no answer"
            self._lose(self._lease.lost or f"it was not renewed for {seconds:.0f} s ({error}), so another may take it")

    def release(self) -> None:
        """Let the next job start at once; only when nothing is left that writes."""
        self._stop.set()
        for thread in self._threads:
            thread.join(self._lease.timing.renewal)
        try:
            if any(thread.is_alive() for thread in self._threads):
                raise StoreError("a renewal has not ended")
            self._lease.release()
        except StoreError as error:
            logger.warning(
                "the lease %s could not be released, so the next start waits up to %.0f s for it: %s",
                self._location, self._lease.timing.duration, error,
            )  # fmt: skip

    def _renew(self) -> None:
        wait, failures = self._lease.timing.renewal, 0
        while not self._stop.wait(wait):
            try:
                self._lease.renew()
            except LeaseLostError as error:
                self._lose(str(error))
            except StoreError as error:
                wait, failures = self._lease.timing.retry, failures + 1
                self._error = error
                # The first one is repeated quietly.
                if failures == _REPORTED:
                    logger.warning("the lease %s was not renewed, trying again: %s", self._location, error)
            else:
                wait, failures = self._lease.timing.renewal, 0
                self._error = None

    def _check(self) -> None:
        while not self._stop.wait(self._lease.timing.check):
            self.require_held()

    def _lose(self, why: str) -> None:
        # Only one thread reports it; another waits for the end of the process.
        with self._losing:
            if not self._stop.is_set():
                self._stop.set()
                self._on_lost(f"the lease {self._location} is lost: {why}")
