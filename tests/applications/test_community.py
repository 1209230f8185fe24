import math
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
from scipy import sparse

import bmsdp
from bmsdp import gallery
from bmsdp.applications import community


def partitions(n, k):
    """All partitions of n vertices into at most k parts, as restricted growth strings."""
    def grow(labels):
        if len(labels) == n:
            yield np.array(labels)
            return
        for p in range(min(max(labels, default=-1) + 2, k)):
            yield from grow([*labels, p])

    return grow([])


def slow_modularity(W, labels, gamma=1.0):
    W = W.toarray() if sparse.issparse(W) else W
    d = W.sum(axis=1)
    B = W - gamma * np.outer(d, d) / d.sum()
    return float((B * (labels[:, None] == labels)).sum() / d.sum())


def agree(found, planted):
    """Whether two labellings are one partition."""
    return len(set(zip(found, planted, strict=True))) == len(set(found)) == len(set(planted))


def weighted(n, p, seed):
    W = gallery.gnp(n, p, seed)
    upper = sparse.triu(W, 1, format="csr")
    upper.data = np.random.default_rng(seed).uniform(0.1, 2, upper.nnz)
    return sparse.csr_array(upper + upper.T)


@pytest.mark.parametrize("gamma", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("k", [1, 2, 3, None])
def test_bound_against_brute_force(k, gamma):
    for seed in range(3):
        W = weighted(8, 0.5, seed)
        result = bmsdp.solve(community.problem(W, k, resolution=gamma), rng=0, tol=1e-7)
        best = max(slow_modularity(W, c, gamma) for c in partitions(8, k or 8))
        found = community.recover(result, k, rng=0)
        assert result.success
        assert found.modularity == pytest.approx(slow_modularity(W, found.labels, gamma), abs=1e-14)
        assert found.modularity <= best + 1e-14 and best <= found.bound
        assert found.modularity == pytest.approx(best, abs=1e-12), "with moves on 8 vertices"
        assert found.count == len(set(found.labels)) <= (k or 8)


def test_the_cost_is_minus_the_modularity_of_every_partition():
    W = weighted(7, 0.6, 1)
    total = W.sum()
    C = community.problem(W, resolution=1.3).C.mul(np.eye(7))
    for k in (2, 3, 4):
        for labels in list(partitions(7, k))[::17]:
            X = np.where(labels[:, None] == labels, 1.0, -1 / (k - 1))
            value = (k - 1) / k * -(C * X).sum() / total**2 + (1 - 1.3) / k
            assert value == pytest.approx(slow_modularity(W, labels, 1.3), abs=1e-13)


@pytest.mark.parametrize(("n", "k", "p_in", "p_out"), [(200, 2, 0.2, 0.03), (150, 3, 0.4, 0.05), (240, 4, 0.5, 0.06)])
def test_planted_communities_are_found(n, k, p_in, p_out):
    W = gallery.planted_partition(n, k, p_in, p_out, rng=0)
    planted = np.arange(n) * k // n
    result = bmsdp.solve(community.problem(W, k), rng=0)
    found = community.recover(result, k, rng=0)
    assert result.success and agree(found.labels, planted)
    assert found.modularity == pytest.approx(slow_modularity(W, planted), abs=1e-12) and found.modularity <= found.bound
    if k == 2:
        assert found.bound - found.modularity < 1e-5, "the relaxation is exact above the threshold"
    free = community.recover(result, rng=0)
    assert agree(free.labels, planted) and free.bound >= found.bound


def test_relaxation_alone_recovers_two_blocks():
    """Without a local search: the sign of the first direction is the planted partition (Abbe, Bandeira & Hall)."""
    W = gallery.planted_partition(200, 2, 0.25, 0.03, rng=3)
    result = bmsdp.solve(community.problem(W), rng=0)
    found = community.recover(result, 2, rng=0, local_search=False)
    assert agree(found.labels, np.arange(200) // 100) and result.rank >= 1
    assert np.linalg.svd(result.Y, compute_uv=False)[1] < 1e-2 * math.sqrt(200), "rank one"


def test_pairs_give_a_better_bound_and_three_blocks_exactly(clarabel):
    W = gallery.planted_partition(30, 3, 0.8, 0.15, rng=2)
    planted = np.arange(30) // 10
    problem = community.problem(W, 3, pairs="all")
    reference = clarabel(problem)
    tight = community.recover(SimpleNamespace(**vars(reference)), 3, rng=0)
    loose = community.recover(bmsdp.solve(community.problem(W, 3), rng=0), 3, rng=0)
    assert agree(tight.labels, planted) and tight.modularity <= tight.bound < loose.bound
    assert tight.bound - tight.modularity < 1e-4, "exact on separated blocks"
    result = bmsdp.solve(problem, rng=0)
    assert result.success and result.cost == pytest.approx(reference.cost, rel=5e-6)


def test_modularity_agrees_with_networkx():
    graph = nx.karate_club_graph()
    W = nx.to_scipy_sparse_array(graph, weight="weight", dtype=float)
    result = bmsdp.solve(community.problem(graph), rng=0)
    for k in (2, 4):
        found = community.recover(result, k, rng=0)
        parts = [set(np.flatnonzero(found.labels == p).tolist()) for p in range(found.count)]
        theirs = nx.community.modularity(graph, parts, weight="weight")
        assert found.modularity == pytest.approx(theirs, abs=1e-12) == pytest.approx(community.modularity(W, found.labels), abs=1e-12)
        rival = nx.community.louvain_communities(graph, weight="weight", seed=0)
        if k == 4 and len(rival) <= 4:
            assert found.modularity >= nx.community.modularity(graph, rival, weight="weight") - 1e-9
        assert found.modularity <= found.bound


def test_k_means_finds_separated_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]])
    planted = rng.integers(0, 3, 90)
    points = centres[planted] + rng.standard_normal((90, 2)) / 3
    assert agree(community.k_means(points, 3, np.random.default_rng(1)), planted)
    assert np.array_equal(community.k_means(np.zeros((5, 2)), 3, rng), np.zeros(5)), "coinciding points"


