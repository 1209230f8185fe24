"""The arguments of the command line: commands, options, and what each accepts (floor L8)."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable
from typing import Any, NoReturn

from . import __version__, plot, solvers

SOLVERS = {
    "default": solvers.Default, "mixing": solvers.Mixing, "lbfgs": solvers.LBFGS, "trust-region": solvers.TrustRegion,
    "multisecant": solvers.Multisecant, "gradient-descent": solvers.GradientDescent,
}  # fmt: skip
METHODS = {name.replace("_", "-"): name for name in ("auto", "manifold", "augmented_lagrangian", "interior_point")}
BAD_INPUT = 2  # exit code
KNOWN = (
    "known are sparse SDPA (.dat-s), SeDuMi and SDPT3 (.mat), rudy graphs (.rud, .rudy, .txt, .mc, no ending), Matrix Market (.mtx) and "
    "pose graphs (.g2o), plain or .gz"
)


class Parser(argparse.ArgumentParser):
    """One line for what is wrong, instead of the whole usage."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def parser(commands_of: dict[str, Callable[[argparse.Namespace], int]]) -> argparse.ArgumentParser:
    """The parser; ``commands_of`` maps the name of each command to what runs it, as ``args.run``."""
    codes = "exit codes: 0 certified, 2 bad input, 3 solved, not certified, 4 infeasible or unbounded, 5 a limit, 130 interrupted"
    top = Parser(prog="bmsdp", description="Low-rank semidefinite programming, with certificates.", epilog=codes)
    top.add_argument("--version", action="version", version=f"bmsdp {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="solve a torus with signed weights and explain the certificate", epilog=codes)
    demo.add_argument("--size", type=_size, default=(100, 100), metavar="N|RxC", help="rows and columns (default 100x100)")
    demo.set_defaults(run=commands_of["demo"])

    run = commands.add_parser("solve", help="solve a file and certify the result", description=f"Formats: {KNOWN}.", epilog=codes)
    run.add_argument("file", metavar="FILE")
    run.add_argument("--rank", type=_natural, help="columns of Y, kept (default: as many as it takes)")
    run.add_argument("--tol", type=float, default=1e-6, help="relative gap to certify (default 1e-6)")
    run.add_argument("--max-time", type=_positive, metavar="S", help="seconds")
    run.add_argument("--perturbation", type=_noise, metavar="S|auto", help="Gaussian noise of this size on the cost first")
    run.add_argument("--method", choices=METHODS, default="auto", help="how constraints are kept (default: as they and sizes suggest)")
    run.add_argument("--solver", choices=[*SOLVERS, "learned"], default="default", help="learned: the default's first sweeps by --weights")
    run.add_argument("--weights", metavar="PATH", help="of --solver learned: what bmsdp train wrote")
    run.add_argument("--trace-bound", type=_positive, metavar="T", help="tr X <= T, where no constraint says so")
    run.add_argument("--certify", choices=("auto", "verified", "probabilistic", "estimate", "none"), default="auto")
    run.add_argument("--seed", type=lambda text: _natural(text, 0), help="of all that is random (default: fresh, and shown)")
    run.add_argument("--threads", type=_natural, default=1, help="threads (default 1)")
    run.add_argument("--cut", action=argparse.BooleanOptionalAction, default=True, help="round to a cut (graphs; default yes)")
    run.add_argument("--out", type=_target, action="append", default=[], metavar="PATH",
                     help="save the result there: .npz, .sol for y, Z and X as text, .g2o for poses; may be repeated")  # fmt: skip
    run.add_argument("--plot", type=_picture, nargs="?", const=True, metavar="PATH",
                     help="draw the convergence, or poses before and after (.png, .pdf, .svg; default beside --out)")  # fmt: skip
    run.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    run.add_argument("-v", "--verbose", action="store_true", help="print the table of certificates as it grows")
    run.set_defaults(run=commands_of["solve"])

    info = commands.add_parser("info", help="describe an instance or a saved result", epilog=codes)
    info.add_argument("file", metavar="FILE", help="instance, or result written with --out")
    info.set_defaults(run=commands_of["info"])

    prove = commands.add_parser("certify", help="certify a saved result again, from the instance alone", epilog=codes)
    prove.add_argument("file", metavar="FILE", help="the instance")
    prove.add_argument("result", metavar="RESULT", help="what solve --out wrote, or the .sol of another solver")
    prove.add_argument("--tol", type=_positive, default=1e-6, help="gap up to which the exit code is 0 (default 1e-6)")
    prove.add_argument("--rigor", choices=("auto", "verified", "probabilistic"), default="auto")
    prove.add_argument("--verified", action="store_true", help="from the saved dual and the instance alone, in exact arithmetic")
    prove.add_argument("--trace-bound", type=_positive, metavar="T", help="tr X <= T, where no constraint of a .dat-s or .mat says so")
    prove.add_argument("--seed", type=lambda text: _natural(text, 0), help="of a probabilistic bound (default: fresh)")
    prove.set_defaults(run=commands_of["certify"])
    _add_train(commands, codes, commands_of["train"])
    return top


def _add_train(commands: Any, codes: str, run: Callable[[argparse.Namespace], int]) -> None:
    from .learned.command import FAMILIES

    train = commands.add_parser("train", help="learn a solver for a family of instances", epilog=codes)
    train.add_argument("files", metavar="FILE", nargs="*", help="graphs or matrices to train on")
    train.add_argument("--family", choices=FAMILIES, help="or random instances of this kind")
    train.add_argument("--size", type=_natural, default=500, metavar="N", help="rows of those (default 500)")
    train.add_argument("--sweeps", type=_natural, default=16, metavar="L", help="sweeps to learn (default 16)")
    train.add_argument("--rank", type=_natural, help="columns in training (default: what constraints need in general)")
    train.add_argument("--schedule", action="store_true", help="one relaxation a sweep; needs no torch")
    train.add_argument("--steps", type=_natural, default=200, help="batches that a network is trained on (default 200)")
    train.add_argument("--seed", type=lambda text: _natural(text, 0), help="of all that is random (default: fresh, and shown)")
    train.add_argument("--out", type=_target, required=True, metavar="PATH", help="weights to write (.npz)")
    train.set_defaults(run=run)


def is_text(path: str) -> bool:
    """A solution file (.sol); other names are of NumPy's .npz."""
    return path.lower().removesuffix(".gz").endswith(".sol")


def _natural(text: str, least: int = 1) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text!r} given; an integer >= {least} is needed")
    return int(text)


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if float(text) > 0:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} given; a number > 0 is needed")


def _noise(text: str) -> float | str:
    return text if text == "auto" else _positive(text)


def _target(path: str) -> str:
    """A file to write: what is wrong with it is better known before hours of work."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(folder):
        wrong = "a folder" if os.path.isdir(path) else f"there is no folder {folder}"
        raise argparse.ArgumentTypeError(f"{path}: {wrong}; a file that can be written is needed; correct the path")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path}: no permission to write; choose another path")
    return path


def _picture(path: str) -> str:
    try:
        plot.check(path)
    except (ImportError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return _target(path)


def _size(text: str) -> tuple[int, int]:
    parts = [_natural(part) for part in text.lower().split("x")]
    if len(parts) > 2 or min(parts) < 3:
        raise argparse.ArgumentTypeError(f"{text!r} given; N or RxC with at least 3 rows and columns is needed")
    return parts[0], parts[-1]
