"""A cloud from noisy copies after unknown rotations: when alignment works, when only invariants survive, and what proves it.

python examples/procrustes.py               tables, a picture and a CSV file; about a minute and a half on one core
python examples/procrustes.py --small       coarser and fewer, seconds
python examples/procrustes.py --out folder  where to write picture and CSV; a temporary folder when absent
python examples/procrustes.py --stream      only this: a million copies of 100 points, read once; time and memory

Copies Y_i = Q_i X + sigma E_i, Q_i in O(d) unknown.  Six parts, six panels:

map        error over (N, sigma): the noise that N copies can bear grows like N^(1/2) while it is low, like N^(1/4) when it is high
risk       the mean squared error against its formula, and against least-squares alignment, which has a floor
sigma      the bias of the noise estimate, raw and corrected
tightness  how often the semidefinite relaxation of alignment is tight, and what its rank is elsewhere
einstein   pure noise aligned to a template looks like the template; its Gram matrix shows nothing
scree      eigenvalues of real copies: 22 joints of 52 hands, shipped with geomstats (`pip install --no-deps geomstats`; it is read, not
           imported), or where that is absent an ensemble of a mountain range that matplotlib ships
"""

import argparse
import csv
import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.axes
import matplotlib.cbook
import matplotlib.figure
import numpy as np

from bmsdp.applications import procrustes

INK, TRUE, PROOF, BOUND, PLAIN = "#3b3b3b", "#0b5394", "#1b7f4d", "#c77c11", "#a61c1c"
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="coarser grids, fewer repetitions")
    parser.add_argument("--out", type=Path, help="folder for picture and CSV; a temporary one when absent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stream", action="store_true", help="only time a million streamed copies (20 000 with --small)")
    options = parser.parse_args()
    if options.stream:
        stream(20_000 if options.small else 1_000_000, options.seed)
        return
    rng, small = np.random.default_rng(options.seed), options.small
    parts = {
        "map": error_map(rng, 9 if small else 19, 13 if small else 37, 2 if small else 8),
        "risk": risk(rng, 7 if small else 13, 20 if small else 100),
        "sigma": sigma_bias(rng, 40 if small else 400),
        "tightness": tightness(rng, 4 if small else 20),
        "einstein": einstein(rng, 1000 if small else 5000),
        "scree": scree(rng),
    }
    for name, rows in parts.items():
        print(f"\n{name}")
        REPORTS[name](rows)
    folder = options.out if options.out is not None else Path(tempfile.mkdtemp(prefix="bmsdp-"))
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "procrustes.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["part", "d", "k", "N", "sigma", "quantity", "value", "formula"])
        writer.writeheader()
        writer.writerows({"part": name} | row for name, rows in parts.items() for row in rows)
    picture(parts, folder / "procrustes.png")
    print("\ntable  ", folder / "procrustes.csv")
    print("picture", folder / "procrustes.png")


def row(X: np.ndarray, N: int, sigma: float, quantity: str, value: float, formula: float | str = "") -> Row:
    return {"d": len(X), "k": X.shape[1], "N": N, "sigma": float(sigma), "quantity": quantity, "value": float(value), "formula": formula}


def picked(rows: list[Row], quantity: str) -> tuple[np.ndarray, ...]:
    """N, sigma, value and formula of the rows of one quantity."""
    mine = [found for found in rows if found["quantity"] == quantity]
    return tuple(np.array([found[name] for found in mine]) for name in ("N", "sigma", "value", "formula"))


def cloud(rng: np.random.Generator, d: int, k: int, size: float) -> np.ndarray:
    X = rng.standard_normal((d, k))
    return X * size / np.linalg.norm(X)


# ---------------------------------------------------------------- map


def error_map(rng: np.random.Generator, sizes: int, noises: int, repeat: int) -> list[Row]:
    """Mean ``rho^2 / |X|^2`` over (N, sigma), sigma known, and the sigma at which it is 1/2."""
    X = cloud(rng, 3, 100, 1.0)
    sigmas = 2.0 ** np.linspace(-4.5, 0.5, noises)
    rows = []
    for N in np.unique(np.round(2.0 ** np.linspace(2, 12, sizes)).astype(int)):
        errors = []
        for sigma in sigmas:
            found = [procrustes.fit(procrustes.simulate(X, sigma, N, rng), "gram", sigma=sigma).X for _ in range(repeat)]
            errors.append(float(np.mean([procrustes.distance(X, Z) ** 2 for Z in found])))
            rows.append(row(X, N, sigma, "relative squared error", errors[-1], procrustes.expected_mse(X, sigma, N)))
        rows.append(row(X, N, np.nan, "sigma borne", 2 ** np.interp(np.log(0.5), np.log(errors), np.log2(sigmas))))
    return rows


