"""RESULTS.md and the README's table say what the shipped runs' files say."""

import json
import shutil

import pytest

from analysis import results
from analysis.calibrate import FILE
from analysis.judges.table import GENERATION
from analysis.results import (
    ESTIMATORS,
    README,
    RESULTS,
    TRAINED,
    estimators,
    inserted,
    render,
    shipped,
    summary,
)


@pytest.fixture
def copies(tmp_path):
    for name in ("gsgn-shapes2d", "gnm-mnist4"):
        target = tmp_path / name
        target.mkdir()
        for file in ("config.json", *results.FILES):
            if (TRAINED / name / file).is_file():
                shutil.copy(TRAINED / name / file, target / file)
    return tmp_path


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_results_are_current():
    assert RESULTS.read_text(encoding="utf-8") == render(), "run python -m analysis.results"


def test_the_readmes_table_is_current():
    text = README.read_text(encoding="utf-8")
    assert inserted(text, summary()) == text, "run python -m analysis.results"


def test_the_table_of_estimators_is_current():
    text = ESTIMATORS.read_text(encoding="utf-8")
    assert inserted(text, estimators()) == text, "run python -m analysis.results"


def test_a_world_that_has_changed_since_is_said(copies):
    file = copies / "gnm-mnist4" / "metrics.json"
    data = json.loads(file.read_text())["data"]
    now = data["version"]
    assert "version" not in results.outdated(data)
    rewrite(file, data=data | {"version": "0"})
    assert f"The world was version 0 then and is version {now} now." in render(shipped(copies))


def test_every_shipped_run_and_every_program_has_its_place():
    text = render()
    for run in shipped():
        assert f"### {run.name}\n" in text and f"| `{run.name}` |" in summary()
    assert "## space\n\nNo run ships." in text


def test_every_file_of_measurements_that_ships_is_read():
    names = {path.name for path in TRAINED.glob("*/*.json")}
    assert names - {GENERATION, FILE} == {"config.json", *results.FILES}


def test_every_number_in_these_files_has_a_label_or_a_reason():
    said = {"step", "scenes", "draws", "seed", "seconds", "images_per_second"}
    for run in shipped():
        for table in run.measured.values():
            numbers = {k for k, v in table.items() if type(v) in (int, float)}
            assert numbers <= set(results.METRICS) | said, run.name


def test_ours_stands_beside_the_papers(copies):
    rewrite(copies / "gsgn-shapes2d" / "metrics.json", part_f1=0.1234, scenes=77, seed=5)
    runs = shipped(copies)
    assert "| part F1 | 12.3 % | 99.9 % |" in render(runs)
    assert "--scenes 77 --seed 5`: 77 unseen scenes of `shapes2d`, 64 by 64 pixels" in render(runs)
    assert "part F1 12.3 % (99.9 %)" in summary(runs) and "| 77 |" in summary(runs)


def test_rows_name_the_scenes_of_each_file(copies):
    rewrite(copies / "gnm-mnist4" / "structure.json", s_acc=0.5, scenes=33)
    (gnm,) = (run for run in shipped(copies) if run.program == "gnm")
    assert "S-Acc 50.0 % | 500, 33 |" in results.brief(gnm)


def test_a_finish_is_compared_with_the_recipe_of_the_world_of_its_run():
    (clevr,) = (run for run in shipped() if run.name == "gsgn-compositional_clevr")
    assert "--preset finish" in clevr.config["command"] and "--world" not in clevr.config["command"]
    assert not results.changed(clevr) and " *" not in results.brief(clevr)


def test_a_recipe_that_has_changed_is_said(copies):
    config = copies / "gnm-mnist4" / "config.json"
    fields = json.loads(config.read_text())["config"]
    rewrite(config, config=fields | {"structured": True})
    (gnm,) = (run for run in shipped(copies) if run.program == "gnm")
    assert not results.changed(gnm) and " *" not in results.brief(gnm)
    rewrite(config, config=fields | {"structured": False, "learned": 7})
    (gnm,) = (run for run in shipped(copies) if run.program == "gnm")
    assert results.changed(gnm) == ["structured=False then, True now"]
    assert " *" in results.brief(gnm)
    rewrite(config, config=fields | {"structured": True})
    recipe = json.loads(config.read_text())["recipe"]
    del recipe["schedules"]["weight.z_what*"]
    recipe["schedules"]["learning_rate"] = "WarmupDecay(peak=5.0)"
    recipe["schedules"]["weight.z_global*"] = "AnotherName(0, 1)"
    rewrite(config, recipe=recipe | {"steps": 5})
    said = "since: steps 5 then, 8000 now; schedules of `learning_rate`, `weight.z_what*`."
    assert said in render(shipped(copies))
    assert "`gnm.py` *" in summary(shipped(copies))


def test_all_commands_that_made_a_run_are_listed():
    before = {"command": "train", "fitted": {"command": "fit"}, "started": {"command": "first"}}
    assert results.commands({"command": "finish", "started": before}) == [
        *("first", "train", "fit", "finish")
    ]


def test_a_readme_without_the_place_is_refused():
    with pytest.raises(ValueError, match="lacks the lines"):
        inserted("# Title\n", summary([]))
