"""Costs written with autograd.numpy: derivatives against central differences, optima known by hand, and no certificate."""

import autograd.numpy as anp
import numpy as np
import pytest

import bmsdp
from bmsdp.interfaces import autograd
from bmsdp.linear_maps import as_linear_map
from bmsdp.manifolds import Oblique, Product, Quadratic, Sphere, StiefelProduct, Unconstrained
from bmsdp.manifolds.base import inner
from bmsdp.problem import Problem
from bmsdp.solvers import LBFGS, GradientDescent, TrustRegion

R, C = np.float64, np.complex128
MUTANT = 1 + 1e-5
FIELD = pytest.mark.parametrize("dtype", [R, C], ids=["real", "complex"])


def gaussian(shape, dtype, rng):
    Y = rng.standard_normal(shape)
    return Y + 1j * rng.standard_normal(shape) if dtype is C else Y


def quadratic(n, dtype):
    rng = np.random.default_rng(4)
    B = gaussian((n, n), dtype, rng)
    A, Y = as_linear_map([np.eye(n), (B + B.conj().T) / n], n), gaussian((n, 3), dtype, rng)
    Y /= np.linalg.norm(Y)
    return Quadratic(A, A.apply(Y, Y))


MANIFOLDS = {
    "oblique": (Oblique([1.0, 2.0, 1.0, 0.5]), R, 3),
    "oblique, complex": (Oblique([1.0, 2.0, 1.0, 0.5]), C, 2),
    "sphere, complex": (Sphere(4, 2.0), C, 2),
    "stiefel": (StiefelProduct(2, 2), R, 3),
    "stiefel, complex": (StiefelProduct(2, 2, True), C, 3),
    "product": (Product([Sphere(3, 2.0), Oblique([1.0, 1.0])]), R, 3),
    "quadratic": (quadratic(5, R), R, 3),
    "quadratic, complex": (quadratic(4, C), C, 2),
    "unconstrained, complex": (Unconstrained(3), C, 2),
}


def wild(n, k, dtype):
    """Powers, exponentials, real parts, absolute values, a determinant: no function of YY*."""
    rng = np.random.default_rng([n, k])
    T, W = gaussian((n, k), dtype, rng), rng.standard_normal((n, n))

    def fun(Y):
        X = anp.dot(Y, anp.conj(Y.T))
        size = anp.abs(X + 2.0)
        spread = anp.linalg.slogdet(anp.eye(n) + X)[1]
        return anp.sum(W * size**1.5) + anp.sum(anp.exp(0.3 * anp.real(T * Y))) + anp.real(anp.sum(T * Y**3)) + spread

    return fun


