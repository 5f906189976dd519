"""The log: a record per line, without steps that will be run again."""

import csv
import sys
from types import ModuleType

from inference.log import Log, keep_until, read_log


def test_the_log_forgets_steps_that_will_be_run_again(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 20}\n{"step": 40}\n{"step": 6')
    keep_until(path, 30)
    assert read_log(path) == [{"step": 20}]


def test_a_log_loses_its_damaged_lines_alone(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 2}\n{"step": 4\n[1]\n{"stop": 5}\n\xff\xfe\n{"step": 6}\n{"st')
    assert read_log(path) == [{"step": 2}, {"step": 6}]


def test_a_csv_forgets_steps_that_will_be_run_again(tmp_path):
    path = tmp_path / "log.csv"
    log = Log(tmp_path / "log.jsonl", 0, 60, 8, "csv")
    log.note(20, {"f1": 0.5, "odd, name": 0.25})
    log.note(40, {"f1": 0.75})
    with open(path, "a", encoding="utf-8") as file:
        file.write("6")  # torn
    Log(tmp_path / "log.jsonl", 30, 60, 8, "csv").note(40, {"f1": 0.875})
    with open(path, encoding="utf-8", newline="") as file:
        rows = [*csv.reader(file)]
    kept = [["20", "f1", "0.5"], ["20", "odd, name", "0.25"]]
    assert rows == [["step", "name", "value"], *kept, ["40", "f1", "0.875"]]


def test_tensorboard_is_told_which_steps_will_be_run_again(tmp_path, monkeypatch):
    made, module = [], ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = lambda folder, purge_step: made.append((folder, purge_step))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Log(tmp_path / "log.jsonl", 30, 60, 8, "tensorboard")
    assert made == [(str(tmp_path / "tensorboard"), 31)]
