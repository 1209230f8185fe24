r"""Symmetric multisecant quasi-Newton descent on a manifold.

Each pair is a step s and the difference y of gradients that it made; all pairs in memory enter at once.  With unit columns
``A = (y / |y|)``, ``D = (s / |y|)``, the *weighted* flavour takes the symmetric least-squares solution (a symmetric Procrustes problem;
Higham, 1988), with ``theta = <s, y> / <y, y>`` (Barzilai, Borwein) of the latest pair,

    H* = argmin_{H = H'}  |H A - D|^2 + lambda / 2 |H - theta I|^2,    lambda = reg |A|_2^2,

makes the pairs consistent by it, ``D~ = H* A``, and is block BFGS of them (Schnabel, 1983), ``G = A' D~`` on its positive eigenspace:

    H v = D~ G^-1 D~' v + (I - D~ G^-1 A') theta (I - A G^-1 D~') v,

symmetric positive definite whatever the signs of the <s, y>.  ``D~ = A P + D R`` with small P and R: only ``A'v``, ``D'v`` and one
combination of rows are of length n k; all else follows from the Gram matrices ``A'A``, ``A'D``, of which a new pair changes a row and a
column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..problem import LocalModel, Problem
from .lbfgs import Iterates, descend_along, flat

INDEPENDENT = 1e-12  # squared singular values of A below this part of the largest are the rounding of A'A
POSITIVE = 1e-8  # eigenvalues of G below this part of the largest are no curvature to build on
TINY = 1e-250  # squared lengths below it are of pairs whose inner products underflow
CLIP = (0.5, 100.0)  # of the frobenius flavour's Hessian, relative to 1 / theta


@dataclass(frozen=True)
class Multisecant:
    """Quasi-Newton steps from many secant pairs at once; pairs are ambient arrays and only the final direction is projected.

    Storage: ``2 memory + 8`` arrays of n k numbers.  Each step costs one product with C, rarely more, and ``14 memory n k`` flops in two
    passes over the pairs (weighted), or ``O(memory^2 n k)`` flops (frobenius).  ``info`` counts the ``restarts`` and, of the last
    direction, the ``discarded`` dimensions of the pairs: dependent on others, or without positive curvature.

    Attributes
    ----------
    memory : int
    flavour : "weighted" or "frobenius"
        Block BFGS of symmetrised pairs; or the symmetric least-squares model of the Hessian itself, ``B s = y``, with its eigenvalues
        clipped to [0.5, 100] / theta: slower, there to be compared with.
    reg : float
        lambda relative to ``|A|_2^2``; from 0 to 1e-6 it makes no difference where the pairs are nearly consistent.
    armijo : float
        As in `LBFGS`.
    """

    memory: int = 5
    flavour: Literal["weighted", "frobenius"] = "weighted"
    reg: float = 1e-10
    armijo: float = 1e-4

    def __post_init__(self) -> None:
        if isinstance(self.memory, bool) or not isinstance(self.memory, (int, np.integer)) or self.memory < 1:
            raise ValueError(f"memory = {self.memory}; a positive number of pairs is needed")
        if self.flavour not in ("weighted", "frobenius"):
            raise ValueError(f"flavour = {self.flavour!r}; it is 'weighted' (block BFGS of symmetrised pairs) or 'frobenius'")
        if not 0 <= self.reg < np.inf:
            raise ValueError(f"reg = {self.reg}; a finite number >= 0 is needed (1e-10 is the default)")

    def iterates(self, problem: Problem, Y: np.ndarray) -> Iterates:
        """As for all solvers; a problem sent into the generator, on the same manifold, replaces the one it works on."""
        memory = _Weighted if self.flavour == "weighted" else _Frobenius
        yield from descend_along(problem, Y, lambda size: memory(self.memory, size, self.reg), self.armijo)


class _Pairs:
    """Steps and differences as rows, the oldest replaced; their order does not matter."""

    def __init__(self, memory: int, size: int, reg: float):
        self.steps, self.differences = np.empty((2, memory, size))
        self.reg, self.theta, self.scale = reg, 1.0, np.empty(memory)
        self.count = self.next = 0
        self.info: dict[str, Any] = {"discarded": 0}

    def __len__(self) -> int:
        return self.count

    def clear(self) -> None:
        self.count = self.next = 0

    def push(self, step: float, D: np.ndarray, grad: np.ndarray, before: np.ndarray) -> None:
        from ..kernels.secants import store

        row = self.next
        sy, ss, yy = store(step, D, grad, before, self.steps[row], self.differences[row])
        length2 = self.length2(ss, yy)
        usable = min(ss, yy) > TINY
        if not self.count and not usable:
            return
        if sy > 1e-10 * np.sqrt(ss * yy):
            self.theta = sy / yy
        elif not self.count:
            self.theta = float(np.sqrt(ss / yy))
        self.scale[row] = 1 / np.sqrt(length2) if usable else 0.0  # a pair without length has no weight
        self.next, self.count = (row + 1) % len(self.scale), max(self.count, row + 1)

    def length2(self, ss: float, yy: float) -> float:
        """The squared length that is normalised to one."""
        raise NotImplementedError


class _Weighted(_Pairs):
    """Block BFGS of symmetrised pairs, through Gram matrices of the rows as they are."""

    def __init__(self, memory: int, size: int, reg: float):
        super().__init__(memory, size, reg)
        self.AA, self.AD = np.zeros((2, memory, memory))
        self.known = np.empty((memory, 5))

    def length2(self, ss: float, yy: float) -> float:
        return yy

    def apply(self, model: LocalModel, out: np.ndarray) -> None:
        from ..kernels import secants as kernel

        m, grad, newest = self.count, flat(model.grad), self.next - 1
        if m == 0:
            np.negative(grad, out=out)
            return
        A, D, scale, known = self.differences[:m], self.steps[:m], self.scale[:m], self.known[:m]
        kernel.gram(A, D, self.differences[newest], self.steps[newest], grad, known)
        self.AA[newest, :m] = self.AA[:m, newest] = known[:, 0]
        self.AD[newest, :m], self.AD[:m, newest] = known[:, 3], known[:, 1]
        both = np.outer(scale, scale)
        AA, AD = both * self.AA[:m, :m], both / self.theta * self.AD[:m, :m]  # D in units of theta: free of the units of C
        on_A, on_D, self.info["discarded"] = block_bfgs(AA, AD, scale * known[:, 2], scale / self.theta * known[:, 4], self.reg)
        kernel.combine(A, D, -self.theta * scale * on_A, -scale * on_D, -self.theta, grad, out)


class _Frobenius(_Pairs):
    """The least-squares model of the Hessian, clipped and inverted."""

    def length2(self, ss: float, yy: float) -> float:
        return ss

    def apply(self, model: LocalModel, out: np.ndarray) -> None:
        from ..qn import symmetric_multisecant

        m, grad = self.count, flat(model.grad)
        if m == 0:
            np.negative(grad, out=out)
            return
        A, D = self.steps[:m] * self.scale[:m, None], self.differences[:m] * (self.theta * self.scale[:m, None])
        B = symmetric_multisecant(A.T, D.T, theta=1.0, reg=self.reg * float(np.linalg.norm(A @ A.T, 2)))
        self.info["discarded"] = int(np.sum(B.eigenvalues <= 0))
        np.multiply(B.clip(*CLIP).solve(grad), -self.theta, out=out)


def block_bfgs(AA: np.ndarray, AD: np.ndarray, Av: np.ndarray, Dv: np.ndarray, reg: float) -> tuple[np.ndarray, np.ndarray, int]:
    r"""``H v = v + A on_A + D on_D`` of the weighted flavour with theta = 1, from ``A'A``, ``A'D`` (m x m), ``A'v``, ``D'v`` (m,) alone.

    In the eigenbasis ``A'A = U diag(s2) U'``, with ``M = U'(A'D - A'A) U`` and ``w = s2 / (s2 + lambda)``, the least-squares solution has
    ``H* A U = A U (diag(1 - w) + K) + D U diag(w)``, ``K_ij = (M_ji - w_j M_ij) / (s2_i + s2_j + lambda)``: no division by small
    singular values and none of the cancellation of ``V'D`` against its projection.  O(m^3).

    Returns
    -------
    (on_A, on_D, discarded), discarded = m less the dimensions in use
    """
    s2, U = np.linalg.eigh(AA)
    kept = s2 > INDEPENDENT * s2[-1]
    s2, U = s2[kept], U[:, kept]
    if not len(s2):
        return np.zeros(len(AA)), np.zeros(len(AA)), len(AA)
    shrink = reg * s2[-1]
    w, F = s2 / (s2 + shrink), U.T @ AD @ U
    M = F - np.diag(s2)
    P = (M.T - w * M) / (s2[:, None] + s2 + shrink) + np.diag(1 - w)
    G = s2[:, None] * P + w * F
    g, E = np.linalg.eigh((G + G.T) / 2)
    positive = g > POSITIVE * g[-1]
    L = E[:, positive] / np.sqrt(g[positive])  # without columns where there is no curvature: H = I
    a, d = U.T @ Av, U.T @ Dv
    p = L @ (L.T @ (P.T @ a + w * d))
    t = p - L @ (L.T @ (a - s2 * p))
    return U @ (P @ t - p), U @ (w * t), len(AA) - L.shape[1]
