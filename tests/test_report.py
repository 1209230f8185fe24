"""What the command line says: facts about rows and blocks."""

import numpy as np
from scipy import sparse

from bmsdp.report import blocks_line, rank_one


def test_rank_one_rows_against_singular_values(rng):
    n, rows = 7, []
    for k in range(200):
        support = rng.choice(n, rng.integers(1, 5), replace=False)
        V = np.zeros((n, rng.integers(1, 3)))
        V[support] = rng.integers(-3, 4, V[support].shape)
        M = (1 if k % 2 else -1) * V @ V.T
        M[rng.integers(n), rng.integers(n)] += k % 5 == 0
        rows.append((M + M.T) / 2)
    A = sparse.csr_array(np.array(rows).reshape(len(rows), -1))
    wanted = [np.linalg.matrix_rank(M) == 1 for M in rows]
    assert rank_one(A, n).tolist() == wanted and 20 < sum(wanted) < 180


def test_rank_one_needs_a_full_square_of_entries():
    zero = np.zeros((4, 4))
    zero[0, 1] = zero[1, 0] = zero[2, 3] = zero[3, 2] = 1  # four entries, no square of them
    off = np.array([[0, 1], [1, 0]])
    A = sparse.csr_array(np.stack([zero.ravel(), np.pad(off, (0, 2)).ravel(), np.eye(4).ravel(), np.ones(16), 0 * np.ones(16)]))
    assert rank_one(A, 4).tolist() == [False, False, False, True, False]


def test_blocks_in_a_few_words():
    assert blocks_line([100]) == "100" and blocks_line([2, 2, 1, -3, ("nonneg", 4), ("free", 2)]) == "2 of 2, 1, 7 nonnegative, 2 free"
    assert blocks_line([("free", 1)]) == "1 free" and blocks_line(list(range(1, 9))) == "1, 2, 3, 4, 5, 3 more sizes"
