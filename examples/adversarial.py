"""Spurious points: what a fixed rank, noise and the staircase make of them.

python examples/adversarial.py               tables, a picture and a CSV file; about a minute on one core
python examples/adversarial.py --small       smaller instances, fewer runs, seconds
python examples/adversarial.py --out folder  where to write picture and CSV; a temporary folder when absent

Four costs of `bmsdp.gallery` come with a point V that no small step improves and that is not optimal.  A run is a success where bmsdp
certifies a relative gap of 1e-6 for the *original* cost; with noise, the perturbed cost is solved first and the original one from there.

Two solvers.  `TrustRegion` is the local method of the theory: what it finds says where the basins of attraction are.  The default
(over-relaxed mixing first) takes long steps row by row; it leaves some basins that trust regions do not, and enters others.

What to expect.  The axial point of `ocarroll` is degenerate, its Hessian has flat directions beyond the rotations of Y: almost any
noise above rounding frees it.  The other three are strict minima up to rotation.  With small noise they move and stay minima, so it is
no help; noise as large as the curvature there frees them, and amounts to a new start somewhere else.  One more column is enough at V,
and the staircase adds it where the certificate finds an eigenvalue of S below zero.
"""

import argparse
import csv
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.axes
import matplotlib.figure
import numpy as np

import bmsdp
from bmsdp import gallery

TOL = 1e-6  # certified relative gap that counts as success
RADIUS = 0.3  # of "near": every row of V moves by this much before it is normalised
RHO = 1e-3  # relative size of the small noise, sigma sqrt(n) / |C|
SOLVERS = {"trust region": bmsdp.solvers.TrustRegion(), "default": None}
COLOURS = {"trust region": "#0b5394", "default": "#c77c11"}
STAIRCASE = "#1b7f4d"
Row = dict[str, Any]


@dataclass(frozen=True)
class Instance:
    """A cost (n, n), its spurious point V (n, k) of value 0, its optimum, and the ranks to try from random starts."""

    name: str
    C: np.ndarray
    V: np.ndarray
    optimum: float
    ranks: tuple[int, ...]

    @cached_property
    def problem(self) -> bmsdp.Problem:
        return bmsdp.Problem(self.C, bmsdp.Oblique(np.ones(len(self.C))))

    @cached_property
    def hessian(self) -> tuple[float, int, float]:
        """At V, on the tangent space: smallest eigenvalue, zeros beyond the rotations of Y, smallest positive eigenvalue."""
        model, (n, k), field = self.problem.at(self.V), self.V.shape, (1, 1j) if np.iscomplexobj(self.V) else (1,)
        H = []
        for unit in field:
            for E in np.eye(n * k):
                U = model.problem.manifold.project(self.V, np.ascontiguousarray(unit * E.reshape(n, k), self.V.dtype))
                H.append(np.concatenate([(np.conj(u) * model.hess(U)).real.ravel() for u in field]))
        eigenvalues = np.linalg.eigvalsh(np.array(H))
        small = 1e-10 * eigenvalues[-1]
        rotations = k * k if len(field) == 2 else k * (k - 1) // 2
        flat = int((np.abs(eigenvalues) <= small).sum()) - n - rotations  # n: the directions normal to the manifold
        return float(eigenvalues[0]), flat, float(eigenvalues[eigenvalues > small][0])

    def sigma(self, rho: float) -> float:
        """The noise of relative size rho."""
        return rho * float(np.linalg.norm(self.C, 2)) / np.sqrt(len(self.C))

    def start(self, where: str, k: int, rng: np.random.Generator) -> np.ndarray:
        """A random point, V itself or a point near it, with k columns."""
        if where == "random":
            return self.problem.random_point(k, rng)
        Y = np.zeros((len(self.C), k), self.C.dtype)
        Y[:, : self.V.shape[1]] = self.V
        if where == "near":
            Y += RADIUS * self.problem.random_point(k, rng)
        return Y / np.linalg.norm(Y, axis=1, keepdims=True)


