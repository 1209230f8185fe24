"""The g2o reader and writer: what they read, what they refuse and where, and that nothing else ever comes out of them."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmsdp.io.errors import FormatError
from bmsdp.io.g2o import read_g2o, write_g2o

PLANE = """# a triangle
VERTEX_SE2 10 0 0 0
VERTEX_SE2 -3 1 0 1.5707963267948966
VERTEX_SE2 7 1 1 3.0

FIX 10
EDGE_SE2 10 -3 1 0 1.5707963267948966 2 0.5 0 3 0 4
EDGE_SE2 -3 7 1 0 1.43 1 0 0 1 0 1  # measured twice
EDGE_SE2 10 7 1.0 1e0 3 1 0 0 1 0 1
"""
SPACE = """VERTEX_SE3:QUAT 0 0 0 0 0 0 0 1
VERTEX_SE3:QUAT 1 1 2 3 0 0 0.70710678118654752 0.70710678118654752
PARAMS_SE3OFFSET 0 0 0 0 0 0 0 1
EDGE_SE3:QUAT 0 1 1 2 3 0 0 2 2 1 0 0 0 0 0 2 0 0 0 0 3 0 0 0 4 0 0 5 0 6
"""


def write(tmp_path, text):
    path = tmp_path / "a.g2o"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_plane(tmp_path):
    found = read_g2o(write(tmp_path, PLANE))
    assert found.d == 2 and found.ids.tolist() == [10, -3, 7] and found.edges.tolist() == [[0, 1], [1, 2], [0, 2]]
    assert found.fixed.tolist() == [0] and found.lines.tolist() == [7, 8, 9]
    np.testing.assert_allclose(found.R[0], [[0, -1], [1, 0]], atol=1e-15)
    np.testing.assert_array_equal(found.information[0], [[2, 0.5, 0], [0.5, 3, 0], [0, 0, 4]])
    np.testing.assert_array_equal(found.t[2], [1, 1])
    np.testing.assert_allclose(found.pose_R[1] @ [1, 0], [0, 1], atol=1e-15)
    np.testing.assert_array_equal(found.pose_t, [[0, 0], [1, 0], [1, 1]])


def test_space(tmp_path):
    found = read_g2o(write(tmp_path, SPACE))
    assert found.d == 3
    np.testing.assert_allclose(found.R[0], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-15)  # not of norm 1 in the file
    np.testing.assert_array_equal(found.information[0], np.diag([1.0, 2, 3, 4, 5, 6]))


def test_ids_without_vertices_are_sorted(tmp_path):
    found = read_g2o(write(tmp_path, "EDGE_SE2 9 2 0 0 0 1 0 0 1 0 1\r\nEDGE_SE2 2 5 0 0 0 1 0 0 1 0 1\r\n"))
    assert found.ids.tolist() == [2, 5, 9] and found.edges.tolist() == [[2, 0], [0, 1]] and found.pose_R is None


EDGE2 = "EDGE_SE2 0 1 1 0 0 1 0 0 1 0 1\n"
EDGE3 = "EDGE_SE3:QUAT 0 1 1 2 3 {} 1 0 0 0 0 0 1 0 0 0 0 1 0 0 0 1 0 0 1 0 1\n"
BAD = {
    "empty": ("", None, "no vertex and no edge"),
    "only vertices": ("VERTEX_SE2 0 0 0 0\n", None, "no edge"),
    "landmark": (EDGE2 + "EDGE_SE2_XY 0 1 1 1 1 0 1\n", 2, "tag `EDGE_SE2_XY`"),
    "rudy": ("3 2\n1 2\n", 1, "tag `3`"),
    "mixed": (EDGE2 + "\n" + EDGE3.format("0 0 0 1"), 3, "after poses in R^2 on line 1"),
    "nan": (EDGE2 + "EDGE_SE2 1 2 nan 0 0 1 0 0 1 0 1\n", 2, "`nan` behind EDGE_SE2"),
    "inf": (EDGE2 + "EDGE_SE2 1 2 inf 0 0 1 0 0 1 0 1\n", 2, "`inf`"),
    "huge": (EDGE2 + "EDGE_SE2 1 2 1e400 0 0 1 0 0 1 0 1\n", 2, "beyond 1e150"),
    "word": (EDGE2 + "EDGE_SE2 1 2 x 0 0 1 0 0 1 0 1\n", 2, "`x`"),
    "truncated": (EDGE2 + "EDGE_SE2 1 2 0 0 0 1 0 0 1", 2, "9 numbers behind EDGE_SE2"),
    "tag alone": (EDGE2 + "EDGE_SE2\n", 2, "0 numbers"),
    "too long": (EDGE2 + "EDGE_SE2 1 2 0 0 0 1 0 0 1 0 1 5\n", 2, "12 numbers"),
    "two in one token": (EDGE2 + "EDGE_SE2 1 2 0 0 0 1 0 0 1-2 1\n", 2, "`1-2`"),
    "fractional id": (EDGE2 + "EDGE_SE2 1 2.5 0 0 0 1 0 0 1 0 1\n", 2, "no integer"),
    "large id": (EDGE2 + "EDGE_SE2 1 1e17 0 0 0 1 0 0 1 0 1\n", 2, "no integer"),
    "loop": (EDGE2 + "EDGE_SE2 1 1 0 0 0 1 0 0 1 0 1\n", 2, "an edge from 1 to itself"),
    "vertex twice": ("VERTEX_SE2 0 0 0 0\nVERTEX_SE2 1 0 0 0\nVERTEX_SE2 0 1 1 1\n" + EDGE2, 3, "vertex 0 again, after line 1"),
    "unknown vertex": ("VERTEX_SE2 0 0 0 0\n" + EDGE2, 2, "an edge to 1, which no VERTEX_SE2 declares"),
    "indefinite": (EDGE2 + "EDGE_SE2 1 2 0 0 0 1 2 0 1 0 1\n", 2, "eigenvalues from -1 to 3"),
    "zero information": (EDGE2 + "EDGE_SE2 1 2 0 0 0 0 0 0 0 0 0\n", 2, "other than 0"),
    "negative": (EDGE2 + "EDGE_SE2 1 2 0 0 0 1 0 0 1 0 -1\n", 2, "eigenvalues from -1"),
    "quaternion 0": (EDGE3.format("0 0 0 0"), 1, "a quaternion of norm 0"),
    "vertex quaternion 0": ("VERTEX_SE3:QUAT 0 0 0 0 0 0 0 0\nVERTEX_SE3:QUAT 1 0 0 0 0 0 0 1\n" + EDGE3.format("0 0 0 1"), 1, "norm 0"),
    "fix unknown": (EDGE2 + "FIX 8\n", 2, "FIX `8`"),
    "fix nothing": (EDGE2 + "FIX\n", 2, "FIX"),
    "fix word": (EDGE2 + "FIX a\n", 2, "FIX `a`"),
    "binary": (b"\x00\x01EDGE\xff 1 2\n", 1, "tag"),
    "damaged gzip": (b"\x1f\x8b\x08nonsense", None, "damaged gzip"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_with_its_line(tmp_path, name):
    text, line, said = BAD[name]
    with pytest.raises(FormatError) as error:
        read_g2o(write(tmp_path, text))
    assert error.value.line == line and said in str(error.value)
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="a readable file is needed"):
        read_g2o(tmp_path / "none.g2o")


def test_semidefinite_information_is_taken(tmp_path):
    """Six printed digits may make an eigenvalue of 0 slightly negative."""
    found = read_g2o(write(tmp_path, "EDGE_SE2 0 1 1 0 0 1 1.0000005 0 1 0 1\n"))
    assert np.linalg.eigvalsh(found.information[0])[0] < 0


def test_repeated_edges(tmp_path):
    other = "EDGE_SE2 0 1 1 0 0 1 0 0 1 0 2\n"
    path = write(tmp_path, EDGE2 + other + EDGE2 + EDGE2)
    with pytest.warns(UserWarning, match=r"a.g2o:3: 2 edge\(s\) that repeat another one, the first that of line 1"):
        assert len(read_g2o(path).edges) == 4
    with pytest.raises(FormatError, match=r":3: 2 edge"):
        read_g2o(path, duplicates="refuse")
    assert len(read_g2o(path, duplicates="keep").edges) == 4
    assert len(read_g2o(write(tmp_path, EDGE2 + other), duplicates="refuse").edges) == 2
    with pytest.raises(ValueError, match="duplicates = 'drop'"):
        read_g2o(path, duplicates="drop")


def random_rotations(rng, n, d):
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    Q[:, :, 0] *= np.linalg.det(Q)[:, None]
    return Q


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("ending", [".g2o", ".g2o.gz"])
def test_round_trip(tmp_path, rng, d, ending):
    n, m, p = 30, 50, 3 if d == 2 else 6
    ids = rng.permutation(1000)[:n] - 500
    R, t = random_rotations(rng, n, d), 1e3 * rng.standard_normal((n, d))
    ij = np.array([rng.choice(n, 2, replace=False) for _ in range(m)])
    B = rng.standard_normal((m, p, p))
    edges = (ij, random_rotations(rng, m, d), rng.standard_normal((m, d)), B @ B.transpose(0, 2, 1))
    edges[3][:] = (edges[3] + edges[3].transpose(0, 2, 1)) / 2
    if d == 3:  # half turns, where a quaternion loses its real part
        edges[1][:3] = [np.diag(s) for s in ([1.0, -1, -1], [-1.0, 1, -1], [-1.0, -1, 1])]
    path = tmp_path / f"a{ending}"
    write_g2o(path, R, t, ids, edges=edges, fixed=[4])
    found = read_g2o(path)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.edges, ij)
    assert found.fixed.tolist() == [4]
    for one, two in ((found.R, edges[1]), (found.pose_R, R)):
        np.testing.assert_allclose(one, two, atol=4e-15)
    for one, two in ((found.t, edges[2]), (found.pose_t, t), (found.information, edges[3])):
        np.testing.assert_array_equal(one, two)


def test_poses_alone(tmp_path, rng):
    write_g2o(tmp_path / "a.g2o", random_rotations(rng, 3, 3), np.zeros((3, 3)))
    assert (tmp_path / "a.g2o").read_text().count("VERTEX_SE3:QUAT") == 3


@pytest.mark.parametrize(
    ("R", "t"), [(np.eye(2), np.zeros((1, 2))), (np.ones((1, 4, 4)), np.zeros((1, 4))), (np.full((1, 2, 2), np.nan), np.zeros((1, 2)))]
)
def test_what_is_no_pose_is_not_written(tmp_path, R, t):
    with pytest.raises(ValueError, match="are no poses"):
        write_g2o(tmp_path / "a.g2o", R, t)


def attempt(path):
    """The file, or None where it was refused as it should be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = read_g2o(path)
        except FormatError as error:
            assert error.line is None or error.line >= 1
            return None
    assert np.isfinite(found.R).all() and np.isfinite(found.t).all() and np.isfinite(found.information).all()
    assert (found.edges[:, 0] != found.edges[:, 1]).all() and 0 <= found.edges.min() and found.edges.max() < len(found.ids)
    np.testing.assert_allclose(found.R @ found.R.transpose(0, 2, 1), np.tile(np.eye(found.d), (len(found.R), 1, 1)), atol=1e-12)
    return found


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_mutated_files(tmp_path_factory, data):
    """Bytes replaced, inserted, deleted; tokens exchanged for odd ones; lines cut, doubled, swapped: a FormatError or a sound graph."""
    text = bytearray(data.draw(st.sampled_from([PLANE, SPACE])).encode())
    odd = [
        b"nan",
        b"-inf",
        b"1e999",
        b"",
        b"0x1",
        b"1_0",
        b"9" * 30,
        b"-",
        b"\x00",
        b"#",
        b"\n",
        b"EDGE_SE2",
        b"EDGE_SE3:QUAT",
        b"FIX",
        b"0",
    ]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(text) - 1, 0)))
        kind = data.draw(st.integers(0, 5))
        if kind == 0:
            text[at : at + 1] = data.draw(st.binary(max_size=3))
        elif kind == 1:
            del text[at : at + data.draw(st.integers(1, 40))]
        elif kind == 2:
            tokens = bytes(text).split(b" ")
            tokens[at % len(tokens)] = data.draw(st.sampled_from(odd))
            text = bytearray(b" ".join(tokens))
        elif kind == 3:
            text = text[:at]
        else:
            lines = bytes(text).split(b"\n")
            k, j = at % len(lines), data.draw(st.integers(0, len(lines) - 1))
            lines[k] = lines[j] if kind == 4 else lines[k] + b" " + lines[j]
            text = bytearray(b"\n".join(lines))
    path = tmp_path_factory.getbasetemp() / "mutated.g2o"
    path.write_bytes(bytes(text))
    attempt(path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.g2o"
    path.write_bytes(content)
    attempt(path)


def test_released_files(shared_data):
    for name, n, m, d in (("sphere2500", 2500, 4949, 3), ("CSAIL", 1045, 1172, 2), ("tinyGrid3D", 9, 11, 3)):
        found = attempt(shared_data / "g2o" / f"{name}.g2o")
        assert (len(found.ids), len(found.edges), found.d) == (n, m, d)
