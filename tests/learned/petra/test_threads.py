"""One thread a segment: bitwise the simulator (T9 for threads), errors and Ctrl-C end all threads."""

import _thread
import signal
import threading
import time

import pytest

torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

from bmsdp.learned.petra import MODES, PETRA, REVSTASH, Pipeline, adam, sgd, simulate, threads  # noqa: E402

from .networks import Classes, Data, Images, convolutional, network, parameters, same  # noqa: E402


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    late = set(threading.enumerate()) - before
    for thread in late:
        thread.join(10)  # one that has done its last line is listed for a moment more
    assert not [thread for thread in late if thread.is_alive()]


def buffers(pipeline):
    return [b for stage in pipeline.stages for b in stage.buffers()]


@pytest.mark.parametrize("cuts", [None, [1], [3], [2, 4], []], ids=str)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_bitwise_the_simulator(mode, cuts):
    def make():
        return Pipeline(network(6, fifo=[1, 4]), Data(), sgd(0.05, weight_decay=1e-3), mode, k=2, clip=1.0)

    batches = 16 if mode.pipelined else 4
    one, other = simulate(make(), batches), threads(make(), batches, cuts=cuts)
    assert same(parameters(other.stages), parameters(one.stages))
    assert other.losses == one.losses and other.t == one.t
    assert [w.delays for w in other.workers] == [w.delays for w in one.workers]


@pytest.mark.parametrize("mode", [PETRA, REVSTASH], ids=lambda mode: mode.name)
def test_bitwise_with_convolutions_and_running_statistics(mode):
    def make():
        return Pipeline(convolutional(), Images(), adam(1e-3), mode)

    one, other = simulate(make(), 20), threads(make(), 20)
    assert same(parameters(other.stages), parameters(one.stages)) and same(buffers(other), buffers(one))


def test_executors_take_turns():
    def make():
        return Pipeline(network(6, fifo=[3]), Data(), sgd(0.05), PETRA)

    whole, parts = simulate(make(), 20), make()
    threads(parts, 20, until=4)
    simulate(parts, 20, until=9)
    threads(parts, 20, until=15, cuts=[2])
    assert set(parts.forward_in) == {2, 3, 4, 5, 6} and set(parts.backward_in) == {1, 2, 3, 4, 5}
    threads(parts, 20, cuts=[4])
    assert same(parameters(parts.stages), parameters(whole.stages)) and parts.losses == whole.losses


def test_observers_see_their_own_segment():
    seen = []
    pipeline = Pipeline(network(4), Data(), sgd(0.05))
    threads(pipeline, 3, observer=lambda t, workers: seen.append((t, tuple(w.j for w in workers))), cuts=[1, 3])
    assert sorted(seen) == sorted((t, part) for t in range(pipeline.t) for part in ((1,), (2, 3), (4,)))


@pytest.mark.parametrize(("cuts", "at"), [(None, 1), (None, 3), (None, 5), ([2], 1), ([2], 3)], ids=str)
def test_an_error_anywhere_stops_all(cuts, at):
    class Failing(Data):
        def context(self, batch):
            if threading.current_thread().name.startswith(f"stages {at}-") and batch == 7:
                raise LookupError(f"batch {batch}")
            return super().context(batch)

    pipeline = Pipeline(network(5), Failing(), sgd(0.05))
    with pytest.raises(LookupError, match="batch 7") as caught:
        threads(pipeline, 20, cuts=cuts)
    assert caught.value.__notes__[0].startswith("in the forward of batch 7 at stage")


def test_two_errors_at_once():
    class Failing(Classes):
        def forward(self, x, context):
            raise ArithmeticError("head")

    with pytest.raises(ArithmeticError, match="head"):
        threads(Pipeline([*network(4)[:-1], Failing()], Data(), sgd(0.05)), 20)


def test_an_observer_may_fail():
    def observer(t, workers):
        raise RuntimeError("seen enough")

    with pytest.raises(RuntimeError, match="seen enough"):
        threads(Pipeline(network(4), Data(), sgd(0.05)), 20, observer=observer)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads")
def test_a_signal_while_the_main_thread_waits_ends_the_run():
    """The tick in work ends before the run does: threads that go on would write to the stages."""
    running = []

    class Interrupted(Data):
        def context(self, batch):
            if batch == 5 and threading.current_thread().name == "stages 1-1" and not running:
                running.append(True)
                time.sleep(0.1)  # the main thread waits by now
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                time.sleep(0.3)
                running[0] = False
            return super().context(batch)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            threads(Pipeline(network(3), Interrupted(), sgd(0.05)), 10**6)
        assert running == [False]
    finally:
        signal.signal(signal.SIGINT, before)
        time.sleep(0 if running == [False] else 1)


def test_ctrl_c_ends_the_run():
    asked = []

    class Interrupted(Data):
        def context(self, batch):
            if batch == 5 and threading.current_thread().name == "stages 3-3" and not asked:
                asked.append(batch)  # every stage asks twice
                _thread.interrupt_main()
            return super().context(batch)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            threads(Pipeline(network(4), Interrupted(), sgd(0.05)), 10**6)
    finally:
        signal.signal(signal.SIGINT, before)
