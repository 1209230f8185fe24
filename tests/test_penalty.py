"""Constraints as a term of the merit: derivatives by central differences, multipliers, scaling."""

import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp import Penalty
from bmsdp.linear_maps import as_linear_map, entries
from bmsdp.manifolds import Oblique, Sphere, Unconstrained
from bmsdp.manifolds.base import inner
from bmsdp.operators import as_operator
from bmsdp.pattern_map import LONG
from bmsdp.problem import Problem

from .general import hermitian, value

N, K = 21, 3
KINDS = pytest.mark.parametrize("is_complex", [False, True])
MUTANT = 1 + 1e-5


def gaussian(rng, shape, is_complex):
    return rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if is_complex else 0)


class Case:
    """Five equalities and six inequalities of all kinds around unit rows, at a random point with active and inactive rows."""

    def __init__(self, is_complex, seed=0):
        rng = self.rng = np.random.default_rng(seed)
        self.dtype = complex if is_complex else float
        u = gaussian(rng, N, is_complex)
        assert N * N >= LONG
        self.A = [hermitian(rng, N, is_complex, 0.2) for _ in range(3)] + [np.outer(u, u.conj()), 50 * hermitian(rng, N)]
        self.G = [hermitian(rng, N, is_complex, 0.2) for _ in range(5)] + [-np.ones((N, N))]
        self.manifold = Oblique(np.ones(N))
        self.Y, self.U = self.manifold.random_point(K, rng, self.dtype), gaussian(rng, (N, K), is_complex)
        self.b = rng.standard_normal(5)
        self.g = value(self.G, self.Y @ self.Y.conj().T) + 20 * np.array([1, -1, 1, -1, 1, -1])
        term = Penalty(self.A, self.b, self.G, self.g, is_complex=is_complex)
        nu = rng.standard_normal(11)
        nu[5:] = 0.5 * np.abs(nu[5:])
        self.term, self.sigma = term.at(nu, 0.7), 0.7
        z = self.term.factor(self.Y).z
        assert (z[5:] == 0).any() and (z[5:] > 0).any()

    def tangent(self):
        return self.manifold.project(self.Y, self.U)


