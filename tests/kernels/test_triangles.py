from itertools import combinations

import numpy as np
import pytest

from bmsdp.kernels.triangles import violated_triangles

SIGNS = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]  # of ij, ik, jk


def correlations(n, seed, k=2):
    Y = np.random.default_rng(seed).standard_normal((n, k))
    Y /= np.linalg.norm(Y, axis=1)[:, None]
    return Y @ Y.T


def twin(X, tol):
    """``{(i, j, k, sign): value}`` of all violated triangles."""
    out = {}
    for i, j, k in combinations(range(len(X)), 3):
        for s, (a, b, c) in enumerate(SIGNS):
            value = a * X[i, j] + b * X[i, k] + c * X[j, k]
            if value < -1 - tol:
                out[i, j, k, s] = value
    return out


def found(X, tol, limit):
    worst, place = np.zeros(limit), np.zeros((limit, 4), np.int64)
    kept = violated_triangles(X, tol, worst, place)
    return {tuple(map(int, p)): value for p, value in zip(place[:kept], worst[:kept], strict=True)}


@pytest.mark.parametrize("n", [0, 2, 3, 4, 9, 17])
@pytest.mark.parametrize("tol", [0.0, 1e-3, 0.2])
def test_all_of_them(n, tol):
    X = correlations(n, n)
    assert found(X, tol, 4 * n**3 + 1) == pytest.approx(twin(X, tol), abs=1e-14)  # a dict: the same keys


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [1, 2, 5, 40])
def test_the_worst_are_kept(seed, limit):
    X = correlations(12, seed)
    every, some = twin(X, 1e-6), found(X, 1e-6, limit)
    assert len(some) == min(limit, len(every))
    assert some == pytest.approx({key: every[key] for key in sorted(every, key=every.get)[: len(some)]}, abs=1e-14)


def test_cuts_violate_nothing(rng):
    for _ in range(5):
        x = rng.choice([-1.0, 1.0], 15)
        assert not found(np.outer(x, x), 1e-12, 10)


def test_no_allocation(allocations):
    X = correlations(20, 0)
    assert allocations(violated_triangles, X, 1e-6, np.zeros(30), np.zeros((30, 4), np.int64)) == 0
