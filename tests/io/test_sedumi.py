"""SeDuMi's and SDPT3's MATLAB files: signs, orders, symmetrisation, refusals, round trips, and a fuzz of the bytes."""

import gzip
import io
import time
import zlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import assume, given, settings

from bmsdp.io.errors import FormatError
from bmsdp.io.mat import read_mat
from bmsdp.io.sdpa import read_sdpa
from bmsdp.io.sedumi import read_sedumi, write_sedumi

from .test_sdpa import problems

K = {"f": 2.0, "l": 3.0, "s": np.array([[3.0, 1.0, 2.0]])}
BLOCKS = [("free", 2), ("nonneg", 3), 3, 1, 2]
LENGTH, N, M = 2 + 3 + 9 + 1 + 4, 11, 4


@pytest.fixture
def save(tmp_path):
    def save(compress=False, **variables):
        path = tmp_path / "problem.mat"
        scipy.io.savemat(path, variables, do_compression=compress)
        return path

    return save


@pytest.fixture
def sedumi(rng):
    A = rng.standard_normal((M, LENGTH))
    return {"A": A, "b": rng.standard_normal((M, 1)), "c": rng.standard_normal((LENGTH, 1)), "K": K}


def cells(*items, shape=None):
    out = np.empty((len(items), 1) if shape is None else shape, object)
    for at, item in zip(np.ndindex(*out.T.shape), items, strict=True):  # column by column
        out[at[::-1]] = item
    return out


def point(rng):
    """A symmetric X on the blocks, and SeDuMi's x of it."""
    x, X, at = np.empty(LENGTH), np.zeros((N, N)), 5
    x[:5] = rng.standard_normal(5)
    X[range(5), range(5)] = x[:5]
    first = 5
    for size in (3, 1, 2):
        V = rng.standard_normal((size, size))
        V += V.T
        X[first : first + size, first : first + size] = V
        x[at : at + size**2] = V.ravel(order="F")
        first, at = first + size, at + size**2
    return x, X


# ---- SeDuMi


def test_the_forms_and_values_of_sedumi(save, sedumi, rng):
    """<A_j, X> = A_j x and <C, X> = c'x at every symmetric X, for all the ways the arrays are stored."""
    A, b, c = sedumi["A"], sedumi["b"], sedumi["c"]
    x, X = point(rng)
    for form in (
        sedumi, {"At": A.T, "b": b.T, "c": c.T, "K": K}, {"A": A.T, "b": b, "C": c, "K": K},
        {"A": sp.csc_array(A), "b": sp.csc_array(b), "c": sp.csc_array(c), "K": K | {"q": np.zeros((0, 0)), "r": 0.0, "s": K["s"].T}},
        {"At": sp.csc_array(A.T), "b": b, "c": sp.csc_array(c.T), "K": K | {"s": np.array([[3.0, 0, 1, 0, 2]])}, "other": "text"},
    ):  # fmt: skip
        for compress in (False, True):
            C, rows, right, meta = read_sedumi(save(compress, **form))
            assert rows @ X.ravel() == pytest.approx(A @ x, rel=1e-13) and np.sum(C * X) == pytest.approx(float((c.T @ x)[0]), rel=1e-13)
            assert np.array_equal(right, b.ravel()) and (C != C.T).nnz == 0
            expected = {"format": "sedumi", "sense": "min", "offset": 0.0, "kind": "sdp", "n": N, "m": M, "blocks": BLOCKS}
            assert meta == expected


def test_blocks_are_symmetrised(save):
    C, A, *_ = read_sedumi(save(A=np.array([[1.0, 2, 4, 3], [0, 0, 5, 0]]), b=np.ones((2, 1)), c=np.array([[0.0, 7, 0, 0]]), K={"s": 2.0}))
    assert A.toarray().tolist() == [[1, 3, 3, 3], [0, 2.5, 2.5, 0]] and C.toarray().tolist() == [[0, 3.5], [3.5, 0]]


def test_the_dual_slack_is_that_of_sedumi(save, sedumi, rng):
    """c - A'y of SeDuMi, block by block, is our C - A*(dual) with dual = y."""
    C, A, *_ = read_sedumi(save(**sedumi))
    y = rng.standard_normal(M)
    z = (sedumi["c"].ravel() - sedumi["A"].T @ y)[5:14].reshape(3, 3)
    S = C.toarray() - (A.T @ y).reshape(N, N)
    assert S[5:8, 5:8] == pytest.approx((z + z.T) / 2, rel=1e-12)


