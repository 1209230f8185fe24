"""CVXPY's problems in our standard form and back, solved by Clarabel on both sides: an oracle that knows no translator."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

cp = pytest.importorskip("cvxpy", reason="CVXPY is not installed")

from bmsdp.interfaces.cvxpy import BMSDP, conic, registered, run, standard, tree  # noqa: E402
from bmsdp.linear_maps import MatrixMap  # noqa: E402
from bmsdp.result import Status  # noqa: E402

from . import cases, reference  # noqa: E402

WAYS = {
    "rows": lambda problem, **options: problem.solve(solver=BMSDP(), **options),
    "direct": lambda problem, **options: problem.solve(solver=BMSDP(direct_cones=True), **options),
    "tree": lambda problem, **options: registered.solve_problem(problem, **options),
}


@pytest.fixture
def by_clarabel(monkeypatch):
    monkeypatch.setattr(run, "solve_standard", reference.solve_standard)


def note(problem):
    return problem.solver_stats.extra_stats.options["cvxpy"]


@pytest.mark.parametrize("make", cases.CASES, ids=lambda make: make.__name__)
def test_values_and_multipliers_are_those_of_clarabel(make, by_clarabel):
    case = make(np.random.default_rng(1))
    problem = case.problem
    reference.solve(problem)
    value, primal, duals = problem.value, [x.value for x in case.unique], [c.dual_value for c in case.duals]
    for way, solve in WAYS.items():
        solve(problem)
        assert problem.status == cp.OPTIMAL
        assert note(problem)["form"] == case.form
        assert problem.value == pytest.approx(value, rel=1e-7, abs=1e-7)
        assert problem.objective.value == pytest.approx(value, rel=1e-7, abs=1e-7)
        for x, expected in zip(case.unique, primal, strict=True):
            np.testing.assert_allclose(x.value, expected, atol=1e-4, err_msg=f"{way}: {x}")
        for constraint, expected in zip(case.duals, duals, strict=True):
            assert np.shape(constraint.dual_value) == np.shape(expected)
            if not cases.is_multiplier(constraint, expected):
                continue
            if cases.halved(constraint) and note(problem).get("compiled") == "":
                expected = 2 * expected
            np.testing.assert_allclose(constraint.dual_value, expected, atol=2e-3, err_msg=f"{way}: {constraint}")


def symmetric_from(rows, n, svec):
    if not svec:
        return rows.reshape(n, n, order="F")
    M, (j, i) = np.zeros((n, n)), np.tril_indices(n)
    M[i, j] = M[j, i] = rows / np.where(i == j, 1, np.sqrt(2))
    return M


@pytest.mark.parametrize("form", ["auto", "primal", "dual"])
@pytest.mark.parametrize("make", cases.CASES, ids=lambda make: make.__name__)
def test_optimality_conditions_hold_in_the_rows_of_cvxpy(make, form, by_clarabel):
    """``A x + s = b``, ``c + A'y = 0``, s and y in the cones, ``s'y = 0``: in either form, whatever is unique."""
    data, *_ = make(np.random.default_rng(2)).problem.get_problem_data(BMSDP())
    answer = BMSDP().solve_via_data(data, False, False, {"form": form})
    x, y = answer["primal"], np.concatenate([answer["eq_dual"], answer["ineq_dual"]])
    s, dims = data["b"] - data["A"] @ x, data["dims"]
    assert form in ("auto", answer["outcome"].result.options["cvxpy"]["form"])
    assert answer["status"] == cp.OPTIMAL
    np.testing.assert_allclose(data["c"] + data["A"].T @ y, 0, atol=1e-6)
    np.testing.assert_allclose(s[: dims.zero], 0, atol=1e-6)
    assert answer["value"] == pytest.approx(data["c"] @ x)
    assert data["c"] @ x + data["b"] @ y == pytest.approx(0, abs=1e-6 * (1 + abs(answer["value"])))
    start = dims.zero + dims.nonneg
    for cone in (s[dims.zero : start], y[dims.zero : start]):
        assert cone.min(initial=0) >= -1e-6
    for n in dims.psd:
        S, Z = (symmetric_from(v[start : start + n * n], n, False) for v in (s, y))
        start += n * n
        np.testing.assert_allclose(Z, Z.T, atol=0)
        assert np.linalg.eigvalsh((S + S.T) / 2)[0] >= -1e-6  # of a matrix that is not symmetric, this part is meant
        assert np.linalg.eigvalsh(Z)[0] >= -1e-6
    assert start == len(y)


@pytest.mark.parametrize(("make", "status"), cases.HOPELESS, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("way", WAYS)
def test_hopeless_problems_are_named_the_right_way_round(make, status, way, by_clarabel):
    problem = make()
    WAYS[way](problem)
    assert problem.status == status
    assert problem.value == {"infeasible": np.inf, "unbounded": -np.inf}[status]
    assert all(x.value is None for x in problem.variables())


def test_a_maximum_that_is_unbounded_is_plus_infinity(by_clarabel):
    X = cp.Variable((2, 2), PSD=True)
    problem = cp.Problem(cp.Maximize(cp.trace(X)), [X[0, 0] == 1])
    for solve in WAYS.values():
        solve(problem)
        assert (problem.status, problem.value) == ("unbounded", np.inf)


def test_statuses():
    assert {status: run.status_of(status, "primal") for status in Status} == {
        Status.CERTIFIED: cp.OPTIMAL,
        Status.ESTIMATED: cp.OPTIMAL,
        Status.RANK_TOO_SMALL: cp.OPTIMAL_INACCURATE,
        Status.LOCALLY_OPTIMAL: cp.OPTIMAL_INACCURATE,
        Status.STALLED: cp.OPTIMAL_INACCURATE,
        Status.MAX_ITER: cp.USER_LIMIT,
        Status.MAX_TIME: cp.USER_LIMIT,
        Status.INTERRUPTED: cp.USER_LIMIT,
        Status.INFEASIBLE: cp.INFEASIBLE,
        Status.UNBOUNDED: cp.UNBOUNDED,
    }
    assert run.status_of(Status.INFEASIBLE, "dual") == cp.UNBOUNDED
    assert run.status_of(Status.UNBOUNDED, "dual") == cp.INFEASIBLE
    assert run.status_of(Status.STALLED, "dual") == cp.OPTIMAL_INACCURATE


@pytest.mark.parametrize("way", WAYS)
def test_limits_keep_the_point_and_warn(way, monkeypatch):
    def stopped(form, options, verbose):
        return dataclasses.replace(reference.solve_standard(form, options, verbose), status=Status.MAX_TIME, message="time limit")

    monkeypatch.setattr(run, "solve_standard", stopped)
    case = cases.maxcut(np.random.default_rng(0))
    with pytest.warns(UserWarning, match="inaccurate"):
        WAYS[way](case.problem)
    assert case.problem.status == cp.USER_LIMIT
    np.testing.assert_allclose(np.diag(case.unique[0].value), 1, atol=1e-7)


@pytest.mark.parametrize("make", [cases.maxcut, cases.eigenvalue], ids=["primal", "dual"])
def test_a_point_without_a_proof_is_judged_by_its_errors(make, monkeypatch):
    """Optimal where all DIMACS errors are at most tol, inaccurate near that, refused where variables violate constraints."""
    size = 0.0

    def stalled(form, options, verbose):
        exact = reference.solve_standard(form, options, verbose)
        off = {"Y": exact.Y * (1 + size)} if form.form == "primal" else {"dual": exact.dual + size * np.abs(exact.dual).max()}
        return dataclasses.replace(exact, status=Status.STALLED, message="no further progress", **off)

    monkeypatch.setattr(run, "solve_standard", stalled)
    problem = make(np.random.default_rng(0)).problem
    problem.solve(solver=BMSDP())
    assert problem.status == cp.OPTIMAL and note(problem)["errors"].worst <= 1e-6
    size = 1e-4
    with pytest.warns(UserWarning, match="inaccurate"):
        problem.solve(solver=BMSDP())
    assert problem.status == cp.OPTIMAL_INACCURATE and 1e-6 < note(problem)["errors"].worst < 1e-2
    size = 0.1
    with pytest.raises(cp.error.SolverError, match="violates the constraints.*STALLED: no further progress.*interior_point"):
        problem.solve(solver=BMSDP())


# what the standard form is


def program_of(problem):
    data, *_ = problem.get_problem_data(BMSDP())
    return conic.read_conic(data["A"], data["b"], data["c"], data["dims"])


def test_a_matrix_inequality_has_one_row_for_each_variable():
    form = standard.translate(program_of(cases.eigenvalue(np.random.default_rng(0)).problem))
    assert form.A.shape == (4, 36)


def test_a_matrix_variable_adds_no_rows():
    form = standard.translate(program_of(cases.maxcut(np.random.default_rng(0)).problem))
    assert form.A.shape == (7, 49) and form.A.nnz == 7 and form.blocks is None and form.A_geq is None


def test_a_hermitian_variable_is_one_complex_block():
    program = program_of(cases.phases(np.random.default_rng(0)).problem)
    form = standard.translate(program)
    assert program.is_complex and [block.size for block in program.blocks] == [5]
    assert form.C.dtype.kind == "c" and form.A.shape == (5, 25)  # Im diag X = 0 is gone


def test_both_triangles_of_a_nonnegative_matrix_are_one_row_and_share_its_multiplier(by_clarabel):
    X = cp.Variable((4, 4), symmetric=True)
    sign = X >= 0
    C = cases.symmetric(np.random.default_rng(3), 4)
    problem = cp.Problem(cp.Minimize(cp.trace(C @ X)), [X >> 0, sign, cp.trace(X) == 1])
    assert standard.translate(program_of(problem)).A_geq.shape[0] == 10
    for solve in WAYS.values():
        solve(problem)
        np.testing.assert_array_equal(sign.dual_value, sign.dual_value.T)
        assert sign.dual_value.max() > 0.1
        assert np.abs(sign.dual_value * X.value).max() < 1e-6


@pytest.mark.parametrize("complex_", [False, True])
def test_the_matrices_of_rows_are_their_adjoint(complex_, rng):
    def block(n):
        i, j = np.triu_indices(n)
        off = i < j if complex_ else np.zeros(len(i), bool)
        imag = np.repeat([False, True], [len(i), off.sum()])
        return conic.Block(n, np.append(i, i[off]), np.append(j, j[off]), imag, sp.csr_array((1, 1)), np.zeros(1))

    layout = standard.Layout.of([block(3), block(2)], 2, 1)
    k = layout.starts[-1]
    R = rng.standard_normal((4, k)) * (rng.random((4, k)) < 0.5)
    Y = rng.standard_normal((8, 5)) + complex_ * 1j * rng.standard_normal((8, 5))
    Y[7] = 0
    result = reference.Reference(Status.CERTIFIED, 0.0, Y=Y, free=np.array([-0.7]))
    X = Y @ Y.conj().T
    X[7, 7] = -0.7
    A = layout.matrices(sp.csr_array(R))
    np.testing.assert_allclose((A.toarray().conj() @ X.ravel()).real, R @ layout.coordinates(result), atol=1e-12)
    for row in A.toarray():
        np.testing.assert_array_equal(row.reshape(8, 8), row.reshape(8, 8).conj().T)
    values = layout.as_matrices(layout.coordinates(result), weighted=False)
    np.testing.assert_allclose(values[1], X[3:5, 3:5], atol=1e-12)
    weighted = layout.as_matrices(R[0], weighted=True)
    np.testing.assert_allclose(weighted[0], A.toarray()[0].reshape(8, 8)[:3, :3], atol=1e-15)


@pytest.mark.parametrize("signed", [False, True])
def test_rows_that_repeat_share_a_multiplier(signed, rng):
    """``M' y`` does not change when y is spread over repeated rows, and rows that differ stay apart."""
    base = sp.random_array((6, 9), density=0.5, rng=rng).tolil()
    base[2] = 0
    take = rng.integers(0, 6, 40)
    turn = rng.choice([-1.0, 1.0], 40) if signed else np.ones(40)
    rhs = turn * np.arange(6.0)[take] * (take != 2)
    matrix = sp.csr_array(sp.diags_array(turn) @ sp.csr_array(base)[take])
    rows = conic.distinct_rows(matrix, rhs, signed)
    assert len(rows.rhs) == len(set(take) - {2})
    assert (rows.home[take == 2] == -1).all()
    on = take != 2
    np.testing.assert_array_equal(rows.sign[on, None] * rows.matrix.toarray()[rows.home[on]], matrix.toarray()[on])
    y = rng.standard_normal(len(rows.rhs))
    np.testing.assert_allclose(matrix.T @ rows.spread(y), rows.matrix.T @ y, atol=1e-12)
    np.testing.assert_allclose(rhs @ rows.spread(y), rows.rhs @ y, atol=1e-12)
    np.testing.assert_allclose(rows.gathered(rows.spread(y)), y, atol=1e-14)
    apart = conic.distinct_rows(matrix[[on.argmax()] * 2], np.array([1.0, 2.0]), signed)
    assert len(apart.rhs) == 2


