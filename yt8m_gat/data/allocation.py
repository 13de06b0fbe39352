"""Settings of the C library for memory that batches free."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h

_TRIM_BYTES = 256 << 20
"""Free memory at the end of the heap is returned to the system above this size."""

_MMAP_BYTES = 32 << 20
"""Larger blocks are each allocated from the system and returned to it; this is glibc's maximum."""


def keep_freed_memory() -> bool:
    """Tells the C library to keep freed memory for the next batch.

    The records of a batch take megabytes that are freed together. By default glibc returns such
    memory to the system at once and requests it again a moment later, page by page, which takes
    longer than parsing. The setting holds for the whole process, whose memory then stays closer to
    its peak. It is left alone where the environment sets it (`MALLOC_TRIM_THRESHOLD_`,
    `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`).

    Returns:
        Whether the setting was made; False also for a C library other than glibc.
    """
    chosen = any(
        name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    )
    if chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # Either call by itself would switch off glibc's automatic adjustment of both thresholds.
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES) and mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES))
