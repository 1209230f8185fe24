"""A network, its data and its optimizers: what is trained, and the executor that trains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .modes import PETRA, Mode, Plan
from .segment import Batches, Observer, Segment
from .stage import Head, Stage, Streams
from .worker import Optimize, Worker


class Pipeline:
    """A network of stages in training.

    Parameters
    ----------
    stages : sequence of Stage
        The last one is a `Head`.
    batches : Batches
        ``inputs(b)`` and ``context(b)`` for batch b; functions of b alone.
    optimize : callable
        ``optimize(stage)`` returns the torch optimizer of one stage; see `sgd` and `adam`.
    mode : Mode
    k : int
        Gradients of k batches are averaged before an update.
    schedule : callable, optional
        Factor on the learning rates for update number u of a stage, from 0.
    clip : float, optional
        Largest norm of a stage's averaged gradient.

    Attributes
    ----------
    t : int
        The next tick.
    workers : list of Worker
    losses : list of (batch, loss)
    """

    def __init__(
        self, stages: Sequence[Stage], batches: Batches, optimize: Optimize, mode: Mode = PETRA, k: int = 1,
        schedule: Callable[[int], float] | None = None, clip: float | None = None,
    ) -> None:  # fmt: skip
        if not stages or not isinstance(stages[-1], Head) or any(isinstance(stage, Head) for stage in stages[:-1]):
            kinds = ", ".join(type(stage).__name__ for stage in stages) or "none"
            raise ValueError(f"stages: {kinds}; a network is any number of stages and one Head, which comes last")
        if k < 1:
            raise ValueError(f"k = {k}; an update averages the gradients of k >= 1 batches")
        owner: dict[int, int] = {}
        for j, stage in enumerate(stages, 1):
            if any(owner.setdefault(id(p), j) != j for p in stage.params):
                raise ValueError(f"stage {j} shares a parameter with an earlier stage; every stage has its own parameters and optimizer")
        J = len(stages)
        self.stages, self.batches, self.mode, self.k = list(stages), batches, mode, k
        self.workers = [Worker(stage, j, J, mode, optimize, k, schedule, clip) for j, stage in enumerate(stages, 1)]
        for before, worker in zip(self.workers, self.workers[1:], strict=False):
            worker.wants_output = before.inverts
        self.t = 0
        self.forward_in: dict[int, Streams] = {}
        self.backward_in: dict[int, Streams] = {}

    def plan(self, batches: int) -> Plan:
        """Who does what at which tick, when ``batches`` batches enter in all."""
        return Plan(len(self.stages), self.mode.period(len(self.stages)), batches)

    def segment(self, batches: int, first: int = 1, last: int | None = None, **links: Any) -> Segment:
        """Stages first..last (from 1) with the messages that wait for them, ready for tick t.

        Raises
        ------
        ValueError
            A run was broken off by an error, so that the stages are not before tick t, or inside one; or what they hold is not
            what the plan says: the number of batches was changed after some of a smaller number had left for good.
        """
        last = len(self.stages) if last is None else last
        plan = self.plan(batches)
        for w in self.workers[first - 1 : last]:
            w.check(self.t)
            held, due = [item.batch for item in w.held], list(plan.held(w.j, self.t))
            if held != due:
                raise ValueError(
                    f"at tick {self.t} stage {w.j} holds batches {held}, and needs {due} to go on to {batches} in all; give the total "
                    "from the start, and stop between with `until`"
                )
        part = Segment(self.workers[first - 1 : last], plan, self.batches, **links)
        own = range(first, last + 1)
        part.forward_in = {j: message for j, message in self.forward_in.items() if j in own}
        part.backward_in = {j: message for j, message in self.backward_in.items() if j in own}
        return part

    def keep(self, parts: Sequence[Segment], t: int) -> None:
        """Take back the messages in flight of all segments, before tick t."""
        self.t = t
        self.forward_in = {j: message for part in parts for j, message in part.forward_in.items()}
        self.backward_in = {j: message for part in parts for j, message in part.backward_in.items()}

    @property
    def losses(self) -> list[tuple[int, float]]:
        return self.workers[-1].losses

    def train(self, on: bool = True) -> None:
        """Training or evaluation behaviour of all stages (batch normalisation)."""
        for stage in self.stages:
            stage.train(on)

    @torch.no_grad()
    def apply(self, x: Streams, context: Any = None) -> Streams:
        """The head's input for the network's input x."""
        for stage in self.stages[:-1]:
            x = stage(x, context)
        return x


def simulate(pipeline: Pipeline, batches: int, until: int | None = None, observer: Observer | None = None) -> Pipeline:
    """Train in this process: every stage does its tick in turn.

    Parameters
    ----------
    batches : int
        Batches that enter in all, counted from the pipeline's first.
    until : int, optional
        Stop before this tick, with batches in flight; by default when the last batch has left.
    observer : callable, optional
        ``observer(t, workers)`` after the backwards of tick t, before its updates.
    """
    part = pipeline.segment(batches)
    end = part.plan.ticks if until is None else min(until, part.plan.ticks)
    for t in range(pipeline.t, end):
        part.tick(t, observer)
    pipeline.keep([part], max(end, pipeline.t))
    return pipeline
