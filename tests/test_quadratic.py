"""General equality constraints as a manifold: against closed forms, least squares, Clarabel, and hand-made degenerate sets."""

import numpy as np
import pytest
import scipy.sparse as sp

import bmsdp
from bmsdp import gram
from bmsdp.linear_maps import as_linear_map
from bmsdp.manifolds import Oblique, Quadratic, Sphere, StiefelProduct, rank_report
from bmsdp.manifolds.base import as_real, inner
from bmsdp.manifolds.quadratic import gauss_newton
from bmsdp.problem import Problem
from bmsdp.solvers import LBFGS, TrustRegion

FIELD = pytest.mark.parametrize("dtype", [np.float64, np.complex128], ids=["real", "complex"])


def gaussian(shape, dtype, rng):
    Y = rng.standard_normal(shape)
    return Y + 1j * rng.standard_normal(shape) if dtype is np.complex128 else Y


def hermitian(n, dtype, rng):
    B = gaussian((n, n), dtype, rng)
    return (B + B.conj().T) / 2


def quadratic(rows, b, shift=None):
    return Quadratic(as_linear_map(list(rows), len(rows[0])), b, shift)


def unit(n, i, j, value=0.5):
    """Symmetric with ``<A, X> = X_ij``, or Hermitian with ``Im X_ij`` for ``value = 0.5j``."""
    A = np.zeros((n, n), type(value))
    A[i, j] += value
    A[j, i] += np.conj(value)
    return A


def twins(kind, dtype):
    """A manifold in closed form and its own constraints as a `Quadratic`."""
    closed = {
        "oblique": Oblique([0.25, 1.0, 9.0, 2.0, 1.0]),
        "sphere": Sphere(5, 3.0),
        "stiefel": StiefelProduct(2, 3, dtype is np.complex128),
    }[kind]
    rows = [closed.adjoint_mul(e, np.eye(closed.n)) for e in np.eye(closed.m)]
    return closed, quadratic(rows, closed.b)


@FIELD
@pytest.mark.parametrize("kind", ["oblique", "sphere", "stiefel"])
def test_equals_the_closed_forms(kind, dtype, rng):
    closed, general = twins(kind, dtype)
    Y, C = closed.random_point(4, rng, dtype), hermitian(closed.n, dtype, rng)
    V = gaussian(Y.shape, dtype, rng)
    ours, theirs = Problem(C, general).at(Y), Problem(C, closed).at(Y)
    same = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(general.multipliers(Y, V), closed.multipliers(Y, V), **same)
    np.testing.assert_allclose(general.project(Y, V), closed.project(Y, V), **same)
    U = closed.project(Y, V)
    for name in ("cost", "mu", "grad", "dual_value"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), **same)
    np.testing.assert_allclose(ours.hess(U), theirs.hess(U), **same)
    np.testing.assert_allclose(general.row_trace, closed.row_trace, **same)
    np.testing.assert_allclose(general.shift, closed.shift, **same)
    # both retractions are of second order: they part at the third
    apart = [np.linalg.norm(general.retract(Y, h * U) - closed.retract(Y, h * U)) for h in (2e-2, 1e-2)]
    assert apart[1] <= apart[0] / 7 + 1e-14


@FIELD
def test_taylor_of_the_retraction(dtype, rng):
    """``f(Retr(hU)) - f - h <2SY, U> - h^2 <U, SU>`` falls by 8 as h is halved."""
    n, k = 9, 4
    rows = [np.eye(n)] + [hermitian(n, dtype, rng) / n for _ in range(5)]
    Y = gaussian((n, k), dtype, rng)
    Y /= np.linalg.norm(Y)
    A = as_linear_map(rows, n)
    M = Quadratic(A, A.apply(Y, Y))
    problem = Problem(hermitian(n, dtype, rng), M)
    model, U = problem.at(Y), M.project(Y, gaussian(Y.shape, dtype, rng))
    U /= np.linalg.norm(U)

    def rest(h):
        Z = M.retract(Y, h * U)
        np.testing.assert_allclose(M.apply(Z, Z), M.b, rtol=1e-14, atol=1e-14)
        return abs(problem.at(Z).cost - model.cost - h * inner(model.grad, U) - h * h * inner(U, model.slack_mul(U)))

    rests = [rest(h) for h in (4e-2, 2e-2, 1e-2)]
    assert np.all(np.divide(rests[:-1], rests[1:]) > 7) and rests[0] > 1e-9


