"""The process keeps freed memory if the C library supports it."""

import ctypes

from yt8m_gat.data.allocation import keep_freed_memory


def test_memory_is_kept_where_the_c_library_can(monkeypatch):
    calls = []

    class Library:
        @staticmethod
        def mallopt(option, value):
            calls.append(option)
            return 1

    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    assert keep_freed_memory()
    assert calls == [-3, -1]
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1")
    assert not keep_freed_memory()
    monkeypatch.delenv("GLIBC_TUNABLES")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())  # macOS
    assert not keep_freed_memory()
    assert len(calls) == 2
