import math
from itertools import combinations
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
from scipy import sparse

import bmsdp
from bmsdp import gallery
from bmsdp.applications import bisection, maxcut
from bmsdp.operators import as_operator
from bmsdp.rounding import cut_value


def minimum(W):
    """Brute force over all halves."""
    n = W.shape[0]
    best = math.inf
    for side in combinations(range(n), n // 2):
        x = np.full(n, -1)
        x[list(side)] = 1
        best = min(best, cut_value(W, x))
    return best


def adjacency(graph):
    return sparse.csr_array(nx.to_scipy_sparse_array(graph, dtype=float))


def fake(W, bound, Y):
    """What ``recover`` reads of a result."""
    return SimpleNamespace(data=SimpleNamespace(C=as_operator(-maxcut.laplacian_cost(W))), bound=bound, Y=Y)


@pytest.mark.parametrize("graph", [
    nx.gnp_random_graph(10, 0.4, seed=1), nx.gnp_random_graph(9, 0.5, seed=2), nx.cycle_graph(12), nx.cycle_graph(7),
    nx.barbell_graph(5, 0), nx.path_graph(2), nx.complete_graph(3), nx.grid_2d_graph(4, 4),
], ids=str)  # fmt: skip
def test_bound_and_bisection_against_brute_force(graph):
    result = bmsdp.solve(bisection.problem(graph), rng=0)
    found = bisection.recover(result, rng=0)
    best = minimum(adjacency(graph))
    assert result.success, result.message
    assert found.bound <= best + 1e-9 and found.value == best == cut_value(adjacency(graph), found.x)
    assert abs(int(found.x.sum())) == len(graph) % 2


@pytest.mark.parametrize("n", [8, 9])
def test_formulation_against_clarabel(n, clarabel):
    W = gallery.wide_weights(n, 0.7, 1, 4)
    problem = bisection.problem(W)
    reference = clarabel(problem)
    assert reference.X.sum() == pytest.approx(n % 2, abs=1e-5) and np.diag(reference.X) == pytest.approx(1, abs=1e-6)
    found = bisection.recover(reference, rng=0)
    assert found.bound <= minimum(W) and found.value == pytest.approx(minimum(W), rel=1e-12)
    result = bmsdp.solve(problem, rng=0)
    assert result.success and result.cost == pytest.approx(reference.cost, rel=5e-6)
    assert np.abs(result.Y.sum(axis=0)).max() < 1e-6 or n % 2


def test_stated_as_data_it_is_the_same_problem():
    W = gallery.planted_partition(30, 2, 0.5, 0.1, rng=0)
    C = (-maxcut.laplacian_cost(W)).toarray()
    A = [np.ones((30, 30)), *(np.diag(row) for row in np.eye(30))]
    result = bmsdp.solve(C, A, [0.0, *np.ones(30)], rng=0)
    ours = bmsdp.solve(bisection.problem(W), rng=0)
    assert result.success and ours.success and result.cost == pytest.approx(ours.cost, rel=5e-6)
    found = bisection.recover(result, rng=0)
    assert found.bound <= found.value == bisection.recover(ours, rng=0).value


def test_planted_halves_are_found_and_proved():
    W = gallery.planted_partition(100, 2, 0.5, 0.05, rng=1)
    result = bmsdp.solve(bisection.problem(W), rng=0)
    found = bisection.recover(result, rng=0)
    planted = np.where(np.arange(100) < 50, 1, -1)
    assert abs(found.x @ planted) == 100
    assert found.value == cut_value(W, planted) and found.gap < 2e-6  # the relaxation is tight here
    assert sorted(map(len, found.sides)) == [50, 50]


def test_halves_are_halves():
    for n in range(2, 9):
        x = bisection.halves(np.random.default_rng(n).standard_normal(n))
        assert x.dtype == np.int8 and x.sum() == -(n % 2)
    assert bisection.halves(np.zeros(4)).tolist() == [1, 1, -1, -1]


@pytest.mark.parametrize("W", [
    gallery.wide_weights(24, 0.4, 2, 0), gallery.gnp(31, 0.3, 0), -gallery.gnp(20, 0.5, 0), gallery.toroidal_grid(5, 5, 0),
])  # fmt: skip
def test_no_swap_is_left(W):
    n = W.shape[0]
    start = bisection.halves(np.random.default_rng(1).standard_normal(n))
    end = bisection.swap(W, start)
    assert end.sum() == start.sum() and cut_value(W, end) <= cut_value(W, start)
    for i, j in combinations(range(n), 2):
        if end[i] != end[j]:
            other = end.copy()
            other[[i, j]] *= -1
            assert cut_value(W, other) >= cut_value(W, end) - 1e-11 * abs(W).sum()


def test_recover_is_a_function_of_the_seed():
    W = gallery.toroidal_grid(12, 12, 0, weights="gaussian")
    result = fake(W, -1e3, np.random.default_rng(0).standard_normal((144, 3)))
    same, again, other = (bisection.recover(result, rng=s, trials=3).x for s in (1, np.random.default_rng(1), 2))
    assert np.array_equal(same, again) and not np.array_equal(same, other)


def test_bounds_below_zero():
    W = adjacency(nx.path_graph(4))
    Y = np.eye(4)
    assert bisection.recover(fake(W, -3.0, Y), rng=0).bound == 0
    assert bisection.recover(fake(-W, -3.0, Y), rng=0).bound == -3.0
    unbounded = bisection.recover(fake(W, -math.inf, Y), rng=0)
    assert unbounded.bound == -math.inf and math.isnan(unbounded.gap) and unbounded.value == 1
    apart = bisection.recover(fake(sparse.csr_array((4, 4)), 0.0, Y), rng=0)
    assert apart.value == apart.bound == apart.gap == 0


def test_rounding_of_the_degrees_is_part_of_the_bound():
    for seed in range(20):
        W = gallery.wide_weights(16, 0.5, 6, seed)
        x = bisection.halves(np.random.default_rng(seed).standard_normal(16)).astype(float)
        C = -maxcut.laplacian_cost(W).toarray()
        exact = math.fsum((C * np.outer(x, x)).ravel())
        found = bisection.recover(fake(W, exact, x[:, None]), rng=0, trials=1, local_search=False)
        assert found.bound <= found.value <= found.bound + 1e-14 * abs(W).sum()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="halves need at least 2"):
        bisection.problem(nx.empty_graph(1))
    with pytest.raises(ValueError, match="to_undirected"):
        bisection.problem(nx.DiGraph([(0, 1)]))
    with pytest.raises(ValueError, match="warm_start"):
        bisection.recover(SimpleNamespace(data=None, bound=0.0, Y=np.eye(3)))
    with pytest.raises(ValueError, match="trials"):
        bisection.recover(fake(adjacency(nx.path_graph(4)), 0.0, np.eye(4)), trials=0)