def slopes(rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    """N and the local slope of log sigma against log N, over two octaves."""
    N, _, borne, _ = picked(rows, "sigma borne")
    x, y = np.log(N), np.log(borne)
    step = max(1, int(round(2 * (len(N) - 1) / 10)))
    return np.sqrt(N[step:] * N[:-step]), (y[step:] - y[:-step]) / (x[step:] - x[:-step])


def report_map(rows: list[Row]) -> None:
    N, slope = slopes(rows)
    local = ", ".join(f"{s:.2f} at {n:.0f}" for n, s in zip(N, slope, strict=True))
    print("   noise at which rho^2 = |X|^2 / 2 grows like N^slope:", local)


def draw_map(ax: matplotlib.axes.Axes, rows: list[Row]) -> None:
    N, sigma, error, _ = picked(rows, "relative squared error")
    shape = (len(np.unique(N)), -1)
    x, y, z = (np.reshape(a, shape) for a in (N, sigma, np.sqrt(error)))
    shown = ax.pcolormesh(x, y, z, cmap="gray_r", vmin=0, vmax=1.2, shading="nearest", rasterized=True)
    ax.figure.colorbar(shown, ax=ax, label=r"$\rho\,/\,\|X\|$", extend="max", pad=0.01)
    n, _, borne, _ = picked(rows, "sigma borne")
    ax.plot(n, borne, color=TRUE, linewidth=2.5, label=r"$\rho^2 = \|X\|^2/2$")
    few, many = n[n <= 64], n[n >= 64]  # each slope drawn beside the curve where it holds
    ax.plot(few, 0.75 * borne[0] * (few / n[0]) ** 0.5, "--", color=BOUND, linewidth=2, label=r"slope $1/2$ (alignment's regime)")
    ax.plot(many, 1.15 * borne[-1] * (many / n[-1]) ** 0.25, ":", color=PLAIN, linewidth=2.5, label=r"slope $1/4$ (invariants only)")
    ax.set(xscale="log", yscale="log", xlabel="copies N", ylabel=r"noise $\sigma$, in units of $\|X\|$")
    ax.set_title("error of the Gram estimator, d = 3, k = 100", loc="left", fontsize=11)
    ax.legend(loc="upper left", fontsize=9, framealpha=0.9)


# ---------------------------------------------------------------- risk


def risk(rng: np.random.Generator, noises: int, repeat: int) -> list[Row]:
    """Mean ``rho^2`` of the Gram matrix, and of least-squares alignment from the truth, beside formula and floor."""
    X, N, rows = np.eye(3, 10), 1000, []
    for sigma in np.logspace(-1.7, 0.3, noises):
        gram, alignment = [], []
        for _ in range(repeat):
            Y = procrustes.simulate(X, sigma, N, rng)
            gram.append(procrustes.distance(X, procrustes.fit(Y, "gram").X) ** 2)
            if len(alignment) < max(repeat // 5, 3):
                Q = procrustes.ascend(Y, procrustes.align(Y, X).rotations, sweeps=200)
                alignment.append(procrustes.distance(X, np.einsum("nij,nik->jk", Q, Y) / N) ** 2)
        rows.append(row(X, N, sigma, "gram", float(np.mean(gram)), procrustes.expected_mse(X, sigma, N, sigma_known=False)))
        floor = procrustes.alignment_floor(X) * sigma**4 + 27 * sigma**2 / N
        rows.append(row(X, N, sigma, "alignment", float(np.mean(alignment)), floor))
    return rows


def report_risk(rows: list[Row]) -> None:
    _, sigma, gram, formula = picked(rows, "gram")
    _, _, alignment, _ = picked(rows, "alignment")
    print("   sigma   mean rho^2   formula     ratio   alignment, from the true rotations")
    for values in zip(sigma, gram, formula, gram / formula, alignment, strict=True):
        print("   {:5.3f}   {:10.3e}   {:.3e}  {:6.3f}   {:10.3e}".format(*values))


def draw_risk(ax: matplotlib.axes.Axes, rows: list[Row]) -> None:
    _, sigma, gram, formula = picked(rows, "gram")
    _, _, alignment, floor = picked(rows, "alignment")
    ax.loglog(sigma, gram, "o", color=TRUE, label="Gram matrix")
    ax.loglog(sigma, formula, color=TRUE, label="its formula")
    ax.loglog(sigma, alignment, "s", color=PLAIN, markerfacecolor="none", label="alignment, from the truth")
    low = sigma < 0.4
    ax.loglog(sigma[low], floor[low], "--", color=PLAIN, label=r"$27\sigma^2/N + 0.75\,\sigma^4$")
    ax.loglog(sigma, 27 * sigma**2 / 1000, ":", color=BOUND, label="rotations known")
    ax.axvline(procrustes.crossover(np.eye(3, 10)), color="0.7", linewidth=1)
    ax.text(procrustes.crossover(np.eye(3, 10)) * 1.05, gram.min(), r"$\sigma_*$", color="0.35")
    ax.set(xlabel=r"noise $\sigma$ (singular values of X are 1)", ylabel=r"mean $\rho^2$")
    ax.set_title("risk, d = 3, k = 10, N = 1000", loc="left", fontsize=11)
    ax.legend(frameon=False, fontsize=9)


# ---------------------------------------------------------------- sigma


def sigma_bias(rng: np.random.Generator, repeat: int) -> list[Row]:
    """Relative bias of sigma^2: the mean of the last k - d eigenvalues, and corrected."""
    X, rows = cloud(rng, 3, 8, 3.0), []
    squares = np.linalg.svd(X, compute_uv=False) ** 2
    for sigma in (0.1, 0.5):
        for N in (2, 4, 8, 16, 32, 64, 128):
            raw, good = [], []
            for _ in range(repeat):
                found = procrustes.fit(procrustes.simulate(X, sigma, N, rng), "gram")
                raw.append(found.eigenvalues[3:].sum() / 15)
                good.append(found.sigma2)
            lost = (1 + sigma**2 * np.sum(1 / squares)) / N
            rows.append(row(X, N, sigma, "bias, raw", float(np.mean(raw)) / sigma**2 - 1, -lost))
            rows.append(row(X, N, sigma, "bias, corrected", float(np.mean(good)) / sigma**2 - 1, 0.0))
            rows.append(row(X, N, sigma, "standard error", float(np.std(raw)) / sigma**2 / np.sqrt(repeat)))
    return rows


def report_sigma(rows: list[Row]) -> None:
    N, sigma, raw, formula = picked(rows, "bias, raw")
    _, _, good, _ = picked(rows, "bias, corrected")
    print("   sigma    N   relative bias of sigma^2   formula   corrected")
    for values in zip(sigma, N, raw, formula, good, strict=True):
        print("   {:5.2f} {:4d}   {:24.4f}   {:7.4f}   {:9.4f}".format(*values))


def draw_sigma(ax: matplotlib.axes.Axes, rows: list[Row]) -> None:
    N, sigma, raw, formula = picked(rows, "bias, raw")
    _, _, good, _ = picked(rows, "bias, corrected")
    for level, marker, colour in ((0.1, "o", TRUE), (0.5, "s", PROOF)):
        mine = sigma == level
        ax.semilogx(N[mine], formula[mine], "-", color=colour)
        ax.semilogx(N[mine], raw[mine], marker, color=colour, label=rf"raw, $\sigma = {level}$ (lines: formula)")
        ax.semilogx(N[mine], good[mine], marker, color=colour, markerfacecolor="none", label=rf"corrected, $\sigma = {level}$")
    ax.axhline(0, color="0.5", linewidth=1)
    lost = good > 0.15
    if lost.any():
        ax.text(
            N[lost].max() * 1.3, good[lost].max() * 0.6, "too few copies to tell\nall 3 directions from noise", fontsize=9, color="0.35"
        )
    ax.set(xlabel="copies N", ylabel=r"relative bias of $\hat\sigma^2$")
    ax.set_title(r"noise estimate, d = 3, k = 8, $\|X\| = 3$", loc="left", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="lower right")


# ---------------------------------------------------------------- tightness


def tightness(rng: np.random.Generator, repeat: int) -> list[Row]:
    """N = 20 copies, |X| = 3, all singular values equal: is the relaxation's optimum of rank d?"""
    X, rows = np.sqrt(3) * np.linalg.qr(rng.standard_normal((15, 3)))[0].T, []
    for sigma in np.round(np.arange(0.1, 1.25, 0.1), 1):
        found = [procrustes.least_squares(procrustes.simulate(X, sigma, 20, rng), rng=0) for _ in range(repeat)]
        rows.append(row(X, 20, sigma, "tight", float(np.mean([one.is_tight for one in found]))))
        rows.append(row(X, 20, sigma, "rank", float(np.mean([one.rank for one in found]))))
        rows.append(row(X, 20, sigma, "gap of rotations", float(np.median([max(one.gap, 0) for one in found]))))
        rows.append(row(X, 20, sigma, "certified", float(np.mean([one.result.success for one in found]))))
    return rows


def report_tightness(rows: list[Row]) -> None:
    _, sigma, tight, _ = picked(rows, "tight")
    print("   sigma   tight   mean rank   median gap of the rounded rotations   relaxation certified")
    for values in zip(sigma, tight, *(picked(rows, name)[2] for name in ("rank", "gap of rotations", "certified")), strict=True):
        print("   {:5.1f}   {:5.0%}   {:9.2f}   {:35.1e}   {:20.0%}".format(*values))


def draw_tightness(ax: matplotlib.axes.Axes, rows: list[Row]) -> None:
    _, sigma, tight, _ = picked(rows, "tight")
    ax.plot(sigma, tight, "o-", color=PROOF, label="share of runs proved optimal (left)")
    ax.set(xlabel=r"noise $\sigma$ (singular values of X are 1.73)", ylabel="share proved optimal", ylim=(-0.03, 1.25))
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
    right = ax.twinx()
    right.plot(sigma, picked(rows, "rank")[2], "s--", color=PLAIN, label="mean rank of the relaxation (right)")
    right.set(ylabel="rank", ylim=(2.8, 8))
    right.spines["top"].set_visible(False)
    handles = [*ax.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    ax.legend(handles=handles, frameon=False, fontsize=9, loc="upper center")
    ax.set_title("tightness of the relaxation, d = 3, k = 15, N = 20", loc="left", fontsize=11)


# ---------------------------------------------------------------- einstein


def template() -> np.ndarray:
    """A spiral of 40 points in the plane, centred, of unit mean square."""
    t = np.linspace(0.6, 2.4 * np.pi, 40)
    X = t * np.stack([np.cos(t), np.sin(t)])
    X -= X.mean(axis=1, keepdims=True)
    return X * np.sqrt(40) / np.linalg.norm(X)


def einstein(rng: np.random.Generator, N: int) -> list[Row]:
    """N copies of pure noise, aligned to a spiral and averaged."""
    X = template()
    Y = procrustes.simulate(0 * X, 1.0, N, rng)
    mean = procrustes.align(Y, X).copies.mean(axis=0)
    found = procrustes.fit(Y)
    alike = float(np.vdot(mean, X) / (np.linalg.norm(mean) * np.linalg.norm(X)))
    rows = [row(X, N, 1.0, f"{name} {a}", value) for a in range(40) for name, value in zip("xy", mean[:, a], strict=True)]
    rows += [row(X, N, 1.0, f"eigenvalue {i + 1}", value, found.noise_edge) for i, value in enumerate(found.eigenvalues)]
    rows.append(row(X, N, 1.0, "correlation with the template", alike))
    rows.append(row(X, N, 1.0, "detected rank", found.detected_rank, 0))
    return rows


def report_einstein(rows: list[Row]) -> None:
    (N, *_), (alike, *_) = picked(rows, "correlation with the template")[0], picked(rows, "correlation with the template")[2]
    rank = int(picked(rows, "detected rank")[2][0])
    print(f"   the mean of {N} copies of nothing but noise, each aligned to a spiral, has correlation {alike:.3f} with it")
    print(f"   of the Gram matrix, {rank} directions stand out of the noise")


def draw_einstein(ax: matplotlib.axes.Axes, rows: list[Row]) -> None:
    X = template()
    mean = np.array([[picked(rows, f"{name} {a}")[2][0] for a in range(40)] for name in "xy"])
    scale = np.linalg.norm(X) / np.linalg.norm(mean)
    alike = picked(rows, "correlation with the template")[2][0]
    ax.plot(*X, "-", color="0.75", linewidth=5, solid_capstyle="round", label="template")
    label = f"mean of aligned noise (x {scale:.1f}), correlation {alike:.3f}"
    ax.plot(*(scale * mean), "o-", color=PLAIN, markersize=4, linewidth=1, label=label)
    ax.set_aspect("equal")
    ax.set(xticks=[], yticks=[], xlim=(-2.6, 2.6), ylim=(-2.1, 2.9))
    edge, first = picked(rows, "eigenvalue 1")[3][0], picked(rows, "eigenvalue 1")[2][0]
    rank = int(picked(rows, "detected rank")[2][0])
    text = rf"Gram matrix: $\lambda_1 = {first:.3f}$, noise ends at {float(edge):.3f}: rank {rank}"
    ax.text(0.5, 0.02, text, transform=ax.transAxes, ha="center", fontsize=9)
    ax.set_title(f"Einstein from noise: {rows[0]['N']} copies without a cloud", loc="left", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper center")


# ---------------------------------------------------------------- scree


def copies(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Real copies (N, 3, k), and what they are."""
    package = importlib.util.find_spec("geomstats")
    where = Path(package.origin).parent / "datasets" / "data" / "hands" / "hands.txt" if package and package.origin else None
    if where is not None and where.is_file():
        return np.loadtxt(where).reshape(-1, 22, 3).transpose(0, 2, 1) * 1000, "22 joints of a hand"  # metres to millimetres
    with np.load(matplotlib.cbook.get_sample_data("jacksboro_fault_dem.npz", asfileobj=False)) as file:
        height = file["elevation"].astype(float)
    rows, cols = np.meshgrid(np.linspace(20, 323, 8), np.linspace(20, 382, 10), indexing="ij")
    place = np.rint(np.stack([rows.ravel(), cols.ravel()])).astype(int)
    X = np.stack([place[0] * 92.0, place[1] * 75.0, 5 * height[place[0], place[1]]]) / 1000  # km; heights five times enlarged
    return procrustes.simulate(X, 2.0, 60, rng, group="SO", shift=20.0), "80 points of a mountain range"


def scree(rng: np.random.Generator) -> list[Row]:
    Y, name = copies(rng)
    found = procrustes.fit(Y, "gram", center=True, special=True)
    rows = [row(found.X, len(Y), found.sigma, f"eigenvalue {i + 1}", value, found.noise_edge) for i, value in enumerate(found.eigenvalues)]
    rows[0]["name"] = name
    print(f"\nreal data: {name}\n   " + str(found).replace("\n", "\n   "))
    return [{key: value for key, value in one.items() if key != "name"} | {"quantity": f"{one['quantity']} of {name}"} for one in rows]


def report_scree(rows: list[Row]) -> None:
    print(f"   {rows[0]['quantity'].split(' of ')[1]}: eigenvalues", ", ".join(f"{one['value']:.4g}" for one in rows[:8]), "...")


def draw_scree(ax: matplotlib.axes.Axes, rows: list[Row]) -> None:
    values = np.array([one["value"] for one in rows])
    name = rows[0]["quantity"].split(" of ", 1)[1]
    i, good = np.arange(1, len(values) + 1), values > 0
    ax.semilogy(i[good], values[good], "o", color=TRUE, markerfacecolor="none")
    ax.semilogy(i[:3], values[:3], "o", color=TRUE, label="first d = 3")
    ax.axhline(rows[0]["formula"], color=PLAIN, linestyle="--", label="isotropic noise ends here")
    ax.axhline(3 * rows[0]["sigma"] ** 2, color=BOUND, linestyle=":", label=r"$d\,\hat\sigma^2$")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="eigenvalue of the mean Gram matrix", ylabel="size")
    ax.set_title(f"{name}, N = {rows[0]['N']}", loc="left", fontsize=11)
    ax.legend(frameon=False, fontsize=9)


# ---------------------------------------------------------------- all


REPORTS = {
    "map": report_map, "risk": report_risk, "sigma": report_sigma, "tightness": report_tightness, "einstein": report_einstein,
    "scree": report_scree,
}  # fmt: skip
DRAWERS = {
    "map": draw_map, "risk": draw_risk, "sigma": draw_sigma, "tightness": draw_tightness, "einstein": draw_einstein, "scree": draw_scree,
}  # fmt: skip


def picture(parts: dict[str, list[Row]], path: Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(15, 9), dpi=90, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1)
    for ax, (name, rows) in zip(figure.subplots(2, 3).ravel(), parts.items(), strict=True):
        DRAWERS[name](ax, rows)
        if name in ("risk", "sigma", "tightness", "scree"):
            ax.grid(True, color="0.92")
        if name != "einstein":
            ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def stream(N: int, seed: int) -> None:
    """N copies of 100 points in batches that are forgotten at once."""
    import resource

    rng = np.random.default_rng(seed)
    X = cloud(rng, 3, 100, 1.0)
    batches, making = procrustes.simulate(X, 0.3, N, rng, batch=10_000), 0.0

    def timed() -> Any:
        nonlocal making
        while True:
            start = time.process_time()
            batch = next(batches, None)
            making += time.process_time() - start
            if batch is None:
                return
            yield batch

    start = time.process_time()
    found = procrustes.fit(timed())
    seconds = time.process_time() - start
    print(found)
    print(f"true distance {procrustes.distance(X, found.X):.3g}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{N} copies: {seconds - making:.1f} CPU seconds, and {making:.1f} to make them; {memory:.0f} MB at most")


if __name__ == "__main__":
    main()
