"""Multipliers that bound the trace: found where they exist, definite where found, and none where some feasible ray has a trace."""

import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp.shift import trace_shift


def gaussian(rng, shape, complex_):
    out = rng.standard_normal(shape)
    return out + 1j * rng.standard_normal(shape) if complex_ else out


def hermitian(rng, n, complex_=False):
    M = gaussian(rng, (n, n), complex_)
    return M + M.conj().T


def smallest(found, A, A_geq=(), rows=None):
    """The smallest eigenvalue of A*(w) + A_geq*(w_geq), of these rows of X."""
    w, w_geq = found
    M = sum(v * (B.toarray() if sp.issparse(B) else B) for v, B in zip([*w, *w_geq], [*A, *A_geq], strict=True))
    return np.linalg.eigvalsh(M if rows is None else M[np.ix_(rows, rows)])[0]


def test_diagonal_rows():
    """X_00 + X_11 = 2, 3 X_22 <= 1: w is 1 and -1/3."""
    w, w_geq = trace_shift([np.diag([1.0, 1, 0])], [2.0], [-3 * np.diag([0.0, 0, 1])], [-1.0], n=3)
    assert w == pytest.approx([1], abs=1e-5) and w_geq == pytest.approx([-1 / 3], abs=1e-5)
    assert smallest((w, w_geq), [np.diag([1.0, 1, 0])], [-3 * np.diag([0.0, 0, 1])]) >= 1


@pytest.mark.parametrize("complex_", [False, True])
def test_found_where_one_exists(complex_):
    """Some combination of the rows is definite, hidden behind a random change of basis; blocks, variables, inequalities."""
    missing = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n, m = int(rng.integers(3, 9)), int(rng.integers(2, 5))
        blocks = [n] if seed % 2 else [n - 2, -2]
        part = np.zeros(n) if seed % 2 else np.maximum(np.arange(n) - (n - 3), 0)
        inside = part[:, None] == part
        R = gaussian(rng, (n, n), complex_)
        A = [hermitian(rng, n, complex_) * inside for _ in range(m)]
        A[0] = (R @ R.conj().T + 0.3 * np.eye(n)) * inside - sum(A[1:], 0 * R)
        Q = gaussian(rng, (n, n), complex_)
        X = (Q @ Q.conj().T) * inside
        geq = seed % 3 == 0
        A_geq = [-A.pop(0)] if geq else []
        b, b_geq = ([np.vdot(M, X).real for M in rows] for rows in (A, A_geq))
        found = trace_shift(A, b, A_geq, np.array(b_geq) - 1.0, n=n, blocks=blocks)
        missing += found is None
        if found is not None:
            assert smallest(found, A, A_geq) >= 1 and (found[1] <= 0).all()
            assert np.trace(X).real <= b @ found[0] + (np.array(b_geq) - 1) @ found[1]
    assert missing <= 4


def test_none_where_none_exists():
    """Each time X = t Z is feasible for all t with a Z >= 0."""
    ones = np.ones((3, 3))
    for A in ([unit(3, 0, 1)], [np.diag([1.0, -1, 0])], [np.diag([1.0, 1, 0])], [ones - np.eye(3)], [np.diag([1.0, 2, 0]), unit(3, 0, 2)]):
        assert trace_shift(A, np.ones(len(A)), n=3) is None
    assert trace_shift([np.diag([1.0, 0])], [1.0], [np.diag([0.0, 1.0])], [0.0], n=2) is None  # X_11 >= 0 bounds nothing
    assert trace_shift(None, None, [-np.diag([1.0, -1.0])], [-1.0], n=2) is None


def unit(n, i, j):
    M = np.zeros((n, n))
    M[i, j] = M[j, i] = 1
    return M


def test_free_variables_are_left_alone():
    """``tr X + t = 1, t = 0``, t free: w = (1, -1)."""
    A = [np.eye(3), np.diag([0.0, 0, 2])]
    w, _ = trace_shift(A, [1.0, 0.0], n=3, blocks=[2, ("free", 1)])
    assert smallest((w, []), A, rows=[0, 1]) >= 1 and abs(w[0] + 2 * w[1]) <= 1e-14 * abs(w[0])
    assert trace_shift(A[:1], [1.0], n=3, blocks=[2, ("free", 1)]) is None


def test_a_negative_trace():
    """``<2 I - offdiagonal, X> = -1`` has no solution, and w says so."""
    w, _ = trace_shift([2 * np.eye(2) - unit(2, 0, 1)], [-1.0], n=2)
    assert w[0] >= 1 and -w[0] < 0


def test_near_the_smallest_trace_bound():
    """Hidden behind a congruence, a row that says tr X <= 3 and others that say little: within twice of the best multipliers."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        n, scale = 6, 10.0 ** rng.uniform(-1, 1, 6)
        A = [np.eye(n) + 0.3 * unit(n, 0, 1), np.diag(scale) + hermitian(rng, n) * 0.01, hermitian(rng, n)]
        X = np.diag(rng.random(n))
        b = np.array([np.vdot(M, X) for M in A])
        b[1] += 100.0
        w, _ = trace_shift(A, b, n=n)
        assert smallest((w, []), A) >= 1 and b @ w <= 2 * b[0] / 0.7


def test_the_cheaper_bound_of_a_dense_row():
    """One definite row: its multiple with smallest eigenvalue 1."""
    M = hermitian(np.random.default_rng(0), 6)
    M = M @ M + np.eye(6)
    w, _ = trace_shift([M], [3.0], n=6)
    assert w[0] == pytest.approx(1 / np.linalg.eigvalsh(M)[0], rel=1e-4)


def test_projections_find_what_least_squares_does_not():
    """The multipliers nearest to I give an indefinite matrix, and others a definite one."""
    from bmsdp.constraints import Constraints
    from bmsdp.operators import SparseOperator
    from bmsdp.shift import _Search

    found = failed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = 5
        B = rng.standard_normal((n, n))
        A = [B @ np.diag([1.0, 1, 1, 1, 60]) @ B.T, *(hermitian(rng, n) for _ in range(3))]
        A = [A[0] + A[1], *A[1:]]
        search = _Search(Constraints(SparseOperator(sp.csr_array((n, n))), A, np.ones(4), None, None, [n], True))
        identity = (search.i == search.j).astype(float)
        w = search._solver(np.ones(4, bool))(search._stacked(identity))
        if search._scaled(w) is not None:
            continue
        failed += 1
        X = np.linalg.inv(sum(A[:1]) - A[1])
        answer = trace_shift(A, [np.vdot(M, X) for M in A], n=n)
        found += answer is not None and smallest(answer, A) >= 1
    assert failed >= 5 and found >= 0.7 * failed
