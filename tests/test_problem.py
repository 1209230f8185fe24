import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from bmsdp import operators
from bmsdp.linear_maps import as_linear_map
from bmsdp.manifolds import Oblique, Product, Sphere, StiefelProduct, Unconstrained
from bmsdp.manifolds.base import inner
from bmsdp.problem import LocalModel, Problem, Term

N, K = 8, 3
KINDS = pytest.mark.parametrize("dtype", [np.float64, np.complex128])


def gaussian(rng, shape, dtype):
    Y = rng.standard_normal(shape)
    return Y + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else Y


def hermitian(rng, dtype, n=N):
    A = gaussian(rng, (n, n), dtype)
    return A + A.conj().T


class Augmented(Term):
    """The augmented Lagrangian of ``A(X) = b``, or of ``A(X) >= b`` for floor = 0 (design, Terms)."""

    def __init__(self, A, b, nu, sigma, floor=-np.inf):
        self.A, self.b, self.nu, self.sigma, self.floor = A, b, nu, sigma, floor

    def _z(self, Y):
        z = self.nu - self.sigma * (self.A.apply(Y, Y) - self.b)
        return np.maximum(z, self.floor), z > self.floor

    def value(self, Y):
        return (np.sum(self._z(Y)[0] ** 2) - np.sum(self.nu**2)) / (2 * self.sigma)

    def half_grad(self, Y):
        return self.slack_mul(Y, Y)

    def half_hess(self, Y, U):
        active = self._z(Y)[1] * self.A.apply(Y, U)
        return self.slack_mul(Y, U) + 2 * self.sigma * self.A.adjoint_mul(active, Y)

    def slack_mul(self, Y, V):
        return -self.A.adjoint_mul(self._z(Y)[0], V)

    def dual_value(self, Y):
        return float(self.b @ self._z(Y)[0])

    def infeasibility(self, Y):
        return float(np.abs(self.A.apply(Y, Y) - self.b).max())


class Quartic(Term):
    """``sum |Y_ic|^4``: smooth in Y, no function of X, so without slack."""

    def value(self, Y):
        return float(np.sum(np.abs(Y) ** 4))

    def half_grad(self, Y):
        return 2 * np.abs(Y) ** 2 * Y

    def half_hess(self, Y, U):
        return 2 * np.abs(Y) ** 2 * U + 4 * (Y.conj() * U).real * Y


def terms(rng, dtype):
    A = as_linear_map([hermitian(rng, dtype) for _ in range(3)], N)
    equal = Augmented(A, rng.standard_normal(3), rng.standard_normal(3), 0.7)
    above = Augmented(A, rng.standard_normal(3), np.abs(rng.standard_normal(3)), 0.3, floor=0.0)
    return {"none": (), "equal": (equal,), "at least": (above,), "quartic": (Quartic(),), "all": (equal, above, Quartic())}


def derivatives(g, h):
    """First derivative at 0 by central differences of fourth order."""
    return (8 * (g(h) - g(-h)) - (g(2 * h) - g(-2 * h))) / (12 * h)


@KINDS
@pytest.mark.parametrize("name", ["none", "equal", "at least", "quartic", "all"])
def test_derivatives_with_terms(name, dtype, rng):
    C, some = hermitian(rng, dtype), terms(rng, dtype)[name]
    complex_ = dtype == np.complex128
    for manifold in (Oblique(rng.random(N) + 0.5), Sphere(N, 4.0), StiefelProduct(4, 2, complex_), Unconstrained(N)):
        problem = Problem(C, manifold, some)
        Y = manifold.random_point(K, rng, dtype)
        model = problem.at(Y)
        assert np.isclose(model.cost, inner(C @ Y, Y)) and np.isclose(model.merit, model.cost + sum(t.value(Y) for t in some))
        U = manifold.project(Y, gaussian(rng, Y.shape, dtype)) + model.grad / model.grad_norm
        U *= 0.1 / np.linalg.norm(U)

        def along(t, problem=problem, Y=Y, U=U):
            return problem.at(problem.manifold.retract(Y, t * U))

        slope = derivatives(lambda t: along(t).merit, 1e-2)
        assert abs(slope - inner(model.grad, U)) <= 1e-8 * model.grad_norm * np.linalg.norm(U)
        field = manifold.project(Y, derivatives(lambda t: along(t).grad, 1e-2))
        np.testing.assert_allclose(model.hess(U), field, atol=1e-7 * np.linalg.norm(field))


