"""How the C library keeps memory that a batch has set free."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h

_TRIM_BYTES = 256 << 20
"""Above this, memory that is free at the end of the heap goes back to the system."""

_MMAP_BYTES = 32 << 20
"""Larger blocks each come from the system, and go back to it; no more than this is allowed."""


def keep_freed_memory() -> bool:
    """Tells the C library to keep what a batch has set free for the next one.

    The records of a batch are megabytes that are set free together. By default glibc hands such
    memory back to the system at once and asks for it anew a moment later, page by page, which
    takes longer than parsing. This holds for the whole process, whose memory then stays nearer its
    peak; a process that sets one of the variables below decides for itself.

    Returns:
        Whether it was told: not where the C library is another one, nor where the environment
        sets the same (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`).
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
    # Either alone switches off what glibc learns of both from the blocks it has seen.
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES) and mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES))
