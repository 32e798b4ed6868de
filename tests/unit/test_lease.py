"""A lease in an object store has one holder, which knows in time that it is none any more."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from stream_processing.lease import (
    LEASE,
    Holder,
    Lease,
    LeaseKeeper,
    LeaseLostError,
    StoreError,
    Timing,
    UnsupportedError,
    clock,
    enforces_conditions,
)

from tests.memory_store import MemoryStore
from tests.pipeline import assert_more_than, eventually

FAST = Timing(duration=4, validity=3, renewal=0.05, retry=0.02, settling=0, check=0.01)
ANOTHER = Holder("another", 7, "another", number=3)


@dataclass
class Machine:
    """A clock of its own, which a lease's waits advance."""

    now: float = 0.0
    during_sleep: Callable[[], object] = field(default=lambda: None)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.during_sleep()

    def lease(self, store: MemoryStore) -> Lease:
        return Lease(store, clock=lambda: self.now, sleep=self.sleep)


def _content(store: MemoryStore) -> Holder:
    return Holder.from_json(store.objects[LEASE])


@pytest.mark.parametrize("ignores", [(), ("absent",), ("match",), ("absent", "match")])
def test_a_store_that_ignores_a_condition_is_recognised(ignores: tuple[str, ...]) -> None:
    store = MemoryStore(ignores)
    assert enforces_conditions(store) == (ignores == ())
    assert store.objects == {}


def test_a_store_that_refuses_conditions_cannot_have_a_lease() -> None:
    assert not enforces_conditions(MemoryStore(error=UnsupportedError("A header you provided is not implemented")))


def test_a_store_that_fails_is_not_taken_for_one_that_ignores_conditions() -> None:
    for store in MemoryStore(error=StoreError("Access Denied")), MemoryStore(loses_responses=1):
        with pytest.raises(StoreError):
            enforces_conditions(store)


def test_a_job_that_renews_its_lease_keeps_it() -> None:
    store, first, second = MemoryStore(), Machine(), Machine(now=1_000)
    lease, waiting = first.lease(store), second.lease(store)
    assert lease.try_take()
    for _ in range(20):
        assert not waiting.try_take()
        first.now += 5
        second.now += 5
        lease.renew()
        assert lease.is_held()
    assert waiting.is_in_use
    assert waiting.holder is not None
    assert waiting.holder.token == _content(store).token


def test_a_lease_that_is_not_renewed_is_taken_after_20_s_and_its_holder_has_given_it_up_before() -> None:
    store, first, second = MemoryStore(), Machine(), Machine(now=1_000)
    lease, waiting = first.lease(store), second.lease(store)
    assert lease.try_take()
    assert not waiting.try_take()
    first.now, second.now = 14.9, 1_014.9
    assert lease.is_held()
    first.now, second.now = 15, 1_019.9
    assert not lease.is_held()
    assert not waiting.try_take()
    assert not waiting.is_in_use
    second.now = 1_020
    assert waiting.try_take()
    assert (waiting.number, _content(store).number) == (2, 2)
    with pytest.raises(LeaseLostError, match=r"^process \d+ on '.+' has taken it$"):
        lease.renew()
    assert not lease.is_held()


def test_a_lease_that_was_renewed_once_and_then_no_more_is_not_in_use() -> None:
    store, machine = MemoryStore(), Machine()
    lease, waiting = machine.lease(store), machine.lease(store)
    lease.try_take()
    waiting.try_take()
    lease.renew()
    assert not waiting.try_take()
    assert waiting.is_in_use
    machine.now += 11
    assert not waiting.is_in_use


def test_a_released_lease_is_taken_at_once_and_its_number_grows() -> None:
    store, machine = MemoryStore(), Machine()
    for number in (1, 2, 3):
        lease = machine.lease(store)
        assert lease.try_take()
        assert lease.number == number
        assert lease.release()
        assert not lease.is_held()


def test_a_lease_whose_first_response_was_lost_is_held_at_the_next_attempt() -> None:
    store, machine = MemoryStore(loses_responses=1), Machine()
    lease = machine.lease(store)
    with pytest.raises(StoreError):
        lease.try_take()
    assert not lease.is_held()
    assert lease.try_take()
    assert (lease.is_held(), lease.number) == (True, 1)


def test_a_renewal_whose_response_was_lost_is_no_loss_and_is_seen_as_one() -> None:
    store, machine = MemoryStore(), Machine()
    lease, waiting = machine.lease(store), machine.lease(store)
    lease.try_take()
    store.loses_responses = 1
    with pytest.raises(StoreError):
        lease.renew()
    waiting.try_take()
    machine.now = 14
    lease.renew()
    assert lease.is_held()
    machine.now = 25
    assert not waiting.try_take()
    assert waiting.is_in_use