def test_the_hessian_reuses_the_factor(rng, monkeypatch):
    calls = []
    at = gram.Gram.at
    monkeypatch.setattr(gram.Gram, "at", lambda self, Y: calls.append(1) or at(self, Y))
    M = quadratic([np.eye(5), hermitian(5, np.float64, rng)], [1.0, 0.1])
    Y = M.random_point(3, rng)
    del calls[:]
    model = Problem(hermitian(5, np.float64, rng), M).at(Y)
    model.grad, model.mu, model.cost
    for _ in range(4):
        model.hess(model.grad)
    assert len(calls) == 1


# redundant rows


@FIELD
def test_redundant_rows_change_nothing(dtype, rng):
    n, k = 8, 3
    rows = [np.eye(n)] + [hermitian(n, dtype, rng) / n for _ in range(3)]
    Y = gaussian((n, k), dtype, rng)
    Y /= np.linalg.norm(Y)
    plain = quadratic(rows, as_linear_map(rows, n).apply(Y, Y))
    more = [*rows, rows[1], 3 * rows[0] - 2 * rows[2]]
    M = quadratic(more, as_linear_map(more, n).apply(Y, Y))
    assert M.factor(Y).rank == 4 and plain.factor(Y).rank == 4
    problems, V = [Problem(hermitian(n, dtype, np.random.default_rng(1)), m) for m in (plain, M)], gaussian((n, k), dtype, rng)
    np.testing.assert_allclose(M.project(Y, V), plain.project(Y, V), atol=1e-13)
    ours, theirs = (problem.at(Y) for problem in problems)
    np.testing.assert_allclose(ours.grad, theirs.grad, atol=1e-13)
    np.testing.assert_allclose(ours.hess(V), theirs.hess(V), atol=1e-12)
    np.testing.assert_allclose(ours.slack_matrix(), theirs.slack_matrix(), atol=1e-12)  # the rows are redundant everywhere
    U = plain.project(Y, V)
    np.testing.assert_allclose(M.retract(Y, 0.1 * U), plain.retract(Y, 0.1 * U), atol=1e-12)
    runs = [bmsdp.minimize(problem, TrustRegion(), Y, tol=1e-9) for problem in problems]
    assert all(run.status.name == "LOCALLY_OPTIMAL" for run in runs)
    assert np.isclose(runs[0].cost, runs[1].cost, rtol=1e-10)


@FIELD
def test_long_rank_one_rows(dtype, rng):
    """Rows kept as vectors for their products still show their matrices, to factorisations."""
    n = 24
    u, v = gaussian(n, dtype, rng), rng.standard_normal(n)
    rows = [np.eye(n), np.outer(u, u.conj()), -np.outer(v, v), hermitian(n, dtype, rng)]
    Y = gaussian((n, 3), dtype, rng)
    M, mu, V = quadratic(rows, as_linear_map(rows, n).apply(Y, Y)), rng.standard_normal(4), gaussian((n, 3), dtype, rng)
    assert len(M.map.long) == 2
    A = sum(w * row for w, row in zip(mu, rows, strict=True))
    np.testing.assert_allclose(M.matrix(mu).toarray(), A, atol=1e-13)
    np.testing.assert_allclose(M.adjoint_mul(mu, V), A @ V, atol=1e-12)
    np.testing.assert_allclose(M.apply(Y, V), [inner(row @ Y, V) for row in rows], atol=1e-11)
    np.testing.assert_allclose(M.apply(Y, M.project(Y, V)), 0, atol=1e-11)
    assert M.apply(Y, V).dtype == np.float64
    problem = Problem(hermitian(n, dtype, rng), M)
    run = bmsdp.minimize(problem, TrustRegion(), rank=4, tol=1e-8, rng=0)
    found = bmsdp.certify(problem.at(run.Y), 1e-6, rng=0)
    assert found.rigor == "verified" and found.gap <= 1e-6


