"""A shipped run tells how it was made, without its author's folders."""

from inference.runs import anywhere

TRAINED = "python -m inference.svi programs/air.py --out /home/me/a --seed 1"
FITTED = "python -m inference.fit_prior /home/me/a --out /home/me/b --set learned=40 --of=20"
FINISHED = (
    "python -m inference.svi programs/air.py --preset doubt --from /home/me/b --out '/home/me/c d'"
)
REFITTED = "python -m inference.fit_prior '/home/me/c d' --out e"


def test_commands_can_be_given_one_after_another():
    first = {"command": TRAINED, "fitted": {"command": FITTED, "priors": []}}
    last = {"command": FINISHED, "fitted": {"command": REFITTED}, "started": first, "seed": 3}
    told = anywhere(last, "air")
    before = told["started"]
    assert [before["command"], before["fitted"]["command"], told["command"]] == [
        "python -m inference.svi programs/air.py --out runs/air-1 --seed 1",
        "python -m inference.fit_prior runs/air-1 --out runs/air-1-fitted --set learned=40 --of=20",
        "python -m inference.svi programs/air.py --preset doubt --from runs/air-1-fitted --out runs/air",
    ]
    refitted = "python -m inference.fit_prior runs/air --out runs/air-fitted"
    assert told["fitted"] == {"command": refitted} and told["seed"] == 3
    assert before["fitted"]["priors"] == []
    assert first["fitted"]["command"] == FITTED and anywhere(told, "air") == told


def test_a_finish_of_a_run_without_a_fit_starts_from_the_run():
    told = anywhere({"command": FINISHED, "started": {"command": TRAINED}}, "air")
    assert "--from runs/air-1 --out runs/air" in told["command"]


def test_a_source_of_which_nothing_is_known_keeps_its_name():
    assert "--from /home/me/b --out runs/air" in anywhere({"command": FINISHED}, "air")["command"]
