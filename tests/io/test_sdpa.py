"""Sparse SDPA files: signs, spellings, refusals by line, round trips, SDPLIB, and a fuzz."""

import gzip
import time
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from bmsdp.io import text
from bmsdp.io.errors import FormatError
from bmsdp.io.sdpa import read_sdpa, write_sdpa

# example 1 of the SDPA manual, with a diagonal block put in the middle
EXAMPLE = """"Example: mDim = 3, nBLOCK = 3, {2, -2, 1}"
   3  =  mDIM
   3  =  nBLOCK
   (2, -2, 1)  = bLOCKsTRUCT
{48, -8, 20}
0 1 1 1 -11
0 1 2 2 23
0 2 1 1 7
1 1 1 1 10
1 1 1 2 4
2 1 2 2 -8
2 2 2 2 1.5
3 1 1 2 -8
3 1 2 2 -2
3 3 1 1 4e0
"""
PLAIN = "3\n3\n2 -2 1\n48 -8 20\n" + EXAMPLE.split("{48, -8, 20}\n")[1]
SDPLIB = {
    "arch0": (174, 335), "control1": (21, 15), "control2": (66, 30), "control3": (136, 45), "gpp100": (101, 100),
    "gpp250-1": (251, 250), "gpp500-1": (501, 500), "hinf1": (13, 14), "infd1": (10, 30), "infp1": (10, 30), "maxG11": (800, 800),
    "maxG51": (1000, 1000), "mcp100": (100, 100), "mcp250-1": (250, 250), "mcp500-1": (500, 500), "qap5": (136, 26),
    "qpG11": (800, 1600), "ss30": (132, 426), "theta1": (104, 50), "theta2": (498, 100), "theta3": (1106, 150), "theta4": (1949, 200),
    "thetaG11": (2401, 801), "truss1": (6, 13), "truss4": (12, 19), "truss8": (496, 628),
}  # fmt: skip


@pytest.fixture
def read(tmp_path):
    def read_text(text, name="problem.dat-s"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_sdpa(path)

    return read_text


def dense(C, A):
    n = C.shape[0]
    return C.toarray(), A.toarray().reshape(-1, n, n)


def same(first, second):
    return all(np.array_equal(*pair) for pair in zip(dense(*first[:2]), dense(*second[:2]), strict=True)) and (
        np.array_equal(first[2], second[2]) and first[3]["blocks"] == second[3]["blocks"]
    )


# ---- what is read


def test_signs_and_places(read):
    C, A, b, meta = read(EXAMPLE)
    C, A = dense(C, A)
    assert np.array_equal(C, np.diag([11, -23, -7, 0, 0]))  # C = -F_0
    F1, F2, F3 = np.zeros((3, 5, 5))
    F1[:2, :2] = [[10, 4], [4, 0]]
    F2[1, 1], F2[3, 3] = -8, 1.5
    F3[:2, :2] = [[0, -8], [-8, -2]]
    F3[4, 4] = 4
    assert np.array_equal(A, [F1, F2, F3]) and np.array_equal(b, [48, -8, 20])
    expected = {"format": "sdpa", "sense": "max", "offset": 0.0, "kind": "sdp", "n": 5, "m": 3}
    assert meta == expected | {"blocks": [2, -2, 1], "entries": 10, "duplicates": 0}


def test_weak_duality_in_the_terms_of_the_format(read, rng):
    """c.x - <F_0, X> = <sum x_i F_i - F_0, X> where X satisfies the rows: (P) is above (D)."""
    C, A, b, _ = read(EXAMPLE)
    X = np.zeros((5, 5))
    X[:2, :2] = rng.standard_normal((2, 2))
    X += X.T
    x, rows = rng.standard_normal(3), A @ X.ravel()
    slack = C.toarray() + (A.T @ x).reshape(5, 5)  # sum x_i F_i - F_0
    assert x @ rows - -np.sum(C.toarray() * X) == pytest.approx(np.sum(slack * X), rel=1e-12)


def test_storage_convention(read):
    C, A, b, _ = read(EXAMPLE)
    assert isinstance(C, sp.csr_array) and isinstance(A, sp.csr_array) and C.dtype == A.dtype == b.dtype == np.float64
    assert C.has_canonical_format and A.has_canonical_format and A.shape == (3, 25) and A.indices.dtype == np.int32
    C = read(PLAIN.replace("0 1 1 1 -11", "0 1 1 1 0"))[0]
    assert C.nnz == 2 and not np.signbit(C.toarray()[0, 0])


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN + "\n \n\n",
        "\n" + PLAIN.replace("\n", "\n\n"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.rstrip("\n"),
        PLAIN.replace(" ", " \t "),
        "\ufeff" + PLAIN,
        '" one\n* two\n"three" 4 5\n' + PLAIN,
        PLAIN.replace("48 -8 20", "48\n-8\n\n20"),
        PLAIN.replace("48 -8 20", "{+48.0, -8e0,\n 20}"),
        PLAIN.replace("2 -2 1\n", "{2, -2,\n1} block sizes, 3 of them\n"),
        PLAIN.replace("3\n3\n", "3=mDIM\n3 = 2 + 1 blocks\n"),
        PLAIN.replace("3\n3\n", "3 = mDIM\n* as many blocks\n 3,\n"),
        PLAIN.replace("1 1 1 2 4", "1 1 2 1 4"),
        PLAIN.replace("1 1 1 2 4", "{1, 1, (1, 2), 4.0}"),
        PLAIN.replace("1 1 1 2 4", "1.0 1 1 +2 4"),
        PLAIN + "2 1 1 1 0\n",
        "".join(PLAIN.splitlines(True)[:4] + PLAIN.splitlines(True)[:3:-1]),
        gzip.compress(PLAIN.encode(), mtime=0),
    ],
)
def test_other_spellings_of_the_same_problem(read, text):
    assert same(read(text), read(EXAMPLE))


