"""``bmsdp train``: from files, or a family of the gallery, to the weights of a learned solver."""

from __future__ import annotations

import argparse
import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import gallery
from ..manifolds import Oblique, StiefelProduct
from ..problem import Problem
from .fit import fit
from .weights import MixingWeights

Draw = Callable[[np.random.Generator], Problem]


def _rows(C: Any) -> Problem:
    return Problem(C, Oblique(np.ones(C.shape[0])))


def _gnp(n: int) -> Draw:
    return lambda rng: _rows(gallery.gnp(n, min(1.0, rng.uniform(4, 10) / max(n - 1, 1)), rng))


def _regular(n: int) -> Draw:
    return lambda rng: _rows(gallery.random_regular(n + n % 2, 3, rng))


def _torus(n: int) -> Draw:
    side = max(3, round(n**0.5))
    return lambda rng: _rows(gallery.toroidal_grid(side, side, rng))


def _hubs(n: int) -> Draw:
    return lambda rng: _rows(gallery.hubs(n, rng))


def _planted(n: int) -> Draw:
    return lambda rng: _rows(gallery.planted_partition(n, 4, min(1.0, 20 / n), min(1.0, 2 / n), rng))


def _goe(n: int) -> Draw:
    return lambda rng: _rows(gallery.goe(n, rng))


def _gue(n: int) -> Draw:
    return lambda rng: _rows(gallery.gue(n, rng))


def _rotations(n: int) -> Draw:
    q = max(3, n // 3)
    return lambda rng: Problem(gallery.orthogonal_synchronization(q, 3, 0.5, rng, min(1.0, 8 / q))[0], StiefelProduct(q, 3))


FAMILIES: dict[str, Callable[[int], Draw]] = {
    "gnp": _gnp, "regular": _regular, "torus": _torus, "hubs": _hubs, "planted": _planted, "goe": _goe, "gue": _gue,
    "rotations": _rotations,
}  # fmt: skip


def train(args: argparse.Namespace, read: Callable[[str], Any]) -> int:
    """Train on what ``args`` name, write the weights, say what they reach; ``read(path)`` is an instance.  Returns the exit code."""
    if bool(args.files) == (args.family is not None):
        given = "both" if args.files else "neither"
        raise ValueError(f"{given} given; either files to train on or --family NAME is needed")
    problems = FAMILIES[args.family](args.size) if args.family is not None else _of_files(args.files, read)
    seed = secrets.randbits(31) if args.seed is None else args.seed
    steps = 0 if args.schedule else args.steps
    weights = fit(problems, L=args.sweeps, rank=args.rank, network=not args.schedule, steps=steps, rng=seed)
    weights.meta["source"] = args.family or [str(path) for path in args.files]
    weights.save(args.out)
    print("\n".join(summary(weights, args.out, seed)))
    return 0


def _of_files(paths: Sequence[str], read: Callable[[str], Any]) -> list[Problem]:
    problems = []
    for path in paths:
        given = read(path)
        if given.is_sdp:
            raise ValueError(f"{path}: a general semidefinite program; learned sweeps need a unit diagonal: a graph or a matrix")
        problems.append(_rows(given.C))
    return problems


def summary(weights: MixingWeights, path: str, seed: int) -> list[str]:
    """What was trained and what it reaches, in lines."""
    kind = "a plain schedule" if weights.is_schedule else f"a network of width {weights.W2.shape[1]}"
    lines = [f"{path}: {kind} of {weights.L} sweeps, seed {seed}", "omega     " + " ".join(f"{w:.3f}" for w in weights.omega)]
    gaps = weights.meta.get("gaps", {})
    if gaps:
        lines.append(f"relative gap after {weights.L} sweeps, geometric mean over validation problems:")
        lines += [f"    {name:<12} {gap:.2e}" for name, gap in gaps.items() if isinstance(gap, float)]
    if not weights.is_schedule and gaps.get("schedule", math.inf) <= gaps.get("network", 0.0):
        lines.append("the plain schedule is as good, and cheaper: train with --schedule")
    return [*lines, f"use it: bmsdp solve FILE --solver learned --weights {path}"]
