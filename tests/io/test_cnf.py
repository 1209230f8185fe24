import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bmsdp
from bmsdp.applications import maxsat
from bmsdp.io.cnf import read_cnf, two_sat_cost, write_cnf
from bmsdp.io.errors import FormatError


def write(path, text):
    path.write_bytes(text.encode("latin-1"))
    return path


def test_a_file_with_everything(tmp_path):
    path = write(tmp_path / "a.cnf", "c comment\n\np cnf 3 4\n1 -2 0 2\n3 0\nc inside\n-1 0 -3\n-3 0\n%\n0\nanything\n")
    C, A, b, meta = read_cnf(path)
    assert A is None and b is None
    assert meta["clauses"] == [(1, -2), (2, 3), (-1,), (-3, -3)] and meta["weights"].tolist() == [1, 1, 1, 1]
    assert (meta["format"], meta["sense"], meta["offset"], meta["kind"], meta["n"]) == ("cnf", "max", 0.0, "max2sat", 3)
    assert C.shape == (4, 4) and (C != maxsat.problem(meta["clauses"], n=3).C.matrix()).nnz == 0
    zipped = tmp_path / "b.cnf.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert read_cnf(zipped)[3]["clauses"] == meta["clauses"]


def test_weights(tmp_path):
    path = write(tmp_path / "a.wcnf", "p wcnf 2 3 10\n2.5 1 2 0\n1e0 -1 0\n9 -2\n0\n")
    C, _, _, meta = read_cnf(path)
    assert meta["clauses"] == [(1, 2), (-1,), (-2,)] and meta["weights"].tolist() == [2.5, 1, 9]
    x = np.array([1.0, -1, -1])
    assert -x @ C @ x == 10


def test_solved_from_the_file(tmp_path):
    path = write(tmp_path / "a.cnf", "p cnf 2 4\n1 2 0\n-1 2 0\n1 -2 0\n-1 -2 0\n")
    C, A, b, meta = read_cnf(path)
    found = maxsat.recover(bmsdp.solve(C, A, b, rng=0), rng=0)
    assert found.value == 3 and meta["offset"] + found.bound == pytest.approx(3, rel=2e-6)


literals = st.integers(-6, 6).filter(bool)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(literals, max_size=2).map(tuple), max_size=12), st.booleans(), st.data())
def test_round_trip(tmp_path_factory, clauses, weighted, data):
    path = tmp_path_factory.mktemp("cnf") / ("a.cnf.gz" if weighted else "a.cnf")
    positive = st.floats(1e-300, 1e300) | st.integers(1, 100).map(float)
    weights = data.draw(st.lists(positive, min_size=len(clauses), max_size=len(clauses))) if weighted else None
    write_cnf(path, clauses, weights, n=6)
    C, _, _, meta = read_cnf(path)
    assert meta["clauses"] == clauses and meta["n"] == 6
    assert meta["weights"].tolist() == (weights if weighted else [1.0] * len(clauses))
    assert (C != two_sat_cost(6, clauses, meta["weights"])).nnz == 0


@pytest.mark.parametrize(("text", "line", "words"), [
    ("", 1, "no header"),
    ("c only\n", 1, "no header"),
    ("1 2 0\n", 1, "header `1 2 0`"),
    ("p sat 2 1\n1 0\n", 1, "p cnf"),
    ("p cnf 2\n1 0\n", 1, "p cnf"),
    ("p cnf 2 x\n", 1, "header"),
    ("p cnf -2 1\n1 0\n", 1, "header"),
    ("p cnf 2.5 1\n1 0\n", 1, "header"),
    ("p cnf nan 1\n1 0\n", 1, "header"),
    ("p cnf 99999999999 1\n1 0\n", 1, "n = 99999999999"),
    ("p cnf 2 1\n1 3 0\n", 2, "variable 3"),
    ("p cnf 2 1\n1 b 0\n", 2, "`b`"),
    ("p cnf 2 1\n1 1.5 0\n", 2, "integer"),
    ("p cnf 2 1\n1 99999999999999999999999 0\n", 2, "integer"),
    ("p cnf 2 2\n1 0\n", 2, "1 of 2 clauses"),
    ("p cnf 2 2\n1 0\n1 2\n", 3, "within clause 2"),
    ("p cnf 2 1\n1 0\n\n2 0\n", 4, "clause 2 after"),
    ("p cnf 3 2\n1 0\n1 2\n3 0\n", 3, "3 literals"),
    ("p wcnf 2 1\n0 1 0\n", 2, "positive"),
    ("p wcnf 2 1\n-1 1 0\n", 2, "positive"),
    ("p wcnf 2 1\nnan 1 0\n", 2, "positive"),
    ("p wcnf 2 2\n1e308 1 0\n1e308 2 0\n", None, "overflow"),
    ("p wcnf 2 1 5\n5 1 0\n", 2, "hard clause"),
    ("p cnf 2 1\n\x00\x01 0\n", 2, "integer"),
])  # fmt: skip
def test_wrong_files_are_refused_with_their_line(tmp_path, text, line, words):
    path = write(tmp_path / "a.cnf", text)
    with pytest.raises(FormatError) as caught:
        read_cnf(path)
    assert caught.value.line == line and words in str(caught.value) and str(caught.value).startswith(str(path))


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="readable"):
        read_cnf(tmp_path / "none.cnf")
    path = tmp_path / "a.cnf.gz"
    path.write_bytes(gzip.compress(b"p cnf 1 1\n1 0\n")[:-9])
    with pytest.raises(FormatError, match="gzip"):
        read_cnf(path)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_mutated_files_are_read_or_refused(tmp_path_factory, data):
    text = bytearray(b"c x\np wcnf 4 5 100\n3 1 -2 0\n1 2 0\n2.5 -3 4 0\n1 -4 -1\n0\n7 2 3 0\n")
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(text) - 1))
        kind = data.draw(st.integers(0, 2))
        if kind == 0:
            text[place] = data.draw(st.sampled_from(b"0123456789-. \nxpc%\x00e"))
        elif kind == 1:
            del text[place : place + data.draw(st.integers(1, 8))]
        else:
            text[place:place] = data.draw(st.sampled_from([b"9" * 30, b" 0 ", b"\n", b"-", b"1e400", b"nan"]))
        text = text or bytearray(b"p")
    path = tmp_path_factory.mktemp("cnf") / "a.cnf"
    path.write_bytes(text)
    try:
        C, _, _, meta = read_cnf(path)
    except FormatError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert C.shape[0] == meta["n"] + 1 and len(meta["clauses"]) == len(meta["weights"]) and np.isfinite(C.data).all()


@pytest.mark.parametrize(("clauses", "options", "needed"), [
    ([(1, 0)], {}, "clause 0"), ([(1,), (1.5,)], {}, "clause 1"), ([(3,)], {"n": 2}, "1 to n = 2"),
    ([(1,)], {"weights": [0.0]}, "positive"), ([(1,)], {"weights": [1.0, 1.0]}, "each"),
])  # fmt: skip
def test_wrong_clauses_are_not_written(tmp_path, clauses, options, needed):
    with pytest.raises(ValueError, match=needed):
        write_cnf(tmp_path / "a.cnf", clauses, **options)
    assert not (tmp_path / "a.cnf").exists()