@KINDS
def test_dual_value_with_terms(dtype, rng):
    """The algebra of the augmented Lagrangian: ``cost - dual_value = <S, X> + <z, A(X) - b>``."""
    C, (term,) = hermitian(rng, dtype), terms(rng, dtype)["equal"]
    manifold = Oblique(np.ones(N))
    model = Problem(C, manifold, (term,)).at(manifold.random_point(K, rng, dtype))
    Y = model.Y
    z = term.nu - term.sigma * (term.A.apply(Y, Y) - term.b)
    S = C - np.diag(model.mu) - term.A.matrix(z)
    np.testing.assert_allclose(model.slack_mul(Y), S @ Y, atol=1e-10)
    np.testing.assert_allclose(model.grad, 2 * S @ Y, atol=1e-10)
    assert np.isclose(model.cost - model.dual_value, inner(S @ Y, Y) + z @ (term.A.apply(Y, Y) - term.b))
    assert model.slack_matrix() is None
    assert model.infeasibility == term.infeasibility(Y) > 0


def test_term_without_slack_has_no_certificate(rng):
    model = Problem(hermitian(rng, float), Oblique(np.ones(N)), [Quartic()]).at(
        np.eye(N, K) + np.eye(N, K, -3) + np.eye(N, K, -6)
    )
    assert model.infeasibility == 0 and model.slack_matrix() is None
    with pytest.raises(TypeError, match="no certificate"):
        model.slack_mul(model.Y)
    for method in ("value", "half_grad"):
        with pytest.raises(NotImplementedError):
            getattr(Term(), method)(model.Y)
    with pytest.raises(NotImplementedError):
        Term().half_hess(model.Y, model.Y)


@KINDS
def test_all_forms_of_the_cost_give_one_model(dtype, rng, monkeypatch):
    """Dense, sparse (fused kernel, one and two threads), operator and low rank: the same numbers."""
    monkeypatch.setattr(operators, "SMALL_PRODUCT", 0)
    C = hermitian(rng, dtype)
    costs = [C, sp.csr_array(C), spla.aslinearoperator(C), operators.LowRankPlusSparse(C, np.zeros((N, 1)))]
    for manifold in (Oblique(rng.random(N) + 0.5), Sphere(N, 2.0)):
        Y = manifold.random_point(K, rng, dtype)
        U = manifold.project(Y, gaussian(rng, Y.shape, dtype))
        reference = Problem(C, manifold).at(Y)
        for other in [Problem(D, manifold) for D in costs] + [Problem(costs[1], manifold, threads=2)]:
            model = other.at(Y)
            assert np.isclose(model.cost, reference.cost) and other.norm_C == reference.problem.norm_C
            np.testing.assert_allclose(model.mu, reference.mu, atol=1e-12)
            np.testing.assert_allclose(model.grad, reference.grad, atol=1e-12)
            np.testing.assert_allclose(model.hess(U), reference.hess(U), atol=1e-12)
            np.testing.assert_allclose(model.slack_mul(U), reference.slack_mul(U), atol=1e-12)
    assert Problem(costs[2], manifold).at(Y).slack_matrix() is None


def test_one_product_gives_all_of_first_order(rng):
    calls = []

    class Counting(operators.DenseOperator):
        def mul(self, Y):
            calls.append(Y.shape)
            return super().mul(Y)

    problem = Problem(Counting(hermitian(rng, float)), Oblique(np.ones(N)), norm_C=4.0)
    model = problem.at(problem.random_point(K, rng))
    assert calls == []
    model.cost, model.mu, model.grad, model.grad_norm, model.merit, model.dual_value, model.grad_scale, model.trace
    assert calls == [(N, K)]
    model.hess(model.grad)
    assert len(calls) == 2 and problem.norm_C == 4


