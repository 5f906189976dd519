"""ECON's Table 1: what programs can do, and programs that cannot."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from readme import TEXTS
from tiny import build, images

from analysis.papers.econ import abilities
from programs.blocks.render import pose
from programs.scene import Nodes, Scene

EXPECTED = {name: dict.fromkeys(abilities.TEXTS, True) for name in abilities.PROGRAMS}
for additive in ("air", "discrete_air"):  # objects add up: none lies in front
    EXPECTED[additive]["order"] = False
# what is seen of one depends on all before it, or none is apart
for joint in ("genesis", "convdraw", "vae"):
    EXPECTED[joint] |= {"recombine": False, "order": False}
for whole in ("convdraw", "vae"):
    EXPECTED[whole]["decompose"] = False


@pytest.mark.parametrize("variant", abilities.PROGRAMS)
def test_what_the_programs_can_do(variant):
    pyro.set_rng_seed(0)
    program, guide = build(abilities.PROGRAMS[variant], variant)
    x = images(2, program)
    assert abilities.abilities(program.eval(), guide.eval(), x) == EXPECTED[variant]


def test_the_readme_has_the_table():
    assert abilities.table(EXPECTED) in TEXTS["analysis/papers/econ/README.md"]


class Halves:
    """Two objects, the left half of an 8 by 8 image and the right, as grey as their latents say.

    Args:
        mixed: both are as grey as both say.
        scope: the left one is seen only where the image is bright, which no prior knows.
    """

    def __init__(self, mixed=False, scope=False):
        self.mixed, self.scope = mixed, scope

    def __call__(self, images=None, batch=1):
        batch = batch if images is None else len(images)
        with pyro.plate("batch", batch, dim=-1):
            z = [pyro.sample(f"z_what_{t}", dist.Normal(torch.zeros(()), 1.0)) for t in (1, 2)]
        grey = torch.stack(z, 1).sigmoid()
        if self.mixed:
            grey = grey.mean(1, keepdim=True).expand(-1, 2)
        colour = grey[..., None, None, None].expand(-1, -1, 3, 4, 4)
        mask = torch.zeros(batch, 2, 8, 8)
        mask[:, 0, :, :4] = mask[:, 1, :, 4:] = 1
        if self.scope:
            mask[:, 0] *= images.mean(1) > 0.5
        image = (mask[:, :, None] * grey[..., None, None, None]).sum(1).expand(-1, 3, -1, -1)
        pyro.sample("images", dist.Normal(image, 0.1).to_event(4), obs=images)
        centres = torch.tensor([[-0.5, 0.0], [0.5, 0.0]]).expand(batch, 2, 2)
        places = pose(centres, torch.tensor([0.5, 1.0]), torch.zeros(batch, 2))
        ones = torch.ones(batch, 2)
        patch = torch.cat([colour, torch.ones_like(colour[:, :, :1])], 2)
        parent = torch.zeros(batch, 2, dtype=torch.int64)
        nodes = Nodes(ones, places, ones, parent, mask=mask, shape=mask, patch=patch)
        return Scene(image, (nodes,))


def guide(read):
    """A posterior of `Halves` whose means are `read` of the images: (B, C, H, W) -> (B,)."""

    def sample(images, batch=1):
        with pyro.plate("batch", len(images), dim=-1):
            for t in (1, 2):
                pyro.sample(f"z_what_{t}", dist.Normal(read(images), 0.1))

    return sample


SEES = guide(lambda images: images.mean((1, 2, 3)))
X = torch.linspace(0, 1, 3 * 3 * 64).view(3, 3, 8, 8)


def test_objects_of_their_own_latents():
    assert abilities.decomposes(Halves(), SEES, X)
    assert abilities.generates(Halves(), SEES, X)
    assert abilities.recombines(Halves())
    assert abilities.amortizes(Halves(), SEES, X)


def test_one_representation_of_all_is_no_decomposition():
    assert not abilities.decomposes(Halves(mixed=True), SEES, X)
    assert not abilities.recombines(Halves(mixed=True))


def test_what_needs_an_image_does_not_generate():
    assert not abilities.generates(Halves(scope=True), SEES, X)


def test_a_latent_without_a_prior_is_not_generated():
    def more(images, batch=1):
        SEES(images)
        pyro.sample("z_mask", dist.Normal(torch.zeros(len(images)), 1.0))

    assert not abilities.generates(Halves(), more, X)


def test_halves_in_the_other_order_would_be_the_same_picture_but_for_their_places():
    """Swapping the steps' latents swaps the greys, so the picture is another; equal greys would not be."""
    assert abilities.orders(Halves())
    assert not abilities.orders(Halves(mixed=True))


@pytest.mark.parametrize(
    "read",
    [
        lambda images: torch.zeros(len(images)),
        lambda images: images.mean().expand(len(images)),
        lambda images: images.mean((1, 2, 3)) + len(images),
    ],
    ids=["blind", "of the batch", "of its length"],
)
def test_who_does_not_read_every_image_by_itself_does_not_amortize(read):
    assert not abilities.amortizes(Halves(), guide(read), X)