def test_of_two_jobs_in_a_store_that_checks_and_writes_in_two_steps_only_the_last_one_has_the_lease() -> None:
    released = Holder("host", 1, "token", number=1, released=True)
    store, machine = MemoryStore(objects={LEASE: released.to_json()}), Machine()
    lease = machine.lease(store)
    # The condition of the other's write was checked before this one's write.
    machine.during_sleep = lambda: store.objects.update({LEASE: ANOTHER.to_json()})
    assert not lease.try_take()
    assert not lease.is_held()
    assert _content(store) == ANOTHER


@pytest.mark.parametrize(
    "text",
    [
        "",
        pytest.param("[" * 100_000, id="deep"),
        '{"host": "h", "process": 1e999}',
        "[]",
        "null",
        '{"host": 1}',
        "\ufffd",
    ],
)
def test_a_damaged_lease_expires_like_another(text: str) -> None:
    store, machine = MemoryStore(objects={LEASE: text}), Machine()
    lease = machine.lease(store)
    assert not lease.try_take()
    machine.now += 20
    assert lease.try_take()
    assert lease.number == 1


def test_a_host_name_in_the_lease_cannot_fill_the_log() -> None:
    text = json.dumps(json.loads(ANOTHER.to_json()) | {"host": "\n" * 10_000})
    assert len(str(Holder.from_json(text))) < 300
    assert "\n" not in str(Holder.from_json(text))


def test_the_clock_does_not_go_back() -> None:
    assert clock() <= clock()


@dataclass
class Loss:
    """What a keeper reports."""

    reasons: list[str] = field(default_factory=list)
    reported: threading.Event = field(default_factory=threading.Event)

    def __call__(self, reason: str) -> None:
        self.reasons.append(reason)
        self.reported.set()


def _kept(store: MemoryStore, loss: Loss) -> LeaseKeeper:
    lease = Lease(store, FAST)
    assert lease.try_take()
    return LeaseKeeper(lease, "s3a://lake/checkpoints/.lease", loss)


def test_a_kept_lease_is_renewed_until_it_is_released() -> None:
    store, loss = MemoryStore(), Loss()
    keeper = _kept(store, loss)
    eventually(lambda: assert_more_than(_content(store).writes, 5))
    keeper.require_held()
    keeper.release()
    assert (loss.reasons, _content(store).released) == ([], True)


@pytest.mark.parametrize(
    ("text", "reason"), [(ANOTHER.to_json(), "process 7 on 'another' has taken it"), (None, "it was deleted")]
)
def test_a_lease_that_was_taken_or_deleted_is_lost(text: str | None, reason: str) -> None:
    store, loss = MemoryStore(), Loss()
    keeper = _kept(store, loss)
    if text is None:
        del store.objects[LEASE]
    else:
        store.objects[LEASE] = text
    assert loss.reported.wait(30)
    keeper.require_held()
    keeper.release()
    assert loss.reasons == [f"the lease s3a://lake/checkpoints/.lease is lost: {reason}"]
    assert LEASE not in store.objects or store.objects[LEASE] == text


def test_a_lease_that_cannot_be_renewed_in_time_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    store, loss = MemoryStore(), Loss()
    keeper = _kept(store, loss)
    store.error = StoreError("503 Slow Down")
    assert loss.reported.wait(30)
    assert not keeper._lease.is_held()
    (reason,) = loss.reasons
    assert reason.endswith("is lost: it was not renewed for 3 s (503 Slow Down), so another may take it")
    assert caplog.messages == ["the lease s3a://lake/checkpoints/.lease was not renewed, trying again: 503 Slow Down"]


def test_a_store_that_fails_for_a_moment_costs_no_lease() -> None:
    store, loss = MemoryStore(), Loss()
    keeper = _kept(store, loss)
    for _ in range(5):
        store.error = StoreError("503 Slow Down")
        assert not loss.reported.wait(5 * FAST.retry)
        store.error = None
        assert not loss.reported.wait(2 * FAST.renewal)
    keeper.require_held()
    keeper.release()
    assert loss.reasons == []


def test_a_lease_that_cannot_be_released_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    lease = Lease(store)
    lease.try_take()
    keeper = LeaseKeeper(lease, "s3a://lake/checkpoints/.lease", Loss())
    store.error = StoreError("503 Slow Down")
    keeper.release()
    assert caplog.messages == [
        "the lease s3a://lake/checkpoints/.lease could not be released, so the next start waits up to 20 s for it: "
        "503 Slow Down"
    ]
