"""`bmsdp` as a CVXPY solver, from modelling to multipliers, against Clarabel."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import bmsdp
from bmsdp.applications import maxcut

cp = pytest.importorskip("cvxpy", reason="CVXPY is not installed")

from bmsdp.interfaces import cvxpy as plugin  # noqa: E402
from bmsdp.interfaces.cvxpy import BMSDP, registered  # noqa: E402

from . import cases, reference  # noqa: E402

WAYS = {
    "rows": lambda problem, **options: problem.solve(solver=BMSDP(), **options),
    "direct": lambda problem, **options: problem.solve(solver=BMSDP(direct_cones=True), **options),
    "tree": lambda problem, **options: registered.solve_problem(problem, **options),
}


@pytest.mark.parametrize("make", cases.CASES, ids=lambda make: make.__name__)
def test_values_and_multipliers_are_those_of_clarabel(make):
    case = make(np.random.default_rng(1))
    problem = case.problem
    reference.solve(problem)
    value, primal, duals = problem.value, [x.value for x in case.unique], [c.dual_value for c in case.duals]
    for way in ("rows", "tree"):
        WAYS[way](problem, rng=0, tol=1e-7)
        result = problem.solver_stats.extra_stats
        assert problem.status == cp.OPTIMAL
        assert result.options["cvxpy"]["form"] == case.form
        assert problem.value == pytest.approx(value, rel=2e-6, abs=1e-6)
        assert problem.objective.value == pytest.approx(problem.value, rel=1e-6, abs=1e-6)
        for x, expected in zip(case.unique, primal, strict=True):
            np.testing.assert_allclose(x.value, expected, atol=5e-3, err_msg=f"{way}: {x}")
        for constraint, expected in zip(case.duals, duals, strict=True):
            if cases.halved(constraint) and result.options["cvxpy"].get("compiled") == "":
                expected = 2 * expected
            if not cases.is_multiplier(constraint, expected):
                continue
            assert np.shape(constraint.dual_value) == np.shape(expected)
            np.testing.assert_allclose(constraint.dual_value, expected, atol=1e-2, err_msg=f"{way}: {constraint}")


@pytest.mark.parametrize("make", cases.CASES, ids=lambda make: make.__name__)
def test_optimality_conditions_hold_in_the_rows_of_cvxpy(make):
    data, *_ = make(np.random.default_rng(3)).problem.get_problem_data(BMSDP())
    answer = BMSDP().solve_via_data(data, False, False, {"rng": 0, "tol": 1e-7})
    x, y = answer["primal"], np.concatenate([answer["eq_dual"], answer["ineq_dual"]])
    s, dims = data["b"] - data["A"] @ x, data["dims"]
    scale = 1 + max(np.abs(x).max(), np.abs(y).max())
    assert answer["status"] == cp.OPTIMAL
    assert np.abs(data["c"] + data["A"].T @ y).max() <= 1e-5 * scale
    assert np.abs(s[: dims.zero]).max(initial=0) <= 1e-5 * scale
    assert abs(data["c"] @ x + data["b"] @ y) <= 1e-5 * scale
    start = dims.zero + dims.nonneg
    assert min(s[dims.zero : start].min(initial=0), y[dims.zero : start].min(initial=0)) >= -1e-5 * scale
    for n in dims.psd:
        for v in (s, y):
            M = v[start : start + n * n].reshape(n, n)
            assert np.linalg.eigvalsh((M + M.T) / 2)[0] >= -1e-5 * scale
        start += n * n


@pytest.mark.parametrize(("make", "status"), cases.HOPELESS, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("way", WAYS)
def test_hopeless_problems_are_named(make, status, way):
    problem = make()
    WAYS[way](problem, rng=0)
    assert problem.status == status
    assert problem.value == {"infeasible": np.inf, "unbounded": -np.inf}[status]


# what users touch


@pytest.mark.parametrize("way", WAYS)
def test_parameters_are_solved_again_from_where_the_last_solve_ended(way):
    X, C = cp.Variable((12, 12), symmetric=True), cp.Parameter((12, 12), symmetric=True)
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(C, X))), [cp.diag(X) == 1, X >> 0])
    rng = np.random.default_rng(0)
    C.value = cases.symmetric(rng, 12)
    WAYS[way](problem, rng=0)
    first = problem.solver_stats.extra_stats
    assert not first.options["warm_start"]
    C.value = C.value + 1e-3 * cases.symmetric(rng, 12)
    WAYS[way](problem, rng=0)
    second, value = problem.solver_stats.extra_stats, problem.value
    assert second.options["warm_start"]
    WAYS[way](problem, rng=0, warm_start=False)
    assert not problem.solver_stats.extra_stats.options["warm_start"]
    assert problem.value == pytest.approx(value, rel=2e-6)
    assert problem.value == pytest.approx(reference.solve(problem), rel=2e-6)
    assert second.products <= first.products


@pytest.mark.parametrize("way", WAYS)
def test_options_reach_the_solver_and_the_result_comes_back(way, capsys):
    case = cases.maxcut(np.random.default_rng(0))
    WAYS[way](case.problem, rank=5, tol=1e-8, rng=3, verbose=True)
    result = case.problem.solver_stats.extra_stats
    assert isinstance(result, bmsdp.Result)
    assert result.rank == 5 and result.options["tol"] == 1e-8 and result.options["rng"] == 3
    assert "bmsdp: n = 7" in capsys.readouterr().out
    assert case.problem.solver_stats.solver_name == "BMSDP"
    assert case.problem.solver_stats.num_iters == result.nit
    assert case.problem.solver_stats.solve_time == result.time
    assert -case.problem.value == pytest.approx(result.cost, rel=1e-9)
    WAYS[way](case.problem, rank=4, rng=3)  # fewer columns than the last result has: not from there
    assert case.problem.solver_stats.extra_stats.rank == 4


@pytest.mark.parametrize("way", WAYS)
def test_a_rank_that_does_not_suffice_is_inaccurate_and_warns(way):
    """The pentagon: rank one means cuts, of at most 4 edges; the relaxation has 4.52."""
    X = cp.Variable((5, 5), symmetric=True)
    edges = sum(X[i, j] for i, j in cases.pentagon())
    problem = cp.Problem(cp.Maximize((5 - edges) / 2), [cp.diag(X) == 1, X >> 0])
    with pytest.warns(UserWarning, match="inaccurate"):
        WAYS[way](problem, rank=1, rng=0)
    assert problem.status == cp.OPTIMAL_INACCURATE
    assert problem.value <= 4 + 1e-9 and np.linalg.matrix_rank(X.value) == 1
    WAYS[way](problem, rng=0)
    assert problem.value == pytest.approx(5 * (1 + np.cos(np.pi / 5)) / 2, rel=2e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_time_limit_keeps_the_best_point(way):
    n = 60
    C = cases.symmetric(np.random.default_rng(0), n)
    X = cp.Variable((n, n), symmetric=True)
    problem = cp.Problem(cp.Minimize(cp.trace(C @ X)), [cp.diag(X) == 1, X >> 0])
    with pytest.warns(UserWarning, match="inaccurate"):
        WAYS[way](problem, max_time=1e-9, tol=1e-12, rng=0)
    assert problem.status == cp.USER_LIMIT
    np.testing.assert_allclose(np.diag(X.value), 1, atol=1e-9)


def test_register_makes_a_method_of_problems():
    plugin.register()
    case = cases.maxcut(np.random.default_rng(4))
    value = case.problem.solve(method="bmsdp", rng=0, rank=5)
    assert value == pytest.approx(reference.solve(case.problem), rel=2e-6)
    plugin.register("low_rank")
    assert case.problem.solve(method="low_rank", rng=0) == pytest.approx(value, rel=2e-6)


def test_a_problem_of_a_thousand_rows_is_solved_without_the_compiler():
    n = 1000
    W = bmsdp.gallery.toroidal_grid(40, 25, rng=0)
    C = maxcut.laplacian_cost(W)
    X = cp.Variable((n, n), symmetric=True)
    diagonal, cone = cp.diag(X) == 1, X >> 0
    problem = cp.Problem(cp.Minimize(cp.trace(C @ X)), [diagonal, cone])
    registered.solve_problem(problem, rng=0)
    assert problem.status == cp.OPTIMAL and problem.compilation_time is None
    assert problem.value == pytest.approx(bmsdp.solve(C, rng=0).cost, rel=2e-6)
    np.testing.assert_allclose(cone.dual_value, (C + sp.diags_array(diagonal.dual_value)).toarray(), atol=1e-12)
    assert abs(np.vdot(cone.dual_value, X.value)) <= 1e-5 * abs(problem.value)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_cvxpy_the_import_says_what_to_install():
    done = run("import sys; sys.modules['cvxpy'] = None; import bmsdp; import bmsdp.interfaces; import bmsdp.interfaces.cvxpy")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("ImportError: ") and 'pip install "bmsdp[cvxpy]"' in done.stderr


def test_importing_the_interface_does_not_import_cvxpy():
    done = run("import sys, bmsdp, bmsdp.interfaces.cvxpy; print([name for name in sys.modules if name.split('.')[0] == 'cvxpy'])")
    assert done.stdout.strip() == "[]", done.stderr


def test_no_warning_where_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for solve in WAYS.values():
            solve(cases.phases(np.random.default_rng(0)).problem, rng=0)
