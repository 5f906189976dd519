"""ECON's regions, bound and competition, against what is written down independently here."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import tiny
import torch
from pyro import poutine
from torch.nn import functional as F

from analysis.posterior import Mode, infer
from guides.econ import Rows, Verdict
from inference.estimators import Fix, Relax
from inference.estimators import estimator as make_estimator
from inference.objectives import Objective, cost_terms, log_prob_per_image, per_image
from inference.plan import plan
from inference.trainer import Training
from programs.blocks.distributions import LayeredPixels
from programs.blocks.experts import ExpertConv
from programs.econ import SPAN

TINY = {"size": 2, "layers": 2, "experts": 2, "features": 4, "blocks": 1, "attention": (4,)}
GIVEN_WINNERS = Objective({name: torch.tensor(w) for name, w in
                           (("z_cat*", 0.0), ("z_what*", 0.5), ("z_mask*", 2.0))})  # fmt: skip


def pair(**changes):
    return tiny.build("econ", **{"size": 16, "patch": 1, **changes})


def traces(program, guide, x):
    trace = poutine.trace(guide).get_trace(x)
    return poutine.trace(poutine.replay(program, trace=trace)).get_trace(x), trace


def value(trace, name):
    """Without the plates' empty dimensions."""
    return (
        trace.nodes[name]["value"].squeeze(-2).squeeze(-2)
        if "mask" not in name
        else trace.nodes[name]["value"]
    )


@torch.no_grad()
@pytest.mark.parametrize("size", [16, 32])
def test_regions_sum_to_one_and_the_composite_is_the_mean_of_the_image(size):
    program, guide = pair(size=size)
    x = torch.rand(3, 3, size, size)
    trace, q = traces(program, guide, x)
    scope, canvas, total = torch.ones(3, size, size), torch.zeros(3, 3, size, size), 0
    painted = torch.zeros(3, 3, size, size)
    layers = []
    assert "z_mask_1" not in {**q.nodes, **trace.nodes}  # footnote 2
    for t in (4, 3, 2, 1):
        mask = value(q, f"z_mask_{t}") if t > 1 else torch.ones(3, size, size)
        colours, _ = program.decoder(value(q, f"z_what_{t}"), value(q, f"z_cat_{t}"))
        total, canvas = total + scope * mask, canvas + (scope * mask)[:, None] * colours
        scope = scope * (1 - mask)
        layers.append((mask[:, None], colours))
    for mask, colours in reversed(layers):  # section 2: place on canvas, from the back
        painted = mask * colours + (1 - mask) * painted
    assert (total == 1).all()
    image = trace.nodes["_RETURN"]["value"].image
    torch.testing.assert_close(image, canvas)
    torch.testing.assert_close(image, painted)
    torch.testing.assert_close(trace.nodes["images"]["fn"].mean[:, 0, 0], canvas)


@torch.no_grad()
def test_a_sampled_scene_is_painted_from_the_back_on_its_background():
    program, _ = pair()
    trace = poutine.trace(program).get_trace(batch=4)
    painted, _ = program.decoder(value(trace, "z_what_1"), value(trace, "z_cat_1"))
    for t in (2, 3, 4):
        colours, _ = program.decoder(value(trace, f"z_what_{t}"), value(trace, f"z_cat_{t}"))
        mask = value(trace, f"z_mask_{t}")[:, None]
        painted = mask * colours + (1 - mask) * painted
    torch.testing.assert_close(trace.nodes["_RETURN"]["value"].image, painted)


def test_the_bound_is_that_of_an_enumeration_by_hand():
    """2 experts, 2 layers, 4 pixels: every winner and every mask, z held at its mean."""
    program, guide = pair(**TINY)
    deviation = torch.tensor(1e-5)
    encoder = guide.encoder.forward
    guide.encoder.forward = lambda *a: (loc := encoder(*a)[0], deviation.expand_as(loc))
    x = torch.rand(2, 3, 2, 2)
    estimator = make_estimator("enumerate")
    estimator.prepare(program, guide, x)
    assert estimator.states == 2 * 2 * 16
    with torch.no_grad():
        _, terms = estimator(program, guide, x, Objective())
        expected = sum(-bound_by_hand(program, guide, image, deviation) for image in x)
    assert float(sum(terms.values())) == pytest.approx(float(expected), rel=1e-4)


