"""Triangular solves with the factors of `elimination`, many right-hand sides at once."""

from ._jit import FAST, jit


@jit(fastmath=FAST)
def solve_forward(pointer, rows, values, X):
    """X <- the solution of ``L X = X`` (N x k) over the sparse columns; rows of the core receive their Schur updates."""
    for j in range(len(pointer) - 1):
        for p in range(pointer[j], pointer[j + 1]):
            i = rows[p]
            w = values[p]
            for c in range(X.shape[1]):
                X[i, c] -= w * X[j, c]


@jit(fastmath=FAST)
def solve_transposed(pointer, rows, values, X):
    """X <- the solution of ``L* X = X`` (N x k) over the sparse columns, given its rows of the core."""
    for j in range(len(pointer) - 2, -1, -1):
        for p in range(pointer[j], pointer[j + 1]):
            i = rows[p]
            w = values[p].conjugate()
            for c in range(X.shape[1]):
                X[j, c] -= w * X[i, c]
