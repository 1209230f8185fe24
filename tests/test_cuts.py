"""Cuts added as they are violated end where all of them at once would."""

from itertools import combinations, product

import numpy as np
import pytest
import scipy.sparse as sp

import bmsdp
from bmsdp import gallery
from bmsdp.applications import maxcut
from bmsdp.cuts import Cuts, Nonnegative, Triangles, cutting
from bmsdp.linear_maps import MatrixMap, entries
from bmsdp.result import Status


def correlations(n, k, seed):
    Y = np.random.default_rng(seed).standard_normal((n, k))
    return Y / np.linalg.norm(Y, axis=1)[:, None]


def all_triangles(n):
    """All 4 C(n, 3) rows, one by one."""
    rows = []
    for i, j, k in combinations(range(n), 3):
        for a, b, c in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)):
            A = np.zeros((n, n))
            A[i, j], A[i, k], A[j, k] = a, b, c
            rows.append(((A + A.T) / 2).ravel())
    return MatrixMap(sp.csr_array(np.array(rows)), n), np.full(len(rows), -1.0)


def largest_cut(W):
    return max(W[np.ix_(x, ~x)].sum() for x in (np.array((0, *bits), bool) for bits in product((0, 1), repeat=len(W) - 1)))


# families


@pytest.mark.parametrize("pattern", [False, True])
@pytest.mark.parametrize("dtype", [float, complex])
def test_nonnegative_proposes_the_worst(pattern, dtype):
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((30, 3)) + (1j * rng.standard_normal((30, 3)) if dtype is complex else 0)
    P = np.triu(rng.random((30, 30)) < 0.3) | np.eye(30, dtype=bool)
    X = (Y @ Y.conj().T).real
    where = [(i, j) for i, j in combinations(range(30), 2) if X[i, j] < -0.1 and (not pattern or P[i, j])]
    expected = sorted(X[i, j] for i, j in where)
    family = Nonnegative(sp.csr_array(P.astype(float))) if pattern else Nonnegative()
    for limit in (5, 10**6):
        violation, rows, b = family.violated(Y, 0.1, limit)
        np.testing.assert_allclose(-violation, expected[:limit], atol=1e-12)
        np.testing.assert_allclose(rows.apply(Y, Y), expected[:limit], atol=1e-12)
        assert rows.m == len(b) == min(limit, len(where)) and not b.any()


def test_a_pattern_of_either_triangle():
    Y = np.array([[1.0], [-1.0], [1.0]])
    for P in (np.eye(3, k=1), np.eye(3, k=-1), np.eye(3, k=1) + np.eye(3, k=-1)):
        violation, rows, _ = Nonnegative(P).violated(Y, 0.1, 10)
        assert len(violation) == rows.m == 2
    with pytest.raises(ValueError, match=r"the pattern has shape \(2, 2\) but X is 3 x 3"):
        Nonnegative(np.eye(2)).violated(Y, 0.1, 10)


def test_blocks_of_rows(monkeypatch):
    Y = correlations(20, 2, 0)
    whole = Nonnegative().violated(Y, 1e-3, 1000)
    monkeypatch.setattr("bmsdp.cuts.BLOCK", 7)
    parts = Nonnegative().violated(Y, 1e-3, 1000)
    np.testing.assert_allclose(np.sort(parts[0]), np.sort(whole[0]), rtol=1e-14)


def test_triangles_against_all_rows():
    Y = correlations(8, 2, 1)
    A, b = all_triangles(8)
    short = b - A.apply(Y, Y)
    violation, rows, rhs = Triangles().violated(Y, 1e-3, 10**4)
    np.testing.assert_allclose(violation, np.sort(short[short > 1e-3])[::-1], atol=1e-12)
    np.testing.assert_allclose(rhs - rows.apply(Y, Y), violation, atol=1e-12)
    for x in product((-1.0, 1.0), repeat=8):  # no cut violates them
        X = np.array(x)[:, None]
        assert (rows.apply(X, X) >= rhs - 1e-12).all()
    with pytest.raises(ValueError, match="triangle inequalities are about real cuts"):
        Triangles().violated(Y.astype(complex), 1e-3, 10)


# rounds


@pytest.mark.parametrize("seed", range(2))
def test_triangles_of_small_graphs(seed):
    """The relaxation with all 4 C(n, 3) rows, and between it and the largest cut the bound."""
    n = 8
    W = gallery.gnp(n, 0.7, seed).toarray() * np.random.default_rng(seed).integers(1, 9, (n, n))
    W = np.triu(W, 1) + np.triu(W, 1).T
    C = maxcut.laplacian_cost(sp.csr_array(W))
    cut = bmsdp.solve(C, A_geq=Triangles(), rng=0)
    A, b = all_triangles(n)
    diagonal = entries(n, range(n), range(n))
    every = bmsdp.solve(C, diagonal, np.ones(n), A_geq=A, b_geq=b, rng=0)
    plain = bmsdp.solve(C, rng=0)
    assert cut.success and every.success and cut.cost == pytest.approx(every.cost, rel=1e-5)
    assert cut.options["rounds"] >= 1 and cut.options["cuts"] == len(cut.dual_geq) < len(b)
    best = largest_cut(W)
    assert best <= -cut.bound + 1e-6 * best and -cut.cost <= -plain.cost + 1e-5 * best
    assert (b - A.apply(cut.Y, cut.Y)).max() <= 1e-5