def test_a_square_A_is_told_by_its_name(save, rng):
    A = rng.standard_normal((4, 4))
    rest = {"b": np.ones((4, 1)), "c": np.ones((4, 1)), "K": {"l": 4.0}}
    rows = [read_sedumi(save(**{name: A}, **rest))[1].toarray()[:, [0, 5, 10, 15]] for name in ("A", "At")]
    assert np.array_equal(rows[0], A) and np.array_equal(rows[1], A.T)


# ---- SDPT3


def svec(M):
    """The twin: the upper triangle column by column, off-diagonal entries times sqrt(2)."""
    return np.array([M[i, j] * (1 if i == j else np.sqrt(2)) for j in range(len(M)) for i in range(j + 1)])


@pytest.mark.parametrize("form", ["svec", "matrices"])
def test_sdpt3(save, rng, form):
    m, sizes = 3, (3, 2)
    S = [[(V + V.T) / 2 for V in (rng.standard_normal((size, size)) for size in (4, *sizes))] for _ in range(m + 1)]
    linear = [(rng.standard_normal(2), rng.standard_normal(3)) for _ in range(m + 1)]
    pair = [sp.block_diag([row[1], row[2]]).toarray() for row in S]  # two blocks in one cell
    blk = cells("s", "l", "s", "u", 4.0, 2.0, np.array([[3.0, 2.0]]), 3.0, shape=(4, 2))
    C = cells(S[0][0], linear[0][0][:, None], sp.csc_array(pair[0]), linear[0][1][None])
    if form == "svec":
        At = cells(
            np.column_stack([svec(row[0]) for row in S[1:]]), sp.csc_array(np.column_stack([l for l, _ in linear[1:]])),
            sp.csc_array(np.column_stack([np.concatenate([svec(row[1]), svec(row[2])]) for row in S[1:]])),
            np.column_stack([u for _, u in linear[1:]]),
        )  # fmt: skip
    else:
        columns = [(S[k][0], linear[k][0][:, None], sp.csc_array(pair[k]), linear[k][1][:, None]) for k in range(1, m + 1)]
        At = cells(*(item for column in columns for item in column), shape=(4, m))
    C, A, b, meta = read_sedumi(save(blk=blk, At=At, C=C, b=np.arange(3.0)[:, None]))
    assert meta == {
        "format": "sdpt3", "sense": "min", "offset": 0.0, "kind": "sdp", "n": 14, "m": 3, "blocks": [4, ("nonneg", 2), 3, 2, ("free", 3)],
    }  # fmt: skip
    for k, matrix in enumerate([C.toarray(), *A.toarray().reshape(3, 14, 14)]):
        wanted = sp.block_diag([S[k][0], np.diag(linear[k][0]), pair[k], np.diag(linear[k][1])]).toarray()
        assert np.array_equal(matrix, matrix.T) and matrix == pytest.approx(wanted, rel=1e-15, abs=0)
    assert np.array_equal(b, [0, 1, 2])


