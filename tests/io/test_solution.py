"""Solution files: CSDP's layout, signs, round trips, refusals."""

import gzip
import shutil
import subprocess
import time
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from bmsdp.io.errors import FormatError
from bmsdp.io.sdpa import read_sdpa
from bmsdp.io.solution import check_solution_size, read_solution, write_solution

from .test_sdpa import mutated

BLOCKS = [2, -2, ("free", 1), 1]


def solution(rng):
    """y, Z and Y on `BLOCKS`, and X."""
    Z, Y = np.diag(rng.standard_normal(6)), rng.standard_normal((6, 3))
    Z[0, 1] = Z[1, 0] = rng.standard_normal()
    Y[4] = 0
    X = Y @ Y.T
    X[~sp.block_diag([np.ones((2, 2)), *np.ones((4, 1, 1))]).toarray().astype(bool)] = 0
    X[4, 4] = -1.5
    return rng.standard_normal(4), Z, Y, X


def test_the_layout_is_csdps(tmp_path):
    """By hand: y; then 1 for Z and 2 for X; upper triangles; block, row and column from 1; exact zeros left out."""
    Z = np.array([[1, -0.25, 0], [-0.25, 0, 0], [0, 0, 2e-30]])
    Y = np.array([[1.0, 2], [3, 0], [0.5, 0]])
    write_solution(tmp_path / "s.sol", [3.0, -0.1], Z, Y, [2, -1])
    assert (
        tmp_path / "s.sol"
    ).read_text() == "3 -0.1\n1 1 1 1 1\n1 1 1 2 -0.25\n1 2 1 1 2e-30\n2 1 1 1 5\n2 1 1 2 3\n2 1 2 2 9\n2 2 1 1 0.25\n"


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.booleans())
def test_round_trip(tmp_path_factory, seed, compressed):
    y, Z, Y, X = solution(np.random.default_rng(seed))
    path = tmp_path_factory.mktemp("solution") / ("s.sol.gz" if compressed else "s.sol")
    write_solution(path, y, sp.csr_array(Z) if compressed else Z, Y, BLOCKS, [-1.5])
    found = read_solution(path, 4, BLOCKS, 6)
    assert np.array_equal(found[0], y) and np.array_equal(found[1].toarray(), Z)
    assert found[2].toarray() == pytest.approx(X, rel=1e-13, abs=1e-15) and (found[2] != found[2].T).nnz == 0


def test_strips_of_a_large_factor(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("bmsdp.io.solution._STRIP", 200)
    Y = rng.standard_normal((40, 2))
    write_solution(tmp_path / "s.sol", [1.0], np.eye(40), Y, [25, 15])
    X = read_solution(tmp_path / "s.sol", 1, [25, 15], 40)[2].toarray()
    assert X[:25, :25] == pytest.approx(Y[:25] @ Y[:25].T, rel=1e-13) and X[25:, 25:] == pytest.approx(Y[25:] @ Y[25:].T, rel=1e-13)
    assert not X[:25, 25:].any()


def test_compressed_files_are_reproducible(tmp_path, rng):
    y, Z, Y, _ = solution(rng)
    for name in ("a.sol", "a.sol.gz", "b.sol.gz"):
        write_solution(tmp_path / name, y, Z, Y, BLOCKS, [-1.5])
    assert gzip.decompress((tmp_path / "a.sol.gz").read_bytes()) == (tmp_path / "a.sol").read_bytes()
    data = [(tmp_path / name).read_bytes()[-100:] for name in ("a.sol.gz", "b.sol.gz")]  # the name is in the header
    assert data[0] == data[1]


@pytest.mark.parametrize("name", ["truss1", "arch0", "hinf1"])
def test_csdps_own_files(shared_data, tmp_path, name):
    """CSDP's y, Z and X satisfy our signs: Z = C + A*(y), A(X) = b, and its optimum is -<C, X> = b.y."""
    csdp = shutil.which("csdp")
    if csdp is None:
        pytest.skip("csdp is not installed")
    path = shared_data / "sdplib" / f"{name}.dat-s"
    subprocess.run([csdp, str(path), str(tmp_path / "s.sol")], capture_output=True, check=False, cwd=tmp_path, timeout=100)
    C, A, b, meta = read_sdpa(path)
    n = meta["n"]
    y, Z, X = read_solution(tmp_path / "s.sol", meta["m"], meta["blocks"], n)
    S = C + sp.csr_array((A.T @ y).reshape(n, n))
    tol = 1e-3 if name == "hinf1" else 1e-6
    assert abs(S - Z).max() <= tol * max(1, abs(C).max()) and np.abs(A @ X.toarray().ravel() - b).max() <= tol
    optimum = {"truss1": -8.999996, "arch0": 0.566517, "hinf1": 2.0326}[name]
    assert -(C * X).sum() == pytest.approx(optimum, rel=3 * tol) and b @ y == pytest.approx(optimum, rel=3 * tol)
    assert np.linalg.eigvalsh(X.toarray()).min() >= -1e-12 and np.linalg.eigvalsh(Z.toarray()).min() >= -1e-12


def test_sizes_that_do_not_fit_are_refused():
    check_solution_size([11_000], 11_000)
    check_solution_size([("nonneg", 10**7)], 10**7)
    check_solution_size([1000] * 100, 10**5)
    with pytest.raises(ValueError, match="6.0 GB as text.*save the factor"):
        check_solution_size(None, 20_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.ones((2, 2))}, r"y \(2, 2\)"),
        ({"Z": np.eye(5)}, r"Z \(5, 5\)"),
        ({"Y": np.ones(6)}, r"Y \(6,\)"),
        ({"Y": np.ones((6, 1)) * 1j}, "Y is complex"),
        ({"Y": np.full((6, 1), np.nan)}, "Y is complex, or NaN"),
        ({"free": []}, r"free has shape \(0,\); blocks have 1"),
        ({"blocks": [5]}, "5 rows together"),
    ],
)
def test_writer_refuses(tmp_path, rng, change, message):
    y, Z, Y, _ = solution(rng)
    with pytest.raises(ValueError, match=message):
        write_solution(tmp_path / "s.sol", **{"y": y, "Z": Z, "Y": Y, "blocks": BLOCKS, "free": [-1.5]} | change)
    assert not (tmp_path / "s.sol").exists()