def instances(small: bool, seed: int) -> list[Instance]:
    if small:
        return [
            Instance("ocarroll(4)", *gallery.ocarroll(4), ranks=(2, 4)),
            Instance("n_gon(5, t=3)", *gallery.n_gon(5, 3.0), ranks=(2, 3)),
            Instance("waldspurger_waters(10, 3)", *gallery.waldspurger_waters(10, 3, rng=seed, margin=2), ranks=(2, 3)),
            Instance("complex_triangle(t=2)", *gallery.complex_triangle(2.0), ranks=(1, 2)),
        ]
    return [
        Instance("ocarroll(10)", *gallery.ocarroll(10), ranks=(2, 3, 4, 6, 10)),
        Instance("n_gon(12, t=3)", *gallery.n_gon(12, 3.0), ranks=(2, 3, 4)),
        Instance("waldspurger_waters(20, 4)", *gallery.waldspurger_waters(20, 4, rng=seed, margin=2), ranks=(2, 3, 4, 5)),
        Instance("complex_triangle(t=2)", *gallery.complex_triangle(2.0), ranks=(1, 2)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="smaller instances, fewer runs")
    parser.add_argument("--out", type=Path, help="folder for picture and CSV; a temporary one when absent")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    runs, levels = (4, [-10, -3, 0]) if options.small else (30, list(range(-15, 2)))

    chosen = instances(options.small, options.seed)
    refused(chosen, options.seed)

    rows: list[Row] = []
    print(f"\ncertified at {TOL:g}, out of {runs}; noise: sigma sqrt(n) / |C| = {RHO:g}; near: within {RADIUS:g} of V\n")
    print(f"{'instance':<26} {'start':<7} {'k':>9} {'trust region':>13} {'+ noise':>8} {'default':>8} {'+ noise':>8}")
    for instance in chosen:
        rows += by_rank(instance, runs, options.seed)
    print(f"\nfrom V, k kept: certified out of {runs}, against log10 of sigma sqrt(n) / |C|\n")
    print(f"{'instance':<26} {'solver':<13}" + "".join(f"{level:>4}" for level in levels))
    for instance in chosen:
        rows += by_noise(instance, levels, runs, options.seed)

    folder = options.out if options.out is not None else Path(tempfile.mkdtemp(prefix="bmsdp-"))
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "adversarial.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    picture(chosen, rows, folder / "adversarial.png")
    print("\ntable  ", folder / "adversarial.csv")
    print("picture", folder / "adversarial.png")


def refused(chosen: list[Instance], seed: int) -> None:
    """What every local test says at V, and what the certificate says."""
    print("at V: no local test finds anything wrong, and the certificate refuses it\n")
    print(f"{'instance':<26} {'k':>3} {'cost':>7} {'optimum':>8} {'|grad|':>7} {'Hess >=':>8} {'flat':>5} {'next':>6}", end="")
    print(f" {'eig_min(S)':>11} {'bound':>9}  status of solve(rank=k, warm_start=V)")
    for instance in chosen:
        model, k = instance.problem.at(instance.V), instance.V.shape[1]
        lowest, flat, positive = instance.hessian
        result = bmsdp.solve(instance.C, rank=k, warm_start=instance.V, solver=SOLVERS["trust region"], rng=seed)
        print(
            f"{instance.name:<26} {k:>3} {model.cost:>7.0e} {instance.optimum:>8.4g} {model.grad_norm:>7.0e} {lowest:>8.0e} {flat:>5} "
            f"{positive:>6.3g} {result.certificate.eig_min:>11.4g} {result.bound:>9.4f}  {result.status.name}"
        )
    print("\nflat: zero eigenvalues of the Hessian beyond the rotations Y -> YQ; next: its smallest positive one.")


def certified(instance: Instance, where: str, k: int, rank: int | None, solver: str, rho: float, runs: int, seed: int) -> Row:
    """How many of the runs end certified: a row of the CSV file."""
    count = 0
    for run in range(runs):
        Y = instance.start(where, k, np.random.default_rng([seed, run, 0]))
        noise, rng = instance.sigma(rho) if rho else None, np.random.default_rng([seed, run, 1])
        result = bmsdp.solve(instance.C, rank=rank, warm_start=Y, solver=SOLVERS[solver], perturbation=noise, tol=TOL, rng=rng)
        count += result.status is bmsdp.Status.CERTIFIED
    return {
        "instance": instance.name, "n": len(instance.C), "spurious_rank": instance.V.shape[1], "start": where, "columns": k,
        "rank": "free" if rank is None else rank, "solver": solver, "rho": rho, "sigma": instance.sigma(rho), "runs": runs,
        "certified": count, "rate": count / runs,
    }  # fmt: skip


def by_rank(instance: Instance, runs: int, seed: int) -> list[Row]:
    """Success against k, with and without noise, from random points and from near V; and of the staircase from the same points."""
    rows, spurious = [], instance.V.shape[1]
    cases = [("random", k, k) for k in instance.ranks] + [("random", instance.ranks[0], None)]
    cases += [("near", spurious, spurious), ("near", spurious + 1, spurious + 1), ("near", spurious, None)]
    for where, k, rank in cases:
        levels = (0.0,) if rank is None else (0.0, RHO)  # the staircase needs no noise
        found = [certified(instance, where, k, rank, solver, rho, runs, seed) for solver in SOLVERS for rho in levels]
        rows += found
        counts = [row["certified"] for row in found] if rank is not None else [found[0]["certified"], "", found[1]["certified"], ""]
        label = "staircase" if rank is None else k
        print(f"{instance.name:<26} {where:<7} {label:>9} {counts[0]:>13} {counts[1]:>8} {counts[2]:>8} {counts[3]:>8}", flush=True)
    return rows


def by_noise(instance: Instance, levels: list[int], runs: int, seed: int) -> list[Row]:
    """Success from V against the size of the noise."""
    rows, k = [], instance.V.shape[1]
    for solver in SOLVERS:
        found = [certified(instance, "at", k, k, solver, 10.0**level, runs, seed) for level in levels]
        rows += found
        print(f"{instance.name:<26} {solver:<13}" + "".join(f"{row['certified']:>4}" for row in found), flush=True)
    return rows


def picture(chosen: list[Instance], rows: list[Row], path: Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(14, 8.6), dpi=90, layout="constrained")
    axes = figure.subplots(3, len(chosen), sharey=True)
    for column, instance in enumerate(chosen):
        mine = [row for row in rows if row["instance"] == instance.name]
        axes[0, column].set_title(f"{instance.name}, n = {len(instance.C)}\nspurious at k = {instance.V.shape[1]}", fontsize=11)
        for ax, where in zip(axes[:2, column], ("random", "near"), strict=True):
            bars(ax, [row for row in mine if row["start"] == where])
        axes[1, column].set_xlabel("columns k")
        curves(axes[2, column], [row for row in mine if row["start"] == "at"], instance)
    for ax, start in zip(axes[:, 0], ("random starts", "starts near V", "from V, against noise"), strict=True):
        ax.set_ylabel(f"{start}\n% certified at {TOL:g}")
    for ax in axes.ravel():
        ax.set_ylim(0, 112)
        ax.grid(True, axis="y", color="0.92")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path)


