"""Synchronization: where the relaxation is tight, how far the noise carries, and what outliers do, with and without a robust loss.

python examples/synchronization.py                     SO(3), U(1) and Z2 over noise; outliers in SO(3); about a minute and a half
python examples/synchronization.py --quick             the same on fewer and smaller graphs
python examples/synchronization.py --out folder        where the picture and the tables (CSV) go
"""

import argparse
import csv
import tempfile
from pathlib import Path

import matplotlib.figure
import numpy as np

from bmsdp import gallery
from bmsdp.applications import synchronization

COLOURS = {"SO(3)": "#1f5a94", "U(1)": "#c77c11", "Z2": "#3f7d3a"}
LINES = {"spectral": "0.55", "least squares": "#1f5a94", "truncated (GNC)": "#c77c11", "Geman-McClure (GNC)": "#3f7d3a"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Phase transitions of synchronization.")
    parser.add_argument("--quick", action="store_true", help="smaller graphs and fewer runs")
    parser.add_argument("--out", type=Path, help="folder for the picture and the tables; a temporary one when absent")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    n, runs, steps = (20, 3, 5) if options.quick else (50, 10, 13)
    folder = options.out if options.out is not None else Path(tempfile.mkdtemp(prefix="bmsdp-"))
    folder.mkdir(parents=True, exist_ok=True)

    # 1. Noise: the share of runs in which the rounded blocks attain the bound, and the error of the blocks.
    noise = [row for group in COLOURS for level in np.linspace(0.02, 1, steps) for row in over_noise(group, n, level, runs, options.seed)]
    write(folder / "synchronization-noise.csv", noise)
    print(f"{'group':8}{'last noise at which all runs are tight':>40}")
    for group in COLOURS:
        tight = [row["noise"] for row in noise if row["group"] == group and row["method"] == "relaxation" and row["tight"] == 1]
        print(f"{group:8}{max(tight, default=float('nan')):40.2f}")

    # 2. Outliers in SO(3): spectral, least squares, and graduated non-convexity.
    ratios = np.linspace(0, 0.8, 3 if options.quick else 9)
    outliers = [row for ratio in ratios for row in over_outliers(n, ratio, runs, options.seed)]
    write(folder / "synchronization-outliers.csv", outliers)
    print(f"\n{'outliers':10}" + "".join(f"{name:>22}" for name in LINES))
    for ratio in ratios:
        print(f"{ratio:<10.1f}" + "".join(f"{row['error']:22.3f}" for row in outliers if row["outliers"] == ratio))

    # 3. One answer in words.
    i, j, M, R, bad = gallery.rotation_graph(n, 3, 0.1, 0.4, options.seed, p=0.5)
    for robust in (None, "tls"):
        found = synchronization.synchronize((i, j, M), robust=robust, rng=options.seed)
        error = synchronization.distance(found.R, R, special=True)
        print(f"\nrobust = {robust}: misfit {found.misfit:.4f}, bound {found.bound:.4f}, error {error:.3f}\n{found.why}")
    print(f"\n{np.sum(~found.inliers & bad)} of {bad.sum()} outliers rejected, and {np.sum(~found.inliers & ~bad)} inliers")
    print("picture         ", picture(noise, outliers, folder / "synchronization.png"))


def over_noise(group: str, n: int, level: float, runs: int, seed: int) -> list[dict[str, object]]:
    """Rows of one level of noise, from 0 to 1: of the largest noise drawn in each group."""
    tight, error, spectral, rank = [], [], [], []
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        data, truth, size = instance(group, n, level, rng)
        found = synchronization.synchronize(data, rng=rng)
        tight.append(found.tight)
        rank.append(found.rank)
        error.append(synchronization.distance(found.R, truth, special=True) / size)
        spectral.append(synchronization.distance(synchronization.spectral_blocks(data, rng=rng), truth, special=True) / size)
    common = {"group": group, "noise": round(float(level), 4), "n": n}
    return [
        common | {"method": "relaxation", "tight": np.mean(tight), "rank": np.mean(rank), "error": np.mean(error)},
        common | {"method": "spectral", "tight": "", "rank": "", "error": np.mean(spectral)},
    ]


def instance(group: str, n: int, level: float, rng: np.random.Generator) -> tuple[synchronization.Measurements, np.ndarray, float]:
    """Half of all pairs measured, the blocks behind them, and what random ones are apart on average."""
    i, j, M, R, _ = gallery.rotation_graph(n, 3 if group == "SO(3)" else 2, 2 * level if group != "Z2" else 0.0, rng=rng, p=0.5)
    if group == "SO(3)":
        return synchronization.measurements(i, j, M), R, np.sqrt(6)
    if group == "U(1)":
        phases = lambda B: B[:, 0, 0] + 1j * B[:, 1, 0]  # noqa: E731
        return synchronization.measurements(i, j, phases(M)), phases(R), np.sqrt(2)
    x = rng.choice([-1, 1], n)
    flips = np.where(rng.random(i.size) < level / 2, -1, 1)  # at level 1 the signs say nothing
    return synchronization.measurements(i, j, x[i] * x[j] * flips), x, np.sqrt(2)


def over_outliers(n: int, ratio: float, runs: int, seed: int) -> list[dict[str, object]]:
    """Rows of one share of outliers, the median over runs of the error of each method."""
    errors = {name: [] for name in LINES}
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        i, j, M, R, _ = gallery.rotation_graph(n, 3, 0.1, ratio, rng, p=0.5)
        data = synchronization.measurements(i, j, M)
        blocks = {"spectral": synchronization.spectral_blocks(data, rng=rng)}
        for name, robust in zip(list(LINES)[1:], (None, "tls", "gm"), strict=True):
            blocks[name] = synchronization.synchronize(data, robust=robust, rng=rng).R
        for name, found in blocks.items():
            errors[name].append(synchronization.distance(found, R, special=True) / np.sqrt(6))
    return [{"outliers": ratio, "n": n, "method": name, "error": np.median(error)} for name, error in errors.items()]


def write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def picture(noise: list[dict[str, object]], outliers: list[dict[str, object]], path: Path) -> Path:
    figure = matplotlib.figure.Figure(figsize=(13, 4), dpi=110, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for group, colour in COLOURS.items():
        for method, style in (("relaxation", "-"), ("spectral", ":")):
            rows = [row for row in noise if row["group"] == group and row["method"] == method]
            level = [row["noise"] for row in rows]
            if method == "relaxation":
                left.plot(level, [row["tight"] for row in rows], "o-", color=colour, markersize=4, label=group)
            middle.plot(level, [row["error"] for row in rows], style, color=colour, label=f"{group}, {method}")
    scale = "noise: 2 rad an axis, or half of the signs flipped, is 1"
    left.set(title="runs in which the answer is proved optimal", xlabel=scale, ylabel="share", ylim=(-0.03, 1.03))
    middle.set(title="error (random blocks: about 1)", xlabel=scale, ylabel="rms distance, relative", ylim=(0, None))
    for name, colour in LINES.items():
        rows = [row for row in outliers if row["method"] == name]
        right.plot([row["outliers"] for row in rows], [row["error"] for row in rows], "o-", color=colour, markersize=4, label=name)
    right.set(title="SO(3), noise 0.1 rad, outliers", xlabel="share of outliers", ylabel="median rms distance, relative", yscale="log")
    for axes in (left, middle, right):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.25)
    figure.savefig(path)
    return path


if __name__ == "__main__":
    main()
