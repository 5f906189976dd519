"""Priors fitted to draws of the guide: the bound never falls, and nothing else moves."""

import json

import pyro
import pytest
import tiny
import torch
from pyro import poutine
from pyro.nn import PyroModule

from inference import fit_prior, svi
from inference.estimators import estimator as make_estimator
from inference.estimators import is_discrete
from inference.fit_prior import fit
from inference.loading import own_programs
from inference.objectives import Objective, log_prob_per_image
from inference.prior_draws import Draws, cached, priors, resampled, sites_of
from inference.runs import open_run
from programs.blocks.priors import Learned, LearnedGaussian


def small(name, **changes):
    pyro.set_rng_seed(0)
    program, guide = tiny.build(name, **changes)
    return program.eval(), guide.eval(), tiny.images(60, program)


def learning():
    """Programs that have a field `learned`."""
    return [name for name in own_programs() if hasattr(tiny.config(name), "learned")]


@torch.no_grad()
def bound(program, guide, images, seed=0):
    """Mean hard-draw ELBO of images, of the same draws for the same seed."""
    pyro.set_rng_seed(seed)
    q = poutine.trace(guide).get_trace(images)
    p = poutine.trace(poutine.replay(program, trace=q)).get_trace(images)
    return float((log_prob_per_image(p) - log_prob_per_image(q)).mean())


def mixing():
    """Of them those whose `tiny` has a mixture."""
    return [name for name in learning() if name not in ("discrete_air", "genesis")]


@pytest.mark.parametrize(
    ("name", "components"), [*((name, 1) for name in learning()), *((name, 2) for name in mixing())]
)
def test_the_bound_of_unseen_images_rises_and_nothing_else_moves(name, components):
    program, guide, x = small(name, learned=components)
    for prior in priors(program):
        prior.plain()
    own = {id(p) for m in priors(program) for p in m.parameters()}
    rest = [p for p in (*program.parameters(), *guide.parameters()) if id(p) not in own]
    kept = [p.detach().clone() for p in rest]
    before = bound(program, guide, x[40:])
    fits = fit(cached(program, guide, x[:40], 2), 40, 2)
    assert len(fits) == len(priors(program)) and all(f.after >= f.before for f in fits)
    assert bound(program, guide, x[40:]) >= before
    assert all(map(torch.equal, rest, kept)) and all(p.requires_grad for p in rest)


def test_correlated_looks_of_air_raise_the_bound_too():
    program, guide, x = small("air", learned=2, correlated=True)
    before = bound(program, guide, x[40:])
    fits = {f.sites[0]: f for f in fit(cached(program, guide, x[:40], 2), 40, 2)}
    assert fits["z_what_1"].after >= fits["z_what_1"].before
    assert bound(program, guide, x[40:]) >= before
    with torch.no_grad():
        covariance = program.p_what(torch.ones(1)).component_distribution.covariance_matrix
    apart = covariance - torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
    assert apart.abs().max() > 0.01


def test_gains_are_per_image_even_if_few_images_have_the_latent():
    prior, generator = LearnedGaussian(1), torch.Generator().manual_seed(0)
    values = 3 + torch.randn(400, 1, generator=generator)
    there = torch.arange(400) % 5 == 4  # held-out images 9, 19, … have it, of others one in five
    own = Draws(("z",), values[there], torch.ones(80), None, torch.arange(400)[there])
    (found,) = fit({prior: own}, 400, 1)
    (all_of_them,) = fit({prior: own}, 800, 1)
    assert all_of_them.after == pytest.approx(found.after / 2)
    held = values[9::10]
    plain = torch.distributions.Normal(0.0, 1.0).log_prob(held).sum() / 40
    assert found.before == pytest.approx(float(plain), rel=1e-4) and found.after > found.before


@pytest.mark.parametrize("name, value", [("draws", 0), ("of", 0), ("bound", -1), ("scenes", 9)])
def test_a_fit_of_nothing_is_refused(name, value, capsys):
    assert fit_prior.main(["vae-mnist4", f"--{name}={value}"]) == 2
    assert f"{name}={value}: expected at least" in capsys.readouterr().err


def test_too_few_images_to_hold_one_out_are_refused():
    program, guide, x = small("air", learned=1)
    with pytest.raises(ValueError, match="8 images: expected at least 10, of which one is held"):
        fit(cached(program, guide, x[:8], 1), 8, 1)


