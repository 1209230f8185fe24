"""Multipliers sharper than the point's own."""

import numpy as np
import pytest

from bmsdp import gallery
from bmsdp.certificate import certify
from bmsdp.manifolds import Oblique, Product, Sphere, StiefelProduct
from bmsdp.minimize import minimize
from bmsdp.problem import Problem
from bmsdp.sharpen import correction, sharpened
from bmsdp.solvers import LBFGS, Mixing


def hermitian(rng, n, dtype=float):
    A = rng.standard_normal((n, n))
    A = A + 1j * rng.standard_normal((n, n)) if dtype is complex else A
    return A + A.conj().T


PROBLEMS = {
    "unit diagonal": lambda rng: Problem(hermitian(rng, 40), Oblique(np.ones(40))),
    "radii": lambda rng: Problem(hermitian(rng, 40), Oblique(np.linspace(0.3, 3, 40))),
    "complex": lambda rng: Problem(hermitian(rng, 30, complex), Oblique(np.ones(30))),
    "stiefel": lambda rng: Problem(hermitian(rng, 45), StiefelProduct(15, 3)),
    "product": lambda rng: Problem(hermitian(rng, 40), Product([Oblique(np.ones(30)), StiefelProduct(5, 2)])),
}


def slack(problem, mu):
    I = np.eye(problem.n, dtype=problem.dtype)  # noqa: E741
    return problem.C.mul(I) - problem.manifold.adjoint_mul(mu, I)


@pytest.mark.parametrize("name", PROBLEMS)
def test_correction_is_the_smallest_that_clears_the_block(name):
    rng = np.random.default_rng(1)
    problem = PROBLEMS[name](rng)
    V = np.linalg.qr(problem.random_point(3, rng))[0]
    V = np.ascontiguousarray(V)
    S = slack(problem, np.zeros(problem.manifold.m))
    delta = correction(problem.at(problem.random_point(4, rng)), V, S @ V)
    block = V.conj().T @ slack(problem, delta) @ V
    assert np.abs(block).max() <= 1e-8 * np.abs(S).max()
    # any other solution differs by an element of the null space, to which the smallest is orthogonal
    rows = []
    for _ in range(40):
        nu = rng.standard_normal(problem.manifold.m)
        rows.append((nu, V.conj().T @ problem.manifold.adjoint_mul(nu, V)))
    M = np.array([np.concatenate([block.real.ravel(), block.imag.ravel()]) for _, block in rows])
    for weights in np.linalg.svd(M.T)[2][np.linalg.matrix_rank(M) :]:
        kernel = sum(w * nu for w, (nu, _) in zip(weights, rows, strict=True))
        assert abs(kernel @ delta) <= 1e-6 * np.linalg.norm(kernel) * np.linalg.norm(delta)


@pytest.mark.parametrize("name", PROBLEMS)
def test_sharper_where_the_rank_shows(name):
    """Near an optimum the bound is better by a large factor, and never above the optimum."""
    rng = np.random.default_rng(2)
    problem = PROBLEMS[name](rng)
    rank = 12
    best = minimize(problem, LBFGS(), rank=rank, tol=1e-12, rng=3)
    Y = best.Y + 1e-5 * rng.standard_normal(best.Y.shape) * np.abs(best.Y)
    Y = problem.manifold.retract(np.ascontiguousarray(Y), np.zeros_like(Y))
    model = problem.at(Y)
    weight = 1 / problem.manifold.row_trace
    other = sharpened(model, weight)
    assert other is not None and other.cost == model.cost and other.Y is model.Y
    loss = []
    for one in (model, other):
        lowest = np.linalg.eigvalsh(slack(problem, one.mu) / np.sqrt(np.outer(weight, weight)))[0]
        loss.append(best.cost - (one.dual_value + min(lowest, 0) * problem.n))
    assert loss[1] >= -1e-9 * abs(best.cost)
    assert loss[1] <= 0.1 * loss[0]


def test_nothing_to_sharpen_far_from_an_optimum():
    rng = np.random.default_rng(0)
    for name in PROBLEMS:
        problem = PROBLEMS[name](rng)
        model = problem.at(problem.random_point(6, rng))
        other = sharpened(model, 1 / problem.manifold.row_trace)
        assert other is None or other.dual_value > model.dual_value - problem.n * 4 * problem.norm_C


def test_too_few_multipliers():
    """One trace constraint cannot clear a block of more than one direction."""
    rng = np.random.default_rng(0)
    problem = Problem(hermitian(rng, 20), Sphere(20))
    V = np.ascontiguousarray(np.linalg.qr(rng.standard_normal((20, 3)))[0])
    assert correction(problem.at(problem.random_point(3, rng)), V, problem.C.mul(V)) is None


def test_certificate_uses_it():
    """On a torus sharper multipliers prove what the point's own miss by a factor of three."""
    problem = Problem(gallery.toroidal_grid(20, 20, rng=0), Oblique(np.ones(400)))
    model = problem.at(minimize(problem, Mixing(), rank=16, tol=1e-7, rng=0).Y)
    own = -np.linalg.eigvalsh(slack(problem, model.mu))[0] * problem.n / abs(model.cost)
    found = certify(model, own / 3, "verified", rng=0)
    assert 0 <= found.gap <= own / 3 and found.rigor == "verified" and not np.array_equal(found.mu, model.mu)
    assert np.array_equal(certify(model, 2 * own, "verified", rng=0).mu, model.mu)
