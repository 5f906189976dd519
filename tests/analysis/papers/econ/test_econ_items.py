"""ECON's table and figures, on runs that took no step, and on the shipped ones."""

import pyro
import pytest
import torch
from pyro import poutine
from tiny import check_item, untrained

from analysis.papers.econ import figures, tables, validity
from analysis.papers.econ.abilities import PROGRAMS
from analysis.papers.econ.items import HERE, ITEMS
from analysis.papers.econ.told_leaves import Config, draw, regions
from analysis.papers.item import Request
from analysis.papers.published import PUBLISHED
from analysis.posterior import infer
from analysis.scores import scene_metrics
from inference.plan import Run, plan
from inference.runs import open_run
from inference.trainer import Training
from programs.worlds import dead_leaves

REQUEST = Request(scenes=4)
TOLD = ("size=32", "features=8", "blocks=2", "train.scenes=64", "train.batch=16")


@pytest.fixture(scope="module")
def runs():
    pyro.set_rng_seed(0)
    with pyro.settings.context(module_local_params=True):
        unique = untrained("econ", "econ", "sprites_unique")
        random = untrained("econ", "econ_random", "sprites_random")
        for run in (unique, random):
            run.config["world"]["classes"] = ("circle", "square", "triangle")
        told = untrained("econ", "monet_told", f"{HERE}/told_leaves.py", f"{HERE}/told.py")
    first = next(iter(tables.SEARCH))
    named = {"ECON": unique, "ECON random": random, "MONet with true masks": told, first: unique}
    return named | {"shape alone": unique, "unique: all": unique, "ECON textured": random}


class One:
    """A classifier that sees one object of each class."""

    def count(self, images):
        return torch.ones(len(images), 3, dtype=torch.int64)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(validity, "counter", lambda data: One())
    monkeypatch.setattr(validity, "names", lambda *arguments: {0: 0, 1: 1, 2: 2, 3: 0})


def test_every_table_and_figure_with_a_result_is_an_item():
    expected = {"table1", "figure1", *(f"figure{k}" for k in range(4, 9))}
    assert expected == {*ITEMS} - {"ablation", "competition", "search", "textured"}
    assert {table for paper, table in PUBLISHED if paper == "econ"} <= {*ITEMS}


@pytest.mark.parametrize("name", [name for name in ITEMS if name != "table1"])
def test_every_item_is_made_of_what_there_is(name, runs, quick):
    check_item(ITEMS[name], runs, REQUEST)


def test_an_ablation_adds_one_thing_after_the_other_to_the_plain_algorithm(tmp_path):
    """Every training of the table can be planned, and differs from the plain one in what its name says."""
    request = Request(runs=tmp_path, set=("train.steps=7",))
    plans = {name: plan(t.runs(name, request)[-1]) for name, t in tables.ABLATION.items()}
    assert all(p.recipe.steps == 7 for p in plans.values())
    for kind in ("unique", "random"):
        own = {n: p.config for n, p in plans.items() if n.startswith(kind)}
        plain = own[f"{kind}: plain"]
        assert (plain.attend, plain.compete, plain.looks, plain.placed) == (
            "network",
            "cost",
            1,
            False,
        )
        assert own[f"{kind}: places"].latents == plain.latents + tables.PLACE
        same = [n for n, c in own.items() if c == plain]
        assert same == [f"{kind}: plain", f"{kind}: rate of 2e-3"]
        assert own[f"{kind}: all"].behind and own[f"{kind}: all"].attend == "likeness"
    folders = {t.runs(name, request)[-1].out for name, t in tables.ABLATION.items()}
    assert len(folders) == len(tables.ABLATION)


def test_tables_have_scenes_that_need_no_learning_beside(runs):
    rows = ITEMS["competition"].make({"ECON": runs["ECON"]}, REQUEST).rows
    ours = {(r.model, r.metric): r.ours for r in rows}
    assert ours["every colour", "ari_fg"] > 0.9 > ours["one circle", "ari_fg"]


def test_the_table_says_what_programs_can_do(monkeypatch):
    can = {name: {a: name == "econ" for a in tables.TEXTS} for name in PROGRAMS}
    monkeypatch.setattr(tables, "of_programs", lambda: can)
    rows = tables.table1({}, REQUEST).rows
    ours = {(r.model, r.metric): r for r in rows if not r.case}
    assert ours["ECON", "recombine"].ours == 1 and ours["GENESIS", "generate"].ours == 0
    assert ours["MONet", "generate"].ours is None, "the paper's draws no scenes, and ours does"
    assert ours["M-RBM", "amortize"][2:4] == (None, 0)
    assert sum(1 for r in rows if r.case) == len(PROGRAMS) * len(tables.TEXTS)


