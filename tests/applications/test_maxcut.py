import math
from itertools import product
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
from scipy import sparse

import bmsdp
from bmsdp import gallery
from bmsdp.applications import maxcut
from bmsdp.operators import as_operator
from bmsdp.rounding import cut_value


def cost(problem):
    return problem.C.matrix()


def adjacency(graph):
    return nx.to_scipy_sparse_array(graph, weight="weight", dtype=float, format="csr")


def solved(W, bound, Y):
    """What ``recover`` reads of a result."""
    data = SimpleNamespace(C=as_operator(maxcut.laplacian_cost(W)))
    return SimpleNamespace(data=data, bound=bound, Y=Y)


def random_rows(n, k=3, seed=0):
    Y = np.random.default_rng(seed).standard_normal((n, k))
    return Y / np.linalg.norm(Y, axis=1, keepdims=True)


KNOWN = {
    "C5": (nx.cycle_graph(5), 4.522542, 4),
    "C7": (nx.cycle_graph(7), 6.653391, 6),
    "Petersen": (nx.petersen_graph(), 12.5, 12),
    "K7": (nx.complete_graph(7), 12.25, 12),
    "K34": (nx.complete_bipartite_graph(3, 4), 12, 12),
    "grid": (nx.grid_2d_graph(6, 7), 71, 71),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_bounds_and_cuts(name):
    graph, relaxation, maximum = KNOWN[name]
    result = bmsdp.solve(maxcut.problem(graph), rng=0)
    cut = maxcut.recover(result, rng=0)
    assert result.success and abs(cut.bound - relaxation) <= 2e-6 * relaxation
    assert cut.value == maximum == cut_value(adjacency(graph), cut.x)
    assert cut.value <= cut.bound and cut.ratio == cut.value / cut.bound
    if relaxation == maximum:
        assert cut.ratio > 1 - 2e-6


@pytest.mark.parametrize(
    "W",
    [
        gallery.toroidal_grid(8, 8, 0),
        gallery.toroidal_grid(7, 9, 0, weights="gaussian"),
        gallery.wide_weights(60, 0.2, 6, 0),
        gallery.hubs(100, 0),
        gallery.gnp(80, 0.01, 0),
        -gallery.gnp(40, 0.2, 0),
    ],
)
def test_solved_cuts_stay_below_the_bound(W):
    result = bmsdp.solve(maxcut.problem(W), rng=0)
    cut = maxcut.recover(result, rng=0)
    assert 0 <= cut.value <= cut.bound
    assert cut.value == cut_value(W, cut.x)


def test_forms_of_a_graph_agree():
    W = gallery.wide_weights(30, 0.3, 2, 0)
    i, j = sparse.triu(W).coords
    edges = [(int(a), int(b), W[a, b]) for a, b in zip(i, j, strict=True)]
    graph = nx.Graph()
    graph.add_nodes_from(range(30))
    graph.add_weighted_edges_from(edges)
    forms = [W, W.toarray(), sparse.coo_matrix(W), sparse.csc_array(W), graph]
    C = maxcut.laplacian_cost(W)
    for form in forms:
        assert (cost(maxcut.problem(form)) != C).nnz == 0
    for form in [edges, iter(edges), np.array(edges), [(b, a, w) for a, b, w in edges]]:
        assert (cost(maxcut.problem(form, n=30)) != C).nnz == 0


def test_edges_without_weights_and_the_number_of_vertices():
    C5 = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]
    C = maxcut.laplacian_cost(adjacency(nx.cycle_graph(5))).toarray()
    assert np.array_equal(cost(maxcut.problem(C5)).toarray(), C)
    assert np.array_equal(cost(maxcut.problem(np.array(C5))).toarray(), C)
    assert cost(maxcut.problem(C5, n=8)).shape == (8, 8)
    assert cost(maxcut.problem([], n=3)).shape == (3, 3)
    square = np.array([[0, 1, 2.0], [1, 2, 3.0], [2, 0, 4.0]])
    assert cost(maxcut.problem(square, n=3)).toarray()[1, 2] == 3 / 4


