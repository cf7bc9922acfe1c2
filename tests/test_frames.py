"""Flows of frames: the source on the centred slice, the network's symmetries, all lengths, motifs."""

import math

import pytest
import torch
from torch import Tensor

import rfm
from manifolds import SO3, CentredPoses, Power
from rfm.integrators import GEODESIC_EULER, FixedStep
from rfm.networks import FrameField, FrameMap, VelocityField
from rfm.paths.conversions import velocity_from_endpoint
from rfm.proteins.motifs import MotifFlow
from rfm.sources import CentredPoseSource, IsotropicGaussianSO3, Uniform
from rfm.steering import Clocks, ExponentialClock, SelfConditioning

F64 = torch.float64
EULER = FixedStep(GEODESIC_EULER, 8)
MEMORY = [SelfConditioning()]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def field() -> FrameField:
    """A small network with no layer left at zero, in double precision."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one = FrameField(10.0, width=32, pair_width=16, depth=2, heads=4, reach=8).double()
        for parameter in one.parameters():
            if not bool(parameter.any()):
                torch.nn.init.normal_(parameter, std=0.05)
        one.requires_grad_(False)
    return one


def poses(count: int, batch: int = 3, seed: int = 0) -> Tensor:
    return CentredPoseSource(CentredPoses(count, 10.0)).sample((batch,), generator(seed), F64)


def moved(x: Tensor, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return a rigid motion, and poses moved by it."""
    g = torch.eye(4, dtype=F64)
    g[:3, :3] = SO3().random_uniform(generator=generator(5), dtype=F64)
    g[:3, 3] = shift
    return g, g @ x


# The second time.


def test_a_map_begins_as_the_field_and_jumps(field: FrameField) -> None:
    x, s, t = poses(5), torch.tensor([0.1, 0.4, 0.7], dtype=F64), torch.tensor([0.9, 0.6, 1.0], dtype=F64)
    known = FrameMap.from_velocity(field)
    torch.testing.assert_close(known.average_velocity(x, s, t), field(x, s), rtol=0, atol=0)
    torch.nn.init.normal_(known.jump_time[-1].weight, std=0.3)
    known.requires_grad_(False)
    u = known.average_velocity(x, s, t)
    assert float((u - field(x, s)).abs().max()) > 1e-3
    # At equal times it is the field, whatever its weights.
    torch.testing.assert_close(known.average_velocity(x, t, t), field(x, t), rtol=0, atol=0)
    torch.testing.assert_close(known(x, t), field(x, t), rtol=0, atol=0)
    CentredPoses(5, 10.0).check_point(known.jump(x, s, t), tol=1e-9)
    g, y = moved(x)
    torch.testing.assert_close(known.jump(y, s, t), g @ known.jump(x, s, t))


def test_a_flow_of_frames_jumps_in_any_number(field: FrameField) -> None:
    made = rfm.Flow(CentredPoses(6, 10.0), FrameMap.from_velocity(field), CentredPoseSource(CentredPoses(6, 10.0)))
    short = made.on(CentredPoses(4, 10.0)).sample(2, steps=3, generator=generator())
    assert short.shape == (2, 4, 4, 4)
    # As it begins, jumps are Euler's steps.
    euler = made.on(CentredPoses(4, 10.0)).sample(2, solver=FixedStep(GEODESIC_EULER, 3), generator=generator())
    torch.testing.assert_close(short, euler)


# The source.


@pytest.mark.parametrize("rotation", [None, IsotropicGaussianSO3(torch.eye(3), 1.5)])
def test_the_density_of_two_poses_is_that_of_their_difference(rotation: IsotropicGaussianSO3 | None) -> None:
    """Of two positions p and -p the slice has the coordinate sqrt(2) p, normal as each position was."""
    source = CentredPoseSource(CentredPoses(2, 5.0), rotation, 10.0)
    x = source.sample((4,), generator(), F64)
    turns = (Uniform(SO3()) if rotation is None else rotation).log_prob(x[..., :3, :3]).sum(-1)
    y = math.sqrt(2) * x[:, 0, :3, 3] / 5.0
    normal = torch.distributions.Normal(torch.zeros(3, dtype=F64), torch.full((3,), 2.0, dtype=F64))
    assert torch.allclose(source.log_prob(x), turns + normal.log_prob(y).sum(-1))


def test_the_density_of_many_poses_is_normal_in_an_orthonormal_basis() -> None:
    manifold = CentredPoses(5, 2.0)
    source = CentredPoseSource(manifold)
    x = source.sample((200,), generator(), F64)
    manifold.check_point(x)
    moves = manifold.tangent_basis(x[:1])[0, 15:]  # orthonormal in the metric: displacements by ``length``
    away = x.clone()
    away[..., :3, :3] = 0
    z = torch.einsum("bkij,dkij->bd", away, moves) / manifold.length**2
    assert z.shape == (200, manifold.dim - 15)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    assert torch.allclose(source.log_prob(x), normal - 5 * math.log(8 * math.pi**2))
    assert float(z.std()) == pytest.approx(1.0, abs=0.05)