def kl_by_hand(a, m):
    """Of Bernoullis of probabilities `a` and `m`."""
    ones = torch.special.xlogy(a, a) - a * m.log()
    return ones + torch.special.xlog1py(1 - a, -a) - torch.special.xlog1py(1 - a, -m)


def bound_by_hand(program, guide, image, deviation):
    """E_q log p(x, k, z, m) - log q(k, z, m) of an image (3, 2, 2), in loops over what is discrete."""
    x, total = image[None], 0.0

    def bernoulli(p, m):  # hidden pixels included: they sum out
        return torch.where(m > 0.5, p, 1 - p)

    def step(scope, k, last):
        cat = F.one_hot(torch.tensor([k]), 2).float()
        attended = torch.ones(2, 2)
        if not last:
            seed, _, _ = guide.compete(x, scope[None], rest[None], False)
            embedding = guide.embed(x, scope[None], cat)
            attended = guide.attention.near(embedding, seed, cat)[0].sigmoid()
            first = guide.encoder(x, (scope * attended)[None], cat)[0]
            shape = program.decoder(first, cat)[1][0].sigmoid()
            both, neither = attended * shape**0.5, (1 - attended) * (1 - shape) ** 0.5
            attended = both / (both + neither)
        loc = guide.encoder(x, (scope * attended)[None], cat)[0]
        colours, shape = program.decoder(loc, cat)
        kl_z = (0.5 * (loc**2 + deviation**2 - 1) - deviation.log()).sum()
        return attended, kl_z, colours[0], shape[0].sigmoid()

    def winners(scope, last):
        costs = []
        for k in (0, 1):
            attended, _, colours, shape = step(scope, k, last)
            kl = 0 if last else kl_by_hand(attended, shape)
            paid = (scope * (attended * errors(colours) + kl)).sum()
            few = 4 * 10 / 1024  # nats per pixel
            costs.append((paid + few) / ((scope * attended * rest).sum() + few))
        return (-10 * torch.stack(costs).log()).softmax(0)

    def errors(colours):
        return ((image - colours) ** 2).sum(0) / (2 * 0.1**2)

    alone = [errors(step(torch.ones(2, 2), k, True)[2]) for k in (0, 1)]
    rest = min(alone, key=lambda e: float(e.sum()))
    masks = [torch.tensor(bits).view(2, 2) for bits in itertools.product([0.0, 1.0], repeat=4)]
    everything = torch.ones(2, 2)
    for k2, m2 in itertools.product((0, 1), masks):
        q2 = winners(everything, False)
        attended, kl2, colours2, shape2 = step(everything, k2, False)
        share = q2[k2] * bernoulli(attended, m2).prod()
        if share == 0:
            continue
        scope = everything - m2
        for k1 in (0, 1):
            q1 = winners(scope, True)
            _, kl1, colours1, _ = step(scope, k1, True)
            mean = m2 * colours2 + scope * colours1
            squares = ((image - mean) / 0.1) ** 2
            log_p = -0.5 * squares.sum() - 12 * math.log(0.1 * math.sqrt(2 * math.pi))
            log_p = log_p + bernoulli(shape2, m2).log().sum()
            log_q = bernoulli(attended, m2).log().sum() + q2[k2].log() + q1[k1].log()
            total = total + share * q1[k1] * (log_p + 2 * math.log(0.5) - log_q - kl2 - kl1)
    return total