def test_networkx_keeps_the_order_of_nodes_and_sums_parallel_edges():
    graph = nx.MultiGraph()
    graph.add_nodes_from("cab")
    graph.add_edge("a", "b", weight=2)
    graph.add_edge("b", "a")
    C = 4 * cost(maxcut.problem(graph)).toarray()
    assert np.array_equal(C, [[0, 0, 0], [0, -3, 3], [0, 3, -3]])


def test_sums_of_parallel_edges_stay_symmetric():
    rng = np.random.default_rng(0)
    graph = nx.MultiGraph()
    for i, j in rng.integers(0, 4, (500, 2)):
        graph.add_edge(int(i), int(j) + 4, weight=rng.standard_normal())
    C = cost(maxcut.problem(graph))
    assert (C != C.T).nnz == 0
    slightly = adjacency(graph)
    slightly.data[0] *= 1 + 2e-16
    C = cost(maxcut.problem(slightly))
    assert (C != C.T).nnz == 0


def test_laplacian_cost_stores_the_diagonal():
    W = gallery.gnp(50, 0.02, 0)
    C = maxcut.laplacian_cost(W)
    assert C.has_sorted_indices and C.indices.dtype == np.int32 and C.nnz == W.nnz + 50
    assert np.array_equal(C.toarray(), (W.toarray() - np.diag(W.sum(axis=1))) / 4)
    x = np.sign(random_rows(50, 1))[:, 0]
    assert -x @ C @ x == cut_value(W, x)
    loops = W + 3 * sparse.eye_array(50)
    assert (maxcut.laplacian_cost(loops) != C).nnz == 0


def test_self_loops_are_ignored_with_a_warning():
    W = gallery.gnp(20, 0.3, 0)
    with pytest.warns(UserWarning, match="2 self-loops"):
        problem = maxcut.problem(W + sparse.diags_array([5.0, 1.0] + 18 * [0.0]))
    assert (cost(problem) != maxcut.laplacian_cost(W)).nnz == 0
    with pytest.warns(UserWarning, match="1 self-loops"):
        maxcut.problem(nx.Graph([(0, 0), (0, 1)]))


def test_repeated_edges_are_summed_with_a_warning():
    with pytest.warns(UserWarning, match="1 edges are repeated"):
        problem = maxcut.problem([(0, 1), (1, 0, 2.5), (1, 2)])
    assert cost(problem).toarray()[0, 1] == 3.5 / 4


@pytest.mark.parametrize(
    "graph, options, needed",
    [
        (nx.DiGraph([(0, 1)]), {}, "to_undirected"),
        (nx.Graph(), {}, "no vertices"),
        ([], {}, "pass n="),
        (np.empty((0, 0)), {}, "no vertices"),
        (np.array([[0, 1.0], [0.5, 0]]), {}, r"0\.5 at \(0, 1\)"),
        (np.array([[0, math.nan], [math.nan, 0]]), {}, "NaN"),
        (nx.Graph([(0, 1, {"weight": math.inf})]), {}, "infinite"),
        (nx.Graph([(0, 1, {"weight": "heavy"})]), {}, "heavy"),
        (sparse.csr_array((2, 3)), {}, "square"),
        (sparse.csr_array((3, 3)), {"n": 3}, "n is for edges|n = 3 is for edges"),
        (1j * np.ones((2, 2)), {}, "complex"),
        (np.ones((4, 7)), {}, r"\(4, 7\)"),
        (np.ones(3), {}, r"\(3,\)"),
        ([(0, 1), (1, 5)], {"n": 5}, "edge 1 .* 0 to 4"),
        ([(0, -1)], {}, "integers"),
        ([(0, 1.5)], {}, "integers"),
        ([(0, math.nan)], {"n": 3}, "integers"),
        ([("a", "b")], {}, "networkx"),
        ([(0,)], {}, "edges"),
        ([(0, 1, 2.0, 3.0)], {}, r"\(i, j, w\)"),
        (7, {}, "networkx"),
    ],
)
def test_bad_graphs_are_refused(graph, options, needed):
    with pytest.raises(ValueError, match=needed):
        maxcut.problem(graph, **options)


