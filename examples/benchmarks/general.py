"""The part "sdplib": general semidefinite programs beside CSDP (where its program is installed) and Clarabel, at an equal certified gap.

CSDP gets the file, one thread, and CPU seconds of its own process, reading included, twice: with its defaults, as a user would call
it, and ("CSDP, tuned") with its tolerances set to the gap (``param.csdp``).  Ours reads the same file.  CSDP's gap is that between the
cost of its X and the bound that `bmsdp.verified.lower_bound` proves from its y: neither is asked of it, and the time for both is not
counted.  Clarabel gets the LMI form through `bmsdp.interior_point`, its bound proved as ours is.
"""

from __future__ import annotations

import functools
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from rivals import Run

import bmsdp
from bmsdp import gallery
from bmsdp.applications.maxcut import laplacian_cost
from bmsdp.io.sdpa import read_sdpa, write_sdpa
from bmsdp.io.solution import read_solution
from bmsdp.verified import lower_bound

FILES = ("theta4", "thetaG11", "gpp500-1", "qpG11", "maxG51", "theta1", "theta2", "theta3", "gpp100", "gpp250-1", "mcp500-1")
SMALL = ("theta1", "gpp100", "mcp100")
INTERIOR = 60  # rows up to which Clarabel is asked as well
PARAMETERS = """axtol={0}\natytol={0}\nobjtol={1}\npinftol=1.0e8\ndinftol=1.0e8\nmaxiter=100\nminstepfrac=0.9\nmaxstepfrac=0.97\n
minstepp=1.0e-8\nminstepd=1.0e-8\nusexzgap=1\ntweakgap=0\naffine=0\nprintlevel=0\nperturbobj=1\nfastmode=0\n"""


def theta(W: Any) -> tuple[sp.csr_array, sp.csr_array, np.ndarray]:
    """``min <-J, X>, tr X = 1, X_ij = 0`` on the edges."""
    n = W.shape[0]
    edges = sp.coo_array(sp.triu(W, 1))
    i, j = edges.coords
    row = np.arange(1, len(i) + 1)
    where = np.concatenate([np.zeros(n, int), row, row]), np.concatenate([np.arange(n, dtype=np.int64) * (n + 1), i * n + j, j * n + i])
    A = sp.csr_array((np.concatenate([np.ones(n), np.full(2 * len(i), 0.5)]), where), shape=(len(i) + 1, n * n))
    return sp.csr_array(-np.ones((n, n))), A, np.concatenate([[1.0], np.zeros(len(i))])


GENERATED: dict[str, Callable[[], Any]] = {
    "theta6-size: theta(gallery.gnp(300, 0.0975, rng=0))": lambda: theta(gallery.gnp(300, 0.0975, rng=0)),
    "max-cut: laplacian_cost(gallery.toroidal_grid(40, 50, rng=0))": lambda: _diagonal(gallery.toroidal_grid(40, 50, rng=0)),
}


def _diagonal(W: Any) -> tuple[sp.csr_array, sp.csr_array, np.ndarray]:
    """The max-cut relaxation, its unit diagonal as rows."""
    C, n = laplacian_cost(W), W.shape[0]
    places = np.arange(n), np.arange(n, dtype=np.int64) * (n + 1)
    return C, sp.csr_array((np.ones(n), places), shape=(n, n * n)), np.ones(n)


def rows(settings: Any, row: Callable[..., Any]) -> Iterator[Any]:
    """Every instance, ours first."""
    data = settings.data.parent / "sdplib"
    names = [name for name in (SMALL if settings.small else FILES) if settings.only in name]
    missing = [name for name in names if not (data / f"{name}.dat-s").is_file()]
    if missing:
        print(f"   {', '.join(missing)} not found in {data}; pass --data DIR with a folder sdplib beside it")
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: data / f"{name}.dat-s" for name in names if name not in missing}
        for number, (name, make) in enumerate(GENERATED.items()):
            if settings.only in name and not settings.small:
                paths[name] = Path(folder) / f"{number}.dat-s"
                write_sdpa(paths[name], *make())
        for name, path in paths.items():
            yield from _instance(name, path, settings, row, Path(folder))


def _instance(name: str, path: Path, settings: Any, row: Callable[..., Any], folder: Path) -> Iterator[Any]:
    C, A, b, meta = read_sdpa(path)
    n, tol = C.shape[0], 1e-6
    runs = [ours(path, tol, seed) for seed in range(settings.repeat + 1)][1:]  # the first one compiles
    mine = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    rivals = []
    if shutil.which("csdp"):
        for tuned in (False, True):
            rivals.append(csdp(path, C, A, b, meta["blocks"], tol, tuned, folder, 10 * settings.limit))
    if n <= INTERIOR:
        rivals.append(clarabel(C, A, b, meta["blocks"], tol))
    told = [f"{mine.seconds / other.seconds:.3f} x {other.method}" + ("" if other.reached else " (not there)") for other in rivals]
    yield row("sdplib", name, n, tol, mine, ", ".join(told))
    for other in rivals:
        yield row("sdplib", name, n, tol, other)


def ours(path: Path, tol: float, seed: int) -> Run:
    """Reading, solving and certifying."""
    begin = time.process_time()
    C, A, b, meta = read_sdpa(path)
    result = bmsdp.solve(C, A, b, blocks=meta["blocks"], tol=tol, rng=seed, progress=False)
    seconds = time.process_time() - begin
    rigor = result.certificate.rigor if result.certificate is not None else "none"
    return Run("bmsdp", seconds, result.gap, rigor, result.rank, result.success and result.gap <= tol, result.status.name)


def csdp(path: Path, C: Any, A: Any, b: Any, blocks: Any, tol: float, tuned: bool, folder: Path, limit: float) -> Run:
    """CSDP's own process, and what its solution proves."""
    solution = folder / "csdp.sol"
    solution.unlink(missing_ok=True)
    name, parameters = "CSDP, tuned" if tuned else "CSDP", folder / "param.csdp"
    parameters.unlink(missing_ok=True)
    if tuned:
        parameters.write_text(PARAMETERS.format(tol / 10, tol))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    note = ""
    try:
        done = subprocess.run(
            ["csdp", str(path), str(solution)], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True,
            preexec_fn=functools.partial(resource.setrlimit, resource.RLIMIT_CPU, (int(limit), int(limit) + 1)), check=False,
        )  # fmt: skip
        note = f"exit code {done.returncode}" if done.returncode else ""
    except OSError as error:
        note = str(error)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if not solution.is_file():
        return Run(name, seconds, np.inf, "none", 0, False, note or "no solution")
    y, _, X = read_solution(solution, len(b), blocks, C.shape[0])
    found = lower_bound(C, A, b, -y, blocks=blocks)
    cost = float((C.multiply(X)).sum())
    gap = (cost - found.bound) / max(abs(cost), abs(found.bound))
    return Run(name, seconds, gap, "verified", 0, gap <= tol, note)


def clarabel(C: Any, A: Any, b: Any, blocks: Any, tol: float) -> Run:
    """Clarabel in LMI form."""
    begin = time.process_time()
    result = bmsdp.solve(C, A, b, blocks=blocks, tol=tol, method="interior_point", progress=False)
    seconds = time.process_time() - begin
    return Run("CVXPY Clarabel (LMI)", seconds, result.gap, "verified", 0, result.gap <= tol, result.status.name)
