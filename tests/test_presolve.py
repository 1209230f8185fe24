"""Presolve: every step is exact for points, costs and multipliers, and contradictions come with their proof."""

import numpy as np
import pytest
import scipy.sparse as sp

import bmsdp
from bmsdp import Status
from bmsdp.cone import Given
from bmsdp.manifolds import Oblique, Sphere, SphereProduct, Unconstrained
from bmsdp.presolve import presolve
from bmsdp.presolved import Infeasible, Point

from .general import Instance, check_result, clarabel, hermitian, random_instance, semidefinite, value


def given_of(one):
    return Given.of(one.C, one.A, one.b, one.G or None, one.g if one.G else None, one.blocks)


def presolved(one, **keywords):
    given = given_of(one)
    from bmsdp.linear_maps import as_matrix_map

    return presolve(given._replace(A=as_matrix_map(given.A), A_geq=as_matrix_map(given.A_geq)), **keywords)


def unit(n, i, j=None):
    E = np.zeros((n, n))
    E[i, i if j is None else j] = E[i if j is None else j, i] = 1.0
    return E


def dense(A):
    return [A.rows[[j]].reshape((A.n, A.n)).toarray() for j in range(A.m)]


def parts_of(problem):
    return [type(p) for p in getattr(problem.manifold, "parts", [problem.manifold])]


def messy(seed):
    """A random instance with rows 0 = 0, copies, dependent rows, a face, bounds and redundant inequalities."""
    rng = np.random.default_rng([seed, 1])
    one = random_instance(seed)
    n, free, mask = one.n, one.is_free, one.mask
    A, b, G, g = list(one.A), list(one.b), list(one.G), list(one.g)
    inside = np.flatnonzero(~free)
    extra = [(np.zeros((n, n)), 0.0), (-2 * A[0], -2 * b[0])]
    if rng.random() < 0.5:
        extra.append((A[0] + A[-1], b[0] + b[-1]))
    for matrix, v in extra:
        at = int(rng.integers(len(A) + 1))
        A.insert(at, matrix)
        b.insert(at, v)
    above = [(np.zeros((n, n)), -1.0), (np.diag((~free).astype(float)), -0.5), (-unit(n, inside[0]), -50.0)]
    above += [(2.0 * G[0], 2 * g[0] - 1), (-G[0], -g[0] - 30.0)] if G else []
    for matrix, v in above:
        at = int(rng.integers(len(G) + 1))
        G.insert(at, matrix)
        g.insert(at, v)
    if rng.random() < 0.5:  # one direction, or one row, of a block is forced to vanish
        u = rng.standard_normal(n) * (mask[inside[-1]] & ~free) if rng.random() < 0.7 else np.eye(n)[inside[-1]]
        A.append(np.outer(u, u))
        b.append(0.0)
    return Instance(one.C, A, np.array(b), G, np.array(g), one.blocks)


