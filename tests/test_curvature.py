"""The smallest eigenvalue of the Hessian against dense linear algebra, and points that satisfy both orders of `minimize(eps_g, eps_H)`."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

import bmsdp
from bmsdp import Oblique, Problem, Result, Status, StiefelProduct, gallery, minimize
from bmsdp import curvature as module
from bmsdp import lanczos as lanczos_module
from bmsdp.curvature import Curvature, curvature, descent_along, escape_saddle
from bmsdp.manifolds.base import as_real, inner
from bmsdp.solvers import LBFGS, GradientDescent, Mixing, TrustRegion

from .laws.registry import REGISTRY

SOLVERS = pytest.mark.parametrize("solver", [TrustRegion(), LBFGS(), Mixing(), GradientDescent()], ids=lambda s: type(s).__name__)


def unit(C):
    return Problem(C, Oblique(np.ones(C.shape[0])))


def hermitian(rng, n, dtype):
    C = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if dtype == np.complex128 else 0)
    return (C + C.conj().T) / 2


def real_matrix(linear, shape, dtype):
    """The matrix of a real-linear map of factors, over the reals."""
    size = np.prod(shape) * (2 if np.dtype(dtype).kind == "c" else 1)
    columns = []
    for e in np.eye(size):
        U = np.ascontiguousarray(e).view(dtype).reshape(shape)
        columns.append(as_real(np.ascontiguousarray(linear(U))).ravel())
    return np.array(columns).T


def spectrum(model):
    """Eigenvalues of the Hessian on the tangent space."""
    problem, Y = model.problem, model.Y
    P = real_matrix(lambda U: problem.manifold.project(Y, U), Y.shape, Y.dtype)
    values, V = np.linalg.eigh((P + P.T) / 2)
    assert np.all((np.abs(values) < 1e-8) | (np.abs(values - 1) < 1e-8)), "a projector"
    T = V[:, values > 0.5]
    H = real_matrix(lambda U: model.hess(problem.manifold.project(Y, U)), Y.shape, Y.dtype)
    reduced = T.T @ H @ T
    np.testing.assert_allclose(reduced, reduced.T, atol=1e-9 * (1 + np.abs(reduced).max()))
    return np.linalg.eigvalsh(reduced)


def check(model, eps_H, tol=1e-7, **keywords):
    """Everything that a `Curvature` claims; returns it with the exact smallest eigenvalue."""
    values = spectrum(model)
    lowest, size = (float(values[0]), max(float(np.abs(values).max()), model.problem.norm_C)) if values.size else (0.0, 1.0)
    found = curvature(model, eps_H, **keywords)
    U = found.vector
    assert isinstance(found, Curvature) and found.rigor in ("probabilistic", "estimate") and found.products >= 1
    assert U.shape == model.Y.shape and U.dtype == model.Y.dtype
    assert found.lower <= 0 and found.lower <= lowest + 1e-10 * size
    if lowest < -1e-6 * size:
        assert np.linalg.norm(U) == pytest.approx(1)
        np.testing.assert_allclose(model.problem.manifold.project(model.Y, U), U, atol=1e-10)
        assert inner(U, model.hess(U)) == pytest.approx(found.value, abs=1e-10 * size)
        assert lowest - 1e-12 * size <= found.value <= lowest + tol * size
    else:
        assert found.value >= lowest - 1e-10 * size
    return found, lowest


@pytest.mark.parametrize("name", REGISTRY)
def test_smallest_eigenvalue_at_random_points(name):
    """On every manifold, real and complex: the Hessian is linear over the reals only."""
    manifold, dtype, k = REGISTRY[name]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        problem = Problem(hermitian(rng, manifold.n, dtype), manifold)
        model = problem.at(problem.random_point(k, rng))
        found, lowest = check(model, 1e-9, rng=seed)
        assert (found.value < -1e-9) == (lowest < -1e-9) or abs(lowest) < 1e-8


def test_the_hessian_is_not_complex_linear():
    """What the test above would miss were it so: a complex Lanczos finds another number."""
    rng = np.random.default_rng(0)
    problem = unit(hermitian(rng, 6, np.complex128))
    model = problem.at(problem.random_point(2, rng))
    U = problem.manifold.project(model.Y, problem.random_point(2, rng))
    P = problem.manifold.project(model.Y, 1j * U)
    assert np.linalg.norm(model.hess(P) - 1j * model.hess(U)) > 0.1 * np.linalg.norm(model.hess(U))


@pytest.mark.parametrize(
    "name", ["oblique", "oblique, complex", "oblique, radii", "sphere", "stiefel d=2", "stiefel d=2, complex", "product"]
)
def test_smallest_eigenvalue_at_critical_points(name):
    """Zero modes (rotations) included: never reported as negative, always covered by ``lower``."""
    manifold, dtype, k = REGISTRY[name]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        problem = Problem(hermitian(rng, manifold.n, dtype), manifold)
        Y = minimize(problem, TrustRegion(), rank=k, tol=1e-11, rng=seed).Y
        model = problem.at(Y)
        found, lowest = check(model, 1e-6, rng=seed)
        assert lowest >= -1e-6 and found.value >= -1e-6 and found.lower >= -1e-6 and found.rigor == "probabilistic"


def test_gauge_modes():
    """Fact 27: at a full-rank second-order point k (k - 1) / 2 zero modes, k^2 in the complex case."""
    for complex_, k, zeros in ((False, 2, 1), (False, 3, 3), (True, 1, 1), (True, 2, 4)):
        C = hermitian(np.random.default_rng(1), 10, np.complex128 if complex_ else float)
        values = spectrum(unit(C).at(minimize(unit(C), TrustRegion(), rank=k, tol=1e-12, rng=0).Y))
        assert np.sum(np.abs(values) < 1e-7) >= zeros


@pytest.mark.parametrize("n", range(5, 13))
def test_n_gons(n):
    """Fact 8: the smallest eigenvalue is -0.05 at t = 0.95 tau0, and 0, the rotation, at 1.05."""
    for t in (0.95, 1.05):
        C, V, _ = gallery.n_gon(n, t)
        model = unit(C).at(V)
        found, lowest = check(model, 1e-6, rng=0)
        assert lowest == pytest.approx(min(0, t - 1), abs=1e-12) and found.value == pytest.approx(min(0, t - 1), abs=1e-10)
        assert np.sum(np.abs(spectrum(model)) < 1e-10) == 1
        assert found.lower >= -1e-6 if t > 1 else found.lower <= -0.05 + 1e-10


def test_scales():
    """C -> 2^20 C and eps_H with it: the same direction, the same decision."""
    C = gallery.goe(8, 0)
    Y = unit(C).random_point(2, np.random.default_rng(0))
    one, two = (curvature(unit(s * C).at(Y), s * 1e-3, rng=0) for s in (1.0, 2.0**20))
    assert two.value == 2.0**20 * one.value and np.array_equal(one.vector, two.vector) and one.products == two.products


def test_the_decision_is_enough():
    """It ends where curvature below -eps_H was met, or is excluded: fewer products for an easier question."""
    C = gallery.goe(150, 0)
    problem = unit(C)
    model = problem.at(problem.random_point(3, np.random.default_rng(0)))
    easy, exact = curvature(model, 1.0, rng=0), check(model, 1e9, rng=0)[0]
    assert easy.value < -1.0 and easy.products <= 65 and exact.value >= -1e9 and exact.products <= 65
    Y = minimize(problem, TrustRegion(), rank=20, tol=1e-11, rng=0).Y
    loose, tight = (curvature(problem.at(Y), eps, rng=0) for eps in (100.0, 1e-3))
    assert loose.products < tight.products and min(loose.lower, tight.lower) >= -100
    short = curvature(problem.at(Y), 1e-9, rng=0, max_steps=70)
    assert short.products <= 71 and short.lower <= short.value
    stopped = curvature(problem.at(Y), 1e-9, rng=0, stop=lambda: True)
    assert stopped.products <= 80


def test_seeds():
    problem = unit(gallery.goe(60, 0))
    model = problem.at(problem.random_point(3, np.random.default_rng(0)))
    one, again, other = (curvature(model, 1e-3, rng=seed) for seed in (1, 1, 2))
    assert one.value == again.value and np.array_equal(one.vector, again.vector) and not np.array_equal(one.vector, other.vector)


@pytest.mark.parametrize("complex_", [False, True])
def test_without_a_stored_basis(complex_, monkeypatch):
    """A basis that does not fit: the direction comes from the same recurrence run again, as good as the stored one."""
    C = gallery.gue(80, 0) if complex_ else gallery.goe(80, 0)
    problem = unit(C)
    model = problem.at(problem.random_point(3, np.random.default_rng(0)))
    stored = curvature(model, 1e-3, rng=0)
    for target in (lanczos_module, module):
        monkeypatch.setattr(target, "BASIS_LIMIT", 0)
    again, _ = check(model, 1e-3, tol=0.05, rng=0)
    assert again.value == pytest.approx(stored.value, rel=1e-6)
    assert abs(inner(again.vector, stored.vector)) == pytest.approx(1, abs=1e-4)


def test_escape():
    """Downhill along the direction, whatever its sign; None where nothing falls."""
    C, V, _ = gallery.n_gon(7, 0.8)
    model = unit(C).at(V)
    found = curvature(model, 1e-3, rng=0)
    for sign in (1, -1):
        lower, products = escape_saddle(model, dataclasses.replace(found, vector=sign * found.vector))
        assert lower.merit < model.merit - 1e-3 and 1 <= products <= 50
        np.testing.assert_allclose(np.sum(lower.Y**2, axis=1), 1, atol=1e-14)
    slope = unit(C).at(unit(C).random_point(2, np.random.default_rng(0)))
    uphill = slope.grad / slope.grad_norm
    trials = [escape_saddle(slope, dataclasses.replace(found, vector=sign * uphill))[0].Y for sign in (1, -1)]
    assert np.array_equal(*trials), "downhill"
    bottom = unit(C).at(np.ones((7, 2)) / np.sqrt(2))
    trial, products = escape_saddle(bottom, found)
    assert (trial is None and products == 50) or bottom.merit - 1e-14 <= trial.merit < bottom.merit
    trial, _ = descent_along(unit(C), V, np.zeros_like(V), model.merit)
    assert trial is None


# minimize(eps_g, eps_H)


def check_second_order(problem, result, eps_g, eps_H):
    """The claims of a result, checked by dense linear algebra."""
    facts, model = result.second_order, problem.at(result.Y)
    lowest = spectrum(model)[0]
    assert facts.keys() == {"grad_norm", "eps_g", "hess_min", "hess_min_lower", "eps_H", "rigor", "escapes"}
    assert facts["eps_g"] == eps_g and facts["eps_H"] == eps_H and facts["grad_norm"] == pytest.approx(model.grad_norm, abs=1e-13)
    assert facts["hess_min_lower"] <= lowest + 1e-9 * problem.norm_C
    if result.status is Status.LOCALLY_OPTIMAL:
        assert model.grad_norm <= eps_g and lowest >= -eps_H - 1e-10 * problem.norm_C
        assert facts["hess_min"] >= -eps_H and facts["hess_min_lower"] >= -eps_H
        assert result.message.startswith("second-order point: |grad| = ") and facts["rigor"] in result.message
    return lowest


@SOLVERS
def test_strict_saddles_are_left(solver):
    """Every sign vector is critical: rank one in k columns, gradient exactly 0.  Only curvature tells it from an optimum."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        problem = unit(gallery.goe(12, seed))
        Y = np.zeros((12, 6))
        Y[:, 0] = rng.choice([-1.0, 1.0], 12)
        stuck = minimize(problem, solver, Y, tol=1e-9, rng=seed)
        assert stuck.status is Status.LOCALLY_OPTIMAL and np.array_equal(stuck.Y, Y) and stuck.second_order is None
        eps_g, eps_H = 1e-5, 1e-4
        result = minimize(problem, solver, Y, eps_g=eps_g, eps_H=eps_H, rng=seed)
        assert result.status is Status.LOCALLY_OPTIMAL and result.second_order["escapes"] >= 1 and result.cost < stuck.cost - 0.1
        check_second_order(problem, result, eps_g, eps_H)
        best = bmsdp.solve(problem, tol=1e-8, rng=0)
        assert result.cost == pytest.approx(best.cost, rel=1e-5)  # k (k + 1) / 2 > n
        assert result.products > stuck.products and result.options["eps_g"] == eps_g and result.options["eps_H"] == eps_H


