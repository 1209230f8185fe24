"""Random semidefinite programs with blocks, and Clarabel's answer to them: an oracle for `bmsdp.solve`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

import bmsdp


@dataclass
class Instance:
    """``min <C, X>, <A_j, X> = b_j, <G_j, X> >= g_j``, X in the cone of ``blocks``: pairs of "psd", "nonneg" or "free" and a size."""

    C: np.ndarray
    A: list
    b: np.ndarray
    G: list
    g: np.ndarray
    blocks: list | None = None

    @property
    def n(self):
        return len(self.C)

    @property
    def is_complex(self):
        return any(np.iscomplexobj(M) for M in (self.C, *self.A, *self.G))

    @property
    def kinds(self):
        return self.blocks or [("psd", self.n)]

    @property
    def is_free(self):
        return np.repeat([kind == "free" for kind, _ in self.kinds], [size for _, size in self.kinds])

    @property
    def mask(self):
        """Which entries of X are there."""
        return mask_of(self.kinds)

    def solve(self, **keywords):
        rows = {"A_geq": self.G, "b_geq": self.g} if len(self.G) else {}
        return bmsdp.solve(self.C, self.A, self.b, **rows, blocks=self.blocks, **keywords)

    def slack(self, y, z):
        """``C - A*(y) - G*(z)`` in the blocks."""
        rows = sum((v * a for v, a in zip(y, self.A, strict=True)), np.zeros((self.n, self.n)))
        return (self.C - rows - sum((v * a for v, a in zip(z, self.G, strict=True)), 0 * rows)) * self.mask


def mask_of(kinds):
    kind, size = zip(*kinds, strict=True)
    part, linear = np.repeat(np.arange(len(kinds)), size), np.repeat([k != "psd" for k in kind], size)
    return (part[:, None] == part) & (~linear[:, None] | np.eye(len(part), dtype=bool))


def value(A, X):
    """``<A_j, X>`` of every row."""
    return np.array([np.vdot(a, X).real for a in A])


def hermitian(rng, n, is_complex=False, density=1.0):
    B = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if is_complex else 0)
    B = B * (rng.random((n, n)) < density)
    return (B + B.conj().T) / 2


def semidefinite(rng, n, is_complex=False, rank=None):
    L = rng.standard_normal((n, rank or n)) + (1j * rng.standard_normal((n, rank or n)) if is_complex else 0)
    return L @ L.conj().T / n


def random_instance(seed, *, bounded=0.7):
    """Blocks of all kinds, sparse rows, a feasible X; the trace fixed, and the optimum finite, with probability ``bounded`` each."""
    rng = np.random.default_rng(seed)
    is_complex = bool(rng.random() < 0.3)
    kinds = [("psd", int(rng.integers(2, 7))) for _ in range(rng.integers(1, 4))]
    kinds += [("nonneg", int(rng.integers(1, 4)))] if rng.random() < 0.5 else []
    kinds += [("free", int(rng.integers(1, 3)))] if rng.random() < 0.4 else []
    kinds = [kinds[p] for p in rng.permutation(len(kinds))]
    mask = mask_of(kinds)
    n, free = len(mask), np.repeat([kind == "free" for kind, _ in kinds], [size for _, size in kinds])
    X = semidefinite(rng, n, is_complex) * mask
    X[free, free] = rng.standard_normal(free.sum())
    A = [hermitian(rng, n, is_complex, 0.6) * mask for _ in range(int(rng.integers(1, 6)))]
    A += [np.diag((~free).astype(float))] if rng.random() < bounded else []
    G = [hermitian(rng, n, is_complex, 0.6) * mask for _ in range(int(rng.integers(0, 3)))]
    room = np.abs(rng.standard_normal(len(G))) * rng.integers(0, 2, len(G))
    C = hermitian(rng, n, is_complex) * mask
    if rng.random() < bounded:
        S = semidefinite(rng, n, is_complex) * mask
        S[free, free] = 0
        C = S + sum(rng.standard_normal() * a for a in A) + sum(abs(rng.standard_normal()) * a for a in G)
    return Instance(C, A, value(A, X), G, value(G, X) - room if G else np.zeros(0), kinds)


@dataclass
class Reference:
    status: str
    value: float
    X: np.ndarray | None
    y: np.ndarray
    z: np.ndarray


def clarabel(instance):
    """The answer of Clarabel through CVXPY, block by block; its duals with our signs."""
    import cvxpy as cp

    X, cone, at = [], [], 0
    for kind, size in instance.kinds:
        rows = slice(at, at + size)
        at += size
        if kind == "psd":
            M = cp.Variable((size, size), hermitian=True) if instance.is_complex else cp.Variable((size, size), symmetric=True)
            cone.append(M >> 0)
        else:
            M = cp.Variable(size)
            cone += [M >= 0] if kind == "nonneg" else []
        X.append((rows, kind, M))

    def inner(A):
        parts = []
        for rows, kind, M in X:
            D = np.asarray(A)[rows, rows]
            total = cp.sum(cp.multiply(D.conj(), M)) if kind == "psd" else np.diag(D).real @ M
            parts.append(cp.real(total) if kind == "psd" and instance.is_complex else total)
        return sum(parts)

    equal = [inner(a) == v for a, v in zip(instance.A, instance.b, strict=True)]
    above = [inner(a) >= v for a, v in zip(instance.G, instance.g, strict=True)]
    program = cp.Problem(cp.Minimize(inner(instance.C)), [*cone, *equal, *above])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
        except cp.error.SolverError:
            return Reference("error", np.nan, None, np.zeros(0), np.zeros(0))
    if program.status not in ("optimal", "optimal_inaccurate"):
        return Reference(program.status, program.value, None, np.zeros(0), np.zeros(0))
    full = np.zeros((instance.n, instance.n), complex if instance.is_complex else float)
    for rows, kind, M in X:
        full[rows, rows] = M.value if kind == "psd" else np.diag(M.value)
    y, z = ([float(np.ravel(row.dual_value)[0]) for row in rows] for rows in (equal, above))
    return Reference(program.status, program.value, full, -np.array(y), np.array(z))


def check_result(instance, result, optimum=None, tol=1e-6):
    """What a successful result promises: feasible X, feasible duals, and their values, beside a known optimum."""
    X, S = result.X, instance.slack(result.dual, result.dual_geq)
    scale = 1 + np.abs(X).max()
    if len(instance.A):
        assert np.abs(value(instance.A, X) - instance.b).max() <= 1e-6 * scale
    if len(instance.G):
        assert (value(instance.G, X) - instance.g).min() >= -1e-6 * scale
        assert result.dual_geq.min() >= 0
    free = instance.is_free
    size = 1 + np.abs(instance.C).max() + np.abs(S).max()
    inside = S[np.ix_(~free, ~free)]
    if inside.size:
        assert np.linalg.eigvalsh(inside)[0] >= -1e-7 * size
        assert np.linalg.eigvalsh(X[np.ix_(~free, ~free)])[0] >= -1e-12 * scale
    assert np.abs(np.diag(S)[free]).max(initial=0.0) <= 1e-7 * size
    np.testing.assert_allclose(np.diag(X)[free].real, result.free, atol=1e-12 * scale)
    np.testing.assert_allclose(np.vdot(instance.C, X).real, result.cost, rtol=1e-9, atol=1e-9 * size * scale)
    dual_value = instance.b @ result.dual + (instance.g @ result.dual_geq if len(instance.G) else 0.0)
    np.testing.assert_allclose(dual_value, result.bound, rtol=1e-6, atol=1e-6)
    assert abs(result.gap) <= tol * 1.01
    if optimum is not None:
        assert result.bound <= optimum + 1e-6 * (1 + abs(optimum)), "a bound above the optimum"
        assert abs(result.cost - optimum) <= 2e-5 * (1 + abs(optimum))
