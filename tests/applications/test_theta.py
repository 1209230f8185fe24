import math
from itertools import combinations
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
from scipy import sparse

import bmsdp
from bmsdp import gallery
from bmsdp.applications import theta


def independence_number(graph):
    """By brute force over cliques of the complement (an exact search, independent of this package)."""
    return max(len(c) for c in nx.find_cliques(nx.complement(graph)))


def chromatic_number(graph):
    """The least k with a proper colouring, by backtracking."""
    nodes = sorted(graph, key=graph.degree, reverse=True)

    def extend(colours, k):
        if len(colours) == len(nodes):
            return True
        v = nodes[len(colours)]
        taken = {colours[u] for u in graph[v] if u in colours}
        used = max(colours.values(), default=-1)
        return any(extend(colours | {v: c}, k) for c in range(min(k, used + 2)) if c not in taken)

    return next(k for k in range(1, len(nodes) + 1) if extend({}, k))


def is_independent(graph, vertices):
    nodes = list(graph)
    return not any(graph.has_edge(nodes[u], nodes[v]) for u, v in combinations(vertices, 2))


def fake(W, bound, Y, rigor="verified", **options):
    """What ``recover`` reads of a result."""
    problem = theta.problem(W)
    data = SimpleNamespace(C=problem.C, A=problem.terms[0].given if problem.terms else problem.manifold, b=np.zeros(10**4))
    return SimpleNamespace(Y=Y, bound=bound, gap=1e-6, data=data, certificate=SimpleNamespace(rigor=rigor), options={"tol": 1e-6} | options)


def odd_cycle(n):
    return n * math.cos(math.pi / n) / (1 + math.cos(math.pi / n))


