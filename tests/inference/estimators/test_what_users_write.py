"""Programs that a user may write: the gradient is that of an enumeration, or one sentence refuses them."""

import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from judging import BOUNDS, UNBIASED, fits, in_double, judge, pairs  # noqa: F401
from random_programs import Latent, Small, Spec
from tiny import OF_CONTINUOUS

from inference.estimators import ESTIMATORS, estimator
from inference.estimators.checks import NOTHING_DISCRETE
from inference.objectives import Objective
from programs.blocks.distributions import gate

ONE, LOCAL = Latent(), Latent(local=True)
CASES = {
    "a KL weight of 0": Spec((Latent(weight=0.0), Latent("onehot", parents=(0,), weight=0.0))),
    "a KL weight of .3": Spec((Latent(weight=0.3), Latent(parents=(0,), gate=0, weight=2.0))),
    "poutine.scale": Spec((Latent(scale=0.5), Latent("onehot", parents=(0,)))),
    "a subsampled plate": Spec((LOCAL, Latent(local=True, gate=0)), nodes=3),
    "a subsampled plate in one event": Spec((LOCAL, Latent("onehot")), nodes=3, likelihood="canvas"),
    "the batch at the right": Spec((LOCAL, ONE), nodes=4, taken=4, batch_first=False),
    "the batch at the right, a chain": Spec(
        (ONE, Latent("onehot", True, (0,)), Latent(local=True, gate=0)), batch_first=False
    ),
    "a bit outside of a plate joins its elements": Spec((LOCAL, Latent(parents=(0,), weight=0.0))),
    "a Gaussian outside of a plate joins its elements": Spec((LOCAL, Latent("normal", parents=(0,)))),
    "a free site": Spec((Latent(free=True), Latent(parents=(0,), gate=0))),
    "gates by poutine.mask": Spec((ONE, Latent("onehot", gate=0, style="mask"))),
    "gates by fn.mask": Spec((ONE, Latent("onehot", gate=0, style="fn"), Latent(gate=0, style="fn"))),
    "a canvas written in place": Spec((LOCAL, Latent("onehot", True)), likelihood="inplace"),
    "a sample read by Python": Spec((ONE, Latent(parents=(0,))), likelihood="read"),
    "a chain of choices": Spec(
        (Latent("onehot"), Latent(parents=(0,)), Latent("onehot", parents=(0, 1)))
    ),
    "categories": Spec((Latent("category"), Latent("category", parents=(0,)))),
    "joined choices": Spec((Latent("joined"), Latent("joined", True, (0,)))),
    "a Gaussian between": Spec((ONE, Latent("normal", parents=(0,)), Latent(parents=(1,), gate=0))),
    "names with dots": Spec((ONE, LOCAL, ONE), names=("digit.z", "type", "a%2Eb.c")),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_gradients_are_those_of_an_enumeration(what):
    spec = CASES[what]
    spec = Spec(**vars(spec) | {"seed": 11})
    for name in UNBIASED:
        if fits(name, spec):
            judge(name, spec)
    bounds = list(BOUNDS)[list(CASES).index(what) % 8 :: 8]  # the slow test takes all
    for name in {"vimco:2", "rws:2", "rws_defensive:2", *bounds}:
        if pairs(spec) and fits(name, spec):
            judge(name, spec, BOUNDS[name], rows=1000)


class Later(Small):
    """The likelihood does not read the latents for the first three runs of the program."""

    runs = 0

    def observe(self, images, features):
        self.runs += 1
        super().observe(images, [0 * f for f in features] if self.runs <= 3 else features)


class Branch(Small):
    """The likelihood has no latents in it for the first three runs of the program: a curriculum by Python."""

    runs = 0

    def observe(self, images, features):
        self.runs += 1
        super().observe(images, [torch.zeros(1, 1)] * len(features) if self.runs <= 3 else features)


@pytest.mark.parametrize("make", [Later, Branch])
@pytest.mark.parametrize("name", ["reinforce", "rloo:2", "expect", "tracegraph"])
def test_what_a_curriculum_adds_later_is_seen(name, make):
    judge(name, Spec((ONE, Latent("onehot", parents=(0,))), seed=3), make=make, calls=9)


def plain(latents, size=None, **plate):
    """Program and guide that call `latents` in the plate batch."""

    def program(images):
        with pyro.plate("batch", size or len(images), dim=-1, **plate):
            z = latents(len(images))
            pyro.sample("x", dist.Normal(z, 1.0), obs=images.flatten(1)[:, 0])

    def guide(images):
        with pyro.plate("batch", size or len(images), dim=-1, **plate):
            return latents(len(images))

    return program, guide


def bit(name, rows):
    return pyro.sample(name, dist.Bernoulli(logits=torch.zeros(rows)))


EVERY = ("nvil", "rloo", "gumbel", "enumerate", "vimco", "rws", "tracegraph", "expect")


@pytest.mark.parametrize("name", EVERY)
def test_a_site_of_the_guide_alone_is_refused(name):
    program, _ = plain(lambda rows: bit("z_b", rows))
    _, guide = plain(lambda rows: bit("z_a", rows) + bit("z_b", rows))
    with pytest.raises(ValueError, match=r"same sites in the same order.*z_b.*z_a"):
        estimator(name).prepare(program, guide, torch.rand(2, 1, 4, 4))


@pytest.mark.parametrize("name", EVERY)
def test_another_order_is_refused(name):
    program, _ = plain(lambda rows: bit("z_b", rows) + bit("z_a", rows))
    _, guide = plain(lambda rows: bit("z_a", rows) + bit("z_b", rows))
    with pytest.raises(ValueError, match="same sites in the same order"):
        estimator(name).prepare(program, guide, torch.rand(2, 1, 4, 4))


@pytest.mark.parametrize("name", EVERY)
def test_a_subsampled_batch_is_refused(name):
    functions = plain(lambda rows: bit("z", rows), size=10, subsample=torch.arange(2))
    with pytest.raises(ValueError, match=r"takes 2 of 10 images.*len\(images\)"):
        estimator(name).prepare(*functions, torch.rand(2, 1, 4, 4))


@pytest.mark.parametrize("name", EVERY)
def test_a_latent_outside_of_the_batch_is_refused(name):
    def program(images):
        z = guide(images)
        with pyro.plate("batch", len(images), dim=-1):
            pyro.sample("x", dist.Normal(z, 1.0), obs=images.flatten(1)[:, 0])

    def guide(images):
        return bit("z", 1)

    with pytest.raises(ValueError, match="'z' is outside the plate 'batch'"):
        estimator(name).prepare(program, guide, torch.rand(2, 1, 4, 4))


@pytest.mark.parametrize("name", EVERY)
def test_an_event_dimension_left_out_is_refused(name):
    def z():
        return pyro.sample("z", dist.Normal(torch.zeros(2, 1, 1), 1.0))

    def program(images):
        with pyro.plate("batch", len(images), dim=-3):
            pyro.sample("x", dist.Normal(z(), 1.0).expand((2, 4, 4)), obs=images[:, 0])

    def guide(images):
        with pyro.plate("batch", len(images), dim=-3):
            z()

    with pytest.raises(ValueError, match=r"'x' has batch shape .*of no plate: write .to_event"):
        estimator(name).prepare(program, guide, torch.rand(2, 2, 4, 4))


def test_a_site_that_nothing_observed_depends_on_is_worth_a_sentence():
    def unread(rows):
        bit("u", rows)
        return bit("y", rows)

    with pytest.warns(UserWarning, match="nothing observed depends on u, as far as tensors tell"):
        estimator("nvil").prepare(*plain(unread), torch.rand(2, 1, 4, 4))


@pytest.mark.parametrize("name", ["nvil", "rloo", "disarm", "expect", "muprop"])
def test_a_site_that_is_read_where_it_does_not_exist_is_refused(name):
    def careless(rows):
        a = bit("a", rows)
        with gate(a):
            return bit("b", rows)

    def careful(rows):
        a = bit("a", rows)
        with gate(a):
            return a * bit("b", rows)

    estimator(name).prepare(*plain(careful), torch.rand(8, 1, 4, 4))
    with pytest.raises(ValueError, match="something reads b where it does not exist"):
        estimator(name).prepare(*plain(careless), torch.rand(8, 1, 4, 4))


def smooth(rows):
    return pyro.sample("z", dist.Normal(torch.zeros(rows), 1.0))


@pytest.mark.parametrize(
    "name", [*sorted(ESTIMATORS.keys() - OF_CONTINUOUS), "iwae:2+nvil", "z=nvil"]
)
def test_a_method_of_discrete_latents_is_refused_where_there_are_none(name):
    with pytest.raises(ValueError, match=r"no latent is discrete.*leave it out"):
        estimator(name).prepare(*plain(smooth), torch.rand(2, 1, 4, 4))


def test_a_pattern_of_continuous_latents_is_refused():
    functions = plain(lambda rows: bit("b", rows) + smooth(rows))
    with pytest.raises(ValueError, match=r"'z\*' matches no discrete site: z are continuous"):
        estimator("b=nvil,z*=rloo").prepare(*functions, torch.rand(2, 1, 4, 4))


def test_those_that_are_named_instead_fit():
    named = re.findall(r"\w+", NOTHING_DISCRETE.rpartition(":")[2].replace(" or ", " "))
    assert {*named, "gumbel"} == {*OF_CONTINUOUS}
    for name in {*OF_CONTINUOUS} - {"rws_sleep", "sleep"}:  # `plain` does not dream
        program, guide = plain(smooth)
        method = estimator(name)
        method.prepare(program, guide, torch.rand(2, 1, 4, 4))
        loss, _ = method(program, guide, torch.rand(2, 1, 4, 4), Objective())
        assert loss.isfinite(), name
