"""Results on disk and in memory."""

import dataclasses
import json
import pickle
import zipfile

import numpy as np
import pytest
import scipy.sparse as sp

import bmsdp
from bmsdp import Certificate, Oblique, Problem, Result, Sphere, Status, gallery
from bmsdp import result as module


def radii_problem(complex_=False):
    C = gallery.gue(6, 0) if complex_ else gallery.goe(6, 0)
    A = [-2 * np.diag(np.eye(6)[i]) for i in (3, 0, 5, 1, 2, 4)]
    return C, A, -2 * np.arange(1.0, 7)


BLOCKS = [("psd", 3), ("free", 1), ("nonneg", 2)]


def general_problem(b=(1.0, 0.5, 2.0)):
    """Rows of all kinds of blocks, an inequality, and the keyword for the blocks."""
    E = np.zeros((6, 6))
    E[0, 1] = E[1, 0] = E[3, 3] = 1
    A = [np.diag([1.0, 1, 1, 0, 0, 0]), E, np.diag([0, 0, 1.0, 0, 1, 1])]
    C = np.diag([1.0, -1, 2, 1, 1, 0.5])
    return {"C": C, "A": A, "b": list(b), "A_geq": [np.diag([0, -2.0, 0, 0, 0, 0])], "b_geq": [-1.2], "blocks": BLOCKS}


RESULTS = {
    "general": lambda: bmsdp.solve(**general_problem(), rng=0),
    "infeasible": lambda: bmsdp.solve(**general_problem(b=(-1.0, 0.5, 2.0)), rng=0),
    "unbounded": lambda: bmsdp.solve(-np.eye(2), [np.array([[0, 1.0], [1, 0]])], [0.0], rng=0),
    "real": lambda: bmsdp.solve(gallery.goe(6, 0), rng=0),
    "complex": lambda: bmsdp.solve(*radii_problem(True), rng=0),
    "rows": lambda: bmsdp.solve(*radii_problem(), rng=0),
    "trace": lambda: bmsdp.solve(gallery.goe(5, 0), Sphere(5, 2.0), rng=np.random.default_rng(3)),
    "fresh_entropy": lambda: bmsdp.solve(gallery.goe(6, 0)),
    "uncertified": lambda: bmsdp.solve(gallery.goe(6, 0), certify=None, rng=0),
    "minimized": lambda: bmsdp.minimize(
        Problem(gallery.goe(6, 0), Oblique(np.ones(6))), bmsdp.solvers.LBFGS(), rank=3, rng=0
    ),
    "no_bound": lambda: bmsdp.solve(Problem(np.eye(3), bmsdp.Unconstrained(3)), rng=0, max_time=5),
    "estimate": lambda: bmsdp.solve(gallery.goe(6, 0), certify="estimate", rng=0),
    "stopped": lambda: bmsdp.solve(gallery.goe(30, 0), rng=0, max_time=1e-9),
    "zero": lambda: bmsdp.solve(sp.csr_array((3, 3)), rng=0),
    "numpy_options": lambda: bmsdp.solve(
        gallery.goe(6, 0), rank=np.int64(4), tol=np.float64(1e-6), max_time=np.float32(60), threads=np.int32(1), rng=0
    ),
}  # fmt: skip


def same(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (np.isnan(a) and np.isnan(b))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=True)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(u, v) for u, v in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def test_blocks_and_free_variables():
    """X is 0 outside of the blocks and has the free values on its diagonal; the slack is that of all rows."""
    result, given = RESULTS["general"](), general_problem()
    assert result.success and result.free.shape == (1,) and result.data.blocks == BLOCKS
    X = result.X
    assert X[3, 3] == result.free[0] and not X[:3, 3:].any() and X[4, 5] == 0 and not result.Y[3].any()
    np.testing.assert_allclose([np.vdot(a, X) for a in given["A"]], given["b"], atol=1e-8)
    assert np.vdot(given["A_geq"][0], X) >= -1.2 - 1e-8 and result.dual_geq[0] > 0.1
    S = given["C"] - sum(v * a for v, a in zip(result.dual, given["A"], strict=True)) - result.dual_geq[0] * given["A_geq"][0]
    np.testing.assert_allclose(result.slack() @ np.eye(6), S, atol=1e-12)
    assert np.linalg.eigvalsh(S)[0] >= -1e-6 and abs(S[3, 3]) <= 1e-9
    complementary = np.vdot(result.slack() @ X, np.eye(6))
    assert abs(complementary) <= 1e-5


