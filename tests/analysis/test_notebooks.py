"""The notebooks run, on their small setting."""

import json

import matplotlib
import pytest

from inference.loading import ROOT


@pytest.mark.parametrize(
    "path", sorted((ROOT / "analysis" / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem
)
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_a_notebook_runs_from_top_to_bottom(path, monkeypatch):
    matplotlib.use("agg")
    monkeypatch.setenv("SCENE_PROGRAMS_QUICK", "1")
    names = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            exec(compile(source, f"{path.name} cell {number}", "exec"), names)
