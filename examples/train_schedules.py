"""Train relaxations of mixing sweeps: the shipped schedules, what limits them, and the training modes of PETRA on this network.

python examples/train_schedules.py --part schedules --out FILE   one schedule for each family of graphs and L; FILE is Python source
python examples/train_schedules.py --part limit                  schedule, network and a schedule for each instance, against constant omega
python examples/train_schedules.py --part modes                  backprop, PETRA and its relatives on the same network
python examples/train_schedules.py ... --small                   tiny instances, seconds

Gaps are geometric means of (f - f*) / |f*| after L sweeps from random rows, f* certified to 1e-9, on instances that training never saw.

What to expect.  The objective of a plain schedule has one basin for all that was tried: L-BFGS finds the same schedule from the best
constant and from a schedule that PETRA trained, so schedules are polished on the compiled sweep directly (``fit(steps=0)``).  The part
"limit" fits a schedule to each validation instance and start alone: no schedule for a family can be better.  In "modes" the messages
of PETRA pass inverses of contracting sweeps with parameters that have moved since: see ``bmsdp.learned.petra.modes`` for the cure.
"""

import argparse
import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before NumPy is imported
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
import scipy.sparse as sp  # noqa: E402

from bmsdp import Oblique, Problem, StiefelProduct, gallery  # noqa: E402
from bmsdp.learned import distil  # noqa: E402
from bmsdp.learned.fit import fit  # noqa: E402

Rng = np.random.Generator


@dataclass(frozen=True)
class Family:
    """``make(n, rng)`` is a Problem of about n rows; ``n`` the size in training."""

    make: Callable[[int, Rng], Problem]
    n: int


def rows(C: Any) -> Problem:
    """Unit rows."""
    return Problem(C, Oblique(np.ones(C.shape[0])))


def signed(W: sp.csr_array, draw: Callable[[int], np.ndarray]) -> sp.csr_array:
    """The graph of W with new weights ``draw(edges)``."""
    upper = sp.triu(W, 1).tocoo()
    half = sp.coo_array((draw(upper.nnz), upper.coords), shape=W.shape)
    return sp.csr_array(half + half.T.conj())


def communities(n: int, rng: Rng) -> Problem:
    """Correlation clustering: edges want to agree inside four communities and to differ between them, one in ten lies."""
    W = gallery.gnp(n, 10 / n, rng).tocoo()
    i, j = W.coords
    keep, label = i < j, np.arange(n) * 4 // n
    i, j = i[keep], j[keep]
    w = np.where(label[i] == label[j], -1.0, 1.0) * np.where(rng.random(i.size) < 0.1, -1.0, 1.0)
    half = sp.coo_array((w, (i, j)), shape=W.shape)
    return rows(sp.csr_array(half + half.T))


