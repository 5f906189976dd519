"""DeNF's tables and figures, on runs that took no step, and on the shipped one."""

import math

import pyro
import pytest
import torch
from tiny import check_item, untrained

from analysis.evaluate import with_masks
from analysis.papers.denf import figures, tables
from analysis.papers.denf.fidelity import alone, removals, subsets
from analysis.papers.denf.items import ITEMS
from analysis.papers.explained import explained
from analysis.papers.item import Request
from analysis.papers.published import PUBLISHED
from analysis.scores import frechet_distance, scene_metrics
from analysis.scores.features import random_convolutions
from inference.plan import plan
from inference.runs import open_run

REQUEST = Request(scenes=4)


@pytest.fixture(scope="module")
def runs(shipped):
    pyro.set_rng_seed(0)
    with pyro.settings.context(module_local_params=True):
        return {
            "DeNF": shipped,  # an untrained one sees no objects
            "DeNF traffic": untrained("denf", "denf", "traffic"),
            "32 x 32 cells": untrained("denf", "denf32", "clevr6", squeeze=4),
            "GENESIS": untrained("genesis", "genesis", "traffic", colours=3),
        }


@pytest.fixture(scope="module")
def shipped():
    with pyro.settings.context(module_local_params=True):
        return open_run("denf-clevr6")


def test_every_table_and_figure_with_a_result_is_an_item():
    expected = {"table1", "table2", "table3", "figure3", "figure4", "figure5", "figure6"}
    assert expected == {*ITEMS} - {"fidelity", "bits"}
    assert {table for paper, table in PUBLISHED if paper == "denf"} <= {*ITEMS}


@pytest.mark.parametrize("name", ITEMS)
def test_every_item_is_made_of_what_there_is(name, runs):
    check_item(ITEMS[name], runs, REQUEST)


def test_the_model_without_a_transformer_keeps_the_other_penalties(tmp_path):
    run = tables.WITHOUT_ST.runs("without ST", Request(tmp_path))[-1]
    assert [*plan(run).recipe.penalties] == ["background", "reconstruction"]


def test_scores_are_the_metrics_own(shipped):
    data, _, scene = explained(shipped, shipped.unseen(6), 0)
    found = scene_metrics(with_masks(scene), data.truth())
    assert tables.scores(shipped, 6) == {k: found[k] for k in tables.SCORES}
    rows = tables.table3({"DeNF": shipped}, Request(scenes=6)).rows
    ours = {(r.model, r.metric): (r.ours, r.paper) for r in rows}
    assert ours["DeNF", "ari_fg"] == (found["ari_fg"], 0.963)
    assert ours["32 x 32 cells", "ari_fg"] == (None, 0.944)


def test_literatures_scores_stand_beside_ours(shipped):
    rows = tables.table1({}, REQUEST).rows
    printed = {r.model: r.paper for r in rows if r.paper is not None}
    assert printed["IODINE"] == 0.988 and len(printed) == 6
    clustered = [r for r in rows if r.model.startswith("k-means")]
    assert len(clustered) == 1 and 0 < clustered[0].ours < 1


def test_a_subset_keeps_objects_or_shows_the_background(shipped):
    _, _, scene = explained(shipped, shipped.unseen(6), 0)
    whole = subsets(shipped.program, scene, torch.Generator().manual_seed(0))
    assert whole.shape == scene.image.shape
    changed = (whole - scene.image).abs().flatten(1).amax(1)
    assert (changed > 0.05).any()
    # a mask leaves out pixels of the object that differ from the background by less than `visible`
    nowhere = scene.objects.mask.sum(1, keepdim=True) == 0
    faint = ((whole - scene.image).abs() * nowhere).max()
    assert nowhere.any() and faint <= shipped.program.config.visible


def test_one_object_alone_leaves_out_all_others(shipped):
    _, _, scene = explained(shipped, shipped.unseen(4), 0)
    first = next(alone(shipped.program, scene))
    there = scene.objects.present[:, 0]
    own = scene.objects.mask[:, :1] > 0.99
    others = (scene.objects.mask[:, 1:] > 0.99).any(1, keepdim=True)
    torch.testing.assert_close((first * own)[there], (scene.image * own)[there], atol=1e-4, rtol=0)
    torch.testing.assert_close(first * others, scene.background * others, atol=0.02, rtol=0)


def test_distances_are_frechets_own(shipped):
    found = tables.distances(shipped, 12)
    _, _, scene = explained(shipped, shipped.unseen(12), 0)
    other = shipped.unseen(12, 1).floats()
    features = [random_convolutions(x) for x in (scene.image, other)]
    assert found["reconstructions"] == pytest.approx(frechet_distance(*features))
    assert found["other true images"] < found["prior"] < found["backgrounds"]
    assert "subsets of an input's objects" in found


def test_maps_are_of_the_latents(shipped):
    _, images, scene = explained(shipped, shipped.unseen(3), 0)
    maps = figures.latent_maps(shipped.program, images)
    assert [*maps] == ["z_pres", "norm of z_scale", "norm of z_loc", "norm of z_what"]
    side = shipped.program.config.side
    assert all(m.shape == (3, side, side) for m in maps.values())
    small = torch.nn.functional.avg_pool2d(scene.opacity, scene.image.shape[-1] // side)[:, 0]
    assert ((maps["z_pres"] > 0.5) == (small > 0.5)).double().mean() > 0.97


def test_fidelity_is_what_removals_change(shipped):
    made = tables.fidelity({"DeNF": shipped}, Request(scenes=3))
    _, images, scene = explained(shipped, shipped.unseen(3), 0)
    found = 255 * removals(shipped.program, scene, images)
    means = [r.ours for r in made.rows if r.metric == "mean"]
    assert means == pytest.approx(found.mean(0).tolist()) and 0 < means[0] < means[1] < 10


def test_bits_are_of_the_evidence_and_of_files(shipped):
    rows = {r.model: r.ours for r in tables.bits({"DeNF": shipped}, Request(scenes=6)).rows}
    images = shipped.unseen(6).images
    pyro.set_rng_seed(0)
    with torch.no_grad():
        nats = shipped.program.evidence(images.float() / 255).mean() / images[0].numel()
    assert rows["DeNF"] == pytest.approx(8 - float(nats) / math.log(2), abs=1e-3)
    assert 1 < rows["WebP, lossless"] < rows["PNG, lossless"] < 8
    flat = torch.zeros(2, 3, 48, 48, dtype=torch.uint8)
    noise = torch.randint(256, flat.shape, dtype=torch.uint8)
    assert tables.file_bits(flat, "PNG", {}) < 0.2 < 7.9 < tables.file_bits(noise, "PNG", {})


def test_the_flow_alone_has_no_penalties_and_the_whole_likelihood(tmp_path):
    training = tables.DENSITIES["DeNF, likelihood alone"]
    recipe = plan(training.runs("alone", Request(tmp_path))[0]).recipe
    assert recipe.penalties == {} and recipe.schedules["weight.images"](0) == 1 / (3 * 48**2)
    assert "program.presence" not in recipe.schedules