def test_large_svec_indices(save, rng):
    """Rows and columns come out of a square root: the ends of columns of a block of 60 000 rows."""
    n = 60_000
    j = np.unique(np.concatenate([np.arange(1, 500), np.arange(n - 500, n), rng.integers(0, n, 2000)]))
    i = np.concatenate([0 * j, j, j - 1])
    j = np.tile(j, 3)
    keep = np.unique(j * (j + 1) // 2 + i, return_index=True)[1]
    i, j = i[keep], j[keep]
    At = sp.csc_array((np.ones(i.size), (j * (j + 1) // 2 + i, 0 * i)), shape=(n * (n + 1) // 2, 1))
    _, A, *_ = read_sedumi(save(blk=cells("s", float(n), shape=(1, 2)), At=cells(At), C=cells(sp.csc_array((n, n))), b=np.ones((1, 1))))
    rows, columns = np.divmod(A.indices.astype(np.int64), n)
    upper = rows <= columns
    wanted = np.lexsort((j, i))
    assert np.array_equal(rows[upper], i[wanted]) and np.array_equal(columns[upper], j[wanted])
    assert A.data == pytest.approx(np.where(rows == columns, 1, np.sqrt(0.5)), rel=1e-15)


# ---- what is refused


def test_other_cones_and_complex_data_are_refused(save, sedumi):
    for name, words in {"q": "second-order cones", "r": "rotated", "scomplex": "complex", "xcomplex": "complex", "e": "unknown"}.items():
        with pytest.raises(FormatError, match=f"{words}.*K.{name}"):
            read_sedumi(save(**sedumi | {"K": K | {name: np.array([[3.0]])}}))
    for name in ("A", "b", "c"):
        with pytest.raises(FormatError, match=f"complex numbers in '{name}'"):
            read_sedumi(save(**sedumi | {name: sedumi[name] * 1j}))
    blk = cells("q", 3.0, shape=(1, 2))
    with pytest.raises(FormatError, match="'q' of size.*'s', 'l' or 'u'"):
        read_sedumi(save(blk=blk, At=cells(np.ones((3, 1))), C=cells(np.ones((3, 1))), b=1.0))
    low = cells("s", 3.0, np.ones((1, 1)), shape=(1, 3))
    with pytest.raises(FormatError, match="constraints of low rank"):
        read_sedumi(save(blk=low, At=cells(np.ones((6, 1))), C=cells(np.eye(3)), b=1.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": None}, "K.*needed"),
        ({"b": None}, "b.*needed"),
        ({"c": None}, "no c"),
        ({"A": None}, "no A or At"),
        ({"A": "words"}, "A is no matrix"),
        ({"b": "words"}, "b of another kind"),
        ({"b": np.ones((2, 2))}, r"b of shape \(2, 2\); a vector"),
        ({"b": np.ones((3, 1))}, r"A of shape \(4, 19\).*3 constraints"),
        ({"b": np.full((4, 1), np.nan)}, "finite real numbers"),
        ({"A": np.full((M, LENGTH), np.nan)}, "NaN, infinite or overflow"),
        ({"c": np.full((LENGTH, 1), np.inf)}, "NaN, infinite or overflow"),
        ({"c": np.ones((LENGTH, 2))}, r"c of shape \(19, 2\)"),
        ({"K": 5.0}, "K is no struct"),
        ({"K": {"f": 0.0}}, "K without a cone"),
        ({"K": K | {"l": 4.0}}, "on 20 entries|4 constraints, as in b, on 20"),
        ({"K": K | {"l": -3.0}}, "K.l holds no sizes"),
        ({"K": K | {"l": 2.5}}, "K.l holds no sizes"),
        ({"K": K | {"s": np.nan}}, "K.s holds no sizes"),
        ({"K": K | {"s": "three"}}, "K.s holds no sizes"),
        ({"K": K | {"s": 1e18}}, "K.s holds no sizes"),
        ({"K": K | {"s": 2.0**31 - 1}}, "entries, as in K"),
    ],
)
def test_inconsistent_files_say_what_is_wrong(save, sedumi, change, message):
    path = save(**{name: value for name, value in (sedumi | change).items() if value is not None})
    with pytest.raises(FormatError, match=message) as caught:
        read_sedumi(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blk": "s"}, "blk p x 2"),
        ({"blk": cells("s", "three", shape=(1, 2))}, "holds no sizes"),
        ({"blk": cells(1.0, 2.0, shape=(1, 2))}, "'s', 'l' or 'u'"),
        ({"blk": cells("s", 0.0, shape=(1, 2))}, "'s', 'l' or 'u', and sizes"),
        ({"blk": cells("s", 4.0, shape=(1, 2))}, "blk says 4 rows"),
        ({"blk": cells("s", 2e9, shape=(1, 2))}, "n = 2000000000"),
        ({"At": cells(np.ones((5, 1)))}, r"At\{1\} of shape \(5, 1\); 6 x 1"),
        ({"At": cells("words")}, "is no matrix"),
        ({"C": cells(np.eye(3), np.eye(3))}, "C p x 1"),
        ({"C": cells(np.eye(2))}, r"C\{1\} of shape"),
        ({"blk": cells("l", 3.0, shape=(1, 2)), "At": cells(np.ones((3, 1))), "C": cells(np.ones((3, 3)))}, "not diagonal"),
    ],
)
def test_inconsistent_sdpt3_files_say_what_is_wrong(save, change, message):
    good = {"blk": cells("s", 3.0, shape=(1, 2)), "At": cells(np.ones((6, 1))), "C": cells(np.eye(3)), "b": np.ones((1, 1))}
    read_sedumi(save(**good))
    with pytest.raises(FormatError, match=message):
        read_sedumi(save(**good | change))


def nested(depth):
    """Cells in cells: each is flags, dimensions 1 x 1, an empty name, and the next."""
    inner = np.uint32([14, 0]).tobytes()
    for _ in range(depth):
        body = np.uint32([6, 8, 1, 0, 5, 8, 1, 1, 1, 0]).tobytes() + inner
        inner = np.uint32([14, len(body)]).tobytes() + body
    return inner[: 8 + 32] + np.uint32([1 | 1 << 16, 66]).tobytes() + inner[48:]  # the outer one is called B, in a small element


HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
DAMAGED = {
    "empty": (b"", "an empty file"),
    "text": (b"A = [1 2 3];\n", "13 bytes without its header"),
    "level 7.3": (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n", "HDF5"),
    "level 4": (np.int32([0, 2, 2, 0, 2]).tobytes() + b"A\0" + bytes(400), "without its header"),
    "header alone": (HEADER, "variables of other names"),
    "half a tag": (HEADER + b"\x0e\0\0", "ends inside a tag"),
    "too long": (HEADER + np.uint32([14, 2**32 - 1]).tobytes(), "an element of 4294967295 bytes where 0 are left"),
    "bad zip": (HEADER + np.uint32([15, 8]).tobytes() + bytes(8), "damaged compression"),
    "short zip": (HEADER + np.uint32([15, 20]).tobytes() + zlib.compress(bytes(range(200)))[:20], "ends too early"),
    "no parts": (HEADER + np.uint32([14, 8, 6, 0]).tobytes(), "ends too early"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused(tmp_path, case):
    data, message = DAMAGED[case]
    path = tmp_path / "problem.mat"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=message) as caught:
        read_sedumi(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_bombs_are_refused(tmp_path, sedumi, monkeypatch):
    path = tmp_path / "bomb.mat"
    unpacked = zlib.compress(bytes(2 * 10**6))
    path.write_bytes(HEADER + np.uint32([15, len(unpacked)]).tobytes() + unpacked)
    monkeypatch.setattr("bmsdp.io.text.GZIP_LIMIT", 10**5)
    with pytest.raises(FormatError, match="beyond all measure"):
        read_sedumi(path)
    path.write_bytes(HEADER + nested(100_000 // 48))
    with pytest.raises(FormatError, match="levels of cells"):
        read_mat(path, {"B"})


def test_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.mat: No such file.*check the path"):
        read_sedumi(tmp_path / "none.mat")


# ---- MATLAB files as such


def test_variables_as_scipy_reads_them(tmp_path, rng):
    """An independent reader agrees, for all types of numbers, compressed or not."""
    kinds = "u1 i1 u2 i2 u4 i4 u8 i8 f4 f8 bool".split()
    variables = {f"v_{kind}": rng.integers(0, 100, (3, 2)).astype(kind) for kind in kinds}
    variables |= {"s": sp.random_array((5, 4), density=0.4, rng=rng).tocsc(), "e": np.zeros((0, 0)), "t": "words", "row": np.arange(3.0)}
    for compress in (False, True):
        scipy.io.savemat(tmp_path / "v.mat", variables, do_compression=compress)
        mine, theirs = read_mat(tmp_path / "v.mat", set(variables)), scipy.io.loadmat(tmp_path / "v.mat", spmatrix=False)
        assert set(mine) == set(variables) and mine["t"] == "words"
        for name in set(variables) - {"t"}:
            pair = [value.toarray() if sp.issparse(value) else value for value in (mine[name], theirs[name])]
            assert np.array_equal(*pair) and pair[0].dtype == np.float64, name


def test_big_endian_files(tmp_path):
    def element(kind, data):
        return np.array([kind, len(data)], ">u4").tobytes() + data + bytes(-len(data) % 8)

    values = np.array([[1.5, -2], [3, 4]])
    parts = element(6, np.array([6, 0], ">u4").tobytes()) + element(5, np.array([2, 2], ">i4").tobytes()) + element(1, b"A")
    parts += element(9, values.astype(">f8").tobytes(order="F"))
    (tmp_path / "big.mat").write_bytes(b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + element(14, parts))
    assert np.array_equal(read_mat(tmp_path / "big.mat", {"A"})["A"], values)


# ---- round trips


def dense(problem, rows=None):
    C, A, b = problem[:3]
    n = C.shape[0]
    rows = np.arange(n) if rows is None else rows
    matrices = np.concatenate([(C.toarray() if sp.issparse(C) else C)[None], (A.toarray() if sp.issparse(A) else A).reshape(-1, n, n)])
    return matrices[:, rows[:, None], rows], b


@settings(deadline=None, max_examples=100)
@given(problems(free=True))
def test_round_trip(tmp_path_factory, problem):
    """Free variables come first, then nonnegative ones; the permutation is returned, and nothing else changes."""
    C, A, b, blocks = problem
    for M in (C, *A):  # halves of subnormal numbers underflow, and (M + M') / 2 is read
        assume(((M == 0) | (np.abs(M) >= 2 * np.finfo(float).tiny)).all())
    path = tmp_path_factory.mktemp("sedumi") / "problem.mat"
    rows = write_sedumi(path, C, list(A), b, blocks)
    found = read_sedumi(path)
    for wanted, value in zip(dense((C, A, b), rows), dense(found), strict=True):
        assert np.array_equal(wanted, value)
    again = path.with_name("again.mat.gz")
    assert np.array_equal(write_sedumi(again, *found[:3], found[3]["blocks"]), np.arange(len(C)))
    assert gzip.decompress(again.read_bytes()) == path.read_bytes()


def test_written_files_are_sedumis(tmp_path, sedumi, save, rng):
    """What SciPy finds in a file we wrote: c'x and At'x of SeDuMi's x."""
    C, A, b, meta = read_sedumi(save(**sedumi))
    write_sedumi(tmp_path / "out.mat", C, A, b, meta["blocks"])
    out = scipy.io.loadmat(tmp_path / "out.mat", spmatrix=False)
    x, X = point(rng)
    assert out["At"].T @ x == pytest.approx(A @ X.ravel(), rel=1e-13) and np.array_equal(out["b"].ravel(), b)
    assert float((out["c"].T @ x)[0]) == pytest.approx(np.sum(C * X), rel=1e-13)
    fields = out["K"][0, 0]
    assert fields["f"] == 2 and fields["l"] == 3 and fields["s"].tolist() == [[3, 1, 2]]


def test_from_sdpa(shared_data, tmp_path):
    """Between the formats: the diagonal block of arch0 is moved to the front."""
    C, A, b, meta = read_sdpa(shared_data / "sdplib" / "arch0.dat-s")
    rows = write_sedumi(tmp_path / "arch0.mat", C, A, b, meta["blocks"])
    found = read_sedumi(tmp_path / "arch0.mat")
    assert found[3]["blocks"] == [("nonneg", 174), 161] and np.array_equal(rows, np.r_[161:335, :161])
    for wanted, value in zip(dense((C, A, b), rows), dense(found), strict=True):
        assert np.array_equal(wanted, value)


def test_writer_refuses_what_is_no_such_problem(tmp_path):
    with pytest.raises(ValueError, match="not symmetric"):
        write_sedumi(tmp_path / "p.mat", np.array([[0, 1.0], [0, 0]]), [np.eye(2)], [1])
    n = 50_000
    with pytest.raises(ValueError, match="2500000000 entries; fewer than"):
        write_sedumi(tmp_path / "p.mat", sp.eye_array(n), sp.csr_array((1, n * n)), [1])


# ---- damage


def damaged(rng, data):
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, len(data))) if rng.random() < 0.8 else int(rng.integers(min(100, len(data) - 1), min(len(data), 250)))
        kind = rng.integers(0, 5)
        if kind == 0:
            data[at] = int(rng.integers(0, 256))
        elif kind == 1:
            words = [0, 1, 2, 5, 14, 15, 10**6, 2**31 - 1, 2**31, 2**32 - 1]
            data[at : at + 4] = words[rng.integers(0, len(words))].to_bytes(4, "little")
        elif kind == 2 and len(data) > 200:
            del data[at : at + int(rng.integers(1, 40))]
        elif kind == 3:
            data[at:at] = data[at : at + 8 * int(rng.integers(1, 9))]
        else:
            data[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(data)


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_parse_or_are_refused(tmp_path, sedumi, count):
    sdpt3 = {
        "blk": cells("s", "l", np.array([[3.0, 2.0]]), 2.0, shape=(2, 2)), "b": np.ones((3, 1)),
        "At": cells(sp.csc_array(np.ones((9, 3))), np.ones((2, 3))), "C": cells(sp.eye_array(5, format="csc"), np.ones((2, 1))),
    }  # fmt: skip
    files = []
    for variables in (sedumi | {"A": sp.csc_array(sedumi["A"])}, sdpt3):
        for compress in (False, True):
            out = io.BytesIO()
            scipy.io.savemat(out, variables, do_compression=compress)
            files.append(out.getvalue())
    rng, path, parsed = np.random.default_rng(5), tmp_path / "fuzz.mat", 0
    for k in range(count):
        path.write_bytes(damaged(rng, files[k % 4 if k % 5 == 0 else 2 * (k % 2)]))
        start = time.perf_counter()
        try:
            C, A, b, meta = read_sedumi(path)
        except FormatError as error:
            assert "\n" not in str(error)
        else:
            parsed += 1
            assert C.shape == (meta["n"], meta["n"]) and (C != C.T).nnz == 0 and np.isfinite(A.data).all() and np.isfinite(b).all()
        assert time.perf_counter() - start < 5
    assert 0.02 * count < parsed < 0.9 * count
