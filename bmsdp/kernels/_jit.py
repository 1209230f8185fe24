"""The one place where Numba's compiler options live."""

import numba

ORDERED = {"contract", "nsz", "arcp"}  # sums stay in order: serial and parallel kernels agree to the last bit
FAST = ORDERED | {"reassoc"}  # lets inner products use vector units; serial sweeps only, never near the verifier


def jit(function=None, **options):
    """``numba.njit`` with a cache, without the GIL, and without an error where no cache directory is writable."""
    if function is None:
        return lambda f: jit(f, **options)
    options = {"nogil": True, "error_model": "numpy", **options}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # "no locator available": compile in memory instead
        return numba.njit(**options)(function)
