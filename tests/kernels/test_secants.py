"""Kernels of secant memories against short NumPy twins, across strips and around the ring."""

import numpy as np
import pytest

from bmsdp.kernels import secants

SIZES = pytest.mark.parametrize("n", [1, 7, secants.STRIP, secants.STRIP + 1, 2 * secants.STRIP + 3])


def pairs(m, n, seed=0):
    """m pairs of positive curvature, (S, Y, <s, y>, <y, y>)."""
    rng = np.random.default_rng(seed)
    S = rng.standard_normal((m, n))
    Y = S * rng.uniform(0.1, 10, n)
    return S, Y, (S * Y).sum(axis=1), (Y * Y).sum(axis=1)


def two_loop_twin(S, Y, q):
    """Nocedal, Wright, Algorithm 7.4; the oldest pair first."""
    q, weights = q.copy(), []
    for s, y in zip(S[::-1], Y[::-1], strict=True):
        weights.append(s @ q / (s @ y))
        q -= weights[-1] * y
    q *= (S[-1] @ Y[-1]) / (Y[-1] @ Y[-1])
    for s, y, a in zip(S, Y, weights[::-1], strict=True):
        q += (a - y @ q / (s @ y)) * s
    return q


@SIZES
@pytest.mark.parametrize(("memory", "newest", "count"), [(1, 0, 1), (5, 4, 5), (5, 1, 5), (5, 0, 3), (5, 3, 2), (6, 0, 1)])
def test_two_loop_around_the_ring(n, memory, newest, count):
    S, Y, sy, yy = pairs(memory, n)
    order = [(newest - j) % memory for j in range(count)][::-1]
    for other in set(range(memory)) - set(order):  # rows not in use are not looked at
        S[other], Y[other], sy[other], yy[other] = np.nan, np.nan, np.nan, np.nan
    q = np.random.default_rng(1).standard_normal(n)
    wanted = two_loop_twin(S[order], Y[order], q)
    secants.two_loop(S, Y, sy, yy, newest, count, q, np.empty(memory))
    np.testing.assert_allclose(q, wanted, rtol=1e-9, atol=1e-11 * np.abs(wanted).max())


def test_two_loop_is_the_bfgs_matrix():
    """The rank-two updates written out, from ``theta I`` on."""
    S, Y, sy, yy = pairs(4, 6)
    H = sy[-1] / yy[-1] * np.eye(6)
    for s, y, r in zip(S, Y, sy, strict=True):
        V = np.eye(6) - np.outer(y, s) / r
        H = V.T @ H @ V + np.outer(s, s) / r
    columns = np.eye(6)
    for q in columns:
        secants.two_loop(S, Y, sy, yy, 3, 4, q, np.empty(4))
    np.testing.assert_allclose(columns, H, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(columns @ Y[-1], S[-1], rtol=1e-10, atol=1e-10)


def test_two_loop_without_pairs_changes_nothing():
    S, Y, sy, yy = pairs(3, 5)
    q = np.arange(5.0)
    secants.two_loop(S, Y, sy, yy, 2, 0, q, np.empty(3))
    assert np.array_equal(q, np.arange(5.0))


@SIZES
def test_store(n):
    rng = np.random.default_rng(0)
    D, grad, before = rng.standard_normal((3, n))
    s, y = np.full((2, n), np.nan)
    found = secants.store(-0.25, D, grad, before, s, y)
    assert np.array_equal(s, -0.25 * D) and np.array_equal(y, grad - before)
    np.testing.assert_allclose(found, (s @ y, s @ s, y @ y), rtol=1e-12, atol=1e-12 * n)


@SIZES
@pytest.mark.parametrize("m", [1, 4])
def test_gram(n, m):
    rng = np.random.default_rng(0)
    A, D = rng.standard_normal((2, m, n))
    a, d, g = rng.standard_normal((3, n))
    out = np.full((m, 5), np.nan)
    secants.gram(A, D, a, d, g, out)
    np.testing.assert_allclose(out, np.stack([A @ a, A @ d, A @ g, D @ a, D @ g], axis=1), rtol=1e-12, atol=1e-12 * n)


@SIZES
@pytest.mark.parametrize("m", [1, 4])
def test_combine(n, m):
    rng = np.random.default_rng(0)
    A, D = rng.standard_normal((2, m, n))
    on_A, on_D = rng.standard_normal((2, m))
    v, out = rng.standard_normal(n), np.full(n, np.nan)
    secants.combine(A, D, on_A, on_D, -1.5, v, out)
    np.testing.assert_allclose(out, -1.5 * v + on_A @ A + on_D @ D, rtol=1e-12, atol=1e-12)


def test_nothing_is_allocated(allocations):
    n, m = secants.STRIP + 5, 3
    S, Y, sy, yy = pairs(m, n)
    q, v = np.random.default_rng(0).standard_normal((2, n))
    assert allocations(secants.two_loop, S, Y, sy, yy, 1, m, q, np.empty(m)) == 0
    assert allocations(secants.store, 0.5, q, v, q, S[0], Y[0]) == 0
    assert allocations(secants.gram, Y, S, Y[0], S[0], v, np.empty((m, 5))) == 0
    assert allocations(secants.combine, Y, S, sy, yy, 1.0, v, q) == 0
