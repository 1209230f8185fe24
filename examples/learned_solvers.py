"""Learned relaxations beside classical ones: gaps after L sweeps, and work and time to a certified gap of 1e-6.

    python examples/learned_solvers.py [--quick] [--train L ...] [--network FILE ...] [--out DIR]

Trained on sparse random graphs, n = 500, k = 33 columns; tried on fresh ones, on other sizes and ranks, and on families that the training
never saw.  All methods start at the same random points, and a sweep of each costs about one product of C with Y:

    mixing              omega = 1 (Wang, Chang, Kolter 2017)
    Mixing++            momentum 0.45 on the mixing step, which is omega = 1.45 (Kim et al. 2021, arXiv:2106.08775)
    constant            the best constant omega for L sweeps on the training family
    constant, oracle    the best constant omega for L sweeps on the very instances it is judged on
    adaptive            bmsdp.solvers.Mixing(), which raises omega from 1 as the rate tells
    adaptive from 1.8   the same rule, told to begin at 1.8: no learning, one number
    L-BFGS              bmsdp.solvers.LBFGS(), on the manifold
    schedule            omega_1 ... omega_L fitted to the training family (bmsdp.learned.fit); then the adaptive rule
    network             a relaxation for every row and sweep by a small perceptron, trained by PETRA; then the adaptive rule

f* is certified to 1e-9.  Where torch is installed a network of 16 sweeps is trained here (--train: of other lengths), which takes minutes;
--network reads networks instead.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before NumPy is imported
    os.environ.setdefault(variable, "1")

import matplotlib.figure  # noqa: E402
import numpy as np  # noqa: E402

import bmsdp  # noqa: E402
from bmsdp import Oblique, Problem, gallery  # noqa: E402
from bmsdp.learned import LearnedMixing, MixingWeights, fit  # noqa: E402
from bmsdp.learned.distil import Sample, best_constant, mean_log, optimum  # noqa: E402
from bmsdp.solvers import LBFGS, Mixing  # noqa: E402

TOL, FAR = 1e-6, 3000  # certified gap; products after which a method has failed
PLUS = 1.45  # omega of Mixing++
SEEN = "G(n, p)"
Row = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """Problems of one kind: ``make(n, rng)`` has n rows, about; all runs have k columns, None for one more than sqrt(2 n)."""

    make: Callable[[int, Any], Any]
    n: int
    k: int | None = None

    def sample(self, seed: int, shrink: int = 1) -> Sample:
        C = self.make(self.n // shrink, seed)
        problem = Problem(C, Oblique(np.ones(C.shape[0])))
        k = self.k or math.ceil(math.sqrt(2 * problem.n)) + 1
        return Sample(problem, problem.random_point(k, np.random.default_rng(seed)), optimum(problem))


def gnp(n: int, rng: Any) -> Any:
    rng = np.random.default_rng(rng)
    return gallery.gnp(n, rng.uniform(4, 10) / n, rng)


FAMILIES = {
    SEEN: Family(gnp, 500),
    "G(n, p), large": Family(gnp, 2000),
    "G(n, p), k = 12": Family(gnp, 500, 12),
    "G(n, p), signs": Family(lambda n, rng: gallery.wide_weights(n, 8 / n, 0, rng), 800),
    "3-regular": Family(lambda n, rng: gallery.random_regular(n + n % 2, 3, rng), 1000),
    "torus, signs": Family(lambda n, rng: gallery.toroidal_grid(math.isqrt(n), math.isqrt(n), rng), 900),
    "hubs": Family(lambda n, rng: gallery.hubs(n, rng), 1000),
    "planted": Family(lambda n, rng: gallery.planted_partition(n, 4, 20 / n, 2 / n, rng), 1000),
    "dense Gaussian": Family(gallery.goe, 400),
}


@dataclass(frozen=True)
class Trained:
    """What the training family taught: for every L the best constant omega, the schedule, and a network where there is one."""

    constant: dict[int, float]
    schedule: dict[int, MixingWeights]
    network: dict[int, MixingWeights]


def train(lengths: tuple[int, ...], quick: bool, wanted: list[int], files: list[Path]) -> Trained:
    networks = {weights.L: weights for weights in map(MixingWeights.load, files)}
    learn = importlib.util.find_spec("torch") is not None
    if wanted and not learn:
        print('no torch, no networks: pip install "bmsdp[learn]", or pass --network FILE\n')
    graphs = [FAMILIES[SEEN].make(60 if quick else 500, seed) for seed in range(1000, 1008 if quick else 1032)]
    problems = [Problem(C, Oblique(np.ones(C.shape[0]))) for C in graphs]
    constant, schedule = {}, {}
    for L in lengths:
        begin = time.process_time()
        found = fit(problems, L=L, network=False, steps=0, rng=0)
        constant[L], schedule[L] = found.meta["constant"], found
        print(f"schedule, L = {L}: {time.process_time() - begin:.1f} s CPU; omega " + " ".join(f"{w:.2f}" for w in found.omega), flush=True)
        if learn and L in wanted and L not in networks:
            begin = time.process_time()
            networks[L] = fit(problems, L=L, steps=3 if quick else 200, rng=0)
            print(f"network,  L = {L}: {time.process_time() - begin:.1f} s CPU", flush=True)
    return Trained(constant, schedule, networks)


def after(solver: Any, sample: Sample, products: int) -> float:
    """Relative gap of the last iterate that took at most so many products beyond the first."""
    cost = math.inf
    for model, info in solver.iterates(sample.problem, sample.start):
        if info["products"] > products + 1:
            return sample.gap(cost)
        cost = info.get("merit", model.merit)
        if info["products"] == products + 1:
            return sample.gap(cost)
    raise AssertionError("a solver yields for ever")


def methods(L: int, trained: Trained) -> dict[str, Callable[[Sample], float]]:
    """Name -> relative gap after L sweeps."""
    found: dict[str, Callable[[Sample], float]] = {
        "mixing": lambda s: s.run([1.0] * L),
        "Mixing++": lambda s: s.run([PLUS] * L),
        "constant": lambda s: s.run([trained.constant[L]] * L),
        "adaptive": lambda s: s.adaptive(L),
        "adaptive from 1.8": lambda s: after(Mixing(sweeps=L, schedule=(1.8,)), s, L),
        "L-BFGS": lambda s: after(LBFGS(), s, L),
        "schedule": lambda s: s.run(trained.schedule[L].omega),
    }
    if L in trained.network:
        found["network"] = lambda s: after(LearnedMixing(trained.network[L], Mixing(sweeps=L)), s, L)
    return found


def gaps(lengths: tuple[int, ...], trained: Trained, samples: dict[str, list[Sample]]) -> list[Row]:
    """Geometric means over the instances of a family."""
    rows = []
    for name, family in samples.items():
        for L in lengths:
            oracle = best_constant(family, L)
            found = {method: math.exp(mean_log([gap(s) for s in family])) for method, gap in methods(L, trained).items()}
            found["constant, oracle"] = math.exp(mean_log([s.run([oracle] * L) for s in family]))
            first = {"family": name, "n": family[0].problem.n, "k": family[0].Y.shape[1], "L": L}
            rows += [first | {"method": method, "gap": gap, "omega": oracle if "oracle" in method else ""} for method, gap in found.items()]
    return rows


def solvers(trained: Trained) -> dict[str, Any]:
    """What runs to a certified gap; of the learned ones those of 16 sweeps, where there are any."""
    L = min(16, max(trained.schedule))
    longest = max(trained.constant)
    found = {
        "mixing": Mixing(omega=1.0), "Mixing++": Mixing(omega=PLUS), "constant": Mixing(omega=trained.constant[longest]),
        "adaptive": Mixing(), "adaptive from 1.8": Mixing(schedule=(1.8,)), "L-BFGS": LBFGS(),
        "schedule": LearnedMixing(trained.schedule[L]),
    }  # fmt: skip
    return found | ({"network": LearnedMixing(trained.network[L])} if L in trained.network else {})


def stepping(solver: Any, sweeps: int) -> Any:
    """The same solver with so many sweeps between two iterates."""
    if isinstance(solver, LearnedMixing):
        return replace(solver, after=replace(solver.after, sweeps=sweeps))
    return replace(solver, sweeps=sweeps) if isinstance(solver, Mixing) else solver


def until_certified(solver: Any, sample: Sample) -> tuple[int, float]:
    """Products until the gap is certified, looked for wherever the true gap has fallen by a fifth; CPU seconds of that certificate."""
    wanted = TOL
    for model, info in stepping(solver, 1).iterates(sample.problem, sample.start):
        if info["products"] > FAR:
            break
        merit = info.get("merit", model.merit)
        if (merit - sample.optimum) / abs(sample.optimum) <= wanted:
            begin = time.process_time()
            proof = bmsdp.certify(model, TOL, rng=0)
            if proof.gap <= TOL:
                return info["products"], time.process_time() - begin
            wanted *= 0.8
    return 0, math.nan


def seconds(solver: Any, sample: Sample, products: int) -> float:
    """CPU seconds of the descent alone, set-up included; the best of three."""
    best = math.inf
    for _ in range(3):
        begin = time.process_time()
        for _, info in stepping(solver, products - 1).iterates(sample.problem, sample.start):
            if info["products"] >= products:
                break
        best = min(best, time.process_time() - begin)
    return best


def times(trained: Trained, samples: dict[str, list[Sample]]) -> list[Row]:
    """Medians over the instances of a family; a method that failed on one of them has products 0."""
    rows = []
    for name, family in samples.items():
        for method, solver in solvers(trained).items():
            runs = [until_certified(solver, s) for s in family]
            done = all(products for products, _ in runs)
            spent = [seconds(solver, s, products) for s, (products, _) in zip(family, runs, strict=True)] if done else [math.nan]
            proof = float(np.median([proof for _, proof in runs])) if done else math.nan
            rows.append({
                "family": name, "n": family[0].problem.n, "k": family[0].Y.shape[1], "method": method,
                "products": int(np.median([products for products, _ in runs])) if done else 0,
                "seconds": float(np.median(spent)), "certificate": proof,
            })  # fmt: skip
        usual = float(np.nanmedian([row["certificate"] for row in rows if row["family"] == name]))  # it does not depend on who descended
        for row in [row for row in rows if row["family"] == name]:
            row["total"] = row["seconds"] + usual
    return rows


ORDER = (
    "mixing", "Mixing++", "constant", "constant, oracle", "adaptive", "adaptive from 1.8", "L-BFGS", "schedule", "network",
)  # fmt: skip


def pick(rows: list[Row], value: str, **where: Any) -> dict[str, float]:
    """Method -> value, of the rows that match."""
    mine = {row["method"]: row[value] for row in rows if all(row[key] == wanted for key, wanted in where.items())}
    return {method: mine[method] for method in ORDER if method in mine}


def table(rows: list[Row], lengths: tuple[int, ...]) -> None:
    print("\nrelative gap after L sweeps, geometric means\n")
    for L in lengths:
        known = {name: pick(rows, "gap", family=name, L=L) for name in dict.fromkeys(row["family"] for row in rows)}
        columns = [method for method in ORDER if method in next(iter(known.values()))]
        print(f"L = {L:<16}" + "".join(f"{name:>19}" for name in columns))
        for name, found in known.items():
            print(f"{name:<20}" + "".join(f"{found[method]:>19.2e}" for method in columns))
        print()


def table_of_times(rows: list[Row]) -> None:
    print(f"products (ms of descent) to a certified gap of {TOL:g}, medians; the certificate itself in the last column\n")
    columns = [method for method in ORDER if any(row["method"] == method for row in rows)]
    print(f"{'':<18}" + "".join(f"{name:>19}" for name in columns) + f"{'certificate':>14}")
    for name in dict.fromkeys(row["family"] for row in rows):
        products, spent = pick(rows, "products", family=name), pick(rows, "seconds", family=name)
        cells = [f"{products[m]} ({1e3 * spent[m]:.1f})" if products[m] else f"> {FAR}" for m in columns]
        proof = np.nanmedian(list(pick(rows, "certificate", family=name).values()))
        print(f"{name:<18}" + "".join(f"{cell:>19}" for cell in cells) + f"{1e3 * proof:>11.1f} ms")


def ratio(rows: list[Row], value: str, method: str, reference: str, families: list[str], **where: Any) -> float:
    """Geometric mean over families of what a method needs or leaves, over that of the reference."""
    pairs = [pick(rows, value, family=name, **where) for name in families]
    return math.exp(np.mean([math.log(found[method] / found[reference]) for found in pairs]))


def verdict(rows: list[Row], spent: list[Row], lengths: tuple[int, ...]) -> None:
    """Who wins, from the numbers."""
    names = list(dict.fromkeys(row["family"] for row in rows))
    unseen = [name for name in names if not name.startswith(SEEN) or name.endswith("signs")]
    learned = [method for method in ("schedule", "network") if any(row["method"] == method for row in rows)]
    print("\nGaps at equal sweeps: the gap of the other over that of the learned one; above 1 learning won")
    for method, L in itertools.product(learned, lengths):
        if L not in {row["L"] for row in rows if row["method"] == method}:
            continue
        cells = []
        for other in ("constant", "constant, oracle", "adaptive", "adaptive from 1.8"):
            seen, rest = (1 / ratio(rows, "gap", method, other, where, L=L) for where in ([SEEN], unseen))
            cells.append(f"{other} {seen:.2f} trained on, {rest:.2f} unseen")
        print(f"    {method:<9} L = {L:<3} " + ";  ".join(cells))
    print(f"\nProducts and descent time to a certified {TOL:g}, over those of adaptive; geometric means over families; below 1: faster")
    for method in [m for m in ORDER if any(row["method"] == m for row in spent)]:
        if all(row["products"] for row in spent if row["method"] == method):
            three = [ratio(spent, value, method, "adaptive", names) for value in ("products", "seconds", "total")]
            print(f"    {method:<19} {three[0]:.2f} products, {three[1]:.2f} time, {three[2]:.2f} with one certificate")
        else:
            print(f"    {method:<19} not within {FAR} products everywhere")
    for name in names:
        found = {m: t for m, t in pick(spent, "seconds", family=name).items() if math.isfinite(t)}
        order = sorted(found, key=lambda m: found[m])
        print(f"{name}: fastest to the certificate is {order[0]}, then {order[1]} (+{100 * (found[order[1]] / found[order[0]] - 1):.0f} %)")


COLOURS = dict(zip(ORDER, "#9a9a9a #6f6f6f #4a90d9 #4a90d9 #111111 #111111 #1b7f4d #c77c11 #a61c1c".split(), strict=True))
DASHES = {"Mixing++": "--", "constant, oracle": ":", "adaptive from 1.8": "--"}


def picture(rows: list[Row], spent: list[Row], lengths: tuple[int, ...], path: Path) -> None:
    names = list(dict.fromkeys(row["family"] for row in rows))
    figure = matplotlib.figure.Figure(figsize=(15, 12.5), dpi=80, layout="constrained")
    grid = figure.add_gridspec(-(-len(names) // 5) + 1, 5, height_ratios=[*[4] * -(-len(names) // 5), 4])
    for place, name in enumerate(names):
        ax = figure.add_subplot(grid[place // 5, place % 5])
        for method in [m for m in ORDER if any(row["method"] == m for row in rows)]:
            points = {row["L"]: row["gap"] for row in rows if row["family"] == name and row["method"] == method}
            width = 2.4 if method in ("schedule", "network") else 1.4
            ax.plot(list(points), list(points.values()), color=COLOURS[method], linestyle=DASHES.get(method, "-"), linewidth=width,
                    marker="o" if len(points) == 1 else ".", label=method)  # fmt: skip
        first = next(row for row in rows if row["family"] == name)
        ax.set(xscale="log", yscale="log", xticks=lengths, xlim=(lengths[0] * 0.9, lengths[-1] * 1.1))
        ax.set_xticks(lengths, [str(L) for L in lengths])
        ax.minorticks_off()
        ax.set_title(f"{name}: n = {first['n']}, k = {first['k']}" + ("  (trained on)" if name == SEEN else ""), loc="left", fontsize=10)
        ax.set_xlabel("sweeps")
        if place % 5 == 0:
            ax.set_ylabel(r"$(f - f^*)\,/\,|f^*|$")
        ax.grid(True, color="0.92")
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=9, frameon=False, fontsize=10)
    bars(figure.add_subplot(grid[-1, :]), spent, names)
    figure.savefig(path)


def bars(ax: Any, spent: list[Row], names: list[str]) -> None:
    """Descent time to the certificate over that of the adaptive rule."""
    shown = [m for m in ORDER if m != "mixing" and any(row["method"] == m for row in spent)]
    for i, name in enumerate(names):
        found = pick(spent, "seconds", family=name)
        for j, method in enumerate(shown):
            height = found[method] / found["adaptive"]
            if math.isfinite(height):
                hatch = {"hatch": "///", "edgecolor": "white"} if method in DASHES else {}
                ax.bar(i + 0.8 * ((j + 0.5) / len(shown) - 0.5), min(height, 3), 0.75 / len(shown), color=COLOURS[method], **hatch)
    ax.axhline(1, color="#111111", linewidth=0.8)
    ax.set_xticks(range(len(names)), names)
    ax.set(ylim=(0, 3), xlim=(-0.5, len(names) - 0.5), ylabel="time / adaptive (cut off at 3)")
    ax.set_title(f"CPU time of the descent to a certified gap of {TOL:g}, over that of the adaptive rule", loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small instances, two of them a family, and short schedules")
    parser.add_argument("--train", type=int, nargs="*", metavar="L", help="sweeps of networks to train here; default 16, or 8 when quick")
    parser.add_argument("--network", type=Path, nargs="*", default=[], metavar="FILE", help="networks that are trained already")
    parser.add_argument("--out", type=Path, help="folder for picture and tables; a temporary one when absent")
    options = parser.parse_args()
    lengths, seeds = ((4, 8), range(2)) if options.quick else ((4, 8, 16, 32), range(6))
    begin = time.perf_counter()
    wanted = options.train if options.train is not None else [8 if options.quick else 16]
    trained = train(lengths, options.quick, wanted, options.network)
    samples = {name: [family.sample(seed, 8 if options.quick else 1) for seed in seeds] for name, family in FAMILIES.items()}
    rows = gaps(lengths, trained, samples)
    table(rows, lengths)
    spent = times(trained, samples)
    table_of_times(spent)
    verdict(rows, spent, lengths)
    folder = options.out if options.out is not None else Path(tempfile.mkdtemp(prefix="bmsdp-"))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("learned-gaps.csv", rows), ("learned-times.csv", spent)):
        with open(folder / name, "w", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    picture(rows, spent, lengths, folder / "learned-solvers.png")
    print(f"\ntables  {folder / 'learned-gaps.csv'} {folder / 'learned-times.csv'}\npicture {folder / 'learned-solvers.png'}")
    print(f"{time.perf_counter() - begin:.0f} s in all")


if __name__ == "__main__":
    main()
