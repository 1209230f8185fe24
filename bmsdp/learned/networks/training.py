"""A training run of `bmsdp.learned.fit`: stages, batches, optimizers, and what was reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...problem import Problem
from ..distil import BOUNDS, FLOOR, Sample, mean_log
from ..petra import REVSTASH, Checkpointed, Mode, Pipeline, Stage, Streams, simulate
from ..petra.optimizers import adam, warmup_cosine
from ..weights import MixingWeights
from .instances import Draws, Instance, block_size, instance
from .sweep import LogGap, Objective, SweepStage, checkpointed, gaps, network, weights_of

Executor = Callable[[Pipeline, int], object]
CLIP = 1.0  # largest norm of a stage's gradient
ROUNDS = 4  # between which the pipeline runs empty, and is looked at for new checkpoints
LIMIT = 1e-8  # error of a reconstruction from which an input is kept; amplification may grow 10^4-fold within a round


@dataclass(frozen=True)
class Training:
    """How weights are trained; see `bmsdp.learned.fit` for the meaning of the fields.

    Calling it with weights, problems to train on, samples to validate on and the optimal values (by ``id`` of the problem, or None)
    returns new weights and a report.
    """

    mode: Mode | None = None
    k: int = 1
    rate: float = 3e-3
    size: int = 4
    hidden: int = 8
    checkpoints: str | Sequence[int] = "auto"
    seed: int = 0
    steps: int = 200

    def __call__(
        self, start: MixingWeights, problems: Sequence[Problem], tests: Sequence[Sample], rank: int, optima: dict[int, float] | None,
        executor: Executor | None = None,
    ) -> tuple[MixingWeights, dict[str, Any]]:  # fmt: skip
        optimum = None if optima is None else (lambda problem: optima[id(problem)])
        draws = Draws(problems, rank, size=self.size, seed=self.seed, optimum=optimum)
        sweeps, updates = self.grown(start), max(self.steps // self.k, 1)
        kept: set[int] = set()
        losses: list[float] = []
        rounds = np.diff(np.linspace(0, updates, min(ROUNDS, updates) + 1).astype(int)) * self.k
        rounds[-1] += self.steps - rounds.sum()
        optimize, first = _lasting(self.rate), 0
        for count in map(int, rounds):
            kept |= self.chosen(sweeps, draws, first)
            stages = [Checkpointed(stage) if j in kept else stage for j, stage in enumerate(sweeps, 1)]
            pipeline = Pipeline(
                [*stages, Objective() if optima is None else LogGap(FLOOR)], Shifted(draws, first), optimize, self.mode or REVSTASH, self.k,
                _after(warmup_cosine(min(updates // 10, 20), updates), first // self.k), CLIP,
            )  # fmt: skip
            (executor or simulate)(pipeline, count)
            losses, first = [loss for _, loss in pipeline.losses], first + count
        outside = sum(stage.outside for stage in sweeps)
        here, x = together(tests)
        report: dict[str, Any] = {"mode": pipeline.mode.name, "checkpoints": sorted(kept), "outside": outside, "losses": losses[-10:]}
        report["growth"] = float(f"{max(checkpointed(sweeps, x, here)[1]):.3g}")
        report["gaps"] = {"network before": reached(self.grown(start), tests), "network": reached(sweeps, tests)}
        return weights_of(sweeps), report

    def check(self, problems: Sequence[Problem], L: int) -> None:
        """Raises where the problems do not fit together, or the arguments do not fit L sweeps."""
        block_size(problems)
        if not isinstance(self.mode, Mode | None):
            raise TypeError(f"mode = {self.mode!r}; one of bmsdp.learned.petra is needed, such as petra.REVSTASH")
        self.asked(L)

    def asked(self, L: int) -> set[int] | None:
        """The stages (from 1) that were told to keep their input; None for "auto"."""
        if isinstance(self.checkpoints, str):
            if self.checkpoints == "auto":
                return None
            raise ValueError(f'checkpoints = {self.checkpoints!r}; "auto" or the numbers of stages are needed')
        asked = {int(j) for j in self.checkpoints}
        if not asked <= set(range(1, L + 1)):
            raise ValueError(f"checkpoints = {sorted(asked)}; stages are counted from 1 to {L}")
        return asked

    def grown(self, start: MixingWeights) -> list[SweepStage]:
        """The stages of ``start``, with silent perceptrons where it has none and ``hidden`` asks for them."""
        if not self.hidden or start.W2.shape[1]:
            return network(start)
        generator = torch.Generator().manual_seed(self.seed % 2**63)
        return [SweepStage(float(omega), self.hidden, generator) for omega in np.clip(start.omega, *BOUNDS)]

    def chosen(self, sweeps: list[SweepStage], draws: Draws, batch: int) -> set[int]:
        """The stages (from 1) that keep their input from this batch on: as asked, or those whose reconstructions fail, or soon might."""
        asked = self.asked(len(sweeps))
        if asked is not None:
            return asked
        failed = {j for j, stage in enumerate(sweeps, 1) if stage.outside}
        counts = [stage.outside for stage in sweeps]
        stages, _ = checkpointed(sweeps, draws.inputs(batch), draws.context(batch), LIMIT)
        for stage, count in zip(sweeps, counts, strict=True):
            stage.outside = count
        return failed | {j for j, stage in enumerate(stages, 1) if isinstance(stage, Checkpointed)}


@dataclass(frozen=True)
class Shifted:
    """Batches from number ``first`` on."""

    batches: Draws
    first: int

    def inputs(self, batch: int) -> Streams:
        """Of batch ``first + batch``."""
        return self.batches.inputs(self.first + batch)

    def context(self, batch: int) -> Instance:
        """Of batch ``first + batch``."""
        return self.batches.context(self.first + batch)


def _lasting(rate: float) -> Callable[[Stage], torch.optim.Optimizer]:
    """Adam whose moments outlast a pipeline: a stage gets the optimizer that its parameters had."""
    kept: dict[int, torch.optim.Optimizer] = {}

    def optimize(stage: Stage) -> torch.optim.Optimizer:
        optimizer = kept.setdefault(id(stage.params[0]), adam(rate)(stage))
        for group in optimizer.param_groups:
            group["lr"] = rate
        return optimizer

    return optimize


def _after(schedule: Callable[[int], float], done: int) -> Callable[[int], float]:
    return lambda u: schedule(done + u)


def together(tests: Sequence[Sample]) -> tuple[Instance, tuple[torch.Tensor]]:
    """Samples side by side: the instance and its start."""
    here = instance([test.problem for test in tests], [test.optimum for test in tests])
    return here, (here.into([test.start for test in tests]),)


@torch.no_grad()
def reached(stages: Sequence[Stage], tests: Sequence[Sample]) -> float:
    """Geometric mean of the relative gaps of samples after the stages."""
    here, x = together(tests)
    for stage in stages:
        x = stage(x, here)
    return float(np.exp(mean_log(gaps(x[0], here).numpy())))
