"""Secant pairs kept, projected and turned into a quasi-Newton matrix."""

from __future__ import annotations

from collections import deque
from typing import Any, Literal

import numpy as np

from .updates import Factored, Map, Weighted, symmetric_multisecant, weighted

RCOND = 1e-10  # singular values of the scaled pairs below this part of the largest are rounding


class SymmetricMultisecant:
    """The last pairs (s, y), y = (Hessian) s, and the symmetric matrix that fits them all.

    Arrays may have any shape, real or complex (then a real space, ``<u, v> = Re sum conj(u) v``); the first one fixes it.  The pairs are
    stored as they come and enter scaled to |y| = 1 (kind "inverse") or |s| = 1 ("hessian"), lest long steps outweigh the recent ones.

    Parameters
    ----------
    kind : "inverse" or "hessian"
        H y = s (type II), a model of the inverse Hessian; or B s = y (type I), a model of the Hessian.
    flavour : "weighted" or "frobenius"
        `weighted`: positive definite whatever the pairs.  `symmetric_multisecant`: indefinite where they say so, see ``pd``.
    memory : int
        Pairs kept; the oldest goes first.
    reg : float
        Regularisation relative to the largest squared singular value of the scaled pairs; 1e-10 to 1e-6 are sensible.
    base : float, "bb" or callable
        H0: theta I; ``theta = <s, y> / <y, y>`` ("inverse"; the reciprocal for "hessian") of the last pair of positive curvature (Barzilai,
        Borwein); or ``v -> H0 v``, symmetric positive definite, on arrays like those pushed (weighted flavour only).
    pd : "clip", "abs" or "none"
        How the frobenius flavour is made positive definite: eigenvalues clipped to ``pd_bounds``, in absolute value, or not.
    pd_bounds : (float, float)
        Relative to theta.

    Attributes
    ----------
    rejected : int
        Pairs pushed so far without length (s or y zero), which are left out.

    Examples
    --------
    >>> import numpy as np
    >>> from bmsdp.qn import SymmetricMultisecant
    >>> C, S = np.diag([1.0, 2, 4]), np.eye(3)
    >>> H = SymmetricMultisecant("inverse", "frobenius", memory=3, reg=0.0)
    >>> H.push_block(S, C @ S)
    >>> H.apply(np.ones(3)).round(12).tolist()
    [1.0, 0.5, 0.25]
    """

    def __init__(
        self,
        kind: Literal["inverse", "hessian"] = "inverse",
        flavour: Literal["weighted", "frobenius"] = "weighted",
        memory: int = 10,
        reg: float = 1e-8,
        base: float | str | Map = "bb",
        pd: Literal["clip", "abs", "none"] = "clip",
        pd_bounds: tuple[float, float] = (1e-2, 1e2),
    ):
        for name, given, known in (
            ("kind", kind, ("inverse", "hessian")),
            ("flavour", flavour, ("weighted", "frobenius")),
            ("pd", pd, ("clip", "abs", "none")),
        ):
            if given not in known:
                raise ValueError(f"{name} = {given!r}; it is one of {', '.join(map(repr, known))}")
        if isinstance(memory, bool) or not isinstance(memory, (int, np.integer)) or memory < 1:
            raise ValueError(f"memory = {memory}; a positive number of pairs is needed")
        if not 0 <= reg < np.inf:
            raise ValueError(f"reg = {reg}; a finite number >= 0 is needed (1e-8 is the default)")
        if callable(base):
            if flavour == "frobenius":
                raise ValueError("base is callable, which flavour = 'weighted' alone can use; pass a number or 'bb'")
        elif base != "bb" and (isinstance(base, str) or not 0 < base < np.inf):
            raise ValueError(f"base = {base!r}; a finite number > 0, 'bb' or a callable is needed")
        if not 0 < pd_bounds[0] <= 1 <= pd_bounds[1]:
            raise ValueError(f"pd_bounds = {pd_bounds}; two numbers with 0 < low <= 1 <= high are needed, relative to theta")
        self.kind, self.flavour, self.reg, self.base, self.pd, self.pd_bounds = kind, flavour, float(reg), base, pd, pd_bounds
        self.rejected = 0
        self._pairs: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=int(memory))
        self._like: np.ndarray | None = None  # the first array, without its entries
        self._project: Map | None = None
        self._model: tuple[Factored | Weighted, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        """Pairs held."""
        return len(self._pairs)

    def push(self, s: Any, y: Any) -> None:
        """Take in one pair, arrays of one shape; O(N)."""
        s, y = np.asarray(s), np.asarray(y)
        if s.shape != y.shape:
            raise ValueError(f"s has shape {s.shape} and y {y.shape}; equal shapes are needed")
        s, y = self._checked(s, "s"), self._checked(y, "y")
        if not (np.isfinite(s).all() and np.isfinite(y).all()):
            raise ValueError("the pair has entries that are not finite; leave it out")
        if self._like is None:
            dtype = np.result_type(s, y, float)
            self._like = np.broadcast_to(np.zeros((), dtype), s.shape)
        if not (s.any() and y.any()):
            self.rejected += 1
            return
        size = np.abs(y if self.kind == "inverse" else s).max()  # a pair's length has no meaning: none may underflow
        self._pairs.append((self._flat(s / size), self._flat(y / size)))
        self._model = None

    def push_block(self, S: Any, Y: Any) -> None:
        """Take in the pairs ``S[..., j]``, ``Y[..., j]``, the first of them first."""
        S, Y = np.asarray(S), np.asarray(Y)
        if S.shape != Y.shape or S.ndim < 2:
            raise ValueError(f"S has shape {S.shape} and Y {Y.shape}; equal shapes are needed, a pair for each index of the last axis")
        for j in range(S.shape[-1]):
            self.push(S[..., j], Y[..., j])

    def reset(self) -> None:
        """Forget all pairs; the projection stays."""
        self._pairs.clear()
        self._model = None

    def update(self, project: Map | None) -> None:
        """Move to a new tangent space: ``project(V)`` is applied to every pair when the matrix is next built, to the stored originals.

        H then maps the tangent space to itself (with a base that does).  Nothing is projected for None.
        """
        self._project, self._model = project, None

    def apply(self, v: Any) -> np.ndarray:
        """H v (or B v), an array like those pushed; O(N m), and O(N m^2) after a change of the pairs."""
        v = self._checked(np.asarray(v), "v")
        if not self._pairs:
            return self.base(v) if callable(self.base) else (1.0 if isinstance(self.base, str) else self.base) * v
        return self._unflat(self.matrix.mul(self._flat(v)))

    def solve(self, v: Any, shift: float = 0.0) -> np.ndarray:
        """``(H + shift I)^-1 v``, without a callable base; numpy.linalg.LinAlgError if singular (frobenius with pd = "none")."""
        v = self._checked(np.asarray(v), "v")
        if not self._pairs and not callable(self.base):
            return v / ((1.0 if isinstance(self.base, str) else self.base) + shift)
        return self._unflat(self.matrix.solve(self._flat(v), shift))

    @property
    def matrix(self) -> Factored | Weighted:
        """H (or B) on flattened arrays, complex ones as real vectors of twice the length."""
        return self._built()[0]

    @property
    def theta(self) -> float:
        """H0 = theta I; 1 with a callable base."""
        return self.matrix.theta

    @property
    def eigenvalues(self) -> np.ndarray:
        """Ascending: those that are not theta, at most 2 m; not with a callable base."""
        return self.matrix.eigenvalues

    @property
    def discarded(self) -> int:
        """Dimensions of the pairs held that are not in use: dependent on others, or (weighted) without positive curvature."""
        model, A, _ = self._built()
        return len(self) - (model.A.shape[1] if isinstance(model, Weighted) else int(np.linalg.matrix_rank(A, rtol=RCOND)))

    @property
    def residual(self) -> float:
        """``|H A - D|_F / |D|_F`` of the scaled pairs, 0 without any."""
        model, A, D = self._built()
        size = float(np.linalg.norm(D))
        return float(np.linalg.norm(model.mul(A) - D)) / size if size else 0.0

    @property
    def asymmetry(self) -> float:
        """``|A'D - D'A|_F / |A'D|_F`` of the scaled pairs, at most 2: 0 where some symmetric matrix has all these secants."""
        _, A, D = self._built()
        G = A.T @ D
        size = float(np.linalg.norm(G))
        return float(np.linalg.norm(G - G.T)) / size if size else 0.0

    def _checked(self, v: np.ndarray, name: str) -> np.ndarray:
        like = self._like
        if like is not None and v.shape != like.shape:
            raise ValueError(f"{name} has shape {v.shape}; {like.shape} is needed, that of the first pair")
        if like is not None and np.iscomplexobj(v) and not np.iscomplexobj(like):
            raise ValueError(f"{name} is complex and the first pair was real; push complex arrays from the start")
        return v if like is None else v.astype(like.dtype)

    def _flat(self, v: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(v, self._dtype).reshape(-1).view(float)

    def _unflat(self, v: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(v).view(self._dtype).reshape(self._known().shape)

    def _known(self) -> np.ndarray:
        if self._like is None:
            raise ValueError("there are no pairs yet; push(s, y) one first")
        return self._like

    @property
    def _dtype(self) -> Any:
        return self._known().dtype

    def _built(self) -> tuple[Factored | Weighted, np.ndarray, np.ndarray]:
        if self._model is None:
            size = self._flat(self._known()).size
            S, Y = (np.array([pair[i] for pair in self._pairs]).reshape(-1, size) for i in (0, 1))
            if self._project is not None:
                S, Y = (self._each(self._project, V) for V in (S, Y))
            A, D = (Y, S) if self.kind == "inverse" else (S, Y)
            length = np.linalg.norm(A, axis=1)
            kept = length > 0
            A, D = (A[kept] / length[kept, None]).T, (D[kept] / length[kept, None]).T
            self._model = self._fit(A, D, self._scale(A, D)), A, D
        return self._model

    def _each(self, function: Map, V: np.ndarray) -> np.ndarray:
        """Apply a map of arrays like those pushed to rows."""
        rows = [self._flat(self._checked(np.asarray(function(self._unflat(row))), "a projection, or base(v),")) for row in V]
        return np.array(rows).reshape(V.shape)

    def _scale(self, A: np.ndarray, D: np.ndarray) -> float:
        """theta; <a, d> / <a, a> would follow the least curvature for one kind, the largest for the other."""
        if not isinstance(self.base, str):
            return 1.0 if callable(self.base) else float(self.base)
        S, Y = (D, A) if self.kind == "inverse" else (A, D)
        sy, ss, yy = (np.einsum("ij,ij->j", *both) for both in ((S, Y), (S, S), (Y, Y)))
        positive = np.flatnonzero(sy > 1e-10 * np.sqrt(ss * yy))
        if len(positive):
            theta = sy[positive[-1]] / yy[positive[-1]]
        else:
            usable = np.flatnonzero(ss * yy > 0)
            theta = float(np.sqrt(ss[usable[-1]] / yy[usable[-1]])) if len(usable) else 1.0
        return float(theta if self.kind == "inverse" else 1 / theta)

    def _fit(self, A: np.ndarray, D: np.ndarray, theta: float) -> Factored | Weighted:
        reg = self.reg * float(np.linalg.norm(A.T @ A, 2)) if A.size else 0.0
        if self.flavour == "weighted":
            base = self.base
            return weighted(A, D, theta, (lambda V: self._each(base, V.T).T) if callable(base) else None, reg, RCOND)
        H = symmetric_multisecant(A, D, theta, reg, RCOND)
        if self.pd == "none":
            return H
        return H.absolute() if self.pd == "abs" else H.clip(self.pd_bounds[0] * theta, self.pd_bounds[1] * theta)
