"""The options that users and scripts rely on stay, under their names."""

import importlib
import re
from pathlib import Path

import pytest

from inference.svi import parse

SVI = "--variant V --preset --world W --images PATH --estimator E --steps N --minutes M --batch B "
SVI += "--seed S --device D --out DIR --resume --set FIELD=VALUE"
FROZEN = {
    "inference.svi": ("PROGRAM.py", SVI),
    "analysis.evaluate": ("RUN", "--world W --scenes N --seed S --json FILE"),
    "analysis.report": ("RUN", "--out DIR"),
    "analysis.gradients": ("PROGRAM.py", "--estimators"),
    "analysis.benchmark": ("[PROGRAM.py", ""),
    "analysis.generation": ("RUN", ""),
    "analysis.refine": (
        "RUN",
        "--scenes N --seed S --chains C --draws K --tempering T --json FILE --netcdf FILE",
    ),
    "analysis.calibrate": (
        "RUN",
        "--scenes N --seed S --draws S --sweeps N --refined N --json FILE",
    ),
    "analysis.papers.__main__": ("[PAPER]", "--train"),
    "analysis.results": ("", ""),
    "analysis.studio.__main__": ("[RUN", "--port P"),
}
"""By module, what is given by its place, and options with what they take."""
MORE = {"inference.svi": {"--from", "--log"}}
"""Options that came later."""


def usage(module, capsys):
    """What a command says of itself, on one line."""
    with pytest.raises(SystemExit) as end:
        importlib.import_module(module).main(["--help"])
    assert end.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("module", FROZEN)
def test_a_command_keeps_its_arguments(module, capsys):
    place, options = FROZEN[module]
    said = usage(module, capsys)
    assert f"python -m {module.removesuffix('.__main__')} " in said and place in said
    for option in re.findall(r"--\w+(?: [A-Z=]+)?", options):
        assert re.search(rf"\[{option}(\]| )", said), option


def test_no_option_of_training_comes_unnoticed(capsys):
    """Another one is named here, and where options are explained."""
    found = set(re.findall(r"\[(--\w+)", usage("inference.svi", capsys)))
    assert found == {*re.findall(r"--\w+", SVI)} | MORE["inference.svi"]


def test_the_default_preset_is_quick_and_a_default_folder_says_variant_and_world():
    run = parse(["programs/gsgn.py"])
    assert (run.preset, run.seed, run.device, run.resume) == ("quick", 0, "auto", False)
    assert run.steps is run.batch is run.estimator is run.world is run.images is None
    assert run.out == Path("runs/gsgn-shapes2d")
    assert parse(["programs/gnm.py", "--preset", "paper"]).out == Path("runs/gnm-mnist10-paper")
    random = parse(["programs/econ.py", "--variant", "econ_random"])
    assert random.out.name == "econ_random-sprites_random"
    assert parse(["programs/denf.py", "--images", "a/b", "--world", "traffic"]).out.name == "denf-b"
