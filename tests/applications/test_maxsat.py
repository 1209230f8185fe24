import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

import bmsdp
from bmsdp.applications import maxsat
from bmsdp.io.cnf import two_sat_cost
from bmsdp.operators import as_operator

RATIO = 0.87856


def satisfied(clauses, weights, values):
    """Weight of the clauses with a true literal; values[v - 1] is variable v."""
    return math.fsum(w for c, w in zip(clauses, weights, strict=True) if any(values[abs(v) - 1] == (v > 0) for v in c))


def maximum(clauses, weights, n):
    return max(satisfied(clauses, weights, values) for values in product([False, True], repeat=n))


def random_formula(n, m, seed, weighted=False):
    rng = np.random.default_rng(seed)
    variables = [rng.choice(np.arange(1, n + 1), rng.integers(1, 3), replace=False) for _ in range(m)]
    clauses = [tuple((v * rng.choice([-1, 1], v.size)).tolist()) for v in variables]
    return clauses, rng.uniform(0.1, 3, m) if weighted else np.ones(m)


def fake(clauses, weights, n, bound, Y):
    return SimpleNamespace(data=SimpleNamespace(C=as_operator(two_sat_cost(n, clauses, weights))), bound=bound, Y=Y)


@pytest.mark.parametrize("weighted", [False, True])
def test_cost_is_minus_the_weight_satisfied_for_every_assignment(weighted):
    clauses, weights = random_formula(5, 25, 0, weighted)
    C = maxsat.problem(clauses, weights=weights, n=5).C.matrix().toarray()
    assert np.array_equal(C, C.T)
    for values in product([False, True], repeat=5):
        for true in (1.0, -1.0):
            x = true * np.array([1.0, *np.where(values, 1.0, -1.0)])
            value = satisfied(clauses, weights, values)
            assert -x @ C @ x == pytest.approx(value, rel=1e-14) if weighted else -x @ C @ x == value


@pytest.mark.parametrize("seed", range(8))
def test_bound_and_assignment_against_brute_force(seed):
    weighted = seed % 2 == 1
    clauses, weights = random_formula(8, 40, seed, weighted)
    best = maximum(clauses, weights, 8)
    result = bmsdp.solve(maxsat.problem(clauses, weights=weights, n=8), rng=0)
    found = maxsat.recover(result, rng=0)
    assert result.success
    assert found.value <= best * (1 + 1e-15) and best <= found.bound <= min(best / RATIO, math.fsum(weights) * (1 + 2e-6))
    assert found.value == pytest.approx(satisfied(clauses, weights, found.values), rel=1e-14)
    assert found.value == pytest.approx(best, rel=1e-14), "with flips on 8 variables"
    assert found.values.dtype == bool and found.values.shape == (8,)


@pytest.mark.parametrize("seed", range(4))
def test_expected_value_of_the_rounding_is_within_the_ratio_at_any_point(seed):
    """E x_i x_j = 2/pi arcsin X_ij, so the expectation is known exactly; and hyperplanes attain it."""
    clauses, weights = random_formula(10, 60, seed, True)
    problem = maxsat.problem(clauses, weights=weights, n=10)
    C = problem.C.matrix().toarray()
    for Y in (bmsdp.solve(problem, rng=0).Y, problem.random_point(4, np.random.default_rng(seed))):
        X = np.clip(Y @ Y.T, -1, 1)
        np.fill_diagonal(X, 1.0)
        expected = -np.sum(C * np.arcsin(X)) * 2 / np.pi
        assert expected >= RATIO * -np.sum(C * X)
        signs = np.sign(Y @ np.random.default_rng(1).standard_normal((Y.shape[1], 20_000)))
        values = -np.einsum("ip,ip->p", signs, C @ signs)
        assert abs(values.mean() - expected) < 5 * values.std() / np.sqrt(20_000) + 1e-12


