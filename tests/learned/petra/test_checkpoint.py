"""Pipelines on disk: going on is going through, and what is half-written, damaged or of another pipeline is refused."""

import os

import pytest

torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

from bmsdp.learned.petra import modes  # noqa: E402
from bmsdp.learned.petra.checkpoint import Every, latest, load, save  # noqa: E402
from bmsdp.learned.petra.pipeline import simulate  # noqa: E402
from bmsdp.learned.petra.threads import threads  # noqa: E402

from .ranks import BATCHES, CASES, Data, adam, difference, everything, images, mlp  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CASES)
def test_going_on_is_going_through(name, tmp_path):
    stops = (11, 33) if name == "backprop" else (3, 9, 14)  # the pipeline fills, is full, drains
    pipeline = CASES[name]()
    for stop in stops:
        place = save(simulate(pipeline, BATCHES, stop), tmp_path)
        assert place == latest(tmp_path) and place.name == f"tick-{stop:010d}"
        kept = everything(pipeline)
        pipeline = load(CASES[name](), tmp_path)
        assert difference(everything(pipeline), kept) == ""
    through = everything(simulate(CASES[name](), BATCHES))
    assert difference(everything(simulate(pipeline, BATCHES)), through) == ""
    used = load(simulate(CASES[name](), BATCHES, stops[0]), place)  # a pipeline in use, and one checkpoint by its name
    assert used.t == stops[-1] and difference(everything(simulate(used, BATCHES)), through) == ""


def test_versions_of_parameters_stay_shared(tmp_path):
    pipeline = simulate(mlp(modes.STASH, k=4), BATCHES, 7)
    save(pipeline, tmp_path)
    found = load(mlp(modes.STASH, k=4), tmp_path)
    for before, after in zip(pipeline.workers[:-1], found.workers[:-1], strict=True):
        assert len({id(held.params) for held in after.held}) == len({id(held.params) for held in before.held}) < len(after.held)


def test_files_hold_what_is_needed_and_no_more(tmp_path):
    """A view of a large array is saved without the array."""
    large = torch.randn(200_000, 4)

    class Rows(Data):
        def inputs(self, batch):
            return (large[batch : batch + 6],)

        def context(self, batch):
            return torch.arange(6) % 3

    pipeline = mlp(modes.PETRA)
    pipeline.batches = Rows((4,))
    place = save(simulate(pipeline, BATCHES, 7), tmp_path)
    assert sum(file.stat().st_size for file in place.iterdir()) < 100_000


def test_graphs_are_saved_when_nothing_is_in_flight(tmp_path):
    pipeline = simulate(mlp(modes.BACKPROP), BATCHES, 14)
    with pytest.raises(ValueError, match="before tick 14 batch 1 is in flight, and mode backprop keeps its graph.*multiple of 11"):
        save(pipeline, tmp_path)
    assert latest(tmp_path) is None
    assert save(simulate(pipeline, BATCHES, 22), tmp_path) == latest(tmp_path)


@pytest.mark.parametrize("execute", [simulate, threads])
@pytest.mark.parametrize(
    "mode, ticks, expected", [(modes.REVSTASH, 5, (15, 18)), (modes.BACKPROP, 25, (77, 88)), (modes.BACKPROP, 5, (77, 88))]
)
def test_every_so_many_ticks(execute, mode, ticks, expected, tmp_path):
    pipeline = Every(tmp_path / "new" / "folder", ticks).run(execute, mlp(mode), BATCHES)
    assert difference(everything(pipeline), everything(simulate(mlp(mode), BATCHES))) == ""
    assert sorted(int(path.name[5:]) for path in (tmp_path / "new" / "folder").iterdir()) == list(expected)


def test_a_run_that_fails_goes_on_from_its_last_checkpoint(tmp_path):
    class Failure(Exception):
        pass

    def fail(t, workers):
        if t == 13:
            raise Failure

    every = Every(tmp_path, 5, keep=1)
    with pytest.raises(Failure):
        every.run(simulate, images(modes.PETRA), BATCHES, observer=fail)
    assert latest(tmp_path).name == "tick-0000000010"
    with pytest.raises(ValueError, match="has a checkpoint of tick 10, and this run begins at tick 0; load it first"):
        every.run(simulate, images(modes.PETRA), BATCHES)
    pipeline = every.run(simulate, load(images(modes.PETRA), tmp_path, missing_ok=True), BATCHES)
    assert difference(everything(pipeline), everything(simulate(images(modes.PETRA), BATCHES))) == ""


