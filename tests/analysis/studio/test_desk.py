"""Messages of the page, answered."""

import base64
import json
from functools import cache

import pytest
from readme import OWN
from training import train

from analysis.studio.desk import Desk
from inference.plan import Run


@cache
def made_once():
    made = Desk(["gsgn-shapes2d"])
    made.here.images = made.here.run.unseen(3).floats()
    made.answer({"do": "show"})
    return made


@pytest.fixture
def desk():
    return made_once()


def test_the_page_gets_everything_as_json(desk):
    answer = desk.answer({"do": "image", "index": 1})
    assert json.loads(json.dumps(answer, allow_nan=False)) == json.loads(json.dumps(answer))
    view = answer["view"]
    assert view["picture"].startswith("data:image/png;base64,")
    assert [len(level) for level in view["levels"]] == [4, 16]
    assert view["log_p"]["joint"] == view["log_p"]["prior"] + view["log_p"]["likelihood"]
    assert {"z_where_1", "z_what_1"} <= {site["name"] for site in view["sites"]}
    assert json.dumps(desk.answer({"do": "doubts"}), allow_nan=False)


def test_a_change_has_its_log_probability_beside_it(desk):
    first = desk.answer({"do": "image", "index": 1})["view"]["log_p"]
    moved = desk.answer({"do": "act", "name": "nudge", "by": [0.1, 0.1]})["view"]["log_p"]
    assert moved["joint_change"] == pytest.approx(moved["joint"] - first["joint"], abs=1e-3)
    assert moved["likelihood_change"] < -100
    back = desk.answer({"do": "undo"})["view"]
    assert back["log_p"]["joint_change"] == 0 and back["redo"] == 1


def test_a_picture_is_read_saved_and_opened(desk):
    pixels = base64.b64encode(bytes(range(256)) * 36).decode()  # 48 pixels wide, 64 high
    dropped = desk.answer({"do": "drop", "pixels": pixels, "width": 48})
    assert dropped["view"]["input"] and dropped["chosen"] is None
    saved = desk.answer({"do": "save"})
    desk.answer({"do": "image", "index": 0})
    opened = desk.answer({"do": "load", "json": saved["json"]})
    assert opened["view"]["picture"] == dropped["view"]["picture"] == saved["png"]


def test_a_search_is_answered_step_by_step(desk):
    desk.answer({"do": "image", "index": 1})
    answer = desk.answer({"do": "refine", "begin": True, "seconds": 0.2})
    first = answer["found"]["log_p"]
    while answer["found"]:
        last, answer = answer["found"]["log_p"], desk.answer({"do": "refine"})
    assert last >= first
    assert answer["view"]["log_p"]["joint"] == pytest.approx(last, abs=0.05)
    assert desk.answer({"do": "refine"}) == {"error": "The search was stopped."}


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({"do": "nothing"}, "cannot do 'nothing'"),
        ({"do": "__init__"}, "cannot do"),
        ({"do": "image", "index": 99}, "images 0 to 2"),
        ({"do": "image"}, "lacks 'index'"),
        ({"do": "select", "level": 5, "slot": 0}, "no such node"),
        ({"do": "act", "name": "explode"}, "no action 'explode'"),
        ({"do": "drop", "pixels": "!!", "width": 4}, "no picture"),
        ({"do": "drop", "pixels": "AAAA", "width": 0}, "pixels per side"),
        ({"do": "load", "json": "{"}, "no JSON"),
        ({"do": "load", "json": "[]"}, "no scene that the studio saved"),
        ({"do": "show", "run": "nowhere"}, "'nowhere' is no run"),
        ({"do": "compare", "run": "nowhere"}, "'nowhere' is no run"),
    ],
)
def test_a_mistake_is_one_sentence(desk, message, sentence):
    answer = desk.answer(message)
    assert sentence in answer["error"] and answer["error"].endswith(".")
    assert desk.shown == "gsgn-shapes2d" and "view" in desk.answer({"do": "show"})


def test_every_shipped_kind_of_program_is_shown(desk):
    runs = ("vae-mnist4", "econ-sprites_unique")
    for run in runs:
        view = desk.answer({"do": "show", "run": run})["view"]
        assert view["log_p"]["joint"] is not None and view["sites"]
    assert desk.answer({"do": "act", "name": "remove"})["view"]["log_p"]["joint"] is None
    desk.answer({"do": "show", "run": "gsgn-shapes2d"})


def test_a_program_of_ones_own_is_shown_from_its_run_folder(tmp_path):
    (tmp_path / "layers.py").write_text(OWN)
    sizes = ("train.scenes=16", "train.validation_scenes=4", "train.test_scenes=4")
    path, out = str(tmp_path / "layers.py"), tmp_path / "run"
    folder = train(Run(path, out, steps=2, estimator="nvil", set=sizes, device="cpu"))
    own = Desk([str(folder)])
    view = own.answer({"do": "show"})["view"]
    (site,) = view["sites"]
    assert (site["name"], site["kind"], site["count"]) == ("z_pres", "switch", 12)
    switched = {"do": "act", "name": "slide", "site": "z_pres", "index": 3}
    new = own.answer(switched | {"value": 1 - site["values"][3]})["view"]
    assert new["picture"] != view["picture"] and new["log_p"]["joint_change"] != 0
    assert own.answer({"do": "dream"})["view"]["input"] is None
    assert own.answer({"do": "doubts"})["error"].startswith("A dream has no image")
