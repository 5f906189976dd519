"""Evidence and draws around one state, where both are known; from states that are not the best."""

import math

import pyro
import pyro.distributions as dist
import pytest
import small_programs
import torch
from test_refined import Amplitudes

from analysis.posterior import iwae, khat
from analysis.posterior.refine import laplace, local, refine


def around(small, x, states, chains=100, levels=1):
    guide = small.guide if isinstance(small, Amplitudes | OneNumber) else small.guide()
    return local(small.program, guide, x, states, chains, levels, progress=False)


class OneNumber:
    """z of a prior; six pixels ~ N(f(z), σ²)."""

    def __init__(self, prior, f, sigma):
        self.prior, self.f, self.sigma = prior, f, sigma

    def program(self, images=None, batch=1):
        batch = batch if images is None else len(images)
        with pyro.plate("batch", batch, dim=-1):
            z = pyro.sample("z_what", self.prior.expand([batch]))
            small_programs.observe(self.f(z)[:, None].expand(-1, 6), self.sigma, images)

    def guide(self, images, batch=1):
        with pyro.plate("batch", len(images), dim=-1):
            pyro.sample("z_what", self.prior.expand([len(images)]))

    def log_joint(self, x, z):
        """(B, N) log p(x, z) at points z (N,)."""
        likelihood = dist.Normal(self.f(z)[:, None], self.sigma).log_prob(x.flatten(1)[:, None])
        return likelihood.sum(-1) + self.prior.log_prob(z)

    def evidence(self, x, low, high):
        """(B,) the part of log p(x) between two values of z."""
        z = torch.linspace(low, high, 20_001, dtype=torch.float64)
        return self.log_joint(x.double(), z).logsumexp(1) + math.log((high - low) / 20_000)


@pytest.mark.parametrize("plate", [False, True])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_where_the_posterior_is_gaussian_all_weights_are_the_evidence(plate, number):
    """Of an arrangement: x and the number of objects."""
    pyro.set_rng_seed(0)
    small = Amplitudes(plate)
    x = small_programs.simulate(small_programs.ALL["appearance"], 8)[0]
    on = [float(t < number) for t in range(2)]
    if plate:
        one = torch.tensor(on).expand(8, 2)
        states = {"z_pres_1": one, "z_what_1": torch.randn(8, 2)}
    else:
        states = {f"z_pres_{t + 1}": torch.full((8,), on[t]) for t in range(2)}
        states |= {f"z_what_{t}": torch.randn(8) for t in (1, 2)}
    found = around(small, x, states)
    wanted = small.joint(x)[:, number]
    if plate and number == 1:
        wanted = wanted - math.log(2)  # which of the two slots holds it
    assert (found.weights - wanted).abs().max() < 0.02
    for t in range(number, 2):  # what does not exist is not moved
        name, column = ("z_what_1", t) if plate else (f"z_what_{t + 1}", ...)
        assert torch.equal(
            found.draws[name][..., column], states[name][..., column].expand(100, -1)
        )


def test_weighted_draws_are_of_the_posterior():
    pyro.set_rng_seed(1)
    small = small_programs.ALL["appearance"]
    x = small_programs.simulate(small, 6)[0]
    found = around(small, x, {"z_what": torch.zeros(6)}, chains=4000, levels=3)
    z, share = found.draws["z_what"], found.weights.softmax(0)
    precision = 1 + 6 / small.sigma**2
    mean, sd = x.flatten(1).sum(1) / small.sigma**2 / precision, precision**-0.5
    assert ((share * z).sum(0) - mean).abs().max() < 5 * sd / 4000**0.5
    assert ((share * (z - mean).square()).sum(0).sqrt() / sd - 1).abs().max() < 0.05


