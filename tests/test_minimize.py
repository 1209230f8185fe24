import itertools
import time
from dataclasses import dataclass

import numpy as np
import pytest

from bmsdp import Oblique, Problem, Status, gallery, minimize
from bmsdp.result import Result
from bmsdp.solvers import LBFGS, GradientDescent, Mixing, TrustRegion

N = 20
PROBLEM = Problem(gallery.goe(N, 0), Oblique(np.ones(N)))
START = PROBLEM.random_point(6, np.random.default_rng(0))
SOLVERS = pytest.mark.parametrize("solver", [TrustRegion(), LBFGS(), Mixing()], ids=lambda s: type(s).__name__)


@SOLVERS
def test_finds_a_critical_point(solver):
    kept = START.copy()
    result = minimize(PROBLEM, solver, START, tol=1e-7, progress=False)
    model = PROBLEM.at(result.Y)
    assert isinstance(result, Result) and result.status is Status.LOCALLY_OPTIMAL and not result.success
    assert model.grad_norm <= 1e-7 * model.grad_scale and np.isclose(model.cost, result.cost)
    np.testing.assert_allclose(result.dual, model.mu)
    assert result.bound == -np.inf and result.gap == np.inf and result.certificate is None
    assert "no certificate was asked for" in result.message and result.rank == 6 and result.time > 0
    assert np.array_equal(START, kept) and not np.shares_memory(result.Y, START)
    assert result.options["tol"] == 1e-7 and type(solver).__name__ in result.options["solver"] and "numpy" in result.versions


@SOLVERS
def test_history(solver):
    result = minimize(PROBLEM, solver, START, tol=1e-7, progress=False)
    history = result.history
    assert list(history) == ["nit", "time", "products", "rank", "merit", "grad_norm", "gap"]
    lengths = {len(column) for column in history.values()}
    assert len(lengths) == 1 and lengths.pop() >= 2
    assert (
        np.all(np.diff(history["time"]) >= 0)
        and np.all(np.diff(history["products"]) >= 0)
        and np.all(np.diff(history["nit"]) >= 0)
    )
    assert history["nit"][-1] == result.nit and history["products"][-1] == result.products
    assert np.isclose(history["merit"][-1], result.cost) and np.all(history["rank"] == 6)
    assert np.isclose(history["merit"][0], PROBLEM.at(START).cost) and np.isnan(history["gap"]).all()
    assert history["time"][-1] <= result.time


def test_a_critical_start_takes_no_step():
    first = minimize(PROBLEM, TrustRegion(), START, tol=1e-10, progress=False)
    again = minimize(PROBLEM, TrustRegion(), first.Y, tol=1e-8, progress=False)
    assert again.nit == 1 == len(again.history["nit"]) and np.array_equal(again.Y, first.Y)


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_max_iter(limit):
    result = minimize(PROBLEM, GradientDescent(), START, tol=0.0, max_iter=limit, progress=False)
    assert result.status is Status.MAX_ITER and result.nit == limit and "max_iter" in result.message


def test_inner_iterates_do_not_count():
    problem = Problem(gallery.toroidal_grid(20, 20, 0), Oblique(np.ones(400)))
    result = minimize(problem, TrustRegion(), rank=5, rng=0, tol=1e-9, max_iter=80, progress=False)
    assert result.nit <= 80 and len(result.history["nit"]) > result.nit == len(np.unique(result.history["nit"]))


@pytest.mark.parametrize("solver", [TrustRegion(), GradientDescent()], ids=lambda s: type(s).__name__)
def test_max_time(solver):
    start = time.perf_counter()
    result = minimize(PROBLEM, solver, START, tol=0.0, max_time=0.05, max_iter=None, progress=False)
    assert result.status in (Status.MAX_TIME, Status.STALLED) and time.perf_counter() - start < 2
    result = minimize(PROBLEM, GradientDescent(), START, tol=1e-16, max_time=0.0, progress=False)
    assert result.status is Status.MAX_TIME and result.nit == 1


def test_standstill_is_said():
    result = minimize(PROBLEM, LBFGS(), START, tol=1e-30, progress=False, max_iter=5000)
    assert result.status is Status.STALLED
    model = PROBLEM.at(result.Y)
    assert model.grad_norm <= 1e-8 * model.grad_scale


def test_callback_sees_every_iterate_and_stops():
    seen = []

    def callback(model, info):
        seen.append((model.cost, info["products"]))
        if len(seen) == 4:
            raise StopIteration

    result = minimize(PROBLEM, LBFGS(), START, callback=callback, progress=False)
    assert result.status is Status.INTERRUPTED and len(seen) == 4 == len(result.history["nit"])
    assert result.cost == pytest.approx(seen[-1][0]) and result.products == seen[-1][1]


@SOLVERS
def test_keyboard_interrupt_returns_the_best_point(solver):
    seen = []

    def callback(model, info):
        seen.append((model.cost, model.Y.copy()))
        if len(seen) == 5:
            raise KeyboardInterrupt

    result = minimize(PROBLEM, solver, START, tol=0.0, callback=callback, progress=False)
    assert result.status is Status.INTERRUPTED and "warm_start" in result.message
    assert result.cost == pytest.approx(min(cost for cost, _ in seen), rel=1e-12)
    assert np.array_equal(result.Y, seen[-1][1])


