"""The residual of a factorisation in twice the working precision: ``A - G G^T`` by error-free transformations.

Products and sums are split into a float and its exact error (Dekker 1971; Knuth; Ogita, Rump, Oishi, SIAM J. Sci. Comput. 26 (2005)).
Every entry comes out with an error of ``2^-100`` times the terms that cancel in it; no fastmath here.
"""

import numpy as np

from ._jit import jit


@jit(inline="always")
def _split(a):
    c = 134217729.0 * a
    high = c - (c - a)
    return high, a - high


@jit
def residual_rows(indptr, indices, data, diagonal, perm, inverse, pointer, rows, values, row_pointer, row_column, row_place, out):
    """out <- row sums of ``|A - G G^T|`` for real ``A = P (offdiag(S) + diag(diagonal)) P^T``, and of ``|G| |G^T|`` (2 x n).

    ``pointer, rows, values``: columns of the lower triangular G, rows ascending, the diagonal first; ``row_pointer, row_column,
    row_place``: for each row its columns and the places of its entries in ``values``.  Work: three vectors of length n.
    """
    n = len(perm)
    x = np.zeros(n)
    low = np.zeros(n)
    size = np.zeros(n)
    out[:] = 0.0
    for i in range(n):
        for p in range(indptr[perm[i]], indptr[perm[i] + 1]):
            j = inverse[indices[p]]
            if j < i:
                x[j] = data[p]
        x[i] = diagonal[perm[i]]
        for q in range(row_pointer[i], row_pointer[i + 1]):
            k = row_column[q]
            a = -values[row_place[q]]
            a1, a2 = _split(a)
            for p in range(pointer[k], row_place[q] + 1):
                r = rows[p]
                b = values[p]
                b1, b2 = _split(b)
                product = a * b
                error = a2 * b2 - (((product - a1 * b1) - a2 * b1) - a1 * b2)
                total = x[r] + product
                z = total - x[r]
                low[r] += ((x[r] - (total - z)) + (product - z)) + error
                x[r] = total
                size[r] += abs(product)
        for q in range(row_pointer[i], row_pointer[i + 1]):  # the rows met are those of the columns met
            k = row_column[q]
            for p in range(pointer[k], row_place[q] + 1):
                r = rows[p]
                value = abs(x[r] + low[r])
                if value > 0 or size[r] > 0:
                    out[0, i] += value
                    out[1, i] += size[r]
                    if r != i:
                        out[0, r] += value
                        out[1, r] += size[r]
                    x[r] = 0.0
                    low[r] = 0.0
                    size[r] = 0.0
    return out