def test_comments_that_are_not_ascii(read):
    assert same(read('"Müller\n'.encode("latin-1") + PLAIN.encode()), read(EXAMPLE))


def test_duplicates_are_summed_with_a_warning(read):
    with pytest.warns(UserWarning, match=r"problem\.dat-s:15: 3 entries given twice"):
        C, A, _, meta = read(PLAIN + "1 1 1 2 0.25\n0 1 1 1 1\n1 1 1 2 0.5\n")
    C, A = dense(C, A)
    assert C[0, 0] == 10 and A[0, 0, 1] == A[0, 1, 0] == 4.75 and meta["duplicates"] == 3


def test_both_triangles_are_refused_by_line(read):
    with pytest.raises(FormatError, match="line 9; one triangle") as caught:
        read(PLAIN + "1 1 2 1 4\n")
    assert caught.value.line == 15
    read(PLAIN + "1 1 2 2 4\n3 1 1 1 4\n")


def test_a_big_sparse_problem_takes_no_memory(read):
    C, A, _, meta = read("1\n1\n1000000\n1\n0 1 1 1000000 1\n1 1 999999 1000000 1\n")
    assert meta["n"] == 10**6 and C.nnz == A.nnz == 2 and A.indices.tolist() == [999998 * 10**6 + 999999, 999999 * 10**6 + 999998]


# ---- what is refused

