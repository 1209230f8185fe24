"""Observers: how good are the gradients that stages apply, and what do workers hold between ticks?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from math import nan

import torch
from torch import Tensor
from torch.func import functional_call

from .pipeline import Pipeline
from .stage import Head, Stage, Streams
from .worker import Worker, place

Version = dict[str, Tensor]  # a stage's parameters by name


@dataclass(frozen=True)
class Quality:
    """A gradient that a stage applied, against the exact one.

    Attributes
    ----------
    stage, batch : int
        The batch is the last of those averaged.
    error : float
        Norm of the difference, relative to the exact gradient's norm; NaN where that is 0.
    cosine, ratio : float
        Of the angle between the two; applied norm / exact norm.
    reconstruction : float or None
        Relative error of the stage's reconstructed input of that batch against the exact activation; None where it was kept.
    """

    stage: int
    batch: int
    error: float
    cosine: float
    ratio: float
    reconstruction: float | None


class GradientMonitor:
    """Observer for `simulate`: compares gradients with exact end-to-end ones, from torch's autograd through all stages.

    Parameters
    ----------
    pipeline : Pipeline
    stages : collection of int, optional
        Which stages (from 1); by default all that have parameters.
    average : int
        Compare means over so many batches, as an update with ``k = average`` applies them.
    forward_time : bool
        Exact at the parameters with which every stage did its forward of the batch (what delayed gradients compute), instead of
        those that the tick began with.  Only batches that entered under the monitor's eyes are compared.

    Attributes
    ----------
    records : list of Quality

    Notes
    -----
    Cost: a forward and a backward of the network for every comparison, up to J a tick; with ``forward_time``, copies of the
    parameters of the batches in flight.  The run does not change: copies of the buffers move in place of the buffers.
    """

    def __init__(self, pipeline: Pipeline, stages: Collection[int] | None = None, average: int = 1, forward_time: bool = False) -> None:
        self.pipeline, self.average, self.forward_time = pipeline, average, forward_time
        self.watched = {w.j for w in pipeline.workers if w.stage.params and (stages is None or w.j in stages)}
        self.records: list[Quality] = []
        self.sums: dict[int, tuple[int, Tensor, Tensor]] = {}  # (batches, applied, exact) of every stage since its last record
        self.versions: dict[int, list[Version]] = {}  # of the batches in flight: of the stages that have done their forward
        self.latest: dict[int, tuple[int, Version]] = {}  # (updates, copy) of every stage

    def __call__(self, t: int, workers: Sequence[Worker]) -> None:
        """Compare what tick t is about to apply."""
        J = len(self.pipeline.workers)
        if len(workers) != J:
            raise ValueError(f"observed {len(workers)} of {J} stages; exact gradients need all of them in one place: use simulate")
        plan = self.pipeline.plan(t + 1)
        if self.forward_time:
            for w in workers:
                if (batch := plan.forward(w.j, t)) is not None:
                    self._note(w, batch)
        now = [trained(w.stage) for w in workers]
        for w in workers:
            batch = plan.backward(w.j, t)
            if batch is None or w.gradient is None:
                continue
            versions = self.versions.get(batch, []) if self.forward_time else now
            if w.j in self.watched and len(versions) == J:
                self._compare(w, batch, versions)
            if w.j == 1:
                self.versions.pop(batch, None)

    def _note(self, w: Worker, batch: int) -> None:
        """Copy the parameters of a forward of this tick, which are still there: updates come after observers."""
        if w.j not in self.latest or self.latest[w.j][0] != w.updates:
            self.latest[w.j] = w.updates, {name: p.detach().clone() for name, p in trained(w.stage).items()}
        seen = self.versions.setdefault(batch, [])
        if len(seen) == w.j - 1:
            seen.append(self.latest[w.j][1])

    def _compare(self, w: Worker, batch: int, versions: Sequence[Version]) -> None:
        exact, x = exact_gradient(self.pipeline, w.j, batch, versions)
        assert w.gradient is not None
        count, a, e = self.sums.pop(w.j, (0, torch.tensor(0.0), torch.tensor(0.0)))
        count, a, e = count + 1, a + flat(w.gradient), e + flat(exact)
        if count < self.average:
            self.sums[w.j] = count, a, e
            return
        applied, size, off = float(a.norm()), float(e.norm()), float((a - e).norm())
        cosine = float(a @ e) / (applied * size) if applied * size else nan
        rebuilt = None if w.x is None else float((flat(w.x) - flat(x)).norm() / flat(x).norm())
        self.records.append(Quality(w.j, batch, off / size if size else nan, cosine, applied / size if size else nan, rebuilt))


def trained(stage: Stage) -> Version:
    """The parameters that are trained, by name, in the order of ``stage.params``."""
    return {name: p for name, p in stage.named_parameters() if p.requires_grad}


def flat(parts: Iterable[Tensor]) -> Tensor:
    """All numbers in one real vector."""
    return torch.cat([(torch.view_as_real(a.resolve_conj()) if a.is_complex() else a).reshape(-1) for a in parts])


def exact_gradient(pipeline: Pipeline, j: int, batch: int, versions: Sequence[Version] | None = None) -> tuple[list[Tensor], Streams]:
    """End-to-end gradient of one batch's loss by stage j's parameters, and that stage's input x_{j-1}.

    ``versions`` are the parameters of all stages by name (see `trained`); the current ones by default.  Cost: a forward of the
    network and a backward down to stage j.  Changes nothing.
    """
    versions = [trained(stage) for stage in pipeline.stages] if versions is None else versions
    x, context = pipeline.batches.inputs(batch), pipeline.batches.context(batch)
    found, wanted = x, []
    with torch.enable_grad():
        for i, (stage, version) in enumerate(zip(pipeline.stages, versions, strict=True), 1):
            params = {name: p.detach().requires_grad_(i == j) for name, p in version.items()}
            if i == j:
                found, wanted = x, list(params.values())
            buffers = {name: b.clone() for name, b in stage.named_buffers()}
            x = functional_call(stage, {**params, **buffers}, (x, context))
        assert isinstance(stage, Head) and isinstance(x, Tensor)
        grads = torch.autograd.grad(x, wanted, allow_unused=True) if wanted else ()
    return [torch.zeros_like(p) if g is None else g for p, g in zip(wanted, grads, strict=True)], found


@dataclass(frozen=True)
class Holdings:
    """Bytes of the memory that a worker's tensors view, each counted once, in the order of the kinds below."""

    params: int = 0  # and buffers
    optimizer: int = 0
    accumulator: int = 0
    stashed_params: int = 0
    stashed_inputs: int = 0
    graphs: int = 0

    @property
    def total(self) -> int:
        return sum(astuple(self))


