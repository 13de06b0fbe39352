"""Describes the machine of a measurement, for every benchmark's JSON."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

_VECTOR_INSTRUCTIONS = ("avx", "avx2", "avx512f", "amx_tile")


def describe_machine() -> dict[str, Any]:
    """Returns processor, memory and versions, without importing TensorFlow."""
    model, flags = _processor()
    return {
        "processor": model,
        "vector_instructions": [name for name in _VECTOR_INSTRUCTIONS if name in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": os.getloadavg(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")},
    }


def _processor() -> tuple[str, set[str]]:
    """Returns name and instruction sets; `platform.processor()` is empty on most Linux systems."""
    fields = {}
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    return fields.get("model name") or platform.processor(), set(fields.get("flags", "").split())