KNOWN = {
    "C5": (nx.cycle_graph(5), math.sqrt(5), 2),
    "C7": (nx.cycle_graph(7), odd_cycle(7), 3),
    "C9": (nx.cycle_graph(9), odd_cycle(9), 4),
    "Petersen": (nx.petersen_graph(), 4.0, 4),
    "K6": (nx.complete_graph(6), 1.0, 1),
    "empty": (nx.empty_graph(6), 6.0, 6),
    "one vertex": (nx.empty_graph(1), 1.0, 1),
    "K34": (nx.complete_bipartite_graph(3, 4), 4.0, 4),
    "path": (nx.path_graph(8), 4.0, 4),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_values(name):
    graph, value, alpha = KNOWN[name]
    result = bmsdp.solve(theta.problem(graph), rng=0)
    found = theta.recover(result, rng=0)
    assert result.success, result.message
    assert value - 1e-9 <= found.bound <= value * (1 + 2e-6)
    assert found.size == alpha == found.vertices.size and is_independent(graph, found.vertices)
    assert alpha <= found.alpha_upper <= math.floor(value + 1e-5)
    assert found.is_maximum == (found.alpha_upper == alpha)


@pytest.mark.parametrize("graph", [nx.cycle_graph(7), nx.petersen_graph(), nx.circulant_graph(11, [1, 3]), nx.cubical_graph()], ids=str)
def test_product_with_the_complement_is_n_on_vertex_transitive_graphs(graph):
    values = [-bmsdp.solve(theta.problem(graph, complement=c), rng=0, tol=1e-7).cost for c in (False, True)]
    assert abs(values[0] * values[1] - len(graph)) < 1e-5 * len(graph)


def test_sandwich_on_small_graphs():
    """alpha <= theta' <= theta <= chi of the complement."""
    for seed in range(4):
        graph = nx.gnp_random_graph(9, 0.45, seed=seed)
        alpha, chi = independence_number(graph), chromatic_number(nx.complement(graph))
        found = [theta.recover(bmsdp.solve(theta.problem(graph, nonnegative=p), rng=0), rng=0) for p in (False, True)]
        assert alpha <= found[1].bound <= found[0].bound + 1e-5 and found[0].bound <= chi + 1e-5
        assert all(f.size == alpha <= f.alpha_upper for f in found)


def test_theta_prime_is_below_theta_where_it_has_to_be():
    """Words of 5 bits, adjacent at distance 1 or 2: theta = 16/3, theta' = 4 = A(5, 3), by Delsarte's linear programs."""
    words = np.arange(32)
    distance = np.bitwise_count(words[:, None] ^ words)
    graph = sparse.csr_array((distance > 0) & (distance <= 2)).astype(float)
    values = [theta.recover(bmsdp.solve(theta.problem(graph, nonnegative=p), rng=0), rng=0) for p in (False, True)]
    assert values[0].bound == pytest.approx(16 / 3, rel=1e-5) and values[1].bound == pytest.approx(4, rel=1e-5)
    assert values[1].size == 4 == values[1].alpha_upper


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("complement", [False, True])
def test_formulation_against_clarabel(clarabel, nonnegative, complement):
    graph = nx.gnp_random_graph(8, 0.4, seed=3)
    problem = theta.problem(graph, complement=complement, nonnegative=nonnegative)
    reference = clarabel(problem)
    G = nx.complement(graph) if complement else graph
    zero = {(min(e), max(e)) for e in G.edges}
    X = reference.X
    assert abs(np.trace(X) - 1) < 1e-6 and all(abs(X[e]) < 1e-6 for e in zero)
    assert not nonnegative or X.min() > -1e-6
    assert len(reference.data.b) == 1 + len(zero)
    assert len(reference.data.b_geq) == (28 - len(zero)) * nonnegative
    found = theta.recover(reference, rng=0)
    assert found.size == independence_number(G) <= found.alpha_upper and is_independent(G, found.vertices)
    ours = bmsdp.solve(problem, rng=0)
    assert ours.success and ours.cost == pytest.approx(reference.cost, rel=3e-6)


def test_a_bound_is_rounded_down_only_where_it_is_verified():
    W = gallery.gnp(6, 0.5, 0)
    Y = np.eye(6)
    upper = {(r, b): theta.recover(fake(W, -b, Y, r), rng=0).alpha_upper for r in ("verified", "probabilistic", "estimate") for b in (
        3.9999999, 4.0, 4.9, 3.99)}  # fmt: skip
    assert [upper["verified", b] for b in (3.9999999, 4.0, 4.9, 3.99)] == [3, 4, 4, 3]
    for rigor in ("probabilistic", "estimate"):
        assert [upper[rigor, b] for b in (3.9999999, 4.0, 4.9, 3.99)] == [4, 4, 4, 3]
    loose = theta.recover(fake(W, -3.99, Y, "probabilistic", tol=1e-2), rng=0)
    assert loose.alpha_upper == 4


@pytest.mark.parametrize("bound", [-math.inf, -1e6, math.nan])
def test_without_a_bound_n_remains(bound):
    found = theta.recover(fake(gallery.gnp(6, 0.5, 0), bound, np.eye(6)), rng=0)
    assert (found.bound, found.alpha_upper, found.rigor) == (6.0, 6, "trivial")


def test_sets_are_maximal_and_functions_of_the_seed():
    W = gallery.gnp(60, 0.1, 1)
    Y = np.random.default_rng(0).standard_normal((60, 4))
    one, two = (theta.recover(fake(W, -30.0, Y), rng=s).vertices for s in (3, np.random.default_rng(3)))
    assert np.array_equal(one, two)
    graph = nx.from_scipy_sparse_array(W)
    assert is_independent(graph, one)
    inside = set(one.tolist())
    assert all(v in inside or inside & set(graph[v]) for v in graph)


def test_exchanges_find_what_greedy_misses():
    """The centre of a star, taken first, has to be given up for its leaves."""
    star = sparse.csr_array(nx.to_scipy_sparse_array(nx.star_graph(5), dtype=float))
    Y = np.ones((6, 1))
    Y[0] = 5
    found = theta.recover(fake(star, -5.0, Y), trials=0)
    assert found.vertices.tolist() == [1, 2, 3, 4, 5] and found.is_maximum


def test_cliques_by_the_complement():
    graph = nx.gnp_random_graph(9, 0.6, seed=2)
    clique = theta.recover(bmsdp.solve(theta.problem(graph, complement=True), rng=0), rng=0)
    assert clique.size == max(map(len, nx.find_cliques(graph)))
    assert all(graph.has_edge(u, v) for u, v in combinations(clique.vertices, 2))


def test_theta_stated_as_data_is_recovered_too():
    graph = nx.petersen_graph()
    n = len(graph)
    A, b = [np.eye(n)], [1.0]
    for i, j in graph.edges:
        E = np.zeros((n, n))
        E[i, j] = E[j, i] = 3.0
        A.append(E)
        b.append(0.0)
    result = bmsdp.solve(-np.ones((n, n)), A, b, rng=0)
    found = theta.recover(result, rng=0)
    assert found.size == 4 == found.alpha_upper and is_independent(graph, found.vertices)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="to_undirected"):
        theta.problem(nx.DiGraph([(0, 1)]))
    with pytest.raises(ValueError, match="no vertices"):
        theta.problem([])
    with pytest.raises(ValueError, match="NaN"):
        theta.problem(np.array([[0, math.nan], [math.nan, 0]]))
    with pytest.raises(ValueError, match="warm_start"):
        theta.recover(SimpleNamespace(data=None, bound=0.0, Y=np.eye(3)))
    with pytest.raises(ValueError, match="trials"):
        theta.recover(fake(gallery.gnp(6, 0.5, 0), -3.0, np.eye(6)), trials=-1)