@pytest.mark.parametrize("name", learning())
def test_plain_priors_are_the_papers(name):
    """With the same draws, the program that learns its priors scores them as the paper's does."""
    program, guide, x = small(name, learned=1)
    plain, _, _ = small(name)
    plain.load_state_dict(program.state_dict(), strict=False)
    with torch.no_grad():
        q = poutine.trace(guide).get_trace(x[:4])
        both = [
            poutine.trace(poutine.replay(p, trace=q)).get_trace(x[:4]) for p in (program, plain)
        ]
    own = "z_global_1"  # the first of several steps becomes a prior of its own, N(0, 1) at first
    sites = [n for n, s in q.nodes.items() if s["type"] == "sample" and n != own]
    one, other = (log_prob_per_image(trace, [*sites, "images"]) for trace in both)
    assert torch.allclose(one, other, rtol=1e-3)


@pytest.mark.parametrize("name", learning())
def test_learned_priors_can_learn_with_the_program(name):
    program, guide, x = small(name, learned=1 + (name in mixing()))
    discrete = any(map(is_discrete, poutine.trace(guide).get_trace(x[:4]).nodes.values()))
    for method in ("gumbel", "nvil")[: 1 + discrete]:
        estimator, objective = make_estimator(method), Objective()
        estimator.prepare(program, guide, x[:4])
        loss, _ = estimator(program, guide, x[:4], objective)
        loss.backward()
        own = {n for n, m in program.named_modules() if isinstance(m, Learned)}
        learning = [p for n, p in program.named_parameters() if n.startswith(tuple(own))]
        assert own and all(p.grad is not None for p in learning)
        assert all(p.grad.isfinite().all() for p in program.parameters() if p.grad is not None)
        program.zero_grad()


class Sometimes(PyroModule):
    """A program with two latents of one prior, which is called for one of them."""

    def __init__(self):
        super().__init__()
        self.prior = LearnedGaussian(2)

    def forward(self, images=None, batch=1):
        batch = batch if images is None else len(images)
        with pyro.plate("batch", batch, dim=-1):
            p = self.prior()
            for name in "zw":
                pyro.sample(name, p)


def sometimes(images):
    with pyro.plate("batch", len(images), dim=-1):
        for name in "zw":
            pyro.sample(name, pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))


def test_a_prior_is_called_once_per_site():
    program, x = Sometimes(), torch.rand(4, 1, 2, 2)
    assert list(sites_of(program, sometimes, x).values()) == [["z", "w"]]
    with pytest.raises(ValueError, match="z, w is called 1 times: expected one call per site"):
        cached(program, sometimes, x, 1)


def conjugate(images=None):
    """z ~ N(0, 1), x ~ N(z, 1), in two plates."""
    with pyro.plate("batch", len(images), dim=-2), pyro.plate("pair", 2, dim=-1):
        z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(len(images), 2), 1.0))
        pyro.sample("images", pyro.distributions.Normal(z, 1.0), obs=images)


def wide(images):
    with pyro.plate("batch", len(images), dim=-2), pyro.plate("pair", 2, dim=-1):
        pyro.sample("z", pyro.distributions.Normal(torch.zeros(len(images), 2), 2.0))


def test_draws_chosen_by_their_weights_are_of_the_posterior():
    pyro.set_rng_seed(0)
    x = torch.tensor([1.0, -2.0]).expand(4000, -1)
    own = resampled(conjugate, wide, x, 1).nodes["z"]["value"]
    assert own.std(0).tolist() == pytest.approx([2, 2], abs=0.1)
    z = resampled(conjugate, wide, x, 60).nodes["z"]["value"]
    assert z.mean(0).tolist() == pytest.approx([0.5, -1], abs=0.05)
    assert z.std(0).tolist() == pytest.approx([0.5**0.5] * 2, abs=0.05)


def test_the_bound_of_more_draws_is_higher_and_of_one_the_elbo():
    program, guide, x = small("air", learned=1)
    one = fit_prior.bound(program, guide, x[:20], seed=1)
    assert one == pytest.approx(bound(program, guide, x[:20], seed=1), rel=1e-5)
    assert fit_prior.bound(program, guide, x[:20], 20) > one


