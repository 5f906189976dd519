"""Three programs whose posteriors are known, with exact guides that can be made overconfident.

Every guide takes `sharpness`: 1 is the posterior; above, its log-density is multiplied by that (a Gaussian's
standard deviation divided by its root, a mass renormalised). Images are (B, 1, 2, 3), six pixels.
"""

import itertools
import math

import pyro
import pyro.distributions as dist
import torch

from programs.blocks.distributions import gate
from programs.scene import Nodes, Scene

PIXELS = (1, 2, 3)


def observe(mean, sigma, images):
    """x ~ N(mean, sigma²), six pixels."""
    mean = mean.view(-1, *PIXELS)
    return pyro.sample("images", dist.Normal(mean, sigma).to_event(3), obs=images)


def as_scene(image, pres, x):
    """Nodes (B, N) with their centres at (x, 0)."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    pose = torch.stack([torch.stack([one, zero, x], -1), torch.stack([zero, one, zero], -1)], -2)
    return Scene(image.view(-1, *PIXELS), (Nodes(pres, pose, zero, zero.long()),))


class Appearance:
    """z ~ N(0, 1); six pixels ~ N(z, σ²). The posterior is Gaussian."""

    sigma = 1.0

    def program(self, images=None, batch=1):
        with pyro.plate("batch", batch if images is None else len(images), dim=-1):
            z = pyro.sample("z_what", dist.Normal(torch.zeros(()), 1.0))
            mean = z[:, None].expand(-1, 6)
            observe(mean, self.sigma, images)
        return as_scene(mean, torch.ones_like(z)[:, None], z[:, None])

    def guide(self, sharpness=1.0):
        def guide(images, batch=1):
            x = images.flatten(1)
            precision = 1 + x.shape[1] / self.sigma**2
            with pyro.plate("batch", len(x), dim=-1):
                loc = x.sum(1) / self.sigma**2 / precision
                pyro.sample("z_what", dist.Normal(loc, (precision * sharpness) ** -0.5))

        return guide

    def evidence(self, images):
        """(B,) log N(x | 0, σ² 1 + 11ᵀ)."""
        covariance = self.sigma**2 * torch.eye(6) + torch.ones(6, 6)
        return dist.MultivariateNormal(torch.zeros(6), covariance).log_prob(images.flatten(1))


class Presence:
    """Three templates that overlap, each present or absent; the posterior is a table of eight."""

    sigma, prior = 0.7, 0.4
    templates = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0.0, 0, 1, 1, 1, 0], [0.0, 0, 0, 0, 1, 1]])
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))

    def program(self, images=None, batch=1):
        batch = batch if images is None else len(images)
        with pyro.plate("batch", batch, dim=-1):
            prior = dist.Bernoulli(torch.full((batch,), self.prior))
            z = torch.stack([pyro.sample(f"z_pres_{t}", prior) for t in (1, 2, 3)], 1)
            mean = z @ self.templates
            observe(mean, self.sigma, images)
        return as_scene(mean, z, torch.zeros_like(z))

    def joint(self, images):
        """(B, 8) log p(x, z) of every state."""
        means = self.states @ self.templates
        likelihood = dist.Normal(means, self.sigma).log_prob(images.flatten(1)[:, None]).sum(-1)
        return likelihood + dist.Bernoulli(torch.tensor(self.prior)).log_prob(self.states).sum(-1)

    def guide(self, sharpness=1.0):
        def guide(images, batch=1):
            mass = (sharpness * self.joint(images)).softmax(1)
            with pyro.plate("batch", len(images), dim=-1):
                for t in range(3):
                    on = (mass * self.states[:, t]).sum(1) / mass.sum(1)
                    z = pyro.sample(f"z_pres_{t + 1}", dist.Bernoulli(on.clamp(1e-6, 1 - 1e-6)))
                    mass = mass * (self.states[:, t] == z[:, None])

        return guide

    def evidence(self, images):
        """(B,)"""
        return self.joint(images).logsumexp(1)


class Count:
    """As many objects as a coin says, at most four; six pixels ~ N(their number, σ²)."""

    sigma, prior, most = 2.0, 0.6, 4

    def program(self, images=None, batch=1):
        batch = batch if images is None else len(images)
        with pyro.plate("batch", batch, dim=-1):
            exists = torch.ones(batch)
            steps = []
            for t in range(1, self.most + 1):
                with gate(exists):
                    coin = dist.Bernoulli(torch.full((batch,), self.prior))
                    exists = exists * pyro.sample(f"z_pres_{t}", coin)
                steps.append(exists)
            pres = torch.stack(steps, 1)
            mean = pres.sum(1, keepdim=True).expand(-1, 6)
            observe(mean, self.sigma, images)
        return as_scene(mean, pres, torch.zeros_like(pres))

    def joint(self, images):
        """(B, 5) log p(x, n) of every count."""
        n = torch.arange(self.most + 1.0)
        likelihood = dist.Normal(n[:, None], self.sigma).log_prob(images.flatten(1)[:, None])
        stop = torch.where(n < self.most, math.log(1 - self.prior), 0.0)
        return likelihood.sum(-1) + n * math.log(self.prior) + stop

    def guide(self, sharpness=1.0):
        def guide(images, batch=1):
            mass = (sharpness * self.joint(images)).softmax(1)
            with pyro.plate("batch", len(images), dim=-1):
                exists = torch.ones(len(images))
                for t in range(1, self.most + 1):
                    on = mass[:, t:].sum(1) / mass[:, t - 1 :].sum(1)
                    with gate(exists):
                        coin = dist.Bernoulli(on.clamp(1e-6, 1 - 1e-6))
                        exists = exists * pyro.sample(f"z_pres_{t}", coin)

        return guide

    def evidence(self, images):
        """(B,)"""
        return self.joint(images).logsumexp(1)


ALL = {"appearance": Appearance(), "presence": Presence(), "count": Count()}


def simulate(small, number):
    """Images (number, 1, 2, 3) and Scenes from the prior."""
    trace = pyro.poutine.trace(small.program).get_trace(batch=number)
    return trace.nodes["images"]["value"], trace.nodes["_RETURN"]["value"]


def conjugate(images=None, batch=1):
    """A number per image, N(0, 1), seen with noise of deviation 0.5."""
    number = batch if images is None else len(images)
    with pyro.plate("batch", number, dim=-1):
        z = pyro.sample("z_what", dist.Normal(torch.zeros(number), 1.0))
        pyro.sample("images", dist.Normal(z, 0.5), obs=images)


def posterior(scale):
    """Guides of `conjugate` at the posterior's mean; it is the posterior at a scale of 0.2 ** 0.5."""

    def guide(images, batch=1):
        with pyro.plate("batch", len(images), dim=-1):
            pyro.sample("z_what", dist.Normal(images / 1.25, scale))

    return guide
