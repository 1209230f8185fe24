import numpy as np
import pytest

from bmsdp.kernels.sampled import cross_entries, gram_entries

KINDS = pytest.mark.parametrize("dtype", [np.float64, np.complex128])


def instance(dtype, n=30, k=5, p=200, seed=0):
    rng = np.random.default_rng(seed)
    Y, U = (rng.standard_normal((n, k, 2)) @ [1, 1j if np.dtype(dtype).kind == "c" else 0] for _ in range(2))
    i, j = rng.integers(0, n, (2, p))  # in no order, with repetitions and diagonal places
    return i, j, Y.astype(dtype), U.astype(dtype), np.full(p, np.nan, dtype)


def twin(i, j, Y, U):
    return ((U @ Y.conj().T + Y @ U.conj().T) / 2)[i, j]


@KINDS
@pytest.mark.parametrize("k", [1, 2, 5, 16])
def test_same_as_twin(dtype, k):
    i, j, Y, U, out = instance(dtype, k=k)
    kept = Y.copy(), U.copy()
    out[:] = 7  # what was there before does not matter
    gram_entries(i, j, Y, out)
    np.testing.assert_allclose(out, twin(i, j, Y, Y), rtol=1e-13, atol=1e-13)
    out[:] = 7
    cross_entries(i, j, Y, U, out)
    np.testing.assert_allclose(out, twin(i, j, Y, U), rtol=1e-13, atol=1e-13)
    assert np.array_equal(Y, kept[0]) and np.array_equal(U, kept[1])


@KINDS
def test_cross_is_the_halved_derivative(dtype):
    i, j, Y, U, out = instance(dtype)
    ahead, behind, slope = np.zeros_like(out), np.zeros_like(out), np.zeros_like(out)
    gram_entries(i, j, Y + U, ahead)
    gram_entries(i, j, Y - U, behind)
    cross_entries(i, j, Y, U, slope)
    np.testing.assert_allclose((ahead - behind) / 4, slope, atol=1e-12)  # the gram is quadratic: exact


@KINDS
def test_no_allocation(dtype, allocations):
    i, j, Y, U, out = instance(dtype)
    out[:] = 0
    assert allocations(gram_entries, i, j, Y, out) == 0
    assert allocations(cross_entries, i, j, Y, U, out) == 0


def test_no_places():
    nothing = np.zeros(0, np.int64)
    gram_entries(nothing, nothing, np.ones((2, 2)), np.zeros(0))
    cross_entries(nothing, nothing, np.ones((2, 2)), np.ones((2, 2)), np.zeros(0))
