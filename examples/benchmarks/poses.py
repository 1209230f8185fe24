"""The part "slam": pose graphs from the file to certified poses, beside the times of SE-Sync."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from rivals import Run

from bmsdp.applications import slam

# CPU seconds of SE-Sync (C++) on the released file, where known
KNOWN = {
    "tinyGrid3D": None, "smallGrid3D": None, "sphere2500": 0.64, "parking-garage": 0.61, "CSAIL": None, "manhattan": 0.20,
}  # fmt: skip
SIMULATED = {
    "slam.sphere(25, 25, rng=0)": True, "slam.sphere(100, 100, 50.0, rng=0)": False, "slam.torus(100, 100, (50.0, 15.0), rng=0)": False,
    "slam.grid((100, 100), rng=0)": False, "slam.manhattan(10_000, rng=0)": False,
    "slam.grid((5, 5, 5), kappa=2, tau=10, rng=0)": True,
}  # fmt: skip


def rows(settings: Any, row: Callable[..., Any], tol: float) -> Iterator[Any]:
    """One row an instance; `row` makes it."""
    folder = settings.data.parent / "g2o"
    names = [name for name in KNOWN if settings.only in name]
    missing = [name for name in names if not (folder / f"{name}.g2o").is_file()]
    if missing:
        print(f"   {', '.join(missing)} not found in {folder}")
    for name in [name for name in names if name not in missing]:
        seconds, path = KNOWN[name], folder / f"{name}.g2o"
        found, run, n = timed(lambda path=path: slam.read(path), tol, settings.repeat)
        remark = f"objective {found.objective:.9g}"
        if seconds is not None:
            remark += f"; {run.seconds / seconds:.2f} x the {seconds} s of SE-Sync"
        yield row("slam", name, n, tol, run, remark)
    for call in [call for call, small in SIMULATED.items() if settings.only in call and (small or not settings.small)]:
        graph = eval(call, {"slam": slam})
        found, run, n = timed(lambda graph=graph: graph, tol, settings.repeat)
        yield row("slam", call, n, tol, run, f"objective {found.objective:.9g}, of the truth {graph.objective(*graph.poses):.6g}")


def timed(make: Callable[[], Any], tol: float, repeat: int) -> tuple[Any, Run, int]:
    """The median of some runs, after one that compiles; the gap is that of the relaxation, the rank that of its solution."""
    times = []
    for _ in range(repeat + 1):
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a released file repeats an edge
            graph = make()
        found = slam.solve(graph, tol=tol, rng=1, progress=False)
        times.append(time.process_time() - start)
    gap = max(result.gap for result in found.results)
    note = "" if found.gap <= 10 * tol else f"poses {found.gap:.1e} above the bound: not tight"
    return found, Run("bmsdp", statistics.median(times[1:]), gap, found.rigor, found.rank, found.success, note), graph.n
