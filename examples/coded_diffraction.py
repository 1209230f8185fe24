"""An image from coded diffraction patterns: the magnitudes of masked Fourier transforms, before and after.

python examples/coded_diffraction.py                           128 x 128 pixels, 8 masks (the picture of the README)
python examples/coded_diffraction.py --side 512 --masks 8      larger
python examples/coded_diffraction.py --noise 0.01              1 % noise on the magnitudes
python examples/coded_diffraction.py --out pictures            where to write coded_diffraction.png and .csv
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported

import matplotlib.figure  # noqa: E402
import numpy as np  # noqa: E402

from bmsdp.applications import phase_retrieval as pr  # noqa: E402

ELLIPSES = (  # intensity, half axes, centre, angle: a head phantom after Shepp and Logan, 1974
    (1.0, 0.69, 0.92, 0.0, 0.0, 0), (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0), (-0.2, 0.11, 0.31, 0.22, 0.0, -18),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18), (0.1, 0.21, 0.25, 0.0, 0.35, 0), (0.1, 0.046, 0.046, 0.0, 0.1, 0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0), (0.1, 0.046, 0.023, -0.08, -0.605, 0), (0.1, 0.023, 0.023, 0.0, -0.606, 0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0),
)  # fmt: skip


def phantom(side: int) -> np.ndarray:
    """The intensities in [0, 1], with a smooth phase: most specimens shift phases too."""
    y, x = np.meshgrid(np.linspace(1, -1, side), np.linspace(-1, 1, side), indexing="ij")
    image = np.zeros((side, side))
    for value, a, b, x0, y0, degrees in ELLIPSES:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        u, v = c * (x - x0) + s * (y - y0), -s * (x - x0) + c * (y - y0)
        image[(u / a) ** 2 + (v / b) ** 2 <= 1] += value
    return image * np.exp(1j * np.pi * (x * y + 0.5 * np.cos(3 * x)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=128, help="pixels in a row")
    parser.add_argument("--masks", type=int, default=8)
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of the noise, relative to the magnitudes")
    parser.add_argument("--start", choices=("spectral", "random"), default="spectral")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="32 x 32 pixels")
    parser.add_argument("--out", type=Path, help="folder for the picture and the table; a temporary one when absent")
    options = parser.parse_args()
    side = 32 if options.small else options.side

    # 1. The specimen, and what the camera sees of it: magnitudes only.
    rng = np.random.default_rng(options.seed)
    image = phantom(side)
    A = pr.masked_fft(pr.coded_diffraction(image.shape, options.masks, rng))
    b = np.abs(A @ image.ravel())
    b = np.abs(b + options.noise * np.sqrt(np.mean(b**2)) * rng.standard_normal(b.size))

    # 2. The image that the magnitudes determine, up to a global phase.
    wall, cpu = time.perf_counter(), time.process_time()
    found = pr.retrieve(A, b, start=options.start, rng=options.seed, progress=False)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    error = pr.relative_error(found.x, image)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform != "darwin" else 2**30)
    print(f"{side} x {side} pixels, {options.masks} masks, n = {A.shape[0]}, noise {options.noise:g}, {options.start} start")
    print(f"relative error {error:.1e}, misfit {found.misfit:.1e}: {found.message}")
    print(f"{found.products} pairs of products, {cpu:.2f} s CPU, {wall:.2f} s wall, peak memory {peak:.2f} GB")

    # 3. Before and after.
    folder = options.out if options.out is not None else Path(tempfile.mkdtemp(prefix="bmsdp-"))
    folder.mkdir(parents=True, exist_ok=True)
    row = {"side": side, "masks": options.masks, "n": A.shape[0], "noise": options.noise, "start": options.start, "error": error,
           "misfit": found.misfit, "products": found.products, "cpu_seconds": cpu, "peak_gb": peak}  # fmt: skip
    with open(folder / "coded_diffraction.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(row))
        table.writeheader()
        table.writerow(row)
    draw(image, b, pr.align(found.x, image), error, folder / "coded_diffraction.png")
    print(f"wrote {folder / 'coded_diffraction.png'} and .csv")


def draw(image: np.ndarray, b: np.ndarray, found: np.ndarray, error: float, path: Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(12, 3.5), dpi=110, layout="constrained")
    axes = figure.subplots(1, 4)
    pattern = np.fft.fftshift(b[: image.size].reshape(image.shape))
    blind = np.abs(np.fft.ifft2(b[: image.size].reshape(image.shape)))  # the magnitudes taken for the whole transform
    top = float(np.abs(image).max())
    panels = (
        ("the specimen", np.abs(image), {"cmap": "gray", "vmin": 0, "vmax": top}),
        ("measured: magnitudes behind one mask", np.log10(pattern + 1e-3 * pattern.max()), {"cmap": "viridis"}),
        ("before: magnitudes without their phases", blind, {"cmap": "gray", "vmax": float(np.quantile(blind, 0.995))}),
        (f"after: relative error {error:.0e}", np.abs(found), {"cmap": "gray", "vmin": 0, "vmax": top}),
    )
    for ax, (title, picture, look) in zip(axes, panels, strict=True):
        ax.imshow(picture, **look)
        ax.set_title(title, fontsize=10)
        ax.set_axis_off()
    figure.savefig(path)


if __name__ == "__main__":
    main()
