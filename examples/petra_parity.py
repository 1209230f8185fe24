"""Does PETRA train what backpropagation trains?  RevNets on images: accuracy, memory and time, mode by mode.

python examples/petra_parity.py                   scikit-learn's digits, 40 epochs, 3 seeds: ten minutes on one idle core
python examples/petra_parity.py --small           a smaller network, 2 epochs, 2 seeds: seconds
python examples/petra_parity.py --data animals --path animal_mnist-0.4-py3-none-any.whl --epochs 8 16 32 64 --k 1
                                                  accuracy against the length of the schedule; hours on one core
python examples/petra_parity.py --recipe cifar10 --path cifar-10-batches-py
                                                  the paper's RevNet-18: 300 epochs, batches of 64, k = 2; wants a GPU (--device cuda)
torchrun --nproc-per-node=2 examples/petra_parity.py --recipe cifar10 --path cifar-10-batches-py
                                                  the same, with the stages spread over two processes
python examples/petra_parity.py --memory          the paper's RevNets on ImageNet, by formula: as its table counts, and as held here
--out folder                                      where CSV and picture go; a run that is in the CSV already is not run again, and the
                                                  picture shows all runs in it, of other options too

The network and the recipe are the paper's (arXiv:2406.02052), made small: one residual block a stage, learning rate 0.1 * 64 k / 256,
Nesterov momentum 0.9, linear warm-up, two drops of the rate.  All rows of a table start from the same weights and see the same batches.
Backpropagation with k averages the gradients of k batches, so that rows of one k make equally many updates of the same size.

Modes.  backprop: graphs are kept.  reversible: backpropagation that computes activations again from outputs.  petra: a new batch enters
every tick; nothing is kept but the inputs of the stages that have no inverse.  stash: delayed gradients, with inputs and parameters kept.
Others are revstash (parameters kept, inputs computed), buffer (inputs kept, current parameters) and approximate.

Memory.  "by formula" is what waits for a backward at the fullest moment, from shapes alone; "measured" is the same from the tensors that
the stages hold; "in all" adds parameters, the optimizer's state and the accumulated gradient.  Messages and work space are left out.

What to expect.  Digits, 40 epochs: all rows within 0.3 points of backpropagation, less than the spread over seeds.  Animals (one seed):
what delays cost depends on how many updates a schedule has beside the 2 (J - j) of a delay.  PETRA has 76 % at 8 epochs, 94 at 32 and
96.9 at 64, where backpropagation has 93, 97 and 97.3 (stash has 80 at 8).  At 8 epochs PETRA has 78 with k = 4, 79 with
`--momentum 0 --rate 1` (which is no better at 32), 83 with `--model merged` (the same network in 5 larger stages), 87 with `--batch 16`.
With the last three together both have 97 at 32 epochs: `--model merged --batch 16 --momentum 0 --rate 1 --epochs 32`.

CPU seconds are of the whole run in one process, where PETRA computes each forward twice and gains nothing from being parallel.
"""

import argparse
import csv
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.figure
import torch

from bmsdp.learned import petra, vision
from bmsdp.learned.petra.distributed import distributed
from bmsdp.learned.petra.memory import footprint, gigabytes

MODES = {mode.name: mode for mode in petra.MODES}
DATA = {"digits": lambda path: vision.digits(), "animals": vision.animals, "cifar10": vision.cifar10}
STEMS = {"digits": vision.digits_stem, "animals": vision.silhouettes_stem, "cifar10": vision.cifar_stem}
MODELS = {
    "small": lambda stem: vision.small(stem),
    "merged": lambda stem: vision.merged(vision.small(stem)),
    "short": lambda stem: vision.small(stem, blocks=(1, 2)),
    "tiny": lambda stem: vision.small(stem, blocks=(1, 2), width=4),
    "revnet18": lambda stem: vision.revnet18(stem=stem),
    "revnet34": lambda stem: vision.revnet34(stem=stem),
    "revnet50": lambda stem: vision.revnet50(stem=stem),
}
RECIPES = {"cifar10": {"data": "cifar10", "model": "revnet18", "epochs": [300], "seeds": 1, "modes": ["petra"], "k": [2]}}
SMALL = {"model": "tiny", "epochs": [1, 2], "seeds": 2, "k": [1]}
COLOURS = {
    "backprop": "#444444", "reversible": "#999999", "petra": "#0b5394", "stash": "#c77c11", "revstash": "#1b7f4d",
    "buffer": "#8e44ad", "approximate": "#b03a2e",
}  # fmt: skip
KEYS = ("data", "model", "batch", "mode", "k", "epochs", "seed", "momentum", "rate", "warm_up")
VALUES = ("accuracy", "loss", "formula_mb", "measured_mb", "all_mb", "cpu_seconds", "wall_seconds", "load")
RANK = int(os.environ.get("RANK", "0"))  # under torchrun
Row = dict[str, Any]