def torus(n: int, rng: Rng) -> Problem:
    side = max(3, round(math.sqrt(n)))
    return rows(gallery.toroidal_grid(side, max(3, n // side), rng))


def phases(n: int, rng: Rng) -> Problem:
    """Angular synchronisation on a sparse graph, without an order in the phases: complex weights of modulus 1."""
    W = gallery.gnp(n, rng.uniform(4, 10) / n, rng)
    return rows(signed(W, lambda m: np.exp(2j * np.pi * rng.random(m))))


FAMILIES = {
    "sparse": Family(lambda n, rng: rows(gallery.gnp(n, rng.uniform(4, 10) / n, rng)), 500),
    "regular": Family(lambda n, rng: rows(gallery.random_regular(n, int(rng.integers(3, 6)), rng)), 500),
    "torus": Family(torus, 500),
    "signed": Family(lambda n, rng: rows(signed(gallery.gnp(n, rng.uniform(4, 10) / n, rng), rng.standard_normal)), 500),
    "communities": Family(communities, 500),
    "dense": Family(lambda n, rng: rows(gallery.goe(n, rng)), 200),
    "phases": Family(phases, 500),
    "dense phases": Family(lambda n, rng: rows(gallery.gue(n, rng)), 150),
    "rotations": Family(
        lambda n, rng: Problem(gallery.orthogonal_synchronization(n // 3, 3, 0.5, rng, p=18 / n)[0], StiefelProduct(n // 3, 3)), 300
    ),
}


def schedules(args: argparse.Namespace) -> None:
    """Fit one schedule for each family and L; print what it reaches and write it as Python source."""
    command = shlex.join(["--part", "schedules", "--L", *map(str, args.L), "--families", *args.families])
    lines = ['"""Relaxations of the first L mixing sweeps, by family; written by', "", f"python examples/train_schedules.py {command}"]
    lines += ['"""', ""]
    lines += ["SCHEDULES: dict[str, dict[int, tuple[float, ...]]] = {"]
    print(f"{'family':14s}{'L':>4s}{'adaptive':>11s}{'constant':>11s}{'(omega)':>9s}{'schedule':>11s}{'constant / schedule':>21s}")
    for name in args.families:
        lines.append(f'    "{name}": {{')
        family = FAMILIES[name]
        n = 30 if args.small else family.n
        train = [family.make(n, np.random.default_rng([args.seed, s])) for s in range(4 if args.small else 24)]
        for L in args.L:
            found = fit(train, L=L, network=False, steps=args.steps, rng=args.seed)
            gaps, ratio = found.meta["gaps"], found.meta["gaps"]["constant"] / found.meta["gaps"]["schedule"]
            print(
                f"{name:14s}{L:4d}{gaps['adaptive']:11.2e}{gaps['constant']:11.2e}{found.meta['constant']:9.2f}{gaps['schedule']:11.2e}{ratio:21.2f}",
                flush=True,
            )
            lines += [f"        {L}: (", *_wrapped(found.omega), "        ),"]
        lines.append("    },")
    source = "\n".join([*lines, "}", ""])
    if args.out:
        Path(args.out).write_text(source)
        print(f"written to {args.out}")


def _wrapped(omega: np.ndarray) -> list[str]:
    return ["            " + " ".join(f"{w:.3f}," for w in omega[i : i + 16]) for i in range(0, len(omega), 16)]


def limit(args: argparse.Namespace) -> None:
    """What a constant, a schedule, a network, and a schedule for each instance alone reach."""
    print(f"{'family':14s}{'L':>4s}{'adaptive':>11s}{'constant':>11s}{'schedule':>11s}{'network':>11s}{'own schedule':>14s}")
    for name in args.families:
        family, n = FAMILIES[name], 30 if args.small else FAMILIES[name].n
        problems = [family.make(n, np.random.default_rng([args.seed, s])) for s in range(8 if args.small else 32)]
        for L in args.L:
            found = fit(problems, L=L, steps=4 if args.small else max(args.steps, 200), rng=args.seed)
            gaps, meta = found.meta["gaps"], found.meta
            tests = distil.samples(problems[-len(problems) // 4 :], meta["rank"], [args.seed, 9])
            own = [distil.log_gap(distil.polish(meta["schedule"], [test]), [test]) for test in tests]
            base = distil.log_gap([meta["constant"]] * L, tests)
            own_gap = gaps["constant"] * math.exp(np.mean(own) - base)
            columns = [gaps["adaptive"], gaps["constant"], gaps["schedule"], gaps["network"]]
            print(f"{name:14s}{L:4d}" + "".join(f"{gap:11.2e}" for gap in columns) + f"{own_gap:14.2e}", flush=True)


def modes(args: argparse.Namespace) -> None:
    """Training modes on n = 300, k = 26, L = 8: validation gap, and the error of the input that the first stage reconstructs."""
    import torch

    from bmsdp.learned import petra
    from bmsdp.learned.networks import Draws, LogGap, SweepStage
    from bmsdp.learned.networks.training import reached
    from bmsdp.learned.petra.optimizers import adam, warmup_cosine

    torch.set_num_threads(1)
    n, k, L, steps = (30, 8, 3, 6) if args.small else (300, 26, 8, args.steps or 200)
    family = FAMILIES["sparse"]
    train = [family.make(n, np.random.default_rng([args.seed, 0, s])) for s in range(4 if args.small else 48)]
    held = [family.make(n, np.random.default_rng([args.seed, 1, s])) for s in range(2 if args.small else 10)]
    optima = {id(problem): distil.optimum(problem) for problem in train}
    draws = Draws(train, k, seed=args.seed, optimum=lambda problem: optima[id(problem)])
    tests = distil.samples(held, k, [args.seed, 2])
    omega = 1.5
    print(f"start: {reached([SweepStage(omega) for _ in range(L)], tests):.3e} with omega = {omega} for all rows")
    print(f"{'mode':12s}{'k':>4s}{'rate':>8s}{'gap':>12s}{'reconstruction':>16s}{'outside':>9s}{'seconds':>9s}")
    every = [(mode, 1, 0.01) for mode in (petra.BACKPROP, petra.REVERSIBLE, petra.PETRA)]
    every += [(petra.PETRA, 1, 3e-4), (petra.PETRA, 4, 0.01), (petra.PETRA, 16, 0.02)]
    every += [(mode, 1, 0.01) for mode in (petra.REVSTASH, petra.BUFFER, petra.STASH, petra.APPROXIMATE)]
    for mode, average, rate in every:
        generator = torch.Generator().manual_seed(args.seed)
        stages = [SweepStage(omega, generator=generator) for _ in range(L)]
        batches = steps * (3 if average == 16 else 1)  # with few updates left, 16 needs more batches
        updates = max(batches // average, 1)
        pipeline = petra.Pipeline(
            [*stages, LogGap(distil.FLOOR)], draws, adam(rate), mode, average, warmup_cosine(min(updates // 10, 20), updates), 1.0
        )
        plan, worst = pipeline.plan(batches), [0.0]

        def watch(t: int, workers: Any, plan: Any = plan, worst: list[float] = worst) -> None:
            if workers[0].x is not None:
                (x,) = draws.inputs(plan.backward(1, t))
                worst[0] = max(worst[0], float((workers[0].x[0] - x).norm() / x.norm()))

        began = time.perf_counter()
        petra.simulate(pipeline, batches, observer=watch)
        seconds, outside = time.perf_counter() - began, sum(stage.outside for stage in stages)
        gap = reached(stages, tests)
        print(f"{mode.name:12s}{average:4d}{rate:8.0e}{gap:12.3e}{worst[0]:16.1e}{outside:9d}{seconds:9.1f}", flush=True)


PARTS = {"schedules": schedules, "limit": limit, "modes": modes}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, default="schedules")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=None, help="all (schedules), or sparse (limit)")
    parser.add_argument("--L", nargs="+", type=int, default=[8, 16, 32], help="numbers of sweeps")
    parser.add_argument("--steps", type=int, default=0, help="batches of training by PETRA; 0: polish alone, 200 for networks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="tiny instances")
    parser.add_argument("--out", help="file for the schedules, as Python source")
    args = parser.parse_args(arguments)
    args.families = args.families or (["sparse"] if args.part == "limit" else list(FAMILIES))
    args.L = [4] if args.small else args.L
    PARTS[args.part](args)


if __name__ == "__main__":
    main(sys.argv[1:])
