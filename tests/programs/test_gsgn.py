"""GSGN's memory of templates (appendix C), and where its guide looks."""

import pyro
import pytest
import tiny
import torch

from analysis.plots import memory_figure
from inference.objectives import Objective, cost_terms, per_image
from programs.blocks.distributions import gaussian
from programs.gsgn import Config


@pytest.fixture
def pair():
    pyro.set_rng_seed(0)
    return tiny.build("gsgn", "mem")


def test_a_template_alone_decides_the_shape(pair):
    memory = pair[0].leaf_decoder
    what = torch.randn(6, memory.colours.seed.in_features)
    cat = torch.eye(8)[[0, 0, 0, 3, 3, 5]]
    colours, mask = memory(what, cat).split([3, 1], -3)
    assert (mask[0] == mask[1]).all() and (mask[3] == mask[4]).all()
    assert (mask[0] - mask[3]).abs().max() > 1e-4 and (mask[3] - mask[5]).abs().max() > 1e-4
    assert (colours[0] - colours[1]).abs().max() > 1e-4
    assert (colours <= mask).all()  # I ⊙ h, with h at most 1


def test_the_memory_is_shown_by_samples_of_each_template(pair):
    samples = pair[0].memory.samples(3)
    assert samples.shape == (8, 3, 4, 8, 8)
    assert (samples[:, :1, -1] == samples[:, 1:, -1]).all()  # one shape a template
    assert (samples[:, 0, :3] != samples[:, 1, :3]).any()
    figure = memory_figure(samples.detach())
    assert len(figure.axes) == 8 * 4
    assert tiny.build("gsgn")[0].memory is None


def test_parts_show_their_address(pair):
    program, _ = pair
    scene = program(batch=8)
    assert scene.objects.category is None
    parts = scene.parts
    assert ((parts.category >= 0) == (parts.pres > 0.5)).all()
    assert parts.category.max() < program.config.memory


def test_the_address_costs_what_it_says(pair):
    """KL(q(z_cat) ‖ p(z_cat)) of existing leaves, from the two tables of logits."""
    program, guide = pair
    x = torch.rand(3, 3, 32, 32)
    program_trace, guide_trace = Objective().traces(program, guide, x)
    found = per_image(cost_terms(program_trace, guide_trace)["kl/z_cat_2"])
    p, q = (t.nodes["z_cat_2"]["fn"].logits.log_softmax(-1) for t in (program_trace, guide_trace))
    exists = guide_trace.nodes["z_pres_1"]["value"].repeat_interleave(4, -1)
    exists = exists * guide_trace.nodes["z_pres_2"]["value"]
    wanted = (exists * (q.exp() * (q - p)).sum(-1)).sum(-1)
    assert wanted.max() > 0 and torch.allclose(found, wanted.flatten(), atol=1e-5)


def test_the_posterior_of_what_hangs_on_the_address(pair):
    """q(z_what | M[z_cat], x) is multiplied with that template's prior (12)."""
    guide = pair[1]
    x = torch.rand(2, 3, 32, 32)
    with pyro.poutine.trace() as first:
        guide(x)
    other = {"z_cat_2": first.trace.nodes["z_cat_2"]["value"].roll(1, -1)}
    kept = {n: s["value"] for n, s in first.trace.nodes.items() if s["type"] == "sample"}
    kept = {n: v for n, v in kept.items() if n.startswith("z_") and not n.endswith("_2")}
    pose = {n: first.trace.nodes[n]["value"] for n in ("z_pres_2", "z_where_2", "z_scale_2")}
    pose["z_theta_2"] = first.trace.nodes["z_theta_2"]["value"]
    with pyro.poutine.trace() as second, pyro.poutine.condition(data=kept | pose | other):
        guide(x)
    what = [t.trace.nodes["z_what_2"]["fn"].base_dist.loc for t in (first, second)]
    assert (what[0] - what[1]).abs().max() > 1e-4


def test_looks_may_begin_narrow():
    """The deviations of what is seen of objects and parts, before they meet the prior; not the root's."""
    torch.manual_seed(0)
    _, guide = tiny.build("gsgn", what_start=-4.0)
    heads = guide.what_heads
    root, *others = (head.net(torch.zeros(1, head.net[0].in_features)) for head in heads)
    assert gaussian(root).base_dist.scale.mean() > 0.5
    for raw in others:
        assert 0.01 < gaussian(raw).base_dist.scale.mean() < 0.03


def test_angles_are_read_from_windows_at_angle_0():
    """Objects' angles do not depend on the angle drawn, and parts' are as without `upright`."""
    torch.manual_seed(0)
    _, guide = tiny.build("gsgn", upright=True)
    torch.nn.init.normal_(guide.turn_heads[0][-1].weight)
    x = torch.rand(2, 3, 32, 32)
    with pyro.poutine.trace() as first:
        guide(x)
    values = {n: s["value"] for n, s in first.trace.nodes.items() if n.startswith("z_")}
    objects = {n: v for n, v in values.items() if n in ("z_what_0", "z_where_1", "z_scale_1")}
    other = {"z_pres_1": values["z_pres_1"], "z_theta_1": values["z_theta_1"] + 0.5}
    with pyro.poutine.trace() as second, pyro.poutine.condition(data=objects | other):
        guide(x)
    theta, what = (
        [t.trace.nodes[n]["fn"] for t in (first, second)] for n in ("z_theta_1", "z_what_1")
    )
    assert torch.allclose(theta[0].loc, theta[1].loc)
    assert (what[0].base_dist.loc - what[1].base_dist.loc).abs().max() > 1e-4
    moved = {"z_pres_1": values["z_pres_1"], "z_where_1": values["z_where_1"] + 0.5}
    with pyro.poutine.trace() as third, pyro.poutine.condition(data=objects | moved):
        guide(x)
    assert (third.trace.nodes["z_theta_1"]["fn"].loc - theta[0].loc).abs().max() > 1e-4


def test_a_graph_of_leaves_alone_has_nothing_to_turn():
    with pytest.raises(ValueError, match="no inner nodes"):
        Config(
            children=(4,),
            z_what=(8, 8),
            crops=(16,),
            scale=((0.3, 0.2),),
            scale_axes=(2,),
            scale_start=(0.0,),
            upright=True,
        )
