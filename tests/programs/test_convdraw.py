"""ConvDRAW: its density against a dense one, and what tells it from StructDRAW."""

import pyro
import pytest
import tiny
import torch
from pyro import poutine
from torch.distributions import Normal

from inference.objectives import Objective, cost_terms, log_prob_per_image, per_image
from programs.convdraw import VARIANTS, Local


def build(**changes):
    return tiny.build("convdraw", **changes)


def log_normal(value, raw):
    mean, spread = (half.flatten(1) for half in raw.chunk(2, 1))
    scale = torch.nn.functional.softplus(spread) + 1e-4
    return Normal(mean, scale).log_prob(value).sum(-1)


def lstm(module, x, output, cell):
    both = torch.cat([x, output], 1)
    gates = torch.conv2d(both, module.gates.weight, module.gates.bias, padding=1)
    forget, write, show, new = gates.chunk(4, 1)
    cell = forget.sigmoid() * cell + write.sigmoid() * new.tanh()
    return show.sigmoid() * cell.tanh(), cell


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 3])
def test_program_and_guide_are_the_densities_written_independently(steps):
    pyro.set_rng_seed(1)
    program, guide = build(steps=steps)
    x = torch.rand(2, 1, 32, 32)
    trace = poutine.trace(guide).get_trace(x)
    seen, drawing, watching = guide.encoder(x), program.drawing, guide.watching
    f = h = c = e = ec = torch.zeros_like(seen)
    log_p = log_q = 0.0
    for step in range(1, steps + 1):
        z = trace.nodes[f"z_global_{step}"]["value"][:, 0]
        log_p = log_p + log_normal(z, drawing.prior.layers(h))
        e, ec = lstm(watching.lstm, torch.cat([h, seen, seen - f], 1), e, ec)
        log_q = log_q + log_normal(z, watching.posterior.layers(e))
        h, c = lstm(drawing.lstm, z.view(2, 4, 4, 4), h, c)
        f = f + drawing.out(h)
    log_p = log_p + Normal(program.decoder(f).sigmoid(), 0.2).log_prob(x).sum((1, 2, 3))
    replayed = poutine.trace(poutine.replay(program, trace=trace)).get_trace(x)
    torch.testing.assert_close(log_prob_per_image(replayed), log_p, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(log_prob_per_image(trace), log_q, rtol=1e-4, atol=1e-2)


@torch.no_grad()
def test_a_place_sees_its_neighbours_alone():
    layer = Local(VARIANTS["convdraw"])
    for module in layer.layers:
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x  # which sees all places, one number of each channel
    state = torch.zeros(2, 1, 64, 4, 4)
    state[1, 0, :, 3, 3] = 1.0
    here, there = layer(state).view(2, 64, 4, 4)
    changed = (here - there).abs().amax(0) > 0
    assert changed[1:, 1:].all()
    assert not changed[0].any() and not changed[:, 0].any()


@torch.no_grad()
def test_the_kl_is_nothing_where_both_halves_predict_the_same():
    program, guide = build()
    for head in (program.drawing.prior.layers[-1], guide.watching.posterior.layers[-1]):
        head.weight.zero_()
        head.bias.fill_(0.3)
    traces = lambda: cost_terms(*Objective().traces(program, guide, torch.rand(2, 1, 32, 32)))
    kl = {n: per_image(t) for n, t in traces().items() if n.startswith("kl/")}
    assert len(kl) == 4 and all((t == 0).all() for t in kl.values())
    head.bias[:4] = 0.8
    assert all((per_image(t) > 1).all() for n, t in traces().items() if n.startswith("kl/"))


def test_eight_steps_draw_more_with_the_same_parameters():
    four, eight = (build(steps=VARIANTS[v].steps) for v in ("convdraw", "convdraw8"))
    latents = [
        [n for n in poutine.trace(p).get_trace(batch=1).stochastic_nodes if n.startswith("z_")]
        for p, _ in (four, eight)
    ]
    assert list(map(len, latents)) == [4, 8]
    shapes = [[p.shape for m in pair for p in m.parameters()] for pair in (four, eight)]
    assert shapes[0] == shapes[1]
