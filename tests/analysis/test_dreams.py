"""The page of prior scenes."""

import torch
from tiny import shows_something, untrained

from analysis import dreams
from inference.runs import shipped


def test_a_row_is_a_programs_scenes_beside_its_worlds(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(dreams, "COUNT", 2)
    runs = {
        n: untrained(n, n, w) for n, w in (("vae", "multi_sprites"), ("econ", "sprites_unique"))
    }
    monkeypatch.setattr(dreams, "open_run", runs.__getitem__)
    rows = {name: dreams.row(run, 0) for name, run in runs.items()}
    assert all(len(side) == 2 for sides in rows.values() for side in sides)
    assert torch.equal(rows["vae"][1], dreams.row(runs["vae"], 0)[1])
    figure = dreams.page(rows)
    assert len(figure.axes) == 8 and shows_something(figure)
    assert dreams.main(["vae", "econ", "--out", str(tmp_path / "page.png")]) == 0
    assert (tmp_path / "page.png").is_file()


def test_shipped_runs_are_listed():
    assert {"econ-sprites_unique", "gsgn-shapes2d"} <= {*shipped()}
