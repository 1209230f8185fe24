import gzip
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from bmsdp.io.errors import FormatError
from bmsdp.io.rudy import read_rudy, write_rudy

GSET = {
    "G1": 800,
    "G11": 800,
    "G14": 800,
    "G22": 2000,
    "G32": 2000,
    "G43": 1000,
    "G48": 3000,
    "G55": 5000,
    "G60": 7000,
    "G67": 10000,
}
GSET_EDGES = [19176, 1600, 4694, 19990, 4000, 9990, 6000, 12498, 17148, 20000]
TRIANGLE = "3 3\n1 2 1\n2 3 -2\n1 3 0.5\n"


@pytest.fixture
def read(tmp_path):
    def read_text(text, name="graph.rud"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_rudy(path)

    return read_text


def minus_quarter_laplacian(W):
    """The twin: -L/4 = (W - D)/4, densely."""
    return (W - np.diag(W.sum(axis=1))) / 4


def weights(n, edges):
    W = np.zeros((n, n))
    for i, j, w in edges:
        W[i - 1, j - 1] += w
        W[j - 1, i - 1] += w
    return W


def test_laplacian_of_a_triangle(read):
    C, A, b, meta = read(TRIANGLE)
    assert A is None and b is None
    assert np.array_equal(C.toarray(), minus_quarter_laplacian(weights(3, [(1, 2, 1), (2, 3, -2), (1, 3, 0.5)])))
    expected = {"format": "rudy", "sense": "max", "offset": 0.0, "kind": "maxcut", "n": 3, "edges": 3}
    assert meta == expected | {"duplicates": 0, "self_loops": 0}


def test_cost_of_a_cut_is_minus_its_weight(read):
    C, *_ = read(TRIANGLE)
    x = np.array([1, -1, 1])
    assert -(x @ C @ x) == 1 - 2


def test_storage_convention(read):
    C, *_ = read("4 2\n3 2 1\n2 1 1\n")
    assert isinstance(C, sp.csr_array) and C.dtype == np.float64
    assert C.indices.dtype == C.indptr.dtype == np.int32
    assert C.has_canonical_format and C.nnz == 2 * 2 + 4
    assert C.diagonal()[3] == 0 and 3 in C.indices[C.indptr[3] : C.indptr[4]]


@pytest.mark.parametrize(
    "text",
    [
        TRIANGLE + "\n\n \n",
        "\n\n" + TRIANGLE,
        TRIANGLE.replace("\n", "\n\n"),
        TRIANGLE.replace("\n", "\r\n"),
        TRIANGLE.rstrip("\n"),
        TRIANGLE.replace(" ", "\t  "),
        "\ufeff" + TRIANGLE,
        gzip.compress(TRIANGLE.encode(), mtime=0),
        TRIANGLE.replace("1 2 1\n", "1 2\n"),
        TRIANGLE.replace("1 2 1\n", "+1 2.0 1e0\n"),
        TRIANGLE.replace("1 3 0.5", "3 1 .5"),
    ],
)
def test_other_spellings_of_the_same_graph(read, text):
    assert np.array_equal(read(text)[0].toarray(), read(TRIANGLE)[0].toarray())


def test_no_edges_is_a_zero_cost(read):
    C, _, _, meta = read("3 0\n")
    assert meta["edges"] == 0 and C.nnz == 3 and not C.toarray().any()
    assert read("1 0")[0].shape == (1, 1)


def test_big_integer_weights_are_read_as_floats(read):
    C, *_ = read("2 1\n1 2 123456789012345678901234567890\n")
    assert C[0, 1] == 123456789012345678901234567890 / 4


def test_duplicates_are_summed_with_a_warning(read):
    with pytest.warns(UserWarning, match=r"graph\.rud:5: 2 duplicate edge"):
        C, _, _, meta = read("3 4\n1 2 0.1\n2 3 1\n\n2 1 0.2\n1 2 0.3\n")
    W = weights(3, [(1, 2, 0.1 + 0.2 + 0.3), (2, 3, 1)])
    assert np.allclose(C.toarray(), minus_quarter_laplacian(W), rtol=1e-15, atol=0)
    assert (C != C.T).nnz == 0
    assert C.nnz == 2 * 2 + 3 and meta["duplicates"] == 2 and meta["edges"] == 4


def test_self_loops_are_left_out_with_a_warning(read):
    with pytest.warns(UserWarning, match=r"graph\.rud:3: 1 self-loop"):
        C, _, _, meta = read("3 2\n1 2 1\n3 3 7\n")
    assert np.array_equal(C.toarray(), minus_quarter_laplacian(weights(3, [(1, 2, 1)])))
    assert meta["self_loops"] == 1


BAD = {
    "empty": ("", 1, "empty file"),
    "blank": ("\n \n", 1, "empty file"),
    "header of one number": ("3\n1 2 1\n", 1, "header `3`"),
    "header of three numbers": ("3 1 1\n1 2 1\n", 1, "header `3 1 1`"),
    "header of words": ("three one\n1 2 1\n", 1, "header `three one`"),
    "header with a fraction": ("3.5 1\n1 2 1\n", 1, "n >= 1"),
    "no vertices": ("0 0\n", 1, "n >= 1"),
    "negative edges": ("3 -1\n", 1, "m >= 0"),
    "fractional edges": ("3 1.5\n1 2 1\n", 1, "header"),
    "infinite n": ("1e999 1\n1 2 1\n", 1, "header"),
    "absurd n": ("2147483647 1\n1 2 1\n", 1, r"n <= 2\*\*31 - 2"),
    "implausible n": ("2000000000 1\n1 2 1\n", 1, "with only 1 entries"),
    "n beyond int64": ("99999999999999999999999 1\n1 2 1\n", 1, r"n <= 2\*\*31 - 2"),
    "truncated": ("3 3\n1 2 1\n1 3 1\n", 3, "ends after 2 of 3 edges; 1 more"),
    "absurd m": ("3 999999999999\n1 2 1\n", 2, "ends after 1 of 999999999999"),
    "too many edges": ("3 1\n1 2 1\n\n1 3 1\n", 4, "edge 2 after a header that announces 1"),
    "index too large": ("3 2\n1 2 1\n1 4 1\n", 3, "j = `4`; an index from 1 to n = 3"),
    "index zero": ("3 2\n1 2 1\n0 3 1\n", 3, "i = `0`; an index from 1"),
    "negative index": ("3 1\n-1 3 1\n", 2, "i = `-1`; an index from 1"),
    "fractional index": ("3 1\n1 2.5 1\n", 2, "integer index"),
    "nan index": ("3 1\n1 nan 1\n", 2, "integer index"),
    "word": ("3 2\n1 2 1\n1 x 1\n", 3, "j = `x`, not a number"),
    "word as weight": ("3 1\n1 2 w\n", 2, "w = `w`, not a number"),
    "half a number": ("3 1\n1 2 1e\n", 2, "w = `1e`, not a number"),
    "two numbers in one": ("3 1\n1 2 1-2\n", 2, "w = `1-2`, not a number"),
    "underscore": ("3 1\n1 2 1_0\n", 2, "not a number"),
    "hexadecimal": ("3 1\n1 2 0x10\n", 2, "not a number"),
    "comment": ("3 1\n# edges\n1 2 1\n", 2, "not a number"),
    "nan weight": ("3 1\n1 2 nan\n", 2, "weight `nan`; a finite weight"),
    "infinite weight": ("3 1\n1 2 -inf\n", 2, "weight `-inf`; a finite weight"),
    "overflowing weight": ("3 1\n1 2 1e999\n", 2, "weight `1e999`; a finite weight"),
    "lone index": ("3 1\n1\n", 2, "1 tokens"),
    "four tokens": ("3 1\n1 2 1 1\n", 2, "4 tokens"),
    "many tokens": ("3 1\n" + "1 " * 259 + "\n", 2, "259 tokens"),
    "binary": (bytes(range(256)), 1, "byte 0x00; plain text"),
    "not ascii": ("3 1\n1 2 é\n", 2, "byte 0xc3"),
    "utf-16": (TRIANGLE.encode("utf-16"), 1, "byte 0xff"),
    "damaged gzip": (gzip.compress(TRIANGLE.encode(), mtime=0)[:-9], None, "damaged gzip"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_by_line(read, tmp_path, case):
    text, line, message = BAD[case]
    with pytest.raises(FormatError, match=message) as caught:
        read(text)
    error = caught.value
    place = str(tmp_path / "graph.rud") + ("" if line is None else f":{line}")
    assert error.line == line and error.path == str(tmp_path / "graph.rud")
    assert str(error).startswith(place + ": ") and "\n" not in str(error)
    assert str(error).count("; ") >= 2
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_degree_that_overflows_is_refused(read):
    assert np.isfinite(read("3 2\n1 2 1.7e308\n1 3 1.7e308\n")[0].data).all()
    edges = "".join(f"1 {j} 1.7e308\n" for j in range(2, 8))
    with pytest.raises(FormatError, match="overflows"):
        read("7 6\n" + edges)


def test_missing_file_and_directory_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.rud: No such file.*check the path"):
        read_rudy(tmp_path / "none.rud")
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        read_rudy(tmp_path)


@st.composite
def graphs(draw):
    n = draw(st.integers(1, 12))
    pairs = [(i, j) for i in range(1, n + 1) for j in range(i + 1, n + 1)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    number = st.integers(-9, 9) | st.floats(-1e300, 1e300)
    return n, [(i, j, draw(number)) for i, j in chosen]


@settings(deadline=None, max_examples=100)
@given(graphs(), st.booleans(), st.booleans())
def test_round_trip(tmp_path_factory, graph, sparse, compressed):
    n, edges = graph
    W = weights(n, edges)
    path = tmp_path_factory.mktemp("rudy") / ("graph.rud.gz" if compressed else "graph.rud")
    write_rudy(path, sp.csr_array(W) if sparse else W)
    C, _, _, meta = read_rudy(path)
    assert meta["n"] == n and meta["edges"] == np.count_nonzero(W) // 2
    off = ~np.eye(n, dtype=bool)
    assert np.array_equal(C.toarray()[off], W[off] / 4)
    assert np.allclose(C.diagonal(), -W.sum(axis=1) / 4, rtol=1e-12, atol=1e-14 * abs(W).max())


@pytest.mark.parametrize(
    ("W", "message"),
    [
        (np.zeros((2, 3)), r"shape \(2, 3\)"),
        (np.zeros((0, 0)), r"shape \(0, 0\)"),
        (np.eye(2), "nonzero diagonal"),
        (np.array([[0, 1], [2, 0]]), "not symmetric"),
        (np.array([[0, np.nan], [np.nan, 0]]), "NaN"),
        (np.array([[0, 1j], [-1j, 0]]), "complex"),
    ],
)
def test_writer_refuses_what_is_no_graph(tmp_path, W, message):
    with pytest.raises(ValueError, match=message):
        write_rudy(tmp_path / "graph.rud", W)


VALID = b"12 9\n1 2 1\n2 3 -1\n3 4\n4 5 2.5\n\n5 6 1e-3\n10 11 7\n11 12 1\n1 12 -4\n3 9 1\n\n"
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
    b"x",
]


@settings(deadline=None, max_examples=400)
@given(st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 6), st.sampled_from(PIECES)), max_size=4))
def test_mutated_files_parse_or_are_refused(tmp_path_factory, edits):
    data = VALID
    for start, length, piece in edits:
        data = data[:start] + piece + data[start + length :]
    path = tmp_path_factory.mktemp("fuzz") / "graph.rud"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            C, _, _, meta = read_rudy(path)
        except FormatError as error:
            assert error.line is not None and "report this file" not in str(error)
            return
    assert C.shape == (meta["n"], meta["n"]) and np.isfinite(C.data).all() and (C != C.T).nnz == 0


@pytest.mark.parametrize(("name", "n", "m"), [(*item, m) for item, m in zip(GSET.items(), GSET_EDGES, strict=True)])
def test_gset(shared_data, name, n, m):
    C, _, _, meta = read_rudy(shared_data / "gset" / f"{name}.rud")
    assert (meta["n"], meta["edges"]) == (n, m) and C.nnz == n + 2 * m
    assert not C.sum(axis=1).any()
    assert C.has_canonical_format and (C != C.T).nnz == 0
