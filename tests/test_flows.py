"""Theorems about transforms and flows, in float64."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian

import flows
from flows import Flow
from flows.gaussian import Triangular
from flows.realnvp import build as realnvp
from flows.transforms import ActNorm, AffineCoupling, Compose, Gaussianize, Permutation, Standardize
from utils.settings import find, modules, options_of

D, C, B = 6, 3, 5
FLOWS = modules(flows, "build")


def make_flow(name: str, width: int, context: int = 0, **options) -> Flow:
    """The flow of a file, of one level, with those of the options that it has."""
    build = find(flows, name, "build").build
    known = options_of(build).model_fields
    return build(width, context, **{key: value for key, value in ({"levels": 1} | options).items() if key in known})


TRANSFORMS = {
    "Standardize": lambda c: Standardize(D),
    "ActNorm": lambda c: ActNorm(D),
    "Permutation": lambda c: Permutation(D),
    "AffineCoupling": lambda c: AffineCoupling(D, c, 16, 1),
    "AffineCoupling odd": lambda c: AffineCoupling(D - 1, c, 2.0, 0),
    "Gaussianize": lambda c: Gaussianize(D, c),
    "Gaussianize half": lambda c: Gaussianize(D, c, given=3),
    "Compose of the first four dimensions": lambda c: Compose([AffineCoupling(4, c, 8, 1)], width=4),
    "Compose": lambda c: Compose([ActNorm(D), Permutation(D), AffineCoupling(D, c, 8, 1)]),
    "Triangular": lambda c: Triangular(D, c),
    "Flow": lambda c: realnvp(D, c, levels=2, blocks=2, hidden_size=8),
    "Flow of one level": lambda c: realnvp(D, c, levels=1, blocks=3, hidden_size=1.5, hidden_layers=0),
    **{f"Flow {name}": lambda c, name=name: make_flow(name, D, c, blocks=3, hidden_size=16) for name in FLOWS},
}


def randomised(make, context, spread=0.3):
    """A transform with random parameters, far from the identity, in float64."""
    torch.manual_seed(0)
    transform = make(context).double()
    transform.initialize(2 * torch.randn(50, width(transform)).double() + 1, conditions(50, context))
    with torch.no_grad():
        for p in transform.parameters():
            p.add_(spread * torch.randn_like(p))
    return transform


def width(transform) -> int:
    if isinstance(transform, Flow):
        return len(transform.standardize.mean)
    return D - 1 if isinstance(transform, AffineCoupling) and transform.kept == 2 else D


def test_vectors_of_another_width_are_refused():
    with pytest.raises(RuntimeError, match="must match"):
        make_flow("realnvp", D, 0).log_prob(torch.randn(2, D + 2))


def conditions(n, context):
    return torch.randn(n, context, dtype=torch.double) if context else None


@pytest.mark.parametrize("context", [0, C])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_inverse_undoes_forward_and_log_determinants_are_those_of_the_jacobians(name, context):
    transform = randomised(TRANSFORMS[name], context)
    x, c = torch.randn(B, width(transform)).double(), conditions(B, context)
    z, ladj = transform(x, c)
    back, ladj_back = transform.inverse(z, c)
    assert z.shape == x.shape and ladj.shape == ladj_back.shape == (B,)
    assert z.dtype == ladj.dtype == torch.double
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(ladj_back, -ladj)
    for i in range(B):
        one = None if c is None else c[i : i + 1]
        forward = jacobian(lambda v, one=one: transform(v[None], one)[0][0], x[i])
        backward = jacobian(lambda v, one=one: transform.inverse(v[None], one)[0][0], z[i])
        torch.testing.assert_close(torch.linalg.slogdet(forward).logabsdet, ladj[i])
        torch.testing.assert_close(torch.linalg.slogdet(backward).logabsdet, ladj_back[i])


@pytest.mark.parametrize("name", ["AffineCoupling", "Gaussianize", "Flow"])
def test_the_condition_matters(name):
    transform = randomised(TRANSFORMS[name], C)
    x = torch.randn(B, D).double()
    one, other = transform(x, conditions(B, C))[0], transform(x, conditions(B, C))[0]
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("context", [0, C])
@pytest.mark.parametrize("name", FLOWS)
def test_density_of_a_two_dimensional_flow_integrates_to_one(name, context):
    flow = randomised(lambda c: make_flow(name, 2, c, blocks=3, hidden_size=16), context, spread=0.1)
    flow.standardize.deviation.fill_(1.0)  # keep the mass inside the grid
    grid = torch.linspace(-12, 12, 337, dtype=torch.double)  # the densities are below 1e-5 beyond 9
    points = torch.cartesian_prod(grid, grid)
    c = None if not context else torch.randn(1, context).double().expand(len(points), -1)
    with torch.no_grad():
        mass = flow.log_prob(points, c).exp().sum() * (grid[1] - grid[0]) ** 2
    assert abs(float(mass) - 1) < 1e-2


def test_log_prob_is_the_change_of_variables():
    flow = randomised(lambda c: realnvp(4, c, levels=2, blocks=2, hidden_size=8), C)
    x, c = torch.randn(B, 4).double(), conditions(B, C)
    z, ladj = flow(x, c)
    base = torch.distributions.Normal(torch.zeros(()).double(), 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(flow.log_prob(x, c), base + ladj)


@pytest.mark.parametrize("context", [0, C])
@pytest.mark.parametrize("name", FLOWS)
def test_every_parameter_gets_a_gradient(name, context):
    flow = randomised(lambda c: make_flow(name, D, c, levels=2, blocks=2, hidden_size=8), context)
    flow.log_prob(torch.randn(64, D).double(), conditions(64, context)).mean().backward()
    for name, p in flow.named_parameters():
        assert p.numel() == 0 or (p.grad is not None and p.grad.abs().sum() > 0), name


@pytest.mark.parametrize("name", FLOWS)
def test_samples_follow_the_condition_the_temperature_and_the_generator(name):
    flow = randomised(lambda c: make_flow(name, D, c, blocks=2, hidden_size=8), C)
    c = torch.eye(C).double()

    def draw(c, **options):
        return flow.sample(c, generator=torch.Generator().manual_seed(1), **options)

    assert draw(c).shape == (C, D)
    assert torch.equal(draw(c), draw(c))
    assert not torch.allclose(draw(c), draw(c.flip(0)))
    wide, narrow = (draw(c[:1].repeat(500, 1), temperature=t).std(0).sum() for t in (1.0, 0.3))
    assert narrow < 0.6 * wide
    assert not draw(c).requires_grad


@pytest.mark.parametrize("name", FLOWS)
def test_an_unconditional_flow_takes_empty_conditions(name):
    flow, x, empty = make_flow(name, D), torch.randn(7, D), torch.zeros(7, 0)
    assert flow.sample(empty).shape == (7, D)
    assert torch.equal(flow.log_prob(x, empty), flow.log_prob(x))


@pytest.mark.parametrize("name", FLOWS)
def test_a_fitted_flow_finds_a_known_density(name):
    """On a correlated Gaussian the mean log-likelihood approaches minus its entropy."""
    torch.manual_seed(0)
    factor = torch.tensor([[1.0, 0.0], [0.9, 0.4]])
    x = torch.randn(2000, 2) @ factor.T
    flow = make_flow(name, 2, blocks=2, hidden_size=16)
    flow.initialize(x)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for step in range(200):
        optimizer.zero_grad()
        (-flow.log_prob(x[step % 8 :: 8]).mean()).backward()
        optimizer.step()
    entropy = math.log(2 * math.pi * math.e) + torch.linalg.slogdet(factor).logabsdet
    assert abs(float(-flow.log_prob(x).mean().detach() - entropy)) < 0.1


def test_initialisation_standardises_even_constant_dimensions():
    x = torch.randn(100, D) * torch.tensor([5.0, 1.0, 0.1, 1.0, 1.0, 0.0]) + 3
    for transform in (Standardize(D), ActNorm(D)):
        z = transform.initialize(x)
        assert torch.isfinite(z).all()
        torch.testing.assert_close(z.mean(0), torch.zeros(D), atol=1e-4, rtol=0)
        torch.testing.assert_close(z.std(0)[:5], torch.ones(5))
        assert z.std(0)[5] <= 1
    with pytest.raises(ValueError, match="at least 2 vectors"):
        ActNorm(D).initialize(x[:1])


def test_the_standardisation_survives_saving_and_is_part_of_the_density():
    flow = realnvp(D, blocks=1)
    flow.initialize(10 * torch.randn(50, D) + 4)
    other = realnvp(D, blocks=1)
    other.load_state_dict(flow.state_dict())
    x = torch.randn(B, D)
    assert torch.equal(flow.log_prob(x), other.log_prob(x))
    assert float(flow.standardize.mean.mean()) > 2


def test_shapes_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        AffineCoupling(1, 0, 8, 1)
    with pytest.raises(ValueError, match="levels need more than"):
        realnvp(4, levels=4)