def test_a_source_serves_other_numbers() -> None:
    source = CentredPoseSource(CentredPoses(5, 2.0), IsotropicGaussianSO3(torch.eye(3), 1.5), 3.0)
    other = source.on(CentredPoses(9, 2.0))
    assert other.sample((2,)).shape == (2, 9, 4, 4)
    assert (other.rotation, other.translation_scale) == (source.rotation, 3.0)
    with pytest.raises(ValueError, match=r"give CentredPoses\(k, length=2\)"):
        source.on(CentredPoses(9, 1.0))
    with pytest.raises(ValueError, match="is made for"):
        Uniform(SO3()).on(SO3())


# The network.


@pytest.mark.parametrize("with_memory", [False, True])
def test_end_points_turn_and_shift_with_the_poses(field: FrameField, with_memory: bool) -> None:
    x, t = poses(11), torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    previous = poses(11, seed=1) if with_memory else None
    g, y = moved(x, shift=7.0)
    there = field.endpoint(y, t, previous=None if previous is None else moved(previous, 3.0)[1])
    assert torch.allclose(there, g @ field.endpoint(x, t, previous=previous), atol=1e-9)
    assert float((there - y).abs().max()) > 0.1  # not for want of moving


def test_velocities_turn_with_the_poses_and_are_tangent(field: FrameField) -> None:
    manifold, x, t = CentredPoses(11, 10.0), poses(11), torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    u = field(x, t)
    manifold.check_tangent(x, u)
    g, y = moved(x)
    assert torch.allclose(field(y, t), g @ u, atol=1e-8)


def test_the_network_is_not_blind_to_order_or_to_reflection(field: FrameField) -> None:
    x, t = poses(11), torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    assert not torch.allclose(field.endpoint(x.flip(-3), t).flip(-3), field.endpoint(x, t), atol=1e-3)


def test_what_is_masked_is_not_seen(field: FrameField) -> None:
    x, t = poses(9), torch.tensor([0.2, 0.5, 0.8], dtype=F64)
    padded = torch.cat([x, poses(4, seed=3)], dim=1)
    mask = torch.arange(13).expand(3, 13) < 9
    found = field.endpoint(padded, t, mask=mask)
    assert torch.allclose(found[:, :9], field.endpoint(x, t), atol=1e-10)
    assert torch.equal(found[:, 9:], padded[:, 9:])


def test_held_poses_stay_and_others_do_not(field: FrameField) -> None:
    x, t = poses(9), torch.tensor([0.2, 0.5, 0.8], dtype=F64)
    held = torch.arange(9) < 3
    found = field.endpoint(x, t, held=held)
    assert torch.equal(found[:, :3], x[:, :3])
    assert bool(((found - x)[:, 3:].flatten(2).norm(dim=-1) > 1e-3).all())
    assert not torch.allclose(found[:, 3:], field.endpoint(x, t)[:, 3:], atol=1e-4)


def test_the_velocity_is_that_of_the_geodesic_to_the_end_point(field: FrameField) -> None:
    manifold, x, t = CentredPoses(11, 10.0), poses(11), torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    endpoint = field.endpoint(x, t)
    assert torch.allclose(field(x, t), velocity_from_endpoint(rfm.GeodesicPath(manifold), x, t, endpoint), atol=1e-9)
    assert torch.allclose(manifold.expmap(x, manifold.lift(1 - t) * field(x, t)), endpoint, atol=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_network_is_one_graph(field: FrameField) -> None:
    x, t = poses(7), torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    compiled = torch.compile(field, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x, t), field(x, t), atol=1e-9)


# Flows.


@pytest.fixture(scope="module")
def flow(field: FrameField) -> rfm.Flow:
    manifold = CentredPoses(6, 10.0)
    return rfm.Flow(manifold, field, CentredPoseSource(manifold))


def test_one_flow_serves_all_lengths(flow: rfm.Flow) -> None:
    longer = flow.on(CentredPoses(14, 10.0))
    assert longer.field is flow.field
    x = longer.sample(2, solver=EULER, generator=generator())
    longer.manifold.check_point(x, tol=1e-9)
    with pytest.raises(ValueError, match=r"serves CentredPoses\(k, length=10\)"):
        flow.on(CentredPoses(14, 3.0))
    with pytest.raises(ValueError, match=r"serves CentredPoses"):
        flow.on(Power(SO3(), 3))
    plain = rfm.Flow(SO3(), VelocityField(SO3()))
    with pytest.raises(ValueError, match="made for SO3"):
        plain.on(SO3())


