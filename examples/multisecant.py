"""Quasi-Newton methods with many secants at once, against those with one: quadratics and logistic regression.

python examples/multisecant.py               a table, a picture and two CSV files; a minute on one core
python examples/multisecant.py --quick       fewer evaluations and regularisations, less synthetic data
python examples/multisecant.py --out folder  where to write them; a temporary folder when absent

Data M (N x d, scaled columns) and labels t = -1 or 1, from what scikit-learn ships (breast cancer; digits, odd or even) and synthetic with
singular values over two decades, make two functions each:

    quadratic   |M x - t|^2 / 2 N + mu |x|^2 / 2
    logistic    sum_i log(1 + exp(-t_i <m_i, x>)) / N + mu |x|^2 / 2

All methods start from x = 0 and hold ten secants (s, y) of steps and differences of gradients; what counts is evaluations of the function
with its gradient, wherever a method spends them.  With (A, D) = (S, Y), type I, they model the Hessian, with (Y, S), type II, its inverse:

    Anderson          H A = D of least change, no symmetry: `bmsdp.qn.root` on the gradient, safeguarded by its norm; and as unit steps
    Frobenius         the symmetric H of least squares (Scieur, Liu, Pumir and Boumal, 2021): as unit steps, as `bmsdp.qn.root`, and with
                      eigenvalues clipped and Armijo's condition
    weighted          block BFGS of the pairs that this H makes consistent: positive definite
    grouped           the same of those pairs that agree, one group after the other: the default of `bmsdp.multisecant`

against gradient descent with steps 1 / L and L-BFGS, SciPy's and ours.  Each multisecant method runs with four regularisations.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.axes
import matplotlib.figure
import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

import bmsdp
from bmsdp import qn

MEMORY, BUDGET, QUICK = 10, 1000, 400  # secants; evaluations
ROUNDING = 1e-14  # of f, relative to f(x0) - f*
LEVELS, USUAL = (0.0, 1e-10, 1e-6, 1e-3), 1e-10  # regularisation, relative to the secants
Function = Callable[[np.ndarray], tuple[float, np.ndarray]]
Row = dict[str, Any]


@dataclass(frozen=True)
class Objective:
    """A function with its gradient, its start, smallest value, largest curvature and condition number there."""

    name: str
    fun: Function
    optimum: float
    L: float
    condition: float
    size: int

    @property
    def x0(self) -> np.ndarray:
        return np.zeros(self.size)

    @property
    def scale(self) -> float:
        return self.fun(self.x0)[0] - self.optimum


def quadratic(name: str, M: np.ndarray, t: np.ndarray, mu: float) -> Objective:
    N, d = M.shape

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        r = M @ x - t
        return float(r @ r / (2 * N) + mu * (x @ x) / 2), M.T @ r / N + mu * x

    H = M.T @ M / N + mu * np.eye(d)
    eig = np.linalg.eigvalsh(H)
    return Objective(name, fun, fun(np.linalg.solve(H, M.T @ t / N))[0], eig[-1], eig[-1] / eig[0], d)


def logistic(name: str, M: np.ndarray, t: np.ndarray, mu: float) -> Objective:
    N, d = M.shape
    Mt = M * t[:, None]

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = Mt @ x
        return float(np.logaddexp(0, -z).mean() + mu * (x @ x) / 2), mu * x - Mt.T @ expit(-z) / N

    x = np.zeros(d)
    for _ in range(50):  # Newton's method with backtracking, to the last digit
        f, g = fun(x)
        p = expit(Mt @ x)
        H = (Mt.T * (p * (1 - p))) @ Mt / N + mu * np.eye(d)
        step = np.linalg.solve(H, g)
        while fun(x - step)[0] > f + 1e-15 and np.linalg.norm(step) > 1e-14:
            step /= 2
        x = x - step
    eig = np.linalg.eigvalsh(H)
    return Objective(name, fun, fun(x)[0], np.linalg.norm(M, 2) ** 2 / (4 * N) + mu, eig[-1] / eig[0], d)


def data_sets(quick: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """M, scaled to columns of mean 0 and variance 1, with a column of ones; and t."""
    try:
        from sklearn.datasets import load_breast_cancer, load_digits
    except ImportError:
        raise ImportError('the data come with scikit-learn, which is not installed: pip install "bmsdp[sklearn]"') from None
    cancer, digits = load_breast_cancer(), load_digits()
    rng = np.random.default_rng(0)
    N, d = (200, 60) if quick else (500, 200)
    M = np.linalg.qr(rng.standard_normal((N, d)))[0] * np.logspace(0, -2, d) * np.sqrt(N) @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    t = np.sign(M @ rng.standard_normal(d) + 0.1 * rng.standard_normal(N))
    return {
        "breast cancer": (scaled(cancer.data), 2.0 * cancer.target - 1),
        "digits": (scaled(digits.data), 2.0 * (digits.target % 2) - 1),
        "synthetic": (M, t),
    }


def scaled(X: np.ndarray) -> np.ndarray:
    X = X[:, X.std(axis=0) > 0]
    return np.hstack([(X - X.mean(axis=0)) / X.std(axis=0), np.ones((len(X), 1))])


def problems(quick: bool = False) -> list[Objective]:
    sets = data_sets(quick)
    out = [quadratic(f"quadratic, {name}", M, t, 1e-6) for name, (M, t) in sets.items()]
    return out + [logistic(f"logistic, {name}", M, t, 1e-5) for name, (M, t) in sets.items()]


class Spent(Exception):
    """The budget of evaluations is used up."""


class Counted:
    """A function that notes its values, and raises `Spent` when there have been enough, or one is the smallest in floating point."""

    def __init__(self, problem: Objective, budget: int):
        self.fun, self.budget = problem.fun, budget
        self.enough = problem.optimum + ROUNDING * problem.scale
        self.values: list[float] = []

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        if len(self.values) >= self.budget or self.values and self.values[-1] <= self.enough:
            raise Spent
        with np.errstate(over="ignore", invalid="ignore"):
            f, g = self.fun(x)
        self.values.append(f)
        return f, g

    def gradient(self, x: np.ndarray) -> np.ndarray:
        return self(x)[1]


def run(problem: Objective, method: Callable[..., Any], reg: float, budget: int) -> np.ndarray:
    """The smallest ``(f - f*) / (f(x0) - f*)`` after 1, 2, ... evaluations."""
    counted = Counted(problem, budget)
    with suppress(Spent):
        method(counted, problem, reg)
    values = np.array(counted.values)
    values[~np.isfinite(values)] = np.inf
    gaps = np.minimum.accumulate((values - problem.optimum) / problem.scale)
    return np.maximum(gaps, ROUNDING)


def gradient_descent(fun: Counted, problem: Objective, reg: float) -> None:
    x = problem.x0
    while True:
        x = x - fun.gradient(x) / problem.L


def scipy_lbfgs(fun: Counted, problem: Objective, reg: float) -> None:
    options = {"maxcor": MEMORY, "ftol": 0.0, "gtol": 0.0, "maxiter": 10**6, "maxfun": 10**6}
    minimize(fun, problem.x0, jac=True, method="L-BFGS-B", options=options)


class Smooth(bmsdp.Term):
    """A function of n numbers as a term of a problem without cost and constraints: how the solvers of semidefinite programs see it."""

    def __init__(self, fun: Function):
        self.fun = fun

    def factor(self, Y: np.ndarray) -> tuple[float, np.ndarray]:
        return self.fun(Y[:, 0])

    def value(self, Y: np.ndarray, known: tuple[float, np.ndarray]) -> float:
        return known[0]

    def half_grad(self, Y: np.ndarray, known: tuple[float, np.ndarray]) -> np.ndarray:
        return known[1][:, None] / 2


def our_solver(solver: Any, fun: Counted, problem: Objective, reg: float) -> None:
    n = problem.size
    whole = bmsdp.Problem(np.zeros((n, n)), bmsdp.Unconstrained(n), [Smooth(fun)], norm_C=problem.L / 2)
    for _, info in solver.iterates(whole, problem.x0[:, None]):
        if info.get("stalled", False):
            return


def by_scipy(flavour: str, fun: Counted, problem: Objective, reg: float) -> None:
    options = {"memory": MEMORY, "flavour": flavour, "reg": reg, "gtol": 0.0}
    minimize(fun, problem.x0, jac=True, method=bmsdp.multisecant, options=options)


def by_root(symmetric: bool, fun: Counted, problem: Objective, reg: float) -> None:
    qn.root(fun.gradient, problem.x0, symmetric=symmetric, memory=MEMORY, reg=reg, tol=0.0, maxiter=10**6)


def clipped_inverse(fun: Counted, problem: Objective, reg: float) -> None:
    """Type II, eigenvalues clipped to [1e-2, 1e2] of the Barzilai-Borwein scale, Armijo's condition."""
    pairs = qn.SymmetricMultisecant("inverse", "frobenius", MEMORY, reg)
    x = problem.x0
    f, g = fun(x)
    while g.any():
        d, step = -pairs.apply(g) if len(pairs) else -g / problem.L, 1.0
        while (trial := fun(x + step * d))[0] > f + 1e-4 * step * (g @ d) + 1e-15 * abs(f):
            step /= 2
        pairs.push(step * d, trial[1] - g)
        x, (f, g) = x + step * d, trial


