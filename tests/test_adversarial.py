"""Costs with spurious second-order points: the certificate says so, the Hessian is as stated, and rank, stairs or noise rescue.

Numbered facts are those of section 8 of the theory.  The solver is the house's own trust-region method.
"""

import numpy as np
import pytest
import scipy.sparse as sp

import bmsdp
from bmsdp import Oblique, Problem, Status, certify, gallery, minimize
from bmsdp.curvature import curvature
from bmsdp.manifolds.base import as_real
from bmsdp.solvers import TrustRegion

SOLVER = TrustRegion()


def unit(C):
    return Problem(C, Oblique(np.ones(C.shape[0])))


def start(V, problem, columns=0):
    V = np.hstack([V, np.zeros((len(V), columns))]) if columns else V
    return np.ascontiguousarray(V, problem.dtype)


def hessian_spectrum(model):
    """Eigenvalues on the tangent space of unit rows, over the reals."""
    Y, project = model.Y, model.problem.manifold.project
    rows = as_real(np.ascontiguousarray(Y))
    basis = []
    for i, y in enumerate(rows):  # an orthonormal basis of each row's tangent space
        for v in np.linalg.svd(y[None])[2][1:]:
            U = np.zeros_like(rows)
            U[i] = v
            basis.append(U.view(Y.dtype))
    H = np.array([[float(np.vdot(U, HV).real) for U in basis] for HV in (model.hess(project(Y, V)) for V in basis)])
    np.testing.assert_allclose(H, H.T, atol=1e-10 * (1 + np.abs(H).max()))
    return np.linalg.eigvalsh(H)


def wrong_by(model, tol=1e-6):
    """What a verified and a probabilistic certificate say of a spurious point: both refuse it."""
    for rigor in ("verified", "probabilistic", "auto"):
        found = certify(model, tol, rigor, 0)
        assert found.gap > 0.1 and found.eig_min < 0 and found.escape.shape[1] >= 1, "not optimal"
        yield found


CASES = {
    "pentagon": lambda: gallery.n_gon(5, 3.0),
    "heptagon": lambda: gallery.n_gon(7, 1.05),
    "dodecagon": lambda: gallery.n_gon(12, 2.0, 0.5),
    "triangle": lambda: gallery.complex_triangle(2.0),
    "strict, k = 2": lambda: gallery.waldspurger_waters(8, 2, 1),
    "strict, k = 3": lambda: gallery.waldspurger_waters(10, 3, 0),
    "strict, k = 4": lambda: gallery.waldspurger_waters(15, 4, 2),
    "axial, k = 2": lambda: gallery.ocarroll(2),
    "axial, k = 4": lambda: gallery.ocarroll(4),
    "axial, k = 10": lambda: gallery.ocarroll(10),
}
EVERY = pytest.mark.parametrize("name", CASES)


@EVERY
def test_the_spurious_point_is_one(name):
    """Cost 0, gradient 0, Hessian >= 0, slack C with a negative eigenvalue; the optimum is at X = J."""
    C, V, optimum = CASES[name]()
    problem = unit(C)
    model = problem.at(start(V, problem))
    size = problem.norm_C * problem.n
    assert abs(model.cost) <= 1e-13 * size and model.grad_norm <= 1e-13 * model.grad_scale
    np.testing.assert_allclose(model.mu, 0, atol=1e-13 * problem.norm_C)
    np.testing.assert_allclose(model.slack_matrix(), C, atol=1e-12 * problem.norm_C)
    assert hessian_spectrum(model)[0] >= -1e-12 * problem.norm_C
    lowest = np.linalg.eigvalsh(C)[0]
    assert lowest < 0 and optimum == pytest.approx(problem.n * lowest, rel=1e-10), "the bound n lambda_min is attained"
    ones = problem.at(np.ones((problem.n, 1), problem.dtype))
    assert ones.cost == pytest.approx(optimum, abs=1e-12 * size)
    for found in wrong_by(model):
        assert found.bound <= optimum + 1e-13 * size and found.eig_min == pytest.approx(lowest, rel=1e-6)
    assert certify(ones, 1e-6, "verified", 0).gap <= 1e-6


