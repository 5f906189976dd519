"""The report: one page with everything in it, seen through a real browser where there is one."""

import base64
import html
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import matplotlib.image
import pytest
import torch
import xarray
from tiny import build, images

from analysis import plots, report, results
from analysis.posterior.predictive import Check
from inference.runs import TRAINED, Trained, read_config, read_json, shipped

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --enable-logging=stderr --dump-dom"
)
PROBE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"></head><body><script>
const frame = document.createElement("iframe");
frame.style = "width: WIDTHpx; height: 800px";
frame.onload = () => {
  const page = frame.contentDocument, images = [...page.images];
  const found = {images: images.length, loaded: images.filter(i => i.naturalWidth > 0).length,
    width: page.documentElement.scrollWidth, height: page.documentElement.scrollHeight,
    text: parseFloat(getComputedStyle(page.body).fontSize)};
  document.body.innerHTML = "<pre>" + JSON.stringify(found) + "</pre>";
};
frame.srcdoc = PAGE;
document.body.append(frame);
</script></body></html>"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The report of a shipped run, on few images."""
    out = tmp_path_factory.mktemp("report")
    patch = pytest.MonkeyPatch()
    patch.setattr(report, "SIMULATIONS", 20)
    arguments = ["air-multi_mnist", "--out", str(out), "--images", "6", "--draws", "30"]
    assert report.main(arguments) == 0
    patch.undo()
    return out


def test_it_says_what_there_is_to_say(made):
    page = (made / "index.html").read_text()
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        "The program", "Metrics", "Inferred scenes", "Samples of the prior", "Edits", "Predictive checks",
        "Calibration", "Posterior", "Refined by the program", "Training",
    ]  # fmt: skip
    assert "Attend, Infer, Repeat" in page and "z_where_t" in page
    metrics = json.loads((report.find_run("air-multi_mnist") / "metrics.json").read_text())
    assert f"{metrics['object_count_accuracy']:.4g}" in page and "0.985" in page


def test_every_picture_is_in_the_page_and_nothing_else_is_fetched(made, tmp_path):
    page = (made / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) > 7 and all(source.startswith("data:") for source in sources)
    assert "<script" not in page and "url(" not in page and "@import" not in page
    for number, source in enumerate(s for s in sources if s.startswith("data:image/png")):
        file = tmp_path / f"{number}.png"
        file.write_bytes(base64.b64decode(source.partition(",")[2]))
        assert matplotlib.image.imread(file).std() > 0.05


def test_the_posterior_is_beside_it(made):
    with xarray.open_dataset(made / "posterior.nc", group="posterior") as group:
        assert group["n_objects"].shape == (1, 30, 6)
    with xarray.open_dataset(made / "posterior.nc", group="constant_data") as group:
        assert group["n_objects"].shape == (6,)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_without_complaint(made, width, tmp_path):
    """Every picture loads, nothing is wider than the window, and nothing is said in the console."""
    page = json.dumps((made / "index.html").read_text()).replace("</", "<\\/")
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.replace("WIDTH", str(width)).replace("PAGE", page))
    command = [BROWSER, *OPTIONS.split(), f"--user-data-dir={tmp_path / 'user'}", probe.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert "CONSOLE" not in run.stderr, run.stderr
    found = json.loads(html.unescape(re.search("<pre>(.*?)</pre>", run.stdout, re.S)[1]))
    assert found["images"] == found["loaded"] >= 7
    assert found["width"] <= width and found["height"] > 2000 and found["text"] >= 16


@pytest.mark.parametrize("name", shipped())
def test_the_papers_figures_are_those_of_results(name):
    folder = TRAINED / name
    run = Trained(folder, torch.nn.Identity(), torch.nn.Identity(), read_config(folder))
    page = report.Page(name)
    report.about(page, run)
    text, measured = html.unescape("".join(page.parts)), read_json(folder / "metrics.json")
    figures, source = results.published(results.opened(folder))
    assert bool(source) == ("Paper: " in text) and source in text
    for metric in figures.keys() & measured.keys():
        assert f'<td class="number">{figures[metric]:.4g}</td>' in text, metric


def test_a_run_of_another_name_has_its_models_figures():
    figures, source = results.published(results.opened(TRAINED / "discrete_air-multi_mnist"))
    assert figures["object_count_accuracy"] == 0.984 and source.startswith("air, Table 1")


@pytest.mark.parametrize(
    "run",
    [pytest.param(n, marks=() if n == "vae-mnist4" else pytest.mark.slow) for n in shipped()],
)
def test_every_shipped_run_has_a_page(run, tmp_path, monkeypatch):
    """Those without objects too, and those whose objects have no sites of their own."""
    few = {"SIMULATIONS": 8, "RANKED": 3, "CROWDED": 4, "REDRAWN": 2}
    for name, number in few.items():
        monkeypatch.setattr(report, name, number)
    page = report.report(run, tmp_path, images=3, draws=4).read_text()
    assert "<h2>Posterior</h2>" in page and "<h2>Training</h2>" in page


def test_a_run_that_is_not_there_is_named(capsys):
    assert report.main(["nowhere"]) == 2
    assert "'nowhere' is no run" in capsys.readouterr().err


def test_figures_of_checks(tmp_path):
    check = Check(
        "posterior",
        {"n": torch.arange(5)},
        {"n": torch.randint(0, 5, (7, 5))},
        {"n": torch.rand(5)},
        {"n": 0.2},
    )
    prior = Check(
        "prior", {"n": torch.arange(5)}, {"n": torch.arange(3)}, {"n": torch.tensor(0.5)}, {}
    )
    figure = plots.predictive_figure([check, prior])
    assert [axes.get_ylabel() for axes in figure.axes] == ["posterior\np-values", "prior"]
    assert figure.axes[1].get_title() == "n  p 0.5"
    counted = sum(bar.get_height() for bar in figure.axes[0].patches)
    assert counted == 5
    khat = plots.khat_figure(torch.tensor([0.1, 0.9, -torch.inf, torch.nan]))
    assert khat.axes[0].get_title() == "1 of equal weights, 1 without a tail"
    assert sum(bar.get_height() for bar in khat.axes[0].patches) == 2


def test_too_few_draws_for_k_hat_are_said_so(tmp_path):
    program, guide = build("air", "air")
    page, data = report.Page("x"), SimpleNamespace(known=False, description={})
    x = images(2, program)
    report.posterior(page, program, guide, x, data, 4, tmp_path / "p.nc", {"command": "none"})
    assert "4 draws of each image are too few for k-hat" in "".join(page.parts)
