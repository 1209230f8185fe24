"""A pipeline on disk, between two ticks: one file a stage, so that every executor and every cut into segments goes on from it.

``folder/tick-0000000120/stage-0003-of-0010.pt`` is a plain torch file (read with ``weights_only``).  Each file is written
beside its place and then renamed, and a checkpoint is complete when it has all its files: a half-written one is never taken.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .modes import Plan
from .pipeline import Pipeline
from .stage import Stage, Streams
from .worker import Held, Worker

FORMAT = 1
State = dict[str, Any]


@dataclass(frozen=True)
class Every:
    """A checkpoint every so many ticks, and one at the end.

    Where a mode keeps graphs, those ticks are put off until no batch is in flight.

    Parameters
    ----------
    folder : path
        Of one run.  Ranks on several machines need it on a common file system.
    ticks : int
    keep : int
        How many of the newest complete checkpoints are left; older ones are deleted.
    """

    folder: str | os.PathLike[str]
    ticks: int
    keep: int = 2

    def __post_init__(self) -> None:
        if self.ticks < 1 or self.keep < 1:
            raise ValueError(f"ticks = {self.ticks}, keep = {self.keep}; both have to be at least 1")

    def due(self, pipeline: Pipeline, plan: Plan, t: int, end: int) -> bool:
        """Whether to save before tick t of a run that stops before tick ``end``."""
        step = plan.period if pipeline.mode.graph else 1
        return t % step == 0 and (t == end or t // self.ticks > (t - step) // self.ticks)

    def begin(self, pipeline: Pipeline) -> None:
        """Refuse a folder that is ahead of the pipeline or takes no files; delete what a killed run left half-written.

        Raises
        ------
        ValueError, OSError
        """
        newest = latest(self.folder)
        if newest is not None and tick_of(newest) > pipeline.t:
            raise ValueError(
                f"{self.folder} has a checkpoint of tick {tick_of(newest)}, and this run begins at tick {pipeline.t}; "
                "load it first (load(pipeline, folder)), or take another folder"
            )
        for path in _ticks(self.folder):
            if _stages(path) is None:
                shutil.rmtree(path, ignore_errors=True)
        try:  # before the first tick, and not after hours
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise type(error)(f"checkpoints cannot be written to {self.folder} ({error}); take another folder") from error

    def run(
        self, execute: Callable[..., Pipeline], pipeline: Pipeline, batches: int, until: int | None = None, **options: Any
    ) -> Pipeline:  # fmt: skip
        """``execute(pipeline, batches, until, **options)`` in pieces, with a checkpoint after each; for executors in one process."""
        plan = pipeline.plan(batches)
        end = plan.ticks if until is None else min(until, plan.ticks)
        self.begin(pipeline)
        while pipeline.t < end:
            stop = next(t for t in range(pipeline.t + 1, end + 1) if t == end or self.due(pipeline, plan, t, end))
            execute(pipeline, batches, until=stop, **options)
            if self.due(pipeline, plan, stop, end):
                save(pipeline, self.folder, self.keep)
        return pipeline


def latest(folder: str | os.PathLike[str]) -> Path | None:
    """The complete checkpoint of the highest tick."""
    return next((path for path in reversed(_ticks(folder)) if _stages(path) is not None), None)


def save(pipeline: Pipeline, folder: str | os.PathLike[str], keep: int = 2) -> Path:
    """Write the pipeline as it is before tick ``pipeline.t``, and delete all but the newest ``keep`` complete checkpoints.

    Raises
    ------
    ValueError
        If a run was broken off by an error, or the mode keeps graphs and a batch is in flight.
    """
    states = [state(pipeline, worker, pipeline.t, pipeline.forward_in, pipeline.backward_in) for worker in pipeline.workers]
    shutil.rmtree(_place(folder, pipeline.t), ignore_errors=True)
    for one in states:
        write(one, folder)
    prune(folder, keep)
    return _place(folder, pipeline.t)


def load(pipeline: Pipeline, folder: str | os.PathLike[str], missing_ok: bool = False) -> Pipeline:
    """Put a pipeline, built as the saved one was, into the saved state; data, learning rates, schedule and clip stay its own.

    Parameters
    ----------
    folder : path
        As given to `save`: its newest complete checkpoint is taken; or one checkpoint, ``folder/tick-0000000120``.
    missing_ok : bool
        Without any complete checkpoint leave the pipeline as it is.

    Raises
    ------
    FileNotFoundError
        If there is no complete checkpoint.
    ValueError
        If a file is damaged, or stages, mode, k or optimizers differ; the pipeline is then as before.
    """
    path = Path(folder) if _stages(Path(folder)) is not None else latest(folder)
    if path is None:
        if missing_ok:
            return pipeline
        raise FileNotFoundError(f"no complete checkpoint in {folder}; needed is what save(pipeline, folder) wrote")
    files, J = _stages(path) or [], len(pipeline.workers)
    if len(files) != J:
        raise ValueError(f"{path} is of J = {len(files)} stages, the pipeline has J = {J}; build the network that was saved")
    states = [_read(file) for file in files]
    for one, worker, file in zip(states, pipeline.workers, files, strict=True):
        _compare(one, state_header(pipeline, worker, tick_of(path)), file)
    restore(pipeline, states)
    return pipeline


# ---------------------------------------------------------------- one stage


def state_header(pipeline: Pipeline, worker: Worker, t: int) -> State:
    """What has to agree before a saved state is taken."""
    stage, optimizer = worker.stage, worker.optimizer
    arrays = [f"{name} {str(a.dtype).removeprefix('torch.')}{list(a.shape)}" for name, a in stage.state_dict().items()]
    return {
        "format": FORMAT, "t": t, "stage number": worker.j, "J": worker.J, "mode": pipeline.mode.name, "k": pipeline.k,
        "stage": type(stage).__name__, "arrays": arrays, "trained": len(stage.params),
        "optimizer": f"{type(optimizer).__name__} of {[len(g['params']) for g in optimizer.param_groups]}" if optimizer else "none",
    }  # fmt: skip


def state(pipeline: Pipeline, worker: Worker, t: int, forward_in: dict[int, Streams], backward_in: dict[int, Streams]) -> State:
    """All that stage j has before tick t, in copies: tensors, numbers and strings only.

    Raises
    ------
    ValueError
        If the stage is not before tick t, or the mode keeps graphs and a batch is in flight.
    """
    worker.check(t)
    if pipeline.mode.graph and worker.held:
        raise ValueError(
            f"before tick {t} batch {worker.held[0].batch} is in flight, and mode {pipeline.mode.name} keeps its graph, "
            f"which no file holds; save before a tick that is a multiple of {pipeline.plan(1).period}"
        )
    versions = list({id(held.params): held.params for held in worker.held if held.params is not None}.values())
    if worker.version is not None and all(worker.version is not known for known in versions):
        versions.append(worker.version)
    number = {id(version): i for i, version in enumerate(versions)}
    return state_header(pipeline, worker, t) | {
        "state": {name: a.detach().clone() for name, a in worker.stage.state_dict().items()},
        "optimizer state": _copied(worker.optimizer.state_dict()) if worker.optimizer else None,
        "sum": _copied(worker.sum), "count": worker.count, "updates": worker.updates, "delays": worker.delays, "peak": worker.peak,
        "losses": [list(pair) for pair in worker.losses],
        "versions": _copied(versions), "version": number.get(id(worker.version)),
        "held": [[held.batch, held.updates, _copied(held.x), number.get(id(held.params))] for held in worker.held],
        "forward_in": _copied(forward_in.get(worker.j)), "backward_in": _copied(backward_in.get(worker.j)),
    }  # fmt: skip


def restore(pipeline: Pipeline, states: list[State]) -> None:
    """Put stages into states; of the others nothing changes, but the tick is that of all."""
    for one in states:
        worker = pipeline.workers[one["stage number"] - 1]
        place = device_of(worker.stage)
        worker.stage.load_state_dict(one["state"])
        if worker.optimizer:
            worker.optimizer.load_state_dict(one["optimizer state"])
        worker.sum = None if one["sum"] is None else list(_moved(one["sum"], place))
        worker.count, worker.updates, worker.delays, worker.peak = one["count"], one["updates"], one["delays"], one["peak"]
        worker.losses = [(batch, loss) for batch, loss in one["losses"]]
        worker.gradient = worker.x = None
        worker.t = one["t"]
        versions: list[Any] = [_moved(version, place) for version in one["versions"]]
        known = {None: None} | dict(enumerate(versions))
        worker.version = known[one["version"]]
        worker.held.clear()
        worker.held.extend(Held(batch, made, _moved(x, place), None, known[i]) for batch, made, x, i in one["held"])
        for name, messages in (("forward_in", pipeline.forward_in), ("backward_in", pipeline.backward_in)):
            messages.pop(worker.j, None)
            if one[name] is not None:
                messages[worker.j] = _moved(one[name], place)
        pipeline.t = one["t"]


def write(one: State, folder: str | os.PathLike[str]) -> None:
    """Write the state of one stage; many processes may write those of a checkpoint."""
    place = _place(folder, one["t"])
    place.mkdir(parents=True, exist_ok=True)
    target = place / f"stage-{one['stage number']:04d}-of-{one['J']:04d}.pt"
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with open(partial, "wb") as file:
            torch.save(one, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:  # a full disk above all: what was written of the file is of no use
        partial.unlink(missing_ok=True)
        raise


def prune(folder: str | os.PathLike[str], keep: int) -> None:
    """Delete what is older than the newest ``keep`` complete checkpoints."""
    complete = [path for path in _ticks(folder) if _stages(path) is not None]
    if len(complete) > keep:
        for path in _ticks(folder):
            if tick_of(path) < tick_of(complete[-keep]):
                shutil.rmtree(path, ignore_errors=True)


def tick_of(path: Path) -> int:
    """The tick in the name of a checkpoint."""
    return int(path.name.removeprefix("tick-"))


def _place(folder: str | os.PathLike[str], t: int) -> Path:
    return Path(folder) / f"tick-{t:010d}"


def _ticks(folder: str | os.PathLike[str]) -> list[Path]:
    """Checkpoints, complete or not, oldest first."""
    return sorted((path for path in Path(folder).glob("tick-*") if re.fullmatch(r"tick-\d+", path.name)), key=tick_of)


def _stages(path: Path) -> list[Path] | None:
    """The files of a complete checkpoint."""
    files = sorted(path.glob("stage-*.pt")) if re.fullmatch(r"tick-\d+", path.name) else []
    J = int(files[0].stem.split("-")[-1]) if files else 0
    return files if files and [file.name for file in files] == [f"stage-{j:04d}-of-{J:04d}.pt" for j in range(1, J + 1)] else None


def _read(file: Path) -> State:
    older = [path.name for path in _ticks(file.parent.parent) if _stages(path) is not None and path != file.parent]
    advice = f"take another one ({', '.join(older)})" if older else "no other complete one is in its folder"
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
        if broken is None:
            one = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{file} is damaged ({error}); {advice}") from error
    if broken is not None:
        raise ValueError(f"{file} is damaged (checksum of {broken}); {advice}")
    if not isinstance(one, dict) or "format" not in one:
        raise ValueError(f"{file} is no stage of a pipeline: it holds a {type(one).__name__} without a format; {advice}")
    return one


def _compare(one: State, own: State, file: Path) -> None:
    for key, value in own.items():
        if one.get(key) != value:
            raise ValueError(f"{file}: {key} is {one.get(key)}, here it is {value}; build the pipeline as it was when it was saved")


def _copied(nest: Any) -> Any:
    """Copies of all tensors, so that a view does not bring along the storage it looks at, and what is saved no longer changes."""
    if isinstance(nest, Tensor):
        return nest.detach().clone()
    if isinstance(nest, dict):
        return {key: _copied(value) for key, value in nest.items()}
    return type(nest)(_copied(value) for value in nest) if isinstance(nest, list | tuple) else nest


def _moved(tensors: Any, place: torch.device) -> Any:
    return None if tensors is None else tuple(a.to(place) for a in tensors)


def device_of(stage: Stage) -> torch.device:
    """Where a stage's arrays are."""
    return next((a.device for a in stage.state_dict().values()), torch.device("cpu"))