HEAD = "2\n2\n2 -2\n1 2\n"
BAD = {
    "empty": ("", 1, "empty file"),
    "blank": (" \n\n", 1, "empty file"),
    "only a comment": ('" nothing\n', 1, "ends before m"),
    "garbage": ("these are not the numbers you look for\n", 1, "for m; an integer"),
    "rudy": ("3 3\n1 2 1\n2 3 -2\n", 1, "`3` after the numbers; a line of its own"),
    "binary": (bytes(range(256)), 1, "byte 0x00; plain text"),
    "utf-16": (PLAIN.encode("utf-16"), 1, "byte 0xff"),
    "damaged gzip": (gzip.compress(PLAIN.encode(), mtime=0)[:-9], None, "damaged gzip"),
    "m is zero": ("0\n1\n1\n", 1, "m is 0; at least 1"),
    "m is negative": ("-3\n1\n1\n", 1, "m is -3"),
    "fractional m": ("2.5\n1\n1\n", 1, "`2.5` for m"),
    "m is nan": ("nan\n", 1, "`nan` for m"),
    "no blocks": ("2\n0\n", 2, "the number of blocks is 0"),
    "ends after m": ("2\n", 1, "ends before the number of blocks"),
    "ends in the sizes": ("2\n3\n2 2\n", 3, "ends before block size 3 of 3"),
    "absurd number of blocks": ("2\n999999999999\n2 2\n1 2\n", 4, "ends before block size 5 of 999999999999"),
    "too many sizes": ("2\n2\n2 2 2\n1 2\n", 3, "`2` after the numbers; 2 block sizes"),
    "size zero": ("2\n2\n2 0\n1 2\n", 3, "block size 0"),
    "fractional size": ("2\n2\n2 1.5\n1 2\n", 3, "`1.5` for a block size"),
    "size of words": ("2\n2\ntwo two\n1 2\n", 3, "`two two` for a block size"),
    "absurd size": ("1\n1\n999999999999999999\n1\n0 1 1 1 1\n", 3, r"n <= 2\*\*31 - 2"),
    "implausible size": ("1\n1\n2000000000\n1\n0 1 1 1 1\n", 3, "with only 1 entries"),
    "size beyond int64": ("1\n1\n99999999999999999999999\n1\n0 1 1 1 1\n", 3, "for a block size"),
    "too few c": ("2\n1\n2\n1\n", 4, "ends after 1 numbers of c"),
    "absurd m": ("999999999999\n1\n2\n1 2\n0 1 1 1 1\n", 5, "ends after 7 numbers of c; m = 999999999999"),
    "too many c": ("2\n1\n2\n1 2 3\n0 1 1 1 1\n", 4, "3 numbers for c up to this line; m = 2"),
    "word in c": ("2\n1\n2\n1 b\n0 1 1 1 1\n", 4, "`b`, not a finite number; numbers are needed for c, 2"),
    "nan in c": ("2\n1\n2\n1 nan\n0 1 1 1 1\n", 4, "`nan`, not a finite number"),
    "infinite c": ("2\n1\n2\n1 1e999\n0 1 1 1 1\n", 4, "`1e999`, not a finite number"),
    "no entries": (HEAD, None, "no entries"),
    "truncated line": (HEAD + "0 1 1 1 1\n1 1 2", 6, "3 tokens, `1 1 2`; an entry"),
    "six tokens": (HEAD + "0 1 1 1 1 1\n", 5, "6 tokens"),
    "nan": (HEAD + "0 1 1 1 nan\n", 5, "`nan`, not a finite number; an entry"),
    "infinite": (HEAD + "\n0 1 1 1 inf\n", 6, "`inf`, not a finite number"),
    "overflow": (HEAD + "0 1 1 1 1\n0 1 1 2 -1e999\n", 6, "`-1e999`"),
    "word": (HEAD + "0 1 1 1 1\n0 1 x 1 1\n", 6, "`x`, not a finite number"),
    "hexadecimal": (HEAD + "0 1 1 1 0x10\n", 5, "`0x10`"),
    "two numbers in one": (HEAD + "0 1 1 1 1-2\n", 5, "`1-2`"),
    "comment among entries": (HEAD + "* entries\n0 1 1 1 1\n", 5, "2 tokens"),
    "constraint beyond m": (HEAD + "0 1 1 1 1\n3 1 1 1 1\n", 6, "matrix 3; a number from 0 to m = 2"),
    "negative constraint": (HEAD + "-1 1 1 1 1\n", 5, "matrix -1"),
    "block beyond": (HEAD + "1 3 1 1 1\n", 5, "block 3; a number from 1 to 2"),
    "block zero": (HEAD + "1 0 1 1 1\n", 5, "block 0"),
    "row beyond": (HEAD + "1 1 3 3 1\n", 5, "row 3 in block 1; a number from 1 to its size 2"),
    "row zero": (HEAD + "1 1 0 1 1\n", 5, "row 0 in block 1"),
    "column beyond": (HEAD + "1 1 1 99999999999999999999 1\n", 5, "column"),
    "column beyond a diagonal block": (HEAD + "1 2 2 3 1\n", 5, "column 3 in block 2"),
    "off the diagonal": (HEAD + "1 2 1 2 1\n", 5, r"\(1, 2\) in the diagonal block 2; i = j"),
    "fractional index": (HEAD + "1 1 1.5 2 1\n", 5, "`1 1 1.5 2`.*integers"),
    "both triangles": (HEAD + "1 1 1 2 1\n2 1 1 2 1\n1 1 2 1 1\n", 7, "line 5; one triangle, the upper one"),
    "overflowing duplicates": (HEAD + "1 1 1 2 1.7e308\n1 1 1 2 1.7e308\n", None, "whose sum overflows"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*given twice")
@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_by_line(read, tmp_path, case):
    text, line, message = BAD[case]
    with pytest.raises(FormatError, match=message) as caught:
        read(text)
    error, path = caught.value, str(tmp_path / "problem.dat-s")
    place = path + ("" if line is None else f":{line}")
    assert error.line == line and error.path == path
    assert str(error).startswith(place + ": ") and "\n" not in str(error) and str(error).count("; ") >= 2


def test_a_gzip_bomb_is_refused(read, monkeypatch):
    bomb = gzip.compress(PLAIN.encode() + b"0 1 1 1 0\n" * 10**6, mtime=0)
    monkeypatch.setattr(text, "GZIP_LIMIT", 10**6)
    with pytest.raises(FormatError, match="gzip data of more bytes"):
        read(bomb)
    assert same(read(gzip.compress(PLAIN.encode() + b" " * 9 * 10**5, mtime=0)), read(EXAMPLE))


def test_the_dense_format_is_refused_by_name(read):
    for name in ("problem.dat", "PROBLEM.DAT.gz"):
        with pytest.raises(FormatError, match="dense SDPA format.*convert"):
            read(PLAIN, name)


def test_missing_file_and_directory_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.dat-s: No such file.*check the path"):
        read_sdpa(tmp_path / "none.dat-s")
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        read_sdpa(tmp_path)


# ---- round trips

NUMBERS = st.integers(-9, 9) | st.floats(-1e300, 1e300)


@st.composite
def problems(draw, free=False):
    """Block-diagonal symmetric matrices, dense, and a list of blocks."""
    linear = st.integers(1, 3).flatmap(lambda l: st.sampled_from([-l, ("nonneg", l)] + [("free", l)] * free))
    blocks = draw(st.lists(st.integers(1, 3) | linear, min_size=1, max_size=4))
    sizes = [abs(block) if isinstance(block, int) else block[1] for block in blocks]
    n, m = sum(sizes), draw(st.integers(1, 3))
    M, first = np.zeros((m + 1, n, n)), 0
    for block, size in zip(blocks, sizes, strict=True):
        for k, i, j in np.ndindex(m + 1, size, size):
            if i == j or (i < j and isinstance(block, int) and block > 0):
                M[k, first + i, first + j] = M[k, first + j, first + i] = draw(NUMBERS)
        first += size
    return M[0], M[1:], np.array([draw(NUMBERS) for _ in range(m)], float), blocks


def as_file(blocks):
    return [block if isinstance(block, int) else -block[1] for block in blocks]


@settings(deadline=None, max_examples=100)
@given(problems(), st.booleans(), st.booleans())
def test_round_trip(tmp_path_factory, problem, stacked, compressed):
    C, A, b, blocks = problem
    path = tmp_path_factory.mktemp("sdpa") / ("problem.dat-s.gz" if compressed else "problem.dat-s")
    given_A = sp.csr_array(A.reshape(len(A), -1)) if stacked else [sp.coo_array(M) for M in A]
    write_sdpa(path, sp.csr_array(C) if stacked else C, given_A, b, blocks, comment="a problem\nof two lines")
    C2, A2, b2, meta = read_sdpa(path)
    assert np.array_equal(C2.toarray(), C) and np.array_equal(A2.toarray(), A.reshape(len(A), -1)) and np.array_equal(b2, b)
    assert meta["blocks"] == as_file(blocks) and meta["duplicates"] == 0
    again = path.with_name("again.dat-s.gz" if compressed else "again.dat-s")
    write_sdpa(again, C2, A2, b2, meta["blocks"], comment="a problem\nof two lines")
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("C", "A", "b", "blocks", "message"),
    [
        (np.zeros((2, 3)), [], [], None, r"C has shape \(2, 3\)"),
        (np.eye(2) * 1j, [np.eye(2)], [1], None, "complex"),
        (np.eye(2), [np.eye(3)], [1], None, r"A\[0\] has shape \(3, 3\)"),
        (np.eye(2), sp.csr_array((1, 5)), [1], None, "n\\^2 = m x 4"),
        (np.eye(2), [], [], None, "holds no matrix"),
        (np.eye(2), [np.eye(2)], [1, 2], None, r"b has shape \(2,\)"),
        (np.eye(2), [np.eye(2)], [np.nan], None, "finite real numbers"),
        (np.eye(2), [np.array([[0, 1], [2, 0]])], [1], None, r"A\[0\] is not symmetric.*\(0, 1\)"),
        (np.array([[0, 1.0], [0, 0]]), [np.eye(2)], [1], None, "C is not symmetric"),
        (np.array([[0, np.inf], [np.inf, 0]]), [np.eye(2)], [1], None, "infinite"),
        (np.eye(2), [np.eye(2)], [1], [1], "1 rows together; C has 2"),
        (np.eye(2), [np.eye(2)], [1], [2, 0], "blocks holds 0"),
        (np.eye(2), [np.eye(2)], [1], [("soc", 2)], "blocks holds"),
        (np.eye(2), [np.ones((2, 2))], [1], [1, 1], r"A\[0\] leaves the blocks with its entry \(0, 1\)"),
        (np.ones((2, 2)), [np.eye(2)], [1], [-2], "C leaves the blocks"),
        (np.eye(2), [np.eye(2)], [1], [1, ("free", 1)], "free variables.*write_sedumi"),
        (np.eye(2), "eye", [1], None, "A is a str"),
    ],
)
def test_writer_refuses_what_is_no_such_problem(tmp_path, C, A, b, blocks, message):
    with pytest.raises(ValueError, match=message):
        write_sdpa(tmp_path / "problem.dat-s", C, A, b, blocks)
    assert not (tmp_path / "problem.dat-s").exists()


# ---- SDPLIB


@pytest.mark.parametrize("name", SDPLIB)
def test_sdplib(shared_data, name):
    C, A, b, meta = read_sdpa(shared_data / "sdplib" / f"{name}.dat-s")
    assert (meta["m"], meta["n"]) == SDPLIB[name] == (len(b), C.shape[0]) and A.shape == (len(b), C.shape[0] ** 2)
    assert meta["duplicates"] == 0 and (np.diff(A.indptr) > 0).all() and (C != C.T).nnz == 0
    i, j = np.divmod(A.indices.astype(np.int64), meta["n"])
    mirror = sp.csr_array((A.data, j * meta["n"] + i, A.indptr), shape=A.shape)
    assert abs(A - mirror).max() == 0


def test_sdplib_has_the_kinds_of_blocks_it_says(shared_data):
    blocks = {name: read_sdpa(shared_data / "sdplib" / f"{name}.dat-s")[3]["blocks"] for name in ("arch0", "ss30", "truss8", "hinf1")}
    assert blocks == {"arch0": [161, -174], "ss30": [294, -132], "truss8": [19] * 33 + [1], "hinf1": [4, 4, 6]}


def test_sdplib_round_trip(shared_data, tmp_path):
    for name in ("arch0", "truss8", "qap5", "gpp100"):
        first = read_sdpa(shared_data / "sdplib" / f"{name}.dat-s")
        write_sdpa(tmp_path / name, *first[:3], first[3]["blocks"])
        second = read_sdpa(tmp_path / name)
        assert (first[0] != second[0]).nnz == (first[1] != second[1]).nnz == 0 and np.array_equal(first[2], second[2])


@pytest.mark.parametrize(
    ("name", "optimum", "digits"), [("truss1", -8.999996, 1e-6), ("hinf1", 2.0326, 2e-3), ("control1", 17.78463, 1e-5)]
)
def test_published_optima_have_the_sign_of_the_file(shared_data, name, optimum, digits):
    """An independent solver on our (C, A, b), its value back in the file's sense."""
    cp = pytest.importorskip("cvxpy")
    C, A, b, meta = read_sdpa(shared_data / "sdplib" / f"{name}.dat-s")
    n, first, X = meta["n"], 0, []
    cost, rows = 0, 0
    for size in map(abs, meta["blocks"]):
        X.append(cp.Variable((size, size), symmetric=True))
        place = (np.arange(first, first + size)[:, None] * n + np.arange(first, first + size)).ravel()
        cost += C.toarray().ravel()[place] @ cp.vec(X[-1], order="C")
        rows += A[:, place] @ cp.vec(X[-1], order="C")
        first += size
    problem = cp.Problem(cp.Minimize(cost), [rows == b, *(V >> 0 for V in X)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # hinf1 is solved to fewer digits
        problem.solve(solver=cp.CLARABEL)
    assert meta["offset"] - problem.value == pytest.approx(optimum, rel=digits)


# ---- size and damage


def test_many_entries_are_read_in_seconds(tmp_path, rng):
    count, n, m = 2 * 10**5, 2000, 1000
    i, j = np.triu_indices(n)
    at = rng.choice(i.size, count, replace=False)
    rows = np.column_stack([np.sort(rng.integers(0, m + 1, count)), np.ones(count, int), i[at] + 1, j[at] + 1, rng.integers(1, 9, count)])
    body = "\n".join(" ".join(map(str, row)) for row in rows.tolist())
    path = tmp_path / "large.dat-s"
    path.write_text(f"{m}\n1\n{n}\n{' '.join(['0.5'] * m)}\n{body}\n")
    start = time.process_time()
    C, A, *_ = read_sdpa(path)
    assert time.process_time() - start < 4  # 0.6 on a small machine: a million in 3
    k, i, j, value = rows[:, [0, 2, 3, 4]].T
    assert C.nnz + A.nnz == np.where(i == j, 1, 2).sum()
    assert C.sum() + A.sum() == (value * np.where(i == j, 1, 2) * np.where(k == 0, -1, 1)).sum()


PIECES = [
    b"", b"0", b"-", b".", b"e", b" ", b"\n", b"nan", b"inf", b"\x00", b"\xff", b"99999999999999999999", b"1 1 1 1 1\n", b"x", b"*", b'"',
    b"{", b"2147483647", b"1e9", b"-3", b"=",
]  # fmt: skip


def mutated(rng, data):
    """Some bytes of a valid file replaced, moved or lost."""
    for _ in range(rng.integers(1, 5)):
        start, length = rng.integers(0, len(data) + 1), rng.integers(0, 6)
        kind = rng.integers(0, 10)
        if kind == 0:
            data = data[:start]
        elif kind == 1:
            other = rng.integers(0, len(data) + 1)
            data = data[:start] + data[other : other + 40] + data[start:]
        elif kind == 2 and data:
            start = min(int(start), len(data) - 1)
            data = data[:start] + bytes([data[start] ^ (1 << int(rng.integers(0, 8)))]) + data[start + 1 :]
        else:
            data = data[:start] + PIECES[rng.integers(0, len(PIECES))] + data[start + length :]
    return data


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_parse_or_are_refused(tmp_path, count):
    rng, path, parsed = np.random.default_rng(4), tmp_path / "fuzz.dat-s", 0
    for _ in range(count):
        data = mutated(rng, (EXAMPLE if rng.random() < 0.5 else PLAIN).encode())
        path.write_bytes(gzip.compress(data, mtime=0) if rng.random() < 0.1 else data)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                C, A, b, meta = read_sdpa(path)
            except FormatError as error:
                assert "report this file" not in str(error) and "\n" not in str(error), data
            else:
                parsed += 1
                assert C.shape == (meta["n"], meta["n"]) and (C != C.T).nnz == 0 and np.isfinite(A.data).all() and np.isfinite(b).all()
        assert time.perf_counter() - start < 5, data
    assert 0.02 * count < parsed < 0.9 * count
