"""Limited-memory multisecant updates of general smooth functions: secants that agree enter at once, others one after the other."""

from __future__ import annotations

import numpy as np

from .updates import POSITIVE

INDEPENDENT = 1e-12  # squared singular values of A below this part of the largest are the rounding of A'A
TINY = 1e-250  # squared lengths below it are of pairs whose inner products underflow


class GroupedMultisecant:
    r"""An inverse Hessian, symmetric positive definite, from the last pairs of positive curvature in groups of consistent ones.

    No symmetric matrix has the secants i and j both unless ``<y_i, s_j> = <y_j, s_i>``, and where the Hessian changes they differ.  From
    the newest pair on, a pair joins the group of those after it while ``|<y_i, s_j> - <y_j, s_i>|`` is at most ``consistency`` times
    ``sqrt(<y_i, s_i> <y_j, s_j>)`` for all its members; else it opens the next.  Each group is one `weighted` update (block BFGS of
    symmetrised pairs) of what the older ones made of theta I.  On a quadratic there is one group; with ``consistency = 0``, or where no
    two pairs agree, this is L-BFGS (Nocedal, 1980).

    Parameters
    ----------
    size : int
        N: pairs are real vectors.
    memory : int
        Pairs kept.
    reg : float
        As for `SymmetricMultisecant`.
    consistency : float
        From 0 (one pair a group) to 2 (one group).

    Notes
    -----
    Storage: 4 memory vectors.  `push` is O(N m + m^3), `mul` O(N m); all else comes from the Gram matrices A'A, A'D.
    """

    def __init__(self, size: int, memory: int = 10, reg: float = 1e-10, consistency: float = 0.1):
        if isinstance(memory, bool) or not isinstance(memory, (int, np.integer)) or memory < 1:
            raise ValueError(f"memory = {memory}; a positive number of pairs is needed")
        if not 0 <= reg < np.inf:
            raise ValueError(f"reg = {reg}; a finite number >= 0 is needed (1e-10 is the default)")
        if not 0 <= consistency <= 2:
            raise ValueError(f"consistency = {consistency}; a number from 0 (one pair a group) to 2 (one group) is needed")
        self.memory, self.reg, self.consistency = int(memory), float(reg), float(consistency)
        self.theta, self.rejected = 1.0, 0
        # twice the room: pairs stay contiguous, in order, and move once in `memory` pushes
        self._A, self._D = np.empty((2, 2 * self.memory, size))
        self._AA, self._AD = np.zeros((2, 2 * self.memory, 2 * self.memory))
        self._end = self._count = 0
        self._groups: list[tuple[slice, np.ndarray, np.ndarray, np.ndarray]] | None = None

    def __len__(self) -> int:
        """Pairs held."""
        return self._count

    @property
    def groups(self) -> list[int]:
        """Pairs in each group, the newest group first."""
        return [group[0].stop - group[0].start for group in self._factored()]

    def clear(self) -> None:
        """Forget all pairs, but theta."""
        self._end = self._count = 0
        self._groups = None

    def push(self, s: np.ndarray, y: np.ndarray) -> bool:
        """Take in a step and the difference of gradients if <s, y> > 0 beyond rounding; else False, and ``rejected`` counts it."""
        sy, ss, yy = float(s @ y), float(s @ s), float(y @ y)
        if not (min(ss, yy) > TINY and sy > 1e-10 * np.sqrt(ss * yy) and max(ss, yy) < np.inf):
            self.rejected += 1
            return False
        if self._end == len(self._A):
            keep, old = self.memory - 1, slice(self._end - self.memory + 1, self._end)
            for array in (self._A, self._D):
                array[:keep] = array[old]
            for gram in (self._AA, self._AD):
                gram[:keep, :keep] = gram[old, old].copy()
            self._end = keep
        new, self._end, self._count = self._end, self._end + 1, min(self._count + 1, self.memory)
        np.multiply(y, yy**-0.5, out=self._A[new])
        np.multiply(s, yy**-0.5, out=self._D[new])
        held = slice(self._end - self._count, self._end)
        A, D = self._A[held], self._D[held]
        self._AA[new, held] = self._AA[held, new] = A @ self._A[new]
        self._AD[held, new] = A @ self._D[new]
        self._AD[new, held] = D @ self._A[new]
        self.theta = sy / yy
        self._groups = None
        return True

    def mul(self, v: np.ndarray) -> np.ndarray:
        """H v."""
        W, inner = np.array(v, float), []
        for rows, E, FA, FD in self._factored():
            c = FA.T @ (self._A[rows] @ W) + FD.T @ (self._D[rows] @ W)
            W -= (E @ c) @ self._A[rows]
            inner.append(c)
        W *= self.theta
        for (rows, E, FA, FD), c in zip(reversed(self._factored()), reversed(inner), strict=True):
            t = c - E.T @ (self._A[rows] @ W)
            W += (FA @ t) @ self._A[rows] + (FD @ t) @ self._D[rows]
        return W

    def _factored(self) -> list[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """(rows, E, FA, FD) with ``A E`` and ``A FA + D FD`` the A and D of `Weighted`, for each group, the newest first."""
        if self._groups is None:
            self._groups = []
            first = self._end - self._count
            G = self._AD[first : self._end, first : self._end]
            size = np.sqrt(np.diag(G))
            agree = np.abs(G - G.T) <= self.consistency * np.outer(size, size)
            stop = self._count
            while stop:
                start = stop - 1
                while self.consistency > 0 and start and agree[start - 1, start:stop].all():
                    start -= 1
                rows = slice(first + start, first + stop)
                E, FA, FD = block_factors(self._AA[rows, rows], self._AD[rows, rows] / self.theta, self.reg)
                # D is in units of theta there: A E and D FD take its square root
                root = self.theta**0.5
                self._groups.append((rows, E / root, FA * root, FD / root))
                stop = start
        return self._groups


def block_factors(AA: np.ndarray, AD: np.ndarray, reg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""E, FA, FD with ``A E`` and ``A FA + D FD`` the A and D of `weighted` for theta = 1, from ``A'A`` and ``A'D`` (m x m) alone.

    In the eigenbasis ``A'A = U diag(s2) U'``, with ``M = U'(A'D - A'A) U`` and ``w = s2 / (s2 + lambda)``, the least-squares solution has
    ``H* A U = A U (diag(1 - w) + K) + D U diag(w)``, ``K_ij = (M_ji - w_j M_ij) / (s2_i + s2_j + lambda)``: no division by small
    singular values.  ``lambda = reg |A|_2^2``.  O(m^3).
    """
    if len(AA) == 1:
        g = AD[0, 0] ** -0.5
        return np.array([[g]]), np.zeros((1, 1)), np.array([[g]])
    s2, U = np.linalg.eigh(AA)
    kept = s2 > INDEPENDENT * s2[-1]
    s2, U = s2[kept], U[:, kept]
    shrink = reg * s2[-1]
    w, F = s2 / (s2 + shrink), U.T @ AD @ U
    M = F - np.diag(s2)
    P = (M.T - w * M) / (s2[:, None] + s2 + shrink) + np.diag(1 - w)
    G = s2[:, None] * P + w * F
    g, E = np.linalg.eigh((G + G.T) / 2)
    positive = g > POSITIVE * np.abs(g).max()
    L = E[:, positive] / np.sqrt(g[positive])
    return U @ L, U @ (P @ L), U @ (w[:, None] * L)
