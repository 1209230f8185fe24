r"""Sparse elimination down to a dense core: ``P S P* = L D L*`` up to the point where what is left is nearly full.

Sparse random graphs fill in completely after a short sparse phase; simplicial codes then crawl through a dense matrix.  Here
the minimum-degree ordering stops when the remaining graph is nearly complete, and the rest (the *core*) goes to LAPACK.

Every computed entry obeys Higham, Accuracy and Stability (2nd ed.), Lemma 8.4, in whatever order its terms are summed, so
``|S - L D L*| <= gamma (|L| D |L*|)`` entrywise with gamma growing with the number of terms: `bmsdp.verified` uses just that.
"""

import numpy as np

from ._jit import jit


@jit
def _unlink(v, d, head, after, before):
    if before[v] >= 0:
        after[before[v]] = after[v]
    else:
        head[d] = after[v]
    if after[v] >= 0:
        before[after[v]] = before[v]


@jit
def _link(v, d, head, after, before):
    before[v] = -1
    after[v] = head[d]
    if head[d] >= 0:
        before[head[d]] = v
    head[d] = v


@jit
def _gather_clique(p, slot, start, elements, length, dead, live_element, eptr, elen, mark, pool, top):
    """Append to ``pool`` the remaining neighbours of pivot p: its variables, and those of the elements it absorbs."""
    for q in range(start[p], start[p] + length[p]):
        v = slot[q]
        if q < start[p] + elements[p]:
            if live_element[v] == 1:
                for t in range(eptr[v], eptr[v] + elen[v]):
                    u = pool[t]
                    if dead[u] == 0 and mark[u] != p:
                        mark[u] = p
                        pool[top] = u
                        top += 1
                live_element[v] = 0
        elif dead[v] == 0 and mark[v] != p:
            mark[v] = p
            pool[top] = v
            top += 1
    return top


@jit
def _update_lists(i, p, size, slot, start, elements, length, dead, live_element, mark, outside, tag):
    """Replace in i's list what the new element p covers; returns the approximate external degree of i."""
    s = start[i]
    a = s
    degree = size - 1
    for q in range(s, s + elements[i]):
        e = slot[q]
        if live_element[e] == 1:
            extra = outside[e] - tag
            if extra > 0:
                slot[a] = e
                a += 1
                degree += extra
    b = a
    held = -1  # the first kept variable, set aside so that p can take its place behind the elements
    for q in range(s + elements[i], s + length[i]):
        v = slot[q]
        if dead[v] == 0 and mark[v] != p:
            if held < 0:
                held = v
            else:
                slot[b] = v
            b += 1
            degree += 1
    slot[a] = p
    if held >= 0:
        slot[b] = held
    elements[i] = a - s + 1
    length[i] = b - s + 1
    return degree


@jit
def _start(indptr, indices, slot, work, last):
    """Each vertex's neighbours in a slot of its own, without the diagonal, and the lists of equal degree (without the ``last``)."""
    start, length, degree, head, after, before, mark = work[0], work[1], work[2], work[3], work[4], work[5], work[6]
    n = len(indptr) - 1
    position = 0
    for i in range(n):
        start[i] = position
        for p in range(indptr[i], indptr[i + 1]):
            if indices[p] != i:
                slot[position] = indices[p]
                position += 1
        length[i] = degree[i] = position - start[i]
        head[i] = mark[i] = -1
    for i in range(n - last - 1, -1, -1):
        _link(i, degree[i], head, after, before)


@jit
def _count_outside(clique, slot, start, elements, live_element, elen, outside, tag):
    r"""``outside[e] - tag <- |L_e \ L_p|`` for every element e next to the clique L_p."""
    for i in clique:
        for q in range(start[i], start[i] + elements[i]):
            e = slot[q]
            if live_element[e] == 1:
                if outside[e] < tag:
                    outside[e] = tag + elen[e]
                outside[e] -= 1


@jit
def minimum_degree(indptr, indices, budget, perm, slot, work, last):
    """Approximate minimum-degree ordering that stops at a dense core.

    ``indptr, indices``: pattern of a Hermitian CSR matrix (diagonal entries ignored).  ``budget`` bounds the flops of the
    sparse phase.  ``perm`` (n) receives the pivots, then the core in natural order, in which the ``last`` vertices always are;
    ``slot`` (nnz) and ``work`` (13 x n + 1, zero) are workspace.  Returns ``(sparse, flops)``, the number of pivots before the core,
    -1 when the budget ran out.
    Amestoy, Davis, Duff, SIAM J. Matrix Anal. Appl. 17 (1996), without supervariables.
    """
    _start(indptr, indices, slot, work, last)
    start, length, degree, head, after, before, mark = work[0], work[1], work[2], work[3], work[4], work[5], work[6]
    elements, eptr, elen, outside, dead, live_element = work[7], work[8], work[9], work[10], work[11], work[12]
    n = len(perm)
    pool, top = np.empty(2 * len(indices) + n, np.int64), 0
    tag, done, lowest, flops = 1, 0, 0, 0.0
    while done < n - last:
        while lowest < n and head[lowest] < 0:
            lowest += 1
        if 3 * lowest > n - done:  # the rest is nearly complete
            break
        p = head[lowest]
        _unlink(p, lowest, head, after, before)
        dead[p] = 1
        if top + n - done > len(pool):
            grown = np.empty(2 * len(pool) + n, np.int64)
            for t in range(top):
                grown[t] = pool[t]
            pool = grown
        mark[p] = p
        eptr[p] = top
        top = _gather_clique(p, slot, start, elements, length, dead, live_element, eptr, elen, mark, pool, top)
        size = top - eptr[p]
        elen[p] = size
        live_element[p] = 1
        perm[done] = p
        done += 1
        flops += float(size) * size
        if flops > budget:
            return -1, flops
        clique = pool[eptr[p] : top]
        _count_outside(clique, slot, start, elements, live_element, elen, outside, tag)
        for t in range(size):
            i = clique[t]
            d = _update_lists(i, p, size, slot, start, elements, length, dead, live_element, mark, outside, tag)
            d = min(d, degree[i] + size - 1, n - done - 1)
            if i < n - last:
                _unlink(i, degree[i], head, after, before)
                _link(i, d, head, after, before)
                lowest = min(lowest, d)
            degree[i] = d
        tag += n + 1
    rest = done
    for i in range(n):
        if dead[i] == 0:
            perm[rest] = i
            rest += 1
    return done, flops


