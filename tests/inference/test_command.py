"""How a command's words are read, and what is left of a command that is refused."""

import importlib
import json
import shlex

import pytest

from inference.command import Parser, new_folder, one_of, whole_numbers
from inference.runs import ROOT

REFUSED = {
    "inference.svi programs/gsgn.py --stpes 5": "option --stpes, did you mean --steps?",
    "inference.svi programs/gsgn.py -steps 5": "option -steps, did you mean --steps?",
    "inference.svi gsng": "did you mean programs/gsgn.py?",
    "inference.svi programs/vea.py": "did you mean programs/vae.py?",
    "inference.svi programs/gsgn.py --world shapes2": "did you mean shapes2d?",
    "inference.svi programs/gsgn.py --preset quik": "did you mean quick?",
    "inference.svi programs/gsgn.py --log csvv": "did you mean csv?",
    "inference.svi programs/vae.py --from gsgn-shapes": "did you mean gsgn-shapes2d?",
    "inference.svi programs/gsgn.py --set world.layout=fre": "did you mean free?",
    "inference.svi programs/gsgn.py --set world.max_object=3": "did you mean max_objects?",
    "inference.svi programs/vae.py --set steps=4": "did you mean train.steps?",
    "inference.svi programs/vae.py --set train.scene=4": "did you mean scenes?",
    "inference.svi programs/vae.py --set train.precision=fp32": "known are float32",
    "inference.svi programs/vae.py --set wolrd.size=4": "did you mean world?",
    "inference.svi programs/vae.py --estimator gumble": "did you mean gumbel?",
    "inference.svi programs/vae.py --estimator z*=nvli": "did you mean nvil?",
    "inference.svi programs/vae.py --device cdua": "did you mean cuda?",
    "inference.svi programs/vae.py --variant vea": "did you mean vae?",
    "inference.svi programs/vae.py --images programz": "did you mean programs?",
    "inference.svi programs/vae.py --steps many": "invalid int value: 'many'",
    "inference.svi": "required: PROGRAM.py",
    "inference.search programs/vae.py --seeds 1,x": "expected whole numbers",
    "inference.runs gsgn-shapes2d": "required: target",
    "inference.runs a b": "lacks checkpoint.ckpt",
    "inference.fit_prior gnm-mnist": "did you mean gnm-mnist4?",
    "inference.fit_prior gnm-mnist4 --set lerned=2": "did you mean learned?",
    "analysis.evaluate vae-mnist": "did you mean vae-mnist4?",
    "analysis.evaluate vae-mnist4 --world mnist": "did you mean mnist4?",
    "analysis.report vae-mnist4 --image 3 too": "unexpected 'too'",
    "analysis.compare vae-mnist4 vae-mnist": "did you mean vae-mnist4?",
    "analysis.dreams vae-mnist": "did you mean vae-mnist4?",
    "analysis.generation vae-mnist4 --jason x": "did you mean --json?",
    "analysis.refine vae-mnist4 --chain 1 --sweps 2": "did you mean --sweeps?",
    "analysis.gradients programs/vae.py --estimators nvill": "did you mean nvil?",
    "analysis.gradients programs/vae.py --points 1;2": "expected whole numbers",
    "analysis.benchmark programs/vea.py": "did you mean programs/vae.py?",
    "analysis.results --all": "unknown option --all",
    "analysis.studio.__main__ vae-mnist --port 1": "did you mean vae-mnist4?",
    "analysis.papers.__main__ gsn": "did you mean gsgn?",
    "analysis.papers.__main__ gsgn tabel3": "did you mean table3?",
    "analysis.papers.gnm.tables gnm-mnist4 --symbols mod": "did you mean mode?",
    "analysis.papers.gsgn.ceiling shapes2": "did you mean shapes2d?",
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_word_that_is_unknown_is_refused_with_what_was_meant(line, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    before = {*ROOT.glob("runs*"), *(ROOT / "runs").glob("*")}
    module, *words = shlex.split(line)
    assert importlib.import_module(module).main(words) == 2
    said = capsys.readouterr().err
    assert REFUSED[line] in said and said.startswith("error: ") and said.count("\n") == 1
    assert {*ROOT.glob("runs*"), *(ROOT / "runs").glob("*")} == before


def test_a_run_or_file_of_ones_own_is_meant(tmp_path, capsys, monkeypatch):
    from analysis.evaluate import main as evaluate
    from inference.svi import main as train

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "config.json").write_text("{}")
    (tmp_path / "layers.py").touch()
    (tmp_path / "snow.py").touch()
    for command, words, expected in (
        (evaluate, "first", "runs/first"),
        (evaluate, "runs/frist", "runs/first"),
        (train, "leyers.py", "layers.py"),
        (train, "layer", "layers.py"),
        (train, f"{ROOT}/programs/vae.py --world snwo.py", "/snow.py"),
    ):
        assert command(shlex.split(words)) == 2
        assert f"{expected}? " in capsys.readouterr().err


def test_numbers_abbreviations_and_words_after_two_dashes_are_no_unknown_options():
    a = Parser(prog="x")
    a.add_argument("words", nargs="*")
    a.add_argument("--number", type=float)
    assert a.parse_args(["--num", "-.5"]).number == -0.5
    assert a.parse_args(["--number=-2"]).number == -2
    assert a.parse_args(["-", "--", "--nothing"]).words == ["-", "--nothing"]
    with pytest.raises(ValueError, match="unknown option --nothing"):
        a.parse_args(["--nothing=1"])


def test_types_of_options():
    assert whole_numbers("0,200,") == (0, 200) and one_of("ab", "letter")("a") == "a"


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path):
    (tmp_path / "here").mkdir()
    for end in (ValueError, KeyboardInterrupt):
        with pytest.raises(end), new_folder(tmp_path / "here" / "a" / "b"):
            assert (tmp_path / "here" / "a" / "b").is_dir()
            raise end
        assert not [*(tmp_path / "here").iterdir()]
    with pytest.raises(ValueError), new_folder(tmp_path / "here" / "a" / "b"):
        (tmp_path / "here" / "a" / "kept").touch()
        raise ValueError
    assert [p.name for p in (tmp_path / "here" / "a").iterdir()] == ["kept"]
    with pytest.raises(ValueError, match="cannot write"), new_folder(tmp_path / "here/a/kept/b"):
        pass


