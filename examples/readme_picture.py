"""The picture of the README: certified gap against CPU time, bmsdp beside pymanopt and SciPy.

    python examples/readme_picture.py [--side 100] [--limit 60] [--out docs/images/convergence.png]

A side x side toroidal grid with random signs; one core; every method starts from a random point with the same number of columns.
A gap is that of the bound which `bmsdp.certify` proves at the point reached so far; all clocks stand still meanwhile, but
bmsdp's own certificates count as its time.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "benchmarks")]

import matplotlib.figure  # noqa: E402
import numpy as np  # noqa: E402
import rivals  # noqa: E402

import bmsdp  # noqa: E402
from bmsdp import gallery  # noqa: E402
from bmsdp.applications import maxcut  # noqa: E402
from bmsdp.staircase import start_rank  # noqa: E402

TOL = 1e-6
LOOKS = 1.25  # between two looks the clock advances by this factor


def ours(problem: bmsdp.Problem, own: bmsdp.Problem) -> tuple[list[tuple[float, float]], bmsdp.Result]:
    """The run on ``own``; the watch looks at it through ``problem``, lest it prepare anything for the run free of charge."""
    watch = rivals.Watch(problem, 1e-12, limit=float("inf"), looks=LOOKS, trace=True)
    result = bmsdp.solve(own, rng=1, tol=TOL, progress=False, callback=lambda model, info: watch.look(lambda: model.Y))
    return [*watch.trace, (watch.clock, result.gap)], result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=100)
    parser.add_argument("--limit", type=float, default=60.0, help="CPU seconds for each rival")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "convergence.png")
    options = parser.parse_args()

    W = gallery.toroidal_grid(options.side, options.side, rng=0)
    bmsdp.solve(maxcut.problem(W), rng=0, tol=1e-2)  # compiles
    problem = maxcut.problem(W)
    trace, result = ours(problem, maxcut.problem(W))
    curves = {"bmsdp": trace}
    for name, method in (("SciPy L-BFGS-B", rivals.scipy_lbfgs), ("pymanopt TrustRegions", rivals.pymanopt_trust_regions)):
        watch = rivals.Watch(problem, TOL, options.limit, looks=LOOKS, trace=True)
        run = method(problem, start_rank(problem), watch, 1)
        curves[name] = [*watch.trace, (run.seconds, run.gap)]
    for name, points in curves.items():
        print(f"{name:<22} {points[-1][0]:8.2f} s   certified gap {points[-1][1]:.1e}")
    draw(curves, result, options.out)
    print(f"{time.process_time():.0f} s in all; wrote {options.out}")


def draw(curves: dict[str, list[tuple[float, float]]], result: bmsdp.Result, path: Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(7.6, 4.2), dpi=130, layout="constrained")
    ax = figure.add_subplot()
    looks = {
        "bmsdp": ("#1b7f4d", "o", 2.4),
        "SciPy L-BFGS-B": ("#c77c11", "s", 1.5),
        "pymanopt TrustRegions": ("#0b5394", "^", 1.5),
    }
    for name, points in curves.items():
        colour, marker, width = looks[name]
        seconds, gaps = np.array([point for point in points if point[0] > 0]).T
        best = np.minimum.accumulate(np.minimum(gaps, 1.0))  # a bound holds for good
        label = f"{name}: {seconds[-1]:.2g} s" if best[-1] <= TOL else f"{name}: {best[-1]:.0e} after {seconds[-1]:.2g} s"
        ax.loglog(seconds, best, color=colour, marker=marker, markersize=4, linewidth=width, label=label)
    ax.axhline(TOL, color="0.5", linewidth=1, linestyle="--")
    ax.legend(title=f"time to a certified gap of {TOL:.0e}", frameon=False, loc="upper right", alignment="left")
    ax.set_xlim(right=ax.get_xlim()[1] * 4)
    ax.set(xlabel="CPU seconds, one core", ylabel="best certified gap so far")
    ax.set_title(f"Toroidal grid with random signs, n = {len(result.Y):,}", loc="left", fontsize=11)
    ax.grid(True, color="0.92")
    ax.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
