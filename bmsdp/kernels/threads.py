"""One process-wide lock around parallel kernels: Numba's workqueue layer aborts when two threads enter it at once."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numba

_LOCK = threading.Lock()

if numba.config.THREADING_LAYER == "default":  # type: ignore[attr-defined]
    numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]  # the one layer that survives fork everywhere


def _renew_lock() -> None:
    """A forked child must not inherit a lock that another thread of its parent held."""
    global _LOCK
    _LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


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