MODEL = """
import pyro, torch
import pyro.distributions as dist

def model(images):
    with pyro.plate("data", len(images)):
        {latent}
        pyro.sample("x", dist.Normal(z, 0.3).expand([len(images), 3, 16, 16]).to_event(3), obs=images)

def guide(images):
    with pyro.plate("data", len(images)):
        pyro.sample("z", dist.Normal(torch.zeros(()), pyro.param("s", torch.tensor(1.0))))
"""
LATENTS = {
    "before the first step": 'z = pyro.sample("other", dist.Normal(0.0, 1.0))',
    "in the first step": "z = pyro.sample('z', dist.Normal(0., 1.)).mean() + float('nan')",
}


@pytest.mark.parametrize("when", LATENTS)
def test_a_training_that_is_refused_leaves_nothing(when, tmp_path, capsys):
    from classic import make_pictures

    from inference.svi import main

    (tmp_path / "mine.py").write_text(MODEL.format(latent=LATENTS[when]))
    (tmp_path / "pictures").mkdir()
    words = [str(tmp_path / "mine.py"), "--images", str(make_pictures(tmp_path / "pictures"))]
    words += ["--set", "world.size=16", "--steps", "2"]
    assert main([*words, "--out", str(tmp_path / "new" / "run")]) in (1, 2)
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    assert main([*words, "--out", str(tmp_path / "old"), "--resume"]) in (1, 2)
    assert not [*(tmp_path / "old").iterdir()]


def test_no_other_command_leaves_an_empty_folder(tmp_path, monkeypatch, capsys):
    """Those that make a folder and fail afterwards, with one reason each."""
    from analysis import compare, gradients, report
    from inference import runs

    def fails(*_, **__):
        raise ValueError("refused")

    config = json.loads((ROOT / "programs/trained/vae-mnist4/config.json").read_text())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    (tmp_path / "run" / "checkpoint.ckpt").write_bytes(b"torn")
    monkeypatch.setattr(compare, "write_csv", fails)
    monkeypatch.setattr(gradients, "compared", fails)
    monkeypatch.setattr(report, "written", fails)
    target = str(tmp_path / "new" / "folder")
    assert compare.main(["vae-mnist4", "--out", target]) == 2
    assert report.main(["vae-mnist4", "--images", "1", "--out", target]) == 2
    assert runs.main([str(tmp_path / "run"), target]) == 2
    assert gradients.main(["programs/vae.py", "--preset", "tiny", "--out", target]) == 2
    assert capsys.readouterr().err.count("error: ") == 4
    assert not (tmp_path / "new").exists()
