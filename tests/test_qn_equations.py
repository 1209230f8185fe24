"""Roots and fixed points by Anderson's method and its symmetric relative."""

import numpy as np
import pytest

from bmsdp.qn import fixed_point, root

SIX = [(symmetric, memory) for symmetric in (False, True) for memory in (1, 3, 20)]


def norm(x):
    return float(np.linalg.norm(x))


def spd(n, rng, cond):
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return (Q * np.geomspace(1 / cond, 1, n)) @ Q.T


def bratu(n, strength=5.0):
    """-laplace u = strength exp(u) on a square, u = 0 on its boundary."""

    def residual(u):
        U = np.pad(u, 1)
        return (4 * u - U[2:, 1:-1] - U[:-2, 1:-1] - U[1:-1, 2:] - U[1:-1, :-2]) * (n + 1) ** 2 - strength * np.exp(u)

    return residual


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("scale", [1.0, -1e3, 1e-3])
def test_linear_systems(symmetric, scale):
    rng = np.random.default_rng(0)
    C, b = scale * spd(40, rng, 30.0), rng.standard_normal(40)
    result = root(lambda x: C @ x - b, np.zeros(40), symmetric=symmetric, tol=1e-9)
    assert result.success
    assert norm(C @ result.x - b) <= 1e-9 * norm(b)
    np.testing.assert_allclose(result.fun, C @ result.x - b, atol=1e-12 * norm(b))
    assert result.nfev <= 130


def test_the_sign_of_the_jacobian_is_found():
    rng = np.random.default_rng(0)
    C, b = spd(60, rng, 100.0), rng.standard_normal(60)
    counts = [root(lambda x, sign: sign * (C @ x - b), np.zeros(60), sign, symmetric=True, memory=3).nfev for sign in (1.0, -1.0)]
    assert counts[1] <= 1.3 * counts[0] + 20


def test_linear_systems_without_symmetry():
    rng = np.random.default_rng(1)
    C, b = np.eye(60) + 0.6 * rng.standard_normal((60, 60)) / 60**0.5, rng.standard_normal(60)
    counts = [root(lambda x: C @ x - b, np.zeros(60), memory=memory).nfev for memory in (3, 10, 30)]
    assert counts[0] >= counts[1] >= counts[2]
    assert counts[2] <= 40
    np.testing.assert_allclose(root(lambda x: C @ x - b, np.zeros(60)).x, np.linalg.solve(C, b), atol=1e-6)


def test_indefinite_symmetric_systems():
    """Where J is symmetric, indefinite, the symmetric method takes fewer evaluations; the eigenvalues of both signs are kept."""
    rng = np.random.default_rng(2)
    lam = np.append(np.linspace(0.2, 1, 16), [-1, -0.8, -0.5, -0.3])
    Q = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    C, b = (Q * lam) @ Q.T, rng.standard_normal(20)
    found = [root(lambda x: C @ x - b, np.zeros(20), symmetric=symmetric, memory=20) for symmetric in (False, True)]
    for result in found:
        assert result.success
        np.testing.assert_allclose(C @ result.x, b, atol=1e-6)


@pytest.mark.parametrize(("symmetric", "memory"), [(False, 5), (False, 20), (True, 5), (True, 20)])
def test_a_nonlinear_boundary_value_problem(symmetric, memory):
    F = bratu(12)
    result = root(F, np.zeros((12, 12)), symmetric=symmetric, memory=memory)
    assert result.success, result.message
    assert result.x.shape == (12, 12)
    assert norm(F(result.x)) <= 1e-8 * norm(F(np.zeros((12, 12))))
    assert 0.3 < result.x.max() < 0.8  # the lower branch
    assert result.nfev <= 150


def test_with_all_pairs_a_linear_system_of_n_unknowns_takes_about_n_steps():
    rng = np.random.default_rng(3)
    C, b = np.eye(6) + 0.4 * rng.standard_normal((6, 6)), rng.standard_normal(6)
    plain = root(lambda x: C @ x - b, np.zeros(6), tol=1e-10, reg=0.0)
    assert plain.nit <= 9
    S = C @ C.T / 4
    symmetric = root(lambda x: S @ x - b, np.zeros(6), tol=1e-10, reg=0.0, symmetric=True)
    assert symmetric.nit <= 16


def test_anderson_with_memory_of_one_step_by_hand():
    """x2 = x1 - H F1 with H of least change of beta I, H dF = dx."""
    F = lambda x: np.array([x[0] + 0.3 * x[1] - 1, 0.5 * x[1] - 0.2 * x[0] ** 2])  # noqa: E731
    seen = []
    fixed_point(lambda x: x - F(x), np.zeros(2), mixing=0.5, memory=1, maxiter=2, reg=0.0, callback=lambda x, F: seen.append(x))
    x0 = np.zeros(2)
    x1 = x0 - 0.5 * F(x0)
    s, y = x1 - x0, F(x1) - F(x0)
    H = 0.5 * np.eye(2) + np.outer(s - 0.5 * y, y) / (y @ y)
    np.testing.assert_allclose(seen, [x1, x1 - H @ F(x1)], atol=1e-14)


