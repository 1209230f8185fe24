"""Pose graphs in the g2o format, in the plane and in space.

A line is a tag and numbers: ``VERTEX_SE2 id x y theta``, ``VERTEX_SE3:QUAT id x y z qx qy qz qw``, ``EDGE_SE2 i j x y theta`` and
``EDGE_SE3:QUAT i j x y z qx qy qz qw``, an edge followed by the upper triangle of its information matrix, row by row (6 or 21 numbers);
``FIX id ...``; ``#`` and what follows is a comment. Offsets of sensors (``PARAMS_...``) do not concern these edges and are skipped.
"""

import os
import re
import warnings
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .errors import FormatError
from .text import number, read_bytes, read_table, show, write_bytes

Path = str | os.PathLike[str]
PLANE, SPACE = 2, 3
TAGS = {b"VERTEX_SE2": (PLANE, 4), b"EDGE_SE2": (PLANE, 11), b"VERTEX_SE3:QUAT": (SPACE, 8), b"EDGE_SE3:QUAT": (SPACE, 30)}
VERTEX, EDGE = {2: b"VERTEX_SE2", 3: b"VERTEX_SE3:QUAT"}, {2: b"EDGE_SE2", 3: b"EDGE_SE3:QUAT"}
TAG = {(2, True): "EDGE_SE2", (3, True): "EDGE_SE3:QUAT", (2, False): "VERTEX_SE2", (3, False): "VERTEX_SE3:QUAT"}
KNOWN = "VERTEX_SE2, EDGE_SE2, VERTEX_SE3:QUAT, EDGE_SE3:QUAT, FIX"
PRINTED = 1e-6  # relative: how far below 0 an eigenvalue of an information matrix may be, whose entries were printed to six digits
SHORT = 1e-6  # a quaternion below this norm has no direction
LARGE = 1e150  # numbers beyond have no square


class PoseGraphFile(NamedTuple):
    """What a g2o file holds, as arrays; N poses in R^d, m edges."""

    d: int
    ids: np.ndarray
    """(N,) int64: the ids of the file, in the order of its vertices; ascending where it has none."""
    edges: np.ndarray
    """(m, 2) int64: positions in ``ids``."""
    R: np.ndarray
    """(m, d, d) measured rotations: the orientation of j in the frame of i."""
    t: np.ndarray
    """(m, d) measured translations: the position of j in the frame of i."""
    information: np.ndarray
    """(m, 3, 3) of (x, y, theta), or (m, 6, 6) of (x, y, z, and three of rotation)."""
    pose_R: np.ndarray | None
    """(N, d, d), or None where the file has no vertices."""
    pose_t: np.ndarray | None
    """(N, d)"""
    fixed: np.ndarray
    """positions in ``ids`` of the poses under FIX."""
    lines: np.ndarray
    """(m,) the line of each edge."""


def read_g2o(path: Path, duplicates: str = "warn") -> PoseGraphFile:
    """Read a pose graph.

    Parameters
    ----------
    path : path-like
        The file, plain or gzip.
    duplicates : {"warn", "refuse", "keep"}
        What to do with an edge that repeats another one, number by number: it counts twice after a UserWarning that names both lines, or
        is refused, or counts twice. Different measurements of one pair are no repetition.

    Raises
    ------
    FormatError
        (a ValueError) naming file and line: unknown tags, wrong counts, NaN, poses of the plane and of space in one file, edges to
        undeclared vertices, self-loops, vertices declared twice, quaternions of norm 0, information matrices that are not positive
        semidefinite (up to what printing six digits does).
    OSError
        If the file cannot be read.

    Notes
    -----
    Linear time.
    """
    if duplicates not in ("warn", "refuse", "keep"):
        raise ValueError(f'duplicates = {duplicates!r}; it must be "warn", "refuse" or "keep"')
    groups, d = _grouped(path, read_bytes(path))
    edges, lines = _numbers(path, EDGE[d], groups)
    vertices, vertex_lines = _numbers(path, VERTEX[d], groups)
    if not len(edges):
        raise FormatError(path, None, "no edge", f"lines {TAG[d, True]} are needed", "check that this is a g2o file")
    ids, ij = _identified(path, d, vertices, vertex_lines, edges, lines)
    R, t = _poses(path, d, edges[:, 2:], lines)
    information = _information(path, d, edges[:, 2 + (3 if d == PLANE else 7) :], lines)
    pose_R, pose_t = _poses(path, d, vertices[:, 1:], vertex_lines) if len(vertices) else (None, None)
    if duplicates != "keep":
        _repeated(path, edges, lines, duplicates)
    return PoseGraphFile(d, ids, ij, R, t, information, pose_R, pose_t, _fixed(path, groups, ids), lines)