def test_a_row_that_cannot_hold_is_named():
    X = cp.Variable((3, 3), symmetric=True)
    problem = cp.Problem(cp.Minimize(cp.trace(X)), [X >> 0, cp.diag(X) == 1, X[0, 1] - X[1, 0] >= 2])
    assert "inequality row 0" in program_of(problem).contradiction
    for solve in WAYS.values():
        solve(problem)
        assert problem.status == cp.INFEASIBLE
        assert "no X satisfies" in problem.solver_stats.extra_stats["message"]


def test_the_embedding_of_hermitian_matrices_is_recognised_and_nothing_else_is(rng):
    R, B = cases.symmetric(rng, 2), rng.standard_normal((2, 2))
    x = cp.Variable(2)

    def block(M):
        program = program_of(cp.Problem(cp.Minimize(cp.sum(x)), [np.eye(4) * x[0] + M * x[1] >> 0]))
        return program.blocks[0]

    skew = B - B.T
    assert block(np.block([[R, -skew], [skew, R]])).imag.any()
    twice = block(np.block([[R, 0 * R], [0 * R, R]]))
    assert twice.size == 2 and twice.embedded and not twice.imag.any()
    assert block(np.block([[R, B.T], [B, R]])).size == 4
    assert block(np.block([[R, -skew], [skew, 2 * R]])).size == 4


