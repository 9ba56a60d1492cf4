"""What a worker does to itself so that it cannot hurt, or outlive, its gateway.

There is no address-space limit (RLIMIT_AS) here: a memory-mapped checkpoint and the arenas of BLAS
count against it in full while costing little, so any value is either too low or no bound at all. The
memory plan bounds what the engine allocates; `WorkerStatistics.resident_bytes` shows what it holds.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

from threadpoolctl import threadpool_limits

PR_SET_PDEATHSIG = 1  # prctl(2)
M_ARENA_MAX = -8  # mallopt(3)
OOM_SCORE_ADJ = 500  # proc(5): -1000 is never, 1000 is first


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent's thread ends.

    A closed socket ends a worker too; this also covers one that holds the interpreter lock for
    good. Exits at once when the parent is gone already. Does nothing where prctl is missing.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit("the gateway was gone before its worker started")


def volunteer_for_the_oom_killer() -> None:
    """When the machine runs out of memory, lose a worker, which is restarted, not the gateway."""
    score = Path("/proc/self/oom_score_adj")
    if score.exists():
        score.write_text(str(OOM_SCORE_ADJ))


def limit_threads(threads: int) -> None:
    """Cap every BLAS and OpenMP pool loaded so far. Call after importing numpy, in the thread that
    computes: OpenMP counts per thread."""
    threadpool_limits(limits=threads)


def share_one_arena() -> None:
    """Have all threads allocate from the main arena. Call before there are others.

    A thread's own arena keeps the top of what was freed in it, which malloc_trim(3) does not reach: 90
    MB after the first start of a model of 1.5 billion parameters. Few of our threads allocate at once.
    Does nothing where the C library has no mallopt(3).
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_ARENA_MAX, 1)


def give_back_freed_memory() -> None:
    """Return to the kernel what the allocator keeps of freed memory. Takes milliseconds.

    Decoding a file leaves holes in the arenas of its threads: 205 MB after the first start of a model
    of 1.5 billion parameters. Does nothing where the C library has no malloc_trim(3).
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
