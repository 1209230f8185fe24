"""The gap against the size of the noise: what perturbing the cost buys, and what it costs.

python examples/smoothing.py               a table, a picture and a CSV file; about ten seconds on one core
python examples/smoothing.py --small       smaller instances, seconds
python examples/smoothing.py --out folder  where to write picture and CSV; a temporary folder when absent

For C + W with Gaussian W of size sigma, every second-order point is optimal with high probability once Y has enough columns
(`bmsdp.theory.required_rank`).  A point that is optimal for C + W is nearly so for C:

    <C, X> - f*  <=  (gap for C + W)  +  2 |W| R  <=  (gap for C + W)  +  6 sigma sqrt(n) R,      R = tr X = n,

the last step with probability 1 - 2 exp(-n/4).  The script solves for C + W over many decades of sigma and certifies the points it
gets for C as they are (`Perturbation(sigma, continuation=False)`), and once more after continuing from there without noise.

Two instances.  `ocarroll` from its axial point, where no noise means no progress: the theorem promises nothing for so few columns, and
noise works all the same.  Its optimum is a corner of the feasible set, which small noise does not move: the gap is zero until it does.
A Gaussian cost from random points, with as many columns as the theorem wants and with the generic number: there the gap for C grows
like sigma^2, the certified one like sigma, as the bound does, and no noise was needed in the first place.
"""

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.axes
import matplotlib.figure
import numpy as np

import bmsdp
from bmsdp import gallery, theory

TOL = 1e-8  # certified relative gap: of the perturbed problem, and of the continued one
INK, TRUE, PROOF, BOUND, PLAIN = "#3b3b3b", "#0b5394", "#1b7f4d", "#c77c11", "#a61c1c"
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="smaller instances, fewer decades")
    parser.add_argument("--out", type=Path, help="folder for picture and CSV; a temporary one when absent")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    k, n, step = (10, 200, 3) if options.small else (25, 300, 1)

    rows = axial(k, 10.0 ** np.arange(-12, 1, step), options.seed)
    rows += gaussian(n, 10.0 ** np.arange(-7, 1, step), options.seed)
    table(rows)

    folder = options.out if options.out is not None else Path(tempfile.mkdtemp(prefix="bmsdp-"))
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "smoothing.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    picture(rows, n, folder / "smoothing.png")
    print("\ntable  ", folder / "smoothing.csv")
    print("picture", folder / "smoothing.png")


def axial(k: int, sigmas: np.ndarray, seed: int) -> list[Row]:
    """O'Carroll's instance from its axial point, trust regions; without noise (sigma = 0) first."""
    C, V, optimum = gallery.ocarroll(k)
    solver = bmsdp.solvers.TrustRegion()
    return [row(f"ocarroll({k})", C, optimum, k, float(sigma), seed, solver, V) for sigma in [0.0, *sigmas]]


def gaussian(n: int, sigmas: np.ndarray, seed: int) -> list[Row]:
    """A Gaussian cost, with the columns that the theorem wants at each sigma and with the generic number."""
    C = gallery.goe(n, rng=seed)
    optimum = bmsdp.solve(C, tol=1e-11, rng=seed).bound
    generic = theory.generic_rank(n)
    rows = [row(f"goe({n})", C, optimum, generic, 0.0, seed)]
    for sigma in map(float, sigmas):
        few = row(f"goe({n})", C, optimum, generic, sigma, seed)
        rows += [few, row(f"goe({n})", C, optimum, few["required_rank"], sigma, seed)]
    return rows


def row(name: str, C: np.ndarray, optimum: float, k: int, sigma: float, seed: int, solver: Any = None, start: Any = None) -> Row:
    """Solve with noise, look at the point in the original problem, continue without noise: a row of the CSV file, gaps absolute."""
    n, options = len(C), {"rank": k, "solver": solver, "warm_start": start, "tol": TOL, "rng": seed}
    rho = sigma * np.sqrt(n) / float(np.linalg.norm(C, 2))
    out: Row = {"instance": name, "n": n, "k": k, "sigma": sigma, "rho": rho, "optimum": optimum}
    if sigma == 0:
        plain = bmsdp.solve(C, **options)
        return out | {
            "gap": plain.cost - optimum, "certified_gap": plain.certificate.gap_abs, "perturbed_gap": plain.certificate.gap_abs,
            "norm_bound": 0.0, "sigma_bound": 0.0, "required_rank": n, "holds": False, "continued_gap": plain.certificate.gap_abs,
            "continued_status": plain.status.name,
        }  # fmt: skip
    noisy = bmsdp.solve(C, perturbation=bmsdp.Perturbation(sigma, continuation=False), **options)
    continued = bmsdp.solve(C, perturbation=sigma, **options)
    facts = noisy.perturbation
    return out | {
        "gap": noisy.cost - optimum,
        "certified_gap": noisy.cost - noisy.bound,
        "perturbed_gap": facts["perturbed"]["cost"] - facts["perturbed"]["bound"],
        "norm_bound": 2 * facts["norm_W"] * n,
        "sigma_bound": 6 * sigma * np.sqrt(n) * n,
        "required_rank": facts["guarantee"]["required_rank"],
        "holds": facts["guarantee"]["holds"],
        "continued_gap": continued.cost - continued.bound,
        "continued_status": continued.status.name,
    }