# the expression tree


def expressions(rng):
    X, v, s = cp.Variable((3, 4)), cp.Variable(3), cp.Variable()
    H = cp.Variable((3, 3), hermitian=True)
    M, N, c = rng.standard_normal((2, 3)), rng.standard_normal((4, 5)), rng.standard_normal((3, 3)) + 1j
    p = cp.Parameter((3, 4), value=rng.standard_normal((3, 4)))
    sparse = sp.random_array((3, 4), density=0.5, rng=rng)
    return [
        2 * X - p + s, -X / 3, M @ X, X @ N, M @ X @ N + 1, M @ v, np.ones(3) @ X, rng.standard_normal(3) @ v,
        np.ones(3) @ X @ np.ones(4),
        cp.multiply(p, X), cp.multiply(sparse, X), cp.sum(X), cp.sum(X, axis=0), cp.sum(X, axis=1, keepdims=True),
        cp.sum(cp.multiply(sparse, X)), cp.trace(X[:, :3]), cp.trace(sparse @ X.T), cp.diag(v), cp.diag(X[:, 1:]), X.T, X[1], X[:, 2],
        X[::-1, ::2], X[2:0:-1, -3:-1],
        X[[0, 2], [1, 1]], X[np.arange(12).reshape(3, 4) % 5 == 1], X[1, 2], v[-1], cp.reshape(X, (2, 6), order="C"),
        cp.reshape(X, (2, 6), order="F"), cp.vec(X, order="C"), cp.hstack([X, X[:, :1]]), cp.vstack([X, X[0:1]]), cp.hstack([v, s, 1]),
        cp.vstack([v, v]), cp.bmat([[X, cp.reshape(v, (3, 1), order="F")], [X[:1], np.ones((1, 1))]]), cp.upper_tri(X[:, :3]),
        X + cp.reshape(v, (3, 1), order="F") @ np.ones((1, 4)), cp.real(H), cp.imag(c @ H), cp.conj(c @ H) + H.T, cp.real(cp.trace(c @ H)),
        cp.multiply(c, H)[0], H.H - H, 1j * H @ c, v * s.value if s.value else v, sum(X[i, i] for i in range(3)), cp.outer(np.ones(2), v),
    ]  # fmt: skip