def test_scales(rng):
    C = hermitian(rng, float)
    manifold = Oblique(np.full(N, 2.0))
    problem = Problem(C, manifold)
    model = problem.at(problem.random_point(K, rng))
    assert np.isclose(model.trace, 2 * N)
    assert np.isclose(model.grad_scale, 2 * problem.norm_C * np.sqrt(2 * N))
    assert np.isclose(model.cost_scale, 1.5e-8 * problem.norm_C * 2 * N)
    assert Problem(C, manifold, cost_scale=3.0).at(model.Y).cost_scale == 3
    assert np.linalg.norm(C, 2) * 0.9 <= problem.norm_C <= 2 * np.linalg.norm(C, 2) * 1.001


def test_model_borrows_and_copies(rng):
    problem = Problem(hermitian(rng, float), Oblique(np.ones(N)))
    Y = problem.random_point(K, rng)
    model = problem.at(Y)
    assert isinstance(model, LocalModel) and model.Y is Y
    kept = model.copy()
    cost = model.cost
    Y[0] *= -1
    assert kept.Y is not Y and np.isclose(kept.cost, cost) and kept.problem is problem
    assert not np.isclose(problem.at(Y).cost, cost)


def test_models_have_no_setters(rng):
    problem = Problem(hermitian(rng, float), Oblique(np.ones(N)))
    model = problem.at(problem.random_point(K, rng))
    for name in ("cost", "mu", "grad", "grad_scale", "dual_value"):
        with pytest.raises(AttributeError):
            setattr(model, name, 0)


def test_blocks_threads_and_dtype(rng):
    C = operators.as_operator(hermitian(rng, complex))
    problem = Problem(C, Oblique(np.ones(N)), threads=2)
    assert problem.blocks == [slice(0, N)] and problem.n == N and problem.dtype == np.complex128
    assert problem.C.threads == 2 and C.threads == 1, "the caller's operator is not touched"
    blocks = [slice(0, 3), slice(3, N)]
    assert Problem(C, Oblique(np.ones(N)), blocks=blocks).blocks == blocks
    assert problem.random_point(2, rng).dtype == np.complex128


def test_refusals(rng):
    with pytest.raises(ValueError, match="C is 3 x 3 but the manifold has 4 rows"):
        Problem(np.eye(3), Oblique(np.ones(4)))
    with pytest.raises(ValueError, match="not symmetric"):
        Problem(np.triu(np.ones((3, 3))), Oblique(np.ones(3)))


@pytest.mark.parametrize(("dtype", "is_complex"), [(complex, False), (float, True)])
@pytest.mark.parametrize("wrap", [lambda M: M, lambda M: Product([M, Sphere(2)])])
def test_stiefel_blocks_of_the_other_field_are_refused(wrap, dtype, is_complex, rng):
    """Real blocks have d(d+1)/2 constraints, complex ones d^2: the two cannot be mixed silently."""
    manifold = wrap(StiefelProduct(2, 2, is_complex))
    with pytest.raises(ValueError, match="complex"):
        problem = Problem(hermitian(rng, dtype, manifold.n), manifold)
        problem.at(problem.random_point(3, rng)).grad


def test_zero_cost_and_one_row(rng):
    model = Problem(np.zeros((N, N)), Oblique(np.ones(N))).at(np.eye(N))
    assert model.cost == 0 == model.grad_norm == model.problem.norm_C == model.grad_scale == model.cost_scale
    model = Problem(sp.csr_array([[-2.0]]), Oblique([4.0])).at(np.array([[2.0]]))
    assert (model.cost, model.dual_value, model.grad_norm) == (-8, -8, 0) and model.slack_matrix().toarray() == [[0]]