def test_rays_are_kept(tmp_path):
    for name, keys in (("infeasible", {"dual", "dual_geq"}), ("unbounded", {"Y", "free"})):
        result = RESULTS[name]()
        assert result.status.name == name.upper() and result.ray.keys() == keys
        result.save(tmp_path / name)
        assert same(Result.load(tmp_path / name).ray, result.ray)
    assert RESULTS["real"]().ray is None


@pytest.mark.parametrize("name", RESULTS)
def test_round_trip(name, tmp_path):
    result = RESULTS[name]()
    path = tmp_path / "run.npz"
    result.save(path)
    loaded = Result.load(path)
    for f in dataclasses.fields(Result):
        if f.name in ("certificate", "data"):
            continue
        mine, other = getattr(result, f.name), getattr(loaded, f.name)
        if f.name in ("cost", "bound", "gap", "time"):
            mine = float(mine)
        if name == "numpy_options" and f.name == "options":
            mine = json.loads(json.dumps(mine, default=lambda v: v.item()))
        assert same(mine, other), (f.name, mine, other)
    if result.certificate is None:
        assert loaded.certificate is None
    else:
        for f in dataclasses.fields(Certificate):
            if f.name == "escape":
                continue  # directions for the staircase, no part of the proof
            mine, other = getattr(result.certificate, f.name), getattr(loaded.certificate, f.name)
            mine = float(mine) if isinstance(mine, np.floating) else mine
            assert same(mine, other), (f.name, mine, other)
    assert loaded.status is result.status and loaded.success == result.success and loaded.rank == result.rank
    assert loaded.data is None and repr(loaded) == repr(result)
    loaded.save(tmp_path / "again.npz")
    assert same(Result.load(tmp_path / "again.npz").Y, result.Y)


def test_options_survive_as_plain_values(tmp_path):
    result = RESULTS["real"]()
    result.save(tmp_path / "run.npz")
    loaded = Result.load(tmp_path / "run.npz")
    assert loaded.options["stages"] == result.options["stages"] and loaded.options["tol"] == 1e-6
    assert isinstance(loaded.options["stages"][0]["rank"], int)
    assert isinstance(loaded.gap, float) and isinstance(loaded.nit, int)


def test_numbers_are_numbers():
    """Plain Python numbers in the Result: they print and serialise as such."""
    for name in ("real", "trace", "zero", "minimized", "stopped", "complex"):
        result = RESULTS[name]()
        for key in ("cost", "bound", "gap", "time"):
            assert type(getattr(result, key)) is float, (name, key)
        assert type(result.nit) is int and type(result.products) is int and type(result.rank) is int
        if result.certificate is not None:
            for key in ("bound", "gap", "gap_abs", "eig_min", "eig_min_lower", "failure_probability"):
                assert type(getattr(result.certificate, key)) is float, (name, key)
            assert "np." not in repr(result.certificate)


def test_the_file_has_the_name_that_was_given(tmp_path):
    result = RESULTS["real"]()
    for name in ("run", "run.out", "run.npz"):
        result.save(tmp_path / name)
        assert (tmp_path / name).exists() and Result.load(str(tmp_path / name)).cost == result.cost
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.npz", "run.out"]


def test_no_pickle_inside(tmp_path):
    path = tmp_path / "run.npz"
    RESULTS["complex"]().save(path)
    with np.load(path, allow_pickle=False) as file:  # object arrays would raise
        assert all(file[k].dtype != object for k in file.files)
        meta = json.loads(str(file["meta"]))
    assert meta["format"] == module.FORMAT and meta["status"] == "CERTIFIED"
    with zipfile.ZipFile(path) as archive:
        assert all(name.endswith(".npy") for name in archive.namelist())


def rewrite(path, **changes):
    with np.load(path) as file:
        arrays = {k: file[k] for k in file.files}
    meta = json.loads(str(arrays.pop("meta")))
    for key, value in changes.items():
        if value is None:
            meta.pop(key, None)
            arrays.pop(key, None)
        elif isinstance(value, np.ndarray):
            arrays[key] = value
        else:
            meta[key] = value
    with open(path, "wb") as file:
        np.savez(file, meta=np.array(json.dumps(meta)), **arrays)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "run.npz"
    RESULTS["real"]().save(path)
    return path