@EVERY
def test_trust_regions_stay(name):
    """Started there, and (strict points) near it, the house solver ends there and says that the rank is too small."""
    C, V, optimum = CASES[name]()
    problem, k = unit(C), V.shape[1]
    V = start(V, problem)
    at = bmsdp.solve(problem, rank=k, warm_start=V, solver=SOLVER, rng=0)
    assert at.status is Status.RANK_TOO_SMALL and not at.success and at.rank == k and "raise rank" in at.message
    assert abs(at.cost) <= 1e-9 * problem.norm_C * problem.n and at.gap > 0.5 and at.bound <= optimum + 1e-9
    assert at.second_order is not None and at.second_order["hess_min_lower"] >= -at.second_order["eps_H"]
    if "axial" in name:
        return
    rng = np.random.default_rng(0)
    for _ in range(3):
        near = problem.manifold.retract(V, 1e-4 * problem.random_point(k, rng))
        result = minimize(problem, SOLVER, near, tol=1e-9, rng=0)
        assert result.status is Status.LOCALLY_OPTIMAL and abs(result.cost) <= 1e-9 * problem.norm_C * problem.n
        X, W = result.Y @ result.Y.conj().T, V @ V.conj().T
        np.testing.assert_allclose(X, W, atol=1e-3)
        for found in wrong_by(problem.at(result.Y)):
            assert found.bound <= optimum + 1e-9


@EVERY
def test_the_rescues(name):
    """From the spurious point: the staircase, one more column with the curvature checked, and noise all end at the optimum."""
    C, V, optimum = CASES[name]()
    problem, k, tol = unit(C), V.shape[1], 2e-6 * abs(optimum)
    V = start(V, problem)
    for solver in (None, SOLVER):
        stairs = bmsdp.solve(problem, warm_start=V, solver=solver, rng=0)
        assert stairs.status is Status.CERTIFIED and stairs.cost == pytest.approx(optimum, abs=tol) and stairs.rank > k
        assert np.linalg.eigvalsh(C - np.diag(stairs.dual))[0] >= -1e-10 * problem.norm_C
    wide = minimize(problem, SOLVER, start(V, problem, 1), eps_g=1e-9 * problem.norm_C, eps_H=1e-4 * problem.norm_C, rng=0)
    assert wide.second_order["escapes"] >= 1 and wide.cost < -0.1 * abs(optimum), "[V 0] is a strict saddle"
    if "strict" not in name:
        assert wide.cost == pytest.approx(optimum, abs=tol)
    fresh = bmsdp.solve(problem, rng=1)
    assert fresh.status is Status.CERTIFIED and fresh.cost == pytest.approx(optimum, abs=tol)


# fact by fact


def test_pentagon():
    """Fact 7."""
    C, V, optimum = gallery.n_gon(5, 3.0)
    np.testing.assert_allclose(C[0], [1, -1.17082, 0.17082, 0.17082, -1.17082], atol=1e-5)
    assert optimum == -5
    np.testing.assert_allclose(hessian_spectrum(unit(C).at(V)), [0, 2, 2, 3, 3], atol=1e-12)
    assert np.linalg.eigvalsh(C)[0] == pytest.approx(-1)
    C, V, _ = gallery.n_gon(5, 0.9)
    model = unit(C).at(V)
    assert hessian_spectrum(model)[0] == pytest.approx(-0.1, abs=1e-12)
    next(wrong_by(model))
    stairs = bmsdp.solve(C, warm_start=V, tol=1e-8, rng=0)
    assert stairs.cost == pytest.approx(-5, abs=1e-7) and np.linalg.eigvalsh(C - np.diag(stairs.dual))[0] >= -1e-10


@pytest.mark.parametrize("n", range(5, 13))
def test_n_gon_threshold(n):
    """Fact 8: spurious if and only if t > tau0, whatever tau0."""
    for tau0 in (1.0, 0.25, 8.0):
        for ratio, lowest in ((0.95, -0.05), (1.05, 0.0)):
            C, V, optimum = gallery.n_gon(n, ratio * tau0, tau0)
            model = unit(C).at(V)
            values = hessian_spectrum(model)
            assert values[0] == pytest.approx(lowest * tau0, abs=1e-11 * tau0)
            assert np.sum(np.abs(values) < 1e-9 * tau0) == 1, "the rotation alone"
            result = minimize(unit(C), SOLVER, V, eps_g=1e-8 * tau0, eps_H=1e-3 * tau0, rng=0)
            assert result.cost == pytest.approx(optimum if ratio < 1 else 0, abs=1e-6 * n * tau0)