class Case:
    def __init__(self, name):
        self.M, dtype, k = MANIFOLDS[name]
        rng = np.random.default_rng(list(name.encode()))
        self.problem = autograd.problem(wild(self.M.n, k, dtype), self.M, is_complex=dtype is C, rank=k)
        self.Y = self.M.random_point(k, rng, dtype)
        self.model = self.problem.at(self.Y)
        U = self.M.project(self.Y, gaussian(self.Y.shape, dtype, rng))
        self.U = 0.1 * U / np.linalg.norm(U) + 0.1 * self.model.grad / self.model.grad_norm

    def derivative(self, g, h=1e-2):
        """Along the retraction curve, by central differences of sixth order."""
        values = [g(self.problem.at(self.M.retract(self.Y, s * h * self.U))) for s in (-3, -2, -1, 1, 2, 3)]
        return sum(w * v for w, v in zip((-1, 9, -45, 45, -9, 1), values, strict=True)) / (60 * h)

    def gradient_error(self, factor=1.0):
        slope = self.derivative(lambda model: model.merit)
        return abs(slope - factor * inner(self.model.grad, self.U)) / (self.model.grad_norm * np.linalg.norm(self.U))

    def hessian_error(self, factor=1.0):
        expected = self.M.project(self.Y, self.derivative(lambda model: model.grad))
        return np.linalg.norm(factor * self.model.hess(self.U) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", MANIFOLDS)
def test_derivatives(name):
    case = Case(name)
    assert case.gradient_error() <= 1e-8 < case.gradient_error(MUTANT)
    assert case.hessian_error() <= 1e-8 < case.hessian_error(MUTANT)
    rng = np.random.default_rng(1)
    U, V = (case.M.project(case.Y, gaussian(case.Y.shape, case.Y.dtype.type, rng)) for _ in range(2))
    scale = np.linalg.norm(case.model.hess(U)) * np.linalg.norm(V)
    assert abs(inner(V, case.model.hess(U)) - inner(U, case.model.hess(V))) <= 1e-12 * scale


@pytest.mark.parametrize("name", ["oblique", "oblique, complex", "stiefel, complex"])
def test_a_linear_cost_in_x_is_what_it_is(name, rng):
    """``<C, YY*>`` through autograd, wholly or in part, against the Problem with C."""
    M, dtype, k = MANIFOLDS[name]
    B = gaussian((M.n, M.n), dtype, rng)
    B = B + B.conj().T
    direct, Y = Problem(B, M).at(M.random_point(k, rng, dtype)), None

    def part(share):
        return lambda Y: share * anp.real(anp.sum(anp.conj(Y) * anp.dot(B, Y)))

    Y, U = direct.Y, M.project(direct.Y, gaussian(direct.Y.shape, dtype, rng))
    for problem in (autograd.problem(part(1.0), M, is_complex=dtype is C), autograd.problem(part(0.25), M, 0.75 * B)):
        model = problem.at(Y)
        assert np.isclose(model.merit, direct.cost, rtol=1e-13) and problem.dtype == dtype
        np.testing.assert_allclose(model.grad, direct.grad, atol=1e-12)
        np.testing.assert_allclose(model.hess(U), direct.hess(U), atol=1e-12)
        assert np.linalg.norm(B, 2) / 2 <= problem.norm_C <= 2 * np.linalg.norm(B, 2)


# optima known by hand


@FIELD
@pytest.mark.parametrize("solver", [TrustRegion(), LBFGS(), GradientDescent()], ids=lambda s: type(s).__name__)
def test_nearest_points(solver, dtype, rng):
    """The nearest point to T is T with rows of length one, or the polar factor of each block."""
    T = gaussian((6, 3), dtype, rng)
    blocks = [np.linalg.svd(T[s : s + 2], full_matrices=False) for s in (0, 2, 4)]
    answers = {
        Oblique(np.ones(6)): T / np.linalg.norm(T, axis=1)[:, None],
        StiefelProduct(3, 2, dtype is C): np.concatenate([U @ Vh for U, _, Vh in blocks]),
    }
    for M, nearest in answers.items():
        problem = autograd.problem(lambda Y: anp.sum(anp.abs(Y - T) ** 2), M, is_complex=dtype is C, rank=3)
        result = bmsdp.minimize(problem, solver, rank=3, tol=1e-7, rng=0)
        assert result.status.name == "LOCALLY_OPTIMAL" and result.bound == -np.inf
        np.testing.assert_allclose(result.Y, nearest, atol=1e-6)
        assert np.isclose(result.history["merit"][-1], np.linalg.norm(nearest - T) ** 2, rtol=1e-9)


def potential(p):
    """Benedetto and Fickus' frame potential ``sum |<y_i, y_j>|^2p``."""
    return lambda Y: anp.sum(anp.abs(anp.dot(Y, anp.conj(Y.T))) ** (2 * p))


@pytest.mark.parametrize(
    ("n", "k", "p", "dtype", "least"),
    [
        (7, 3, 1, R, 49 / 3),  # tight frames: n^2 / k
        (7, 3, 1, C, 49 / 3),
        (6, 3, 2, R, 6 + 30 / 25),  # the six diagonals of the icosahedron
        (4, 2, 2, C, 4 + 12 / 9),  # a SIC: n^2 / binom(k + 1, 2)
    ],
)
def test_frame_potentials(n, k, p, dtype, least):
    problem = autograd.problem(potential(p), Oblique(np.ones(n)), is_complex=dtype is C)
    runs = [bmsdp.minimize(problem, TrustRegion(), rank=k, tol=1e-10, rng=seed) for seed in range(4)]
    assert all(run.status.name in ("LOCALLY_OPTIMAL", "STALLED") for run in runs)
    found = [problem.at(run.Y).merit for run in runs]
    assert np.isclose(min(found), least, rtol=1e-12) and min(found) >= least * (1 - 1e-14)


def test_a_linear_part_and_a_general_manifold(rng):
    """The minimum of ``x* C x + |x|_4^4`` at unit |x| on one more quadratic surface, against a fine scan of the curve."""
    rows, b = [np.eye(3), np.diag([1.0, 2.0, 4.0])], [1.0, 2.2]
    C = np.array([[0.0, 1, 2], [1, 0, -1], [2, -1, 0.5]])
    M = Quadratic(as_linear_map(rows, 3), b)
    problem = autograd.problem(lambda Y: anp.sum(Y**4), M, C, rank=1)
    found = [problem.at(bmsdp.minimize(problem, TrustRegion(), rank=1, tol=1e-9, rng=s).Y).merit for s in range(8)]
    z = np.linspace(0.2, 1.2, 200001)  # x3^2: then x2^2 = 1.2 - 3 x3^2 and x1^2 = 2 x3^2 - 0.2
    squares = np.stack([2 * z - 0.2, 1.2 - 3 * z, z])
    x = np.sqrt(squares[:, (squares >= 0).all(axis=0)])
    best = min(
        np.min(np.einsum("in,ij,jn->n", s[:, None] * x, C, s[:, None] * x) + (x**4).sum(axis=0))
        for s in np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]])
    )
    assert np.isclose(min(found), best, rtol=1e-6)