def refused(path, message=None):
    with pytest.raises(ValueError, match=message) as caught:
        Result.load(path)
    assert str(path) in str(caught.value)


def test_newer_format(saved):
    rewrite(saved, format=module.FORMAT + 1)
    refused(saved, "newer bmsdp; upgrade with pip install")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.95, 0.999])
def test_truncated(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    refused(saved, "not a bmsdp result")


@pytest.mark.parametrize("seed", range(8))
def test_corrupted(saved, seed):
    """Flipped bytes in the middle: ValueError naming the file, or, where they do not matter, the same numbers."""
    data = bytearray(saved.read_bytes())
    rng = np.random.default_rng(seed)
    for p in rng.integers(0, len(data), 20):
        data[p] ^= 0xFF
    saved.write_bytes(bytes(data))
    refused(saved, "not a bmsdp result")


def test_one_flipped_byte_anywhere(saved):
    data = saved.read_bytes()
    expected = RESULTS["real"]()
    for p in range(0, len(data), 37):
        saved.write_bytes(data[:p] + bytes([data[p] ^ 0x55]) + data[p + 1 :])
        try:
            loaded = Result.load(saved)
        except ValueError as error:
            assert str(saved) in str(error)
        else:
            assert np.array_equal(loaded.Y, expected.Y) and loaded.bound == expected.bound, p


def test_other_files(tmp_path):
    path = tmp_path / "other"
    path.write_text("3 2\n1 2 1\n")
    refused(path, "not a bmsdp result")
    path.write_bytes(b"")
    refused(path)
    with open(path, "wb") as file:
        np.save(file, np.ones(3))
    refused(path, "not a bmsdp result")
    with open(path, "wb") as file:
        np.savez(file, Y=np.ones((3, 2)))
    refused(path, "not a bmsdp result")
    with open(path, "wb") as file:
        pickle.dump({"Y": 1}, file)
    refused(path, "not a bmsdp result")
    with open(path, "wb") as file:
        np.savez(file, meta=np.array([{"format": 1}], dtype=object), Y=np.ones((3, 2)))  # a pickled entry
    refused(path, "not a bmsdp result")
    with open(path, "wb") as file:
        np.savez(file, meta=np.array("[1, 2]"))
    refused(path, "not a bmsdp result")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(path, "not a bmsdp result")
    with pytest.raises(FileNotFoundError):
        Result.load(tmp_path / "absent.npz")


def test_missing_and_strange_fields(saved):
    original = saved.read_bytes()
    for changes in (
        {"status": "SPLENDID"}, {"status": None}, {"cost": None}, {"Y": None}, {"format": None}, {"format": "1"}, {"surprise": 3},
        {"certificate": {"bound": 1.0}}, {"certificate_vector": None},
    ):  # fmt: skip
        saved.write_bytes(original)
        rewrite(saved, **changes)
        refused(saved, "not a bmsdp result")


def test_saving_over_and_failing(tmp_path):
    result = RESULTS["real"]()
    with pytest.raises(OSError):
        result.save(tmp_path / "no" / "such" / "folder.npz")
    path = tmp_path / "run.npz"
    path.write_bytes(b"x" * 100_000)
    result.save(path)
    assert Result.load(path).cost == result.cost


def test_warm_start_from_a_file(saved):
    C = gallery.goe(6, 0)
    loaded = Result.load(saved)
    result = bmsdp.solve(C, warm_start=loaded, rng=0)
    assert result.success and result.products <= 10


def test_X_and_its_limit(monkeypatch):
    for name in ("real", "complex"):
        result = RESULTS[name]()
        X = result.X
        np.testing.assert_allclose(X, result.Y @ result.Y.conj().T)
        assert np.array_equal(X, X.conj().T) or np.allclose(X, X.conj().T, rtol=1e-15)
        with pytest.raises(AttributeError):
            result.X = X
        size = X.nbytes
        monkeypatch.setattr(module, "X_LIMIT", size)
        assert result.X.shape == X.shape
        monkeypatch.setattr(module, "X_LIMIT", size - 1)
        with pytest.raises(MemoryError, match=r"X would take .* GB; use Y, or entries\(i, j\)"):
            result.X
        monkeypatch.undo()
    assert module.X_LIMIT == 2e9


def test_entries():
    for name in ("real", "complex"):
        result = RESULTS[name]()
        X = result.X
        i, j = np.array([0, 3, 5, 2]), np.array([1, 3, 0, 4])
        np.testing.assert_allclose(result.entries(i, j), X[i, j])
        np.testing.assert_allclose(result.entries([[0, 1], [2, 3]], [[4, 5], [0, 1]]), X[[[0, 1], [2, 3]], [[4, 5], [0, 1]]])
        assert result.entries(2, 3) == pytest.approx(X[2, 3]) and result.entries(-1, 0) == pytest.approx(X[-1, 0])
        with pytest.raises(IndexError):
            result.entries([6], [0])


def test_slack(tmp_path):
    for complex_ in (False, True):
        C, A, b = radii_problem(complex_)
        result = bmsdp.solve(C, A, b, tol=1e-8, rng=0)
        S = C - sum(d * a for d, a in zip(result.dual, A, strict=True))
        operator = result.slack()
        assert operator.shape == (6, 6) and operator.dtype == C.dtype
        np.testing.assert_allclose(operator @ np.eye(6), S, atol=1e-13)
        v = np.arange(6.0)
        np.testing.assert_allclose(operator @ v, S @ v, atol=1e-12)
        np.testing.assert_allclose(operator.rmatvec(v), S.conj().T @ v, atol=1e-12)
        np.testing.assert_allclose(operator.H @ v, S @ v, atol=1e-12)
        np.testing.assert_allclose(operator @ (1j * v), S @ (1j * v), atol=1e-12)
        assert np.linalg.eigvalsh(S)[0] >= -1e-13
        path = tmp_path / "run.npz"
        result.save(path)
        loaded = Result.load(path)
        with pytest.raises(ValueError, match=r"loaded from a file and holds no C; call slack\(C, A\)"):
            loaded.slack()
        for form in (C, sp.csr_array(C)):
            np.testing.assert_allclose(loaded.slack(form, A) @ np.eye(6), S, atol=1e-13)
        np.testing.assert_allclose(loaded.slack(C, sp.csr_array(np.array([a.ravel() for a in A]))) @ np.eye(6), S, atol=1e-13)


def test_slack_of_the_unit_diagonal(saved):
    C = gallery.goe(6, 0)
    loaded = Result.load(saved)
    np.testing.assert_allclose(loaded.slack(C) @ np.eye(6), C - np.diag(loaded.dual), atol=1e-14)
    with pytest.raises(ValueError):
        loaded.slack(np.eye(5))


def test_slack_of_a_manifold_and_a_problem():
    C, manifold = gallery.goe(6, 0), bmsdp.StiefelProduct(3, 2)
    for result in (bmsdp.solve(C, manifold, rng=0), bmsdp.solve(Problem(C, manifold), rng=0)):
        np.testing.assert_allclose(result.slack() @ np.eye(6), C - manifold.adjoint_mul(result.dual, np.eye(6)), atol=1e-13)
    loose = bmsdp.minimize(Problem(C, manifold), bmsdp.solvers.LBFGS(), rank=3, rng=0)
    assert np.linalg.norm(loose.slack() @ loose.Y) < 1e-4


def test_repr():
    text = repr(RESULTS["real"]())
    assert text.startswith("Result(CERTIFIED: cost -") and "(verified)" in text and "gap" in text and "n 6, rank" in text
    assert "\n" not in text and len(text) < 200 and "array" not in text
    assert "(estimate)" in repr(RESULTS["estimate"]()) and "MAX_TIME" in repr(RESULTS["stopped"]())
    assert "bound -inf" in repr(RESULTS["uncertified"]())
    assert "array" not in repr(RESULTS["real"]().certificate)


def test_frozen():
    result = RESULTS["real"]()
    for thing in (result, result.certificate):
        with pytest.raises(dataclasses.FrozenInstanceError):
            thing.bound = 0.0
    assert dataclasses.replace(result, message="x").message == "x"


def test_pickle_and_copy():
    """Multiprocessing sends results between processes."""
    import copy

    result = bmsdp.solve(sp.csr_array(gallery.goe(6, 0)), rng=0)
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert np.array_equal(other.Y, result.Y) and other.status is Status.CERTIFIED and other.bound == result.bound
        np.testing.assert_allclose(other.slack() @ np.eye(6), result.slack() @ np.eye(6))
    rows = bmsdp.solve(*radii_problem(), rng=0)
    assert np.array_equal(pickle.loads(pickle.dumps(rows)).dual, rows.dual)
