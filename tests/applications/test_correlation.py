from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

import bmsdp
from bmsdp.applications import correlation
from bmsdp.solvers import LBFGS, TrustRegion


def perturbed_correlation(n, seed, size=0.6, rank=3):
    """A correlation matrix with noise that makes it indefinite."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((n, rank))
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    E = rng.uniform(-size, size, (n, n))
    G = Z @ Z.T + (E + E.T) / 2
    np.fill_diagonal(G, 1.0)
    return G


def alternating_projections(G, sweeps=20_000):
    """Higham (2002): onto the cone, with Dykstra's correction, and onto the unit diagonal."""
    Y, correction = G.copy(), np.zeros_like(G)
    for _ in range(sweeps):
        R = Y - correction
        values, V = np.linalg.eigh(R)
        X = (V * np.maximum(values, 0)) @ V.T
        correction = X - R
        new = X.copy()
        np.fill_diagonal(new, 1.0)
        if np.abs(new - Y).max() < 1e-13:
            break
        Y = new
    return Y


def misfit(X, G, H=1.0):
    off = ~np.eye(len(G), dtype=bool)
    return float((H * (X - G) ** 2)[off].sum())


@pytest.mark.parametrize("dense", [True, False])
def test_derivatives_of_the_term(dense, rng):
    """Central differences at rtol 1e-8; a factor 1 + 1e-5 is noticed."""
    n, k = 7, 3
    H = rng.uniform(0, 1, (n, n)) * (rng.random((n, n)) < 0.6)
    H = H + H.T
    term = correlation.SquaredEntries(H if dense else sparse.csr_array(H))
    Y, U, V = rng.standard_normal((3, n, k))
    assert term.value(Y) == pytest.approx(np.sum(H * (Y @ Y.T) ** 2), rel=1e-13)

    def central(f, Y, U, h=2e-3):  # fourth order
        return (8 * (f(Y + h * U) - f(Y - h * U)) - (f(Y + 2 * h * U) - f(Y - 2 * h * U))) / (12 * h)

    slope, curve = 2 * np.vdot(term.half_grad(Y), U), central(term.half_grad, Y, U)
    assert slope == pytest.approx(central(term.value, Y, U), rel=1e-8)
    assert slope * (1 + 1e-5) != pytest.approx(central(term.value, Y, U), rel=1e-8)
    assert term.half_hess(Y, U) == pytest.approx(curve, rel=1e-8, abs=1e-8 * np.abs(curve).max())
    assert np.vdot(V, term.half_hess(Y, U)) == pytest.approx(np.vdot(U, term.half_hess(Y, V)), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_full_rank_agrees_with_alternating_projections(seed):
    G = perturbed_correlation(10, seed)
    assert np.linalg.eigvalsh(G)[0] < -0.1
    result = bmsdp.solve(correlation.problem(G), rank=10, certify=None, tol=1e-9, rng=0)
    found = correlation.recover(result, G)
    higham = alternating_projections(G)
    assert found.misfit == pytest.approx(misfit(higham, G), rel=1e-7)
    assert np.abs(found.X - higham).max() < 1e-5
    assert found.bound <= misfit(higham, G) * (1 + 1e-12) and found.misfit - found.bound < 1e-5 * found.misfit
    assert np.array_equal(np.diag(found.X), np.ones(10)) and np.linalg.eigvalsh(found.X)[0] > -1e-12
    assert found.distance**2 == pytest.approx(found.misfit)


def test_bound_holds_at_every_point_and_for_every_rank():
    G = perturbed_correlation(9, 5)
    best = misfit(alternating_projections(G), G)
    rng = np.random.default_rng(0)
    for k in range(1, 10):
        Y = rng.standard_normal((9, k))
        assert 0 <= correlation.recover(SimpleNamespace(Y=Y), G).bound <= best
        found = correlation.recover(bmsdp.solve(correlation.problem(G), rank=k, certify=None, rng=0), G)
        assert found.bound <= best * (1 + 1e-12) and best * (1 - 1e-9) <= found.misfit


def test_misfit_falls_with_the_rank_and_low_rank_data_are_fitted():
    G = perturbed_correlation(12, 1, size=0.3)
    values = [correlation.recover(bmsdp.solve(correlation.problem(G), rank=k, certify=None, rng=0), G).misfit for k in (1, 2, 3, 5, 12)]
    assert all(a >= b * (1 - 1e-6) for a, b in zip(values, values[1:], strict=False))
    exact = perturbed_correlation(12, 1, size=0.0, rank=2)
    found = correlation.recover(bmsdp.solve(correlation.problem(exact), rank=2, certify=None, tol=1e-10, rng=0), exact)
    assert found.misfit < 1e-12 and np.abs(found.X - exact).max() < 1e-6 and found.Y.shape == (12, 2)


def test_weights_and_missing_entries():
    """Of a 3 x 3 matrix with G = -1 off the diagonal and one entry unknown: the known ones are fitted, the free one is 1."""
    G = -np.ones((3, 3))
    H = np.ones((3, 3))
    H[0, 2] = H[2, 0] = 0
    result = bmsdp.solve(correlation.problem(G, H), rank=3, certify=None, tol=1e-10, rng=0)
    found = correlation.recover(result, G, H)
    assert found.misfit < 1e-10 and found.X[0, 2] == pytest.approx(1, abs=1e-4)
    even = correlation.recover(bmsdp.solve(correlation.problem(G), rank=3, certify=None, tol=1e-10, rng=0), G)
    assert even.misfit == pytest.approx(6 * 0.25) and even.bound == pytest.approx(1.5, rel=1e-6)  # X_ij = -1/2


def test_weighted_fit_against_clarabel():
    cp = pytest.importorskip("cvxpy", reason="compared with CVXPY, which is not installed")
    G = perturbed_correlation(8, 3)
    H = np.random.default_rng(0).uniform(0, 2, (8, 8))
    H = (H + H.T) / 2
    X = cp.Variable((8, 8), PSD=True)
    off = H - np.diag(np.diag(H))
    best = cp.Problem(cp.Minimize(cp.sum_squares(cp.multiply(np.sqrt(off), X - G))), [cp.diag(X) == 1]).solve(solver=cp.CLARABEL)
    for solver in (None, LBFGS(), TrustRegion()):
        result = bmsdp.solve(correlation.problem(G, H), rank=8, certify=None, tol=1e-8, solver=solver, rng=0)
        found = correlation.recover(result, G, H)
        assert found.misfit == pytest.approx(best, rel=1e-6) and found.bound == pytest.approx(best, rel=1e-5)


def test_it_runs_under_minimize():
    G = perturbed_correlation(8, 3)
    result = bmsdp.minimize(correlation.problem(G), TrustRegion(), rank=4, rng=0)
    assert result.status is bmsdp.Status.LOCALLY_OPTIMAL
    other = correlation.recover(bmsdp.solve(correlation.problem(G), rank=4, certify=None, tol=1e-8, rng=1), G)
    assert correlation.recover(result, G).misfit == pytest.approx(other.misfit, rel=1e-4)


@pytest.mark.parametrize(("G", "weights", "needed"), [
    (np.ones((2, 3)), None, "square"), (1j * np.ones((2, 2)), None, "real"),
    (np.array([[1, np.nan], [np.nan, 1]]), None, r"G\[0, 1\] is NaN"), (np.array([[1, 0.5], [0.4, 1]]), None, r"0\.1 at \(0, 1\)"),
    (np.eye(2), np.ones((3, 3)), "agree"), (np.eye(2), -np.ones((2, 2)), "negative"),
    (np.eye(2), np.eye(2), "off the diagonal"), (np.eye(1), None, "off the diagonal"),
])  # fmt: skip
def test_bad_input_is_refused(G, weights, needed):
    with pytest.raises(ValueError, match=needed):
        correlation.problem(G, weights)


def test_results_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="3 rows"):
        correlation.recover(SimpleNamespace(Y=np.ones((4, 2))), np.eye(3))
