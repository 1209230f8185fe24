"""Square variables that are not declared symmetric: ``X = Variable((n, n))`` with ``X >> 0``, and maybe ``X == X.T``.

The matrix of such a cone has entries ``(x_p + x_q) / 2``: none is a variable, and n^2 rows would be needed in either form. Rows
``x_q = x_p`` and ``x_p = 0`` are solved for a variable; variables that enter everything alike are made equal, which costs
nothing. The multipliers of the rows that were used follow from the gradient of the Lagrangian.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .conic import Block, Program, Rows, contradiction, distinct_rows
from .standard import Solution


class Solved(NamedTuple):
    """Equality rows that were solved for a variable each, and ``x = M z``."""

    row: np.ndarray
    variable: np.ndarray
    coefficient: np.ndarray
    M: sp.csr_array


def merged(program: Program) -> tuple[Program, Callable[[Solution], Solution]]:
    """The program in fewer variables, and the way back; the same one where no block asks for it."""
    if not any(_in_pairs(block) for block in program.blocks):
        return program, lambda solution: solution
    solved = _solve_rows(program.equal)
    first = _in_terms(program, solved.M)
    alike = _alike(first)
    M = sp.csr_array(solved.M @ alike)

    def restore(solution: Solution) -> Solution:
        gradient = program.c + _gradient(program, solution)
        equal = solution.equal.copy()
        # the caller's rows that repeat it are given their share, as in Rows.spread
        y = np.zeros(len(program.equal.rhs))
        y[solved.row] = -gradient[solved.variable] / solved.coefficient
        equal += program.equal.spread(y)
        return solution._replace(x=M @ solution.x, equal=equal)

    return _in_terms(first, alike), restore


def _in_pairs(block: Block) -> bool:
    off = block.i < block.j
    return bool(off.any() and (np.diff(block.F.indptr)[off] == 2).all())


def _solve_rows(equal: Rows) -> Solved:
    """Rows ``a x_p = 0``, and rows ``a x_p +- a x_q = 0`` whose variables are in no other of them."""
    E, d = equal.matrix, equal.matrix.shape[1]
    count, start = np.diff(E.indptr), E.indptr[:-1]
    single = np.flatnonzero((count == 1) & (equal.rhs == 0))
    zero, first = np.unique(E.indices[start[single]], return_index=True)
    single = single[first]
    double = np.flatnonzero((count == 2) & (equal.rhs == 0))
    double = double[np.abs(E.data[start[double]]) == np.abs(E.data[start[double] + 1])]
    p, q = E.indices[start[double]].astype(np.int64), E.indices[start[double] + 1].astype(np.int64)
    _, first = np.unique(p * d + q, return_index=True)
    double, p, q = double[first], p[first], q[first]
    uses = np.bincount(np.concatenate([p, q, zero, zero]), minlength=d)
    lone = (uses[p] == 1) & (uses[q] == 1)
    double, p, q = double[lone], p[lone], q[lone]
    kept = np.ones(d, bool)
    kept[q] = kept[zero] = False
    number = np.cumsum(kept) - 1
    a, b = E.data[start[double]], E.data[start[double] + 1]
    place = np.append(np.flatnonzero(kept), q), np.append(number[kept], number[p])
    M = sp.csr_array((np.append(np.ones(kept.sum()), -a / b), place), shape=(d, int(kept.sum())))
    return Solved(np.append(single, double), np.append(zero, q), np.append(E.data[start[single]], b), M)


def _in_terms(program: Program, M: sp.csr_array) -> Program:
    """The program for ``x = M z``."""

    def block(old: Block) -> Block:
        F = sp.csr_array(old.F @ M)
        F.eliminate_zeros()
        return dataclasses.replace(old, F=F)

    equal, less = program.equal.times(M, True), program.less.times(M, False)
    return Program(M.T @ program.c, equal, less, tuple(map(block, program.blocks)), contradiction(equal, less))


def _alike(program: Program) -> sp.csr_array:
    """``x = N z`` that makes variables equal which have the same coefficients everywhere."""
    parts = [program.equal.matrix, program.less.matrix, *(block.F for block in program.blocks)]
    group = distinct_rows(sp.csr_array(sp.vstack(parts).T), program.c, False).home
    alone = group < 0
    group = np.where(alone, group.max(initial=-1) + np.cumsum(alone), group)
    d = len(group)
    return sp.csr_array((np.ones(d), (np.arange(d), group)), shape=(d, int(group.max(initial=-1)) + 1))


def _gradient(program: Program, solution: Solution) -> np.ndarray:
    """``A'y`` over all rows of the program."""
    out = np.zeros(len(program.c))
    for rows, y in ((program.equal, solution.equal), (program.less, solution.less)):
        out += rows.matrix.T @ rows.gathered(y)
    for block, Z in zip(program.blocks, solution.Z, strict=True):
        values = Z[block.i, block.j]
        weights = np.where(block.i < block.j, 2.0, 1.0)
        out += block.F.T @ (weights * np.where(block.imag, values.imag, values.real))
    return out
