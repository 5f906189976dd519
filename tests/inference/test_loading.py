"""Programs found in files: plain functions of one's own train as programs do."""

import json

import pytest
import torch
from training import OWN, equal, train, weights

from analysis import evaluate
from inference.loading import Function
from inference.plan import Run


def test_plain_functions_train_on_a_folder_of_images_and_resume_exactly(tmp_path):
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for i in range(12):
        Image.new("RGB", (20, 16), (i * 20, 100, 50)).save(tmp_path / "pictures" / f"{i}.png")
    path = tmp_path / "own.py"
    path.write_text(OWN)
    common = {"images": tmp_path / "pictures", "batch": 4, "set": ("world.size=8",)}
    run = lambda out, steps, **kw: train(
        Run(str(path), tmp_path / out, steps=steps, **common, **kw)
    )
    run("whole", 30)
    run("parts", 10)
    run("parts", 30, resume=True)
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert weights(tmp_path / "whole")["program.colour"] != 0  # it began there
    assert {"program.colour", "guide.net$$$weight"} <= weights(tmp_path / "whole").keys()
    written = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert evaluate.main([str(tmp_path / "whole"), "--json", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["elbo"] == pytest.approx(written["elbo"]) and again["scenes"] == 12


def test_a_model_that_needs_images_says_how_it_would_be_sampled():
    def scenes(images):
        return images

    program = Function(scenes)
    assert torch.equal(program(torch.ones(2)), torch.ones(2))
    with pytest.raises(ValueError, match=r"write it as scenes\(images=None, batch=1\)"):
        program(batch=3)
