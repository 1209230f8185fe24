"""Our problems under every pymanopt optimizer, and our manifolds as pymanopt manifolds."""

import numpy as np
import pymanopt
import pytest
from pymanopt.optimizers import ConjugateGradient, NelderMead, ParticleSwarm, SteepestDescent, TrustRegions

import bmsdp
from bmsdp.interfaces.pymanopt import to_pymanopt, wrap_manifold
from bmsdp.linear_maps import as_linear_map
from bmsdp.manifolds import Oblique, Product, Quadratic, Sphere, StiefelProduct
from bmsdp.manifolds.base import inner
from bmsdp.problem import Problem

R, C = np.float64, np.complex128
TRIANGLE = np.ones((3, 3)) - np.eye(3)  # optimum -3: three vectors at 120 degrees


def gaussian(shape, dtype, rng):
    Y = rng.standard_normal(shape)
    return Y + 1j * rng.standard_normal(shape) if dtype is C else Y


def hermitian(n, dtype, rng):
    B = gaussian((n, n), dtype, rng)
    return (B + B.conj().T) / 2


def quadratic(n, dtype, redundant=False):
    rng = np.random.default_rng(4)
    rows = [np.eye(n), *(hermitian(n, dtype, rng) / n for _ in range(2))]
    rows += [rows[1]] if redundant else []
    A, Y = as_linear_map(rows, n), gaussian((n, 3), dtype, rng)
    Y /= np.linalg.norm(Y)
    return Quadratic(A, A.apply(Y, Y))


MANIFOLDS = {
    "oblique": (Oblique([1.0, 2.0, 1.0, 1.0, 0.5, 1.0]), R, 4, 6 * 3),
    "oblique, complex": (Oblique(np.ones(5)), C, 3, 5 * 5),
    "stiefel": (StiefelProduct(3, 2), R, 4, 3 * (8 - 3)),
    "stiefel, complex": (StiefelProduct(2, 2, True), C, 4, 2 * (16 - 4)),
    "product": (Product([Sphere(4, 2.0), Sphere(1), StiefelProduct(1, 2)]), R, 3, 11 + 2 + 3),
    "quadratic": (quadratic(6, R), R, 3, 18 - 3),
    "quadratic, complex": (quadratic(5, C), C, 3, 30 - 3),
}
EVERY = pytest.mark.parametrize("name", MANIFOLDS)


def problem_on(name):
    M, dtype, k, _ = MANIFOLDS[name]
    return Problem(hermitian(M.n, dtype, np.random.default_rng(7)), M), k


@pytest.mark.parametrize(
    "optimizer", [SteepestDescent(max_iterations=3000), ConjugateGradient(), TrustRegions()], ids=lambda o: type(o).__name__
)
@EVERY
def test_optimizers_with_gradients_reach_the_optimum(name, optimizer):
    problem, k = problem_on(name)
    optimizer._verbosity, optimizer._min_gradient_norm = 0, 1e-6
    result = optimizer.run(to_pymanopt(problem, rank=k, rng=3))
    model = problem.at(result.point)
    assert result.cost == model.cost and model.grad_norm <= 1e-5  # line searches by the cost see no further
    proof = bmsdp.certify(model, 1e-6, rng=0)
    assert proof.bound <= result.cost and proof.gap <= 1e-6 and proof.rigor == "verified"


@pytest.mark.parametrize("dtype", [R, C], ids=["real", "complex"])
@pytest.mark.parametrize(
    "optimizer", [NelderMead(max_iterations=60), ParticleSwarm(max_iterations=60)], ids=["NelderMead", "ParticleSwarm"]
)
def test_optimizers_without_gradients_come_near(optimizer, dtype):
    np.random.seed(1)  # noqa: NPY002 (pymanopt draws from the global generator)
    optimizer._verbosity = 0
    ours = to_pymanopt(Problem(TRIANGLE.astype(dtype), Oblique(np.ones(3))), rank=2, rng=2)
    starts = [ours.cost(ours.manifold.random_point()) for _ in range(20)]
    result = optimizer.run(ours)
    np.testing.assert_allclose(np.linalg.norm(result.point, axis=1), 1, rtol=1e-14)
    assert -3 - 1e-12 <= result.cost <= -2.9 < np.mean(starts)


