"""Flow layers invert, their log-determinants are autograd's, and what they make of a base is a density."""

import copy
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule
from torch import nn

from programs.blocks import flows
from programs.blocks.flows import (
    Affine,
    Coupling,
    Gated,
    Rounding,
    Split,
    Squeeze,
    Stack,
    Transform,
)
from programs.denf import Config, layers


def stir(net, scale=0.3):
    """Give all weights noise, so that nothing is close to the identity."""
    for p in net.parameters():
        nn.init.normal_(p, 0.0, scale / max(1, p[0].numel()) ** 0.5)
    return net


def small(channels=3):
    rest = 4 * channels - 1
    top = Split(
        [
            Coupling(2, 3),
            Stack(Coupling(rest - 2, 3), Affine([0.1] * (rest - 2), [2.0] * (rest - 2))),
        ],
        [2, rest - 2],
        [2, rest - 2],
    )
    split = Split([Affine([0.5], [0.2]), Stack(Coupling(rest, 3), top)], [1, rest], [1, rest])
    return Stack(Coupling(channels, 3), Squeeze(2), split)


LAYERS = {
    "coupling": lambda: Coupling(3, 4),
    "affine": lambda: Affine([0.1, 0.2, 0.3], [0.5, 1.0, 2.0]),
    "squeeze": lambda: Squeeze(2),
    "stack": small,
    "denf": lambda: layers(Config(size=4, couplings=1, features=3)),
    "denf32": lambda: layers(Config(size=4, fold=2, couplings=1, features=3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_log_determinants_are_autograds(name):
    net = stir(LAYERS[name]()).double()
    x = torch.randn(3, 4, 4, dtype=torch.float64)
    flat = lambda v: net(v.view(1, 3, 4, 4))[0].flatten()
    jacobian = torch.autograd.functional.jacobian(flat, x.flatten())
    _, log_det = net(x.unsqueeze(0))
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian)[1])
    assert name == "squeeze" or log_det.abs() > 1e-2


@pytest.mark.parametrize("name", LAYERS)
def test_layers_invert_whatever_stands_to_the_left(name):
    net = stir(LAYERS[name]()).double()
    x = torch.randn(2, 5, 1, 3, 8, 8, dtype=torch.float64)
    z, log_det = net(x)
    assert log_det.shape == (2, 5, 1)
    assert name == "affine" or z.shape[-3:] != x.shape[-3:] or not torch.equal(z, x)
    torch.testing.assert_close(net.inverse(z), x)
    alone, one = net(x[1, 2])
    torch.testing.assert_close(alone, z[1, 2])
    torch.testing.assert_close(one, log_det[1, 2])


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_the_papers_flow_inverts_in_float32_at_its_size(scale):
    """As it begins, and with weights as large as training may make them."""
    net = layers(Config(features=16))
    if scale:
        for module in net.modules():
            if isinstance(module, flows.Residual):
                nn.init.normal_(module.last.weight, 0.0, 0.05)
    x = torch.rand(1, 3, 128, 128)
    z, log_det = net(x)
    assert log_det.isfinite().all() and z.shape == (1, 12, 64, 64)
    assert (net.inverse(z) - x).abs().max() < 1e-4


def test_all_channels_change_and_couplings_begin_as_the_identity():
    net, x = Coupling(5, 8), torch.randn(2, 5, 6, 6)
    z, log_det = net(x)
    assert (z - x).abs().max() < 0.05 and log_det.abs().max() < 1.0
    z, _ = stir(net, 1.0)(x)
    assert ((z - x).abs().amax((0, 2, 3)) > 0.1).all()
    assert (z.diff(dim=0) != x.diff(dim=0)).any()


def test_log_scales_are_clamped():
    net, x = stir(Coupling(2, 4), 10.0), 1e3 * torch.randn(1, 1, 4, 4)
    scale, shift = net._read(net.one, x)
    assert 0.9 * flows.CLAMP < scale.abs().max() <= flows.CLAMP
    assert shift.abs().max() > 100


def gated(pres):
    return Gated(
        pres,
        (torch.tensor([1.0, -0.5]), torch.tensor([0.3, 0.6])),
        (torch.tensor([0.0, 0.4]), torch.tensor([0.5, 0.2])),
    )


@pytest.mark.parametrize("pres", [0.0, 1.0])
def test_a_density_through_a_flow_integrates_to_one(pres):
    """Over two channels of one pixel, on a grid that holds all but 1e-6 of the mass."""
    pyro.set_rng_seed(1)
    net = stir(Stack(Coupling(2, 4), Affine([0.2, 0.1], [0.8, 1.5]), Coupling(2, 4)), 0.7)
    flow = dist.TransformedDistribution(
        gated(torch.full((1, 1), pres)), [Transform(net, ((2, 1, 1), (2, 1, 1)))]
    )
    axis = torch.linspace(-10, 10, 1601)
    grid = torch.cartesian_prod(axis, axis).view(-1, 2, 1, 1)
    with torch.no_grad():
        mass = flow.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert abs(mass - 1) < 1e-3


def test_samples_through_a_flow_have_the_density_that_is_said():
    net = stir(Stack(Coupling(2, 4), Affine([0.2, 0.1], [0.8, 1.5])), 1.5)
    make = lambda: dist.TransformedDistribution(
        gated(torch.ones(1, 1)), [Transform(net, ((2, 1, 1), (2, 1, 1)))]
    )
    with torch.no_grad():
        entropy = -make().log_prob(make().sample((20_000,)))
    # -E log p = the base's entropy + E log |det|, the latter over draws of the base
    base = gated(torch.ones(1, 1))
    z = base.sample((20_000,))
    with torch.no_grad():
        x = net.inverse(z)
        expected = -base.log_prob(z) - net(x)[1]
    error = ((entropy.var() + expected.var()) / 20_000).sqrt()
    assert abs(entropy.mean() - expected.mean()) < 4 * error


def test_a_site_scored_and_inverted_runs_the_layers_once():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = small(), 0

        def forward(self, x):
            self.calls += 1
            return self.inner(x)

        def inverse(self, z):
            return self.inner.inverse(z)

    net = Counted()
    base = dist.Normal(torch.zeros(2, 12, 4, 4), 1.0).to_event(3)
    flow = dist.TransformedDistribution(base, [Transform(net, ((12, 4, 4), (3, 8, 8)))])
    x = torch.rand(2, 3, 8, 8)
    log_prob = flow.log_prob(x)
    z = flow.transforms[0].inv(x)
    assert net.calls == 1
    torch.testing.assert_close(log_prob, base.log_prob(z) + net(x)[1])
    other = torch.rand(2, 3, 8, 8)
    assert not torch.allclose(flow.log_prob(other), log_prob)
    assert flow.batch_shape == (2,) and flow.event_shape == (3, 8, 8)
    with pytest.raises(ValueError, match=r"expected \(..., 12, 4, 4\)"):
        flow.transforms[0].forward_shape(torch.Size((3, 8, 8)))


def test_layers_tell_the_shapes_of_latents_and_images():
    flow = Transform(layers(Config(features=4, fold=2)))
    assert flow.inverse_shape(torch.Size((5, 3, 128, 128))) == (5, 48, 32, 32)
    assert flow.forward_shape(torch.Size((5, 48, 32, 32))) == (5, 3, 128, 128)
    net, x = small(), torch.rand(2, 3, 8, 8)
    made = net(x)[0].shape
    assert Transform(net).inverse_shape(x.shape) == made
    assert Transform(net).forward_shape(made) == x.shape


def test_a_transform_trains_as_an_attribute_and_forgets_what_old_parameters_made():
    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.flow = Transform(small())

        def forward(self, x):
            base = dist.Normal(torch.zeros(12, 4, 4), 1.0).to_event(3)
            with pyro.plate("images", len(x)):
                pyro.sample("x", dist.TransformedDistribution(base, [self.flow]), obs=x)

    model, x = Model(), torch.rand(4, 3, 8, 8)
    before = [p.detach().clone() for p in model.parameters()]
    svi = SVI(model, lambda x: None, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    with pyro.settings.context(module_local_params=False):  # Pyro's default
        losses = [svi.step(x) for _ in range(3)]  # of one tensor: the same that is remembered
    assert losses[0] > losses[1] > losses[2]
    moved = [not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)]
    assert all(moved) and len(moved) > 10
    torch.testing.assert_close(model.flow.inv(x), model.flow.layers(x)[0])
    copied = copy.deepcopy(model)
    torch.testing.assert_close(copied.flow.inv(x), model.flow.inv(x))
    with torch.no_grad():
        next(copied.parameters()).add_(1.0)
    assert not torch.allclose(copied.flow.inv(x), model.flow.inv(x))
    quiet = model.flow.with_cache(0)
    assert quiet.inv(x) is not quiet.inv(x) and model.flow.with_cache(1) is model.flow


def test_cells_are_of_the_gaussian_that_presence_says():
    pres = torch.tensor([[1.0, 0.0], [0.3, 1.0]])
    base, value = gated(pres), torch.randn(5, 2, 2, 2)
    expected = torch.zeros(5)
    for b in range(5):
        for i in range(2):
            for j in range(2):
                for e, share in ((1, pres[i, j]), (0, 1 - pres[i, j])):
                    mean, sd = base.present if e else base.absent
                    for c in range(2):
                        apart = (value[b, c, i, j] - mean[c]) / sd[c]
                        log = -0.5 * apart**2 - sd[c].log() - 0.5 * math.log(2 * math.pi)
                        expected[b] += share * log
    torch.testing.assert_close(base.log_prob(value), expected)
    drawn = gated(pres.round()).rsample((4000,))
    assert (drawn.mean(0) - gated(pres.round()).mean).abs().max() < 4 * 0.6 / 4000**0.5
    assert gated(pres).expand((3,)).log_prob(value[:3]).shape == (3,)


def test_rounding_noise_is_uniform_and_its_mode_the_middle():
    noise = Rounding(torch.zeros(4, 2), torch.ones(4, 2)).to_event(1)
    assert torch.equal(noise.mode, torch.full((4, 2), 0.5))
    assert (noise.log_prob(noise.sample()) == 0).all()


def test_what_cannot_be_a_coupling_is_refused():
    with pytest.raises(ValueError, match="channels=1"):
        Coupling(1, 4)