def test_rows_of_very_different_size_are_not_taken_for_redundant(rng):
    n = 6
    rows = [np.eye(n), hermitian(n, np.float64, rng), hermitian(n, np.float64, rng)]
    sizes = np.array([1.0, 1e8, 1e-8])
    Y = rng.standard_normal((n, 3))
    plain = quadratic(rows, as_linear_map(rows, n).apply(Y, Y))
    scaled = [s * A for s, A in zip(sizes, rows, strict=True)]
    M = quadratic(scaled, as_linear_map(scaled, n).apply(Y, Y))
    V = rng.standard_normal(Y.shape)
    assert M.factor(Y).rank == 3
    np.testing.assert_allclose(M.multipliers(Y, V) * sizes, plain.multipliers(Y, V), rtol=1e-12)


# the Gram matrix, dense and sparse


def entries_map(n, edges):
    """Unit diagonal and ``X_ij`` for the edges, stacked."""
    i, j = np.array(edges).T
    m = n + len(edges)
    row = np.concatenate([np.arange(n), n + np.arange(len(edges)), n + np.arange(len(edges))])
    place = np.concatenate([np.arange(n) * (n + 1), i * n + j, j * n + i])
    value = np.concatenate([np.ones(n), np.full(2 * len(edges), 0.5)])
    return as_linear_map(sp.csr_array((value, (row, place)), shape=(m, n * n)), n)


RING = [(i, (i + 1) % 110) for i in range(110)]


@FIELD
@pytest.mark.parametrize("edges", [RING, [*RING, *RING[:5]]], ids=["regular", "redundant"])
def test_sparse_gram_matrices(edges, dtype, rng):
    """220 constraints on a ring: the sparse factorisation against dense least squares."""
    n, k = 110, 3
    A = entries_map(n, edges)
    Y = gaussian((n, k), dtype, rng)
    Y /= np.linalg.norm(Y, axis=1)[:, None]
    M = Quadratic(A, A.apply(Y, Y))
    factor = M.factor(Y)
    assert M.gram.tree is not None and factor.sparse is not None and (factor.shift > 0) == (len(edges) > 110)
    assert factor.rank == 220
    J = M.gram.jacobian(Y).toarray()
    np.testing.assert_allclose(factor.G.toarray(), J @ J.T, atol=1e-15)
    V = gaussian((n, k), dtype, rng)
    normal = J.T @ np.linalg.lstsq(J.T, as_real(V).ravel(), rcond=1e-10)[0]
    np.testing.assert_allclose(M.project(Y, V, factor), V - normal.view(dtype).reshape(V.shape), atol=1e-11)
    Z = M.retract(Y, 0.3 * M.project(Y, V, factor) / np.linalg.norm(V))
    np.testing.assert_allclose(M.apply(Z, Z), M.b, atol=1e-14)
    if len(edges) == 110:
        exact = np.linalg.eigvalsh(J @ J.T)[0]
        assert 0 < factor.smallest() <= exact
        assert 0 < M.defect(Y).max() < 1e-9


def test_zeros_of_the_gram_matrix_stay_in_its_pattern(rng):
    """At special points entries of G vanish; the analysed pattern has to hold."""
    A = entries_map(110, RING)
    Y = np.tile(np.eye(2), (55, 1))
    M = Quadratic(A, A.apply(Y, Y))
    G = M.factor(Y).G
    assert np.array_equal(G.indices, M.gram.pattern.indices) and np.count_nonzero(G.data) < G.nnz
    J = M.gram.jacobian(Y).toarray()
    np.testing.assert_allclose(G.toarray(), J @ J.T, atol=1e-15)


def test_large_dense_singular_gram_matrices(rng, monkeypatch):
    """Above so many rows a singular dense G is shifted instead of diagonalised."""
    monkeypatch.setattr(gram, "EIGEN_ROWS", 30)
    n, m = 12, 40
    rows = [hermitian(n, np.float64, rng) for _ in range(m - 1)]
    rows.append(rows[0] + rows[1])
    A = as_linear_map(rows, n)
    Y = rng.standard_normal((n, 8))
    M = Quadratic(A, A.apply(Y, Y))
    factor = M.factor(Y)
    assert factor.shift > 0 and factor.eigen is None and factor.rank == m - 1
    J, V = M.gram.jacobian(Y), rng.standard_normal(Y.shape)
    normal = J.T @ np.linalg.lstsq(J.T, V.ravel(), rcond=1e-10)[0]
    np.testing.assert_allclose(M.project(Y, V, factor), V - normal.reshape(V.shape), atol=1e-11)


# feasible points


