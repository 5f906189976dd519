"""The pictures of GSGN's figures, drawn by programs that were never trained."""

import pytest
import torch
from tiny import shows_something, untrained

from analysis.papers.gsgn import pictures
from analysis.papers.gsgn.items import ITEMS
from analysis.papers.item import Request


@pytest.mark.parametrize(
    ("figure", "variant", "world"),
    [
        ("figure2", "gsgn", "shapes2d"),
        ("figure3", "gsgn", "compositional_clevr"),
        ("figure7", "mem", "compositional_clevr"),
        ("figure12", "gsgn", "compositional_clevr7"),
    ],
)
def test_scene_graphs_are_drawn(figure, variant, world):
    item = ITEMS[figure]
    ((model, training),) = item.trainings.items()
    assert (training.variant, training.world) == (variant, world)
    made = item.make({model: untrained("gsgn", variant, world)}, Request(scenes=2))
    drawn = made.figures["scene_graphs"]
    rows = [axes for axes in drawn.axes if axes.get_images()]
    assert len(rows) >= 4, "input and reconstruction of two scenes"
    seen = untrained("gsgn", variant, world).unseen(2).floats()
    shown = torch.as_tensor(rows[0].get_images()[0].get_array()).permute(2, 0, 1)
    torch.testing.assert_close(shown.float(), seen[0])


def test_objects_and_scenes_of_the_prior_are_drawn():
    item = ITEMS["figure5"]
    runs = {
        name: untrained(training.program, training.variant, training.world)
        for name, training in item.trainings.items()
    }
    made = item.make(runs, Request(scenes=6))
    words = ("on_2d_shapes", "on_compositional_clevr")
    flat = {f"objects_of_space-o_{w}" for w in words}
    assert flat | {f"scenes_of_gsgn_{w}" for w in words} <= {*made.figures}
    assert all(shows_something(made.figures[name]) for name in flat)


def test_objects_of_space_are_drawn_as_if_they_were_there():
    run = untrained("space", "space", "shapes2d")
    run.program.presence.fill_(-30.0)
    assert not pictures.dreams(run.program, 3).objects.present.any()
    scene = pictures.dreams(run.program, 3, present=True)
    assert scene.objects.present.all() and scene.objects.patch.std() > 0


def test_the_memory_is_drawn():
    run = untrained("gsgn", "mem", "compositional_clevr")
    made = ITEMS["figure8"].make({"GSGN-Mem": run}, Request())
    axes = made.figures["memory"].axes
    assert len(axes) == (pictures.LOOKS + 1) * run.program.config.memory
    assert all(one.get_images() for one in axes)