@jit
def symbolic(indptr, indices, perm, sparse):
    """Elimination tree and column pointers of L for the sparse phase.

    Returns ``(inverse, parent, pointer, terms)``: the inverse permutation, the tree (n where a column has no parent among the
    rows), the column pointers of L below the diagonal (core rows included), and the number of terms in each row of L.
    """
    n = len(perm)
    inverse = np.empty(n, np.int64)
    for i in range(n):
        inverse[perm[i]] = i
    parent = np.full(sparse, n, np.int64)
    mark = np.full(n, -1, np.int64)
    pointer = np.zeros(sparse + 1, np.int64)
    terms = np.zeros(n, np.int64)
    for i in range(n):
        mark[i] = i
        for p in range(indptr[perm[i]], indptr[perm[i] + 1]):
            j = inverse[indices[p]]
            while j < sparse and j < i and mark[j] != i:
                if parent[j] == n:
                    parent[j] = i
                mark[j] = i
                pointer[j + 1] += 1
                terms[i] += 1
                j = parent[j]
    for j in range(sparse):
        pointer[j + 1] += pointer[j]
    return inverse, parent, pointer, terms


@jit
def factor(indptr, indices, data, diagonal, perm, inverse, parent, pointer, rows, values, D, core):
    """Up-looking LDL* of ``offdiag(S) + diag(diagonal)``; the Schur complement of the core lands in ``core``.

    ``rows, values``: storage of L's columns (``pointer[-1]`` each); ``D``: pivots.  Returns -1, or the position of the first
    pivot that is not positive (``D`` holds it; the columns before it are complete).
    """
    n = len(perm)
    sparse = len(D)
    fill = pointer[:-1].copy()
    x = np.zeros(n, values.dtype)
    mark = np.full(n, -1, np.int64)
    stack = np.empty(sparse, np.int64)
    path = np.empty(sparse, np.int64)
    for i in range(n):
        mark[i] = i
        top = sparse
        d = diagonal[perm[i]]
        for p in range(indptr[perm[i]], indptr[perm[i] + 1]):
            j = inverse[indices[p]]
            if j >= i:
                continue
            x[j] = data[p]
            m = 0
            while j < sparse and mark[j] != i:
                path[m] = j
                m += 1
                mark[j] = i
                j = parent[j]
            while m > 0:
                m -= 1
                top -= 1
                stack[top] = path[m]
        for q in range(top, sparse):  # x_j = a_ij - sum_k x_k conj(l_jk)
            j = stack[q]
            xj = x[j]
            x[j] = 0
            for p in range(pointer[j], fill[j]):
                x[rows[p]] -= np.conj(values[p]) * xj
            l = xj / D[j]
            d -= l.real * xj.real + l.imag * xj.imag
            rows[fill[j]] = i
            values[fill[j]] = l
            fill[j] += 1
        if i < sparse:
            D[i] = d
            if not d > 0:
                return i
        else:
            for j in range(i - sparse):
                core[i - sparse, j] = x[sparse + j]
                core[j, i - sparse] = np.conj(x[sparse + j])
                x[sparse + j] = 0
            core[i - sparse, i - sparse] = d
    return -1


@jit
def solve_transposed(pointer, rows, values, x):
    """x <- the solution of ``L* x = x`` over the sparse columns; entries of x behind them are taken as known."""
    for j in range(len(pointer) - 2, -1, -1):
        for p in range(pointer[j], pointer[j + 1]):
            x[j] -= np.conj(values[p]) * x[rows[p]]


@jit
def solve_forward(pointer, rows, values, x):
    """x <- the solution of ``L x = x`` over the sparse columns (core entries receive their Schur updates)."""
    for j in range(len(pointer) - 1):
        for p in range(pointer[j], pointer[j + 1]):
            x[rows[p]] -= values[p] * x[j]


@jit
def absolute_row_sums(pointer, rows, values, D, core_sums, out):
    """out <- rows of ``|L| D |L*| 1``; ``core_sums``: what the core's own factor adds to the core rows (sized as the core)."""
    n = len(out)
    sparse = len(D)
    out[:] = 0
    for i in range(sparse, n):
        out[i] = core_sums[i - sparse]
    for j in range(sparse):
        total = 1.0
        for p in range(pointer[j], pointer[j + 1]):
            total += abs(values[p])
        total *= D[j]
        out[j] += total
        for p in range(pointer[j], pointer[j + 1]):
            out[rows[p]] += abs(values[p]) * total
