"""Shipped schedules: what they are, which one is chosen, and that they beat the best constant on fresh instances of their family."""

import itertools
import math

import numpy as np
import pytest

from bmsdp import Oblique, Problem, gallery
from bmsdp.solvers import Mixing
from bmsdp.theory.relaxations import SCHEDULES
from bmsdp.theory.schedules import schedule


def test_relaxations_are_in_the_open_interval():
    for kinds in SCHEDULES.values():
        for L, omega in kinds.items():
            assert len(omega) == L and all(1 < w < 2 for w in omega)
            assert Mixing(schedule=omega).schedule == omega
            assert omega[-1] < max(omega), "nothing comes after the last sweep, so it relaxes less"


@pytest.mark.parametrize(
    ("kind", "numbers", "options"),
    [
        ("sparse", (1000, 8.0), {}),
        ("regular", (1000, 3.0), {}),
        ("dense", (1000, 50.0), {}),
        ("dense", (20, 19.0), {}),
        ("regular", (1, 0.0), {}),
        ("phases", (1000, 8.0), {"complex": True}),
        ("dense phases", (1000, 999.0), {"complex": True}),
    ],
)
def test_chosen_by_numbers(kind, numbers, options):
    assert schedule(*numbers, **options) == SCHEDULES[kind][16]


def test_longest_that_fits():
    lengths = sorted(SCHEDULES["sparse"])
    for L in range(1, 40):
        assert len(schedule(100, 8.0, L=L)) == max([l for l in lengths if l <= L], default=lengths[0])


@pytest.mark.parametrize("bad", [(0, 0.0), (10, -1.0), (10, 11.0), (10, float("nan"))])
def test_numbers_of_no_problem_are_refused(bad):
    with pytest.raises(ValueError, match="needs n, L >= 1"):
        schedule(*bad)
    with pytest.raises(ValueError, match="L = 0"):
        schedule(10, 3.0, L=0)


FAMILIES = {
    "sparse": lambda seed: gallery.gnp(300, 7 / 299, seed),
    "regular": lambda seed: gallery.random_regular(300, 4, seed),
    "dense": lambda seed: gallery.goe(150, seed),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_beats_every_constant_of_as_many_sweeps(kind):
    """Geometric means over fresh instances; the optimum is where mixing ends."""
    L, found = 16, {}
    for seed in range(4):
        C = FAMILIES[kind](seed)
        problem = Problem(C, Oblique(np.ones(C.shape[0])))
        Y = problem.random_point(26, np.random.default_rng(seed))
        for model, _ in Mixing(sweeps=50).iterates(problem, Y):
            if model.grad_norm <= 1e-9 * model.grad_scale:
                break
        best = model.cost
        for omega in [SCHEDULES[kind][L], *((w,) * L for w in np.arange(1.4, 1.9, 0.05))]:
            *_, (_, info) = itertools.islice(Mixing(sweeps=L, schedule=omega).iterates(problem, Y), 2)
            found.setdefault(omega, []).append(math.log((info["merit"] - best) / abs(best)))
    ours, *others = (np.mean(gaps) for gaps in found.values())
    assert ours < min(others) - math.log(1.1)
