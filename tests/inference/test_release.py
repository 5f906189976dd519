"""A shipped run tells how it was made, without its author's folders."""

from inference.runs import anywhere

TRAINED = "python -m inference.svi programs/air.py --out /home/me/a --seed 1"
FITTED = "python -m inference.fit_prior /home/me/a --out /home/me/b --set learned=40 --of=20"
FINISHED = (
    "python -m inference.svi programs/air.py --preset doubt --from /home/me/b --out '/home/me/c d'"
)
REFITTED = "python -m inference.fit_prior '/home/me/c d' --out e"


def test_commands_name_the_run_and_its_fit():
    first = {"command": TRAINED, "fitted": {"command": FITTED, "priors": []}}
    last = {"command": FINISHED, "fitted": {"command": REFITTED}, "started": first, "seed": 3}
    told = anywhere(last, "air-digits")
    assert told["command"] == (
        "python -m inference.svi programs/air.py --preset doubt --from runs/fitted --out runs/air-digits"
    )
    refitted = "python -m inference.fit_prior runs/air-digits --out runs/fitted"
    assert told["fitted"] == {"command": refitted} and told["seed"] == 3
    before = told["started"]
    assert (
        before["command"]
        == "python -m inference.svi programs/air.py --out runs/air-digits --seed 1"
    )
    assert before["fitted"] == {
        "command": f"{refitted} --set learned=40 --of=20",
        "priors": [],
    }
    assert first["fitted"]["command"] == FITTED and anywhere(told, "air-digits") == told


def test_a_finish_of_a_run_without_a_fit_starts_from_the_run():
    told = anywhere({"command": FINISHED, "started": {"command": TRAINED}}, "air")
    assert "--from runs/air --out runs/air" in told["command"]