def test_complex_and_other_saddles():
    """Phases instead of signs; identical blocks; the axial point with null columns."""
    rng = np.random.default_rng(0)
    phases = np.zeros((9, 4), complex)
    phases[:, 0] = np.exp(2j * np.pi * np.round(8 * rng.random(9)) / 8)
    real_cost = gallery.goe(9, 1).astype(complex)
    signs = np.zeros((9, 4), complex)
    signs[:, 0] = rng.choice([-1, 1], 9)
    blocks = np.tile(np.eye(2, 5), (4, 1))
    C, Y, optimum = gallery.ocarroll(4)
    same = -np.kron(np.ones((4, 4)) - np.eye(4), np.eye(2))
    cases = [
        (unit(real_cost), signs, None),
        (Problem(-same, StiefelProduct(4, 2)), blocks, None),
        (unit(C), np.hstack([Y, np.zeros((8, 1))]), optimum),
        (unit(gallery.complex_triangle(2.0)[0]), np.hstack([gallery.complex_triangle(2.0)[1], np.zeros((3, 1))]), -3.0),
    ]
    for problem, start, best in cases:
        start = np.ascontiguousarray(start, problem.dtype)
        assert problem.at(start).grad_norm <= 1e-12
        result = minimize(problem, TrustRegion(), start, eps_g=1e-7, eps_H=1e-5, rng=0)
        best = bmsdp.solve(problem, tol=1e-9, rng=0).cost if best is None else best
        assert result.status is Status.LOCALLY_OPTIMAL and result.second_order["escapes"] >= 1
        assert result.cost == pytest.approx(best, abs=1e-5 * problem.n)
        check_second_order(problem, result, 1e-7, 1e-5)


