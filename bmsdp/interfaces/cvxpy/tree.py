"""Coefficients of affine CVXPY expressions, by walking their trees from the root down.

A set of linear functionals of an expression, ``sum_c w_c e_c`` over its entries in F order, is handed from an atom to its
arguments until it arrives at variables and constants. What is not asked for is never formed: ``trace(C @ X)`` costs the
entries of C, ``diag(X)`` costs n; CVXPY's compiler lists all n^2 entries of X first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp


class Unreadable(Exception):
    """An expression, variable or constraint that is not read here; says which."""


class Weights(NamedTuple):
    """Functional ``row`` has weight ``val`` at entry ``col`` (F order) of an expression, or of its conjugate."""

    row: np.ndarray
    col: np.ndarray
    val: np.ndarray
    conj: bool = False

    def moved(self, col: np.ndarray) -> Weights:
        return self._replace(col=col)

    def scaled(self, factor: Any) -> Weights:
        return self._replace(val=self.val * (np.conj(factor) if self.conj else factor))

    def kept(self, mask: np.ndarray) -> Weights:
        return self._replace(row=self.row[mask], col=self.col[mask], val=self.val[mask])


class Functionals(NamedTuple):
    """``constant + sum over variables of w(x)``; the weights of a variable by its id."""

    constant: np.ndarray
    variables: dict[int, list[Weights]]


Step = tuple[Any, Weights]


def functionals(expression: Any) -> Functionals:
    """All entries of an affine expression, in F order; `Unreadable` names what has no place here."""
    count = expression.size
    constant = np.zeros(count, complex)
    variables: dict[int, list[Weights]] = {}
    rows = np.arange(count)
    todo: list[Step] = [(expression, Weights(rows, rows, np.ones(count)))]
    atoms = _atoms()
    while todo:
        e, w = todo.pop()
        if e.is_constant():
            value = _entries(e, w.col)
            value = w.val * (value.conj() if w.conj else value)
            constant += np.bincount(w.row, value.real, count) + 1j * np.bincount(w.row, value.imag, count)
        elif not e.args and hasattr(e, "attributes"):
            variables.setdefault(e.id, []).append(w)
        elif type(e) in atoms:
            todo.extend(atoms[type(e)](e, w))
        else:
            raise Unreadable(f"{type(e).__name__} is not read here")
    return Functionals(constant, variables)


def bare(expression: Any) -> Any:
    """The variable that an expression is, up to zeros added and declarations of symmetry; None for all others."""
    while expression.args:
        args = [arg for arg in expression.args if not (arg.is_constant() and _is_zero(arg.value))]
        name = type(expression).__name__
        if len(args) != 1 or not (name == "AddExpression" or name.endswith("_wrap")) or args[0].shape != expression.shape:
            return None
        expression = args[0]
    return None if expression.is_constant() else expression


def _is_zero(value: Any) -> bool:
    return not (value.data.any() if sp.issparse(value) else np.any(value))


def _entries(e: Any, col: np.ndarray) -> np.ndarray:
    """Entries of a constant, which may be sparse, or one number in many places."""
    if type(e).__name__ == "Promote":
        return _entries(e.args[0], np.zeros_like(col))
    value = e.value
    if value is None:
        raise ValueError(f"the parameter in {e} has no value; set its value before solving")
    place = _place(col, e.shape)
    if sp.issparse(value) and value.ndim == 2:
        chosen: Any = sp.csr_array(value)[place] if len(col) else np.zeros(0)
        return (chosen.toarray() if sp.issparse(chosen) else np.asarray(chosen)).ravel()
    value = np.asarray(value.toarray() if sp.issparse(value) else value).reshape(e.shape)
    return value[place] if e.shape else np.full(len(col), value.item())


def _place(col: np.ndarray, shape: Any, order: Any = "F") -> tuple[np.ndarray, ...]:
    """Indices of flat positions; none for a number."""
    return np.unravel_index(col, tuple(shape), order=order) if len(shape) else ()


def _flat(place: Any, shape: Any, like: np.ndarray, order: Any = "F") -> np.ndarray:
    return np.ravel_multi_index(tuple(place), tuple(shape), order=order) if len(shape) else np.zeros_like(like)


@functools.cache
def _atoms() -> dict[type, Callable[[Any, Weights], Iterator[Step]]]:
    """What each atom hands on."""
    from cvxpy.atoms.affine import (
        add_expr,
        binary_operators,
        conj,
        diag,
        hstack,
        imag,
        index,
        promote,
        real,
        reshape,
        trace,
        transpose,
        unary_operators,
        upper_tri,
        vstack,
        wraps,
    )
    from cvxpy.atoms.affine import sum as sums
    from cvxpy.atoms.affine.broadcast_to import broadcast_to

    return {
        add_expr.AddExpression: _add,
        unary_operators.NegExpression: lambda e, w: iter([(e.args[0], w.scaled(-1.0))]),
        binary_operators.multiply: _multiply,
        binary_operators.MulExpression: _matmul,
        binary_operators.DivExpression: _divide,
        sums.Sum: _sum,
        trace.Trace: _trace,
        diag.diag_vec: _diag_vec,
        diag.diag_mat: _diag_mat,
        reshape.reshape: _reshape,
        transpose.transpose: _transpose,
        index.index: _index,
        index.special_index: lambda e, w: iter([(e.args[0], w.moved(e._select_mat.ravel(order="F")[w.col]))]),
        promote.Promote: lambda e, w: iter([(e.args[0], w.moved(np.zeros_like(w.col)))]),
        broadcast_to: _broadcast,
        hstack.Hstack: _hstack,
        vstack.Vstack: _vstack,
        upper_tri.upper_tri: _upper_tri,
        real.real: functools.partial(_part, imaginary=False),
        imag.imag: functools.partial(_part, imaginary=True),
        conj.conj: lambda e, w: iter([(e.args[0], w._replace(conj=not w.conj))]),
        **{kind: _same for kind in (wraps.psd_wrap, wraps.symmetric_wrap, wraps.hermitian_wrap, wraps.nonneg_wrap)},
    }


def _same(e: Any, w: Weights) -> Iterator[Step]:
    yield e.args[0], w


def _add(e: Any, w: Weights) -> Iterator[Step]:
    for arg in e.args:
        if arg.shape != e.shape and arg.size != 1:
            raise Unreadable(f"a sum of shapes {arg.shape} and {e.shape} is not read here")
        yield arg, w if arg.shape == e.shape else w.moved(np.zeros_like(w.col))


def _constant_first(e: Any) -> tuple[Any, Any]:
    left, right = e.args
    if left.is_constant():
        return left, right
    if right.is_constant():
        return right, left
    raise Unreadable("a product of two variables is not read here")


def _multiply(e: Any, w: Weights) -> Iterator[Step]:
    factor, arg = _constant_first(e)
    if factor.shape != e.shape or arg.shape != e.shape:
        raise Unreadable(f"a product of shapes {e.args[0].shape} and {e.args[1].shape} is not read here")
    w = w.scaled(_entries(factor, w.col))
    yield arg, w.kept(w.val != 0)


def _divide(e: Any, w: Weights) -> Iterator[Step]:
    arg, factor = e.args
    if not factor.is_constant() or arg.shape != e.shape:
        raise Unreadable("this quotient is not read here")
    col = w.col if factor.shape == e.shape else np.zeros_like(w.col)
    yield arg, w.scaled(1.0 / _entries(factor, col))


def _matmul(e: Any, w: Weights) -> Iterator[Step]:
    factor, arg = _constant_first(e)
    left, right = e.args
    if max(len(left.shape), len(right.shape)) > 2 or not (left.shape and right.shape):
        raise Unreadable(f"a product of shapes {left.shape} and {right.shape} is not read here")
    p, r = left.shape[0] if len(left.shape) == 2 else 1, right.shape[1] if len(right.shape) == 2 else 1
    M = sp.csr_array(factor.value if sp.issparse(factor.value) else np.asarray(factor.value).reshape(factor.shape))
    i, k = w.col % p, w.col // p
    first = factor is left
    if M.ndim == 1:
        M = M.reshape((1, -1) if first else (-1, 1)).tocsr()
    # with everything but the summed index kept apart, one sparse product serves all functionals
    key, own = np.unique(w.row * r + k if first else w.row * p + i, return_inverse=True)
    W = sp.csr_array((w.val, (own, i if first else k)), shape=(len(key), p if first else r))
    M = M.conj() if w.conj else M
    product = (W @ (M if first else M.T)).tocoo()
    at, inner = key[product.row], product.col.astype(np.int64)
    if first:
        yield arg, Weights(at // r, inner + (at % r) * M.shape[1], product.data, w.conj)
    else:
        yield arg, Weights(at // p, at % p + inner * p, product.data, w.conj)


def _repeat(w: Weights, col: np.ndarray, times: int) -> Weights:
    return Weights(np.repeat(w.row, times), col.ravel(), np.repeat(w.val, times), w.conj)


def _sum(e: Any, w: Weights) -> Iterator[Step]:
    arg = e.args[0]
    if e.axis is None:
        factor, other = arg.args if type(arg).__name__ == "multiply" else (arg, arg)
        if factor.is_constant() and factor.shape == other.shape and sp.issparse(factor.value):
            M = sp.coo_array(factor.value)  # trace(C @ X), as CVXPY rewrites it: only the entries of C count
            times = np.tile(M.data.conj() if w.conj else M.data, len(w.col))
            w = _repeat(w, np.tile(M.coords[0] + M.coords[1].astype(np.int64) * arg.shape[0], len(w.col)), M.nnz)
            yield other, w._replace(val=w.val * times)
            return
        yield arg, _repeat(w, np.tile(np.arange(arg.size), len(w.col)), arg.size)
        return
    axes = {a % len(arg.shape) for a in np.atleast_1d(e.axis)}
    rest = [n for a, n in enumerate(arg.shape) if a not in axes]
    stride = np.cumprod([1, *arg.shape])[:-1]  # F order
    place = _place(w.col, rest)
    start = sum((p * stride[a] for p, a in zip(place, [a for a in range(len(arg.shape)) if a not in axes], strict=True)), 0 * w.col)
    step = np.zeros(1, np.int64)
    for a in axes:
        step = np.add.outer(step, np.arange(arg.shape[a]) * stride[a]).ravel()
    yield arg, _repeat(w, np.add.outer(start, step), len(step))


def _trace(e: Any, w: Weights) -> Iterator[Step]:
    n = e.args[0].shape[0]
    yield e.args[0], _repeat(w, np.tile(np.arange(n) * (n + 1), len(w.col)), n)


def _diag_vec(e: Any, w: Weights) -> Iterator[Step]:
    n = e.shape[0]
    i, j = w.col % n, w.col // n
    on = j - i == e.k
    yield e.args[0], w.kept(on).moved(np.minimum(i, j)[on])


def _diag_mat(e: Any, w: Weights) -> Iterator[Step]:
    i, j = w.col - min(e.k, 0), w.col + max(e.k, 0)
    yield e.args[0], w.moved(i + j * e.args[0].shape[0])


def _reshape(e: Any, w: Weights) -> Iterator[Step]:
    arg, col = e.args[0], w.col
    if e.order == "C":
        flat = _flat(_place(col, e.shape), e.shape, col, "C")
        col = _flat(_place(flat, arg.shape, "C"), arg.shape, col)
    yield arg, w.moved(col)


def _transpose(e: Any, w: Weights) -> Iterator[Step]:
    arg = e.args[0]
    axes = e.axes if e.axes is not None else range(len(arg.shape))[::-1]
    place = _place(w.col, e.shape)
    yield arg, w.moved(_flat([place[list(axes).index(a)] for a in range(len(arg.shape))], arg.shape, w.col))


def _index(e: Any, w: Weights) -> Iterator[Step]:
    arg = e.args[0]
    if len(e.key) != len(arg.shape) or any(not isinstance(k, slice) for k in e.key):
        raise Unreadable(f"the index {e._orig_key} is not read here")
    chosen = [np.arange(k.start, k.stop, k.step) for k in e.key]  # CVXPY has made them explicit; a stop of -1 is before 0
    lengths = [len(c) for c in chosen]
    if np.prod(lengths) != e.size:
        raise Unreadable(f"the index {e._orig_key} is not read here")
    place = _place(w.col, lengths)
    yield arg, w.moved(_flat([c[p] for c, p in zip(chosen, place, strict=True)], arg.shape, w.col))


def _broadcast(e: Any, w: Weights) -> Iterator[Step]:
    arg = e.args[0]
    place = _place(w.col, e.shape)[len(e.shape) - len(arg.shape) :]
    yield arg, w.moved(_flat([p % n for p, n in zip(place, arg.shape, strict=True)], arg.shape, w.col))


def _hstack(e: Any, w: Weights) -> Iterator[Step]:
    if len(e.shape) > 2:
        raise Unreadable(f"hstack of shape {e.shape} is not read here")
    start = 0
    for arg in e.args:  # whole columns, one after the other
        on = (w.col >= start) & (w.col < start + arg.size)
        if on.any():
            yield arg, w.kept(on).moved(w.col[on] - start)
        start += arg.size


def _vstack(e: Any, w: Weights) -> Iterator[Step]:
    if len(e.shape) != 2:
        raise Unreadable(f"vstack of shape {e.shape} is not read here")
    i, j, start = w.col % e.shape[0], w.col // e.shape[0], 0
    for arg in e.args:
        rows = arg.size // e.shape[1]
        on = (i >= start) & (i < start + rows)
        if on.any():
            yield arg, w.kept(on).moved(i[on] - start + j[on] * rows)
        start += rows


def _upper_tri(e: Any, w: Weights) -> Iterator[Step]:
    n = e.args[0].shape[0]
    i, j = (index[w.col] for index in np.triu_indices(n, 1))
    yield e.args[0], w.moved(i + j * n)


def _part(e: Any, w: Weights, imaginary: bool) -> Iterator[Step]:
    """Re z = (z + z*) / 2 and Im z = (z - z*) / 2i, both real: conjugating them changes nothing."""
    half = w.val / (2j if imaginary else 2)
    yield e.args[0], w._replace(val=half, conj=False)
    yield e.args[0], w._replace(val=-half if imaginary else half, conj=True)
