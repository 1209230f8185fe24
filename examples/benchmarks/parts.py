"""The parts of the benchmark; each yields rows as it gets them."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import families
import general
import instances
import learned
import phase
import poses
import proofs
import rivals
import secants
from instances import Instance
from rivals import Run, Watch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOL = 1e-6
DENSE = {"gset": 400, "gallery": 100}  # largest n for CVXPY
UNGUARDED = 100  # largest n for which they run in this process
QUICK = 2.0  # seconds below which a rival too is run several times


@dataclass(frozen=True)
class Settings:
    small: bool = False
    data: Path = ROOT.parent / "shared" / "data" / "gset"
    repeat: int = 3
    only: str = ""

    @property
    def limit(self) -> float:
        """CPU seconds for a rival."""
        return 2.0 if self.small else 30.0


@dataclass(frozen=True)
class Row:
    """One line of output."""

    part: str
    instance: str
    n: int
    tol: float
    run: Run
    remark: str = ""


def median(runs: list[Run]) -> Run:
    """The run of median time; reached only if all were."""
    middle = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    seconds = statistics.median(run.seconds for run in runs)
    worst = max(runs, key=lambda run: run.gap)
    return replace(
        middle, seconds=seconds, gap=worst.gap, rigor=worst.rigor, reached=all(r.reached for r in runs), note=worst.note
    )


def timed(read: Any, tol: float, settings: Settings) -> Run:
    """Ours, over ``repeat`` seeds, after one run that compiles."""
    rivals.ours(read, TOL, 0)
    return median([rivals.ours(read, tol, seed)[0] for seed in range(1, settings.repeat + 1)])


def alternatives(part: str, instance: Instance, rank: int, settings: Settings) -> Iterator[Run]:
    """Every rival that applies, at the rank that ours ended with."""
    problem = instance.problem()
    for method in (rivals.pymanopt_trust_regions, rivals.scipy_lbfgs):
        runs: list[Run] = []
        while len(runs) < settings.repeat and (not runs or runs[-1].seconds < QUICK):
            run = method(problem, rank, Watch(problem, TOL, settings.limit), len(runs) + 1)
            if run is None:
                break
            runs.append(run)
        if runs:
            yield median(runs)
    if problem.n <= (60 if settings.small else DENSE[part]):
        for solver in ("SCS", "CLARABEL"):
            if problem.n <= UNGUARDED:
                yield rivals.cvxpy_solver(problem, solver, TOL, settings.limit)
            else:
                yield guarded(part, instance, solver, settings.limit)


def guarded(part: str, instance: Instance, solver: str, limit: float) -> Run:
    """`rivals.cvxpy_solver` where it may need far more time or memory than it was granted."""
    kind = "SMALL_GRAPHS" if part == "gset" else "GALLERY"
    number = getattr(instances, kind).index(instance)
    try:
        out = _child(["guarded.py", kind, str(number), solver, str(TOL), str(limit)], {}, timeout=4 * limit)
    except subprocess.TimeoutExpired:
        note, spent = "killed: did not look at its clock", 4 * limit
    except subprocess.CalledProcessError:
        note, spent = "died, most likely of its 8 GB of memory", limit
    else:
        return Run(**{key: value for key, value in out.items() if key != "process"})
    return Run(f"CVXPY {'SCS' if solver == 'SCS' else 'Clarabel'}", spent, math.inf, "estimate", 0, False, note)


def gset(settings: Settings) -> Iterator[Row]:
    """Reading included: ours at 1e-6 against the target and at 1e-9, beside pymanopt; then small graphs beside CVXPY."""
    from bmsdp.io.rudy import read_rudy

    def reader(path: Path) -> Any:
        return lambda: (read_rudy(path)[0], None)

    names = [name for name in instances.TARGETS if settings.only in name]
    if settings.small and not settings.only:
        names = ["G1", "G48"]
    missing = [name for name in names if not (settings.data / f"{name}.rud").is_file()]
    if missing:
        print(f"   {', '.join(missing)} not found; pass --data DIR with the files G1.rud, ... of the G-set")
    for name in [name for name in names if name not in missing]:
        make = reader(settings.data / f"{name}.rud")
        instance, n = Instance("G-set", name, make), make()[0].shape[0]
        run = timed(make, TOL, settings)
        target = instances.TARGETS[name]
        yield Row("gset", name, n, TOL, run, f"target {target}: {'met' if run.seconds <= target and run.reached else 'MISSED'}")
        yield Row("gset", name, n, 1e-9, timed(make, 1e-9, settings))
        problem = instance.problem()
        yield Row("gset", name, n, TOL, rivals.pymanopt_trust_regions(problem, run.rank, Watch(problem, TOL, settings.limit), 1))
    for instance in [i for i in instances.SMALL_GRAPHS if settings.only in i.call and (i.small or not settings.small)]:
        data = instance.make()
        n, run = data[0].shape[0], timed(lambda data=data: data, TOL, settings)
        yield Row("gset", instance.call, n, TOL, run)
        for rival in alternatives("gset", instance, run.rank, settings):
            yield Row("gset", instance.call, n, TOL, rival)


def gallery(settings: Settings) -> Iterator[Row]:
    """Ours against the best rival on every kind of instance; at the end the geometric mean of the ratios."""
    ratios: list[float] = []
    for instance in [i for i in instances.GALLERY if settings.only in i.call and (i.small or not settings.small)]:
        data = instance.make()
        n, run = data[0].shape[0], timed(lambda data=data: data, TOL, settings)
        others = list(alternatives("gallery", instance, run.rank, settings))
        ratio, remark = compare(run, others)
        if run.reached:
            ratios.append(ratio)
        yield Row("gallery", instance.call, n, TOL, run, remark)
        for rival in others:
            yield Row("gallery", instance.call, n, TOL, rival)
    if ratios:
        mean, worst = math.exp(statistics.fmean(map(math.log, ratios))), max(ratios)
        print(f"\n   {len(ratios)} instances, time over that of the best rival: geometric mean {mean:.3f}, worst {worst:.2f}")


def compare(run: Run, others: list[Run]) -> tuple[float, str]:
    """Our time over the best rival's; where none reached the gap, over the longest tried, which is then an upper bound."""
    winners = [other for other in others if other.reached]
    if winners:
        best = min(winners, key=lambda other: other.seconds)
        ratio = run.seconds / best.seconds
        return ratio, f"{ratio:.2f} x {best.method}"
    ratio = run.seconds / max(other.seconds for other in others)
    return ratio, f"< {ratio:.2f}: no rival got there"


