"""T1: stages and their inverses; cotangents against autograd."""

import pytest

torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

from torch import nn  # noqa: E402

from bmsdp.learned.petra import Checkpointed, Coupling, Head, Stage  # noqa: E402
from bmsdp.learned.petra.stage import pullback  # noqa: E402

from .networks import WIDTH, Real, apart, block  # noqa: E402

Complex = torch.complex128


def streams(seed=0, dtype=Real):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(5, WIDTH, dtype=dtype, generator=generator) for _ in range(2))


class Phase(nn.Module):
    """Complex, and not holomorphic."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.W = nn.Parameter(torch.randn(WIDTH, WIDTH, dtype=Complex) / WIDTH)

    def forward(self, x):
        return (x @ self.W) * torch.tanh(x.abs()) + x.conj()


def couplings():
    yield "additive", Coupling(block()), Real
    yield "carry", Coupling(block(), 0.7), Real
    yield "negative carry", Coupling(block(), -0.8), Real
    yield "learned carry", Coupling(block(), nn.Parameter(torch.tensor(0.6, dtype=Real))), Real
    yield "carry by column", Coupling(block(), nn.Parameter(torch.linspace(0.5, 1.5, WIDTH, dtype=Real))), Real
    yield "frozen carry", Coupling(block(), nn.Parameter(torch.tensor(0.6, dtype=Real), requires_grad=False)), Real
    yield "no parameters", Coupling(nn.Tanh()), Real
    yield "identity", Coupling(nn.Identity()), Real
    yield "complex", Coupling(Phase()), Complex
    yield "complex carry", Coupling(Phase(), 0.6 - 0.5j), Complex
    yield "learned complex carry", Coupling(Phase(), nn.Parameter(torch.tensor(0.6 - 0.5j))), Complex


every_coupling = pytest.mark.parametrize(("stage", "dtype"), [pytest.param(s, d, id=name) for name, s, d in couplings()])


@pytest.mark.parametrize(("carry", "bound"), [(1.0, 1e-13), (0.9, 1e-12), (0.5, 1e-9)])
def test_chains_of_couplings_are_inverted(carry, bound):
    chain = [Coupling(block(seed=j), carry) for j in range(32)]
    x = y = streams()
    with torch.no_grad():
        for stage in chain:
            y = stage(y, None)
        for stage in reversed(chain):
            y = stage.inverse(y, None)
    error = apart(y, x)
    assert error < bound
    assert carry == 1.0 or error > 1e-15  # errors grow like |c|^-L


@every_coupling
def test_vjp_is_autograds(stage, dtype):
    x, g = streams(1, dtype), streams(2, dtype)
    leaf = tuple(a.clone().requires_grad_() for a in x)
    y = stage(leaf, None)
    wanted = torch.autograd.grad(y, [*leaf, *stage.params], g)
    gx, gparams = stage.vjp(x, g, None)
    assert apart([*gx, *gparams], wanted) < 1e-15
    if stage.params:
        assert apart(stage.gradients(x, g, None), wanted[2:]) < 1e-15


@every_coupling
def test_the_fused_backward_is_the_generic_one(stage, dtype):
    x, g = streams(1, dtype), streams(2, dtype)
    with torch.no_grad():
        y = stage(x, None)
    fused = stage.reverse_vjp(y, g, None)
    generic = Stage.reverse_vjp(stage, y, g, None)
    for a, b in zip(fused, generic, strict=True):
        assert len(a) == len(b)
        assert not a or apart(a, b) < 1e-14
    assert apart(fused[0], x) < 1e-14
    assert not any(a.requires_grad for part in fused for a in part)


def test_the_fused_backward_calls_the_residual_once():
    calls = []

    class Counted(Coupling):
        def residual(self, x1, context):
            calls.append(context)
            return super().residual(x1, context)

    Counted(block()).reverse_vjp(streams(1), streams(2), "context")
    assert calls == ["context"]


def test_pullback_gives_zeros_where_there_is_no_path():
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    x, labels = torch.ones(2, requires_grad=True), torch.arange(2)
    gx, gparams = pullback((p * x, labels), (torch.ones(2), torch.zeros_like(labels)), (x, labels), [p, q])
    assert gx[0].tolist() == [1, 1] and gx[1].tolist() == [0, 0] and gx[1].dtype == labels.dtype
    assert gparams[0].tolist() == [1, 1] and gparams[1].tolist() == [0, 0, 0]
    gx, gparams = pullback((labels,), (labels,), (labels,), [p])  # nothing recorded at all
    assert gx[0].tolist() == [0, 0] and gparams[0].tolist() == [0, 0]


def test_a_checkpointed_stage_is_the_same_map_without_inverse():
    stage = Coupling(block())
    kept = Checkpointed(stage)
    assert stage.invertible and not kept.invertible
    assert all(torch.equal(a, b) for a, b in zip(kept(streams(), None), stage(streams(), None), strict=True))
    assert kept.params == stage.params
    with pytest.raises(TypeError, match="FIFO"):
        kept.inverse(streams(), None)


def test_amplification_of_a_carry():
    stage = Coupling(nn.Tanh(), 0.01)
    grown = stage.amplification(streams(), None, generator=torch.Generator().manual_seed(0))
    assert 50 < grown < 200  # x2 = (y1 - F(y2)) / c
    assert Coupling(nn.Identity()).amplification(streams(dtype=Complex), None) < 2


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="c = 0"):
        Coupling(block(), 0)
    with pytest.raises(NotImplementedError, match=r"forward\(x, context\)"):
        Stage()(streams(), None)

    class Many(Head):
        def forward(self, x, context):
            return x[0].sum(1)

    with pytest.raises(ValueError, match="one number"):
        Many().value_and_grad(streams(), None)