def test_functionals_of_a_tree_are_its_values(rng):
    """Re-evaluated from the weights at random values of the variables, for every atom that is read."""
    for expression in expressions(rng):
        for variable in expression.variables():
            value = rng.standard_normal(variable.shape)
            variable.value = value + value.T + 1j * (value - value.T) if variable.is_complex() else value
        found = tree.functionals(expression)
        total = found.constant.copy()
        for variable in expression.variables():
            for w in found.variables.get(variable.id, []):
                at = np.ravel(variable.value, order="F")[w.col]
                np.add.at(total, w.row, w.val * (at.conj() if w.conj else at))
        value = expression.value.toarray() if sp.issparse(expression.value) else expression.value
        np.testing.assert_allclose(total, np.ravel(value, order="F"), atol=1e-12, err_msg=str(expression))


def test_a_tree_is_read_without_listing_entries():
    n = 300
    X = cp.Variable((n, n), symmetric=True)
    C = sp.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[-1, 1])
    problem = cp.Problem(cp.Minimize(cp.trace(C @ X)), [cp.diag(X) == 1, X >> 0, X[0, 5] + X[7, 2] <= 3])
    weights = tree.functionals(problem.objective.expr).variables[X.id]
    assert sum(len(w.col) for w in weights) <= 2 * n
    read = registered._read(problem)
    assert read.A.nnz == n and read.A_geq.nnz == 4 and read.C.nnz == 2 * (n - 1)