def test_half_written_ones_are_never_taken(tmp_path):
    assert latest(tmp_path / "absent") is None
    with pytest.raises(FileNotFoundError, match="no complete checkpoint in"):
        load(mlp(modes.PETRA), tmp_path)
    assert load(mlp(modes.PETRA), tmp_path, missing_ok=True).t == 0
    pipeline = mlp(modes.PETRA)
    for t in (4, 8):
        save(simulate(pipeline, BATCHES, t), tmp_path)
    newest = latest(tmp_path)
    (newest / "stage-0003-of-0006.pt").rename(newest / "stage-0003-of-0006.pt.77.part")
    assert latest(tmp_path).name == "tick-0000000004" and load(mlp(modes.PETRA), tmp_path).t == 4
    Every(tmp_path, 1).begin(load(mlp(modes.PETRA), tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["tick-0000000004"]


def test_a_write_that_breaks_off_leaves_the_one_before(tmp_path, monkeypatch):
    pipeline = mlp(modes.PETRA)
    save(simulate(pipeline, BATCHES, 4), tmp_path)
    replace, calls = os.replace, []

    def full(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise OSError("no space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save(simulate(pipeline, BATCHES, 9), tmp_path)
    assert load(mlp(modes.PETRA), tmp_path).t == 4


def test_a_full_disk_leaves_no_rests(tmp_path, monkeypatch):
    pipeline = mlp(modes.PETRA)
    save(simulate(pipeline, BATCHES, 4), tmp_path)
    write = torch.save

    def full(one, file):
        write(one, file)
        if one["stage number"] == 3:
            raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RuntimeError, match="No space left"):
        save(simulate(pipeline, BATCHES, 9), tmp_path)
    assert sorted(path.name for path in (tmp_path / "tick-0000000009").iterdir()) == [f"stage-000{j}-of-0006.pt" for j in (1, 2)]
    assert load(mlp(modes.PETRA), tmp_path).t == 4


def test_folders_that_take_no_files_are_refused_before_the_first_tick(tmp_path, monkeypatch):
    (tmp_path / "file").touch()

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    def never(*args, **options):
        raise AssertionError("a run began")

    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path):
        if folder == tmp_path:
            monkeypatch.setattr("bmsdp.learned.petra.checkpoint.tempfile.TemporaryFile", full)
        with pytest.raises(OSError, match="checkpoints cannot be written to .*; take another folder"):
            Every(folder, 5).run(never, mlp(modes.PETRA), BATCHES)


@pytest.mark.parametrize("harm", ["cut", "flip", "other", "empty"])
def test_damage_is_refused(harm, tmp_path):
    pipeline = mlp(modes.PETRA)
    save(simulate(pipeline, BATCHES, 4), tmp_path)
    file = save(simulate(pipeline, BATCHES, 8), tmp_path) / "stage-0002-of-0006.pt"
    if harm == "other":
        torch.save([1, 2], file)
    else:
        data = bytearray(file.read_bytes())
        at = data.find(pipeline.stages[1].F[0].weight.detach().numpy().tobytes())
        assert at > 0
        data[at + 5] ^= 1
        file.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[harm])
    fresh = mlp(modes.PETRA)
    before = everything(fresh)
    words = "holds a list without a format" if harm == "other" else "stage-0002-of-0006.pt is damaged"
    with pytest.raises(ValueError, match=words + r".*; take another one \(tick-0000000004\)"):
        load(fresh, tmp_path)
    assert difference(everything(fresh), before) == ""
    assert load(fresh, tmp_path / "tick-0000000004").t == 4


@pytest.mark.parametrize(
    "other, words",
    [
        (lambda: images(modes.PETRA), "is of J = 6 stages, the pipeline has J = 7"),
        (lambda: mlp(modes.STASH), "mode is petra, here it is stash"),
        (lambda: mlp(modes.PETRA, k=2), "k is 1, here it is 2"),
        (lambda: mlp(modes.PETRA, c=12), "arrays is"),
        (lambda: mlp(modes.PETRA, adam), "optimizer is SGD"),
    ],
)
def test_other_pipelines_are_refused(other, words, tmp_path):
    save(simulate(mlp(modes.PETRA), BATCHES, 7), tmp_path)
    pipeline = other()
    before = everything(pipeline)
    with pytest.raises(ValueError, match=words + ".*; build the "):
        load(pipeline, tmp_path)
    assert difference(everything(pipeline), before) == ""


def test_other_formats_are_refused(tmp_path):
    file = save(simulate(mlp(modes.PETRA), BATCHES, 7), tmp_path) / "stage-0001-of-0006.pt"
    one = torch.load(file, weights_only=True)
    torch.save(one | {"format": 99}, file)
    with pytest.raises(ValueError, match="format is 99, here it is 1"):
        load(mlp(modes.PETRA), tmp_path)


def test_frequency_is_checked():
    with pytest.raises(ValueError, match="ticks = 0, keep = 2; both have to be at least 1"):
        Every("folder", 0)
