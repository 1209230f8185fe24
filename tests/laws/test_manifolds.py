"""The laws of a manifold: feasibility, projector, adjointness, multipliers, derivatives, covers, invariances."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.linalg import eigvalsh

from bmsdp.linear_maps import as_linear_map
from bmsdp.manifolds import Product, Quadratic
from bmsdp.manifolds.base import as_real, inner
from bmsdp.problem import Problem

from .registry import REGISTRY

EVERY = pytest.mark.parametrize("name", REGISTRY)
MUTANT = 1 + 1e-5


def gaussian(shape, dtype, rng):
    Y = rng.standard_normal(shape)
    return Y + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else Y


def hermitian(n, dtype, rng):
    C = gaussian((n, n), dtype, rng)
    return (C + C.conj().T) / 2


class Case:
    """A manifold with a random cost, a random point and random vectors."""

    def __init__(self, name, sparse=False):
        self.rng = np.random.default_rng(list(name.encode()))
        self.M, self.dtype, self.k = REGISTRY[name]
        self.Y = self.M.random_point(self.k, self.rng, self.dtype)
        C = hermitian(self.M.n, self.dtype, self.rng)
        self.C = sp.csr_array(C) if sparse else C
        self.problem = Problem(self.C, self.M)
        self.model = self.problem.at(self.Y)

    def vector(self):
        return gaussian(self.Y.shape, self.dtype, self.rng)

    def tangent(self):
        U = self.M.project(self.Y, self.vector(), self.M.factor(self.Y))
        return U / max(np.linalg.norm(U), 1e-300)

    def dual(self):
        return self.rng.standard_normal(self.M.m)


@pytest.fixture
def case(name):
    return Case(name)


def real(V):
    return as_real(np.ascontiguousarray(V)).ravel()


def adjoint(M, mu):
    """``A*(mu)`` column by column."""
    return M.adjoint_mul(mu, np.eye(M.n))


def feasible(M, Y, tol=1e-13):
    np.testing.assert_allclose(M.apply(Y, Y), M.b, rtol=tol, atol=tol)


def turned(M, D):
    """The manifold of DY: only general constraints see signs and phases of rows."""
    if isinstance(M, Product):
        return Product([turned(part, D[r]) for part, r in zip(M.parts, M.rows, strict=True)])
    if not isinstance(M, Quadratic):
        return M
    rows = [D[:, None] * adjoint(M, e) * D.conj() for e in np.eye(M.m)]
    return Quadratic(as_linear_map(rows, M.n), M.b, M.w)


def shortest(M):
    """A typical length of the shortest row, at most 1: the scale on which curves bend."""
    return np.sqrt(np.min(M.row_trace[M.row_trace > 0], initial=1.0))


# feasible points


@EVERY
def test_random_points(case, name):
    M, k = case.M, case.k
    feasible(M, case.Y)
    assert case.Y.shape == (M.n, k) and case.Y.dtype == case.dtype and case.Y.flags.c_contiguous
    again = [M.random_point(k, np.random.default_rng(seed), case.dtype) for seed in (5, 5, 6)]
    assert np.array_equal(again[0], again[1]) and not np.array_equal(again[0], again[2])
    assert M.b.shape == (M.m,) and M.row_trace.shape == (M.n,) and k >= M.min_rank


@EVERY
def test_retract(case, name):
    M, Y = case.M, case.Y
    for size in (1e-8, 1e-2, 1.0):
        U = size * case.tangent()
        kept = Y.copy(), U.copy()
        Z = M.retract(Y, U)
        feasible(M, Z)
        assert np.array_equal(Y, kept[0]) and np.array_equal(U, kept[1])
        assert not np.shares_memory(Z, Y) and not np.shares_memory(Z, U)
        assert Z.dtype == Y.dtype and Z.flags.c_contiguous
        assert np.linalg.norm(Z - Y - U) <= 2 * size**2 / shortest(M) + 1e-14 * np.linalg.norm(Y)
    np.testing.assert_allclose(M.retract(Y, np.zeros_like(Y)), Y, rtol=1e-13, atol=1e-14)


@EVERY
def test_retraction_is_of_second_order(case, name):
    """The tangent part of ``Retr(hU) - Y - hU`` is O(h^3): halving h divides it by 8."""
    M, Y, U = case.M, case.Y, case.tangent()
    U *= 0.5 * shortest(M)
    size = [np.linalg.norm(M.project(Y, M.retract(Y, h * U) - Y - h * U)) for h in (0.1, 0.05)]
    assert size[1] <= size[0] / 7 + 1e-14


# tangent and normal spaces


@EVERY
def test_projector(case, name):
    M, Y = case.M, case.Y
    U, V, mu = case.vector(), case.vector(), case.dual()
    PU, PV = M.project(Y, U), M.project(Y, V)
    scale = np.linalg.norm(Y) * np.linalg.norm(U)
    np.testing.assert_allclose(M.apply(Y, PU), 0, atol=1e-14 * scale)
    np.testing.assert_allclose(M.project(Y, PU), PU, atol=1e-13 * np.linalg.norm(U))
    assert np.isclose(inner(PU, V), inner(U, PV), rtol=0, atol=1e-13 * np.linalg.norm(U) * np.linalg.norm(V))
    normal = M.adjoint_mul(mu, Y)
    assert abs(inner(PU, normal)) <= 1e-13 * np.linalg.norm(U) * max(np.linalg.norm(normal), 1)
    np.testing.assert_allclose(M.project(Y, normal), 0, atol=1e-13 * max(np.linalg.norm(normal), 1))


@EVERY
def test_adjoint(case, name):
    M, Y, U, mu = case.M, case.Y, case.vector(), case.dual()
    V = case.vector()
    scale = np.linalg.norm(V) * np.linalg.norm(U) * max(np.linalg.norm(mu), 1)
    for A, B in ((Y, U), (V, U), (U, V)):
        assert np.isclose(mu @ M.apply(A, B), inner(M.adjoint_mul(mu, A), B), rtol=0, atol=1e-13 * scale)
    np.testing.assert_allclose(M.apply(U, V), M.apply(V, U), atol=1e-13 * scale)
    nu = case.dual()
    np.testing.assert_allclose(M.adjoint_mul(2 * mu - nu, V), 2 * M.adjoint_mul(mu, V) - M.adjoint_mul(nu, V), atol=1e-13 * scale)


@EVERY
def test_matrix_of_the_adjoint(case, name):
    M, mu, V = case.M, case.dual(), case.vector()
    A = M.matrix(mu)
    assert sp.issparse(A) and A.shape == (M.n, M.n)
    np.testing.assert_allclose(A @ V, M.adjoint_mul(mu, V), atol=1e-14 * np.linalg.norm(V) * max(np.linalg.norm(mu), 1))
    A = A.toarray()
    assert np.array_equal(A, A.conj().T)
    assert A.dtype.kind != "c" or np.dtype(case.dtype).kind == "c"


@EVERY
def test_multipliers_are_least_squares(case, name):
    M, Y, G = case.M, case.Y, case.vector()
    mu = M.multipliers(Y, G, M.factor(Y))
    assert mu.shape == (M.m,) and mu.dtype == np.float64
    columns = [real(M.adjoint_mul(e, Y)) for e in np.eye(M.m)]
    N = np.array(columns).T.reshape(real(Y).size, M.m)
    assert np.linalg.matrix_rank(N) == M.m or "redundant" in name if M.m else True
    expected = np.linalg.lstsq(N, real(G), rcond=None)[0] if M.m else np.zeros(0)
    np.testing.assert_allclose(mu, expected, rtol=1e-11, atol=1e-12 * np.linalg.norm(G))


# derivatives


def curve_derivatives(g, h):
    """First and second derivative of g at 0 by central differences of fourth order."""
    m2, m1, z, p1, p2 = (g(s * h) for s in (-2, -1, 0, 1, 2))
    return (8 * (p1 - m1) - (p2 - m2)) / (12 * h), (16 * (p1 + m1) - (p2 + m2) - 30 * z) / (12 * h * h)


def direction(case):
    """Tangent, on the scale of the shortest row, a good part of it along the gradient."""
    length, grad = 0.3 * shortest(case.M), case.model.grad
    U = case.tangent() + (grad / case.model.grad_norm if case.model.grad_norm > 1e-12 else 0)
    return length * U / max(np.linalg.norm(U), 1e-300)


def gradient_error(case, factor=1.0):
    """Relative error of the slope along a retraction curve when the gradient is multiplied by ``factor``."""
    M, Y, U = case.M, case.Y, direction(case)
    slope, _ = curve_derivatives(lambda t: case.problem.at(M.retract(Y, t * U)).cost, 1e-3)
    return abs(slope - factor * inner(case.model.grad, U)) / (case.model.grad_norm * np.linalg.norm(U))


def hessian_error(case, factor=1.0):
    """Relative error of Hess[U] against the projected derivative of the gradient field along a retraction."""
    M, Y, U = case.M, case.Y, direction(case)
    field, _ = curve_derivatives(lambda t: case.problem.at(M.retract(Y, t * U)).grad, 1e-3)
    expected = M.project(Y, field)
    return np.linalg.norm(factor * case.model.hess(U) - expected) / np.linalg.norm(expected)


FLAT = {"oblique, one row"}  # the cost is constant there
CURVED = pytest.mark.parametrize("name", sorted(REGISTRY.keys() - FLAT))
FORM = pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])


@FORM
@CURVED
def test_gradient(name, sparse):
    case = Case(name, sparse)
    assert gradient_error(case) <= 1e-8
    assert np.linalg.norm(case.M.apply(case.Y, case.model.grad)) <= 1e-13 * np.linalg.norm(case.Y) * np.linalg.norm(
        case.C @ case.Y
    )


@FORM
@CURVED
def test_hessian(name, sparse):
    case = Case(name, sparse)
    assert hessian_error(case) <= 1e-8
    U = direction(case)
    _, bend = curve_derivatives(lambda t: case.problem.at(case.M.retract(case.Y, t * U)).cost, 1e-2)
    scale = case.problem.norm_C * np.linalg.norm(U) * np.linalg.norm(U)
    noise = 1e-16 * np.abs(case.model.cost) / 1e-4
    assert abs(bend - inner(U, case.model.hess(U))) <= 1e-6 * scale + 100 * noise


@CURVED
def test_derivative_tests_catch_a_mutant(name):
    """A gradient or Hessian wrong by a factor 1 + 1e-5 does not pass the tests above."""
    case = Case(name)
    assert gradient_error(case, MUTANT) > 1e-8
    assert hessian_error(case, MUTANT) > 1e-8


@EVERY
def test_taylor(case, name):
    """``f(Retr(hU)) - f - h <2SY, U> - h^2 <U, SU> = O(h^3)`` (theory, fact 1)."""
    M, Y, model, U = case.M, case.Y, case.model, direction(case)
    SU = model.slack_mul(U)

    def rest(h):
        value = case.problem.at(M.retract(Y, h * U)).cost
        return abs(value - model.cost - h * inner(2 * model.slack_mul(Y), U) - h * h * inner(U, SU))

    noise = 1e-13 * (abs(model.cost) + 1)
    assert rest(0.1) <= rest(0.2) / 6 + noise
    assert rest(0.05) <= rest(0.1) / 6.8 + noise


@FORM
@EVERY
def test_hessian_is_symmetric_and_tangent(name, sparse):
    case = Case(name, sparse)
    U, V, model = case.tangent(), case.tangent(), case.model
    HU, HV = model.hess(U), model.hess(V)
    scale = max(np.linalg.norm(case.C.todense() if sparse else case.C), np.linalg.norm(model.mu))
    assert abs(inner(V, HU) - inner(U, HV)) <= 1e-13 * scale
    np.testing.assert_allclose(case.M.apply(case.Y, HU), 0, atol=1e-13 * scale * np.linalg.norm(case.Y))
    np.testing.assert_allclose(HU, 2 * case.M.project(case.Y, model.slack_mul(U)), atol=1e-13 * scale)
    np.testing.assert_allclose(model.hess(2 * U - V), 2 * HU - HV, atol=1e-12 * scale)


@EVERY
def test_slack_in_all_its_forms(case, name):
    model, V = case.model, case.vector()
    S = case.C - adjoint(case.M, model.mu)
    np.testing.assert_allclose(model.slack_mul(V), S @ V, atol=1e-12 * np.linalg.norm(S))
    np.testing.assert_allclose(model.slack_matrix(), S, atol=1e-13 * np.linalg.norm(S))
    np.testing.assert_allclose(Case(name, sparse=True).model.slack_matrix().toarray(), S, atol=1e-13 * np.linalg.norm(S))
    np.testing.assert_allclose(model.grad, 2 * S @ case.Y, atol=1e-12 * np.linalg.norm(S) * np.linalg.norm(case.Y))


# duality


@EVERY
def test_dual_value(case, name):
    """``f - <b, mu> = <S, YY*>``, which is 0 on sets of fixed trace (theory, fact 2)."""
    model, Y = case.model, case.Y
    scale = np.linalg.norm(case.C) * np.linalg.norm(Y) ** 2
    assert abs(model.cost - model.dual_value - inner(model.slack_mul(Y), Y)) <= 1e-13 * scale
    trace = case.M.cover(np.ones(case.M.n))
    if trace is not None and np.allclose(adjoint(case.M, trace), np.eye(case.M.n), rtol=0, atol=1e-14):
        assert abs(model.cost - model.dual_value) <= 1e-13 * scale


@EVERY
def test_cover(case, name):
    M, rng = case.M, case.rng
    bounded = M.row_trace > 0
    for e in (
        rng.random(M.n) * bounded,
        (rng.random(M.n) < 0.3) * bounded * 1.0,
        np.zeros(M.n),
        1e6 * rng.random(M.n) ** 9 * bounded,
    ):
        w = M.cover(e)
        assert w.shape == (M.m,)
        assert eigvalsh(adjoint(M, w) - np.diag(e)).min() >= -1e-14 * max(np.max(e), 1e-300)
    if not bounded.all():
        assert M.cover(np.ones(M.n)) is None and M.shift is None


@EVERY
def test_shift(case, name):
    M = case.M
    if (M.row_trace > 0).all():
        if name == "quadratic, given shift":
            assert eigvalsh(adjoint(M, M.shift) - np.diag(1 / M.row_trace)).min() >= -1e-14 / M.row_trace.min()
        else:
            np.testing.assert_allclose(adjoint(M, M.shift), np.diag(1 / M.row_trace), rtol=1e-14)
        assert np.isclose(M.b @ M.shift, M.n, rtol=1e-14)
    else:
        assert M.shift is None


@pytest.mark.parametrize("noise", [1e-12, 1e-3, 0.3])
@EVERY
def test_defect(case, name, noise):
    """Every row of an infeasible Y is within ``defect`` of the closed-form feasible point ``retract(Y, 0)``."""
    M = case.M
    Y = case.Y + noise * np.sqrt(np.where(M.row_trace > 0, M.row_trace, 1))[:, None] * case.vector()
    Z = M.retract(Y, np.zeros_like(Y))
    feasible(M, Z)
    moved = np.linalg.norm(Z - Y, axis=1)
    bound = M.defect(Y)
    if "redundant" in name:  # rounding makes such rows contradict each other: no point is feasible exactly
        assert bound.shape == (M.n,) and np.isinf(bound).all()
        return
    assert bound.shape == (M.n,) and np.all(moved <= bound * (1 + 1e-9) + 1e-14 * np.linalg.norm(Y, axis=1))
    assert np.all(bound <= 100 * M.n * noise * np.sqrt(np.maximum(M.row_trace, 1)) * np.linalg.norm(Y))


# invariances


@EVERY
def test_columns_may_be_rotated_and_padded(case, name):
    """``Y -> YQ`` and ``Y -> [Y 0]`` keep cost, multipliers, slack and gradient norm (theory, fact 26)."""
    M, Y, model = case.M, case.Y, case.model
    Q = np.linalg.qr(gaussian((case.k, case.k), case.dtype, case.rng))[0]
    scale = np.linalg.norm(case.C) * np.linalg.norm(Y) ** 2
    others = {"YQ": np.ascontiguousarray(Y @ Q), "[Y 0]": np.hstack([Y, np.zeros((M.n, 2), case.dtype)])}
    for Z in others.values():
        feasible(M, Z)
        other = case.problem.at(Z)
        assert np.isclose(other.cost, model.cost, rtol=0, atol=1e-13 * scale)
        np.testing.assert_allclose(other.mu, model.mu, atol=1e-12 * max(np.abs(model.mu).max(initial=0), scale))
        assert np.isclose(other.grad_norm, model.grad_norm, rtol=0, atol=1e-12 * scale)
    U = case.tangent()
    turned = case.problem.at(others["YQ"]).hess(np.ascontiguousarray(U @ Q))
    np.testing.assert_allclose(turned, model.hess(U) @ Q, atol=1e-11 * scale)


@pytest.mark.parametrize("c", [-3.0, 2.0**20])
@EVERY
def test_cost_may_be_scaled(case, name, c):
    """``C -> cC`` scales cost, multipliers, gradient and Hessian by c (theory, fact 28), exactly for a power of two."""
    other = Problem(c * case.C, case.M).at(case.Y)
    U = case.tangent()
    pairs = [
        (other.cost, case.model.cost),
        (other.mu, case.model.mu),
        (other.grad, case.model.grad),
        (other.hess(U), case.model.hess(U)),
        (other.dual_value, case.model.dual_value),
    ]
    for ours, theirs in pairs:
        if c > 0:
            assert np.array_equal(ours, c * np.asarray(theirs))
        else:
            np.testing.assert_allclose(ours, c * np.asarray(theirs), rtol=1e-12, atol=1e-12 * np.linalg.norm(c * case.C))
    if c > 0:
        assert other.problem.norm_C == c * case.problem.norm_C and other.grad_scale == c * case.model.grad_scale


@EVERY
def test_gauge(case, name):
    """``C -> DCD*``, ``Y -> DY`` with signs or phases D keeps the cost and the spectrum of S (theory, fact 28)."""
    M, D = case.M, case.vector()[:, 0]
    D /= np.abs(D)
    other = Problem(D[:, None] * case.C * D.conj(), turned(M, D)).at(D[:, None] * case.Y)
    feasible(other.problem.manifold, other.Y)
    scale = np.linalg.norm(case.C) * max(1.0, np.linalg.norm(case.Y) ** 2)
    assert np.isclose(other.cost, case.model.cost, rtol=0, atol=1e-13 * scale)
    assert np.isclose(other.dual_value, case.model.dual_value, rtol=0, atol=1e-13 * scale)
    spectra = [np.linalg.eigvalsh(m.slack_matrix()) for m in (other, case.model)]
    np.testing.assert_allclose(*spectra, atol=1e-12 * max(np.abs(spectra[0]).max(), 1))


@EVERY
def test_adding_a_constraint_to_the_cost(case, name):
    """``C -> C + A*(nu)`` shifts the cost by <b, nu> and changes neither S nor the derivatives (theory, fact 3)."""
    M, nu, U = case.M, case.dual(), case.tangent()
    A = adjoint(M, nu)
    other, model = Problem(case.C + A, M).at(case.Y), case.model
    scale = np.linalg.norm(case.C) + np.linalg.norm(A)
    trace = max(1.0, np.linalg.norm(case.Y) ** 2)
    assert np.isclose(other.cost, model.cost + M.b @ nu, rtol=0, atol=1e-13 * scale * trace)
    if "redundant" in name:  # the multipliers of least norm do not follow nu, the normal vector does
        ours, theirs = (M.adjoint_mul(mu, case.Y) for mu in (other.mu, model.mu + nu))
        np.testing.assert_allclose(ours, theirs, atol=1e-12 * scale * np.linalg.norm(case.Y))
    else:
        np.testing.assert_allclose(other.mu, model.mu + nu, atol=1e-12 * max(np.abs(model.mu).max(initial=0), scale))
    size = max(np.linalg.norm(model.slack_matrix()), scale)
    np.testing.assert_allclose(other.slack_matrix(), model.slack_matrix(), atol=1e-12 * size)
    np.testing.assert_allclose(other.grad, model.grad, atol=1e-12 * size * trace)
    np.testing.assert_allclose(other.hess(U), model.hess(U), atol=1e-12 * size)


# what a manifold refuses


def test_refusals():
    from bmsdp.manifolds import Oblique, Product, Sphere, StiefelProduct, Unconstrained

    for bad in ([1.0, 0.0], [1.0, -2.0], [np.nan], [np.inf, 1.0], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="squared radii must be finite and positive"):
            Oblique(bad)
    for n, trace in ((0, 1.0), (3, 0.0), (3, -1.0), (3, np.nan), (3, np.inf)):
        with pytest.raises(ValueError, match="finite positive trace; got"):
            Sphere(n, trace)
    for q, d in ((0, 2), (2, 0)):
        with pytest.raises(ValueError, match="at least one block"):
            StiefelProduct(q, d)
    with pytest.raises(ValueError, match="at least one row"):
        Unconstrained(0)
    with pytest.raises(ValueError, match="at least one manifold"):
        Product([])


def test_radii_are_copied():
    from bmsdp.manifolds import Oblique

    b = np.ones(3)
    M = Oblique(b)
    b[0] = 5
    assert M.b[0] == 1 and M.radius[0] == 1
