from dataclasses import replace

import matplotlib.image
import pytest
import torch

from analysis import plots
from analysis.plots import scenes
from analysis.posterior import calibration
from programs.scene import Nodes, Scene
from programs.worlds import dead_leaves, groups2d, shapes2d


def truth(batch=3):
    """Graphs of 4 slots of objects and 3 parts each, without patches."""
    generator = torch.Generator().manual_seed(0)
    return shapes2d.world(batch, generator, shapes2d.Config(size=32))


def with_patches(scene):
    levels = tuple(replace(n, patch=torch.rand(*n.pres.shape, 4, 6, 6)) for n in scene.levels)
    return replace(scene, levels=levels)


def pixels(figure, path):
    """What the file shows, as (rows, columns, 4) in [0, 1]."""
    plots.save(figure, path)
    return matplotlib.image.imread(path)


SCENES = {
    "truth": truth,
    "patches": lambda: with_patches(truth()),
    "objects": lambda: replace(truth(), levels=truth().levels[:1]),
    "grey": lambda: replace(truth(), image=truth().image[:, :1]),
    "gradients": lambda: with_patches(truth()).map(
        lambda t: t.requires_grad_() if t.is_floating_point() else t
    ),
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_scene_graphs_have_a_row_an_image_and_a_column_a_slot(scene, tmp_path):
    scene = scene()
    figure = plots.scene_graph_figure(scene.image, scene, count=2)
    assert len(figure.axes) == 2 * (2 + 4)
    assert pixels(figure, tmp_path / "graph.png").std() > 0.1


def test_scene_graphs_show_what_is_present_and_nothing_else():
    scene = truth(2)
    figure = plots.scene_graph_figure(scene.image, scene)
    for b in range(2):
        seen, _, *cells = figure.axes[6 * b : 6 * b + 6]
        objects, parts = scene.objects.present[b], scene.parts.present[b].view(4, 3)
        assert len(seen.patches) == objects.sum() + parts.sum()
        expected = objects.int() + parts.sum(1)
        assert [len(cell.images) for cell in cells] == expected.tolist()


def test_three_levels_stand_side_by_side():
    """A node's patch lies in the third of its level, inside its parent's share of it."""
    generator = torch.Generator().manual_seed(0)
    scene = groups2d.world(2, generator, groups2d.Config(size=64))
    figure = plots.scene_graph_figure(scene.image, scene)
    assert figure.axes[2].get_title() == "group 1"
    for b in range(2):
        seen, _, *cells = figure.axes[6 * b : 6 * b + 6]
        assert len(seen.patches) == sum(int(n.present[b].sum()) for n in scene.levels)
        for slot, cell in enumerate(cells):
            own = [n.present[b].view(4, -1)[slot].sum() for n in scene.levels]
            boxes = [image.get_extent() for image in cell.images]
            assert len(boxes) == sum(own)
            thirds = [round((left + right) / 2 / 2.1) for left, right, *_ in boxes]
            assert [thirds.count(k) for k in range(3)] == own
    spots = scenes._spots(scene)
    inner, outer = spots[2], spots[1].gather(1, scene.parts.parent[..., None].expand(-1, -1, 3))
    assert (inner[..., :2] >= outer[..., :2]).all()
    assert (inner[..., :2] + inner[..., 2:] <= outer[..., :2] + outer[..., 2:] + 1e-6).all()


def test_boxes_are_drawn_where_the_poses_say():
    scene = truth(1)
    seen = plots.scene_graph_figure(scene.image, scene).axes[0]
    drawn = torch.tensor(seen.patches[-1].get_xy())[:4].float()
    last = scene.objects.present[0].nonzero()[-1, 0]
    torch.testing.assert_close(drawn, scene.objects.corners[0, last])


def test_a_patch_is_its_colours_times_its_mask():
    nodes = with_patches(truth(1)).objects
    colours, mask = nodes.patch[0, :, :3], nodes.patch[0, :, 3:]
    scene = Scene(truth(1).image, (replace(nodes, pres=torch.ones(1, 4)),))
    shown = plots.scene_graph_figure(scene.image, scene).axes[2].images[0].get_array()
    torch.testing.assert_close(torch.tensor(shown), (colours * mask)[0].permute(1, 2, 0))


def test_with_many_slots_only_the_present_are_shown(tmp_path):
    pres = torch.zeros(1, 64)
    pres[0, [3, 40, 63]] = 1
    pose = torch.eye(2, 3).expand(1, 64, 2, 3) * 0.2
    nodes = Nodes(pres, pose, torch.ones(1, 64), torch.zeros(1, 64, dtype=torch.int64))
    scene = Scene(torch.rand(1, 3, 32, 32), (nodes,))
    figure = plots.scene_graph_figure(scene.image, scene)
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert pixels(figure, tmp_path / "many.png").std() > 0.1


@pytest.mark.parametrize("boxes", [False, True])
def test_samples_fill_a_grid(boxes, tmp_path):
    figure = plots.sample_figure(truth(6), columns=4, boxes=boxes)
    assert len(figure.axes) == 8
    assert [len(axes.images) for axes in figure.axes] == [1] * 6 + [0] * 2
    assert bool(figure.axes[0].patches) == boxes
    assert pixels(figure, tmp_path / "samples.png").std() > 0.1


@pytest.mark.parametrize("scene", [truth, lambda: with_patches(truth())], ids=["crops", "patches"])
def test_objects_present_fill_a_grid(scene, tmp_path):
    scene = scene()
    figure = plots.object_figure(scene, columns=4, count=5)
    shown = min(5, int(scene.objects.present.sum()))
    assert sum(len(axes.images) for axes in figure.axes) == shown
    assert pixels(figure, tmp_path / "objects.png").std() > 0.1


def test_no_object_at_all_is_an_empty_grid(tmp_path):
    scene = truth()
    nobody = replace(scene.objects, pres=torch.zeros(3, 4))
    figure = plots.object_figure(replace(scene, levels=(nobody,)), columns=4)
    assert len(figure.axes) == 4
    pixels(figure, tmp_path / "empty.png")


RECORDS = {
    "all": [
        {"step": 1, "loss": 9.0, "term/images": 5.0, "term/kl/z_pres_1": 4.0, "term/aux/z_pres": 0},
        {"step": 2, "loss": 7.0, "term/images": 5.0, "term/kl/z_pres_1": 2.0, "term/aux/z_pres": 0},
        {"step": 2, "object_f1": 0.5, "part_f1": 0.1, "elbo_per_pixel": 3.0},
        {"step": 3, "object_f1": 0.7, "part_f1": 0.2, "elbo_per_pixel": 3.5},
    ],
    "loss": [{"step": k, "loss": -1.0 * k} for k in range(5)],
    "one": [{"step": 1, "loss": 1.0}],
    "metrics": [{"step": 1, "object_count_accuracy": 1.0}],
    "none": [],
}


@pytest.mark.parametrize("log", RECORDS.values(), ids=RECORDS)
def test_curves_draw_what_the_log_has(log, tmp_path):
    figure = plots.curves_figure(log)
    keys = {key for record in log for key in record} - {"step"}
    assert len(figure.axes) == 3 + ("elbo_per_pixel" in keys)
    assert sum(len(axes.lines) for axes in figure.axes) == len(keys)
    assert pixels(figure, tmp_path / "curves.png").std() > 0.01


def test_a_curve_skips_the_records_without_it():
    line = plots.curves_figure(RECORDS["all"]).axes[1].lines[0]
    assert line.get_xydata().tolist() == [[2, 0.5], [3, 0.7]]


def test_edits_stand_side_by_side_under_their_titles(tmp_path):
    before, after = truth(2), replace(truth(2), image=torch.rand(2, 3, 32, 32))
    figure = plots.edit_figure({"before": before, "after": after})
    assert [axes.get_title() for axes in figure.axes] == ["before", "after", "", ""]
    shown = [torch.tensor(axes.images[0].get_array()).permute(2, 0, 1) for axes in figure.axes]
    expected = [before.image[0], after.image[0], before.image[1], after.image[1]]
    assert all(torch.equal(a, b) for a, b in zip(shown, expected, strict=True))
    assert pixels(figure, tmp_path / "edits.png").std() > 0.1


def judged(presence=True):
    """Made up: a number, a map of nine cells, events, intervals."""

    def some_ranks():
        return calibration.RankStatistics(torch.randint(20, (50,)), draws=19)

    events = calibration.reliability(torch.rand(50, 2) < 0.5, torch.rand(19, 50, 2) < 0.5)
    names = ["n_objects", *(f"occupancy[{y},{x}]" for y in range(3) for x in range(3))]
    names, boxes = {name: some_ranks() for name in names}, ["n_objects", *calibration.BOX]
    return calibration.Calibration(
        ranks=names,
        tarp=some_ranks(),
        presence=events if presence else None,
        count=events,
        rps=0.1,
        coverage={name: calibration.coverage(torch.rand(50)) for name in boxes},
    )


@pytest.mark.parametrize("presence", [True, False])
def test_calibration_has_a_curve_a_quantity_and_a_mark_a_level(presence, tmp_path):
    found = judged(presence)
    figure = plots.calibration_figure(found)
    ranks, events, intervals = figure.axes
    assert len(ranks.lines) == 1 + len(found.ranks) + 1  # zero, TARP
    labels = [text.get_text() for text in ranks.get_legend().get_texts()]
    assert labels == ["95 % band", "n_objects", "occupancy (9 cells)", "TARP"]
    curve = torch.as_tensor(ranks.lines[-1].get_ydata())
    torch.testing.assert_close(curve, found.tarp.coverage - found.tarp.levels)
    assert len(events.containers) == 1 + presence
    low, high = found.tarp.band()
    corners = torch.as_tensor(ranks.collections[0].get_paths()[0].vertices[:, 1])
    assert corners.min() == pytest.approx(float((low - found.tarp.levels).min()))
    assert corners.max() == pytest.approx(float((high - found.tarp.levels).max()))
    for marks, covered in zip(intervals.containers, found.coverage.values(), strict=True):
        assert list(marks.lines[0].get_ydata()) == covered.shares.tolist()
    assert pixels(figure, tmp_path / "calibration.png").std() > 0.05


def test_layers_are_shown_from_the_front_and_what_is_absent_is_not():
    config = dead_leaves.Config(size=32, min_objects=1)
    scene = dead_leaves.world(4, torch.Generator().manual_seed(0), config)
    patch = torch.rand(4, 3, 4, 16, 16)
    nodes = replace(scene.objects, patch=patch, mask=scene.objects.mask.float())
    scene = replace(scene, levels=(nodes,))
    figure = plots.layers_figure(scene.image, scene, count=3)
    assert len(figure.axes) == 3 * (2 + 2 * 3 + 1)
    for b in range(3):
        _, _, *cells, ground = figure.axes[9 * b : 9 * b + 9]
        assert [len(c.images) for c in cells] == nodes.pres[b].int().repeat_interleave(2).tolist()
        shown = torch.tensor(cells[0].images[0].get_array()).movedim(-1, 0)
        torch.testing.assert_close(shown, scene.image[b] * nodes.mask[b, 0])
        assert len(ground.images) == 1
    with pytest.raises(ValueError, match="shape=None"):
        plots.layers_figure(scene.image, truth())