GOOD = "1 2 3 4\n1 1 1 1 1\n1 1 1 2 -0.5\n2 2 1 1 3\n2 3 1 1 -7\n2 4 1 1 1e-3\n"
BAD = {
    "empty": ("", 1, "ends after 0 numbers of y"),
    "another m": ("1 2 3\n", 1, "ends after 3 numbers of y; m = 4"),
    "m too large": ("1 2 3 4 5\n", 1, "5 numbers for y up to this line"),
    "words": ("Success: SDP solved\n", 1, "`Success:`, not a finite number"),
    "y alone": ("1 2 3 4\n", None, "no entries"),
    "nan": (GOOD + "2 1 1 1 nan\n", 7, "`nan`"),
    "matrix 0": (GOOD + "0 1 1 1 1\n", 7, "matrix 0; 1 .for Z. or 2"),
    "matrix 3": (GOOD + "3 1 1 1 1\n", 7, "matrix 3"),
    "block beyond": (GOOD + "2 5 1 1 1\n", 7, "block 5"),
    "index beyond": (GOOD + "2 4 1 2 1\n", 7, "column 2 in block 4"),
    "off the diagonal": (GOOD + "2 2 1 2 1\n", 7, "diagonal block 2"),
    "both triangles": (GOOD + "1 1 2 1 1\n", 7, "other triangle"),
    "truncated": (GOOD + "2 1 1", 7, "3 tokens"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_by_line(tmp_path, case):
    text, line, message = BAD[case]
    path = tmp_path / "s.sol"
    path.write_text(GOOD)
    read_solution(path, 4, BLOCKS, 6)
    path.write_text(text)
    with pytest.raises(FormatError, match=message) as caught:
        read_solution(path, 4, BLOCKS, 6)
    assert caught.value.line == line and "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_parse_or_are_refused(tmp_path, count):
    rng, path, parsed = np.random.default_rng(6), tmp_path / "fuzz.sol", 0
    for _ in range(count):
        data = mutated(rng, GOOD.encode())
        path.write_bytes(data)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                y, Z, X = read_solution(path, 4, BLOCKS, 6)
            except FormatError as error:
                assert "report this file" not in str(error) and "\n" not in str(error), data
            else:
                parsed += 1
                assert np.isfinite(y).all() and (Z != Z.T).nnz == 0 and np.isfinite(X.data).all()
        assert time.perf_counter() - start < 5, data
    assert 0 < parsed < count