def test_a_decoder_pays_nothing_for_what_is_hidden():
    """The loss is indifferent to shapes behind what lies in front, and only there."""
    program, guide = pair()
    x = torch.rand(2, 3, 16, 16)
    front = torch.zeros(2, 16, 16)
    front[:, 4:12, 4:12] = 1
    trace = poutine.trace(guide).get_trace(x)
    for name, mask in {"z_mask_4": front, "z_mask_3": 0 * front, "z_mask_2": 0 * front}.items():
        trace.nodes[name]["value"] = mask
    shapes, decode = [], program.decoder.forward

    def watched(*arguments):
        colours, shape = decode(*arguments)
        shapes.append(shape.detach().requires_grad_())
        return colours, shapes[-1]

    program.decoder.forward = watched
    replayed = poutine.trace(poutine.replay(program, trace=trace)).get_trace(x)
    (-log_prob_per_image(replayed).sum()).backward()
    first, *others, last = (shape.grad for shape in shapes)
    assert last is None  # m_1 = 1
    assert (first != 0).all()
    for gradient in others:
        assert (gradient[:, 4:12, 4:12] == 0).all()
        assert (gradient[front == 0] != 0).all()


def test_closed_forms_count_the_scope_alone():
    program, guide = pair(layers=3)
    x = torch.rand(2, 3, 16, 16)
    front = torch.zeros(2, 16, 16)
    front[:, :, :8] = 1
    with Fix({"z_mask_3": front}):
        terms = cost_terms(*Objective().traces(program, guide, x))
    cost = terms["kl/z_mask_2"].cost
    assert cost.shape == (2, 16, 16)
    assert (cost[:, :, :8] == 0).all() and (cost[:, :, 8:] > 0).all()


def test_means_in_the_place_of_masks_give_the_papers_objective():
    """Eqs. 10 to 12 by hand, with soft scopes, given who won."""
    program, guide = pair()
    guide.sharpness.fill_(0.01)
    x = torch.rand(2, 3, 16, 16)
    trainer = make_estimator("z_cat*=competition,z_mask*=mean")
    trainer.prepare(program, guide, x)
    with Relax(trainer.methods, trainer.temperature), torch.no_grad():
        program_trace, trace = GIVEN_WINNERS.traces(program, guide, x)
        terms = cost_terms(program_trace, trace)
    scope, expected = torch.ones(2, 16, 16), {"images": 0.0}
    e = guide.rest(x, scope)
    for t in (4, 3, 2, 1):
        cat, z = value(trace, f"z_cat_{t}"), value(trace, f"z_what_{t}")
        with torch.no_grad():
            seed, _, _ = guide.compete(x, scope, e, t == 1)
            embedding = None if t == 1 else guide.embed(x, scope, cat)
            logits, (loc, scale) = guide.explain(Rows(x, scope, cat, embedding), seed, 2)
            colours, shape = program.decoder(z, cat)
        a, m = logits.sigmoid().double(), shape.sigmoid().double()
        assert t > 1 or (a == 1).all()
        squares = ((x - colours) ** 2).sum(1) / (2 * 0.1**2)
        constant = 3 * math.log(0.1 * math.sqrt(2 * math.pi))
        expected["images"] += (scope * a * (squares + constant)).sum((1, 2))
        expected[f"kl/z_what_{t}"] = 0.5 * (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum(1)
        if t > 1:
            expected[f"kl/z_mask_{t}"] = 2.0 * (scope * kl_by_hand(a, m)).sum((1, 2))
        expected[f"kl/z_cat_{t}"] = torch.zeros(2)
        scope = scope * (1 - a).float()
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        torch.testing.assert_close(
            per_image(term).double(), expected[name].double(), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("name, learns", [("competition", False), ("nvil", True), ("gumbel", True)])
def test_of_a_competition_winners_learn_or_also_who_wins(name, learns):
    """The third expert never wins an object; only where winners' probabilities are learned it has a gradient.

    Backgrounds have no price, and attention is for objects alone.
    """
    program, guide = pair(experts=3)
    x = torch.rand(2, 3, 16, 16)
    trainer = make_estimator(f"z_cat*={name},z_mask*=mean")
    trainer.prepare(program, guide, x)
    guide.sharpness.fill_(1e-3)
    guide.price.copy_(torch.tensor([0.0, 0.0, 8.0 if learns else 100.0]))
    trainer(program, guide, x, Objective())[0].backward()
    others = (program.decoder, guide.encoder) if learns else ()
    for module in (guide.attention, *others):
        conv = next(m for m in module.modules() if isinstance(m, ExpertConv))
        first, second, third = conv.weight.grad.abs().amax(1)
        assert max(first, second) > 0
        assert (third > 0) == learns


def test_with_a_ground_of_its_own_the_background_has_another_prior_than_objects():
    program, _ = tiny.build("econ", learned=1, ground=True)
    number = program.config.experts
    with torch.no_grad():
        program.what_prior.loc.copy_(torch.arange(2.0 * number)[:, None])
    cat = torch.eye(number)[:, None, None]
    objects, ground = (program.p_what(t, cat).mean[:, 0, 0, 0].tolist() for t in (2, 1))
    assert objects == [*range(number)] and ground == [*range(number, 2 * number)]
    with torch.no_grad():
        assert program(batch=3).image.isfinite().all()


class TwoColours(torch.nn.Module):
    """Each of four pixels is red or blue: the loss is linear in every choice."""

    def __init__(self):
        super().__init__()
        self.colours = torch.nn.Parameter(torch.tensor([[0.9, 0.1, 0.2], [0.0, 0.3, 0.8]]))

    def forward(self, images=None, batch=1):
        with pyro.plate("batch", len(images), dim=-3):
            with pyro.plate("rows", 2, dim=-2), pyro.plate("columns", 2, dim=-1):
                z = pyro.sample(
                    "z_mask", dist.Bernoulli(logits=0.3 * torch.ones(len(images), 2, 2))
                )
            flat = self.colours[None, :, :, None, None].expand(len(images), -1, -1, 2, 2)
            regions = torch.stack([z, 1 - z], 1)
            pixels = LayeredPixels(flat[:, None, None], regions[:, None, None], 0.2)
            pyro.sample("images", pixels, obs=images[:, None, None])


class TwoColoursGuide(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.5, -0.2, 0.1]))

    def forward(self, images=None, batch=1):
        logits = torch.einsum("bchw,c->bhw", images, self.weight)
        rows, columns = pyro.plate("rows", 2, dim=-2), pyro.plate("columns", 2, dim=-1)
        with pyro.plate("batch", len(images), dim=-3), rows, columns:
            pyro.sample("z_mask", dist.Bernoulli(logits=logits))


