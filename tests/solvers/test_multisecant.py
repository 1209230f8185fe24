"""Secant memories of the quasi-Newton solvers against dense formulas; their bookkeeping."""

import itertools
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from bmsdp import gallery
from bmsdp.manifolds import Oblique, Sphere, Unconstrained
from bmsdp.problem import Problem, Term
from bmsdp.solvers import LBFGS, Multisecant, lbfgs, multisecant

SOLVERS = pytest.mark.parametrize("solver", [LBFGS(), Multisecant(), Multisecant(flavour="frobenius")], ids=repr)


def symmetric_least_squares(A, D, theta, shrink):
    """``argmin_{H=H'} |HA - D|^2 + shrink/2 |H - theta I|^2``, by least squares over the entries of the upper triangle."""
    n, m = A.shape
    where = list(zip(*np.triu_indices(n), strict=True))
    columns = []
    for i, j in where:
        E = np.zeros((n, n))
        E[i, j] = E[j, i] = 1
        columns.append(np.concatenate([(E @ A).ravel(), np.sqrt(shrink / 2) * E.ravel()]))
    wanted = np.concatenate([D.ravel(), np.sqrt(shrink / 2) * theta * np.eye(n).ravel()])
    x = np.linalg.lstsq(np.array(columns).T, wanted, rcond=1e-12)[0]
    H = np.zeros((n, n))
    for (i, j), value in zip(where, x, strict=True):
        H[i, j] = H[j, i] = value
    return H


def weighted_twin(A, D, theta, reg):
    """The weighted flavour as a matrix, n x n; columns of A of any length."""
    length = np.linalg.norm(A, axis=0)
    A, D = A / length, D / length
    D = symmetric_least_squares(A, D, theta, reg * np.linalg.norm(A, 2) ** 2) @ A
    g, E = np.linalg.eigh((A.T @ D + D.T @ A) / 2)
    E, g = E[:, g > 1e-8 * max(g[-1], 0)], g[g > 1e-8 * max(g[-1], 0)]
    A, D = A @ E / np.sqrt(g), D @ E / np.sqrt(g)
    V = np.eye(len(A)) - A @ D.T
    return D @ D.T + theta * V.T @ V


def matrix(A, D, reg):
    """`block_bfgs` as a matrix, with theta = 1."""
    n = len(A)
    H = np.eye(n)
    for j in range(n):
        on_A, on_D, discarded = multisecant.block_bfgs(A.T @ A, A.T @ D, A[j], D[j], reg)
        H[:, j] += A @ on_A + D @ on_D
    return H, discarded


def unit(A, *others):
    length = np.linalg.norm(A, axis=0)
    return [M / length for M in (A, *others)]


@pytest.mark.parametrize("reg", [1e-10, 1e-3, 1.0])
@pytest.mark.parametrize("m", [1, 2, 5])
@pytest.mark.parametrize("noise", [0.0, 0.3, 3.0])
def test_block_bfgs_is_the_dense_formula(m, noise, reg):
    """Consistent pairs, pairs that disagree, and pairs of which some have negative curvature."""
    rng = np.random.default_rng(m)
    A = rng.standard_normal((8, m))
    D = np.geomspace(0.1, 10, 8)[:, None] * A + noise * rng.standard_normal((8, m))
    A, D = unit(A, D)
    H, _ = matrix(A, D, reg)
    scale = np.abs(H).max()
    np.testing.assert_allclose(H, weighted_twin(A, D, 1.0, reg), rtol=0, atol=1e-7 * scale if reg == 1e-10 else 1e-10 * scale)
    np.testing.assert_allclose(H, H.T, rtol=0, atol=1e-12 * scale)


def test_one_pair_is_bfgs_and_consistent_pairs_are_block_bfgs():
    rng = np.random.default_rng(0)
    for m in (1, 3):
        A = rng.standard_normal((7, m))
        D = np.diag(np.geomspace(0.2, 5, 7)) @ A
        V = np.eye(7) - A @ np.linalg.solve(A.T @ D, D.T)
        wanted = V.T @ V + D @ np.linalg.solve(A.T @ D, D.T)
        found, discarded = matrix(*unit(A, D), 0.0)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
        np.testing.assert_allclose(found @ A, D, atol=1e-11)
        assert discarded == 0


