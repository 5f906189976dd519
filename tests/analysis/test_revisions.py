"""Two revisions by turns: what is compared is what was asked for."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from analysis import benchmark, results, revisions
from inference.loading import ROOT
from inference.plan import Run, plan

GIT = shutil.which("git") and (ROOT / ".git").exists()


def test_the_middle_is_a_median_with_its_error():
    found, error = revisions.middle([1.0, 3.0, 2.0, 5.0, 4.0])
    assert found == 3.0
    assert error == pytest.approx(1.2533 * 1.4826 / 5**0.5)
    assert revisions.middle([2.0] * 4) == (2.0, 0.0)


def test_weights_are_those_of_the_plans_own_variant_and_world():
    of = lambda *words: revisions.weights_of(plan(Run(*words[:1], Path(), **dict(words[1:]))))
    assert of("programs/gsgn.py").parent.name == "gsgn-shapes2d"
    clevr = of("programs/gsgn.py", ("world", "compositional_clevr"))
    assert clevr.parent.name == "gsgn-compositional_clevr"
    assert of("programs/gsgn.py", ("variant", "no_share")) is None


@pytest.mark.skipif(not GIT, reason="needs git and the repository")
def test_a_revision_that_there_is_not_is_named(capsys):
    assert benchmark.main(["programs/air.py", "--revision", "nothing-of-the-kind"]) == 2
    assert "--revision nothing-of-the-kind" in capsys.readouterr().err


@pytest.mark.skipif(not GIT, reason="needs git and the repository")
def test_a_revision_is_unpacked_as_it_was_committed():
    with revisions.checked_out("HEAD") as folder:
        shown = subprocess.run(
            ["git", "show", "HEAD:pyproject.toml"], cwd=ROOT, capture_output=True, text=True
        )
        assert (folder / "pyproject.toml").read_text() == shown.stdout
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.skipif(not GIT, reason="needs git and the repository")
def test_the_tree_beside_its_last_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(revisions, "ROUNDS", 3)
    monkeypatch.setattr(revisions, "STEPS", 1)
    target = tmp_path / "rows.json"
    arguments = ["programs/air.py", "--preset", "tiny", "--revision", "HEAD", "--json", str(target)]
    assert benchmark.main(arguments) == 0
    rows = json.loads(target.read_text())
    assert [row["at"] for row in rows] == ["first step", "air-multi_mnist"]
    for row in rows:
        assert row["ms before"] > 0 and row["ms now"] > 0 and 0.1 < row["ratio"] < 10
        assert 0 < row["share now"] < 1 and row["revision"] == "HEAD"
    monkeypatch.setattr(results, "STEPS", target)
    assert len([line for line in results.steps() if line.startswith("| air |")]) == 2