@pytest.mark.parametrize("k, failing", [(1, True), (2, False)])
def test_complex_triangle(k, failing):
    """Fact 9: random starts fail now and then at k = 1, never at k = 2."""
    C, V, optimum = gallery.complex_triangle(2.0)
    costs = np.array([minimize(unit(C), SOLVER, rank=k, tol=1e-9, rng=seed).cost for seed in range(60)])
    bad = costs > optimum + 1e-6
    assert bad.any() == failing and bad.mean() < 0.5
    np.testing.assert_allclose(costs[bad], 0, atol=1e-9)
    below = unit(gallery.complex_triangle(0.95)[0]).at(start(V, unit(C)))
    above = unit(gallery.complex_triangle(1.05)[0]).at(start(V, unit(C)))
    assert hessian_spectrum(below)[0] < -1e-3 and hessian_spectrum(above)[0] >= -1e-12


@pytest.mark.parametrize("k, optimum, lowest, zeros", [(2, -8, -2, 2), (4, -3.2, -0.4, 12), (10, -2.352941, -0.1176471, 90)])
def test_axial_points(k, optimum, lowest, zeros):
    """Facts 10 and 11: k (k - 1) zero modes, the smallest positive eigenvalue 2 / (k - 1.5)."""
    C, V, value = gallery.ocarroll(k)
    assert value == pytest.approx(optimum, abs=1e-6) and np.linalg.eigvalsh(C)[0] == pytest.approx(lowest, abs=1e-6)
    values = hessian_spectrum(unit(C).at(V))
    assert np.sum(np.abs(values) < 1e-9) == zeros and values[zeros] == pytest.approx(2 / (k - 1.5))
    assert values[0] >= -1e-12
    stays = minimize(unit(C), SOLVER, V, tol=1e-9, rng=0)
    assert stays.cost == 0 and np.array_equal(stays.Y, V)
    for sigma in (1e-6, 1e-3):
        noisy = unit(C).perturbed(sigma, 1)
        moved = minimize(noisy, SOLVER, V, tol=1e-9, rng=0)
        assert moved.cost == pytest.approx(bmsdp.solve(noisy, tol=1e-9, rng=0).cost, abs=1e-6), "fact 11"
        assert moved.cost == pytest.approx(value, abs=max(1e-6, 40 * k * sigma))


@pytest.mark.parametrize("k", [2, 4, 10])
def test_axial_basin(k):
    """Their own runs: small disturbances fall back to cost >= 0 or so, n/2 + 1 columns never stay."""
    C, V, optimum = gallery.ocarroll(k)
    rng, spurious = np.random.default_rng(0), 0
    for _ in range(40):
        near = unit(C).manifold.retract(V, 0.1 * rng.standard_normal(V.shape) / np.sqrt(k))
        spurious += minimize(unit(C), SOLVER, near, tol=1e-8, rng=0).cost > optimum / 2
    assert spurious >= 15
    for seed in range(5):
        start_ = unit(C).manifold.retract(start(V, unit(C), 1), 1e-3 * np.random.default_rng(seed).standard_normal((2 * k, k + 1)))
        assert minimize(unit(C), SOLVER, start_, tol=1e-8, rng=0).cost == pytest.approx(optimum, abs=1e-5), "fact 13"


def test_strict_points():
    """Fact 12: exactly k (k - 1) / 2 zero modes; survives noise at rank 3, is never met at rank 5 or by the staircase."""
    for seed in (2, 7):
        C, V, optimum = gallery.waldspurger_waters(10, 3, seed)
        values = hessian_spectrum(unit(C).at(V))
        assert np.sum(np.abs(values) < 1e-8) == 3 and values[3] > 1e-3
        noisy = unit(C).perturbed(1e-3, seed)
        kept = minimize(noisy, SOLVER, V, tol=1e-9, eps_H=1e-4, rng=0)
        assert kept.status is Status.LOCALLY_OPTIMAL and kept.cost > optimum + 0.1
        for problem in (unit(C), noisy):
            for trial in range(10):
                wide = minimize(problem, SOLVER, rank=5, tol=1e-9, rng=trial)
                assert wide.cost == pytest.approx(optimum, abs=0.2)
            assert bmsdp.solve(problem, rng=0, warm_start=V).status is Status.CERTIFIED


