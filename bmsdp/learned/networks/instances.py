"""Problems as torch data: batches, block-diagonal, with rows in the order of colours; and the batches that training draws."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ...manifolds import Oblique, StiefelProduct
from ...problem import Problem


class Product(torch.autograd.Function):
    """``A Y`` for a fixed sparse A, given with ``A*``."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, adjoint: Tensor, Y: Tensor) -> Tensor:
        ctx.adjoint = adjoint
        return A @ Y

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> tuple[None, None, Tensor]:  # type: ignore[override]
        return None, None, ctx.adjoint @ G.contiguous()


@dataclass(frozen=True)
class Colour:
    """Blocks ``first .. last`` of d rows each, which share no entry of C: they move at the same time.

    Attributes
    ----------
    rows : slice
        The rows of Y.
    C, adjoint : sparse CSR tensors
        These rows of C without the blocks on the diagonal, and their adjoint.
    radius : Tensor, (m, 1)
    c1, c2 : Tensor, (m, 1)
        ``sum_j |C_ij| r_j`` and ``sqrt(sum_j |C_ij|^2 r_j^2)``; Frobenius norms, divided by sqrt(d), for blocks.
    """

    rows: slice
    C: Tensor
    adjoint: Tensor
    radius: Tensor
    c1: Tensor
    c2: Tensor


@dataclass(frozen=True)
class Instance:
    """One or several problems side by side.

    Attributes
    ----------
    colours : tuple of Colour
        Rows that no other row sees are in none of them.
    C : sparse CSR tensor
        All rows, without diagonal blocks: the cost up to the constant that these add.
    order : ndarray, (n,)
        Row r here is row ``order[r]`` of the problems, put one below the other.
    d, n : int
    part : Tensor, (n,)
        Which problem a row belongs to.
    scale : Tensor, (B,)
        ``sum_i r_i c2_i`` of each problem: about the size of its optimum.
    optimum : Tensor, (B,), or None
        Without the constant.
    problems : tuple of Problem
    """

    colours: tuple[Colour, ...]
    C: Tensor
    order: np.ndarray
    d: int
    part: Tensor
    scale: Tensor
    optimum: Tensor | None
    problems: tuple[Problem, ...]

    @property
    def n(self) -> int:
        return len(self.order)

    def costs(self, Y: Tensor) -> Tensor:
        """``<C, YY*>`` of every problem, (B,), without the constant of the diagonal blocks."""
        rows = (Y.conj() * Product.apply(self.C, self.C, Y)).real.sum(1)
        return torch.zeros(len(self.problems), dtype=rows.dtype).index_add(0, self.part, rows)

    def into(self, Ys: Sequence[np.ndarray]) -> Tensor:
        """Factors of the problems (n_b x k each) as one state."""
        return torch.from_numpy(np.concatenate(Ys)[self.order])

    def out(self, Y: Tensor) -> list[np.ndarray]:
        """The factors of the problems in a state."""
        back = np.empty(tuple(Y.shape), Y.detach().numpy().dtype)
        back[self.order] = Y.detach().numpy()
        return np.split(back, np.cumsum([problem.n for problem in self.problems])[:-1])


def instance(problems: Sequence[Problem], optimum: Sequence[float] | None = None) -> Instance:
    """Problems of one block size and one field side by side; ``optimum`` are their optimal values.

    Raises TypeError where a problem has no row step, ValueError where problems do not fit together.
    """
    d = block_size(problems)
    radius = np.concatenate([_radius(problem) for problem in problems])
    off = sp.block_diag([_off_diagonal(problem, d) for problem in problems], format="csr")
    weight = _block_norms(off, d)  # |C_ij|_F / sqrt(d)
    r = radius[::d]
    c1, c2 = weight @ r, np.sqrt(weight.power(2) @ r**2)
    order, pointer = _colours(weight, c2 > 0)
    rows = (order[:, None] * d + np.arange(d)).ravel()
    C = sp.csr_array(off[rows][:, rows])
    C.sort_indices()
    colours = []
    for first, last in zip(pointer[:-1], pointer[1:], strict=True):
        here = slice(int(first) * d, int(last) * d)
        data = (_column(v[order[first:last]]) for v in (r, c1, c2))
        colours.append(Colour(here, _csr(C[here]), _csr(C[here].conj().T.tocsr()), *data))
    part = np.repeat(np.arange(len(problems)), [problem.n for problem in problems])
    scale = np.bincount(part[::d], d * r * c2)
    known = None
    if optimum is not None:
        constants = [_constant(problem, d) for problem in problems]
        known = torch.from_numpy(np.asarray(optimum, float) - np.array(constants))
    return Instance(
        tuple(colours), _csr(C), rows, d, torch.from_numpy(part[rows]), torch.from_numpy(np.where(scale > 0, scale, 1.0)), known,
        tuple(problems),
    )  # fmt: skip


