"""What the commands of `analysis` share: files that are checked before the work."""

import argparse
import importlib

import pytest

from analysis.command import new_file

FILES = {
    "evaluate": ["no-run", "--json"],
    "generation": ["no-run", "--json"],
    "calibrate": ["no-run", "--json"],
    "refine": ["no-run", "--json", "--netcdf"],
    "benchmark": ["no-program.py", "--json", "--scaling"],
    "papers.gnm.tables": ["no-run", "--json"],
    "papers.gsgn.mitsuba_scenes": ["--out"],
    "dreams": ["--out"],
}
"""By module, the words that a command needs, and its options for files."""
OPTIONS = [(m, o) for m, words in FILES.items() for o in words if o.startswith("--")]


@pytest.mark.parametrize(("module", "option"), OPTIONS)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(module, option, tmp_path, capsys):
    words = [word for word in FILES[module] if not word.startswith("--")]
    main = importlib.import_module(f"analysis.{module}").main
    assert main([*words, option, str(tmp_path / "nowhere" / "file.png")]) == 2
    assert f"there is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err


def test_a_file_in_a_folder_that_is_there_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert new_file("found.json").name == "found.json"
    assert new_file(str(tmp_path / "found.json")) == tmp_path / "found.json"
    with pytest.raises(argparse.ArgumentTypeError, match="is a folder"):
        new_file(str(tmp_path))
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(argparse.ArgumentTypeError, match="cannot be written"):
        new_file("found.json")
