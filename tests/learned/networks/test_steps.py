"""Steps of rows and blocks: on the manifold, bijective, descending, differentiable, and the classical step near the optimum."""

import math

import pytest

torch = pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

from bmsdp.learned.networks import blocks, rows  # noqa: E402

REAL, COMPLEX = torch.float64, torch.complex128


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, dtype=REAL, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=generator(seed))


def spheres(m, k, dtype=REAL, seed=0, radius=1.0):
    y = draw(m, k, dtype=dtype, seed=seed)
    return radius * y / rows.size(y)


def stiefel(m, d, k, dtype=REAL, seed=0):
    return blocks.Polar.apply(draw(m, d, k, dtype=dtype, seed=seed))


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_a_row_turns_over_u_on_its_great_circle(dtype):
    radius = 0.5 + torch.rand(40, 1, dtype=REAL, generator=generator())
    y, g, rho = spheres(40, 5, dtype, 1, radius), draw(40, 5, dtype=dtype, seed=2), torch.rand(40, 1, dtype=REAL, generator=generator(3))
    new, u = rows.turn(y, g, rho, radius), -g / rows.size(g)
    before, after = (torch.arccos(rows.dot(z, u) / radius) for z in (y, new))
    assert torch.allclose(after, rho * before, atol=1e-12)
    assert torch.allclose(rows.size(new), radius, rtol=1e-14)
    plane = torch.stack([torch.view_as_real(z).flatten(1) if dtype == COMPLEX else z for z in (y, u, new)], 1)
    assert float(torch.linalg.svdvals(plane)[:, 2].max()) < 1e-13  # y, u and the new row lie in one plane
    back, outside = rows.unturn(new, g, rho, radius)
    assert outside == 0 and float(((back - y).abs() * rho).max()) < 1e-13


def test_near_u_the_step_of_rows_is_that_of_over_relaxation():
    u, t, w = spheres(20, 6, seed=4), draw(20, 6, seed=5), 1.7
    y = u + 1e-5 * t
    y = y / rows.size(y)
    chord = (1 - w) * y + w * u
    assert float((rows.turn(y, -u, w - 1, torch.ones(20, 1, dtype=REAL)) - chord / rows.size(chord)).abs().max()) < 1e-9


def test_rows_without_direction_stay():
    y, one = spheres(3, 4), torch.ones(3, 1, dtype=REAL)
    g = torch.stack([torch.zeros(4, dtype=REAL), y[1], -3 * y[2]])  # no product, the antipode of u, u itself
    y.requires_grad_()
    g.requires_grad_()
    new = rows.turn(y, g, 0.5 * one, one)
    assert torch.equal(new[:2], y[:2]) and torch.allclose(new[2], y[2], atol=1e-15)
    assert all(torch.isfinite(a).all() for a in torch.autograd.grad(new.sum(), [y, g]))
    back, outside = rows.unturn(new.detach(), g.detach(), 0.5 * one, one)
    assert outside == 0 and torch.allclose(back, y.detach(), atol=1e-15)


def test_rows_outside_the_image_are_counted():
    u = spheres(1, 3).repeat(3, 1)
    t = draw(3, 3, seed=1)
    t = t - rows.dot(t, u) * u
    t = t / rows.size(t)
    angle = torch.tensor([[0.4], [0.59], [0.61]], dtype=REAL) * math.pi
    y, one = torch.cos(angle) * u + torch.sin(angle) * t, torch.ones(3, 1, dtype=REAL)
    back, outside = rows.unturn(y, -u, 0.6, one)
    assert outside == 1 and torch.allclose(back[2], -u[2], atol=1e-14)  # the image is the cap of radius 0.6 pi


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@pytest.mark.parametrize(("d", "k"), [(1, 3), (2, 5), (3, 4), (3, 8)])
@pytest.mark.parametrize("rho", [0.2, 0.8])
def test_blocks_stay_blocks_descend_and_come_back(dtype, d, k, rho):
    Y, G = stiefel(30, d, k, dtype, 1), draw(30, d, k, dtype=dtype, seed=2)
    new = blocks.turn(Y, G, rho)
    eye = torch.eye(d, dtype=dtype)
    assert float((new @ new.mH - eye).abs().max()) < 1e-11
    assert float((blocks.turn(new, G, 1 / rho) - Y).abs().max()) < 1e-9
    cost = [(G.conj() * Z).real.sum((1, 2)) for Z in (Y, new)]
    assert (cost[1] <= cost[0] + 1e-12).all() and (cost[1] < cost[0]).any()
    U = blocks.Polar.apply(-G)
    hermitian = [(M + M.mH) / 2 for M in (Y @ U.mH, new @ U.mH)]
    assert float(torch.linalg.eigvalsh(hermitian[1] - hermitian[0]).min()) > -1e-12


def test_square_blocks_of_the_other_orientation_stay():
    Y, G = stiefel(6, 3, 3, seed=1), draw(6, 3, 3, seed=2)
    other = torch.linalg.det(Y @ blocks.Polar.apply(-G).mH) < 0
    new = blocks.turn(Y, G, 0.5)
    assert other.any() and not other.all()
    assert torch.equal(new[other], Y[other]) and not torch.isclose(new[~other], Y[~other]).all(-1).any()
    assert torch.equal(blocks.turn(Y, 0 * G, 0.5), Y)


def test_a_block_of_one_row_doubles_no_angle_but_its_tangent():
    Y, G, rho = stiefel(20, 1, 4, seed=1), draw(20, 1, 4, seed=2), 0.3
    U, new = -G / torch.linalg.norm(G, dim=-1, keepdim=True), blocks.turn(Y, G, rho)
    half = [torch.arccos((Z * U).sum(-1)) / 2 for Z in (Y, new)]
    assert torch.allclose(torch.tan(half[1]), rho * torch.tan(half[0]), rtol=1e-10)


def test_near_u_the_step_of_blocks_is_that_of_over_relaxation():
    w, U = 1.6, stiefel(10, 3, 7, seed=1)
    Y = blocks.Polar.apply(U + 1e-5 * draw(10, 3, 7, seed=2))
    assert float((blocks.turn(Y, -U, w - 1) - blocks.Polar.apply((1 - w) * Y + w * U)).abs().max()) < 1e-8


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_derivatives(dtype):
    y, g, rho = spheres(4, 3, dtype), draw(4, 3, dtype=dtype, seed=1), torch.full((4, 1), 0.6, dtype=REAL)
    one = torch.ones(4, 1, dtype=REAL)
    leaves = [a.requires_grad_() for a in (y, g, rho)]
    assert torch.autograd.gradcheck(lambda y, g, rho: rows.turn(y, g, rho, one), leaves)
    Y, G = stiefel(3, 2, 4, dtype).requires_grad_(), draw(3, 2, 4, dtype=dtype, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(blocks.Polar.apply, [G])
    assert torch.autograd.gradcheck(lambda Y, G, rho: blocks.turn(Y, G, rho[:3, :, None]), [Y, G, leaves[2]])


def test_the_polar_factor_has_a_derivative_at_equal_singular_values():
    U = stiefel(2, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(blocks.Polar.apply, [U])
