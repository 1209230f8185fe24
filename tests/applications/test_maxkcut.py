import math
from fractions import Fraction
from itertools import product
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
from scipy import sparse

import bmsdp
from bmsdp import gallery
from bmsdp.applications import maxcut, maxkcut
from bmsdp.operators import as_operator


def maximum(W, k):
    """Brute force, vertex 0 in part 0."""
    n = W.shape[0]
    return max(maxkcut.k_cut_value(W, np.array([0, *rest])) for rest in product(range(k), repeat=n - 1))


def adjacency(graph):
    return sparse.csr_array(nx.to_scipy_sparse_array(graph, dtype=float))


def fake(W, k, bound, Y):
    """What ``recover`` reads of a result."""
    side = np.full(3, -1 / (k - 1)) if k > 2 else np.zeros(0)
    data = SimpleNamespace(C=as_operator(maxcut.laplacian_cost(W)), b_geq=side)
    return SimpleNamespace(data=data, bound=bound, Y=Y)


def slow_value(W, parts):
    W = W.toarray()
    return sum(W[i, j] for i in range(len(W)) for j in range(i) if parts[i] != parts[j])


@pytest.mark.parametrize(("k", "graph", "relaxation", "cut"), [
    (3, nx.complete_graph(7), 16.333333, 16),
    (4, nx.complete_graph(6), 13.5, 13),
    (3, nx.complete_multipartite_graph(2, 3, 2), 16.0, 16),
    (3, nx.cycle_graph(5), 5.0, 5),
    (5, nx.petersen_graph(), 15.0, 15),
])  # fmt: skip
def test_known_cuts(k, graph, relaxation, cut):
    """On K_n the optimum has X_ij = -1/(n-1), so n (n-1)/2 (k-1)/k n/(n-1); k-colourable graphs are cut whole."""
    result = bmsdp.solve(maxkcut.problem(graph, k), rng=0)
    found = maxkcut.recover(result, k, rng=0)
    assert result.success, result.message
    assert found.value == cut <= found.bound <= relaxation * (1 + 3e-6) and found.bound >= relaxation - 1e-6
    assert found.value == slow_value(adjacency(graph), found.parts) and found.k == k