@pytest.mark.parametrize("n", [5, 8, 12])
def test_n_gons_with_too_little_t_are_left(n):
    C, V, optimum = gallery.n_gon(n, 0.9)
    result = minimize(unit(C), TrustRegion(), V, eps_g=1e-8, eps_H=1e-3, rng=0)
    assert result.second_order["escapes"] >= 1 and result.cost == pytest.approx(optimum, abs=1e-8)
    just = minimize(unit(C), TrustRegion(), V, eps_g=1e-8, eps_H=0.09, rng=0)
    assert just.second_order["escapes"] >= 1 and just.cost == pytest.approx(optimum, abs=1e-8)
    lax = minimize(unit(C), TrustRegion(), V, eps_g=1e-8, eps_H=0.11, rng=0)  # curvature -0.1: allowed
    assert lax.second_order["escapes"] == 0 and lax.cost == pytest.approx(0, abs=1e-12)
    assert lax.second_order["hess_min_lower"] >= -0.11


@SOLVERS
def test_true_second_order_points_are_kept(solver):
    """Spurious or not, they satisfy both conditions: no step is taken and no optimality claimed."""
    for C, V in ((gallery.n_gon(7, 1.5)[:2]), gallery.complex_triangle(2.0)[:2], gallery.waldspurger_waters(10, 3, 0)[:2]):
        problem = unit(C)
        V = np.ascontiguousarray(V, problem.dtype)
        result = minimize(problem, solver, V, eps_g=1e-7, eps_H=1e-4, rng=0)
        assert result.status is Status.LOCALLY_OPTIMAL and not result.success and result.bound == -np.inf
        assert result.second_order["escapes"] == 0 and result.second_order["rigor"] == "probabilistic"
        np.testing.assert_allclose(result.Y, V, atol=1e-9)
        check_second_order(problem, result, 1e-7, 1e-4)


