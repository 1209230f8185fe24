"""Pose graphs on the command line (floor L8): ``bmsdp solve | info | certify`` of a g2o file."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from typing import Any

import numpy as np

from . import Result, __version__, plot
from .applications import slam
from .applications.slam.cost import centre, cost_scale, matrix
from .applications.slam.graph import sizes
from .report import finite, rounded
from .verified import lower_bound

ENDINGS, TAGS = (".g2o",), (b"VERTEX_SE", b"EDGE_SE")


def solve(args: argparse.Namespace) -> tuple[str, int]:
    """Solve a pose graph, print and write what was asked for; (name of the status, number of parts)."""
    for name, default in (("method", "auto"), ("solver", "default"), ("perturbation", None), ("trace_bound", None)):
        if getattr(args, name) != default:
            raise ValueError(f"{args.file}: --{name.replace('_', '-')} has no meaning for pose graphs; leave it out")
    start = time.perf_counter()
    graph = slam.read(args.file)
    label = graph.components()
    texts = [path for path in args.out if path.lower().removesuffix(".gz").endswith(".sol")]
    if texts:
        raise ValueError(f"{texts[0]}: poses are written as .g2o, the relaxation's solution as .npz; choose one of these endings")
    seed = secrets.randbits(32) if args.seed is None else args.seed
    report = (lambda line: print(line, file=sys.stderr if args.json else sys.stdout)) if args.verbose else None
    found = slam.solve(
        graph, tol=args.tol, rank=args.rank, certify=None if args.certify == "none" else args.certify, components="split",
        max_time=args.max_time, rng=seed, report=report, progress=False if args.verbose else None,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    if args.json:
        print(json.dumps(_json(args, graph, found, seed, seconds), allow_nan=False), flush=True)
    else:
        print("\n".join(_lines(args, graph, found, label, seed, seconds)))
    for path in args.out:
        if _is_g2o(path):
            found.write(path, graph)
        elif len(found.results) == 1:
            found.results[0].save(path)
        else:
            raise ValueError(
                f"{path}: {len(found.results)} components have a solution each; only poses (.g2o) are written of them together"
            )
    if args.plot:
        plot.trajectory(graph, found, picture(args) if args.plot is True else args.plot)
    return found.status.name, len(found.results)


def picture(args: argparse.Namespace) -> str:
    """Where ``--plot`` without a path draws: beside the first thing written, or else in the working folder."""
    base = args.out[0] if args.out else os.path.basename(args.file)
    return os.path.splitext(base.removesuffix(".gz"))[0] + ".png"


def _is_g2o(path: str) -> bool:
    return path.lower().removesuffix(".gz").endswith(ENDINGS)


def is_pose_graph(path: str, head: bytes) -> bool:
    """By the ending of the name, or the first tag."""
    return _is_g2o(path) or head.lstrip().startswith(TAGS)


def _title(path: str, graph: slam.PoseGraph) -> str:
    return f"{path}: pose graph in {'the plane' if graph.d == 2 else 'space'}, {graph.n} poses, {graph.m} measurements"


def _lines(args: argparse.Namespace, graph: slam.PoseGraph, found: slam.Poses, label: np.ndarray, seed: int, seconds: float) -> list[str]:
    known = f"nothing is below; {found.rigor}" if np.isfinite(found.bound) else "nothing is known"
    tight = "the relaxation is tight" if found.rank == graph.d else "the relaxation is not tight: its gap above is not that of the poses"
    relaxed = max(result.gap for result in found.results)
    parts = [f"parts   {label.max() + 1}, of {sizes(label)} poses, each in a frame of its own"] if label.any() else []
    return [
        _title(args.file, graph), *parts, f"status  {found.status.name}: {found.status.value}",
        f"value   {found.objective:.12g} (the poses written)", f"bound   {rounded(found.bound, False)} ({known})",
        f"gap     {rounded(found.gap, True, 2)} of the poses, {rounded(relaxed, True, 2)} of the relaxation",
        f"rank    {found.rank} ({tight})", f"time    {seconds:.3g} s, {sum(r.products for r in found.results)} products, seed {seed}",
    ]  # fmt: skip


def _json(args: argparse.Namespace, graph: slam.PoseGraph, found: slam.Poses, seed: int, seconds: float) -> dict[str, Any]:
    return {
        "file": args.file, "format": "g2o", "sense": "min", "n": graph.n, "m": graph.m, "dimension": graph.d,
        "components": int(found.component.max()) + 1, "status": found.status.name, "message": found.status.value,
        "value": finite(found.objective), "bound": finite(found.bound), "gap": finite(found.gap),
        "relaxation_gap": finite(max(result.gap for result in found.results)), "rigor": found.rigor, "tol": args.tol, "rank": found.rank,
        "seconds": seconds, "products": int(sum(result.products for result in found.results)), "seed": seed, "version": __version__,
    }  # fmt: skip


def info(path: str) -> list[str]:
    """What a pose graph is."""
    graph = slam.read(path)
    label, degree = graph.components(), np.bincount(graph.edges.ravel(), minlength=graph.n)
    near = int((np.abs(graph.edges[:, 0] - graph.edges[:, 1]) == 1).sum())
    return [
        _title(path, graph),
        f"poses       {graph.n}{'' if graph.poses is None else ', with initial values'}",
        f"edges       {graph.m}, {near} of them between successive poses",
        f"degrees     {degree.min()} to {degree.max()}",
        f"kappa       {graph.kappa.min():.6g} to {graph.kappa.max():.6g} (precision of rotations)",
        f"tau         {graph.tau.min():.6g} to {graph.tau.max():.6g} (precision of translations)",
        f"components  {label.max() + 1}" + (f", of {sizes(label)} poses" if label.any() else ""),
    ]


def certify(args: argparse.Namespace) -> float:
    """The bound of a saved dual and the objective of the poses of the saved point; their relative gap."""
    graph, saved = slam.read(args.file), Result.load(args.result)
    manifold = slam.problem(graph).manifold
    if saved.Y.ndim != 2 or len(saved.Y) != graph.n * graph.d or len(saved.dual) != manifold.m or not np.isfinite(saved.Y).all():
        needed = f"{graph.n * graph.d} rows and {manifold.m} multipliers are needed for {args.file}"
        raise ValueError(f"{args.result}: Y is {saved.Y.shape} with {len(saved.dual)} multipliers; {needed}; take its own result")
    found = lower_bound(matrix(graph, centre(graph)), manifold, dual=saved.dual)
    value = slam.recover(saved, graph).objective
    bound = max(found.bound, 0.0)  # of a sum of squares
    gap = (value - bound) / max(value, bound, cost_scale(graph))
    print(f"{args.result} for {_title(args.file, graph)}")
    print(f"value     {value:.12g} (poses rounded from the saved point)")
    print(f"bound     {rounded(bound, False)} (verified, from the saved dual)")
    print(f"gap       {rounded(gap, True, 2)} (of the poses)")
    print(f"work      {found.factorisations} error-bounded factorisations")
    return float(gap)
