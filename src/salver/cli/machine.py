"""What this machine is, as far as that can be read.

Inside a container the limits of its cgroup count, since the kernel enforces those.
"""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

MATTERING_FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Instruction sets that make inference faster, as /proc/cpuinfo spells them: x86, then Arm."""

_CPU_NAMES = ("model name", "Model", "Hardware", "CPU implementer")
_CGROUP_MEMORY = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """`cores` are those this process may run on; memory is in bytes."""

    cpu: str
    isa: tuple[str, ...]
    cores: int
    memory_total: int
    memory_available: int


def this_machine() -> Machine:
    """Read the machine's facts; takes no measurable time."""
    cpuinfo = _cpuinfo()
    name = next((cpuinfo[key] for key in _CPU_NAMES if key in cpuinfo), platform.processor())
    flags = set((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    total, available = _memory()
    return Machine(
        cpu=name or platform.machine(),
        isa=tuple(flag for flag in MATTERING_FLAGS if flag in flags),
        cores=_cores(),
        memory_total=total,
        memory_available=available,
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> tuple[int, int]:
    """Total and available bytes, for the machine or for the cgroup if that has less."""
    machine = psutil.virtual_memory()
    total, available = machine.total, machine.available
    for limit_file, usage_file in _CGROUP_MEMORY:
        limit, usage = _number_in(limit_file), _number_in(usage_file)
        if limit is not None and usage is not None:
            total, available = min(total, limit), min(available, max(limit - usage, 0))
    return total, available


def _number_in(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # no such cgroup, or `max`
        return None


def _cpuinfo() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo; empty where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}
