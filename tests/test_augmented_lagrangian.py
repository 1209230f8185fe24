"""The method of multipliers: values, duals and bounds beside Clarabel's; ranks, limits, solvers, scaling."""

import numpy as np
import pytest
import scipy.sparse as sp

import bmsdp
from bmsdp import Oblique, Penalty, Problem, Product, Sphere, Status, gallery
from bmsdp.augmented_lagrangian import augmented_lagrangian
from bmsdp.linear_maps import entries
from bmsdp.looks import split
from bmsdp.manifolds import Unconstrained
from bmsdp.problem import Term
from bmsdp.solvers import GradientDescent, TrustRegion

from .general import Instance, check_result, clarabel, hermitian, random_instance, semidefinite, value

AL = {"method": "augmented_lagrangian", "rng": 0}


def bounded(n, m, m_geq, seed, is_complex=False, diagonal=False):
    """A strictly feasible pair; the trace is 2, or the diagonal 1."""
    rng = np.random.default_rng(seed)
    X = semidefinite(rng, n, is_complex)
    D = 1 / np.sqrt(np.diag(X).real)
    X = D[:, None] * X * D if diagonal else 2 * X / np.trace(X).real
    A = [np.diag(e) for e in np.eye(n)] if diagonal else [np.eye(n)]
    A += [hermitian(rng, n, is_complex, 0.5) for _ in range(m)]
    G = [hermitian(rng, n, is_complex, 0.5) for _ in range(m_geq)]
    return Instance(hermitian(rng, n, is_complex), A, value(A, X), G, value(G, X) - 0.05 * np.arange(m_geq) if G else np.zeros(0))