def test_independent_pairs_of_a_quadratic_give_its_inverse():
    A = np.random.default_rng(0).standard_normal((6, 6))
    C = np.diag(np.geomspace(1, 30, 6))
    found, _ = matrix(*unit(C @ A, A), 0.0)
    np.testing.assert_allclose(found, np.linalg.inv(C), atol=1e-10)


def test_always_positive_definite_and_says_what_it_left_out():
    rng = np.random.default_rng(0)
    left_out = 0
    for _ in range(200):
        A, D = rng.standard_normal((2, 9, 4))
        H, discarded = matrix(*unit(A, D), 0.0)
        assert np.linalg.eigvalsh(H)[0] > 0
        left_out += discarded
    assert 200 < left_out < 600, "random pairs have curvature of either sign"
    A = rng.standard_normal((9, 3))
    H, discarded = matrix(*unit(A, -2 * A), 0.0)
    assert discarded == 3 and np.array_equal(H, np.eye(9)), "nothing but negative curvature: the base alone"
    for curvature, left in ((1e-7, 0), (1e-9, 1), (0.0, 1)):
        _, discarded = matrix(np.eye(9)[:, :2], np.eye(9)[:, :2] * [1.0, curvature], 0.0)
        assert discarded == left


def test_dependent_and_empty_pairs():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((7, 2))
    D = np.arange(1.0, 8)[:, None] * A
    H, _ = matrix(*unit(A, D), 0.0)
    again, discarded = matrix(*unit(np.c_[A, A], np.c_[D, D]), 0.0)
    assert discarded == 2
    np.testing.assert_allclose(again, H, atol=1e-10)
    A, D = unit(A, D)
    padded, discarded = matrix(np.c_[A, np.zeros(7)], np.c_[D, np.zeros(7)], 0.0)
    assert discarded == 1
    np.testing.assert_allclose(padded, H, atol=1e-12)
    nothing, discarded = matrix(np.zeros((7, 2)), np.zeros((7, 2)), 0.0)
    assert discarded == 2 and np.array_equal(nothing, np.eye(7))


def feed(memory, pushes, n, seed=0):
    """Push pairs as a solver does, with an application after each; returns (steps, differences) oldest first."""
    rng = np.random.default_rng(seed)
    kept = []
    for j in range(pushes):
        s, before = rng.standard_normal((2, n))
        y = np.geomspace(0.2, 5, n) * s + 0.1 * rng.standard_normal(n) if j % 3 != 2 else -s
        memory.push(-0.5, -2 * s, before + y, before)
        memory.apply(SimpleNamespace(grad=before[:, None]), np.empty(n))
        kept.append((s, y))
    return [np.array(part) for part in zip(*kept, strict=True)]


def applied(memory, n):
    """-H as a matrix."""
    H = np.empty((n, n))
    for j, g in enumerate(np.eye(n)):
        memory.apply(SimpleNamespace(grad=g[:, None]), H[j])
    return H


@pytest.mark.parametrize("pushes", [1, 2, 4, 5, 11])
def test_weighted_memory_is_the_dense_formula_of_its_last_pairs(pushes):
    """Also those of negative curvature; theta is of the last pair of positive curvature."""
    memory = multisecant._Weighted(4, 8, 1e-3)
    S, Y = feed(memory, pushes, 8)
    positive = [j for j in range(pushes) if S[j] @ Y[j] > 0][-1]
    theta = S[positive] @ Y[positive] / (Y[positive] @ Y[positive])
    H = -applied(memory, 8)
    assert len(memory) == min(pushes, 4)
    np.testing.assert_allclose(H, weighted_twin(Y[-4:].T, S[-4:].T, theta, 1e-3), rtol=1e-8, atol=1e-8)
    memory.clear()
    assert len(memory) == 0 and np.array_equal(applied(memory, 8), -np.eye(8))