@pytest.mark.parametrize("seed", range(40))
def test_the_lagrangian_is_the_same(seed):
    """For every point and all multipliers, in both coordinates; and so are cost and residuals."""
    one = messy(seed)
    rng = np.random.default_rng(seed)
    try:
        state = presolved(one)
    except Infeasible:
        pytest.skip("the face contradicts the other rows")
    n, m = state.A.n, state.A.m
    undo, dtype = state.undo[:-1], state.C.dtype

    def back(Y, y=None, z=None):
        point = Point(Y, np.zeros(0), np.zeros(m) if y is None else y, np.zeros(state.G.m) if z is None else z)
        for step in reversed(undo):
            point = step(point)
        X = (point.Y @ point.Y.conj().T) * one.mask
        X[one.is_free, one.is_free] = point.free
        assert len(point.y) == len(one.A) and len(point.z) == len(one.G)
        return point, X

    base, _ = back(np.zeros((n, 1), dtype))
    added = np.array([not p.Y.any() and np.array_equal(p.free, base.free) for p in (back(e[:, None])[0] for e in np.eye(n, dtype=dtype))])
    Y = rng.standard_normal((n, 3)) + (1j * rng.standard_normal((n, 3)) if state.is_complex else 0)
    Y[added] = 0
    y, z = rng.standard_normal(m), np.abs(rng.standard_normal(state.G.m))
    for j, a in enumerate(dense(state.A)):  # multipliers of slacks have a sign; a trace row that is not the caller's has 0
        y[j] = 0.0 if state.eq[j] < 0 and len(np.flatnonzero(added & (np.diag(a).real > 0))) else abs(y[j]) if state.eq[j] < 0 else y[j]
    point, X = back(Y, y, z)
    inner = Y @ Y.conj().T
    A, G, C = dense(state.A), dense(state.G), state.C.mul(np.eye(n, dtype=dtype))
    cost = np.vdot(C, inner).real + state.constant
    scale = 1 + np.abs(X).max() * (np.abs(one.C).sum() + sum(np.abs(a).sum() for a in one.A))
    assert np.vdot(one.C, X).real == pytest.approx(cost, abs=1e-10 * scale)
    here = cost - y @ (value(A, inner) - state.b) - (z @ (value(G, inner) - state.g) if len(G) else 0)
    kept = np.isin(np.arange(len(one.G)), [*state.geq, *(-1 - state.eq[state.eq < 0])])  # others: dropped, or solved for a free variable
    there = np.vdot(one.C, X).real - point.y @ (value(one.A, X) - one.b) - (point.z * kept) @ (value(one.G, X) - one.g)
    size = scale * (1 + np.abs(point.y).max() + np.abs(point.z).max(initial=0))
    assert there == pytest.approx(here, abs=1e-10 * size)
    for j in np.flatnonzero(state.eq >= 0):  # what a row lacks is what it lacked
        assert np.vdot(A[j], inner).real - state.b[j] == pytest.approx(
            np.vdot(one.A[state.eq[j]], X).real - one.b[state.eq[j]], abs=1e-9 * scale
        )