@dataclass(frozen=True)
class Interrupted:
    """A solver during which the user presses Ctrl-C after so many iterates."""

    after: int

    def iterates(self, problem, Y):
        yield from itertools.islice(GradientDescent().iterates(problem, Y), self.after)
        raise KeyboardInterrupt


@pytest.mark.parametrize("after", [0, 3])
def test_keyboard_interrupt_inside_the_solver(after):
    result = minimize(PROBLEM, Interrupted(after), START, progress=False)
    assert result.status is Status.INTERRUPTED and result.nit == after
    assert after or np.array_equal(result.Y, START)
    assert np.isfinite(result.cost)


def test_other_errors_of_a_callback_are_the_callers():
    def callback(model, info):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        minimize(PROBLEM, LBFGS(), START, callback=callback, progress=False)


@dataclass(frozen=True)
class Ends:
    def iterates(self, problem, Y):
        yield problem.at(Y), {"products": 1}


def test_a_solver_that_ends_is_an_error():
    with pytest.raises(RuntimeError, match="Ends.iterates ended; a solver has to yield for ever"):
        minimize(PROBLEM, Ends(), START, tol=0.0, progress=False)


@dataclass(frozen=True)
class Estimates:
    """Free estimates of the gradient: 0 from the first iterate on, but only the true one may end a run."""

    def iterates(self, problem, Y):
        for model, info in GradientDescent().iterates(problem, Y):
            yield model, {"products": info["products"], "grad_norm": 0.0, "merit": model.merit}


def test_an_estimate_of_the_gradient_ends_nothing():
    result = minimize(PROBLEM, Estimates(), START, tol=1e-2, progress=False)
    model = PROBLEM.at(result.Y)
    assert result.nit > 1 and model.grad_norm <= 1e-2 * model.grad_scale


def test_eps_g_is_absolute():
    for eps in (1.0, 1e-4):
        result = minimize(PROBLEM, LBFGS(), START, eps_g=eps, progress=False)
        assert PROBLEM.at(result.Y).grad_norm <= eps and result.status is Status.LOCALLY_OPTIMAL
    loose = minimize(PROBLEM, LBFGS(), START, eps_g=1.0, progress=False)
    assert PROBLEM.at(loose.Y).grad_norm > 1e-4


def test_zero_cost():
    problem = Problem(np.zeros((3, 3)), Oblique(np.ones(3)))
    for arguments in ({}, {"eps_g": 1e-3}):
        result = minimize(problem, LBFGS(), rank=2, rng=0, progress=False, **arguments)
        assert result.status is Status.LOCALLY_OPTIMAL and result.cost == 0 and result.nit == 1


def test_random_start_is_an_argument():
    runs = [
        minimize(PROBLEM, LBFGS(), rank=4, rng=seed, progress=False, max_iter=1) for seed in (1, 1, np.random.default_rng(1), 2)
    ]
    assert np.array_equal(runs[0].Y, runs[1].Y) and np.array_equal(runs[0].Y, runs[2].Y)
    assert not np.array_equal(runs[0].Y, runs[3].Y) and runs[0].Y.shape == (N, 4)


def test_global_random_state_is_left_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    minimize(PROBLEM, LBFGS(), rank=4, progress=False, max_iter=3)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_refusals():
    with pytest.raises(ValueError, match="neither Y nor rank"):
        minimize(PROBLEM, LBFGS())
    for name in ("eps_g", "eps_H"):
        with pytest.raises(ValueError, match=f"{name} = -1; a positive finite number is needed, in the units of the"):
            minimize(PROBLEM, LBFGS(), START, **{name: -1})


@pytest.mark.parametrize(
    "Y", [np.ones((N + 1, 2)), np.ones(N), np.full((N, 2), np.nan), np.ones((N, 0))], ids=["rows", "vector", "nan", "no columns"]
)
def test_bad_starts_are_refused(Y):
    with pytest.raises(ValueError, match=r"Y|start"):
        minimize(PROBLEM, LBFGS(), Y, progress=False, max_iter=2)


def test_starts_are_brought_to_the_form_that_kernels_need():
    """Real starts of a complex problem, and column-major ones."""
    problem = Problem(gallery.gue(N, 0), Oblique(np.ones(N)))
    for Y in (START, np.asfortranarray(START)):
        for other in (problem, PROBLEM):
            result = minimize(other, LBFGS(), Y, progress=False)
            assert result.status is Status.LOCALLY_OPTIMAL and result.Y.dtype == other.dtype


@pytest.mark.parametrize("rank", [0, -1])
def test_bad_ranks_are_refused(rank):
    with pytest.raises(ValueError, match="rank"):
        minimize(PROBLEM, LBFGS(), rank=rank, progress=False, max_iter=2)


def test_result_survives_its_file(tmp_path):
    result = minimize(PROBLEM, LBFGS(), START, progress=False)
    result.save(tmp_path / "a.npz")
    again = Result.load(tmp_path / "a.npz")
    assert np.array_equal(again.Y, result.Y) and again.status is result.status and again.cost == result.cost
    assert all(np.array_equal(again.history[k], result.history[k], equal_nan=True) for k in result.history)


def test_progress_bar(capsys):
    minimize(PROBLEM, LBFGS(), START, progress=True)
    minimize(PROBLEM, LBFGS(), START)
    captured = capsys.readouterr()
    assert captured.out == ""


def test_nothing_is_printed_without_a_terminal(capsys):
    minimize(PROBLEM, LBFGS(), START)
    assert capsys.readouterr() == ("", "")