def test_random_points_of_contradictory_or_narrow_constraints(rng):
    with pytest.raises(ValueError, match="no feasible point found of 3 columns from 20 Gaussian starts: .* residual of [1-9].*e-0[12]"):
        quadratic([np.eye(4), np.eye(4)], [1.0, 2.0]).random_point(3, rng)
    identity = quadratic([unit(2, 0, 0), unit(2, 1, 1), unit(2, 0, 1)], [1.0, 1.0, 0.0])
    with pytest.raises(ValueError, match="allow more columns"):
        identity.random_point(1, rng)
    Y = identity.random_point(2, rng)
    np.testing.assert_allclose(Y @ Y.T, np.eye(2), atol=1e-14)


def test_radii_over_many_decades(rng):
    b = 10.0 ** np.arange(-6, 6)
    M = quadratic([unit(12, i, i) for i in range(12)] + [unit(12, 0, 11)], [*b, 0.01])
    Y = M.random_point(4, rng)
    np.testing.assert_allclose(M.apply(Y, Y), M.b, rtol=1e-9)


def test_steps_that_lead_nowhere_are_halved():
    """From (1, 0) on the unit circle the step (-1, 0) ends at the centre, where Gauss-Newton has no direction."""
    M, Y = quadratic([np.eye(2)], [1.0]), np.array([[1.0], [0.0]])
    assert gauss_newton(M, np.zeros((2, 1)))[0] is None
    np.testing.assert_allclose(M.retract(Y, -Y), Y, atol=1e-15)
    with pytest.raises(ValueError, match="no feasible point found near Y: Gauss-Newton ends at a relative residual of 1.0e\\+00"):
        M.retract(0 * Y, 0 * Y)


def test_defect_covers_a_point_that_is_exactly_feasible():
    """``3/5, 4/5`` in exact arithmetic; its rounding is at most 1e-16 away, and a shifted copy 1e-6."""
    M, exact = quadratic([np.eye(2), np.diag([1.0, 0.0])], [25.0, 9.0]), np.array([[3.0], [4.0]])
    for moved in (0.0, 1e-15, 1e-6):
        Y = exact + moved * np.array([[1.0], [-0.5]])
        bound = M.defect(Y)
        assert np.all(np.abs(Y - exact)[:, 0] <= bound) and np.all(bound <= 2 * moved + 1e-11)


# what bounds the trace


