"""Weights of mixing networks: what they refuse, and that files give back what was saved."""

import json
import subprocess
import sys

import numpy as np
import pytest

from bmsdp.learned import MixingWeights, load, save


def weights(L=4, h=3, seed=0):
    rng = np.random.default_rng(seed)
    return MixingWeights(*(rng.standard_normal(shape) for shape in ((L,), (L, h, 3), (L, h), (L, h))), {"seed": seed, "gaps": {"L": 1e-3}})


def test_the_file_gives_back_all_bits(tmp_path):
    for given in (weights(), weights(1, 8), MixingWeights.from_schedule([1.5, 1.7], {"é": [1, None]})):
        path = tmp_path / "weights"  # the name is kept, ending or not
        given.save(path)
        again = MixingWeights.load(path)
        for name in ("a", "W1", "b1", "W2"):
            assert np.array_equal(getattr(again, name), getattr(given, name)) and getattr(again, name).dtype == float
        assert again.meta == given.meta and repr(again) == repr(given)
    save(weights(), str(path))
    assert np.array_equal(load(str(path)).a, weights().a)


def test_numbers_of_numpy_in_meta_become_numbers(tmp_path):
    MixingWeights.from_schedule([1.5], {"gap": np.float64(0.1), "n": np.int64(3)}).save(tmp_path / "w.npz")
    assert load(tmp_path / "w.npz").meta == {"gap": 0.1, "n": 3}


def test_what_json_cannot_hold_is_refused_before_the_file_is_touched(tmp_path):
    path = tmp_path / "w.npz"
    MixingWeights.from_schedule([1.5], {"gaps": np.array([0.1, 0.2])}).save(path)
    with pytest.raises(TypeError, match="meta holds a set"):
        MixingWeights.from_schedule([1.5], {"families": {"gnp"}}).save(path)
    assert load(path).meta == {"gaps": [0.1, 0.2]}


def test_schedule():
    omega = np.array([1.001, 1.5, 1.75, 1.995])
    given = MixingWeights.from_schedule(omega)
    np.testing.assert_allclose(given.omega, omega, rtol=0, atol=1e-15)
    assert given.L == 4 and given.is_schedule and "schedule" in repr(given)
    assert not weights().is_schedule and "h=3" in repr(weights())
    np.testing.assert_allclose(weights().omega, 1 + 1 / (1 + np.exp(-weights().a)))
    extreme = MixingWeights([-800.0, 0.0, 800.0], np.zeros((3, 0, 3)), np.zeros((3, 0)), np.zeros((3, 0)))
    assert extreme.omega.tolist() == [1, 1.5, 2]


@pytest.mark.parametrize("omega", [[], [1.0], [2.0, 1.5], [0.5], [np.nan]])
def test_schedules_are_in_the_open_interval(omega):
    with pytest.raises(ValueError, match=r"omega = .*in \(1, 2\)"):
        MixingWeights.from_schedule(omega)


def test_frozen():
    with pytest.raises(ValueError, match="read-only"):
        weights().a[0] = 1
    with pytest.raises(AttributeError):
        weights().a = np.ones(4)
    mine = np.zeros(2)
    kept = MixingWeights(mine, np.zeros((2, 0, 3)), np.zeros((2, 0)), np.zeros((2, 0)))
    mine[0] = 5
    assert kept.a[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": np.zeros(3)}, "W1 has shape"),
        ({"a": np.zeros((4, 1))}, "a has shape"),
        ({"a": np.zeros(0), "W1": np.zeros((0, 3, 3)), "b1": np.zeros((0, 3)), "W2": np.zeros((0, 3))}, "L >= 1"),
        ({"W1": np.zeros((4, 3, 2))}, r"W1 has shape \(4, 3, 2\); \(L, h, 3\) is needed"),
        ({"b1": np.zeros((4, 5))}, "W1 has shape"),
        ({"b1": np.float64(1)}, "W1 has shape"),
        ({"W2": np.full((4, 3), np.inf)}, "W2 has entries that are not finite"),
        ({"a": ["x"] * 4}, "a holds no real numbers"),
        ({"a": np.full(4, 1j)}, "a holds no real numbers"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = weights()
    parts = {name: getattr(given, name) for name in ("a", "W1", "b1", "W2")}
    with pytest.raises(ValueError, match=message):
        MixingWeights(**parts | change)


def rewritten(path, **change):
    """The file with some of its members replaced, or dropped where None."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files} | change
    with open(path, "wb") as file:
        np.savez(file, **{name: array for name, array in arrays.items() if array is not None})


def test_damaged_files_are_refused_by_name(tmp_path):
    path = tmp_path / "weights.npz"
    weights().save(path)
    whole = path.read_bytes()
    header = {"format": 1, "kind": "MixingWeights", "meta": {}}
    cases = [
        (lambda: path.write_bytes(b""), "no .npz file"),
        (lambda: path.write_bytes(b"3 4\n1 2 1\n"), "no .npz file"),
        (lambda: path.write_bytes(whole[: len(whole) // 2]), "zip"),
        (lambda: path.write_bytes(whole[:200] + b"\x00" * 100 + whole[300:]), "no weights"),
        (lambda: rewritten(path, W2=None), "'?W2'? is missing"),
        (lambda: rewritten(path, header=None), "'?header'? is missing"),
        (lambda: rewritten(path, header=np.array("{")), "no weights"),
        (lambda: rewritten(path, header=np.array(json.dumps(header | {"format": 99}))), "newer bmsdp; upgrade"),
        (lambda: rewritten(path, header=np.array(json.dumps(header | {"kind": "Other"}))), "it holds Other"),
        (lambda: rewritten(path, a=np.zeros(7)), "has shape"),
        (lambda: rewritten(path, a=np.full(4, np.nan)), "not finite"),
    ]
    for damage, message in cases:
        path.write_bytes(whole)
        damage()
        with pytest.raises(ValueError, match=message) as error:
            load(path)
        assert str(path) in str(error.value) and "bmsdp train" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.npz")


def test_no_pickle_is_read(tmp_path):
    with open(tmp_path / "w.npz", "wb") as file:
        np.savez(file, header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        load(tmp_path / "w.npz")


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed
import numpy as np
from bmsdp import Oblique, Problem, gallery, learned
problem = Problem(gallery.gnp(20, 0.3, rng=0), Oblique(np.ones(20)))
weights = learned.fit([problem], L=3, network=False, steps=0, rng=0)
weights.save(sys.argv[1])
next(learned.LearnedMixing.load(sys.argv[1]).iterates(problem, problem.random_point(4, np.random.default_rng(0))))
try:
    learned.fit([problem], L=3, rng=0)
except ImportError as error:
    print(error)
"""


def test_all_but_training_networks_works_without_torch(tmp_path):
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "w.npz")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'pip install "bmsdp[learn]"' in done.stdout
