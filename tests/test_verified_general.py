"""Verified bounds of general programs: inequalities, blocks, nonnegative and free variables, faces, and traces that no row states."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp import LowRankPlusSparse, Oblique
from bmsdp.shift import trace_shift
from bmsdp.verified import lower_bound

# the referee: rational arithmetic, complex matrices as real ones of twice the size


def embedded(M, complex_):
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


def gaussian(rng, shape, complex_):
    out = rng.standard_normal(shape)
    return out + 1j * rng.standard_normal(shape) if complex_ else out


def hermitian(rng, n, complex_):
    M = gaussian(rng, (n, n), complex_)
    return M + M.conj().T


def unit(n, i):
    M = np.zeros((n, n))
    M[i, i] = 1
    return M


class Program:
    """``min <C, X>`` with a known optimal pair, made from it: S X = 0, z (A_geq(X) - b_geq) = 0.

    ``kind``: what bounds the trace ("rows", "inequalities", "shift", "given").
    """

    def __init__(self, seed, kind):
        rng = np.random.default_rng(seed)
        self.rng, self.complex = rng, bool(seed % 2)
        sizes = [int(rng.integers(2, 5)) for _ in range(int(rng.integers(1, 3)))]
        lines, self.free_count = int(rng.integers(0, 3)), int(rng.integers(0, 3)) if kind != "inequalities" else 0
        self.blocks = [*sizes, *([-lines] if lines else []), *([("free", self.free_count)] if self.free_count else [])]
        self.n = n = sum(sizes) + lines + self.free_count
        self.free = np.arange(n - self.free_count, n)
        self.psd = np.arange(n - self.free_count)
        self.parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]) + [[i] for i in range(sum(sizes), n - self.free_count)]
        self.faces = []
        X, S = np.zeros((2, n, n), complex if self.complex else float)
        for part in self.parts:
            X[np.ix_(part, part)], S[np.ix_(part, part)] = self.pair(len(part))
        self.u = np.zeros(n)
        if seed % 3 == 0:  # a face: X u = 0, and S is semidefinite on the complement only
            part = self.parts[0]
            self.u[part] = rng.integers(-2, 3, len(part))
            self.u[part[0]] = 1
            P = np.eye(n) - np.outer(self.u, self.u) / (self.u @ self.u)
            X = P @ X @ P
            values, Q = np.linalg.eigh(X[np.ix_(part, part)])
            good = Q[:, values > 1e-9]
            T = np.eye(len(part)) - good @ good.conj().T
            R = hermitian(rng, len(part), self.complex)
            S[np.ix_(part, part)] = T @ (P[np.ix_(part, part)] @ (R @ R) @ P[np.ix_(part, part)]) @ T
            s = np.zeros(n, S.dtype)
            s[part] = gaussian(rng, len(part), self.complex)
            S = S + np.outer(self.u, s.conj()) + np.outer(s, self.u)
        X[self.free, self.free] = rng.standard_normal(self.free_count)
        self.X = X
        self.rows(kind, X)
        y, z = rng.standard_normal(len(self.A)), np.where(rng.random(len(self.A_geq)) < 0.6, rng.random(len(self.A_geq)), 0.0)
        self.b_geq = np.array([np.vdot(M, X).real for M in self.A_geq]) - (z == 0) * rng.random(len(z))
        self.b = np.array([np.vdot(M, X).real for M in self.A])
        if self.u.any():
            self.b[-1] = 0.0
        self.C = S + sum((a * M for a, M in zip(y, self.A, strict=True)), 0 * S)
        self.C = self.C + sum((a * M for a, M in zip(z, self.A_geq, strict=True)), 0 * S)
        self.C = (self.C + self.C.conj().T) / 2
        self.y, self.z, self.optimum = y, z, float(np.vdot(self.C, X).real)
        self.size = float(np.abs(self.C).sum() * max(np.abs(X).max(), 1) + np.abs(self.b) @ np.abs(y) + np.abs(self.b_geq) @ z)
        self.trace = float(np.trace(X[np.ix_(self.psd, self.psd)]).real)

    def pair(self, k):
        """A semidefinite X and S with S X = 0."""
        Q = np.linalg.qr(gaussian(self.rng, (k, k), self.complex))[0]
        r = int(self.rng.integers(0, k + 1))
        x, s = self.rng.random(k) + 0.1, self.rng.random(k) * (self.rng.random(k) < 0.8)
        return (Q[:, :r] * x[:r]) @ Q[:, :r].conj().T, (Q[:, r:] * s[r:]) @ Q[:, r:].conj().T

    def within(self, M):
        out = np.zeros((self.n, self.n), M.dtype)
        for part in self.parts:
            out[np.ix_(part, part)] = M[np.ix_(part, part)]
        out[self.free, self.free] = M[self.free, self.free].real
        return out

    def rows(self, kind, X):
        rng, n = self.rng, self.n
        some = [self.within(hermitian(rng, n, self.complex)) for _ in range(int(rng.integers(1, 4)))]
        self.A_geq = [self.within(hermitian(rng, n, self.complex)) for _ in range(int(rng.integers(0, 3)))]
        self.A = some
        if kind == "rows":
            self.A = [*some, *(float(rng.choice([-2, 0.5, 1])) * unit(n, i) for i in self.psd)]
        elif kind == "inequalities":
            self.A_geq += [-(0.5 + float(rng.random())) * unit(n, i) for i in self.psd]
        elif kind == "shift":
            R = hermitian(rng, n, self.complex)
            M = self.within(R @ R + np.eye(n))
            M[self.free, self.free] = 0
            self.A = [*some, M - some[0] * (self.free_count == 0)]
        self.A += [unit(n, f) + unit(n, self.psd[0]) for f in self.free]  # x_f + X_00 = b
        if self.u.any():
            self.A.append(float(rng.choice([1, -1])) * np.outer(self.u, self.u))

    def bound(self, y, z, **more):
        keywords = {"A_geq": self.A_geq, "b_geq": self.b_geq, "dual_geq": z} if self.A_geq else {}
        return lower_bound(self.C, self.A, self.b, y, blocks=self.blocks, **keywords, **more)

    def duals(self):
        m, k = len(self.A), len(self.A_geq)
        yield self.y, self.z
        yield self.y + 1e-6 * self.rng.standard_normal(m), self.z + 1e-6 * self.rng.standard_normal(k)
        yield self.rng.standard_normal(m), self.rng.standard_normal(k)
        yield 1e9 * self.rng.standard_normal(m), 1e9 * self.rng.standard_normal(k)
        yield np.zeros(m), np.zeros(k)

    def holds(self, found, trace=None):
        """Both claims of a finite bound, in rational arithmetic; faces by a rational basis."""
        S = fractions(embedded(self.C, self.complex))
        N = range(len(S))
        for a, M in zip([*found.dual, *found.dual_geq], [*self.A, *self.A_geq], strict=True):
            M = fractions(embedded(M, self.complex))
            for i, j in itertools.product(N, N):
                S[i][j] -= Fraction(float(a)) * M[i][j]
        inner = sum(
            Fraction(float(u)) * Fraction(float(v)) for u, v in zip([*self.b, *self.b_geq], [*found.dual, *found.dual_geq], strict=True)
        )
        limit, copies = Fraction(found.residual), (0, self.n) if self.complex else (0,)
        assert all(abs(S[f + c][f + c]) <= limit for f in self.free for c in copies)
        S = [[(S[i][j] + S[j][i]) / 2 for j in N] for i in N]
        stated, gone = [([*self.A, *self.A_geq][row] != 0) for row in found.unattained], set()
        for _ in stated:  # X_ii = 0, once other rows have said so of other rows of X
            left = [i for i in range(self.n) if i not in gone]
            small = [places[np.ix_(left, left)] for places in stated]
            gone |= {
                left[int(np.argmax(np.diag(places)))] for places in small if places.sum() == places[np.diag_indices(len(left))].sum() == 1
            }
        keep = [i + c for c in copies for i in self.psd if i not in gone]
        basis = [[Fraction(int(i == j)) for j in keep] for i in N]
        size = np.array([0.0 if i in gone else abs(u) for i, u in enumerate(self.u)])
        if size.any() and any(places.sum() > 1 for places in stated):
            p = int(np.argmax(size))
            for c in copies:
                for q, j in enumerate(keep):
                    if c <= j < c + self.n:
                        basis[p + c][q] = -Fraction(self.u[j - c]) / Fraction(self.u[p])
            columns = [q for q, j in enumerate(keep) if j not in [p + c for c in copies]]
            basis = [[row[q] for q in columns] for row in basis]
        half = [[sum(S[i][j] * basis[j][q] for j in N if S[i][j] and basis[j][q]) for q in range(len(basis[0]))] for i in N]
        reduced = [[sum(basis[i][p] * half[i][q] for i in N if basis[i][p]) for q in range(len(half[0]))] for p in range(len(half[0]))]
        for q in range(len(reduced)):
            reduced[q][q] += Fraction(found.excess)
        value = inner - Fraction(found.excess) * Fraction(trace or 0.0)
        # what free variables cost is in the bound but not in the multipliers
        return is_semidefinite(reduced) and value >= Fraction(found.bound) and all(found.dual_geq >= 0)


KINDS = ["rows", "inequalities", "shift", "given"]


def more(program, kind):
    if kind == "given":
        return {"trace_bound": 2 * program.trace + 10 * (1 + np.abs(program.X[program.free, program.free]).sum())}
    if kind == "shift":
        found = trace_shift(program.A, program.b, program.A_geq, program.b_geq, n=program.n, blocks=program.blocks)
        return {"shift": found} if found else None
    return {}


def check_program(seed, kind):
    """The figures of one program: (above the optimum, not proved, how far below at the optimal pair)."""
    program, extra = Program(seed, kind), None
    extra = more(program, kind)
    if extra is None:
        return None
    gaps = []
    for y, z in program.duals():
        found = program.bound(y, z, **extra)
        if np.isfinite(found.bound):
            assert found.bound <= program.optimum + 1e-13 * program.size, (seed, kind, found)
            assert program.holds(found, extra.get("trace_bound")), (seed, kind, found)
        else:
            assert found.reason
        gaps.append((program.optimum - found.bound) / program.size)
    return gaps


@pytest.mark.parametrize("kind", KINDS)
def test_random_programs(kind):
    """Never above the optimum, feasible in rational arithmetic, and close to it at optimal multipliers."""
    answers = {seed: check_program(seed, kind) for seed in range(12)}
    found = {seed: gaps for seed, gaps in answers.items() if gaps is not None}
    assert len(found) >= 0.9 * len(answers)
    assert [seed for seed, gaps in found.items() if not gaps[0] <= 1e-11] == []
    assert [seed for seed, gaps in found.items() if not gaps[1] <= 1e-3] == []
    assert sum(np.isfinite(gaps).all() for gaps in found.values()) >= 0.9 * len(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_four_hundred_random_programs(kind):
    for seed in range(100, 500):
        check_program(seed, kind)


# closed forms


def test_bisection():
    """``sum_ij X_ij = 0``, X_ii = 1 on the 4-cycle: the cut {0, 2} against {1, 3} is forbidden to nobody; L has eigenvalues 0, 2, 2, 4."""
    n, W = 4, np.roll(np.eye(4), 1, axis=1)
    L = 2 * np.eye(n) - W - W.T
    A, b = [np.ones((n, n)), *map(np.diag, np.eye(n))], np.array([0.0, 1, 1, 1, 1])
    for C in (L, sp.csr_array(L), LowRankPlusSparse(sp.csr_array(L), np.zeros((n, 1)))):
        for y0 in (0.0, -1e12, 5.0):  # of no importance: the bound rests on the complement of ones
            found = lower_bound(C, A, b, [y0, 2, 2, 2, 2])
            assert 8 - 1e-11 <= found.bound <= 8 and found.unattained == (0,)
            S = L - sum(y * M for y, M in zip(found.dual, A, strict=True))
            assert np.linalg.eigvalsh(S)[0] >= -1e-7
    assert lower_bound(L, [-3 * A[0], *A[1:]], b, [0.0, 2, 2, 2, 2]).bound == pytest.approx(8, abs=1e-10)
    as_inequality = lower_bound(L, A[1:], b[1:], [2.0] * 4, A_geq=[-A[0]], b_geq=[0.0])
    assert as_inequality.bound == pytest.approx(8, abs=1e-10) and as_inequality.dual_geq[0] > 0
    weak = lower_bound(L, A[1:], b[1:], [2.0] * 4, A_geq=[A[0]], b_geq=[0.0])  # says nothing
    assert weak.bound <= 1e-12 and weak.unattained == ()


def test_several_faces():
    """Sums over two disjoint halves vanish, X_00 = X_11 = 0 by one row, and by that X_22 = 0 by another."""
    n = 8
    first, second = np.zeros(n), np.zeros(n)
    first[3:5], second[5:] = [1, 2], [1, -1, 3]
    A = [
        np.diag([1.0, 2, 0, 0, 0, 0, 0, 0]),
        np.eye(n)[:, [2]] @ np.eye(n)[[2]],
        np.outer(first, first),
        -np.outer(second, second),
        np.eye(n),
    ]
    A[1][0, 2] = A[1][2, 0] = 5.0
    rng = np.random.default_rng(0)
    C, b = hermitian(rng, n, False), np.array([0.0, 0, 0, 0, 1])
    V = np.linalg.svd(np.array([*np.eye(n)[:3], first, second]))[2][5:].T
    optimum = np.linalg.eigvalsh(V.T @ C @ V)[0]
    found = lower_bound(C, A, b, [0, 0, 0, 0, optimum])
    assert optimum - 1e-11 <= found.bound <= optimum + 1e-14 and found.unattained == (0, 1, 2, 3)
    A[1][0, 2] = A[1][2, 0] = 0.0  # that row was semidefinite on the face of the first one only: S is with its finite multiplier
    S = C - sum(y * M for y, M in zip(found.dual, A, strict=True))
    assert -1e-6 <= np.linalg.eigvalsh(S)[0]


def test_a_product_that_was_rounded_is_no_face():
    """``[[1, 1], [1, 1 - e]]`` is indefinite: X along (1, -1 - sqrt e) is feasible, and its cost counts."""
    e = 2.0**-53
    A, v = [np.array([[1, 1], [1, 1 - e]]), np.eye(2)], np.array([1 - e, -1 - np.sqrt(e)])
    X = np.outer(v, v) / (v @ v)
    assert abs(np.vdot(A[0], X)) <= 1e-16
    C = -1e17 * np.ones((2, 2))
    optimum = float(np.vdot(C, X))
    assert optimum < -5
    for y in ([0.0, 0.0], [-1e17, 0.0], [-1e25, 0.0]):
        found = lower_bound(C, A, [0.0, 1.0], y)
        assert found.bound <= optimum + 1e-6 and 0 not in found.unattained


def test_faces_up_to_rounding_get_a_finite_multiplier():
    rng = np.random.default_rng(0)
    n, u = 12, rng.random(12) + 0.5
    C, P = hermitian(rng, n, False), np.eye(n) - np.outer(u, u) / (u @ u)
    optimum = np.linalg.eigvalsh(P @ C @ P + 1e3 * np.outer(u, u))[0]
    found = lower_bound(C, [np.outer(u, u), np.eye(n)], [0.0, 1.0], [0.0, optimum])
    assert optimum - 1e-5 <= found.bound <= optimum and found.unattained == ()
    assert np.linalg.eigvalsh(C - found.dual[0] * np.outer(u, u) - found.dual[1] * np.eye(n))[0] >= -1e-7


def test_a_definite_slack_needs_no_trace():
    """Interior multipliers: nothing bounds X, and nothing has to."""
    C, A = np.diag([1.0, 2.0, 3.0]), [unit(3, 0) - unit(3, 1)]
    for form in (np.asarray, sp.csr_array):
        found = lower_bound(form(C), A, [-5.0], [0.5])
        assert found.bound == pytest.approx(-2.5, rel=1e-15) and found.bound <= -2.5 and found.excess == 0 and list(found.dual) == [0.5]
        assert lower_bound(form(C), A, [-5.0], [1.0]).bound == -np.inf  # singular: min is 1 * 0, but no rounding can be paid


def test_the_shift_is_paid_exactly():
    """``X_00 + 2 X_11 + X_01 = 1`` bounds the trace; the dual is feasible and its value the bound."""
    M, C = np.array([[1.0, 0.5], [0.5, 2.0]]), np.array([[0.0, 1.0], [1.0, -1.0]])
    least = np.linalg.eigvalsh(np.linalg.solve(np.linalg.cholesky(M), np.linalg.solve(np.linalg.cholesky(M), C).T))[0]
    w = 1 / np.linalg.eigvalsh(M)[0]
    for y in (least, least + 1e-9, 0.0, 7.0):
        found = lower_bound(C, [M], [1.0], [y], shift=([w], []))
        assert found.bound <= least + 1e-15 and found.excess == 0
        S = [[Fraction(c) - Fraction(found.dual[0]) * Fraction(a) for c, a in zip(*rows, strict=True)] for rows in zip(C, M, strict=True)]
        assert is_semidefinite(S) and Fraction(found.bound) <= Fraction(found.dual[0])
    assert lower_bound(C, [M], [1.0], [least], shift=[w]).bound >= least - 1e-13
    false = lower_bound(C, [M - np.eye(2)], [1.0], [0.0], shift=[w])
    assert false.bound == -np.inf and "shift was not proved" in false.reason
    small = lower_bound(C, [M], [1.0], [0.0], shift=[w / 5])  # theta I with theta < 1 is as good
    assert small.bound == pytest.approx(lower_bound(C, [M], [1.0], [0.0], shift=[w]).bound, rel=1.1)


def test_shifts_of_inequalities_have_one_sign():
    """``-X_00 - X_11 - X_01 >= -1`` bounds the trace with w_geq <= 0; a positive one bounds nothing."""
    M, C = np.array([[1.0, 0.5], [0.5, 1.0]]), -np.eye(2)
    good = lower_bound(C, A_geq=[-M], b_geq=[-1.0], dual_geq=[2.0], shift=([], [-2.0]))
    assert good.bound == pytest.approx(-2, abs=1e-13) and good.bound <= -2 and good.dual_geq[0] >= 2
    bad = lower_bound(C, A_geq=[M], b_geq=[1.0], dual_geq=[0.0], shift=([], [2.0]))
    assert bad.bound == -np.inf and bad.reason


def test_negative_multipliers_of_inequalities_count_as_zero():
    C = np.diag([1.0, -1.0])
    found = lower_bound(C, [np.eye(2)], [1.0], [-1.0], A_geq=[np.diag([0.0, 1.0])], b_geq=[0.5], dual_geq=[-9.0])
    assert -1 - 1e-13 <= found.bound <= -1 and found.dual_geq[0] == 0


def test_free_variables():
    """``min x + t, t >= 0, x + t = 1``: x is free, so the multiplier has to be 1, and the row bounds x by t."""
    C, A, blocks = np.diag([1.0, 1.0]), [np.eye(2)], [-1, ("free", 1)]
    exact = lower_bound(C, A, [1.0], [1.0], blocks=blocks, trace_bound=10.0)
    assert exact.bound == pytest.approx(1, abs=1e-13) and exact.bound <= 1
    repaired = lower_bound(C, A, [1.0], [0.3], blocks=blocks, trace_bound=10.0)
    assert repaired.bound == pytest.approx(1, abs=1e-13)
    no = lower_bound(C, A, [1.0], [1.0], blocks=blocks)
    assert no.bound == -np.inf and "trace" in no.reason
    # an inequality bounds t, the equality then x: 1/3 cannot be hit exactly
    rows = {"A_geq": [np.diag([-1.0, 0.0])], "b_geq": [-4.0]}
    found = lower_bound(np.diag([1.0, 0.1]), [np.diag([1.0, 3.0])], [1.0], [0.0], blocks=blocks, **rows)
    assert 0 < found.residual <= 1e-16 and 1 / 30 - 1e-12 <= found.bound <= 1 / 30
    stuck = lower_bound(np.diag([1.0, 1.0]), [np.diag([1.0, 0.0])], [1.0], [0.0], blocks=blocks)
    assert stuck.bound == -np.inf and "free variable in row 1" in stuck.reason


def test_entries_outside_the_blocks_are_refused():
    off = np.array([[1.0, 1.0], [1.0, 1.0]])
    for C, A in ((off, [np.eye(2)]), (np.eye(2), [off]), (LowRankPlusSparse(None, np.ones((2, 1))), [np.eye(2)])):
        for blocks in ([1, 1], [-2], [1, ("free", 1)]):
            with pytest.raises(ValueError, match="outside the blocks"):
                lower_bound(C, A, [1.0], blocks=blocks)
    with pytest.raises(ValueError, match="sizes must sum to n"):
        lower_bound(np.eye(2), [np.eye(2)], [1.0], blocks=[3])


def test_low_rank_costs_of_several_blocks():
    U = np.array([[1.0, 0], [-1, 0], [0, 2], [0, 0.1]])
    C = LowRankPlusSparse(None, U, [-1.0, -3.0])
    found = lower_bound(C, [np.eye(4)], [1.0], [-12.03], blocks=[2, 2])
    assert found.bound == pytest.approx(-12.03, abs=1e-12) and found.bound <= -12.03 + 1e-14


REFUSED = {
    "no b_geq": ({"A_geq": [np.eye(2)]}, "A_geq has 1 rows but b_geq was not given"),
    "short b_geq": ({"A_geq": [np.eye(2)], "b_geq": []}, r"b_geq has shape \(0,\) and must hold 1 finite numbers"),
    "long dual_geq": ({"A_geq": [np.eye(2)], "b_geq": [0.0], "dual_geq": [0.0, 1.0]}, "dual_geq has shape .* one per row of A_geq"),
    "nan dual_geq": ({"A_geq": [np.eye(2)], "b_geq": [0.0], "dual_geq": [np.nan]}, "must hold 1 finite"),
    "short shift": ({"A": [np.eye(2)], "b": [1.0], "shift": []}, "shift has shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    keywords, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        lower_bound(np.eye(2), **keywords)


def test_manifolds_beside_inequalities():
    """A manifold is its rows: the same bound as from matrices."""
    C = hermitian(np.random.default_rng(0), 3, False)
    keywords = {"A_geq": [np.ones((3, 3))], "b_geq": [1.0], "dual_geq": [0.3]}
    one = lower_bound(C, Oblique(np.ones(3)), dual=[-1.0, 0, 1], **keywords)
    two = lower_bound(C, [unit(3, i) for i in range(3)], np.ones(3), [-1.0, 0, 1], **keywords)
    assert one.bound == two.bound and np.isfinite(one.bound)


# against another solver


def clarabel(program):
    import cvxpy as cp

    n = program.n
    X = cp.Variable((n, n), hermitian=True) if program.complex else cp.Variable((n, n), symmetric=True)
    real = cp.real if program.complex else lambda x: x  # noqa: E731
    rules = [X[np.ix_(part, part)] >> 0 if len(part) > 1 else real(X[part[0], part[0]]) >= 0 for part in program.parts]
    inner = lambda M: real(cp.trace(M.conj().T @ X))  # noqa: E731
    rules += [inner(M) == v for M, v in zip(program.A, program.b, strict=True)]
    rules += [inner(M) >= v for M, v in zip(program.A_geq, program.b_geq, strict=True)]
    given = cp.Problem(cp.Minimize(inner(program.C)), rules)
    given.solve(cp.CLARABEL)
    m = len(program.A)
    ends = rules[len(program.parts) :]
    y = -np.array([float(rule.dual_value) for rule in ends[:m]])
    return given.value, y, np.array([float(rule.dual_value) for rule in ends[m:]])


@pytest.mark.parametrize("seed", [1, 2, 4, 5, 8, 10])
def test_duals_of_clarabel(seed):
    """Its optimum, its multipliers: a bound below, and near."""
    program = Program(seed, "rows")
    value, y, z = clarabel(program)
    assert value == pytest.approx(program.optimum, abs=1e-6 * program.size)
    found = program.bound(y, z)
    assert program.optimum - 1e-5 * program.size <= found.bound <= program.optimum + 1e-13 * program.size