def test_the_density_is_the_same_for_turned_poses(flow: rfm.Flow) -> None:
    """A likelihood on the slice, of dimension 6 k - 3."""
    small = flow.on(CentredPoses(3, 10.0))
    x = poses(3, batch=2)
    solver = FixedStep(GEODESIC_EULER, 4)
    found = small.log_prob(x, solver=solver)
    assert torch.allclose(found, small.log_prob(moved(x)[1], solver=solver), atol=1e-8)
    assert not torch.allclose(found, small.source.log_prob(x), atol=1e-3)


class Listening(torch.nn.Module):
    """A field that keeps the last end point it predicted."""

    def __init__(self, field: FrameField) -> None:
        super().__init__()
        self.field, self.calls = field, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        self.last = self.field.endpoint(x, t)
        return self.field.velocity(x, t, self.last)


def test_equal_steps_end_at_what_is_predicted(flow: rfm.Flow, field: FrameField) -> None:
    """With a clock for the rotations too, if it lands."""
    heard = Listening(field)
    listened = rfm.Flow(flow.manifold, heard, flow.source)
    clocks = Clocks.of_poses(rotation=ExponentialClock(10.0, lands=True))
    many = FixedStep(GEODESIC_EULER, 20)
    x = listened.sample(2, solver=many, steering=[clocks], generator=generator())
    assert torch.allclose(x, heard.last, atol=1e-9)
    assert heard.calls == 20
    loose = Clocks.of_poses(rotation=ExponentialClock(10.0))
    x = listened.sample(2, solver=many, steering=[loose], generator=generator())
    assert torch.allclose(x[..., :3, 3], heard.last[..., :3, 3], atol=1e-9)
    assert not torch.allclose(x, heard.last, atol=1e-4)
    with pytest.raises(ValueError, match="no exact log-density"):
        flow.sample(2, steering=[clocks], return_log_prob=True)


def test_self_conditioning_remembers_within_a_solve_alone(flow: rfm.Flow) -> None:
    def draw(**options: object) -> Tensor:
        return flow.sample(4, solver=EULER, generator=generator(), **options)  # type: ignore[arg-type]

    assert torch.allclose(draw(steering=MEMORY), draw(steering=MEMORY, batch_size=2), atol=1e-9)
    assert not torch.allclose(draw(steering=MEMORY), draw(), atol=1e-3)
    with pytest.raises(ValueError, match="no exact log-density under this flow"):
        flow.sample(2, steering=MEMORY, return_log_prob=True)
    with pytest.raises(ValueError, match="self-conditioning is for fields"):
        rfm.Flow(SO3(), VelocityField(SO3())).sample(2, steering=MEMORY)


@pytest.mark.parametrize("memory", [False, True])
def test_a_motif_stays_where_it_is_given(flow: rfm.Flow, memory: bool) -> None:
    motif = moved(poses(3, batch=1)[0], shift=30.0)[1]
    around = MotifFlow(flow.on(CentredPoses(10, 10.0)), motif, torch.tensor([2, 3, 7]))
    x = around.sample(2, solver=EULER, generator=generator(), steering=MEMORY if memory else ())
    assert torch.equal(x[:, [2, 3, 7]], motif.to(x).expand(2, 3, 4, 4))
    rest = [i for i in range(10) if i not in (2, 3, 7)]
    assert bool((x[0, rest] - x[1, rest]).flatten(1).norm(dim=1).gt(1e-3).all())
    # The same before it was put back: held all the way, up to a common shift.
    free = around.flow.sample(2, solver=EULER, generator=generator(), steering=MEMORY if memory else ())
    inside = free[:, [2, 3, 7], :3, 3]
    given = motif[:, :3, 3].to(free)
    assert torch.allclose(inside - inside[:, :1], (given - given[:1]).expand(2, 3, 3), atol=1e-6)
    with pytest.raises(ValueError, match="no log-density"):
        around.flow.source.log_prob(poses(10))
    with pytest.raises(ValueError, match="ascending places from 0 to 9"):
        MotifFlow(flow.on(CentredPoses(10, 10.0)), motif, torch.tensor([2, 3, 10]))


def test_a_flow_of_frames_is_saved_and_loaded(flow: rfm.Flow, tmp_path: object) -> None:
    flow.save(str(tmp_path))
    t = torch.tensor(0.3, dtype=F64)
    back = rfm.Flow.load(str(tmp_path)).on(CentredPoses(5, 10.0))
    assert torch.equal(back.field(poses(5), t), flow.field(poses(5), t))
