"""Small networks in all modes, and the script that each rank of the distributed tests runs: python ranks.py FOLDER SCENE ...."""

import gc
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from bmsdp.learned.petra import modes
from bmsdp.learned.petra.batchnorm import BatchNorm2d
from bmsdp.learned.petra.checkpoint import Every, load
from bmsdp.learned.petra.distributed import PipelineError, distributed
from bmsdp.learned.petra.pipeline import Pipeline
from bmsdp.learned.petra.post import Peer
from bmsdp.learned.petra.stage import Checkpointed, Coupling, Head, Stage

BATCHES = 8


class Split(Stage):
    """One tensor into two views of it that are not contiguous."""

    def __init__(self, F):
        super().__init__()
        self.F = F

    def forward(self, x, context):
        y = self.F(x[0])
        return y[:, ::2], y[:, 1::2]


class Shrink(Stage):
    """Both streams through convolutions with stride 2."""

    def __init__(self, c):
        super().__init__()
        self.a, self.b = (nn.Sequential(nn.Conv2d(c, c, 3, 2, 1, bias=False), BatchNorm2d(c), nn.ReLU()) for _ in range(2))

    def forward(self, x, context):
        return self.a(x[0]), self.b(x[1])


class Mean(Head):
    """Cross entropy of a linear map of all features."""

    def __init__(self, c, dtype=torch.float32):
        super().__init__()
        self.F = nn.Linear(2 * c, 3, dtype=dtype)

    def forward(self, x, context):
        y = torch.cat([a.flatten(2).mean(2) if a.dim() > 2 else a for a in x], 1)
        return nn.functional.cross_entropy(self.F(y), context)


class Modulus(Head):
    """Real loss of complex features."""

    def __init__(self, c):
        super().__init__()
        self.v = nn.Parameter(torch.randn(c, dtype=torch.complex128))

    def forward(self, x, context):
        return ((x[0] @ self.v).abs() ** 2 - context).abs().mean() + x[1].abs().mean()