def bars(ax: matplotlib.axes.Axes, rows: list[Row]) -> None:
    """A group of bars for every k, and one for the staircase; a zero says so."""
    ranks = list(dict.fromkeys(row["rank"] for row in rows))
    for shift, (solver, rho) in enumerate((solver, rho) for solver in SOLVERS for rho in (0.0, RHO)):
        fixed = [row for row in rows if (row["solver"], row["rho"]) == (solver, rho) and row["rank"] != "free"]
        places = [ranks.index(row["rank"]) + 0.2 * (shift - 1.5) for row in fixed]
        style = {"color": COLOURS[solver]} if rho else {"facecolor": "white", "edgecolor": COLOURS[solver], "linewidth": 1.5}
        ax.bar(places, [100 * row["rate"] for row in fixed], 0.17, label=f"{solver}, {'noise first' if rho else 'no noise'}", **style)
        for place, row in zip(places, fixed, strict=True):
            if not row["certified"]:
                ax.text(place, 2, "0", ha="center", fontsize=9, color=COLOURS[solver])
    for shift, solver in zip((-0.2, 0.2), SOLVERS, strict=True):
        free = next(row for row in rows if row["rank"] == "free" and row["solver"] == solver)
        place = ranks.index("free") + shift
        label = "staircase" if solver == "trust region" else None
        ax.bar(place, 100 * free["rate"], 0.35, color=STAIRCASE, edgecolor=COLOURS[solver], linewidth=1.5, label=label)
    ax.set_xticks(range(len(ranks)), ["staircase" if rank == "free" else str(rank) for rank in ranks])


def curves(ax: matplotlib.axes.Axes, rows: list[Row], instance: Instance) -> None:
    """Success against noise, and where |W|, about 2 sigma sqrt(n), is the smallest positive curvature at a strict minimum."""
    for solver, marker, size in (("default", "o", 8), ("trust region", "s", 4)):
        mine = [row for row in rows if row["solver"] == solver]
        ax.semilogx(
            [row["rho"] for row in mine], [100 * row["rate"] for row in mine], color=COLOURS[solver], marker=marker, markersize=size
        )
    _, flat, positive = instance.hessian
    if flat == 0:
        rho = positive / (2 * np.linalg.norm(instance.C, 2))
        ax.axvline(rho, color="0.45", linestyle=":")
        ax.text(0.05 * rho, 55, r"$\|W\|\approx$ curvature at V", ha="right", fontsize=9, color="0.35")
    else:
        ax.text(0.97, 0.08, f"{flat} flat directions at V", transform=ax.transAxes, ha="right", fontsize=9, color="0.35")
    ax.set_xlabel(r"noise $\sigma\sqrt{n}\,/\,\|C\|$")


if __name__ == "__main__":
    main()
