"""What the tests of kernels share."""

import numpy as np
import pytest
from numba.core.runtime import _nrt_python as nrt
from numba.core.runtime import rtsys


@pytest.fixture
def allocations():
    """``allocations(kernel, *arguments)``: what one call allocates beyond the descriptors of its array arguments."""
    was = nrt.memsys_stats_enabled()
    nrt.memsys_enable_stats()

    def count(kernel, *arguments):
        kernel(*arguments)
        before = rtsys.get_allocation_stats().alloc
        kernel(*arguments)
        return rtsys.get_allocation_stats().alloc - before - sum(isinstance(a, np.ndarray) for a in arguments)

    yield count
    if not was:
        nrt.memsys_disable_stats()
