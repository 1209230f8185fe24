"""The part "learned": does the default solver gain from a schedule at its start?  Whole solves, certificates included.

"from 1.8" is ``Mixing(schedule=(1.8,))``, one number; "schedule" has that of `bmsdp.theory.schedules` for the instance.  CPU seconds over
seeds that all three share, one after the other; the ratio is to the default.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import instances
import numpy as np
import scipy.sparse as sp
from rivals import Run

import bmsdp
from bmsdp.io.rudy import read_rudy
from bmsdp.solvers import Default, Mixing
from bmsdp.theory.schedules import schedule


def given(settings: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, C, manifold) of the G-set, and of the gallery where mixing runs."""
    names = ["G1"] if settings.small else list(instances.TARGETS)
    for name in [name for name in names if settings.only in name and (settings.data / f"{name}.rud").is_file()]:
        yield name, read_rudy(Path(settings.data / f"{name}.rud"))[0], None
    for instance in [i for i in instances.GALLERY if settings.only in i.call and (i.small or not settings.small)]:
        C, A = instance.make()
        if not isinstance(A, bmsdp.StiefelProduct):
            yield instance.call, C, A


def starts(C: Any) -> dict[str, Any]:
    """Name -> solver."""
    off = sp.csr_array(C) if sp.issparse(C) else None
    entries = len(C) - 1 if off is None else (off.nnz - np.count_nonzero(off.diagonal())) / off.shape[0]
    omega = schedule(C.shape[0], entries, complex=np.iscomplexobj(C if off is None else off.data))
    return {
        "bmsdp": Default(), "bmsdp, from 1.8": Default(mixing=Mixing(schedule=(1.8,))),
        "bmsdp, schedule": Default(mixing=Mixing(schedule=omega)),
    }  # fmt: skip


def rows(settings: Any, row: Callable[..., Any]) -> Iterator[Any]:
    """One line per instance, tolerance and start; geometric means of the ratios, and the worst, at the end."""
    for tol in (1e-6, 1e-9):
        ratios: dict[str, list[float]] = {}
        for name, C, A in given(settings):
            spent: dict[str, list[float]] = {}
            ends: dict[str, bmsdp.Result] = {}
            for seed in range(settings.repeat + 1):  # the first compiles, and estimates nothing twice
                for method, solver in starts(C).items():
                    begin = time.process_time()
                    ends[method] = bmsdp.solve(C, A, tol=tol, rng=seed, progress=False, solver=solver, max_time=settings.limit)
                    spent.setdefault(method, []).append(time.process_time() - begin)
            default = sum(spent["bmsdp"][1:])
            for method, result in ends.items():
                ratio = sum(spent[method][1:]) / default
                ratios.setdefault(method, []).append(ratio)
                done = result.status is bmsdp.Status.CERTIFIED
                run = Run(method, statistics.median(spent[method][1:]), result.gap, result.certificate.rigor, result.rank, done)
                yield row("learned", name, len(result.Y), tol, run, f"{ratio:.2f}")
        for method, found in ratios.items():
            mean = math.exp(statistics.fmean(map(math.log, found)))
            print(f"   {tol:g}: {method:<16} {mean:.3f} of the default's time over {len(found)} instances, worst {max(found):.2f}")