def arguments() -> argparse.Namespace:
    """Recipes and sizes are defaults; whatever is given as well overrides them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true", help="only the table of memory by formula; nothing is trained")
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--recipe", choices=sorted(RECIPES), help="the paper's, as one command")
    parser.add_argument("--data", choices=sorted(DATA), default="digits")
    parser.add_argument("--path", type=Path, help="wheel of animal-mnist or folder of CIFAR-10")
    parser.add_argument("--model", choices=sorted(MODELS), default="small")
    parser.add_argument("--modes", nargs="+", choices=sorted(MODES), default=["backprop", "reversible", "petra", "stash"])
    parser.add_argument("--k", nargs="+", type=int, default=[1, 2, 4], help="batches whose gradients are averaged")
    parser.add_argument("--epochs", nargs="+", type=int, default=[40])
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--rate", type=float, default=0.1, help="for 256 images an update")
    parser.add_argument("--warm-up", type=float, help="epochs; 5, or an eighth of a schedule shorter than 40")
    parser.add_argument("--device", default="cpu", help="cuda has not been tried by the authors of this script")
    parser.add_argument("--out", type=Path)
    first = parser.parse_args()
    parser.set_defaults(**(SMALL if first.small else {}), **RECIPES.get(first.recipe, {}))
    args = parser.parse_args()
    if args.data == "cifar10" and args.path is None:
        parser.error("CIFAR-10 is not shipped: give --path FOLDER, unpacked from https://www.cs.toronto.edu/~kriz/cifar.html")
    return args


def memory_table() -> None:
    """GB of batches of 64 images of 224 x 224 in single precision, k = 1: parameters, statistics, and what waits."""
    print(f"{'':12s}" + "".join(f"{name:>14s}" for name in MODES))
    for build in (vision.revnet18, vision.revnet34, vision.revnet50):
        for words, as_printed in (("as printed", True), ("as held", False)):
            with torch.device("meta"):
                stages, x = build(1000, vision.imagenet_stem), (torch.empty(64, 3, 224, 224),)
            sizes = [gigabytes(footprint(stages, x, mode=mode, as_printed=as_printed)) for mode in MODES.values()]
            print(f"{build.__name__:10s}  " + "".join(f"{size:14.2f}" for size in sizes) + f"   {words}")


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """All runs; reversible backpropagation has the gradients of backpropagation, so the first k is enough for it."""
    for epochs in args.epochs:
        for seed in range(args.seeds):
            for k in args.k:
                for mode in args.modes:
                    if mode != "reversible" or k == args.k[0]:
                        chosen = (args.data, args.model, args.batch, mode, k, epochs, seed, args.momentum, args.rate, args.warm_up)
                        yield dict(zip(KEYS, chosen, strict=True))


def key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEYS)


def read(path: Path) -> list[Row]:
    """All runs in a CSV file."""
    kinds: dict[str, Any] = dict.fromkeys(("batch", "k", "epochs", "seed"), int) | dict.fromkeys(("momentum", "rate", *VALUES), float)
    kinds["warm_up"] = lambda text: float(text) if text else None
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [{name: kinds.get(name, str)(text) for name, text in row.items()} for row in csv.DictReader(file)]


class Bench:
    """Networks and batches of one data set, and one run of each row."""

    def __init__(self, images: vision.Images, args: argparse.Namespace) -> None:
        launched = "RANK" in os.environ
        self.args = args
        self.device = f"cuda:{os.environ['LOCAL_RANK']}" if launched and args.device == "cuda" else args.device
        self.images = images.to(self.device)
        backend = "nccl" if args.device == "cuda" else "gloo"
        self.execute = functools.partial(distributed, backend=backend) if launched else petra.simulate

    def network(self, seed: int) -> list[petra.Stage]:
        torch.manual_seed(seed)
        return [stage.to(self.device) for stage in MODELS[self.args.model](STEMS[self.args.data])]

    def batches(self, seed: int) -> vision.ImageBatches:
        return vision.ImageBatches(self.images, self.args.batch, seed, vision.crop_and_flip if self.args.data == "cifar10" else None)

    def run(self, row: Row) -> Row:
        """Train and test once."""
        stages, batches, args = self.network(row["seed"]), self.batches(row["seed"]), self.args
        load, cpu, wall = os.getloadavg()[0], time.process_time(), time.perf_counter()
        pipeline = vision.train(
            stages, batches, row["epochs"], MODES[row["mode"]], row["k"],
            momentum=args.momentum, rate=args.rate, warm_up=args.warm_up, execute=self.execute,
        )  # fmt: skip
        cpu, wall, load = time.process_time() - cpu, time.perf_counter() - wall, (load + os.getloadavg()[0]) / 2
        last = [loss for batch, loss in pipeline.losses if batch >= (row["epochs"] - 1) * batches.steps]
        found = vision.accuracy(stages, self.images), statistics.fmean(last), *self.memory(row["mode"], row["k"]), cpu, wall, load
        return row | dict(zip(VALUES, found, strict=True))

    @functools.cache  # noqa: B019 - one bench a process
    def memory(self, mode: str, k: int) -> tuple[float, float, float]:
        """Megabytes: waiting by formula, waiting as measured, all that stages hold; of the first ticks of a run, on its own."""
        monitor, batches = petra.MemoryMonitor(), self.batches(0)
        pipeline = petra.Pipeline(self.network(0), batches, petra.sgd(1e-3), MODES[mode], k)
        J = len(pipeline.stages)
        petra.simulate(pipeline, 10**9, until=4 * J + 4 * k, observer=monitor)
        parts = footprint(self.network(0), batches.inputs(0), mode=MODES[mode], k=k)
        waiting = [h.stashed_inputs + h.stashed_params + h.graphs for h in monitor.peaks.values()]
        return sum(part.buffers for part in parts) * 4e-6, sum(waiting) * 1e-6, sum(monitor.most.values()) * 1e-6


def run_all(args: argparse.Namespace, path: Path) -> list[Row]:
    """What the CSV file has is taken from there; what it has not is run and appended."""
    stored = {key(row): row for row in read(path)}
    bench, done = None, []
    for row in rows(args):
        if key(row) in stored:
            done.append(stored[key(row)])
            continue
        bench = bench or Bench(DATA[args.data](args.path), args)
        done.append(bench.run(row))
        if RANK == 0:
            new = not path.exists()
            with open(path, "a", newline="") as file:
                writer = csv.DictWriter(file, [*KEYS, *VALUES])
                if new:
                    writer.writeheader()
                writer.writerow({name: f"{value:.6g}" if name in VALUES else value for name, value in done[-1].items()})
            print(f"  {row['epochs']} epochs, seed {row['seed']}: {row['mode']}, k = {row['k']}: {done[-1]['accuracy']:.2f} %", flush=True)
    return done


def spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def groups(done: list[Row]) -> dict[tuple[int, str, int], list[Row]]:
    """Rows that differ in their seed only, by (epochs, mode, k), seeds in order."""
    found: dict[tuple[int, str, int], list[Row]] = {}
    for row in sorted(done, key=lambda row: row["seed"]):
        found.setdefault((row["epochs"], row["mode"], row["k"]), []).append(row)
    order = list(COLOURS)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], order.index(item[0][1]), item[0][2])))


def table(done: list[Row]) -> list[str]:
    """Mean and standard deviation over seeds; differences to backpropagation of the same k, seed by seed, with their standard error."""
    lines = [
        "epochs mode        k   accuracy %       minus backprop   memory MB: by formula measured  in all   CPU s   load",
    ]
    together = groups(done)
    for (epochs, mode, k), group in together.items():
        found = [row["accuracy"] for row in group]
        base = [row["accuracy"] for row in together.get((epochs, "backprop", k), [])]
        off = [a - b for a, b in zip(found, base, strict=True)] if len(base) == len(found) and mode != "backprop" else []
        minus = f"{statistics.fmean(off):+6.2f} +- {spread(off) / len(off) ** 0.5:4.2f}" if off else ""
        mean = {name: statistics.fmean(row[name] for row in group) for name in VALUES}
        lines.append(
            f"{epochs:6d} {mode:11s}{k:2d}   {mean['accuracy']:6.2f} +- {spread(found):4.2f}   {minus:15s} {mean['formula_mb']:22.3f} "
            f"{mean['measured_mb']:8.3f} {mean['all_mb']:7.3f} {mean['cpu_seconds']:7.1f} {mean['load']:6.1f}"
        )
    return lines


def setting(row: Row) -> str:
    """What differs from the defaults, besides mode and k."""
    usual = {"model": "small", "batch": 64, "momentum": 0.9, "rate": 0.1, "warm_up": None}
    other = {name.replace("_", "-"): row[name] for name, value in usual.items() if row[name] != value}
    return "".join(f", {name} {value:g}" if name != "model" else f", {value}" for name, value in other.items())


def picture(done: list[Row], title: str, path: Path) -> None:
    """Accuracy of all settings against the length of the schedule, or against the setting where there is one length."""
    figure = matplotlib.figure.Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    lengths, lines = sorted({row["epochs"] for row in done}), dict[tuple[str, int, str], dict[int, list[float]]]()
    for row in sorted(done, key=lambda row: (list(COLOURS).index(row["mode"]), row["k"], setting(row))):
        lines.setdefault((row["mode"], row["k"], setting(row)), {}).setdefault(row["epochs"], []).append(row["accuracy"])
    others = sorted({other for _, _, other in lines} - {""})
    for i, ((mode, k, other), points) in enumerate(lines.items()):
        style = {"color": COLOURS[mode], "label": f"{mode}, k = {k}{other}"}
        if len(lengths) > 1:
            there = sorted(points)
            error = [spread(points[epochs]) for epochs in there]
            style |= {"linestyle": {1: "-", 2: "--", 4: ":"}.get(k, "-."), "marker": "osD^vP*"[["", *others].index(other) % 7]}
            style["markerfacecolor"] = style["color"] if k == 1 else "white"
            axes.errorbar(there, [statistics.fmean(points[epochs]) for epochs in there], error, ms=5, capsize=3, **style)
        else:
            axes.plot([i] * len(points[lengths[0]]), points[lengths[0]], "o", ms=4, alpha=0.6, **style)
            axes.plot([i - 0.25, i + 0.25], [statistics.fmean(points[lengths[0]])] * 2, color=style["color"], lw=2)
    if len(lengths) > 1:
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [str(length) for length in lengths])
        axes.set_xlabel("epochs of the schedule")
        figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside right upper")
    else:
        axes.set_xticks(range(len(lines)), [f"{mode}\nk = {k}{other.replace(', ', chr(10))}" for mode, k, other in lines], fontsize=7)
    axes.set_title(title if len(lengths) > 1 else f"{title}; {lengths[0]} epochs", fontsize=10)
    axes.set_ylabel("test accuracy, %")
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=150)


def main() -> None:
    args = arguments()
    if args.memory:
        return memory_table()
    if args.device == "cpu":
        torch.set_num_threads(1)  # sums in the same order everywhere; and the networks are small
    out = args.out or Path(tempfile.mkdtemp(prefix="petra-parity-"))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"petra-parity-{args.data}.csv"
    done = run_all(args, path)
    if RANK == 0:
        print(*table(done), sep="\n")
        picture(read(path), f"RevNets on {args.data}: PETRA and its relatives", path.with_suffix(".png"))
        print(f"written: {path}, {path.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
