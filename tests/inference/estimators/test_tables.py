"""What methods say of themselves is what is shown, and what is so."""

import pytest
from judging import BOUNDS, PATHWISE, UNBIASED, in_double  # noqa: F401

import inference.estimators
from inference.estimators import ESTIMATORS, FIELD, estimator, field, markdown, table
from inference.loading import ROOT
from inference.svi import main


def test_the_package_tells_the_table_that_is_printed():
    assert table() in inference.estimators.__doc__


def test_the_readme_shows_the_same():
    text = (ROOT / "inference" / "README.md").read_text(encoding="utf-8")
    assert markdown() in text, "run python -m analysis.results"


def test_the_command_line_prints_it(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--estimator", "help"])
    assert ended.value.code == 0 and capsys.readouterr().out.strip() == table().strip()


def test_every_method_is_in_both_tables_once():
    for name, method in ESTIMATORS.items():
        rows = [line for line in markdown().split("\n") if line.startswith(f"| `{name}` |")]
        assert len(rows) == 1 and method.summary.split("|")[0] in rows[0]
        assert sum(line.split()[:1] == [name] for line in table().split("\n")) == 1


def test_methods_that_claim_no_bias_are_those_that_are_judged_to_have_none():
    claimed = {name for name, method in ESTIMATORS.items() if method.bias.startswith("none")}
    assert claimed - {name.partition(":")[0] for name in BOUNDS} == {
        name.partition(":")[0] for name in UNBIASED
    }
    assert {n.partition(":")[0] for n in PATHWISE}.isdisjoint(claimed)


def test_a_number_is_taken_by_methods_that_say_so():
    for name, method in ESTIMATORS.items():
        if method.takes:
            estimator(f"{name}:3")
        else:
            with pytest.raises(ValueError, match="take a number"):
                estimator(f"{name}:3")


def test_what_stands_for_other_libraries_methods_exists():
    for methods in FIELD.values():
        for method in methods:
            assert set(method.ours) <= ESTIMATORS.keys(), method
            assert method.ours or method.why, method
    text = (ROOT / "inference" / "estimators" / "README.md").read_text(encoding="utf-8")
    assert field() in text, "run python -m analysis.results"


STORCHASTIC = """
GumbelSoftmax GumbelSparseMax GumbelEntmax ScoreFunction Infer Expect Reparameterization RELAX REBAR LAX ARM
DisARM MovingAverageBaseline ScoreFunctionWOR UnorderedSetEstimator UnorderedSetGumbelSoftmax RaoBlackwellSF
"""
GENJAX = """
flip_enum flip_enum_parallel flip_mvd categorical_enum_parallel flip_reinforce geometric_reinforce
normal_reinforce uniform_reinforce normal_reparam uniform_reparam multivariate_normal_diag_reparam
multivariate_normal_reparam multivariate_normal_reinforce reinforce
"""


@pytest.mark.parametrize(("library", "exports"), [("Storchastic", STORCHASTIC), ("GenJAX", GENJAX)])
def test_every_export_of_another_library_has_a_row(library, exports):
    listed = {name for method in FIELD[library] for name in method.names}
    assert set(exports.split()) <= listed