def test_what_the_tree_does_not_read_is_compiled_and_said(by_clarabel):
    X, Z = cp.Variable((3, 3), symmetric=True), cp.Variable((3, 3), symmetric=True)
    problems = {
        "semidefinite constraint on an expression": [X >> 0, X - np.eye(3) / 5 >> 0, cp.trace(X) == 1, Z == 0],
        "neither semidefinite nor plain": [X >> 0, cp.trace(X) == 1, Z == X],
        "not affine": [X >> 0, cp.trace(X) == 1, cp.max(X) <= 0.7, Z >> 0, Z == 0],
        "cumsum": [X >> 0, cp.trace(X) == 1, cp.cumsum(cp.diag(X))[:2] <= 0.5, Z >> 0, Z == 0],
    }
    for reason, constraints in problems.items():
        with pytest.raises(tree.Unreadable, match=reason):
            registered._read(cp.Problem(cp.Minimize(X[0, 1]), constraints))
        problem = cp.Problem(cp.Minimize(X[0, 1] + Z[0, 0]), constraints)
        registered.solve_problem(problem)
        assert problem.status == cp.OPTIMAL and reason in note(problem)["compiled"]
        value = problem.value
        assert value == pytest.approx(reference.solve(problem), abs=1e-6)


def test_multipliers_of_the_tree_make_the_gradient_vanish(by_clarabel, rng):
    """``C + sum y_j A_j - sum z_j G_j = S`` as a matrix, from the tree's standard form and CVXPY's multipliers."""
    case = cases.inequalities(rng)
    registered.solve_problem(case.problem)
    read = registered._read(case.problem)
    fixed, cone, product, entry, diagonal = (c.dual_value for c in case.duals)
    z = np.concatenate([[product], [entry], diagonal])
    S = read.C - MatrixMap(read.A, 5).matrix(-np.array([fixed])) - MatrixMap(read.A_geq, 5).matrix(z)
    np.testing.assert_allclose(S.toarray(), cone, atol=1e-12)


# words


def test_other_cones_are_refused_by_name():
    X = cp.Variable((3, 3), PSD=True)
    problem = cp.Problem(cp.Maximize(cp.sum(cp.log(cp.diag(X)))), [cp.trace(X) == 1])
    for solve in WAYS.values():
        with pytest.raises(cp.error.SolverError, match="ExpCone"):
            solve(problem)
    p = cp.Variable((3, 3), integer=True)
    with pytest.raises(cp.error.SolverError, match="integer" if cases.NEW else "conic solvers"):
        cp.Problem(cp.Minimize(cp.trace(X)), [X == p]).solve(solver=BMSDP())


def test_a_norm_is_rewritten_by_cvxpy(by_clarabel, rng):
    """CVXPY states a second-order cone as a semidefinite one, with repeated entries."""
    B = cases.symmetric(rng, 3)
    X = cp.Variable((3, 3), symmetric=True)
    diagonal = cp.diag(X) == 1
    problem = cp.Problem(cp.Minimize(cp.norm(X - B, "fro")), [diagonal, X >> 0])
    reference.solve(problem)
    value, dual = problem.value, diagonal.dual_value
    problem.solve(solver=BMSDP())
    assert problem.value == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(diagonal.dual_value, dual, atol=1e-4)


def test_unknown_options_are_refused_by_name():
    problem = cases.maxcut(np.random.default_rng(0)).problem
    for solve in WAYS.values():
        with pytest.raises(ValueError, match="max_iters.*is no option of bmsdp; it takes.*max_time"):
            solve(problem, max_iters=3)
        with pytest.raises(ValueError, match='"auto", "primal" or "dual"'):
            solve(problem, form="both")