@FIELD
def test_a_given_shift_is_proved_and_scaled(dtype, rng):
    n = 7
    P = hermitian(n, dtype, rng)
    P = P @ P + 0.1 * np.eye(n)
    rows = [P + 0.01 * hermitian(n, dtype, rng), hermitian(n, dtype, rng)]
    Y = gaussian((n, 3), dtype, rng)
    b = as_linear_map(rows, n).apply(Y, Y)
    assert quadratic(rows, b).shift is None and quadratic(rows, b).cover(np.ones(n)) is None
    M = quadratic(rows, b, shift=[1.0, 0.0])
    eig = np.linalg.eigvalsh(M.matrix(M.w).toarray())
    assert 1 <= eig[0] <= 1.03
    assert np.isclose(M.b @ M.shift, n) and np.linalg.norm(Y) ** 2 <= M.b @ M.w
    w = M.cover(np.linspace(0, 3, n))
    assert np.linalg.eigvalsh(M.matrix(w).toarray() - np.diag(np.linspace(0, 3, n)))[0] >= 0
    with pytest.raises(ValueError, match="A\\*\\(shift\\) is not positive definite"):
        quadratic(rows, b, shift=[-1.0, 0.0])
    with pytest.raises(ValueError, match="not positive definite"):
        quadratic([np.diag([1.0, 1.0, 0.0]), np.eye(3)], [1.0, 2.0], shift=[1.0, 0.0])
    with pytest.raises(ValueError, match="shift has shape \\(3,\\)"):
        quadratic(rows, b, shift=[1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="no X but 0"):
        quadratic(rows, [-1.0, 0.0], shift=[1.0, 0.0])


def test_rows_that_nothing_bounds(rng):
    M = quadratic([np.diag([1.0, 2.0, 0.0]), unit(3, 1, 2)], [3.0, 0.5])
    np.testing.assert_array_equal(M.row_trace, [1.5, 0.75, 0.0])
    np.testing.assert_allclose(M.cover(np.array([1.0, 4.0, 0.0])), [2.0, 0.0])
    assert M.cover(np.array([0.0, 0.0, 1.0])) is None and M.shift is None
    model = Problem(hermitian(3, np.float64, rng), M).at(M.random_point(2, rng))
    assert bmsdp.certify(model).bound == -np.inf


def test_refusals():
    A = as_linear_map([np.eye(2), np.zeros((2, 2))], 2)
    with pytest.raises(ValueError, match="b has shape \\(1,\\) and A has 2 rows"):
        Quadratic(A, [1.0])
    with pytest.raises(ValueError, match="one finite number per row"):
        Quadratic(A, [1.0, np.nan])
    with pytest.raises(ValueError, match="row 1 of A is zero but b\\[1\\] = 3.0"):
        Quadratic(A, [1.0, 3.0])
    assert Quadratic(A, [1.0, 0.0]).factor(np.eye(2)).rank == 1
    with pytest.raises(ValueError, match="C is real but Quadratic"):
        Problem(np.eye(2), quadratic([np.eye(2), unit(2, 0, 1, 0.5j)], [1.0, 0.1]))


# constant rank

LEVELS = np.diag([1.0, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("rows", "b", "rank", "offender", "where"),
    [
        ([unit(5, i, i) for i in range(5)], np.ones(5), 5, None, ""),
        ([unit(5, i, i) for i in range(5)] + [np.eye(5)], [1, 1, 1, 1, 1, 5], 5, None, ""),
        ([unit(4, 0, 0), unit(4, 1, 1), unit(4, 0, 1), unit(4, 1, 0)], [1, 1, 0, 0], 3, None, ""),
        ([np.eye(5), LEVELS], [1, 2.5], 2, None, ""),  # singular only at eigenvectors, of values 1, ..., 5
        ([np.eye(5), LEVELS], [1, 2], 2, 1, "descent"),  # Y = e_2 z*
        ([np.eye(5), LEVELS], [1, 1], 2, 1, "beside"),  # X = e_1 e_1* alone
        ([np.eye(4), np.diag([0.0, 1, -1, 0])], [1, 0], 2, 1, "descent"),  # y_1 = y_2 = 0
        ([np.eye(4), np.ones((4, 4))], [1, 0], 2, 1, "beside"),  # A_1 Y = 0 at every feasible point
        ([unit(6, i, i) for i in range(6)] + [np.ones((6, 6))], [1] * 6 + [0], 7, 6, "beside"),  # bisection
    ],
)
def test_rank_report(rows, b, rank, offender, where):
    M = quadratic(rows, b)
    report = rank_report(M, 3, rng=0)
    assert (report.rank, report.offender, report.m) == (rank, offender, M.m) and where in report.where
    assert report.constant == (offender is None) and len(report.ranks) == len(report.columns)
    assert (f"row {offender} of A" in report.message) == (offender is not None)
    if offender is None:
        assert set(report.ranks) == {rank} and report.margin > 1e-3
        assert ("redundant" in report.message) == (rank < M.m)
    assert report == rank_report(M, 3, rng=0)


def test_rank_report_from_a_point(rng):
    M = quadratic([np.eye(4), hermitian(4, np.complex128, rng)], [1.0, 0.05])
    Y = M.random_point(2, rng, np.complex128)
    report = rank_report(M, Y, rng=1)
    assert report.constant and report.columns[0] == 2
    with pytest.raises(ValueError, match="start is not feasible"):
        rank_report(quadratic([np.eye(2), np.eye(2)], [1.0, 2.0]), np.ones((2, 1)))
    with pytest.raises(ValueError, match="no feasible point"):
        rank_report(quadratic([np.eye(2), np.eye(2)], [1.0, 2.0]), 2)


# whole problems


def few_dense_constraints(dtype, seed=5, n=24):
    """Like a trust-region subproblem: two spheres, and four dense quadratic equations; feasible by construction."""
    rng = np.random.default_rng(seed)
    rows = [np.diag(np.r_[np.ones(n - 1), 0]), np.diag(np.r_[np.zeros(n - 1), 1.0])]
    rows += [hermitian(n, dtype, rng) / np.sqrt(n) for _ in range(4)]
    Y = gaussian((n, 4), dtype, rng)
    Y[:-1] /= np.linalg.norm(Y[:-1])
    Y[-1] /= np.linalg.norm(Y[-1])
    A = as_linear_map(rows, n)
    return hermitian(n, dtype, rng), rows, A.apply(Y, Y)


def lifted(M):
    """The real 2n x 2n matrix of a complex one, halved, so that ``<M, X>`` is the same at the lifted X."""
    return np.block([[M.real, -M.imag], [M.imag, M.real]]) / 2


def clarabel(C, rows, b):
    cp = pytest.importorskip("cvxpy")
    if np.iscomplexobj(C):
        C, rows = lifted(C), [lifted(A) for A in rows]
    X = cp.Variable(C.shape, symmetric=True)
    equal = [cp.sum(cp.multiply(A, X)) == value for A, value in zip(rows, b, strict=True)]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(C, X))), [X >> 0, *equal])
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    return problem.value


