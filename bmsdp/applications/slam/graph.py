"""Pose graphs: relative poses, their precisions, and the checks that both need."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ...io.g2o import read_g2o
from ..synchronization.rounding import nearest

SLACK = 1e-6  # |R R^T - I| up to which a measured rotation is taken for one, and made one


@dataclass(frozen=True, eq=False)
class PoseGraph:
    """m measurements between N poses in R^d, d = 2 or 3: ``R_ij ~ R_i^T R_j``, ``t_ij ~ R_i^T (t_j - t_i)``."""

    edges: np.ndarray = field(repr=False)
    """(m, 2): the poses i and j of each, from 0."""
    R: np.ndarray = field(repr=False)
    """(m, d, d)"""
    t: np.ndarray = field(repr=False)
    """(m, d)"""
    kappa: np.ndarray = field(repr=False)
    """(m,): weights of ``|R_j - R_i R_ij|_F^2``, at least 0."""
    tau: np.ndarray = field(repr=False)
    """(m,): weights of ``|t_j - t_i - R_i t_ij|^2``, at least 0."""
    n: int = 0
    ids: np.ndarray | None = field(default=None, repr=False)
    """(n,): names of the poses; 0, 1, ... by default."""
    poses: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)
    """Rotations (n, d, d) and positions (n, d) given beside the measurements, a start or the truth."""
    fixed: int = 0
    """The pose that the answer keeps where it was given (the identity otherwise)."""

    def __post_init__(self) -> None:
        edges, R, t = np.asarray(self.edges), np.asarray(self.R, float), np.asarray(self.t, float)
        m, d = len(edges), t.shape[1] if t.ndim == 2 else 0
        if edges.shape != (m, 2) or not m or d not in (2, 3) or R.shape != (m, d, d) or t.shape != (m, d) or edges.dtype.kind not in "iu":
            shapes = f"edges {edges.shape} {edges.dtype}, R {R.shape}, t {t.shape}"
            raise ValueError(f"{shapes}; integers (m, 2), and (m, d, d), (m, d) with m >= 1 and d = 2 or 3 are needed")
        n = int(edges.max()) + 1 if self.n == 0 else int(self.n)
        if not 0 <= int(edges.min()) <= int(edges.max()) < n:
            raise ValueError(f"edges name poses {edges.min()} to {edges.max()}; 0 to n - 1 = {n - 1} are needed")
        _refuse(edges[:, 0] == edges[:, 1], edges, "leads from a pose to itself; remove it")
        _refuse(~(np.isfinite(R).all(axis=(1, 2)) & np.isfinite(t).all(axis=1)), edges, "is NaN or infinite")
        off = np.linalg.norm(R @ R.transpose(0, 2, 1) - np.eye(d), axis=(1, 2))
        _refuse(~((off <= SLACK) & (np.linalg.det(R) > 0)), edges, "has an R that is no rotation")
        values = {"edges": edges.astype(np.int64), "R": nearest(R, True) if off.max() > 1e-13 else R, "t": t, "n": n}
        for name in ("kappa", "tau"):
            weight = np.broadcast_to(np.asarray(getattr(self, name), float), (m,)).copy()
            _refuse(~(np.isfinite(weight) & (weight >= 0)), edges, f"has a {name} that is negative or not finite")
            values[name] = weight
        if self.ids is not None and len(self.ids) != n:
            raise ValueError(f"{len(self.ids)} ids for n = {n} poses; one each is needed")
        if self.poses is not None and (np.shape(self.poses[0]) != (n, d, d) or np.shape(self.poses[1]) != (n, d)):
            raise ValueError(f"poses of shapes {np.shape(self.poses[0])}, {np.shape(self.poses[1])}; {(n, d, d)}, {(n, d)} are needed")
        if not 0 <= self.fixed < n:
            raise ValueError(f"fixed = {self.fixed}; a pose from 0 to n - 1 = {n - 1} is needed")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def d(self) -> int:
        return int(self.t.shape[1])

    @property
    def m(self) -> int:
        return len(self.edges)

    def components(self) -> np.ndarray:
        """The component of each pose, (n,), numbered by their first pose; edges without weight do not connect."""
        used = self.edges[(self.kappa > 0) & (self.tau > 0)]
        links = sparse.csr_array((np.ones(len(used)), (used[:, 0], used[:, 1])), shape=(self.n, self.n))
        return np.asarray(sparse.csgraph.connected_components(links, directed=False)[1])

    def part(self, keep: np.ndarray) -> PoseGraph:
        """The graph of some of the poses, (n,) of bool, and of the edges among them."""
        place = np.cumsum(keep) - 1
        inside = keep[self.edges].all(axis=1)
        poses = None if self.poses is None else (np.asarray(self.poses[0])[keep], np.asarray(self.poses[1])[keep])
        fixed = int(place[self.fixed]) if keep[self.fixed] else 0
        ids = np.arange(self.n)[keep] if self.ids is None else self.ids[keep]
        e = (place[self.edges[inside]], self.R[inside], self.t[inside], self.kappa[inside], self.tau[inside])
        return PoseGraph(*e, n=int(keep.sum()), ids=ids, poses=poses, fixed=fixed)

    def misfit(self, R: Any, t: Any) -> np.ndarray:
        """(m,): what each measurement adds to the objective at poses R (n, d, d), t (n, d)."""
        i, j = self.edges.T
        turn = R[j] - R[i] @ self.R
        move = t[j] - t[i] - np.einsum("npq,nq->np", R[i], self.t)
        return np.asarray(self.kappa * np.einsum("npq,npq->n", turn, turn) + self.tau * np.einsum("np,np->n", move, move))

    def objective(self, R: Any, t: Any) -> float:
        """``sum kappa |R_j - R_i R_ij|_F^2 + tau |t_j - t_i - R_i t_ij|^2``."""
        return float(self.misfit(np.asarray(R), np.asarray(t)).sum())


def _refuse(wrong: np.ndarray, edges: np.ndarray, what: str) -> None:
    if wrong.any():
        k = int(np.argmax(wrong))
        raise ValueError(f"edge {k}, from {edges[k, 0]} to {edges[k, 1]}, {what}")


def precisions(information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(kappa, tau) that fit information matrices, (m, 3, 3) or (m, 6, 6): ``tau = d / tr(I_t^{-1})``; ``kappa = I_theta`` in the plane,
    ``3 / (2 tr(I_R^{-1}))`` in space.

    The isotropic precisions of Rosen, Carlone, Bandeira, Leonard, SE-Sync (IJRR 2019), Appendix A, as its code takes them.  Singular
    matrices have precision 0.
    """
    d = 2 if information.shape[1] == 3 else 3
    tau = _harmonic(information[:, :d, :d])
    kappa = np.maximum(information[:, 2, 2], 0.0) if d == 2 else _harmonic(information[:, 3:, 3:]) / 2
    return kappa, tau