def test_the_five_cycle():
    """Triangles close the gap of C5: 5 (1 + cos(pi / 5)) / 2 becomes 4."""
    C = maxcut.problem(np.array([(i, (i + 1) % 5) for i in range(5)]), n=5)
    result = bmsdp.solve(C.C, A_geq=Triangles(), rng=0)
    assert result.success and result.cost == pytest.approx(-4, rel=1e-5) and -result.bound >= 4 - 1e-5


@pytest.mark.parametrize("pattern", [False, True])
def test_nonnegative_against_all_rows(pattern):
    """theta' of a graph, its rows at once and as violated."""
    rng = np.random.default_rng(2)
    n = 9
    P = np.triu(rng.random((n, n)) < 0.5, 1)
    i, j = np.nonzero(P if pattern else np.triu(np.ones((n, n)), 1))
    C = gallery.goe(n, 2)
    A, b = [np.eye(n), gallery.goe(n, 3)], [1.0, 0.1]
    lazy = bmsdp.solve(C, A, b, A_geq=Nonnegative(P if pattern else None), rng=0)
    every = bmsdp.solve(C, A, b, A_geq=entries(n, i, j), b_geq=np.zeros(len(i)), rng=0)
    assert lazy.success and every.success and lazy.cost == pytest.approx(every.cost, rel=1e-5, abs=1e-5)
    assert lazy.options["cuts"] <= len(i) and lazy.X[i, j].min() >= -1e-5
    S = C - sum(v * a for v, a in zip(lazy.dual, A, strict=True)) - lazy.data.A_geq.matrix(lazy.dual_geq).toarray()
    assert np.linalg.eigvalsh(S)[0] >= -1e-9 and (lazy.dual_geq >= 0).all()
    assert lazy.dual @ b == pytest.approx(lazy.bound, rel=1e-9)


def test_nothing_violated():
    result = bmsdp.solve(-np.ones((4, 4)), A_geq=Nonnegative(), rng=0)
    assert result.success and result.options["cuts"] == 0 and result.options["rounds"] == 1 and result.cost == pytest.approx(-16)


class Endless(Cuts):
    """Proposes a new redundant row every time."""

    def __init__(self):
        self.asked = 0

    def violated(self, Y, tol, limit):
        self.asked += 1
        return np.ones(1), MatrixMap(sp.csr_array(np.diag([self.asked, 1.0]).reshape(1, 4)), 2), np.array([-1.0])


def test_rounds_end(monkeypatch):
    monkeypatch.setattr("bmsdp.cuts.ROUNDS", 4)
    family = Endless()
    result = bmsdp.solve(np.eye(2), A_geq=family, rng=0)
    assert family.asked == 4 and result.status is Status.MAX_ITER and "4 rounds of cuts" in result.message and result.bound <= 2


def test_the_same_row_again_is_the_end():
    class Stubborn(Cuts):
        def violated(self, Y, tol, limit):
            return np.full(1, 0.5), entries(2, [0], [1]), np.zeros(1)

    result = bmsdp.solve(np.array([[1.0, -0.5], [-0.5, 1]]), A_geq=Stubborn(), rng=0)
    assert result.success and result.options["rounds"] == 2 and result.options["violation"] == pytest.approx(0.5)


def test_idle_rows_are_dropped_and_multipliers_go_on():
    """What `cutting` passes on: the last result with its multipliers, new rows at 0, rows without a multiplier for three rounds gone."""
    calls, new = [], iter([[(0, 1), (0, 2)], [(1, 2)], [(0, 3)], [(1, 3)], [(2, 3)], []])

    class Family(Cuts):
        def violated(self, Y, tol, limit):
            pairs = next(new)
            i, j = (np.array([p[c] for p in pairs], int) for c in (0, 1))
            return np.ones(len(pairs)), entries(4, i, j), np.zeros(len(pairs))

    base = bmsdp.solve(np.eye(4), rng=0)

    def solve_with(rows, b, warm, left):
        calls.append((rows, None if warm is None else warm.dual_geq))
        m = 0 if rows is None else rows.m
        return bmsdp.result.Result(**{**vars(base), "dual_geq": np.r_[2.0, np.zeros(m - 1)] if m else np.zeros(0)})

    cutting(solve_with, Family(), {"tol": 1e-6, "max_time": None}, lambda text: None)
    assert [0 if rows is None else rows.m for rows, _ in calls] == [0, 2, 3, 4, 4, 4]
    assert all(rows is None or nu is None or not len(nu) or nu[0] in (0.0, 2.0) for rows, nu in calls)
    assert list(calls[2][1]) == [2.0, 0.0, 0.0]


def test_limits_and_refusals():
    C = maxcut.laplacian_cost(gallery.gnp(30, 0.3, 0))
    late = bmsdp.solve(C, A_geq=Triangles(), max_time=1e-3, rng=0)
    assert late.status is Status.MAX_TIME
    with pytest.raises(ValueError, match="b_geq was given, but A_geq is a family of cuts"):
        bmsdp.solve(C, A_geq=Triangles(), b_geq=[1.0])