@pytest.mark.parametrize("seed", range(40))
def test_the_problem_is_what_the_rows_say(seed):
    """A point of the manifold is feasible for the rows it states, and the last step back carries multipliers and factors."""
    one = messy(seed)
    try:
        state = presolved(one)
    except Infeasible:
        pytest.skip("the face contradicts the other rows")
    problem, rng = state.problem, np.random.default_rng(seed)
    Z = problem.random_point(max(3, problem.manifold.min_rank), rng)
    mu = rng.standard_normal(problem.manifold.m + len(state.rest))
    point = state.undo[-1](Point(Z, np.zeros(0), mu, np.zeros(state.G.m)))
    X, A = point.Y @ point.Y.conj().T, dense(state.A)
    stated = np.setdiff1d(np.arange(state.A.m), state.rest)
    for j in stated:
        assert np.vdot(A[j], X).real == pytest.approx(state.b[j], rel=1e-9, abs=1e-9 * (1 + np.trace(X).real))
    C = state.C.mul(np.eye(state.A.n, dtype=state.C.dtype))
    assert problem.at(Z).cost == pytest.approx(np.vdot(C, X).real, rel=1e-9, abs=1e-8 * np.abs(C).sum())
    np.testing.assert_array_equal(point.y[state.rest], mu[problem.manifold.m :])
    stated, rest = np.split(mu, [problem.manifold.m])
    assert state.b @ point.y == pytest.approx(problem.manifold.b @ stated + state.b[state.rest] @ rest)
    np.testing.assert_allclose(state.enter[-1](point.Y), Z, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_messy_instances_have_the_optimum_of_clean_ones(seed):
    one = messy(seed)
    reference = clarabel(one)
    result = one.solve(rng=seed)
    if reference.status == "optimal" and result.success:
        check_result(one, result, reference.value)
    if result.success:
        assert reference.status in ("optimal", "optimal_inaccurate", "error")
    if reference.status == "optimal":
        assert result.status not in (Status.INFEASIBLE, Status.UNBOUNDED)


# contradictions


def ray_of(one, message, **keywords):
    """The result is INFEASIBLE for this reason, and its ray is one, by NumPy."""
    result = one.solve(rng=0, **keywords)
    assert result.status is Status.INFEASIBLE and not result.success and result.cost == np.inf
    assert message in result.message, result.message
    y, z = result.ray["dual"], result.ray["dual_geq"]
    M = (one.C - one.slack(y, z)) * one.mask
    free = one.is_free
    size = sum(abs(v) * np.linalg.norm(a) for v, a in zip(np.r_[y, z], [*one.A, *one.G], strict=True))
    assert (z >= 0).all() and one.b @ y + one.g @ z == pytest.approx(1, rel=1e-12)
    assert np.linalg.eigvalsh(M[np.ix_(~free, ~free)])[-1] <= 1e-12 * size
    assert np.abs(np.diag(M)[free]).max(initial=0) <= 1e-12 * size
    reference = clarabel(one)
    assert "infeasible" in reference.status or reference.status == "error"
    return result


I3, E3 = np.eye(3), np.ones((3, 3))
PSD2 = np.array([[2.0, 1, 0], [1, 2, 0], [0, 0, 0]])
CONTRADICTIONS = {
    "zero row": ([I3, 0 * I3], [1, 3.0], [], [], "row 1 of A says 0 = 3"),
    "zero inequality": ([I3], [1], [0 * I3], [0.5], "row 0 of A_geq says 0 >= 0.5"),
    "copies": ([I3, unit(3, 0, 1), -2 * unit(3, 0, 1)], [3, 0.25, -1.0], [], [], "rows 1 and 2 contradict each other: <A_j, X> = 0.25"),
    "copies of a diagonal": ([unit(3, 1), 3 * unit(3, 1)], [1, 6.0], [], [], "rows 0 and 1 contradict each other: X_1,1 = 1.0 and 2"),
    "two inequalities": ([I3], [1], [unit(3, 0, 2), E3, -2 * unit(3, 0, 2)], [0.4, -5, -0.6], "rows 0 and 2 of A_geq contradict"),
    "positive row": ([I3, E3], [1, -1.0], [], [], "row 1 of A is positive semidefinite but <A_j, X> = -1"),
    "negative row": ([I3, -PSD2], [1, 2.0], [], [], "row 1 of A is negative semidefinite but <A_j, X> = 2"),
    "negative trace": ([I3], [-1.0], [], [], "row 0 of A is positive semidefinite"),
    "negative inequality": ([I3], [1], [-PSD2], [0.1], "row 0 of A_geq is negative semidefinite"),
    "a row that vanishes on the face": ([I3, unit(3, 2) + unit(3, 1), unit(3, 1, 2)], [1, 0.0, 0.5], [], [], "row 2 of A says 0 = 0.5"),
    "inequality that vanishes on the face": ([I3, E3], [1, 0.0], [E3 + E3], [0.5], "row 0 of A_geq says 0 >= 0.5"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
@pytest.mark.parametrize("form", ["plain", "complex"])
def test_contradictions(name, form):
    A, b, G, g, message = CONTRADICTIONS[name]
    phase = np.exp(1j * np.arange(3)) if form == "complex" else np.ones(3)
    turn = lambda M: phase[:, None] * M * phase.conj()  # noqa: E731
    one = Instance(turn(np.diag([1.0, 2, 3])), [turn(a) for a in A], np.array(b, float), [turn(a) for a in G], np.array(g, float))
    ray_of(one, message)


def test_a_face_may_leave_no_attained_ray():
    """``X_22 = 0`` and ``X_12 = 0.7``: infeasible, but every ray only nearly is one; then none is claimed."""
    one = Instance(np.eye(2), [unit(2, 1), unit(2, 0, 1)], np.array([0.0, 0.7]), [], np.zeros(0))
    result = one.solve(rng=0)
    assert result.status is Status.INFEASIBLE and "row 1 of A says 0 = 0.7" in result.message
    assert result.ray is None


def test_contradictions_behind_free_variables():
    """The contradiction shows after elimination: its ray speaks of all the rows that were combined."""
    f = [("free", 1), ("psd", 3)]
    free, D = unit(4, 0), lambda M: np.pad(M, ((1, 0), (1, 0)))
    A = [D(I3), free + D(unit(3, 0, 1)), 2 * free + D(2 * unit(3, 0, 1))]
    result = ray_of(Instance(np.zeros((4, 4)), A, np.array([1, 1.0, 3.0]), [], np.zeros(0), f), "says 0 = ")
    assert np.count_nonzero(result.ray["dual"]) == 2
    A = [free + D(E3), -free + D(I3)]  # x = b_0 - <J, X>, so <I + J, X> = -1
    result = ray_of(Instance(np.zeros((4, 4)), A, np.array([1, -2.0]), [], np.zeros(0), f), "positive semidefinite but <A_j, X> = -1")
    np.testing.assert_allclose(result.ray["dual"], [-1, -1])
    A, G = [D(I3), free + D(E3)], [free]  # x = -<J, X> and x >= 0.5
    ray_of(Instance(np.zeros((4, 4)), A, np.array([1, 0.0]), G, np.array([0.5]), f), "row 0 of A_geq is negative semidefinite")


def test_a_bound_on_the_trace_below_zero():
    """No single row is definite, their sum is."""
    A, b = [np.diag([2.0, -1, 0.5]), np.diag([-1.0, 2, 0.5]) + 0.1 * unit(3, 0, 1)], [-1.0, -0.5]
    ray_of(Instance(np.eye(3), A, np.array(b), [], np.zeros(0)), "a combination of the rows bounds the trace of X by -")


def test_everything_zero_is_named():
    with pytest.raises(ValueError, match="the constraints force X = 0"):
        bmsdp.solve(np.eye(2), [np.eye(2)], [0.0])
    with pytest.raises(ValueError, match="the constraints force X = 0"):
        bmsdp.solve(np.eye(2), [np.diag([2.0, -1]), np.diag([-1.0, 2]) + 0.1 * unit(2, 0, 1)], [0.0, 0.0])


# the steps


def test_zero_rows_and_copies_have_no_multiplier():
    rng = np.random.default_rng(0)
    B, D = hermitian(rng, 5), np.diag(np.arange(5.0))
    X = semidefinite(rng, 5)
    A = [0 * B, np.eye(5), B, -3 * B, 0.1 * np.eye(5)]
    G = [-D, -0.5 * D, -4 * D, 0 * B]
    one = Instance(hermitian(rng, 5), A, value(A, X), G, np.array([*(value(G, X)[:3] - [1, 0, 2]), -1.0]))
    state = presolved(one)
    assert sorted(state.eq[state.eq >= 0]) == [1, 2] and list(state.geq) in ([1], [])
    assert "2 rows 0 = 0 dropped" in state.notes[0] and "4 duplicate rows dropped (3, 4)" in state.notes[1]
    result = one.solve(rng=0)
    check_result(one, result, clarabel(one).value)
    assert not result.dual[[0, 3, 4]].any() and not result.dual_geq[[0, 2, 3]].any()


def test_stored_zeros_are_none():
    rows = np.array([np.eye(3).ravel(), unit(3, 0, 1).ravel(), 0 * np.eye(3).ravel()])
    stacked = sp.csr_array(np.where(rows == 0, 7.0, rows))
    stacked.data[stacked.data == 7.0] = 0.0
    C = np.array([[1.0, -2, 0], [-2, 1, 0.3], [0, 0.3, 1]])
    one, two = bmsdp.solve(C, stacked, [1.0, 0.1, 0.0], rng=0), bmsdp.solve(C, [np.eye(3), unit(3, 0, 1)], [1.0, 0.1], rng=0)
    assert one.success and one.cost == two.cost and one.dual[2] == 0
    np.testing.assert_allclose(one.dual[:2], two.dual, rtol=1e-9)


def test_dependent_rows():
    """A row that is the sum of two others: consistent, or not."""
    rng = np.random.default_rng(1)
    A = [np.eye(6), hermitian(rng, 6), hermitian(rng, 6)]
    A.append(A[1] - 2 * A[2] + A[0])
    one = Instance(hermitian(rng, 6), A, value(A, semidefinite(rng, 6)), [], np.zeros(0))
    check_result(one, one.solve(rng=0), clarabel(one).value)
    two = Instance(one.C, A, one.b + [0, 0, 0, 0.5], [], np.zeros(0))
    result = two.solve(rng=0)
    assert result.status is Status.INFEASIBLE and "infeasible" in clarabel(two).status
    M = sum(v * a for v, a in zip(result.ray["dual"], A, strict=True))
    assert np.linalg.eigvalsh(M)[-1] <= 1e-11 and two.b @ result.ray["dual"] == pytest.approx(1)


@pytest.mark.parametrize("form", ["dense", "sparse", "scaled", "negative"])
def test_graph_bisection(form):
    """``<ee^T, X> = 0`` beside a unit diagonal: the row has no attained multiplier, Clarabel's is large, the value is the same."""
    W = bmsdp.gallery.gnp(12, 0.5, 0).toarray()
    C = (np.diag(W.sum(0)) - W) / 4
    factor = {"scaled": 1e-3, "negative": -5.0}.get(form, 1.0)
    one = Instance(C, [*(unit(12, i) for i in range(12)), factor * np.ones((12, 12))], np.r_[np.ones(12), 0.0], [], np.zeros(0))
    rows = sp.csr_array(np.array([a.ravel() for a in one.A])) if form == "sparse" else one.A
    result = bmsdp.solve(sp.csr_array(C) if form == "sparse" else C, rows, one.b, rng=0)
    reference = clarabel(one)
    assert result.success and result.cost == pytest.approx(reference.value, rel=1e-5) and result.bound <= reference.value + 1e-5
    assert any("rows 12 of A force X u = 0" in note for note in result.options["presolve"])
    assert abs(np.ones(12) @ result.X @ np.ones(12)) <= 1e-6


@pytest.mark.parametrize("is_complex", [False, True])
def test_semidefinite_rows_of_rank_two(is_complex):
    rng = np.random.default_rng(3)
    U = rng.standard_normal((7, 2)) + (1j * rng.standard_normal((7, 2)) if is_complex else 0)
    one = Instance(hermitian(rng, 7, is_complex), [-U @ U.conj().T, np.eye(7)], np.array([0.0, 2.0]), [], np.zeros(0))
    assert any("X has 2 rows less" in note for note in presolved(one).notes)
    result = one.solve(rng=0)
    assert result.success and np.abs(result.X @ U).max() <= 1e-9
    Q = np.linalg.qr(np.c_[U, rng.standard_normal((7, 5))])[0][:, 2:]
    smallest = np.linalg.eigvalsh(Q.conj().T @ one.C @ Q)[0]  # the answer on the face, by hand
    assert result.cost == pytest.approx(2 * smallest, rel=1e-6) and result.bound <= 2 * smallest * (1 - 1e-15 * np.sign(smallest))
    S = one.slack(result.dual, [])  # the multiplier of such a row is not attained: a large one serves
    assert np.linalg.eigvalsh(S)[0] >= -1e-9 * np.abs(S).max() and result.dual @ one.b == pytest.approx(result.bound)


def test_rows_that_vanish():
    """``X_22 + 3 X_44 = 0``, and an inequality that says the same of X_00."""
    rng = np.random.default_rng(4)
    A, G = [unit(6, 2) + 3 * unit(6, 4), np.eye(6), unit(6, 2, 3)], [-unit(6, 0), unit(6, 1)]
    one = Instance(hermitian(rng, 6), A, np.array([0.0, 1, 0]), G, np.array([0.0, 0]))
    result = one.solve(rng=0, tol=1e-8)
    left = [1, 3, 5]
    assert result.success and result.cost == pytest.approx(np.linalg.eigvalsh(one.C[np.ix_(left, left)])[0], rel=1e-7)
    assert not result.X[[0, 2, 4]].any()


def test_faces_and_other_rows():
    """Rows on a face, some of which vanish there up to rounding."""
    rng = np.random.default_rng(5)
    u, v, B = rng.standard_normal(6), rng.standard_normal(6), hermitian(rng, 6)
    P = np.eye(6) - np.outer(u, u) / (u @ u)
    A = [np.outer(u, u), np.outer(u, v) + np.outer(v, u), np.eye(6), B]
    one = Instance(hermitian(rng, 6), A, np.r_[0, 0, value(A[2:], P @ semidefinite(rng, 6) @ P)], [], np.zeros(0))
    Q = np.linalg.svd(u[None])[2][1:].T
    inner = Instance(Q.T @ one.C @ Q, [Q.T @ a @ Q for a in A[2:]], one.b[2:], [], np.zeros(0))
    result, best = one.solve(rng=0), clarabel(inner).value
    assert result.success and result.cost == pytest.approx(best, rel=1e-5, abs=1e-5) and result.bound <= best + 1e-6 * (1 + abs(best))
    assert np.abs(result.X @ u).max() <= 1e-9


def test_diagonal_inequalities_become_spheres():
    rng = np.random.default_rng(6)
    G = [-(unit(6, 0) + 2 * unit(6, 1)), -3 * unit(6, 2), -(unit(6, 3) + unit(6, 4) + unit(6, 5)), unit(6, 0)]
    one = Instance(hermitian(rng, 6), [], np.zeros(0), G, np.array([-2.0, -3, -1, 0.25]))
    state = presolved(one)
    assert "3 diagonal inequalities became spheres with a slack row" in state.notes and not state.unbounded
    assert state.A.n == 9 and state.problem.manifold.shift is not None and Unconstrained not in parts_of(state.problem)
    result = one.solve(rng=0)
    check_result(one, result, clarabel(one).value)
    assert result.dual_geq[:3].max() > 0


def test_trace_shift():
    """No row fixes a diagonal, but some combination of them is definite: a sphere with a slack row bounds X."""
    rng = np.random.default_rng(7)
    B = hermitian(rng, 5)
    A = [2 * np.eye(5) + B, np.eye(5) - B]
    one = Instance(hermitian(rng, 5), A, value(A, semidefinite(rng, 5)), [], np.zeros(0))
    state = presolved(one)
    assert any("A*(w) >= I was found: tr X <=" in note for note in state.notes)
    w, w_geq = state.caller_shift
    assert np.linalg.eigvalsh(w[0] * A[0] + w[1] * A[1])[0] >= 1 and not len(w_geq)
    result = one.solve(rng=0)
    check_result(one, result, clarabel(one).value)


def test_shift_in_the_callers_rows():
    """Found behind free variables, slacks, copies: ``A*(w) + A_geq*(w_geq) >= I``, 0 on free rows, ``w_geq <= 0``."""
    seen = 0
    for seed in range(40):
        rng, one = np.random.default_rng(seed), random_instance(seed, bounded=0)
        definite = (4 * np.eye(one.n) + hermitian(rng, one.n)) * one.mask  # sees the free variables as well
        one.A, one.b = [*one.A, definite, one.A[0] + definite], np.r_[one.b, 5.0, one.b[0] + 5]
        try:
            state = presolved(one)
        except Infeasible:
            continue
        if state.caller_shift is None:
            continue
        w, w_geq = state.caller_shift
        M = -(one.slack(w, w_geq) - one.C * one.mask)
        free = one.is_free
        seen += 1
        assert np.linalg.eigvalsh(M[np.ix_(~free, ~free)])[0] >= 1 - 1e-9 and (w_geq <= 0).all()
        assert np.abs(np.diag(M)[free]).max(initial=0) <= 1e-9 * np.abs(w).max(initial=1)
    assert seen >= 5


def test_trace_bound():
    """Given where no row says so: it is used, and the bound is wrong without it."""
    C = np.diag([1.0, -1, 2])
    plain = bmsdp.solve(C, [unit(3, 0, 2)], [0.3], rng=0, method="augmented_lagrangian")
    assert plain.status is Status.UNBOUNDED
    result = bmsdp.solve(C, [unit(3, 0, 2)], [0.3], rng=0, trace_bound=5.0)
    one = Instance(C, [unit(3, 0, 2)], np.array([0.3]), [-np.eye(3)], np.array([-5.0]))
    assert result.success and result.cost == pytest.approx(clarabel(one).value, rel=1e-5) and result.bound <= result.cost + 1e-9


def test_overlapping_spheres():
    """Only one of two overlapping diagonal rows becomes a sphere; what it leaves out is bounded all the same."""
    rng = np.random.default_rng(8)
    A = [np.diag([1.0, 1, 0, 0]), np.diag([0, 1.0, 1, 2])]
    one = Instance(hermitian(rng, 4), A, np.array([1.0, 1.5]), [], np.zeros(0))
    state = presolved(one)
    assert state.problem.manifold.shift is not None
    check_result(one, one.solve(rng=0), clarabel(one).value)


def test_what_is_recognised():
    trace = presolved(Instance(np.eye(4), [np.eye(4), hermitian(np.random.default_rng(0), 4)], np.ones(2), [], np.zeros(0)))
    assert parts_of(trace.problem) == [Sphere] and list(trace.rest) == [1]
    unit_rows = presolved(Instance(np.eye(3), [*(unit(3, i) for i in range(3)), E3], np.ones(4), [], np.zeros(0)))
    assert parts_of(unit_rows.problem) == [Oblique] and not unit_rows.unbounded and len(unit_rows.problem.terms) == 1
    pairs = presolved(Instance(np.eye(4), [np.diag([1.0, 0, 1, 0]), np.diag([0, 2.0, 0, 2])], np.ones(2), [], np.zeros(0)))
    assert parts_of(pairs.problem) == [SphereProduct] and not pairs.problem.terms
