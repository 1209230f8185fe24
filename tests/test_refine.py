"""Gauss-Newton steps onto the constraints: quadratic, to rounding, along the manifold, never worse."""

import numpy as np
import pytest

from bmsdp import Penalty
from bmsdp.linear_maps import entries
from bmsdp.manifolds import Oblique, Product, Sphere, Unconstrained
from bmsdp.problem import Problem
from bmsdp.refine import refine

from .general import hermitian, value

N, K = 14, 6
KINDS = pytest.mark.parametrize("is_complex", [False, True])
MIXED = Product([Sphere(4, 2.0), Unconstrained(3), Oblique(np.ones(7))])
MANIFOLDS = [Oblique(np.linspace(0.5, 2, N)), Sphere(N, 3.0), Unconstrained(N), MIXED]


def case(manifold, is_complex, seed=0, m=5, m_geq=4, off=1e-3):
    """(problem, term, a point ``off`` from a feasible one); two inequalities are active there, two are not."""
    rng = np.random.default_rng(seed)
    dtype = complex if is_complex else float
    A, G = ([hermitian(rng, N, is_complex) for _ in range(count)] for count in (m, m_geq))
    Y = manifold.random_point(K, rng, dtype)
    X = Y @ Y.conj().T
    slack = np.where(np.arange(m_geq) < 2, 0.0, 1.0)
    term = Penalty(A, value(A, X), G, value(G, X) - slack, is_complex=is_complex)
    U = rng.standard_normal((N, K)) + (1j * rng.standard_normal((N, K)) if is_complex else 0)
    problem = Problem(hermitian(rng, N, is_complex), manifold, [term])
    return problem, term, manifold.retract(Y, off * manifold.project(Y, U.astype(dtype)))


def violation(term, Y):
    r = term.map.apply(Y, Y) - term.rhs
    r[term.m :] = np.minimum(r[term.m :], 0)
    return np.linalg.norm(r)


@KINDS
@pytest.mark.parametrize("manifold", MANIFOLDS, ids=lambda manifold: type(manifold).__name__)
def test_to_rounding_quadratically(manifold, is_complex):
    for seed in range(3):
        problem, term, Y = case(manifold, is_complex, seed)
        sizes = [violation(term, refine(problem, term, Y, steps=steps)[0]) for steps in range(6)]
        scale = np.linalg.norm(Y) ** 2 + np.linalg.norm(term.rhs)
        assert sizes[0] > 1e-4 and sizes[-1] <= 1e-14 * scale
        for before, after in zip(sizes[1:], sizes[2:], strict=False):  # the first step may break inequalities
            assert after <= max(20 * before**2, 1e-14 * scale)
        Z, spent = refine(problem, term, Y)
        assert spent > 0 and Z.dtype == Y.dtype and Z.flags.c_contiguous
        np.testing.assert_allclose(manifold.apply(Z, Z), manifold.b, rtol=1e-13)
        assert np.linalg.norm(Z - Y) <= 10 * 1e-3 * np.linalg.norm(Y)  # near where it began


def test_the_step_is_the_shortest():
    """Without a manifold: ``U = J^+ (-r / 2)`` for the held rows, from a dense pseudo-inverse."""
    problem, term, Y = case(Unconstrained(N), False, m_geq=0)
    r = term.map.apply(Y, Y) - term.rhs
    J = np.array([(term.map.matrix(e) @ Y).ravel() for e in np.eye(term.map.m)])
    step = (np.linalg.pinv(J) @ (-r / 2)).reshape(Y.shape)
    Z, _ = refine(problem, term, Y, steps=1)
    np.testing.assert_allclose(Z - Y, step, atol=1e-10 * np.linalg.norm(step))


def test_inequalities_stay_feasible():
    """Those that hold with room are left alone, those violated are mended, and a positive multiplier keeps its row active."""
    problem, term, Y = case(Oblique(np.ones(N)), False, m=3)
    r = term.map.apply(Y, Y) - term.rhs
    kept = term.at(np.r_[np.zeros(5), 1.0, 0.0], 1.0)
    Z, _ = refine(Problem(problem.C, problem.manifold, [kept]), kept, Y)
    after = kept.map.apply(Z, Z) - kept.rhs
    assert r[5] > 0.01 and np.abs(after[:3]).max() <= 1e-13 and after[3:].min() >= -1e-13
    assert abs(after[5]) > 0.01 or violation(kept, Z) <= 1e-13
    loose, _ = refine(problem, term, Y)
    assert (term.map.apply(loose, loose) - term.rhs)[6] > 0.01


def test_a_row_that_becomes_violated_on_the_way():
    """The step towards the equality breaks an inequality that was satisfied; the next one holds both."""
    Y = np.array([[1.0, 0.1], [0.2, 0.9], [0.3, 0.8]])
    x, total = Y[0] @ Y[0], Y.sum(0) @ Y.sum(0)
    term = Penalty([np.diag([1.0, 0, 0])], [x + 0.1], [-np.ones((3, 3))], [-total - 0.01])
    problem = Problem(np.eye(3), Unconstrained(3), [term])
    r = term.map.apply(Y, Y) - term.rhs
    one, _ = refine(problem, term, Y, steps=1)
    assert r[1] > 0 and (term.map.apply(one, one) - term.rhs)[1] < -1e-3
    Z, _ = refine(problem, term, Y)
    assert violation(term, Z) <= 1e-13


@pytest.mark.parametrize("off", [1e-12, 1e-6, 0.1, 3.0])
def test_never_worse(off):
    for seed in range(10):
        problem, term, Y = case(Oblique(np.ones(N)), False, seed, off=off)
        assert violation(term, refine(problem, term, Y)[0]) <= violation(term, Y)


def test_contradictory_and_feasible_rows():
    """Where no point is feasible, the best met is given back; a feasible one is returned as it is."""
    term = Penalty([np.eye(3), np.ones((3, 3)), np.ones((3, 3))], [1.0, 2.0, 2.5])
    problem = Problem(np.eye(3), Unconstrained(3), [term])
    Y = np.random.default_rng(0).standard_normal((3, 2))
    Z, _ = refine(problem, term, Y)
    assert 0.05 < violation(term, Z) <= violation(term, Y)
    feasible = Penalty(entries(3, [0], [1]), [0.0])
    Z, spent = refine(Problem(np.eye(3), Oblique(np.ones(3)), [feasible]), feasible, np.eye(3))
    assert np.array_equal(Z, np.eye(3)) and spent == 0


def test_dependent_rows():
    """A row given twice: least squares has no trouble with it."""
    problem, _, Y = case(Sphere(N, 2.0), False)
    A = hermitian(np.random.default_rng(3), N)
    b = np.vdot(A, Y @ Y.T) + 0.01
    term = Penalty([A, 2 * A, np.eye(N)], [b, 2 * b, 2.0])
    Z, _ = refine(Problem(problem.C, problem.manifold, [term]), term, Y)
    assert violation(term, Z) <= 1e-13
