"""The instances of the benchmark: G-set files with the time each may take, and seeded ones from the gallery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import bmsdp
from bmsdp import Oblique, StiefelProduct, gallery
from bmsdp.applications.maxcut import laplacian_cost

# CPU seconds from reading the file to a certified relative gap of 1e-6
TARGETS = {
    "G1": 0.1, "G11": 0.2, "G14": 0.1, "G22": 0.2, "G32": 0.3, "G43": 0.1, "G48": 0.2, "G55": 0.4, "G60": 0.7, "G67": 1.5,
}  # fmt: skip


@dataclass(frozen=True)
class Instance:
    """``C, A = make()``: a cost and None (unit diagonal) or a manifold; ``call`` is what makes it, to paste."""

    kind: str
    call: str
    make: Callable[[], tuple[Any, Any]]
    small: bool = False

    def problem(self) -> bmsdp.Problem:
        C, A = self.make()
        return bmsdp.Problem(C, Oblique(np.ones(C.shape[0])) if A is None else A)


NAMES = {"gallery": gallery, "laplacian_cost": laplacian_cost, "Oblique": Oblique, "StiefelProduct": StiefelProduct}


def _instance(kind: str, cost: str, manifold: str = "None", small: bool = False) -> Instance:
    """From source text, so that what is printed is what ran."""
    call = cost if manifold == "None" else f"{cost}, {manifold}"
    code = compile(f"({cost}, {manifold})", call, "eval")
    return Instance(kind, call, lambda: eval(code, NAMES), small)  # text of this file alone


def _maxcut(kind: str, graph: str, small: bool = False) -> Instance:
    return _instance(kind, f"laplacian_cost(gallery.{graph})", small=small)


def _synchronization(q: int, d: int, noise: float, p: float, small: bool = False) -> Instance:
    cost = f"gallery.orthogonal_synchronization({q}, {d}, {noise}, rng=0, p={p})[0]"
    return _instance("Stiefel blocks", cost, f"StiefelProduct({q}, {d})", small)


GALLERY = [
    _maxcut("G(n, p)", "gnp(100, 0.1, rng=0)", small=True),
    _maxcut("G(n, p)", "gnp(1000, 0.01, rng=0)"),
    _maxcut("G(n, p)", "gnp(5000, 0.002, rng=0)"),
    _maxcut("random regular", "random_regular(2000, 3, rng=0)"),
    _maxcut("random regular", "random_regular(5000, 6, rng=0)"),
    _maxcut("planted partition", "planted_partition(1000, 4, 0.1, 0.01, rng=0)"),
    _maxcut("planted partition", "planted_partition(3000, 10, 0.05, 0.002, rng=0)"),
    _maxcut("torus, signs", "toroidal_grid(10, 10, rng=0)", small=True),
    _maxcut("torus, signs", "toroidal_grid(50, 50, rng=0)"),
    _maxcut("torus, Gaussian", "toroidal_grid(50, 50, rng=0, weights='gaussian')"),
    _maxcut("hubs", "hubs(300, rng=0)", small=True),
    _maxcut("hubs", "hubs(2000, rng=0)"),
    _maxcut("hubs", "hubs(10000, rng=0, count=5)"),
    _maxcut("6 decades", "wide_weights(200, 0.05, 6, rng=0)", small=True),
    _maxcut("6 decades", "wide_weights(1000, 0.01, 6, rng=0)"),
    _maxcut("6 decades", "wide_weights(3000, 0.002, 6, rng=0)"),
    _instance("dense Gaussian", "gallery.goe(60, rng=0)", small=True),
    _instance("dense Gaussian", "gallery.goe(300, rng=0)"),
    _instance("dense Gaussian", "gallery.goe(1000, rng=0)"),
    _instance("complex Gaussian", "gallery.gue(50, rng=0)", small=True),
    _instance("complex Gaussian", "gallery.gue(300, rng=0)"),
    _instance("rank-one optimum", "gallery.rank_one_optimal(300, rng=0)[0]"),
    _instance("radii", "gallery.goe(100, rng=0)", "Oblique(gallery.random_radii(100, 3, rng=1))", small=True),
    _instance("radii", "laplacian_cost(gallery.gnp(2000, 0.005, rng=0))", "Oblique(gallery.random_radii(2000, 3, rng=1))"),
    _instance("radii", "gallery.goe(400, rng=0)", "Oblique(gallery.random_radii(400, 2, rng=1))"),
    _synchronization(15, 3, 0.5, 1.0, small=True),
    _synchronization(100, 3, 0.5, 1.0),
    _synchronization(500, 3, 0.3, 0.02),
    _synchronization(200, 5, 2.0, 0.1),
]

# for the rivals of the G-set part that cannot go further than n = 400
SMALL_GRAPHS = [
    _maxcut("G(n, p)", "gnp(100, 0.1, rng=0)", small=True),
    _maxcut("torus, signs", "toroidal_grid(14, 14, rng=0)"),
    _maxcut("random regular", "random_regular(400, 4, rng=0)"),
]
