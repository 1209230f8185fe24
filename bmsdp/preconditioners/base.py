"""What preconditioners of tCG have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from ..problem import LocalModel, Problem

Map = Callable[[np.ndarray], np.ndarray]
Gate = Literal["auto", "always", "local"]

LONG = 20  # products of a tCG from which on "auto" considers a preconditioner
DENSE = 0.1  # cost of a flop of BLAS-3, in those of sparse products


@runtime_checkable
class Preconditioner(Protocol):
    """A frozen dataclass of parameters; `start` makes what has state."""

    def start(self, problem: Problem) -> Run:
        """The state of one run of a solver."""
        ...


class Run:
    """One run of a solver with a preconditioner; this one has none.

    Attributes
    ----------
    info : dict
        What the solver reports: whether the last step was ``preconditioned``, how many ``preconditioned_steps`` there were.
    """

    def __init__(self) -> None:
        self.info: dict[str, Any] = {}

    def at(self, model: LocalModel) -> Map | None:
        """A symmetric positive definite map of the tangent space at the model's point, close to a multiple of the inverse Hessian.

        Asked once before every tCG; None where that is to go without.
        """
        return None

    def product(self, model: LocalModel, delta: np.ndarray) -> np.ndarray:
        """``Hess[delta]`` for tCG, which may be kept as a secant pair; one product with C.  The caller overwrites delta afterwards."""
        return model.hess(delta)

    def ended(self, iterations: int, boundary: bool) -> None:
        """Told after every tCG: its length, and whether it left the ball or met negative curvature."""


class Plain(Run):
    """A callable ``model -> map``, asked before every step."""

    def __init__(self, make: Callable[[LocalModel], Map | None]):
        self.make, self.info = make, {"preconditioned": False, "preconditioned_steps": 0}

    def at(self, model: LocalModel) -> Map | None:
        found = self.make(model)
        self.info["preconditioned"] = found is not None
        self.info["preconditioned_steps"] += found is not None
        return found


class Gated(Plain):
    """A preconditioner that is asked when its gate is open.

    "always": before every step; "local": when the last tCG ended by its residual; "auto": when so many products are to be expected
    that a preconditioner which leaves `shorter` of them pays, by flops: the last tCG's length tells.
    """

    shorter = 0.4

    def __init__(self, problem: Problem, gate: Gate, make: Callable[[LocalModel], Map | None]):
        super().__init__(make)
        self.problem, self.gate = problem, gate
        self.length, self.iterations, self.boundary = 0, 0, False  # of the last tCG; length: as it would have been without

    def at(self, model: LocalModel) -> Map | None:
        n, k = model.Y.shape
        self.step_cost = product_cost(self.problem, k) + 20.0 * n * k  # tCG's own vectors
        if self.gate == "auto":
            apply, build = self.costs(model)
            saved = (1 - self.shorter) * self.step_cost - self.shorter * apply
            is_open = self.length >= LONG and self.length * saved > build / 3  # what is made serves later steps as well
        else:
            is_open = self.gate == "always" or not self.boundary and self.length > 0
        if not is_open:
            self.closed()
            self.info["preconditioned"] = False
            return None
        return super().at(model)

    def ended(self, iterations: int, boundary: bool) -> None:
        self.length = round(iterations / self.shorter) if self.info["preconditioned"] else iterations
        self.iterations, self.boundary = iterations, boundary

    def costs(self, model: LocalModel) -> tuple[float, float]:
        """(flops of an application, flops of its making), those of BLAS-3 counted as `DENSE`."""
        return 0.0, 0.0

    def closed(self) -> None:
        """The gate is closed before this step."""


def product_cost(problem: Problem, k: int) -> float:
    """Flops of C Y; that of an operator without entries is taken for 200 n k."""
    terms = getattr(getattr(problem.C, "C", None), "nnz", None)
    if terms is None:
        terms = problem.n * problem.n * DENSE if problem.C.matrix() is not None else 100 * problem.n
    return (4 if problem.C.is_complex else 1) * 2.0 * terms * k


def started(preconditioner: Any, problem: Problem) -> Run:
    """The run of what `TrustRegion` was given."""
    if preconditioner is None:
        return Run()
    if isinstance(preconditioner, Preconditioner):
        return preconditioner.start(problem)
    if callable(preconditioner):
        return Plain(preconditioner)
    raise TypeError(
        f"preconditioner = {preconditioner!r}; one of bmsdp.preconditioners is needed, or a callable that takes a model and returns a map"
    )


def check_gate(gate: Any) -> None:
    """Refuse a gate that is none."""
    if gate not in ("auto", "always", "local"):
        raise ValueError(f'gate = {gate!r}; it must be "auto", "always" or "local"')


def projected(model: LocalModel, Z: np.ndarray) -> np.ndarray:
    """The tangent part of Z."""
    return model.problem.manifold.project(model.Y, Z, model.factor)