def write_g2o(path: Path, R: Any, t: Any, ids: Any = None, *, edges: Any = None, fixed: Any = ()) -> None:
    """Write poses, and edges if there are any, so that reading gives the same numbers back up to the rounding of quaternions.

    Parameters
    ----------
    path : path-like
        The file; compressed if its name ends in ``.gz``.
    R, t : array_like, (N, d, d) and (N, d)
        Rotations and positions, d = 2 or 3.
    ids : array_like of int, (N,), optional
        0, 1, ... by default.
    edges : tuple of array_like, optional
        ``(ij, R, t, information)`` as in `PoseGraphFile`, ij being positions.
    fixed : array_like of int
        Positions of the poses to write under FIX.

    Raises
    ------
    ValueError
        If these are no poses.
    """
    R, t = np.asarray(R, float), np.asarray(t, float)
    d = t.shape[-1] if t.ndim == 2 else 0
    if d not in (2, 3) or R.shape != (len(t), d, d) or not (np.isfinite(R).all() and np.isfinite(t).all()):
        raise ValueError(f"R {R.shape} and t {t.shape} are no poses; finite (N, d, d) and (N, d) with d = 2 or 3 are needed")
    ids = np.arange(len(t)) if ids is None else np.asarray(ids)
    out = [f"{TAG[d, False]} {i} {_row(*pose)}\n" for i, *pose in zip(ids.tolist(), _angles(R), t, strict=True)]
    if np.size(fixed):
        out.append("FIX " + " ".join(str(i) for i in ids[np.asarray(fixed)].tolist()) + "\n")
    if edges is not None:
        ij, edge_R, edge_t, information = (np.asarray(part) for part in edges)
        upper = information[(slice(None), *np.triu_indices(information.shape[1]))]
        rows = zip(ids[ij].tolist(), _angles(np.asarray(edge_R, float)), edge_t, upper.tolist(), strict=True)
        out += [f"{TAG[d, True]} {i} {j} {_row(a, x)} {' '.join(map(repr, u))}\n" for (i, j), a, x, u in rows]
    write_bytes(path, "".join(out).encode())


def _row(angles: np.ndarray, t: np.ndarray) -> str:
    return " ".join(map(repr, [*t.tolist(), *angles.tolist()]))


def _angles(R: np.ndarray) -> np.ndarray:
    """Angles (n, 1) or unit quaternions x, y, z, w (n, 4) of rotations."""
    if R.shape[-1] == PLANE:
        return np.arctan2(R[:, 1, 0], R[:, 0, 0])[:, None]
    # the column of largest diagonal of 4 q q^T: no cancellation (Shepperd 1978)
    q = np.empty((len(R), 4, 4))
    trace = np.trace(R, axis1=1, axis2=2)
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        q[:, a, a] = 1 + 2 * R[:, a, a] - trace
        q[:, a, b] = q[:, b, a] = R[:, a, b] + R[:, b, a]
        q[:, a, 3] = q[:, 3, a] = R[:, c, b] - R[:, b, c]
    q[:, 3, 3] = 1 + trace
    best = np.argmax(np.einsum("nii->ni", q), axis=1)
    column = q[np.arange(len(R)), best]
    column /= np.linalg.norm(column, axis=1)[:, None]
    return np.where(column[:, 3:] < 0, -column, column)


