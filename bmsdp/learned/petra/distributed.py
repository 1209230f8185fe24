"""Training on several processes or machines: rank r of torch.distributed owns some consecutive stages and talks to its neighbours.

Every rank runs the same script, under torchrun or another launcher that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
Result and order of work are the simulator's, bit for bit on equal machines with equally many threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from .checkpoint import Every, device_of, latest, prune, restore, state, tick_of, write
from .pipeline import Pipeline
from .post import Peer, PipelineError, cause
from .segment import Observer, Segment, spans

Range = tuple[int, int]


def distributed(
    pipeline: Pipeline, batches: int, until: int | None = None, observer: Observer | None = None, *,
    cuts: Sequence[int] | None = None, backend: str = "gloo", timeout: float = 300.0, checkpoint: Every | None = None,
    gather: bool = True, threads: int = 1, pin: bool = False,
) -> Pipeline:  # fmt: skip
    """Train on all ranks; each calls this with the same pipeline and the same arguments.

    Parameters
    ----------
    batches, until, observer
        As in `simulate`; the observer sees the rank's own workers.
    cuts : sequence of int, optional
        The last stage of each rank but the last: ``(3,)`` gives rank 0 stages 1..3.  By default equally many stages each,
        and one more for the later ranks where that does not divide: the head is cheaper than a stage.
    backend : str
        "gloo", or "nccl" with one GPU a rank (``LOCAL_RANK``), on which the caller has put stages and batches; the project's
        tests run gloo on CPUs only.  Without a process group one is opened; it is left open, for further calls.
    timeout : float
        Seconds that a neighbour may take for a tick.  One that dies is noticed at once.
    checkpoint : Every, optional
    gather : bool
        At the end all ranks get all stages, losses and optimizers, as `simulate` leaves them.  Otherwise a rank's pipeline is up
        to date in its own stages only (losses: on the last rank), and only fit for going on with the same cuts.
    threads : int
        Torch's threads on each rank meanwhile.
    pin : bool
        Tie each rank to one core meanwhile: steadier where there are as many cores as ranks (Linux only).

    Raises
    ------
    PipelineError
        If another rank died, failed or kept silent; the message names it and says where to resume.  All ranks raise.
    ValueError
        If ranks were called differently, or ranks and stages do not go together.
    """
    with _cores(threads, pin), _group(backend, timeout, len(pipeline.stages)) as group:
        rank, plan, start = dist.get_rank(group), pipeline.plan(batches), pipeline.t
        end = max(start, plan.ticks if until is None else min(until, plan.ticks))
        ranges = _agree(pipeline, group, batches, end, cuts, checkpoint, gather)
        names = [f"rank {r} (stages {first}-{last})" for r, (first, last) in enumerate(ranges)]
        place = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
        homes = {r: device_of(pipeline.stages[ranges[rank][r > rank] - 1]) for r in (rank - 1, rank + 1) if 0 <= r < len(ranges)}
        peers = {r: Peer(r, names[r], group, place, home, timeout) for r, home in homes.items()}
        try:
            part = pipeline.segment(batches, *ranges[rank], left=peers.get(rank - 1), right=peers.get(rank + 1))
            _run(pipeline, part, start, end, observer, checkpoint)
            for peer in peers.values():
                peer.finish()
            pipeline.keep([part], end)
            _meet(pipeline, group, ranges, gather, place)
            if checkpoint and rank == 0:
                prune(checkpoint.folder, checkpoint.keep)
        except PipelineError as error:
            _part_from(peers, str(error))
            raise PipelineError(f"{names[rank]} cannot go on: {error}.  {_advice(checkpoint)}") from error
        except BaseException as error:
            notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
            _part_from(peers, f"{names[rank]} stopped: {type(error).__name__}: {error}{notes}")
            raise
    return pipeline


def split(J: int, ranks: int, cuts: Sequence[int] | None = None) -> list[Range]:
    """First and last stage of each rank.

    Raises
    ------
    ValueError
    """
    if ranks > J:
        raise ValueError(f"{ranks} ranks for {J} stages; start at most {J}: a rank has one stage or more")
    if cuts is not None and len(cuts) != ranks - 1:
        raise ValueError(f"cuts = {tuple(cuts)} for {ranks} ranks; needs {ranks - 1}, the last stages of all ranks but the last")
    return spans(J, [J * r // ranks for r in range(1, ranks)] if cuts is None else cuts)


def _run(pipeline: Pipeline, part: Segment, start: int, end: int, observer: Observer | None, checkpoint: Every | None) -> None:
    for t in range(start, end + 1):
        part.receive(t)
        if checkpoint and t > start and checkpoint.due(pipeline, part.plan, t, end):
            for worker in part.workers:
                write(state(pipeline, worker, t, part.forward_in, part.backward_in), checkpoint.folder)
            if part.left is None:
                prune(checkpoint.folder, checkpoint.keep)
        if t < end:
            part.tick(t, observer)


def _agree(
    pipeline: Pipeline, group: Any, batches: int, end: int, cuts: Sequence[int] | None, checkpoint: Every | None, gather: bool
) -> list[Range]:  # fmt: skip
    """Stages of all ranks; refuse on all ranks what one refuses, or what they were told differently; none begins before all are here."""
    mode, plan, world = pipeline.mode, pipeline.plan(batches), dist.get_world_size(group)
    problem, ranges = "", []
    try:
        ranges = split(plan.J, world, cuts)
        if mode.graph and gather and end % plan.period:
            raise ValueError(f"until = {end} leaves a batch in flight whose graph cannot travel; take a multiple of {plan.period}")
        if checkpoint and dist.get_rank(group) == 0:
            checkpoint.begin(pipeline)
    except (ValueError, OSError) as error:
        problem = str(error)
    own = {
        "J": plan.J, "mode": mode.name, "k": pipeline.k, "tick": pipeline.t, "batches": batches, "last tick": end, "stages": ranges,
        "checkpoint": checkpoint and (checkpoint.ticks, checkpoint.keep), "gather": gather, "problem": problem,
    }  # fmt: skip
    told: list[Any] = [None] * world
    with _collective("before the first tick; start all ranks again"):
        dist.all_gather_object(told, own, group=group)
    if problems := dict.fromkeys(one["problem"] for one in told if one["problem"]):
        raise ValueError("; ".join(problems))
    for rank, one in enumerate(told):
        for key, value in told[0].items():
            if one[key] != value:
                raise ValueError(f"{key} is {value} on rank 0 and {one[key]} on rank {rank}; call distributed alike on all ranks")
    return ranges


def _meet(pipeline: Pipeline, group: Any, ranges: list[Range], gather: bool, place: torch.device) -> None:
    """Wait for all ranks at the end, and share the stages."""
    rank = dist.get_rank(group)
    with _collective("after the last tick"):
        dist.barrier(group)
        for owner, (first, last) in enumerate(ranges if gather else []):
            mine = pipeline.workers[first - 1 : last] if owner == rank else []
            states = [[state(pipeline, w, pipeline.t, pipeline.forward_in, pipeline.backward_in) for w in mine]]
            dist.broadcast_object_list(states, group=group, group_src=owner, device=place)
            if owner != rank:
                restore(pipeline, states[0])


def _part_from(peers: dict[int, Peer], reason: str) -> None:
    """Tell the neighbours why, those that still listen."""
    for peer in peers.values():
        peer.stop(reason)
    for peer in peers.values():
        peer.leave()


def _advice(checkpoint: Every | None) -> str:
    if checkpoint is None:
        return "Start all ranks again; checkpoint=Every(folder, ticks) makes a run that can be resumed"
    newest = latest(checkpoint.folder)
    if newest is None:
        return f"No checkpoint is complete in {checkpoint.folder} yet: start all ranks again"
    return f"Start all ranks again with load(pipeline, {str(checkpoint.folder)!r}) first: it resumes at tick {tick_of(newest)}"


@contextmanager
def _collective(when: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PipelineError(f"a rank was lost {when} ({cause(error)})") from error


@contextmanager
def _group(backend: str, timeout: float, J: int) -> Iterator[Any]:
    """A process group for this run alone: it ends with the run, so that a rank that leaves closes its connections, which others notice."""
    limit = timedelta(seconds=timeout)
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise ValueError(f"no process group, and {', '.join(missing)} not set; start with torchrun --nproc-per-node=2 script.py")
    try:
        if not dist.is_initialized():
            dist.init_process_group(backend, timeout=limit)
        group = dist.new_group(backend=backend, timeout=2 * J * limit)  # at the end the last rank waits while the pipeline drains
    except RuntimeError as error:
        raise PipelineError(f"the ranks did not come together, within {timeout:g} s ({cause(error)}); start all of them") from error
    try:
        yield group
    finally:
        dist.destroy_process_group(group)


@contextmanager
def _cores(threads: int, pin: bool) -> Iterator[None]:
    """Threads and core of this rank; given back at the end."""
    if pin and not hasattr(os, "sched_setaffinity"):
        raise ValueError("pin = True, and this system cannot tie a process to a core; leave it False")
    before, cores = torch.get_num_threads(), os.sched_getaffinity(0) if pin else set()
    local = int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")))
    torch.set_num_threads(threads)
    if pin:
        os.sched_setaffinity(0, {sorted(cores)[local % len(cores)]})
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if pin:
            os.sched_setaffinity(0, cores)