def test_frobenius_memory_inverts_the_clipped_least_squares_model():
    memory = multisecant._Frobenius(4, 8, 1e-3)
    S, Y = (part[-4:] for part in feed(memory, 11, 8))
    theta = S[-1] @ Y[-1] / (Y[-1] @ Y[-1])
    A, D = unit(S.T, Y.T * theta)
    g, E = np.linalg.eigh(symmetric_least_squares(A, D, 1.0, 1e-3 * np.linalg.norm(A, 2) ** 2))
    wanted = theta * (E / np.clip(g, *multisecant.CLIP)) @ E.T
    np.testing.assert_allclose(-applied(memory, 8), wanted, rtol=1e-8, atol=1e-8)
    assert memory.info["discarded"] == np.sum(g <= 0) > 0


@pytest.mark.parametrize("pushes", [1, 3, 4, 9])
def test_ring_keeps_the_last_pairs_of_positive_curvature(pushes):
    memory = lbfgs._Ring(3, 8)
    S, Y = feed(memory, pushes, 8)
    good = [j for j in range(pushes) if S[j] @ Y[j] > 0][-3:]
    H = np.eye(8) * (S[good[-1]] @ Y[good[-1]]) / (Y[good[-1]] @ Y[good[-1]])
    for s, y in zip(S[good], Y[good], strict=True):
        V = np.eye(8) - np.outer(y, s) / (s @ y)
        H = V.T @ H @ V + np.outer(s, s) / (s @ y)
    np.testing.assert_allclose(-applied(memory, 8), H, rtol=1e-9, atol=1e-9)
    assert len(memory) == len(good)


@pytest.mark.parametrize("kind", [multisecant._Weighted, multisecant._Frobenius])
def test_pairs_that_underflow_are_no_pairs(kind):
    memory = kind(3, 4, 0.0)
    g = np.ones(4)
    memory.push(1.0, 0 * g, g, g)
    memory.push(1.0, 1e-140 * g, 1e-140 * g, 0 * g)
    assert len(memory) == 0
    memory.push(1.0, g, 3 * g, g)
    memory.push(1.0, 1e-160 * g, 1e-170 * g, 0 * g)
    found = applied(memory, 4)
    alone = kind(3, 4, 0.0)
    alone.push(1.0, g, 3 * g, g)
    np.testing.assert_allclose(found, applied(alone, 4), rtol=1e-12)
    assert np.isfinite(found).all()


# solvers


def quadratic(seed=0, n=12):
    """``<C, X> - 2 <B, Y>`` with one column: a linear term beside a convex quadratic; (problem, minimiser)."""
    rng = np.random.default_rng(seed)
    C, B = np.diag(np.geomspace(1, 100, n)), rng.standard_normal((n, 1))

    class Linear(Term):
        def value(self, Y):
            return -2 * float(np.vdot(B, Y))

        def half_grad(self, Y):
            return -B

    return Problem(C, Unconstrained(n), [Linear()]), np.linalg.solve(C, B)


@pytest.mark.parametrize("solver", [LBFGS(memory=12), Multisecant(memory=12), Multisecant(memory=12, flavour="frobenius")], ids=repr)
def test_quadratics_end_at_their_minimiser(solver):
    problem, wanted = quadratic()
    for model, info in itertools.islice(solver.iterates(problem, np.zeros((12, 1))), 400):
        products = info["products"]
        if model.grad_norm <= 1e-10:
            break
    np.testing.assert_allclose(model.Y, wanted, rtol=1e-8)
    assert products <= (60 if getattr(solver, "flavour", "") != "frobenius" else 400)


