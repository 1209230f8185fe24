"""A program as given: blocks, rows, right-hand sides, and what is refused."""

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from bmsdp.cone import Given, as_cone
from bmsdp.linear_maps import MatrixMap, entries
from bmsdp.manifolds import Sphere


def unit(n, i, j):
    E = np.zeros((n, n))
    E[i, j] = E[j, i] = 1
    return E


def test_kinds_of_blocks():
    cone = as_cone([2, -3, ("free", 1), ("psd", 2), ("nonneg", 1), ["free", 2]], 11)
    assert cone.psd == [slice(0, 2), slice(6, 8)] and list(cone.nonneg) == [2, 3, 4, 8] and list(cone.free) == [5, 9, 10]
    part = cone.part
    assert part[0] == part[1] and part[6] == part[7] and len(np.unique(part)) == 9
    assert cone.blocks == [("psd", 2), ("nonneg", 3), ("free", 1), ("psd", 2), ("nonneg", 1), ("free", 2)]
    again = as_cone(cone.blocks, 11)
    assert again.psd == cone.psd and np.array_equal(again.nonneg, cone.nonneg) and np.array_equal(again.free, cone.free)


def test_one_block():
    assert as_cone(None, 4).psd == as_cone([4], 4).psd == [slice(0, 4)]
    assert as_cone(None, 4).blocks is None and as_cone([4], 4).blocks is None
    assert as_cone([-4], 4).blocks == [("nonneg", 4)] and as_cone([np.int64(2), 2], 4).psd == [slice(0, 2), slice(2, 4)]


def test_runs_of_one_kind_are_joined_and_psd_blocks_are_not():
    assert as_cone([-1, -2, 2, 2, ("free", 1), ("free", 1)], 9).blocks == [("nonneg", 3), ("psd", 2), ("psd", 2), ("free", 2)]


ODD = [0, 2.5, ("soc", 3), ("psd", -3), ("psd", 0), ("free", 1.5), "free", slice(0, 3), None, ("psd", 1, 2)]


@pytest.mark.parametrize("entry", ODD)
def test_bad_blocks(entry):
    with pytest.raises(ValueError, match="blocks has the entry"):
        as_cone([entry], 3)


@pytest.mark.parametrize("blocks", [[2], [2, 2], [-4], []])
def test_sizes_must_sum_to_n(blocks):
    with pytest.raises(ValueError, match=r"blocks has \d rows in all but C has 3; the sizes must sum to n"):
        as_cone(blocks, 3)


def test_defaults():
    C = np.eye(3)
    diagonal = Given.of(C)
    np.testing.assert_array_equal(diagonal.A.matrix(np.array([1.0, 2, 3])).toarray(), np.diag([1.0, 2, 3]))
    assert list(diagonal.b) == [1, 1, 1] and diagonal.A_geq.m == 0 and diagonal.blocks is None
    for one in (Given.of(C, blocks=[1, 2]), Given.of(C, A_geq=[C], b_geq=[1.0]), Given.of(C, [], [], [C], [1.0])):
        assert one.A.m == 0 and one.b.shape == (0,)
    sphere = Given.of(C, Sphere(3, 2.0))
    assert list(sphere.b) == [2.0]


def test_field():
    C, H = np.eye(3), np.array([[0, 1j, 0], [-1j, 0, 0], [0, 0, 1]])
    assert not Given.of(C).is_complex and Given.of(H).is_complex
    assert Given.of(C, [H], [1.0]).is_complex and Given.of(C, [C], [1.0], [H], [0.0]).is_complex


def test_entries_outside_the_blocks():
    good, bad = np.diag([1.0, 2, 3]), unit(3, 0, 2)
    for blocks, where in (([2, 1], r"\(0, 2\)"), ([-3], r"\(0, 2\)"), ([("free", 1), 2], r"\(0, 2\)")):
        given = {"C": (bad, [good], [1.0]), "A_1": (good, [good, bad], [1.0, 0]), "A_geq_0": (good, [good], [1.0], [bad], [0.0])}
        for name, args in given.items():
            with pytest.raises(ValueError, match=f"^{name} has an entry at {where}, outside the blocks"):
                Given.of(*args, blocks=blocks)
    stored = sp.csr_array(good + bad)
    stored.data[np.isin(stored.data, [1.0]) & (stored.indices != 0)] = 0  # explicit zeros are no entries
    stored[2, 0] = stored[0, 2] = 0
    assert Given.of(stored, [good], [1.0], blocks=[2, 1]).blocks == [("psd", 2), ("psd", 1)]
    assert Given.of(spla.aslinearoperator(good), [good], [1.0], blocks=[2, 1]).A.m == 1


@pytest.mark.parametrize(
    ("b", "message"),
    [
        ([1.0], r"\(1,\)"), (None, "2 rows but b"), ([1.0, np.nan], r"\[1\] is not finite"), ([1, 1j], "real"), ([[1.0, 2.0]], r"\(1, 2\)"),
        (["a", "b"], "real"),
    ],
)  # fmt: skip
def test_bad_right_hand_sides(b, message):
    with pytest.raises(ValueError, match=message):
        Given.of(np.eye(3), [np.eye(3), unit(3, 0, 1)], b)
    with pytest.raises(ValueError, match="b_geq"):
        Given.of(np.eye(3), A_geq=[np.eye(3), unit(3, 0, 1)], b_geq=b)


def test_maps_are_taken_as_they_are():
    rows = entries(3, [0, 1], [1, 2])
    given = Given.of(np.eye(3), A_geq=rows, b_geq=np.zeros(2))
    assert given.A_geq is rows and isinstance(given.A, MatrixMap)
    assert Given.of(np.eye(3), sp.csr_array((0, 9)), [], rows, [0, 0]).A.m == 0