def test_a_number_above_zero_is_moved_in_its_logarithm():
    pyro.set_rng_seed(2)
    small = OneNumber(dist.LogNormal(0.0, 1.0), lambda z: z, 0.8)
    x = torch.tensor([0.1, 1.0, 4.0]).view(3, 1, 1, 1).expand(3, 1, 2, 3)
    found = around(small, x, {"z_what": torch.full((3,), 0.5)}, 3000, 10)
    assert (found.draws["z_what"] > 0).all()
    wanted = small.evidence(x, 1e-6, 40.0)
    assert found.evidence.tolist() == pytest.approx(wanted.tolist(), abs=0.05)


def test_the_evidence_is_of_the_state_it_begins_with():
    """z² has two roots: each has half of the evidence."""
    pyro.set_rng_seed(3)
    small = OneNumber(dist.Normal(0.0, 2.0), torch.square, 0.5)
    x = torch.tensor([4.0, 9.0]).view(2, 1, 1, 1).expand(2, 1, 2, 3)
    found = around(small, x, {"z_what": torch.tensor([1.0, -2.0])}, 2000, 5)
    assert (found.draws["z_what"].sign() == torch.tensor([1.0, -1.0])).all()
    half = small.evidence(x, -6.0, 6.0) - math.log(2)
    assert found.evidence.tolist() == pytest.approx(half.tolist(), abs=0.03)


def test_levels_mend_weights_that_the_gaussian_alone_has_not():
    """Where z³ is what is seen, the posterior is flat in the middle."""
    pyro.set_rng_seed(4)
    small = OneNumber(dist.Normal(0.0, 1.0), lambda z: z.pow(3), 0.15)
    x = torch.linspace(0.0, 0.15, 24).view(24, 1, 1, 1).expand(24, 1, 2, 3)
    start = {"z_what": torch.full((24,), 0.1)}
    spread, tails, off = [], [], []
    for levels in (1, 60):
        found = around(small, x, start, 1000, levels)
        spread.append(float(found.weights.std(0).mean()))
        tails.append(float(khat(found.weights).median()))
        off.append(float((found.evidence - small.evidence(x, -3.0, 3.0)).abs().mean()))
    assert spread[1] < 0.6 * spread[0]
    assert tails[1] < 0.6 < tails[0]
    assert off[1] < 0.1 < off[0]


def test_from_what_refine_has_found():
    pyro.set_rng_seed(5)
    small = small_programs.ALL["appearance"]
    x = small_programs.simulate(small, 5)[0]
    guide = small.guide(0.3)
    found = refine(small.program, guide, x, sweeps=3, chains=4, progress=False)
    after = local(small.program, guide, x, found.best, 30, 1, progress=False)
    assert torch.allclose(after.evidence, small.evidence(x), atol=1e-3)
    assert torch.equal(after.evidence, iwae(after.weights))


def test_images_in_passes_are_images_together(monkeypatch):
    pyro.set_rng_seed(6)
    small = small_programs.ALL["appearance"]
    x = small_programs.simulate(small, 7)[0]
    monkeypatch.setattr(laplace, "VALUES", 3 * 20 * x[0].numel())
    found = around(small, x, {"z_what": torch.zeros(7)}, chains=20)
    assert found.weights.shape == found.draws["z_what"].shape == (20, 7)
    assert torch.allclose(found.evidence, small.evidence(x), atol=1e-3)


def test_what_has_nothing_to_move_or_too_much_or_no_chains_is_refused(monkeypatch):
    small, numbers = small_programs.ALL["presence"], small_programs.ALL["appearance"]
    x = small_programs.simulate(small, 2)[0]
    states = {f"z_pres_{t}": torch.ones(2) for t in (1, 2, 3)}
    with pytest.raises(ValueError, match="has 0 continuous latents per image: expected 1 to 1,500"):
        around(small, x, states)
    with pytest.raises(ValueError, match="chains=0, levels=1: expected at least one"):
        around(numbers, x, {"z_what": torch.zeros(2)}, chains=0)
    monkeypatch.setattr(laplace, "MOST", 0)
    with pytest.raises(ValueError, match="has 1 continuous latents per image"):
        around(numbers, x, {"z_what": torch.zeros(2)})