def derivative(f, h=1e-4):
    """Of fourth order."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def gradient_error(case, factor=1.0):
    slope = derivative(lambda t: case.term.value(case.Y + t * case.U))
    return abs(slope - 2 * factor * inner(case.term.half_grad(case.Y), case.U)) / abs(slope)


def hessian_error(case, factor=1.0):
    change = derivative(lambda t: case.term.half_grad(case.Y + t * case.U))
    return np.linalg.norm(change - factor * case.term.half_hess(case.Y, case.U)) / np.linalg.norm(change)


@KINDS
def test_derivatives(is_complex):
    for seed in range(3):
        case = Case(is_complex, seed)
        assert gradient_error(case) <= 1e-8 and hessian_error(case) <= 1e-8
        assert gradient_error(case, MUTANT) > 1e-6 and hessian_error(case, MUTANT) > 1e-6


@KINDS
def test_hessian_of_the_merit_on_the_manifold(is_complex):
    """What solvers see: cost, penalty and curvature of the manifold in one; symmetric, and right by central differences."""
    case = Case(is_complex)
    C = hermitian(case.rng, N, is_complex)
    problem, U = Problem(C, case.manifold, [case.term]), case.tangent()
    V = case.manifold.project(case.Y, gaussian(case.rng, (N, K), is_complex))
    model = problem.at(case.Y)
    along = lambda t: problem.at(case.manifold.retract(case.Y, t * U))  # noqa: E731
    slope = derivative(lambda t: along(t).merit)
    assert slope == pytest.approx(inner(model.grad, U), rel=1e-8)
    assert slope != pytest.approx(MUTANT * inner(model.grad, U), rel=1e-6)
    change = case.manifold.project(case.Y, derivative(lambda t: along(t).grad))
    assert np.linalg.norm(change - model.hess(U)) <= 1e-8 * np.linalg.norm(change)
    assert np.linalg.norm(change - MUTANT * model.hess(U)) > 1e-6 * np.linalg.norm(change)
    assert inner(model.hess(U), V) == pytest.approx(inner(U, model.hess(V)), rel=1e-11, abs=1e-10)


@KINDS
def test_multipliers_and_slack(is_complex):
    """``z = nu - sigma r``, at least 0 on inequalities, in the scaled rows; S and the dual value are theirs."""
    case = Case(is_complex)
    term, X = case.term, case.Y @ case.Y.conj().T
    size = np.array([np.linalg.norm(a) for a in (*case.A, *case.G)])
    r = (value([*case.A, *case.G], X) - np.r_[case.b, case.g]) / size
    z = term.nu - 0.7 * r
    z[5:] = np.maximum(z[5:], 0)
    known = term.factor(case.Y)
    np.testing.assert_allclose(known.r, r, atol=1e-13)
    np.testing.assert_allclose(known.z, z, atol=1e-13)
    total = sum(v / s * a for v, s, a in zip(z, size, (*case.A, *case.G), strict=True))
    V = gaussian(case.rng, (N, 2), is_complex)
    np.testing.assert_allclose(term.slack_mul(case.Y, V), -total @ V, atol=1e-12)
    np.testing.assert_allclose(term.half_grad(case.Y), -total @ case.Y, atol=1e-12)
    assert term.dual_value(case.Y) == pytest.approx(np.r_[case.b, case.g] / size @ z)
    assert term.value(case.Y) == pytest.approx((z @ z - term.nu @ term.nu) / 1.4, rel=1e-11)
    for f in (term.value, term.half_grad, term.dual_value, term.infeasibility):
        np.testing.assert_array_equal(f(case.Y, known), f(case.Y))
    C = hermitian(case.rng, N, is_complex)
    S = term.slack_cost(as_operator(C), z)
    np.testing.assert_allclose(S.mul(np.eye(N, dtype=case.dtype)), C - total, atol=1e-12)


def test_value_keeps_its_digits():
    """Near the solution with large multipliers, ``|z|^2 - |nu|^2`` cancels; the form used does not."""
    for rows in ({"A": [np.eye(3)], "b": [3.0]}, {"A_geq": [np.eye(3)], "b_geq": [3.0]}):
        term = Penalty(**rows).at(np.array([1e12]), 1.0)
        Y = np.eye(3) * (1 + 2.0**-20)
        r = 3 * (2.0**-19 + 2.0**-40) / np.sqrt(3)
        assert term.value(Y) == pytest.approx(-1e12 * r + r * r / 2, rel=1e-9)


def test_infeasibility():
    """Relative to ``|A_j| tr X + |b_j|``; inequalities count where violated."""
    Y = np.array([[1.0], [2.0]])
    equal = Penalty([np.eye(2), np.diag([0, 3.0])], [5.0, 11.0])
    assert equal.infeasibility(Y) == pytest.approx(1 / (3 * 5 + 11))
    for sign, expected in ((1, 0.0), (-1, 1 / (np.sqrt(2) * 5 + 4))):
        assert Penalty(A_geq=[sign * np.eye(2)], b_geq=[sign * 4.0]).infeasibility(Y) == pytest.approx(expected)
    for factor in (1e-9, 1e9):
        scaled = Penalty([factor * np.eye(2), factor * np.diag([0, 3.0])], [5 * factor, 11 * factor])
        assert scaled.infeasibility(Y) == pytest.approx(equal.infeasibility(Y))


def test_rows_are_scaled_inside():
    case = Case(False)
    factor = 10.0 ** np.linspace(-6, 6, 11)
    other = Penalty(
        [f * a for f, a in zip(factor[:5], case.A, strict=True)], factor[:5] * case.b,
        [f * a for f, a in zip(factor[5:], case.G, strict=True)], factor[5:] * case.g,
    ).at(case.term.nu, 0.7)  # fmt: skip
    assert other.value(case.Y) == pytest.approx(case.term.value(case.Y), rel=1e-10)
    np.testing.assert_allclose(other.scale * factor, case.term.scale, rtol=1e-12)


def test_balanced_changes_scaling_only():
    """``<J, X> = b`` far below n: scaled up; the constraints, the scaled multipliers' matrix and other rows stay."""
    rng = np.random.default_rng(0)
    A, b = [np.ones((N, N)), hermitian(rng, N), np.ones((N, N)) - np.eye(N)], [1e-3, 0.2, 0.0]
    term = Penalty(A, b, [-np.ones((N, N)) + np.diag(np.arange(N))], [-5.0]).at(np.array([1.0, 2, 3, 4]), 2.0)
    other = term.balanced(np.ones(N))
    change = other.scale / term.scale
    assert change[0] > 10 and np.all(change[1:] == 1)
    Y = Oblique(np.ones(N)).random_point(K, rng)
    np.testing.assert_allclose(other.nu * other.scale, term.nu * term.scale)  # the multipliers of the rows as given
    np.testing.assert_allclose(other.factor(Y).r, change * term.factor(Y).r, atol=1e-12)
    np.testing.assert_allclose(other.map.adjoint_mul(other.nu, Y), term.map.adjoint_mul(term.nu, Y), atol=1e-12)
    assert other.infeasibility(Y) == pytest.approx(term.infeasibility(Y), rel=1e-12)
    assert other.sigma == term.sigma and np.array_equal(other.b, term.b)
    ahead = derivative(lambda t: other.value(Y + t * Y[::-1]))
    assert ahead == pytest.approx(2 * inner(other.half_grad(Y), Y[::-1]), rel=1e-8)
    plain = Penalty([np.eye(N)], [1.0])
    assert plain.balanced(np.ones(N)) is plain


def test_forms_of_rows():
    Y = np.random.default_rng(0).standard_normal((4, 2))
    matrices = [np.eye(4), np.diag([1.0, 2, 0, 0])]
    stacked = sp.csr_array(np.array([a.ravel() for a in matrices]))
    for A in (matrices, stacked, as_linear_map(matrices, 4), [sp.csr_array(a) for a in matrices]):
        assert Penalty(A, [1.0, 2]).value(Y) == pytest.approx(Penalty(matrices, [1.0, 2]).value(Y))
    both = Penalty(A_geq=entries(4, [0], [1]), b_geq=[0.0])
    assert (both.m, both.m_geq) == (0, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Penalty(), "a Penalty needs the matrices of its rows"),
        (lambda: Penalty(Sphere(3), [1.0]), "a Penalty needs the matrices of its rows"),
        (lambda: Penalty(Unconstrained(3), []), "a Penalty needs the matrices of its rows"),
        (lambda: Penalty([np.eye(3)], [1.0, 2.0]), r"b and b_geq hold 2 numbers for 1 \+ 0 rows"),
        (lambda: Penalty([np.eye(3)], [np.nan]), "one finite number a row"),
        (lambda: Penalty([np.eye(3)], [1.0], [np.eye(3)]), r"hold 1 numbers for 1 \+ 1 rows"),
        (lambda: Penalty([np.triu(np.ones((3, 3)))], [1.0]), "not Hermitian"),
    ],
)
def test_bad_rows(call, message):
    with pytest.raises(ValueError, match=message):
        call()
