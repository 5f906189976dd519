"""Evidence and posteriors of programs where both are known in closed form, from guides that are wrong."""

import math
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import small_programs
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger

from analysis.posterior import ess, iwae, khat, log_weights
from analysis.posterior.refine import objects, refine, watch
from analysis.posterior.refine.anneal import Budget
from analysis.posterior.refine.latents import latents_of
from analysis.posterior.refine.target import Target
from programs.blocks.distributions import gate

CHAINS = 100
"""Chains per image."""


def images_of(small, number):
    return small_programs.simulate(small, number)[0]


def refined(small, guide, x, **options):
    """20 sweeps of `CHAINS` chains."""
    options = {"sweeps": 20, "chains": CHAINS, "progress": False, "keep": 8} | options
    return refine(small.program, guide, x, **options)


class Amplitudes:
    """Objects until a coin stops, at most two; each adds a_t ~ N(0, 1) to six pixels ~ N(Σ a_t, σ²).

    Given the number n the image is Gaussian: x ~ N(0, σ² 1 + n 11ᵀ), so evidence and p(n | x) are known.
    """

    sigma, prior, most = 0.5, 0.6, 2

    def __init__(self, plate=False):
        self.program = self.in_slots if plate else self.in_steps
        self.guide = self.guide_of_slots if plate else self.guide_of_steps
        self.plate = plate

    def coin(self, logits, size):
        return dist.Bernoulli(logits=logits.expand(size))

    def in_steps(self, images=None, batch=1):
        batch = batch if images is None else len(images)
        exists, total = torch.ones(batch), torch.zeros(batch)
        with pyro.plate("batch", batch, dim=-1):
            for t in range(1, self.most + 1):
                with gate(exists):
                    prior = dist.Bernoulli(torch.full((batch,), self.prior))
                    exists = exists * pyro.sample(f"z_pres_{t}", prior)
                with gate(exists):
                    what = pyro.sample(f"z_what_{t}", dist.Normal(torch.zeros(batch), 1.0))
                total = total + exists * what
            small_programs.observe(total[:, None].expand(-1, 6), self.sigma, images)

    def guide_of_steps(self, images, batch=1):
        """Too sure of one object, and of an amplitude that is too small."""
        exists, mean = torch.ones(len(images)), images.flatten(1).mean(1)
        with pyro.plate("batch", len(images), dim=-1):
            for t in range(1, self.most + 1):
                with gate(exists):
                    q = dist.Bernoulli(torch.full_like(mean, 0.8 if t == 1 else 0.1))
                    exists = exists * pyro.sample(f"z_pres_{t}", q)
                with gate(exists):
                    pyro.sample(f"z_what_{t}", dist.Normal(0.5 * mean, 0.3))

    def in_slots(self, images=None, batch=1):
        batch = batch if images is None else len(images)
        zeros = torch.zeros(batch, self.most)
        with pyro.plate("batch", batch, dim=-2):
            with pyro.plate("nodes_1", self.most, dim=-1):
                on = pyro.sample("z_pres_1", dist.Bernoulli(zeros + self.prior))
                with gate(on):
                    what = pyro.sample("z_what_1", dist.Normal(zeros, 1.0))
            mean = (on * what).sum(1).view(-1, 1, 1, 1, 1).expand(-1, 1, *small_programs.PIXELS)
            seen = None if images is None else images.unsqueeze(1)
            pyro.sample("images", dist.Normal(mean, self.sigma).to_event(3), obs=seen)

    def guide_of_slots(self, images, batch=1):
        """Likewise."""
        mean = images.flatten(1).mean(1, keepdim=True).expand(-1, self.most)
        with (
            pyro.plate("batch", len(images), dim=-2),
            pyro.plate("nodes_1", self.most, dim=-1),
        ):
            q = dist.Bernoulli(mean.new_tensor([0.8, 0.1]).expand_as(mean))
            with gate(pyro.sample("z_pres_1", q)):
                pyro.sample("z_what_1", dist.Normal(0.5 * mean, 0.3))

    def joint(self, x):
        """(B, 3) log p(x, n)."""
        on, off = math.log(self.prior), math.log(1 - self.prior)
        prior = [off, on + off, 2 * on]
        if self.plate:
            prior = [2 * off, math.log(2) + on + off, 2 * on]
        terms = []
        for n, log_prior in enumerate(prior):
            covariance = self.sigma**2 * torch.eye(6) + n * torch.ones(6, 6)
            law = dist.MultivariateNormal(torch.zeros(6), covariance)
            terms.append(law.log_prob(x.flatten(1)) + log_prior)
        return torch.stack(terms, 1)

    def number(self, draws):
        """(…, B) number of objects in draws (…, B[, 2])."""
        if self.plate:
            return draws["z_pres_1"].sum(-1)
        return draws["z_pres_1"] * (1 + draws["z_pres_2"])


