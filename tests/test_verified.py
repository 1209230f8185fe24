"""Verified bounds against exact rational arithmetic: the dual is feasible and the bound attained, for any data and any multipliers."""

import decimal
import itertools
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import bmsdp
from bmsdp import LowRankPlusSparse, Oblique, Problem, Product, Sphere, StiefelProduct, Unconstrained, certify, gallery, slack_form
from bmsdp.applications.maxcut import laplacian_cost
from bmsdp.factorization import UNIT, Elimination
from bmsdp.linear_maps import MatrixMap, as_linear_map
from bmsdp.operators import as_operator
from bmsdp.verified import VerifiedBound, cost_above, lower_bound

# the referee: rational arithmetic, complex matrices as real ones of twice the size


def dense(M):
    return M.toarray() if sp.issparse(M) else np.asarray(M)


def embedded(M, complex_):
    M = dense(M)
    return np.block([[M.real, -M.imag], [M.imag, M.real]]) if complex_ else M.real


def fractions(M):
    return [[Fraction(float(x)) for x in row] for row in M]


def is_semidefinite(M):
    """Symmetric elimination in rational arithmetic: exact."""
    M = [list(row) for row in M]
    for j in range(len(M)):
        if M[j][j] < 0 or (M[j][j] == 0 and any(M[i][j] for i in range(j + 1, len(M)))):
            return False
        for i in range(j + 1, len(M)):
            if M[i][j]:
                ratio = M[i][j] / M[j][j]
                for l in range(j + 1, len(M)):
                    M[i][l] -= ratio * M[j][l]
    return True


def exact_slack(C, A, dual, excess=0.0):
    """``C - A*(dual) + excess I``, of the Hermitian parts: <A_j, X> does not see the rest."""
    low_rank = isinstance(C, LowRankPlusSparse)
    complex_ = (C.is_complex if low_rank else np.iscomplexobj(dense(C))) or any(np.iscomplexobj(dense(M)) for M in A)
    S = fractions(embedded(C.A.matrix() if low_rank else C, complex_))
    if low_rank:
        U, d = fractions(embedded(C.U, complex_)), [Fraction(float(x)) for x in np.tile(C.d, 1 + complex_)]
        for i, j in itertools.product(range(len(S)), repeat=2):
            S[i][j] += sum((a * x * b for a, x, b in zip(U[i], d, U[j], strict=True) if a and x and b), Fraction(0))
    for y, M in zip(dual, A, strict=True):
        M = fractions(embedded(M, complex_))
        for i, j in itertools.product(range(len(S)), repeat=2):
            if M[i][j]:
                S[i][j] -= Fraction(float(y)) * M[i][j]
    for i in range(len(S)):
        S[i][i] += Fraction(float(excess))
    return [[(S[i][j] + S[j][i]) / 2 for j in range(len(S))] for i in range(len(S))]


def exact_inner(b, dual):
    return sum((Fraction(float(u)) * Fraction(float(v)) for u, v in zip(b, dual, strict=True)), Fraction(0))


def holds(found, C, A, b, trace_bound=None):
    """Both claims of a finite bound, in exact arithmetic."""
    assert isinstance(found, VerifiedBound) and np.isfinite(found.bound) and found.excess >= 0
    value = exact_inner(b, found.dual)
    if found.excess:
        value -= Fraction(found.excess) * Fraction(float(trace_bound))
    return is_semidefinite(exact_slack(C, A, found.dual, found.excess)) and value >= Fraction(found.bound)


def unit(n, i, j, value=1.0):
    M = np.zeros((n, n), np.result_type(type(value), float))
    M[i, j] = value
    M[j, i] = np.conj(value)
    return M


def diagonals(n):
    return [unit(n, i, i) for i in range(n)]


def test_the_referee():
    J = np.ones((3, 3))
    assert is_semidefinite(fractions(J)) and not is_semidefinite(fractions(J - 2.0**-50 * np.eye(3)))
    assert not is_semidefinite(fractions([[0.0, 1.0], [1.0, 5.0]]))
    C = LowRankPlusSparse(sp.csr_array(np.eye(2)), np.array([[1j], [1.0]]), [-0.5])
    assert is_semidefinite(exact_slack(C, diagonals(2), [0.0, 0.0]))
    assert not is_semidefinite(exact_slack(C, diagonals(2), [0.0, 2.0**-40]))
    assert is_semidefinite(exact_slack(C, diagonals(2), [0.0, 2.0**-40], 2.0**-40))
    good = VerifiedBound(0.0, np.zeros(2), 0.0, 0.0, 0.0, 0.0, 1)
    assert holds(good, C, diagonals(2), np.ones(2)) and not holds(good, -np.eye(2), diagonals(2), np.ones(2))
    assert not holds(VerifiedBound(5e-324, np.zeros(2), 0.0, 0.0, 0.0, 0.0, 1), C, diagonals(2), np.ones(2))


# random instances: every form of C, every kind of rows, every kind of dual

FORMS = ["dense", "sparse", "arrow", "border", "mixed", "signed"]


def numbers(rng, shape, complex_, integer):
    def one():
        return rng.integers(-4, 5, shape).astype(float) if integer else rng.standard_normal(shape)

    return one() + 1j * one() if complex_ else one()


def hermitian(rng, n, complex_, integer, density=1.0):
    M = np.triu(numbers(rng, (n, n), complex_, integer) * (rng.random((n, n)) < density), 1)
    return M + M.conj().T + np.diag(rng.integers(-4, 5, n))