def test_a_guide_that_uses_the_prior_has_a_bound_of_its_own(tmp_path):
    """DeNF infers presences by its prior: before the fit, the bound is the exact evidence of the old one."""
    run = svi.train(tiny.run("denf", tmp_path / "run", steps=1, set=("train.scenes=30",)))
    out, told = tmp_path / "fitted", {}
    fits, (before, after) = fit_prior.fit_run(run, out, ("learned=2",), fit_prior.Settings(30))
    trained, fitted = open_run(run), open_run(out)
    held = trained.validation(fit_prior.MEASURED).floats()
    for name, own in (("before", trained), ("after", fitted)):
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            told[name] = float(own.program.evidence(held).mean())
    assert (before, after) == pytest.approx((told["before"], told["after"]), rel=2e-3)
    assert after - before == pytest.approx(fits[0].after - fits[0].before, rel=0.2)


def test_a_run_is_fitted_by_a_command(tmp_path, capsys):
    run = svi.train(tiny.run("air", tmp_path / "run", steps=1, set=("train.scenes=30",)))
    trained = open_run(run)
    assert len(trained.seen(50).images) == 30 and len(trained.training(50).images) == 50
    assert len(trained.validation(5).images) == 5
    out = tmp_path / "fitted"
    command = [str(run), "--out", str(out), "--set", "learned=2", "--set", "stopping=True"]
    assert fit_prior.main([*command, "--scenes", "30"]) == 0
    assert "ELBO of images kept apart" in capsys.readouterr().out
    old, new = open_run(run), open_run(out)
    assert new.config["config"]["learned"] == 2 and len(new.program.pres_prior.logits) == 3
    fitted = json.loads((out / "config.json").read_text())["fitted"]
    assert "--set learned=2" in fitted["command"] and len(fitted["priors"]) == 3
    for a, b in ((old.program, new.program), (old.guide, new.guide)):
        there = dict(b.named_parameters())
        assert all(torch.equal(v, there[k]) for k, v in a.named_parameters())
    again = [str(run), "--out", str(tmp_path / "again"), "--scenes", "30", "--of", "3"]
    assert fit_prior.main(again) == 0
    assert "IWAE of 3 draws of images kept apart" in capsys.readouterr().out
    words = json.loads((tmp_path / "again" / "config.json").read_text())["fitted"]["command"]
    assert words.endswith("--scenes=30 --of=3")
    out = tmp_path / "none"
    assert fit_prior.main([str(run), "--out", str(out), "--set", "steps=2"]) == 2
    assert "has no learned priors" in capsys.readouterr().err
    assert fit_prior.main([str(run), "--out", str(out), "--set", "lerned=2"]) == 2
    assert "unknown field" in capsys.readouterr().err


def test_priors_that_were_fitted_are_fitted_again_from_where_they_are(tmp_path):
    run = svi.train(tiny.run("vae", tmp_path / "run", steps=1, set=("train.scenes=100",)))
    first, again = (tmp_path / name for name in ("fitted", "again"))
    how = fit_prior.Settings(scenes=100)
    fits, _ = fit_prior.fit_run(run, first, ("learned=1",), how)
    assert fits[0].after > fits[0].before
    refits, _ = fit_prior.fit_run(first, again, (), how)
    assert refits[0].before == pytest.approx(fits[0].after, abs=0.1)
    program, _, _ = fit_prior.opened(open_run(first), ("learned=2",))  # others than it has
    assert all(torch.equal(p.loc, torch.zeros_like(p.loc)) for p in priors(program))


def test_what_a_fit_cannot_do_is_refused(tmp_path, capsys):
    def refused(*options):
        assert fit_prior.main(["vae-mnist4", *options, "--scenes=10"]) == 2
        return capsys.readouterr().err

    assert "--set world.size: a fit changes priors alone" in refused("--set", "world.size=64")
    assert "--set train.steps: a fit" in refused("--set", "train.steps=3")
    out = str(tmp_path / "fitted")
    words = refused("--guide", "gnm-mnist4", "--out", out)
    assert "--guide gnm-mnist4 is a run of gnm gnm: give one of vae vae" in words
    (tmp_path / "log.jsonl").touch()
    assert "is not empty: give another --out" in refused("--out", str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_fit_goes_into_a_folder_of_its_own(tmp_path, monkeypatch):
    run = svi.train(tiny.run("vae", tmp_path / "runs" / "mine", steps=1, set=("train.scenes=30",)))
    before = (run / "config.json").read_bytes()
    monkeypatch.chdir(tmp_path)
    assert fit_prior.main(["runs/mine", "--set", "learned=2", "--scenes", "30"]) == 0
    assert (run / "config.json").read_bytes() == before
    assert open_run("runs/mine-fitted").config["config"]["learned"] == 2