def test_merging_takes_the_best_pair_first_and_stops_at_k():
    W = weighted(8, 0.6, 2)
    d, total = np.asarray(W.sum(axis=1)).ravel(), W.sum()
    labels, values = np.arange(8), [slow_modularity(W, np.arange(8))]
    for k in range(7, 0, -1):
        merged = community.merge(W, d, total, 1.0, labels, k)
        rivals = [slow_modularity(W, np.where(labels == p, q, labels)) for p in set(labels) for q in set(labels) if p < q]
        if len(set(labels)) > k:
            assert slow_modularity(W, merged) >= max(rivals) - 1e-12
        assert len(set(merged)) <= k and set(merged) == set(range(merged.max() + 1))
        labels = merged
        values.append(slow_modularity(W, labels))
    assert not labels.any()
    two = community.merge(W, d, total, 1.0, np.arange(8), 7)
    assert all(slow_modularity(W, np.where(two == p, q, two)) <= slow_modularity(W, two) for p in set(two) for q in set(two))


def test_labels_are_in_order_and_a_function_of_the_seed():
    W = gallery.planted_partition(60, 3, 0.3, 0.2, rng=0)
    result = bmsdp.solve(community.problem(W), rng=0)
    one, two = (community.recover(result, 5, rng=s).labels for s in (4, np.random.default_rng(4)))
    assert np.array_equal(one, two)
    firsts = [np.flatnonzero(one == p)[0] for p in range(one.max() + 1)]
    assert firsts == sorted(firsts) and one[0] == 0


def test_without_a_bound():
    result = bmsdp.solve(community.problem(nx.path_graph(4)), rng=0)
    none = SimpleNamespace(Y=result.Y, data=result.data, bound=-math.inf)
    assert community.recover(none, 2, rng=0).bound == 1.0


@pytest.mark.parametrize(("graph", "options", "needed"), [
    (nx.DiGraph([(0, 1)]), {}, "to_undirected"), (-nx.to_numpy_array(nx.path_graph(3)), {}, "negative"),
    (nx.empty_graph(3), {}, "no edges"),
    (nx.path_graph(3), {"n_communities": 0}, "positive integer"), (nx.path_graph(3), {"n_communities": 2.0}, "positive integer"),
    (nx.path_graph(3), {"resolution": 0.0}, "positive"), (nx.path_graph(3), {"resolution": math.inf}, "positive"),
    (nx.path_graph(3), {"pairs": "edges"}, '"all"'), (nx.path_graph(3), {"pairs": "all"}, "positive integer"),
])  # fmt: skip
def test_bad_input_is_refused(graph, options, needed):
    with pytest.raises(ValueError, match=needed):
        community.problem(graph, **options)


def test_results_of_other_problems_are_refused():
    for result in (SimpleNamespace(data=None), bmsdp.solve(np.eye(3), rng=0)):
        with pytest.raises(ValueError, match="holds no graph"):
            community.recover(result, 2)
    with pytest.raises(ValueError, match="trials"):
        community.recover(bmsdp.solve(community.problem(nx.path_graph(4)), rng=0), 2, trials=0)