def table(rows: list[Row]) -> None:
    print("gaps relative to |f*|; 'for C + W' and 'continued' are certified\n")
    print(f"{'instance':<13} {'k':>4} {'sigma':>8} {'for C + W':>10} {'true, for C':>12} {'certified':>10} {'2 |W| R':>9} ", end="")
    print(f"{'6 s sqrt(n) R':>14} {'needs k >=':>11} {'continued':>10}")
    for found in rows:
        scale = abs(found["optimum"])
        gaps = [found[name] / scale for name in ("perturbed_gap", "gap", "certified_gap", "norm_bound", "sigma_bound")]
        print(
            f"{found['instance']:<13} {found['k']:>4} {found['sigma']:>8.0e} {gaps[0]:>10.0e} {gaps[1]:>12.1e} {gaps[2]:>10.1e} "
            f"{gaps[3]:>9.1e} {gaps[4]:>14.1e} {found['required_rank']:>11} {found['continued_gap'] / scale:>10.1e}"
        )
    smooth = [found for found in rows if found["instance"].startswith("goe") and 1e-5 <= found["sigma"] <= 1e-1]
    for name, words in (("gap", "the true gap for C"), ("certified_gap", "the certified one")):
        slope = np.polyfit(np.log([found["sigma"] for found in smooth]), np.log([found[name] for found in smooth]), 1)[0]
        print(f"{smooth[0]['instance']}: {words} grows like sigma^{slope:.2f} between 1e-5 and 1e-1")


def picture(rows: list[Row], n: int, path: Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(15, 4.8), dpi=90, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[5, 5, 4])
    axial_rows = [found for found in rows if not found["instance"].startswith("goe")]
    goe_rows = [found for found in rows if found["instance"].startswith("goe")]
    gaps(left, axial_rows, 1e-15)
    left.set_title(f"{axial_rows[0]['instance']} from its axial point, k = {axial_rows[0]['k']}", loc="left", fontsize=11)
    gaps(middle, goe_rows, 1e-12)
    middle.set_title(f"{goe_rows[0]['instance']}, random start", loc="left", fontsize=11)
    left.set_ylabel(r"gap in the original problem, relative to $|f^*|$")
    handles = {label: handle for ax in (left, middle) for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    needed(right, n, [found for found in goe_rows if found["holds"]])
    for ax in (left, middle):
        ax.set_xlabel(r"$\sigma$, in the units of C")
    for ax in (left, middle, right):
        ax.grid(True, color="0.92")
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def gaps(ax: matplotlib.axes.Axes, rows: list[Row], floor: float) -> None:
    """Gaps and bounds against sigma; small full marks where Y has the columns that the theorem wants, larger hollow ones elsewhere."""
    plain, noisy = rows[0], [found for found in rows if found["sigma"]]
    scale = abs(plain["optimum"])
    few = [found for found in noisy if found["k"] == plain["k"]]
    sigma = [found["sigma"] for found in few]
    for name, label, style in (
        ("sigma_bound", r"theorem: $6\sigma\sqrt{n}\,R$", "-"),
        ("norm_bound", r"$2\|W\|R$ with the W drawn", "--"),
    ):
        ax.loglog(sigma, [found[name] / scale for found in few], color=BOUND, linestyle=style, linewidth=1.5, label=label)
    marks = {
        "certified_gap": (PROOF, "^", "certified gap of the point with noise"),
        "gap": (TRUE, "o", "its true gap (full: k of the theorem)"),
        "continued_gap": (INK, "x", "certified gap, continued without noise"),
    }
    for name, (colour, marker, label) in marks.items():
        for holds in (False, True) if marker != "x" else (False,):
            mine = [found for found in noisy if found["holds"] == holds]
            ax.loglog(
                [found["sigma"] for found in mine], [max(found[name] / scale, floor) for found in mine], color=colour, marker=marker,
                markersize=4 if holds else 8 if marker != "x" else 5, markerfacecolor=colour if holds else "none", linestyle="none",
                label=None if holds else label,
            )  # fmt: skip
    level, stuck = max(plain["gap"] / scale, floor), plain["gap"] > 1e-3 * scale
    where = "stays at the spurious point" if stuck else f"optimal, certified gap {plain['certified_gap'] / scale:.0e}"
    ax.axhline(level, color=PLAIN, linestyle=":", linewidth=2, label="true gap without noise")
    place = {"x": sigma[0], "y": 2 * level, "ha": "left"} if stuck else {"x": sigma[-1], "y": 1.5 * level, "ha": "right"}
    ax.text(s=f"no noise: {where}", color=PLAIN, fontsize=9, **place)
    ax.set_ylim(0.3 * floor, None)


def needed(ax: matplotlib.axes.Axes, n: int, solved: list[Row]) -> None:
    """The columns that the theorem wants, against relative noise, beside other ranks."""
    rho = np.logspace(-12, 1, 80)
    for field, style in (("real", "-"), ("complex", "--")):
        ranks = [theory.required_rank(n, n, sigma=r / np.sqrt(n), norm_C=1.0, complex=field == "complex") for r in rho]
        ax.semilogx(rho, ranks, color=BOUND, linestyle=style, label=f"theorem, {field}")
    ax.semilogx([found["rho"] for found in solved], [found["k"] for found in solved], "o", color=TRUE, markersize=5, label="solved, middle")
    others = {n: "n", n // 2 + 1: "n/2 + 1: every real C, no noise", theory.generic_rank(n): "generic rank: almost every C, no rate"}
    for value, label in others.items():
        ax.axhline(value, color="0.6", linewidth=1)
        ax.text(rho[0], value + 0.012 * n, label, fontsize=9, color="0.35")
    ax.set(ylim=(0, 1.08 * n), ylabel="columns k", xlabel=r"$\sigma\sqrt{n}\,/\,\|C\|$")
    ax.set_title(f"columns that the theorem wants, n = {n}", loc="left", fontsize=11)
    ax.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.95), fontsize=9)


if __name__ == "__main__":
    main()