@SOLVERS
@pytest.mark.parametrize("dtype", [float, complex])
def test_a_problem_that_is_sent_in_takes_over_with_the_pairs(solver, dtype):
    rng = np.random.default_rng(0)
    A = rng.standard_normal((20, 20)) + (1j * rng.standard_normal((20, 20)) if dtype is complex else 0)
    one = Problem(A + A.conj().T, Oblique(np.ones(20)))
    two = Problem(A + A.conj().T + 0.1 * np.ones((20, 20)), Oblique(np.ones(20)))
    generator = solver.iterates(one, one.random_point(12, rng))
    for _ in range(40):
        model, info = next(generator)
    Y, before = model.Y.copy(), info["products"]
    model, info = generator.send(two)
    assert model.problem is two and info["products"] > before + 1
    first = np.linalg.norm(model.Y - Y)
    assert 0 < first < 0.2 * np.sqrt(20), "a step from where it stood"
    for _ in range(300):
        if model.grad_norm <= 1e-7 * model.grad_scale:
            break
        model, info = next(generator)
    assert model.problem is two and model.grad_norm <= 1e-7 * model.grad_scale and info["restarts"] == 0


@pytest.mark.parametrize("solver", [LBFGS(), Multisecant()], ids=repr)
def test_searches_in_vain_are_restarts_and_a_standstill(solver):
    problem = Problem(gallery.toroidal_grid(5, 5, 0), Sphere(25))
    restarts, stalled = [], []
    for _, info in itertools.islice(solver.iterates(problem, problem.random_point(2, np.random.default_rng(0))), 500):
        restarts.append(info["restarts"])
        stalled.append(info.get("stalled", False))
    assert any(stalled) and not any(stalled[:20])
    assert restarts[0] == 0 < restarts[-1] and restarts == sorted(restarts)


def test_a_direction_that_does_not_descend_clears_the_memory():
    cleared = []

    class Uphill(lbfgs._Ring):
        def apply(self, model, out):
            super().apply(model, out)
            if self.count == 3:
                np.negative(out, out=out)

        def clear(self):
            cleared.append(self.count)
            super().clear()

    problem = Problem(gallery.toroidal_grid(5, 5, 0), Oblique(np.ones(25)))
    Y = problem.random_point(4, np.random.default_rng(0))
    merits, restarts = [], []
    for model, info in itertools.islice(lbfgs.descend_along(problem, Y, lambda size: Uphill(5, size), 1e-4), 13):
        merits.append(model.merit)
        restarts.append(info["restarts"])
    assert restarts[-1] == len(cleared) >= 3 and set(cleared) == {3}
    assert np.all(np.diff(merits) < 0)


def test_as_few_gradients_as_lbfgs_on_tori():
    """The weighted flavour is at parity; a regression shows as a multiple."""
    used = []
    for solver in (Multisecant(memory=10), LBFGS(memory=10)):
        used.append(0)
        for seed in range(3):
            problem = Problem(gallery.toroidal_grid(8, 12, seed), Oblique(np.ones(96)))
            for model, info in solver.iterates(problem, problem.random_point(10, np.random.default_rng(seed))):
                products = info["products"]
                if model.grad_norm <= 1e-6 * model.grad_scale:
                    break
            used[-1] += products
    assert used[0] <= 1.3 * used[1]


@pytest.mark.parametrize(("solver", "arrays"), [(LBFGS(6), 2 * 6 + 10), (Multisecant(10), 2 * 10 + 8)], ids=repr)
def test_storage_is_what_the_docstring_says(solver, arrays):
    n, k = 2000, 40
    problem = Problem(gallery.toroidal_grid(20, 100, 0), Oblique(np.ones(n)))
    Y = problem.random_point(k, np.random.default_rng(0))
    for _ in itertools.islice(solver.iterates(problem, Y), 3):
        problem.norm_C
    tracemalloc.start()
    try:
        for _ in itertools.islice(solver.iterates(problem, Y), 30):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert arrays - 5 <= peak / (8 * n * k) <= arrays + 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory": 0}, "memory = 0; a positive number"),
        ({"memory": 2.5}, "memory = 2.5"),
        ({"memory": True}, "memory = True"),
        ({"flavour": "broyden"}, "flavour = 'broyden'; it is 'weighted'"),
        ({"reg": -1.0}, "reg = -1.0; a finite number >= 0"),
        ({"reg": np.nan}, "reg = nan"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Multisecant(**arguments)