@pytest.mark.parametrize("sharpness", [4.0, 0.3])
@pytest.mark.parametrize("name", small_programs.ALL)
def test_the_evidence_is_right_from_guides_too_sure_and_too_vague(name, sharpness):
    small = small_programs.ALL[name]
    x = images_of(small, 16)
    error = refined(small, small.guide(sharpness), x).evidence - small.evidence(x)
    assert abs(float(error.mean())) < 0.1
    assert float(error.abs().max()) < 0.5


def test_draws_of_a_gaussian_posterior_have_its_mean_and_deviation():
    small = small_programs.Appearance()
    x = images_of(small, 8)
    z = refined(small, small.guide(4.0), x).draws["z_what"]
    assert z.shape == (CHAINS, 8, 8)
    loc, sd = x.flatten(1).sum(1) / 7, 7**-0.5
    assert ((z.mean((0, 1)) - loc).abs() < 5 * sd / CHAINS**0.5).all()
    assert ((z.flatten(0, 1).std(0) / sd - 1).abs() < 0.2).all()


def test_presences_have_their_table():
    small = small_programs.Presence()
    x = images_of(small, 16)
    draws = refined(small, small.guide(3.0), x).draws
    on = torch.stack([draws[f"z_pres_{t}"] for t in (1, 2, 3)], -1)
    found = (small.states == on[..., None, :]).all(-1).float().mean((0, 1))
    assert ((found - small.joint(x).softmax(1)).mean(0).abs() < 0.05).all()


class Masked(Messenger):
    """Bernoullis carry a mask that takes nothing out."""

    def _pyro_sample(self, msg):
        if isinstance(msg["fn"], dist.Bernoulli):
            msg["fn"] = msg["fn"].mask(torch.ones(msg["fn"].batch_shape, dtype=torch.bool))


def test_a_presence_under_a_mask_is_still_flipped():
    small = small_programs.Presence()
    x = images_of(small, 2)
    with Masked():
        guide = poutine.trace(small.guide(0.2)).get_trace(x)
    program = poutine.trace(poutine.replay(small.program, guide)).get_trace(x)
    assert all(latent.choice == 2 for latent in latents_of(program, guide).values())


@pytest.mark.parametrize("plate", [False, True], ids=["steps", "slots"])
def test_births_and_deaths_keep_the_number_of_objects_and_the_evidence(plate):
    small = Amplitudes(plate)
    with pyro.poutine.trace() as trace:
        small.program(batch=16)
    x = trace.trace.nodes["images"]["value"].reshape(16, *small_programs.PIXELS)
    found = refined(small, small.guide, x, sweeps=30)
    joint = small.joint(x)
    error = found.evidence - joint.logsumexp(1)
    assert abs(float(error.mean())) < 0.15
    assert float(error.abs().max()) < 0.8
    number = small.number(found.draws)
    shares = (number[..., None] == torch.arange(3)).float().mean((0, 1))
    assert ((shares - joint.softmax(1)).mean(0).abs() < 0.05).all()
    assert ((shares - joint.softmax(1)).abs() < 0.25).all()
    assert 0.02 < found.accepted["birth or death"] < 0.9
    assert 0.01 < found.accepted["one as two"] < 0.9