@pytest.mark.parametrize("name", ["mean", "competition"])
def test_means_are_exact_where_the_loss_is_linear_and_a_competition_has_no_gradient(name):
    program, guide, x = TwoColours(), TwoColoursGuide(), torch.rand(3, 3, 2, 2)
    gradients = {}
    for method in ("enumerate", name):
        estimator = make_estimator(method)
        estimator.prepare(program, guide, x)
        losses = [
            estimator(program, guide, x, Objective())[0]
            for _ in range(1 if name == "mean" else 300)
        ]
        (sum(losses) / len(losses)).backward()
        gradients[method] = [program.colours.grad, guide.weight.grad]
        program.colours.grad = guide.weight.grad = None
    (colours, weight), (got_colours, got_weight) = gradients["enumerate"], gradients[name]
    if name == "mean":
        torch.testing.assert_close(got_colours, colours)
        torch.testing.assert_close(got_weight, weight)
    else:
        torch.testing.assert_close(got_colours, colours, rtol=0.1, atol=2.0)
        assert got_weight is None and weight.abs().max() > 0.1


def test_prices_rise_for_those_who_win_too_often():
    _, guide = pair()
    winners = F.one_hot(torch.tensor([[0, 0], [0, 0], [1, 0], [2, 0]]), 4).float()
    guide.charge(winners)
    assert (guide.price == 0).all()  # the paper's: nothing is balanced
    guide.balance.fill_(0.8)
    guide.charge(winners)
    expected = 0.8 * (torch.tensor([6.0, 1.0, 1.0, 0.0]) / 8 - 0.25)
    torch.testing.assert_close(guide.price, expected)
    guide.eval()
    guide(torch.rand(2, 3, 16, 16))
    torch.testing.assert_close(guide.price, expected)
    guide.price.copy_(torch.tensor([0.0, 1e6, 1e6, 1e6]))
    trace = poutine.trace(guide).get_trace(torch.rand(5, 3, 16, 16))
    assert all((value(trace, f"z_cat_{t}")[:, 0] == 1).all() for t in (2, 3, 4))
    ground = trace.nodes["z_cat_1"]["fn"].probs
    assert (ground > 0).all()  # backgrounds have no price


