"""Schedules of Mixing: the first sweeps as told, then the adaptive rule, on every kind of sweep."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from bmsdp import Oblique, Problem, StiefelProduct, gallery, operators
from bmsdp.solvers import Mixing, mixing

N = 30
SCHEDULE = (1.2, 2.0, 0.7, 1.9, 1.5, 1.1, 1.75)


def problem_of(kind, threads=1):
    rng = np.random.default_rng(0)
    A = rng.standard_normal((N, N)) * (rng.random((N, N)) < 0.3)
    B = A + 1j * rng.standard_normal((N, N)) * (A != 0)
    C, Z = A + A.T, B + B.conj().T
    return {
        "sparse": lambda: Problem(sp.csr_array(C), Oblique(np.linspace(0.5, 2, N))),
        "dense": lambda: Problem(C, Oblique(np.ones(N))),
        "complex": lambda: Problem(sp.csr_array(Z), Oblique(np.ones(N))),
        "coloured": lambda: Problem(sp.csr_array(C), Oblique(np.ones(N)), threads=2),
        "blocks": lambda: Problem(sp.csr_array(C), StiefelProduct(N // 3, 3)),
        "blocks of one row": lambda: Problem(sp.csr_array(C), StiefelProduct(N, 1)),
    }[kind]()


KINDS = pytest.mark.parametrize("kind", ["sparse", "dense", "complex", "coloured", "blocks", "blocks of one row"])


@pytest.fixture(autouse=True)
def small_problems_in_colours(monkeypatch):
    monkeypatch.setattr(mixing, "COLOURED_ROWS", 0)
    monkeypatch.setattr(operators, "SMALL_PRODUCT", 0)


def start(problem, k=6):
    return problem.random_point(k, np.random.default_rng(1))


@KINDS
@pytest.mark.parametrize("sweeps", [1, 3, 7])
def test_first_sweeps_are_those_of_the_schedule(kind, sweeps):
    problem = problem_of(kind)
    Y = start(problem)
    rows = Oblique(np.ones(N)) if kind == "blocks of one row" else problem.manifold
    sweep = mixing.sweeper(rows, problem, Z := Y.copy())
    merit = problem.at(Y).cost
    for _, (model, info) in zip(range(-1, 21, sweeps), Mixing(sweeps=sweeps, schedule=SCHEDULE).iterates(problem, Y), strict=False):
        done = info["products"] - 1
        if done > len(SCHEDULE):
            break
        for omega in SCHEDULE[done - sweeps : done] if done else ():
            merit -= sweep(omega)[0]
            assert info["omega"] == SCHEDULE[done - 1]
        assert np.array_equal(model.Y, Z) and info["merit"] == pytest.approx(merit, rel=1e-13)
    assert done > len(SCHEDULE)


@KINDS
def test_converges_after_it_and_never_rises(kind):
    problem, merit = problem_of(kind), np.inf
    for model, info in itertools.islice(Mixing(schedule=SCHEDULE).iterates(problem, start(problem)), 400):
        assert info["merit"] <= merit
        merit = info["merit"]
        if model.grad_norm <= 1e-9 * model.grad_scale:
            return
    pytest.fail("no convergence")


def omegas(solver, count):
    problem = Problem(gallery.toroidal_grid(8, 8, 0), Oblique(np.ones(64)))
    return [info["omega"] for _, info in itertools.islice(solver.iterates(problem, start(problem)), 1, count)]


def test_goes_on_from_its_largest_relaxation():
    after = omegas(Mixing(sweeps=1, schedule=(1.3, 1.8, 1.2)), 40)
    assert after[:3] == [1.3, 1.8, 1.2] and 1.8 - 1e-12 <= after[3] <= 1.82
    assert np.all(np.diff(after[3:]) >= 0) and after[-1] > 1.8
    assert omegas(Mixing(sweeps=1, schedule=(0.5,)), 8)[1:] == omegas(Mixing(sweeps=1), 8)[1:], "the rule runs along"
    high = omegas(Mixing(sweeps=1, schedule=(2.0, 1.9)), 4)
    assert high[:2] == [2.0, 1.9] and 1.8 <= high[2] <= 1.81 and omegas(Mixing(omega_max=1.7, sweeps=1, schedule=(1.9,)), 3)[1] == 1.7


def test_goes_on_with_a_fixed_relaxation():
    assert omegas(Mixing(omega=1.6, sweeps=1, schedule=(1.3, 1.8)), 6) == [1.3, 1.8, 1.6, 1.6, 1.6]


def test_without_schedule_nothing_changes():
    for solver in (Mixing(), Mixing(omega=1.5)):
        problem = problem_of("sparse")
        runs = [itertools.islice(each.iterates(problem, start(problem)), 20) for each in (solver, Mixing(solver.omega, schedule=()))]
        assert all(np.array_equal(one.Y, two.Y) for (one, _), (two, _) in zip(*runs, strict=True))
    assert omegas(Mixing(sweeps=1), 12) == pytest.approx([2 - 10 / (10 + s) for s in range(11)])


def test_operators_have_no_relaxation():
    C = problem_of("dense").C.matrix()
    operator = spla.LinearOperator(C.shape, matvec=lambda v: C @ v, matmat=lambda V: C @ V, dtype=float)
    problem = Problem(operator, Oblique(np.ones(N)))
    runs = [itertools.islice(solver.iterates(problem, start(problem)), 10) for solver in (Mixing(), Mixing(schedule=SCHEDULE))]
    assert all(np.array_equal(one.Y, two.Y) for (one, _), (two, _) in zip(*runs, strict=True))


@pytest.mark.parametrize("bad", [0.0, -1.0, 2.0001, np.nan, np.inf])
def test_relaxations_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=r"schedule\[1\] = .*0 < omega <= 2"):
        Mixing(schedule=(1.5, bad))


def test_any_sequence_becomes_a_tuple_of_numbers():
    assert Mixing(schedule=np.array([1.5, 2.0])).schedule == (1.5, 2.0) == Mixing(schedule=[1.5, 2]).schedule
    assert hash(Mixing(schedule=[1.5])) == hash(Mixing(schedule=(1.5,))) and Mixing(schedule=[1.5]) == Mixing(schedule=(1.5,))