@pytest.mark.parametrize("plate", [False, True], ids=["steps", "slots"])
@pytest.mark.parametrize("move", [objects.Jump, objects.Split, objects.Redraw])
def test_each_move_of_objects_keeps_the_posterior_by_itself(move, plate):
    """Rows that are draws of the posterior stay so: their number of objects, and the sum of the amplitudes."""
    small, number = Amplitudes(plate), 3000
    with pyro.poutine.trace() as trace:
        small.program(batch=number)  # a draw of the joint is one of the posterior of its own image
    nodes = trace.trace.nodes
    x = nodes["images"]["value"].reshape(number, *small_programs.PIXELS)
    target = Target(small.program, small.guide, x, 1)
    start, _ = target.start()
    latents = target.latents
    state = target.state({n: latents[n].front(nodes[n]["value"]) for n in start.values})
    kind, beta = objects.objects_of(target, state)[0], torch.ones(number)
    step = move(target, kind)
    before = small.number(state.values), state.log_p
    moved = torch.zeros(number, dtype=torch.bool)
    for _ in range(4):
        state, _ = step(state, beta)
        moved |= state.log_p != before[1]
    assert moved.float().mean() > 0.05
    for old, new in zip(before, (small.number(state.values), state.log_p), strict=True):
        error = (new.std() ** 2 + old.std() ** 2) ** 0.5 / number**0.5
        assert abs(float(new.mean() - old.mean())) < 4 * float(error) + 1e-6


class Positive:
    """z ~ Exponential(1); six pixels ~ N(z, 1): the posterior is a Gaussian cut at 0."""

    def program(self, images=None, batch=1):
        batch = batch if images is None else len(images)
        with pyro.plate("batch", batch, dim=-1):
            z = pyro.sample("z_what", dist.Exponential(torch.ones(batch)))
            small_programs.observe(z[:, None].expand(-1, 6), 1.0, images)

    def guide(self, images, batch=1):
        with pyro.plate("batch", len(images), dim=-1):
            pyro.sample("z_what", dist.LogNormal(images.new_zeros(len(images)), 0.8))


def test_a_latent_that_cannot_be_negative_moves_in_its_logarithm():
    small, x = Positive(), torch.linspace(-0.5, 2, 8).view(8, 1, 1, 1).expand(-1, 1, 2, 3)
    grid = torch.linspace(1e-4, 12, 20_000)
    density = dist.Normal(grid, 1.0).log_prob(x.flatten(1)[..., None]).sum(1) - grid
    evidence = density.logsumexp(1) + (grid[1] - grid[0]).log()
    mean = (density.softmax(1) * grid).sum(1)
    found = refined(small, small.guide, x, sweeps=30)
    assert found.draws["z_what"].min() > 0
    assert float((found.evidence - evidence).abs().max()) < 0.4
    assert float((found.draws["z_what"].mean((0, 1)) - mean).abs().max()) < 0.15


class Twofold:
    """z is near -1 or 1, a mixture; six pixels ~ N(z, 2²), from a guide that is a mixture, too."""

    def law(self, size, apart, sd):
        components = dist.Normal(torch.tensor([-apart, apart]).expand(size, 2), sd)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(size, 2)), components)

    def program(self, images=None, batch=1):
        batch = batch if images is None else len(images)
        with pyro.plate("batch", batch, dim=-1):
            z = pyro.sample("z_what", self.law(batch, 1.0, 0.5))
            small_programs.observe(z[:, None].expand(-1, 6), 2.0, images)

    def guide(self, images, batch=1):
        with pyro.plate("batch", len(images), dim=-1):
            pyro.sample("z_what", self.law(len(images), 0.7, 0.4))