def _grouped(path: Path, data: bytes) -> tuple[dict[bytes, tuple[list[bytes], list[int]]], int]:
    """The rest of each line by its tag, with its number; and the dimension."""
    groups: dict[bytes, tuple[list[bytes], list[int]]] = {tag: ([], []) for tag in (*TAGS, b"FIX")}
    d, first = 0, 0
    for place, line in enumerate(data.split(b"\n"), 1):
        if b"#" in line:
            line = line[: line.index(b"#")]
        parts = line.split(None, 1)
        if not parts:
            continue
        tag = parts[0]
        group = groups.get(tag)
        if group is None:
            if tag.startswith(b"PARAMS_"):
                continue
            raise FormatError(path, place, f"the tag {show(tag)}", f"one of {KNOWN} is needed", "remove what is no pose graph")
        if tag in TAGS and TAGS[tag][0] != d:
            if d:
                given = f"{tag.decode()} after poses in R^{d} on line {first}"
                raise FormatError(path, place, given, "one dimension is needed", "split the file")
            d, first = TAGS[tag][0], place
        group[0].append(parts[1] if len(parts) > 1 else b"")
        group[1].append(place)
    if not d:
        raise FormatError(path, None, "no vertex and no edge", f"lines with one of {KNOWN} are needed", "check that this is a g2o file")
    return groups, d


