"""Discrete-AIR's table and figures, on runs that took no step, and on the shipped one."""

import pyro
import pytest
import torch
from tiny import check_item, untrained

from analysis.papers.air import figures, tables
from analysis.papers.air.items import ITEMS
from analysis.papers.explained import explained
from analysis.papers.item import Request
from analysis.papers.published import PUBLISHED
from analysis.posterior import infer
from analysis.scores import category_correspondence, confusion, count_accuracy
from inference.runs import open_run
from programs.scene import Nodes

SIZE = {"size": 40, "window": 16}
REQUEST = Request(scenes=6)


@pytest.fixture(scope="module")
def runs():
    pyro.set_rng_seed(0)
    with pyro.settings.context(module_local_params=True):
        sprites = untrained("discrete_air", "discrete_air", "multi_sprites", **SIZE)
        return {
            "Discrete-AIR sprites": sprites,
            "Discrete-AIR apart": sprites,
            "Discrete-AIR digits": untrained(
                "discrete_air", "discrete_air_mnist", "multi_mnist", **SIZE
            ),
            "AIR digits": untrained("air", "air", "multi_mnist", size=40),
        }


def test_every_table_and_figure_with_a_result_is_an_item():
    assert {*ITEMS} == {"table1", "apart", *(f"figure{k}" for k in range(3, 10))}
    assert {table for paper, table in PUBLISHED if paper == "air"} <= {*ITEMS}


@pytest.mark.parametrize("name", ITEMS)
def test_every_item_is_made_of_what_there_is(name, runs):
    check_item(ITEMS[name], runs, REQUEST)


def test_the_table_has_four_cells_and_what_chance_reaches(runs):
    rows = tables.table1(runs, REQUEST).rows
    ours = {(r.model, r.metric, r.case): r.ours for r in rows}
    assert ours["AIR", "object_count_accuracy", "multi_sprites"] is None
    assert ours["AIR", "object_count_accuracy", "multi_mnist"] is not None
    assert ours["AIR", "category_correspondence", "multi_mnist"] is None
    assert {case for model, _, case in ours if model == "random categories"} == {*tables.CATEGORIES}
    paper = {(r.model, r.metric, r.case): r.paper for r in rows}
    assert paper["Discrete-AIR", "category_correspondence", "multi_mnist"] == 0.87


def test_a_cell_is_a_mean_over_seeds_with_the_best_beside(monkeypatch):
    monkeypatch.setattr(
        tables, "measure", lambda run, *_: {name: (v, 0.1) for name, v in run.items()}
    )
    monkeypatch.setattr(tables, "bound_of", lambda run, _: -run["category_correspondence"])
    monkeypatch.setattr(tables, "chance", lambda *_: (0.5, 0.01))
    shares = [(0.9, 0.6), (0.8, 0.7), (1.0, 0.8)]
    names = tables.seeds("Discrete-AIR digits")
    keys = PUBLISHED["air", "table1"].columns
    found = {
        n: dict(zip(keys, values, strict=True)) for n, values in zip(names, shares, strict=True)
    }
    made = tables.table1(found, REQUEST)
    rows = {(r.model, r.metric): r for r in made.rows if r.case == "multi_mnist"}
    count = rows["Discrete-AIR", "object_count_accuracy"]
    assert count.ours == pytest.approx(0.9) and count.error == pytest.approx(0.1 / 3**0.5)
    assert rows["Discrete-AIR", tables.CATEGORY].ours == pytest.approx(0.7)
    assert rows[tables.BEST, tables.CATEGORY].ours == 0.8
    assert rows[tables.BEST, tables.CATEGORY].paper == 0.913
    assert rows[tables.BOUND, tables.CATEGORY].ours == 0.6
    assert "Discrete-AIR digits: 3 of 3 trainings" in made.text


def test_trainings_of_a_cell_differ_in_seed_and_folder_alone(tmp_path):
    request = Request(tmp_path, seed=4)
    made = [tables.TRAININGS[n].runs(n, request)[-1] for n in tables.seeds("AIR digits")]
    assert [run.seed for run in made] == [4, 5, 6]
    assert [run.out.name for run in made] == [f"air_digits-multi_mnist-seed{k}" for k in (4, 5, 6)]
    assert len({(run.program, run.variant, run.world, run.set) for run in made}) == 1


def test_a_cells_numbers_are_the_scores_own():
    run = open_run("discrete_air-multi_sprites")
    found = tables.measure(run, 20)
    data = run.unseen(20)
    pyro.set_rng_seed(0)
    scene, truth = infer(run.program, run.guide, data.floats()), data.truth()
    share = count_accuracy(scene.objects, truth.objects)
    assert found["object_count_accuracy"] == (share, (share * (1 - share) / 20) ** 0.5)
    assert found["category_correspondence"][0] == category_correspondence(
        scene.objects, truth.objects
    )


def test_chance_is_above_one_in_k_for_counts_per_image():
    """With one object per image it is 1 / K: no naming helps where labels are independent."""
    number, k = 4000, 3
    pres = torch.ones(number, 1)
    labels = torch.randint(k, (number, 1), generator=torch.Generator().manual_seed(1))
    nodes = Nodes(pres, torch.zeros(number, 1, 2, 3), pres, pres.long(), labels)
    guess = tables.at_random(nodes, k, torch.Generator().manual_seed(2))
    share = category_correspondence(guess, nodes)
    assert abs(share - 1 / k) < 4 * (k - 1) ** 0.5 / k / number**0.5 + 0.01
    assert tables.chance("multi_sprites", 400)[0] > 1 / k + 0.05


def test_confusion_counts_objects_that_are_found():
    pose = torch.eye(2, 3).repeat(2, 2, 1, 1)
    pose[:, 1, 0, 2] = 0.8
    pres, root = torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.zeros(2, 2).long()
    truth = Nodes(pres, pose, pres, root, torch.tensor([[0, 1], [1, -1]]))
    far = pose.clone()
    far[1, 0, 0, 2] = -0.9  # the third object is not found
    nodes = Nodes(pres, far, pres, root, torch.tensor([[2, 2], [0, -1]]))
    assert confusion(nodes, truth, 2, 3).tolist() == [[0, 0, 1], [0, 0, 1]]


def test_attributes_vary_from_row_to_row_and_nothing_else(runs):
    program = runs["Discrete-AIR digits"].program
    pictures = figures.varied(program, (1, 2), (-2.0, 0.0, 0.0))
    assert pictures.shape == (3, 1, 40, 40)
    torch.testing.assert_close(pictures[1], pictures[2])
    assert (pictures[0] - pictures[1]).abs().max() > 0
    with pytest.raises(ValueError, match="attributes=0"):
        figures.varied(runs["Discrete-AIR sprites"].program, (1,))


def test_the_last_step_is_the_whole_scene_and_errors_fall():
    run = open_run("discrete_air-multi_sprites")
    _, images, scene = explained(run, run.unseen(30), 0)
    stages = figures.after_steps(run.program, scene)
    torch.testing.assert_close(stages[-1].image, scene.image, atol=1e-4, rtol=0)
    assert stages[0].objects.present.sum(1).max() == 1
    errors = [r.ours for r in figures.steps({"run": run}, Request(scenes=30)).rows]
    assert errors == sorted(errors, reverse=True) and len(errors) == 3
    last = float((stages[-1].image - images).square().mean(dtype=torch.float64))
    assert errors[-1] == pytest.approx(last, rel=1e-6)
