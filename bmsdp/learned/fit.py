"""Learn the relaxations of L mixing sweeps for a family of problems: PETRA trains them, the compiled sweep has the last word.

A stage of the network is one sweep (`bmsdp.learned.networks.SweepStage`).  Solvers contract, so their inverses expand: inputs are
reconstructed with the parameters of the forward (mode REVSTASH), which a stage has few of, and kept where rounding errors would still
grow too far.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._version import __version__
from ..problem import Problem
from ..theory import generic_rank
from . import distil
from .weights import MixingWeights

if TYPE_CHECKING:
    from .petra import Mode, Pipeline

Family = Sequence[Problem] | Callable[[np.random.Generator], Problem]
POOL = 12  # different batches that a generator makes
VALIDATION = 8  # problems
POLISHED = 16  # problems that a plain schedule is polished on


def fit(
    problems: Family, *, L: int = 16, rank: int | None = None, network: bool = True, steps: int = 200, mode: Mode | None = None, k: int = 1,
    rate: float = 3e-3, size: int = 4, hidden: int = 8, known: bool = True, checkpoints: str | Sequence[int] = "auto",
    start: MixingWeights | None = None, executor: Callable[[Pipeline, int], object] | None = None, rng: Any = None,
) -> MixingWeights:  # fmt: skip
    """Train a mixing network, or a plain schedule, on a family of problems.

    Parameters
    ----------
    problems : sequence of Problem, or callable
        Of one block size and one field, on `Oblique` or `StiefelProduct`.  A quarter of a list is held out for validation
        (one problem validates itself, from other starts); a function ``rng -> Problem`` draws as many as are needed.
    L : int
        Sweeps.
    rank : int, optional
        Columns in training; by default what the constraints of the largest problem need in general.  The weights serve any rank.
    network : bool
        A perceptron in every sweep, on top of the polished schedule.  False: PETRA trains the plain schedule, which then is polished.
    steps : int
        Batches; 0 leaves the polished schedule.
    mode : Mode, optional
        REVSTASH by default; on one core REVERSIBLE keeps as little and has no delay.  PETRA itself inverts with parameters that moved.
    k : int
        Batches averaged before an update.
    rate : float
        Of Adam, with warm-up, then half a cosine, gradients clipped at 1.
    size : int
        Problems in a batch.
    hidden : int
        Width of the perceptrons.
    known : bool
        Solve every problem first (certified gap 1e-9) and train on the logarithm of the gap; False: on the objective.
    checkpoints : "auto" or sequence of int
        Stages (from 1) that keep their input; "auto" measures how far rounding errors grow, see `networks.checkpointed`.
    start : MixingWeights, optional
        Where to begin: its L, and a network's perceptrons.  By default the polished schedule (plain: the best constant), less at first.
    executor : callable, optional
        ``executor(pipeline, batches)``: `petra.simulate` by default, `petra.threads`, or `petra.distributed` where all ranks call this.
    rng : int, Generator or None
        The result is a function of its seed, which ``meta`` keeps.

    Returns
    -------
    MixingWeights
        ``meta``: family, seed, what was reached on validation problems (geometric means of relative gaps after L sweeps: ``gaps``),
        the polished schedule (``schedule``), checkpoints, rows whose reconstruction failed (``outside``), what an error at the end
        has grown to when it is inverted to the start or to a checkpoint (``growth``).  The schedule may be the better one: see ``gaps``.

    Notes
    -----
    A step costs about ``5 L`` sparse products and, for small problems, a few hundred torch operations a colour and sweep: a dense C, where
    every row is a colour, is for ``steps=0``.  The delay of a pipeline is up to ``2 L`` batches: smaller rates for larger L.
    """
    _at_least(1, L=L, k=k, size=size, rank=1 if rank is None else rank)
    _at_least(0, steps=steps, hidden=hidden)
    if 0 < steps < k or not 0 < rate < np.inf:
        raise ValueError(f"steps = {steps}, k = {k}, rate = {rate}; needs steps >= k, or no update is made, and a finite rate > 0")
    how = _How(mode, k, rate, size, hidden if network else 0, checkpoints, steps, known, executor)
    seed = int(rng) if isinstance(rng, int | np.integer) else int(np.random.default_rng(rng).integers(2**31))
    return _fitted(problems, L if start is None else start.L, rank, start, how, seed)


def _at_least(bound: int, **numbers: int) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int | np.integer) or value < bound:
            raise ValueError(f"{name} = {value!r}; an integer {name} >= {bound} is needed")


class _How(NamedTuple):
    """The arguments of `fit` that say how to train."""

    mode: Mode | None
    k: int
    rate: float
    size: int
    hidden: int
    checkpoints: str | Sequence[int]
    steps: int
    known: bool
    executor: Callable[[Pipeline, int], object] | None


def _fitted(problems: Family, L: int, rank: int | None, start: MixingWeights | None, how: _How, seed: int) -> MixingWeights:
    train, held = _split(problems, how.size, seed)
    if how.steps:  # what training needs is better known before optimal values are computed
        from .networks.training import Training

        run = Training(how.mode, how.k, how.rate, how.size, how.hidden, how.checkpoints, seed, how.steps)
        run.check([*train, *held], L)
    if start is not None and not how.hidden:
        start = MixingWeights.from_schedule(np.clip(start.omega, *distil.BOUNDS))
    width = rank if rank is not None else max(generic_rank(p.manifold.m, np.dtype(p.dtype).kind == "c") for p in train)
    least = max(p.manifold.min_rank for p in [*train, *held])
    if width < least:
        raise ValueError(f"rank = {width}; blocks of {least} rows need rank >= {least}")
    trials = distil.samples(train if how.known and how.steps else train[:POLISHED], width, [seed, 2])
    few, tests = trials[:POLISHED], distil.samples(held, width, [seed, 3])
    constant = distil.best_constant(few, L)
    schedule = np.clip(np.full(L, constant), 1.05, 1.95) if start is None else start.omega
    if how.hidden or not how.steps:
        schedule = distil.polish(schedule, few)
    given = start is not None and (how.steps or not start.is_schedule)
    ramp = np.minimum(schedule, 1.4 + 0.1 * np.arange(L)) if how.steps else schedule  # at wide angles a great circle overshoots a chord
    weights = start if start is not None and given else MixingWeights.from_schedule(ramp)
    report: dict[str, Any] = {}
    if how.steps:
        optima = {id(trial.problem): trial.optimum for trial in trials} if how.known else None
        weights, report = run(weights, train, tests, width, optima, how.executor)
        if not how.hidden:
            schedule = distil.polish(weights.omega, few)
            weights = MixingWeights.from_schedule(schedule)
    gaps = report.pop("gaps", {}) | _reached(tests, constant, schedule, L)
    family = {"problems": len(train), "n": sorted({p.n for p in train}), "manifold": type(train[0].manifold).__name__}
    meta = {"L": L, "rank": width, "seed": seed, "steps": how.steps, "k": how.k, "rate": how.rate, "family": family, **report}
    meta |= {"constant": constant, "schedule": [float(w) for w in schedule], "gaps": gaps, "versions": _versions()}
    return MixingWeights(weights.a, weights.W1, weights.b1, weights.W2, meta)


def _split(problems: Family, size: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """(training problems, validation problems)."""
    if isinstance(problems, Problem):
        raise TypeError("one Problem given; a list of them is needed, [problem], or a function rng -> Problem")
    if callable(problems):
        drawn = [problems(np.random.default_rng([seed, 0, s])) for s in range(POOL * size + VALIDATION)]
        return _known(drawn[VALIDATION:]), _known(drawn[:VALIDATION])
    listed = _known(problems)
    if not listed:
        raise ValueError("no problems to learn from; pass at least one Problem, or a function rng -> Problem")
    held = len(listed) // 4
    return listed[: len(listed) - held], listed[len(listed) - held :] if held else listed


def _known(problems: Iterable[Any]) -> list[Problem]:
    """The problems in a list; TypeError where one is something else."""
    listed = list(problems)
    for given in listed:
        if not isinstance(given, Problem):
            raise TypeError(f"a {type(given).__name__} given; a Problem is needed: Problem(C, Oblique(np.ones(n)))")
    return listed


def _reached(tests: Sequence[distil.Sample], constant: float, schedule: Any, L: int) -> dict[str, float]:
    """Geometric means of relative gaps after L compiled sweeps."""
    found = {
        "constant": distil.log_gap([constant] * L, tests),
        "schedule": distil.log_gap(schedule, tests),
        "adaptive": distil.mean_log([test.adaptive(L) for test in tests]),
    }
    return {name: float(np.exp(value)) for name, value in found.items()}


def _versions() -> dict[str, str]:
    out = {"bmsdp": __version__, "numpy": np.__version__}
    torch = sys.modules.get("torch")
    return out | ({"torch": str(torch.__version__)} if torch else {})