def random_cost(rng, n, form, complex_):
    """A cost in one of the six forms, its entries scaled by a power of two."""
    integer, scale = bool(rng.integers(2)), 4.0 ** rng.integers(-15, 16)
    if form == "dense":
        return scale * hermitian(rng, n, complex_, integer)
    if form == "sparse":
        return sp.csr_array(scale * hermitian(rng, n, complex_, integer, 0.4))
    r = int(rng.integers(1, max(2, (n + 1) // 2)))
    U = np.sqrt(scale) * numbers(rng, (n, r), complex_, integer)
    if form == "arrow":
        return LowRankPlusSparse(sp.csr_array(np.diag(scale * rng.integers(-4, 5, n).astype(float))), U, -rng.integers(1, 4, r))
    base = sp.csr_array(scale * hermitian(rng, n, complex_, integer, 0.4))
    d = {"border": -rng.random(r) - 0.1, "mixed": rng.standard_normal(r), "signed": rng.standard_normal(r)}[form]
    return LowRankPlusSparse(base, U, d)


def factor_of(rng):
    return float(rng.choice([-3.0, -1.0, -0.1, 0.7, 1.0, 5.0, 1e-3]))


def repeated_rows(rng, n, complex_):
    """``s X_ii = s v``, several times with several s, negative ones among them."""
    v = rng.random(n) + 0.1
    which = np.concatenate([np.arange(n), rng.integers(0, n, n)])
    s = [factor_of(rng) for _ in which]
    return [x * unit(n, i, i) for x, i in zip(s, which, strict=True)], s * v[which]


def sphere_rows(rng, n, complex_):
    """Positive combinations of one to three X_ii on disjoint supports."""
    A, b, left = [], [], list(rng.permutation(n))
    while left:
        take, s, M = [left.pop() for _ in range(min(len(left), int(rng.integers(1, 4))))], factor_of(rng), np.zeros((n, n))
        M[take, take] = s * (rng.random(len(take)) + 0.2)
        A.append(M)
        b.append(s * (1 + rng.random()))
    return A, np.array(b)


def trace_row(rng, n, complex_):
    s = factor_of(rng)
    return [s * np.eye(n)], np.array([2.5 * s])


def block_rows(rng, n, complex_):
    """Identity blocks of two rows, every entry with a factor of its own."""
    A, b = zip(*[(s * unit(n, i, i), s) for i in range(n) for s in [factor_of(rng)]], strict=True)
    off = [unit(n, i, i + 1, factor_of(rng) * field) for i in range(0, n - 1, 2) for field in ((1.0, 1j) if complex_ else (1.0,))]
    return [*A, *off], np.array([*b, *np.zeros(len(off))])


def general_rows(rng, n, complex_):
    """The diagonal, and rows of any kind on top of it."""
    M = [hermitian(rng, n, complex_, False, 0.4) for _ in range(3)]
    return [*diagonals(n), *M], np.concatenate([np.ones(n), rng.standard_normal(3)])


def free_rows(rng, n, complex_):
    """Rows that bound no trace: for use with trace_bound."""
    M = [hermitian(rng, n, complex_, False) for _ in range(int(rng.integers(1, 4)))]
    return M, rng.standard_normal(len(M))


ROWS = [repeated_rows, sphere_rows, trace_row, block_rows, general_rows, free_rows, None]


def random_dual(rng, C, A):
    """0, random, huge, small integers, or the least-squares multipliers of a random factor."""
    n, kind = C.shape[0] if not isinstance(C, LowRankPlusSparse) else C.n, int(rng.integers(5))
    full = C.mul(np.eye(n, dtype=C.dtype)) if isinstance(C, LowRankPlusSparse) else dense(C)
    size, m = float(np.abs(full).max()) or 1.0, len(A)
    if kind == 4:
        Y = rng.standard_normal((n, 2))
        matrix = np.array([(dense(M) @ Y).ravel() for M in A]).real.T
        return np.linalg.lstsq(matrix, (full @ Y).ravel().real, rcond=None)[0]
    return size * [0 * np.ones(m), rng.standard_normal(m), 1e10 * rng.standard_normal(m), rng.integers(-3, 4, m)][kind]


def proved(seed, monkeypatch):
    """One random instance: None if no bound was found, else whether it holds."""
    rng = np.random.default_rng(seed)
    form, complex_, rows = FORMS[seed % 6], bool(seed // 6 % 2), ROWS[seed // 12 % 7]
    n = int(rng.integers(2 if form == "signed" else 1, 5 if complex_ else 7))
    monkeypatch.setattr(slack_form, "DENSE_LIMIT", max(1, n - 1) if form in ("border", "signed") else 4000)
    C = random_cost(rng, n, form, complex_)
    A, b = (None, 10.0 ** rng.uniform(-2, 2, n)) if rows is None else rows(rng, n, complex_)
    matrices = diagonals(n) if A is None else A
    if A is not None and rng.random() < 0.3:
        A = sp.csr_array(np.array([M.ravel() for M in A]))
    trace_bound = 10.0 ** rng.uniform(-2, 2) if rows is free_rows else None
    found = lower_bound(C, A, b, random_dual(rng, C, matrices), trace_bound=trace_bound)
    return holds(found, C, matrices, b, trace_bound) if np.isfinite(found.bound) else None


def check_proofs(seeds, monkeypatch):
    answers = {seed: proved(seed, monkeypatch) for seed in seeds}
    assert [seed for seed, answer in answers.items() if answer is False] == []
    missing = sum(answer is None for answer in answers.values())
    assert missing <= 0.03 * len(answers), "bounds are found, but for slacks that are exactly 0"


def test_exact_proofs(monkeypatch):
    check_proofs(range(1008), monkeypatch)


@pytest.mark.slow
def test_exact_proofs_of_three_thousand(monkeypatch):
    check_proofs(range(2000, 5000), monkeypatch)


def planted(seed, monkeypatch):
    """``C = L + A*(y)`` in integers, L >= 0 singular, and this y: S = L exactly, on the boundary of the cone."""
    rng = np.random.default_rng([seed, 1])
    complex_, form = bool(seed % 2), FORMS[seed // 2 % 6]
    n = int(rng.integers(2, 5 if complex_ else 6))
    rows = [repeated_rows, sphere_rows, trace_row, block_rows][seed // 12 % 4]
    A, b = rows(rng, n, complex_)
    y = rng.integers(-9, 10, len(A)) * float(rng.choice([1, 0.1, 1e5]))
    if form in ("arrow", "border", "mixed", "signed"):
        A = [np.sign(M.real) * np.ceil(np.abs(M.real)) + (1j * np.sign(M.imag) * np.ceil(np.abs(M.imag)) if complex_ else 0) for M in A]
    r = int(rng.integers(1, n))
    B = numbers(rng, (n, r), complex_, True)
    C = sum(v * M for v, M in zip(y, A, strict=True))
    monkeypatch.setattr(slack_form, "DENSE_LIMIT", max(1, n - 1) if form in ("border", "signed") else 4000)
    if form in ("dense", "sparse"):
        C = C + B @ B.conj().T
        C = (C + C.conj().T) / 2
        C = sp.csr_array(C) if form == "sparse" else C
    elif form == "signed":
        C = LowRankPlusSparse(sp.csr_array(C), B)
    else:  # r columns of ones over a Laplacian's diagonal: sum_c (n I - 1 1*)
        phase = 1j ** rng.integers(0, 4, (n, r)) if complex_ else rng.choice([-1.0, 1.0], (n, r))
        C = LowRankPlusSparse(sp.csr_array(C + n * r * np.eye(n)), phase, -np.ones(r))
    found = lower_bound(C, A, b, y)
    return holds(found, C, A, b) if np.isfinite(found.bound) else None


def test_exact_proofs_at_singular_slacks(monkeypatch):
    answers = [planted(seed, monkeypatch) for seed in range(480)]
    assert [seed for seed, answer in enumerate(answers) if answer is False] == []
    assert sum(answer is None for answer in answers) <= 10


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_graded_rows_under_one_trace(form):
    """Slacks that are indefinite by roundings of their large entries: one row of A pays for the largest error, not for the last."""
    negative = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        a, c = 1e6 * rng.random(2)
        C = np.diag([a, c, 1.0])
        C[0, 1] = C[1, 0] = np.nextafter(np.sqrt(a * c), rng.choice([0, np.inf]))
        found = lower_bound(form(C), [np.eye(3)], [1.0])
        assert holds(found, C, [np.eye(3)], [1.0]) and found.bound > -1e-8, seed
        negative += not is_semidefinite(fractions(C))
    assert negative > 10


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_huge_multipliers_that_cancel(form):
    """Three rows fix each X_ii with multipliers of 1e10 that add up to about nothing: what their sum rounds away is paid for."""
    negative = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        s = np.array([0.1, 0.7, -3.0])
        A = [v * unit(2, i, i) for i in range(2) for v in s]
        y = 1e10 * rng.standard_normal(6)
        C = np.ones((2, 2)) + np.diag([s @ y[:3], s @ y[3:]])
        found = lower_bound(form(C), A, np.tile(s, 2), y)
        assert holds(found, C, A, np.tile(s, 2)), seed
        negative += not is_semidefinite(exact_slack(C, A, y))
    assert negative > 10


@pytest.mark.parametrize("complex_", [False, True])
def test_low_rank_parts_that_cancel(complex_, monkeypatch):
    """``u u* - (1.1 u)(1.1 u)* / 1.21``, 1e16 each and 1 together: the bound pays for its expansion, or for its border."""
    for seed, limit in itertools.product(range(15), (4000, 3)):
        monkeypatch.setattr(slack_form, "DENSE_LIMIT", limit)
        rng = np.random.default_rng(seed)
        u = 1e8 * numbers(rng, (4, 1), complex_, False)
        C = LowRankPlusSparse(sp.csr_array((4, 4)), np.hstack([u, 1.1 * u]), [1.0, -1 / 1.21])
        found = lower_bound(C)
        assert not np.isfinite(found.bound) or holds(found, C, diagonals(4), np.ones(4)), (seed, limit)
        assert limit < 4000 or np.isfinite(found.bound)


def test_no_rows_but_the_diagonal(monkeypatch):
    """A=None, in every form of C; n = 1 included."""
    for seed in range(120):
        rng = np.random.default_rng([seed, 2])
        form, complex_, n = FORMS[seed % 6], bool(seed // 6 % 2), int(rng.integers(2 if seed % 6 == 5 else 1, 5))
        monkeypatch.setattr(slack_form, "DENSE_LIMIT", max(1, n - 1) if form in ("border", "signed") else 4000)
        C = random_cost(rng, n, form, complex_)
        found = lower_bound(C, dual=random_dual(rng, C, diagonals(n)))
        assert not np.isfinite(found.bound) or holds(found, C, diagonals(n), np.ones(n)), seed


def exact_stiefel(manifold, mu, digits=40):
    """A*(mu) of identity blocks to ``digits`` digits: their off-diagonal multipliers carry a factor 1/sqrt 2."""
    d, n = manifold.d, manifold.n
    root = Fraction(math.isqrt(2 * 10 ** (2 * digits)), 2 * 10**digits)
    S = [[Fraction(0)] * 2 * n for _ in range(2 * n)]
    upper = list(zip(*np.triu_indices(d, 1), strict=True))
    for block, values in enumerate(mu.reshape(manifold.q, -1)):
        h = [Fraction(float(v)) for v in values]
        for i in range(d):
            for shift in (0, n):
                S[block * d + i + shift][block * d + i + shift] = h[i]
        for place, (i, j) in enumerate(upper):
            re = h[d + place] * root
            im = h[d + len(upper) + place] * root if manifold.is_complex else Fraction(0)
            p, q = block * d + i, block * d + j
            for a, c, v in ((p, q, re), (p + n, q + n, re), (p, q + n, -im), (p + n, q, im)):
                S[a][c] = S[c][a] = v
    return S


@pytest.mark.parametrize("complex_", [False, True])
def test_manifolds_as_rows(complex_):
    """Identity blocks up to 1e-30 (1/sqrt 2 is irrational), spheres and products exactly."""
    for seed in range(20):
        rng = np.random.default_rng([seed, complex_])
        manifold = StiefelProduct(*[(1, 2), (2, 2), (1, 3)][seed % 3], complex_)
        C = hermitian(rng, manifold.n, complex_, bool(seed % 2))
        C = sp.csr_array(C) if seed % 4 == 3 else C
        Y = manifold.random_point(manifold.d, rng, C.dtype)
        for dual in (manifold.multipliers(Y, C @ Y), rng.standard_normal(manifold.m), 1e10 * rng.standard_normal(manifold.m)):
            found = lower_bound(C, manifold, dual=dual)
            S, A_mu = fractions(embedded(C, True)), exact_stiefel(manifold, found.dual)
            S = [[s - a for s, a in zip(*rows, strict=True)] for rows in zip(S, A_mu, strict=True)]
            for i in range(len(S)):
                S[i][i] += Fraction(1, 10**28)
            assert is_semidefinite(S) and exact_inner(manifold.b, found.dual) >= Fraction(found.bound)
        radii = rng.random(3) + 0.1
        C = hermitian(rng, 5, complex_, False)
        part, groups = Product([Oblique(radii), Sphere(2, 0.7)]), [*diagonals(5)[:3], diagonals(5)[3] + diagonals(5)[4]]
        found = lower_bound(C, part, dual=rng.standard_normal(4))
        assert holds(found, C, groups, part.b)


def test_the_same_rows_in_every_dress():
    """A manifold, its matrices, a stacked array and rescaled rows give one bound, up to rounding."""
    C = gallery.goe(6, 3) + np.diag(np.arange(6.0))
    dual = np.arange(6.0) - np.abs(gallery.goe(6, 3)).sum(axis=1) - 0.1  # S > 0: no shift, whose size would depend on roundings
    stacked = sp.csr_array(np.array([M.ravel() for M in diagonals(6)]))
    dresses = [(None, None), (None, np.ones(6)), (Oblique(np.ones(6)), None), (diagonals(6), np.ones(6)), (stacked, np.ones(6))]
    one = lower_bound(C, dual=dual)
    for A, b in dresses:
        found = lower_bound(C, A, b, dual)
        assert found.bound == pytest.approx(one.bound, rel=1e-13) and found.estimate == pytest.approx(one.estimate, rel=1e-13)
    s = np.array([-3.0, 0.25, 1e3, -1e-3, 7.0, 1.0])
    found = lower_bound(C, [v * M for v, M in zip(s, diagonals(6), strict=True)], s, dual / s)
    assert found.bound == pytest.approx(one.bound, rel=1e-12)
    np.testing.assert_allclose(found.dual * s, one.dual, rtol=1e-10, atol=1e-12)
    p = np.random.default_rng(1).permutation(6)
    moved = lower_bound(C[np.ix_(p, p)], dual=dual[p])
    assert moved.bound == pytest.approx(one.bound, rel=1e-12)


def test_figures_belong_together():
    """``estimate - bound = rounding``, the shift covers the smallest eigenvalue by no more than a twentieth, excess only where needed."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 30))
        b, C = 10.0 ** rng.uniform(-1, 1, n), hermitian(rng, n, bool(seed % 2), False)
        dual = rng.standard_normal(n)
        found = lower_bound(sp.csr_array(C) if seed % 3 == 0 else C, None, b, dual)
        root = np.sqrt(b)
        lowest = float(np.linalg.eigvalsh(root[:, None] * (C - np.diag(dual)) * root)[0])
        unit_of = float(root @ np.abs(C - np.diag(dual)) @ root)
        assert found.rounding == found.estimate - found.bound > 0 and found.excess == 0 and found.factorisations >= 1
        assert max(-lowest, 0) - 1e-13 * unit_of <= found.shift <= 1.05 * max(-lowest, 0) + 1e-13 * unit_of
        assert found.estimate == pytest.approx(b @ dual - n * found.shift, abs=1e-12 * unit_of)
        assert found.rounding <= 40 * n * (n + 8) * 2 * UNIT * unit_of
        assert found.dual.shape == (n,) and b @ found.dual == pytest.approx(found.bound, abs=1e-10 * unit_of)


def test_good_duals_give_good_bounds():
    """One factorisation and a bound within rounding of the optimum at exact multipliers of a definite enough slack."""
    for n in (5, 7, 9):
        C, _, optimum = gallery.n_gon(n, 3.0)
        found = lower_bound(C, dual=np.full(n, -1.0))  # S = C + I is singular, exactly up to rounding
        assert optimum - 1e-12 * n <= found.bound <= optimum + 1e-14
    C, x, optimum = gallery.rank_one_optimal(30, 0)
    mu = x * (C @ x)
    found = lower_bound(C, dual=mu)
    assert abs(found.bound - optimum) <= 1e-11 * abs(optimum) and found.factorisations <= 8
    assert lower_bound(C, dual=mu - 1e-3).factorisations == 1


# instances whose optimum is known


def complete(n):
    return np.ones((n, n)) - np.eye(n)


def cycle(n):
    W = np.zeros((n, n))
    W[np.arange(n), np.arange(1, n + 1) % n] = 1
    return W + W.T


def petersen():
    W, a = np.zeros((10, 10)), np.arange(5)
    W[a, (a + 1) % 5] = W[a, a + 5] = W[a + 5, 5 + (a + 2) % 5] = 1
    return W + W.T


def maxcut(W, value):
    return sp.csr_array(laplacian_cost(sp.csr_array(W))), Oblique(np.ones(len(W))), -value


def with_ones(found):
    C, _, optimum = found
    return C, Oblique(np.ones(len(C))), optimum


def kkt(rng, manifold, complex_):
    """``C = S + A*(mu)`` with S >= 0 and S Y = 0: Y is optimal, of value <b, mu>."""
    dtype = complex if complex_ else float
    k = max(manifold.min_rank, 1)
    Y = manifold.random_point(k, rng, dtype)
    Q = np.linalg.qr(np.hstack([Y, numbers(rng, (manifold.n, manifold.n), complex_, False)]))[0][:, k:]
    values = 10.0 ** rng.uniform(-6, 1, Q.shape[1]) * (rng.random(Q.shape[1]) < 0.7)
    mu = rng.standard_normal(manifold.m)
    C = (Q * values) @ Q.conj().T + manifold.adjoint_mul(mu, np.eye(manifold.n, dtype=dtype))
    return (C + C.conj().T) / 2, manifold, float(manifold.b @ mu)


def traced(rng, complex_):
    C, n = hermitian(rng, 6, complex_, False), 6
    return C, Sphere(n, 2.5), 2.5 * float(np.linalg.eigvalsh(C)[0])


KNOWN = {
    "rank one": lambda rng: with_ones(gallery.rank_one_optimal(int(rng.integers(2, 12)), rng, 10 ** rng.uniform(0, 4))),
    "n-gon": lambda rng: with_ones(gallery.n_gon(int(rng.integers(5, 13)), rng.uniform(0.1, 5))),
    "ocarroll": lambda rng: with_ones(gallery.ocarroll(int(rng.integers(2, 7)))),
    "triangle": lambda rng: with_ones(gallery.complex_triangle(rng.uniform(0.1, 5))),
    "odd cycle": lambda rng: (lambda n: maxcut(cycle(n), n * (1 + np.cos(np.pi / n)) / 2))(2 * int(rng.integers(1, 7)) + 1),
    "complete": lambda rng: (lambda n: maxcut(complete(n), n * n / 4))(int(rng.integers(2, 12))),
    "petersen": lambda rng: maxcut(petersen(), 12.5),
    "radii": lambda rng: kkt(rng, Oblique(10.0 ** rng.uniform(-2, 2, 6)), False),
    "complex": lambda rng: kkt(rng, Oblique(10.0 ** rng.uniform(-1, 1, 5)), True),
    "stiefel": lambda rng: kkt(rng, StiefelProduct(3, 2), False),
    "stiefel, complex": lambda rng: kkt(rng, StiefelProduct(2, 3, True), True),
    "product": lambda rng: kkt(rng, Product([Oblique([0.1, 1, 20]), Sphere(3, 4.0), StiefelProduct(1, 2)]), False),
    "trace": lambda rng: traced(rng, bool(rng.integers(2))),
}


def some_dual(rng, problem, model):
    kind = int(rng.integers(5))
    size = problem.norm_C * rng.standard_normal(problem.manifold.m)
    return [model.mu, model.mu + 10.0 ** rng.uniform(-16, 0) * size, size, 1e10 * size, 0 * size][kind]


def known_optima(count, seed):
    """(name, how, excess) of the bounds above the optimum; the optimum itself is known to a few roundings."""
    rng, worst = np.random.default_rng(seed), []
    for trial in range(count):
        name = list(KNOWN)[trial % len(KNOWN)]
        C, manifold, optimum = KNOWN[name](rng)
        problem = Problem(C, manifold)
        size = float(np.sqrt(manifold.row_trace) @ np.abs(dense(C)) @ np.sqrt(manifold.row_trace)) * (1 if manifold.m > 1 else problem.n)
        model = problem.at(problem.random_point(int(rng.integers(manifold.min_rank, problem.n + 1)), rng))
        bounds = {"lower_bound": lower_bound(C, manifold, dual=some_dual(rng, problem, model)).bound}
        rigor = ("verified", "auto", "probabilistic", None)[trial // len(KNOWN) % 4]
        if rigor is not None:
            bounds[rigor] = certify(model, 10.0 ** rng.uniform(-12, -1), rigor, rng).bound
        if trial % 40 == 0:
            solved = bmsdp.solve(problem, tol=1e-7, rng=rng)
            bounds |= {"solved": solved.bound, "its dual": lower_bound(C, manifold, dual=solved.dual).bound}
            assert solved.status.name in ("CERTIFIED", "STALLED") and solved.cost >= optimum - 1e-13 * size, (trial, name, solved)
        worst += [(trial, name, how, (x - optimum) / size) for how, x in bounds.items() if not x <= optimum + 8 * problem.n * UNIT * size]
    return worst


def test_never_above_a_known_optimum():
    assert known_optima(1500, 0) == []


@pytest.mark.slow
def test_never_above_a_known_optimum_ten_thousand():
    assert known_optima(10_000, 1) == []


# where no bound is to be had, and what else is refused


def test_no_trace_no_bound():
    C = np.diag([1.0, 2.0, 0.0])
    off = [unit(3, 0, 1)]
    for cost, A, b in (
        (C, off, [0.0]),
        (-C, off, [0.0]),
        (C, diagonals(3)[:2], np.ones(2)),
        (C, [np.diag([1.0, 1.0, -1.0])], [1.0]),  # of mixed signs: bounds nothing
        (C, diagonals(3), [1.0, 1.0, -1.0]),  # infeasible, but not for this function to say
        (C, [np.diag([1.0, 1.0, 0.0])], [1.0]),
        (C, Unconstrained(3), None),
        (C, Product([Oblique(np.ones(2)), Unconstrained(1)]), None),
    ):
        for form in (cost, sp.csr_array(cost)):
            found = lower_bound(form, A, b)
            assert found.bound == -np.inf and found.estimate == -np.inf and found.excess == np.inf
            bounded = lower_bound(form, A, b, trace_bound=3.0)
            assert np.isfinite(bounded.bound) and bounded.bound <= 3 * min(0, np.linalg.eigvalsh(cost)[0])
            assert bounded.bound >= 3.7 * min(0, np.linalg.eigvalsh(cost)[0]) - 1e-12


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_a_free_row_of_negative_curvature(form):
    assert lower_bound(form(np.diag([1.0, 2.0, -2.0])), diagonals(3)[:2], np.ones(2)).bound == -np.inf


def test_trace_bound_beside_bounded_rows():
    """``X_00 = X_11 = 1`` and ``tr X <= 300``: three shares of 300 x 0.01 are paid, one a row, and not 300 times that."""
    C = np.diag([1.0, 2.0, -0.01])
    found = lower_bound(C, diagonals(3)[:2], np.ones(2), trace_bound=300.0)
    assert -3 * 3.2 <= found.bound <= -3 + 1e-12 and holds(found, C, diagonals(3)[:2], np.ones(2), 300.0)


def test_the_tightest_row_bounds_the_trace():
    """X_ii = 1 stands beside tr X = 30: what the shift costs is 3 t, not 30 t."""
    C = gallery.goe(3, 0)
    plain = lower_bound(C)
    both = lower_bound(C, [np.eye(3), *diagonals(3)], [30.0, 1, 1, 1])
    assert both.bound == pytest.approx(plain.bound, rel=1e-12) and both.dual[0] == 0
    loose = lower_bound(C, [np.eye(3), diagonals(3)[0]], [3.0, 1.0])
    assert loose.bound <= plain.bound


def test_zero_slack_is_no_obstacle():
    """``C = A*(dual)`` exactly: the bound is <b, dual> up to rounding."""
    found = lower_bound(np.diag([1.0, 2.0, 3.0]), dual=[1.0, 2.0, 3.0])
    assert 6 - 1e-12 <= found.bound <= 6


def test_zero_cost():
    low = (LowRankPlusSparse(None, np.zeros((3, 1))), LowRankPlusSparse(None, np.ones((3, 2)), [0.0, 0.0]))
    for C in (np.zeros((3, 3)), sp.csr_array((3, 3)), np.zeros((1, 1)), *low):
        found = lower_bound(C)
        assert -1e-290 <= found.bound <= 0


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("complex_", [False, True])
def test_zero_diagonal(complex_, form):
    """The default multipliers, 0, on a cost with a zero diagonal: the first pivot is 0, and n lambda_min the bound."""
    for n in (2, 5, 20):
        C = gallery.gue(n, 0) if complex_ else gallery.goe(n, 0)
        np.fill_diagonal(C, 0)
        found = lower_bound(form(C))
        lowest = n * np.linalg.eigvalsh(C)[0]
        assert 1.05 * lowest <= found.bound <= lowest


def test_a_few_factorisations_at_a_zero_diagonal():
    counts = [lower_bound(gallery.goe(n, 0)).factorisations for n in (5, 20, 60)]
    assert max(counts) <= 15, counts


def test_rows_that_fix_zero():
    """X_11 = 0: b may be 0."""
    assert lower_bound(np.eye(3), None, [1.0, 0.0, 1.0]).bound == pytest.approx(0, abs=1e-13)


def test_rows_that_fix_zero_under_a_negative_diagonal():
    """What C says there does not matter, though it is no error to find no bound."""
    assert lower_bound(np.diag([1.0, -2.0, 3.0]), None, [1.0, 0.0, 1.0]).bound <= 4


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150])
def test_extreme_scales(scale):
    C = gallery.goe(4, 0) + np.diag(np.arange(4.0))
    for cost in (scale * C, sp.csr_array(scale * C)):
        found = lower_bound(cost)
        assert holds(found, cost, diagonals(4), np.ones(4)) and found.bound == pytest.approx(scale * lower_bound(C).bound, rel=0.1)


def test_powers_of_two_change_nothing():
    C, dual = hermitian(np.random.default_rng(0), 7, True, False), np.arange(7.0)
    for form in (np.asarray, sp.csr_array):
        one, two = lower_bound(form(C), dual=dual), lower_bound(form(2.0**30 * C), dual=2.0**30 * dual)
        assert two.bound == pytest.approx(2.0**30 * one.bound, rel=1e-15) and two.factorisations == one.factorisations


def test_inputs_are_left_alone():
    C, A, b, dual = sp.csr_array(gallery.goe(4, 0)), diagonals(4), np.ones(4), np.arange(4.0)
    kept = C.toarray(), [M.copy() for M in A]
    found = lower_bound(C, A, b, dual)
    assert np.array_equal(C.toarray(), kept[0]) and all(map(np.array_equal, A, kept[1]))
    assert np.array_equal(b, np.ones(4)) and np.array_equal(dual, np.arange(4.0)) and not np.shares_memory(found.dual, dual)


C3 = gallery.goe(3, 0)
REFUSED = {
    "operator": ((spla.aslinearoperator(C3),), {}, "verified bound needs the entries of C.*pass C as an array"),
    "low rank on an operator": ((LowRankPlusSparse(spla.aslinearoperator(C3), np.ones((3, 1))),), {}, "needs the entries of C"),
    "nan dual": ((C3,), {"dual": [1.0, np.nan, 0.0]}, r"dual has shape \(3,\) and must hold 3 finite numbers"),
    "infinite dual": ((C3,), {"dual": [1.0, np.inf, 0.0]}, "must hold 3 finite numbers"),
    "short dual": ((C3,), {"dual": [1.0]}, r"dual has shape \(1,\) and must hold 3"),
    "flat dual": ((C3,), {"dual": 1.0}, r"dual has shape \(\) and must hold 3"),
    "words": ((C3,), {"dual": ["a", "b", "c"]}, "could not convert"),
    "no b": ((C3, diagonals(3)), {}, "A has 3 rows but b was not given; pass the 3 right-hand sides"),
    "short b": ((C3, diagonals(3), [1.0]), {}, r"b has shape \(1,\) and must hold 3 finite numbers"),
    "nan b": ((C3, diagonals(3), [1.0, np.nan, 1.0]), {}, "must hold 3 finite numbers"),
    "short b without A": ((C3, None, [1.0]), {}, r"without A it is the diagonal of X; it must have shape \(3,\)"),
    "other A": ((C3, diagonals(4), np.ones(4)), {}, r"A\[0\] has shape \(4, 4\) but C is 3 x 3"),
    "no rows": ((C3, [], []), {}, "A holds no matrix"),
    "asymmetric A": ((C3, [np.triu(np.ones((3, 3)))], [1.0]), {}, "A_0 is not Hermitian"),
    "asymmetric C": ((np.triu(np.ones((3, 3))),), {}, "C is not symmetric"),
    "nan C": ((np.full((3, 3), np.nan),), {}, "every entry must be finite"),
    "other manifold": ((C3, Oblique(np.ones(4))), {}, "A acts on 4 x 4 matrices but C is 3 x 3"),
    "zero trace": ((C3,), {"trace_bound": 0.0}, "trace_bound = 0.0; a positive finite number is needed"),
    "negative trace": ((C3,), {"trace_bound": -1}, "trace_bound = -1"),
    "infinite trace": ((C3,), {"trace_bound": np.inf}, "trace_bound = inf"),
    "nan trace": ((C3,), {"trace_bound": np.nan}, "trace_bound = nan"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    arguments, keywords, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        lower_bound(*arguments, **keywords)


@pytest.mark.parametrize("b", [[1.0, np.nan, 1.0], [1.0, np.inf, 1.0]])
def test_b_without_A_has_to_be_finite(b):
    with pytest.raises(ValueError, match="finite"):
        lower_bound(C3, None, b)


@pytest.mark.filterwarnings("default")
def test_complex_duals_are_refused():
    for keywords in ({"dual": [1j, 0, 0]}, {"A": diagonals(3), "b": [1.0, 1.0, 1j]}):
        with pytest.raises(ValueError, match="real"):
            lower_bound(C3, **keywords)


def test_what_is_not_affordable_is_declined(monkeypatch):
    from bmsdp import factorization

    monkeypatch.setattr(factorization, "CORE_LIMIT", 2)
    with pytest.raises(ValueError, match="too much fill-in"):
        lower_bound(C3)


# rows that are Hermitian only up to rounding


def test_rows_that_are_hermitian_up_to_rounding():
    """Asymmetry up to 1e-14 is taken for rounding; the bound has to pay for it."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y = np.array([0.0, 0.0, 1e5 * rng.integers(1, 10)])
        A = [*diagonals(2), unit(2, 0, 1, float(rng.choice([-0.5, 2.0, 4.0])))]
        C = rng.integers(1, 4) * np.ones((2, 2)) * (1 - 2 * np.eye(2)[::-1] * rng.integers(0, 2)) + y[2] * A[2]
        A[2] = A[2] * (1 + np.triu(np.full((2, 2), rng.choice([-9e-15, 9e-15])), 1))
        found = lower_bound(C, A, [1.0, 1.0, 0.0], y)
        assert holds(found, C, A, [1.0, 1.0, 0.0]), seed


# certificates of low rank + sparse costs


def expanded(C):
    full = C.mul(np.eye(C.n, dtype=C.dtype))
    return (full + full.conj().T) / 2


LOW_RANK = {
    "arrow": (False, lambda rng, U: LowRankPlusSparse(sp.diags_array(rng.standard_normal(len(U))).tocsr(), U, -np.ones(U.shape[1]))),
    "no base": (False, lambda rng, U: LowRankPlusSparse(None, U, -np.ones(U.shape[1]))),
    "border": (True, lambda rng, U: LowRankPlusSparse(cycle(len(U)), U, -np.ones(U.shape[1]))),
    "sparse border": (True, lambda rng, U: LowRankPlusSparse(sp.csr_array(cycle(len(U))), U, -np.ones(U.shape[1]))),
    "signed": (True, lambda rng, U: LowRankPlusSparse(sp.csr_array(cycle(len(U))), U, rng.standard_normal(U.shape[1]))),
    "mixed": (False, lambda rng, U: LowRankPlusSparse(sp.csr_array(cycle(len(U))), U, rng.standard_normal(U.shape[1]))),
    "positive": (False, lambda rng, U: LowRankPlusSparse(sp.csr_array(cycle(len(U))), U)),
    "zero weights": (False, lambda rng, U: LowRankPlusSparse(sp.csr_array(cycle(len(U))), U, np.zeros(U.shape[1]))),
    "no columns": (False, lambda rng, U: LowRankPlusSparse(sp.csr_array(cycle(len(U))), U[:, :0])),
}


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(
    "manifold", [Oblique(np.linspace(0.5, 2, 12)), Sphere(12, 3.0), StiefelProduct(6, 2), StiefelProduct(6, 2, True)], ids=type
)
@pytest.mark.parametrize("name", LOW_RANK)
def test_low_rank_certificates(name, manifold, complex_, monkeypatch):
    """Verified, and those of the dense matrix up to rounding."""
    small, make = LOW_RANK[name]
    if getattr(manifold, "is_complex", complex_) != complex_:
        return
    if small:
        monkeypatch.setattr(slack_form, "DENSE_LIMIT", 8)
    rng = np.random.default_rng(0)
    C = make(rng, numbers(rng, (12, 3), complex_, False))
    if small and not sp.issparse(C.A.matrix()):
        monkeypatch.setattr(slack_form, "DENSE_LIMIT", 20)
    C = C if C.is_complex == complex_ else C.as_complex()
    low, full = Problem(C, manifold), Problem(expanded(C), manifold)
    solved = bmsdp.solve(low, tol=1e-7, certify="verified", rng=0)
    assert solved.status.name == "CERTIFIED" and solved.certificate.rigor == solved.certificate.gap_rigor == "verified"
    assert solved.cost == pytest.approx(bmsdp.solve(full, tol=1e-7, rng=0).cost, rel=2e-7)
    for Y in (low.random_point(4, rng), solved.Y):
        one, two = (certify(problem.at(Y), 1e-6, "verified", 0) for problem in (low, full))
        assert one.rigor == two.rigor == "verified"
        assert one.bound == pytest.approx(two.bound, rel=1e-9) and one.eig_min == pytest.approx(two.eig_min, abs=1e-8)
        again, other = (lower_bound(cost, manifold, dual=two.dual) for cost in (C, expanded(C)))
        assert again.bound == pytest.approx(other.bound, rel=1e-9)
        lowest = np.linalg.eigvalsh(expanded(C) - manifold.adjoint_mul(again.dual, np.eye(12, dtype=C.dtype)))[0]
        assert lowest >= -1e-13


def test_a_positive_low_rank_alone_keeps_its_bound():
    """``min <U U*, X> = 0``: the multipliers tend to 0."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        C = LowRankPlusSparse(None, rng.standard_normal((12, 2)))
        result = bmsdp.solve(C, rng=0, tol=1e-5)
        assert result.bound >= -1e-8 and np.isfinite(result.dual).all(), (seed, result)
        assert -1e-8 <= lower_bound(C, dual=result.dual).bound <= 0


def test_a_large_positive_low_rank_alone_is_left_to_lanczos(monkeypatch):
    """A border wants a definite M beside ``W W*``, and here M tends to 0."""
    monkeypatch.setattr(slack_form, "DENSE_LIMIT", 8)
    C = LowRankPlusSparse(None, np.random.default_rng(0).standard_normal((12, 2)))
    result = bmsdp.solve(C, rng=0, tol=1e-5)
    assert result.certificate.rigor == "probabilistic" and result.bound >= -1e-6 and np.isfinite(result.dual).all()
    sure = bmsdp.certify(Problem(C, Oblique(np.ones(12))).at(result.Y), rigor="verified")
    assert sure.bound <= 0 and np.isfinite(sure.dual).all()


def test_low_rank_duals_are_exactly_feasible(monkeypatch):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        form, complex_ = ("arrow", "border", "mixed", "signed")[seed % 4], bool(seed // 4 % 2)
        n = 4 if complex_ else 5
        monkeypatch.setattr(slack_form, "DENSE_LIMIT", n - 1 if form in ("border", "signed") else 4000)
        C = random_cost(rng, n, form, complex_)
        problem = Problem(C, Oblique(np.ones(n)))
        for Y in (problem.random_point(2, rng), bmsdp.solve(problem, rng=0).Y):
            found = certify(problem.at(Y), 1e-6, "verified", rng)
            assert found.rigor == "verified" and is_semidefinite(exact_slack(C, diagonals(n), found.dual)), seed
            assert Fraction(found.bound) <= exact_inner(np.ones(n), found.dual)


@pytest.mark.parametrize("seed", [126, 187])
def test_the_factorisation_does_not_depend_on_the_points_before(seed):
    """At the first point the multipliers of the identity blocks happen to be diagonal, at the next one they are not."""
    rng = np.random.default_rng(seed)
    v = rng.standard_normal((3, 1))
    V = np.vstack([v, v])
    manifold = StiefelProduct(2, 3)
    problem = Problem(LowRankPlusSparse(None, V, [-1.0]), manifold)
    Q = np.hstack([np.linalg.qr(rng.standard_normal((3, 3)))[0], np.zeros((3, 1))])
    certify(problem.at(np.vstack([Q, -Q])), 1e-6, "verified", 0)
    for size, tol in itertools.product((0.05, 0.1, 0.2, 0.4, 0.6), (0.05, 0.1, 0.3, 0.5, 0.9)):
        Y = manifold.retract(np.vstack([Q, Q]), size * rng.standard_normal((6, 4)))
        found = certify(problem.at(Y), tol, "verified", 0)
        assert np.linalg.eigvalsh(-V @ V.T - manifold.adjoint_mul(found.dual, np.eye(6)))[0] >= -1e-12, (size, tol)


@pytest.mark.parametrize("delta", [1.0, 1e-6])
def test_duals_of_nearly_dependent_rows(delta):
    """Re X_01 = 0 and Re X_01 + delta Im X_01 = 0: what `solve` returns is feasible for these very rows."""
    n = 4
    A = [*diagonals(n), *(unit(n, i, i + 1, v) for i in (0, 2) for v in (1.0 + 0j, 1.0 + 1j * delta))]
    b = np.array([1.0] * n + [0.0] * 4)
    for seed in range(5):
        C = hermitian(np.random.default_rng(seed), n, True, True)
        result = bmsdp.solve(C, A, b, certify="verified", tol=1e-11, rng=seed)
        assert result.certificate.rigor == "verified"
        assert is_semidefinite(exact_slack(C, A, result.dual)) and Fraction(result.bound) <= exact_inner(b, result.dual)


def test_certified_means_a_gap_below_tol():
    n = 4
    A = [*diagonals(n), *(unit(n, i, i + 1, v) for i in (0, 2) for v in (1.0 + 0j, 1.0 + 1e-6j))]
    for seed in range(5):
        C = hermitian(np.random.default_rng(seed), n, True, True)
        result = bmsdp.solve(C, A, [1.0] * n + [0.0] * 4, certify="verified", tol=1e-11, rng=seed)
        assert result.history["gap"][-1] == result.gap and (result.gap <= 1e-11) == (result.status.name == "CERTIFIED")


# public instances


@pytest.mark.parametrize("name", ["G1", "G11", "G14", "G43", "G48", "G67"])
def test_gset(name, shared_data):
    """What rounding costs: at most ``max(1e-9 |f|, 4 n p u tr S)``, p terms in a row of the factor."""
    from bmsdp.io.rudy import read_rudy

    path = shared_data / "gset" / f"{name}.rud"
    if not path.exists():
        pytest.skip(f"gset/{name}.rud is absent")
    C, A, b, _ = read_rudy(path)
    result, n = bmsdp.solve(C, A, b, tol=1e-5, rng=0), C.shape[0]
    terms = int(Elimination.analyse(as_operator(C).matrix()).terms.max())
    for dual in (result.dual, Problem(C, Oblique(np.ones(n))).at(result.Y).mu):
        found = lower_bound(C, A, b, dual)
        trace = float(C.diagonal().sum() - dual.sum())
        assert 0 < found.rounding <= max(1e-9 * abs(result.cost), 4 * n * terms * UNIT * trace)
        assert found.rounding <= 1e-12 * abs(result.cost), "measured: 3e-13 at most"
        assert found.bound <= result.cost and found.bound == pytest.approx(result.cost, rel=1e-4)
    assert lower_bound(C, A, b, result.dual).bound == pytest.approx(result.bound, rel=1e-11)


# the upper bound: the cost of an exactly feasible point


def exact_cost(C, Y, complex_):
    """``<C, YY*>`` as a fraction."""
    C, Y = fractions(embedded(C, complex_)), fractions(embedded(Y, complex_))
    X = [[sum((a * c for a, c in zip(u, v, strict=True)), Fraction(0)) for v in Y] for u in Y]
    return sum((c * x for rows in zip(C, X, strict=True) for c, x in zip(*rows, strict=True)), Fraction(0)) / (1 + complex_)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_cost_of_pythagorean_points(form):
    """Rows such as (3/5, 4/5): Y is a rounding away from the unit rows, whose cost is rational."""
    triples = np.array([(3, 4, 5), (5, 12, 13), (-8, 15, 17), (7, -24, 25), (0, 1, 1), (-20, -21, 29)])
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 6))
        pick = triples[rng.integers(0, 6, n)]
        C = hermitian(rng, n, False, bool(seed % 2)) * 2.0 ** rng.integers(-20, 21)
        exact = [[Fraction(int(a), int(c)), Fraction(int(b), int(c))] for a, b, c in pick]
        cost = sum(Fraction(float(C[i, j])) * sum(map(Fraction.__mul__, exact[i], exact[j])) for i in range(n) for j in range(n))
        Y = np.array(exact, float)
        above = cost_above(as_operator(form(C)), Y, Oblique(np.ones(n)).defect(Y))
        assert Fraction(above) >= cost
        assert above - float(cost) <= 200 * UNIT * np.abs(C).sum()


def test_cost_of_points_far_from_feasible():
    """Any Z within the stated distances, also where they are large."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        complex_, n, k = bool(seed % 2), int(rng.integers(1, 6)), int(rng.integers(1, 4))
        C = hermitian(rng, n, complex_, False)
        Y, step = numbers(rng, (n, k), complex_, False), numbers(rng, (n, k), complex_, False)
        step *= 10.0 ** rng.uniform(-17, 1, n)[:, None] / np.linalg.norm(step, axis=1, keepdims=True)
        Z = Y + step
        distance = np.array([math.nextafter(float(np.linalg.norm(row)), math.inf) for row in Z - Y]) * (1 + 1e-15)
        assert Fraction(cost_above(as_operator(C), Y, distance)) >= exact_cost(C, Z, complex_)
        assert Fraction(cost_above(as_operator(C), Y, np.zeros(n))) >= exact_cost(C, Y, complex_)


@pytest.mark.parametrize("complex_", [False, True])
def test_cost_on_the_trace_sphere(complex_):
    """``R <C, YY*> / |Y|^2`` is rational."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n, k = int(rng.integers(1, 6)), int(rng.integers(1, 4))
        manifold, C = Sphere(n, 0.7), hermitian(rng, n, complex_, False)
        Y = manifold.random_point(k, rng, C.dtype) * (1 + 10.0 ** rng.uniform(-17, -3))
        square = exact_cost(np.eye(n), Y, complex_)
        cost = exact_cost(C, Y, complex_) * Fraction(0.7) / square
        assert Fraction(cost_above(as_operator(C), Y, manifold.defect(Y))) >= cost


@pytest.mark.parametrize("radius", [1.0, 0.3, 1e-4, 77.0])
@pytest.mark.parametrize("complex_", [False, True])
def test_cost_of_normalised_rows(radius, complex_):
    """``C_ij sqrt(b_i b_j) <y_i, y_j> / (|y_i| |y_j|)`` to 60 digits."""
    with decimal.localcontext(prec=60):
        for seed in range(30):
            rng = np.random.default_rng(seed)
            n, k = int(rng.integers(1, 5)), int(rng.integers(1, 4))
            manifold, C = Oblique(radius * (1 + np.arange(n))), hermitian(rng, n, complex_, False)
            Y = manifold.random_point(k, rng, C.dtype) * (1 + 10.0 ** rng.uniform(-17, -3, (n, 1)))
            M, V = embedded(C, complex_), embedded(Y, complex_)
            scale = []
            for i, row in enumerate(V):
                square = sum(Decimal(float(x)) ** 2 for x in row)
                scale.append((Decimal(float(manifold.b[i % n])) / square).sqrt())
            Z = [[scale[i] * Decimal(float(x)) for x in row] for i, row in enumerate(V)]
            X = [[sum(map(Decimal.__mul__, u, v)) for v in Z] for u in Z]
            cost = sum(Decimal(float(M[i, j])) * X[i][j] for i in range(len(M)) for j in range(len(M))) / (1 + complex_)
            assert Decimal(cost_above(as_operator(C), Y, manifold.defect(Y))) >= cost


def test_cost_above_is_close_and_says_when_there_are_no_entries():
    C = gallery.goe(40, 0)
    Y = Oblique(np.ones(40)).random_point(5, np.random.default_rng(0))
    cost = float(np.vdot(C @ Y, Y))
    assert 0 < cost_above(as_operator(C), Y, np.zeros(40)) - cost <= 1e-11 * np.abs(C).sum()
    assert cost_above(as_operator(spla.aslinearoperator(C)), Y, np.zeros(40)) is None
    low = LowRankPlusSparse(sp.csr_array(C), np.ones((40, 2)), [1.0, -1.0])
    assert cost_above(low, Y, np.zeros(40)) == pytest.approx(cost, abs=1e-10 * np.abs(C).sum())


def test_rows_as_maps():
    """A MatrixMap and a manifold are taken as they are; b may be the caller's own."""
    C, map_ = gallery.goe(4, 0), as_linear_map(diagonals(4), 4)
    assert isinstance(map_, MatrixMap)
    assert lower_bound(C, map_, np.ones(4)).bound == lower_bound(C, diagonals(4), np.ones(4)).bound
    with pytest.raises(ValueError, match="b was not given"):
        lower_bound(C, map_)