def test_scores_are_the_metrics_own():
    run = open_run("econ-sprites_unique")
    data = run.unseen(5)
    scene = infer(run.program, run.guide, data.floats())
    assert tables.scores(run, data) == scene_metrics(scene, data.truth())
    rows = tables.compared(("ari_fg", "expert_purity"))({"ECON": run}, Request(scenes=5)).rows
    assert rows[0].ours == scene_metrics(scene, data.truth())["ari_fg"]
    assert run.program.layers == 4


def test_shares_of_classes_by_expert_add_up_to_what_is_found():
    run = open_run("econ-sprites_unique")
    rows = figures.specialisation(run, "ECON", REQUEST, 20)
    assert len(rows) == 3 * run.program.config.experts
    for label in ("circle", "square", "triangle"):
        shares = [r.ours for r in rows if r.model == label]
        assert sum(shares) == pytest.approx(1) and max(shares) > 0.8


def leaves(number=8):
    generator = torch.Generator().manual_seed(0)
    config = dead_leaves.Config(size=32, colour="random", repeats=True, min_objects=3)
    return dead_leaves.world(number, generator, config)


def test_faded_scenes_keep_their_background_and_lose_contrast():
    scene = leaves()
    faded = figures.faded(scene.image, scene, 0.25)
    background = scene.background
    torch.testing.assert_close(faded - background, 0.25 * (scene.image - background))


def test_twins_have_one_colour():
    scene = leaves()
    twins = figures.twin_colours(scene.image, scene)
    for image, mask in zip(twins, scene.objects.mask, strict=True):
        if mask[0].any() and mask[-1].any():
            both = image[:, mask[0] | mask[-1]]
            torch.testing.assert_close(both, both[:, :1].expand_as(both))
    others = ~scene.objects.mask[:, -1:]
    assert torch.equal(twins * others, scene.image * others)


def test_pictures_tell_the_true_regions():
    generator, same = (torch.Generator().manual_seed(3) for _ in range(2))
    config = Config(size=32)
    scene, labels = draw(6, generator, config)
    truth = dead_leaves.world(6, same, config)
    true = regions((scene.image * 255).round() / 255)
    for slot in range(3):
        assert torch.equal(true == slot + 1, truth.objects.mask[:, slot])
    assert (scene.image - truth.image).abs().max() <= 3.001 / 255
    assert torch.equal(labels, dead_leaves.draw(6, torch.Generator().manual_seed(3), config)[1])
    with pytest.raises(ValueError, match="at most 3"):
        draw(1, generator, Config(max_objects=4, repeats=True))


def test_the_told_guide_has_the_true_masks_and_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the files are found from any folder
    run = Run(f"{HERE}/told.py", tmp_path, world=f"{HERE}/told_leaves.py", device="cpu", set=TOLD)
    found = plan(run)
    assert found.recipe.estimator == "z_cat*=competition,z_mask*=mean"  # of the file's RECIPES
    training = Training(found)
    images = training.images(0)
    front = poutine.trace(training.guide).get_trace(images).nodes["z_mask_4"]["fn"].mean
    assert torch.equal(front > 0.5, regions(images) == 1)
    losses = [float(training.trainer.update(images)[0]) for _ in range(12)]
    assert losses[-1] < losses[0]


def test_spare_layers_of_the_shipped_run_stay_empty():
    run = open_run("econ-sprites_unique")
    data = run.unseen(12, seed=3)
    images, truth = data.floats(), data.truth()
    counts = []
    for layers in (4, 6):
        with run.program.placing(layers):
            scene = infer(run.program, run.guide, images)
        counts.append(scene.objects.present.sum(1).tolist())
        assert scene_metrics(scene, truth)["ari"] > 0.98
    assert counts[0] == counts[1] and sum(counts[0]) >= 34  # of 36, some of them hidden


@torch.no_grad()
def test_samples_of_the_shipped_run_have_no_holes():
    run = open_run("econ-sprites_unique")
    trace = poutine.trace(run.program).get_trace(batch=50)
    scene = trace.nodes["_RETURN"]["value"]
    free = ~(scene.objects.mask > 0.5).any(1)
    same = (scene.image - scene.background).abs().amax(1) < 1e-5
    assert same[free].float().mean() > 0.99  # crumbs of objects are no objects
    flat = scene.background.flatten(2).std(2)
    assert flat.mean() < 0.05, flat.mean()  # as the world's are