def test_above_half_of_n_nothing_is_spurious():
    """Fact 13: real k > n / 2, complex k > n / 3, degenerate and integer costs included."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        n, complex_ = int(rng.integers(4, 11)), bool(seed % 2)
        C = np.triu(rng.choice([-1.0, 0, 1.0], (n, n)), 1)
        C = C + C.T
        if complex_:
            phase = 1j ** rng.integers(0, 4, n)
            C = phase[:, None] * C * phase.conj()
        k = n // 3 + 1 if complex_ else n // 2 + 1
        if not C.any():
            continue
        result = minimize(unit(C), SOLVER, rank=k, eps_g=1e-8, eps_H=1e-6, rng=seed)
        best = bmsdp.solve(C, tol=1e-8, rng=0)
        assert result.cost == pytest.approx(best.cost, abs=1e-5 * n), (seed, n, k)


@pytest.mark.parametrize("complex_", [False, True])
def test_generic_rank(complex_):
    """Fact 14: Gaussian cost, ceil(sqrt(2n)) + 1 columns (complex floor(sqrt n) + 1): rank deficient and optimal."""
    n = 30
    for seed in range(3):
        C = gallery.gue(n, seed) if complex_ else gallery.goe(n, seed)
        k = int(np.sqrt(n)) + 1 if complex_ else int(np.ceil(np.sqrt(2 * n))) + 1
        problem = unit(C)
        result = minimize(problem, SOLVER, rank=k, tol=1e-10, rng=seed)
        S = problem.at(result.Y).slack_matrix()
        assert np.linalg.svd(result.Y, compute_uv=False)[-1] <= 1e-6 and np.linalg.eigvalsh(S)[0] >= -1e-7


def test_gap_of_any_second_order_point():
    """(G5), facts 10 and 15: ``f - f* <= (f^max - f*) / (k - 1) + n eps_H / 2``, complex ``2k - 1``."""
    cases = [(gallery.goe(12, s), k) for s in range(3) for k in (2, 3)] + [(gallery.gue(9, s), k) for s in range(3) for k in (1, 2)]
    cases += [(C, V.shape[1]) for C, V, _ in (make() for make in CASES.values())]
    for C, k in cases:
        p = 2 * k - 1 if np.iscomplexobj(C) else k - 1
        problem, n = unit(C), len(C)
        point = minimize(problem, SOLVER, rank=k, tol=1e-9, eps_H=1e-6 * problem.norm_C, rng=0)
        low, high = bmsdp.solve(C, tol=1e-8, rng=0).cost, -bmsdp.solve(-C, tol=1e-8, rng=0).cost
        assert point.cost - low <= (high - low) / p + n * 1e-6 * problem.norm_C + 1e-6 * (high - low), (n, k)


@EVERY
def test_curvature_agrees(name):
    """The matrix-free check sees what the dense Hessian has, at the spurious point and with one more column."""
    C, V, _ = CASES[name]()
    problem = unit(C)
    V = start(V, problem)
    assert curvature(problem.at(V), 1e-6 * problem.norm_C, rng=0).value >= -1e-9 * problem.norm_C
    wide = problem.at(start(V, problem, 1))
    found = curvature(wide, 1e-6 * problem.norm_C, rng=0)
    assert found.value == pytest.approx(hessian_spectrum(wide)[0], rel=1e-6)
    assert found.value == pytest.approx(2 * np.linalg.eigvalsh(C)[0], rel=1e-6), "twice the slack's, along x e*"


@pytest.mark.parametrize("sparse", [False, True])
def test_gauges(sparse):
    """Signs and phases of rows, rotations of columns: the spurious point moves along, and every verdict with it."""
    rng = np.random.default_rng(0)
    C, V, optimum = gallery.waldspurger_waters(10, 3, 0)
    D, Q = rng.choice([-1.0, 1.0], 10), np.linalg.qr(rng.standard_normal((3, 3)))[0]
    moved = D[:, None] * C * D
    moved = sp.csr_array(moved) if sparse else moved
    point = np.ascontiguousarray(D[:, None] * V @ Q)
    one, two = certify(unit(C).at(V), rng=0), certify(unit(moved).at(point), rng=0)
    assert two.bound == pytest.approx(one.bound, rel=1e-8) and two.eig_min == pytest.approx(one.eig_min, rel=1e-8)
    result = bmsdp.solve(moved, rank=3, warm_start=point, solver=SOLVER, rng=0)
    assert result.status is Status.RANK_TOO_SMALL
    assert bmsdp.solve(moved, warm_start=point, rng=0).cost == pytest.approx(optimum, rel=2e-6)