def test_the_competition_is_its_cost_tempered():
    _, guide = pair()
    x = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        scope = torch.ones(3, 16, 16)
        _, cost, _ = guide.compete(x, scope, guide.rest(x, scope), False)
        for sharpness in (0.0, 0.02, 1.0):
            guide.sharpness.fill_(sharpness)
            trace = poutine.trace(guide).get_trace(x)
            probs = trace.nodes["z_cat_4"]["fn"].probs[:, 0, 0]
            torch.testing.assert_close(probs, (-sharpness * cost).softmax(-1))
        with Mode():
            best = poutine.trace(guide).get_trace(x).nodes["z_cat_4"]["value"][:, 0, 0]
    assert torch.equal(best.argmax(-1), cost.argmin(-1))


def two_objects():
    """A red one, worse explained than a green one, and a crumb, on grey: images, and e."""
    x, rest = torch.full((2, 3, 16, 16), 0.3), torch.zeros(2, 16, 16)
    x[:, 0, 2:6, 2:7], rest[:, 2:6, 2:7] = 1.0, 5.0
    x[:, 1, 9:14, 9:14], rest[:, 9:14, 9:14] = 1.0, 4.0
    rest[:, 15, 0] = 20.0
    return x, rest


@torch.no_grad()
def test_a_seed_is_what_is_worst_explained_in_the_scope_and_what_is_like_it_is_attended_to():
    _, guide = pair()
    x, rest = two_objects()
    scope = torch.ones(2, 16, 16)
    scope[1, 2:6, 2:7] = 0
    seed = guide.seed(scope * rest)
    assert seed[0] // 16 in (3, 4) and seed[0] % 16 in (3, 4, 5)
    assert seed[1] // 16 in (10, 11, 12) and seed[1] % 16 in (10, 11, 12)
    cat = F.one_hot(torch.tensor([0, 2]), 4).float()
    near = guide.attention.near(guide.embed(x, scope, cat), seed, cat).sigmoid()
    assert near[0, 2:6, 2:7].mean() > 0.5 > near[0, 9:14, 9:14].max()
    assert near[1, 9:14, 9:14].mean() > 0.5 > near[1, :8].max()