def holdings(worker: Worker) -> Holdings:
    """What a worker holds, measured from its live tensors; messages that wait for it belong to the segment and are not counted."""
    held, stage = list(worker.held), worker.stage
    states = worker.optimizer.state.values() if worker.optimizer else ()
    kinds: list[Iterable[Tensor]] = [
        (*stage.parameters(), *stage.buffers()),
        (value for state in states for value in state.values() if isinstance(value, Tensor)),
        worker.sum or (),
        (p for params in (worker.version, *(item.params for item in held)) for p in params or ()),
        (a for item in held for a in item.x or ()),
        (a for item in held for a in saved(item.y or ())),
    ]
    counted: set[int] = set()
    return Holdings(*[_bytes(tensors, counted) for tensors in kinds])


class MemoryMonitor:
    """Observer: the most that every stage held between ticks, a kind at a time.

    Attributes
    ----------
    peaks : dict of int to Holdings
        By stage (from 1), the largest of every kind.
    most : dict of int to int
        By stage, the largest sum of all kinds at one time.
    """

    def __init__(self) -> None:
        self.peaks: dict[int, Holdings] = {}
        self.most: dict[int, int] = {}

    def __call__(self, t: int, workers: Sequence[Worker]) -> None:
        """Measure after tick t's backwards: what is held now stays until the next forward."""
        for w in workers:
            now = holdings(w)
            before = self.peaks.get(w.j, Holdings())
            self.peaks[w.j] = Holdings(*map(max, astuple(before), astuple(now)))
            self.most[w.j] = max(self.most.get(w.j, 0), now.total)


def _bytes(tensors: Iterable[Tensor], counted: set[int]) -> int:
    total = 0
    for a in tensors:
        if place(a) not in counted:
            counted.add(place(a))
            total += a.untyped_storage().nbytes() if a.layout == torch.strided else a.values().nbytes
    return total


def saved(y: Streams) -> Iterator[Tensor]:
    """Tensors that the graph of y holds for its backward."""
    nodes, seen = [a.grad_fn for a in y if a.grad_fn is not None], set()
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        nodes += [after for after, _ in node.next_functions if after is not None]
        for name in dir(node):
            if name.startswith("_saved_") or name == "saved_tensors":
                value = getattr(node, name)
                yield from (a for a in (value if isinstance(value, tuple | list) else (value,)) if isinstance(a, Tensor))
