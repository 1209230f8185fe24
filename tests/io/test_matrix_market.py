import gzip
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmsdp.io.errors import FormatError
from bmsdp.io.matrix_market import read_matrix_market, write_matrix_market

BANNER = "%%MatrixMarket matrix coordinate"
SMALL = f"{BANNER} real symmetric\n% a comment\n3 3 3\n1 1 2\n2 1 -1.5\n3 2 4\n"


@pytest.fixture
def read(tmp_path):
    def read_text(text, name="C.mtx"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_matrix_market(path)

    return read_text


def test_matrix_is_the_cost(read):
    C, A, b, meta = read(SMALL)
    assert A is None and b is None and isinstance(C, sp.csr_array) and C.dtype == np.float64
    assert np.array_equal(C.toarray(), [[2, -1.5, 0], [-1.5, 0, 4], [0, 4, 0]])
    expected = {"format": "matrix-market", "sense": "min", "offset": 0.0, "kind": "sdp-diag", "n": 3, "entries": 3}
    assert meta == expected
    assert np.array_equal(read(gzip.compress(SMALL.encode()))[0].toarray(), C.toarray())


def test_fields_and_layouts(read):
    assert np.array_equal(read(f"{BANNER} pattern symmetric\n2 2 1\n2 1\n")[0].toarray(), [[0, 1], [1, 0]])
    C = read(f"{BANNER} integer general\n2 2 2\n1 2 3\n2 1 3\n")[0]
    assert C.dtype == np.float64 and np.array_equal(C.toarray(), [[0, 3], [3, 0]])
    C = read(f"{BANNER} complex hermitian\n2 2 2\n1 1 1 0\n2 1 0 1\n")[0]
    assert np.array_equal(C.toarray(), [[1, -1j], [1j, 0]])
    C = read("%%MatrixMarket matrix array real symmetric\n2 2\n1\n2\n3\n")[0]
    assert isinstance(C, np.ndarray) and np.array_equal(C, [[1, 2], [2, 3]])


def test_entries_given_twice_are_summed_with_a_warning(read):
    with pytest.warns(UserWarning, match="2 entries given twice"):
        C = read(f"{BANNER} real symmetric\n2 2 2\n2 1 1\n2 1 2\n")[0]
    assert np.array_equal(C.toarray(), [[0, 3], [3, 0]])


BAD = {
    "empty": ("", 1, "empty file"),
    "no banner": ("3 3 3\n1 1 2\n", 1, "Matrix Market file is needed"),
    "binary": (bytes(range(256)), None, "Matrix Market file is needed"),
    "vector": ("%%MatrixMarket vector coordinate real general\n3 1\n1 2\n", None, "3 × 1 matrix"),
    "not square": (f"{BANNER} real general\n2 3 1\n1 1 1\n", None, "2 × 3 matrix"),
    "no rows": (f"{BANNER} real general\n0 0 0\n", None, "n >= 1"),
    "too many": (SMALL + "\n2 2 1\n", 8, "4 entries where 3 are announced"),
    "truncated": (SMALL.replace("3 2 4\n", ""), 5, "2 entries where 3 are announced"),
    "index too large": (SMALL.replace("3 2 4", "4 2 4"), 6, "integers from 1 to n = 3"),
    "index zero": (SMALL.replace("3 2 4", "0 2 4"), 6, "integers from 1 to n = 3"),
    "word": (SMALL.replace("3 2 4", "3 x 4"), 6, "`3 x 4`; 3 finite number"),
    "nan": (SMALL.replace("3 2 4", "3 2 nan"), 6, "`3 2 nan`; 3 finite number"),
    "inf": (SMALL.replace("3 2 4", "3 2 -inf"), 6, "3 finite number"),
    "overflow": (SMALL.replace("3 2 4", "3 2 1e999"), None, "beyond float64"),
    "half a number": (SMALL.replace("3 2 4", "3 2 4-"), 6, "`3 2 4-`; 3 finite number"),
    "two points": (SMALL.replace("2 1 -1.5", "2 1 -1.5.5"), 5, "`2 1 -1.5.5`"),
    "fractional index": (f"{BANNER} integer general\n1 1 1\n1.5 1 1\n", 3, "the indices 1.5, 1; integers"),
    "value in a pattern": (f"{BANNER} pattern general\n1 1 1\n1 1 1\n", 3, "2 finite number"),
    "no imaginary part": (f"{BANNER} complex general\n1 1 1\n1 1 1\n", 3, "4 finite number"),
    "two on a line": ("%%MatrixMarket matrix array real general\n1 1\n1 1\n", 3, "1 finite number"),
    "asymmetric": (f"{BANNER} real general\n2 2 1\n1 2 3\n", None, r"not symmetric: max \|C - C.T\| = 3 at \(0, 1\)"),
    "not Hermitian": (f"{BANNER} complex general\n1 1 1\n1 1 0 1\n", None, "not Hermitian"),
    "complex symmetric": (f"{BANNER} complex symmetric\n2 2 1\n2 1 0 1\n", 1, "complex symmetric"),
    "skew": (f"{BANNER} real skew-symmetric\n2 2 1\n2 1 1\n", 1, "skew-symmetric"),
    "absurd n": (f"{BANNER} real symmetric\n4000000000 4000000000 1\n2 1 1\n", None, r"n <= 2\*\*31 - 2"),
    "implausible n": (f"{BANNER} real symmetric\n2000000000 2000000000 1\n2 1 1\n", None, "with only 1 entries"),
    "absurd count": (f"{BANNER} real symmetric\n9 9 9999999999999\n2 1 1\n", None, "1 entries where"),
    "absurd array": ("%%MatrixMarket matrix array real general\n99999 99999\n1\n", None, "1 entries where"),
    "damaged gzip": (gzip.compress(SMALL.encode())[:-9], None, "damaged gzip"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused(read, tmp_path, case):
    text, line, message = BAD[case]
    with pytest.raises(FormatError, match=message) as caught:
        read(text)
    error = caught.value
    assert line is None or error.line == line
    assert str(error).startswith(str(tmp_path / "C.mtx") + ":") and "\n" not in str(error)


def test_missing_file_and_directory_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.mtx: No such file"):
        read_matrix_market(tmp_path / "none.mtx")
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        read_matrix_market(tmp_path)


def numbers(dtype):
    if dtype is float:
        return st.floats(-1e300, 1e300)
    return st.complex_numbers(max_magnitude=1e300, allow_nan=False, allow_infinity=False)


@st.composite
def hermitian(draw):
    dtype = draw(st.sampled_from([float, complex]))
    n = draw(st.integers(1, 6))
    lower = np.tril(draw(arrays(dtype, (n, n), elements=numbers(dtype))), -1)
    return lower + lower.conj().T + np.diag(draw(arrays(float, n, elements=numbers(float))))


@settings(deadline=None, max_examples=100)
@given(hermitian(), st.booleans(), st.booleans())
def test_round_trip(tmp_path_factory, W, sparse, compressed):
    path = tmp_path_factory.mktemp("mm") / ("C.mtx.gz" if compressed else "C.mtx")
    write_matrix_market(path, sp.csr_array(W) if sparse else W)
    C, _, _, meta = read_matrix_market(path)
    assert sp.issparse(C) == sparse and C.dtype == W.dtype and meta["n"] == W.shape[0]
    assert np.array_equal(C.toarray() if sparse else C, W)


@pytest.mark.parametrize(
    ("W", "message"),
    [
        (np.zeros((2, 3)), r"shape \(2, 3\)"),
        (np.array([[0, 1], [2, 0]]), "not symmetric"),
        (np.array([[1j]]), "not Hermitian"),
        (np.array([[np.inf]]), "NaN or infinite"),
        (np.array([["a"]]), "numbers are needed"),
    ],
)
@pytest.mark.parametrize("sparse", [False, True])
def test_writer_refuses_what_is_no_cost(tmp_path, W, message, sparse):
    if sparse and W.dtype.kind == "U":
        pytest.skip("SciPy has no sparse arrays of text")
    with pytest.raises(ValueError, match=message):
        write_matrix_market(tmp_path / "C.mtx", sp.csr_array(W) if sparse else W)


VALID = SMALL.encode()
PIECES = [
    b"",
    b"0",
    b"-",
    b".",
    b"e",
    b" ",
    b"\n",
    b"nan",
    b"inf",
    b"\x00",
    b"\xff",
    b"99999999999999999999",
    b"1 1 1\n",
    b"%",
]
PIECES += [b"array", b"complex", b"general", b"hermitian"]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 10), st.sampled_from(PIECES)), max_size=4))
def test_mutated_files_parse_or_are_refused(tmp_path_factory, edits):
    data = VALID
    for start, length, piece in edits:
        data = data[:start] + piece + data[start + length :]
    path = tmp_path_factory.mktemp("fuzz") / "C.mtx"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            C, _, _, meta = read_matrix_market(path)
        except FormatError as error:
            assert str(error).startswith(str(path) + ":")
            return
    assert C.shape == (meta["n"], meta["n"]) and not abs(C - C.conj().T).max()
