"""The pictures of GNM's figures, drawn by programs that were never trained."""

import pytest
import torch
from pyro import poutine
from tiny import shows_something, untrained

from analysis.papers.gnm import judges, pictures, structure
from analysis.papers.gnm.items import ITEMS
from analysis.papers.item import Request
from analysis.posterior import Mode

SAMPLES = ("figure1", "figure2", "figure3", "figure4", "figure7")


def some(item, number=2):
    """Runs for some of an item's trainings, all of arrow rooms."""
    return {
        name: untrained(training.program, training.variant, "arrow_room")
        for name, training in list(item.trainings.items())[-number:]
    }


@pytest.mark.parametrize("figure", SAMPLES)
def test_samples_are_drawn_a_strip_per_model(figure):
    item = ITEMS[figure]
    runs = some(item)
    made = item.make(runs, Request(scenes=3))
    drawn = made.figures["samples"]
    assert [t.get_text() for axes in drawn.axes for t in axes.texts if t.get_text()] == [*runs]
    assert len(drawn.axes) == 3 * len(runs) and shows_something(drawn)


@pytest.mark.parametrize(("figure", "columns"), [("figure5", 11), ("figure6", 10)])
def test_symbols_are_drawn_anew(figure, columns, monkeypatch):
    judge = lambda images: torch.arange(len(images)) % 4 == 0
    monkeypatch.setattr(judges, "judge", lambda data: judge)
    item = ITEMS[figure]
    made = item.make(some(item, 1), Request(scenes=8))
    assert len(made.figures["arrow_room"].axes) == columns * pictures.LATENTS
    assert shows_something(made.figures["arrow_room"])
    assert [(row.metric, row.ours, row.scenes) for row in made.rows] == [
        ("symbols at their mode", 0.25, 8), ("symbols drawn", 0.25, 8)
    ]  # fmt: skip


def test_the_global_latent_stays_and_symbols_do_not():
    run = untrained("gnm", "gnm", "arrow_room")
    with torch.no_grad():
        trace = poutine.trace(run.program).get_trace(batch=2)
    axes = pictures.redrawn(run.program, trace, draws=2).axes
    mode, *draws = (torch.as_tensor(axes[k].get_images()[0].get_array()) for k in range(3))
    assert not torch.equal(draws[0], draws[1])
    again = pictures.redrawn(run.program, trace, draws=1).axes[0].get_images()[0].get_array()
    assert torch.equal(mode, torch.as_tensor(again)), "the mode is that of one global latent"
    with Mode(sites=structure.SYMBOLS), torch.no_grad():
        other = run.program(batch=1).image[0].clamp(0, 1).permute(1, 2, 0)
    assert not torch.allclose(other, mode)