class Curve(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.W = nn.Parameter(torch.randn(c, c, dtype=torch.complex128) / c)

    def forward(self, x):
        y = x @ self.W
        return y / (1 + y.abs() ** 2)


class Data:
    """Batches by number, of sizes that vary."""

    def __init__(self, shape, dtype=torch.float32, labels=3):
        self.shape, self.dtype, self.labels = shape, dtype, labels

    def inputs(self, batch):
        n = 5 + batch % 3
        return (torch.randn(n, *self.shape, dtype=self.dtype, generator=torch.Generator().manual_seed(batch)),)

    def context(self, batch):
        return torch.arange(5 + batch % 3) % self.labels


def block(c):
    return Coupling(nn.Sequential(nn.Linear(c, c), nn.Tanh(), nn.Linear(c, c)))


def conv(c):
    return Coupling(nn.Sequential(nn.Conv2d(c, c, 3, padding=1, bias=False), BatchNorm2d(c), nn.ReLU()))


def sgd(stage):
    return torch.optim.SGD(stage.params, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)


def adam(stage):
    return torch.optim.AdamW(stage.params, lr=0.01)


def mlp(mode, optimize=sgd, k=1, c=10, **more):
    torch.manual_seed(1)
    stages = [Split(nn.Linear(4, 2 * c)), block(c), block(c), Checkpointed(block(c)), block(c), Mean(c)]
    return Pipeline(stages, Data((4,)), optimize, mode, k, **more)


def images(mode, c=4, **more):
    torch.manual_seed(2)
    stem = Split(nn.Sequential(nn.Conv2d(1, 2 * c, 3, padding=1, bias=False), BatchNorm2d(2 * c)))
    return Pipeline([stem, conv(c), conv(c), Shrink(c), conv(c), conv(c), Mean(c)], Data((1, 8, 8)), sgd, mode, **more)


def unitary(mode, c=6):
    torch.manual_seed(3)
    lift = Split(nn.Linear(3, 2 * c, dtype=torch.complex128))
    stages = [lift, *(Coupling(Curve(c), 0.9) for _ in range(3)), Modulus(c)]
    return Pipeline(stages, Data((3,), torch.complex128), adam, mode)


CASES = {
    "petra, k = 2, schedule, clip": lambda: mlp(modes.PETRA, k=2, schedule=lambda u: min(1.0, (u + 1) / 4), clip=1.0),
    "revstash, Adam": lambda: mlp(modes.REVSTASH, adam),
    "stash": lambda: mlp(modes.STASH),
    "reversible": lambda: mlp(modes.REVERSIBLE, adam),
    "backprop": lambda: mlp(modes.BACKPROP),
    "approximate": lambda: mlp(modes.APPROXIMATE),
    "petra, images": lambda: images(modes.PETRA),
    "stash, images, k = 3": lambda: images(modes.STASH, k=3),
    "buffer, complex": lambda: unitary(modes.BUFFER),
    "revstash, complex": lambda: unitary(modes.REVSTASH),
}
RESUMED = ("petra, k = 2, schedule, clip", "backprop", "stash, images, k = 3", "revstash, complex")  # the others: test_checkpoint.py


def chosen():
    """All cases on two ranks, every other one on three."""
    return list(CASES) if os.environ["WORLD_SIZE"] == "2" else list(CASES)[::2]


def everything(pipeline):
    """All arrays and numbers of a pipeline, named, messages and what waits for its backward included."""
    found = {"t": pipeline.t}
    for name, messages in (("forward_in", pipeline.forward_in), ("backward_in", pipeline.backward_in)):
        found |= {f"{name} {j}.{i}": a for j, message in messages.items() for i, a in enumerate(message)}
    for w in pipeline.workers:
        one = {f"state {name}": a for name, a in w.stage.state_dict().items()}
        one |= {f"sum {i}": a for i, a in enumerate(w.sum or [])}
        one |= {"counts": (w.count, w.updates, w.delays, w.peak), "losses": list(w.losses)}
        moments = w.optimizer.state_dict()["state"] if w.optimizer else {}
        one |= {f"optimizer {i} {name}": a for i, values in moments.items() for name, a in values.items()}
        for held in w.held:
            one |= {f"held {held.batch} {i}": a for i, a in enumerate((*(held.x or ()), *(held.params or ())))}
            one |= {f"held {held.batch}": held.updates}
        one["sharing"] = [[a.params is b.params for a in w.held] for b in w.held] + [[a.params is w.version for a in w.held]]
        found |= {f"stage {w.j}, {name}": value for name, value in one.items()}
    return {name: value.detach().clone() if isinstance(value, torch.Tensor) else value for name, value in found.items()}


def difference(a, b):
    """Where two pipelines differ in any bit, or "" if nowhere."""
    if a.keys() != b.keys():
        return f"names {sorted(set(a) ^ set(b))[:4]}"
    alike = {name: torch.equal(x, b[name]) if isinstance(x, torch.Tensor) else x == b[name] for name, x in a.items()}
    return "; ".join(name for name, same in alike.items() if not same)


# ---------------------------------------------------------------- scenes


RANK = int(os.environ.get("RANK", "0"))


def equal(folder):
    """Cases, to the end."""
    torch.save({name: everything(distributed(CASES[name](), BATCHES, timeout=60)) for name in chosen()}, folder / f"equal {RANK}.pt")


def long(folder):
    """How many messages wait for their arrival to be known, at most."""
    waiting, peers = [], []

    def observer(t, workers):
        if not peers:
            peers.extend(item for item in gc.get_objects() if isinstance(item, Peer))
        waiting.append(max(len(peer.pending) for peer in peers))

    distributed(mlp(modes.PETRA), 50, observer=observer, timeout=60, gather=False)
    torch.save(max(waiting), folder / f"long {RANK}.pt")


def resume(folder):
    """Go on from what the folder holds, with other cuts and kept up to date there; without gathering."""
    cuts = range(1, int(os.environ["WORLD_SIZE"]))
    found = {}
    for name in RESUMED:
        kept = folder / name
        pipeline = load(CASES[name](), kept)
        start = pipeline.t
        distributed(pipeline, BATCHES, start + 11, cuts=cuts, timeout=60, checkpoint=Every(kept, 4), gather=False)
        found[name] = (start, pipeline.t, len(pipeline.losses))
    torch.save(found, folder / f"resume {RANK}.pt")


def killed(folder):
    """Rank 1 dies of SIGKILL at tick 14, unless the run began later."""
    pipeline = load(images(modes.PETRA), folder / "kept", missing_ok=True)

    def observer(t, workers):
        if RANK == 1 and t == 14:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        distributed(pipeline, BATCHES, observer=observer, timeout=600, checkpoint=Every(folder / "kept", 5))
    except PipelineError as error:
        (folder / f"{RANK}.txt").write_text(str(error))
        sys.exit(7)


def refused(folder):
    """What goes wrong without a process that dies; every rank writes what it was told."""
    told = {}

    def attempt(name, *args, **options):
        begin = time.monotonic()
        try:
            distributed(*args, **options)
        except Exception as error:
            told[name] = (type(error).__name__, str(error), time.monotonic() - begin)

    def broken(t, workers):
        if t == 9 and workers[-1].j == workers[-1].J:
            raise ZeroDivisionError("one by nought")

    def slow(t, workers):
        if t == 6 and RANK == 0:
            time.sleep(4)

    def harmed(what):
        pipeline = mlp(modes.PETRA)
        stages, data = pipeline.stages, pipeline.batches
        where, name = {"inputs": (data, "inputs"), "stage": (stages[2].F, "forward"), "loss": (stages[5].F, "forward")}[what]
        plain, calls = getattr(where, name), []

        def fails(x):
            calls.append(x)
            if len(calls) < 5:
                return plain(x)
            if what == "loss":
                return plain(x) * float("nan")
            raise {"inputs": OSError("unreadable"), "stage": RuntimeError("out of memory")}[what]

        setattr(where, name, fails)
        return pipeline

    def full(*args):
        raise RuntimeError("No space left on device")

    attempt("batches", mlp(modes.PETRA), BATCHES + RANK, timeout=30)
    attempt("cuts", mlp(modes.PETRA), BATCHES, cuts=(2,), timeout=30)
    told["opened"] = dist.is_initialized()  # by the runs before, and left open
    attempt("graph", mlp(modes.BACKPROP), BATCHES, 13, timeout=30)
    if RANK == 0:
        for j in range(1, 7):
            (folder / "old/tick-0000000100").mkdir(parents=True, exist_ok=True)
            (folder / f"old/tick-0000000100/stage-{j:04d}-of-0006.pt").touch()
    attempt("folder", mlp(modes.PETRA), BATCHES, checkpoint=Every(folder / "old", 5), timeout=30)
    attempt("broken", mlp(modes.PETRA), BATCHES, observer=broken, timeout=30)
    for what in ("inputs", "stage", "loss"):
        attempt(what, harmed(what), BATCHES, timeout=30)
    write = torch.save
    if RANK == 2:
        torch.save = full
    attempt("disk", mlp(modes.PETRA), BATCHES, checkpoint=Every(folder / "full", 5), timeout=30)
    torch.save = write
    attempt("file", mlp(modes.PETRA), BATCHES, checkpoint=Every(folder / "0.err", 5), timeout=30)
    attempt("slow", mlp(modes.PETRA), BATCHES, observer=slow, timeout=2)
    attempt("fine", mlp(modes.PETRA), BATCHES, timeout=30)
    told["threads"] = torch.get_num_threads()
    attempt("pinned", mlp(modes.PETRA), BATCHES, timeout=30, pin=True)
    told["cores"] = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    torch.save(told, folder / f"refused {RANK}.pt")


SCENES = {"equal": equal, "long": long, "resume": resume, "killed": killed, "refused": refused}

if __name__ == "__main__":
    for scene in sys.argv[2:]:
        SCENES[scene](Path(sys.argv[1]))
