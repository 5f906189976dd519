"""Draws of the guide and of the prior, and the mode."""

import time

import pyro
import pyro.distributions as dist
import pytest
import small_programs
import tiny
import torch

from analysis.posterior import (
    Mode,
    draw,
    draw_prior,
    infer,
    modes,
    passes,
    prior_scenes,
)
from inference.images.dataset import Dataset


def simulate(small, number):
    return small_programs.simulate(small, number)[0]


def test_draws_are_of_the_guide_and_scored_right():
    small = small_programs.Appearance()
    x = simulate(small, 3)
    d = draw(small.program, small.guide(), x, 500, pictures=2, rows=64)
    z = d.latents["z_what"]
    loc, sd = x.flatten(1).sum(1) / 7, 7**-0.5
    assert z.shape == (500, 3)
    assert ((z.mean(0) - loc).abs() < 4 * sd / 500**0.5).all()
    likelihood = dist.Normal(z[..., None], 1.0).log_prob(x.flatten(1)).sum(-1)
    torch.testing.assert_close(d.log_likelihood, likelihood)
    torch.testing.assert_close(d.log_p, likelihood + dist.Normal(0.0, 1.0).log_prob(z))
    torch.testing.assert_close(d.log_q, dist.Normal(loc, sd).log_prob(z))
    torch.testing.assert_close(d.quantities["centroid"][..., 0], z)
    assert d.pictures.shape == (500, 2, 1, 2, 3)
    error = (2 / 500) ** 0.5  # a pixel's variance is at most 1 + 1/7
    assert ((d.pictures.mean((0, 2, 3, 4)) - loc[:2]).abs() < 4 * error).all()
    assert abs(float((d.pictures[:, 0] - z[:, 0].view(-1, 1, 1, 1)).var()) - 1) < 0.15
    torch.testing.assert_close(d.replicated["brightness"][:, :2], d.pictures.mean((2, 3, 4)))


def test_of_several_draws_each_image_keeps_the_most_probable():
    small = small_programs.Presence()
    x = simulate(small, 64)
    joint = small.joint(x)
    found = infer(small.program, small.guide(0.3), x, draws=60, rows=20).objects.pres
    state = (small.states == found[:, None]).all(-1).float().argmax(1)
    # a state that the blurred guide draws with probability p is missed in 60 draws with (1 - p)^60
    likely = (0.3 * joint).softmax(1).amax(1) > 0.15
    assert likely.sum() > 32
    assert (state == joint.argmax(1))[likely].all()
    few = infer(small.program, small.guide(0.3), x, draws=1).objects.pres
    one = (small.states == few[:, None]).all(-1).float().argmax(1)
    assert (one != joint.argmax(1)).any()


def test_draws_of_an_image_are_refused_where_they_mean_nothing():
    small = small_programs.Appearance()
    x = simulate(small, 2)
    with pytest.raises(ValueError, match="draws=0"):
        infer(small.program, small.guide(), x, draws=0)
    with pytest.raises(ValueError, match="draws are hard"):
        infer(small.program, small.guide(), x, soft=True, draws=2)


def test_the_prior_is_drawn_by_the_program_alone():
    small = small_programs.Count()
    d = draw_prior(small.program, 600, rows=250)
    n = d.quantities["n_objects"][:, 0]
    assert d.pictures.shape == (600, 1, 1, 2, 3)
    mass = [0.4 * 0.6**k for k in range(4)] + [0.6**4]
    for k, p in enumerate(mass):
        error = (p * (1 - p) / 600) ** 0.5
        assert abs(float((n == k).float().mean()) - p) < 4 * error
    torch.testing.assert_close(d.log_p - d.log_q, d.log_likelihood)
    assert d.latents["z_pres_1"].dtype == torch.int8


def test_a_program_without_images_is_told_so():
    def program(images=None, batch=1):
        with pyro.plate("batch", batch):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"no site 'images'; this program samples \['z'\]"):
        draw_prior(program, 2)


def test_many_draws_cost_less_than_a_loop():
    small = small_programs.Presence()
    x, guide = simulate(small, 16), small.guide()
    pyro.enable_validation(False)

    def seconds(run):
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    def loop():
        for _ in range(200):
            draw(small.program, guide, x, 1)

    together = min(seconds(lambda: draw(small.program, guide, x, 200)) for _ in range(3))
    assert seconds(loop) > 10 * together


# ArviZ


def test_a_tie_is_absent_at_the_mode():
    """Torch's own mode of a Bernoulli of 1/2 is NaN."""
    with Mode():
        value = pyro.sample("z_pres", dist.Bernoulli(torch.tensor([0.4, 0.5, 0.6])))
    assert value.tolist() == [0.0, 0.0, 1.0]


def test_gradients_are_on_while_draws_are_read_and_after_an_error():
    """Else a failed measurement, whose traceback lives on in a notebook, would stop the next training."""
    small = small_programs.Appearance()
    x = simulate(small, 3)
    for reading in (
        passes(small.program, small.guide(), x, 3),
        modes(small.program, small.guide(), x),
    ):
        next(reading)
        assert torch.is_grad_enabled()


def test_scenes_of_the_prior_are_drawn_some_at_a_time():
    """Without a graph, and by the handlers that are around them."""
    program, _ = tiny.build("vae", "vae")
    torch.manual_seed(0)
    parts = [*prior_scenes(program, 5, rows=2)]
    assert [len(scene) for scene in parts] == [2, 2, 1]
    assert not any(scene.image.requires_grad for scene in parts) and torch.is_grad_enabled()
    assert (parts[0].image[0] - parts[0].image[1]).abs().max() > 0
    with Mode():
        same = torch.cat([scene.image for scene in prior_scenes(program, 3, rows=2)])
    torch.testing.assert_close(same, same[:1].expand_as(same))


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_data_sets_images_are_floats_of_0_to_1(device):
    data = Dataset(torch.arange(256, dtype=torch.uint8).view(64, 1, 2, 2), {})
    x = data.floats(device)
    assert x.dtype == torch.float32 and x.shape == (64, 1, 2, 2)
    assert (255 * x).round().flatten().tolist() == list(range(256))
    assert torch.equal(data.floats(number=3), x[:3])
    read = Dataset(data.images.numpy(), {})  # as one that is mapped from disk
    assert torch.equal(read.floats(), x)
