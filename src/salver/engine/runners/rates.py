"""What the machine can do, measured by the native core's own threads and kernels."""

from salver import _native

MEMORY_BYTES = 512 * 2**20  # a buffer that no cache holds a good part of
SECONDS = 0.3  # of one measurement


def isa_in_use(forced: str | None) -> str:
    """The path of kernels that runners take: the one that is forced, or the fastest."""
    return forced or _native.available_isas()[-1]


def read_rate(threads: int, total_bytes: int = MEMORY_BYTES, *, seconds: float = SECONDS) -> float:
    """Bytes per second that threads together read of a buffer, over and over.

    A buffer that caches hold in part is read faster than memory, as weights of that size are.
    """
    return _native.read_rate(
        threads=threads, bytes=max(total_bytes, 256 * threads), seconds=seconds
    )


def matrix_rate(
    precision: str, threads: int, *, isa: str | None = None, seconds: float = SECONDS
) -> float:
    """Operations per second of the matrix unit, or without one of products from the nearest caches.

    `precision` is `int8` or `bf16`. A multiply and an add are two operations.

    Raises:
        ValueError: there is no such path here.
    """
    # of one path, the rows of two bytes reach the higher rate: fewer results leave per sum
    kernel = "w8a16" if precision == "int8" else "bf16"
    return _native.matrix_rate(isa_in_use(isa), kernel, threads=threads, seconds=seconds)