def _numbers(path: Path, tag: bytes, groups: dict[bytes, tuple[list[bytes], list[int]]]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers behind a tag, one row a line."""
    (rests, places), count = groups[tag], TAGS[tag][1]
    lines = np.array(places, np.int64)
    if not rests:
        return np.zeros((0, count)), lines
    table = read_table(b"\n".join(rests))
    if table is None or len(table.tokens) != len(rests) or (table.tokens != count).any():
        _diagnose(path, tag, rests, places)
    assert table is not None
    values = table.values.astype(float).reshape(-1, count)
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(values) < LARGE).all(axis=1)
    if wrong.any():
        raise FormatError(path, int(lines[wrong][0]), "a number beyond 1e150", "finite numbers are needed", "correct the line")
    whole = values[:, : 2 if b"EDGE" in tag else 1]
    wrong = ((whole != np.floor(whole)) | (np.abs(whole) >= 2**53)).any(axis=1)
    if wrong.any():
        given = f"an id that is no integer, or too large, behind {tag.decode()}"
        raise FormatError(path, int(lines[wrong][0]), given, "integers below 2**53 are needed", "correct the ids")
    return values, lines


def _diagnose(path: Path, tag: bytes, rests: list[bytes], places: list[int]) -> NoReturn:
    """The first line that is not as many numbers as its tag asks for."""
    count = TAGS[tag][1]
    for rest, place in zip(rests, places, strict=True):
        tokens = rest.split()
        for token in tokens:
            if number(token) is None:
                raise FormatError(path, place, f"{show(token)} behind {tag.decode()}", "numbers are needed", "correct the line")
        if len(tokens) != count:
            needed = f"{count} are needed"
            raise FormatError(path, place, f"{len(tokens)} numbers behind {tag.decode()}", needed, "complete or remove the line")
    raise FormatError(path, places[0], f"unreadable numbers behind {tag.decode()}", "plain decimal numbers are needed", "correct the lines")


def _identified(
    path: Path, d: int, vertices: np.ndarray, vertex_lines: np.ndarray, edges: np.ndarray, lines: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ids, and the ends of the edges as positions among them."""
    ends = edges[:, :2].astype(np.int64)
    loops = ends[:, 0] == ends[:, 1]
    if loops.any():
        k = int(np.argmax(loops))
        raise FormatError(path, int(lines[k]), f"an edge from {ends[k, 0]} to itself", "two poses are needed", "remove the line")
    if not len(vertices):
        ids, ij = np.unique(ends, return_inverse=True)
        return ids, ij.reshape(-1, 2)
    ids = vertices[:, 0].astype(np.int64)
    order = np.argsort(ids, kind="stable")
    again = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(again):
        k = order[again[np.argmin(order[again + 1])] + 1]
        before = vertex_lines[np.argmax(ids == ids[k])]
        raise FormatError(path, int(vertex_lines[k]), f"vertex {ids[k]} again, after line {before}", "one pose is needed", "remove one")
    place = np.minimum(np.searchsorted(ids[order], ends), len(ids) - 1)
    ij = order[place]
    unknown = ids[ij] != ends
    if unknown.any():
        k = int(np.argmax(unknown.any(axis=1)))
        given = f"an edge to {ends[k][unknown[k]][0]}, which no {TAG[d, False]} declares"
        raise FormatError(path, int(lines[k]), given, "declared vertices are needed", "add the vertex, or remove all of them")
    return ids, ij


def _poses(path: Path, d: int, values: np.ndarray, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations and translations of (x, y, theta) or (x, y, z, quaternion)."""
    t = np.ascontiguousarray(values[:, :d])
    if d == PLANE:
        c, s = np.cos(values[:, 2]), np.sin(values[:, 2])
        return np.stack([c, -s, s, c], axis=1).reshape(-1, 2, 2), t
    q = values[:, 3:7]
    size = np.linalg.norm(q, axis=1)
    if not (size > SHORT).all():
        k = int(np.argmax(~(size > SHORT)))
        given, needed = f"a quaternion of norm {size[k]:.3g}", "a direction is needed, of norm 1"
        raise FormatError(path, int(lines[k]), given, needed, "write the identity as 0 0 0 1")
    x, y, z, w = (q / size[:, None]).T
    R = np.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), 2 * (x * y + z * w), 1 - 2 * (x * x + z * z),
        2 * (y * z - x * w), 2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ], axis=1)  # fmt: skip
    return R.reshape(-1, 3, 3), t


def _information(path: Path, d: int, values: np.ndarray, lines: np.ndarray) -> np.ndarray:
    p = 3 if d == PLANE else 6
    out = np.empty((len(values), p, p))
    i, j = np.triu_indices(p)
    out[:, i, j] = out[:, j, i] = values
    if not _definite(out):
        eig = np.linalg.eigvalsh(out)
        bad = ~(eig[:, 0] >= -PRINTED * np.abs(eig).max(axis=1)) | ~(np.abs(eig).max(axis=1) > 0)
        if bad.any():
            k = int(np.argmax(bad))
            given = f"an information matrix with eigenvalues from {eig[k, 0]:.3g} to {eig[k, -1]:.3g}"
            remedy = "correct it (information is the inverse of covariance, upper triangle, row by row)"
            raise FormatError(path, int(lines[k]), given, "a positive semidefinite matrix other than 0 is needed", remedy)
    return out


def _definite(M: np.ndarray) -> bool:
    try:
        np.linalg.cholesky(M)
    except np.linalg.LinAlgError:
        return False
    return True


def _fixed(path: Path, groups: dict[bytes, tuple[list[bytes], list[int]]], ids: np.ndarray) -> np.ndarray:
    found, where = [], {int(i): k for k, i in enumerate(ids)}
    for rest, place in zip(*groups[b"FIX"], strict=True):
        tokens = rest.split()
        for token in tokens or [b""]:
            if not re.fullmatch(rb"[+-]?\d{1,16}", token) or int(token) not in where:
                given = f"FIX {show(token)}"
                raise FormatError(path, place, given, "the id of a pose is needed", "correct or remove the line")
            found.append(where[int(token)])
    return np.array(found, np.int64)


def _repeated(path: Path, edges: np.ndarray, lines: np.ndarray, duplicates: str) -> None:
    """Refuse, or warn of, an edge that repeats another one, number by number."""
    key = (edges * np.sqrt(np.arange(2.0, edges.shape[1] + 2))).sum(axis=1)  # equal rows have equal keys
    order = np.argsort(key, kind="stable")
    same = (edges[order[1:]] == edges[order[:-1]]).all(axis=1)
    if not same.any():
        return
    pairs = np.stack([order[:-1][same], order[1:][same]], axis=1)
    before, k = (int(line) for line in lines[pairs[np.argmin(pairs[:, 1])]])
    given = f"{int(same.sum())} edge(s) that repeat another one, the first that of line {before}"
    if duplicates == "refuse":
        raise FormatError(path, k, given, "each measurement is needed once", 'remove them, or read with duplicates="keep"')
    warnings.warn(f"{os.fspath(path)}:{k}: {given}; counted as often as given", stacklevel=3)