# what there is not


def test_no_certificate():
    problem = autograd.problem(potential(2), Oblique(np.ones(5)))
    model = problem.at(problem.random_point(3, np.random.default_rng(0)))
    found = bmsdp.certify(model)
    assert found.bound == -np.inf and found.gap == np.inf and found.rigor == "estimate"
    with pytest.raises(TypeError, match="AutogradCost does not act on X"):
        problem.terms[0].slack_mul(model.Y, model.Y)
    with pytest.raises(TypeError, match="AutogradCost does not act on X"):
        problem.terms[0].dual_value(model.Y)


def test_minimize_and_solve_say_that_there_is_no_bound():
    problem = autograd.problem(potential(1), Oblique(np.ones(7)), rank=3)
    runs = [
        bmsdp.minimize(problem, TrustRegion(), rank=3, rng=0),
        bmsdp.solve(problem, rank=3, rng=0),
        bmsdp.solve(problem, rank=3, rng=0, threads=2),
        bmsdp.solve(problem, rank=3, rng=0, certify=None),
    ]
    for run in runs:
        assert run.status.name == "LOCALLY_OPTIMAL" and run.bound == -np.inf and not run.success
        assert "AutogradCost is no function of X, so that there is no slack, no bound and no certificate" in run.message
        assert np.isclose(problem.at(run.Y).merit, 49 / 3, rtol=1e-10)


def test_costs_that_are_no_real_numbers():
    M, Y = Oblique(np.ones(3)), np.eye(3)
    with pytest.raises(TypeError, match="the cost returned an array of shape \\(3,\\); a real number is needed"):
        autograd.AutogradCost(lambda Y: anp.sum(Y, axis=1)).value(Y)
    with pytest.raises(TypeError, match="the cost returned a complex number; .* np.real"):
        autograd.problem(lambda Y: anp.sum(Y * Y), M, is_complex=True)
    target = np.ones((3, 2))
    with pytest.raises(ValueError, match="failed at a random point of shape \\(3, 3\\): .*; pass rank="):
        autograd.problem(lambda Y: anp.sum((Y - target) ** 2), M)
    assert autograd.problem(lambda Y: anp.sum((Y - target) ** 2), M, rank=2).norm_C == 1.0
    with pytest.raises(ValueError, match="no finite gradient"):
        autograd.problem(lambda Y: anp.sum(Y) * np.inf, M)


def test_scales():
    M = Oblique(np.ones(4))
    assert autograd.problem(lambda Y: 8 * anp.sum(Y[:, 0]), M).norm_C == 4.0  # |G / 2| / |Y| = 8 / 2
    assert autograd.problem(lambda Y: 3.0 + 0 * anp.sum(Y), M).norm_C == 1.0
    assert autograd.problem(potential(1), M, norm_C=7.0).norm_C == 7.0
    assert autograd.problem(potential(1), StiefelProduct(2, 2, True)).dtype == C


def test_each_tape_is_recorded_once():
    calls = []

    def fun(Y):
        calls.append(1)
        return anp.sum(Y**4)

    problem = autograd.problem(fun, Oblique(np.ones(3)), norm_C=1.0)
    model = problem.at(np.eye(3))
    model.merit, model.grad, model.grad_norm
    assert len(calls) == 1  # one forward pass for value and gradient
    for _ in range(5):
        model.hess(model.Y)
    assert len(calls) == 2  # and one through the gradient for all second-order products


def test_terms_may_be_used_alone():
    """Without what `factor` keeps, and beside others."""
    term, Y = autograd.AutogradCost(lambda Y: anp.sum(Y**3)), np.arange(6.0).reshape(3, 2)
    assert term.value(Y) == np.sum(Y**3)
    np.testing.assert_allclose(term.half_grad(Y), 1.5 * Y**2)
    np.testing.assert_allclose(term.half_hess(Y, Y), 3 * Y * Y)


def test_under_pymanopt():
    from pymanopt.optimizers import TrustRegions

    from bmsdp.interfaces.pymanopt import to_pymanopt

    problem = autograd.problem(potential(1), Oblique(np.ones(7)))
    result = TrustRegions(verbosity=0).run(to_pymanopt(problem, rank=3, rng=0))
    assert np.isclose(result.cost, 49 / 3, rtol=1e-10)