def unit_steps(update: Callable[..., Any], fun: Counted, problem: Objective, reg: float) -> None:
    """``x - H grad`` with H of type II from 1 / L, and nothing else: no line search, no safeguard."""
    x, steps, differences = problem.x0, [], []
    g = fun.gradient(x)
    while np.isfinite(g).all() and np.abs(x).max() < 1e100:
        S, Y = (np.array(part[-MEMORY:]).reshape(-1, problem.size).T for part in (steps, differences))
        unit = 1 / np.maximum(np.linalg.norm(Y, axis=0), 1e-300)
        d = -update(Y * unit, S * unit, 1 / problem.L, reg * np.linalg.norm((Y * unit).T @ (Y * unit))).mul(g)
        after = fun.gradient(x + d)
        steps.append(d)
        differences.append(after - g)
        x, g = x + d, after


METHODS: dict[str, Callable[..., Any]] = {
    "gradient descent, 1 / L": gradient_descent,
    "L-BFGS, SciPy": scipy_lbfgs,
    "L-BFGS, bmsdp": partial(our_solver, bmsdp.solvers.LBFGS(MEMORY)),
    "Anderson, unit steps": partial(unit_steps, qn.multisecant),
    "Anderson, safeguarded": partial(by_root, False),
    "Frobenius II, unit steps": partial(unit_steps, qn.symmetric_multisecant),
    "Frobenius I, root": partial(by_root, True),
    "Frobenius II, clipped": clipped_inverse,
    "Frobenius I, clipped": partial(by_scipy, "frobenius"),
    "weighted": partial(by_scipy, "weighted"),
    "grouped": partial(by_scipy, "grouped"),
}
REGULARISED = list(METHODS)[3:]
PALETTE = "#8a8a8a #111111 #111111 #c77c11 #c77c11 #a61c1c #8e44ad #a61c1c #8e44ad #4a90d9 #1b7f4d"
COLOURS = dict(zip(METHODS, PALETTE.split(), strict=True))
DASHES = dict.fromkeys(("L-BFGS, bmsdp", "Frobenius II, clipped", "Frobenius I, clipped"), "--")
DASHES |= dict.fromkeys(("Anderson, unit steps", "Frobenius II, unit steps"), ":")
SHADES = dict(zip(LEVELS, (0.25, 0.5, 0.75, 1.0), strict=True))
TIGHT, LOOSE = 1e-8, 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} evaluations a run instead of {BUDGET}")
    parser.add_argument("--out", type=Path, help="folder for picture and CSV; a temporary one when absent")
    options = parser.parse_args()
    budget = QUICK if options.quick else BUDGET

    rows, curves = [], []
    for problem in problems(options.quick):
        for name, method in METHODS.items():
            for reg in (LEVELS[1::2] if options.quick else LEVELS) if name in REGULARISED else (USUAL,):
                gaps = run(problem, method, reg, budget)
                rows.append(row(problem, name, reg, gaps))
                if reg == USUAL:
                    falls = [0, *np.flatnonzero(np.diff(np.round(20 * np.log10(gaps)))) + 1, len(gaps) - 1]
                    curves += [{"problem": problem.name, "method": name, "evaluation": i + 1, "gap": f"{gaps[i]:.4e}"} for i in falls]
    table(rows, budget)
    verdict(rows, budget)

    folder = options.out if options.out is not None else Path(tempfile.mkdtemp(prefix="bmsdp-"))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("multisecant.csv", rows), ("multisecant-curves.csv", curves)):
        with open(folder / name, "w", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    picture(rows, curves, budget, folder / "multisecant.png")
    print("\ntables ", folder / "multisecant.csv", folder / "multisecant-curves.csv")
    print("picture", folder / "multisecant.png")


def row(problem: Objective, method: str, reg: float, gaps: np.ndarray) -> Row:
    """A row of the CSV file; evaluations are 0 where a gap was not reached."""
    loose, tight = (int(np.argmax(gaps <= wanted)) + 1 if gaps[-1] <= wanted else 0 for wanted in (LOOSE, TIGHT))
    return {
        "problem": problem.name, "n": problem.size, "condition": problem.condition, "method": method,
        "reg": reg if method in REGULARISED else "", "loose": loose, "tight": tight, "evaluations": len(gaps), "gap": gaps[-1],
        "f0": problem.fun(problem.x0)[0], "optimum": problem.optimum,
    }  # fmt: skip


def usual(rows: list[Row]) -> dict[str, dict[str, Row]]:
    """Problem -> method -> row, at the usual regularisation."""
    out: dict[str, dict[str, Row]] = {}
    for found in rows:
        if found["reg"] in ("", USUAL):
            out.setdefault(found["problem"], {})[found["method"]] = found
    return out


def mean(found: list[Row], budget: int) -> float:
    """Geometric mean of the evaluations to the tight gap, `budget` where it was not reached."""
    return float(np.exp(np.mean([np.log(each["tight"] or budget) for each in found])))


def table(rows: list[Row], budget: int) -> None:
    known = usual(rows)
    print(f"evaluations until (f - f*) / (f(x0) - f*) <= {LOOSE:g} / {TIGHT:g}; -: not within {budget}\n")
    print(f"{'':<26}" + "".join(f"{name.split(', ')[0]:>15}" for name in known))
    print(f"{'':<26}" + "".join(f"{name.split(', ')[1]:>15}" for name in known))
    conditions = [f"n {first['n']}, {first['condition']:.0e}" for first in (found["grouped"] for found in known.values())]
    print(f"{'size, condition number':<26}" + "".join(f"{text:>15}" for text in conditions))
    for method in METHODS:
        cells = [f"{found[method]['loose'] or '-'} / {found[method]['tight'] or '-'}" for found in known.values()]
        print(f"{method:<26}" + "".join(f"{text:>15}" for text in cells))
    print(f"\ngeometric mean over the problems of evaluations to {TIGHT:g}, at least; regularisation relative to the secants\n")
    used = sorted({found["reg"] for found in rows if found["method"] in REGULARISED})
    print(f"{'':<26}" + "".join(f"{reg:>10g}" for reg in used))
    for method in REGULARISED:
        means = [mean([found for found in rows if found["method"] == method and found["reg"] == reg], budget) for reg in used]
        print(f"{method:<26}" + "".join(f"{value:>10.0f}" for value in means))


def verdict(rows: list[Row], budget: int) -> None:
    """Who wins where, from the numbers."""
    known = usual(rows)
    print()
    for name, found in known.items():
        counts = {method: each["tight"] for method, each in found.items() if each["tight"]}
        best = min(counts, key=lambda method: counts[method])
        near = [method for method in counts if method != best and counts[method] <= 1.1 * counts[best]]
        lbfgs = min((counts[method] for method in counts if method.startswith("L-BFGS")), default=0)
        print(f"{name}: {best}, {counts[best]} evaluations; L-BFGS {lbfgs or 'more than ' + str(budget)}")
        print(f"    within 10 %: {'; '.join(near) or 'none'}")
    print()
    reference = mean([found["L-BFGS, SciPy"] for found in known.values()], budget)
    for method in list(METHODS)[2:]:
        mine = [found[method] for found in known.values()]
        reached, ratio = sum(each["tight"] > 0 for each in mine), mean(mine, budget) / reference
        print(f"{method:<26} {reached} of {len(mine)} solved, {'' if reached == len(mine) else 'at least '}{ratio:.2f} x SciPy's L-BFGS")


def picture(rows: list[Row], curves: list[Row], budget: int, path: Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(15, 12), dpi=80, layout="constrained")
    grid = figure.add_gridspec(3, 3, height_ratios=[4, 4, 3.4])
    known = usual(rows)
    for place, (name, found) in enumerate(known.items()):
        ax = figure.add_subplot(grid[place // 3, place % 3])
        reach = 2.5 * (found["L-BFGS, SciPy"]["tight"] or budget)
        for method in METHODS:
            mine = [each for each in curves if each["problem"] == name and each["method"] == method]
            width = 2.4 if method in ("grouped", "weighted") or method.startswith("L-BFGS") else 1.4
            style = {"color": COLOURS[method], "linestyle": DASHES.get(method, "-"), "linewidth": width}
            ax.step([each["evaluation"] for each in mine], [float(each["gap"]) for each in mine], where="post", label=method, **style)
        ax.set(xlim=(0, min(reach, budget)), yscale="log", ylim=(1e-12, 2))
        ax.set_title(f"{name}: n = {found['grouped']['n']}, condition {found['grouped']['condition']:.0e}", loc="left", fontsize=11)
        if place % 3 == 0:
            ax.set_ylabel(r"$(f - f^*)\,/\,(f(x_0) - f^*)$, smallest so far")
        ax.set_xlabel("evaluations of the function with its gradient")
        ax.grid(True, color="0.92")
        ax.spines[["top", "right"]].set_visible(False)
    levels(figure.add_subplot(grid[2, :]), rows, budget)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False, fontsize=10)
    figure.savefig(path)


def levels(ax: matplotlib.axes.Axes, rows: list[Row], budget: int) -> None:
    """Bars: evaluations of each method at each regularisation."""
    used = sorted({found["reg"] for found in rows if found["method"] in REGULARISED})
    for i, method in enumerate(REGULARISED):
        for j, reg in enumerate(used):
            mine = [found for found in rows if found["method"] == method and found["reg"] == reg]
            place, height = i + 0.2 * (j - (len(used) - 1) / 2), mean(mine, budget)
            ax.bar(place, height, 0.18, color=COLOURS[method], alpha=SHADES[reg])
            solved, style = sum(found["tight"] > 0 for found in mine), {"ha": "center", "va": "bottom", "fontsize": 8}
            ax.text(place, height + 0.012 * budget, f"{solved}/{len(mine)}", bbox={"color": "white", "pad": 0.5}, **style)
    for reg in used:
        ax.bar(0, 0, color="#555555", alpha=SHADES[reg], label=f"{reg:g}")
    ax.legend(title="regularisation", frameon=False, loc="upper right", ncols=len(used))
    reference = mean([found for found in rows if found["method"] == "L-BFGS, SciPy"], budget)
    ax.axhline(reference, color=COLOURS["L-BFGS, SciPy"], linewidth=1.2)
    ax.text(len(REGULARISED) + 0.18, reference, "L-BFGS, SciPy", va="bottom", ha="right", fontsize=9)
    ax.set_xticks(range(len(REGULARISED)), [name.replace(", ", ",\n") for name in REGULARISED])
    ax.set(xlim=(-0.5, len(REGULARISED) + 0.2), ylim=(0, 1.1 * budget), ylabel=f"evaluations to {TIGHT:g}")
    ax.set_title(f"geometric mean over the problems, {budget} where not reached; on the bars: problems solved", loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
