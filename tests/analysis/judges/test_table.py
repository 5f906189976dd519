"""The table of priors' scenes names no share of a judge that cannot be trusted."""

import json

from analysis.judges.table import GENERATION, render

MEASURED = {
    "scenes": 500,
    "seed": 0,
    "judge": {"true": 0.97, "broken": 0.02, "number": 0.9},
    "valid": {"true": 0.97, "inferred": 0.9, "prior": 0.625},
    "distance": {"number": 0.111, "size_1": 0.222, "size_2": 0.9, "place_1": 0.333},
    "images": {"told_apart": 0.444},
    "objects": {"valid": {"true": 0.99, "mixed": 0.3, "prior": 0.777}, "good": False},
    "blame": [
        {"site": "none", "frechet, prior alone": 0.5, "frechet, guide alone": 9.0},
        {"site": "z_what", "frechet, prior alone": 1.0},
        {"site": "z_pres_*", "frechet, prior alone": 2.0},
    ],
}


def lines_of(folder, **changes):
    (folder / "a").mkdir(exist_ok=True)
    (folder / "a" / GENERATION).write_text(json.dumps(MEASURED | changes))
    return render(folder)


def test_a_row_has_what_was_measured(tmp_path):
    row = lines_of(tmp_path)[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    expected = [
        "`a`",
        "62.5 % (97.0 %, 2.0 %)",
        "(99.0 %, 30.0 %)",
        "0.111",
        "0.222",
        "0.333",
        "0.444",
    ]
    assert cells == [*expected, "`z_pres_*`"]


def test_what_was_not_measured_is_left_empty(tmp_path):
    bare = {"valid": {}, "distance": {}, "blame": [], "objects": {"valid": {}, "good": False}}
    cells = lines_of(tmp_path, **bare)[-1].strip("|").split("|")
    assert [cell.strip() for cell in cells[1:]] == ["(97.0 %, 2.0 %)", "", "", "", "", "0.444", ""]


def test_no_site_is_to_blame_where_the_guides_scenes_are_no_nearer(tmp_path):
    none = {"site": "none", "frechet, prior alone": 9.5, "frechet, guide alone": 9.0}
    row = lines_of(tmp_path, blame=[none, *MEASURED["blame"][1:]])[-1]
    assert row.strip("|").split("|")[-1].strip() == ""


def test_numbers_are_of_nodes_where_there_are_nodes(tmp_path):
    distance = MEASURED["distance"] | {"nodes_1": 0.555}
    assert "| 0.555 |" in lines_of(tmp_path, distance=distance)[-1]


def test_without_measurements_there_is_no_table(tmp_path):
    assert render(tmp_path) == []