KINDS = {
    "trace": {"n": 10, "m": 5, "m_geq": 0},
    "trace, inequalities": {"n": 9, "m": 3, "m_geq": 4},
    "trace, complex": {"n": 7, "m": 4, "m_geq": 2, "is_complex": True},
    "diagonal": {"n": 10, "m": 6, "m_geq": 0, "diagonal": True},
    "diagonal, inequalities, complex": {"n": 7, "m": 2, "m_geq": 3, "is_complex": True, "diagonal": True},
    "inequalities alone": {"n": 8, "m": 0, "m_geq": 5, "diagonal": True},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_beside_clarabel(kind, seed):
    one = bounded(**KINDS[kind], seed=seed)
    reference = clarabel(one)
    result = one.solve(**AL, tol=1e-7)
    assert reference.status in ("optimal", "optimal_inaccurate") and result.status is Status.CERTIFIED, result
    assert result.certificate.rigor == "verified" and result.options["method"] == "augmented_lagrangian"
    check_result(one, result, reference.value, tol=1e-7)
    np.testing.assert_allclose(result.dual, reference.y, atol=5e-3 * (1 + np.abs(reference.y).max()))  # unique here
    np.testing.assert_allclose(result.dual_geq, reference.z, atol=5e-3 * (1 + np.abs(reference.y).max()))
    inner = (value(one.G, result.X) - one.g) * result.dual_geq if one.G else np.zeros(1)
    assert np.abs(inner).max() <= 1e-5


def test_feasible_to_rounding():
    """Gauss-Newton steps at the end."""
    one = bounded(12, 8, 3, 0)
    result = one.solve(**AL)
    assert result.success and np.abs(value(one.A, result.X) - one.b).max() <= 1e-13
    assert (value(one.G, result.X) - one.g).min() >= -1e-13 and result.options["infeasibility"] <= 1e-13


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
def test_tolerance(tol):
    one = bounded(10, 5, 2, 3)
    result = one.solve(**AL, tol=tol)
    assert result.success and abs(result.gap) <= tol and result.bound <= clarabel(one).value + 1e-8


def test_bounds_hold_at_any_point():
    """Wherever the run ends, the bound is below the optimum and below that of the next look at most."""
    one = bounded(12, 6, 3, 4)
    best = clarabel(one).value
    for count in (1, 5, 20, 60, 150):
        seen = []

        def stop(model, info, count=count, seen=seen):
            seen.append(1)
            if len(seen) >= count:
                raise StopIteration

        result = one.solve(**AL, callback=stop)
        assert result.bound <= best + 1e-7 * (1 + abs(best))
        assert result.status is Status.INTERRUPTED or result.success


@pytest.mark.parametrize("seed", range(3))
def test_theta(seed):
    """Lovasz' theta: min <-J, X>, tr X = 1, X_ij = 0 on edges; 5 / sqrt(5) for the pentagon, rows in any form."""
    if seed == 0:
        n, i, j, expected = 5, np.arange(5), (np.arange(5) + 1) % 5, np.sqrt(5)
    else:
        n = 12
        i, j = np.nonzero(np.triu(gallery.gnp(n, 0.4, seed).toarray(), 1))
        A = [np.eye(n)] + [entries(n, [a], [c]).rows.reshape((n, n)).toarray() for a, c in zip(i, j, strict=True)]
        expected = -clarabel(Instance(-np.ones((n, n)), A, np.r_[1, np.zeros(len(i))], [], np.zeros(0))).value
    edges = entries(n, i, j)
    result = bmsdp.solve(Problem(-np.ones((n, n)), Sphere(n), [Penalty(edges, np.zeros(len(i)))]), tol=1e-8, rng=0)
    assert result.success and -result.cost == pytest.approx(expected, rel=1e-7) and -result.bound >= expected * (1 - 1e-8)
    assert len(result.dual) == 1 + len(i) and np.abs(edges.apply(result.Y, result.Y)).max() <= 1e-13
    S = -np.ones((n, n)) - result.dual[0] * np.eye(n) - edges.matrix(result.dual[1:]).toarray()
    assert np.linalg.eigvalsh(S)[0] >= -1e-8
    np.testing.assert_allclose(result.slack() @ np.eye(n), S, atol=1e-10)


def test_kept_rank_too_small():
    """At rank 1 the merit has critical points whose S has negative curvature: the status says so, the bound holds."""
    one = bounded(10, 0, 0, 1, diagonal=True)
    one.A, one.b = [*one.A, np.ones((10, 10))], np.append(one.b, 2.5)
    result = one.solve(**AL, rank=1)
    assert result.rank == 1 and result.status in (Status.RANK_TOO_SMALL, Status.STALLED) and not result.success
    assert result.bound <= clarabel(one).value + 1e-7
    free = one.solve(**AL)
    assert free.success and free.rank > 1
    assert one.solve(**AL, rank=8).success


def test_rank_grows():
    one = bounded(16, 10, 0, 2, diagonal=True)
    start = np.random.default_rng(0).standard_normal((16, 1))
    result = one.solve(**AL, warm_start=start)
    check_result(one, result, clarabel(one).value)
    assert result.rank > 1


def test_limits():
    one = bounded(14, 8, 3, 5)
    start = one.solve(**AL, max_time=1e-9)
    assert start.status is Status.MAX_TIME and not start.success and start.bound <= clarabel(one).value + 1e-7
    problem = Problem(one.C, Sphere(14, one.b[0]), [Penalty(one.A[1:], one.b[1:], one.G, one.g)])
    few = augmented_lagrangian(problem, max_iter=5, rng=0)
    assert few.status is Status.MAX_ITER and few.nit <= 6


def test_interruption():
    """Ctrl-C, and StopIteration from the callback: the point so far, and a warm start from it."""
    one, count = bounded(14, 8, 3, 6), []

    def press(model, info):
        count.append(1)
        if len(count) == 7:
            raise KeyboardInterrupt

    def stop(model, info):
        if info["products"] > 10:
            raise StopIteration

    for callback in (press, stop):
        result = one.solve(**AL, callback=callback, tol=1e-10)
        assert result.status is Status.INTERRUPTED and np.isfinite(result.Y).all() and not result.success
        more = one.solve(**AL, warm_start=result)
        check_result(one, more, clarabel(one).value)
    assert len(count) == 7

    def fail(model, info):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        one.solve(**AL, callback=fail)


def test_without_a_certificate():
    one = bounded(10, 5, 2, 7)
    result = one.solve(**AL, certify=None)
    assert result.certificate is None and result.bound == -np.inf and result.status is Status.LOCALLY_OPTIMAL
    assert "no certificate was asked for" in result.message
    assert result.cost == pytest.approx(clarabel(one).value, rel=1e-4, abs=1e-4) and np.abs(value(one.A, result.X) - one.b).max() <= 1e-10


@pytest.mark.parametrize("rigor", ["verified", "probabilistic", "estimate"])
def test_rigor(rigor):
    one = bounded(10, 5, 2, 8)
    result = one.solve(**AL, certify=rigor)
    assert result.success and result.certificate.rigor == rigor
    assert result.status is (Status.ESTIMATED if rigor == "estimate" else Status.CERTIFIED)
    assert result.bound <= clarabel(one).value + 1e-7


def test_powers_of_two_change_nothing():
    """C -> 2^20 C: the same iterates, to the bit; rows times a power of two as well."""
    one = bounded(10, 5, 2, 9)
    first = one.solve(**AL)
    big = Instance(2.0**20 * one.C, one.A, one.b, one.G, one.g).solve(**AL)
    assert np.array_equal(first.Y, big.Y) and big.cost == 2**20 * first.cost and big.products == first.products
    rows = Instance(one.C, [a * 4.0 ** (j % 3) for j, a in enumerate(one.A)], one.b * 4.0 ** (np.arange(6) % 3), one.G, one.g).solve(**AL)
    assert np.array_equal(first.Y, rows.Y)
    np.testing.assert_allclose(rows.dual * 4.0 ** (np.arange(6) % 3), first.dual, rtol=1e-6)


def test_scales_and_offsets():
    """Tiny and huge costs, radii and rows; a multiple of a row added to C moves the cost alone."""
    one = bounded(9, 4, 2, 10)
    best = clarabel(one).value
    for c in (1e-20, 1e20):
        result = Instance(c * one.C, one.A, one.b, one.G, one.g).solve(**AL)
        assert result.success and result.cost == pytest.approx(c * best, rel=1e-5)
    for c in (1e-6, 1e6):
        result = Instance(one.C, one.A, c * one.b, one.G, c * one.g).solve(**AL)
        assert result.success and result.cost == pytest.approx(c * best, rel=1e-5)
    shifted = Instance(one.C + 0.5 * one.A[1], one.A, one.b, one.G, one.g).solve(**AL)
    assert shifted.success and shifted.cost == pytest.approx(best + 0.5 * one.b[1], rel=1e-5)


def test_same_seed_same_bits():
    one = bounded(12, 6, 2, 11)
    first, again, other = one.solve(**AL), one.solve(**AL), one.solve(**(AL | {"rng": 1}))
    assert np.array_equal(first.Y, again.Y) and first.bound == again.bound and not np.array_equal(first.Y, other.Y)


@pytest.mark.parametrize("solver", [TrustRegion(), GradientDescent()], ids=lambda s: type(s).__name__)
def test_other_solvers_inside(solver):
    one = bounded(8, 3, 1, 12)
    result = one.solve(**AL, solver=solver, tol=1e-5 if isinstance(solver, GradientDescent) else 1e-6)
    check_result(one, result, clarabel(one).value, tol=1e-5)
    assert type(solver).__name__ in result.options["solver"]


def test_warm_start_saves_products():
    one = bounded(20, 12, 4, 13)
    cold = one.solve(**AL, tol=1e-7)
    warm = one.solve(**AL, tol=1e-7, warm_start=cold)
    assert warm.success and warm.products < 0.5 * cold.products and warm.cost == pytest.approx(cold.cost, rel=1e-6)
    near = Instance(one.C + 1e-4 * hermitian(np.random.default_rng(0), 20), one.A, one.b, one.G, one.g)
    assert near.solve(**AL, warm_start=cold).products < near.solve(**AL).products


def test_forms_of_C():
    one = bounded(11, 4, 2, 14)
    dense = one.solve(**AL)
    u = np.arange(11.0)[:, None]
    for C in (sp.csr_array(one.C), bmsdp.LowRankPlusSparse(sp.csr_array(one.C - u @ u.T), u)):
        result = bmsdp.solve(C, one.A, one.b, A_geq=one.G, b_geq=one.g, **AL)
        assert result.success and result.cost == pytest.approx(dense.cost, rel=1e-5)


def test_on_products_and_beside_other_terms():
    """A Penalty around a product of manifolds, and a term that is no constraint."""
    rng = np.random.default_rng(15)
    C, B = hermitian(rng, 7), hermitian(rng, 7)
    manifold = Product([Sphere(3, 1.0), Oblique([1.0, 2, 1, 1])])
    rows = [np.diag([1.0, 1, 1, 0, 0, 0, 0])] + [np.diag(e) for e in np.eye(7)[3:]]
    one = Instance(C, [*rows, B], np.r_[manifold.b, 0.3], [], np.zeros(0))
    result = bmsdp.solve(Problem(C, manifold, [Penalty([B], [0.3])]), rng=0)
    assert result.success and result.cost == pytest.approx(clarabel(one).value, rel=1e-5)
    assert result.data.A.m == len(result.dual) == 6

    class Linear(Term):  # <D, X> as a term: acts on X, so there is a bound
        def value(self, Y):
            return float(np.vdot(D @ Y, Y))

        def half_grad(self, Y):
            return D @ Y

        def half_hess(self, Y, U):
            return D @ U

        def slack_mul(self, Y, V):
            return D @ V

        def dual_value(self, Y):
            return 0.0

    D = np.diag(np.arange(7.0))
    both = bmsdp.solve(Problem(C, manifold, [Linear(), Penalty([B], [0.3])]), rng=0, certify=None)
    assert both.cost + np.vdot(D, both.X) == pytest.approx(clarabel(Instance(C + D, one.A, one.b, [], np.zeros(0))).value, rel=1e-4)


def test_no_bound_on_the_trace():
    """Feasible and solvable, but nothing bounds X: the answer is an estimate at most, or handed over."""
    rng = np.random.default_rng(16)
    A = [hermitian(rng, 6) for _ in range(3)]
    S = semidefinite(rng, 6)
    one = Instance(S + A[0] - A[1], A, value(A, semidefinite(rng, 6)), [], np.zeros(0))
    reference = clarabel(one)
    result = one.solve(rng=0)
    assert reference.status == "optimal" and result.status not in (Status.INFEASIBLE, Status.UNBOUNDED)
    assert result.cost == pytest.approx(reference.value, rel=1e-5) and result.bound <= reference.value + 1e-6 * abs(reference.value)


def test_split():
    penalty = Penalty([np.eye(3)], [1.0])
    assert split(Problem(np.eye(3), Unconstrained(3), [penalty])) == (penalty, ())
    for terms in ((), (penalty, penalty)):
        with pytest.raises(ValueError, match=f"the problem has {len(terms)} Penalty terms"):
            augmented_lagrangian(Problem(np.eye(3), Oblique(np.ones(3)), terms))


def test_perturbation_is_refused():
    one = bounded(6, 3, 1, 17)
    with pytest.raises(ValueError, match="perturbation needs constraints that form a manifold"):
        one.solve(**AL, perturbation=0.1)


# at random


def fuzz(seed):
    """A random program; a success is right, a bound never above the optimum, infeasible and unbounded never claimed wrongly."""
    one, claims = random_instance(seed), ("infeasible", "unbounded")
    reference, result = clarabel(one), one.solve(rng=seed)
    word = reference.status.removesuffix("_inaccurate")
    if word == "optimal":
        assert result.bound <= reference.value + 1e-6 * (1 + abs(reference.value)), "a bound above the optimum"
        assert result.status not in (Status.INFEASIBLE, Status.UNBOUNDED)
        if result.success:
            check_result(one, result, reference.value)
        return result.success
    assert not result.success or word == "error"
    return word not in claims or result.status.name.lower() == word


def test_random_programs():
    solved = [fuzz(seed) for seed in range(15)]
    assert np.mean(solved) >= 0.85


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_random_programs():
    solved = [fuzz(seed) for seed in range(100, 400)]
    assert np.mean(solved) >= 0.9