@pytest.mark.parametrize("n", [5, 7, 12])
def test_what_floating_point_cannot_resolve_is_not_claimed(n):
    """At a point with zero modes a curvature of -1e-18 can be neither found nor excluded, whatever the start of Lanczos."""
    C, V, _ = gallery.n_gon(n, 1.5)
    for seed in range(20):
        result = minimize(unit(C), TrustRegion(), V, eps_g=1e-7, eps_H=1e-18, rng=seed)
        assert result.status is Status.STALLED and result.second_order["hess_min_lower"] < -1e-18, seed
        assert result.message == Status.STALLED.value


def test_what_lanczos_cannot_resolve_is_not_claimed():
    problem = unit(gallery.goe(150, 0))
    hard = minimize(problem, TrustRegion(), rank=20, eps_g=1e-6, eps_H=1e-13, rng=0)
    assert hard.status is Status.STALLED and hard.second_order["hess_min_lower"] < -1e-13
    assert hard.message == Status.STALLED.value


def test_eps_g_stands_in_for_tol():
    problem = unit(gallery.goe(20, 0))
    for eps_g in (1e-1, 1e-4, 1e-7):
        result = minimize(problem, LBFGS(), rank=6, tol=0.5, eps_g=eps_g, rng=0)
        assert result.status is Status.LOCALLY_OPTIMAL and problem.at(result.Y).grad_norm <= eps_g and result.second_order is None
    by_tol = minimize(problem, LBFGS(), rank=6, tol=1e-4, eps_H=1e-2, rng=0)
    model = problem.at(by_tol.Y)
    assert by_tol.second_order["eps_g"] == pytest.approx(1e-4 * model.grad_scale) and model.grad_norm <= by_tol.second_order["eps_g"]


