"""The log: a record per line, without steps that will be run again."""

from inference.log import keep_until, read_log


def test_the_log_forgets_steps_that_will_be_run_again(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 20}\n{"step": 40}\n{"step": 6')
    keep_until(path, 30)
    assert read_log(path) == [{"step": 20}]


def test_a_log_loses_its_damaged_lines_alone(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 2}\n{"step": 4\n[1]\n{"stop": 5}\n\xff\xfe\n{"step": 6}\n{"st')
    assert read_log(path) == [{"step": 2}, {"step": 6}]
