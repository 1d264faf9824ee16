"""What must be in the environment before the first import: threads of every library, memory that is kept, no display.

The C library is told to keep memory that was freed. Otherwise every system that returns fresh results from large
allocations would pay for page faults in each call, and a system that writes into given arrays would look better than
it is.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a process that measures with `threads` threads."""
    n = str(threads)
    eigen = "true" if threads > 1 else "false"
    return {
        **os.environ,
        **{f"{name}_NUM_THREADS": n for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR")},
        "NUMEXPR_MAX_THREADS": n,
        "JITFLOW_THREADS": n,
        # So that the first call is one that compiles.
        "JITFLOW_CACHE_DIR": "off",
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={n}",
        "NPROC": n,
        "JAX_PLATFORMS": "cpu",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
        "MALLOC_TOP_PAD_": str(64 << 20),
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "THP_MEM_ALLOC_ENABLE": "1",
        "PYTHONWARNINGS": "ignore",
    }


def second_level_cache() -> int:
    """Return the bytes of one CPU's second-level cache, 1 MiB if the system does not say."""
    size = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
    text = size.read_text().strip() if size.exists() else ""
    return int(text[:-1]) << 10 if text.endswith("K") else 1 << 20


def machine() -> dict[str, str]:
    """Return what this machine is."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = models[0] if models else model
    return {
        "cpu": model,
        "cpus": str(os.cpu_count()),
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.implementation.cache_tag or "",
    }