@FIELD
def test_against_clarabel(dtype):
    C, rows, b = few_dense_constraints(dtype)
    problem, optimum = Problem(C, quadratic(rows, b)), clarabel(C, rows, b)
    for solver in (TrustRegion(), LBFGS()):
        run = bmsdp.minimize(problem, solver, rank=4, tol=1e-9, rng=0)
        model = problem.at(run.Y)
        assert run.status.name == "LOCALLY_OPTIMAL" and np.isclose(run.cost, optimum, rtol=1e-6)
        found = bmsdp.certify(model, 1e-6, rng=0)
        assert found.rigor == found.gap_rigor == "verified" and found.gap <= 1e-6 and found.bound <= run.cost
        assert np.linalg.eigvalsh(C - problem.manifold.matrix(found.dual).toarray())[0] >= -1e-13
        assert np.isclose(b @ found.dual, found.bound, rtol=1e-12)
    for seed in range(3):  # a bound everywhere, also at bad points
        model = problem.at(problem.random_point(4, np.random.default_rng(seed)))
        assert bmsdp.certify(model, rng=0).bound <= run.cost


def test_gaps_of_redundant_rows_are_estimates(rng):
    """Rounding makes redundant rows contradict each other: no point is feasible exactly, but the bound stands."""
    rows = [np.eye(6), hermitian(6, np.float64, rng) / 6]
    rows.append(rows[0] + 3 * rows[1])
    Y = rng.standard_normal((6, 2))
    problem = Problem(hermitian(6, np.float64, rng), quadratic(rows, as_linear_map(rows, 6).apply(Y, Y)))
    result = bmsdp.solve(problem, rng=0)
    assert result.status.name == "CERTIFIED" and result.certificate.rigor == "verified" and result.certificate.gap_rigor == "estimate"


@FIELD
def test_solve_certifies(dtype):
    C, rows, b = few_dense_constraints(dtype, seed=6)
    result = bmsdp.solve(Problem(C, quadratic(rows, b)), rng=0)
    assert result.status.name == "CERTIFIED" and "Quadratic" in result.options["manifold"]
    np.testing.assert_allclose(as_linear_map(rows, len(C)).apply(result.Y, result.Y), b, atol=1e-13)


def test_bounds_from_a_given_shift():
    """No diagonal row: only a combination of the rows bounds the trace."""
    rng = np.random.default_rng(8)
    n = 12
    rows = [np.eye(n) + 0.5 * hermitian(n, np.float64, rng) / n, hermitian(n, np.float64, rng) / n]
    Y = rng.standard_normal((n, 2))
    b = as_linear_map(rows, n).apply(Y, Y)
    C = hermitian(n, np.float64, rng)
    optimum = clarabel(C, rows, b)
    problem = Problem(C, quadratic(rows, b, shift=[1.0, 0.0]))
    run = bmsdp.minimize(problem, TrustRegion(), rank=3, tol=1e-9, rng=0)
    found = bmsdp.certify(problem.at(run.Y), 1e-6, rng=0)
    assert np.isclose(run.cost, optimum, rtol=1e-6) and found.gap <= 1e-6 and found.rigor == "verified"
    assert np.linalg.eigvalsh(C - problem.manifold.matrix(found.dual).toarray())[0] >= 0
    again = bmsdp.verified.lower_bound(C, problem.manifold, b, found.dual)  # which knows of the manifold's own shift
    assert abs(again.bound - found.bound) <= 1e-9 * abs(optimum) and again.bound <= run.cost
    worse = bmsdp.certify(problem.at(problem.random_point(3, rng)), 1e-6, rng=0)
    assert -np.inf < worse.bound <= run.cost