def test_units():
    """C -> 2^20 C with both eps scaled: bit-identical points."""
    C = gallery.goe(12, 3)
    Y = np.zeros((12, 3))
    Y[:, 0] = 1
    one, two = (minimize(unit(s * C), TrustRegion(), Y, eps_g=s * 1e-6, eps_H=s * 1e-4, rng=5) for s in (1.0, 2.0**20))
    assert np.array_equal(one.Y, two.Y) and two.second_order["hess_min"] == 2.0**20 * one.second_order["hess_min"]
    assert one.second_order["escapes"] == two.second_order["escapes"] >= 1


def test_limits():
    problem = unit(gallery.goe(20, 0))
    Y = np.zeros((20, 6))
    Y[:, 0] = 1
    few = minimize(problem, GradientDescent(), Y, eps_g=1e-9, eps_H=1e-3, max_iter=5, rng=0)
    assert few.status is Status.MAX_ITER and few.nit <= 5 and few.second_order is not None
    none = minimize(problem, GradientDescent(), Y, eps_g=1e-9, eps_H=1e-3, max_time=0.0, rng=0)
    assert none.status is Status.MAX_TIME

    def stop(model, info):
        raise StopIteration

    assert minimize(problem, TrustRegion(), Y, eps_H=1e-3, callback=stop, rng=0).status is Status.INTERRUPTED
    again, other = (minimize(problem, TrustRegion(), Y, eps_g=1e-6, eps_H=1e-3, rng=7) for _ in range(2))
    assert np.array_equal(again.Y, other.Y) and again.second_order == other.second_order
    history = again.history
    assert np.all(np.diff(history["products"]) >= 0) and np.all(np.diff(history["nit"]) >= 0) and np.all(np.diff(history["time"]) >= 0)
    assert again.products >= history["products"][-1] and np.all(np.diff(history["merit"]) <= 1e-9)


@pytest.mark.parametrize("eps", [0, 0.0, -1e-3, np.nan, np.inf])
@pytest.mark.parametrize("name", ["eps_g", "eps_H"])
def test_bad_eps(name, eps):
    with pytest.raises(ValueError, match=f"{name} = {eps}; a positive finite number is needed, in the units of the"):
        minimize(unit(gallery.goe(4, 0)), TrustRegion(), rank=2, **{name: eps})


def test_saved_and_loaded(tmp_path):
    C, V, _ = gallery.n_gon(6, 0.8)
    for result in (
        minimize(unit(C), TrustRegion(), V, eps_g=1e-8, eps_H=1e-3, rng=0),
        minimize(unit(C), TrustRegion(), V, rng=0),
        bmsdp.solve(gallery.n_gon(6, 2.0)[0], warm_start=V, rank=2, rng=0),
    ):
        result.save(tmp_path / "run.npz")
        loaded = Result.load(tmp_path / "run.npz")
        assert loaded.second_order == result.second_order and loaded.status is result.status and loaded.message == result.message
    assert result.second_order is not None


# the kept rank of the staircase


@pytest.mark.parametrize("sparse", [False, True])
def test_a_kept_rank_leaves_saddles(sparse):
    """solve(rank=k) from a sign vector ends at a second-order point: certified, or known to be spurious."""
    for seed in range(5):
        C = gallery.goe(12, seed)
        C = sp.csr_array(C * (np.abs(C) > 0.7)) if sparse else C
        Y = np.zeros((12, 6))
        Y[:, 0] = np.random.default_rng(seed).choice([-1.0, 1.0], 12)
        result = bmsdp.solve(C, rank=6, warm_start=Y, rng=seed)
        assert result.status is Status.CERTIFIED and result.rank == 6
        low = bmsdp.solve(C, rank=2, warm_start=Y[:, :2], rng=seed)
        assert low.status in (Status.CERTIFIED, Status.RANK_TOO_SMALL) and low.cost >= result.bound
        if low.status is Status.RANK_TOO_SMALL:
            facts = low.second_order
            assert facts["hess_min_lower"] >= -facts["eps_H"] and spectrum(unit(C).at(low.Y))[0] >= -facts["eps_H"] - 1e-9


def test_a_spurious_point_of_a_kept_rank_says_so():
    C, V, _ = gallery.n_gon(9, 1.5)
    result = bmsdp.solve(C, rank=2, warm_start=V, rng=0)
    assert result.status is Status.RANK_TOO_SMALL and result.second_order["escapes"] == 0
    assert result.second_order["hess_min"] == pytest.approx(0, abs=1e-9) and result.cost == pytest.approx(0, abs=1e-9)
    assert bmsdp.solve(C, rank=3, warm_start=V, rng=0).status is Status.CERTIFIED
    assert bmsdp.solve(C, warm_start=V, rng=0).status is Status.CERTIFIED