def test_recover_finds_the_maximum_of_small_graphs():
    for seed in range(5):
        W = gallery.wide_weights(10, 0.6, 3, seed)
        maximum = max(cut_value(W, np.array([1, *x])) for x in product([-1, 1], repeat=9))
        cut = maxcut.recover(solved(W, -2 * maximum, random_rows(10)), rng=0)
        assert cut.value == maximum and abs(cut.ratio - 0.5) < 1e-14


def test_recover_is_a_function_of_the_seed():
    W = gallery.toroidal_grid(12, 12, 0, weights="gaussian")
    result = solved(W, -1e3, random_rows(144))
    same, again = maxcut.recover(result, rng=1), maxcut.recover(result, rng=np.random.default_rng(1))
    assert np.array_equal(same.x, again.x) and same.value == again.value
    assert not np.array_equal(same.x, maxcut.recover(result, rng=2).x)


def test_local_search_and_more_trials_only_help():
    W = gallery.toroidal_grid(12, 12, 0)
    result = solved(W, -1e3, random_rows(144))
    values = [maxcut.recover(result, rng=0, trials=t, local_search=False).value for t in (1, 10, 200)]
    assert values == sorted(values)
    assert maxcut.recover(result, rng=0, trials=10).value >= values[1]
    with pytest.raises(ValueError, match="trials"):
        maxcut.recover(result, trials=0)


def test_a_loaded_result_has_no_graph():
    with pytest.raises(ValueError, match="warm_start"):
        maxcut.recover(SimpleNamespace(data=None, bound=0.0, Y=np.eye(3)))


def test_cut_describes_itself():
    cut = maxcut.recover(solved(adjacency(nx.path_graph(4)), -3.0, random_rows(4)), rng=0)
    assert cut.x.dtype == np.int8 and cut.value == cut.bound == 3 and cut.ratio == 1
    assert sorted(map(list, cut.sides)) == [[0, 2], [1, 3]]
    with pytest.raises(AttributeError):
        cut.value = 4


def test_nothing_to_cut():
    empty = maxcut.recover(solved(sparse.csr_array((3, 3)), 0.0, random_rows(3)), rng=0)
    assert empty.value == 0 == empty.bound and empty.ratio == 1
    negative = maxcut.recover(solved(-gallery.gnp(30, 0.2, 0), 0.0, random_rows(30)), rng=0)
    assert negative.value == 0 and negative.ratio == 1
    unbounded = maxcut.recover(solved(adjacency(nx.path_graph(4)), -math.inf, random_rows(4)), rng=0)
    assert unbounded.value == 3 and unbounded.bound == math.inf and math.isnan(unbounded.ratio)


def test_recover_from_a_dense_cost_with_any_diagonal():
    C = gallery.goe(9, 0) + np.diag(np.arange(9.0))
    minimum = min(x @ C @ x for x in (np.array([1, *x]) for x in product([-1, 1], repeat=8)))
    cut = maxcut.recover(SimpleNamespace(data=SimpleNamespace(C=as_operator(C)), bound=minimum - 1, Y=np.eye(9)), rng=0)
    assert abs(cut.bound - cut.value - 1) < 1e-12


def test_rounding_of_the_degrees_is_part_of_the_bound():
    """A tree is bipartite: its cut is the sum of all weights, while -<C, xx^T> carries the rounding of the degrees."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        tree = nx.star_graph(40)
        for *_, data in tree.edges(data=True):
            data["weight"] = 10.0 ** rng.uniform(-3, 3)
        W = adjacency(tree)
        x = np.array([1] + 40 * [-1])
        C = maxcut.laplacian_cost(W).toarray()
        exact = math.fsum((C * np.outer(x, x)).ravel())
        cut = maxcut.recover(solved(W, exact, x[:, None].astype(float)), rng=0, trials=1)
        assert cut.value <= cut.bound <= cut.value * (1 + 1e-15)
