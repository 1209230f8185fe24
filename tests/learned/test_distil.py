"""Plain schedules fitted to the compiled sweep."""

import math

import numpy as np
import pytest

from bmsdp import Oblique, Problem, Sphere, StiefelProduct, gallery
from bmsdp.learned import distil
from bmsdp.solvers import Mixing


def graph(seed, n=60):
    return Problem(gallery.gnp(n, 6 / n, seed), Oblique(np.ones(n)))


@pytest.fixture(scope="module")
def trials():
    return distil.samples([graph(seed) for seed in range(6)], 11, rng=0)


def test_a_run_is_the_gap_of_mixing(trials):
    trial, omega = trials[0], [1.3, 1.6, 1.1]
    start = trial.start.copy()
    iterates = Mixing(sweeps=1, schedule=tuple(omega)).iterates(trial.problem, trial.start)
    model = [model.copy() for (model, _), _ in zip(iterates, range(4), strict=False)][-1]
    assert trial.run(omega) == pytest.approx((model.cost - trial.optimum) / abs(trial.optimum), rel=1e-9)
    assert trial.run(omega) == trial.run(omega) and np.array_equal(trial.start, start)
    adaptive = [model.copy() for (model, _), _ in zip(Mixing(sweeps=1).iterates(trial.problem, trial.start), range(5), strict=False)][-1]
    assert trial.adaptive(4) == pytest.approx(trial.gap(adaptive.cost), rel=1e-9)


@pytest.mark.parametrize(
    "problem",
    [
        Problem(gallery.gue(20, 0), Oblique(gallery.random_radii(20, 1, 1))),
        Problem(gallery.goe(20, 0), Oblique(np.ones(20))),
        Problem(gallery.orthogonal_synchronization(10, 2, 0.5, 0, p=0.5)[0], StiefelProduct(10, 2)),
    ],
)
def test_other_fields_costs_and_blocks(problem):
    (trial,) = distil.samples([problem], 7, rng=0)
    far = trial.run([1.5] * 40)
    assert -1e-9 <= far < 1e-3 < trial.run([1.5])
    wide = Problem(problem.C.matrix() + 5 * np.eye(problem.n), problem.manifold)  # a multiple of I, or with it of tr, adds a constant
    shifted = distil.Sample(wide, trial.start)
    assert shifted.run([1.5]) == pytest.approx(trial.run([1.5]), rel=1e-6)


def test_optimum_is_certified():
    problem = graph(0)
    assert distil.optimum(problem) == pytest.approx(trial_optimum(problem), rel=1e-8)


def trial_optimum(problem):
    Y, best = problem.random_point(12, np.random.default_rng(1)), math.inf
    for (model, _), _ in zip(Mixing().iterates(problem, Y), range(200), strict=False):
        best = min(best, model.cost)
    return best


def test_the_best_constant_is_the_best_constant(trials):
    w = distil.best_constant(trials, 6)
    here = distil.log_gap([w] * 6, trials)
    assert 1.2 < w < 1.8 and all(distil.log_gap([v] * 6, trials) >= here for v in (1.0, w - 0.01, w + 0.01, 1.95))


def test_polishing_improves_and_its_end_is_stationary(trials):
    L = 6
    start = [distil.best_constant(trials, L)] * L
    found = distil.polish(start, trials)
    value = distil.log_gap(found, trials)
    assert value < distil.log_gap(start, trials) - 0.05
    assert ((found > 1) & (found < 2)).all() and found[-1] < found.max() - 0.2  # the last sweep has nothing left to save up for
    again = distil.polish(np.full(L, 1.9), trials)
    assert distil.log_gap(again, trials) == pytest.approx(value, abs=0.01)  # from far away: the same schedule


def test_what_has_no_sweep_is_refused():
    with pytest.raises(TypeError, match="no compiled sweep for Sphere"):
        distil.Sample(Problem(np.eye(3), Sphere(3)), np.eye(3) / 3**0.5, 1.0)