def million(settings: Settings) -> Iterator[Row]:
    """A sparse random graph with 5 edges a vertex, two threads, wall time, in a process of its own for its peak memory."""
    n, tol, limit = (20_000, 1e-2, 10) if settings.small else (10**6, 1e-3, 180)
    out = _child(["million.py", str(n), str(tol), str(limit)], {})
    run = Run("bmsdp, 2 threads", out["seconds"], out["gap"], out["rigor"], out["rank"], out["success"], out["note"])
    remark = f"wall time; peak memory {out['peak']:.2f} GB, before the solve {out['before']:.2f} GB"
    yield Row("million", f"gallery.gnp({n}, {10 / n:g}, rng=0)", n, tol, run, remark)


def start(settings: Settings) -> Iterator[Row]:
    """Wall time of the import and of the first solve in fresh processes, with a cold and with a warm Numba cache."""
    path = settings.data / "G1.rud"
    name = "G1" if path.is_file() else "gallery.gnp(800, 0.06, rng=0)"
    with tempfile.TemporaryDirectory() as cache:
        for state in ("cold", "warm"):
            out = _child(["start.py", str(path) if path.is_file() else ""], {"NUMBA_CACHE_DIR": cache})
            run = Run(f"bmsdp, {state} cache", out["seconds"], out["gap"], out["rigor"], out["rank"], out["success"])
            remark = f"wall time of the whole process {out['process']:.2f} s, import bmsdp {out['import']:.2f} s"
            yield Row("start", name, out["n"], TOL, run, remark)


def verification(settings: Settings) -> Iterator[Row]:
    """The verified bound beside the estimate, and its time beside that of the same factorisation without error bounds."""
    yield from proofs.rows(settings, Row)


def phase_retrieval(settings: Settings) -> Iterator[Row]:
    """Signals from magnitudes, ours beside projection methods; the column "gap" is the median relative error of the signal."""
    yield from phase.rows(settings, Row)


def sdplib(settings: Settings) -> Iterator[Row]:
    """Any semidefinite program: files of SDPLIB and some of their size, beside CSDP and Clarabel."""
    yield from general.rows(settings, Row)


def slam(settings: Settings) -> Iterator[Row]:
    """Pose graphs, from the file to certified poses; n counts poses; times of SE-Sync are from another machine."""
    yield from poses.rows(settings, Row, TOL)


def _child(command: list[str], extra: dict[str, str], timeout: float | None = None) -> dict[str, Any]:
    """Run a script of this folder; it prints one line of JSON."""
    import time

    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(HERE / command[0]), *command[1:]],
        env=os.environ | extra | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True, timeout=timeout,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1]) | {"process": time.perf_counter() - begin}


def preconditioners(settings: Settings) -> Iterator[Row]:
    """Trust regions with and without preconditioners to a gradient norm of 1e-6, n = 800; the gap is that norm."""
    yield from secants.rows(settings, Row)


def solvers(settings: Settings) -> Iterator[Row]:
    """Our solvers beside each other to a relative gradient of 1e-8, with and without cheap rows; the gap is that gradient."""
    yield from families.rows(settings, Row)


def learned_start(settings: Settings) -> Iterator[Row]:
    """The default solver with and without a schedule at its start; the remark is the time over the default's."""
    yield from learned.rows(settings, Row)


PARTS = {
    "gset": gset, "gallery": gallery, "million": million, "start": start, "verified": verification, "phase": phase_retrieval,
    "sdplib": sdplib, "secants": preconditioners, "solvers": solvers, "slam": slam,
    "learned": learned_start,
}  # fmt: skip
