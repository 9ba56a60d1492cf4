"""A few threads that share one list of tasks.

The BLAS is held to one thread, and work is cut into tasks of fixed shape that threads claim one by
one. A BLAS's own threads split each product in equal parts and wait for each other spinning; where
something else wants a core, such as a gateway beside its worker, every product then waits for a
thread that does not run (measured on two busy cores: 10 to 20 times slower). Here a thread that
gets no core claims no task. And since the cut does not depend on the number of threads, neither do
the bits.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController

_libraries = ThreadpoolController()  # what NumPy has loaded


def one_blas_thread() -> AbstractContextManager[None]:
    """While entered, the BLAS computes in the calling thread, in the whole process."""
    limit: AbstractContextManager[None] = _libraries.limit(limits=1, user_api="blas")
    return limit


class TaskThreads:
    """The calling thread and `threads` - 1 others. NumPy frees the GIL inside array operations."""

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="salver-runner")

    def run(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Run every task once, in any order, and return when all are done.

        A task's exception is raised here; tasks that nobody had claimed by then may stay undone.
        """
        unclaimed = iter(tasks)  # a list iterator hands each task to one thread

        def work() -> None:
            for task in unclaimed:
                task()

        helpers = [self._pool.submit(work) for _ in range(min(self.threads, len(tasks)) - 1)]
        try:
            work()
        finally:
            started = [helper for helper in helpers if not helper.cancel()]
            for helper in started:
                helper.result()