def _harmonic(M: np.ndarray) -> np.ndarray:
    """``p / tr(M^{-1})`` of symmetric positive semidefinite p x p matrices."""
    try:
        np.linalg.cholesky(M)
        value = M.shape[1] / np.trace(np.linalg.inv(M), axis1=1, axis2=2)
        if (value > 0).all():
            return np.asarray(value)
    except np.linalg.LinAlgError:
        pass
    eig = np.linalg.eigvalsh(M)
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(eig[:, 0] > 0, M.shape[1] / (1 / np.where(eig > 0, eig, np.inf)).sum(axis=1), 0.0))


def read(path: str | os.PathLike[str], duplicates: str = "warn") -> PoseGraph:
    """The pose graph of a g2o file; see `bmsdp.io.g2o.read_g2o` for what is refused."""
    found = read_g2o(path, duplicates)
    kappa, tau = precisions(found.information)
    poses = None if found.pose_R is None or found.pose_t is None else (found.pose_R, found.pose_t)
    fixed = int(found.fixed[0]) if len(found.fixed) else 0
    return PoseGraph(found.edges, found.R, found.t, kappa, tau, n=len(found.ids), ids=found.ids, poses=poses, fixed=fixed)


def sizes(label: np.ndarray, most: int = 5) -> str:
    """The sizes of components, in words, the largest first."""
    counts: Sequence[int] = np.sort(np.bincount(label))[::-1].tolist()
    more = f" and {len(counts) - most} smaller ones" if len(counts) > most else ""
    return ", ".join(map(str, counts[:most])) + more
