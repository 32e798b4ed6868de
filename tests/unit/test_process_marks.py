"""The end of a process that has started others ends those, and none that another one has started."""

import os
import subprocess
import sys

import psutil
from mirakuru import SimpleExecutor
from mirakuru.base import ENV_UUID

from local_stack.process_marks import is_own, marked

_PARENT = """
import sys
from mirakuru import SimpleExecutor
from local_stack.process_marks import marked
executors = [marked(SimpleExecutor(["sleep", "600"])).start(), SimpleExecutor(["sleep", "600"]).start()]
print(*(executor.process.pid for executor in executors), flush=True)
sys.stdin.read()
"""


def test_no_id_of_a_process_is_part_of_a_mark() -> None:
    marks = {marked(SimpleExecutor(["true"]))._uuid for _ in range(20)}
    assert len(marks) == 20
    assert not any(character.isdigit() for mark in marks for character in mark)
    assert all(map(is_own, marks))


def test_a_mark_that_contains_the_id_of_this_process_is_not_its_own() -> None:
    assert is_own(f"{os.getpid()}:0b1c")
    assert not any(map(is_own, (f"1{os.getpid()}:0b1c", f"1:{os.getpid()}", "")))


def test_the_end_of_a_process_ends_those_that_it_has_started_and_no_others() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        started = [int(pid) for pid in parent.stdout.readline().split()]
        with subprocess.Popen(["sleep", "600"], env={**os.environ, ENV_UUID: f"1{parent.pid}:{parent.pid}"}) as other:
            try:
                assert all(map(psutil.pid_exists, started))
                parent.communicate()
                _, alive = psutil.wait_procs([psutil.Process(pid) for pid in started if psutil.pid_exists(pid)], 5)
                assert alive == []
                assert other.poll() is None
            finally:
                other.kill()
