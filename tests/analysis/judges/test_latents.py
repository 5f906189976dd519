"""Classes that are in latents are told, others are not."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from analysis.judges import latents
from inference.images.worlds import world_dataset


def test_a_class_that_is_in_z_what_is_named_and_one_that_is_not_is_not(monkeypatch):
    monkeypatch.setattr(latents, "STEPS", 250)
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(10, (2000,), generator=generator)
    apart = torch.arange(2000) >= 1500
    code = torch.nn.functional.one_hot(kind, 10) + 0.1 * torch.randn(2000, 10, generator=generator)
    assert latents.accuracy(100 + 1e-3 * code, kind, apart) > 0.99
    noise = torch.randn(2000, 10, generator=generator)
    assert latents.accuracy(noise, kind, apart) < 0.1 + 4 * 0.3 / math.sqrt(500)
    other = torch.where(apart, (kind + 1) % 10, kind)  # other names in those kept apart
    assert latents.accuracy(code, other, apart) < 0.01


@pytest.fixture(scope="module")
def data():
    return world_dataset("shapes2d", 64, seed=0)


class Told(torch.nn.Module):
    """A guide whose z_what_2 are the true shapes of parts, and whose z_what_1 say nothing."""

    def __init__(self, truth, images):
        super().__init__()
        self.truth, self.images = truth, images

    def forward(self, images, batch=1):
        rows = (images[:, None] - self.images).abs().sum((2, 3, 4)).argmin(1)
        shape = self.truth[rows].parts.category.clamp(min=0)
        code = torch.nn.functional.one_hot(shape, 3).float()
        with pyro.plate("batch", len(rows), dim=-2):
            with pyro.plate("nodes_1", 4, dim=-1):
                nothing = torch.zeros(len(rows), 4, 2)
                pyro.sample("z_what_1", dist.Normal(nothing, 1.0).to_event(1))
            with pyro.plate("nodes_2", shape.shape[1], dim=-1):
                pyro.sample("z_what_2", dist.Normal(code, 0.1).to_event(1))


class Shown(torch.nn.Module):
    """A program that returns the true scenes of images."""

    def __init__(self, truth, images):
        super().__init__()
        self.truth, self.images = truth, images

    def forward(self, images=None, batch=1):
        rows = (images[:, None] - self.images).abs().sum((2, 3, 4)).argmin(1)
        return self.truth[rows]


def test_every_level_is_told_from_its_own_latents(data, monkeypatch):
    monkeypatch.setattr(latents, "STEPS", 100)
    truth, images = data.truth(), data.floats()
    pair = Shown(truth, images), Told(truth, images)
    parts = latents.told(*pair, data, level=2)
    assert parts.accuracy == 1 and parts.chance < 0.6
    assert parts.number == int(truth.parts.present[-16:].sum())
    objects = latents.told(*pair, data, level=1)
    assert objects.accuracy <= objects.chance + 4 * math.sqrt(0.25 / objects.number)


def test_what_has_no_classes_is_refused(data):
    truth, images = data.truth(), data.floats()
    with pytest.raises(ValueError, match="no classes at level 3"):
        latents.told(Shown(truth, images), Told(truth, images), data, level=3)