@pytest.mark.parametrize("pairs", ["all", "edges"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_bound_against_brute_force_and_clarabel(k, pairs, clarabel):
    W = gallery.wide_weights(7, 0.6, 1, 5)
    problem = maxkcut.problem(W, k, pairs=pairs)
    reference = clarabel(problem)
    best = maximum(W, k)
    assert maxkcut.recover(reference, k, rng=0).bound >= best * (1 - 1e-12)
    result = bmsdp.solve(problem, rng=0)
    found = maxkcut.recover(result, k, rng=0)
    assert result.success and result.cost == pytest.approx(reference.cost, rel=5e-6)
    assert found.value <= best <= found.bound
    assert found.value == pytest.approx(best, rel=1e-12), "with local search on 7 vertices"


def test_bounds_by_edges_are_weaker_and_shrink_with_fewer_parts(clarabel):
    graph = nx.gnp_random_graph(8, 0.6, seed=1)
    solved = {(k, p): clarabel(maxkcut.problem(graph, k, pairs=p)) for k in (2, 3, 4) for p in ("all", "edges")}
    bounds = {(k, p): maxkcut.recover(result, k, rng=0).bound for (k, p), result in solved.items()}
    assert bounds[2, "all"] <= bounds[3, "all"] + 1e-4 and bounds[3, "all"] <= bounds[4, "all"] + 1e-4
    assert all(bounds[k, "all"] <= bounds[k, "edges"] + 1e-4 for k in (2, 3, 4))


def test_two_parts_are_the_maximum_cut():
    W = gallery.toroidal_grid(6, 5, 0)
    two, cut = maxkcut.problem(W, 2), maxcut.problem(W)
    assert not two.terms and (two.C.matrix() != cut.C.matrix()).nnz == 0
    result = bmsdp.solve(two, rng=0)
    assert maxkcut.recover(result, 2, rng=0).bound == pytest.approx(maxcut.recover(result, rng=0).bound, rel=1e-14)


def test_every_partition_satisfies_the_inequalities_exactly():
    for k in range(3, 60):
        term = maxkcut.problem(nx.path_graph(3), k).terms[0]
        assert all(Fraction(side) <= Fraction(-1, k - 1) for side in term.b)
        assert (np.abs(term.b + 1 / (k - 1)) < 1e-15).all()


def test_value_and_bound_when_the_factor_rounds():
    """A tree is cut whole: value and bound agree although 2 (k-1)/k and the degrees are rounded."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        tree = nx.star_graph(30)
        for *_, data in tree.edges(data=True):
            data["weight"] = 10.0 ** rng.uniform(-3, 3)
        W = adjacency(tree)
        C = maxcut.laplacian_cost(W).toarray()
        X = np.full((31, 31), 1.0)
        X[0, 1:] = X[1:, 0] = -0.5
        exact = math.fsum((C * X).ravel())
        found = maxkcut.recover(fake(W, 3, exact, np.eye(31)), 3, rng=0)
        assert found.value == pytest.approx(math.fsum(W.data) / 2, rel=1e-15)
        assert found.value <= found.bound <= found.value * (1 + 1e-14)


def test_recover_finds_the_maximum_of_small_graphs():
    for seed in range(4):
        W = gallery.wide_weights(8, 0.6, 3, seed)
        found = maxkcut.recover(fake(W, 3, -1e6, np.random.default_rng(seed).standard_normal((8, 3))), 3, rng=0)
        assert found.value == maximum(W, 3)


def test_local_search_only_helps_and_leaves_no_better_move():
    W = gallery.toroidal_grid(9, 9, 0, weights="gaussian")
    start = np.random.default_rng(0).integers(0, 4, 81)
    end = maxkcut.move_vertices(W, start, 4)
    value = maxkcut.k_cut_value(W, end)
    assert value > maxkcut.k_cut_value(W, start) and value == pytest.approx(slow_value(W, end), rel=1e-14)
    for v in range(81):
        for p in range(4):
            other = end.copy()
            other[v] = p
            assert maxkcut.k_cut_value(W, other) <= value + 1e-12


def test_function_of_the_seed():
    W = gallery.toroidal_grid(12, 12, 0, weights="gaussian")
    result = fake(W, 3, -1e3, np.random.default_rng(0).standard_normal((144, 3)))
    same, again, other = (maxkcut.recover(result, 3, rng=s, trials=3).parts for s in (1, np.random.default_rng(1), 2))
    assert np.array_equal(same, again) and not np.array_equal(same, other)


def test_nothing_to_cut():
    negative = maxkcut.recover(fake(-gallery.gnp(20, 0.2, 0), 3, 0.0, np.random.default_rng(0).standard_normal((20, 2))), 3, rng=0)
    assert negative.value == 0 and negative.ratio == 1 and negative.bound < 1e-300
    unbounded = maxkcut.recover(fake(adjacency(nx.path_graph(4)), 3, -math.inf, np.eye(4)), 3, rng=0)
    assert unbounded.value == 3 and unbounded.bound == math.inf and math.isnan(unbounded.ratio)


@pytest.mark.parametrize(("k", "options", "needed"), [
    (1, {}, "at least 2"), (2.5, {}, "integer"), (True, {}, "integer"), (3, {"pairs": "some"}, '"all" or "edges"'),
])  # fmt: skip
def test_bad_input_is_refused(k, options, needed):
    with pytest.raises(ValueError, match=needed):
        maxkcut.problem(nx.path_graph(3), k, **options)


def test_results_for_more_parts_are_refused_those_for_fewer_bound_less_well(clarabel):
    graph = nx.complete_graph(6)
    three = clarabel(maxkcut.problem(graph, 3))
    assert maxkcut.recover(three, 4).bound == pytest.approx(15 * 1.2 * 3 / 4, rel=1e-4)  # (k-1)/k n/(n-1): here no constraint binds
    with pytest.raises(ValueError, match="solve.problem.graph, 2"):
        maxkcut.recover(three, 2)
    Y, W = np.eye(3), adjacency(nx.path_graph(3))
    with pytest.raises(ValueError, match="at least 2"):
        maxkcut.recover(fake(W, 3, -3.0, Y), 1)
    with pytest.raises(ValueError, match="warm_start"):
        maxkcut.recover(SimpleNamespace(data=None, bound=0.0, Y=Y), 3)
    with pytest.raises(ValueError, match="trials"):
        maxkcut.recover(fake(W, 3, -3.0, Y), 3, trials=0)