def test_rounding_reads_truth_off_row_zero():
    clauses = [(1,), (-2,), (1, 2)]
    Y = np.array([[-1.0], [-1.0], [1.0]])
    found = maxsat.recover(fake(clauses, np.ones(3), 2, -3.0, Y), rng=0, trials=1, local_search=False)
    assert found.values.tolist() == [True, False] and found.value == 3 == found.bound and found.ratio == 1


def test_contradiction_of_four_clauses():
    """All four clauses on two variables: three can be satisfied, and the relaxation knows it."""
    clauses = [(1, 2), (-1, 2), (1, -2), (-1, -2)]
    found = maxsat.recover(bmsdp.solve(maxsat.problem(clauses), rng=0), rng=0)
    assert found.value == 3 <= found.bound <= 3 * (1 + 2e-6)


def test_odd_clauses():
    clauses = [(1, 1), (2, -2), (), (1, -1, 3), (-3, -3)]
    C = maxsat.problem(clauses, n=4).C.matrix()
    assert C.shape == (5, 5)
    for values in product([False, True], repeat=4):
        x = np.array([1.0, *np.where(values, 1.0, -1.0)])
        assert -x @ C @ x == 2 + values[0] + (not values[2])


def test_local_search_and_more_trials_only_help():
    clauses, weights = random_formula(40, 200, 3)
    result = fake(clauses, weights, 40, -200.0, np.random.default_rng(0).standard_normal((41, 3)))
    values = [maxsat.recover(result, rng=0, trials=t, local_search=False).value for t in (1, 10, 200)]
    assert values == sorted(values) and maxsat.recover(result, rng=0, trials=10).value >= values[1]
    best = maxsat.recover(result, rng=0)
    for v in range(40):
        other = best.values.copy()
        other[v] ^= True
        assert satisfied(clauses, weights, other) <= best.value
    same, again = (maxsat.recover(result, rng=s).values for s in (5, np.random.default_rng(5)))
    assert np.array_equal(same, again)


def test_rounding_of_weights_is_part_of_the_bound():
    for seed in range(30):
        clauses, weights = random_formula(3, 40, seed, True)
        C = two_sat_cost(3, clauses, weights).toarray()
        x = np.array([1.0, 1, -1, 1])
        exact = math.fsum((C * np.outer(x, x)).ravel())
        found = maxsat.recover(fake(clauses, weights, 3, exact, x[:, None]), rng=0, local_search=False)
        assert found.value <= found.bound and satisfied(clauses, weights, found.values) <= found.bound <= found.value * (1 + 1e-14)


def test_without_bound():
    found = maxsat.recover(fake([(1,)], np.ones(1), 1, -math.inf, np.eye(2)), rng=0)
    assert found.bound == math.inf and math.isnan(found.ratio)


@pytest.mark.parametrize(("clauses", "options", "needed"), [
    ([], {}, "no variables"), ([(1, 0)], {}, "clause 0"), ([(1,), (1.5,)], {}, "clause 1"), ([("a",)], {}, "clause 0"),
    ([7], {}, "clause 0"), ([(1,), (2,)], {"weights": [1e308, 1e308]}, "overflow"),
    ([(1, 2, 3)], {}, "at most 2"), ([(1, 5)], {"n": 3}, "raise n"), ([(1,)], {"weights": [-1.0]}, "positive"),
    ([(1,)], {"weights": [1.0, 2.0]}, r"\(2,\)"), ([(1,)], {"weights": [math.nan]}, "positive"), ([(1,)], {"weights": ["a"]}, "positive"),
])  # fmt: skip
def test_bad_input_is_refused(clauses, options, needed):
    with pytest.raises(ValueError, match=needed):
        maxsat.problem(clauses, **options)


def test_results_without_data_are_refused():
    with pytest.raises(ValueError, match="warm_start"):
        maxsat.recover(SimpleNamespace(data=None, bound=0.0, Y=np.eye(3)))
    with pytest.raises(ValueError, match="trials"):
        maxsat.recover(fake([(1,)], np.ones(1), 1, -1.0, np.eye(2)), trials=0)