@pytest.mark.parametrize(("symmetric", "memory"), SIX)
def test_contractions_converge_whatever_the_memory(symmetric, memory):
    rng = np.random.default_rng(4)
    W = rng.standard_normal((30, 30))
    W = 0.9 * (W + W.T) / np.linalg.norm(W + W.T, 2)
    b = rng.standard_normal(30)

    def g(x):
        return np.tanh(W @ x + b)

    x = np.zeros(30)
    for _ in range(2000):
        x = g(x)
    result = fixed_point(g, np.zeros(30), symmetric=symmetric, memory=memory, tol=1e-10)
    assert result.success
    np.testing.assert_allclose(result.x, x, atol=1e-8)
    picard, count = np.zeros(30), 0
    while norm(g(picard) - picard) > 1e-10 * norm(picard):
        picard, count = g(picard), count + 1
    assert result.nfev <= (count if memory > 1 else 1.3 * count), "no slower than the plain iteration"


def test_a_point_that_repels_the_plain_iteration():
    rng = np.random.default_rng(5)
    C = np.diag(np.linspace(-3, 0.5, 12))
    b = rng.standard_normal(12)
    result = fixed_point(lambda x: C @ x + b, np.zeros(12), memory=12)
    assert result.success
    np.testing.assert_allclose(result.x, b / (1 - np.diag(C)), atol=1e-6)


def test_complex_arrays_are_a_real_space():
    rng = np.random.default_rng(6)
    W = 0.3 * (rng.standard_normal((4, 4)) + 1j * rng.standard_normal((4, 4)))
    b = rng.standard_normal((4, 2)) + 1j * rng.standard_normal((4, 2))

    def g(x):
        return W @ x.conj() * 0.5 + b  # not holomorphic

    result = fixed_point(g, np.zeros((4, 2), complex), tol=1e-12)
    assert result.success
    assert result.x.dtype == complex
    assert norm(g(result.x) - result.x) < 1e-11
    with pytest.raises(ValueError, match="complex"):
        fixed_point(g, np.zeros((4, 2)))


def test_solutions_at_once_at_zero_and_scalars():
    assert root(lambda x: x, np.zeros(3)).nfev == 1
    zero = fixed_point(lambda x: 0.5 * x, np.ones(3))
    assert zero.success
    assert norm(zero.x) <= 2e-8 * 3
    assert float(root(lambda x: x**3 - 8, 1.0).x) == pytest.approx(2.0)
    loose = root(lambda x: x - 3.0, np.zeros(2), atol=100.0)
    assert (loose.nfev, loose.success) == (1, True)
    assert fixed_point(lambda x, a, b: a * x + b, 0.0, (0.5, 1.0)).x == pytest.approx(2.0)
    assert root(lambda x, a: x - a, 0.0, 4.0).x == pytest.approx(4.0)


def test_no_root_is_no_success():
    best = root(lambda x: x**2 + 1, 3.0)
    assert not best.success
    assert best.status in (1, 2)
    assert best.restarts >= 1
    assert best.fun == pytest.approx(1.0, abs=1e-2)  # the smallest residual there is
    assert f"{float(best.fun):.2e}" in best.message


def test_limits_are_told():
    rng = np.random.default_rng(7)
    C = spd(30, rng, 100.0)
    calls = []

    def F(x):
        calls.append(1)
        return C @ x - 1

    few = root(F, np.zeros(30), maxiter=3)
    assert (few.status, few.nit, few.success) == (1, 3, False)
    assert "iterations" in few.message
    calls.clear()
    few = root(F, np.zeros(30), maxfun=5)
    assert (few.status, few.nfev, len(calls)) == (1, 5, 5)
    assert "evaluations" in few.message


def test_the_point_of_the_smallest_residual_is_returned():
    seen = []
    C = np.diag(np.array([1.0, -0.05, 0.3, -0.7, 1.5, 0.01]))

    def F(x):
        return C @ x - 1 + 0.1 * np.sin(5 * x)

    for maxiter in range(1, 12):
        result = root(F, np.zeros(6), maxiter=maxiter, callback=lambda x, F: seen.append(norm(F)))
        assert norm(F(result.x)) == pytest.approx(norm(result.fun), rel=1e-12)
        assert norm(result.fun) <= min([*seen, norm(F(np.zeros(6)))]) * (1 + 1e-12)
        seen.clear()


def test_where_the_function_is_not_finite():
    with np.errstate(invalid="ignore", divide="ignore"):
        result = root(lambda x: np.log(x) + 3, np.array([0.5, 1.0, 2.0]))
        assert result.success
        np.testing.assert_allclose(result.x, np.exp(-3.0), rtol=1e-6)
        bad = root(np.log, np.array([-1.0]))
    assert (bad.status, bad.success, bad.nfev) == (3, False, 1)


def test_functions_may_change_their_argument():
    def F(x):
        value = x - np.arange(3) - x**2 / 9
        x[:] = 7
        return value

    kept = root(lambda x: F(x.copy()), np.zeros(3))
    result = root(F, np.zeros(3))
    np.testing.assert_array_equal(result.x, kept.x)


def test_callback_may_stop():
    def stop(x, F):
        x[:] = np.nan  # its own copy
        raise StopIteration

    result = root(lambda x: x - np.arange(3) - x**2 / 9, np.zeros(3), callback=stop)
    assert (result.status, result.nit, result.success) == (99, 1, False)
    assert np.isfinite(result.x).all()


@pytest.mark.parametrize(
    ("options", "message"), [({"memory": 0}, "memory"), ({"memory": 1.5}, "memory"), ({"reg": -1.0}, "reg"), ({"mixing": 0.0}, "mixing")]
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fixed_point(np.cos, 1.0, **options)


def test_bad_functions_are_refused():
    with pytest.raises(ValueError, match=r"\(2,\)"):
        root(lambda x: x[:1], np.zeros(2))
    with pytest.raises(ValueError, match="x0"):
        root(lambda x: x, np.array([np.nan]))
