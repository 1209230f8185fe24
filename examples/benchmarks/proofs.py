"""The part "verified": what a bound in exact arithmetic costs, in the bound and in time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rivals import Run

import bmsdp
from bmsdp import gallery, verified
from bmsdp.applications.maxcut import laplacian_cost
from bmsdp.io.rudy import read_rudy
from bmsdp.manifolds import Oblique

NAMES = ("G1", "G11", "G14", "G43", "G48", "G67")
LIKE_G70 = "gallery.gnp(10_000, 2e-4, rng=0)"


def rows(settings: Any, row: Callable[..., Any]) -> Iterator[Any]:
    """One row an instance; `row` makes it."""
    for name, C in costs(settings):
        result = bmsdp.solve(C, rng=1, progress=False)
        found = verified.lower_bound(C, dual=result.dual)
        plain = median(lambda C=C, y=result.dual: factorise(C, y), settings.repeat)
        full = median(lambda C=C, y=result.dual: verified.lower_bound(C, dual=y), settings.repeat)
        allowed, loss = allowance(C, result), found.estimate - found.bound
        gap = (result.cost - found.bound) / max(abs(result.cost), abs(found.bound))
        run = Run("bmsdp.verified", full, gap, "verified", result.rank, loss <= allowed)
        remark = (
            f"bound {found.bound:.15g}, estimate {found.estimate:.15g}; "
            f"lost {loss:.1e} of {allowed:.1e}; {full / plain:.2f} x the bare factorisation"
        )
        yield row("verified", name, C.shape[0], 1e-6, run, remark)


def costs(settings: Any) -> Iterator[tuple[str, Any]]:
    for name in NAMES[:2] if settings.small else NAMES:
        path = settings.data / f"{name}.rud"
        if settings.only in name and path.is_file():
            yield name, read_rudy(path)[0]
    name = LIKE_G70 if not settings.small else LIKE_G70.replace("10_000, 2e-4", "500, 4e-3")
    if settings.only in name:
        yield f"laplacian_cost({name})", laplacian_cost(eval(name, {"gallery": gallery}))


def form(C: Any, y: np.ndarray) -> Any:
    operator = bmsdp.operators.as_operator(C)
    return verified.SlackForm.of(operator, Oblique(np.ones(operator.n)), y)


def factorise(C: Any, y: np.ndarray) -> None:
    """The same analysis and factorisation without a bound on its errors."""
    slack = form(C, y)
    slack.factor(slack.analyse(), slack.diagonal)


def median(call: Callable[[], Any], repeat: int) -> float:
    seconds = []
    for _ in range(2 * repeat + 1):
        begin = time.process_time()
        call()
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds)


def allowance(C: Any, result: bmsdp.Result) -> float:
    """``max(1e-9 |f|, 4 n p u tr S)``, p the entries per column of the factor."""
    slack = form(C, result.dual)
    tree = slack.analyse()
    entries = tree.pointer[-1] + tree.core * (tree.core + 1) / 2
    n = len(slack.diagonal)
    return max(1e-9 * abs(result.cost), 4 * n * (entries / n) * 2.0**-53 * float(slack.diagonal.sum()))
