"""Block BFGS from the exact pairs (delta, Hess delta) of the last tCG."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..manifolds.base import as_real
from ..problem import LocalModel, Problem
from .base import Gate, Gated, Map, projected

POSITIVE = 1e-8  # eigenvalues of S'Y below this part of the largest are no curvature to build on


class Block(Gated):
    """``H = Sum_a s_a s_a' + (I - s_a y_a') H0 (I - y_a s_a')`` for pairs of the last tCG, spread over it, with ``<s_a, y_b> = 1_{a = b}``.

    The pairs are projected to the new tangent space, where they are nearly consistent; what they are not is left out of ``S'Y``, which
    costs the secant equation but never definiteness.
    """

    def __init__(self, problem: Problem, memory: int, base: Any, gate: Gate):
        super().__init__(problem, gate, self._map)
        self.memory, self.base = memory, base
        self.held: list[tuple[np.ndarray, np.ndarray]] = []
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self.seen, self.stride = 0, 1

    def product(self, model: LocalModel, delta: np.ndarray) -> np.ndarray:
        H = model.hess(delta)
        if self.seen % self.stride == 0:
            self.pairs.append((delta.copy(), H))
            if len(self.pairs) == self.memory + 1:
                self.pairs, self.stride = self.pairs[::2], 2 * self.stride
        self.seen += 1
        return H

    def closed(self) -> None:
        self.pairs = []
        self.stride, self.seen = 1, 0

    def costs(self, model: LocalModel) -> tuple[float, float]:
        m, size = len(self.pairs) or self.memory, as_real(model.Y).size
        return 8.0 * m * size, 2.0 * m * m * size

    def _map(self, model: LocalModel) -> Map | None:
        if self.pairs:
            self.held = self.pairs
        self.closed()
        if not self.held:
            return None
        S, Y = (np.array([as_real(projected(model, V)).ravel() for V in part]) for part in zip(*self.held, strict=True))
        length = np.linalg.norm(S, axis=1, keepdims=True)
        length[length == 0] = 1.0
        S, Y = S / length, Y / length
        G = S @ Y.T
        g, E = np.linalg.eigh((G + G.T) / 2)
        kept = g > POSITIVE * max(g[-1], 0.0)
        if not kept.any():
            return None
        L = (E[:, kept] / np.sqrt(g[kept])).T
        S, Y = L @ S, L @ Y
        if self.base is not None:
            return _based(model, S, Y, self.base(model))
        theta, m, both = float(np.sum(kept) / np.sum(Y * Y)), len(S), np.concatenate([S, Y])
        # H = theta I + [S' Y'] K [S; Y]
        K = np.block([[np.eye(m) + theta * (Y @ Y.T), -theta * np.eye(m)], [-theta * np.eye(m), np.zeros((m, m))]])

        def apply(U: np.ndarray) -> np.ndarray:
            u = as_real(U).ravel()
            out = (K @ (both @ u)) @ both
            out += theta * u
            return out.view(U.dtype).reshape(U.shape)

        return apply


def _based(model: LocalModel, S: np.ndarray, Y: np.ndarray, base: Map) -> Map:
    def apply(U: np.ndarray) -> np.ndarray:
        u = as_real(U).ravel()
        s = S @ u
        inner = projected(model, base((u - s @ Y).view(U.dtype).reshape(U.shape)))
        v = as_real(np.ascontiguousarray(inner)).ravel()
        return (v + (s - Y @ v) @ S).view(U.dtype).reshape(U.shape)

    return apply
