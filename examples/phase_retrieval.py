"""Phase retrieval from Gaussian measurements: recovery error and time against n, beside CVXPY with SCS where it can still run.

python examples/phase_retrieval.py                    d = 5 to 400 unknowns, n = 8 d measurements
python examples/phase_retrieval.py --noise 0.01       1 % noise on the magnitudes
python examples/phase_retrieval.py --out pictures     where to write phase_retrieval.png and phase_retrieval.csv

Three ways from the same A and b = |A x|: `retrieve` (lift, round, polish: the signal), `solve(problem(A, b))` (the PhaseCut
relaxation with a certificate, then its leading singular vector), and the same relaxation in CVXPY with SCS.  Times are CPU
seconds, medians over seeds; the polish that `retrieve` ends with is what makes its error so much smaller.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported

import matplotlib.figure  # noqa: E402
import numpy as np  # noqa: E402

import bmsdp  # noqa: E402
from bmsdp.applications import phase_retrieval as pr  # noqa: E402

RATIO = 8  # n / d
SOLVE_UP_TO, SCS_UP_TO = 1600, 100  # rows n


def instance(d: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, d])
    A = rng.standard_normal((RATIO * d, d, 2)).view(complex)[..., 0]
    x = rng.standard_normal((d, 2)).view(complex)[:, 0]
    b = np.abs(A @ x)
    return A, np.abs(b + noise * np.sqrt(np.mean(b**2)) * rng.standard_normal(b.size)), x


def retrieve(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    return pr.retrieve(A, b, rng=0, progress=False).x


def relax(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    result = bmsdp.solve(pr.problem(A, b), tol=1e-8, rng=0, progress=False)
    return pr.recover(result, A, b).x


def scs(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    import cvxpy as cp

    Q = np.linalg.qr(A)[0]
    C = b[:, None] * (np.eye(len(b)) - Q @ Q.conj().T) * b
    X = cp.Variable(C.shape, hermitian=True)
    problem = cp.Problem(cp.Minimize(cp.real(cp.trace(C @ X)) / np.linalg.norm(b) ** 2), [cp.diag(X) == 1, X >> 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of inaccurate solutions, and of CVXPY's own deprecations
        problem.solve(solver=cp.SCS, eps_abs=1e-6, eps_rel=1e-6, max_iters=5000)
    u = np.linalg.eigh((X.value + X.value.conj().T) / 2)[1][:, -1]
    return np.linalg.lstsq(A, b * u / np.abs(u), rcond=None)[0]


METHODS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], int]] = {
    "bmsdp, retrieve": (retrieve, 10**9), "bmsdp, PhaseCut relaxation": (relax, SOLVE_UP_TO), "CVXPY with SCS, PhaseCut": (scs, SCS_UP_TO),
}  # fmt: skip


def measure(sizes: list[int], noise: float, seeds: range) -> list[dict[str, float | str]]:
    rows: list[dict[str, float | str]] = []
    print(f"{'method':28} {'d':>5} {'n':>6} {'error':>9} {'worst':>9} {'seconds':>9}")
    for d in sizes:
        for name, (method, limit) in METHODS.items():
            if RATIO * d > limit or name.startswith("CVXPY") and not installed():
                continue
            errors, seconds = [], []
            for seed in seeds:
                A, b, x = instance(d, noise, seed)
                begin = time.process_time()
                found = method(A, b)
                seconds.append(time.process_time() - begin)
                errors.append(pr.relative_error(found, x))
            row = {"method": name, "d": d, "n": RATIO * d, "noise": noise, "seeds": len(seeds), "error": statistics.median(errors),
                   "worst_error": max(errors), "seconds": statistics.median(seconds)}  # fmt: skip
            rows.append(row)
            print(f"{name:28} {d:5d} {RATIO * d:6d} {row['error']:9.1e} {row['worst_error']:9.1e} {row['seconds']:9.3f}", flush=True)
    return rows


def installed() -> bool:
    try:
        import cvxpy
    except ImportError:
        return False
    return "SCS" in cvxpy.installed_solvers()


def draw(rows: list[dict[str, float | str]], path: Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(10, 4.2), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, colour, marker in zip(METHODS, ("#1b7f4d", "#0b5394", "#c77c11"), "o^s", strict=True):
        mine = [row for row in rows if row["method"] == name]
        if mine:
            n = [row["n"] for row in mine]
            left.loglog(n, [row["error"] for row in mine], color=colour, marker=marker, label=name)
            right.loglog(n, [row["seconds"] for row in mine], color=colour, marker=marker, label=name)
    left.set(xlabel="n = 8 d measurements", ylabel="relative error of the signal (median)", title="Recovery")
    right.set(xlabel="n = 8 d measurements", ylabel="CPU seconds (median)", title="Time")
    for ax in (left, right):
        ax.grid(True, color="0.92")
        ax.spines[["top", "right"]].set_visible(False)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, loc="outside lower center", ncols=3)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of the noise, relative to the magnitudes")
    parser.add_argument("--out", type=Path, help="folder for the picture and the table; a temporary one when absent")
    options = parser.parse_args()
    sizes, seeds = ([2, 3, 4], range(2)) if options.small else ([5, 10, 15, 25, 50, 100, 200, 400], range(3))
    for _, (method, _) in METHODS.items():
        if method is not scs:
            method(*instance(2, 0.0, 0)[:2])  # compiles
    rows = measure(sizes, options.noise, seeds)
    folder = options.out if options.out is not None else Path(tempfile.mkdtemp(prefix="bmsdp-"))
    folder.mkdir(parents=True, exist_ok=True)
    draw(rows, folder / "phase_retrieval.png")
    with open(folder / "phase_retrieval.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    print(f"wrote {folder / 'phase_retrieval.png'} and .csv")


if __name__ == "__main__":
    main()