@EVERY
def test_the_functions_are_those_of_the_model(name):
    problem, k = problem_on(name)
    theirs = to_pymanopt(problem, rank=k, rng=0)
    points = [theirs.manifold.random_point() for _ in range(2)]
    for Y in [*points, points[0]]:
        model, U = problem.at(Y), theirs.manifold.random_tangent_vector(Y)
        assert theirs.cost(Y) == model.merit
        np.testing.assert_array_equal(theirs.riemannian_gradient(Y), model.grad)
        np.testing.assert_array_equal(theirs.riemannian_hessian(Y, U), model.hess(U))
    Y = points[1]
    before = theirs.cost(Y)
    Y *= -1 + 0 * before  # a point changed in place is another point
    assert np.array_equal(theirs.riemannian_gradient(Y), problem.at(Y).grad)
    theirs.riemannian_gradient(Y)[:] = 0  # and what is returned may be written to
    assert theirs.riemannian_gradient(Y).any()


@EVERY
def test_the_manifold(name):
    M, dtype, k, dimension = MANIFOLDS[name]
    wrapped = wrap_manifold(M, k, dtype, rng=5)
    Y, Z = wrapped.random_point(), wrapped.random_point()
    U, V = wrapped.random_tangent_vector(Y), wrapped.random_tangent_vector(Y)
    assert wrapped.dim == dimension and Y.shape == (M.n, k) and Y.dtype == dtype
    assert np.array_equal(Y, wrap_manifold(M, k, dtype, rng=5).random_point()) and not np.array_equal(Y, Z)
    assert np.isclose(wrapped.norm(Y, U), 1) and wrapped.inner_product(Y, U, V) == inner(U, V)
    np.testing.assert_allclose(M.apply(Y, U), 0, atol=1e-13)
    np.testing.assert_allclose(wrapped.projection(Y, U), U, atol=1e-13)
    np.testing.assert_allclose(M.apply(Z, wrapped.transport(Y, Z, U)), 0, atol=1e-13)
    middle = wrapped.pair_mean(Y, wrapped.retraction(Y, 0.01 * U))
    np.testing.assert_allclose(M.apply(middle, middle), M.b, atol=1e-13)
    assert np.linalg.norm(middle - wrapped.retraction(Y, 0.005 * U)) <= 1e-3 and not wrapped.zero_vector(Y).any()
    # log(Y, Z) is minus the gradient of half the squared distance to Z, as Nelder-Mead's centroids want it
    h = 1e-5
    slope = (wrapped.dist(wrapped.retraction(Y, h * V), Z) ** 2 - wrapped.dist(wrapped.retraction(Y, -h * V), Z) ** 2) / (4 * h)
    assert np.isclose(slope, -inner(wrapped.log(Y, Z), V), atol=1e-8)


def test_redundant_constraints_do_not_count():
    assert wrap_manifold(quadratic(6, R, redundant=True), 3).dim == wrap_manifold(quadratic(6, R), 3).dim == 15


@EVERY
def test_euclidean_derivatives_are_converted(name):
    """A cost of one's own with Euclidean derivatives: <C, YY*> again, so that ours are known."""
    problem, k = problem_on(name)
    matrix, wrapped = problem.C.matrix(), wrap_manifold(problem.manifold, k, problem.dtype, rng=1)

    @pymanopt.function.numpy(wrapped)
    def cost(Y):
        return inner(matrix @ Y, Y)

    @pymanopt.function.numpy(wrapped)
    def gradient(Y):
        return 2 * matrix @ Y

    @pymanopt.function.numpy(wrapped)
    def hessian(Y, U):
        return 2 * matrix @ U

    own = pymanopt.Problem(wrapped, cost, euclidean_gradient=gradient, euclidean_hessian=hessian)
    Y = wrapped.random_point()
    U, model = wrapped.random_tangent_vector(Y), problem.at(Y)
    np.testing.assert_allclose(own.riemannian_gradient(Y), model.grad, atol=1e-12)
    np.testing.assert_allclose(own.riemannian_hessian(Y, U), model.hess(U), atol=1e-12)


def test_terms_are_part_of_the_cost():
    """A penalty X_01 = 0 on the triangle: the merit is what is minimised."""
    A = np.zeros((3, 3))
    A[0, 1] = A[1, 0] = 0.5
    problem = Problem(TRIANGLE, Oblique(np.ones(3)), [bmsdp.Penalty([A], [0.0], n=3)])
    result = TrustRegions(verbosity=0).run(to_pymanopt(problem, rank=2, rng=0))
    model = problem.at(result.point)
    assert result.cost == model.merit != model.cost and model.grad_norm <= 1e-6


def test_the_default_rank():
    problem = Problem(np.eye(50), Oblique(np.ones(50)))
    assert to_pymanopt(problem).manifold.random_point().shape == (50, bmsdp.staircase.start_rank(problem))