def test_priors_and_guides_may_be_mixtures():
    small, x = Twofold(), torch.linspace(-1, 1, 6).view(6, 1, 1, 1).expand(-1, 1, 2, 3)
    covariance = 4 * torch.eye(6) + 0.25 * torch.ones(6, 6)
    sides = [dist.MultivariateNormal(torch.full((6,), s), covariance) for s in (-1.0, 1.0)]
    evidence = torch.stack([law.log_prob(x.flatten(1)) for law in sides]).logsumexp(0)
    found = refined(small, small.guide, x)
    assert float((found.evidence - evidence + math.log(2)).abs().max()) < 0.4


def test_annealed_weights_have_tails_that_plain_ones_have_not():
    small = small_programs.Appearance()
    x = images_of(small, 8)
    guide = small.guide(8.0)
    plain = log_weights(small.program, guide, x, 400)
    found = refined(small, guide, x, chains=400, resample=False)
    assert found.weights.shape == plain.shape
    torch.testing.assert_close(iwae(found.weights), found.evidence)
    assert (ess(found.weights) > ess(plain)).float().mean() > 0.8
    assert khat(found.weights).median() < khat(plain).median()


def test_the_best_state_is_never_worse_than_the_draws_it_began_with():
    small = small_programs.Presence()
    x = images_of(small, 16)
    found = refined(small, small.guide(0.2), x, chains=4, tempering=0.0)
    best = small.joint(x).amax(1)
    assert (found.log_p <= best + 1e-4).all()
    assert (found.log_p > best - 1e-4).float().mean() > 0.9
    assert (found.draws_log_p.amax((0, 1)) <= found.log_p + 1e-4).all()
    pres = torch.stack([found.best[f"z_pres_{t}"] for t in (1, 2, 3)], 1)
    torch.testing.assert_close(found.scene.objects.pres, pres)


def test_who_watches_sees_the_best_state_rise_to_the_best_there_is():
    small = small_programs.Presence()
    x = images_of(small, 16)
    seen = list(watch(small.program, small.guide(0.2), x, 1.0, chains=4))
    assert [now.sweeps for now in seen] == list(range(len(seen))) and len(seen) > 2
    assert all((b.log_p >= a.log_p).all() for a, b in pairwise(seen))
    best = small.joint(x).amax(1)
    assert (seen[-1].log_p <= best + 1e-4).all()
    assert (seen[-1].log_p - best).mean() > (seen[0].log_p - best).mean()
    assert seen[-1].best["z_pres_1"].shape == (16,)


def test_images_in_passes_are_images_together():
    small = small_programs.Appearance()
    x = images_of(small, 5)
    found = refined(small, small.guide(2.0), x, rows=2)
    assert found.evidence.shape == (5,)
    assert found.weights.shape == (CHAINS, 5)
    assert found.draws["z_what"].shape == (CHAINS, 8, 5)
    assert found.quantities["centroid"].shape == (CHAINS, 8, 5, 2)
    assert float((found.evidence - small.evidence(x)).abs().max()) < 0.5


def test_a_budget_in_seconds_is_kept():
    small = small_programs.Count()
    found = refined(small, small.guide(), images_of(small, 2), sweeps=None, seconds=1.0)
    assert 1.0 <= found.seconds < 20
    assert found.sweeps >= 1
    assert Budget(seconds=100.0).used < 0.5


def test_what_cannot_be_refined_is_said():
    small = small_programs.Appearance()
    x = images_of(small, 2)
    with pytest.raises(ValueError, match="expected one of them"):
        refine(small.program, small.guide(), x)

    def of_all(images, batch=1):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("batch", len(images)):
            small_programs.observe(z.expand(len(images), 6), 1.0, images)

    def guide(images, batch=1):
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="of all images"):
        refine(of_all, guide, x, sweeps=2)

    def point(images, batch=1):
        with pyro.plate("batch", len(images)):
            pyro.sample("z_what", dist.Delta(torch.zeros(len(images))))

    with pytest.raises(ValueError, match="without a density"):
        refine(small.program, point, x, sweeps=2)
