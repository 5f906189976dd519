"""Programs in their authors' words, and what a run keeps of them."""

import json
import shutil

import pyro
import pyro.distributions as dist
import pytest
import torch
from classic import make_pictures, train

from analysis.posterior import khat
from analysis.posterior.draws import most_likely
from inference.adapt import Names, find_names
from inference.runs import open_run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("pictures"))


def test_a_file_of_ones_own_called_as_a_program_has_no_recipe_of_it(pictures, tmp_path):
    assert train("vae", pictures, tmp_path) == 0
    assert json.loads((tmp_path / "config.json").read_text())["recipe"]["world"] == "shapes2d"


def test_networks_of_functions_are_saved_whole_and_evaluate_as_trained_ones(pictures, tmp_path):
    assert train("batchnorm", pictures, tmp_path) == 0
    x, means = torch.rand(4, 3, 16, 16), []
    for _ in range(2):
        run = open_run(tmp_path)
        for _ in range(2):
            trace = pyro.poutine.trace(run.guide).get_trace(x)
            means.append(trace.nodes["z"]["fn"].base_dist.loc)
    for mean in means[1:]:
        assert torch.equal(mean, means[0])  # no dropout, and the means of training


def test_the_seed_comes_before_a_files_networks(pictures, tmp_path):
    runs = []
    for k in range(2):
        torch.manual_seed(k)
        assert train("vae", pictures, tmp_path / str(k), "--seed", "3") == 0
        runs.append(open_run(tmp_path / str(k)).guide.state_dict())
    for name, tensor in runs[0].items():
        assert torch.equal(tensor, runs[1][name])


def test_programs_without_observation_or_plate_are_refused_in_words():
    x = torch.rand(4, 1, 2, 2)
    with pytest.raises(ValueError, match="observes nothing"):
        find_names(lambda images: pyro.sample("z", dist.Normal(0.0, 1.0)), x)

    def without(images):
        pyro.sample("x", dist.Normal(torch.zeros_like(images), 1.0).to_event(4), obs=images)

    with pytest.raises(ValueError, match="in no plate of as many"):
        find_names(without, x)


def test_a_plate_of_as_many_pixels_as_images_is_not_taken_for_that_of_the_images():
    def model(images):
        with pyro.plate("rows", 2, dim=-1), pyro.plate("shots", len(images), dim=-2):
            pyro.sample("y", dist.Normal(torch.zeros(len(images), 2), 1.0), obs=images[:, 0, 0])

    assert find_names(model, torch.rand(2, 1, 2, 2)) == Names("shots", "y")


def test_pictures_that_changed_are_not_gone_on_with(pictures, tmp_path, capsys):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    assert train("vae", folder, tmp_path / "run") == 0
    assert train("vae", folder, tmp_path / "run", "--resume") == 0
    (folder / "00.png").unlink()
    assert train("vae", folder, tmp_path / "run", "--resume") == 2
    assert "another pictures" in capsys.readouterr().err


def test_a_training_starts_from_the_weights_of_a_run(pictures, tmp_path, capsys):
    assert train("vae", pictures, tmp_path / "first") == 0
    assert (tmp_path / "first" / "weights.safetensors").is_file()
    more = ("--from", str(tmp_path / "first"), "--set", "train.rate=1e-12", "--log", "csv")
    capsys.readouterr()
    assert train("vae", pictures, tmp_path / "second", *more) == 0
    said = capsys.readouterr().out
    assert f"starts from the weights of {tmp_path / 'first'}" in said
    assert f"pictures of {pictures}, cut square, " in said
    old, new = (open_run(tmp_path / n).guide.state_dict() for n in ("first", "second"))
    for name, tensor in old.items():
        torch.testing.assert_close(new[name], tensor, rtol=0, atol=1e-6)
    assert (tmp_path / "second" / "log.csv").read_text().startswith("step,name,value\n6,loss,")
    assert train("clusters", pictures, tmp_path / "third", *more) == 2
    error = capsys.readouterr().err
    assert "the weights of this run of" in error and "do not fit the program" in error


@pytest.mark.parametrize("scale", [1.0, 300.0, 5000.0])
def test_khat_of_any_weights_is_a_number(scale):
    torch.manual_seed(0)
    for draws in (25, 100):
        found = khat(scale * torch.randn(draws, 3))
        assert not found.isnan().any() and (scale == 1 or (found > 5).all())
    alone = torch.cat([torch.zeros(1), -1000 * torch.arange(1, 25.0)])[:, None]
    assert khat(alone).item() == torch.inf


def test_distributions_without_a_mode_have_a_point_that_stands_for_it():
    loc = torch.randn(5, 3)
    squashed = dist.TransformedDistribution(
        dist.Normal(loc, 1.0), [torch.distributions.SigmoidTransform()]
    )
    torch.testing.assert_close(most_likely(squashed.to_event(1)), loc.sigmoid())
    assert torch.equal(most_likely(dist.Delta(loc).to_event(1)), loc)
    torch.testing.assert_close(most_likely(dist.Uniform(loc, loc + 1)), loc + 0.5)
    parts = dist.Normal(torch.arange(4.0).expand(5, 4), 1.0)
    mixture = dist.MixtureSameFamily(dist.Categorical(logits=torch.eye(5, 4) * 9), parts)
    assert most_likely(mixture).tolist() == [0, 1, 2, 3, 0]
