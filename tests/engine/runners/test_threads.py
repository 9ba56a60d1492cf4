import functools
import threading

import pytest
from threadpoolctl import ThreadpoolController

from salver.engine.runners.threads import TaskThreads, one_blas_thread


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_task_runs_once(threads: int) -> None:
    done: list[int] = []
    TaskThreads(threads).run([functools.partial(done.append, i) for i in range(200)])
    assert sorted(done) == list(range(200))


def test_no_tasks_is_no_work() -> None:
    TaskThreads(3).run([])


def test_tasks_run_at_the_same_time() -> None:
    """Each of two tasks waits for the other; one thread alone would never get past the first."""
    meeting = threading.Barrier(2, timeout=10)

    def meet() -> None:
        meeting.wait()

    TaskThreads(2).run([meet, meet])


@pytest.mark.parametrize("threads", [1, 2])
def test_an_exception_of_a_task_reaches_the_caller(threads: int) -> None:
    def fail() -> None:
        raise ArithmeticError("task")

    with pytest.raises(ArithmeticError, match="task"):
        TaskThreads(threads).run([fail, lambda: None, fail])


def test_the_blas_limit_ends_with_its_block() -> None:
    def blas_threads() -> list[int]:
        found = ThreadpoolController().select(user_api="blas").info()
        return [library["num_threads"] for library in found]

    before = blas_threads()
    with one_blas_thread():
        assert set(blas_threads()) <= {1}
    assert blas_threads() == before
