"""The page of prior scenes."""

from dataclasses import replace
from pathlib import Path

import torch
from tiny import shows_something, untrained

from analysis import command, dreams
from inference.runs import shipped


def test_a_row_is_a_programs_scenes_beside_its_worlds(monkeypatch):
    monkeypatch.setattr(dreams, "COUNT", 2)
    runs = {
        n: untrained(n, n, w) for n, w in (("vae", "multi_sprites"), ("econ", "sprites_unique"))
    }
    rows = {name: dreams.row(run, 0) for name, run in runs.items()}
    assert all(len(side) == 2 for sides in rows.values() for side in sides)
    assert torch.equal(rows["vae"][1], dreams.row(runs["vae"], 0)[1])
    figure = dreams.page(rows)
    assert len(figure.axes) == 8 and shows_something(figure)


def test_runs_that_are_given_have_a_page_of_their_own(monkeypatch, tmp_path, capsys):
    """Each has a row, whatever its folder's name; the project's page stays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dreams, "COUNT", 1)
    monkeypatch.setattr(dreams, "PAGE", tmp_path / "page.png")
    run = untrained("vae", "vae", "multi_sprites")
    monkeypatch.setattr(command, "open_run", lambda folder: replace(run, folder=Path(folder)))
    drawn = []
    page = dreams.page
    monkeypatch.setattr(dreams, "page", lambda rows: drawn.extend(rows) or page(rows))
    assert dreams.main(["here/vae", "there/vae"]) == 0
    assert drawn == ["vae", "vae (2)"]
    assert capsys.readouterr().out.strip() == "runs/dreams.png"
    assert (tmp_path / "runs" / "dreams.png").is_file() and not dreams.PAGE.exists()
    monkeypatch.setattr(dreams, "shipped", lambda: ["vae"])
    assert dreams.main([]) == 0 and dreams.PAGE.is_file()
    assert dreams.main(["vae", "--out", "mine.png"]) == 0
    assert (tmp_path / "mine.png").is_file()


def test_shipped_runs_are_listed():
    assert {"econ-sprites_unique", "gsgn-shapes2d"} <= {*shipped()}
