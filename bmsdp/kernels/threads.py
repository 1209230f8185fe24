"""One process-wide lock around parallel kernels: Numba's workqueue layer aborts when two threads enter it at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numba

_LOCK = threading.Lock()


@contextmanager
def limited(threads: int) -> Iterator[int]:
    """Run parallel kernels on at most ``threads`` threads, one caller at a time; yields the number granted."""
    with _LOCK:
        before = numba.get_num_threads()
        granted = min(threads, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        numba.set_num_threads(granted)
        try:
            yield granted
        finally:
            numba.set_num_threads(before)