def block_size(problems: Sequence[Problem]) -> int:
    """The one block size of problems that fit together; raises as `instance`."""
    kinds = {(_block_size(problem), problem.dtype) for problem in problems}
    if len(kinds) != 1:
        found = "; ".join(sorted(f"d = {d}, {dtype}" for d, dtype in kinds)) or "none"
        raise ValueError(f"problems of one batch have one block size and one number type; got {found}")
    return kinds.pop()[0]


class Draws:
    """The batches of a training run: batch b has the problems of pool entry ``b % pool`` and random starts of its own.

    Parameters
    ----------
    problems : sequence of Problem, or callable
        Taken ``size`` at a time, cyclically; or ``problems(rng)``, a new Problem a call, of which ``pool size`` are drawn.
    k : int
        Columns.
    size : int
        Problems in a batch.
    pool : int, optional
        Different batches of problems; by default as many as the list fills, or 16 of a generator.
    seed : int
    optimum : callable, optional
        ``optimum(problem)``, the optimal value; without it the head can only use the objective.
    """

    def __init__(
        self, problems: Sequence[Problem] | Callable[[np.random.Generator], Problem], k: int, size: int = 4, pool: int | None = None,
        seed: int = 0, optimum: Callable[[Problem], float] | None = None,
    ) -> None:  # fmt: skip
        listed = None if callable(problems) else list(problems)
        if listed is not None and not listed:
            raise ValueError("no problems to train on; pass at least one Problem, or a function rng -> Problem")
        self.problems, self.listed, self.k, self.size, self.seed, self.optimum = problems, listed, k, size, seed, optimum
        self.pool = pool if pool is not None else 16 if listed is None else -(-len(listed) // size)
        self.entry = lru_cache(maxsize=None)(self._entry)

    def _entry(self, p: int) -> Instance:
        chosen = []
        for s in range(p * self.size, (p + 1) * self.size):
            if self.listed is not None:
                chosen.append(self.listed[s % len(self.listed)])
            else:
                chosen.append(self.problems(np.random.default_rng([self.seed, 0, s])))  # type: ignore[operator]
        return instance(chosen, None if self.optimum is None else [self.optimum(problem) for problem in chosen])

    def context(self, batch: int) -> Instance:
        """The problems of a batch."""
        return self.entry(batch % self.pool)

    def inputs(self, batch: int) -> tuple[Tensor]:
        """Random feasible rows, a function of the seed and of the batch."""
        here, rng = self.context(batch), np.random.default_rng([self.seed, 1, batch])
        return (here.into([problem.random_point(self.k, rng) for problem in here.problems]),)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "entry"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.entry = lru_cache(maxsize=None)(self._entry)


def _block_size(problem: Problem) -> int:
    rows = isinstance(problem.manifold, Oblique | StiefelProduct)
    if not rows or problem.terms or problem.C.matrix() is None:
        raise TypeError(
            f"a mixing network has no step for {type(problem.manifold).__name__} with this cost; it needs Oblique or StiefelProduct, "
            "a sparse or dense C, and no terms"
        )
    return problem.manifold.d if isinstance(problem.manifold, StiefelProduct) else 1


def _radius(problem: Problem) -> np.ndarray:
    return problem.manifold.radius if isinstance(problem.manifold, Oblique) else np.ones(problem.n)


def _off_diagonal(problem: Problem, d: int) -> sp.csr_array:
    C = sp.coo_array(problem.C.matrix())
    i, j = C.coords
    off = (i // d != j // d) & (C.data != 0)
    return sp.csr_array((C.data[off], (i[off], j[off])), shape=C.shape)


def _constant(problem: Problem, d: int) -> float:
    """What the diagonal blocks add to the cost."""
    return float(problem.C.matrix().diagonal().real @ _radius(problem) ** 2)


def _block_norms(C: sp.csr_array, d: int) -> sp.csr_array:
    C = C.tocoo()
    i, j = C.coords
    out = sp.coo_array((np.abs(C.data) ** 2, (i // d, j // d)), shape=(C.shape[0] // d, C.shape[0] // d)).tocsr()
    out.data = np.sqrt(out.data / d)
    return out


def _colours(weight: sp.csr_array, coupled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blocks by colour, with uncoupled ones last, and the pointers of the colours."""
    from ...kernels.mixing import greedy_colouring

    order, pointer = greedy_colouring(weight.indptr, weight.indices)
    sizes = np.add.reduceat(coupled[order].astype(int), pointer[:-1])
    order = np.concatenate([order[coupled[order]], order[~coupled[order]]])
    return order, np.concatenate([[0], np.cumsum(sizes[sizes > 0])])


def _column(v: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(v, float))[:, None]


def _csr(A: sp.csr_array) -> Tensor:
    with torch.sparse.check_sparse_tensor_invariants(False):
        return torch.sparse_csr_tensor(torch.from_numpy(A.indptr), torch.from_numpy(A.indices), torch.from_numpy(A.data), tuple(A.shape))


with warnings.catch_warnings():  # torch says once a process that CSR tensors are beta; what is used of them is tested here
    warnings.simplefilter("ignore")
    _csr(sp.csr_array(np.eye(1)))
