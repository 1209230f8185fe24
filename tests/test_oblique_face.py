"""`ObliqueFace`: a given diagonal on the face ``X U = 0``, against dense algebra and against the elimination of the same rows."""

import numpy as np
import pytest
import scipy.sparse as sp

import bmsdp
from bmsdp import Problem
from bmsdp.cone import Given
from bmsdp.facial import Face
from bmsdp.linear_maps import as_linear_map
from bmsdp.manifolds import ObliqueFace
from bmsdp.manifolds.base import gaussian, inner
from bmsdp.presolve import presolve

CASES = {
    "ones": (np.ones(8), [np.ones(8)], float, 3),
    "two vectors": (np.array([1.0, 2, 1, 0.5, 3, 1, 1, 2]), [np.ones(8), np.arange(8.0) - 3], float, 4),
    "complex": (np.ones(7), [np.exp(1j * np.arange(7))], complex, 3),
}


@pytest.fixture(params=CASES)
def case(request):
    b, us, dtype, k = CASES[request.param]
    M = ObliqueFace(b, Face(len(b), us))
    rng = np.random.default_rng(3)
    Y = M.random_point(k, rng, dtype)
    H = gaussian(rng, (M.n, M.n), dtype)
    P = np.eye(M.n) - M.Q @ M.Q.conj().T
    return M, Y, P @ (H + H.conj().T) @ P, P, rng, np.stack(us, axis=1)


def tangent(M, Y, P, rng):
    V = np.ascontiguousarray(P @ gaussian(rng, Y.shape, Y.dtype))
    return M.project(Y, V)


def test_points_are_feasible(case):
    M, Y, _, _, rng, U = case
    for k in range(Y.shape[1], M.n):
        Z = M.random_point(k, rng, Y.dtype)
        np.testing.assert_allclose(np.sum(np.abs(Z) ** 2, axis=1), M.b, rtol=1e-12)
        assert np.abs(U.conj().T @ Z).max() <= 1e-12


def test_the_gram_matrix_is_solved(case):
    """``G_ij = Re <A_i Y, A_j Y>`` with ``A_i = P e_i e_i* P`` formed one by one."""
    M, Y, _, P, rng, _ = case
    rows = [np.outer(P[:, i], P[i]) @ Y for i in range(M.n)]
    G = np.array([[np.vdot(a, c).real for c in rows] for a in rows])
    V = P @ gaussian(rng, Y.shape, Y.dtype)
    mu = M.multipliers(Y, np.ascontiguousarray(V))
    np.testing.assert_allclose(G @ mu, [np.vdot(a, V).real for a in rows], atol=1e-9)
    np.testing.assert_allclose(M.adjoint_mul(mu, Y), sum(m * a for m, a in zip(mu, rows, strict=True)), atol=1e-12)


def test_tangents_keep_both_constraints_and_the_retraction_is_of_second_order(case):
    M, Y, _, P, rng, U = case
    V = tangent(M, Y, P, rng)
    assert np.abs(U.conj().T @ V).max() <= 1e-12 and np.abs(np.sum((Y.conj() * V).real, axis=1)).max() <= 1e-11
    np.testing.assert_allclose(M.project(Y, V), V, atol=1e-11)
    off = [np.linalg.norm(M.retract(Y, h * V) - Y - h * V - (M.retract(Y, -h * V) - Y + h * V)) for h in (1e-2, 1e-3)]
    assert off[1] <= 2e-3 * off[0] + 1e-13  # the odd part of retract(hV) - Y - hV is O(h^3)


def test_gradient_and_hessian(case):
    M, Y, C, P, rng, _ = case
    problem = Problem(C, M)
    model, V, h = problem.at(Y), tangent(M, Y, P, rng), 1e-4

    def cost(t):
        return problem.at(M.retract(Y, t * V)).cost

    slope = (8 * (cost(h) - cost(-h)) - (cost(2 * h) - cost(-2 * h))) / (12 * h)
    assert inner(model.grad, V) == pytest.approx(slope, rel=1e-8, abs=1e-8)
    assert not (1 + 1e-5) * inner(model.grad, V) == pytest.approx(slope, rel=1e-8, abs=1e-8 * abs(slope)), "a mutant passes"
    bend = (cost(1e-3) + cost(-1e-3) - 2 * cost(0.0)) / 1e-6
    assert inner(V, model.hess(V)) == pytest.approx(bend, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_it_solves_what_elimination_solves(seed):
    """The same rows with row n of Y written in terms of the others (``linear=False``), and the certificate in the caller's rows."""
    rng = np.random.default_rng(seed)
    n = 12
    H = rng.standard_normal((n, n))
    C = H + H.T
    A = [*(np.diag(e) for e in np.eye(n)), np.ones((n, n))]
    b = np.r_[np.ones(n), 0.0]
    result = bmsdp.solve(C, A, b, rng=seed)
    assert result.status.name == "CERTIFIED" and "ObliqueFace" in result.options["manifold"]
    assert np.abs(np.ones(n) @ result.Y).max() <= 1e-9 and np.abs(np.diag(result.X) - 1).max() <= 1e-9
    state = presolve(Given.of(C, as_linear_map([sp.csr_array(a) for a in A], n), b), linear=False)
    assert state.problem.n == n - 1
    other = bmsdp.augmented_lagrangian.augmented_lagrangian(state.problem, rng=seed)
    assert other.success and other.cost + state.constant == pytest.approx(result.cost, rel=3e-6)
    S = C - sum(y * a for y, a in zip(result.dual, A, strict=True))
    assert np.linalg.eigvalsh(S)[0] >= -1e-6 * np.abs(result.dual).max()
