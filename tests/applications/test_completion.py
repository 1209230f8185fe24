from types import SimpleNamespace

import numpy as np
import pytest

import bmsdp
from bmsdp.applications import completion


def low_rank(n, r, share, seed):
    """Entries of a random Gram matrix of rank r: the diagonal and a share of the rest."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((n, r))
    i, j = np.triu_indices(n, 1)
    keep = rng.random(i.size) < share
    i, j = np.concatenate([np.arange(n), i[keep]]), np.concatenate([np.arange(n), j[keep]])
    return Z @ Z.T, i, j


def test_noisy_entries_against_clarabel():
    cp = pytest.importorskip("cvxpy", reason="compared with CVXPY, which is not installed")
    M, i, j = low_rank(9, 2, 0.5, 0)
    rng = np.random.default_rng(1)
    i, j = i[3:], j[3:]  # three entries of the diagonal unknown
    m, w = M[i, j] + 0.3 * rng.standard_normal(i.size), rng.uniform(0.5, 2, i.size)
    X = cp.Variable((9, 9), PSD=True)
    for lam in (0.3, 5.0):
        cost = cp.sum(cp.multiply(w, cp.square(X[i, j] - m))) + lam * cp.trace(X)
        best = cp.Problem(cp.Minimize(cost)).solve(solver=cp.CLARABEL)
        result = bmsdp.solve(completion.problem(9, i, j, m, lam=lam, weights=w), rank=9, certify=None, tol=1e-9, rng=0)
        found = completion.recover(result, 9, j, i, m, lam=lam, weights=w)
        assert found.value == pytest.approx(best, rel=1e-6) and found.bound == pytest.approx(best, rel=1e-5)
        assert found.bound <= best * (1 + 1e-7) and np.abs(found.X - X.value).max() < 1e-3 * np.abs(X.value).max()
        assert found.residual == pytest.approx(np.abs(found.X[i, j] - m).max())


def test_the_bound_holds_at_every_point():
    M, i, j = low_rank(8, 2, 0.5, 2)
    m = M[i, j]
    result = bmsdp.solve(completion.problem(8, i, j, m, lam=1.0), rank=8, certify=None, tol=1e-9, rng=0)
    best = completion.recover(result, 8, i, j, m, lam=1.0)
    rng = np.random.default_rng(0)
    for k in (1, 3, 8):
        Y = rng.standard_normal((8, k)) * 10.0 ** rng.integers(-2, 2)
        found = completion.recover(SimpleNamespace(Y=Y), 8, i, j, m, lam=1.0)
        assert 0 <= found.bound <= best.value * (1 + 1e-9) and found.value >= best.bound
    for scale in (0.0, 0.1, 10.0):
        y = scale * rng.standard_normal(m.size)
        exact = completion.recover(SimpleNamespace(Y=Y, dual=y), 8, i, j, m)
        assert 0 <= exact.bound <= np.trace(M) * (1 + 1e-9)


def test_exact_entries_against_clarabel(clarabel):
    """The missing entries of a Gram matrix of rank 1 follow from a spanning tree."""
    M, i, j = low_rank(8, 1, 0.6, 4)
    m = M[i[2:], j[2:]]
    i, j = i[2:], j[2:]
    problem = completion.problem(8, i, j, m)
    reference = clarabel(problem)
    theirs = completion.recover(reference, 8, i, j, m)
    assert theirs.bound == pytest.approx(reference.cost, rel=1e-5) and theirs.bound <= reference.cost * (1 + 1e-6)
    result = bmsdp.solve(problem, rng=0, max_time=30)
    found = completion.recover(result, 8, i, j, m)
    assert found.residual < 1e-5 * np.abs(m).max() and found.value == pytest.approx(reference.cost, rel=1e-5)
    assert found.bound <= reference.cost * (1 + 1e-6) and found.bound == pytest.approx(found.value, rel=1e-4)


def test_low_rank_matrices_are_recovered():
    M, i, j = low_rank(20, 2, 0.6, 5)
    result = bmsdp.solve(completion.problem(20, i, j, M[i, j], lam=1e-3), rank=6, certify=None, tol=1e-9, rng=0)
    found = completion.recover(result, 20, i, j, M[i, j], lam=1e-3)
    assert np.linalg.norm(found.X - M) < 1e-2 * np.linalg.norm(M)
    assert np.linalg.svd(found.Y, compute_uv=False)[2] < 1e-2 * np.linalg.norm(found.Y)
    assert found.value - found.bound < 1e-3 * found.value


BAD = [
    ((0, [0], [0], [1.0]), {}, "n = 0"), ((3, [0], [3], [1.0]), {}, r"at \(0, 3\)"), ((3, [0], [-1], [1.0]), {}, r"at \(0, -1\)"),
    ((3, [0, 1], [1, 0], [1.0, 1.0]), {}, "given again by entry 1"), ((3, [0.0], [1.0], [1.0]), {}, "integers"),
    ((3, [], [], []), {}, "equally"),
    ((3, [0], [1], [1.0, 2.0]), {}, "equally many"), ((3, [0], [1], [np.nan]), {}, "finite"), ((3, [0], [1], [1j]), {}, "real"),
    ((3, [1], [1], [-1.0]), {}, r"X\[1, 1\] = -1"), ((3, [0], [1], [1.0]), {"weights": [1.0]}, "without lam"),
    ((3, [0], [1], [1.0]), {"lam": 0.0}, "positive"), ((3, [0], [1], [1.0]), {"lam": 1.0, "weights": [0.0]}, "positive"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "options", "needed"), BAD)
def test_bad_input_is_refused(data, options, needed):
    with pytest.raises(ValueError, match=needed):
        completion.problem(*data, **options)


def test_results_of_other_problems_are_refused():
    with pytest.raises(ValueError, match="n = 3"):
        completion.recover(SimpleNamespace(Y=np.ones((4, 1)), dual=np.zeros(1)), 3, [0], [1], [1.0])
    with pytest.raises(ValueError, match="2 multipliers for 1"):
        completion.recover(SimpleNamespace(Y=np.ones((3, 1)), dual=np.zeros(2)), 3, [0], [1], [1.0])
