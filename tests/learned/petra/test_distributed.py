"""Ranks over torch.distributed: the simulator's result bit for bit, clean ends when one dies, and going on from a checkpoint."""

import os
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)

from torch import nn  # noqa: E402

from bmsdp.learned.petra import modes  # noqa: E402
from bmsdp.learned.petra.checkpoint import latest, load, save  # noqa: E402
from bmsdp.learned.petra.distributed import split  # noqa: E402
from bmsdp.learned.petra.pipeline import Pipeline, simulate  # noqa: E402
from bmsdp.learned.petra.post import pack, unpack  # noqa: E402
from bmsdp.learned.petra.stage import Head, Stage  # noqa: E402

from . import ranks  # noqa: E402

SCRIPT = Path(ranks.__file__)
ROOT = SCRIPT.parents[3]


def environment(**more):
    one = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    return {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")} | one | more


def free_port():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


@contextmanager
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spawn(world, folder, *scenes, limit=150.0):
    """Run scenes on all ranks; their exit codes.  No process is left behind; what they say is in the folder."""
    port, running = free_port(), []
    try:
        for rank in range(world):
            env = environment(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            with open(folder / f"{rank}.err", "w") as err:
                running.append(subprocess.Popen([sys.executable, str(SCRIPT), str(folder), *scenes], env=env, stdout=err, stderr=err))
        end = time.monotonic() + limit
        return [process.wait(max(end - time.monotonic(), 0.1)) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()


def simulated(name, until=None):
    with one_thread():
        return simulate(ranks.CASES[name](), ranks.BATCHES, until)


@pytest.fixture(scope="module")
def expected():
    return {name: ranks.everything(simulated(name)) for name in ranks.CASES}


def told(folder, scene, world):
    return [torch.load(folder / f"{scene} {rank}.pt", weights_only=True) for rank in range(world)]


def check(folder, world, cases, expected):
    for found in told(folder, "equal", world):
        assert len(found) == cases
        assert {name: ranks.difference(one, expected[name]) for name, one in found.items()} == dict.fromkeys(found, "")


def refusals(folder):
    """What three ranks said of runs that could not begin or end."""
    for rank, one in enumerate(told(folder, "refused", 3)):
        assert one["batches"][:2] == ("ValueError", "batches is 8 on rank 0 and 9 on rank 1; call distributed alike on all ranks")
        assert one["cuts"][0] == "ValueError" and "needs 2" in one["cuts"][1]
        assert one["opened"]
        assert one["graph"][0] == "ValueError" and "multiple of 11" in one["graph"][1]
        assert one["folder"][0] == "ValueError" and "tick 100" in one["folder"][1]
        assert one["file"][0] == "ValueError" and "checkpoints cannot be written to" in one["file"][1]
        for what, at, name, kind, words, place in (
            ("broken", 2, "rank 2 (stages 5-6)", "ZeroDivisionError", "one by nought", ""),
            ("inputs", 0, "rank 0 (stages 1-2)", "OSError", "unreadable", ", in the forward of batch 4 at stage 1 of 6, Split"),
            ("stage", 1, "rank 1 (stages 3-4)", "RuntimeError", "out of memory", ", in the forward of batch"),
            ("loss", 2, "rank 2 (stages 5-6)", "FloatingPointError", "the loss is nan", ", in the backward of batch 4 at stage 6 of 6"),
            ("disk", 2, "rank 2 (stages 5-6)", "RuntimeError", "No space left on device", ""),
        ):
            if rank == at:
                assert one[what][0] == kind and words in one[what][1]
            else:
                assert one[what][0] == "PipelineError" and f"{name} stopped: {kind}: {words}" in one[what][1] and place in one[what][1]
                assert ("No checkpoint is complete" if what == "disk" else "checkpoint=Every(folder, ticks)") in one[what][1]
        assert one["slow"][0] == "PipelineError" and (rank != 1 or "rank 0 (stages 1-2) kept silent for 2 s" in one["slow"][1])
        assert "fine" not in one and "pinned" not in one
        assert one["threads"] == 1 and one["cores"] == (sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [])


def test_three_ranks_are_the_simulator_say_what_they_refuse_and_end_when_one_dies(tmp_path, expected):
    """T9; one start for all of it, because starting costs more than running."""
    codes = spawn(3, tmp_path, "equal", "refused", "killed")
    assert codes == [7, -9, 7], (tmp_path / "1.err").read_text()
    check(tmp_path, 3, 5, expected)
    refusals(tmp_path)
    for rank in (0, 2):
        words = (tmp_path / f"{rank}.txt").read_text()
        assert "rank 1 (stages 3-4) is gone" in words
        assert f"load(pipeline, {str(tmp_path / 'kept')!r})" in words and "resumes at tick 10" in words
    assert latest(tmp_path / "kept").name == "tick-0000000010"
    pipeline = load(ranks.images(modes.PETRA), tmp_path / "kept")
    with one_thread():
        assert ranks.difference(ranks.everything(simulate(pipeline, ranks.BATCHES)), expected["petra, images"]) == ""


def test_two_ranks_under_torchrun_are_the_simulator_and_pass_on_to_it(tmp_path, expected):
    """T9: to the end; and simulated to the middle, then on two ranks for a while, then simulated to the end: as in one go."""
    for name in ranks.RESUMED:
        save(simulated(name, 33 if name == "backprop" else 7), tmp_path / name)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    command = [*launch, str(SCRIPT), str(tmp_path), "equal", "resume", "long"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    check(tmp_path, 2, 10, expected)
    assert all(0 < waiting <= 2 * 6 for waiting in told(tmp_path, "long", 2))  # of 50 messages: as many as a full pipeline has
    first, second = told(tmp_path, "resume", 2)
    for name in ranks.RESUMED:
        case = ranks.CASES[name]
        start, t, losses = second[name]
        assert first[name][:2] == (start, t) and t > start
        assert losses > first[name][2]  # without gathering, the head's rank alone has those of now
        assert latest(tmp_path / name).name == f"tick-{t:010d}" and len(list((tmp_path / name).iterdir())) == 2
        with one_thread():
            pipeline = load(case(), tmp_path / name)
            assert ranks.difference(ranks.everything(pipeline), ranks.everything(simulated(name, t))) == ""
            assert ranks.difference(ranks.everything(simulate(pipeline, ranks.BATCHES)), expected[name]) == ""


@pytest.mark.slow
def test_a_killed_run_goes_on_by_itself_on_other_numbers_of_ranks(tmp_path, expected):
    assert spawn(3, tmp_path, "killed") == [7, -9, 7]
    assert spawn(2, tmp_path, "killed") == [7, -9]  # it dies at tick 14 again
    assert spawn(1, tmp_path, "killed") == [0]
    pipeline = load(ranks.images(modes.PETRA), tmp_path / "kept")
    assert ranks.difference(ranks.everything(pipeline), expected["petra, images"]) == ""


def test_without_a_launcher_it_says_what_is_missing(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set; start with torchrun"):
        ranks.distributed(ranks.mlp(modes.PETRA), 3)


def test_a_rank_that_never_comes(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    with pytest.raises(ranks.PipelineError, match="the ranks did not come together, within 1 s"):
        ranks.distributed(ranks.mlp(modes.PETRA), 3, timeout=1)


def test_stages_of_ranks():
    assert split(9, 2) == [(1, 4), (5, 9)] and split(8, 3) == [(1, 2), (3, 5), (6, 8)]
    assert split(8, 2, (3,)) == [(1, 3), (4, 8)] and split(3, 3) == [(1, 1), (2, 2), (3, 3)] and split(3, 1) == [(1, 3)]
    for J, world, cuts in ((2, 3, None), (8, 2, ()), (8, 2, (8,)), (8, 2, (0,)), (8, 3, (5, 5)), (8, 3, (5, 4))):
        with pytest.raises(ValueError, match="ranks for|cuts ="):
            split(J, world, cuts)


class Wire:
    """A link that packs and unpacks, in one process."""

    def __init__(self):
        self.out, self.into = deque(), deque()

    def send(self, message):
        self.out.append(pack(message, torch.device("cpu")))

    def receive(self):
        return unpack(*self.into.popleft())


class Across(Stage):
    """A product whose rows lie in memory as columns."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.randn(130, 40) / 7)

    def forward(self, x, context):
        return ((self.W @ x[0].T).T,)


class Total(Head):
    def forward(self, x, context):
        return x[0].square().sum() / x[0].numel()


def test_how_an_array_lies_in_memory_does_not_matter():
    """Sums depend on it in their last bits, and what has travelled lies in rows."""

    def build():
        torch.manual_seed(0)
        return Pipeline([Across(), Total()], ranks.Data((40,)), ranks.sgd)

    with one_thread():
        right, left = Wire(), Wire()
        right.into, left.into = left.out, right.out
        pipeline = build()
        parts = [pipeline.segment(9, 1, 1, right=right), pipeline.segment(9, 2, 2, left=left)]
        for t in range(parts[0].plan.ticks):
            for part in parts:
                part.receive(t)
            for part in parts:
                part.tick(t)
        pipeline.keep(parts, parts[0].plan.ticks)
        assert ranks.difference(ranks.everything(pipeline), ranks.everything(simulate(build(), 9))) == ""


def test_packets_carry_any_tensors():
    message = (
        torch.randn(3, 5)[:, ::2], torch.randn(2, 3, dtype=torch.complex128).conj(), torch.tensor(2.5, dtype=torch.bfloat16),
        torch.zeros(0, 4), torch.tensor([True, False, True]), torch.arange(7), torch.randn(1, 4).expand(3, 4), torch.empty(2, 0, 3),
    )  # fmt: skip
    packet, entries = pack(message, torch.device("cpu"))
    found = unpack(packet, entries)
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(message, found, strict=True))
    assert all(b.is_contiguous() and b.data_ptr() % 64 == 0 for b in found)
    assert unpack(*pack((), torch.device("cpu"))) == ()
    with pytest.raises(TypeError, match="float8"):
        pack((torch.zeros(3).to(torch.float8_e5m2),), torch.device("cpu"))
