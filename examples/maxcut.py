"""Maximum cut with a bound: graph, relaxation, certificate, cut, picture.

python examples/maxcut.py                    a random graph of bmsdp.gallery
python examples/maxcut.py G1.rud             a file in rudy format, as those of the G-set
python examples/maxcut.py --out pictures     where to write the picture
"""

import argparse
import tempfile
from pathlib import Path

import matplotlib.figure
import matplotlib.patches
import numpy as np

import bmsdp
from bmsdp import gallery, plot
from bmsdp.applications import maxcut
from bmsdp.io.rudy import read_rudy


def main() -> None:
    parser = argparse.ArgumentParser(description="Maximum cut with a bound.")
    parser.add_argument("file", nargs="?", type=Path, help="a graph in rudy format; a random one when absent")
    parser.add_argument("--out", type=Path, help="folder for the picture; a temporary one when absent")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    # 1. The graph, and its relaxation: min <-L/4, X> over X >= 0 with unit diagonal.
    if options.file is not None:
        C, name = read_rudy(options.file)[0], options.file.stem
    else:
        C, name = maxcut.problem(gallery.planted_partition(1000, 2, 0.005, 0.02, rng=options.seed)), "planted"

    # 2. Solve to a certified relative gap of 1e-6.  verbose=1 prints one line per certificate.
    result = bmsdp.solve(C, tol=1e-6, rng=options.seed, verbose=1)

    # 3. The certificate: no cut of this graph is heavier than -bound.
    certificate = result.certificate
    print(f"\nno cut exceeds    {-certificate.bound:.6f}   ({certificate.rigor})")
    print(f"relaxation        {-result.cost:.6f}   (relative gap {result.gap:.1e}, rank {result.rank})")

    # 4. A cut: random hyperplanes through the rows of Y, then single flips.
    cut = maxcut.recover(result, rng=options.seed)
    print(
        f"this cut          {cut.value:g}   (at least {100 * cut.ratio:.2f} % of the best), sides {cut.sides[0].size} + {cut.sides[1].size}"
    )

    # 5. A picture: how it converged, and the vertices as the relaxation sees them.
    folder = options.out if options.out is not None else Path(tempfile.mkdtemp(prefix="bmsdp-"))
    folder.mkdir(parents=True, exist_ok=True)
    print("picture          ", picture(result, cut, folder / f"maxcut-{name}.png"))


def picture(result: bmsdp.Result, cut: maxcut.Cut, path: Path) -> Path:
    figure = matplotlib.figure.Figure(figsize=(11, 4.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    plot.convergence(result, ax=left)
    U, sizes, _ = np.linalg.svd(result.Y, full_matrices=False)  # rows of Y are unit vectors: inside the disk
    for side, colour, marker in zip(cut.sides, ("#0b5394", "#c77c11"), "o^", strict=True):
        points = U[side, :2] * sizes[:2]
        right.scatter(*points.T, s=10, c=colour, marker=marker, alpha=0.6, linewidths=0, label=f"{side.size} vertices")
    right.add_patch(matplotlib.patches.Circle((0, 0), 1, fill=False, color="0.7"))
    right.set(title=f"cut {cut.value:g}, bound {cut.bound:.7g}", aspect="equal", xlabel="rows of Y, two largest directions")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False, markerscale=2)
    figure.savefig(path)
    return path


if __name__ == "__main__":
    main()