@torch.no_grad()
@pytest.mark.parametrize("hidden", ["green", "red", "neither"])
def test_what_lies_in_front_goes_first(hidden, monkeypatch):
    """The red object is looked at first; drawn as a whole, one of them goes on under the other."""
    _, guide = pair()
    x, rest = two_objects()
    red, green = rest[0] == 5, rest[0] == 4
    region = torch.stack([red, green]).float()
    whole = region.clone()
    whole[{"red": [0], "green": [1], "neither": []}[hidden]] = (red | green).float()

    def judge(rows, rests, seed):
        which = (seed // 16 > 7).long()
        cost = -2 - which[:, None].float().expand(-1, 4)
        return Verdict(cost, region[which], whole[which], region[which])

    monkeypatch.setattr(guide, "judge", judge)
    seed, cost, _ = guide.compete(x, torch.ones(2, 16, 16), rest, False)
    first = int(hidden == "red")
    assert ((seed // 16 > 7) == bool(first)).all() and (cost == -2 - first).all()


@torch.no_grad()
def test_an_object_is_the_same_wherever_it_lies():
    """Moved by whole patches, it is drawn the same, and inferred at the other place but else alike."""
    program, guide = pair(size=32, patch=2, latents=5)
    cat = F.one_hot(torch.tensor([1]), 4).float()
    z = torch.tensor([[-0.5, 0.25, 0.3, -1.0, 0.7]])
    moved = z + torch.tensor([[8 / 16 / SPAN, -4 / 16 / SPAN, 0, 0, 0]])
    for here, there in zip(program.decoder(z, cat), program.decoder(moved, cat), strict=True):
        inner = here[..., 12:20, 8:16], there[..., 8:16, 16:24]
        torch.testing.assert_close(*inner, rtol=1e-4, atol=1e-4)
    x, region = torch.zeros(2, 3, 32, 32), torch.zeros(2, 32, 32)
    thing = torch.rand(3, 6, 8)
    x[0, :, 10:16, 4:12], x[1, :, 14:20, 14:22] = thing, thing
    region[0, 10:16, 4:12] = region[1, 14:20, 14:22] = 1
    loc, scale = guide.encoder(x, region, cat.expand(2, -1))
    torch.testing.assert_close(loc[0, 2:], loc[1, 2:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scale[0], scale[1], rtol=1e-4, atol=1e-4)
    step = torch.tensor([10 / 16, 4 / 16]) / SPAN
    torch.testing.assert_close(loc[1, :2] - loc[0, :2], step, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("appearance", [0.0, 0.5])
def test_what_counts_is_what_a_nat_costs_that_is_explained(appearance):
    """C_k = log(λ L_x + L_r + ε) - log(Σ r̃_k e + ε)."""
    program, guide = pair(appearance=appearance)
    x, scope, rest = torch.rand(2, 3, 16, 16), torch.rand(2, 16, 16), 9 * torch.rand(2, 16, 16)
    seed, rows = torch.tensor([40, 99]), guide.for_each_expert(x, scope, False)
    cost, region, shape, whole = guide.judge(rows, guide.each(rest), seed)
    for b, k in itertools.product(range(2), range(4)):
        cat = F.one_hot(torch.tensor([k]), 4).float()
        alone = Rows(x[b : b + 1], scope[b : b + 1], cat, rows.embedding[k * len(x) + b][None])
        attended, (loc, _) = guide.explain(alone, seed[b : b + 1], 2)
        colours, logits = program.decoder(loc, cat)
        a, m = (t[0].sigmoid().double() for t in (attended, logits))
        kl = kl_by_hand(a, m)
        errors = (x[b] - colours[0]).square().sum(0) / (2 * 0.1**2)
        paid = (scope[b] * (appearance * a * errors + kl)).sum()
        expected = (paid + 2.5) / ((scope[b] * a * rest[b]).sum() + 2.5)
        assert float(cost[b, k].exp()) == pytest.approx(float(expected), rel=1e-3)
        if k == int(cost[b].argmin()):
            torch.testing.assert_close(region[b], a.float())
            torch.testing.assert_close(shape[b], m.float())
            torch.testing.assert_close(whole[b], (a * errors + kl).float(), rtol=1e-3, atol=1e-3)


def test_the_rest_is_what_the_best_expert_alone_does_not_explain():
    _, guide = pair()
    x = torch.rand(3, 3, 16, 16)
    squares = torch.rand(3, 4, 16, 16)
    squares[range(3), (1, 3, 0)] *= 0.5
    guide.errors = lambda *_: (squares.transpose(0, 1).flatten(0, 1), None)  # rows by expert
    assert torch.equal(guide.rest(x, torch.ones(3, 16, 16)), squares[range(3), (1, 3, 0)])


def test_chosen_experts_lie_in_the_chosen_order():
    program, _ = pair()
    experts = [3, 0, 0, 1, 2, 0]  # two more than there are layers in training
    scene = program.arrange(experts, batch=5)
    assert program.layers == 4
    nodes = scene.objects
    assert nodes.pres.shape == (5, 5)
    front_first = torch.tensor(experts[:0:-1]).expand(5, 5)
    assert torch.equal(nodes.category[nodes.present], front_first[nodes.present])
    for wrong in ([0], [0, 4], [0, -1]):
        with pytest.raises(ValueError, match="at least 2 of 0 to 3"):
            program.arrange(wrong)


def test_more_layers_than_in_training_are_inferred():
    program, guide = pair()
    program.layers = 6
    scene = infer(program, guide, torch.rand(2, 3, 16, 16))
    assert scene.objects.pres.shape == (2, 5)


def test_layered_pixels_are_gaussian_where_regions_are_binary_and_linear_between():
    colours = torch.rand(2, 3, 3, 4, 4)
    which = torch.randint(4, (2, 4, 4))
    regions = F.one_hot(which, 4).movedim(-1, 1)[:, :3].float()  # the fourth: nothing lies there
    x = torch.rand(2, 3, 4, 4)
    pixels = LayeredPixels(colours, regions, 0.2)
    mean = (regions[:, :, None] * colours).sum(1)
    torch.testing.assert_close(pixels.mean, mean)
    expected = dist.Normal(mean, 0.2).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(pixels.log_prob(x), expected)
    other = F.one_hot(which.flip(0), 4).movedim(-1, 1)[:, :3].float()
    between = LayeredPixels(colours, 0.3 * regions + 0.7 * other, 0.2).log_prob(x)
    ends = 0.3 * pixels.log_prob(x) + 0.7 * LayeredPixels(colours, other, 0.2).log_prob(x)
    torch.testing.assert_close(between, ends)
    drawn = pixels.sample((2000,))
    torch.testing.assert_close(drawn.std(0).mean(), torch.tensor(0.2), rtol=0.01, atol=0)
    assert (drawn.mean(0) - mean).abs().max() < 5 * 0.2 / 2000**0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": 1}, "layers=1: expected at least 2"),
        ({"kernel": 2}, "kernel=2: expected an odd"),
        ({"attention": ()}, "at least one scale"),
        ({"size": 18}, "multiple of 4"),
        ({"appearance": -1.0}, r"appearance=-1\.0"),
        ({"experts": 0}, "experts=0: expected above 0"),
        ({"attend": "all"}, "attend='all': expected likeness or network"),
        ({"looks": 3}, "looks=3: expected 1 or 2"),
        ({"looks": 1}, "judged=2: there are looks=1"),
        ({"compete": "cost"}, "set behind=False"),
    ],
)
def test_bad_settings_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        tiny.config("econ", **{"size": 16, "patch": 1, **changes})


@torch.no_grad()
def test_experts_compete_for_the_background_by_appearance_whatever_counts_for_objects():
    """There is no shape at t = 1: with λ = 0 nothing would be compared."""
    program, guide = pair(appearance=0.0)
    x, scope, rest = torch.rand(3, 3, 16, 16), torch.rand(3, 16, 16), 9 * torch.rand(3, 16, 16)
    _, cost, _ = guide.compete(x, scope, rest, True)
    for b, k in itertools.product(range(3), range(4)):
        cat = F.one_hot(torch.tensor([k]), 4).float()
        colours, _ = program.decoder(guide.encoder(x[b][None], scope[b][None], cat)[0], cat)
        errors = (x[b] - colours[0]).square().sum(0) / (2 * 0.1**2)
        expected = ((scope[b] * errors).sum() + 2.5) / ((scope[b] * rest[b]).sum() + 2.5)
        assert float(cost[b, k].exp()) == pytest.approx(float(expected), rel=1e-3)


@torch.no_grad()
def test_the_plain_variant_attends_by_its_network_and_competes_by_its_cost():
    """Eqs. 9 to 12 and section 5.2: q(k_t) ∝ exp(-(λ L_x + L_r)), with whole images and all latents free."""
    program, guide = tiny.build("econ", "econ_plain", size=16)
    assert not hasattr(guide.attention, "reach")
    x, scope = torch.rand(2, 3, 16, 16), torch.rand(2, 16, 16)
    _, cost, there = guide.compete(x, scope, scope, False)
    assert there.all()
    for b, k in itertools.product(range(2), range(4)):
        cat = F.one_hot(torch.tensor([k]), 4).float()
        seen = torch.cat([x[b], scope[b].clamp(min=1e-3).log()[None]])[None]
        logits = guide.attention(seen, cat)[:, 0]
        a = logits.sigmoid()
        loc, _ = guide.encoder(x[b : b + 1], scope[b] * a, cat)
        colours, shape = program.decoder(loc, cat)
        errors = (x[b] - colours[0]).square().sum(0) / (2 * 0.1**2)
        kl = kl_by_hand(a[0].double(), shape[0].sigmoid().double())
        expected = (scope[b] * (a[0] * errors + kl)).sum()
        assert float(cost[b, k]) == pytest.approx(float(expected), rel=1e-3)
    assert guide.sharpness == 1 and guide.balance == 0
    with Mode():
        trace = poutine.trace(guide).get_trace(x)
    _, cost, _ = guide.compete(x, torch.ones(2, 16, 16), scope, False)
    torch.testing.assert_close(trace.nodes["z_cat_4"]["fn"].probs[:, 0, 0], (-cost).softmax(-1))


@torch.no_grad()
def test_more_layers_than_objects_change_nothing_where_layers_may_be_empty():
    """Nothing is worth a layer once one expert explains the scope as well as several."""
    program, guide = pair(empty=True)
    x = torch.full((2, 3, 16, 16), 0.4)
    guide.errors = lambda images, z, cat: (
        0 * images[:, 0] + 0.01,  # any expert explains this image
        program.decoder(z, cat)[1],
    )
    for layers in (3, 6):
        with program.placing(layers), Mode():
            trace, q = traces(program, guide, x)
        scene = trace.nodes["_RETURN"]["value"]
        assert not scene.objects.pres.any() and (scene.image == scene.background).all()
        absent = [n for n in q.nodes if n.startswith("z_layer")]
        assert len(absent) == layers - 1 and all((value(q, n) == 0).all() for n in absent)
        # a spare layer costs what its absence costs, ln 2, and no more
        terms = cost_terms(trace, q)
        spare = sum(per_image(v) for n, v in terms.items() if n.startswith("kl/") and n[-1] != "1")
        expected = torch.full((2,), (layers - 1) * math.log(2))
        torch.testing.assert_close(spare, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_layer_is_empty_where_its_region_gains_less_than_it_costs():
    _, guide = pair(empty=True)
    x, rest = torch.rand(3, 3, 16, 16), torch.ones(3, 16, 16)
    ones = torch.ones(3, 16, 16)
    verdict = Verdict(
        torch.zeros(3, 4),
        0.5 * ones,
        0.5 * ones,
        torch.stack([ones[0] * c for c in (0.4, 0.6, 0.4)]),
    )
    guide.judge = lambda *_: verdict
    guide.foremost = lambda rows, rest, seed, first: (seed, first)
    guide.rest = lambda *_: rest
    scope = torch.stack([ones[0], ones[0], 0 * ones[0]])
    _, _, there = guide.compete(x, scope, rest, False)
    assert there.tolist() == [
        True,
        False,
        False,
    ]  # .5 e against what is paid; a scope of nothing gains nothing
    assert guide.compete(x, scope, rest, True)[2].all()


def test_programs_with_empty_layers_draw_fewer_objects_and_place_all_that_are_asked_for():
    program, _ = pair(empty=True)
    pyro.set_rng_seed(0)
    with torch.no_grad():
        trace = poutine.trace(program).get_trace(batch=200)
        pres = torch.stack([value(trace, f"z_layer_{t}") for t in (4, 3, 2)], 1).squeeze()
        nodes = trace.nodes["_RETURN"]["value"].objects
        assert not nodes.mask[pres == 0].any()
        assert abs(float(pres.mean()) - 0.5) < 4 * 0.5 / 600**0.5
        assert program.arrange([0, 1, 2, 3], 20).objects.mask.sum((-2, -1)).gt(0).all()


@pytest.mark.parametrize("variant", ["econ", "econ_plain", "monet"])
def test_layers_that_may_be_empty_train_and_so_does_their_learned_prior(variant, tmp_path):
    words = ("empty=True", "learned=2")
    training = Training(plan(tiny.run("econ", tmp_path, variant=variant, set=words)))
    training.guide.sharpness.fill_(0.0)  # or an expert may not win in so few images
    loss, terms = training.estimator(
        training.program, training.guide, training.images(0), training.trainer.objective
    )
    loss.backward()
    assert all(term.isfinite() for term in terms.values())
    assert {"kl/z_layer_2", "kl/z_layer_3", "kl/z_layer_4"} <= terms.keys()
    for name, parameter in (
        *training.program.named_parameters(),
        *training.guide.named_parameters(),
    ):
        if not name.startswith("cat_prior"):  # of classes only winners learn
            assert parameter.grad.isfinite().all() and (parameter.grad != 0).any(), name
    losses = [float(training.trainer.update(training.images(step))[0]) for step in range(3)]
    assert all(math.isfinite(loss) for loss in losses)
