"""Of the jobs that want one lease, at most one relies on it, whatever happens to requests and jobs."""

from collections.abc import Sequence

import pytest
from stream_processing.lease import Timing

from tests.models.exploration import ViolationError, explore
from tests.models.lease_model import LeaseModel


@pytest.mark.parametrize(
    "before",
    [(), ("job 0 asks ", "job 1 asks "), ("job 0 asks with a lost response", "job 1 asks ")],
    ids=["nobody has it", "one has it, and one waits", "one has it without knowing, and one waits"],
)
def test_two_jobs_never_hold_the_lease_at_the_same_time(before: Sequence[str], deeper: int) -> None:
    model = LeaseModel()
    state = model.start
    for name in before:
        state = dict(model.steps(state))[name]
    assert explore(state, model.steps, model.check, 4 + deeper).states > 1_000


def test_a_job_that_relies_on_the_lease_for_longer_than_the_others_wait_is_found() -> None:
    model = LeaseModel(Timing(validity=41, settling=0))
    with pytest.raises(ViolationError, match="two jobs hold the lease; after: "):
        explore(model.start, model.steps, model.check, 4)
